//! What the virtual machine tells by its second serial line: a line for each test program, and one in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::test::Tally;

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Tested {
        name: String,
        tally: Tally,
    },
    /// The machine cannot go on.
    Stopped(String),
    /// All steps were done.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tested { name, tally } => write!(f, "tested {name}: {tally}"),
            Self::Stopped(why) => write!(f, "stopped: {}", why.replace('\n', " ")),
            Self::Done => f.write_str("done"),
        }
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;
    fn from_str(line: &str) -> Result<Self> {
        if line == "done" {
            return Ok(Self::Done);
        }
        if let Some(why) = line.strip_prefix("stopped: ") {
            return Ok(Self::Stopped(why.to_owned()));
        }
        let tested = line.strip_prefix("tested ").and_then(|rest| rest.rsplit_once(": "));
        let (name, tally) = tested.with_context(|| format!("the virtual machine told: {line}"))?;
        Ok(Self::Tested { name: name.to_owned(), tally: tally.parse()? })
    }
}

/// All lines together.
#[derive(Debug)]
pub struct Report {
    tallies: BTreeMap<String, Tally>,
    /// Why it has no end.
    pub stopped: Option<String>,
}

impl Report {
    pub fn read(text: &str) -> Result<Self> {
        let mut report = Self { tallies: BTreeMap::new(), stopped: Some("it did not say why".to_owned()) };
        // A last line without an end was cut off.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.trim_end().parse()? {
                Line::Tested { name, tally } => drop(report.tallies.insert(name, tally)),
                Line::Stopped(why) => report.stopped = Some(why),
                Line::Done => report.stopped = None,
            }
        }
        Ok(report)
    }

    pub fn of(&self, name: &str) -> Option<Tally> {
        self.tallies.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLY: Tally = Tally { passed: 12, failed: 3, skipped: 1 };

    #[test]
    fn what_is_told_is_understood() {
        let lines = [
            Line::Tested { name: "drivers/steer/src/lib.rs".to_owned(), tally: TALLY },
            Line::Stopped("no such module: veth".to_owned()),
            Line::Done,
        ];
        for line in lines {
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }
        assert!("tested well".parse::<Line>().is_err());
    }

    #[test]
    fn a_report_that_breaks_off_is_none() {
        let whole = "tested a.rs: 12 passed, 3 failed, 1 skipped\r\ndone\r\n";
        let report = Report::read(whole).unwrap();
        assert_eq!((report.of("a.rs"), report.of("b.rs")), (Some(TALLY), None));
        assert_eq!(report.stopped, None);
        assert!(Report::read(&whole[..whole.len() - 3]).unwrap().stopped.is_some());
        assert!(Report::read(&whole[..20]).unwrap().of("a.rs").is_none());
    }
}

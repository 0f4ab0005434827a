//! What the virtual machine is to do, as a file in it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Load the kernel module in this file.
    Load(String),
    /// Run the test program of this name, with these arguments.
    Test(String, Vec<String>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(path) => write!(f, "load {path}"),
            Self::Test(name, arguments) => {
                write!(f, "test {name}")?;
                arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
            }
        }
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(' ').with_context(|| format!("not a step: {text}"))? {
            ("load", path) => Ok(Self::Load(path.to_owned())),
            ("test", call) => {
                let mut words = call.split(' ').map(str::to_owned);
                Ok(Self::Test(words.next().context("a step without a name")?, words.collect()))
            }
            _ => bail!("not a step: {text}"),
        }
    }
}

pub fn write(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

pub fn read(text: &str) -> Result<Vec<Step>> {
    text.lines().map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_and_understood() {
        let steps = [
            Step::Load("/modules/veth.ko".to_owned()),
            Step::Test("src/lib.rs".to_owned(), Vec::new()),
            Step::Test("tests/kernel/main.rs".to_owned(), vec!["chain".to_owned(), "tunnel".to_owned()]),
        ];
        assert_eq!(read(&write(&steps)).unwrap(), steps);
        assert!(read("dance wildly\n").is_err());
    }
}

//! `cargo xtask test`: every test there is.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::story::engine::Engine;
use crate::workspace::{Profile, build_catena, cargo, root};
use crate::{apt, command, demo};

/// How many passed, how many did not, and how often a test said that it cannot be run here, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Tally {
    /// Before the line in which one program tells another.
    pub const PREFIX: &str = "tally: ";

    pub fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

impl FromStr for Tally {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut tally = Self::default();
        for part in text.split(", ") {
            let (number, what) = part.split_once(' ').context("not a tally")?;
            let number = number.parse().context("not a tally")?;
            match what {
                "passed" => tally.passed = number,
                "failed" => tally.failed = number,
                "skipped" => tally.skipped = number,
                _ => bail!("not a tally: {text}"),
            }
        }
        Ok(tally)
    }
}

/// `long` for what takes minutes, too.
pub fn test(long: bool) -> Result<()> {
    apt::install()?;
    apt::need_root()?;
    let catena = build_catena(Profile::Debug)?;
    let mut tally = Tally::default();
    if long {
        let million =
            ["test", "--release", "-p", "catena-driver-steer", "--lib", "--", "--ignored", "million"];
        tally.add(tests(&million)?);
        let differential =
            ["test", "-p", "catena", "--test", "differential", "--", "--ignored", "--nocapture"];
        tally.add(tests(&differential)?);
    }
    tally.add(tests(&["test", "--workspace", "--no-fail-fast"])?);
    tally.add(examples(&catena)?);
    for engine in Engine::value_variants() {
        println!("\nthe story with engine {}", engine.name());
        tally.add(demo::tell(&catena, *engine)?);
    }
    println!("\ntest: {tally}");
    println!("`cargo xtask test --vm` tests on the distribution's own kernel, and against its GRE");
    if tally.failed > 0 {
        bail!("{} of {} failed; the first is furthest up", tally.failed, tally.passed + tally.failed);
    }
    Ok(())
}

/// Runs cargo, which runs tests.
fn tests(arguments: &[&str]) -> Result<Tally> {
    let mut tests = cargo();
    tests.args(arguments).stdout(Stdio::piped());
    let mut running = tests.spawn().context("cannot run cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(running.stdout.take().context("cargo has no output")?).lines() {
        let line = line.context("cannot read what cargo prints")?;
        println!("{line}");
        tally.add(counted(&line).unwrap_or_default());
    }
    let status = running.wait().context("cannot wait for cargo")?;
    if !status.success() && tally.failed == 0 {
        // A test that did not compile, or died: cargo has counted nothing.
        tally.failed = 1;
    }
    Ok(tally)
}

/// Why a test cannot be run here, if this line says that.
pub fn skipped(line: &str) -> Option<&str> {
    // Where one test runs at a time, its name stands before it.
    Some(line.split_once("SKIPPED: ")?.1)
}

/// What a line such as `test result: ok. 4 passed; 0 failed; …` counts, or one that says why a test is skipped.
pub fn counted(line: &str) -> Option<Tally> {
    if skipped(line).is_some() {
        return Some(Tally { skipped: 1, ..Tally::default() });
    }
    let (_, result) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        result.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok()).unwrap_or(0)
    };
    Some(Tally { passed: number("passed"), failed: number("failed"), skipped: 0 })
}

/// Every folder of examples is valid, and stands on a lab as it is.
fn examples(catena: &Path) -> Result<Tally> {
    let mut tally = Tally::default();
    println!("\nexamples");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root().join("examples"))
        .context("cannot read examples/")?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.is_dir()))
        .collect();
    folders.sort();
    for folder in folders {
        let name = folder.strip_prefix(root()).unwrap_or(&folder).display().to_string();
        let mut validate = Command::new(catena);
        validate.arg("validate").arg("-f").arg(&folder);
        let mut apply = Command::new(catena);
        apply.args(["lab", "run", "-f"]).arg(&folder).arg("--").arg(catena);
        apply.args(["apply", "--local", "-f"]).arg(&folder);
        for (what, mut command) in [("is valid", validate), ("stands as it is", apply)] {
            match command::read(&format!("{name} {what}"), &mut command) {
                Ok(_) => {
                    println!("  ✓ {name} {what}");
                    tally.passed += 1;
                }
                Err(error) => {
                    println!("  ✗ {name} {what}: {error:#}");
                    tally.failed += 1;
                }
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(counted(line), Some(Tally { passed: 12, failed: 3, skipped: 0 }));
        assert_eq!(counted("running 3 tests"), None);
    }

    #[test]
    fn what_is_skipped_is_counted_with_its_reason() {
        let line = "test tunnel::interop ... SKIPPED: this kernel has no ip_gre";
        assert_eq!(skipped(line), Some("this kernel has no ip_gre"));
        assert_eq!(counted(line), Some(Tally { passed: 0, failed: 0, skipped: 1 }));
    }

    #[test]
    fn a_tally_is_told_and_understood() {
        for tally in [Tally { passed: 12, failed: 3, skipped: 0 }, Tally { passed: 0, failed: 0, skipped: 2 }]
        {
            assert_eq!(tally.to_string().parse::<Tally>().unwrap(), tally);
        }
        assert!("12 passes".parse::<Tally>().is_err());
        assert!("".parse::<Tally>().is_err());
    }
}

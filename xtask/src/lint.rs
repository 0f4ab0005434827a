//! `cargo xtask lint`: formatting, clippy, and the licences of what we depend on.

use anyhow::Result;

use crate::workspace::cargo;
use crate::{apt, command};

pub fn lint() -> Result<()> {
    apt::install()?;
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    if command::is_there("cargo-deny") {
        // Advisories need the network; these do not.
        command::run(cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    } else {
        println!("cargo-deny is not installed: licences and sources of dependencies were not checked");
    }
    Ok(())
}

//! Where things are: the sources, and what has been built from them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

pub fn root() -> &'static Path {
    // The manifest's folder is below the workspace's.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo, at work on this workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Debug,
    Release,
}

/// This very program, to be started again.
pub fn own_program() -> Result<PathBuf> {
    let running = std::env::current_exe().context("cannot tell where this program is")?;
    // Cargo may have built it anew since, from the same sources; then the kernel says so after the path (proc(5)).
    let path = running.to_string_lossy();
    Ok(path.strip_suffix(" (deleted)").map_or_else(|| running.clone(), PathBuf::from))
}

/// Builds `catena` and says where it is.
pub fn build_catena(profile: Profile) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--package", "catena"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    command::run(&mut build)?;
    // Cargo puts this program and that one into the same folder, one for each profile, wherever that is.
    let this = own_program()?;
    let built = this.ancestors().nth(2).context("this program is not in a target folder")?;
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    Ok(built.join(folder).join("catena"))
}

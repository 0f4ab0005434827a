//! How fast the steering engine is. The measuring is a benchmark of its driver's (`drivers/steer/benches/steer`), with
//! what that needs to be compiled; this finds the tools for it and runs it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::{apt, command, workspace};

#[derive(Args)]
pub struct Steer {
    /// Where the figures go: each with its 95 % interval, its bar, and what was measured of either side
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Fewer and shorter slices: wider intervals
    #[arg(long)]
    quick: bool,
    /// These figures alone, and those that come with them
    #[arg(long, value_name = "KEY")]
    only: Vec<String>,
}

pub fn steer(steer: &Steer) -> Result<()> {
    apt::install()?;
    apt::need_root()?;
    // Cargo runs a benchmark in its package's folder.
    let json = std::path::absolute(&steer.json).context("cannot tell where the figures go")?;
    let svg = target()?.join("bench/steer.svg");
    let mut bench = workspace::cargo();
    bench.args(["bench", "--quiet", "--package", "catena-driver-steer", "--bench", "steer", "--"]);
    bench.arg("--json").arg(&json).arg("--svg").arg(&svg);
    if steer.quick {
        bench.arg("--quick");
    }
    for key in &steer.only {
        bench.arg("--only").arg(key);
    }
    command::run(&mut bench)?;
    println!("figures: {}\npicture: {}", json.display(), svg.display());
    Ok(())
}

/// The folder that everything is built in.
fn target() -> Result<PathBuf> {
    let this = workspace::own_program()?;
    this.ancestors().nth(2).map(Path::to_owned).context("this program is not in a target folder")
}

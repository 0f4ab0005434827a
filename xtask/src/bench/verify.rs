//! What proving chains costs, and whether damage is found. The measuring is a benchmark of the verifier's own
//! (`crates/verify/benches/verify.rs`), with the worlds of its tests; this runs it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::{command, workspace};

#[derive(Args)]
pub struct Verify {
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// A tenth of the tenants, edits and mutants: to try things out
    #[arg(long)]
    quick: bool,
}

pub fn verify(verify: &Verify) -> Result<()> {
    // Cargo runs a benchmark in its package's folder.
    let json = std::path::absolute(&verify.json).context("cannot tell where the figures go")?;
    let mut bench = workspace::cargo();
    bench.args(["bench", "--quiet", "--package", "catena-verify", "--bench", "verify", "--"]);
    bench.arg("--json").arg(&json);
    if verify.quick {
        bench.arg("--quick");
    }
    command::run(&mut bench)?;
    println!("figures: {}", json.display());
    Ok(())
}

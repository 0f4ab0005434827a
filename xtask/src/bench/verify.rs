//! What proving chains costs, whether damage is found, and whether packets go where the verifier says. The measuring is a
//! benchmark of the verifier's own (`crates/verify/benches/verify.rs`), with the worlds of its tests; what is sent through real
//! networks is a test of the program's (`crates/catena/tests/differential`). This runs both.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{apt, command, workspace};

#[derive(Args)]
pub struct Verify {
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// A tenth of the tenants, edits, mutants and networks: to try things out
    #[arg(long)]
    quick: bool,
}

pub fn verify(verify: &Verify) -> Result<()> {
    apt::install()?;
    apt::need_root()?;
    let scratch = tempfile::tempdir().context("cannot make a folder for counts")?;
    let counts = scratch.path().join("differential.json");
    differential(&counts, verify.quick)?;
    // Cargo runs a benchmark in its package's folder.
    let json = std::path::absolute(&verify.json).context("cannot tell where the figures go")?;
    let mut bench = workspace::cargo();
    bench.args(["bench", "--quiet", "--package", "catena-verify", "--bench", "verify", "--"]);
    bench.arg("--json").arg(&json).arg("--differential").arg(&counts);
    if verify.quick {
        bench.arg("--quick");
    }
    command::run(&mut bench)?;
    println!("figures: {}", json.display());
    Ok(())
}

/// Packets through random networks, built for real: 10,000 through 200, or with `quick` 400 through 20.
fn differential(counts: &Path, quick: bool) -> Result<()> {
    let name = match quick {
        true => "packets_go_where_the_verifier_says",
        false => "packets_go_where_the_verifier_says_in_many_networks",
    };
    let mut test = workspace::cargo();
    test.args(["test", "--quiet", "--package", "catena", "--test", "differential", "--"]);
    test.args(["--exact", name, "--include-ignored", "--nocapture"]);
    test.env("CATENA_DIFFERENTIAL_JSON", counts)
        .env_remove("CATENA_DIFFERENTIAL_SEED")
        .env_remove("CATENA_DIFFERENTIAL");
    let run = command::run(&mut test);
    match (counts.exists(), run) {
        // Whoever disagrees is counted.
        (true, _) => Ok(()),
        (false, Err(error)) => Err(error.context("no packets were sent through real networks")),
        (false, Ok(())) => {
            bail!("no packets were sent through real networks: `{}` ran no test", command::shown(&test))
        }
    }
}

//! `cargo xtask bench`: figures, as JSON.

mod apply;
mod render;
mod steer;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::Value;

#[derive(Subcommand)]
pub enum Bench {
    /// Apply and delete the paper's chain again and again: milliseconds from the request to the answer
    Apply {
        /// Where the figures go: p50_ms, p99_ms, n
        #[arg(long, value_name = "FILE")]
        json: PathBuf,
        /// How often
        #[arg(long, default_value_t = 100)]
        n: usize,
    },
    /// Validate and render many tenants on one core
    Render {
        /// With one site and one chain each
        #[arg(long, default_value_t = 10_000)]
        tenants: u32,
        /// Where the figures go: validate_ms, render_ms, peak_mib
        #[arg(long, value_name = "FILE")]
        json: PathBuf,
    },
    /// Forwarding by the steering engine beside what it is compared with: a table, JSON, and a picture below target/bench
    Steer(steer::Steer),
    /// Proving the chains of many tenants on one core, all at once and edit by edit, and finding damage
    Verify(verify::Verify),
    /// What `apply` runs in its lab
    #[command(hide = true)]
    ApplyInside { catena: PathBuf, n: usize },
}

pub fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Apply { json, n } => write(&json, &apply::apply(n)?),
        Bench::Render { tenants, json } => write(&json, &render::render(tenants)?),
        Bench::Steer(arguments) => steer::steer(&arguments),
        Bench::Verify(arguments) => verify::verify(&arguments),
        Bench::ApplyInside { catena, n } => apply::inside(&catena, n),
    }
}

fn write(file: &Path, figures: &Value) -> Result<()> {
    println!("{figures}");
    std::fs::write(file, format!("{figures}\n")).with_context(|| format!("cannot write {}", file.display()))
}

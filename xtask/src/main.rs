//! The project's own chores: demo, test, bench, lint. Run them as `cargo xtask NAME`.
//!
//! It uses Catena as people do, through the `catena` program, and knows none of its crates. Start reading at [`Chore`];
//! the story that `demo` and `test` tell is in [`story`].

mod apt;
mod bench;
mod command;
mod demo;
mod lint;
mod progress;
mod story;
mod test;
mod vm;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use clap::{Parser, Subcommand};

use story::engine::Engine;

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the paper's world and tell its story with real traffic
    Demo {
        /// Build the world once more in the end, leave it up, and say what to try there
        #[arg(long, conflicts_with = "engine")]
        keep: bool,
        /// By what means the elements route
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
    },
    /// Run all tests, the examples and the demo's story
    Test {
        /// Instead, run the drivers' tests on the distribution's own kernel, in an emulated machine
        #[arg(long)]
        vm: bool,
        /// Before that, a million random frames through the steering engine
        #[arg(long, conflicts_with = "vm")]
        long: bool,
        /// With --vm: only tests whose names contain one of these
        #[arg(requires = "vm")]
        filters: Vec<String>,
    },
    /// Check formatting, run clippy with warnings as errors, check licences where cargo-deny is installed
    Lint,
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// What `demo` runs in its lab
    #[command(hide = true)]
    Story {
        catena: PathBuf,
        #[arg(long, value_enum, default_value_t)]
        engine: Engine,
    },
    /// What the story runs on a user's host
    #[command(hide = true)]
    Talk(story::talk::Talk),
    /// What the virtual machine starts with
    #[command(hide = true)]
    Guest,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    match chore {
        Chore::Demo { keep, engine } => demo::demo(keep, engine),
        Chore::Test { vm: false, long, .. } => test::test(long),
        Chore::Test { vm: true, filters, .. } => vm::test(&filters),
        Chore::Lint => lint::lint(),
        Chore::Bench(bench) => bench::run(bench),
        Chore::Story { catena, engine } => {
            let tally = story::tell(&catena, engine)?;
            println!("{}{tally}", test::Tally::PREFIX);
            if tally.failed > 0 {
                bail!("failed checks: {}", tally.failed);
            }
            Ok(())
        }
        Chore::Talk(talk) => story::talk::run(&talk),
        Chore::Guest => vm::guest::run(),
    }
}

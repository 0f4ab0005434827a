//! The project's own chores: demo, test, bench, lint. Run them as `cargo xtask NAME`.
//!
//! It uses Catena as people do, through the `catena` program, and knows none of its crates. Start reading at [`Chore`];
//! the story that `demo` and `test` tell is in [`story`].

mod apt;
mod command;
mod lint;
mod progress;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check formatting, run clippy with warnings as errors, check licences where cargo-deny is installed
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Lint => lint::lint(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The `catena` program: the daemon, the command line that asks it, and the lab.
//!
//! The only place that names concrete drivers ([`drivers`], and the library beside it). All else of the command line knows nothing but the API's
//! questions and answers; whether a daemon answers them or this very process is decided in [`client`]. Start reading at
//! [`arguments`], then [`commands`].

mod arguments;
mod client;
mod commands;
mod drivers;
mod error;
mod lab_environment;
mod output;
mod sources;

use std::io::stderr;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(&arguments);
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprint!("{}", error.shown());
            error.exit_code()
        }
    }
}

/// The daemon says what it changes; a command says it in its answer.
fn log_to_stderr(arguments: &Arguments) {
    let default = if matches!(arguments.command, arguments::Command::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(anstream::AutoStream::choice(&stderr()) != anstream::ColorChoice::Never)
        .init();
}

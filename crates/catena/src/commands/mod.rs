//! The commands: each asks one question and prints the answer.

mod apply;
mod counters;
mod describe;
mod events;
mod explain;
mod get;
mod lab;
mod replay;
mod serve;
mod status;
mod top;
mod trace;
mod validate;
pub mod verify;

use std::future::Future;
use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::error::CliError;

pub fn run(arguments: Arguments) -> Result<ExitCode, CliError> {
    let connection = &arguments.connection;
    match arguments.command {
        Command::Validate(arguments) => validate::validate(&arguments)?,
        Command::Plan(arguments) => wait(apply::plan(connection, &arguments))?,
        Command::Apply(arguments) => wait(apply::apply(connection, &arguments))?,
        Command::Delete(arguments) => wait(apply::delete(connection, &arguments))?,
        Command::Get(arguments) => wait(get::get(connection, &arguments))?,
        Command::Describe(arguments) => wait(describe::describe(connection, &arguments))?,
        Command::Explain(arguments) => wait(explain::explain(connection, &arguments))?,
        Command::Top(arguments) => wait(top::top(connection, &arguments))?,
        Command::Trace(arguments) => wait(trace::trace(connection, &arguments))?,
        Command::Verify(arguments) => return verify::verify(connection, &arguments),
        Command::Status(output) => wait(status::status(connection, output))?,
        Command::Events(arguments) => wait(events::events(connection, &arguments))?,
        Command::Serve(arguments) => wait(serve::serve(connection, &arguments))?,
        Command::Lab(command) => return lab::lab(command),
    }
    Ok(ExitCode::SUCCESS)
}

fn wait<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?
        .block_on(work)
}

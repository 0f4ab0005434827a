//! `lab`: networks in namespaces, and commands in them.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use catena_lab::{LabName, LabSpec, Progress, RunningLab};
use serde::Serialize;

use crate::arguments::{self, Network};
use crate::error::CliError;
use crate::lab_environment;
use crate::output::{self, FAINT, Table, styled};

pub fn lab(command: arguments::Lab) -> Result<ExitCode, CliError> {
    match command {
        arguments::Lab::Run { network, command } => {
            let code = catena_lab::run(&spec(network, None)?, &or_shell(command))?;
            return Ok(ExitCode::from(code));
        }
        arguments::Lab::Up { network, name } => {
            let lab = catena_lab::up(&spec(network, name)?)?;
            output::print(&format!(
                "lab {lab} is up\n  catena lab exec {lab} -- ip netns list   what is in it\n  \
                 catena lab down {lab}                    takes it down\n"
            ))?;
        }
        arguments::Lab::Exec { lab, node, command } => {
            let environment = lab_environment::variables();
            let code = catena_lab::exec(&name(&lab)?, node.as_ref(), &environment, &or_shell(command))?;
            return Ok(ExitCode::from(code));
        }
        arguments::Lab::List(format) => {
            let labs: Vec<Listed> = catena_lab::list()?.into_iter().map(Listed::from).collect();
            output::answer(format.output, &labs, |labs| shown(labs))?;
        }
        arguments::Lab::Down { lab } => {
            catena_lab::down(&name(&lab)?)?;
            output::print(&format!("lab {lab} is down\n"))?;
        }
        arguments::Lab::Init { arguments } => {
            return Ok(ExitCode::from(catena_lab::init(arguments, &tell)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn spec(network: Network, given: Option<String>) -> Result<LabSpec, CliError> {
    let name = given.as_deref().map(name).transpose()?;
    Ok(LabSpec { file: network.file, name, env: lab_environment::variables() })
}

fn name(text: &str) -> Result<LabName, CliError> {
    text.parse().map_err(|reason| CliError::LabName { name: text.to_owned(), reason })
}

fn or_shell(command: Vec<OsString>) -> Vec<OsString> {
    if command.is_empty() {
        vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())]
    } else {
        command
    }
}

/// Standard output belongs to the command.
fn tell(progress: Progress) {
    match progress {
        Progress::Setup { .. } | Progress::Service { .. } | Progress::Connected => {
            tracing::info!("{progress}");
        }
        Progress::ServiceEnded { .. } => tracing::warn!("{progress}"),
        Progress::Read { .. } | Progress::Ready { .. } => {
            anstream::eprintln!("{}", styled(FAINT, progress));
        }
    }
}

/// A lab that is up.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: LabName,
    file: std::path::PathBuf,
    up_seconds: u64,
    /// Of its first process.
    pid: i32,
}

impl From<RunningLab> for Listed {
    fn from(lab: RunningLab) -> Self {
        let up = SystemTime::now().duration_since(lab.since).unwrap_or(Duration::ZERO);
        Self { name: lab.name, file: lab.file, up_seconds: up.as_secs(), pid: lab.pid }
    }
}

fn shown(labs: &[Listed]) -> String {
    let mut table = Table::new(["LAB", "FILE", "UP", "PID"]);
    for lab in labs {
        let up = format!("{}s", lab.up_seconds);
        table.row([(&lab.name).into(), lab.file.display().into(), up.into(), lab.pid.into()]);
    }
    if table.is_empty() { "no lab is up\n".to_owned() } else { table.to_string() }
}

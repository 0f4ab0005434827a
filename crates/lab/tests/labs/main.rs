//! Labs, built for real. A lab's first process is this executable again, so `main` is ours, and so are the ways in.

mod life;
mod world;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use catena_lab::{LabError, LabSpec};
use libtest_mimic::{Arguments, Failed};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
    match words[..] {
        ["lab", "init", ..] => exit(catena_lab::init(arguments.into_iter().skip(2), &|told| {
            eprintln!("{told}");
        })),
        ["lab", "run", file, ..] => {
            let spec = LabSpec { file: PathBuf::from(file), name: None, env: Vec::new() };
            exit(catena_lab::run(&spec, &arguments[3..]))
        }
        _ => {
            let trials = life::trials().into_iter().chain(world::trials()).collect();
            libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
        }
    }
}

fn exit(result: Result<u8, LabError>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// `lab run FILE SCRIPT`, as a process of its own; the script is run by `sh -e` and has `on NODE COMMAND…`.
fn lab_run(file: &Path, script: &str) -> Command {
    let mut lab = Command::new("/proc/self/exe");
    lab.args(["lab", "run"]).arg(file).args(["sh", "-e", "-c", &format!("{ON}\n{script}")]);
    lab.stdin(Stdio::null());
    lab
}

const ON: &str = r#"on() { node="$1"; shift; nsenter --net="/run/netns/$node" "$@"; }"#;

/// Runs a script in a lab; it must succeed. Gives back what it wrote.
fn succeeds(file: &Path, script: &str) -> Result<String, Failed> {
    let output = lab_run(file, script).output()?;
    if output.status.success() { Ok(stdout(&output)) } else { Err(told(&output).into()) }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    format!("{}\nstdout:\n{}\nstderr:\n{said}", output.status, stdout(output))
}

/// Fails a trial unless `condition` holds.
fn ensure(condition: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(otherwise.into().into()) }
}

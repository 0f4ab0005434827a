//! Scripts that are run within labs: `$CATENA` is the program.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a script in a lab with the network of this folder, which is where it begins, too. It ends at the first command that fails.
pub fn run(folder: impl AsRef<Path>, script: &str) -> Output {
    let catena = env!("CARGO_BIN_EXE_catena");
    let mut lab = Command::new(catena);
    lab.args(["lab", "run", "-f", "network.yaml", "--", "sh", "-e", "-c", script]).current_dir(folder);
    lab.env("CATENA", catena).env_remove("RUST_LOG").stdin(Stdio::null());
    lab.output().unwrap()
}

/// All that was printed, and how it ended: to be shown when a test fails.
pub fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

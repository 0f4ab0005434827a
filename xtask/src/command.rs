//! Running other programs: in sight of the person, or with the output kept for us.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress::Waiting;

/// Runs `command` with its output going where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs `command` and gives back what it prints. Its output is shown only if it fails.
pub fn read(what: &str, command: &mut Command) -> Result<String> {
    let output = output(what, command)?;
    if !output.status.success() {
        bail!("`{}` failed ({}){}", shown(command), output.status, indented(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` whatever comes of it.
pub fn output(what: &str, command: &mut Command) -> Result<Output> {
    let _waiting = Waiting::for_(what);
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{}`", shown(command)))
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut text = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let plain = !argument.is_empty()
            && !argument.contains(|c: char| c.is_whitespace() || "\"'$*?;|&".contains(c));
        let quoted =
            if plain { argument.into_owned() } else { format!("'{}'", argument.replace('\'', r"'\''")) };
        text.push(' ');
        text.push_str(&quoted);
    }
    text
}

/// What a program said, each line set in.
pub fn indented(output: &Output) -> String {
    let mut text = String::new();
    for line in
        String::from_utf8_lossy(&output.stdout).lines().chain(String::from_utf8_lossy(&output.stderr).lines())
    {
        // Writing to a string does not fail.
        let _ = write!(text, "\n      {line}");
    }
    text
}

/// Whether a program of this name can be run.
pub fn is_there(program: &str) -> bool {
    find(program).is_some()
}

/// Where the program of this name is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where administration programs are, also when a user's PATH does not say so.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_they_would_be_typed() {
        let mut command = Command::new("/usr/bin/printf");
        command.args(["%s", "two words", "it's"]);
        assert_eq!(shown(&command), r"printf %s 'two words' 'it'\''s'");
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error =
            read("trying", Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("out") && text.contains("err") && text.contains("exit status: 3"), "{text}");
    }
}

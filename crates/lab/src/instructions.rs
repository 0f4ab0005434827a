//! What the lab's first process is told: its command line, written by `launch` and read by `init`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::LabError;
use crate::registry::Process;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instructions {
    pub file: PathBuf,
    pub env: Vec<(OsString, OsString)>,
    pub life: Life,
}

/// For how long the lab lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// As long as its command, and no longer than the process that started it.
    Command { parent: Process, command: Vec<OsString> },
    /// Until it is told to end.
    Detached,
}

impl Instructions {
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--file".into(), self.file.clone().into_os_string()];
        for (name, value) in &self.env {
            let assignment = [name.as_bytes(), b"=", value.as_bytes()].concat();
            arguments.extend(["--env".into(), OsString::from_vec(assignment)]);
        }
        match &self.life {
            Life::Detached => arguments.push("--detached".into()),
            Life::Command { parent, command } => {
                arguments.extend(["--parent".into(), parent.to_string().into(), "--".into()]);
                arguments.extend(command.iter().cloned());
            }
        }
        arguments
    }

    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, LabError> {
        Self::read(arguments.into_iter()).ok_or(LabError::NotForPeople)
    }

    fn read(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut file, mut env, mut parent) = (None, Vec::new(), None);
        let life = loop {
            match arguments.next()?.to_str()? {
                "--file" => file = Some(arguments.next()?.into()),
                "--env" => env.push(split_assignment(arguments.next()?)?),
                "--parent" => parent = Some(arguments.next()?.to_str()?.parse().ok()?),
                "--detached" => break Life::Detached,
                "--" => break Life::Command { parent: parent?, command: arguments.collect() },
                _ => return None,
            }
        };
        Some(Self { file: file?, env, life })
    }
}

/// The first `=` ends the name: names have none, values may.
fn split_assignment(assignment: OsString) -> Option<(OsString, OsString)> {
    let bytes = assignment.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=')?;
    Some((OsString::from_vec(bytes[..end].to_vec()), OsString::from_vec(bytes[end + 1..].to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let command = ["sh", "-c", "--", "--env"].map(OsString::from).to_vec();
        let parent = Process { pid: 42, started: 4711 };
        for life in [Life::Detached, Life::Command { parent, command }] {
            let written = Instructions {
                file: "some network.yaml".into(),
                env: vec![("A".into(), "b=c d".into()), ("E".into(), "".into())],
                life,
            };
            assert_eq!(Instructions::from_arguments(written.to_arguments()).unwrap(), written);
        }
    }

    #[test]
    fn a_person_is_told_whose_it_is() {
        for words in [&["--help"][..], &[], &["--file", "x.yaml", "--", "true"]] {
            let arguments = words.iter().map(OsString::from);
            assert!(matches!(Instructions::from_arguments(arguments), Err(LabError::NotForPeople)));
        }
    }
}

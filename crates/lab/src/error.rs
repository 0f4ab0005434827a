//! Why there is no lab, or not the one that was asked for.

use std::io;
use std::path::PathBuf;

use catena_model::name::{NameError, NodeName};
use catena_model::resource::Diagnostic;

use crate::LabName;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("a lab makes network namespaces, which takes root; run this again by sudo")]
    NotRoot,
    #[error("{program} is not installed; {}", how_to_install(package))]
    NotInstalled { program: String, package: Option<&'static str> },
    #[error("{} cannot be read", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What is wrong with the file, each with its place.
    #[error("{}", listed(.0))]
    Invalid(Vec<Diagnostic>),
    #[error("no lab can be named after the file {}; give it a name by --name", file.display())]
    NoName {
        file: PathBuf,
        #[source]
        source: NameError,
    },
    #[error("two nodes are both to be the network namespace {netns}: {first} and {second}; rename one")]
    SameNetns { netns: String, first: NodeName, second: NodeName },
    #[error("{node}: `{command}` failed: {output}")]
    Connect { node: String, command: String, output: String },
    #[error("{}{host}: the setup command `{command}` failed ({status}){}", at(place), indented(output))]
    Setup { place: Option<String>, host: NodeName, command: String, status: String, output: String },
    #[error("{}{host}: the service `{command}` ended at once ({status}){}", at(place), indented(log_end))]
    Service { place: Option<String>, host: NodeName, command: String, status: String, log_end: String },
    #[error("there is a lab {0} already; `catena lab down {0}` ends it, --name gives this one another name")]
    Taken(LabName),
    #[error("there is no lab {0}; `catena lab list` shows those that there are")]
    NoLab(LabName),
    #[error("there is no node {node} in the lab {lab}; it has {}", names.join(", "))]
    NoNode { lab: LabName, node: NodeName, names: Vec<String> },
    #[error("{command} cannot be started in the lab")]
    Command {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no command; say after `--` what is to run in the lab")]
    NoCommand,
    /// The first process of the lab has said why.
    #[error("the lab {0} was not built")]
    NotBuilt(LabName),
    #[error("`lab init` is started by `lab run` and `lab up` alone")]
    NotForPeople,
    #[error("{what}")]
    System {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl LabError {
    /// For `map_err`: the kernel refused something.
    pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self::System { what: what.into(), source: source.into() }
    }
}

/// What an error message begins with where the place is known.
fn at(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!("{place}: ")).unwrap_or_default()
}

fn listed(diagnostics: &[Diagnostic]) -> String {
    let shown: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
    shown.join("\n\n")
}

fn how_to_install(package: &Option<&'static str>) -> String {
    match package {
        Some(package) => format!("on Debian and Ubuntu: apt-get install {package}"),
        None => "install it, or take it out of the file".to_owned(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("\n    {line}")).collect()
}

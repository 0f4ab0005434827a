//! Whole networks from a file, in Linux network namespaces.
//!
//! A lab builds every element, host and link of a network file on one machine and runs a command among them, so that
//! real packets pass real functions. It knows the inventory of the [`catena_model`] and nothing of the controller: no
//! chain, no driver, no forwarding state.
//!
//! A lab is a tree of processes in PID, mount and network namespaces of its own, with a private `/run/netns`,
//! `/run/catena` and `/sys/fs/bpf`. So nodes have exactly the names they have in the file, labs stand side by side, and
//! all that a lab is (processes, namespaces, mounts, eBPF pins) ends with its first process, however that ends. Nothing
//! has to be cleaned up, so nothing can be forgotten.
//!
//! Start reading at [`run`] (`launch.rs`, the side of the caller), then [`init()`], which is what runs inside.

mod enter;
mod error;
mod hosts;
mod init;
mod instructions;
mod launch;
mod mounts;
mod network;
pub mod probe;
mod program;
mod registry;
mod source;
mod supervise;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use catena_model::count::counted;
use catena_model::name::{NameError, NodeName};
use serde::{Deserialize, Serialize};

pub use enter::exec;
pub use error::LabError;
pub use hosts::set_up_host;
pub use init::init;
pub use launch::{check_root, down, run, up};
pub use network::{Namespaces, connect_unnamed};
pub use program::{debian_package, feed};
pub use registry::{RunningLab, list};

/// Which lab to build.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// A network file, or a folder of files. The commands of its hosts run in that folder.
    pub file: PathBuf,
    /// By what name [`exec`], [`down`] and [`list`] know the lab. [`up`] takes [`LabName::of_file`] where none is given;
    /// [`run`] gives it none, and no trace of it is on the machine.
    pub name: Option<LabName>,
    /// Set for the command, besides what it inherits.
    pub env: Vec<(OsString, OsString)>,
}

/// What a lab is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabName(NodeName);

impl LabName {
    /// The name of a lab that was given none: the file's without its ending; for a `network.yaml` its folder's.
    pub fn of_file(file: &Path) -> Result<Self, NameError> {
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let stem = file.file_stem().unwrap_or_default();
        let named = match file.parent().and_then(Path::file_name) {
            Some(folder) if stem == "network" => folder,
            _ => stem,
        };
        named.to_string_lossy().to_lowercase().replace(['_', '.', ' '], "-").parse()
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LabName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

/// What a lab tells while it is built and runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The file was read: so many nodes and links are to be built.
    Read {
        nodes: usize,
        links: usize,
    },
    /// All nodes and links are there, with their addresses and routes.
    Connected,
    Setup {
        host: NodeName,
        command: String,
    },
    Service {
        host: NodeName,
        command: String,
    },
    /// Everything is up; the command starts.
    Ready {
        after: Duration,
    },
    /// A service ended while the lab was in use. The lab goes on.
    ServiceEnded {
        host: NodeName,
        command: String,
        status: String,
        log_end: String,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { nodes, links } => {
                write!(f, "building {} and {}", counted(*nodes, "node"), counted(*links, "link"))
            }
            Self::Connected => write!(f, "the network is connected"),
            Self::Setup { host, command } => write!(f, "{host}: setting up: {}", first_line(command)),
            Self::Service { host, command } => write!(f, "{host}: starting: {}", first_line(command)),
            Self::Ready { after } => write!(f, "the lab is up after {} ms", after.as_millis()),
            Self::ServiceEnded { host, command, status, log_end } => {
                write!(f, "{host}: the service `{}` ended ({status})", first_line(command))?;
                if log_end.is_empty() { Ok(()) } else { write!(f, "; the end of its log:\n{log_end}") }
            }
        }
    }
}

fn first_line(command: &str) -> &str {
    command.lines().next().unwrap_or_default()
}

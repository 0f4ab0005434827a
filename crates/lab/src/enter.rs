//! Running a command in a lab that is up.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::process::Command;

use catena_driver::netns::NetNs;
use catena_model::name::NodeName;
use nix::sched::{CloneFlags, setns, unshare};

use crate::launch::{check_root, on_own_thread};
use crate::registry::{self, RunningLab};
use crate::supervise::Supervisor;
use crate::{LabError, LabName};

/// Runs `command` in a lab, on one of its nodes or in the lab's own network namespace, where nothing is but what the
/// lab's nodes have in common: the file system and the processes. Gives back the command's exit code.
pub fn exec(
    name: &LabName,
    node: Option<&NodeName>,
    env: &[(OsString, OsString)],
    command: &[OsString],
) -> Result<u8, LabError> {
    check_root()?;
    let Some((program, arguments)) = command.split_first() else {
        return Err(LabError::NoCommand);
    };
    let lab = registry::find(name)?.ok_or_else(|| LabError::NoLab(name.clone()))?;
    let supervisor = Supervisor::new().map_err(LabError::system("cannot handle signals"))?;
    on_own_thread(|| {
        enter(&lab)?;
        if let Some(node) = node {
            enter_node(&lab, node)?;
        }
        let child = Command::new(program).args(arguments).envs(env.iter().cloned()).spawn();
        let child = child.map_err(|source| LabError::Command {
            command: program.to_string_lossy().into_owned(),
            source,
        })?;
        supervisor.wait_for(child).map_err(LabError::system("cannot wait for the command"))
    })
}

/// Moves this thread into the namespaces of the lab's first process; children follow into its PID namespace.
fn enter(lab: &RunningLab) -> Result<(), LabError> {
    let namespace = |name: &str| File::open(format!("/proc/{}/ns/{name}", lab.pid));
    let entered = || -> io::Result<()> {
        let namespaces = [
            (namespace("pid")?, CloneFlags::CLONE_NEWPID),
            (namespace("net")?, CloneFlags::CLONE_NEWNET),
            (namespace("mnt")?, CloneFlags::CLONE_NEWNS),
        ];
        // Still the same process: so all of these were its own.
        if !lab.init.is_alive() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = env::current_dir()?;
        // Other threads of this process stay where they are.
        unshare(CloneFlags::CLONE_FS)?;
        for (namespace, kind) in namespaces {
            setns(namespace, kind)?;
        }
        // Entering a mount namespace leads to its root.
        env::set_current_dir(here)
    };
    entered().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LabError::NoLab(lab.name.clone()),
        _ => LabError::system(format!("cannot enter the lab {}", lab.name))(error),
    })
}

fn enter_node(lab: &RunningLab, node: &NodeName) -> Result<(), LabError> {
    let netns = NetNs::named(node.as_str()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            LabError::NoNode { lab: lab.name.clone(), node: node.clone(), names: named_namespaces() }
        }
        _ => LabError::system(format!("cannot open the namespace of {node}"))(error),
    })?;
    setns(netns, CloneFlags::CLONE_NEWNET)
        .map_err(LabError::system(format!("cannot enter the namespace of {node}")))
}

fn named_namespaces() -> Vec<String> {
    let entries = fs::read_dir(NetNs::NAMED).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

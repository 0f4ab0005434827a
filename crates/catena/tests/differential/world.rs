//! A network, built: a copy that the binary's drivers install in, and the numbers of what they have installed.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;

use catena::linux::OfCopies;
use catena_driver::netns::NetNs;
use catena_model::forwarding::Change;
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::Model;
use catena_render::render;
use catena_replay::Replica;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use tokio::runtime::Handle;

pub struct World {
    replica: Replica<OfCopies>,
    pub numbering: Numbering,
    runtime: Handle,
    _pins: Pins,
}

impl World {
    /// Builds everything but the chains.
    pub fn build(model: Model, runtime: Handle) -> Self {
        let pins = Pins::new();
        let replica = runtime.block_on(Replica::build(model, &BTreeMap::new(), &pins.path(), OfCopies));
        Self { replica: replica.unwrap(), numbering: Numbering::default(), runtime, _pins: pins }
    }

    /// Brings the world to where the model wants it, and looks whether it is there.
    pub fn apply(&mut self, model: Model) -> Result<(), String> {
        let desired = render(&model, &mut self.numbering).map_err(|error| format!("{error:?}"))?;
        self.replica.model = model;
        self.runtime.block_on(self.replica.install(&desired)).map_err(|error| format!("{error:?}"))
    }

    pub fn change(&mut self, element: &NodeName, changes: &[Change]) {
        self.runtime.block_on(self.replica.change(element, changes)).unwrap();
    }

    /// Reads what is installed, and the owners' routing.
    pub fn look(&mut self) {
        self.runtime.block_on(self.replica.look()).unwrap();
    }
}

impl Deref for World {
    type Target = Replica<OfCopies>;
    fn deref(&self) -> &Self::Target {
        &self.replica
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.replica
    }
}

/// A BPF file system of a world's own.
struct Pins(TempDir);

impl Pins {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("catena")
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // What is pinned goes with the file system, and the file system with its last mount.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs a command in a namespace; it must succeed.
pub fn run(netns: &NetNs, command: &str) {
    let output = netns.run(|| Command::new("sh").args(["-c", command]).output()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

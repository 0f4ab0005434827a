//! Why there is no copy of a network, or nothing to be seen in it.

use std::io;
use std::path::PathBuf;

use catena_driver::DriverError;
use catena_lab::LabError;
use catena_model::name::NodeName;

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("packets are sent in a copy of the network, which takes root")]
    NotRoot,
    #[error("the setup commands of {host} are to be run in the folder of its file, and from here there is no {}", folder.display())]
    NoFolder { host: NodeName, folder: PathBuf },
    #[error("the copy of the network cannot be built")]
    Lab(#[from] LabError),
    #[error("{element} of the copy: {what}")]
    Driver {
        element: NodeName,
        what: &'static str,
        #[source]
        source: DriverError,
    },
    #[error("{0} is no element of the copy")]
    NoElement(NodeName),
    /// A copy that does something else proves nothing.
    #[error("{element} of the copy does not do what it was told: {difference}")]
    Differs { element: NodeName, difference: String },
    #[error("{node} of the copy: {program}: {output}")]
    Command { node: NodeName, program: &'static str, output: String },
    #[error("{node} of the copy cannot be entered")]
    Netns {
        node: NodeName,
        #[source]
        source: io::Error,
    },
    #[error("cannot mount a BPF file system for the copy")]
    BpfFileSystem(#[source] io::Error),
    #[error("packets cannot be sent or seen in the copy")]
    Packets(#[source] io::Error),
}

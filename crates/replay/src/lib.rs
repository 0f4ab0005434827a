//! What is predicted of packets, beside what becomes of real ones: in a copy of the network, in namespaces that nobody else
//! can find and that end with their holder.
//!
//! - [`Replica`]: the copy, built by the lab, given its forwarding state by the real drivers and its owners' routing by `ip`
//!   ([`owner`](mod@owner));
//! - [`Sender`]: sends packets in it, and sees by which ports they come in;
//! - [`replay`](mod@replay): does that with the counter-examples of a report.
//!
//! No driver is named here: a [`Workshop`] makes them. It needs root.

mod error;
mod mounts;
mod owner;
mod replay;
mod replica;
mod sending;

pub use error::ReplayError;
pub use mounts::own_bpf_file_system;
pub use replay::{Obstacle, Outcome, Replayed, replay};
pub use replica::{Place, Replica, Workshop};
pub use sending::{Sender, Shot, agree};

//! A router among its neighbours, each in a namespace of its own, as Figure 2 of the paper has it: what the tests of drivers
//! that route have in common. It needs root, and is a dependency of tests alone.
//!
//! - [`World`]: the namespaces, the cables between them, and how to look at them from outside;
//! - [`objects`]: forwarding state in few words;
//! - [`traffic`]: packets that are sent for real, and where they must come out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod objects;
pub mod traffic;
mod world;

pub use world::{QR_ABC, World, add_address, ip, run, set};

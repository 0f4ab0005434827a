//! The routing engine against the kernel, in network namespaces of each test's own, with iproute2 as the witness. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod hard;
mod packets;
mod world;

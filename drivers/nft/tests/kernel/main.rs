//! The driver against the kernel, in network namespaces of each test's own, with nft(8) and iproute2 as the witnesses.
//! Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod check;
mod conformance;
mod convergence;
mod meddling;
mod order;
mod packets;
mod scale;
mod world;

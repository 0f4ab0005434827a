//! The controller in a simulated network: the paper's, with drivers that fail on demand and a clock that does not make
//! anybody wait.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chaos;
mod counting;
mod gate;
mod healing;
mod hold;
mod looking;
mod requests;
mod watching;
mod world;

//! Packet tables: what the programs do with one packet, asked of the kernel by `BPF_PROG_TEST_RUN`.
//!
//! Each case has a name and a sentence. A packet goes in at a port; what comes back is the verdict, the packet, and
//! what was counted. Where the packet would really have gone is the business of the tests in `tests/`.

mod between;
mod choice;
mod claiming;
mod classes;
mod cost;
mod flows;
mod found;
mod fragments;
mod fuzz;
mod insertion;
mod layout;
mod limits;
mod loading;
mod many_tunnels;
mod neighbours;
mod numbers;
mod owner;
mod packets;
mod realms;
mod rig;
mod routing;
mod steering;
mod sums;
mod tallies;
mod toobig;
mod tunnels;

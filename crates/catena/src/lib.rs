//! The drivers of elements that are Linux network namespaces, as the `catena` program makes them for a network or for a copy
//! of one ([`linux`]).

mod engine;
pub mod linux;

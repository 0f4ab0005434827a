//! The vocabulary of every other room: names, addresses, resources, forwarding state.
//!
//! What must not be known here: files, clocks, sockets, drivers, how anything is installed. A value of a type in this
//! crate that exists is valid; what comes from outside becomes one of them in [`resource`], once, at the rim.
//!
//! Start reading at [`resource::Model`] (what people ask for) and [`forwarding`] (what one network element does with a
//! packet). Between the two stands `render`; [`numbering`] gives both their numbers.

pub mod address;
pub mod base;
pub mod count;
pub mod forwarding;
pub mod name;
pub mod numbering;
pub mod packet;
pub mod resource;
pub mod topology;
mod words;

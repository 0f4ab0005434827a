//! The reconcile loop: resources and events in, plans out.
//!
//! A [`Controller`] takes requests, renders what follows from them, plans, has drivers carry the plan out, and reads back
//! whether it is so. It keeps it so: what others change, what fails and what a crash left half is noticed and repaired.
//! It knows drivers only as the [`Driver`](catena_driver::Driver) trait and by way of [`Drivers`]; it must not know any
//! of them, nor HTTP.
//!
//! One task owns everything that changes (`core`); all else sends it messages, or reads the `View` that it
//! publishes. Start reading at `core.rs`, then `apply.rs` and `converge.rs`.

mod apply;
mod by_site;
mod conservation;
mod controller;
mod converge;
mod core;
mod counters;
mod damage;
mod drain;
mod drivers;
mod error;
mod events;
mod execute;
mod explain;
mod gate;
mod hold;
mod intent;
mod needed;
mod prepare;
mod prover;
mod records;
pub mod report;
mod retained;
mod settings;
mod think;
mod trace;
mod tracked;
mod view;
mod watching;
mod words;

pub use controller::Controller;
pub use drivers::Drivers;
pub use error::{ApplyError, RecordError, Refusal, Rollback, StartError, StepError, UnknownTenant, chain_of};
pub use events::Follower;
pub use intent::{Request, ResourceId, Terms};
pub use settings::{Mode, Settings};

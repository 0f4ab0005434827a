//! The reconcile loop: resources and events in, plans out.

pub mod report;

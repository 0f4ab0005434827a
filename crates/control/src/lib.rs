//! The reconcile loop: events in, plans out.

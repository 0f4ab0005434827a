//! From installed and desired forwarding state to ordered steps. Pure.

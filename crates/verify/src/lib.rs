//! Walks packets through forwarding state. Pure.

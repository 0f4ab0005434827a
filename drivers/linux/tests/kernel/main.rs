//! The driver against the kernel, in network namespaces of each test's own, with iproute2 as the witness. Needs root.

// `cfg(test)` is always set here; written down, it tells clippy too that these are tests.
#[cfg(test)]
mod base;
#[cfg(test)]
mod check;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod convergence;
#[cfg(test)]
mod events;
#[cfg(test)]
mod iproute2;
#[cfg(test)]
mod meddling;
#[cfg(test)]
mod packets;
#[cfg(test)]
mod world;

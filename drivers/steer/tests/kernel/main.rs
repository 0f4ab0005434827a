//! The driver and its programs in the kernel, in network namespaces of each test's own, with real packets and with
//! iproute2 as the witness. Needs root.

// `cfg(test)` is always set here; written down, it tells clippy too that these are tests.
#[cfg(test)]
mod bad_days;
#[cfg(test)]
mod chain;
#[cfg(test)]
mod check;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod cut;
#[cfg(test)]
mod events;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod kernel_gre;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod meddling;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod toobig;
#[cfg(test)]
mod traffic;
#[cfg(test)]
mod tunnel;
#[cfg(test)]
mod world;

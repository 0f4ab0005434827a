//! The eBPF steering engine and its loader.

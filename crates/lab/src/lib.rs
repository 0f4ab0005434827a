//! Whole networks from a file, in Linux network namespaces.

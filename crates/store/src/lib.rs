//! A revisioned key-value store: put-if-unchanged, list, watch.

//! Policy routing over netlink, in any network namespace.

//! HTTP/JSON: the controller's questions and answers over a unix socket or loopback TCP.

pub mod types;

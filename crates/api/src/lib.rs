//! The HTTP API. Knows control, no driver.

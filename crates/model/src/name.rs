//! Names: one type for each kind of thing, so that they cannot be swapped.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// Why a piece of text is not a name. The message says what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name has at least one character")]
    Empty,
    #[error("a name has at most {limit} characters, this one has {length}")]
    TooLong { limit: usize, length: usize },
    #[error("a name is of lower-case letters, digits and '-', begins and ends with a letter or digit")]
    Form,
    #[error("a port is named like a Linux interface: no white space, '/' or ':', and not '.' or '..'")]
    PortForm,
}

/// The form of a Kubernetes object name (RFC 1123 label): at most 63 of `[a-z0-9-]`, no '-' at either end.
fn check_label(text: &str) -> Result<(), NameError> {
    const LIMIT: usize = 63;
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    match text.as_bytes() {
        [] => Err(NameError::Empty),
        bytes if bytes.len() > LIMIT => Err(NameError::TooLong { limit: LIMIT, length: bytes.len() }),
        bytes if !bytes.iter().copied().all(inner) => Err(NameError::Form),
        [b'-', ..] | [.., b'-'] => Err(NameError::Form),
        _ => Ok(()),
    }
}

/// The form of a Linux interface name (`dev_valid_name` in the kernel's net/core/dev.c): at most 15 bytes.
fn check_port(text: &str) -> Result<(), NameError> {
    const LIMIT: usize = 15;
    match text {
        "" => Err(NameError::Empty),
        _ if text.len() > LIMIT => Err(NameError::TooLong { limit: LIMIT, length: text.len() }),
        "." | ".." => Err(NameError::PortForm),
        _ if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':') => {
            Err(NameError::PortForm)
        }
        _ => Ok(()),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as a name if it has the form of one.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// A node of the network: an [`Element`](crate::resource::Element) that the controller drives, or a
    /// [`Host`](crate::resource::Host) that it does not. They share one space of names because links join either.
    NodeName: check_label;
    LinkName: check_label;
    TenantName: check_label;
    SiteName: check_label;
    ChainName: check_label;
    FunctionName: check_label;
    /// One running copy of a service function; unique among all functions.
    InstanceName: check_label;
    /// An interface of a node, as Linux names it.
    PortName: check_port;
}

impl PortName {
    /// The interface of an element that stands for all its tunnels: [`TUNNEL_PORT`](crate::forwarding::TUNNEL_PORT).
    pub fn tunnel() -> Self {
        Self(crate::forwarding::TUNNEL_PORT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_rfc_1123() {
        for good in ["a", "qrouter-1234", "0", &"x".repeat(63)] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_interface_names() {
        assert_eq!(PortName::new(crate::forwarding::TUNNEL_PORT), Ok(PortName::tunnel()));
        for good in ["eth0", "qr-abc", "br0.100", "fifteen-letters"] {
            assert!(PortName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "sixteen-letters!"] {
            assert!(PortName::new(bad).is_err(), "{bad}");
        }
    }
}

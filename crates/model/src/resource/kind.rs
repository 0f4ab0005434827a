//! The kinds of resources, and what people call them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a resource: the value of `kind` in the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ResourceKind {
    Element,
    Host,
    Link,
    ServiceFunction,
    Tenant,
    Site,
    Chain,
}

impl ResourceKind {
    /// From what others build on to what builds on others.
    pub const ALL: [ResourceKind; 7] =
        [Self::Element, Self::Host, Self::Link, Self::ServiceFunction, Self::Tenant, Self::Site, Self::Chain];

    /// As it stands in the file format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Element => "Element",
            Self::Host => "Host",
            Self::Link => "Link",
            Self::ServiceFunction => "ServiceFunction",
            Self::Tenant => "Tenant",
            Self::Site => "Site",
            Self::Chain => "Chain",
        }
    }

    /// The name on the command line, in addresses and in keys.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Element => "element",
            Self::Host => "host",
            Self::Link => "link",
            Self::ServiceFunction => "servicefunction",
            Self::Tenant => "tenant",
            Self::Site => "site",
            Self::Chain => "chain",
        }
    }

    pub fn plural(self) -> &'static str {
        match self {
            Self::Element => "elements",
            Self::Host => "hosts",
            Self::Link => "links",
            Self::ServiceFunction => "servicefunctions",
            Self::Tenant => "tenants",
            Self::Site => "sites",
            Self::Chain => "chains",
        }
    }

    /// What may be typed instead.
    pub fn short_names(self) -> &'static [&'static str] {
        match self {
            Self::Element => &["el"],
            Self::ServiceFunction => &["sf", "function", "functions"],
            Self::Host | Self::Link | Self::Tenant | Self::Site | Self::Chain => &[],
        }
    }

    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::ServiceFunction => "service function",
            other => other.singular(),
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no kind of resource: write element, host, link, servicefunction (sf), tenant, site or chain"
)]
pub struct UnknownKind(String);

/// Any of a kind's names, in capitals or not, as kubectl takes them.
impl std::str::FromStr for ResourceKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let name = text.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| {
                name == kind.singular()
                    || name == kind.plural()
                    || kind.short_names().contains(&name.as_str())
            })
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_kind_alone() {
        for kind in ResourceKind::ALL {
            let names = [kind.as_str(), kind.singular(), kind.plural()];
            for name in names.iter().chain(kind.short_names()) {
                assert_eq!(name.parse(), Ok(kind), "{name}");
            }
        }
        assert!("elephant".parse::<ResourceKind>().is_err());
    }
}

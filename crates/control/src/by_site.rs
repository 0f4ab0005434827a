//! What was found, by the sites that it is about: what is found of ten thousand sites at once is compared with what was found of
//! each one before.

use std::collections::BTreeMap;

use catena_model::name::SiteName;
use catena_verify::{Broken, Undecided, Violation};

/// What is about one site.
pub trait OfSite {
    fn site(&self) -> &SiteName;
}

impl OfSite for Broken {
    fn site(&self) -> &SiteName {
        &self.site
    }
}

impl OfSite for Violation {
    fn site(&self) -> &SiteName {
        &self.site
    }
}

impl OfSite for Undecided {
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// In each site's order, as it was.
pub struct BySite<'a, T>(BTreeMap<&'a SiteName, Vec<&'a T>>);

impl<'a, T: OfSite> BySite<'a, T> {
    pub fn new(all: impl IntoIterator<Item = &'a T>) -> Self {
        let mut sites: BTreeMap<&SiteName, Vec<&T>> = BTreeMap::new();
        all.into_iter().for_each(|one| sites.entry(one.site()).or_default().push(one));
        Self(sites)
    }

    pub fn of(&self, site: &SiteName) -> impl Iterator<Item = &'a T> + use<'a, '_, T> {
        self.0.get(site).into_iter().flatten().copied()
    }

    /// Of one site after the other.
    pub fn sites(&self) -> impl Iterator<Item = &[&'a T]> {
        self.0.values().map(Vec::as_slice)
    }
}

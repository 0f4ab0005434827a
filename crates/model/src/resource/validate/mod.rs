//! From documents to a model: the rules that concern more than one value, most of them more than one document.
//!
//! Each module looks at one part of the whole and reports what it finds; none changes anything. Ten thousand tenants are
//! usual, so nothing here compares each with each: prefixes are sorted, names and ports are looked up.

mod catalogue;
mod chains;
mod claims;
mod functions;
mod network;
mod overlaps;
mod prefix_set;
mod report;
mod resolve;
mod sites;

use std::collections::BTreeSet;

use self::catalogue::Catalogue;
use self::report::Report;
use super::{Diagnostic, Document, Model, ResourceKind};
use crate::address::Family;

/// Makes a model of documents, or tells all that is wrong with them.
pub fn validate<'d>(documents: impl IntoIterator<Item = &'d Document>) -> Result<Model, Vec<Diagnostic>> {
    validate_some(documents, &BTreeSet::new())
}

/// Like [`validate`], but there are more documents, of these kinds, that could not be read: what is missing may stand
/// in them, and is not reported.
pub(super) fn validate_some<'d>(
    documents: impl IntoIterator<Item = &'d Document>,
    unread: &BTreeSet<ResourceKind>,
) -> Result<Model, Vec<Diagnostic>> {
    let mut report = Report::new(unread);
    let catalogue = Catalogue::of(documents, &mut report);
    network::check(&catalogue, &mut report);
    functions::check(&catalogue, &mut report);
    sites::check(&catalogue, &mut report);
    chains::check(&catalogue, &mut report);
    claims::check(&catalogue, &mut report);
    overlaps::check(&catalogue, &mut report);
    let mut found = report.into_found();
    if found.is_empty() {
        return Ok(resolve::model(&catalogue));
    }
    found.sort_by(|a, b| a.place().cmp(&b.place()));
    Err(found)
}

/// The name of a family in a sentence.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

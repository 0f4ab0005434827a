//! From texts to documents: syntax, fields, types, and the form of each value. What names refer to is looked at later,
//! in [`validate`](super::validate).

mod inventory;
mod service;
mod tenancy;

use std::collections::BTreeSet;

use super::ResourceKind;
use super::diagnostic::Diagnostic;
use super::document::{API_VERSION, Document};
use super::fields::{Fields, same, text, word};
use super::nearest::nearest;
use super::problems::Problems;
use super::source::{Located, Source};
use super::words::Word;
use super::written::Resource;
use super::yaml::{self, Node};

/// Reads all documents of all sources, and tells all that is wrong with those that cannot be read.
pub fn parse(sources: &[Source]) -> (Vec<Document>, Vec<Diagnostic>) {
    let Parsed { documents, diagnostics, .. } = read(sources);
    (documents, diagnostics)
}

#[derive(Default)]
pub(super) struct Parsed {
    pub documents: Vec<Document>,
    pub diagnostics: Vec<Diagnostic>,
    /// The kinds that the documents which could not be read may be of.
    pub unread: BTreeSet<ResourceKind>,
}

pub(super) fn read(sources: &[Source]) -> Parsed {
    let mut parsed = Parsed::default();
    for source in sources.iter().flat_map(Source::documents) {
        let mut problems = Problems::of(&source);
        let mut kind = None;
        let root = yaml::read(&source.text, &mut problems);
        let resource = root.and_then(|root| resource(&root, &mut kind, &mut problems));
        let found = problems.into_found();
        match resource {
            Some(resource) if found.is_empty() => parsed.documents.push(Document { source, resource }),
            // Empty, or nothing but comments.
            None if found.is_empty() => {}
            _ => {
                parsed.diagnostics.extend(found);
                match kind.or_else(|| probable_kind(&source.text)) {
                    Some(kind) => parsed.unread.extend([kind]),
                    None => parsed.unread.extend(ResourceKind::ALL),
                }
            }
        }
    }
    parsed
}

/// What seems to be the kind of a document that is not YAML.
fn probable_kind(text: &str) -> Option<ResourceKind> {
    let line = text.lines().find_map(|line| line.strip_prefix("kind:"))?;
    let word = line.split('#').next()?.trim();
    ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == word)
}

fn resource(
    root: &Node<'_>,
    kind: &mut Option<ResourceKind>,
    problems: &mut Problems<'_>,
) -> Option<Resource> {
    let mut fields = Fields::of(root, problems)?;
    fields.required("apiVersion", api_version, problems);
    *kind = fields.required("kind", self::kind, problems);
    let metadata = fields.required("metadata", same, problems);
    let spec = fields.required("spec", same, problems);
    fields.finish(problems);
    let (metadata, spec) = (metadata?, spec?);
    match (*kind)? {
        ResourceKind::Element => named(metadata, spec, inventory::element, problems).map(Resource::Element),
        ResourceKind::Host => named(metadata, spec, inventory::host, problems).map(Resource::Host),
        ResourceKind::Link => named(metadata, spec, inventory::link, problems).map(Resource::Link),
        ResourceKind::ServiceFunction => {
            named(metadata, spec, service::function, problems).map(Resource::ServiceFunction)
        }
        ResourceKind::Tenant => named(metadata, spec, tenancy::tenant, problems).map(Resource::Tenant),
        ResourceKind::Site => named(metadata, spec, tenancy::site, problems).map(Resource::Site),
        ResourceKind::Chain => named(metadata, spec, tenancy::chain, problems).map(Resource::Chain),
    }
}

fn api_version(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<()> {
    let version = text(node, problems)?;
    if version != API_VERSION {
        let message = format!("`{version}` is not a version of the file format");
        problems.report(node.span, message, format!("write `apiVersion: {API_VERSION}`"));
    }
    Some(())
}

fn kind(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<ResourceKind> {
    let written = text(node, problems)?;
    let kind = ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == written);
    if kind.is_none() {
        let help = match nearest(&written, ResourceKind::ALL.map(ResourceKind::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("write one of {}", ResourceKind::ALL.map(|kind| format!("`{kind}`")).join(", ")),
        };
        problems.report(node.span, format!("`{written}` is no kind of resource"), help);
    }
    kind
}

/// Reads the name and the spec, and reports the fields of the spec that `read` did not ask for.
fn named<'n, 't, N: Word, T>(
    metadata: &Node<'_>,
    spec: &'n Node<'t>,
    read: impl FnOnce(Option<Located<N>>, &mut Fields<'n, 't>, &mut Problems<'_>) -> Option<T>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let name = Fields::of(metadata, problems).and_then(|mut fields| {
        let name = fields.required("name", word, problems);
        fields.finish(problems);
        name
    });
    let mut fields = Fields::of(spec, problems)?;
    let resource = read(name, &mut fields, problems);
    fields.finish(problems);
    resource
}

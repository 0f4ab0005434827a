//! What has been found wrong with a set of documents.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use crate::resource::nearest::Suggestions;
use crate::resource::source::Located;
use crate::resource::{Diagnostic, Document, ResourceKind};

pub(super) struct Report<'a> {
    found: Vec<Diagnostic>,
    unread: &'a BTreeSet<ResourceKind>,
    suggestions: Suggestions,
}

impl<'a> Report<'a> {
    pub fn new(unread: &'a BTreeSet<ResourceKind>) -> Self {
        Self { found: Vec::new(), unread, suggestions: Suggestions::default() }
    }

    pub fn add(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Something of one of these kinds is missing. It may stand in a document that could not be read.
    pub fn missing(&mut self, kinds: &[ResourceKind], diagnostic: Diagnostic) {
        if !kinds.iter().any(|kind| self.unread.contains(kind)) {
            self.found.push(diagnostic);
        }
    }

    /// A name of a resource that does not exist.
    pub fn unknown<'k, N: Borrow<str>>(
        &mut self,
        kind: ResourceKind,
        document: &Document,
        name: &Located<N>,
        known: impl Iterator<Item = &'k str>,
    ) {
        let text: &str = name.value.borrow();
        let help = self.suggestions.help(text, known, || {
            format!("add a document with `kind: {kind}` and `name: {text}`, or take another name")
        });
        let message = format!("there is no {} `{text}`", kind.words());
        self.missing(&[kind], Diagnostic::new(message, help).at(document.label(name.span, "")));
    }

    /// A node that does not exist: neither an element nor a host.
    pub fn unknown_node<'k, N: Borrow<str>>(
        &mut self,
        document: &Document,
        name: &Located<N>,
        known: impl Iterator<Item = &'k str>,
    ) {
        let text: &str = name.value.borrow();
        let help = self.suggestions.help(text, known, || {
            format!(
                "add a document with `kind: Element` or `kind: Host` and `name: {text}`, or take another name"
            )
        });
        let message = format!("there is no element or host `{text}`");
        let diagnostic = Diagnostic::new(message, help).at(document.label(name.span, ""));
        self.missing(&[ResourceKind::Element, ResourceKind::Host], diagnostic);
    }

    /// A way out of an unknown name: the one that was meant, or else `otherwise`.
    pub fn suggest<'k>(
        &self,
        wanted: &str,
        known: impl Iterator<Item = &'k str>,
        otherwise: impl FnOnce() -> String,
    ) -> String {
        self.suggestions.help(wanted, known, otherwise)
    }

    pub fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }
}

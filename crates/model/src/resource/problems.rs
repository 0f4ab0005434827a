//! Collects what is wrong with one document, so that all of it is reported at once.

use super::diagnostic::Diagnostic;
use super::source::{Source, Span};

pub(super) struct Problems<'s> {
    source: &'s Source,
    found: Vec<Diagnostic>,
}

impl<'s> Problems<'s> {
    pub fn of(source: &'s Source) -> Self {
        Self { source, found: Vec::new() }
    }

    pub fn report(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.report_with(span, message, "", help);
    }

    /// With a remark at the place.
    pub fn report_with(
        &mut self,
        span: Span,
        message: impl Into<String>,
        remark: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.found.push(Diagnostic::new(message, help).at(self.source.label(span, remark)));
    }

    /// About a place and another one that contradicts it.
    pub fn report_two(
        &mut self,
        (span, message): (Span, impl Into<String>),
        (other, remark): (Span, impl Into<String>),
        help: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::new(message, help)
            .at(self.source.label(span, ""))
            .at(self.source.label(other, remark));
        self.found.push(diagnostic);
    }

    pub fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }
}

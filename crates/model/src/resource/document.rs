//! One resource together with the text that it was read from.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::ResourceKind;
use super::diagnostic::Label;
use super::source::{Source, Span};
use super::written::Resource;

/// The version of the file format: the value of `apiVersion`.
pub const API_VERSION: &str = "catena/v1alpha1";

/// One resource as written.
///
/// To store it, store [`Document::source`]: parsed again, it yields this document, and what is wrong with it is still
/// shown at the file and line where it was written. Serialised, a document is the resource in the file format.
#[derive(Clone, Debug)]
pub struct Document {
    /// The part of its file that holds this document alone.
    pub source: Source,
    pub resource: Resource,
}

impl Document {
    pub fn kind(&self) -> ResourceKind {
        self.resource.kind()
    }

    pub fn name(&self) -> &str {
        self.resource.name().value
    }

    /// Where the resource is named.
    pub fn name_label(&self, text: impl Into<String>) -> Label {
        self.label(self.resource.name().span, text)
    }

    pub fn label(&self, span: Span, text: impl Into<String>) -> Label {
        self.source.label(span, text)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Metadata<'a> {
            name: &'a str,
        }
        let mut document = serializer.serialize_struct("Document", 4)?;
        document.serialize_field("apiVersion", API_VERSION)?;
        document.serialize_field("kind", self.kind().as_str())?;
        document.serialize_field("metadata", &Metadata { name: self.name() })?;
        document.serialize_field("spec", &self.resource)?;
        document.end()
    }
}

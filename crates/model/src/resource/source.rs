//! Where things are written: sources, and places in them.

use std::ops::Deref;

use serde::{Deserialize, Serialize, Serializer};

use super::diagnostic::Label;

/// A text with resources in it, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The path of the file as the person wrote it.
    pub name: String,
    pub text: String,
    /// How many lines of the file come before `text`; not 0 for a document that was cut out of its file.
    #[serde(default)]
    pub lines_before: usize,
    /// How many bytes of the file come before `text`.
    #[serde(default)]
    pub bytes_before: usize,
}

impl Source {
    /// A whole file.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into(), lines_before: 0, bytes_before: 0 }
    }

    /// Describes a place in this source.
    pub fn label(&self, span: Span, text: impl Into<String>) -> Label {
        let start = self.text.floor_char_boundary(span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let excerpt = self.text[line_start..line_end].trim_end_matches('\r');
        Label {
            source: self.name.clone(),
            line: self.lines_before + before.matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            offset: self.bytes_before + start,
            length: span.end.min(line_start + excerpt.len()).saturating_sub(start),
            text: text.into(),
            excerpt: excerpt.to_owned(),
        }
    }

    /// Cuts the text into its YAML documents, so that what is wrong with one hides nothing in the others.
    ///
    /// A line that begins with `---` or `...` is a document marker wherever it stands, also inside a quoted or block
    /// scalar (YAML 1.2.2, section 9.1.2), so no parser is needed to find them.
    pub(super) fn documents(&self) -> Vec<Source> {
        let mut documents = Vec::new();
        let mut start = Position::default();
        let mut here = Position::default();
        // Comments and directives before the `---` belong to the document that it begins.
        let mut begun = false;
        for line in self.text.split_inclusive('\n') {
            let begins = is_marker(line, "---");
            if begins && begun {
                documents.push(self.part(start, here));
                start = here;
            }
            begun |= begins || !matches!(line.trim_start().bytes().next(), None | Some(b'#' | b'%'));
            here = Position { line: here.line + 1, byte: here.byte + line.len() };
            if is_marker(line, "...") {
                documents.push(self.part(start, here));
                start = here;
                begun = false;
            }
        }
        if begun {
            documents.push(self.part(start, here));
        }
        documents
    }

    fn part(&self, start: Position, end: Position) -> Source {
        Source {
            name: self.name.clone(),
            text: self.text[start.byte..end.byte].to_owned(),
            lines_before: self.lines_before + start.line,
            bytes_before: self.bytes_before + start.byte,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Position {
    line: usize,
    byte: usize,
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// A range of bytes of a document's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// A value, and where it was written. Two are equal if their values are: the same may be written in two places.
#[derive(Clone, Copy, Debug, Default)]
pub struct Located<T> {
    pub value: T,
    pub span: Span,
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(usize, String)> {
        Source::new("a.yaml", text)
            .documents()
            .into_iter()
            .map(|part| (part.lines_before, part.text))
            .collect()
    }

    #[test]
    fn documents_are_cut_at_their_markers() {
        let parts = cut("a: 1\n---\nb: 2\n--- {c: 3}\n---no marker\n");
        let texts = [(0, "a: 1\n"), (1, "---\nb: 2\n"), (3, "--- {c: 3}\n---no marker\n")];
        assert_eq!(parts, texts.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn what_comes_before_the_marker_belongs_to_the_document() {
        assert_eq!(cut("# about\n%YAML 1.2\n---\na: 1\n...\n# next\n---\nb: 2").len(), 2);
        assert_eq!(cut("# nothing\n\n").len(), 0);
    }

    #[test]
    fn a_cut_document_still_knows_its_place_in_the_file() {
        let documents = Source::new("a.yaml", "a: 1\n---\nb: é2\n").documents();
        let label = documents[1].label(Span { start: 9, end: 10 }, "");
        assert_eq!((label.line, label.column, label.offset, label.length), (3, 5, 14, 1));
        assert_eq!(label.excerpt, "b: é2");
    }
}

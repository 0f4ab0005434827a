//! What is wrong with what somebody wrote: where, why, and the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mistake in one place, or a contradiction between two. It carries all that is needed to show it, so that it can be
/// shown where the files are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// The first is where the mistake is; further ones are other places that it has to do with.
    pub labels: Vec<Label>,
}

/// A place in a source, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The name of the source: a path as the person wrote it.
    pub source: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// From the beginning of the source, in bytes.
    pub offset: usize,
    /// In bytes. A place that goes on over several lines ends here with the first.
    pub length: usize,
    /// May be empty: the message says it all.
    pub text: String,
    /// The line of the source in which the place is, without its end.
    pub excerpt: String,
}

impl Diagnostic {
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into(), labels: Vec::new() }
    }

    pub fn at(mut self, label: Label) -> Self {
        self.labels.push(label);
        self
    }

    /// By source, and there from the top.
    pub(super) fn place(&self) -> Option<(&str, usize)> {
        self.labels.first().map(|label| (label.source.as_str(), label.offset))
    }
}

/// Several lines, the places with carets, as compilers print it. Without colours and without an end of line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let margin = self.labels.iter().map(|label| label.line.to_string().len()).max().unwrap_or(0);
        for (index, label) in self.labels.iter().enumerate() {
            let arrow = if index == 0 { "-->" } else { ":::" };
            write!(f, "\n{:margin$}{arrow} {label}", "")?;
            label.write_excerpt(f, margin, if index == 0 { '^' } else { '-' })?;
        }
        write!(f, "\n{:margin$} = help: {}", "", self.help)
    }
}

/// The place alone: `file:line:column`.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

impl Label {
    fn write_excerpt(&self, f: &mut fmt::Formatter<'_>, margin: usize, mark: char) -> fmt::Result {
        // A tab or another control character has no width that we know of.
        let visible: String = self.excerpt.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "\n{:margin$} |", "")?;
        write!(f, "\n{:>margin$} | {}", self.line, visible.trim_end())?;
        let marks: String = std::iter::repeat_n(mark, self.width()).collect();
        write!(f, "\n{:margin$} | {:indent$}{marks}", "", "", indent = self.column.saturating_sub(1))?;
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, " {text}"),
        }
    }

    /// How many characters are marked: at least one, also where something is missing.
    fn width(&self) -> usize {
        let from_here = self.excerpt.chars().skip(self.column.saturating_sub(1));
        let mut bytes = 0;
        let within = |c: &char| {
            let inside = bytes < self.length;
            bytes += c.len_utf8();
            inside
        };
        from_here.take_while(within).count().max(1)
    }
}

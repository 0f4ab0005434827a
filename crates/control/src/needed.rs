//! Who needs what is to be deleted.

use std::collections::BTreeMap;

use catena_model::resource::{Diagnostic, Label};

use crate::intent::{Kept, ResourceId};

/// The mistakes that a deletion would leave, said of what was to be deleted: who still needs it, and where.
pub fn still_needed(
    diagnostics: Vec<Diagnostic>,
    deleted: &[ResourceId],
    staying: &BTreeMap<ResourceId, Kept>,
) -> Vec<Diagnostic> {
    let mut told: Vec<Diagnostic> = Vec::new();
    for diagnostic in diagnostics {
        let diagnostic = told_anew(diagnostic, deleted, staying);
        // One may need the same thing in several places.
        if told.iter().all(|earlier| earlier.message != diagnostic.message) {
            told.push(diagnostic);
        }
    }
    told
}

fn told_anew(
    diagnostic: Diagnostic,
    deleted: &[ResourceId],
    staying: &BTreeMap<ResourceId, Kept>,
) -> Diagnostic {
    let Some(label) = diagnostic.labels.first() else { return diagnostic };
    let Some(user) = staying.iter().find(|(_, kept)| holds(kept, label)).map(|(id, _)| id) else {
        return diagnostic;
    };
    let user = format!("{user} ({}:{})", label.source, label.line);
    let named = deleted.iter().find(|id| written_at(label) == id.name);
    let message = match (named, deleted) {
        (Some(id), _) => format!("{user} still needs {id}"),
        (None, [only]) => format!("{user} still needs {only}: {}", diagnostic.message),
        (None, _) => format!("{user} still needs something of this: {}", diagnostic.message),
    };
    Diagnostic { message, help: "delete it first, or together".to_owned(), ..diagnostic }
}

/// Whether the place is in the resource's document.
fn holds(kept: &Kept, label: &Label) -> bool {
    let source = &kept.document.source;
    let bytes = source.bytes_before..source.bytes_before + source.text.len();
    source.name == label.source && bytes.contains(&label.offset)
}

/// The text at the place, without quotes.
fn written_at(label: &Label) -> &str {
    let start = label
        .excerpt
        .char_indices()
        .nth(label.column.saturating_sub(1))
        .map_or(label.excerpt.len(), |(at, _)| at);
    let text = label.excerpt.get(start..start + label.length).unwrap_or_default();
    text.trim_matches(['"', '\''])
}

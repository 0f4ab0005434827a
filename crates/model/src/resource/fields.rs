//! Reading of mappings, lists and scalars out of a located tree. Each reader reports what is wrong and goes on, so that
//! one look at a document finds all of its mistakes; it answers `None` when there is no value to go on with.

use std::ops::RangeInclusive;

use super::nearest::nearest;
use super::problems::Problems;
use super::source::{Located, Span};
use super::words::Word;
use super::yaml::{Node, Value};

/// A mapping of which one field after another is asked for; [`Fields::finish`] refuses those that nobody asked for.
pub(super) struct Fields<'n, 't> {
    heading: Span,
    entries: Vec<Option<(Located<&'n str>, &'n Node<'t>)>>,
    asked: Vec<&'static str>,
    missing: Vec<&'static str>,
}

impl<'n, 't> Fields<'n, 't> {
    pub fn of(node: &'n Node<'t>, problems: &mut Problems<'_>) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            wrong_type(node, "a mapping (`field: value`)", problems);
            return None;
        };
        let entries = entries
            .iter()
            .map(|(key, node)| Some((Located { value: &*key.value, span: key.span }, node)))
            .collect();
        Some(Self { heading: node.heading, entries, asked: Vec::new(), missing: Vec::new() })
    }

    /// A field that must be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'n Node<'t>, &mut Problems<'_>) -> Option<T>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        match self.take(name) {
            Some(node) => read(node, problems),
            None => {
                self.missing.push(name);
                None
            }
        }
    }

    /// A field that may be left out: `None` only if it is there and wrong.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'n Node<'t>, &mut Problems<'_>) -> Option<T>,
        problems: &mut Problems<'_>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            Some(node) => read(node, problems).map(Some),
            None => Some(None),
        }
    }

    /// A field that may be left out, and what it is then.
    pub fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&'n Node<'t>, &mut Problems<'_>) -> Option<T>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        Some(self.optional(name, read, problems)?.unwrap_or(default))
    }

    /// The value of a field, whatever it is. A field without a value counts as left out.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node<'t>> {
        self.asked.push(name);
        let entry = self.entries.iter_mut().find(|entry| entry.is_some_and(|(key, _)| key.value == name))?;
        entry.take().map(|(_, node)| node).filter(|node| !node.is_null())
    }

    /// Where to point when something is missing.
    pub fn heading(&self) -> Span {
        self.heading
    }

    /// Reports the fields that are left, and those that are missing. One that is only misspelt is not missing.
    pub fn finish(mut self, problems: &mut Problems<'_>) {
        let left = self.entries.into_iter().flatten();
        // One that was asked for and is still there is a second one of that name, which has been refused already.
        for (key, _) in left.filter(|(key, _)| !self.asked.contains(&key.value)) {
            let help = match nearest(key.value, self.asked.iter().copied()) {
                Some(name) => {
                    self.missing.retain(|missing| *missing != name);
                    format!("did you mean `{name}`?")
                }
                None => format!("known here: {}", quoted(&self.asked)),
            };
            problems.report(key.span, format!("unknown field `{}`", key.value), help);
        }
        for name in self.missing {
            problems.report(self.heading, format!("`{name}` is missing here"), format!("add `{name}: …`"));
        }
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The node itself, to be read later.
pub(super) fn same<'n, 't>(node: &'n Node<'t>, _: &mut Problems<'_>) -> Option<&'n Node<'t>> {
    Some(node)
}

/// A list, each item read by `read`. All items are read even if one is wrong.
pub(super) fn list<'n, 't: 'n, T>(
    read: impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<T>,
) -> impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<Vec<T>> {
    move |node, problems| {
        let Value::Sequence(items) = &node.value else {
            not_a_list(node, problems);
            return None;
        };
        let read: Vec<Option<T>> = items.iter().map(|item| read(item, problems)).collect();
        read.into_iter().collect()
    }
}

/// Whatever `read` reads, with its place.
pub(super) fn located<'n, 't: 'n, T>(
    read: impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<T>,
) -> impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<Located<T>> {
    move |node, problems| Some(Located { value: read(node, problems)?, span: node.span })
}

/// Whatever `read` reads, without its place.
pub(super) fn value<'n, 't: 'n, T>(
    read: impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<Located<T>>,
) -> impl Fn(&'n Node<'t>, &mut Problems<'_>) -> Option<T> {
    move |node, problems| read(node, problems).map(|located| located.value)
}

/// A value that is written as one word, such as a name or a prefix.
pub(super) fn word<T: Word>(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<Located<T>> {
    let text = scalar(node, T::WHAT, problems)?;
    match T::read(text) {
        Ok(value) => Some(Located { value, span: node.span }),
        Err(refusal) => {
            let message = format!("`{text}` is not {}", T::WHAT);
            problems.report_with(node.span, message, refusal.reason, refusal.way_out);
            None
        }
    }
}

/// Text that may be anything.
pub(super) fn text(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<String> {
    scalar(node, "text", problems).map(str::to_owned)
}

/// A whole number within a range, decimal or hexadecimal.
pub(super) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&Node<'_>, &mut Problems<'_>) -> Option<Located<T>>
where
    T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
{
    move |node, problems| {
        let Value::Scalar { text, plain: true } = &node.value else {
            wrong_type(node, "a number", problems);
            return None;
        };
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let value =
            parsed.ok().and_then(|number| T::try_from(number).ok()).filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            problems.report(
                node.span,
                format!("`{text}` is not a number from {low} to {high}"),
                format!("write a whole number from {low} to {high}"),
            );
        }
        value.map(|value| Located { value, span: node.span })
    }
}

pub(super) fn boolean(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<bool> {
    match &node.value {
        Value::Scalar { text, plain: true } if text == "true" => Some(true),
        Value::Scalar { text, plain: true } if text == "false" => Some(false),
        _ => {
            wrong_type(node, "`true` or `false`", problems);
            None
        }
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy + 'static>(
    choices: &'static [(&'static str, T)],
) -> impl Fn(&Node<'_>, &mut Problems<'_>) -> Option<Located<T>> {
    move |node, problems| {
        let text = scalar(node, "a word", problems)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(Located { value: *value, span: node.span });
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let help = match nearest(text, names.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("write one of {}", quoted(&names)),
        };
        problems.report(node.span, format!("`{text}` is none of {}", quoted(&names)), help);
        None
    }
}

fn scalar<'n>(node: &'n Node<'_>, what: &str, problems: &mut Problems<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => {
            wrong_type(node, what, problems);
            None
        }
    }
}

fn not_a_list(node: &Node<'_>, problems: &mut Problems<'_>) {
    let help = match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => format!("write a list, also of one: `[{text}]`"),
        _ => "write a list: `[…]`, or lines that begin with `- `".to_owned(),
    };
    problems.report(place(node), format!("here is {} instead of a list", what(node)), help);
}

fn wrong_type(node: &Node<'_>, wanted: &str, problems: &mut Problems<'_>) {
    let help = match &node.value {
        Value::Scalar { plain: false, .. } => format!("write {wanted}, without quotes"),
        _ => format!("write {wanted}"),
    };
    problems.report(place(node), format!("here is {} instead of {wanted}", what(node)), help);
}

fn what(node: &Node<'_>) -> &'static str {
    match &node.value {
        _ if node.is_null() => "nothing",
        Value::Scalar { plain: false, .. } => "text in quotes",
        Value::Scalar { .. } => "a single value",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
    }
}

fn place(node: &Node<'_>) -> Span {
    if node.is_null() { node.heading } else { node.span }
}

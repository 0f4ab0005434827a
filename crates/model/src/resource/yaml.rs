//! From the text of one YAML document to a tree of located nodes.
//!
//! Nothing is known here of resources. Scalars stay text: what `80` or `no` means depends on the field it stands in.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError};

use super::problems::Problems;
use super::source::{Located, Span};

/// Deeper nesting is refused: nothing in the file format needs it, and trees are dropped recursively.
const MAX_DEPTH: usize = 32;
/// How many nodes all aliases of a document may stand for, so that a small file cannot become a large tree.
const MAX_ALIASED_NODES: usize = 10_000;

#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub value: Value<'t>,
    pub span: Span,
    /// Where to point when something is missing in the node: the key that it stands behind, or the node itself.
    pub heading: Span,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// Without quotes, so that it may be a number, a boolean or null.
        plain: bool,
    },
    Sequence(Vec<Node<'t>>),
    Mapping(Vec<(Located<Cow<'t, str>>, Node<'t>)>),
}

impl Node<'_> {
    /// Nothing was written, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::Sequence(items) => items.iter().map(Node::count).sum(),
            Value::Mapping(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
        }
    }
}

/// Reads the document of `problems`' source. `None` if it is empty, or was found wrong.
pub(super) fn read<'t>(text: &'t str, problems: &mut Problems<'_>) -> Option<Node<'t>> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut tree = Tree::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = match event {
            Ok(next) => next,
            Err(error) => {
                report_syntax(&error, text, problems);
                return None;
            }
        };
        if let Some(tag) = span.tag_span() {
            let help = "leave the tag out: what a value is depends on its field";
            problems.report(bytes(tag), "a YAML tag means nothing here", help);
        }
        tree.take(event, bytes(span), problems)?;
    }
    tree.root.filter(|root| !root.is_null())
}

fn bytes(span: granit_parser::Span) -> Span {
    span.byte_range().map_or_else(Span::default, |range| Span { start: range.start, end: range.end })
}

/// A tree that is being built.
#[derive(Default)]
struct Tree<'t> {
    open: Vec<Open<'t>>,
    root: Option<Node<'t>>,
    anchors: HashMap<usize, Node<'t>>,
    aliased_nodes: usize,
}

/// A collection whose end has not been seen yet.
struct Open<'t> {
    start: usize,
    anchor: usize,
    children: Children<'t>,
}

enum Children<'t> {
    Sequence(Vec<Node<'t>>),
    Mapping { entries: Vec<(Located<Cow<'t, str>>, Node<'t>)>, key: Option<Located<Cow<'t, str>>> },
}

impl<'t> Tree<'t> {
    /// `None` if the document cannot be read on.
    fn take(&mut self, event: Event<'t>, span: Span, problems: &mut Problems<'_>) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text, plain: style == ScalarStyle::Plain };
                self.finish(Node { value, span, heading: span }, anchor, problems)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { start: span.start, anchor, children: Children::Sequence(Vec::new()) });
                Some(())
            }
            Event::MappingStart(_, anchor, _) => {
                let children = Children::Mapping { entries: Vec::new(), key: None };
                self.open.push(Open { start: span.start, anchor, children });
                Some(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop()?;
                let span = Span { start: open.start, end: span.end };
                let value = match open.children {
                    Children::Sequence(items) => Value::Sequence(items),
                    Children::Mapping { entries, .. } => {
                        refuse_repeated_keys(&entries, problems);
                        Value::Mapping(entries)
                    }
                };
                self.finish(Node { value, span, heading: span }, open.anchor, problems)
            }
            Event::Alias(anchor) => {
                let node = self.aliased(anchor, span, problems)?;
                self.finish(node, 0, problems)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                problems.report(
                    span,
                    "a second document begins here",
                    "begin each document with `---` on a line of its own",
                );
                None
            }
            _ => Some(()),
        }
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, mut node: Node<'t>, anchor: usize, problems: &mut Problems<'_>) -> Option<()> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.children) {
            None => self.root = Some(node),
            Some(Children::Sequence(items)) => items.push(node),
            Some(Children::Mapping { entries, key }) => match key.take() {
                None => *key = Some(as_key(node, problems)?),
                Some(key) => {
                    node.heading = key.span;
                    entries.push((key, node));
                }
            },
        }
        Some(())
    }

    fn aliased(&mut self, anchor: usize, span: Span, problems: &mut Problems<'_>) -> Option<Node<'t>> {
        let Some(node) = self.anchors.get(&anchor) else {
            problems.report(span, "an alias within its own anchor", "write the value out");
            return None;
        };
        self.aliased_nodes += node.count();
        if self.aliased_nodes > MAX_ALIASED_NODES {
            problems.report(
                span,
                format!("the aliases of this document stand for more than {MAX_ALIASED_NODES} values"),
                "write the values out, or spread them over several documents",
            );
            return None;
        }
        Some(node.clone())
    }
}

fn as_key<'t>(node: Node<'t>, problems: &mut Problems<'_>) -> Option<Located<Cow<'t, str>>> {
    match node.value {
        Value::Scalar { text, .. } => Some(Located { value: text, span: node.span }),
        Value::Sequence(_) | Value::Mapping(_) => {
            problems.report(
                node.span,
                "a list or mapping stands where a field's name must",
                "write `name: value`",
            );
            None
        }
    }
}

fn refuse_repeated_keys(entries: &[(Located<Cow<'_, str>>, Node<'_>)], problems: &mut Problems<'_>) {
    let mut keys: Vec<&Located<Cow<str>>> = entries.iter().map(|(key, _)| key).collect();
    keys.sort_by(|a, b| a.value.cmp(&b.value));
    for pair in keys.windows(2).filter(|pair| pair[0] == pair[1]) {
        problems.report_two(
            (pair[1].span, format!("`{}` stands twice in one mapping", pair[1].value)),
            (pair[0].span, "the first one"),
            "leave one of the two out",
        );
    }
}

fn report_syntax(error: &ScanError, text: &str, problems: &mut Problems<'_>) {
    let start = error.marker().byte_offset().unwrap_or(text.len());
    let message = match error.kind() {
        ErrorKind::UnknownAnchor => "no anchor of this name comes before this alias".to_owned(),
        ErrorKind::RecursionLimitExceeded => format!("nested more than {MAX_DEPTH} deep"),
        _ => format!("not YAML: {}", error.info()),
    };
    let help = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "indent with spaces",
        ErrorKind::MappingValueNotAllowed => {
            "put quotes round a value that contains `: `, and check the indentation of this line and the one before"
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::MismatchedFlowCollectionEnd { .. }
        | ErrorKind::MisplacedFlowCollectionEnd => {
            "check that every `[` and `{` is closed, and the commas between"
        }
        ErrorKind::UnclosedQuotedScalar => "close the quotes",
        ErrorKind::RecursionLimitExceeded => {
            "nothing here is nested so deeply: check the brackets and the indentation"
        }
        ErrorKind::UnknownAnchor => {
            "define the anchor (`&name`) before the alias (`*name`), in the same document"
        }
        _ => "check the indentation, and that quotes and brackets are closed",
    };
    problems.report(Span { start, end: start + 1 }, message, help);
}

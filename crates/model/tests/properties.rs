//! What must hold for any text: no panic, and every place that is told is one in the text.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use catena_model::address::Prefix;
use catena_model::resource::{self, Diagnostic, Source};
use proptest::prelude::*;
use proptest::sample::Index;

const WORLD: &str = include_str!("mistakes/world.yaml");

/// Text in which something has been taken away, put in, or doubled, as often as there are edits.
fn edited(edits: Vec<(Index, usize, String)>) -> String {
    let mut text: Vec<char> = WORLD.chars().collect();
    for (at, length, new) in edits {
        let start = at.index(text.len() + 1);
        let end = (start + length).min(text.len());
        text.splice(start..end, new.chars());
    }
    text.into_iter().collect()
}

fn an_edit() -> impl Strategy<Value = (Index, usize, String)> {
    let new = prop_oneof![
        Just(String::new()),
        "[\\[\\]{}:,&*!|>'\"%@`#? \\t\\n-]{1,3}",
        "[a-z0-9./é-]{1,8}",
        Just("\n---\n".to_owned()),
        Just("null".to_owned()),
        Just("99999999999999999999".to_owned()),
    ];
    (any::<Index>(), 0_usize..12, new)
}

/// Every place is in the text, and can be shown.
fn places_are_true(text: &str, found: &[Diagnostic]) -> Result<(), TestCaseError> {
    for diagnostic in found {
        prop_assert!(!diagnostic.labels.is_empty(), "{diagnostic:?}");
        prop_assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty());
        for label in &diagnostic.labels {
            let line = text.split('\n').nth(label.line - 1).map(|line| line.trim_end_matches('\r'));
            prop_assert_eq!(line, Some(label.excerpt.as_str()), "{:?}", label);
            let column = text[..label.offset].rsplit('\n').next().unwrap_or("").chars().count() + 1;
            prop_assert_eq!(column, label.column, "{:?}", label);
        }
        prop_assert!(diagnostic.to_string().contains("help: "));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let found = resource::load(&[Source::new("any.yaml", &*text)]).err().unwrap_or_default();
        places_are_true(&text, &found)?;
    }

    #[test]
    fn any_yaml_is_read_or_refused(text in "[a-z:{}\\[\\],&*!|>'\"%#? \\t\\r\\n\u{feff}-]{0,80}") {
        let found = resource::load(&[Source::new("any.yaml", &*text)]).err().unwrap_or_default();
        places_are_true(&text, &found)?;
    }

    #[test]
    fn any_edit_is_read_or_refused(edits in prop::collection::vec(an_edit(), 1..6)) {
        let text = edited(edits);
        let found = resource::load(&[Source::new("any.yaml", &*text)]).err().unwrap_or_default();
        places_are_true(&text, &found)?;
    }

    /// A document that is stored alone says the same, of the same place.
    #[test]
    fn a_stored_document_is_the_same(edits in prop::collection::vec(an_edit(), 0..3)) {
        let (documents, _) = resource::parse(&[Source::new("any.yaml", edited(edits))]);
        for document in &documents {
            let stored = serde_json::to_string(&document.source).unwrap();
            let (again, found) = resource::parse(&[serde_json::from_str(&stored).unwrap()]);
            prop_assert_eq!(&found, &[]);
            prop_assert_eq!(again.len(), 1);
            prop_assert_eq!(&again[0].resource, &document.resource);
            prop_assert_eq!(again[0].name_label(""), document.name_label(""));
        }
    }

    /// Text that people pass on to a shell is printed so that it reads as the same.
    #[test]
    fn any_command_survives_being_printed(commands in prop::collection::vec("[ -~äß\\n\\t]{0,40}", 0..4)) {
        let host = serde_json::json!({
            "apiVersion": resource::API_VERSION,
            "kind": "Host",
            "metadata": {"name": "alice"},
            "spec": {"setup": commands},
        });
        let (documents, found) = resource::parse(&[Source::new("host.json", host.to_string())]);
        prop_assert_eq!(found, []);
        let printed = serde_saphyr::to_string(&documents[0]).unwrap();
        let (again, found) = resource::parse(&[Source::new("host.yaml", &*printed)]);
        prop_assert_eq!(found, [], "{}", printed);
        prop_assert_eq!(&again[0].resource, &documents[0].resource, "{}", printed);
    }

    /// The sorted search for overlaps against looking at each pair.
    #[test]
    fn tenants_overlap_if_any_two_do(prefixes in prop::collection::vec((0_u8..4, 0_u8..4, 8_u8..26), 1..7)) {
        let prefixes: Vec<Prefix> = prefixes
            .into_iter()
            .map(|(a, b, length)| Prefix::of(format!("10.{a}.{b}.0/{length}").parse().unwrap()))
            .collect();
        let added: String = prefixes.iter().enumerate().map(|(number, prefix)| a_tenant(number, *prefix)).collect();
        let validated = resource::load(&[Source::new("world.yaml", WORLD), Source::new("tenants.yaml", added)]);
        let overlap = prefixes
            .iter()
            .enumerate()
            .any(|(number, prefix)| prefixes[number + 1..].iter().any(|other| prefix.overlaps(*other)));
        prop_assert_eq!(validated.is_err(), overlap, "{:?}", prefixes);
    }
}

fn a_tenant(number: usize, prefix: Prefix) -> String {
    format!(
        "---
apiVersion: catena/v1alpha1
kind: Tenant
metadata: {{name: t-{number}}}
spec: {{prefixes: [{prefix}]}}
---
apiVersion: catena/v1alpha1
kind: Site
metadata: {{name: s-{number}}}
spec:
  tenant: t-{number}
  attachment: {{gre: {{customer: {{address: 192.0.2.{}}}, cloud: {{element: edge, address: 203.0.113.10}}}}}}
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {{name: c-{number}}}
spec: {{tenant: t-{number}, functions: [ips]}}
",
        number + 100
    )
}

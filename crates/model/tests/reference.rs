//! The reference of the file format names every field that can be written.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use catena_model::resource::{self, Source};

const REFERENCE: &str = include_str!("../../../docs/resources.md");
/// What no mapping has: asked for it, the parser tells what it knows there.
const NOTHING: &str = "{qqqqqqqqqq: 0}";

/// The names that the parser knows in the mapping at `path` of a kind's spec.
fn known(kind: &str, path: &str) -> Vec<String> {
    let spec = path.replace('?', NOTHING);
    let text = format!("apiVersion: catena/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    let (_, found) = resource::parse(&[Source::new("a.yaml", text)]);
    let helps = found.iter().filter(|diagnostic| diagnostic.message.contains("qqqqqqqqqq"));
    let help = helps.map(|diagnostic| diagnostic.help.clone()).next().unwrap();
    let names = help.strip_prefix("known here: ").unwrap();
    names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect()
}

/// The part of the reference that is about a kind.
fn section(kind: &str) -> &'static str {
    let start = REFERENCE.find(&format!("\n## {kind}\n")).unwrap() + 1;
    let end = REFERENCE[start..].find("\n## ").map_or(REFERENCE.len(), |length| start + length);
    &REFERENCE[start..end]
}

/// Whether `name` stands as code, alone or in a path such as `idle: {tcp}`.
fn is_named(section: &str, name: &str) -> bool {
    ["`", "{"]
        .iter()
        .any(|before| ["`", "}", ":"].iter().any(|after| section.contains(&format!("{before}{name}{after}"))))
}

#[test]
fn every_field_is_in_the_reference() {
    for (kind, mappings) in [
        (
            "Element",
            &[
                "?",
                "{driver: ?}",
                "{driver: {linux: ?}}",
                "{driver: {linux: {steer: ?}}}",
                "{driver: {linux: {steer: {tenantLimits: ?}}}}",
                "{driver: {linux: {steer: {idle: ?}}}}",
                "{routes: [?]}",
            ][..],
        ),
        ("Host", &["?"]),
        ("Link", &["?", "{ends: [?]}"]),
        (
            "ServiceFunction",
            &["?", "{nsh: ?}", "{instances: [?]}", "{instances: [{inside: ?}]}", "{instances: [{port: ?}]}"],
        ),
        ("Tenant", &["?"]),
        ("Site", &["?", "{attachment: ?}", "{attachment: {gre: ?}}", "{attachment: {l2: ?}}"]),
        ("Site", &["{attachment: {gre: {customer: ?}}}", "{attachment: {gre: {cloud: ?}}}"]),
        ("Chain", &["?", "{match: [?]}"]),
    ] {
        for mapping in mappings {
            for name in known(kind, mapping) {
                assert!(
                    is_named(section(kind), &name),
                    "{kind} {mapping}: `{name}` is not in docs/resources.md"
                );
            }
        }
    }
}

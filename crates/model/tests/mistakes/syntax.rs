//! Text that is not YAML, or is more than the file format has a use for.

use super::{told, told_all, told_with};

/// A quote that is never closed.
#[test]
fn a_missing_quote() {
    let said = told("via: 172.16.1.1}]", r#"via: "172.16.1.1}]"#);
    insta::assert_snapshot!(said, @r#"
    error: not YAML: unclosed quote
     --> world.yaml:6:31
      |
    6 |   routes: [{to: default, via: "172.16.1.1}]
      |                               ^
      = help: close the quotes
    "#);
}

/// A bracket that is never closed; the documents after it are still read, so the second mistake is told too.
#[test]
fn a_missing_bracket() {
    let said = told_all(&[
        ("spec: {prefixes: [172.16.2.0/24]}", "spec: {prefixes: [172.16.2.0/24}"),
        ("functions: [ips]", "functions: [isp]"),
    ]);
    insta::assert_snapshot!(said, @"
    error: not YAML: mismatched bracket '[' closed by '}'
       --> world.yaml:214:18
        |
    214 | spec: {prefixes: [172.16.2.0/24}
        |                  ^
        = help: check that every `[` and `{` is closed, and the commas between

    error: there is no service function `isp`
       --> world.yaml:259:15
        |
    259 |   functions: [isp]
        |               ^^^
        = help: did you mean `ips`?
    ");
}

/// Indentation by a tab.
#[test]
fn a_tab() {
    let said = told("  role: access\n", "	role: access\n");
    insta::assert_snapshot!(said, @"
    error: not YAML: tabs disallowed within this context (block indentation)
      --> world.yaml:12:2
       |
    12 |  role: access
       |  ^
       = help: indent with spaces
    ");
}

/// A value with a colon and a space.
#[test]
fn a_colon_in_a_value() {
    let said =
        told("spec: {services: [python3 -m http.server 80]}", "spec:\n  services:\n    - echo: it: works");
    insta::assert_snapshot!(said, @"
    error: not YAML: mapping values are not allowed in this context
      --> world.yaml:48:15
       |
    48 |     - echo: it: works
       |               ^
       = help: put quotes round a value that contains `: `, and check the indentation of this line and the one before
    ");
}

/// One field written twice.
#[test]
fn a_key_twice() {
    let said = told("  mtu: 1400", "  mtu: 1400\n  mtu: 1500");
    insta::assert_snapshot!(said, @"
    error: `mtu` stands twice in one mapping
       --> world.yaml:100:3
        |
    100 |   mtu: 1500
        |   ^^^
       ::: world.yaml:99:3
        |
     99 |   mtu: 1400
        |   --- the first one
        = help: leave one of the two out
    ");
}

/// An alias without an anchor.
#[test]
fn an_unknown_alias() {
    let said = told("netns: core", "netns: *core");
    insta::assert_snapshot!(said, @"
    error: no anchor of this name comes before this alias
      --> world.yaml:21:27
       |
    21 |   driver: {linux: {netns: *core}}
       |                           ^
       = help: define the anchor (`&name`) before the alias (`*name`), in the same document
    ");
}

/// A YAML tag.
#[test]
fn a_tag() {
    let said = told("mtu: 1400", "mtu: !bytes 1400");
    insta::assert_snapshot!(said, @"
    error: a YAML tag means nothing here
      --> world.yaml:99:8
       |
    99 |   mtu: !bytes 1400
       |        ^^^^^^
       = help: leave the tag out: what a value is depends on its field
    ");
}

/// A list where a field's name must stand.
#[test]
fn a_list_as_key() {
    let said = told("  mtu: 1400", "  [mtu]: 1400");
    insta::assert_snapshot!(said, @"
    error: a list or mapping stands where a field's name must
      --> world.yaml:99:3
       |
    99 |   [mtu]: 1400
       |   ^^^^^
       = help: write `name: value`
    ");
}

/// Brackets without end.
#[test]
fn nested_too_deeply() {
    let said = told("mtu: 1400", "mtu: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[");
    insta::assert_snapshot!(said, @"
    error: nested more than 32 deep
      --> world.yaml:99:40
       |
    99 |   mtu: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
       |                                        ^
       = help: nothing here is nested so deeply: check the brackets and the indentation
    ");
}

/// Aliases of aliases: ten values are written, a million are meant.
#[test]
fn aliases_that_grow() {
    let said = told_with(
        r#"a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
"#,
    );
    insta::assert_snapshot!(said, @"
    error: the aliases of this document stand for more than 10000 values
     --> added.yaml:4:36
      |
    4 | d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
      |                                    ^^
      = help: write the values out, or spread them over several documents
    ");
}

/// An anchor that contains its own alias.
#[test]
fn an_alias_of_itself() {
    let said = told_with(
        r#"a: &a [*a]
"#,
    );
    insta::assert_snapshot!(said, @"
    error: an alias within its own anchor
     --> added.yaml:1:8
      |
    1 | a: &a [*a]
      |        ^^
      = help: write the value out
    ");
}

/// A document that is a list.
#[test]
fn not_a_mapping() {
    let said = told_with(
        r#"- one
- two
"#,
    );
    insta::assert_snapshot!(said, @"
    error: here is a list instead of a mapping (`field: value`)
     --> added.yaml:1:1
      |
    1 | - one
      | ^^^^^
      = help: write a mapping (`field: value`)
    ");
}

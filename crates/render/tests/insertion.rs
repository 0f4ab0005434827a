//! What the switch is told of functions of every kind of insertion, in words.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use catena_model::forwarding::{ElementState, FlowMatch, Object, Oversize, Path, PathId, Tunnel};
use catena_model::numbering::Numbering;
use catena_model::resource::{Model, Source, load};
use catena_render::render;

/// An example with `to` in the place of each `from`.
fn example(folder: &str, files: &[&str], edits: &[(&str, &str)]) -> Model {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/");
    let read = |name: &&str| std::fs::read_to_string(format!("{root}{folder}/{name}")).unwrap();
    let mut text = files.iter().map(read).collect::<Vec<_>>().join("\n---\n");
    for (from, to) in edits {
        assert!(text.contains(from), "`{from}` must stand in the example");
        text = text.replace(from, to);
    }
    load(&[Source::new("example", text)]).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn insertion(edits: &[(&str, &str)]) -> Model {
    example("insertion", &["network.yaml", "functions.yaml", "tenants.yaml", "chains.yaml"], edits)
}

fn paper(edits: &[(&str, &str)]) -> Model {
    example("paper", &["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml"], edits)
}

fn switch(model: &Model, numbering: &mut Numbering) -> ElementState {
    let state = render(model, numbering).unwrap_or_else(|errors| panic!("{errors:#?}"));
    state.element(&"br".parse().unwrap()).clone()
}

fn paths(state: &ElementState) -> Vec<Path> {
    let all = state.iter().filter_map(|object| match object {
        Object::Path(path) => Some(path.clone()),
        _ => None,
    });
    all.collect()
}

#[test]
fn every_kind_of_insertion() {
    let state = switch(&insertion(&[]), &mut Numbering::default());
    let text: String = state.iter().map(|object| format!("{object}\n")).collect();
    insta::assert_snapshot!(text);
}

/// An edit gives the new path a VLAN of its own, beside the one of the path that drains.
#[test]
fn a_vlan_belongs_to_a_path() {
    let mut numbering = Numbering::default();
    let vlan = |state: &ElementState| paths(state).into_iter().find_map(|path| path.vlan).unwrap().get();
    assert_eq!(vlan(&switch(&insertion(&[]), &mut numbering)), 1);
    assert_eq!(vlan(&switch(&insertion(&[]), &mut numbering)), 1);
    let shorter = insertion(&[("[fw, cache, ips, dpi, aware, ids]", "[fw, dpi]")]);
    assert_eq!(vlan(&switch(&shorter, &mut numbering)), 2);
    let installed: BTreeSet<PathId> = BTreeSet::new();
    numbering.release(&installed);
    assert_eq!(vlan(&switch(&insertion(&[]), &mut numbering)), 1);
}

/// Flows stay where they are while an instance drains: on the same path.
#[test]
fn draining_makes_no_new_path() {
    let mut numbering = Numbering::default();
    let before = switch(&insertion(&[]), &mut numbering);
    let drained = insertion(&[("    - name: ips-1\n", "    - name: ips-1\n      drain: true\n")]);
    let after = switch(&drained, &mut numbering);
    assert_eq!(paths(&before), paths(&after));
    assert_ne!(before, after);
}

#[test]
fn a_function_that_is_inserted_by_vlan_from_now_on_makes_a_new_path() {
    let mut numbering = Numbering::default();
    let before = switch(&insertion(&[("  insertion: vlan", "  insertion: l2")]), &mut numbering);
    let after = switch(&insertion(&[]), &mut numbering);
    assert!(paths(&before).iter().all(|path| path.vlan.is_none()));
    let with_vlan: Vec<Path> = paths(&after).into_iter().filter(|path| path.vlan.is_some()).collect();
    assert_eq!(with_vlan.len(), 1);
    assert!(paths(&before).iter().all(|path| path.id != with_vlan[0].id));
}

/// Replies may be marked otherwise, so where packets enter the DSCP is not looked at.
#[test]
fn what_is_claimed_is_not_told_by_its_dscp() {
    let edit = (
        "    - {protocol: tcp, ports: [80, 443]}",
        "    - {protocol: tcp, dscp: ef}\n    - {protocol: tcp, dscp: af41}",
    );
    let state = render(&paper(&[edit]), &mut Numbering::default()).unwrap();
    let rules = |element: &str| -> Vec<FlowMatch> {
        let element = state.element(&element.parse().unwrap());
        let policies = element.iter().filter_map(|object| match object {
            Object::Policy(policy) => Some(policy.rules.iter().map(|rule| rule.matches.clone())),
            _ => None,
        });
        policies.flatten().collect()
    };
    for element in ["access-a", "core"] {
        assert_eq!(rules(element).iter().map(ToString::to_string).collect::<Vec<_>>(), ["tcp"]);
    }
    assert_eq!(
        rules("br-int").iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["tcp dscp ef", "tcp dscp af41"]
    );
}

/// The outer header takes 20 or 40 bytes, GRE 4, its key 4.
#[test]
fn a_tunnel_over_either_family() {
    let over_ipv6 = [
        (
            "customer: {element: access-a, address: 203.0.113.2}",
            r#"customer: {element: access-a, address: "2001:db8:c1::2"}"#,
        ),
        (
            "cloud: {element: edge, address: 203.0.113.10}",
            r#"cloud: {element: edge, address: "2001:db8:c3::2"}"#,
        ),
    ];
    let without_key = ("      key: 1001\n", "");
    let tunnels = |edits: &[(&str, &str)]| -> Vec<Tunnel> {
        let state = render(&paper(edits), &mut Numbering::default()).unwrap();
        let objects = state.elements.values().flat_map(|element| element.iter().cloned().collect::<Vec<_>>());
        let tunnels = objects.filter_map(|object| match object {
            Object::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        });
        tunnels.collect()
    };
    for (edits, mtu, oversize) in [
        (vec![], 1472, Oversize::TellSender),
        (vec![without_key], 1476, Oversize::TellSender),
        (over_ipv6.to_vec(), 1452, Oversize::TellSender),
        ([over_ipv6.as_slice(), &[without_key]].concat(), 1456, Oversize::TellSender),
    ] {
        let [a, b] = <[Tunnel; 2]>::try_from(tunnels(&edits)).unwrap();
        assert_eq!((a.mtu, b.mtu, a.oversize, b.oversize), (mtu, mtu, oversize, oversize));
        assert_eq!((a.local, a.remote), (b.remote, b.local));
    }
    // Its far end is a device that is not ours, and puts fragments together.
    let cutting = (
        "customer: {element: access-a, address: 203.0.113.2}",
        "oversize: fragment-outer\n      customer: {address: 203.0.113.2}",
    );
    let [only] = <[Tunnel; 1]>::try_from(tunnels(&[cutting])).unwrap();
    assert_eq!((only.mtu, only.oversize), (1472, Oversize::FragmentOuter));
}

//! What the elements of the paper's network are told, in words.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use catena_model::forwarding::ForwardingState;
use catena_model::numbering::Numbering;
use catena_model::resource::{Model, Source, load};
use catena_render::{Subject, render};

/// The example's files, and `more`.
fn paper(more: &[(&str, &str)]) -> Model {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper/");
    let file = |name: &str| Source::new(name, std::fs::read_to_string(format!("{folder}{name}")).unwrap());
    let mut sources: Vec<Source> = ["network.yaml", "functions.yaml", "tenants.yaml"].map(file).into();
    sources.extend(more.iter().map(|(name, text)| Source::new(*name, *text)));
    load(&sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn chain(tenant: &str, body: &str) -> String {
    format!(
        "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {{name: {tenant}-web}}\nspec:\n  tenant: {tenant}\n{body}\n"
    )
}

fn in_words(state: &ForwardingState) -> String {
    let mut text = String::new();
    for (element, state) in &state.elements {
        text.push_str(&format!("{element}\n"));
        state.iter().for_each(|object| text.push_str(&format!("  {object}\n")));
    }
    text
}

fn rendered(more: &[(&str, &str)]) -> ForwardingState {
    render(&paper(more), &mut Numbering::default()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn without_a_chain_nothing_is_told_to_anybody() {
    assert_eq!(rendered(&[]), ForwardingState::default());
}

/// Figure 2: at the virtual router, a rule by source alone, and a table with a default route by the classifier.
#[test]
fn the_papers_chain() {
    let chain = chain("acme", "  match: [{protocol: tcp, ports: [80, 443]}]\n  functions: [fw, ips, web]");
    insta::assert_snapshot!(in_words(&rendered(&[("chain.yaml", &chain)])));
}

#[test]
fn all_traffic_of_a_site_attached_at_layer_2() {
    let chain = chain("globex", "  functions: [ips]");
    insta::assert_snapshot!(in_words(&rendered(&[("chain.yaml", &chain)])));
}

#[test]
fn another_order_is_another_path_and_nothing_else_changes() {
    let [first, second] = ["[fw, ips, web]", "[ips, fw, web]"]
        .map(|order| paper(&[("chain.yaml", &chain("acme", &format!("  functions: {order}")))]));
    let mut numbering = Numbering::default();
    let before = render(&first, &mut numbering).unwrap();
    let after = render(&second, &mut numbering).unwrap();
    for (element, state) in &after.elements {
        let changed: Vec<_> =
            state.iter().filter(|object| !before.element(element).contains(object)).collect();
        let expected = if element.as_str() == "br-int" { 2 } else { 0 };
        assert_eq!(changed.len(), expected, "{element}: {changed:#?}");
    }
    assert_eq!(render(&first, &mut numbering.clone()).map(|_| ()), Ok(()));
    assert_eq!(render(&second, &mut numbering), Ok(after), "rendering again changes nothing");
}

fn edited(file: &str, from: &str, to: &str, chain: &str) -> Result<ForwardingState, String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper/");
    let source = |name: &str| {
        let text = std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        let text = if name == file { text.replacen(from, to, 1) } else { text };
        assert!(name != file || text.contains(to), "{file} has no {from}");
        Source::new(name, text)
    };
    let mut sources: Vec<Source> = ["network.yaml", "functions.yaml", "tenants.yaml"].map(source).into();
    sources.push(Source::new("chain.yaml", chain));
    let model = load(&sources).map_err(|problems| format!("{problems:#?}"))?;
    render(&model, &mut Numbering::default()).map_err(|errors| errors[0].to_string())
}

/// A prefix that the access router knows only by a route comes in by the port that the route leads to.
#[test]
fn what_lies_behind_an_inner_router_is_claimed_too() {
    let chain = chain("acme", "  functions: [fw]");
    let route = "routes:\n    - {to: default, via: 203.0.113.1}";
    // As if a part of the site's network lay behind a router at the other port.
    let more =
        "routes:\n    - {to: 172.16.1.128/25, via: 203.0.113.1}\n    - {to: default, via: 203.0.113.1}";
    let state = edited("network.yaml", route, more, &chain).unwrap();
    let access = in_words(&state);
    assert!(access.contains("ingress wan claims what goes up"), "{access}");
    assert!(access.contains("ingress lan claims what goes up"), "{access}");
    for port in ["lan", "wan"] {
        let rule = format!("rule from 172.16.1.0/24 iif {port} unless released lookup path 1");
        assert!(access.contains(&rule), "{rule} is not in {access}");
    }
}

/// With no link between the switch and the gateway, and none between the core and the gateway, replies pass the virtual
/// router on their way to the gateway and again on their way from there to the switch.
#[test]
fn a_way_that_would_pass_an_element_twice_is_refused() {
    let mut model = paper(&[("chain.yaml", &chain("acme", "  functions: [fw]"))]);
    model.links.retain(|name, _| !["switch-gateway", "wan-gateway"].contains(&name.as_str()));
    let errors = render(&model, &mut Numbering::default()).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].subject(), Subject::Site("acme-hq".parse().unwrap()));
    assert_eq!(
        errors[0].to_string(),
        "site acme-hq: packets of down/acme-hq would pass qrouter-1234 twice, with different next hops; give the \
         gateway and the switch a link that does not lead through qrouter-1234"
    );
}

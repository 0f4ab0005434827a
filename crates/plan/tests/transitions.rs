//! From every state of the paper's network to every other: after each single change nothing that is used is missing, at
//! the end all is as desired.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use catena_model::address::{Prefix, Protocol};
use catena_model::forwarding::{
    Action, Change, ElementState, ForwardingState, Hop, Key, Object, Rule, SiteId,
};
use catena_model::name::PortName;
use catena_model::numbering::Numbering;
use catena_model::resource::{Chain, Model, Source, Traffic, load};
use catena_model::topology::Topology;
use catena_plan::{Phase, Plan, draining, plan};
use catena_render::render;
use proptest::prelude::*;

fn inventory() -> Model {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper/");
    let sources = ["network.yaml", "functions.yaml", "tenants.yaml"]
        .map(|name| Source::new(name, std::fs::read_to_string(format!("{folder}{name}")).unwrap()));
    load(&sources).unwrap()
}

fn with_chains(chains: &[Chain]) -> Model {
    let mut model = inventory();
    model.chains = chains.iter().map(|chain| (chain.name.clone(), chain.clone())).collect();
    model
}

/// None, one or two chains, on one site each, with functions in any order.
fn any_chains() -> impl Strategy<Value = Vec<Chain>> {
    let functions = Just(vec!["fw", "ips", "web"])
        .prop_shuffle()
        .prop_flat_map(|all| (1..=all.len()).prop_map(move |count| all[..count].to_vec()));
    let chain = |name: &'static str, site: &'static str| {
        (functions.clone(), any::<bool>()).prop_map(move |(functions, only_tcp)| Chain {
            name: name.parse().unwrap(),
            sites: [site.parse().unwrap()].into(),
            matches: vec![Traffic {
                protocol: only_tcp.then(|| "tcp".parse().unwrap()),
                ..Traffic::default()
            }],
            functions: functions.into_iter().map(|name| name.parse().unwrap()).collect(),
            priority: 0,
        })
    };
    let maybe = |chain| proptest::option::of(chain);
    (maybe(chain("one", "acme-hq").boxed()), maybe(chain("two", "globex-hq").boxed()))
        .prop_map(|(one, two)| one.into_iter().chain(two).collect())
}

/// A rule for what is not released needs somebody who releases: else what no chain claims would be led off, too.
fn uses_of(rule: &Rule, element: &ElementState) -> Vec<Key> {
    let Rule { selector, table, .. } = rule;
    let mut uses = vec![Key::Table(*table, selector.family)];
    if selector.unless_released {
        uses.extend(selector.in_port.clone().map(Key::Ingress));
        let prefix = selector.from.or(selector.to).unwrap();
        let knows =
            |object: &Object| matches!(object, Object::Policy(policy) if policy.prefixes.contains(&prefix));
        // No site has this number.
        uses.extend((!element.iter().any(knows)).then_some(Key::Policy(SiteId(u32::MAX))));
    }
    uses
}

/// Prefixes whose packets come out of a tunnel of the element, and then go its owner's way.
fn let_in_and_not_led_on(element: &ElementState) -> Vec<Prefix> {
    let is_exit = |object: &&Object| matches!(object, Object::Tunnel(tunnel) if !tunnel.allowed.contains(&Prefix::ALL_V4));
    let exits = element.iter().filter(is_exit);
    let allowed = exits.filter_map(|object| match object {
        Object::Tunnel(tunnel) => Some(&tunnel.allowed),
        _ => None,
    });
    let led_on = |prefix: &&Prefix| {
        element.iter().any(|object| match object {
            Object::Rule(Rule { selector, .. }) => {
                selector.from == Some(**prefix) && selector.in_port == Some(PortName::tunnel())
            }
            _ => false,
        })
    };
    allowed.flatten().filter(|prefix| !led_on(prefix)).copied().collect()
}

/// What a classifier or a path uses but the element does not have.
fn missing(element: &ElementState) -> Vec<Key> {
    let uses = element.iter().flat_map(|object| match object {
        Object::Rule(rule) => uses_of(rule, element),
        Object::Path(path) => path.hops.iter().flat_map(Hop::ids).map(Key::Instance).collect(),
        Object::Policy(policy) => policy
            .rules
            .iter()
            .filter_map(|rule| match rule.action {
                Action::Path(path) => Some(Key::Path(path)),
                Action::Claim => None,
            })
            .collect(),
        _ => Vec::new(),
    });
    uses.filter(|key| element.get(key).is_none()).collect()
}

/// Takes every change by itself.
fn follow(plan: &Plan, state: &mut ForwardingState) {
    for step in &plan.steps {
        for change in &step.changes {
            let element = state.elements.entry(step.element.clone()).or_default();
            element.apply(change);
            assert_eq!(missing(element), [], "on {} after {change}", step.element);
            assert_eq!(let_in_and_not_led_on(element), [], "on {} after {change}", step.element);
        }
    }
    state.elements.retain(|_, element| !element.is_empty());
}

/// Requests of acme go access-a, edge, qrouter-1234, br-int; replies core, gateway, br-int, then back by the same way. Each
/// of these is ready before the one before it begins to send.
fn assert_receivers_first(plan: &Plan) {
    let flip = |name: &str, which: fn(&Object) -> bool| {
        plan.steps.iter().position(|step| {
            let flips = step.changes.iter().map(Change::object).any(which);
            step.phase == Phase::Flip && step.element.as_str() == name && flips
        })
    };
    let policy = |object: &Object| matches!(object, Object::Policy(_));
    let up = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.from.is_some());
    let down = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.to.is_some());
    let requests = [
        flip("br-int", policy),
        flip("qrouter-1234", up),
        flip("edge", up),
        flip("access-a", up),
        flip("access-a", policy),
    ];
    let tunnel = |object: &Object| matches!(object, Object::Tunnel(_));
    let home = [flip("qrouter-1234", down), flip("core", policy)];
    let tunnels = [
        flip("qrouter-1234", up),
        flip("edge", up),
        flip("edge", tunnel),
        flip("edge", down),
        flip("core", policy),
    ];
    let entry = [flip("br-int", policy), flip("gateway", down), flip("core", down), flip("core", policy)];
    // And no request passes the functions before its reply would.
    let both = [flip("core", policy), flip("access-a", up), flip("access-a", policy)];
    for way in [&requests[..], &home, &tunnels, &entry, &both] {
        assert!(way.iter().all(Option::is_some) && way.is_sorted(), "{way:?} {plan:#?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_edit_is_safe_and_complete_there_and_back(before in any_chains(), after in any_chains()) {
        let (before, after) = (with_chains(&before), with_chains(&after));
        let topology = Topology::of(&before);
        let mut numbering = Numbering::default();
        let installed = render(&before, &mut numbering).unwrap();
        let desired = render(&after, &mut numbering).unwrap();

        let forward = plan(&installed, &desired, &topology);
        let mut state = installed.clone();
        follow(&forward, &mut state);
        prop_assert_eq!(&state, &desired);
        prop_assert!(plan(&state, &desired, &topology).is_empty());

        follow(&plan(&state, &installed, &topology), &mut state);
        prop_assert_eq!(&state, &installed);
    }

    /// A controller that dies after any change, and plans again from what it finds, arrives.
    #[test]
    fn from_anywhere_on_the_way(before in any_chains(), after in any_chains(), stop in 0usize..60) {
        let (before, after) = (with_chains(&before), with_chains(&after));
        let topology = Topology::of(&before);
        let mut numbering = Numbering::default();
        let installed = render(&before, &mut numbering).unwrap();
        let desired = render(&after, &mut numbering).unwrap();
        let mut state = installed.clone();
        let changes = plan(&installed, &desired, &topology).steps.into_iter();
        let changes = changes.flat_map(|step| step.changes.into_iter().map(move |change| (step.element.clone(), change)));
        for (element, change) in changes.take(stop) {
            state.elements.entry(element).or_default().apply(&change);
        }
        follow(&plan(&state, &desired, &topology), &mut state);
        prop_assert_eq!(&state, &desired);
    }
}

#[test]
fn who_receives_is_ready_before_who_sends() {
    let model = with_chains(&[chain(&["fw", "ips"])]);
    let desired = render(&model, &mut Numbering::default()).unwrap();
    assert_receivers_first(&plan(&ForwardingState::default(), &desired, &Topology::of(&model)));
}

fn chain(functions: &[&str]) -> Chain {
    Chain {
        name: "web".parse().unwrap(),
        sites: ["acme-hq".parse().unwrap()].into(),
        matches: vec![Traffic::default()],
        functions: functions.iter().map(|name| name.parse().unwrap()).collect(),
        priority: 0,
    }
}

#[test]
fn an_edited_chain_keeps_its_former_path_until_drained_a_deleted_one_does_not() {
    let mut numbering = Numbering::default();
    let first = render(&with_chains(&[chain(&["fw", "ips"])]), &mut numbering).unwrap();
    let edited = render(&with_chains(&[chain(&["ips"])]), &mut numbering).unwrap();
    let kept = draining(&first, &edited);
    let kinds: Vec<String> =
        kept.elements.values().flat_map(ElementState::iter).map(|object| object.kind().to_string()).collect();
    assert_eq!(kinds, ["instance", "path"], "fw's instance, which nothing else uses, and the former path");
    assert_eq!(draining(&first, &ForwardingState::default()), ForwardingState::default());
}

/// Where policies of acme's stand when one of them, or both, are replaced: each claims these ports.
fn flips(before: &[u16], after: &[u16]) -> Vec<String> {
    let web = |ports: &[u16]| {
        let claims = |port: &u16| Traffic {
            protocol: Some(Protocol::TCP),
            ports: vec![(*port).into()],
            ..Traffic::default()
        };
        with_chains(&[Chain { matches: ports.iter().map(claims).collect(), ..chain(&["fw"]) }])
    };
    let (before, after) = (web(before), web(after));
    let mut numbering = Numbering::default();
    let [installed, desired] = [&before, &after].map(|model| render(model, &mut numbering).unwrap());
    let steps = plan(&installed, &desired, &Topology::of(&after)).steps;
    steps.into_iter().map(|step| format!("{} {}", step.phase, step.element)).collect()
}

/// What is claimed and not steered would pass the switch without functions.
#[test]
fn no_more_is_claimed_than_is_steered() {
    assert_eq!(flips(&[80], &[80, 443]), ["flip br-int", "flip core", "flip access-a"]);
    assert_eq!(flips(&[80, 443], &[80]), ["flip access-a", "flip core", "flip br-int"]);
}

//! The gate: what breaks a chain's promise is refused before anything is touched, unless somebody gives the promise up.

use std::collections::{BTreeMap, BTreeSet};

use catena_control::report::{ApplyReport, EventKind, Outcome};
use catena_control::{ApplyError, Controller, Refusal, Request, Terms};
use catena_model::base::{BaseRouting, BaseRule, BaseRuleAction};
use catena_model::resource::{Source, load};
use catena_model::topology::Topology;
use catena_store::Store;
use catena_verify::{Property, Verdict, of_inventory};

use crate::world::*;

/// Somebody sends acme's packets past the router, by a rule before ours.
pub fn divert(world: &World) {
    world.element("edge").set_base(diversion(&[]));
}

/// `opaque` is what is not understood of the rule.
pub fn diversion(opaque: &[&str]) -> BaseRouting {
    let mut base = as_in_the_inventory();
    base.rules.insert(
        1,
        BaseRule {
            priority: 100,
            family: catena_model::address::Family::V4,
            from: Some("172.16.1.0/24".parse().unwrap()),
            to: None,
            in_port: None,
            opaque: opaque.iter().map(|part| (*part).to_owned()).collect(),
            action: BaseRuleAction::Lookup(254),
        },
    );
    base
}

/// Somebody sends the packets to a prefix past our rules on an element.
pub fn divert_to(world: &World, element: &str, to: &str) {
    put_rule_on(world, element, |rule| BaseRule { to: to.parse().ok(), ..rule });
}

fn put_rule_on(world: &World, element: &str, rule: impl Fn(BaseRule) -> BaseRule) {
    let model = load(&inventory()).unwrap();
    let mut base = of_inventory(&model, &Topology::of(&model), &element.parse().unwrap());
    let lookup = BaseRule {
        priority: 100,
        family: catena_model::address::Family::V4,
        from: None,
        to: None,
        in_port: None,
        opaque: Vec::new(),
        action: BaseRuleAction::Lookup(254),
    };
    base.rules.insert(1, rule(lookup));
    world.element(element).set_base(base);
}

pub fn restore(world: &World) {
    world.element("edge").set_base(as_in_the_inventory());
}

/// The routing of `edge`.
pub fn as_in_the_inventory() -> BaseRouting {
    let model = load(&inventory()).unwrap();
    of_inventory(&model, &Topology::of(&model), &"edge".parse().unwrap())
}

pub async fn apply_allowing(
    controller: &Controller,
    sources: &[Source],
    allow: &[Property],
) -> Result<ApplyReport, ApplyError> {
    let allow: BTreeSet<Property> = allow.iter().copied().collect();
    let terms = Terms { allow, by: "root (uid 0)".to_owned(), ..Terms::default() };
    controller.request(Request::Apply(sources.to_vec()), terms).await
}

fn events_of(controller: &Controller, kind: EventKind) -> Vec<String> {
    let events = controller.events().into_iter().filter(|event| event.kind == kind);
    events.map(|event| event.message).collect()
}

const WEB: [&str; 3] = ["fw", "ips", "web"];
/// All that the diversion breaks.
pub const BROKEN: [Property; 3] = [Property::NoBypass, Property::Order, Property::NoBlackHole];

#[tokio::test(start_paused = true)]
async fn what_holds_is_said_to_be_proven() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    let report = apply(&controller, &[chain(&WEB)]).await.unwrap();
    let verified = report.verified.unwrap();
    assert_eq!((verified.verdict, verified.coverage.chains), (Verdict::Proven, 1));
    assert!(report.given_up.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_would_be_bypassed_is_refused_and_nothing_is_touched() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    let (changes, revision) = (world.changes(), world.store.revision().await.unwrap());
    for result in [
        plan_for(&controller, &[chain(&WEB)]).await,
        apply(&controller, &[chain(&WEB)]).await,
        // Another promise does not help.
        apply_allowing(&controller, &[chain(&WEB)], &[Property::Degraded]).await,
    ] {
        let error = result.unwrap_err();
        let ApplyError::Violates(Refusal { violations, undecided }) = &error else { panic!("{error:?}") };
        assert_eq!(undecided, &[]);
        let shown = violations.iter().find(|violation| violation.property == Property::NoBypass).unwrap();
        assert_eq!((shown.chain.as_str(), shown.site.as_str()), ("acme-web", "acme-hq"));
        assert!(shown.walk.functions().is_empty() && shown.walk.visits.len() > 2, "{shown:#?}");
        assert!(error.help().unwrap().contains("--allow no-bypass"), "{:?}", error.help());
        assert!(error.to_string().contains("nothing was touched"), "{error}");
    }
    assert_eq!((world.changes(), world.store.revision().await.unwrap()), (changes, revision));
    assert_eq!(controller.status().chains, []);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_on_record_until_it_holds_again() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    let report = apply_allowing(&controller, &[chain(&WEB)], &BROKEN).await.unwrap();
    assert_eq!(report.verified.unwrap().verdict, Verdict::Violated);
    let given_up = controller.status().given_up;
    assert!(given_up.iter().any(|given_up| given_up.promise.property == Property::NoBypass), "{given_up:?}");
    assert!(given_up.iter().all(|given_up| given_up.by == "root (uid 0)"));
    assert_eq!(report.given_up, given_up);
    assert_eq!(events_of(&controller, EventKind::GivenUp).len(), given_up.len());

    // It outlives the controller, and needs no leave again.
    drop(controller);
    let controller = world.controller().await;
    assert_eq!(controller.status().given_up, given_up);
    apply(&controller, &[chain(&["ips", "web"])]).await.unwrap();
    assert_eq!(controller.status().given_up, given_up);

    restore(&world);
    apply(&controller, &[chain(&WEB)]).await.unwrap();
    assert_eq!(controller.status().given_up, []);
    assert_eq!(events_of(&controller, EventKind::HoldsAgain).len(), given_up.len());

    // It has been taken back for good.
    divert(&world);
    drop(controller);
    let controller = world.controller().await;
    assert_eq!(controller.status().given_up, []);
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    assert!(matches!(apply(&controller, &[chain(&WEB)]).await, Err(ApplyError::Violates(_))));
}

#[tokio::test(start_paused = true)]
async fn what_was_broken_before_stops_nobody() {
    let world = World::new(1);
    let controller = chained(&world).await;
    divert(&world);
    let other = chain_of("globex", "globex-web", &["fw"]);
    let report = apply(&controller, &[other]).await.unwrap();
    let verified = report.verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Violated);
    assert!(verified.violations.iter().all(|violation| violation.chain.as_str() == "acme-web"));
    // Nobody gave it up: it happened.
    assert_eq!(controller.status().given_up, []);
    // The chain itself can be edited, too, and be deleted.
    apply(&controller, &[chain(&["web"])]).await.unwrap();
    let report = delete(&controller, &["chain/acme-web"]).await.unwrap();
    assert_eq!(report.resources[0].outcome, Outcome::Deleted);
    assert_eq!(report.verified.unwrap().verdict, Verdict::Proven);
}

/// Acme's chain, of other packets.
fn chain_for(matches: &str) -> Source {
    let text = format!(
        "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {{name: acme-web}}\nspec:\n  tenant: acme\n  match: \
         [{matches}]\n  functions: [fw, ips, web]\n"
    );
    Source::new("acme-web.yaml", text)
}

/// The packet that shows what is refused.
fn refused(result: Result<ApplyReport, ApplyError>) -> catena_model::packet::Packet {
    match result.unwrap_err() {
        ApplyError::Violates(refusal) => refusal.violations[0].walk.packet,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_broken_for_some_packets_lets_no_others_through() {
    let world = World::new(1);
    let controller = chained(&world).await;
    divert_to(&world, "edge", "198.51.100.64/26");
    let narrow = [chain_for("{protocol: tcp, ports: [443]}")];
    apply(&controller, &narrow).await.unwrap();
    let wide = [chain_for("{protocol: tcp, ports: [443]}, {protocol: tcp, ports: [22]}")];
    let packet = refused(apply(&controller, &wide).await);
    let within: catena_model::address::Prefix = "198.51.100.64/26".parse().unwrap();
    assert!(packet.destination_port == 22 && within.contains(packet.destination), "{packet:?}");

    // Nor does it once it is given up.
    apply_allowing(&controller, &narrow, &[Property::NoBypass]).await.unwrap();
    let given_up = controller.status().given_up;
    assert_eq!(given_up.len(), 1, "what stood before is on record, too");
    assert_eq!(refused(apply(&controller, &wide).await).destination_port, 22);
    drop(controller);
    let controller = world.controller().await;
    assert_eq!(refused(apply(&controller, &wide).await).destination_port, 22);
    apply_allowing(&controller, &wide, &[Property::NoBypass]).await.unwrap();
    assert_eq!(controller.status().given_up.len(), 2);
    apply(&controller, &wide).await.unwrap();
    assert_eq!(
        events_of(&controller, EventKind::GivenUp).len(),
        1,
        "the controller was started anew meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn a_chain_with_what_it_gave_up_can_be_deleted() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    apply_allowing(&controller, &[chain(&WEB)], &BROKEN).await.unwrap();
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    assert_eq!(controller.status().given_up, []);
    assert_eq!(events_of(&controller, EventKind::HoldsAgain), [""; 0]);
    assert_eq!(world.installed().elements, BTreeMap::new());
}

/// What no chain of a site claims is told of one of them; when that one goes, of the next.
#[tokio::test(start_paused = true)]
async fn deleting_one_of_two_chains_is_not_blamed_for_what_was_broken() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let udp = "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {name: acme-dns}\nspec:\n  tenant: acme\n  match: \
               [{protocol: udp, ports: [53]}]\n  functions: [fw]\n";
    apply(&controller, &[Source::new("dns.yaml", udp)]).await.unwrap();
    divert(&world);
    for chain in ["chain/acme-dns", "chain/acme-web"] {
        delete(&controller, &[chain]).await.unwrap();
    }
    assert_eq!(world.installed().elements, BTreeMap::new());
}

/// The gate looks again only at what a change can be about. Whatever happened before, what it says is what a look at
/// everything says, which is how `verify` answers.
#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_change_is_what_a_look_at_everything_tells() {
    const CHAINS: [&[&str]; 4] = [&["fw", "ips", "web"], &["web"], &["ips", "fw"], &["fw"]];
    let mut verdicts = BTreeSet::new();
    for seed in 0..6_u64 {
        let world = World::new(seed);
        let mut controller = world.controller().await;
        apply(&controller, &inventory()).await.unwrap();
        // xorshift64 (Marsaglia 2003).
        let mut dice = seed + 1;
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        for step in 0..24 {
            let all: Vec<Property> = Property::ALL.to_vec();
            let result = match roll(10) {
                0 => {
                    divert(&world);
                    continue;
                }
                1 => {
                    restore(&world);
                    continue;
                }
                2 => {
                    drop(controller);
                    controller = world.controller().await;
                    continue;
                }
                3 => delete(&controller, &["chain/acme-web"]).await,
                4 => delete(&controller, &["chain/globex-web"]).await,
                // Said, and not done: the next change begins elsewhere.
                5 => {
                    let _ = plan_for(&controller, &[chain(CHAINS[roll(4) as usize])]).await;
                    continue;
                }
                6 | 7 => {
                    let other = chain_of("globex", "globex-web", CHAINS[roll(4) as usize]);
                    apply_allowing(&controller, &[other], &all).await
                }
                8 => apply_allowing(&controller, &[chain(CHAINS[roll(4) as usize])], &all).await,
                // May be refused.
                _ => match apply(&controller, &[chain(CHAINS[roll(4) as usize])]).await {
                    Err(ApplyError::Violates(_)) => continue,
                    result => result,
                },
            };
            let told = result.unwrap().verified.unwrap();
            assert_eq!(told, controller.verify(None, false).await.unwrap(), "seed {seed}, step {step}");
            verdicts.insert(told.verdict.to_string());
        }
    }
    assert_eq!(verdicts, BTreeSet::from(["proven", "violated"].map(str::to_owned)));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decided_refuses_nothing_and_is_told() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    world.element("edge").set_base(diversion(&["fwmark 0x1"]));
    let verified = apply(&controller, &[chain(&WEB)]).await.unwrap().verified.unwrap();
    assert_eq!(verified.verdict, Verdict::Undecided);
    assert!(
        verified.undecided.iter().all(|undecided| undecided.chain.as_str() == "acme-web"),
        "{verified:?}"
    );
}

//! What owners' packet filters do to addresses: where it cannot matter to a chain it does not, and elsewhere nothing is proven.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::address::{Family, Protocol};
use catena_model::base::{BaseRuleAction, NewAddress, Translation, TranslationHook};
use catena_model::forwarding::{Direction, Object};
use catena_model::resource::Engine;
use catena_verify::{Property, Report, Verdict, Verifier};
use world::{World, assert_proven, in_words};

const MASQUERADE: &str = "masquerade in chain postrouting of table ip nat";

fn masquerade(port: &str) -> Translation {
    Translation {
        hook: TranslationHook::Leaving,
        family: None,
        port: Some(port.parse().unwrap()),
        from: None,
        to: None,
        into: NewAddress::Own,
        rule: MASQUERADE.to_owned(),
    }
}

fn forwarding(port: &str, to: Option<&str>) -> Translation {
    Translation {
        hook: TranslationHook::Arriving,
        to: to.map(|to| to.parse().unwrap()),
        into: within("10.23.0.9/32"),
        rule: "dnat in chain prerouting of table ip nat".to_owned(),
        ..masquerade(port)
    }
}

fn within(prefix: &str) -> NewAddress {
    NewAddress::Within(prefix.parse().unwrap())
}

fn with(mut world: World, element: &str, translation: Translation) -> Report {
    world.base(element).translations.push(translation);
    world.verify()
}

#[track_caller]
fn assert_undecided(report: &Report, rule: &str) {
    assert_eq!(report.verdict, Verdict::Undecided, "{}", in_words(report));
    assert!(report.undecided.iter().any(|undecided| undecided.what.contains(rule)), "{}", in_words(report));
}

/// Connection tracking gives replies the site's address back before any rule of ours is asked.
#[test]
fn sources_that_are_hidden_from_the_internet() {
    assert_proven(&with(World::paper(), "core", masquerade("inet")));
    let mut world = World::paper();
    world.engine("core", Engine::Nft);
    assert_proven(&with(world, "core", masquerade("inet")));
}

/// The routing engine is asked before connection tracking, when replies are not yet for the site.
#[test]
fn replies_that_a_program_sees_before_they_are_translated_back() {
    let mut world = World::paper();
    world.engine("core", Engine::Steer);
    assert_undecided(&with(world, "core", masquerade("inet")), MASQUERADE);
}

/// Whoever comes later does not know the site by its new source: before the functions, and on the way home.
#[test]
fn sources_that_are_hidden_from_our_own_elements() {
    for (element, port) in [("access-b", "metro"), ("qrouter-1234", "qr-abc"), ("edge", "metro-b")] {
        assert_undecided(&with(World::paper(), element, masquerade(port)), MASQUERADE);
    }
}

/// Behind the functions nobody asks for the source. Replies come to the gateway, which leads them into the chain for what they are
/// for then.
#[test]
fn sources_that_are_hidden_behind_the_functions() {
    for engine in [Engine::Rules, Engine::Nft] {
        let mut world = World::paper();
        world.engine("gateway", engine);
        assert_proven(&with(world, "gateway", masquerade("wan")));
    }
    let mut world = World::paper();
    world.engine("gateway", Engine::Steer);
    assert_undecided(&with(world, "gateway", masquerade("wan")), MASQUERADE);
    // Whoever asks for sources after all does not know the new ones.
    let mut world = World::paper();
    world.foreign_rule("core", |rule| {
        rule.from = Some("203.0.113.14/32".parse().unwrap());
        rule.action = BaseRuleAction::Lookup(77);
    });
    assert_undecided(&with(world, "gateway", masquerade("wan")), MASQUERADE);
}

/// Where replies come back, they are claimed by their destination; or they go round the functions.
#[test]
fn replies_that_are_translated_back_and_go_round_the_functions() {
    let mut world = World::paper();
    let sites = Some("172.16.0.0/12".parse().unwrap());
    let of_acme = |object: &Object| matches!(object, Object::Rule(rule) if rule.selector.to.is_some_and(|to| to.to_string() == "172.16.1.0/24"));
    world.remove("gateway", of_acme);
    let broken_at_gateway = |world: &World| -> Vec<(Property, Direction, String)> {
        let verifier = Verifier::new(&world.network());
        let broken = verifier.broken().filter(|broken| broken.entry.node.as_str() == "gateway");
        broken.map(|broken| (broken.property, broken.direction, broken.entry.port.to_string())).collect()
    };
    assert_eq!(broken_at_gateway(&world), []);
    world.base("gateway").translations.push(Translation { from: sites, ..masquerade("wan") });
    assert_eq!(broken_at_gateway(&world), [(Property::NoBypass, Direction::Down, "wan".to_owned())]);
}

/// By other ports than the Internet's packets take, only elements and other customers answer.
#[test]
fn sources_that_are_hidden_from_what_is_not_on_the_internet() {
    for (element, port) in [("core", "e"), ("core", "a"), ("gateway", "vr")] {
        let from = Some("172.16.0.0/12".parse().unwrap());
        assert_proven(&with(World::paper(), element, Translation { from, ..masquerade(port) }));
    }
}

/// What becomes of packets without us is asked as if they kept their addresses: it is not forgotten that they got somewhere.
#[test]
fn a_loss_is_one_though_sources_were_hidden_before() {
    let mut world = World::paper();
    world.change(
        "access-a",
        |object| matches!(object, Object::Rule(_)),
        |object| {
            if let Object::Rule(rule) = object {
                rule.selector.unless_released = false;
            }
        },
    );
    world.remove("edge", |object| matches!(object, Object::Tunnel(_)));
    let lost = |report: &Report| {
        report.violations.iter().any(|found| found.property == Property::UnclaimedUntouched)
    };
    assert!(lost(&world.verify()), "{}", in_words(&world.verify()));
    let report = with(world, "access-a", masquerade("wan"));
    assert!(lost(&report), "{}", in_words(&report));
}

#[test]
fn translations_of_what_no_chain_is_about() {
    let other = Translation { from: Some("192.0.2.0/24".parse().unwrap()), ..masquerade("qr-abc") };
    assert_proven(&with(World::paper(), "qrouter-1234", other));
    assert_proven(&with(World::paper(), "qrouter-1234", masquerade("unused")));
    assert_proven(&with(World::paper(), "core", forwarding("inet", Some("192.0.2.1/32"))));
}

#[test]
fn destinations_that_are_exchanged_on_the_way() {
    let report = with(World::paper(), "core", forwarding("inet", None));
    assert_undecided(&report, "dnat");
    let report = with(World::paper(), "core", forwarding("inet", Some("172.16.0.0/12")));
    assert_undecided(&report, "dnat");
}

/// The sites of which it is said that others' packets may be given an address of theirs, and where.
fn disguised(world: &World, element: &str, translation: Translation) -> Vec<(String, Direction)> {
    let report = with(world.clone(), element, translation.clone());
    if report.undecided.is_empty() {
        assert_proven(&report);
    }
    let told = report.undecided.iter().map(|undecided| {
        let what =
            format!("{element}: the owner's packet filter may give others' packets an address of the site: ");
        assert_eq!(undecided.what, what + &translation.rule, "{}", in_words(&report));
        (undecided.site.to_string(), undecided.direction)
    });
    told.collect()
}

/// Whoever asks for the address that is exchanged comes to a site round its chain; nobody else's packets are concerned.
#[test]
fn packets_that_are_given_a_sites_address() {
    let (acme, globex) = ("acme-hq".to_owned(), "globex-hq".to_owned());
    let world = World::paper();
    let asked = || forwarding("inet", Some("203.0.113.77/32"));
    let into = |into| Translation { into, ..asked() };
    let found = |element, translation| disguised(&world, element, translation);
    let down = |site: &String| (site.clone(), Direction::Down);
    assert_eq!(found("core", into(within("172.16.1.10/32"))), [down(&acme)]);
    assert_eq!(
        found(
            "gateway",
            Translation { port: Some("wan".parse().unwrap()), ..into(within("172.16.1.128/25")) }
        ),
        [down(&acme)]
    );
    assert_eq!(found("core", into(within("172.16.0.0/16"))), [down(&acme), down(&globex)]);
    assert_eq!(found("core", into(NewAddress::Any)), [down(&acme), down(&globex)]);
    assert_eq!(found("core", Translation { family: Some(Family::V6), ..into(within("172.16.1.10/32")) }), []);
    for harmless in [within("10.23.0.9/32"), NewAddress::Own] {
        assert_eq!(found("core", into(harmless)), []);
    }
    assert_eq!(
        found("core", Translation { port: Some("unused".parse().unwrap()), ..into(NewAddress::Any) }),
        []
    );

    let hidden = |port| {
        let from = Some("192.0.2.0/24".parse().unwrap());
        Translation { from, into: within("172.16.1.99/32"), ..masquerade(port) }
    };
    assert_eq!(found("access-b", hidden("metro")), [(acme.clone(), Direction::Up)]);
    assert_eq!(found("access-b", Translation { into: NewAddress::Own, ..hidden("metro") }), []);
    // On the Internet nobody is taken for the site; but the routing engine is asked for replies before they are translated back.
    assert_eq!(found("core", hidden("inet")), []);
    let mut world = World::paper();
    world.engine("core", Engine::Steer);
    assert_eq!(disguised(&world, "core", hidden("inet")), [(acme, Direction::Up)]);
}

/// The program at the Internet's port cannot release what it sees with another address. So what no chain claims comes to the switch,
/// too, which has to pass it on.
#[test]
fn replies_that_are_not_claimed_and_come_to_the_switch() {
    let mut world = World::paper();
    let of_acme = |object: &Object| matches!(object, Object::Policy(policy) if policy.prefixes.iter().any(|prefix| prefix.to_string() == "172.16.1.0/24"));
    world.change("br-int", of_acme, |object| {
        let Object::Policy(policy) = object else { return };
        let mut rule = policy.rules[0].clone();
        rule.matches.protocol = Some(Protocol::UDP);
        policy.rules.push(rule);
    });
    let broken = |world: &World| -> Vec<(Property, Direction, String)> {
        let verifier = Verifier::new(&world.network());
        let broken = verifier.broken();
        broken.map(|broken| (broken.property, broken.direction, broken.entry.to_string())).collect()
    };
    assert_eq!(broken(&world), []);
    world.base("core").translations.push(masquerade("inet"));
    let found = broken(&world);
    let expected = (Property::UnclaimedUntouched, Direction::Down, "inet of core".to_owned());
    assert!(found.contains(&expected) && found.iter().all(|found| *found == expected), "{found:?}");
    let report = world.verify();
    assert_eq!(report.undecided.len(), 1, "{}", in_words(&report));
    assert_eq!(report.undecided[0].what, "packets that no chain claims pass its functions");
}

/// Replies come to the Internet's side with acme's address in the place of globex's: what is released as none of acme's chain is
/// released from globex's, too.
#[test]
fn replies_that_are_taken_for_another_sites() {
    let confused = |from: &str, into| {
        let from = Some(from.parse().unwrap());
        let report = with(World::paper(), "core", Translation { from, into, ..masquerade("inet") });
        let what = "core: the owner's packet filter may have replies to the site taken for another one's: "
            .to_owned();
        assert!(report.violations.is_empty(), "{}", in_words(&report));
        assert!(report.undecided.iter().all(|undecided| undecided.what == what.clone() + MASQUERADE));
        report.undecided.iter().map(|undecided| undecided.site.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(confused("172.16.2.0/24", within("172.16.1.99/32")), ["globex-hq"]);
    assert_eq!(confused("172.16.2.0/24", NewAddress::Any), ["globex-hq"]);
    assert_eq!(confused("172.16.0.0/16", within("172.16.1.99/32")), ["acme-hq", "globex-hq"]);
    assert_eq!(confused("172.16.2.0/24", within("203.0.113.99/32")), [""; 0]);
    assert_eq!(confused("172.16.2.0/24", NewAddress::Own), [""; 0]);
    assert_eq!(confused("192.0.2.0/24", within("172.16.1.99/32")), [""; 0]);
}

//! Watching: what holds of the chains as they are installed is found out by itself, and told when it changes.

use std::time::Duration;

use catena_control::Controller;
use catena_control::report::{ChainVerdict, EventKind};
use catena_driver::simulated::{Fault, SimulatedDriver, SimulatedElement};
use catena_driver::{Driver, Epoch};
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, Object};
use catena_model::name::{ChainName, SiteName};
use catena_verify::{Property, Verdict};

use crate::gate::{BROKEN, apply_allowing, as_in_the_inventory, diversion, divert, divert_to, restore};
use crate::world::*;

/// What is known of acme's chain once there is time to find it out.
async fn verdict(controller: &Controller) -> ChainVerdict {
    tokio::time::sleep(Duration::from_millis(500)).await;
    controller.status().chains[0].verdict.clone().unwrap()
}

/// The kernel tells of something there.
fn stir(world: &World, element: &str) {
    world.element(element).plug(&"wan".parse().unwrap());
}

fn told(controller: &Controller) -> Vec<EventKind> {
    let kinds = [EventKind::Proven, EventKind::Violated, EventKind::Undecided];
    kinds_of_events(controller, 0).into_iter().filter(|kind| kinds.contains(kind)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_chain_is_proven_without_ado() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let found = verdict(&controller).await;
    assert_eq!((found.verdict, &found.why), (Verdict::Proven, &None));
    // An edit that holds as well changes nothing of it, but what was found before is not said of what it has made.
    let report = apply(&controller, &[chain(&["web", "fw"])]).await.unwrap();
    let known = controller.status().chains[0].verdict.clone();
    assert!(known.is_none_or(|known| known.revision > found.revision));
    let after = verdict(&controller).await;
    assert_eq!((after.verdict, after.since), (Verdict::Proven, found.since));
    assert!(found.revision < report.revision && after.revision >= report.revision, "{found:?} {after:?}");
    assert_eq!(told(&controller), []);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_rule_is_found_and_its_end_too() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    divert(&world);
    stir(&world, "edge");
    let found = verdict(&controller).await;
    assert_eq!(found.verdict, Verdict::Violated);
    let why = found.why.unwrap();
    assert!(why.contains("chain acme-web, site acme-hq") && why.contains("such as tcp 172.16.1."), "{why}");
    let last = controller.events().into_iter().next_back().unwrap();
    assert_eq!(
        (last.kind, last.chain.unwrap().as_str(), last.message.starts_with(&why)),
        (EventKind::Violated, "acme-web", true)
    );

    // Nothing of ours is damaged, so it is for its owner to take it away.
    let status = controller.status();
    assert!(status.converged);
    restore(&world);
    stir(&world, "edge");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
    assert_eq!(told(&controller), [EventKind::Violated, EventKind::Proven]);
}

/// While a link is down nothing goes astray by it, and nothing else does either.
#[tokio::test(start_paused = true)]
async fn a_link_that_goes_and_comes_takes_no_leave_with_it() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    apply_allowing(&controller, &[chain(&["fw", "ips", "web"])], &BROKEN).await.unwrap();
    verdict(&controller).await;
    let given_up = controller.status().given_up;
    assert!(!given_up.is_empty());
    world.element("edge").reroute(BaseRouting { down: ["wan".parse().unwrap()].into(), ..diversion(&[]) });
    let why = verdict(&controller).await.why.unwrap();
    assert!(why.contains("port wan of edge is down"), "{why}");
    assert_eq!(controller.status().given_up, given_up);
    world.element("edge").reroute(diversion(&[]));
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    assert_eq!(controller.status().given_up, given_up);
}

/// What is seen before all is installed as asked for is weighed once it is, though nothing looks otherwise then.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_taken_back_when_its_element_is_found_well_later() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    apply_allowing(&controller, &[chain(&["fw", "ips", "web"])], &BROKEN).await.unwrap();
    verdict(&controller).await;

    // Somebody takes an object away, it cannot be put back for a while, and somebody puts it back by hand.
    let switch = world.element("br-int");
    let object =
        switch.installed().iter().find(|object| matches!(object, Object::Policy(_))).unwrap().clone();
    (0..500).for_each(|nth| switch.fail(nth, Fault::Refuse));
    switch.lose(&object.key());
    tokio::time::sleep(Duration::from_secs(20)).await;
    switch.mend();
    let newest = Epoch(u64::MAX >> 16);
    let put = [Change::Put { new: object, old: None }];
    SimulatedDriver::new(&switch).apply(newest, &put).await.unwrap();
    restore(&world);
    stir(&world, "edge");
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(!controller.status().converged && !controller.status().given_up.is_empty());

    tokio::time::sleep(settings().resync).await;
    assert!(controller.status().converged);
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
    assert_eq!(controller.status().given_up, []);
}

/// A promise that is broken for some packets can break for others.
#[tokio::test(start_paused = true)]
async fn what_is_broken_for_more_packets_is_told_again() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    for prefix in ["198.51.100.64/26", "198.51.100.0/24", "198.51.100.64/26"] {
        divert_to(&world, "edge", prefix);
        stir(&world, "edge");
        assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    }
    let messages: Vec<String> = controller
        .events()
        .into_iter()
        .filter(|event| event.kind == EventKind::Violated)
        .map(|event| event.message)
        .collect();
    let [first, grown] = &messages[..] else { panic!("{messages:#?}") };
    assert!(!first.contains("more packets"), "{first}");
    assert!(grown.starts_with("for more packets than before: "), "{grown}");
}

/// Leave to break a promise ends with the need for it: the next break is nobody's leave.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_taken_back_once_it_is_seen_to_hold() {
    let world = World::new(1);
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    divert(&world);
    apply_allowing(&controller, &[chain(&["fw", "ips", "web"])], &BROKEN).await.unwrap();
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    let given_up = controller.status().given_up;
    assert!(!given_up.is_empty());

    restore(&world);
    // What is not installed as asked for says nothing of what was asked for.
    world.remove("br-int");
    verdict(&controller).await;
    assert_eq!(controller.status().given_up, given_up);
    world.bring("br-int");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
    assert_eq!(controller.status().given_up, []);
    let holds_again = |controller: &Controller| {
        kinds_of_events(controller, 0).into_iter().filter(|kind| *kind == EventKind::HoldsAgain).count()
    };
    assert_eq!(holds_again(&controller), given_up.len());

    drop(controller);
    let controller = world.controller().await;
    assert_eq!(controller.status().given_up, []);
    divert(&world);
    stir(&world, "edge");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    assert_eq!(controller.status().given_up, []);
}

/// Routes, and rules behind ours: nothing of ours is concerned, so nothing is read to be repaired.
#[tokio::test(start_paused = true)]
async fn the_owners_routing_is_followed_within_a_second() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    let edge = world.element("edge");
    edge.reroute(diversion(&[]));
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    assert_converged(&controller, &world);
    // A router that changes its routes all the time is looked at all the same, and not each time.
    for _ in 0..100 {
        edge.reroute(as_in_the_inventory());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
    assert_eq!(told(&controller), [EventKind::Violated, EventKind::Proven]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_told_is_found_by_the_next_look_at_everything() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    divert(&world);
    tokio::time::sleep(settings().resync).await;
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_proven_by_what_cannot_be_read() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    world.remove("br-int");
    let found = verdict(&controller).await;
    assert_eq!(found.verdict, Verdict::Undecided);
    assert!(found.why.as_ref().unwrap().contains("br-int"), "{found:?}");
    let report = controller.verify(None, true).await.unwrap();
    assert_eq!(report.verdict, Verdict::Undecided);
    world.bring("br-int");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
    assert_eq!(told(&controller), [EventKind::Undecided, EventKind::Proven]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_proven_by_routing_that_cannot_be_read() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    world.element("edge").hide_base(true);
    stir(&world, "edge");
    let found = verdict(&controller).await;
    assert_eq!(found.verdict, Verdict::Undecided);
    assert!(found.why.as_ref().unwrap().contains("the routing cannot be read"), "{found:?}");
    for observed in [false, true] {
        assert_eq!(controller.verify(None, observed).await.unwrap().verdict, Verdict::Undecided);
    }
    world.element("edge").hide_base(false);
    stir(&world, "edge");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Proven);
}

/// What is repaired at once was never the state that is judged; what it was repaired to is.
#[tokio::test(start_paused = true)]
async fn damage_that_is_repaired_leaves_a_proven_chain() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let before = verdict(&controller).await;
    world.disturb(&"edge".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    let after = verdict(&controller).await;
    assert_eq!(after.verdict, Verdict::Proven);
    assert!(after.as_of > before.as_of, "{before:?} {after:?}");
    assert_eq!(told(&controller), []);
    assert_converged(&controller, &world);
}

/// While flows are counted every second, reading may take longer than that.
#[tokio::test(start_paused = true)]
async fn a_path_that_drains_does_not_keep_chains_from_being_judged() {
    let world = World::new(1);
    let controller = chained(&world).await;
    for object in world.element("br-int").installed().iter() {
        if let Object::Path(path) = object {
            world.element("br-int").set_live_flows(path.id, 1);
        }
    }
    apply(&controller, &[chain(&["web", "fw"])]).await.unwrap();
    assert!(!controller.status().draining.is_empty());
    world.element("edge").slow_to_read(settings().drain_poll * 3 / 2);
    divert(&world);
    stir(&world, "edge");
    tokio::time::sleep(settings().drain_poll * 10).await;
    assert!(!controller.status().draining.is_empty());
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
}

/// What cannot be looked at any more is not known for ever.
#[tokio::test(start_paused = true)]
async fn an_old_verdict_is_none() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    // Longer than anybody waits for a driver: one reading does not come to its end before the next is due.
    world.element("edge").slow_to_read(Duration::from_secs(3600));
    tokio::time::sleep(settings().resync * 3 + settings().driver_timeout).await;
    let known = controller.status().chains[0].verdict.clone();
    assert!(known.is_none_or(|known| known.verdict != Verdict::Proven));
}

/// That more is broken than before is news.
#[tokio::test(start_paused = true)]
async fn another_broken_promise_is_told_too() {
    let world = World::new(1);
    let controller = chained(&world).await;
    verdict(&controller).await;
    divert_to(&world, "core", "172.16.1.0/24");
    stir(&world, "core");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    let before = told(&controller).len();
    divert(&world);
    stir(&world, "edge");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    assert!(told(&controller).len() > before, "{:#?}", controller.events());

    // And so is that one of several holds again.
    let before = last_event(&controller);
    restore(&world);
    stir(&world, "edge");
    assert_eq!(verdict(&controller).await.verdict, Verdict::Violated);
    let events: Vec<_> = controller.events().into_iter().filter(|event| event.id > before).collect();
    let [event] = &events[..] else { panic!("{events:#?}") };
    assert_eq!(event.kind, EventKind::Violated);
    assert!(event.message.starts_with("no longer broken: "), "{}", event.message);
    assert!(event.message.contains(" of chain acme-web for site acme-hq, "), "{}", event.message);
}

/// The watch looks at what differs from the last time, and `verify` at everything.
#[tokio::test(start_paused = true)]
async fn what_is_watched_is_what_a_look_at_everything_finds() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let mut seen = Vec::new();
    for step in 0..8 {
        match step {
            0 => drop(apply(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await.unwrap()),
            1 => divert(&world),
            2 => drop(apply(&controller, &[chain_of("globex", "globex-web", &["ips", "fw"])]).await.unwrap()),
            3 => divert_to(&world, "core", "172.16.1.0/24"),
            4 => restore(&world),
            5 => world.remove("br-int"),
            6 => world.bring("br-int"),
            _ => drop(delete(&controller, &["chain/acme-web"]).await.unwrap()),
        }
        for element in ["edge", "core"] {
            stir(&world, element);
        }
        verdict(&controller).await;
        let report = controller.verify(None, true).await.unwrap();
        for chain in controller.status().chains {
            let found = chain.verdict.unwrap();
            let is_of = |name: &ChainName, site: &SiteName, property: Option<Property>| {
                let is_of_site =
                    matches!(property, None | Some(Property::Isolation | Property::UnclaimedUntouched));
                *name == chain.name || (is_of_site && chain.sites.iter().any(|of| of.site == *site))
            };
            let violations = || {
                let all = report.violations.iter();
                all.filter(|found| is_of(&found.chain, &found.site, Some(found.property)))
            };
            let mut undecided = report.undecided.iter();
            let expected = match violations().next() {
                Some(_) => Verdict::Violated,
                None if undecided.any(|found| is_of(&found.chain, &found.site, None)) => Verdict::Undecided,
                None => Verdict::Proven,
            };
            assert_eq!(found.verdict, expected, "step {step}: {found:?} {report:#?}");
            if expected == Verdict::Violated {
                let why = found.why.unwrap();
                assert!(violations().any(|found| why.starts_with(&found.to_string())), "step {step}: {why}");
            }
            seen.push((step, expected));
        }
    }
    let count = |verdict| seen.iter().filter(|(_, seen)| *seen == verdict).count();
    let counts = [Verdict::Proven, Verdict::Violated, Verdict::Undecided].map(count);
    assert!(counts.iter().all(|count| *count > 0), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_of_a_tenant_that_there_is_not() {
    let world = World::new(1);
    let controller = chained(&world).await;
    for observed in [false, true] {
        let error = controller.verify("nobody".parse().ok(), observed).await.unwrap_err();
        assert!(error.to_string().contains("no tenant nobody; there are acme, globex"), "{error}");
        let known = controller.verify("acme".parse().ok(), observed).await.unwrap();
        assert_eq!((known.verdict, known.coverage.chains), (Verdict::Proven, 1));
    }
}

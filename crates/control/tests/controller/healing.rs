//! Keeping it so: drift, elements that go and come, crashes.

use std::time::Duration;

use catena_control::Controller;
use catena_control::report::{ChainState, ElementState, EventKind};
use catena_driver::Epoch;
use catena_driver::simulated::{Fault, SimulatedElement};
use catena_model::forwarding::{Key, Object, Oversize, SiteId, Tunnel};
use catena_model::name::NodeName;
use tokio::time::{Instant, sleep, timeout};

use crate::world::*;

fn foreign() -> Object {
    Object::Tunnel(Tunnel {
        site: SiteId(4711),
        underlay: "wan".parse().unwrap(),
        local: "192.0.2.1".parse().unwrap(),
        remote: "192.0.2.2".parse().unwrap(),
        key: None,
        mtu: 1400,
        oversize: Oversize::default(),
        allowed: Default::default(),
    })
}

/// Waits until the element is in this state.
async fn until(controller: &Controller, name: &str, state: ElementState) -> Duration {
    let begun = Instant::now();
    let is = || controller.status().elements.iter().any(|e| e.name.as_str() == name && e.state == state);
    let waiting = async {
        while !is() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(300), waiting).await.unwrap_or_else(|_| panic!("{:#?}", controller.status()));
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn whatever_is_lost_is_back_within_a_second() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let before = world.installed();
    for (name, element) in world.elements() {
        element.put_foreign(foreign());
        for object in before.element(&name).iter() {
            let seen = last_event(&controller);
            assert!(world.disturb(&name, |element| element.lose(&object.key())));
            sleep(Duration::from_millis(900)).await;
            assert!(world.installed() == before, "{object} on {name}");
            assert_eq!(
                kinds_of_events(&controller, seen),
                [EventKind::Drift, EventKind::Repaired],
                "{object}"
            );
            let drift = controller.events().into_iter().find(|event| event.id > seen).unwrap();
            assert_eq!(drift.element.as_ref(), Some(&name));
            assert!(drift.message.contains("missing: "), "{}", drift.message);
        }
        assert!(element.foreign().contains(&foreign()));
    }
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn our_own_changes_are_no_drift() {
    let world = World::new(1);
    let controller = chained(&world).await;
    apply(&controller, &[chain(&["ips", "fw"])]).await.unwrap();
    sleep(Duration::from_secs(200)).await;
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    sleep(Duration::from_secs(200)).await;
    let kinds = kinds_of_events(&controller, 0);
    let expected = [
        EventKind::Started,
        EventKind::Applied,
        EventKind::Applied,
        EventKind::Draining,
        EventKind::Applied,
        EventKind::Drained,
        EventKind::Applied,
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_fails_is_tried_ever_more_slowly() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let edge = world.element("edge");
    let lost = edge.installed().iter().find(|object| matches!(object, Object::Tunnel(_))).unwrap().clone();
    edge.put_foreign(lost.clone());
    world.disturb(&"edge".parse().unwrap(), |edge| edge.lose(&lost.key()));
    sleep(Duration::from_secs(20)).await;
    let status = controller.status();
    let element = status.elements.iter().find(|element| element.name.as_str() == "edge").unwrap();
    assert_eq!(element.state, ElementState::OutOfSync);
    assert!(element.last_error.as_ref().unwrap().contains("in the way"), "{element:?}");
    assert_eq!(status.chains[0].state, ChainState::Degraded);
    assert!(status.chains[0].reason.as_ref().unwrap().contains("edge (out of sync)"));
    // The same failure is told once.
    let failed = kinds_of_events(&controller, 0).into_iter().filter(|kind| *kind == EventKind::RepairFailed);
    assert_eq!(failed.count(), 1);

    // Meanwhile others are applied to, and healed.
    apply(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await.unwrap();
    let seen = last_event(&controller);
    world.disturb(&"gateway".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    sleep(Duration::from_millis(900)).await;
    assert_eq!(kinds_of_events(&controller, seen), [EventKind::Drift, EventKind::Repaired]);

    edge.remove_foreign(&lost.key());
    assert!(until(&controller, "edge", ElementState::InSync).await <= Duration::from_secs(31));
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_comes_back_is_used_at_once() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let before = world.installed();
    let (router, port) = (world.element("qrouter-1234"), "qr-abc".parse().unwrap());
    world.disturb(&"qrouter-1234".parse().unwrap(), |router| router.unplug(&port));
    sleep(Duration::from_secs(25)).await;
    assert_eq!(controller.status().chains[0].state, ChainState::Degraded);
    router.plug(&port);
    assert!(until(&controller, "qrouter-1234", ElementState::InSync).await < Duration::from_millis(500));
    assert!(world.installed() == before);
}

#[tokio::test(start_paused = true)]
async fn an_element_that_is_replaced_is_set_up_anew() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let before = world.installed();
    let seen = last_event(&controller);
    world.remove("br-int");
    world.disturb(&"br-int".parse().unwrap(), SimulatedElement::lose_any);
    until(&controller, "br-int", ElementState::Unreachable).await;
    sleep(Duration::from_secs(70)).await;
    world.bring("br-int");
    assert!(until(&controller, "br-int", ElementState::InSync).await < Duration::from_millis(500));
    assert!(world.installed() == before);
    sleep(Duration::from_millis(500)).await;
    let kinds = kinds_of_events(&controller, seen);
    let healing = [EventKind::Drift, EventKind::Repaired];
    assert_eq!(
        kinds,
        [&[EventKind::Unreachable, EventKind::Undecided][..], &healing, &[EventKind::Proven]].concat()
    );

    // Also when nobody saw the old one go.
    world.bring("edge");
    sleep(Duration::from_millis(500)).await;
    assert!(world.installed() == before);
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_told_is_found_in_the_end() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let edge = world.element("edge");
    edge.cut_off();
    sleep(Duration::from_secs(61)).await;
    assert!(kinds_of_events(&controller, 0).ends_with(&[EventKind::Unreachable, EventKind::Undecided]));
    edge.mend();
    sleep(Duration::from_secs(31)).await;
    assert!(kinds_of_events(&controller, 0).ends_with(&[EventKind::Reachable, EventKind::Proven]));
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn an_element_that_dies_on_the_way_is_cleaned_up_when_it_is_back() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let before = world.installed();
    let switch = world.element("br-int");
    switch.slow(Duration::from_millis(10));
    let request = tokio::spawn({
        let controller = controller.clone();
        async move { apply(&controller, &[chain(&["ips"])]).await }
    });
    sleep(Duration::from_millis(15)).await;
    switch.cut_off();
    let error = request.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("rolled back but for br-int"), "{error}");
    let status = controller.status();
    assert_eq!(status.chains[0].state, ChainState::Pending, "{status:#?}");
    switch.mend();
    until(&controller, "br-int", ElementState::InSync).await;
    assert!(world.installed() == before);
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_deleted_although_one_of_its_elements_is_away() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.element("access-a").cut_off();
    delete(&controller, &["chain/acme-web"]).await.unwrap();
    assert_eq!(world.installed().elements.len(), 1);
    world.element("access-a").mend();
    controller.converged().await;
    assert!(world.installed().elements.is_empty());
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn an_element_that_leaves_the_inventory_is_cleaned_up_first() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let everything: Vec<String> = controller
        .resources(None)
        .iter()
        .map(|resource| format!("{}/{}", resource.kind.singular(), resource.name))
        .collect();
    world.element("edge").cut_off();
    delete(&controller, &everything.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    let names = |controller: &Controller| -> Vec<String> {
        controller.status().elements.iter().map(|element| element.name.to_string()).collect()
    };
    assert_eq!(names(&controller), ["edge"]);
    // A restart does not forget it.
    drop(controller);
    let controller = world.controller().await;
    world.element("edge").mend();
    controller.converged().await;
    assert!(world.installed().elements.is_empty() && names(&controller).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_everything_as_it_was() {
    let world = World::new(1);
    drop(chained(&world).await);
    let changes = world.changes();
    let controller = world.controller().await;
    assert_eq!(world.changes(), changes);
    assert_converged(&controller, &world);
    assert_eq!(kinds_of_events(&controller, 0), [EventKind::Started]);
    let report = apply(&controller, &[chain(&["fw", "ips", "web"])]).await.unwrap();
    assert!(report.plan.0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn drift_while_nobody_looked_is_repaired_at_the_start() {
    let world = World::new(1);
    drop(chained(&world).await);
    let before = world.installed();
    world.disturb(&"gateway".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    let controller = world.controller().await;
    assert!(world.installed() == before);
    let kinds = kinds_of_events(&controller, 0);
    assert_eq!(kinds, [EventKind::Drift, EventKind::Repaired, EventKind::Started]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_controller_is_left_in_charge() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.element("edge").supersede(Epoch(u64::MAX));
    world.disturb(&"edge".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    sleep(Duration::from_millis(500)).await;
    let status = controller.status();
    let edge = status.elements.iter().find(|element| element.name.as_str() == "edge").unwrap();
    assert!(edge.last_error.as_ref().unwrap().contains("newer plan"), "{edge:?}");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_holds_up_nothing_for_ever() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let edge = world.element("edge");
    let lost: Key = world.disturb(&"edge".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    edge.fail(0, Fault::Hang);
    sleep(Duration::from_secs(6)).await;
    assert!(until(&controller, "edge", ElementState::InSync).await < Duration::from_secs(1), "{lost:?}");
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn a_fight_with_another_program_calms_down() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let edge: NodeName = "edge".parse().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) {
        world.disturb(&edge, SimulatedElement::lose_any);
        sleep(Duration::from_millis(50)).await;
    }
    let repairs = kinds_of_events(&controller, 0).iter().filter(|kind| **kind == EventKind::Repaired).count();
    assert!((17..40).contains(&repairs), "{repairs}");
    assert!(until(&controller, "edge", ElementState::InSync).await <= Duration::from_secs(31));
    assert_converged(&controller, &world);
}

#[tokio::test(start_paused = true)]
async fn an_element_that_goes_is_noticed() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.remove("edge");
    assert!(until(&controller, "edge", ElementState::Unreachable).await < Duration::from_secs(1));
}

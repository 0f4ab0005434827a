//! What was counted, and whether what goes into a function comes out of it.

use catena_control::Controller;
use catena_control::report::{CountedKind, DropReason, FunctionsReport, InstanceStatus, Passage};
use catena_driver::simulated::SimulatedElement;
use catena_driver::{Counted, Counter};
use catena_model::forwarding::{Direction, InstanceId, InstanceState, Object, PathId};

use crate::world::*;

/// The switch, with numbers for names.
struct Switch {
    element: SimulatedElement,
    path: PathId,
}

impl Switch {
    fn of(world: &World, controller: &Controller) -> Self {
        Self { element: world.element("br-int"), path: controller.status().chains[0].sites[0].path }
    }

    /// The number of the instance whose inner side is at this port.
    fn instance(&self, port: &str) -> InstanceId {
        let installed = self.element.installed();
        let found = installed.iter().find_map(|object| match object {
            Object::Instance(instance) if instance.inside.port.as_str() == port => Some(instance.id),
            _ => None,
        });
        found.unwrap()
    }

    /// Through the instance at `port`, on the way up: so many in by the chain's path, in by former paths, and out.
    fn set(&self, port: &str, into: u64, formerly: u64, out: u64) {
        let instance = self.instance(port);
        let direction = Direction::Up;
        self.element.set_counters(vec![
            counter(Counted::Hop { path: self.path, position: 1, instance, direction }, into),
            counter(Counted::Hop { path: PathId::NOWHERE, position: 0, instance, direction }, formerly),
            counter(Counted::Returned { instance, direction }, out),
        ]);
    }
}

fn counter(of: Counted, packets: u64) -> Counter {
    Counter { of, packets, bytes: packets * 100 }
}

fn instance<'a>(report: &'a FunctionsReport, name: &str) -> &'a InstanceStatus {
    let mut all = report.functions.iter().flat_map(|function| &function.instances);
    all.find(|instance| instance.name.as_str() == name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn counters_bear_names() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let switch = Switch::of(&world, &controller);
    switch.element.set_counters(vec![
        counter(
            Counted::Hop {
                path: switch.path,
                position: 1,
                instance: switch.instance("ips2-in"),
                direction: Direction::Up,
            },
            7,
        ),
        counter(Counted::Dropped { path: Some(switch.path), reason: DropReason::Fragment }, 3),
        counter(Counted::Dropped { path: None, reason: DropReason::Malformed }, 2),
    ]);
    let report = controller.counters().await;
    let [hop, on_path, before_path] = &report.counters[..] else { panic!("{report:#?}") };
    assert_eq!((hop.counted, hop.packets, hop.position), (CountedKind::Hop, 7, Some(1)));
    assert_eq!(hop.function.as_ref().map(|name| name.as_str()), Some("ips"));
    assert_eq!(hop.instance.as_ref().map(|name| name.as_str()), Some("ips-2"));
    assert_eq!(on_path.chain.as_ref().map(|name| name.as_str()), Some("acme-web"));
    assert_eq!(on_path.tenant.as_ref().map(|name| name.as_str()), Some("acme"));
    assert_eq!((on_path.reason, on_path.generation), (Some(DropReason::Fragment), Some(1)));
    assert_eq!((before_path.reason, before_path.path), (Some(DropReason::Malformed), None));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_named() {
    let world = World::new(1);
    let controller = chained(&world).await;
    world.element("gateway").cut_off();
    let report = controller.counters().await;
    let unread: Vec<&str> = report.unread.iter().map(|unread| unread.element.as_str()).collect();
    assert_eq!(unread, ["gateway"]);

    world.element("br-int").cut_off();
    let report = controller.functions().await;
    assert_eq!(instance(&report, "fw-1").up, None);
    assert_eq!(report.unread.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn functions_are_told_with_their_instances_and_chains() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let report = controller.functions().await;
    let ips = report.function("ips").unwrap();
    let names: Vec<&str> = ips.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["ips-1", "ips-2"]);
    assert!(ips.instances.iter().all(|instance| instance.state == Some(InstanceState::Up)));
    assert_eq!((ips.chains[0].chain.as_str(), ips.chains[0].position), ("acme-web", 1));

    apply(&controller, &[chain(&["fw", "web"])]).await.unwrap();
    // The old path stays for its flows; once it has gone, nothing uses them.
    tokio::time::sleep(std::time::Duration::from_secs(400)).await;
    let report = controller.functions().await;
    assert!(report.function("ips").unwrap().chains.is_empty());
    assert_eq!(instance(&report, "ips-2").state, None);
}

#[tokio::test(start_paused = true)]
async fn what_went_in_and_did_not_come_out_is_missing() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let switch = Switch::of(&world, &controller);

    switch.set("ips2-in", 100, 0, 88);
    let report = controller.functions().await;
    let ips = instance(&report, "ips-2");
    let expected = Passage {
        packets_in: 100,
        bytes_in: 10_000,
        packets_out: 88,
        bytes_out: 8_800,
        missing: 12,
        surplus: 0,
    };
    assert_eq!((ips.up, ips.down), (Some(expected), Some(Passage::default())));
    assert_eq!(
        ips.imbalances(),
        ["12 packets went in to ips-2 on the way up and did not come out: dropped by the function, or lost"]
    );
    assert!(!ips.swallows_everything());

    switch.set("ips2-in", 12, 0, 0);
    let report = controller.functions().await;
    assert!(instance(&report, "ips-2").swallows_everything());

    switch.set("ips2-in", 100, 0, 100);
    let report = controller.functions().await;
    assert_eq!(instance(&report, "ips-2").imbalances(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_came_out_and_had_not_gone_in_is_the_functions_own() {
    let world = World::new(1);
    let controller = chained(&world).await;
    Switch::of(&world, &controller).set("web1-in", 4, 0, 7);
    let report = controller.functions().await;
    let web = instance(&report, "web-1");
    assert_eq!(web.up.map(|passage| (passage.missing, passage.surplus)), Some((0, 3)));
    assert_eq!(
        web.imbalances(),
        ["3 packets came out of web-1 on the way up that had not gone in: of its own making"]
    );
}

#[tokio::test(start_paused = true)]
async fn paths_that_are_gone_leave_no_gap() {
    let world = World::new(1);
    let controller = chained(&world).await;
    Switch::of(&world, &controller).set("fw1-in", 10, 90, 99);
    let report = controller.functions().await;
    let fw = instance(&report, "fw-1").up.unwrap();
    assert_eq!((fw.packets_in, fw.missing, fw.surplus), (100, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn packets_that_pass_while_it_is_read_are_neither() {
    let world = World::new(1);
    let controller = chained(&world).await;
    let switch = Switch::of(&world, &controller);
    // At the first reading 30 are in the function; at the second they have come out, and 50 others are in it.
    switch.set("fw1-in", 100, 0, 70);
    let (report, ()) = tokio::join!(controller.functions(), async {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        switch.set("fw1-in", 150, 0, 100);
    });
    let fw = instance(&report, "fw-1").up.unwrap();
    assert_eq!((fw.packets_in, fw.packets_out, fw.missing, fw.surplus), (150, 100, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn ids_of_events_go_on_after_a_restart() {
    let world = World::new(1);
    let first = chained(&world).await;
    let last = last_event(&first);
    drop(first);
    let second = world.controller().await;
    assert!(second.events().iter().all(|event| event.id > last), "{:#?}", second.events());
}

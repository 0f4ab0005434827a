//! How long flows are remembered, and which count as alive.

use std::time::Duration;

use catena_model::address::Protocol;
use catena_model::forwarding::{Action, FlowMatch, Object, PolicyRule};
use catena_model::packet::Packet;

use super::packets::{ACK, FIN, RST, SYN, web, with_flags};
use super::rig::{PATH, Rig, exits, policy, switch};
use crate::flows::{Sweep, sweep};
use crate::{Settings, Times, settings};

/// Four flows: a connection in use, one that has ended, a SYN that nobody answered, a conversation by UDP.
fn four_flows() -> Rig {
    let rig = Rig::new(&switch());
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    rig.put(&[Object::Policy(policy(vec![everything], Some(exits())))]);
    let packet = |port| web(port)[0];
    let both = |packet: Packet, up, down| {
        rig.send("vr", &with_flags(&packet, up));
        rig.send("gw", &with_flags(&packet.reply(), down));
        rig.send("vr", &with_flags(&packet, up & FIN | ACK));
    };
    both(packet(1), SYN, SYN | ACK);
    both(packet(2), SYN, SYN | ACK);
    both(packet(2), FIN | ACK, FIN | ACK);
    rig.send("vr", &with_flags(&packet(3), SYN));
    both(Packet { protocol: Protocol::UDP, ..packet(4) }, 0, 0);
    assert_eq!(rig.flows().len(), 4);
    rig
}

/// As if the element had been set so, and then swept.
fn sweep_with(rig: &Rig, times: &Times, task: Sweep) -> u64 {
    rig.with_engine(|engine| {
        let maps = &engine.programs.maps;
        let entry = settings::write(&Settings::default(), times, maps.element().unwrap());
        maps.elements.put(&0, &entry).unwrap();
        sweep(&engine.programs.sweep, task).unwrap()
    })
}

/// The source ports of the flows that are left.
fn left(rig: &Rig, times: &Times) -> Vec<u16> {
    sweep_with(rig, times, Sweep::Idle);
    let mut left: Vec<_> = rig.flows().iter().map(|(port, _)| *port).collect();
    left.sort();
    left
}

#[test]
fn each_kind_of_flow_is_remembered_for_its_own_time() {
    let rig = four_flows();
    let forever = Duration::from_secs(3600);
    let mut times = Times {
        closed: forever,
        unanswered: forever,
        connection: forever,
        conversation: forever,
        ..Times::default()
    };
    assert_eq!(left(&rig, &times), [1, 2, 3, 4]);
    times.closed = Duration::ZERO;
    assert_eq!(left(&rig, &times), [1, 3, 4]);
    times.unanswered = Duration::ZERO;
    assert_eq!(left(&rig, &times), [1, 4]);
    times.conversation = Duration::ZERO;
    assert_eq!(left(&rig, &times), [1]);
    times.connection = Duration::ZERO;
    assert_eq!(left(&rig, &times), [0; 0]);
}

#[test]
fn flows_of_a_policy_that_goes_are_not_left_to_the_next_owner_of_its_prefixes() {
    let rig = four_flows();
    rig.delete(&[Object::Policy(policy(vec![], None))]);
    assert_eq!(rig.flows().len(), 0, "the path is there, and the site is not");
}

#[test]
fn a_flow_that_begins_while_its_prefix_is_handed_over_is_swept_later() {
    let rig = four_flows();
    let (key, flow) = rig.with_engine(|engine| engine.programs.maps.flows4.entries().unwrap()[0]);
    let smaller = |prefix: &str| {
        let mut smaller = policy(vec![], Some(exits()));
        smaller.prefixes.remove(&prefix.parse().unwrap());
        Object::Policy(smaller)
    };
    rig.put(&[smaller("172.16.1.0/24")]);
    assert_eq!(rig.flows().len(), 0);
    // Its packet had asked whose it is just before.
    rig.with_engine(|engine| engine.programs.maps.flows4.put(&key, &flow).unwrap());
    rig.driver.inner.in_netns(|| rig.driver.inner.tidy()).unwrap();
    assert_eq!(rig.flows().len(), 0);
}

#[test]
fn a_path_is_alive_while_its_flows_are() {
    let rig = four_flows();
    let live = |times: &Times| sweep_with(&rig, times, Sweep::Count(PATH));
    assert_eq!(live(&Times::default()), 4);
    assert_eq!(live(&Times { closed: Duration::ZERO, ..Times::default() }), 3);
    assert_eq!(live(&Times { alive: Duration::ZERO, ..Times::default() }), 1);
    rig.send("vr", &with_flags(&web(1)[0], RST));
    assert_eq!(live(&Times { closed: Duration::ZERO, ..Times::default() }), 2, "a reset ends a connection");
}

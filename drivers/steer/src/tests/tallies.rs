//! What packets of known flows are counted in is added up before it overflows, with its flow, and when it is read.

use std::os::fd::AsFd;

use catena_driver::Counted;
use catena_model::address::Protocol;
use catena_model::forwarding::{
    Action, Direction, FlowMatch, Hop, InstanceId, InstanceState, Object, Path, PathId, PolicyRule,
};
use catena_model::packet::Packet;

use super::cost::{FUNCTIONS, line, three_routed_functions};
use super::packets::{ACK, frame, frame_with, web};
use super::rig::{PATH, REDIRECT, Rig, SITE, TestRun, exits, policy, test_run_with};
use crate::maps::Maps;
use crate::netlink::Connection;

/// More packets than a word has room for.
const MANY: u64 = 3000;

fn hop(position: u8) -> Counted {
    let (id, _) = FUNCTIONS[usize::from(position)];
    Counted::Hop { path: PATH, position, instance: InstanceId(id), direction: Direction::Up }
}

fn returned(position: u8) -> Counted {
    let (id, _) = FUNCTIONS[usize::from(position)];
    Counted::Returned { instance: InstanceId(id), direction: Direction::Up }
}

fn exit() -> Counted {
    Counted::Exit { path: PATH, direction: Direction::Up }
}

fn count(rig: &Rig, of: &Counted) -> u64 {
    rig.counters().iter().find(|(counted, _)| counted == of).map_or(0, |(_, packets)| *packets)
}

fn send(rig: &Rig, port: &str, frame: &[u8], with: TestRun, times: u64) {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&rig.mac(port));
    rig.with_engine(|engine| {
        let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
        for _ in 0..times {
            let outcome = test_run_with(engine.programs.steer.as_fd(), &TestRun { ifindex, ..with }, &frame);
            assert_eq!(outcome.verdict, REDIRECT, "at {port}");
        }
    });
}

/// Whether anything stands in the flows' entries.
fn is_tallied(rig: &Rig) -> bool {
    rig.with_engine(|engine| {
        let Maps { flows4, flows6, .. } = &engine.programs.maps;
        let entries = flows4.entries().unwrap().into_iter().map(|(_, entry)| entry);
        let mut entries = entries.chain(flows6.entries().unwrap().into_iter().map(|(_, entry)| entry));
        entries.any(|entry| entry.passed.iter().any(|word| *word != 0))
    })
}

#[test]
fn nothing_is_lost_however_many_packets_there_are() {
    let (rig, _far_ends) = line();
    for packet in web(1024) {
        for frame in [frame(&packet), frame_with(&packet, ACK, &[7; 1200])] {
            for port in ["vr", "fw-out", "a-out", "web-out"] {
                send(&rig, port, &frame, TestRun::default(), MANY);
            }
        }
    }
    assert!(is_tallied(&rig));
    for of in [hop(0), returned(0), hop(1), returned(1), hop(2), returned(2), exit()] {
        assert_eq!(count(&rig, &of), 4 * MANY, "{of:?}");
    }
    assert!(!is_tallied(&rig), "what was read was added up");
    let bytes = |packets: &[u8]| (packets.len() - 14) as u64 * MANY;
    let sent: u64 = web(1024)
        .iter()
        .map(|packet| bytes(&frame(packet)) + bytes(&frame_with(packet, ACK, &[7; 1200])))
        .sum();
    assert_eq!(rig.bytes(&exit()), sent);
}

#[test]
fn super_frames_count_as_their_segments() {
    let (rig, _far_ends) = line();
    let [packet, _] = web(1024);
    let frame = frame(&packet);
    for segments in [45, 127, 128, 129, 1023, 60_000] {
        let before = count(&rig, &hop(0));
        send(&rig, "vr", &frame, TestRun { gso_segs: segments, gso_size: 1, ..TestRun::default() }, 20);
        assert_eq!(count(&rig, &hop(0)) - before, 20 * u64::from(segments));
    }
}

/// Virtual machines say how long segments are, and the kernel does not count them.
#[test]
fn segments_that_nobody_has_counted_are_counted() {
    let (rig, _far_ends) = line();
    for packet in web(1024) {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for (payload, segments) in
                [(1, 1), (99, 1), (100, 1), (101, 2), (950, 10), (1000, 10), (1001, 11)]
            {
                let frame = frame_with(&Packet { protocol, ..packet }, ACK, &vec![0; payload]);
                let before = count(&rig, &hop(0));
                send(&rig, "vr", &frame, TestRun { gso_size: 100, ..TestRun::default() }, 1);
                assert_eq!(count(&rig, &hop(0)) - before, segments, "{protocol}, {payload} bytes");
            }
        }
    }
}

#[test]
fn each_instance_is_told_what_it_was_handed_itself() {
    let (rig, _far_ends) = line();
    let both = Path {
        id: PathId(PATH.0 + 1),
        site: SITE,
        hops: vec![Hop::of(FUNCTIONS[..2].iter().map(|(id, _)| InstanceId(*id)))],
        vlan: None,
    };
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(both.id) };
    rig.put(&[Object::Path(both.clone()), Object::Policy(policy(vec![everything], Some(exits())))]);
    let [packet, _] = web(2000);
    send(&rig, "vr", &frame(&packet), TestRun::default(), 10);
    let handed = |id: u32| {
        let instance = InstanceId(id);
        count(&rig, &Counted::Hop { path: both.id, position: 0, instance, direction: Direction::Up })
    };
    let [one, other] = [FUNCTIONS[0].0, FUNCTIONS[1].0];
    let (chosen, second) = if handed(one) > 0 { (one, other) } else { (other, one) };
    send(&rig, "vr", &frame(&packet), TestRun::default(), 10);
    for object in three_routed_functions() {
        if let Object::Instance(mut instance) = object
            && instance.id == InstanceId(chosen)
        {
            instance.state = InstanceState::Down;
            rig.put(&[Object::Instance(instance)]);
        }
    }
    send(&rig, "vr", &frame(&packet), TestRun::default(), 5);
    assert_eq!((handed(chosen), handed(second)), (20, 5));
}

#[test]
fn what_a_path_was_counted_stays_with_its_functions_when_it_goes() {
    let (rig, _far_ends) = line();
    let [packet, _] = web(1024);
    for port in ["vr", "fw-out"] {
        send(&rig, port, &frame(&packet), TestRun::default(), 10);
    }
    rig.put(&[Object::Policy(policy(Vec::new(), Some(exits())))]);
    let path = three_routed_functions().into_iter().find(|object| matches!(object, Object::Path(_))).unwrap();
    rig.delete(&[path]);
    let (id, _) = FUNCTIONS[0];
    let sum = Counted::Hop {
        path: PathId::NOWHERE,
        position: 0,
        instance: InstanceId(id),
        direction: Direction::Up,
    };
    assert_eq!((count(&rig, &sum), count(&rig, &returned(0))), (10, 10));
}

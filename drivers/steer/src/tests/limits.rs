//! What one site may take of what all share: flows that are remembered, and flows that it opens.

use std::os::fd::AsFd;

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{Action, FlowMatch, Object, PolicyRule};

use super::packets::{ACK, FIN, SYN, frame, web, with_flags};
use super::rig::{PATH, REDIRECT, Rig, SHOT, SITE, TestRun, exits, policy, switch, test_run_with};
use crate::layout::Load;
use crate::netlink::Connection;
use crate::{Settings, Times};

fn rig(settings: Settings) -> Rig {
    let rig = Rig::with(settings, Times::default(), &switch());
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    rig.put(&[Object::Policy(policy(vec![everything], Some(exits())))]);
    rig
}

#[test]
fn more_flows_than_a_site_may_have_are_forwarded_and_not_remembered() {
    let rig = rig(Settings { tenant_flows: 5, ..Settings::default() });
    for port in 0..10 {
        let [up, _] = web(40_000 + port);
        assert_eq!(rig.send("vr", &frame(&up)).verdict, REDIRECT);
        assert_eq!(rig.send("gw", &frame(&up.reply())).verdict, REDIRECT);
    }
    assert_eq!(rig.flows().len(), 5);
}

#[test]
fn a_flood_of_syns_takes_no_more_than_the_half_open_ones() {
    let rig = rig(Settings { tenant_half_open: 3, ..Settings::default() });
    for port in 0..20 {
        let [up, _] = web(40_000 + port);
        assert_eq!(rig.send("vr", &with_flags(&up, SYN)).verdict, REDIRECT);
        // A server that answers floods.
        assert_eq!(rig.send("gw", &with_flags(&up.reply(), SYN | ACK)).verdict, REDIRECT);
    }
    assert_eq!(rig.flows().len(), 3);
    for port in 0..3 {
        let [up, _] = web(40_000 + port);
        rig.send("vr", &with_flags(&up, ACK));
        rig.send("gw", &frame(&up.reply()));
    }
    let [up, _] = web(50_000);
    rig.send("vr", &with_flags(&up, SYN));
    assert_eq!(rig.flows().len(), 4, "connections that are open make room");
}

#[test]
fn ports_that_are_used_again_have_the_room_of_the_connection_before() {
    let rig = rig(Settings { tenant_flows: 1, ..Settings::default() });
    let [up, _] = web(40_000);
    rig.send("vr", &with_flags(&up, SYN));
    rig.send("gw", &with_flags(&up.reply(), FIN | ACK));
    rig.send("vr", &with_flags(&up, FIN | ACK));
    let closed = rig.flows()[0].1.state;
    rig.send("vr", &with_flags(&up, SYN));
    let [(_, flow)] = rig.flows()[..] else { panic!("{:?}", rig.flows()) };
    assert_ne!(flow.state, closed, "it is another connection's");
}

#[test]
fn flows_that_were_taken_off_twice_do_not_lock_a_site_out() {
    let rig = rig(Settings::default());
    rig.with_engine(|engine| {
        let below = Load { half_open: u32::MAX, ..Load::default() };
        engine.programs.maps.loads.put(&SITE.0, &below).unwrap();
    });
    rig.send("vr", &frame(&web(40_000)[0]));
    assert_eq!(rig.flows().len(), 1);
}

#[test]
fn nothing_is_counted_of_a_site_that_is_gone() {
    let rig = rig(Settings::default());
    rig.send("vr", &frame(&web(40_000)[0]));
    let sites = || rig.with_engine(|engine| engine.programs.maps.loads.entries().unwrap().len());
    assert_eq!(sites(), 1);
    rig.delete(&[Object::Policy(policy(vec![], Some(exits())))]);
    assert_eq!(sites(), 0);
}

#[test]
fn who_opens_flows_too_fast_is_held_up() {
    let rig = rig(Settings { tenant_new_per_second: 10, ..Settings::default() });
    let verdicts: Vec<_> =
        (0..40).map(|port| rig.send("vr", &frame(&web(40_000 + port)[0])).verdict).collect();
    let sent = verdicts.iter().filter(|verdict| **verdict == REDIRECT).count();
    assert_eq!(verdicts[..10], [REDIRECT; 10], "those of a second may come at once");
    assert!(sent < 20 && verdicts.iter().all(|verdict| [REDIRECT, SHOT].contains(verdict)), "{verdicts:?}");
    let limited = rig.counters().into_iter().find_map(|(of, count)| match of {
        Counted::Dropped { path: Some(PATH), reason: DropReason::Limit } => Some(count),
        _ => None,
    });
    assert_eq!(limited, Some(40 - sent as u64));
    assert_eq!(rig.send("vr", &frame(&web(40_000)[0])).verdict, REDIRECT, "what is open goes on");
}

#[test]
fn the_segments_of_a_super_frame_are_counted() {
    let rig = rig(Settings::default());
    let [up, _] = web(40_000);
    let mut packet = frame(&up);
    packet[..6].copy_from_slice(&rig.mac("vr"));
    rig.with_engine(|engine| {
        let ifindex = Connection::open().unwrap().link("vr").unwrap().unwrap().ifindex;
        let with = TestRun { ifindex, gso_segs: 7, gso_size: 1000, ..TestRun::default() };
        assert_eq!(test_run_with(engine.programs.steer.as_fd(), &with, &packet).verdict, REDIRECT);
    });
    let counts: Vec<_> = rig.counters().into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [7]);
}

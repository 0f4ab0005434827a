//! Every way to insert a function but routed and by tags alone: by VLAN, by NSH, at one port, as a tap, with other addresses.

use std::os::fd::AsFd;

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{
    Action, Delivery, Direction, FlowMatch, Hop, Insertion, Instance, InstanceId, InstanceState, NshMetadata,
    Object, OnFailure, Path, PolicyRule, Purpose, VlanId,
};
use catena_model::packet::Packet;

use super::fuzz::Tagger;
use super::packets::{FAR_V4, V4, frame, ip, raw_v4, v4, web};
use super::rig::{
    Case, Expect, NEXT, Outcome, PATH, REDIRECT, Rig, SITE, TestRun, batch, exits, ingress, policy, put,
    side, test_run_with,
};
use crate::netlink::Connection;
use crate::{Settings, Times};

const BEFORE: InstanceId = InstanceId(1);
const IT: InstanceId = InstanceId(2);
const AFTER: InstanceId = InstanceId(3);

fn bump(id: InstanceId, name: &str) -> Instance {
    Instance {
        id,
        insertion: Insertion::L2,
        inside: side(&format!("{name}-in"), None),
        outside: side(&format!("{name}-out"), None),
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    }
}

/// All of a site's packets pass `it`, between two transparent functions.
fn around(it: Instance) -> Rig {
    around_with(it, Hop::of([IT]))
}

fn around_with(it: Instance, hop: Hop) -> Rig {
    let hops = vec![Hop::of([BEFORE]), hop, Hop::of([AFTER])];
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    let ports = ["vr", "gw", "a-in", "a-out", "b-in", "b-out", "it-in", "it-out"];
    let rig = Rig::on(&ports, Settings::default(), Times::default(), &[]);
    rig.put(&[
        Object::Instance(bump(BEFORE, "a")),
        Object::Instance(it),
        Object::Instance(bump(AFTER, "b")),
        Object::Path(Path { id: PATH, site: SITE, hops, vlan: VlanId::new(100) }),
        Object::Policy(policy(vec![everything], Some(exits()))),
        ingress("vr", Purpose::Steer, [Direction::Up]),
        ingress("gw", Purpose::Steer, [Direction::Down]),
    ]);
    rig
}

fn one_armed(insertion: Insertion) -> Instance {
    Instance { insertion, outside: side("it-in", None), ..bump(IT, "it") }
}

fn goes(position: u8, direction: Direction) -> Expect {
    let instance = [BEFORE, IT, AFTER][usize::from(position)];
    Expect::Goes(Counted::Hop { path: PATH, position, instance, direction })
}

/// As the function at `position` hands it back.
fn tagged(packet: &Packet, position: u8, direction: Direction) -> Vec<u8> {
    let at = position | if direction == Direction::Down { 0x80 } else { 0 };
    let mut frame = frame(packet);
    frame[..12].copy_from_slice(&[2, 0xca, 1, 2, 3, at ^ 0x80, 2, 0xca, 1, 2, 3, at]);
    frame
}

fn case(name: &'static str, because: &'static str, at: &'static str, frame: Vec<u8>, expect: Expect) -> Case {
    Case { name, because, at, frame, expect }
}

const UP: Direction = Direction::Up;
const DOWN: Direction = Direction::Down;

/// As a function that understands NSH hands it back: with its header, whose index is given.
fn with_nsh(packet: &Packet, metadata: NshMetadata, path: [u8; 3], index: u8) -> Vec<u8> {
    let (md_type, length) = match metadata {
        NshMetadata::Fixed => (1, 24),
        NshMetadata::Variable => (2, 8),
    };
    let mut header = vec![0; length];
    header[..2].copy_from_slice(&((63 << 6) | (length as u16 / 4)).to_be_bytes());
    let next = if packet.source.is_ipv4() { 1 } else { 2 };
    header[2..8].copy_from_slice(&[md_type, next, path[0], path[1], path[2], index]);
    let mut frame = tagged(packet, 1, UP);
    frame[12..14].copy_from_slice(&[0x89, 0x4f]);
    frame.splice(14..14, header);
    frame
}

/// Both receptions: the kernel has to take the frame for IP before the header can come off.
fn receive_twice(rig: &Rig, port: &str, frame: &[u8]) -> Outcome {
    let first = rig.send(port, frame);
    assert_eq!(first.verdict, REDIRECT, "{frame:02x?}");
    rig.send(port, &first.frame)
}

#[test]
fn a_function_that_understands_nsh_is_given_the_header_and_brings_it_back() {
    for (metadata, length) in [(NshMetadata::Fixed, 24), (NshMetadata::Variable, 8)] {
        let rig = around(Instance { insertion: Insertion::Nsh(metadata), ..bump(IT, "it") });
        for up in web(40_000) {
            let given = rig.send("a-out", &tagged(&up, 0, UP));
            assert_eq!(given.verdict, REDIRECT);
            let mut expected = with_nsh(&up, metadata, [1, 2, 3], 254);
            assert_eq!(given.frame[12..], expected[12..], "RFC 8300: the second function finds index 254");
            assert_eq!(given.frame.len(), frame(&up).len() + length);

            expected[14 + 7] -= 1;
            let back = receive_twice(&rig, "it-out", &expected);
            assert_eq!(back.verdict, REDIRECT);
            assert_eq!(ip(&back.frame), ip(&frame(&up)), "the packet is what it was");

            let down = rig.send("b-in", &tagged(&up.reply(), 2, DOWN));
            assert_eq!(down.frame[14 + 4..14 + 8], [1, 2, 3, 121], "the index of the way down");
            let back = receive_twice(&rig, "it-in", &with_nsh(&up.reply(), metadata, [1, 2, 3], 120));
            assert_eq!(back.verdict, REDIRECT);
        }
        let [up, _] = web(40_000);
        // Received for the second time.
        let again = |mut frame: Vec<u8>| {
            frame[6..12].copy_from_slice(&[2, 0xcb, 0, 0, 0, 0]);
            frame[12..14].copy_from_slice(&[8, 0]);
            frame
        };
        let nsh = |path, index| again(with_nsh(&up, metadata, path, index));
        let mut oam = nsh([1, 2, 3], 253);
        oam[14] |= 0x20;
        let dropped = |reason| Expect::Dropped(reason);
        rig.expect(&[
            case("it took one off", "as it has to", "it-out", nsh([1, 2, 3], 253), goes(2, UP)),
            case(
                "none",
                "index 254 is what it was given",
                "it-out",
                nsh([1, 2, 3], 254),
                dropped(DropReason::Unexpected),
            ),
            case(
                "two",
                "the next function would be left out",
                "it-out",
                nsh([1, 2, 3], 252),
                dropped(DropReason::Unexpected),
            ),
            case(
                "255",
                "is what the first function is given, and no function leaves",
                "it-out",
                nsh([1, 2, 3], 255),
                dropped(DropReason::ServiceIndex),
            ),
            case(
                "0",
                "no function of ours leaves it",
                "it-out",
                nsh([1, 2, 3], 0),
                dropped(DropReason::ServiceIndex),
            ),
            case(
                "another path",
                "is not installed",
                "it-out",
                nsh([9, 9, 9], 253),
                dropped(DropReason::Missing),
            ),
            case(
                "wrong side",
                "what goes up comes out outside",
                "it-in",
                nsh([1, 2, 3], 253),
                dropped(DropReason::Unexpected),
            ),
            case("oam", "is not for us", "it-out", oam, dropped(DropReason::Unexpected)),
            case("no header", "it says nothing of itself", "it-out", frame(&up), Expect::Passes),
        ]);
    }
}

#[test]
fn variable_metadata_of_a_function_comes_off_with_the_header() {
    let rig = around(Instance { insertion: Insertion::Nsh(NshMetadata::Variable), ..bump(IT, "it") });
    let [up, _] = web(40_000);
    let mut noted = with_nsh(&up, NshMetadata::Variable, [1, 2, 3], 253);
    noted.splice(22..22, [0, 1, 0, 4, 1, 2, 3, 4]);
    noted[15] += 2;
    let back = receive_twice(&rig, "it-out", &noted);
    assert_eq!((back.verdict, ip(&back.frame)), (REDIRECT, ip(&frame(&up))));
}

/// A frame that came in with a VLAN tag, which the kernel keeps beside it.
fn send_in_vlan(rig: &Rig, port: &str, vlan: u16, frame: &[u8]) -> Outcome {
    rig.with_engine(|engine| {
        let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
        let tagger = Tagger::new(engine.programs.steer.as_fd());
        let with = TestRun { ifindex, first_word: vlan.into(), ..TestRun::default() };
        test_run_with(tagger.program(), &with, frame)
    })
}

#[test]
fn a_function_that_knows_vlans_brings_back_the_tag_of_the_path() {
    let rig = around(Instance { insertion: Insertion::Vlan, ..bump(IT, "it") });
    for up in web(40_000) {
        rig.expect(&[
            case("up", "the tag goes on", "a-out", tagged(&up, 0, UP), goes(1, UP)),
            case("down", "in both directions", "b-in", tagged(&up.reply(), 2, DOWN), goes(1, DOWN)),
            case("without a tag", "it says nothing of itself", "it-out", tagged(&up, 1, UP), Expect::Passes),
        ]);
        let back = send_in_vlan(&rig, "it-out", 100, &tagged(&up, 1, UP));
        assert_eq!((back.verdict, ip(&back.frame)), (REDIRECT, ip(&frame(&up))));
        assert_eq!(back.frame[11], 2, "the tag of the next place");
        assert_eq!(send_in_vlan(&rig, "it-in", 100, &tagged(&up.reply(), 1, DOWN)).frame[11], 0x80);
        assert_eq!(send_in_vlan(&rig, "it-out", 101, &tagged(&up, 1, UP)).verdict, NEXT, "no path's");
        assert_eq!(send_in_vlan(&rig, "it-out", 0, &tagged(&up, 1, UP)).verdict, NEXT, "a priority tag");
    }
}

/// A VLAN is a path's: a packet that came back would be sent there again and again.
#[test]
fn a_function_that_knows_vlans_stands_once_in_a_chain() {
    let rig = around(Instance { insertion: Insertion::Vlan, ..bump(IT, "it") });
    let hops = vec![Hop::of([IT]), Hop::of([BEFORE]), Hop::of([IT])];
    let twice = Object::Path(Path { id: PATH, site: SITE, hops, vlan: VlanId::new(100) });
    let error = rig.check(&[put(&twice)]).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
}

#[test]
fn a_function_with_one_port_tells_directions_apart() {
    let rig = around(one_armed(Insertion::L2));
    for up in web(40_000) {
        rig.expect(&[
            case("up", "into its port", "a-out", tagged(&up, 0, UP), goes(1, UP)),
            case("and on", "the tag says up", "it-in", tagged(&up, 1, UP), goes(2, UP)),
            case("down", "into the same port", "b-in", tagged(&up.reply(), 2, DOWN), goes(1, DOWN)),
            case("and back", "the tag says down", "it-in", tagged(&up.reply(), 1, DOWN), goes(0, DOWN)),
        ]);
    }
    let rig = around(one_armed(Insertion::Vlan));
    let [up, _] = web(40_000);
    assert_eq!(send_in_vlan(&rig, "it-in", 100, &tagged(&up, 1, UP)).frame[11], 2);
    assert_eq!(send_in_vlan(&rig, "it-in", 100, &tagged(&up.reply(), 1, DOWN)).frame[11], 0x80);

    let mut routed = one_armed(Insertion::L3);
    (routed.inside, routed.outside) = (side("it-in", Some(9)), side("it-in", Some(9)));
    let rig = around(routed);
    rig.expect(&[
        case("up", "its source is the site's", "it-in", frame(&up), goes(2, UP)),
        case("down", "its destination is", "it-in", frame(&up.reply()), goes(0, DOWN)),
    ]);
}

#[test]
fn a_tap_gets_a_copy_and_nobody_waits_for_it() {
    let rig = around(one_armed(Insertion::Tap));
    rig.netns.run(|| batch("link set it-in-x up\n")).unwrap();
    let [up, _] = web(40_000);
    assert_eq!(rig.send("vr", &frame(&up)).verdict, REDIRECT);
    let sent = rig.send("a-out", &tagged(&up, 0, UP));
    assert_eq!((sent.verdict, sent.frame[11]), (REDIRECT, 2), "the original is past the tap");
    let hop = |position, instance| Counted::Hop { path: PATH, position, instance, direction: UP };
    let counters = rig.counters();
    for counted in [hop(1, IT), hop(2, AFTER)] {
        assert!(counters.contains(&(counted.clone(), 1)), "{counted:?} in {counters:?}");
    }
    let unexpected = Expect::Dropped(DropReason::Unexpected);
    rig.expect(&[case("from a tap", "nothing is expected of it", "it-in", frame(&up), unexpected)]);
}

#[test]
fn a_function_that_changes_addresses_begins_a_flow_of_its_own() {
    let nat = Instance {
        insertion: Insertion::L3,
        inside: side("it-in", Some(8)),
        outside: side("it-out", Some(9)),
        rewrites: true,
        ..bump(IT, "it")
    };
    let rig = around(nat);
    for up in web(40_000) {
        let address = if up.source.is_ipv4() { "203.0.113.7" } else { "2001:db8:cc::7" };
        let changed = Packet { source: address.parse().unwrap(), ..up };
        rig.expect(&[
            case("given", "as any function", "a-out", tagged(&up, 0, UP), goes(1, UP)),
            case("changed", "its port says whose it is", "it-out", frame(&changed), goes(2, UP)),
            case(
                "and out",
                "by the path of the tag",
                "b-out",
                tagged(&changed, 2, UP),
                Expect::Goes(Counted::Exit { path: PATH, direction: UP }),
            ),
            case(
                "the answer",
                "to the new address, which is of no site: its flow is known",
                "gw",
                frame(&changed.reply()),
                goes(2, DOWN),
            ),
            case(
                "and back",
                "to the function that knows the old one",
                "b-in",
                tagged(&changed.reply(), 2, DOWN),
                goes(1, DOWN),
            ),
            case("as before", "on with the old one", "it-in", frame(&up.reply()), goes(0, DOWN)),
        ]);
        let stranger = Packet { source_port: 1, ..changed };
        rig.expect(&[case(
            "a stranger",
            "only what goes up begins a flow",
            "it-in",
            frame(&stranger.reply()),
            Expect::Dropped(DropReason::Unexpected),
        )]);
    }
    let later = raw_v4([203, 0, 113, 7], v4(FAR_V4), 17, 60, false, 5, &[0; 64]);
    let unknown = Expect::Dropped(DropReason::Fragment);
    rig.expect(&[case("fragment", "of which flow?", "it-out", later, unknown)]);
    let whole = raw_v4(v4(V4), v4(FAR_V4), 47, 0, false, 5, &[0; 64]);
    rig.expect(&[case("unchanged", "it need not change all", "it-out", whole, goes(2, UP))]);
}

fn in_state(state: InstanceState) -> Object {
    Object::Instance(Instance { state, ..bump(IT, "it") })
}

#[test]
fn a_function_that_drains_keeps_its_flows_and_one_that_is_down_loses_them() {
    let rig = around(bump(IT, "it"));
    let [old, _] = web(40_000);
    let [new, _] = web(40_001);
    let no_instance = Expect::Dropped(DropReason::NoInstance);
    rig.expect(&[case("opens", "all are up", "vr", frame(&old), goes(0, UP))]);
    rig.put(&[in_state(InstanceState::Draining)]);
    rig.expect(&[
        case("goes on", "it has the flow", "a-out", tagged(&old, 0, UP), goes(1, UP)),
        case("a new one", "is not given to it", "a-out", tagged(&new, 0, UP), no_instance.clone()),
    ]);
    rig.put(&[in_state(InstanceState::Down)]);
    rig.expect(&[case("goes nowhere", "it is down", "a-out", tagged(&old, 0, UP), no_instance)]);
    rig.put(&[in_state(InstanceState::Up)]);
    rig.expect(&[case("back", "it is up again", "a-out", tagged(&old, 0, UP), goes(1, UP))]);
}

#[test]
fn a_hop_that_may_be_left_out_is_while_nobody_is_up() {
    let hop = Hop { on_failure: OnFailure::Skip, ..Hop::of([IT]) };
    let rig = around_with(Instance { state: InstanceState::Down, ..bump(IT, "it") }, hop);
    for up in web(40_000) {
        rig.expect(&[
            case("up", "on to the next function", "a-out", tagged(&up, 0, UP), goes(2, UP)),
            case("down", "also on the way back", "b-in", tagged(&up.reply(), 2, DOWN), goes(0, DOWN)),
        ]);
    }
}

#[test]
fn a_flow_whose_instance_is_down_goes_to_its_second_choice_alone() {
    let other = InstanceId(4);
    let rig = around(bump(IT, "it"));
    let ports = "link add c-in type veth peer name c-in-x\nlink add c-out type veth peer name c-out-x\n";
    rig.netns.run(|| batch(ports)).unwrap();
    let hops = vec![Hop::of([BEFORE]), Hop::of([IT, other]), Hop::of([AFTER])];
    rig.put(&[
        Object::Instance(bump(other, "c")),
        Object::Path(Path { id: PATH, site: SITE, hops, vlan: VlanId::new(100) }),
    ]);
    let packets: Vec<_> = (0..40).map(|port| web(50_000 + port)[0]).collect();
    let places = |rig: &Rig| -> Vec<_> {
        packets
            .iter()
            .for_each(|packet| assert_eq!(rig.send("a-out", &tagged(packet, 0, UP)).verdict, REDIRECT));
        let mut flows = rig.flows();
        flows.sort_by_key(|(port, _)| *port);
        flows.iter().map(|(_, flow)| rig.instances_of(flow)[1]).collect()
    };
    packets.iter().for_each(|packet| drop(rig.send("vr", &frame(packet))));
    let before = places(&rig);
    assert!(before.contains(&IT) && before.contains(&other));
    rig.put(&[in_state(InstanceState::Down)]);
    assert!(places(&rig).iter().all(|id| *id == other), "all are with the one that is up");
    rig.put(&[in_state(InstanceState::Up)]);
    assert!(places(&rig).iter().all(|id| *id == other), "and stay there");
}

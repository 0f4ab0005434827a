//! What does not fit a port: dropped, and its sender told where that is asked for.

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::Direction;
use catena_model::packet::Packet;
use etherparse::{Icmpv4Type, Icmpv6Type, Ipv4Header, SlicedPacket, TransportSlice, icmpv4, icmpv6};

use super::between::{to_the_other, two_sites};
use super::packets::{fragment_v6, frame_with, ip, raw_v4, raw_v6, v4, v6, web};
use super::rig::*;
use crate::{Settings, Times};

const UP: Direction = Direction::Up;
const DOWN: Direction = Direction::Down;

/// Ports that the packets below do not fit are told by `narrow`.
fn rig(tell_too_big: bool, narrow: &[&str]) -> Rig {
    let rig = Rig::with(Settings { tell_too_big, ..Settings::default() }, Times::default(), &switch());
    let lines: String = narrow.iter().map(|port| format!("link set {port} mtu 1400\n")).collect();
    rig.netns.run(|| batch(&lines)).unwrap();
    rig
}

/// 1450 bytes, which may not be cut.
fn long(packet: &Packet) -> Vec<u8> {
    let header = if packet.source.is_ipv4() { 20 } else { 40 };
    let mut frame = frame_with(packet, 0x10, &[7; 1450][..1450 - header - 20]);
    if packet.source.is_ipv4() {
        set_fragmentation(&mut frame, 0x4000);
    }
    frame
}

/// The third word of an IPv4 header: DF, MF and the offset.
fn set_fragmentation(frame: &mut [u8], field: u16) {
    frame[20..22].copy_from_slice(&field.to_be_bytes());
    let mut header = Ipv4Header::from_slice(ip(frame)).unwrap().0;
    header.header_checksum = header.calc_header_checksum();
    frame[14..34].copy_from_slice(&header.to_bytes());
}

/// That an answer tells the sender of `about` of 1400 bytes, by all the rules.
#[track_caller]
fn tells(answer: &[u8], about: &[u8]) {
    let packet = SlicedPacket::from_ethernet(answer).unwrap();
    let (quote, length) = match packet.transport.unwrap() {
        TransportSlice::Icmpv4(icmp) => {
            let header = Ipv4Header::from_slice(ip(answer)).unwrap().0;
            let asked = Ipv4Header::from_slice(ip(about)).unwrap().0;
            assert_eq!((header.source, header.destination), (asked.destination, asked.source));
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let next_hop_mtu = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
            assert_eq!(icmp.header().icmp_type, Icmpv4Type::DestinationUnreachable(next_hop_mtu));
            assert_eq!(icmp.header().checksum, icmp.icmp_type().calc_checksum(icmp.payload()));
            (icmp.payload().to_vec(), 576)
        }
        TransportSlice::Icmpv6(icmp) => {
            let (source, destination) = (&ip(answer)[8..24], &ip(answer)[24..40]);
            assert_eq!((source, destination), (&ip(about)[24..40], &ip(about)[8..24]));
            assert_eq!(icmp.header().icmp_type, Icmpv6Type::PacketTooBig { mtu: 1400 });
            assert!(icmp.is_checksum_valid(source.try_into().unwrap(), destination.try_into().unwrap()));
            assert_eq!(icmp.code_u8(), icmpv6::CODE_DST_UNREACH_NO_ROUTE);
            (icmp.payload().to_vec(), 1280)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ip(answer).len(), length, "as much as any host takes");
    assert!(ip(about).starts_with(&quote), "the beginning of what it is about");
}

/// What was counted but for what came back, in the order of the counters.
fn counted(rig: &Rig) -> Vec<Counted> {
    let counters = rig.counters().into_iter().map(|(of, _)| of);
    counters.filter(|of| !matches!(of, Counted::Returned { .. })).collect()
}

const DROPPED: Counted = Counted::Dropped { path: Some(PATH), reason: DropReason::TooBig };

fn hop(instance: catena_model::forwarding::InstanceId, position: u8, direction: Direction) -> Counted {
    Counted::Hop { path: PATH, position, instance, direction }
}

#[test]
fn by_default_nobody_is_told() {
    let rig = rig(false, &["fw-in"]);
    for up in web(40_000) {
        assert_eq!(rig.send("vr", &long(&up)).verdict, SHOT);
    }
    assert_eq!(rig.counters(), [(DROPPED, 2)]);
}

#[test]
fn what_does_not_fit_the_first_function_is_answered_to_the_site() {
    let rig = rig(true, &["fw-in"]);
    for up in web(40_000) {
        let outcome = rig.send("vr", &long(&up));
        assert_eq!(outcome.verdict, REDIRECT);
        tells(&outcome.frame, &long(&up));
    }
    assert_eq!(counted(&rig), [Counted::Exit { path: PATH, direction: DOWN }, DROPPED]);
}

#[test]
fn what_does_not_fit_further_on_is_answered_through_the_functions_before() {
    let rig = rig(true, &["a-in", "b-in"]);
    for up in web(40_000) {
        rig.forget_flows();
        let outcome = rig.send("fw-out", &long(&up));
        assert_eq!(outcome.verdict, REDIRECT, "out of the firewall, whose neighbour the inspector is");
        tells(&outcome.frame, &long(&up));
    }
    assert_eq!(counted(&rig), [hop(FIREWALL, 0, DOWN), DROPPED]);
}

#[test]
fn a_transparent_function_gets_the_answer_with_its_tag() {
    let rig = rig(true, &["web-in"]);
    for up in web(40_000) {
        let inspector = chosen_inspector(&up);
        let port = if inspector == INSPECTORS[0] { "a-out" } else { "b-out" };
        let mut back = long(&up);
        back[..12].copy_from_slice(&[2, 0xca, 1, 2, 3, 0x81, 2, 0xca, 1, 2, 3, 1]);
        let outcome = rig.send(port, &back);
        assert_eq!(outcome.verdict, REDIRECT);
        assert_eq!(outcome.frame[..12], [2, 0xca, 1, 2, 3, 1, 2, 0xca, 1, 2, 3, 0x81], "on its way down");
        tells(&outcome.frame, &long(&up));
        assert!(counted(&rig).contains(&hop(inspector, 1, DOWN)));
    }
}

#[test]
fn a_function_with_one_port_gets_the_answer_if_it_is_from_no_site() {
    let settings = Settings { tell_too_big: true, ..Settings::default() };
    for up in web(40_000) {
        let rig = Rig::with(settings, Times::default(), &two_sites(true));
        rig.netns.run(|| batch("link set web-in mtu 1400\n")).unwrap();
        tells(&rig.send("fw-in", &long(&up)).frame, &long(&up));
        assert_eq!(counted(&rig), [hop(FIREWALL, 0, DOWN), DROPPED]);
        assert_eq!(rig.send("fw-in", &long(&to_the_other(up))).verdict, SHOT);
        let forged = Counted::Dropped { path: Some(PATH), reason: DropReason::ForgedSource };
        assert_eq!(counted(&rig), [hop(FIREWALL, 0, DOWN), DROPPED, forged]);
    }
}

#[test]
fn what_does_not_fit_the_way_out_is_answered_through_the_last_function() {
    for up in web(40_000) {
        let rig = rig(true, &["gw", "vr"]);
        tells(&rig.send("web-out", &long(&up)).frame, &long(&up));
        assert_eq!(counted(&rig), [hop(PROXY, 2, DOWN), DROPPED]);
        let down = up.reply();
        tells(&rig.send("fw-in", &long(&down)).frame, &long(&down));
        assert!(counted(&rig).contains(&hop(FIREWALL, 0, UP)));
        // A flow that is known takes the fast way, as far as it goes.
        tells(&rig.send("web-out", &long(&up)).frame, &long(&up));
        assert_eq!(rig.counters().iter().find(|(of, _)| *of == DROPPED).map(|(_, count)| *count), Some(3));
    }
}

#[test]
fn what_no_chain_claims_is_answered_where_it_came_from() {
    let rig = rig(true, &["gw"]);
    for up in web(40_000).map(|up| super::packets::to_port(up, 22)) {
        tells(&rig.send("vr", &long(&up)).frame, &long(&up));
    }
    let dropped = Counted::Dropped { path: None, reason: DropReason::TooBig };
    assert_eq!(counted(&rig), [Counted::Transit { site: SITE, direction: DOWN }, dropped]);
}

#[test]
fn nobody_is_told_who_may_not_be() {
    let rig = rig(true, &["fw-in", "gw"]);
    let [up, up6] = web(40_000);
    let (here, there) = (v4("172.16.1.10"), v4("198.51.100.10"));
    let (here6, there6) = (v6("2001:db8:a1::10"), v6("2001:db8:ffff::10"));
    let mut may_be_cut = long(&up);
    set_fragmentation(&mut may_be_cut, 0);
    let mut first = long(&up);
    set_fragmentation(&mut first, 0x2000);
    let later6 = raw_v6(here6, there6, 44, &fragment_v6(6, 10, true, 9, &[7; 1402]));
    let first6 = raw_v6(here6, there6, 44, &fragment_v6(6, 0, true, 9, &ip(&long(&up6))[40..]));
    let icmp4 = |kind, code| {
        let mut frame =
            raw_v4(here, there, 1, 0, false, 1, &[&[kind, code, 0, 0, 0, 0, 0, 0][..], &[0; 1400]].concat());
        set_fragmentation(&mut frame, 0x4000);
        frame
    };
    let icmp6 = |kind| raw_v6(here6, there6, 58, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 1400]].concat());
    let told = |frame: &[u8]| rig.send("vr", frame).verdict == REDIRECT;
    for (name, frame, is_told) in [
        ("not DF", may_be_cut, false),
        ("not DF, a first fragment", first, false),
        ("IPv6, a later fragment", later6, false),
        ("IPv6, a first fragment", first6, true),
        ("an echo request", icmp4(8, 0), true),
        ("an ICMP error", icmp4(3, 1), false),
        ("a redirect", icmp4(5, 1), false),
        ("an ICMPv6 echo request", icmp6(128), true),
        ("an ICMPv6 error", icmp6(1), false),
        ("an ICMPv6 redirect", icmp6(137), false),
    ] {
        assert_eq!(told(&frame), is_told, "{name}");
    }
    // A port for IPv4 alone: IPv6 senders go no lower than 1280 (RFC 8201 section 4).
    rig.netns.run(|| batch("link set fw-in mtu 1000\n")).unwrap();
    assert!(told(&long(&up)) && !told(&long(&up6)));
}

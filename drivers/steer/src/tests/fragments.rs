//! Fragments follow their first one.

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{Action, Direction, Object, Purpose};
use catena_model::packet::Packet;

use super::packets::{
    FAR_V4, FAR_V6, V4, V6, error, fragment_v6, frame, frame_with, raw_v4, raw_v6, to_port, v4, v6, web,
};
use super::rig::{Case, Expect, FIREWALL, PATH, Rig, SITE, ingress, policy, switch, tcp};

/// A packet of 1000 bytes in two fragments.
fn halves(packet: &Packet, id: u16) -> [Vec<u8>; 2] {
    let whole = frame_with(packet, 0x10, &[7; 980]);
    if packet.source.is_ipv4() {
        let body = &whole[34..];
        let (source, destination) = (v4(&packet.source.to_string()), v4(&packet.destination.to_string()));
        [
            raw_v4(source, destination, 6, 0, true, id, &body[..480]),
            raw_v4(source, destination, 6, 60, false, id, &body[480..]),
        ]
    } else {
        let body = &whole[54..];
        let (source, destination) = (v6(&packet.source.to_string()), v6(&packet.destination.to_string()));
        [
            raw_v6(source, destination, 44, &fragment_v6(6, 0, true, id.into(), &body[..480])),
            raw_v6(source, destination, 44, &fragment_v6(6, 60, false, id.into(), &body[480..])),
        ]
    }
}

fn first_hop() -> Expect {
    Expect::Goes(Counted::Hop { path: PATH, position: 0, instance: FIREWALL, direction: Direction::Up })
}

#[test]
fn later_fragments_take_the_way_of_the_first() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let [first, later] = halves(&up, 77);
        let [_, orphan] = halves(&up, 78);
        let other = halves(&to_port(up, 22), 79);
        let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
        rig.expect(&[
            case(
                "before the first",
                "nobody knows its ports",
                later.clone(),
                Expect::Dropped(DropReason::Fragment),
            ),
            case("first", "it has the ports", first, first_hop()),
            case("later", "of the same packet", later, first_hop()),
            case(
                "of another packet",
                "another identification",
                orphan,
                Expect::Dropped(DropReason::Fragment),
            ),
            case("first with other ports", "may be a decoy for later ones", other[0].clone(), first_hop()),
            case("later of that", "the same", other[1].clone(), first_hop()),
        ]);
        assert_eq!(rig.flows().len(), 2);
        rig.forget_flows();
    }
}

#[test]
fn where_no_rule_could_match_a_fragment_needs_no_first_one() {
    let rig = Rig::new(&switch());
    let orphan = raw_v4(v4(V4), v4(FAR_V4), 17, 60, false, 5, &[0; 64]);
    rig.expect(&[Case {
        name: "udp",
        because: "all rules are for tcp",
        at: "vr",
        frame: orphan,
        expect: Expect::Goes(Counted::Transit { site: SITE, direction: Direction::Up }),
    }]);
}

#[test]
fn claiming_follows_fragments() {
    let rig = Rig::new(&[
        Object::Policy(policy(vec![tcp(80, Action::Claim)], None)),
        ingress("vr", Purpose::Claim, [Direction::Up]),
    ]);
    for up in web(40_000) {
        let [first, later] = halves(&up, 77);
        let [other_first, other_later] = halves(&to_port(up, 22), 78);
        let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
        rig.expect(&[
            case("first", "port 80", first, Expect::IsClaimed(Direction::Up)),
            case("later", "as the first", later, Expect::IsClaimed(Direction::Up)),
            // A first fragment to port 22 that dies on the way, then a later one with what ips must not see, then
            // another first one to port 80, all of one identification: the receiver joins the last two.
            case("first to another port", "a decoy?", other_first, Expect::IsClaimed(Direction::Up)),
            case("later after that", "of which first one?", other_later, Expect::IsClaimed(Direction::Up)),
        ]);
    }
}

#[test]
fn an_error_about_a_fragment_finds_the_flow() {
    let rig = Rig::new(&switch());
    let [up, _] = web(40_000);
    let [first, later] = halves(&up, 77);
    rig.send("vr", &first);
    let down = |position, instance| {
        Expect::Goes(Counted::Hop { path: PATH, position, instance, direction: Direction::Down })
    };
    let case = |name, because, frame, expect| Case { name, because, at: "gw", frame, expect };
    rig.expect(&[
        case("about the first", "ports are quoted", error("203.0.113.1", &first), down(2, super::rig::PROXY)),
        case(
            "about a later one",
            "nobody sends such (RFC 1122 section 3.2.2)",
            error("203.0.113.1", &later),
            Expect::Dropped(DropReason::Fragment),
        ),
    ]);
}

#[test]
fn extension_headers_are_walked_to_a_bound() {
    let rig = Rig::new(&switch());
    let [_, up] = web(40_000);
    let tcp = frame(&up)[54..].to_vec();
    // Hop-by-hop, routing, destination options, then TCP: each eight bytes, padded (RFC 8200 section 4.2).
    let mut chained = Vec::new();
    for next in [43, 60, 6] {
        chained.extend_from_slice(&[next, 0, 1, 4, 0, 0, 0, 0]);
    }
    chained.extend_from_slice(&tcp);
    let mut endless = Vec::new();
    for _ in 0..20 {
        endless.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]);
    }
    endless.extend_from_slice(&tcp);
    let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
    rig.expect(&[
        case("three", "the ports stand behind them", raw_v6(v6(V6), v6(FAR_V6), 0, &chained), first_hop()),
        case(
            "twenty",
            "who does that hides something",
            raw_v6(v6(V6), v6(FAR_V6), 60, &endless),
            Expect::Dropped(DropReason::Malformed),
        ),
    ]);
}

//! The way through a chain: from the edges, from function to function, and out.

use std::time::Duration;

use catena_driver::{Counted, DropReason};
use catena_model::address::Protocol;
use catena_model::forwarding::{
    Action, Direction, Exits, FlowMatch, Hop, Object, Path, PathId, PolicyRule, Purpose, SiteId,
};
use catena_model::packet::Packet;

use super::cost::line;
use super::packets::{
    ACK, FIN, HOP_LIMIT, RST, SYN, error, frame, ip, raw_v4, raw_v6, to_port, v4, v6, web, with_flags,
};
use super::rig::{
    Case, Expect, FIREWALL, INSPECTORS, PATH, PROXY, REDIRECT, Rig, SITE, chosen_inspector, exits, ingress,
    policy, side, switch, tcp,
};

fn hop(position: u8, direction: Direction) -> impl Fn(&Packet) -> Expect {
    move |packet| {
        let instance = match position {
            0 => FIREWALL,
            1 => chosen_inspector(packet),
            _ => PROXY,
        };
        Expect::Goes(Counted::Hop { path: PATH, position, instance, direction })
    }
}

fn exit(direction: Direction) -> Expect {
    Expect::Goes(Counted::Exit { path: PATH, direction })
}

fn transit(direction: Direction) -> Expect {
    Expect::Goes(Counted::Transit { site: SITE, direction })
}

/// The tag as which a frame of this flow left for the inspector.
fn tag(direction: u8) -> [u8; 6] {
    [0x02, 0xca, 0x01, 0x02, 0x03, direction | 1]
}

const TAG_UP: u8 = 0;
const TAG_DOWN: u8 = 0x80;

/// The frame as a transparent function hands it back.
fn tagged(packet: &Packet, direction: u8) -> Vec<u8> {
    let mut frame = frame(packet);
    frame[..6].copy_from_slice(&tag(direction ^ TAG_DOWN));
    frame[6..12].copy_from_slice(&tag(direction));
    frame
}

/// The ports of the inspector that has this flow.
fn inspector(packet: &Packet) -> (&'static str, &'static str, &'static str) {
    if chosen_inspector(packet) == INSPECTORS[0] {
        ("a-in", "a-out", "b-out")
    } else {
        ("b-in", "b-out", "a-out")
    }
}

#[test]
fn a_flow_passes_every_function_in_order_and_back() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let down = up.reply();
        let (inside, outside, _) = inspector(&up);
        let (first, second, third) = (hop(0, Direction::Up), hop(1, Direction::Up), hop(2, Direction::Up));
        let (back0, back1, back2) =
            (hop(0, Direction::Down), hop(1, Direction::Down), hop(2, Direction::Down));
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        rig.expect(&[
            case("edge", "the first function is the first on the way up", "vr", frame(&up), first(&up)),
            case("firewall", "after the firewall comes an inspector", "fw-out", frame(&up), second(&up)),
            case("inspector", "the tag says where it was", outside, tagged(&up, TAG_UP), third(&up)),
            case("proxy", "after the last function the gateway", "web-out", frame(&up), exit(Direction::Up)),
            case("gateway", "replies meet the last function first", "gw", frame(&down), back2(&down)),
            case("proxy back", "then the same inspector", "web-in", frame(&down), back1(&down)),
            case("inspector back", "then the firewall", inside, tagged(&down, TAG_DOWN), back0(&down)),
            case("firewall back", "and out to the site", "fw-in", frame(&down), exit(Direction::Down)),
        ]);
        assert_eq!(rig.flows().len(), 1, "both directions share one entry");
        assert_eq!(rig.live_flows(PATH), 1);
        rig.forget_flows();
    }
}

#[test]
fn the_ip_packet_is_untouched_and_only_transparent_functions_see_tags() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let sent = frame(&up);
        for (at, given) in [("vr", &sent), ("fw-out", &sent), ("web-out", &sent)] {
            let outcome = rig.send(at, given);
            assert_eq!(outcome.verdict, REDIRECT, "{at}");
            assert_eq!(ip(&outcome.frame), ip(&sent), "{at}");
        }
        let to_inspector = rig.send("fw-out", &sent).frame;
        assert_eq!(to_inspector[..6], tag(TAG_DOWN), "where the reply's tag will have been learned");
        assert_eq!(to_inspector[6..12], tag(TAG_UP));
        let back = rig.send("web-in", &frame(&up.reply())).frame;
        assert_eq!((&back[..6], &back[6..12]), (&tag(TAG_UP)[..], &tag(TAG_DOWN)[..]));
    }
}

#[test]
fn what_no_rule_claims_goes_straight_on() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let other = to_port(up, 22);
        let datagram = Packet { protocol: Protocol::UDP, ..up };
        let echo = if up.source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let ping = Packet { protocol: echo, source_port: 0, destination_port: 0, ..up };
        let stranger = Packet { source: up.destination, ..up };
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        rig.expect(&[
            case("ssh", "no rule for the port", "vr", frame(&other), transit(Direction::Up)),
            case("ssh back", "", "gw", frame(&other.reply()), transit(Direction::Down)),
            case("udp", "rules are for tcp", "vr", frame(&datagram), transit(Direction::Up)),
            case("ping", "no ports at all", "vr", frame(&ping), transit(Direction::Up)),
            case("stranger", "of no site: the stack's", "vr", frame(&stranger), Expect::Passes),
            case("wrong edge", "this port looks at sources alone", "vr", frame(&up.reply()), Expect::Passes),
            case("no role", "a port that is nobody's", "wan", frame(&up), Expect::Passes),
        ]);
    }
    assert_eq!(rig.flows().len(), 0, "what is not steered is not remembered");
}

#[test]
fn an_edge_that_sees_both_directions_tells_them_by_the_sites_end() {
    let mut objects = switch();
    objects.push(ingress("wan", Purpose::Steer, Direction::BOTH));
    let rig = Rig::new(&objects);
    for up in web(40_000) {
        let case = |name, because, frame, expect| Case { name, because, at: "wan", frame, expect };
        rig.expect(&[
            case("up", "its source is the site's", frame(&up), hop(0, Direction::Up)(&up)),
            case("down", "its destination is", frame(&up.reply()), hop(2, Direction::Down)(&up)),
        ]);
    }
}

#[test]
fn what_only_looks_like_a_matter_between_neighbours_is_steered_like_the_rest() {
    let rig = Rig::new(&switch());
    let (site, far) = (v4("172.16.1.10"), v4("198.51.100.10"));
    let advertisement =
        raw_v6(v6("2001:db8:a1::10"), v6("2001:db8:ffff::10"), 58, &[136, 0, 0, 0, 0, 0, 0, 0]);
    assert_ne!(advertisement[HOP_LIMIT], 255);
    let quoted = &raw_v4(v4("9.9.9.9"), v4("1.1.1.1"), 6, 0, false, 0, &[0; 8])[14..];
    let error = raw_v4(site, far, 1, 0, false, 0, &[&[3, 1, 0, 0, 0, 0, 0, 0], quoted].concat());
    let case = |name, because, frame| Case { name, because, at: "vr", frame, expect: transit(Direction::Up) };
    rig.expect(&[
        case("routed discovery", "valid with hop limit 255 alone", advertisement),
        case("an error about others", "it goes to who did not send what it quotes", error),
        case(
            "link-local v4",
            "Linux routes it",
            raw_v4(site, v4("169.254.169.254"), 17, 0, false, 0, &[0; 8]),
        ),
    ]);
}

#[test]
fn matters_between_neighbours_are_the_stacks() {
    let rig = Rig::new(&switch());
    let mut arp = frame(&web(1)[0]);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let mut tagged_vlan = frame(&web(1)[0]);
    tagged_vlan[12..14].copy_from_slice(&[0x81, 0x00]);
    let mut flooded = frame(&web(1)[0]);
    flooded[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x99]);
    let mut solicitation =
        raw_v6(v6("2001:db8:a1::10"), v6("2001:db8:20::5"), 58, &[135, 0, 0, 0, 0, 0, 0, 0]);
    solicitation[HOP_LIMIT] = 255;
    let case = |name, because, frame| Case { name, because, at: "vr", frame, expect: Expect::Passes };
    rig.expect(&[
        case("arp", "not IP", arp),
        case("vlan", "of a network that we are not asked about", tagged_vlan),
        case("flooded", "addressed to someone else's MAC", flooded),
        case("discovery", "RFC 4861 is for neighbours", solicitation),
        case(
            "multicast",
            "never routed",
            raw_v4(v4("172.16.1.10"), v4("224.0.0.251"), 6, 0, false, 0, &[0; 20]),
        ),
        case("broadcast", "never routed", raw_v4(v4("172.16.1.10"), [255; 4], 6, 0, false, 0, &[0; 20])),
        case("link-local", "never routed", raw_v6(v6("2001:db8:a1::10"), v6("fe80::1"), 6, &[0; 20])),
        case("multicast v6", "never routed", raw_v6(v6("2001:db8:a1::10"), v6("ff02::1"), 6, &[0; 20])),
    ]);
}

#[test]
fn what_a_function_was_not_given_is_dropped() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let (_, outside, other) = inspector(&up);
        let unclaimed = to_port(up, 22);
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        let unexpected = Expect::Dropped(DropReason::Unexpected);
        let mut elsewhere = tagged(&up, TAG_UP);
        elsewhere[9..11].copy_from_slice(&[0xee, 0xee]);
        rig.expect(&[
            case("unclaimed", "no chain has it", "fw-out", frame(&unclaimed), unexpected.clone()),
            case(
                "other copy",
                "this flow is the other inspector's",
                other,
                tagged(&up, TAG_UP),
                unexpected.clone(),
            ),
            case(
                "turned round",
                "sent up, and back by the side it came",
                outside,
                tagged(&up, TAG_DOWN),
                unexpected,
            ),
            case(
                "no such path",
                "the tag of a path that is not here",
                outside,
                elsewhere,
                Expect::Dropped(DropReason::Missing),
            ),
        ]);
    }
}

#[test]
fn a_function_answers_for_itself() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let (inside, _, _) = inspector(&up);
        let router = if up.source.is_ipv4() { "10.22.0.1" } else { "2001:db8:22::1" };
        rig.send("vr", &with_flags(&up, SYN));
        let mut reset = with_flags(&up.reply(), RST);
        reset[..6].copy_from_slice(&tag(TAG_UP));
        reset[6..12].copy_from_slice(&tag(TAG_DOWN));
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        rig.expect(&[
            case(
                "reset by the proxy",
                "on to the site, through those before",
                "web-in",
                with_flags(&up.reply(), RST),
                hop(1, Direction::Down)(&up),
            ),
            case(
                "reset by the inspector",
                "it swapped the addresses, so the tag is right",
                inside,
                reset,
                hop(0, Direction::Down)(&up),
            ),
            case(
                "error by the firewall",
                "it belongs to the flow inside it",
                "fw-in",
                error(router, &frame(&up)),
                exit(Direction::Down),
            ),
            case(
                "error from the Internet",
                "the same way as replies",
                "gw",
                error(router, &frame(&up)),
                hop(2, Direction::Down)(&up),
            ),
            case(
                "talk with the switch",
                "not of a site",
                "fw-in",
                frame(&Packet { source: up.destination, destination: router.parse().unwrap(), ..up }),
                Expect::Passes,
            ),
        ]);
        let from_site = error(&up.source.to_string(), &frame(&up.reply()));
        rig.expect(&[case(
            "error from the site",
            "about a reply",
            "vr",
            from_site,
            hop(0, Direction::Up)(&up),
        )]);
        rig.forget_flows();
    }
}

#[test]
fn without_an_entry_the_same_instances_are_found_again() {
    let rig = Rig::new(&switch());
    for up in web(40_000) {
        let (_, outside, _) = inspector(&up);
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        for line in [
            case("after the firewall", "by policy", "fw-out", frame(&up), hop(1, Direction::Up)(&up)),
            case(
                "after the inspector",
                "by the tag",
                outside,
                tagged(&up, TAG_UP),
                hop(2, Direction::Up)(&up),
            ),
            case("after the proxy", "by policy", "web-in", frame(&up.reply()), hop(1, Direction::Down)(&up)),
        ] {
            rig.expect(&[line]);
            assert_eq!(rig.flows().len(), 0, "flows begin at the edge");
        }
        rig.forget_flows();
    }
}

#[test]
fn flows_stay_on_the_path_that_they_began_on() {
    const NEW: PathId = PathId(9);
    let rig = Rig::new(&switch());
    let [up, _] = web(40_000);
    let [other, _] = web(40_001);
    rig.send("vr", &frame(&up));
    // The edit: two functions now, the proxy first.
    let hops = vec![Hop::of([PROXY]), Hop::of([FIREWALL])];
    let new_path = Object::Path(Path { id: NEW, site: SITE, hops, vlan: None });
    rig.put(&[new_path, Object::Policy(policy(vec![tcp(80, Action::Path(NEW))], Some(exits())))]);
    let new_first =
        Expect::Goes(Counted::Hop { path: NEW, position: 0, instance: PROXY, direction: Direction::Up });
    let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
    rig.expect(&[
        case("old flow", "it has an entry", "vr", frame(&up), hop(0, Direction::Up)(&up)),
        case(
            "old flow, next",
            "its whole way is the old one",
            "fw-out",
            frame(&up),
            hop(1, Direction::Up)(&up),
        ),
        case("new flow", "by the new policy", "vr", frame(&other), new_first.clone()),
    ]);
    assert_eq!((rig.live_flows(PATH), rig.live_flows(NEW)), (1, 1));

    rig.delete(&[super::rig::path()]);
    rig.expect(&[case("old flow without its path", "begins anew", "vr", frame(&up), new_first.clone())]);
    assert_eq!((rig.live_flows(PATH), rig.live_flows(NEW)), (0, 2));
    let of_old =
        |of: &Counted| matches!(of, Counted::Hop { path: PATH, .. } | Counted::Exit { path: PATH, .. });
    assert!(!rig.counters().iter().any(|(of, _)| of_old(of)), "counters go with their path");
}

#[test]
fn what_was_in_a_function_while_the_policy_changed_goes_round_none_of_the_new_path() {
    const NEW: PathId = PathId(9);
    let rig = Rig::new(&switch());
    // The proxy first: what comes out of the firewall on the old path has not been there.
    let hops = vec![Hop::of([PROXY]), Hop::of([FIREWALL])];
    let new_path = Object::Path(Path { id: NEW, site: SITE, hops, vlan: None });
    rig.put(&[new_path, Object::Policy(policy(vec![tcp(80, Action::Path(NEW))], Some(exits())))]);
    let because = "the flow has no entry, so nothing tells which path it is on";
    for up in web(40_000) {
        let from_firewall =
            |expect| Case { name: "in flight", because, at: "fw-out", frame: frame(&up), expect };
        rig.expect(&[from_firewall(Expect::Dropped(DropReason::Unexpected))]);
    }
    std::thread::sleep(Duration::from_millis(1100));
    for up in web(40_000) {
        let exit = Expect::Goes(Counted::Exit { path: NEW, direction: Direction::Up });
        rig.expect(&[Case {
            name: "later",
            because: "it has passed both",
            at: "fw-out",
            frame: frame(&up),
            expect: exit,
        }]);
    }
}

#[test]
fn a_port_that_is_used_again_begins_a_new_flow() {
    const NEW: PathId = PathId(9);
    let rig = Rig::new(&switch());
    let [up, _] = web(40_000);
    rig.send("vr", &with_flags(&up, SYN));
    rig.send("gw", &with_flags(&up.reply(), SYN | ACK));
    rig.send("vr", &with_flags(&up, FIN | ACK));
    rig.send("gw", &with_flags(&up.reply(), FIN | ACK));
    let new_path = Object::Path(Path { id: NEW, site: SITE, hops: vec![Hop::of([PROXY])], vlan: None });
    rig.put(&[new_path, Object::Policy(policy(vec![tcp(80, Action::Path(NEW))], Some(exits())))]);
    let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
    rig.expect(&[
        case("last acknowledgement", "still of the old connection", frame(&up), hop(0, Direction::Up)(&up)),
        case(
            "same ports, new connection",
            "a SYN after both ends",
            with_flags(&up, SYN),
            Expect::Goes(Counted::Hop { path: NEW, position: 0, instance: PROXY, direction: Direction::Up }),
        ),
    ]);
}

#[test]
fn what_is_not_installed_is_not_gone_round() {
    let mut objects = switch();
    let [Object::Instance(firewall), ..] = &mut objects[..] else { panic!() };
    firewall.inside.next_hops.v6 = None;
    let rig = Rig::new(&objects);
    let [up4, up6] = web(40_000);
    let missing = Expect::Dropped(DropReason::Missing);
    let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
    rig.expect(&[case(
        "no neighbour",
        "the firewall has no address of this family",
        "vr",
        frame(&up6),
        missing.clone(),
    )]);
    let proxy = super::rig::instances().pop().unwrap();
    rig.delete(&[proxy]);
    rig.expect(&[case(
        "no instance",
        "the flow's proxy is gone, and there is no other",
        "gw",
        frame(&up4.reply()),
        Expect::Dropped(DropReason::NoInstance),
    )]);
    rig.delete(&[super::rig::path()]);
    rig.expect(&[case(
        "no path",
        "the policy says so, the path is not there",
        "vr",
        frame(&up4),
        missing.clone(),
    )]);
    rig.forget_flows();
    rig.put(&[Object::Path(Path { id: PATH, site: SITE, hops: vec![Hop::of([])], vlan: None })]);
    rig.expect(&[case(
        "nothing to pick from",
        "a function without instances",
        "vr",
        frame(&up4),
        Expect::Dropped(DropReason::NoInstance),
    )]);
}

#[test]
fn lengths_that_lie_are_dropped() {
    let rig = Rig::new(&switch());
    let malformed = Expect::Dropped(DropReason::Malformed);
    let [up4, up6] = web(40_000);
    let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
    let mut long = frame(&up4);
    long[16..18].copy_from_slice(&1000_u16.to_be_bytes());
    let mut short_header = frame(&up4);
    short_header[14] = 0x44;
    let mut header_only = frame(&up4);
    header_only[16..18].copy_from_slice(&19_u16.to_be_bytes());
    let mut long6 = frame(&up6);
    long6[18..20].copy_from_slice(&1000_u16.to_be_bytes());
    let mut no_ports = frame(&up4);
    no_ports[16..18].copy_from_slice(&22_u16.to_be_bytes());
    rig.expect(&[
        case("too long", "longer than the frame", long, malformed.clone()),
        case("header too short", "less than twenty bytes", short_header, malformed.clone()),
        case("no room for the header", "shorter than its header", header_only, malformed.clone()),
        case("too long v6", "longer than the frame", long6, malformed.clone()),
        case("ports cut off", "a rule might have matched", no_ports, malformed.clone()),
    ]);
}

#[test]
fn one_transparent_function_serves_two_sites_with_the_same_addresses() {
    const OTHER_SITE: SiteId = SiteId(2);
    const OTHER_PATH: PathId = PathId(0x0a_0b_0c);
    let mut objects = switch();
    let [up, _] = web(40_000);
    let chosen = chosen_inspector(&up);
    // The other site's addresses are known by another prefix here; what is behind its tags may be anybody's.
    let mut other = policy(vec![tcp(80, Action::Path(OTHER_PATH))], Some(exits()));
    (other.site, other.prefixes) = (OTHER_SITE, ["172.16.2.0/24".parse().unwrap()].into());
    objects.push(Object::Policy(other));
    let hops = vec![Hop::of([PROXY]), Hop::of([chosen])];
    objects.push(Object::Path(Path { id: OTHER_PATH, site: OTHER_SITE, hops, vlan: None }));
    let rig = Rig::new(&objects);
    let (_, outside, _) = inspector(&up);
    let mut others = tagged(&up, TAG_UP);
    others[8..11].copy_from_slice(&[0x0a, 0x0b, 0x0c]);
    let case = |name, because, frame, expect| Case { name, because, at: outside, frame, expect };
    rig.expect(&[
        case("ours", "the tag of our path", tagged(&up, TAG_UP), hop(2, Direction::Up)(&up)),
        case(
            "theirs",
            "the same addresses and ports, the tag of their path",
            others,
            Expect::Goes(Counted::Exit { path: OTHER_PATH, direction: Direction::Up }),
        ),
    ]);
}

#[test]
fn a_known_flow_leaves_where_its_sites_policy_says_now() {
    let (rig, _far_ends) = line();
    let everything = || PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    for packet in web(1024) {
        rig.put(&[Object::Policy(policy(vec![everything()], Some(exits())))]);
        rig.send("vr", &frame(&packet));
        for exit in ["gw", "vr", "gw"] {
            let exits = Exits { up: side(exit, Some(1)), ..exits() };
            rig.put(&[Object::Policy(policy(vec![everything()], Some(exits)))]);
            let outcome = rig.send("web-out", &frame(&packet));
            assert_eq!((outcome.verdict, &outcome.frame[6..12]), (REDIRECT, &rig.mac(exit)[..]), "{exit}");
        }
    }
}

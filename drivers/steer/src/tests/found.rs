//! What random frames have found (see `fuzz`), as tables of its own: each was once answered otherwise.

use std::os::fd::AsFd;

use catena_driver::{Counted, DropReason};
use catena_model::address::Protocol;
use catena_model::forwarding::{
    Action, Direction, Hop, Insertion, InstanceId, Object, Oversize, Path, PathId, Policy, PolicyRule,
    Purpose, SiteId, TUNNEL_PORT, Tunnel, VlanId,
};
use catena_model::packet::Packet;

use super::fuzz::Tagger;
use super::packets::{error, fragment_v6, frame, ip, raw_v4, raw_v6, to_port, v4, v6, web};
use super::rig::{
    Case, Expect, FIREWALL, INSPECTORS, MARK, PATH, REDIRECT, Rig, SITE, TestRun, exits, ingress, policy,
    switch, tcp, test_run_with,
};
use crate::netlink::Connection;

fn case(name: &'static str, because: &'static str, at: &'static str, frame: Vec<u8>, expect: Expect) -> Case {
    Case { name, because, at, frame, expect }
}

/// Two chains of one site: one for port 80, one for port 443.
fn two_chains() -> Rig {
    let other = PathId(7);
    let mut objects = switch();
    objects.retain(|object| !matches!(object, Object::Policy(_)));
    let hops = vec![Hop::of([INSPECTORS[0]])];
    objects.push(Object::Path(Path { id: other, site: SITE, hops, vlan: None }));
    let rules = vec![tcp(80, Action::Path(PATH)), tcp(443, Action::Path(other))];
    objects.push(Object::Policy(policy(rules, Some(exits()))));
    Rig::new(&objects)
}

fn first_of(path: PathId, instance: InstanceId) -> Expect {
    Expect::Goes(Counted::Hop { path, position: 0, instance, direction: Direction::Up })
}

/// The first fragment of a packet.
fn first_fragment(packet: &Packet) -> Vec<u8> {
    let whole = frame(packet);
    if packet.source.is_ipv4() {
        let (source, destination) = (v4(&packet.source.to_string()), v4(&packet.destination.to_string()));
        raw_v4(source, destination, 6, 0, true, 7, &whole[34..58])
    } else {
        let (source, destination) = (v6(&packet.source.to_string()), v6(&packet.destination.to_string()));
        raw_v6(source, destination, 44, &fragment_v6(6, 0, true, 7, &whole[54..78]))
    }
}

#[test]
fn a_fragment_does_not_lead_a_whole_flow_into_another_chain() {
    let rig = two_chains();
    for up in web(40_000) {
        let https = to_port(up, 443);
        let other = to_port(up, 22);
        rig.expect(&[
            case(
                "fragment",
                "to 443: its chain",
                "vr",
                first_fragment(&https),
                first_of(PathId(7), INSPECTORS[0]),
            ),
            case("whole", "of the same flow", "vr", frame(&https), first_of(PathId(7), INSPECTORS[0])),
            case(
                "of no chain",
                "a decoy? the first that could be",
                "vr",
                first_fragment(&other),
                first_of(PATH, FIREWALL),
            ),
        ]);
    }
}

/// Site 1 is claimed as a whole, of its neighbour nothing is.
fn neighbours() -> Rig {
    let all = vec![PolicyRule { matches: Default::default(), action: Action::Claim }];
    let prefixes = ["172.16.2.0/24".parse().unwrap(), "2001:db8:a2::/64".parse().unwrap()].into();
    Rig::new(&[
        Object::Policy(policy(all, None)),
        Object::Policy(Policy { site: SiteId(2), prefixes, rules: vec![], exits: None }),
        ingress("vr", Purpose::Claim, [Direction::Up]),
        ingress("gw", Purpose::Claim, Direction::BOTH),
    ])
}

#[test]
fn an_error_has_nobody_elses_policy_asked() {
    let rig = neighbours();
    let ends = [
        ["172.16.1.10", "172.16.2.10", "198.51.100.10", "203.0.113.1"],
        ["2001:db8:a1::10", "2001:db8:a2::10", "2001:db8:ffff::10", "2001:db8:c1::1"],
    ];
    for [here, there, far, router] in ends {
        let packet = |source: &str, destination: &str| {
            let [up, _] = web(40_000);
            frame(&Packet {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                ..up
            })
        };
        let claimed = |direction| Expect::IsClaimed(direction);
        rig.expect(&[
            case(
                "its own",
                "about what it got",
                "vr",
                error(here, &packet(far, here)),
                claimed(Direction::Up),
            ),
            case(
                "another's",
                "about what the neighbour got",
                "vr",
                error(here, &packet(far, there)),
                claimed(Direction::Up),
            ),
            case(
                "the neighbour's",
                "of which nothing is claimed",
                "vr",
                error(there, &packet(far, there)),
                Expect::IsReleased,
            ),
            case(
                "a stranger's",
                "to a site, about what another one got",
                "gw",
                error(router, &packet(here, there)),
                claimed(Direction::Down),
            ),
            case(
                "to the neighbour",
                "about what a stranger got, from another site",
                "gw",
                error(here, &packet(there, far)),
                claimed(Direction::Up),
            ),
        ]);
    }
}

#[test]
fn an_error_quotes_nothing_from_behind_its_end() {
    let rig = Rig::new(&switch());
    let [up, _] = web(40_000);
    let mut padded = error("203.0.113.1", &frame(&up));
    // The IP packet ends behind the eight bytes of ICMP: what is quoted pads the frame.
    padded[16..18].copy_from_slice(&28_u16.to_be_bytes());
    let transit = Expect::Goes(Counted::Transit { site: SITE, direction: Direction::Down });
    rig.expect(&[case("padding", "no rule is for ICMP", "gw", padded, transit)]);
}

#[test]
fn what_a_function_hands_back_from_its_vlan_and_is_not_ip_is_dropped() {
    let rig = vlan_switch();
    let mut arp = frame(&web(40_000)[0]);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(send_tagged(&rig, "a-out", 100, &arp).0, super::rig::SHOT);
    let counted = Counted::Dropped { path: Some(PATH), reason: DropReason::Unexpected };
    assert!(rig.counters().contains(&(counted, 1)));
}

/// The first inspector knows VLANs.
fn vlan_switch() -> Rig {
    let mut objects = switch();
    for object in &mut objects {
        match object {
            Object::Instance(instance) if instance.id == INSPECTORS[0] => {
                instance.insertion = Insertion::Vlan
            }
            Object::Path(path) => {
                path.hops = vec![Hop::of([INSPECTORS[0]])];
                path.vlan = VlanId::new(100);
            }
            _ => {}
        }
    }
    Rig::new(&objects)
}

fn send_tagged(rig: &Rig, port: &str, tag: u16, frame: &[u8]) -> (i32, Vec<u8>) {
    let mut frame = frame.to_vec();
    if frame[..6] == [0; 6] {
        frame[..6].copy_from_slice(&rig.mac(port));
    }
    rig.with_engine(|engine| {
        let ifindex = Connection::open().unwrap().link(port).unwrap().unwrap().ifindex;
        let tagger = Tagger::new(engine.programs.steer.as_fd());
        let with = TestRun { ifindex, first_word: tag.into(), ..TestRun::default() };
        let outcome = test_run_with(tagger.program(), &with, &frame);
        (outcome.verdict, outcome.frame)
    })
}

#[test]
fn a_function_gets_one_tag_also_for_a_packet_that_had_a_priority() {
    let rig = vlan_switch();
    let [up, _] = web(40_000);
    // Priority 5, no VLAN (IEEE 802.1Q). What is in the frame itself would be a second tag.
    let (verdict, sent) = send_tagged(&rig, "vr", 0xa000, &frame(&up));
    assert_eq!((verdict, ip(&sent)), (REDIRECT, ip(&frame(&up))));
    assert_eq!(sent[12..14], [8, 0]);
}

#[test]
fn paths_that_are_not_there_are_not_counted_one_by_one() {
    let rig = Rig::new(&switch());
    for path in 0..20 {
        let mut frame = frame(&web(40_000)[0]);
        frame[..12].copy_from_slice(&[2, 0xca, 9, 9, path, 0x81, 2, 0xca, 9, 9, path, 1]);
        rig.send("a-out", &frame);
    }
    assert_eq!(rig.counters(), [(Counted::Dropped { path: None, reason: DropReason::Missing }, 20)]);
}

#[test]
fn short_packets_come_out_of_gre_over_ipv6() {
    let tunnel = Tunnel {
        site: SITE,
        underlay: "wan".parse().unwrap(),
        local: "2001:db8:c::1".parse().unwrap(),
        remote: "2001:db8:c::2".parse().unwrap(),
        key: None,
        mtu: 1400,
        oversize: Oversize::TellSender,
        allowed: ["172.16.1.0/24".parse().unwrap()].into(),
    };
    let rig = Rig::new(&[Object::Tunnel(tunnel), ingress(TUNNEL_PORT, Purpose::Claim, [Direction::Up])]);
    for length in [0, 1, 12, 19, 20, 21] {
        // No longer than its header and this.
        let inner =
            raw_v4([172, 16, 1, 10], [198, 51, 100, 10], Protocol::UDP.0, 0, false, 7, &vec![1; length]);
        let mut body = vec![0, 0, 8, 0];
        body.extend_from_slice(ip(&inner));
        let outer = raw_v6(v6("2001:db8:c::2"), v6("2001:db8:c::1"), 47, &body);
        let outcome = rig.send("wan", &outer);
        assert_eq!((outcome.verdict, outcome.mark & MARK), (REDIRECT, 0), "{length} bytes");
        assert_eq!(&ip(&outcome.frame)[..20 + length], ip(&inner));
        assert!(ip(&outcome.frame)[20 + length..].iter().all(|byte| *byte == 0), "padding");
    }
}

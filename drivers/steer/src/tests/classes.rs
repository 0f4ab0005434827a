//! Whose a packet is by many nested prefixes, and what rules say by DSCP.

use std::net::IpAddr;

use catena_driver::Counted;
use catena_model::address::{Dscp, Prefix};
use catena_model::forwarding::{
    Action, Direction, Exits, FlowMatch, Hop, Object, Path, PathId, Policy, PolicyRule, Purpose, SiteId,
};
use catena_model::packet::Packet;

use super::packets::{frame, web};
use super::rig::{Case, Expect, FIREWALL, MARK, PATH, PROXY, Rig, SITE, exits, ingress, policy, switch};

/// The longest prefix of each length that holds the address, as its own site: site 1 has all of them.
fn nested(address: IpAddr, lengths: impl Iterator<Item = u8>) -> Vec<(SiteId, Prefix)> {
    lengths
        .enumerate()
        .map(|(n, length)| {
            let net = ipnet::IpNet::new(address, length).unwrap();
            (SiteId(n as u32 + 1), Prefix::of(net))
        })
        .collect()
}

/// The address with this bit, counted from the front, the other way round.
fn flipped(address: IpAddr, bit: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => (u32::from(address) ^ 1 << (31 - bit)).to_be_bytes().into(),
        IpAddr::V6(address) => (u128::from(address) ^ 1 << (127 - bit)).to_be_bytes().into(),
    }
}

#[test]
fn of_nested_prefixes_the_longest_tells() {
    let v4 = nested("188.21.173.85".parse().unwrap(), 1..=32);
    let v6 = nested(
        "2001:db8:5555:aaaa:5555:aaaa:5555:aaaa".parse().unwrap(),
        (0..32).map(|n| 5 + 4 * n - n / 31),
    );
    let Exits { up, down } = exits();
    let policies = v4.iter().zip(&v6).map(|((site, v4), (_, v6))| {
        let exits = Some(Exits { up: up.clone(), down: down.clone() });
        Object::Policy(Policy { site: *site, prefixes: [*v4, *v6].into(), rules: vec![], exits })
    });
    let mut objects: Vec<_> = policies.collect();
    objects.push(ingress("vr", Purpose::Steer, [Direction::Up]));
    objects.push(ingress("gw", Purpose::Steer, [Direction::Down]));
    let rig = Rig::new(&objects);

    let far: [IpAddr; 2] = ["198.51.100.10".parse().unwrap(), "3fff::1".parse().unwrap()];
    for (prefixes, far) in [v4, v6].into_iter().zip(far) {
        let address = prefixes[31].1.address();
        let [packet, _] = web(40_000);
        let mut cases = Vec::new();
        for (n, (site, prefix)) in prefixes.iter().enumerate() {
            // The first bit in which it is not of the next site's prefix.
            let source =
                prefixes.get(n + 1).map_or(address, |(_, longer)| flipped(address, longer.length() - 1));
            assert!(prefix.contains(source));
            let up = Packet { source, destination: far, ..packet };
            let transit = |direction| Expect::Goes(Counted::Transit { site: *site, direction });
            let because = "the longest prefix that holds the address";
            cases.push(Case {
                name: "up",
                because,
                at: "vr",
                frame: frame(&up),
                expect: transit(Direction::Up),
            });
            let expect = transit(Direction::Down);
            cases.push(Case { name: "down", because, at: "gw", frame: frame(&up.reply()), expect });
        }
        rig.expect(&cases);
    }
}

/// The packet, marked by who sent it.
fn marked(packet: &Packet, dscp: u8) -> Vec<u8> {
    let mut frame = frame(packet);
    if packet.source.is_ipv4() {
        frame[15] = dscp << 2;
    } else {
        frame[14] = 0x60 | dscp >> 2;
        frame[15] = dscp << 6;
    }
    frame
}

fn expedited(action: Action) -> PolicyRule {
    PolicyRule { matches: FlowMatch { dscp: Dscp::new(46), ..FlowMatch::default() }, action }
}

#[test]
fn replies_follow_the_flow_that_the_site_has_marked() {
    let rig = Rig::new(&switch());
    rig.put(&[Object::Policy(policy(vec![expedited(Action::Path(PATH))], Some(exits())))]);
    for up in web(40_000) {
        let goes = |position, instance, direction| {
            Expect::Goes(Counted::Hop { path: PATH, position, instance, direction })
        };
        let transit = |direction| Expect::Goes(Counted::Transit { site: SITE, direction });
        let other = Packet { source_port: 40_001, ..up };
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        rig.expect(&[
            case("marked", "the rule is for it", "vr", marked(&up, 46), goes(0, FIREWALL, Direction::Up)),
            case(
                "reply",
                "marked otherwise, of the same flow",
                "gw",
                marked(&up.reply(), 0),
                goes(2, PROXY, Direction::Down),
            ),
            case("unmarked", "the rule is not for it", "vr", marked(&other, 10), transit(Direction::Up)),
            case(
                "reply to what is not for the rule",
                "the flow is known, and others' marks say nothing",
                "gw",
                marked(&other.reply(), 46),
                transit(Direction::Down),
            ),
        ]);
    }
}

#[test]
fn what_was_sent_unmarked_before_leads_nothing_round_the_functions() {
    let rig = Rig::new(&switch());
    let by_mark = policy(vec![expedited(Action::Path(PATH))], Some(exits()));
    rig.put(&[Object::Policy(by_mark)]);
    let up_hop = || {
        Expect::Goes(Counted::Hop { path: PATH, position: 0, instance: FIREWALL, direction: Direction::Up })
    };
    let down_hop = || {
        Expect::Goes(Counted::Hop { path: PATH, position: 2, instance: PROXY, direction: Direction::Down })
    };
    let transit = |direction| Expect::Goes(Counted::Transit { site: SITE, direction });
    let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
    let flows = web(40_000);
    for up in flows {
        let down = frame(&up.reply());
        rig.expect(&[
            case("unmarked", "the rule is not for it", "vr", marked(&up, 10), transit(Direction::Up)),
            case("again", "nor for this one", "vr", marked(&up, 10), transit(Direction::Up)),
            case("reply", "of what is unmarked", "gw", down.clone(), transit(Direction::Down)),
            case("marked", "the rule is for it", "vr", marked(&up, 46), up_hop()),
            case("reply", "of what is marked", "gw", down, down_hop()),
        ]);
    }
    rig.forget_flows();
    flows.iter().for_each(|up| drop(rig.send("vr", &marked(up, 10))));
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(PATH) };
    rig.put(&[Object::Policy(policy(vec![everything], Some(exits())))]);
    for up in flows {
        let because = "the policy that let it pass is gone";
        rig.expect(&[case("reply", because, "gw", frame(&up.reply()), down_hop())]);
    }
}

/// When many paths go at once, so do the flows of all paths that are not there: what passes no function is of none.
#[test]
fn what_passes_no_function_is_remembered_when_many_paths_go() {
    let unused: Vec<_> = (0..9)
        .map(|number| {
            let id = PathId(PATH.0 + 1 + number);
            Object::Path(Path { id, site: SITE, hops: vec![Hop::of([FIREWALL])], vlan: None })
        })
        .collect();
    let mut objects = switch();
    objects.push(Object::Policy(policy(vec![expedited(Action::Path(PATH))], Some(exits()))));
    objects.extend(unused.iter().cloned());
    let rig = Rig::new(&objects);
    let flows = web(40_000);
    flows.iter().for_each(|up| drop(rig.send("vr", &marked(up, 10))));
    rig.delete(&unused);
    for up in flows {
        let transit = Expect::Goes(Counted::Transit { site: SITE, direction: Direction::Down });
        let because = "what it answers passed no function";
        rig.expect(&[Case { name: "reply", because, at: "gw", frame: frame(&up.reply()), expect: transit }]);
    }
}

#[test]
fn replies_to_what_may_have_been_marked_are_claimed() {
    let rig = Rig::new(&[
        Object::Policy(policy(vec![expedited(Action::Claim)], None)),
        ingress("vr", Purpose::Claim, [Direction::Up]),
        ingress("gw", Purpose::Claim, [Direction::Down]),
    ]);
    for up in web(40_000) {
        let marks = [
            ("vr", &up, 46, 0),
            ("vr", &up, 10, MARK),
            ("gw", &up.reply(), 0, 0),
            ("gw", &up.reply(), 46, 0),
        ];
        for (port, packet, dscp, mark) in marks {
            assert_eq!(rig.send(port, &marked(packet, dscp)).mark, mark, "{port} {dscp}");
        }
    }
}

//! Marking what no chain claims, on an element that routes: without the mark, a packet goes into the chain.

use catena_model::address::Protocol;
use catena_model::forwarding::{Action, Direction, Object, Purpose};
use catena_model::packet::Packet;

use super::packets::{error, frame, raw_v4, to_port, v4, web};
use super::rig::{Case, Expect, MARK, Rig, SITE, ingress, policy, tcp};

fn access() -> Vec<Object> {
    vec![
        Object::Policy(policy(vec![tcp(80, Action::Claim), tcp(443, Action::Claim)], None)),
        ingress("vr", Purpose::Claim, [Direction::Up]),
        ingress("gw", Purpose::Claim, [Direction::Down]),
    ]
}

#[test]
fn what_a_rule_claims_is_not_marked_and_all_else_of_the_site_is() {
    let rig = Rig::new(&access());
    for up in web(40_000) {
        let router = if up.source.is_ipv4() { "203.0.113.1" } else { "2001:db8:c1::1" };
        let echo = if up.source.is_ipv4() { Protocol::ICMP } else { Protocol::ICMPV6 };
        let ping = Packet { protocol: echo, source_port: 0, destination_port: 0, ..up };
        let stranger = Packet { source: up.destination, ..up };
        let claimed = Expect::IsClaimed(Direction::Up);
        let case = |name, because, at, frame, expect| Case { name, because, at, frame, expect };
        rig.expect(&[
            case("web", "tcp 80 is claimed", "vr", frame(&up), claimed.clone()),
            case("https", "so is 443", "vr", frame(&to_port(up, 443)), claimed.clone()),
            case("ssh", "22 is not", "vr", frame(&to_port(up, 22)), Expect::IsReleased),
            case(
                "udp",
                "the rule is for tcp",
                "vr",
                frame(&Packet { protocol: Protocol::UDP, ..up }),
                Expect::IsReleased,
            ),
            case("ping", "no ports", "vr", frame(&ping), Expect::IsReleased),
            case("stranger", "of no site", "vr", frame(&stranger), Expect::Passes),
            case(
                "reply",
                "seen from the site it is to port 80",
                "gw",
                frame(&up.reply()),
                Expect::IsClaimed(Direction::Down),
            ),
            case(
                "other reply",
                "not of a claimed flow",
                "gw",
                frame(&to_port(up, 22).reply()),
                Expect::IsReleased,
            ),
            case(
                "error",
                "about a claimed flow",
                "gw",
                error(router, &frame(&up)),
                Expect::IsClaimed(Direction::Down),
            ),
            case(
                "other error",
                "about another flow",
                "gw",
                error(router, &frame(&to_port(up, 22))),
                Expect::IsReleased,
            ),
        ]);
    }
    assert_eq!(rig.flows().len(), 0, "claiming remembers nothing");
}

#[test]
fn only_our_bit_of_the_mark_is_touched_and_it_cannot_be_sent_in() {
    const THEIRS: u32 = 0x0000_00ff;
    let rig = Rig::new(&access());
    let [up, _] = web(40_000);
    assert_eq!(rig.send_marked("vr", &frame(&up), THEIRS | MARK).mark, THEIRS);
    assert_eq!(rig.send_marked("vr", &frame(&to_port(up, 22)), THEIRS).mark, THEIRS | MARK);
    let mut arp = frame(&up);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(rig.send_marked("vr", &arp, THEIRS | MARK).mark, THEIRS);
    let mut flooded = frame(&to_port(up, 22));
    flooded[..6].copy_from_slice(&[0x02, 0, 0, 0, 0, 0x99]);
    assert_eq!(
        rig.send_marked("vr", &flooded, THEIRS | MARK).mark,
        THEIRS,
        "addressed to someone else's MAC"
    );
}

/// Somebody took the policy away, and the prefixes are still known.
#[test]
fn without_a_policy_nothing_is_released() {
    let rig = Rig::new(&access());
    rig.with_engine(|engine| engine.programs.maps.policies.remove(&SITE.0).unwrap());
    let [up, _] = web(40_000);
    let claimed = Expect::IsClaimed(Direction::Up);
    let case =
        |name, frame| Case { name, because: "its policy is gone", at: "vr", frame, expect: claimed.clone() };
    rig.expect(&[case("web", frame(&up)), case("ssh", frame(&to_port(up, 22)))]);
}

#[test]
fn in_doubt_it_is_claimed() {
    let rig = Rig::new(&access());
    let later =
        |protocol, id| raw_v4(v4("172.16.1.10"), v4("198.51.100.10"), protocol, 100, false, id, &[0; 64]);
    let tiny = raw_v4(v4("172.16.1.10"), v4("198.51.100.10"), 6, 0, true, 9, &[0, 80]);
    let case = |name, because, frame, expect| Case { name, because, at: "vr", frame, expect };
    rig.expect(&[
        case(
            "unknown fragment",
            "it may be of a claimed flow",
            later(6, 1),
            Expect::IsClaimed(Direction::Up),
        ),
        case("fragment of another protocol", "no rule can mean it", later(17, 2), Expect::IsReleased),
        case(
            "tiny fragment",
            "its ports are in the next one (RFC 1858)",
            tiny,
            Expect::IsClaimed(Direction::Up),
        ),
    ]);
}

//! What one site sends another: functions that route do not say in which direction they were given a packet, and its addresses
//! say it only where one end is of no site.

use std::net::IpAddr;

use catena_driver::{Counted, DropReason};
use catena_model::forwarding::{
    Action, Direction, FlowMatch, Hop, Instance, InstanceId, Object, Path, PathId, Policy, PolicyRule,
    Purpose, SiteId,
};
use catena_model::packet::Packet;

use super::packets::{RST, frame, web, with_flags};
use super::rig::{
    Case, Expect, FIREWALL, PATH, PROXY, Rig, SITE, exits, ingress, instances, policy, put, side,
};

const UP: Direction = Direction::Up;
const DOWN: Direction = Direction::Down;

const OTHER: SiteId = SiteId(2);
const OTHER_PATH: PathId = PathId(0x01_02_04);

fn through(site: SiteId, path: PathId, prefixes: [&str; 2]) -> [Object; 2] {
    let hops = vec![Hop::of([FIREWALL]), Hop::of([PROXY])];
    let everything = PolicyRule { matches: FlowMatch::default(), action: Action::Path(path) };
    let prefixes = prefixes.map(|prefix| prefix.parse().unwrap()).into();
    let policy = Policy { site, prefixes, ..policy(vec![everything], Some(exits())) };
    [Object::Path(Path { id: path, site, hops, vlan: None }), Object::Policy(policy)]
}

/// Everything of two sites passes a firewall and a proxy, the firewall by one port ("fw-in") or by two.
pub(super) fn two_sites(one_armed: bool) -> Vec<Object> {
    let mut objects = instances();
    for object in &mut objects {
        if let Object::Instance(Instance { id: FIREWALL, outside, .. }) = object
            && one_armed
        {
            *outside = side("fw-in", Some(11));
        }
    }
    objects.extend(through(SITE, PATH, ["172.16.1.0/24", "2001:db8:a1::/64"]));
    objects.extend(through(OTHER, OTHER_PATH, ["172.16.2.0/24", "2001:db8:a2::/64"]));
    objects.push(ingress("vr", Purpose::Steer, [UP]));
    objects.push(ingress("gw", Purpose::Steer, [DOWN]));
    objects
}

/// From the site to a host of the other site.
pub(super) fn to_the_other(up: Packet) -> Packet {
    let other = if up.source.is_ipv4() { "172.16.2.20" } else { "2001:db8:a2::20" };
    Packet { destination: other.parse().unwrap(), ..up }
}

fn hop(path: PathId, position: u8, direction: Direction) -> Expect {
    let instance: InstanceId = [FIREWALL, PROXY][usize::from(position)];
    Expect::Goes(Counted::Hop { path, position, instance, direction })
}

fn exit(path: PathId, direction: Direction) -> Expect {
    Expect::Goes(Counted::Exit { path, direction })
}

fn case(
    name: &'static str,
    because: &'static str,
    at: &'static str,
    packet: &Packet,
    expect: Expect,
) -> Case {
    Case { name, because, at, frame: frame(packet), expect }
}

const FORGED: Expect = Expect::Dropped(DropReason::ForgedSource);
const UNEXPECTED: Expect = Expect::Dropped(DropReason::Unexpected);

#[test]
fn a_function_with_one_port_is_given_nothing_on_its_way_down_that_comes_from_a_site() {
    let rig = Rig::new(&two_sites(true));
    for up in web(40_000) {
        let forged = to_the_other(up);
        let neighbour: IpAddr = match up.source {
            IpAddr::V4(_) => "172.16.2.30".parse().unwrap(),
            IpAddr::V6(_) => "2001:db8:a2::30".parse().unwrap(),
        };
        let to_itself = Packet { source: neighbour, ..forged };
        for packet in [forged, to_itself] {
            rig.expect(&[
                case("edge", "the proxy's ports tell directions", "gw", &packet, hop(OTHER_PATH, 1, DOWN)),
                case("proxy", "what the firewall hands back would seem to go up", "web-in", &packet, FORGED),
                case("again", "now that the flow is known", "gw", &packet, hop(OTHER_PATH, 1, DOWN)),
                case("and again", "it is", "web-in", &packet, FORGED),
            ]);
        }
        let down = up.reply();
        rig.expect(&[
            case("reply", "from nobody's address", "gw", &down, hop(PATH, 1, DOWN)),
            case("into the firewall", "by its port", "web-in", &down, hop(PATH, 0, DOWN)),
            case("out of it", "by the same", "fw-in", &down, exit(PATH, DOWN)),
        ]);
    }
}

#[test]
fn what_comes_from_a_site_goes_up_out_of_a_function_with_one_port() {
    let rig = Rig::new(&two_sites(true));
    for up in web(40_000) {
        let up = to_the_other(up);
        let passes = || {
            rig.expect(&[
                case("edge", "the firewall is first", "vr", &up, hop(PATH, 0, UP)),
                case("firewall", "the proxy is next", "fw-in", &up, hop(PATH, 1, UP)),
                case("proxy", "the last", "web-out", &up, exit(PATH, UP)),
            ]);
        };
        passes();
        // A forged one has given the other site a flow with these addresses.
        rig.expect(&[case("forged", "comes down", "gw", &up, hop(OTHER_PATH, 1, DOWN))]);
        passes();
        rig.forget_flows();
        rig.expect(&[
            case("without an entry", "the policy tells", "fw-in", &up, hop(PATH, 1, UP)),
            case("forged", "comes down", "gw", &up, hop(OTHER_PATH, 1, DOWN)),
        ]);
        // Nothing tells any more that it was on its way up.
        let [path, _] = through(SITE, PATH, ["172.16.1.0/24", "2001:db8:a1::/64"]);
        rig.with_engine(|engine| engine.programs.maps.paths.remove(&PATH.0).unwrap());
        rig.expect(&[case("a path that is gone", "in doubt it is dropped", "fw-in", &up, UNEXPECTED)]);
        rig.delete(std::slice::from_ref(&path));
        rig.put(&[path]);
        rig.forget_flows();
    }
}

#[test]
fn what_a_function_turns_round_does_not_go_past_those_behind_it() {
    let rig = Rig::new(&two_sites(false));
    for up in web(40_000) {
        let between = to_the_other(up);
        rig.expect(&[
            case("edge", "the firewall is first", "vr", &between, hop(PATH, 0, UP)),
            case("turned round", "the proxy was not passed", "fw-in", &between, UNEXPECTED),
            // The other site's own flow, of which these would be the replies.
            case("the other way", "is up too", "vr", &between.reply(), hop(OTHER_PATH, 0, UP)),
            case("turned round", "a reply has to come by an edge", "fw-in", &between, UNEXPECTED),
            // Out at one side of the cloud and in at the other.
            case("from outside", "comes down", "gw", &between, hop(OTHER_PATH, 1, DOWN)),
            case("out of the proxy", "it was given it", "web-in", &between, hop(OTHER_PATH, 0, DOWN)),
            case("out of the firewall", "so was this", "fw-in", &between, exit(OTHER_PATH, DOWN)),
        ]);
        let refused = Case {
            name: "a function's own",
            because: "the other end is of no site",
            at: "fw-in",
            frame: with_flags(&up.reply(), RST),
            expect: exit(PATH, DOWN),
        };
        rig.expect(&[case("edge", "the firewall is first", "vr", &up, hop(PATH, 0, UP)), refused]);
    }
}

#[test]
fn a_routed_function_with_one_port_serves_no_site_that_is_told_by_port() {
    let mut objects = two_sites(true);
    let told = |object: &mut Object| {
        if let Object::Ingress(ingress) = object {
            ingress.site = Some(SITE);
        }
    };
    objects.iter_mut().for_each(told);
    let rig = Rig::new(&[]);
    let changes: Vec<_> = objects.iter().map(put).collect();
    let error = rig.check(&changes).unwrap_err().to_string();
    assert!(error.contains("has one port, and would serve site"), "{error}");
    rig.put(&two_sites(true));
    let error = rig.check(&changes).unwrap_err().to_string();
    assert!(error.contains("has one port, and would serve site"), "{error}");
}

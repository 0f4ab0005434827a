//! No bypass, checked without the model: by where a frame came from, where it went, and what the policies say of it.

use std::net::IpAddr;

use catena_driver::Counted;
use catena_model::address::Protocol;
use catena_model::forwarding::{Action, Direction, FlowMatch, Hop, InstanceId, OnFailure, Path, SiteId};
use catena_model::name::PortName;
use catena_model::packet::Packet;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::model::{Expected, Fate};
use super::objects::World;
use super::sight::Frame;

/// Says what is wrong if a frame that came in at `port` went round a function.
pub(super) fn check(world: &World, port: &PortName, frame: &Frame, done: &Expected) -> Result<(), String> {
    let released = done.fate == Fate::Passes { released: true };
    if released && let Some((site, direction)) = claimed(world, port, frame) {
        return Err(format!("released, and the policy of site {site} claims it on the way {direction}"));
    }
    if done.fate != Fate::Sent {
        return Ok(());
    }
    let from = world.function_at(port).map(|function| function.id);
    match done.counted.last() {
        Some(Counted::Transit { .. }) if from.is_some() => {
            Err("a function's packet passed on as nobody's".into())
        }
        Some(Counted::Transit { .. }) => match claimed(world, port, frame) {
            Some((site, _)) => Err(format!("not steered, and the policy of site {site} claims it")),
            None => Ok(()),
        },
        Some(Counted::Exit { path, direction }) => passed(world, &world.paths[path], None, *direction, from),
        Some(Counted::Hop { path, position, direction, .. }) => {
            passed(world, &world.paths[path], Some((*position).into()), *direction, from)
        }
        _ => Ok(()),
    }
}

/// Whether the packet comes from the function before `position`, or the end, but for those that may be left out.
fn passed(
    world: &World,
    path: &Path,
    position: Option<usize>,
    direction: Direction,
    from: Option<InstanceId>,
) -> Result<(), String> {
    let before: Vec<&Hop> = match (direction, position) {
        (Direction::Up, position) => path.hops[..position.unwrap_or(path.hops.len())].iter().rev().collect(),
        (Direction::Down, position) => path.hops[position.map_or(0, |at| at + 1)..].iter().collect(),
    };
    let may_be_left_out = |hop: &&&Hop| {
        let is_tap = |id| world.instances.get(&id).is_some_and(|it| !it.insertion.returns());
        hop.on_failure == OnFailure::Skip || hop.ids().all(is_tap)
    };
    let is_from = |hop: &&&Hop| from.is_some_and(|from| hop.ids().any(|id| id == from));
    let mut before = before.iter().skip_while(|hop| may_be_left_out(hop) && !is_from(hop));
    match (before.next(), from) {
        (None, None) => Ok(()),
        (Some(hop), _) if is_from(&hop) => Ok(()),
        (hop, from) => Err(format!(
            "went {direction} by path {} to {position:?} from {from:?}, without having passed {hop:?}",
            path.id
        )),
    }
}

/// The site whose policy claims the frame for sure, by etherparse's reading.
fn claimed(world: &World, port: &PortName, frame: &Frame) -> Option<(SiteId, Direction)> {
    if frame.vlan().is_some() {
        return None;
    }
    let packet = SlicedPacket::from_ethernet(&frame.bytes).ok()?;
    let (source, destination, protocol, dscp, is_fragment): (IpAddr, IpAddr, _, _, _) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let whole = !ip.is_payload_fragmented();
            let protocol = header.protocol().0;
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                protocol,
                header.dcp().value(),
                !whole,
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let protocol = ip.payload().ip_number.0;
            let dscp = header.traffic_class() >> 2;
            let is_fragment = ip.is_payload_fragmented();
            (header.source_addr().into(), header.destination_addr().into(), protocol, dscp, is_fragment)
        }
        _ => return None,
    };
    let (source_port, destination_port) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => (0, 0),
    };
    // Of an ICMP error, and of a fragment, only addresses say for sure; and an error may be from anywhere.
    let is_icmp = [1, 58].contains(&protocol);
    let ports_are_known = !is_fragment && packet.transport.is_some() && !is_icmp;
    let packet = Packet {
        source,
        destination,
        protocol: Protocol(protocol),
        source_port,
        destination_port,
        dscp: catena_model::address::Dscp::new(dscp)?,
    };
    let ingress = world.ingresses.get(port)?;
    let directions = Direction::BOTH.into_iter().filter(|direction| ingress.directions.contains(direction));
    let (site, direction) = directions
        .filter_map(|direction| {
            let site = ingress.site.or_else(|| world.site_of(packet.seen_from_site(direction).source))?;
            Some((site, direction))
        })
        .next()?;
    let is_sure = |matches: &FlowMatch, action| {
        let from_anywhere = is_icmp
            && match direction {
                Direction::Up => matches.local.is_some(),
                Direction::Down => matches.remote.is_some(),
            };
        let by_addresses =
            matches.protocol.is_none() && matches.ports.is_none() && matches.dscp.is_none() && !from_anywhere;
        // What the site's packets are marked with says nothing of others; a reply follows its flow.
        let by_mark = matches.dscp.is_some() && (direction == Direction::Down && action != Action::Claim);
        (by_addresses || ports_are_known) && !by_mark && matches.matches(&packet.seen_from_site(direction))
    };
    let rules = &world.policies.get(&site)?.rules;
    rules.iter().any(|rule| is_sure(&rule.matches, rule.action)).then_some((site, direction))
}

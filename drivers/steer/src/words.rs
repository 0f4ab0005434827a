//! From our words to what the maps hold, and back.

use std::net::{IpAddr, Ipv6Addr};

use catena_driver::DriverError;
use catena_model::address::{Dscp, Family, PortRange, Prefix, Protocol};
use catena_model::forwarding::{
    Action, Delivery, FlowMatch, Hop, Insertion, Instance, InstanceId, InstanceState, Member, NextHops,
    NshMetadata, OnFailure, Oversize, PathId, PolicyRule, Side, SiteId, Stickiness, TUNNEL_PORT, Tunnel,
};
use catena_model::name::PortName;
use catena_model::resource::LinuxSpec;
use ipnet::IpNet;

use crate::layout::{
    self, HEARD, MAX_HOPS, MAX_INSTANCES, MAX_RULES, PORT_NAME, RULE_CLAIM, RULE_DSCP, RULE_LOCAL,
    RULE_PORTS, RULE_PROTOCOL, RULE_REMOTE, RULE_V4, RULE_V6, RULES_PER_BLOCK,
};
use crate::netlink::Link;

/// How much longer an IPv4 prefix is when it is written as one of v4-mapped IPv6 (RFC 4291 section 2.5.5.2).
const MAPPED: u8 = 96;

pub(crate) fn family(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

pub(crate) fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// As many bits of a mapped address as the prefix has.
pub(crate) fn mapped_length(prefix: Prefix) -> u8 {
    match prefix.family() {
        Family::V4 => prefix.length() + MAPPED,
        Family::V6 => prefix.length(),
    }
}

pub(crate) fn prefix_key(space: u16, prefix: Prefix) -> layout::PrefixKey {
    layout::PrefixKey {
        address: mapped(prefix.address()),
        space,
        length: mapped_length(prefix),
        family: family(prefix.family()),
    }
}

/// `None` for what no prefix looks like, which only someone else can have written.
pub(crate) fn read_prefix(key: &layout::PrefixKey) -> Option<Prefix> {
    let address = read_address(key.address, key.family)?;
    unmapped(address, key.length)
}

fn read_address(address: [u8; 16], family: u8) -> Option<IpAddr> {
    let address = Ipv6Addr::from(address);
    match family {
        4 => address.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(address.into()),
        _ => None,
    }
}

fn unmapped(address: IpAddr, length: u8) -> Option<Prefix> {
    let length = if address.is_ipv4() { length.checked_sub(MAPPED)? } else { length };
    Some(Prefix::of(IpNet::new(address, length).ok()?))
}

pub(crate) fn port_name(name: &PortName) -> Result<[u8; PORT_NAME], DriverError> {
    let text = name.as_str().as_bytes();
    let mut bytes = [0; PORT_NAME];
    // The kernel's names end in a zero.
    match bytes.get_mut(..text.len()).filter(|_| text.len() < PORT_NAME) {
        Some(start) => start.copy_from_slice(text),
        None => return Err(DriverError::NoPort(name.clone())),
    }
    Ok(bytes)
}

pub(crate) fn read_port_name(bytes: &[u8; PORT_NAME]) -> Option<PortName> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    PortName::new(std::str::from_utf8(&bytes[..length]).ok()?).ok()
}

/// `former` is what stands there: what the programs have found out about the same neighbours is kept.
pub(crate) fn side(
    side: &Side,
    port: &Link,
    delivery: Delivery,
    former: &layout::Side,
) -> Result<layout::Side, DriverError> {
    let NextHops { v4, v6 } = side.next_hops;
    let written = layout::Side {
        ifindex: port.ifindex,
        has_v4: v4.is_some().into(),
        has_v6: v6.is_some().into(),
        tunnel: (side.port.as_str() == TUNNEL_PORT).into(),
        name: port_name(&side.port)?,
        v4: v4.map(|address| address.octets()).unwrap_or_default(),
        v6: v6.map(|address| address.octets()).unwrap_or_default(),
        ..Default::default()
    };
    let written = leading(&written, port, delivery);
    let same_place = layout::Side { looked: 0, v4_mac: 0, v6_mac: 0, ..*former } == written;
    Ok(if same_place { *former } else { written })
}

/// The side with what its port is like: the kernel puts nothing into a peer of the same namespace (bpf_redirect_peer), and
/// does not ask whether the port itself is up.
pub(crate) fn leading(side: &layout::Side, port: &Link, delivery: Delivery) -> layout::Side {
    let direct = port.leads_elsewhere && port.up && delivery == Delivery::Direct;
    layout::Side { direct: direct.into(), own_mac: if direct { mac(port.mac) } else { 0 }, ..*side }
}

/// A MAC address as the programs keep it: six bytes as on the wire.
pub(crate) fn mac(address: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = address;
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]) | HEARD
}

pub(crate) fn read_side(side: &layout::Side) -> Option<Side> {
    Some(Side {
        port: read_port_name(&side.name)?,
        next_hops: NextHops {
            v4: (side.has_v4 != 0).then(|| side.v4.into()),
            v6: (side.has_v6 != 0).then(|| side.v6.into()),
        },
    })
}

pub(crate) fn insertion(insertion: Insertion) -> u32 {
    match insertion {
        Insertion::L3 => 0,
        Insertion::L2 => 1,
        Insertion::Tap => 2,
        Insertion::Vlan => 3,
        Insertion::Nsh(NshMetadata::Fixed) => 4,
        Insertion::Nsh(NshMetadata::Variable) => 5,
    }
}

fn read_insertion(number: u32) -> Option<Insertion> {
    Some(match number {
        0 => Insertion::L3,
        1 => Insertion::L2,
        2 => Insertion::Tap,
        3 => Insertion::Vlan,
        4 => Insertion::Nsh(NshMetadata::Fixed),
        5 => Insertion::Nsh(NshMetadata::Variable),
        _ => return None,
    })
}

/// `ports` are those of the inside and the outside, `former` what stands in the slot.
pub(crate) fn instance(
    instance: &Instance,
    handle: u32,
    ports: [&Link; 2],
    former: &layout::Instance,
) -> Result<layout::Instance, DriverError> {
    let Instance { id, insertion, inside, outside, state, rewrites, delivery } = instance;
    Ok(layout::Instance {
        handle,
        id: id.0,
        insertion: self::insertion(*insertion),
        state: match state {
            InstanceState::Up => 0,
            InstanceState::Draining => 1,
            InstanceState::Down => 2,
        },
        rewrites: (*rewrites).into(),
        delivery: match delivery {
            Delivery::Direct => 0,
            Delivery::Queue => 1,
        },
        inside: side(inside, ports[0], *delivery, &former.inside)?,
        outside: side(outside, ports[1], *delivery, &former.outside)?,
    })
}

pub(crate) fn read_instance(instance: &layout::Instance) -> Option<Instance> {
    Some(Instance {
        id: InstanceId(instance.id),
        insertion: read_insertion(instance.insertion)?,
        inside: read_side(&instance.inside)?,
        outside: read_side(&instance.outside)?,
        state: match instance.state {
            0 => InstanceState::Up,
            1 => InstanceState::Draining,
            2 => InstanceState::Down,
            _ => return None,
        },
        rewrites: instance.rewrites != 0,
        delivery: read_delivery(instance.delivery)?,
    })
}

pub(crate) fn read_delivery(delivery: u32) -> Option<Delivery> {
    match delivery {
        0 => Some(Delivery::Direct),
        1 => Some(Delivery::Queue),
        _ => None,
    }
}

/// `handle` tells an instance's.
pub(crate) fn group(id: u32, hop: &Hop, mut handle: impl FnMut(InstanceId) -> u32) -> layout::Group {
    let mut written = layout::Group {
        id,
        count: hop.instances.len().min(MAX_INSTANCES) as u32,
        stickiness: match hop.stickiness {
            Stickiness::FiveTuple => 0,
            Stickiness::ThreeTuple => 1,
            Stickiness::TwoTuple => 2,
        },
        skip: (hop.on_failure == OnFailure::Skip).into(),
        ..Default::default()
    };
    for (member, written) in hop.instances.iter().zip(&mut written.members) {
        *written =
            layout::Member { handle: handle(member.id), id: member.id.0, weight: member.weight.get().into() };
    }
    written
}

pub(crate) fn read_group(group: &layout::Group) -> Option<Hop> {
    let member = |member: &layout::Member| {
        let weight = u8::try_from(member.weight).ok().and_then(std::num::NonZeroU8::new)?;
        Some(Member { id: InstanceId(member.id), weight })
    };
    Some(Hop {
        instances: group.members.get(..group.count as usize)?.iter().map(member).collect::<Option<_>>()?,
        stickiness: match group.stickiness {
            0 => Stickiness::FiveTuple,
            1 => Stickiness::ThreeTuple,
            2 => Stickiness::TwoTuple,
            _ => return None,
        },
        on_failure: if group.skip == 0 { OnFailure::Closed } else { OnFailure::Skip },
    })
}

/// The rules of a policy, in as many blocks as they fill.
pub(crate) fn rules(rules: &[PolicyRule]) -> impl Iterator<Item = layout::Rules> {
    rules.chunks(RULES_PER_BLOCK).map(|rules| {
        let mut block = layout::Rules::default();
        rules.iter().zip(&mut block.rules).for_each(|(rule, written)| *written = self::rule(rule));
        block
    })
}

pub(crate) fn blocks(rules: usize) -> u32 {
    rules.div_ceil(RULES_PER_BLOCK) as u32
}

fn rule(rule: &PolicyRule) -> layout::Rule {
    let FlowMatch { protocol, ports, local, remote, dscp } = rule.matches;
    let prefix = |prefix: Option<Prefix>, flag: u8| match prefix {
        Some(prefix) => (
            mapped(prefix.address()),
            mapped_length(prefix),
            flag | if prefix.family() == Family::V4 { RULE_V4 } else { RULE_V6 },
        ),
        None => Default::default(),
    };
    let (local, local_length, of_local) = prefix(local, RULE_LOCAL);
    let (remote, remote_length, of_remote) = prefix(remote, RULE_REMOTE);
    let given = |is_given: bool, flag: u8| if is_given { flag } else { 0 };
    let (claims, path) = match rule.action {
        Action::Claim => (true, 0),
        Action::Path(path) => (false, path.0),
    };
    layout::Rule {
        local,
        remote,
        first_port: ports.map(PortRange::first).unwrap_or_default(),
        last_port: ports.map(PortRange::last).unwrap_or_default(),
        local_length,
        remote_length,
        flags: of_local
            | of_remote
            | given(protocol.is_some(), RULE_PROTOCOL)
            | given(ports.is_some(), RULE_PORTS)
            | given(dscp.is_some(), RULE_DSCP)
            | given(claims, RULE_CLAIM),
        protocol: protocol.map(|protocol| protocol.0).unwrap_or_default(),
        path,
        dscp: dscp.map(Dscp::get).unwrap_or_default(),
        pad: [0; 3],
    }
}

pub(crate) fn read_rule(rule: &layout::Rule) -> Option<PolicyRule> {
    let has = |flag: u8| rule.flags & flag != 0;
    let family = if has(RULE_V4) { 4 } else { 6 };
    let prefix = |flag: u8, address: [u8; 16], length: u8| match has(flag) {
        true => unmapped(read_address(address, family)?, length).map(Some),
        false => Some(None),
    };
    Some(PolicyRule {
        matches: FlowMatch {
            protocol: has(RULE_PROTOCOL).then_some(Protocol(rule.protocol)),
            ports: match has(RULE_PORTS) {
                true => Some(PortRange::new(rule.first_port, rule.last_port).ok()?),
                false => None,
            },
            local: prefix(RULE_LOCAL, rule.local, rule.local_length)?,
            remote: prefix(RULE_REMOTE, rule.remote, rule.remote_length)?,
            dscp: match has(RULE_DSCP) {
                true => Some(Dscp::new(rule.dscp)?),
                false => None,
            },
        },
        action: if has(RULE_CLAIM) { Action::Claim } else { Action::Path(PathId(rule.path)) },
    })
}

pub(crate) fn tunnel_end(tunnel: &Tunnel) -> layout::TunnelEnd {
    layout::TunnelEnd {
        local: mapped(tunnel.local),
        remote: mapped(tunnel.remote),
        key: tunnel.key.unwrap_or_default(),
        has_key: tunnel.key.is_some().into(),
    }
}

/// `mark` is the bit of the packet mark that says "claimed".
pub(crate) fn tunnel(tunnel: &Tunnel, underlay: u32, mark: u32) -> Result<layout::Tunnel, DriverError> {
    Ok(layout::Tunnel {
        underlay,
        local: mapped(tunnel.local),
        remote: mapped(tunnel.remote),
        key: tunnel.key.unwrap_or_default(),
        has_key: tunnel.key.is_some().into(),
        family: family(Family::of(tunnel.local)),
        oversize: match tunnel.oversize {
            Oversize::TellSender => 0,
            Oversize::FragmentOuter => 1,
        },
        pad: 0,
        mtu: tunnel.mtu.into(),
        // Nor is what encloses it to be sent to the next hop that was chosen for it.
        mark: mark | LinuxSpec::HOP_MARKS,
        name: port_name(&tunnel.underlay)?,
    })
}

/// Without what is allowed: that stands among the prefixes.
pub(crate) fn read_tunnel(site: u32, tunnel: &layout::Tunnel) -> Option<Tunnel> {
    Some(Tunnel {
        site: SiteId(site),
        underlay: read_port_name(&tunnel.name)?,
        local: read_address(tunnel.local, tunnel.family)?,
        remote: read_address(tunnel.remote, tunnel.family)?,
        key: (tunnel.has_key != 0).then_some(tunnel.key),
        mtu: u16::try_from(tunnel.mtu).ok()?,
        oversize: match tunnel.oversize {
            0 => Oversize::TellSender,
            1 => Oversize::FragmentOuter,
            _ => return None,
        },
        allowed: Default::default(),
    })
}

/// What no map has room for.
pub(crate) fn check_path(path: &catena_model::forwarding::Path) -> Result<(), DriverError> {
    bounded(path.hops.len(), MAX_HOPS, || format!("path {}: functions", path.id))?;
    path.hops.iter().try_for_each(|hop| {
        bounded(hop.instances.len(), MAX_INSTANCES, || format!("path {}: instances of one function", path.id))
    })
}

pub(crate) fn check_policy(policy: &catena_model::forwarding::Policy) -> Result<(), DriverError> {
    bounded(policy.rules.len(), MAX_RULES, || format!("policy of site {}: rules", policy.site))
}

fn bounded(count: usize, most: usize, what: impl Fn() -> String) -> Result<(), DriverError> {
    if count <= most {
        return Ok(());
    }
    Err(DriverError::Unsupported {
        what: format!("{} are {count}, more than the steering engine holds", what()),
        help: format!("use at most {most}"),
    })
}

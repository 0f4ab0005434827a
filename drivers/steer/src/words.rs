//! From our words to what the maps hold, and back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use catena_driver::DriverError;
use catena_model::address::{Family, PortRange, Prefix, Protocol};
use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, FlowMatch, Hop, Insertion, Instance, InstanceId, InstanceState,
    NextHops, Path, PathId, Policy, PolicyRule, Side, SiteId,
};
use catena_model::name::PortName;
use ipnet::IpNet;

use crate::layout::{self, MAX_HOPS, MAX_INSTANCES, MAX_RULES, PORT_NAME};

/// The key of a prefix in the trie of its family.
pub(crate) enum Lpm {
    V4(layout::Lpm4),
    V6(layout::Lpm6),
}

impl From<Prefix> for Lpm {
    fn from(prefix: Prefix) -> Self {
        let length = u32::from(prefix.length());
        match prefix.address() {
            IpAddr::V4(address) => Self::V4(layout::Lpm4 { length, address: address.octets() }),
            IpAddr::V6(address) => Self::V6(layout::Lpm6 { length, address: address.octets() }),
        }
    }
}

/// `None` for a length that no prefix has, which only someone else can have written.
pub(crate) fn prefix_v4(key: &layout::Lpm4) -> Option<Prefix> {
    prefix(Ipv4Addr::from(key.address).into(), key.length)
}

pub(crate) fn prefix_v6(key: &layout::Lpm6) -> Option<Prefix> {
    prefix(Ipv6Addr::from(key.address).into(), key.length)
}

fn prefix(address: IpAddr, length: u32) -> Option<Prefix> {
    Some(Prefix::of(IpNet::new(address, u8::try_from(length).ok()?).ok()?))
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

pub(crate) fn side(side: &Side, ifindex: u32) -> Result<layout::Side, DriverError> {
    let NextHops { v4, v6 } = side.next_hops;
    Ok(layout::Side {
        ifindex,
        has_v4: v4.is_some().into(),
        has_v6: v6.is_some().into(),
        pad: [0; 2],
        name: port_name(&side.port)?,
        v4: v4.map(|address| address.octets()).unwrap_or_default(),
        v6: v6.map(|address| address.octets()).unwrap_or_default(),
    })
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

pub(crate) fn instance(
    instance: &Instance,
    inside: u32,
    outside: u32,
) -> Result<layout::Instance, DriverError> {
    Ok(layout::Instance {
        insertion: match instance.insertion {
            Insertion::L3 => layout::INSERTION_L3,
            Insertion::L2 => layout::INSERTION_L2,
            other => return Err(unknown(format!("instance {} of kind {other}", instance.id))),
        },
        inside: side(&instance.inside, inside)?,
        outside: side(&instance.outside, outside)?,
    })
}

pub(crate) fn read_instance(id: u32, instance: &layout::Instance) -> Option<Instance> {
    Some(Instance {
        id: InstanceId(id),
        insertion: match instance.insertion {
            layout::INSERTION_L3 => Insertion::L3,
            layout::INSERTION_L2 => Insertion::L2,
            _ => return None,
        },
        inside: read_side(&instance.inside)?,
        outside: read_side(&instance.outside)?,
        state: InstanceState::Up,
        rewrites: false,
        delivery: Delivery::Direct,
    })
}

pub(crate) fn path(path: &Path) -> Result<layout::Path, DriverError> {
    let mut written = layout::Path {
        site: path.site.0,
        count: bounded(path.hops.len(), MAX_HOPS, || format!("path {}: functions", path.id))?,
        ..Default::default()
    };
    for (Hop { instances, .. }, written) in path.hops.iter().zip(&mut written.hops) {
        let what = || format!("path {}: instances of one function", path.id);
        written.count = bounded(instances.len(), MAX_INSTANCES, what)?;
        for (id, written) in instances.iter().zip(&mut written.instances) {
            *written = id.id.0;
        }
    }
    Ok(written)
}

pub(crate) fn read_path(id: u32, path: &layout::Path) -> Option<Path> {
    let hop = |hop: &layout::Hop| {
        let instances = hop.instances.get(..hop.count as usize)?;
        Some(Hop::of(instances.iter().copied().map(InstanceId)))
    };
    let hops = path.hops.get(..path.count as usize)?;
    Some(Path {
        id: PathId(id),
        site: SiteId(path.site),
        hops: hops.iter().map(hop).collect::<Option<_>>()?,
        vlan: None,
    })
}

/// `exits` are the numbers of the ports of the policy's exits; `serial` is different in every call.
pub(crate) fn policy(
    policy: &Policy,
    exits: Option<[u32; 2]>,
    serial: u64,
) -> Result<layout::Policy, DriverError> {
    let mut written = layout::Policy {
        serial,
        site: policy.site.0,
        count: bounded(policy.rules.len(), MAX_RULES, || format!("policy of site {}: rules", policy.site))?,
        ..Default::default()
    };
    if let Some((sides, ifindexes)) = policy.exits.as_ref().zip(exits) {
        written.has_exits = 1;
        for (direction, ifindex) in Direction::BOTH.into_iter().zip(ifindexes) {
            written.exits[direction as usize] = side(sides.of(direction), ifindex)?;
        }
    }
    for (rule, written) in policy.rules.iter().zip(&mut written.rules) {
        *written = self::rule(rule);
    }
    Ok(written)
}

/// Without prefixes: those stand in the tries.
pub(crate) fn read_policy(policy: &layout::Policy) -> Option<Policy> {
    let exits = match policy.has_exits {
        0 => None,
        _ => Some(Exits { up: read_side(&policy.exits[0])?, down: read_side(&policy.exits[1])? }),
    };
    let rules = policy.rules.get(..policy.count as usize)?;
    Some(Policy {
        site: SiteId(policy.site),
        prefixes: Default::default(),
        rules: rules.iter().map(read_rule).collect::<Option<_>>()?,
        exits,
    })
}

fn rule(rule: &PolicyRule) -> layout::Rule {
    let FlowMatch { protocol, ports, local, remote, dscp: _ } = rule.matches;
    let (action, path) = match rule.action {
        Action::Claim => (layout::ACTION_CLAIM, 0),
        Action::Path(path) => (layout::ACTION_PATH, path.0),
    };
    layout::Rule {
        local: masked(local),
        remote: masked(remote),
        first_port: ports.map(PortRange::first).unwrap_or_default(),
        last_port: ports.map(PortRange::last).unwrap_or_default(),
        has_protocol: protocol.is_some().into(),
        protocol: protocol.map(|protocol| protocol.0).unwrap_or_default(),
        has_ports: ports.is_some().into(),
        action,
        path,
    }
}

fn read_rule(rule: &layout::Rule) -> Option<PolicyRule> {
    let ports = match rule.has_ports {
        0 => None,
        _ => Some(PortRange::new(rule.first_port, rule.last_port).ok()?),
    };
    Some(PolicyRule {
        matches: FlowMatch {
            protocol: (rule.has_protocol != 0).then_some(Protocol(rule.protocol)),
            ports,
            local: read_masked(&rule.local)?,
            remote: read_masked(&rule.remote)?,
            dscp: None,
        },
        action: match rule.action {
            layout::ACTION_CLAIM => Action::Claim,
            layout::ACTION_PATH => Action::Path(PathId(rule.path)),
            _ => return None,
        },
    })
}

fn masked(prefix: Option<Prefix>) -> layout::Prefix {
    let Some(prefix) = prefix else { return Default::default() };
    let mask = mapped(prefix.net().netmask());
    layout::Prefix {
        address: mapped(prefix.address()),
        mask: match prefix.family() {
            // All of the prefix ::ffff:0:0/96 counts, too.
            Family::V4 => (u128::from_be_bytes(mask) | !u128::from(u32::MAX)).to_be_bytes(),
            Family::V6 => mask,
        },
        family: match prefix.family() {
            Family::V4 => 4,
            Family::V6 => 6,
        },
        length: prefix.length(),
        pad: [0; 2],
    }
}

/// The outer `None` is for what cannot be read, the inner one for no prefix.
fn read_masked(masked: &layout::Prefix) -> Option<Option<Prefix>> {
    let address = Ipv6Addr::from(masked.address);
    match masked.family {
        0 => Some(None),
        4 => prefix(address.to_ipv4_mapped()?.into(), masked.length.into()).map(Some),
        6 => prefix(address.into(), masked.length.into()).map(Some),
        _ => None,
    }
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn bounded(count: usize, most: usize, what: impl Fn() -> String) -> Result<u32, DriverError> {
    u32::try_from(count).ok().filter(|_| count <= most).ok_or_else(|| DriverError::Unsupported {
        what: format!("{} are {count}, more than the steering engine holds", what()),
        help: format!("use at most {most}"),
    })
}

fn unknown(what: String) -> DriverError {
    DriverError::Unsupported { what, help: "this engine does not know it".to_owned() }
}

pub(crate) fn v4(address: IpAddr) -> Result<[u8; 4], DriverError> {
    match address {
        IpAddr::V4(address) => Ok(address.octets()),
        IpAddr::V6(_) => Err(unknown(format!("a tunnel over IPv6 ({address})"))),
    }
}

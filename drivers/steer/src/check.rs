//! Saying beforehand why changes could not be applied here.

use std::collections::{BTreeMap, BTreeSet};

use catena_driver::DriverError;
use catena_model::forwarding::{Change, ElementState, Hop, Insertion, InstanceId, Object, Purpose};
use catena_model::name::PortName;

use crate::apply::{find_port, ports};
use crate::device;
use crate::words;

/// In the element's namespace; `installed` is what the changes start from.
pub(crate) fn check(installed: &ElementState, changes: &[Change]) -> Result<(), DriverError> {
    let mut after = installed.clone();
    changes.iter().for_each(|change| after.apply(change));
    let makes_tunnels = after.iter().any(|object| matches!(object, Object::Tunnel(_)));
    let new = || {
        changes.iter().filter_map(|change| match change {
            Change::Put { new, .. } => Some(new),
            Change::Delete { .. } => None,
        })
    };
    for object in new() {
        for port in used_ports(object) {
            if !(makes_tunnels && port == PortName::tunnel()) {
                find_port(&port)?;
            }
        }
        check_object(object, &after)?;
    }
    check_shared_ports(&after)?;
    check_shared_prefixes(&after)?;
    if new().any(needs_still_stack) {
        new().flat_map(used_ports).collect::<BTreeSet<_>>().iter().try_for_each(check_forwarding)?;
    }
    Ok(())
}

/// All ports that an object names.
fn used_ports(object: &Object) -> Vec<PortName> {
    match object {
        Object::Policy(policy) => {
            let exits = policy.exits.iter();
            exits.flat_map(|exits| [exits.up.port.clone(), exits.down.port.clone()]).collect()
        }
        _ => ports(object),
    }
}

fn check_object(object: &Object, after: &ElementState) -> Result<(), DriverError> {
    match object {
        Object::Instance(instance) if instance.inside.port == instance.outside.port => {
            Err(DriverError::Unsupported {
                what: format!("instance {} has both sides at port {}", instance.id, instance.inside.port),
                help: "give it a port for each side: what comes out of a port must say its direction"
                    .to_owned(),
            })
        }
        Object::Path(path) => {
            words::path(path)?;
            let mut seen = BTreeSet::new();
            let mut routed = path.hops.iter().flat_map(Hop::ids).filter(|id| is_routed(after, *id));
            match routed.find(|id| !seen.insert(*id)) {
                Some(id) => Err(DriverError::Unsupported {
                    what: format!("path {} passes instance {id} twice", path.id),
                    help: "name a routed (l3) function once in a chain: its packets bear no sign of where they were"
                        .to_owned(),
                }),
                None => Ok(()),
            }
        }
        Object::Policy(policy) => words::policy(policy, None, 0).map(drop),
        _ => Ok(()),
    }
}

fn is_routed(after: &ElementState, id: InstanceId) -> bool {
    after.iter().any(|object| {
        matches!(object, Object::Instance(instance) if instance.id == id && instance.insertion == Insertion::L3)
    })
}

/// A function's port is that function's alone: what comes out of it has one meaning.
fn check_shared_ports(after: &ElementState) -> Result<(), DriverError> {
    let instances = || {
        after.iter().filter_map(|object| match object {
            Object::Instance(instance) => Some(instance),
            _ => None,
        })
    };
    let inside: BTreeSet<_> = instances().map(|instance| &instance.inside.port).collect();
    let outside: BTreeSet<_> = instances().map(|instance| &instance.outside.port).collect();
    let edges: BTreeSet<_> = after
        .iter()
        .filter_map(|object| match object {
            Object::Ingress(ingress) => Some(&ingress.port),
            _ => None,
        })
        .collect();
    let shared =
        inside.intersection(&outside).chain(inside.intersection(&edges)).chain(outside.intersection(&edges));
    match shared.into_iter().next() {
        Some(port) => Err(DriverError::Unsupported {
            what: format!("port {port} would lead to two sides of functions, or to a function and elsewhere"),
            help: "give each side of each function a port of its own".to_owned(),
        }),
        None => Ok(()),
    }
}

/// A prefix tells one site's packets from all others', and one tunnel from the others.
fn check_shared_prefixes(after: &ElementState) -> Result<(), DriverError> {
    let mut sites = BTreeMap::new();
    let mut tunnels = BTreeMap::new();
    for object in after.iter() {
        let (seen, site, prefixes) = match object {
            Object::Policy(policy) => (&mut sites, policy.site, &policy.prefixes),
            Object::Tunnel(tunnel) => (&mut tunnels, tunnel.site, &tunnel.allowed),
            _ => continue,
        };
        for prefix in prefixes {
            if let Some(other) = seen.insert(*prefix, site) {
                return Err(DriverError::Unsupported {
                    what: format!("{prefix} is of the {} of two sites, {other} and {site}", object.kind()),
                    help: "give each site prefixes of its own".to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// Whether it would matter if the kernel forwarded by itself.
fn needs_still_stack(object: &Object) -> bool {
    match object {
        Object::Ingress(ingress) => ingress.purpose == Purpose::Steer,
        Object::Instance(_) => true,
        _ => false,
    }
}

/// A steering element forwards by our programs alone: were one of them lost, the stack must not carry packets round
/// the functions.
fn check_forwarding(port: &PortName) -> Result<(), DriverError> {
    // IPv6 forwards by the setting of all ports together, or, from Linux 6.17 on, by force for one.
    let settings = [
        format!("ipv4/conf/{port}/forwarding"),
        "ipv6/conf/all/forwarding".to_owned(),
        format!("ipv6/conf/{port}/force_forwarding"),
    ];
    for setting in settings {
        let value = device::read(&setting)
            .map_err(|error| DriverError::failed(format!("cannot read the setting net/{setting}"), error))?;
        if value.is_some_and(|value| value != "0") {
            return Err(DriverError::Unsupported {
                what: format!("net/{setting} is on, so packets could go round the functions"),
                help: format!("sysctl -w net/{setting}=0, or steer on an element that does not route"),
            });
        }
    }
    Ok(())
}

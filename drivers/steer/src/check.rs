//! Saying beforehand why changes could not be applied here.

use std::collections::BTreeSet;

use catena_driver::DriverError;
use catena_model::address::Family;
use catena_model::forwarding::{
    Hop, Insertion, Instance, InstanceId, Key, Kind, Object, Oversize, Path, Purpose, SiteId, Tunnel,
};
use catena_model::name::PortName;

use crate::contents::{Contents, Edit, Wanted};
use crate::device;
use crate::index::{exits, members};
use crate::ports::{Finder, ports};
use crate::words;

/// Whether the engine has such objects at all.
pub(crate) fn check_kinds(wanted: &Wanted) -> Result<(), DriverError> {
    let foreign = wanted.keys().find_map(|key| match key {
        Key::Table(..) => Some(Kind::Table),
        Key::Rule(..) => Some(Kind::Rule),
        _ => None,
    });
    match foreign {
        Some(kind) => Err(DriverError::Unsupported {
            what: format!("the steering engine has no {kind}s"),
            help: "give it to the driver of the element that has them".to_owned(),
        }),
        None => Ok(()),
    }
}

/// Whether what is put by `edit`, which has happened in memory, can be. Looks at nothing but that and what it touches.
pub(crate) fn check(contents: &Contents, edit: &Edit) -> Result<(), DriverError> {
    contents.index.numbers.check()?;
    edit.deltas.iter().try_for_each(|delta| match &delta.after {
        Some(after) => {
            let before = delta.before.as_ref().map(|version| &version.object);
            check_object(contents, &after.object, before)
        }
        None => Ok(()),
    })
}

/// Whether the machine is as it must be: ports, and settings that would let packets go round a chain. In the element's
/// namespace.
pub(crate) fn check_machine(contents: &Contents, edit: &Edit) -> Result<(), DriverError> {
    let mut finder = Finder::open()?;
    check_ports(contents, edit, &mut finder)?;
    for object in new(edit) {
        if let Object::Tunnel(tunnel) = object {
            check_way(tunnel, &mut finder)?;
        }
    }
    if new(edit).any(needs_still_stack) {
        new(edit).flat_map(used_ports).collect::<BTreeSet<_>>().into_iter().try_for_each(check_forwarding)?;
    }
    Ok(())
}

/// Whether the stack sends what it has cut by the tunnel's underlay. (It looks up the outer addresses alone; the program that
/// sends what fits looks for a way out of that port.)
fn check_way(tunnel: &Tunnel, finder: &mut Finder) -> Result<(), DriverError> {
    match finder.misrouted(tunnel)? {
        Some(what) => Err(DriverError::Unsupported {
            what: format!("the tunnel of site {} is to cut outer packets, and {what}", tunnel.site),
            help: format!(
                "give the element a route to {} by {}, or leave `oversize` out, so that senders are told",
                tunnel.remote, tunnel.underlay
            ),
        }),
        None => Ok(()),
    }
}

/// Whether the ports are there, but for the one that tunnels bring with them.
pub(crate) fn check_ports(contents: &Contents, edit: &Edit, finder: &mut Finder) -> Result<(), DriverError> {
    let makes_tunnels = contents.index.tunnels_mtu().is_some();
    let ports = new(edit).flat_map(used_ports).collect::<BTreeSet<_>>();
    let tunnels = PortName::tunnel();
    let mut ports = ports.into_iter().filter(|port| !makes_tunnels || **port != tunnels);
    ports.try_for_each(|port| finder.find(port).map(drop))
}

fn new(edit: &Edit) -> impl Iterator<Item = &Object> {
    edit.deltas.iter().filter_map(|delta| delta.after.as_ref().map(|version| &version.object))
}

/// All ports that an object names.
fn used_ports(object: &Object) -> Vec<&PortName> {
    match object {
        Object::Policy(policy) => exits(policy).map(|side| &side.port).collect(),
        _ => ports(object),
    }
}

fn check_object(contents: &Contents, object: &Object, before: Option<&Object>) -> Result<(), DriverError> {
    match object {
        Object::Ingress(ingress) => check_port(contents, &ingress.port),
        Object::Instance(instance) => {
            check_instance(instance)?;
            check_port(contents, &instance.inside.port)?;
            check_port(contents, &instance.outside.port)?;
            match before {
                Some(Object::Instance(before)) if passes_alike(instance, before) => Ok(()),
                _ => check_users(contents, instance),
            }
        }
        Object::Path(path) => check_path(contents, path),
        Object::Policy(policy) => {
            words::check_policy(policy)?;
            policy.prefixes.first().map_or(Ok(()), |_| check_number(policy.site))
        }
        Object::Tunnel(tunnel) => check_tunnel(contents, tunnel),
        Object::Table(_) | Object::Rule(_) => Ok(()),
    }
}

/// The programs say "none" by the number 0.
fn check_number(site: SiteId) -> Result<(), DriverError> {
    match site {
        SiteId(0) => Err(DriverError::Unsupported {
            what: "a site has the number 0".to_owned(),
            help: "number sites from 1".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A function's port is that function's alone: what comes out of it has one meaning.
fn check_port(contents: &Contents, name: &PortName) -> Result<(), DriverError> {
    let Some(named) = contents.index.port(name) else { return Ok(()) };
    let elsewhere = usize::from(named.is_ingress) + usize::from(named.tunnels > 0);
    if named.functions.is_empty() || named.functions.len() + elsewhere == 1 {
        return Ok(());
    }
    Err(DriverError::Unsupported {
        what: format!("port {name} would lead to two functions, or to a function and elsewhere"),
        help: "give each side of each function a port of its own".to_owned(),
    })
}

fn check_instance(instance: &Instance) -> Result<(), DriverError> {
    if instance.rewrites && instance.insertion != Insertion::L3 {
        return Err(DriverError::Unsupported {
            what: format!("instance {} rewrites addresses and is not inserted as l3", instance.id),
            help: "insert it as l3: its packets bear no tag that it would bring back".to_owned(),
        });
    }
    Ok(())
}

/// Whether paths that could pass the one can pass the other.
fn passes_alike(new: &Instance, old: &Instance) -> bool {
    let passage = |instance: &Instance| (instance.insertion, instance.rewrites, instance.is_one_armed());
    passage(new) == passage(old)
}

fn check_users(contents: &Contents, instance: &Instance) -> Result<(), DriverError> {
    for (path, site) in contents.index.users(instance.id) {
        check_sharing(contents, instance, site)?;
        if let Some(Object::Path(path)) = contents.objects.get(&Key::Path(path)) {
            check_passage(contents, path, instance.id)?;
        }
    }
    Ok(())
}

fn check_path(contents: &Contents, path: &Path) -> Result<(), DriverError> {
    words::check_path(path)?;
    check_number(path.site)?;
    for id in members(path) {
        check_passage(contents, path, id)?;
        if let Some(Object::Instance(instance)) = contents.objects.get(&Key::Instance(id)) {
            check_sharing(contents, instance, path.site)?;
        }
    }
    Ok(())
}

/// Whether a path can pass this instance in the way that the instance is inserted.
fn check_passage(contents: &Contents, path: &Path, id: InstanceId) -> Result<(), DriverError> {
    let Some(Object::Instance(instance)) = contents.objects.get(&Key::Instance(id)) else { return Ok(()) };
    let times = path.hops.iter().flat_map(Hop::ids).filter(|other| *other == id).count();
    match instance.insertion {
        Insertion::L3 | Insertion::Vlan if times > 1 => Err(DriverError::Unsupported {
            what: format!("path {} passes instance {id} twice", path.id),
            help: "name a function that is inserted as l3 or vlan once in a chain: its packets bear no sign of how \
                   often they were there"
                .to_owned(),
        }),
        Insertion::Vlan if path.vlan.is_none() => Err(DriverError::Unsupported {
            what: format!("path {} passes instance {id} by VLAN and has none", path.id),
            help: "give the path a VLAN".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// A routed instance cannot tell sites with the same addresses apart, and one that rewrites them cannot tell any.
fn check_sharing(contents: &Contents, instance: &Instance, site: SiteId) -> Result<(), DriverError> {
    if instance.insertion != Insertion::L3 {
        return Ok(());
    }
    let index = &contents.index;
    let told_by_port = |site| index.is_told_by_port(site);
    if instance.is_one_armed() && told_by_port(site) {
        return Err(DriverError::Unsupported {
            what: format!(
                "instance {} has one port, and would serve site {site}, whose packets are told by port: nothing would say \
                 whether they go up or down",
                instance.id
            ),
            help: "give it two ports, or insert it as l2, vlan or nsh".to_owned(),
        });
    }
    let other = if instance.rewrites || told_by_port(site) {
        index.users(instance.id).find(|(_, other)| *other != site)
    } else {
        // All that were there before share it, or have it alone.
        index.users(instance.id).find(|(_, other)| *other != site).filter(|(_, other)| told_by_port(*other))
    };
    match other {
        Some((_, other)) => Err(DriverError::Unsupported {
            what: format!(
                "instance {} would serve sites {site} and {other}, and cannot tell their packets apart",
                instance.id
            ),
            help: "give each of them an instance of its own, or insert it as l2, vlan or nsh".to_owned(),
        }),
        None => Ok(()),
    }
}

fn check_tunnel(contents: &Contents, tunnel: &Tunnel) -> Result<(), DriverError> {
    check_number(tunnel.site)?;
    check_port(contents, &tunnel.underlay)?;
    if tunnel.oversize == Oversize::FragmentOuter && Family::of(tunnel.local) == Family::V6 {
        return Err(DriverError::Unsupported {
            what: format!("the tunnel of site {} is to cut IPv6 packets, which no router may", tunnel.site),
            help: "leave `oversize` out, so that senders are told, or tunnel over IPv4".to_owned(),
        });
    }
    if contents.index.cuts_some_only() {
        return Err(DriverError::Unsupported {
            what: format!(
                "with the tunnel of site {}, some tunnels of the element cut outer packets and others tell the sender",
                tunnel.site
            ),
            help: "give all tunnels that end at one element the same `oversize`: they share an interface, and so its MTU"
                .to_owned(),
        });
    }
    if Family::of(tunnel.local) == Family::of(tunnel.remote) {
        return Ok(());
    }
    Err(DriverError::Unsupported {
        what: format!("the tunnel of site {} goes from {} to {}", tunnel.site, tunnel.local, tunnel.remote),
        help: "give both ends addresses of one family".to_owned(),
    })
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

//! Nodes and links: what is asked of the kernel, and asking it.
//!
//! What is asked is text for `ip -batch`, made without touching anything, so that a person who doubts the lab can read it
//! (`RUST_LOG=catena_lab=debug`) and type it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use catena_driver::netns::NetNs;
use catena_model::name::NodeName;
use catena_model::resource::{DriverSpec, Host, LinkEnd, Model, Role, Route};
use catena_model::topology::{Cable, Topology};

use crate::program::feed;
use crate::{LabError, mounts};

/// The namespaces of a network's nodes.
pub type Namespaces = BTreeMap<NodeName, NetNs>;

/// What the lab needs to know of an element or a host to build it.
struct Node<'a> {
    name: &'a NodeName,
    /// The name that its namespace has; `None` for the lab's own namespace.
    netns: Option<&'a str>,
    forwarding: bool,
    routes: &'a [Route],
}

/// Builds all nodes and links of `model`. This process is in the lab's own namespace.
pub(crate) fn build(model: &Model) -> Result<Namespaces, LabError> {
    let nodes = nodes_of(model);
    let namespaces = make_namespaces(&nodes)?;
    // The loopback interface is for daemons in the lab that listen on a loopback address.
    batch(None, "link set dev lo up\n")?;
    let here = NetNs::current().map_err(LabError::system("cannot open the lab's own namespace"))?;
    connect(model, &nodes, &namespaces, &here, |node| node.netns.map(str::to_owned))?;
    Ok(namespaces)
}

/// Builds all nodes and links of `model` in namespaces that nobody but the holder of what is given back can find, and that
/// end with it. Setup commands and services are not run.
pub fn connect_unnamed(model: &Model) -> Result<Namespaces, LabError> {
    let nodes = nodes_of(model);
    let failed = |node: &NodeName| LabError::system(format!("{node}: cannot make its network namespace"));
    let made = nodes.keys().map(|node| Ok(((*node).clone(), NetNs::create().map_err(failed(node))?)));
    let namespaces = made.collect::<Result<Namespaces, LabError>>()?;
    // Links are made in neither of their ends' namespaces, and here might be ports of the same names.
    let empty = NetNs::create().map_err(LabError::system("cannot make a network namespace"))?;
    let held = |node: &Node| {
        let descriptor = namespaces[node.name].as_fd().as_raw_fd();
        Some(format!("/proc/{}/fd/{descriptor}", std::process::id()))
    };
    connect(model, &nodes, &namespaces, &empty, held)?;
    Ok(namespaces)
}

/// Makes what is in the namespaces and between them. `known_as` is how `ip`, in `maker`, is told of a node's; `None` for
/// `maker` itself.
fn connect(
    model: &Model,
    nodes: &BTreeMap<&NodeName, Node<'_>>,
    namespaces: &Namespaces,
    maker: &NetNs,
    known_as: impl Fn(&Node) -> Option<String>,
) -> Result<(), LabError> {
    let topology = Topology::of(model);
    for node in nodes.values() {
        let netns = &namespaces[node.name];
        netns.run(|| configure(node.forwarding)).map_err(LabError::system(format!(
            "{}: cannot set the kernel's network parameters",
            node.name
        )))?;
    }
    let cables = links(model, |node| nodes.get(node).and_then(&known_as));
    maker.run(|| Ok(batch(None, &cables))).map_err(LabError::system("cannot enter a namespace"))??;
    for node in nodes.values() {
        batch(Some((node.name, &namespaces[node.name])), &interior(&topology, node))?;
    }
    for host in model.hosts.keys() {
        complete_frames(&topology, host, &namespaces[host])?;
    }
    Ok(())
}

fn nodes_of(model: &Model) -> BTreeMap<&NodeName, Node<'_>> {
    let elements = model.elements.values().map(|element| Node {
        name: &element.name,
        netns: match &element.driver {
            DriverSpec::Linux(linux) => linux.netns.as_deref(),
            DriverSpec::Simulated => Some(element.name.as_str()),
        },
        // A switch hands on what it is told to hand on, and nothing else.
        forwarding: element.role != Role::Switch,
        routes: &element.routes,
    });
    let hosts = model.hosts.values().map(|host: &Host| Node {
        name: &host.name,
        netns: Some(host.name.as_str()),
        forwarding: host.forwarding,
        routes: &host.routes,
    });
    elements.chain(hosts).map(|node| (node.name, node)).collect()
}

/// Makes the namespaces and names them: each has the name that drivers know it by and the name of its node, so that
/// people need not tell the two apart.
fn make_namespaces(nodes: &BTreeMap<&NodeName, Node<'_>>) -> Result<Namespaces, LabError> {
    let mut owners: BTreeMap<Option<&str>, &NodeName> = BTreeMap::new();
    let mut made = Namespaces::new();
    for node in nodes.values() {
        if let Some(first) = owners.insert(node.netns, node.name) {
            return Err(LabError::SameNetns {
                netns: node.netns.unwrap_or("that the lab itself is in").to_owned(),
                first: first.clone(),
                second: node.name.clone(),
            });
        }
        let netns = match node.netns {
            Some(name) => {
                NetNs::create().and_then(|netns| mounts::name_namespace(&netns, name).map(|()| netns))
            }
            None => NetNs::current(),
        };
        let what = || format!("{}: cannot make its network namespace", node.name);
        let netns = netns.map_err(|error| LabError::system(what())(error))?;
        made.insert(node.name.clone(), netns);
    }
    let renamed = nodes.values().filter(|node| node.netns != Some(node.name.as_str()));
    // A name that is some other node's is left to that one.
    for node in renamed.filter(|node| !owners.contains_key(&Some(node.name.as_str()))) {
        mounts::name_namespace(&made[node.name], node.name.as_str())
            .map_err(LabError::system(format!("{}: cannot name its network namespace", node.name)))?;
    }
    Ok(made)
}

/// Sets this thread's namespace up before it has a port, so that every port begins with these settings.
fn configure(forwarding: bool) -> io::Result<()> {
    let forwarding = if forwarding { "1" } else { "0" };
    let parameters = [
        ("ipv4/ip_forward", forwarding),
        // Accepting is by the larger of `all` and the port's own (ip-sysctl): both.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // A packet may leave by the port that it came in by without anybody being told of a shorter way.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        ("ipv4/conf/all/accept_redirects", "0"),
        ("ipv4/conf/default/accept_redirects", "0"),
    ];
    let parameters_v6 = [
        ("ipv6/conf/all/forwarding", forwarding),
        ("ipv6/conf/all/accept_redirects", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
        // What is in the file is all that there is.
        ("ipv6/conf/all/accept_ra", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/autoconf", "0"),
        ("ipv6/conf/default/autoconf", "0"),
        // Addresses are usable at once; that they are unique is known from the file.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ];
    let has_v6 = fs::exists("/proc/sys/net/ipv6")?;
    for (parameter, value) in parameters.iter().chain(parameters_v6.iter().filter(|_| has_v6)) {
        let path = format!("/proc/sys/net/{parameter}");
        fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    }
    Ok(())
}

/// The commands that make all links, ports and MTUs included.
fn links(model: &Model, netns_of: impl Fn(&NodeName) -> Option<String>) -> String {
    let end = |end: &LinkEnd| match netns_of(&end.node) {
        Some(netns) => format!("name {} netns {netns}", end.port),
        None => format!("name {}", end.port),
    };
    let links = model.links.values().map(|link| {
        let [a, b] = &link.ends;
        format!("link add {} mtu {mtu} type veth peer {} mtu {mtu}\n", end(a), end(b), mtu = link.mtu)
    });
    links.collect()
}

/// The commands that complete a node: its ports up, their addresses, its routes.
fn interior(topology: &Topology, node: &Node<'_>) -> String {
    let mut commands = String::from("link set dev lo up\n");
    let mut command = |line: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(commands, "{line}");
    };
    for Cable { near: end, .. } in topology.cables(node.name) {
        // A port without IPv6 addresses (one of a bridge, say) says nothing by itself either.
        if !end.addresses.iter().any(|address| address.addr().is_ipv6()) {
            command(format_args!("link set dev {} addrgenmode none", end.port));
        }
        command(format_args!("link set dev {} up", end.port));
        for address in &end.addresses {
            let at_once = if address.addr().is_ipv6() { " nodad" } else { "" };
            command(format_args!("address add {address} dev {}{at_once}", end.port));
        }
    }
    for route in node.routes {
        command(format_args!("route add {} via {}", route.to, route.via));
    }
    commands
}

/// Runs the commands by one `ip`, in the namespace of a node or in the lab's own.
fn batch(node: Option<(&NodeName, &NetNs)>, commands: &str) -> Result<(), LabError> {
    tracing::debug!(node = node.map(|(name, _)| tracing::field::display(name)), "ip -batch\n{commands}");
    let feed_ip = || feed("ip", &["-batch", "-"], commands);
    let output = match node {
        Some((_, netns)) => {
            netns.run(|| Ok(feed_ip())).map_err(LabError::system("cannot enter a namespace"))?
        }
        None => feed_ip(),
    }?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Connect {
        node: node.map_or_else(|| "the lab".to_owned(), |(name, _)| name.to_string()),
        command: format!("ip {}", failed_line(&said, commands)),
        output: said.lines().next().unwrap_or_default().to_owned(),
    })
}

/// `ip -batch` ends with `Command failed -:LINE`.
fn failed_line<'a>(said: &str, commands: &'a str) -> &'a str {
    let line =
        said.lines().find_map(|line| line.strip_prefix("Command failed -:")?.trim().parse::<usize>().ok());
    line.and_then(|line| commands.lines().nth(line.checked_sub(1)?)).unwrap_or("-batch -")
}

/// Makes a host send whole packets with finished checksums, as what comes off a real wire. A veth leaves both to a device
/// that does not exist here, and what is captured or put into a tunnel on the way would be a packet that no network
/// carries.
fn complete_frames(topology: &Topology, host: &NodeName, netns: &NetNs) -> Result<(), LabError> {
    for Cable { near: end, .. } in topology.cables(host) {
        let arguments = ["-K", end.port.as_str(), "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        let output = netns
            .run(|| Ok(feed("ethtool", &arguments, "")))
            .map_err(LabError::system("cannot enter a namespace"))??;
        if !output.status.success() {
            return Err(LabError::Connect {
                node: host.to_string(),
                command: format!("ethtool {}", arguments.join(" ")),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_model::resource::{Source, load};

    const TWO: &str = r#"
apiVersion: catena/v1alpha1
kind: Host
metadata: {name: user}
spec: {routes: [{to: default, via: 10.0.1.1}, {to: default, via: "2001:db8:1::1"}]}
---
apiVersion: catena/v1alpha1
kind: Element
metadata: {name: router}
spec: {role: router, driver: {linux: {netns: qrouter-1}}}
---
apiVersion: catena/v1alpha1
kind: Link
metadata: {name: wire}
spec:
  mtu: 1400
  ends:
    - {node: user, port: eth0, addresses: [10.0.1.2/24, "2001:db8:1::2/64"]}
    - {node: router, port: a, addresses: [10.0.1.1/24]}
"#;

    #[test]
    fn what_is_asked_of_the_kernel_can_be_read() {
        let model = load(&[Source::new("two.yaml", TWO)]).unwrap();
        let (nodes, topology) = (nodes_of(&model), Topology::of(&model));
        let of = |name: &str| interior(&topology, &nodes[&NodeName::new(name).unwrap()]);
        assert_eq!(
            links(&model, |node| nodes[node].netns.map(str::to_owned)),
            "link add name eth0 netns user mtu 1400 type veth peer name a netns qrouter-1 mtu 1400\n"
        );
        assert_eq!(
            of("user"),
            "link set dev lo up\n\
             link set dev eth0 up\n\
             address add 10.0.1.2/24 dev eth0\n\
             address add 2001:db8:1::2/64 dev eth0 nodad\n\
             route add 0.0.0.0/0 via 10.0.1.1\n\
             route add ::/0 via 2001:db8:1::1\n"
        );
        assert_eq!(
            of("router"),
            "link set dev lo up\n\
             link set dev a addrgenmode none\n\
             link set dev a up\n\
             address add 10.0.1.1/24 dev a\n"
        );
    }

    #[test]
    fn the_command_that_failed_is_found() {
        let commands = "link set dev lo up\nroute add 0.0.0.0/0 via 10.0.1.1\n";
        let said = "Error: Nexthop has invalid gateway.\nCommand failed -:2\n";
        assert_eq!(failed_line(said, commands), "route add 0.0.0.0/0 via 10.0.1.1");
        assert_eq!(failed_line("Killed", commands), "-batch -");
    }
}

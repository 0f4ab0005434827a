//! Random packets, and whether they go where they should.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use catena_lab::probe::{self, Probe, Station, Watch};
use catena_model::address::{Dscp, Protocol};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_verify::{Arrival, Arrivals, Decision, End, Entry, Network as Verified, Visit, Walk, walk_from};

use crate::chance::Chance;
use crate::network::{GATEWAY, INTERNET, Network, SWITCH};
use crate::world::{World, run};

/// After this long without another arrival, none will come. Neighbours that nobody has asked for yet take a while.
const QUIET: Duration = Duration::from_millis(600);
/// What comes too much comes within this time.
const SETTLED: Duration = Duration::from_millis(15);

/// The hosts where packets begin: the users, then the Internet. Each with the port where its packets come in.
pub struct Stations(Vec<(Entry, Station)>);

impl Stations {
    pub fn new(world: &World, network: &Network) -> Self {
        let hosts = network.sites.iter().map(|site| site.user.as_str()).chain([INTERNET]);
        Self(hosts.map(|host| station(world, &host.parse().unwrap())).collect())
    }

    fn internet(&self) -> usize {
        self.0.len() - 1
    }
}

fn station(world: &World, host: &NodeName) -> (Entry, Station) {
    let cable = world.topology.cables(host).next().unwrap();
    let end = |end: &catena_model::resource::LinkEnd| (world.namespaces[&end.node].clone(), end.port.clone());
    let ((near, near_port), (far, far_port)) = (end(&cable.near), end(&cable.far));
    run(&near, SILENCE);
    let station = Station::new((&near, &near_port), (&far, &far_port)).unwrap();
    (Entry { node: cable.far.node.clone(), port: cable.far.port.clone(), tunnel: None }, station)
}

/// Hosts say nothing themselves: their kernels would reset the connections that probes pretend to open.
const SILENCE: &str = "nft 'add table inet silence; \
    add chain inet silence in { type filter hook input priority 0; }; \
    add rule inet silence in meta l4proto { tcp, udp, sctp, 89 } drop; \
    add rule inet silence in icmp type echo-request drop; \
    add rule inet silence in icmpv6 type echo-request drop'";

/// What has been sent in a network.
#[derive(Default)]
pub struct Traffic {
    sent: u32,
    /// No two packets are of one flow, but for a request and its answer.
    flows: BTreeSet<(IpAddr, u16, IpAddr, u16, u8)>,
}

#[derive(Default)]
pub struct Sent {
    pub packets: usize,
    pub undecided: usize,
    pub disagreements: Vec<String>,
}

/// A packet, and what is to become of it.
struct Sending {
    probe: Probe,
    station: usize,
    walk: Walk,
    expected: Arrivals,
}

impl Traffic {
    pub fn send(
        &mut self,
        count: usize,
        world: &World,
        network: &Network,
        stations: &mut Stations,
        watch: &mut Watch,
        chance: &mut Chance,
    ) -> Sent {
        // Answers are sent when what they answer has been where it goes.
        let (mut requests, mut replies): (Vec<Sending>, Vec<Sending>) = (Vec::new(), Vec::new());
        while requests.len() + replies.len() < count {
            let (packet, station) = self.packet(network, stations, chance);
            let request = self.sending(packet, station, world, stations);
            if network.looks_at_dscp() && is_told_by_history(&request.walk, &[])
                || network.is_of_a_site(packet.destination) && station != stations.internet()
            {
                continue;
            }
            // An element that a packet is for answers itself.
            let answered = match &request.walk.end {
                End::Delivered { node } => world.model.hosts.contains_key(node),
                End::Internet { .. } => true,
                _ => false,
            };
            let from_site = station != stations.internet();
            let asked = places(&request.walk);
            requests.push(request);
            let is_room = requests.len() + replies.len() < count;
            if answered && from_site && is_room && chance.percent(70) {
                let reply = self.sending(packet.reply(), stations.internet(), world, stations);
                if !(network.looks_at_dscp() && is_told_by_history(&reply.walk, &asked)) {
                    replies.push(reply);
                }
            }
        }
        let mut sent = Sent { packets: requests.len() + replies.len(), ..Sent::default() };
        for all in [&requests, &replies] {
            for Sending { probe, station, .. } in all {
                stations.0[*station].1.send(probe).unwrap();
            }
            let mut observed = observe(all, world, watch);
            for sending in all {
                let seen = observed.remove(&sending.probe.number).unwrap_or_default();
                sent.undecided += usize::from(matches!(sending.walk.end, End::Undecided { .. }));
                sent.disagreements.extend(disagreement(sending, seen));
            }
        }
        sent
    }

    fn sending(&mut self, packet: Packet, station: usize, world: &World, stations: &Stations) -> Sending {
        let World { model, topology, installed: state, base, numbering, .. } = world;
        let verified = Verified { model, topology, state, base, numbering };
        self.sent += 1;
        let entry = &stations.0[station].0;
        let walk = as_far_as_switch(walk_from(&verified, entry, packet));
        let expected = walk.arrivals(model, topology);
        Sending { probe: Probe { number: self.sent, packet }, station, walk, expected }
    }

    /// Of a flow that there has not been yet, and from where it comes.
    fn packet(&mut self, network: &Network, stations: &Stations, chance: &mut Chance) -> (Packet, usize) {
        loop {
            let station =
                if chance.percent(75) { chance.below(stations.internet()) } else { stations.internet() };
            let v6 = network.has_v6() && chance.percent(40);
            let in_site = |site: usize, chance: &mut Chance| -> IpAddr {
                let host = if chance.percent(50) { 0x10 } else { 2 + chance.below(250) as u16 };
                match v6 {
                    true => [0x2001, 0xdb8, 0xa1 + site as u16, 0, 0, 0, 0, host].into(),
                    false => [172, 16, 1 + site as u8, if host == 0x10 { 10 } else { host as u8 }].into(),
                }
            };
            let beyond = |chance: &mut Chance| -> IpAddr {
                let known = ["198.51.100.10", "198.51.100.66", "203.0.113.9", "192.0.2.33"];
                let known_v6 = ["2001:db8:ffff::10", "2001:db8:ffff::66", "2001:db8:eeee::9"];
                if v6 { chance.of(&known_v6).parse().unwrap() } else { chance.of(&known).parse().unwrap() }
            };
            let site =
                if station == stations.internet() { chance.below(network.sites.len()) } else { station };
            let near = match chance.below(20) {
                // Another site's, or nobody's: forged, where it is the source.
                0 => in_site(chance.below(network.sites.len()), chance),
                1 => beyond(chance),
                _ => in_site(site, chance),
            };
            let far = match chance.below(10) {
                0 if station != stations.internet() => in_site(chance.below(network.sites.len()), chance),
                // Forged: of another site than it is for.
                0 if network.sites.len() > 1 => in_site(1 - site, chance),
                _ => beyond(chance),
            };
            let icmp = if v6 { Protocol::ICMPV6 } else { Protocol::ICMP };
            let protocol = *chance.of(&[
                Protocol::TCP,
                Protocol::TCP,
                Protocol::TCP,
                Protocol::UDP,
                Protocol::UDP,
                icmp,
                Protocol::SCTP,
                Protocol(89),
            ]);
            let ports = match protocol.has_ports() {
                true => (1024 + chance.below(60_000) as u16, *chance.of(&[80, 443, 8000, 8080, 53, 22, 1])),
                false => (0, 0),
            };
            let dscp = if chance.percent(30) { "ef".parse().unwrap() } else { Dscp::default() };
            let (source_port, destination_port) = ports;
            let packet =
                Packet { source: near, destination: far, protocol, source_port, destination_port, dscp };
            let packet = if station == stations.internet() { packet.reply() } else { packet };
            let flow = |packet: Packet| {
                (packet.source, packet.source_port, packet.destination, packet.destination_port, protocol.0)
            };
            let (there, back) = (flow(packet), flow(packet.reply()));
            let of_one_site = station == stations.internet() && network.have_same_site(near, far);
            if near != far && !of_one_site && self.flows.insert(there.min(back)) {
                return (packet, station);
            }
        }
    }
}

/// The verifier takes every element for one that routes what it is told nothing of. The steering driver refuses a switch that
/// does, so packets end there.
fn as_far_as_switch(mut walk: Walk) -> Walk {
    let routed = |visit: &Visit| {
        visit.node.as_str() == SWITCH
            && matches!(visit.decisions[..], [Decision::Base { .. } | Decision::Routed { .. }, ..])
    };
    if let Some(at) = walk.visits.iter().position(routed) {
        walk.visits.truncate(at + 1);
        walk.end =
            End::Dropped { node: walk.visits[at].node.clone(), why: "a switch does not route".to_owned() };
    }
    walk
}

/// The ports where a packet came in.
fn places(walk: &Walk) -> Vec<(NodeName, Option<PortName>)> {
    walk.visits.iter().map(|visit| (visit.node.clone(), visit.in_port.clone())).collect()
}

/// Whether it is not the packet that decides at the switch but what was there before it. Where a chain looks at the DSCP, what
/// comes back belongs to the flow that it answers, whatever its own DSCP; and the verifier, which knows no flows, speaks of
/// the DSCP of that flow. What the switch has not been asked for it takes for claimed. So packets without the DSCP are left
/// out that come in on the gateway's side, unless what they answer came in on the other.
fn is_told_by_history(walk: &Walk, asked: &[(NodeName, Option<PortName>)]) -> bool {
    let on_side = |places: &[(NodeName, Option<PortName>)], is_gateway: bool| {
        places.iter().any(|(node, port)| {
            let by_gateway = port.as_ref().is_some_and(|port| port.as_str() == GATEWAY);
            node.as_str() == SWITCH && by_gateway == is_gateway
        })
    };
    walk.packet.dscp == Dscp::default() && on_side(&places(walk), true) && !on_side(asked, false)
}

/// Where a packet was seen.
#[derive(Default)]
struct Seen {
    /// In the order of time.
    ports: Vec<Arrival>,
    /// At taps.
    copies: Vec<Arrival>,
}

/// Where each packet came in, by its number.
fn observe(all: &[Sending], world: &World, watch: &mut Watch) -> BTreeMap<u32, Seen> {
    let packets: HashMap<u32, Packet> =
        all.iter().map(|sending| (sending.probe.number, sending.probe.packet)).collect();
    let is_ours =
        |arrival: &probe::Arrival| packets.get(&arrival.probe.number) == Some(&arrival.probe.packet);
    let at_node = |arrival: &probe::Arrival| is_compared(world, &arrival.node, &arrival.port);
    let expected: usize =
        all.iter().map(|sending| sending.expected.ports.len() + sending.expected.copies.len()).sum();
    let relevant = |arrival: &&probe::Arrival| is_ours(arrival) && at_node(arrival);
    let mut seen =
        watch.arrivals(QUIET, |so_far| so_far.iter().filter(relevant).count() >= expected).unwrap();
    seen.extend(watch.arrivals(SETTLED, |_| false).unwrap());
    let taps = taps(world);
    let mut by_number: BTreeMap<u32, [Vec<probe::Arrival>; 2]> = BTreeMap::new();
    for arrival in seen.into_iter().filter(|arrival| is_ours(arrival) && at_node(arrival)) {
        let [ports, copies] = by_number.entry(arrival.probe.number).or_default();
        let is_copy = taps.contains(&arrival.node);
        if is_copy { copies } else { ports }.push(arrival);
    }
    let place = |arrival: probe::Arrival| Arrival { node: arrival.node, port: arrival.port };
    let places = |arrivals: Vec<probe::Arrival>| arrivals.into_iter().map(place).collect();
    let seen = by_number.into_iter().map(|(number, [mut ports, copies])| {
        in_order(&mut ports, world);
        (number, Seen { ports: places(ports), copies: places(copies) })
    });
    seen.collect()
}

fn taps(world: &World) -> BTreeSet<NodeName> {
    let taps = world.model.functions.values().filter(|function| !function.insertion.returns());
    let instances = taps.flat_map(|function| &function.instances);
    instances
        .filter_map(|instance| Some(world.topology.cable_at(&instance.inside)?.far.node.clone()))
        .collect()
}

/// Ports of the inventory, and the ends of tunnels.
fn is_compared(world: &World, node: &NodeName, port: &PortName) -> bool {
    world.topology.cable(node, port).is_some()
        || *port == PortName::tunnel() && world.model.elements.contains_key(node)
}

/// By time. What goes straight into a cable's other end (`bpf_redirect_peer`) keeps the time at which it came in before:
/// of arrivals at one moment that comes first whose cable leads to where the packet was.
fn in_order(arrivals: &mut [probe::Arrival], world: &World) {
    arrivals.sort_by_key(|arrival| arrival.at);
    for at in 1..arrivals.len() {
        let (before, rest) = arrivals.split_at_mut(at);
        let Some(last) = before.last() else { continue };
        let next_to_last = |arrival: &probe::Arrival| {
            world
                .topology
                .cable(&arrival.node, &arrival.port)
                .is_some_and(|cable| cable.far.node == last.node)
        };
        let now = rest[0].at;
        let adjacent = rest.iter().take_while(|arrival| arrival.at == now).position(next_to_last);
        rest.swap(0, adjacent.unwrap_or(0));
    }
}

/// What is wrong with where a packet was seen; `None` if nothing is.
fn disagreement(sending: &Sending, seen: Seen) -> Option<String> {
    let Sending { probe, walk, expected, .. } = sending;
    let Seen { ports, mut copies } = seen;
    let mut expected_copies = expected.copies.clone();
    copies.sort();
    expected_copies.sort();
    let same = match expected.goes_on {
        true => ports.starts_with(&expected.ports),
        false => ports == expected.ports && copies == expected_copies,
    };
    (!same).then(|| {
        let line = |ports: &[Arrival]| {
            let ports: Vec<String> =
                ports.iter().map(|Arrival { node, port }| format!("{node}({port})")).collect();
            ports.join(" → ")
        };
        let Packet { source, destination, protocol, source_port, destination_port, dscp } = probe.packet;
        let mut text = format!(
            "{}: {protocol} {source} port {source_port} → {destination} port {destination_port}, {dscp}\n",
            probe.number
        );
        for visit in &walk.visits {
            let port = visit.in_port.as_ref().map(ToString::to_string).unwrap_or_default();
            let decisions: Vec<String> = visit.decisions.iter().map(ToString::to_string).collect();
            text += &format!("    {} by {port}: {}\n", visit.node, decisions.join("; "));
        }
        text += &format!("    {}\n", walk.end);
        text += &format!("  predicted {} copies {}\n", line(&expected.ports), line(&expected_copies));
        text + &format!("  seen      {} copies {}\n", line(&ports), line(&copies))
    })
}

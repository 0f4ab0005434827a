//! Random packets, and whether they go where they should. One in five has options, which a router has to think about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_model::address::{Dscp, Protocol};
use catena_model::base::{NewAddress, Translation, TranslationHook};
use catena_model::forwarding::{Direction, ForwardingState, Key};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_replay::{Sender, Shot, agree};
use catena_verify::{
    Arrival, Arrivals, Decision, End, Entry, Kind, Network as Verified, Probe, Visit, Walk, walk_from,
};

use crate::chance::Chance;
use crate::network::{GATEWAY, INTERNET, Network, SWITCH};
use crate::world::World;

/// Where the packets of the hosts come in at which packets begin: the users', then the Internet's.
pub struct Entries(Vec<Entry>);

impl Entries {
    pub fn new(world: &World, network: &Network) -> Self {
        let hosts = network.sites.iter().map(|site| site.user.as_str()).chain([INTERNET]);
        let entry = |host: &str| {
            let far = &world.topology.cables(&host.parse().unwrap()).next().unwrap().far;
            Entry { node: far.node.clone(), port: far.port.clone(), tunnel: None }
        };
        Self(hosts.map(entry).collect())
    }

    fn internet(&self) -> usize {
        self.0.len() - 1
    }
}

/// What has been sent in a network.
#[derive(Default)]
pub struct Traffic {
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
    walk: Walk,
    shot: Shot,
    /// The source that it has for the Internet, if that is another one.
    hidden: Option<IpAddr>,
}

impl Traffic {
    pub fn send(
        &mut self,
        count: usize,
        world: &World,
        network: &Network,
        entries: &Entries,
        sender: &mut Sender,
        chance: &mut Chance,
    ) -> Sent {
        // Answers are sent when what they answer has been where it goes.
        let (mut requests, mut replies): (Vec<Sending>, Vec<Sending>) = (Vec::new(), Vec::new());
        while requests.len() + replies.len() < count {
            let (packet, station) = self.packet(network, entries, chance);
            let kind = if self.flows.len().is_multiple_of(5) { Kind::Options } else { Kind::Whole };
            let request = Self::sending(Probe { packet, kind }, &entries.0[station], world);
            if network.looks_at_dscp() && is_told_by_history(&request.walk, &[])
                || network.is_of_a_site(packet.destination) && is_steered_up(&request.walk)
                // Two that have no ports cannot share an address.
                || request.hidden.is_some() && packet.protocol == Protocol(89)
            {
                continue;
            }
            // An element that a packet is for answers itself.
            let answered = match &request.walk.end {
                End::Delivered { node } => world.model.hosts.contains_key(node),
                End::Internet { .. } => true,
                _ => false,
            };
            let from_site = station != entries.internet();
            let asked = places(&request.walk);
            let hidden = request.hidden;
            // Of echo requests, and of what it does not understand, connection tracking knows no answer that we could send. What
            // becomes of answers to another site's address is undecided.
            let can_answer = |hidden: IpAddr| {
                [Protocol::TCP, Protocol::UDP].contains(&packet.protocol) && !network.is_of_a_site(hidden)
            };
            let answered = answered && hidden.is_none_or(can_answer);
            requests.push(request);
            let is_room = requests.len() + replies.len() < count;
            if answered && from_site && is_room && chance.percent(70) {
                let reply = Probe { packet: packet.reply(), kind };
                let entry = &entries.0[entries.internet()];
                let reply = match hidden {
                    Some(hidden) => Self::sending_to(hidden, reply, entry, world),
                    None => Self::sending(reply, entry, world),
                };
                if !(network.looks_at_dscp() && is_told_by_history(&reply.walk, &asked)) {
                    replies.push(reply);
                }
            }
        }
        let mut sent = Sent { packets: requests.len() + replies.len(), ..Sent::default() };
        for all in [&requests, &replies] {
            let shots: Vec<Shot> = all.iter().map(|sending| sending.shot.clone()).collect();
            let seen = sender.send(world, &shots).unwrap();
            for (sending, seen) in all.iter().zip(seen) {
                sent.undecided += usize::from(matches!(sending.walk.end, End::Undecided { .. }));
                sent.disagreements.extend(disagreement(sending, &seen.unwrap()));
            }
        }
        sent
    }

    fn sending(probe: Probe, entry: &Entry, world: &World) -> Sending {
        Self::predicted(probe, entry, world, &world.installed)
    }

    /// An answer to whom an element has put in the place of whom it is for. The programs at the element's ports, which see it before
    /// it is given its destination back, release nothing.
    fn sending_to(hidden: IpAddr, probe: Probe, entry: &Entry, world: &World) -> Sending {
        let mut installed = world.installed.clone();
        if let Some(element) = installed.elements.get_mut(&entry.node) {
            element.remove(&Key::Ingress(entry.port.clone()));
        }
        let mut sending = Self::predicted(probe, entry, world, &installed);
        sending.shot.packet.destination = hidden;
        sending.shot.translated = true;
        sending
    }

    fn predicted(probe: Probe, entry: &Entry, world: &World, installed: &ForwardingState) -> Sending {
        let verified = Verified {
            model: &world.model,
            topology: &world.topology,
            state: installed,
            base: &world.base,
            numbering: &world.numbering,
        };
        let walk = as_far_as_switch(walk_from(&verified, entry, probe));
        let expected = walk.arrivals(&world.model, &world.topology);
        let Probe { packet, kind } = probe;
        let options = kind == Kind::Options;
        let hidden = hidden(&walk, world);
        let translated = hidden.is_some();
        Sending { walk, shot: Shot { entry: entry.clone(), packet, options, translated, expected }, hidden }
    }

    /// Of a flow that there has not been yet, and from where it comes.
    fn packet(&mut self, network: &Network, entries: &Entries, chance: &mut Chance) -> (Packet, usize) {
        loop {
            let station =
                if chance.percent(75) { chance.below(entries.internet()) } else { entries.internet() };
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
                if station == entries.internet() { chance.below(network.sites.len()) } else { station };
            let near = match chance.below(20) {
                // Another site's, or nobody's: forged, where it is the source.
                0 => in_site(chance.below(network.sites.len()), chance),
                1 => beyond(chance),
                _ => in_site(site, chance),
            };
            let far = match chance.below(10) {
                // Some site's: forged, where it is the source.
                0 => in_site(chance.below(network.sites.len()), chance),
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
            let packet = if station == entries.internet() { packet.reply() } else { packet };
            let flow = |packet: Packet| {
                (packet.source, packet.source_port, packet.destination, packet.destination_port, protocol.0)
            };
            let (there, back) = (flow(packet), flow(packet.reply()));
            if near != far && self.flows.insert(there.min(back)) {
                return (packet, station);
            }
        }
    }
}

/// The source that a packet is given on its way.
fn hidden(walk: &Walk, world: &World) -> Option<IpAddr> {
    let Packet { source, destination, .. } = walk.packet;
    walk.visits.iter().find_map(|Visit { node, decisions, .. }| {
        let (Decision::Routed { port, .. } | Decision::Base { port, .. }) = decisions.last()? else {
            return None;
        };
        let mut translations = world.base.get(node)?.translations.iter();
        let leaving = |known: &&Translation| {
            known.hook == TranslationHook::Leaving && known.may_be_for(Some(port), source, destination)
        };
        match translations.find(leaving)?.into {
            NewAddress::Within(prefix) => Some(prefix.address()),
            NewAddress::Own => {
                let own = &world.topology.cable(node, port)?.near.addresses;
                own.iter().map(|own| own.addr()).find(|own| own.is_ipv4() == source.is_ipv4())
            }
            NewAddress::Any => None,
        }
    })
}

fn is_steered_up(walk: &Walk) -> bool {
    let mut decisions = walk.visits.iter().flat_map(|visit| &visit.decisions);
    decisions.any(|decision| matches!(decision, Decision::Steered { direction: Direction::Up, .. }))
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

/// What is wrong with where a packet was seen; `None` if nothing is.
fn disagreement(sending: &Sending, seen: &Arrivals) -> Option<String> {
    let Sending { walk, shot: Shot { packet, expected, .. }, .. } = sending;
    (!agree(expected, seen)).then(|| {
        let line = |ports: &[Arrival]| {
            let ports: Vec<String> =
                ports.iter().map(|Arrival { node, port }| format!("{node}({port})")).collect();
            ports.join(" → ")
        };
        let Packet { source, destination, protocol, source_port, destination_port, dscp } = packet;
        let mut text = format!(
            "{} {protocol} {source} port {source_port} → {destination} port {destination_port}, {dscp}\n",
            walk.kind
        );
        for visit in &walk.visits {
            let port = visit.in_port.as_ref().map(ToString::to_string).unwrap_or_default();
            let decisions: Vec<String> = visit.decisions.iter().map(ToString::to_string).collect();
            text += &format!("    {} by {port}: {}\n", visit.node, decisions.join("; "));
        }
        text += &format!("    {}\n", walk.end);
        text += &format!("  predicted {} copies {}\n", line(&expected.ports), line(&expected.copies));
        text + &format!("  seen      {} copies {}\n", line(&seen.ports), line(&seen.copies))
    })
}

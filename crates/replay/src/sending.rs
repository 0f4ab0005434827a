//! Real packets, and by which ports they come in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use catena_lab::probe::{self, Envelope, Probe, Station, Watch};
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_model::resource::{Attachment, Gre, Host, PortRef};
use catena_model::topology::Cable;
use catena_verify::{Arrival, Arrivals, Entry};

use crate::owner::command;
use crate::{ReplayError, Replica};

/// After this long without another arrival, none will come. Neighbours that nobody has asked for yet take a while.
const QUIET: Duration = Duration::from_millis(600);
/// What comes too much comes within this time.
const SETTLED: Duration = Duration::from_millis(15);

/// Hosts say nothing themselves: their kernels would reset the connections that probes pretend to open.
const SILENCE: &str = "\
add table inet silence
add chain inet silence in { type filter hook input priority 0; }
add rule inet silence in meta l4proto { tcp, udp, sctp, 89 } drop
add rule inet silence in icmp type echo-request drop
add rule inet silence in icmpv6 type echo-request drop
";

/// A packet to be sent, and what is predicted of it.
#[derive(Clone, Debug)]
pub struct Shot {
    pub entry: Entry,
    pub packet: Packet,
    /// With IP options.
    pub options: bool,
    /// Its addresses and ports may be exchanged on the way: it is told by its number alone.
    pub translated: bool,
    pub expected: Arrivals,
}

/// Sends packets in a [`Replica`].
pub struct Sender {
    watch: Watch,
    /// Made when they are used first; `None` where nobody is at the other end who could send.
    stations: BTreeMap<Entry, Option<Station>>,
    sent: u32,
}

impl Sender {
    /// Begins to watch all ports of all nodes.
    pub fn new<W>(replica: &Replica<W>) -> Result<Self, ReplayError> {
        for Host { name, .. } in replica.model.hosts.values().filter(|host| !host.forwarding) {
            command(name, &replica.namespaces[name], "nft", &["-f", "-"], SILENCE)?;
        }
        let watch = Watch::start(&replica.namespaces).map_err(ReplayError::Packets)?;
        Ok(Self { watch, stations: BTreeMap::new(), sent: 0 })
    }

    /// Sends packets, one right after the other, and tells where each was seen; `None` of one that nobody can send, because
    /// no link of the inventory is where it enters.
    pub fn send<W>(
        &mut self,
        replica: &Replica<W>,
        shots: &[Shot],
    ) -> Result<Vec<Option<Arrivals>>, ReplayError> {
        let first = self.sent + 1;
        let mut probes = HashMap::new();
        let mut numbers = Vec::new();
        for shot in shots {
            self.sent += 1;
            let probe = Probe { number: self.sent, packet: shot.packet, options: shot.options };
            let station = match self.stations.entry(shot.entry.clone()) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => new.insert(station(replica, &shot.entry)?),
            };
            let Some(station) = station else { continue };
            station.send(&probe).map_err(ReplayError::Packets)?;
            probes.insert(probe.number, shot);
            numbers.push(probe.number);
        }
        let mut seen = self.observe(replica, &probes)?;
        let all = (first..=self.sent)
            .map(|number| probes.contains_key(&number).then(|| seen.remove(&number).unwrap_or_default()));
        Ok(all.collect())
    }

    /// Where each packet came in, by its number.
    fn observe<W>(
        &mut self,
        replica: &Replica<W>,
        shots: &HashMap<u32, &Shot>,
    ) -> Result<BTreeMap<u32, Arrivals>, ReplayError> {
        let is_ours = |arrival: &probe::Arrival| {
            shots.get(&arrival.probe.number).is_some_and(|shot| {
                (shot.translated || shot.packet == arrival.probe.packet)
                    && shot.options == arrival.probe.options
            })
        };
        let counts =
            |arrival: &probe::Arrival| is_ours(arrival) && is_compared(replica, &arrival.node, &arrival.port);
        let expected: usize =
            shots.values().map(|shot| shot.expected.ports.len() + shot.expected.copies.len()).sum();
        let enough =
            |so_far: &[probe::Arrival]| so_far.iter().filter(|arrival| counts(arrival)).count() >= expected;
        let mut seen = self.watch.arrivals(QUIET, enough).map_err(ReplayError::Packets)?;
        seen.extend(self.watch.arrivals(SETTLED, |_| false).map_err(ReplayError::Packets)?);
        let taps = taps(replica);
        let mut by_number: BTreeMap<u32, [Vec<probe::Arrival>; 2]> = BTreeMap::new();
        for arrival in seen.into_iter().filter(counts) {
            let [ports, copies] = by_number.entry(arrival.probe.number).or_default();
            let is_copy = taps.contains(&arrival.node);
            if is_copy { copies } else { ports }.push(arrival);
        }
        let place = |arrival: probe::Arrival| Arrival { node: arrival.node, port: arrival.port };
        let places = |arrivals: Vec<probe::Arrival>| arrivals.into_iter().map(place).collect();
        let seen = by_number.into_iter().map(|(number, [mut ports, copies])| {
            in_order(&mut ports, shots.get(&number).map(|shot| &shot.entry), replica);
            (number, Arrivals { ports: places(ports), copies: places(copies), goes_on: false })
        });
        Ok(seen.collect())
    }
}

/// Whether a packet was seen where it was to be.
pub fn agree(expected: &Arrivals, seen: &Arrivals) -> bool {
    let sorted = |copies: &[Arrival]| {
        let mut copies = copies.to_vec();
        copies.sort();
        copies
    };
    match expected.goes_on {
        true => seen.ports.starts_with(&expected.ports),
        false => seen.ports == expected.ports && sorted(&seen.copies) == sorted(&expected.copies),
    }
}

/// The other end of the cable where packets come in: of the tunnel's underlay where it is out of a tunnel.
fn station<W>(replica: &Replica<W>, entry: &Entry) -> Result<Option<Station>, ReplayError> {
    let tunnel = match &entry.tunnel {
        None => None,
        Some(site) => {
            let site = replica.model.sites.get(site);
            let Some(Attachment::Gre(gre)) = site.map(|site| &site.attachment) else { return Ok(None) };
            Some(gre)
        }
    };
    let cable = match tunnel {
        None => replica.topology.cable(&entry.node, &entry.port),
        Some(gre) => {
            let is_underlay =
                |cable: &&Cable| cable.near.addresses.iter().any(|near| near.addr() == gre.cloud.address);
            replica.topology.cables(&entry.node).find(is_underlay)
        }
    };
    let Some(Cable { near, far, .. }) = cable else { return Ok(None) };
    let end = |node: &NodeName| &replica.namespaces[node];
    let station = Station::new((end(&far.node), &far.port), (end(&near.node), &near.port));
    let station = station.map_err(ReplayError::Packets)?;
    Ok(Some(match tunnel {
        None => station,
        Some(Gre { customer, cloud, key, .. }) => {
            let (source, destination) = (customer.address, cloud.address);
            station.in_envelope(Envelope { source, destination, key: *key })
        }
    }))
}

fn taps<W>(replica: &Replica<W>) -> BTreeSet<NodeName> {
    let taps = replica.model.functions.values().filter(|function| !function.insertion.returns());
    let far_end = |port: &PortRef| Some(replica.topology.cable_at(port)?.far.node.clone());
    taps.flat_map(|function| &function.instances).filter_map(|instance| far_end(&instance.inside)).collect()
}

/// Ports of the inventory, and the ends of tunnels.
fn is_compared<W>(replica: &Replica<W>, node: &NodeName, port: &PortName) -> bool {
    replica.topology.cable(node, port).is_some()
        || *port == PortName::tunnel() && replica.model.elements.contains_key(node)
}

/// By time. What goes straight into a cable's other end (`bpf_redirect_peer`) keeps the time at which it came in before: of
/// arrivals at one moment the entry comes first, else the one whose cable leads to where the packet was, else one out of a
/// tunnel.
fn in_order<W>(arrivals: &mut [probe::Arrival], entry: Option<&Entry>, replica: &Replica<W>) {
    arrivals.sort_by_key(|arrival| arrival.at);
    let is_entry = |arrival: &probe::Arrival| {
        entry.is_some_and(|entry| (&entry.node, &entry.port) == (&arrival.node, &arrival.port))
    };
    for at in 0..arrivals.len() {
        let (before, rest) = arrivals.split_at_mut(at);
        let is_next = |arrival: &probe::Arrival| match before.last() {
            None => is_entry(arrival),
            Some(last) => {
                let cable = replica.topology.cable(&arrival.node, &arrival.port);
                cable.is_some_and(|cable| cable.far.node == last.node)
            }
        };
        let at_once =
            rest.iter().take_while(|arrival| Some(arrival.at) == rest.first().map(|first| first.at));
        let next = at_once.clone().position(is_next);
        let out_of_tunnel = || at_once.clone().position(|arrival| arrival.port == PortName::tunnel());
        if let Some(next) = next.or_else(out_of_tunnel) {
            rest.swap(0, next);
        }
    }
}

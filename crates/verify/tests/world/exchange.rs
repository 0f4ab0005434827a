//! What an owner's packet filter makes of single packets, plainly, as netfilter does it: the first packet of a connection is given an
//! address, all others of it as well, and replies are given the old one back. The verifier's own walks do not walk on from there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use catena_model::base::{BaseRouting, Translation, TranslationHook};
use catena_model::forwarding::Object;
use catena_model::name::{NodeName, PortName};
use catena_model::packet::Packet;
use catena_model::resource::{DriverSpec, Engine};
use catena_verify::{Decision, Entry, Kind, Probe, Visit, Walk};

use super::World;

/// A rule of an owner's, and what it really does.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub element: NodeName,
    pub translation: Translation,
    /// `None`: the port's own.
    pub address: Option<IpAddr>,
    /// The owners' routing, as if the rule were not there.
    pub base: BTreeMap<NodeName, BaseRouting>,
}

/// A packet that went through a network, and how it went on from where it was given another address.
pub struct Exchanged {
    pub walk: Walk,
    pub sent: Packet,
}

/// Where on a way a packet is given another address.
struct Met {
    visit: usize,
    goes_on: Option<Entry>,
    sent: Packet,
}

impl World {
    /// The first packet of a connection; `None` where it is not plain what becomes of it.
    pub fn walk_exchanged(&self, entry: &Entry, probe: Probe) -> Option<Exchanged> {
        let mut walk = self.walk(entry, probe);
        let Some(exchange) = &self.exchange else { return Some(Exchanged { walk, sent: probe.packet }) };
        let Some(Met { visit, goes_on, sent }) = self.met(exchange, &walk, probe, 0)? else {
            return Some(Exchanged { walk, sent: probe.packet });
        };
        if let Some(goes_on) = goes_on {
            let probe = Probe { packet: sent, ..probe };
            let rest = self.walk(&goes_on, probe);
            // Where the rule is for it once more, it depends on what connection tracking makes of that.
            if self.met(exchange, &rest, probe, 1)?.is_some() {
                return None;
            }
            walk = joined(walk, visit, rest);
        }
        Some(Exchanged { walk, sent })
    }

    /// The way of the answer to a packet that was sent on so.
    pub fn walk_answer(&self, entry: &Entry, asked: &Exchanged, answer: Probe) -> Option<Walk> {
        let Some(exchange) = &self.exchange else { return Some(self.walk(entry, answer)) };
        let was_there = asked.walk.visits.iter().any(|visit| visit.node == exchange.element);
        if asked.sent.reply() == answer.packet {
            return match was_there {
                true => Some(self.walk(entry, answer)),
                false => Some(self.walk_exchanged(entry, answer)?.walk),
            };
        }
        if exchange.translation.hook == TranslationHook::Arriving || self.has_program(exchange) {
            return None;
        }
        let walk = self.walk(entry, Probe { packet: asked.sent.reply(), ..answer });
        // How it gets back to where it is given its old address is no business of ours.
        let back = walk.visits.iter().position(|visit| visit.node == exchange.element);
        let (visit, port) = match back {
            Some(visit) => (visit, walk.visits[visit].in_port.clone()?),
            None => (0, exchange.translation.port.clone()?),
        };
        let here = self.before_routing(&exchange.element, &port)?;
        Some(joined(walk, visit, self.walk(&here, answer)))
    }

    fn met(&self, exchange: &Exchange, walk: &Walk, probe: Probe, from: usize) -> Option<Option<Met>> {
        let there = |(nth, visit): &(usize, &Visit)| *nth >= from && visit.node == exchange.element;
        for (nth, visit) in walk.visits.iter().enumerate().filter(there) {
            let port = match exchange.translation.hook {
                TranslationHook::Arriving => visit.in_port.as_ref(),
                TranslationHook::Leaving => left_by(visit),
            };
            let Packet { destination, .. } = probe.packet;
            let Some(port) = port.filter(|_| self.comes_to_netfilter(exchange, visit, probe.kind)) else {
                continue;
            };
            if !exchange.translation.may_be_for(Some(port), probe.sender(), destination) {
                continue;
            }
            // Connection tracking puts fragments together, and looks into errors.
            if !matches!(probe.kind, Kind::Whole | Kind::Options) {
                return None;
            }
            let address =
                exchange.address.or_else(|| self.own_address(&exchange.element, port, destination))?;
            let (goes_on, sent) = match exchange.translation.hook {
                TranslationHook::Arriving => {
                    let goes_on = self.before_routing(&exchange.element, port);
                    let goes_on = goes_on.filter(|_| !self.has_program(exchange))?;
                    (Some(goes_on), Packet { destination: address, ..probe.packet })
                }
                TranslationHook::Leaving => {
                    let next = walk.visits.get(nth + 1).and_then(|next| Some((next, next.in_port.clone()?)));
                    let goes_on =
                        next.map(|(next, port)| Entry { node: next.node.clone(), port, tunnel: None });
                    (goes_on, Packet { source: address, ..probe.packet })
                }
            };
            let visit = if exchange.translation.hook == TranslationHook::Arriving { nth } else { nth + 1 };
            return Some(Some(Met { visit, goes_on, sent }));
        }
        Some(None)
    }

    /// What programs at ports send on has not been there.
    fn comes_to_netfilter(&self, exchange: &Exchange, visit: &Visit, kind: Kind) -> bool {
        let past = |decision: &Decision| match decision {
            Decision::Steered { .. } | Decision::Transit { .. } => true,
            Decision::Routed { .. } => self.has_program(exchange) && kind != Kind::Options,
            _ => false,
        };
        !visit.decisions.iter().any(past)
    }

    /// Whether the element's rules are asked before its packet filter.
    fn has_program(&self, exchange: &Exchange) -> bool {
        match &self.model.elements[&exchange.element].driver {
            DriverSpec::Linux(spec) => spec.engine == Engine::Steer,
            _ => false,
        }
    }

    /// The place as one where packets come in with other addresses; `None` where a program has seen the old ones.
    fn before_routing(&self, node: &NodeName, port: &PortName) -> Option<Entry> {
        let is_its = |object: &Object| matches!(object, Object::Ingress(ingress) if ingress.port == *port);
        let is_seen = *port == PortName::tunnel() || self.state.element(node).iter().any(is_its);
        (!is_seen).then(|| Entry { node: node.clone(), port: port.clone(), tunnel: None })
    }

    fn own_address(&self, element: &NodeName, port: &PortName, to: IpAddr) -> Option<IpAddr> {
        let mut own = self.topology.cable(element, port)?.near.addresses.iter().map(|address| address.addr());
        own.find(|address| address.is_ipv4() == to.is_ipv4())
    }
}

fn left_by(visit: &Visit) -> Option<&PortName> {
    match visit.decisions.last()? {
        Decision::Routed { port, .. } | Decision::Base { port, .. } => Some(port),
        _ => None,
    }
}

fn joined(mut walk: Walk, until: usize, rest: Walk) -> Walk {
    walk.visits.truncate(until);
    walk.visits.extend(rest.visits);
    Walk { end: rest.end, ..walk }
}

//! Sets of packets. A [`Class`] is a box: all packets whose every field is in a set of its own. Boxes are closed under
//! intersection, and what one has that another has not is a few disjoint boxes: so splitting where rules tell packets
//! apart is exact.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use catena_model::address::{Dscp, Family, Prefix, Protocol};
use catena_model::forwarding::{Direction, FlowMatch};
use catena_model::packet::Packet;
use serde::{Deserialize, Serialize};

use crate::kind::{Kind, Probe};

/// All values from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span<T> {
    pub first: T,
    pub last: T,
}

impl<T: Copy + Ord> Span<T> {
    pub fn contains(&self, value: T) -> bool {
        self.first <= value && value <= self.last
    }

    pub fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    pub fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }

    /// The least span that both are in.
    pub fn hull(&self, other: &Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

impl Span<u16> {
    pub const ALL: Self = Self { first: 0, last: u16::MAX };
}

impl Span<u128> {
    /// The addresses of a family, as numbers.
    pub fn all(family: Family) -> Self {
        Self::of(Prefix::all(family))
    }

    pub fn of(prefix: Prefix) -> Self {
        let first = number(prefix.address());
        let host_bits = prefix.family().bits() - prefix.length();
        let last = first | 1_u128.checked_shl(host_bits.into()).map_or(u128::MAX, |size| size - 1);
        Self { first, last }
    }

    pub fn host(address: IpAddr) -> Self {
        let first = number(address);
        Self { first, last: first }
    }
}

/// Of each field in turn: adds what `$rest` has below and above `$part` there as boxes of their own, and keeps the part.
macro_rules! split_off {
    ($rest:ident, $part:ident, $pieces:ident, $($field:ident),+) => {$(
        let (whole, part) = ($rest.$field, $part.$field);
        if whole.first < part.first {
            let below = Span { first: whole.first, last: part.first - 1 };
            $pieces.push(Self { $field: below, ..$rest });
        }
        if part.last < whole.last {
            let above = Span { first: part.last + 1, last: whole.last };
            $pieces.push(Self { $field: above, ..$rest });
        }
        $rest.$field = part;
    )+};
}

pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub fn address(family: Family, number: u128) -> IpAddr {
    match family {
        // An IPv4 address is no larger.
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// A set of protocols, one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Protocols([u128; 2]);

impl Protocols {
    pub const ALL: Self = Self([u128::MAX; 2]);
    const NONE: Self = Self([0; 2]);

    pub fn only(protocol: Protocol) -> Self {
        let mut set = Self::NONE;
        set.0[usize::from(protocol.0 / 128)] = 1 << (protocol.0 % 128);
        set
    }

    /// Those whose packets begin with ports.
    pub fn with_ports() -> Self {
        let all = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].map(Self::only);
        all.into_iter().fold(Self::NONE, Self::union)
    }

    pub fn contains(self, protocol: Protocol) -> bool {
        self.0[usize::from(protocol.0 / 128)] >> (protocol.0 % 128) & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        let [low, high] = self.0;
        low | high == 0
    }

    pub fn first(self) -> Option<Protocol> {
        (0..=u8::MAX).map(Protocol).find(|protocol| self.contains(*protocol))
    }

    pub fn intersection(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    pub fn union(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    pub fn minus(self, other: Self) -> Self {
        Self([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }
}

/// A set of DSCPs, one bit for each.
pub type Dscps = u64;

/// A set of [kinds](Kind), one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Kinds(u8);

impl Kinds {
    pub const WHOLE: Self = Self(1);
    pub const FRAGMENTS: Self = Self(2);
    pub const HEADLESS: Self = Self(4);
    pub const ERRORS: Self = Self(8);
    pub const OPTIONS: Self = Self(16);
    /// What is of a flow, and not about it.
    pub const OF_FLOWS: Self = Self(1 | 2 | 4 | 16);
    /// Of which the ports are known.
    pub const WITH_PORTS: Self = Self(1 | 2 | 8 | 16);
    pub const ALL: Self = Self(1 | 2 | 4 | 8 | 16);

    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Whole => Self::WHOLE,
            Kind::Options => Self::OPTIONS,
            Kind::Fragment => Self::FRAGMENTS,
            Kind::Headless => Self::HEADLESS,
            Kind::Error { .. } => Self::ERRORS,
        }
    }

    fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The addresses that packets can be routed to: no multicast, none of a link alone, none of the own host (RFC 5771, RFC 4291
/// section 2.5). Also the translated ones of 64:ff9b::/96 (RFC 6052), and what IPv4 keeps for later (240/4).
fn routed_spans(family: Family) -> &'static [Span<u128>] {
    match family {
        Family::V4 => &[
            Span { first: 0x0100_0000, last: 0x7eff_ffff },
            Span { first: 0x8000_0000, last: 0xdfff_ffff },
            Span { first: 0xf000_0000, last: 0xffff_fffe },
        ],
        Family::V6 => &[
            Span { first: 2, last: (0xfe80 << 112) - 1 },
            Span { first: 0xfec0 << 112, last: (0xff00 << 112) - 1 },
        ],
    }
}

/// A box of packets. Ports are limited only where all protocols have them, and never of headless fragments. Of ICMP errors,
/// addresses, protocol and ports are those of the flow that they belong to; they alone have senders of their own.
/// Boxes are stored: see [`Broken`](crate::Broken).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Class {
    pub family: Family,
    pub kinds: Kinds,
    /// Of ICMP errors.
    pub senders: Span<u128>,
    pub source: Span<u128>,
    pub destination: Span<u128>,
    pub protocols: Protocols,
    pub source_ports: Span<u16>,
    pub destination_ports: Span<u16>,
    /// What the flow's first packet was marked with.
    pub dscps: Dscps,
}

impl Class {
    pub fn all(family: Family) -> Self {
        Self {
            family,
            kinds: Kinds::ALL,
            senders: Span::all(family),
            source: Span::all(family),
            destination: Span::all(family),
            protocols: Protocols::ALL,
            source_ports: Span::<u16>::ALL,
            destination_ports: Span::<u16>::ALL,
            dscps: Dscps::MAX,
        }
    }

    /// All packets that can be routed, by their destinations: see [`routed_spans`].
    pub fn routed(family: Family) -> Vec<Self> {
        routed_spans(family)
            .iter()
            .map(|destination| Self { destination: *destination, ..Self::all(family) })
            .collect()
    }

    /// Those of the packets whose end that is not the site's can be routed to.
    pub fn routed_part(&self, direction: Direction) -> impl Iterator<Item = Self> {
        let all = Self::all(self.family);
        let routed = routed_spans(self.family).iter().map(move |span| Self { destination: *span, ..all });
        let class = *self;
        routed.filter_map(move |routed| class.intersection(&routed.seen_from_site(direction)))
    }

    /// Whether there are such packets.
    pub fn has_routed_part(&self, direction: Direction) -> bool {
        let far_end = match direction {
            Direction::Up => self.destination,
            Direction::Down => self.source,
        };
        routed_spans(self.family).iter().any(|routed| routed.meets(&far_end))
    }

    /// All packets from the site's end `prefix` on the way up; all to it on the way down.
    pub fn of_end(prefix: Prefix, direction: Direction) -> Self {
        let mut class = Self::all(prefix.family());
        *class.site_end_mut(direction) = Span::of(prefix);
        class
    }

    /// What of a flow `matches` matches of a family for sure, as the site sends it, and errors that belong to it; `None` if
    /// that is nothing.
    pub fn of_flow(matches: &FlowMatch, family: Family) -> Option<Self> {
        let FlowMatch { protocol, ports, local, remote, dscp } = matches;
        let mut class = Self { kinds: Kinds::WITH_PORTS, ..Self::all(family) };
        for (prefix, span) in [(local, &mut class.source), (remote, &mut class.destination)] {
            match prefix {
                Some(prefix) if prefix.family() != family => return None,
                Some(prefix) => *span = Span::of(*prefix),
                None => {}
            }
        }
        if let Some(protocol) = protocol {
            class.protocols = Protocols::only(*protocol);
        }
        if let Some(ports) = ports {
            class.protocols = class.protocols.intersection(Protocols::with_ports());
            class.destination_ports = Span { first: ports.first(), last: ports.last() };
        }
        if let Some(dscp) = dscp {
            class.dscps = 1 << dscp.get();
        }
        (!class.protocols.is_empty()).then_some(class)
    }

    /// The fragments without ports that it could match. What their header names in IPv6 may be an extension header in the
    /// place of the protocol.
    fn of_headless(matches: &FlowMatch, family: Family) -> Option<Self> {
        let protocol = matches.protocol.filter(|_| family == Family::V4);
        let but_for_ports = FlowMatch { protocol, ports: None, dscp: None, ..matches.clone() };
        Some(Self { kinds: Kinds::HEADLESS, ..Self::of_flow(&but_for_ports, family)? })
    }

    /// The fragments that it would match with any ports, if it asks for some.
    fn of_fragments(matches: &FlowMatch, family: Family) -> Option<Self> {
        matches.ports?;
        let but_for_ports = FlowMatch { ports: None, dscp: None, ..matches.clone() };
        Some(Self { kinds: Kinds::FRAGMENTS, ..Self::of_flow(&but_for_ports, family)? })
    }

    /// Those of them that have other ports.
    fn of_other_fragments(matches: &FlowMatch, family: Family) -> Vec<Self> {
        let mut others = Vec::new();
        if let Some(all) = Self::of_fragments(matches, family) {
            let same_ports = FlowMatch { dscp: None, ..matches.clone() };
            all.split(&Self::of_flow(&same_ports, family).unwrap_or(all), &mut others);
        }
        others
    }

    /// What is asked for by matches of which the first one decides: the packets in turn, each with what its match says.
    /// Fragments without ports are by themselves ([`Kinds::HEADLESS`]): whether the match is for them nobody can say. Those
    /// with ports that none matches go by the first one that would match them with other ports.
    pub fn in_turn<'m, T: Copy + PartialEq>(
        matches: impl Iterator<Item = (&'m FlowMatch, T)> + Clone,
        family: Family,
    ) -> Vec<(Self, T)> {
        let mut asked = Vec::with_capacity(3 * matches.clone().count());
        // Where all say the same, it is all one which match fragments go by: so they do not fall apart by ports.
        let first = matches.clone().next().map(|(_, says)| says);
        let alike = matches.clone().all(|(flow, says)| Some(says) == first && flow.dscp.is_none());
        for (flow, says) in matches.clone() {
            let fragments = Self::of_fragments(flow, family).filter(|_| alike);
            let all = [Self::of_headless(flow, family), fragments, Self::of_flow(flow, family)];
            asked.extend(all.into_iter().flatten().map(|class| (class, says)));
        }
        for (flow, says) in matches.filter(|_| !alike) {
            asked.extend(Self::of_other_fragments(flow, family).into_iter().map(|class| (class, says)));
        }
        asked
    }

    /// One packet; of an error, whoever sends it.
    pub fn of_probe(probe: &Probe) -> Self {
        let Probe { packet, kind } = probe;
        let port = |port| Span { first: port, last: port };
        Self {
            family: packet.family(),
            kinds: Kinds::of(*kind),
            senders: Span::all(packet.family()),
            source: Span::host(packet.source),
            destination: Span::host(packet.destination),
            protocols: Protocols::only(packet.protocol),
            source_ports: port(packet.source_port),
            destination_ports: port(packet.destination_port),
            dscps: 1 << packet.dscp.get(),
        }
    }

    pub fn contains(&self, probe: &Probe) -> bool {
        let Probe { packet, kind } = probe;
        self.family == packet.family()
            && !self.kinds.intersection(Kinds::of(*kind)).is_empty()
            && (!matches!(kind, Kind::Error { .. }) || self.senders.contains(number(probe.sender())))
            && self.source.contains(number(packet.source))
            && self.destination.contains(number(packet.destination))
            && self.protocols.contains(packet.protocol)
            && self.source_ports.contains(packet.source_port)
            && self.destination_ports.contains(packet.destination_port)
            && self.dscps >> packet.dscp.get() & 1 == 1
    }

    pub fn intersection(&self, other: &Self) -> Option<Self> {
        // What tells most apart, and costs least, first.
        let kinds = self.kinds.intersection(other.kinds);
        let protocols = self.protocols.intersection(other.protocols);
        if kinds.is_empty() || protocols.is_empty() || self.family != other.family {
            return None;
        }
        let destination_ports = self.destination_ports.intersection(&other.destination_ports)?;
        let source_ports = self.source_ports.intersection(&other.source_ports)?;
        let class = Self {
            family: self.family,
            kinds,
            senders: self.senders.intersection(&other.senders)?,
            source: self.source.intersection(&other.source)?,
            destination: self.destination.intersection(&other.destination)?,
            protocols,
            source_ports,
            destination_ports,
            dscps: self.dscps & other.dscps,
        };
        (class.dscps != 0).then_some(class)
    }

    /// Whether all of `other` is in `self`.
    pub fn covers(&self, other: &Self) -> bool {
        self.family == other.family
            && other.kinds.minus(self.kinds).is_empty()
            && other.protocols.minus(self.protocols).is_empty()
            && self.destination_ports.covers(&other.destination_ports)
            && self.source_ports.covers(&other.source_ports)
            && other.dscps & !self.dscps == 0
            && self.senders.covers(&other.senders)
            && self.source.covers(&other.source)
            && self.destination.covers(&other.destination)
    }

    /// What is in both; adds what is in `self` alone, as disjoint boxes.
    pub fn split(&self, other: &Self, pieces: &mut Vec<Self>) -> Option<Self> {
        let common = self.intersection(other);
        match &common {
            Some(common) => self.minus_part(common, pieces),
            None => pieces.push(*self),
        }
        common
    }

    /// The same without what is a part of it: field by field, what differs in this one, and agrees in all before it.
    fn minus_part(&self, part: &Self, pieces: &mut Vec<Self>) {
        let mut rest = *self;
        split_off!(rest, part, pieces, source, destination, senders);
        // Before the ports, which only some kinds and protocols have.
        let protocols = rest.protocols.minus(part.protocols);
        if !protocols.is_empty() {
            pieces.push(Self { protocols, ..rest });
        }
        rest.protocols = part.protocols;
        let kinds = rest.kinds.minus(part.kinds);
        if !kinds.is_empty() {
            pieces.push(Self { kinds, ..rest });
        }
        rest.kinds = part.kinds;
        split_off!(rest, part, pieces, source_ports, destination_ports);
        let dscps = rest.dscps & !part.dscps;
        if dscps != 0 {
            pieces.push(Self { dscps, ..rest });
        }
    }

    /// Whether there are whole packets among these that are like most.
    pub fn has_plain(&self) -> bool {
        !self.kinds.intersection(Kinds::WHOLE).is_empty()
    }

    /// What of these is of flows, and not about them.
    pub fn without_errors(&self) -> Option<Self> {
        let kinds = self.kinds.minus(Kinds::ERRORS);
        (!kinds.is_empty()).then_some(Self { kinds, ..*self })
    }

    /// Packets of the flows that these are of, or belong to.
    pub fn of_same_flows(&self) -> Self {
        let kinds = match self.kinds == Kinds::ERRORS {
            true => Kinds::WHOLE,
            false => self.kinds.minus(Kinds::ERRORS),
        };
        Self { kinds, senders: Span::all(self.family), ..*self }
    }

    /// The packets that answer these.
    pub fn reply(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_ports: self.destination_ports,
            destination_ports: self.source_ports,
            ..*self
        }
    }

    /// These packets as the site would have sent them, and back again: the same either way.
    pub fn seen_from_site(&self, direction: Direction) -> Self {
        match direction {
            Direction::Up => *self,
            Direction::Down => self.reply(),
        }
    }

    /// What stands in the headers as the source.
    pub fn header_sources(&self) -> Span<u128> {
        match (self.kinds.minus(Kinds::ERRORS).is_empty(), self.kinds.minus(Kinds::OF_FLOWS).is_empty()) {
            (_, true) => self.source,
            (true, false) => self.senders,
            (false, false) => self.source.hull(&self.senders),
        }
    }

    /// The site's end, if the packets go in this direction.
    pub fn site_end(&self, direction: Direction) -> Span<u128> {
        match direction {
            Direction::Up => self.source,
            Direction::Down => self.destination,
        }
    }

    pub fn site_end_mut(&mut self, direction: Direction) -> &mut Span<u128> {
        match direction {
            Direction::Up => &mut self.source,
            Direction::Down => &mut self.destination,
        }
    }

    /// Whether there are packets of the class between one of these addresses and one of those.
    pub fn is_between(&self, these: &[IpAddr], those: &[IpAddr]) -> bool {
        let has = |span: Span<u128>, known: &[IpAddr]| {
            known.iter().any(|known| Family::of(*known) == self.family && span.contains(number(*known)))
        };
        let (from, to) = (self.source, self.destination);
        (has(from, these) && has(to, those)) || (has(from, those) && has(to, these))
    }

    /// Packets of the class, the most readable first: addresses that `known` has, else the tenth of their span; TCP, and
    /// ports that people know. Further ones are other flows, some at the edges of the class.
    pub fn examples(&self, known: &[IpAddr]) -> impl Iterator<Item = Probe> {
        let class = *self;
        let kind = self.readable_kind(known);
        let sources = readable_addresses(self.family, self.source, known);
        let destinations = readable_addresses(self.family, self.destination, known);
        let protocol = self.readable_protocol();
        let ports = protocol.has_ports();
        let (from, to) = (self.source_ports, self.destination_ports);
        let dscp = Dscp::new(self.dscps.trailing_zeros() as u8).unwrap_or_default();
        const FLOWS: u16 = 64;
        (0..FLOWS).flat_map(move |flow| {
            let destinations = destinations.clone();
            let packet = move |source, destination| Packet {
                source,
                destination,
                protocol,
                source_port: if ports { nth_port(from, &[40_000, 80, 443], flow) } else { 0 },
                destination_port: if ports { nth_port(to, &[80, 443, 22, 53, 25], flow / 8) } else { 0 },
                dscp,
            };
            let all = sources.clone().into_iter().flat_map(move |source| {
                destinations.clone().into_iter().map(move |destination| packet(source, destination))
            });
            all.map(move |packet| Probe { packet, kind }).filter(move |probe| class.contains(probe))
        })
    }

    /// Many flows of the class, each with other addresses and ports than the last where the class has them.
    pub fn flows(&self) -> impl Iterator<Item = Probe> {
        const FLOWS: u16 = 8192;
        let class = *self;
        let kind = self.readable_kind(&[]);
        let protocol = self.readable_protocol();
        let dscp = Dscp::new(self.dscps.trailing_zeros() as u8).unwrap_or_default();
        let port = move |span: Span<u16>, nth| match protocol.has_ports() {
            true => nth_port(span, &[], nth),
            false => 0,
        };
        let packet = move |nth: u16| Packet {
            source: address(class.family, nth_of(class.source, nth.into())),
            destination: address(class.family, nth_of(class.destination, nth.into())),
            protocol,
            source_port: port(class.source_ports, nth),
            destination_port: port(class.destination_ports, nth),
            dscp,
        };
        (0..FLOWS)
            .map(move |nth| Probe { packet: packet(nth), kind })
            .filter(move |probe| class.contains(probe))
    }

    fn readable_kind(&self, known: &[IpAddr]) -> Kind {
        let sender = readable_addresses(self.family, self.senders, known).first().copied();
        let error = sender.map(|sender| Kind::Error { sender });
        let mut kinds = [Kind::Whole, Kind::Options, Kind::Fragment, Kind::Headless].into_iter().chain(error);
        kinds.find(|kind| !self.kinds.intersection(Kinds::of(*kind)).is_empty()).unwrap_or_default()
    }

    fn readable_protocol(&self) -> Protocol {
        let icmp = match self.family {
            Family::V4 => Protocol::ICMP,
            Family::V6 => Protocol::ICMPV6,
        };
        let known =
            [Protocol::TCP, Protocol::UDP, icmp].into_iter().find(|known| self.protocols.contains(*known));
        known.or_else(|| self.protocols.first()).unwrap_or(Protocol::TCP)
    }
}

/// Does `then` with what the classes have of `asks`, and leaves the rest.
pub fn take(classes: &mut Vec<Class>, asks: &Class, mut then: impl FnMut(Class)) {
    let (count, mut left) = (classes.len(), 0);
    for nth in 0..count {
        match classes[nth].intersection(asks) {
            None => {
                if left < nth {
                    classes.swap(left, nth);
                }
                left += 1;
            }
            Some(common) => {
                then(common);
                let class = classes[nth];
                class.minus_part(&common, classes);
            }
        }
    }
    classes.drain(left..count);
}

/// What the classes have of `asks`; leaves the rest.
pub fn take_out(classes: &mut Vec<Class>, asks: &Class) -> Vec<Class> {
    if classes.iter().all(|class| asks.covers(class)) {
        return std::mem::take(classes);
    }
    let mut taken = Vec::new();
    take(classes, asks, |class| taken.push(class));
    taken
}

/// The packets that are in both: each disjoint, and so is what they have in common.
pub fn both(some: &[Class], others: &[Class]) -> Vec<Class> {
    let mut common = Vec::new();
    for one in some {
        common.extend(others.iter().filter_map(|other| one.intersection(other)));
    }
    common
}

fn readable_addresses(family: Family, span: Span<u128>, known: &[IpAddr]) -> Vec<IpAddr> {
    let known = known.iter().filter(|known| Family::of(**known) == family && span.contains(number(**known)));
    let tenth = span.first.saturating_add(10);
    let tenth = if span.contains(tenth) { tenth } else { span.first };
    let mut addresses: Vec<IpAddr> = known.copied().take(2).collect();
    for other in [tenth, span.last] {
        addresses.push(address(family, other));
    }
    addresses
}

/// The `nth` address of a span, from the beginning again after the last.
fn nth_of(span: Span<u128>, nth: u128) -> u128 {
    match (span.last - span.first).checked_add(1) {
        Some(size) => span.first + nth % size,
        None => nth,
    }
}

/// The first of `known` that is in the span, then one port after the other.
fn nth_port(span: Span<u16>, known: &[u16], nth: u16) -> u16 {
    let first = known.iter().copied().find(|port| span.contains(*port)).unwrap_or(span.first);
    let next = first.saturating_add(nth);
    if span.contains(next) {
        next
    } else {
        span.first.saturating_add(nth % (span.last - span.first).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few values, so that boxes meet.
    fn span(last: u128) -> impl Strategy<Value = Span<u128>> {
        (0..=last, 0..=last).prop_map(|(a, b)| Span { first: a.min(b), last: a.max(b) })
    }

    fn ports() -> impl Strategy<Value = Span<u16>> {
        (0..6_u16, 0..6_u16).prop_map(|(a, b)| Span { first: a.min(b), last: a.max(b) })
    }

    fn kinds() -> impl Strategy<Value = Kinds> {
        let kinds = [Kinds::WHOLE, Kinds::OPTIONS, Kinds::FRAGMENTS, Kinds::OF_FLOWS, Kinds::ERRORS];
        prop::sample::select(kinds.to_vec())
    }

    fn class() -> impl Strategy<Value = Class> {
        let protocols = prop::sample::select(vec![
            Protocols::ALL,
            Protocols::only(Protocol::TCP),
            Protocols::only(Protocol::TCP).union(Protocols::only(Protocol::SCTP)),
            Protocols::ALL.minus(Protocols::only(Protocol::UDP)),
        ]);
        let family = prop::sample::select(Family::BOTH.to_vec());
        (family, kinds(), span(6), span(6), span(6), protocols, ports(), ports(), 1..16_u64).prop_map(
            |(
                family,
                kinds,
                senders,
                source,
                destination,
                protocols,
                source_ports,
                destination_ports,
                dscps,
            )| Class {
                family,
                kinds,
                // Of others nobody asks for it.
                senders: if kinds == Kinds::ERRORS { senders } else { Span::all(family) },
                source,
                destination,
                protocols,
                source_ports,
                destination_ports,
                dscps,
            },
        )
    }

    fn probe() -> impl Strategy<Value = Probe> {
        (packet(), 0..5_u8, 0..8_u128).prop_map(|(packet, kind, sender)| {
            let sender = address(packet.family(), sender);
            let kinds = [Kind::Whole, Kind::Options, Kind::Fragment, Kind::Headless, Kind::Error { sender }];
            Probe { packet, kind: kinds[usize::from(kind)] }
        })
    }

    fn packet() -> impl Strategy<Value = Packet> {
        let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol(0)]);
        let family = prop::sample::select(Family::BOTH.to_vec());
        (family, 0..8_u128, 0..8_u128, protocol, 0..8_u16, 0..8_u16, 0..5_u8).prop_map(
            |(family, source, destination, protocol, source_port, destination_port, dscp)| Packet {
                source: address(family, source),
                destination: address(family, destination),
                protocol,
                source_port,
                destination_port,
                dscp: Dscp::new(dscp).unwrap_or_default(),
            },
        )
    }

    fn flow() -> impl Strategy<Value = FlowMatch> {
        let prefix =
            || prop::option::of(prop::sample::select(vec!["0.0.0.4/30", "0.0.0.0/31", "::4/126", "::/127"]));
        let protocol =
            prop::option::of(prop::sample::select(vec![Protocol::TCP, Protocol::UDP, Protocol(0)]));
        let ports = prop::option::of(prop::sample::select(vec!["2", "1-4"]));
        (prefix(), prefix(), protocol, ports, prop::option::of(0..3_u8)).prop_map(
            |(local, remote, protocol, ports, dscp)| FlowMatch {
                protocol,
                ports: ports.map(|ports| ports.parse().unwrap()),
                local: local.map(|prefix| prefix.parse().unwrap()),
                remote: remote.map(|prefix| prefix.parse().unwrap()),
                dscp: dscp.and_then(Dscp::new),
            },
        )
    }

    proptest! {
        #[test]
        fn the_algebra_agrees_with_the_packets(a in class(), b in class(), probe in probe()) {
            let (in_a, in_b) = (a.contains(&probe), b.contains(&probe));
            prop_assert_eq!(a.intersection(&b).is_some_and(|both| both.contains(&probe)), in_a && in_b);
            let mut pieces = Vec::new();
            a.split(&b, &mut pieces);
            let holding = pieces.iter().filter(|piece| piece.contains(&probe)).count();
            prop_assert_eq!(holding, usize::from(in_a && !in_b));
            let reply = Probe { packet: probe.packet.reply(), ..probe };
            prop_assert_eq!(a.reply().contains(&reply), in_a);
            prop_assert_eq!(a.reply().reply(), a);
        }

        #[test]
        fn a_flow_is_the_packets_that_it_matches(flow in flow(), packet in packet()) {
            let class = Class::of_flow(&flow, packet.family());
            prop_assert_eq!(class.is_some_and(|class| class.contains(&packet.into())), flow.matches(&packet));
        }

        #[test]
        fn a_prefix_is_the_addresses_in_it(length in 0..=32_u8, number in any::<u32>(), other in any::<u32>()) {
            let net = ipnet::IpNet::new(address(Family::V4, number.into()), length).unwrap();
            let prefix = Prefix::of(net);
            prop_assert_eq!(Span::of(prefix).contains(other.into()), prefix.contains(address(Family::V4, other.into())));
        }

        #[test]
        fn examples_are_of_the_class(class in class()) {
            let mut examples = class.examples(&[]).peekable();
            // A protocol without ports has none but 0.
            let some = class.readable_protocol().has_ports();
            prop_assert!(!some || examples.peek().is_some());
            prop_assert!(examples.all(|probe| class.contains(&probe)));
        }
    }

    #[test]
    fn examples_are_readable() {
        let class = Class::of_end("172.16.1.0/24".parse().unwrap(), Direction::Up);
        let first = class.examples(&["198.51.100.10".parse().unwrap()]).next().unwrap().packet;
        assert_eq!(
            (first.source.to_string(), first.destination.to_string()),
            ("172.16.1.10".to_owned(), "198.51.100.10".to_owned())
        );
        assert_eq!((first.protocol, first.source_port, first.destination_port), (Protocol::TCP, 40_000, 80));
    }
}

//! Frames to try: every kind that there is, mostly of the sites that are there, and then made wrong.

use std::net::IpAddr;

use catena_driver::Counted;
use catena_model::forwarding::{Direction, Insertion, Instance, NshMetadata, Purpose};
use catena_model::name::PortName;

use super::objects::World;
use super::sight::{ETHERNET, Frame, IPV4, IPV6, array};

/// xorshift64*, so that a failure can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize) % bound.max(1)
    }

    /// True in `percent` of all cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Addresses that are worth trying, all of one family.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub(super) of_sites: Vec<IpAddr>,
    pub(super) far: Vec<IpAddr>,
}

const PORTS: [u16; 12] = [22, 53, 79, 80, 81, 443, 1000, 1500, 2000, 2001, 8080, 40_000];
const PROTOCOLS: [u8; 8] = [6, 6, 6, 17, 17, 132, 1, 58];

pub(super) struct Generator<'a> {
    pub(super) random: Random,
    world: &'a World,
    addresses: [Addresses; 2],
    ports: Vec<PortName>,
    /// IP packets that were made, to quote and to splice.
    recent: Vec<(u16, Vec<u8>)>,
}

impl<'a> Generator<'a> {
    pub(super) fn new(seed: u64, world: &'a World, addresses: [Addresses; 2]) -> Self {
        let functions =
            world.instances.values().flat_map(|it| [it.inside.port.clone(), it.outside.port.clone()]);
        let underlays = world.tunnels.values().map(|tunnel| tunnel.underlay.clone());
        let mut ports: Vec<_> = world.ingresses.keys().cloned().chain(functions).chain(underlays).collect();
        ports.sort();
        ports.dedup();
        Self { random: Random::new(seed), world, addresses, ports, recent: Vec::new() }
    }

    /// A frame, and the port that it comes in by.
    pub(super) fn next(&mut self) -> (PortName, Frame) {
        let port = self.random.pick(&self.ports);
        let direction = self.direction_at(&port);
        let (ether_type, packet) = self.packet(direction);
        if self.recent.len() < 64 {
            self.recent.push((ether_type, packet.clone()));
        } else {
            let at = self.random.below(64);
            self.recent[at] = (ether_type, packet.clone());
        }
        let mut frame = self.frame_at(&port, direction, ether_type, packet);
        if self.random.chance(35) {
            for _ in 0..=self.random.below(3) {
                self.mutate(&mut frame);
            }
        }
        complete(&mut frame);
        (port, frame)
    }

    /// What a function that was given this frame hands back, and where.
    pub(super) fn hand_back(&mut self, counted: &Counted, sent: &[u8]) -> Option<(PortName, Frame)> {
        let Counted::Hop { path, instance, direction, .. } = counted else { return None };
        let instance = &self.world.instances[instance];
        let out = match direction {
            Direction::Up => &instance.outside.port,
            Direction::Down => &instance.inside.port,
        };
        let mut frame = Frame { bytes: sent.to_vec(), tag: None };
        match instance.insertion {
            Insertion::L3 => {
                frame.bytes[..6].copy_from_slice(&self.world.macs[out]);
                frame.bytes[6..12].copy_from_slice(&[0x02, 0, 0, 0, 0, 7]);
                let at = if frame.ether_type() == IPV4 { ETHERNET + 8 } else { ETHERNET + 7 };
                frame.bytes[at] = frame.bytes[at].wrapping_sub(1);
                if instance.rewrites && self.random.chance(80) {
                    self.translate(&mut frame, *direction);
                }
            }
            Insertion::L2 => {}
            Insertion::Vlan => frame.tag = self.world.paths[path].vlan.map(|vlan| vlan.get()),
            Insertion::Nsh(_) => {
                // One off the service index, rarely two or none; and its own metadata.
                let off = self.random.pick(&[1_u8, 1, 1, 1, 1, 1, 0, 2]);
                let index = frame.bytes[ETHERNET + 7].wrapping_sub(off);
                frame.bytes[ETHERNET + 7] = index;
                if frame.bytes[ETHERNET + 2] == 2 && self.random.chance(50) {
                    frame.bytes.splice(ETHERNET + 8..ETHERNET + 8, [0, 1, 0, 0, 9, 9, 9, 9]);
                    frame.bytes[ETHERNET + 1] += 2;
                }
            }
            Insertion::Tap => return None,
        }
        if self.random.chance(5) {
            self.mutate(&mut frame);
            complete(&mut frame);
        }
        Some((out.clone(), frame))
    }

    /// Source address translation at the function's outside, and the way back.
    fn translate(&mut self, frame: &mut Frame, direction: Direction) {
        let public = 200 + self.random.below(3) as u8;
        let (v4, v6) = match direction {
            Direction::Up => (ETHERNET + 12, ETHERNET + 8),
            Direction::Down => (ETHERNET + 16, ETHERNET + 24),
        };
        if frame.ether_type() == IPV4 {
            if let Some(address) = frame.bytes.get_mut(v4..v4 + 4) {
                address.copy_from_slice(&[203, 0, 113, public]);
            }
        } else if let Some(address) = frame.bytes.get_mut(v6..v6 + 16) {
            address[..8].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0xcc, 0, public]);
        }
    }

    fn direction_at(&mut self, port: &PortName) -> Direction {
        let by_port = match (self.world.ingresses.get(port), self.world.function_at(port)) {
            (Some(ingress), _) if ingress.directions.len() == 1 => ingress.directions.first().copied(),
            (_, Some(instance)) if instance.is_one_armed() => None,
            (_, Some(instance)) if instance.outside.port == *port => Some(Direction::Up),
            (_, Some(_)) => Some(Direction::Down),
            _ => None,
        };
        match by_port {
            Some(direction) if self.random.chance(90) => direction,
            _ => self.random.pick(&Direction::BOTH),
        }
    }

    /// An IP packet and its EtherType.
    fn packet(&mut self, direction: Direction) -> (u16, Vec<u8>) {
        let ether_type = self.random.pick(&[IPV4, IPV6]);
        let addresses = &self.addresses[usize::from(ether_type == IPV6)];
        let (of_sites, far) = (addresses.of_sites.clone(), addresses.far.clone());
        let (mut source, mut destination) = (self.random.pick(&of_sites), self.random.pick(&far));
        if direction == Direction::Down {
            (source, destination) = (destination, source);
        }
        match self.random.below(100) {
            0..3 => destination = self.random.pick(&of_sites),
            3..6 => source = self.random.pick(&far),
            6..9 => destination = self.for_neighbours(ether_type),
            _ => {}
        }
        let protocol = self.random.pick(&PROTOCOLS);
        let body = match self.random.below(100) {
            0..75 => self.transport(protocol, direction),
            75..95 => return self.error(ether_type, source, destination),
            _ => {
                let length = self.random.below(40);
                self.random.bytes(length)
            }
        };
        let protocol = if self.random.chance(4) { self.random.next() as u8 } else { protocol };
        (ether_type, self.wrap(source, destination, protocol, body))
    }

    fn for_neighbours(&mut self, ether_type: u16) -> IpAddr {
        let addresses: &[&str] = if ether_type == IPV4 {
            &["224.0.0.1", "239.255.0.1", "255.255.255.255", "240.0.0.1", "169.254.1.1", "127.0.0.1"]
        } else {
            &["ff02::1", "fe80::1", "febf::1", "fec0::1", "::ffff:172.16.1.10", "::1"]
        };
        self.random.pick(addresses).parse().unwrap()
    }

    /// What is behind the IP header.
    fn transport(&mut self, protocol: u8, direction: Direction) -> Vec<u8> {
        let payload = self.random.pick(&[0, 0, 1, 7, 64, 200, 500, 1440, 1490]);
        let mut body = match protocol {
            1 | 58 => {
                vec![self.random.pick(&[0, 8, 128, 129, 133, 134, 135, 136, 137, 5]), 0, 0, 0, 0, 1, 0, 1]
            }
            6 => {
                let flags = self.random.pick(&[0x10, 0x10, 0x10, 0x18, 0x02, 0x12, 0x11, 0x04, 0x14, 0x00]);
                let mut tcp = vec![0; 20];
                tcp[12] = 0x50;
                tcp[13] = flags;
                tcp
            }
            17 => vec![0; 8],
            _ => vec![0; 12],
        };
        if ![1, 58].contains(&protocol) {
            let site = self.random.pick(&[1024_u16, 1025, 1026, 5000]);
            let far = self.random.pick(&PORTS);
            let (source, destination) = if direction == Direction::Up { (site, far) } else { (far, site) };
            body[..2].copy_from_slice(&source.to_be_bytes());
            body[2..4].copy_from_slice(&destination.to_be_bytes());
        }
        body.extend(std::iter::repeat_n(0xda, payload));
        body
    }

    /// An ICMP error to `destination` about a packet that it may have sent.
    fn error(&mut self, ether_type: u16, source: IpAddr, destination: IpAddr) -> (u16, Vec<u8>) {
        let mut quoted = match self.random.below(4) {
            0 if !self.recent.is_empty() => {
                let (other, packet) = self.random.pick(&self.recent);
                if other == ether_type { packet } else { Vec::new() }
            }
            _ => {
                let protocol = self.random.pick(&PROTOCOLS);
                let there = self.direction_of(destination);
                let body = self.transport(protocol, there);
                let addresses = &self.addresses[usize::from(ether_type == IPV6)];
                let (of_sites, far) = (addresses.of_sites.clone(), addresses.far.clone());
                // From the receiver itself, or from a router on the way to it.
                let receiver = match self.random.below(10) {
                    0..2 => self.random.pick(&of_sites),
                    2..4 => self.random.pick(&far),
                    _ => source,
                };
                self.wrap(destination, receiver, protocol, body)
            }
        };
        if self.random.chance(80) {
            set_source(&mut quoted, destination);
        }
        let length = self.random.pick(&[28, 48, 60, 64, 8, 20, 40, 44, 1000]);
        quoted.truncate(length);
        let (protocol, types): (u8, &[u8]) =
            if ether_type == IPV4 { (1, &[3, 3, 3, 4, 11, 12, 5]) } else { (58, &[1, 2, 2, 3, 4, 100, 5]) };
        let mut body = vec![self.random.pick(types), 4, 0, 0, 0, 0, 5, 0xdc];
        body.extend(quoted);
        (ether_type, self.wrap(source, destination, protocol, body))
    }

    fn direction_of(&self, sender: IpAddr) -> Direction {
        if self.world.site_of(sender).is_some() { Direction::Up } else { Direction::Down }
    }

    fn wrap(&mut self, source: IpAddr, destination: IpAddr, protocol: u8, body: Vec<u8>) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.wrap_v4(source.octets(), destination.octets(), protocol, body)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.wrap_v6(source.octets(), destination.octets(), protocol, body)
            }
            _ => panic!("two families in one packet"),
        }
    }

    fn wrap_v4(&mut self, source: [u8; 4], destination: [u8; 4], protocol: u8, body: Vec<u8>) -> Vec<u8> {
        let options = if self.random.chance(10) { 4 * (1 + self.random.below(10)) } else { 0 };
        let (offset_and_more, body) = self.fragment(body);
        let mut packet = vec![0; 20 + options];
        packet[0] = 0x45 + (options / 4) as u8;
        packet[1] = self.traffic_class();
        let length = (packet.len() + body.len()) as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[4..6].copy_from_slice(&(self.random.below(4) as u16).to_be_bytes());
        let flags = (offset_and_more >> 3) | (offset_and_more & 1) << 13;
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
        packet[8] = self.random.pick(&[64, 64, 1, 255]);
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        packet[20..].fill(1);
        let checksum = checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn wrap_v6(&mut self, source: [u8; 16], destination: [u8; 16], protocol: u8, body: Vec<u8>) -> Vec<u8> {
        let (offset_and_more, mut rest) = self.fragment(body);
        let mut next = protocol;
        let chain = if self.random.chance(20) { self.random.below(9) } else { 0 };
        let fragment_at =
            (offset_and_more != 0 || self.random.chance(2)).then(|| self.random.below(chain + 1));
        for at in (0..=chain).rev() {
            if fragment_at == Some(at) {
                let [high, low] = offset_and_more.to_be_bytes();
                let id = self.random.below(4) as u8;
                rest.splice(0..0, [next, 0, high, low, 0, 0, 0, id]);
                next = 44;
            }
            if at < chain {
                let length = self.random.pick(&[0_usize, 0, 0, 1, 3]);
                let mut header = vec![0; 8 * (length + 1)];
                header[..2].copy_from_slice(&[next, length as u8]);
                rest.splice(0..0, header);
                next = self.random.pick(&[0, 43, 60, 60, 44]);
            }
        }
        let mut packet = vec![0; 40];
        let traffic_class = self.traffic_class();
        packet[0] = 0x60 | traffic_class >> 4;
        packet[1] = traffic_class << 4;
        packet[4..6].copy_from_slice(&(rest.len() as u16).to_be_bytes());
        packet[6] = next;
        packet[7] = self.random.pick(&[64, 64, 1, 255]);
        packet[8..24].copy_from_slice(&source);
        packet[24..40].copy_from_slice(&destination);
        packet.extend(rest);
        packet
    }

    /// DSCP and ECN.
    fn traffic_class(&mut self) -> u8 {
        self.random.pick(&[0, 0, 0, 46, 10]) << 2 | self.random.pick(&[0, 0, 1, 2, 3])
    }

    /// Mostly nothing; else offset (in the upper 13 bits), whether more follow (in the lowest), and that part of the body.
    fn fragment(&mut self, body: Vec<u8>) -> (u16, Vec<u8>) {
        match self.random.below(20) {
            // First, and first but too short for its ports (RFC 1858).
            0 => (1, body.into_iter().take(64).collect()),
            1 => (1, body.into_iter().take(8).collect()),
            2 => {
                let length = self.random.below(4);
                (1, body.into_iter().take(length).collect())
            }
            // Middle, last, overlapping the first.
            3 => (8 << 3 | 1, body.into_iter().skip(64).collect()),
            4 => (8 << 3, body.into_iter().skip(64).collect()),
            5 => (1 << 3, body.into_iter().skip(8).collect()),
            _ => (0, body),
        }
    }

    fn frame_at(&mut self, port: &PortName, direction: Direction, ether_type: u16, packet: Vec<u8>) -> Frame {
        let mut bytes = Vec::with_capacity(packet.len() + 100);
        let own = self.world.macs[port];
        let destination = match self.random.below(40) {
            0 => [0x02, 0, 0, 0, 0, 0x99],
            1 => [0xff; 6],
            _ => own,
        };
        bytes.extend(destination);
        bytes.extend([0x02, 0, 0, 0, 0, 1]);
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet);
        let mut frame = Frame { bytes, tag: None };
        if self.random.chance(3) {
            self.other_than_ip(&mut frame);
        }
        // A short packet is padded to the least that Ethernet carries.
        if frame.bytes.len() < 60 && self.random.chance(50) {
            frame.bytes.resize(60, 0);
        }
        match self.world.function_at(port).cloned() {
            Some(function) => self.come_out_of(&function, direction, &mut frame),
            None if self.world.tunnels.values().any(|tunnel| tunnel.underlay == *port) => {
                self.come_through_tunnel(&mut frame);
            }
            None => {}
        }
        if frame.tag.is_none() && self.random.chance(3) {
            frame.tag = Some(self.random.pick(&[0, 0x2000, 1, 100, 200, 0x2064, 4095]));
        }
        frame
    }

    /// ARP, and what else there is.
    fn other_than_ip(&mut self, frame: &mut Frame) {
        let ether_type = self.random.pick(&[0x0806_u16, 0x88cc, 0x8100, 0x0026, 0x894f, 0x86dd]);
        frame.bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
        if ether_type == 0x0806 {
            frame.bytes.truncate(ETHERNET);
            frame.bytes.extend([0, 1, 8, 0, 6, 4, 0, 2]);
            let rest = self.random.bytes(20);
            frame.bytes.extend(rest);
        }
    }

    fn come_out_of(&mut self, function: &Instance, direction: Direction, frame: &mut Frame) {
        let direction = if self.random.chance(5) { self.random.pick(&Direction::BOTH) } else { direction };
        let places: Vec<_> = self
            .world
            .paths
            .values()
            .flat_map(|path| path.hops.iter().enumerate().map(move |(at, hop)| (path, at, hop)))
            .filter(|(_, _, hop)| hop.ids().any(|id| id == function.id))
            .map(|(path, at, _)| (path.id, at, path.vlan))
            .collect();
        let (path, position, vlan) = self.random.pick(&places);
        let (path, position) = match self.random.below(25) {
            0 => (self.random.next() as u32 & 0x00ff_ffff, position),
            1 => (path.0, self.random.below(16)),
            2 => (self.random.pick(&self.world.paths.keys().copied().collect::<Vec<_>>()).0, position),
            _ => (path.0, position),
        };
        let [_, a, b, c] = path.to_be_bytes();
        let at = position as u8 & 0x0f | if direction == Direction::Down { 0x80 } else { 0 };
        let tag = [0x02, 0xca, a, b, c, at ^ 0x80, 0x02, 0xca, a, b, c, at];
        match function.insertion {
            Insertion::L2 => frame.bytes[..12].copy_from_slice(&tag),
            Insertion::Vlan => {
                frame.bytes[..12].copy_from_slice(&tag);
                let others = [0, 1, 100, 200, 300];
                let vlan = vlan.map(|vlan| vlan.get()).filter(|_| self.random.chance(90));
                frame.tag = Some(vlan.unwrap_or_else(|| self.random.pick(&others)));
            }
            Insertion::Nsh(metadata) => {
                let index = match direction {
                    Direction::Up => 254_usize.wrapping_sub(position),
                    Direction::Down => 119 + position,
                };
                self.put_nsh(frame, metadata, [a, b, c], index as u8);
            }
            Insertion::L3 if function.rewrites && self.random.chance(50) => self.translate(frame, direction),
            Insertion::L3 | Insertion::Tap => {}
        }
    }

    fn put_nsh(&mut self, frame: &mut Frame, metadata: NshMetadata, path: [u8; 3], index: u8) {
        let (md_type, mut length): (u8, usize) = match (metadata, self.random.below(12)) {
            (_, 0) => (self.random.next() as u8, 8),
            (NshMetadata::Fixed, _) => (1, 24),
            (NshMetadata::Variable, _) => (2, 8 + 4 * self.random.below(4)),
        };
        if self.random.chance(3) {
            length = 4 * self.random.below(64);
        }
        let next = match (self.random.below(30), frame.ether_type()) {
            (0, _) => self.random.below(6) as u8,
            (_, IPV4) => 1,
            _ => 2,
        };
        let index = if self.random.chance(10) { self.random.next() as u8 } else { index };
        let mut first = 63 << 6 | (length / 4) as u16 & 0x3f;
        if self.random.chance(3) {
            first |= self.random.next() as u16 & 0xf000;
        }
        let mut header = vec![0; length.max(8)];
        header[..2].copy_from_slice(&first.to_be_bytes());
        header[2..8].copy_from_slice(&[md_type, next, path[0], path[1], path[2], index]);
        frame.bytes.splice(ETHERNET..ETHERNET, header);
        if self.random.chance(95) {
            frame.bytes[12..14].copy_from_slice(&0x894f_u16.to_be_bytes());
        } else {
            frame.bytes[6..8].copy_from_slice(&[0x02, 0xcb]);
        }
    }

    /// Into GRE, by every combination of its flags.
    fn come_through_tunnel(&mut self, frame: &mut Frame) {
        let tunnels: Vec<_> = self.world.tunnels.values().cloned().collect();
        let tunnel = self.random.pick(&tunnels);
        let mut flags = self.random.pick(&[0_u16, 0, 0, 0x8000, 0x1000, 0x9000]);
        if self.random.chance(4) {
            flags |= 1 << self.random.below(16);
        }
        let key = match self.random.below(20) {
            0 => None,
            1 => Some(self.random.next() as u32),
            _ => tunnel.key,
        };
        let mut gre = Vec::new();
        if flags & 0x8000 != 0 {
            gre.extend([0; 4]);
        }
        if let Some(key) = key {
            flags |= 0x2000;
            gre.extend(key.to_be_bytes());
        }
        if flags & 0x1000 != 0 {
            gre.extend([0, 0, 0, 1]);
        }
        let inner = frame.bytes.split_off(ETHERNET);
        let mut body = flags.to_be_bytes().to_vec();
        body.extend(frame.ether_type().to_be_bytes());
        body.extend(gre);
        body.extend(inner);
        let remote = match (self.random.below(20), tunnel.remote) {
            (0, IpAddr::V4(_)) => "192.0.2.66".parse().unwrap(),
            (0, IpAddr::V6(_)) => "2001:db8:66::6".parse().unwrap(),
            (_, remote) => remote,
        };
        let outer = self.wrap(remote, tunnel.local, 47, body);
        let ether_type = if remote.is_ipv4() { IPV4 } else { IPV6 };
        frame.bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
        frame.bytes.extend(outer);
    }

    /// Makes it wrong in one way.
    fn mutate(&mut self, frame: &mut Frame) {
        let length = frame.bytes.len();
        match self.random.below(10) {
            0..3 => {
                let at = self.random.below(length.min(110));
                frame.bytes[at] ^= 1 << self.random.below(8);
            }
            3 => {
                let at = self.random.below(length.min(110));
                frame.bytes[at] = self.random.next() as u8;
            }
            // Cut anywhere.
            4 => frame.bytes.truncate(ETHERNET + 1 + self.random.below(length.saturating_sub(ETHERNET))),
            5 => {
                let more = self.random.below(30);
                let tail = self.random.bytes(more);
                frame.bytes.extend(tail);
            }
            // A length, a header length or a fragment offset that contradicts.
            6 => {
                let at = ETHERNET + self.random.pick(&[0, 2, 3, 4, 5, 6, 7, 20, 21, 40, 41, 42, 43]);
                if let Some(byte) = frame.bytes.get_mut(at) {
                    *byte = self.random.pick(&[0, 1, 4, 0x40, 0x44, 0x46, 0x4f, 0x65, 0x20, 0xff]);
                }
            }
            // The rest of another packet.
            7 if !self.recent.is_empty() => {
                let (_, other) = self.random.pick(&self.recent);
                let at = self.random.below(length.min(100)).max(ETHERNET);
                frame.bytes.truncate(at);
                frame.bytes.extend(other.get(at - ETHERNET..).unwrap_or_default());
            }
            8 => {
                let at = self.random.below(length.min(110));
                frame.bytes.remove(at);
            }
            _ => {
                let at = self.random.below(length.min(110));
                frame.bytes.insert(at, self.random.next() as u8);
            }
        }
        complete(frame);
    }
}

/// `BPF_PROG_TEST_RUN` takes no frame without room for the header that its EtherType announces.
pub(super) fn complete(frame: &mut Frame) {
    let least = match frame.bytes.get(12..ETHERNET) {
        Some([0x08, 0x00]) => ETHERNET + 20,
        Some([0x86, 0xdd]) => ETHERNET + 40,
        _ => ETHERNET + 1,
    };
    if frame.bytes.len() < least {
        frame.bytes.resize(least, 0);
        complete(frame);
    }
}

fn set_source(packet: &mut [u8], source: IpAddr) {
    let (at, octets) = match source {
        IpAddr::V4(address) => (12, address.octets().to_vec()),
        IpAddr::V6(address) => (8, address.octets().to_vec()),
    };
    if let Some(place) = packet.get_mut(at..at + octets.len()) {
        place.copy_from_slice(&octets);
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes(array(pair, 0)))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Whether a port only claims.
pub(super) fn claims(world: &World, port: &PortName) -> bool {
    world.ingresses.get(port).is_some_and(|ingress| ingress.purpose == Purpose::Claim)
}

//! What the engine asks of the kernel over netlink: ports and their neighbours, its veth pair, and what stands on a
//! port's clsact qdisc.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Of the clsact qdisc: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff2 };
const EGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0xfff3 };

/// A link, as far as we look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    /// Up, and its queue takes packets: some time later, when the kernel's link watch has been there (RFC 2863).
    pub(crate) running: bool,
    pub(crate) mac: [u8; 6],
    pub(crate) mtu: u32,
    /// One end of a veth pair whose other end is in another namespace.
    pub(crate) leads_elsewhere: bool,
    /// Its frames begin with an Ethernet header.
    pub(crate) is_ethernet: bool,
    pub(crate) is_loopback: bool,
    /// A bridge, bond or the like receives what comes in here.
    pub(crate) has_master: bool,
}

impl Link {
    /// `None` for a message without a name.
    pub(crate) fn read(message: &LinkMessage) -> Option<Self> {
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            up: message.header.flags.contains(LinkFlags::LowerUp),
            running: message.header.flags.contains(LinkFlags::Running),
            mac: [0; 6],
            mtu: 0,
            leads_elsewhere: false,
            is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            has_master: false,
        };
        let (mut is_veth, mut is_apart) = (false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name.clone(),
                LinkAttribute::Address(address) => {
                    link.mac = address.as_slice().try_into().unwrap_or_default()
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.has_master = *master != 0,
                LinkAttribute::LinkInfo(about) => {
                    is_veth = about.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                // Told only of a peer in another namespace.
                LinkAttribute::LinkNetNsId(_) => is_apart = true,
                _ => {}
            }
        }
        link.leads_elsewhere = is_veth && is_apart;
        (!link.name.is_empty()).then_some(link)
    }

    /// The number 0 is no port's.
    pub(crate) fn nowhere() -> Self {
        Self {
            ifindex: 0,
            name: String::new(),
            up: false,
            running: false,
            mac: [0; 6],
            mtu: 0,
            leads_elsewhere: false,
            is_ethernet: false,
            is_loopback: false,
            has_master: false,
        }
    }
}

/// A filter of tc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) priority: u32,
    /// 0 for the head of all filters of one priority.
    pub(crate) handle: u32,
}

/// A neighbour whose MAC address the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) ifindex: u32,
    pub(crate) address: IpAddr,
    pub(crate) mac: [u8; 6],
    /// Somebody said so; the kernel does not ask.
    pub(crate) is_permanent: bool,
}

impl Neighbour {
    /// `None` for one whose MAC address is not known (RFC 4861 section 7.3.2: an entry without one is incomplete).
    fn read(message: &NeighbourMessage) -> Option<Self> {
        let known = [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
            NeighbourState::Probe,
            NeighbourState::Permanent,
        ];
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::V4(*v4))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::V6(*v6))
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                _ => {}
            }
        }
        let state = message.header.state;
        Some(Self {
            ifindex: message.header.ifindex,
            address: address?,
            mac: mac.filter(|_| known.contains(&state))?,
            is_permanent: state == NeighbourState::Permanent,
        })
    }
}

/// A socket in the namespace of the thread that opened it. The kernel handles a request while it is being sent, so no
/// call waits.
pub(crate) struct Connection {
    socket: Socket,
    sequence: u32,
}

impl Connection {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = match self.ask(RouteNetlinkMessage::GetLink(request), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Link::read(message),
            _ => None,
        }))
    }

    /// All links.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Link::read(message),
                _ => None,
            })
            .collect())
    }

    /// A veth pair without ARP: whatever is sent into one end comes out of the other. Both are left down.
    pub(crate) fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let end = |name: &str| {
            let mut message = LinkMessage::default();
            message.header.flags = LinkFlags::Noarp;
            message.header.change_mask = LinkFlags::Noarp;
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            message
        };
        let mut request = end(name);
        request.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(peer)))),
        ]));
        self.ask(RouteNetlinkMessage::NewLink(request), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sets the MTU, and takes the link up.
    pub(crate) fn set_up(&mut self, ifindex: u32, mtu: u32) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        request.header.flags = LinkFlags::Up;
        request.header.change_mask = LinkFlags::Up;
        request.attributes.push(LinkAttribute::Mtu(mtu));
        self.ask(RouteNetlinkMessage::SetLink(request), 0).map(drop)
    }

    /// Gives a port an address that is for the host alone; one that it has stays.
    pub(crate) fn add_address(&mut self, ifindex: u32, address: Ipv4Addr) -> io::Result<()> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet;
        request.header.prefix_len = 32;
        request.header.scope = AddressScope::Host;
        request.header.index = ifindex;
        request.attributes.push(AddressAttribute::Local(address.into()));
        match self.ask(RouteNetlinkMessage::NewAddress(request), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            done => done.map(drop),
        }
    }

    /// The port by which the element's own routing sends an IPv4 packet; `None` where it has no way, or is there itself.
    pub(crate) fn way(&mut self, from: Ipv4Addr, to: Ipv4Addr) -> io::Result<Option<u32>> {
        let mut request = RouteMessage::default();
        request.header.address_family = AddressFamily::Inet;
        (request.header.source_prefix_length, request.header.destination_prefix_length) = (32, 32);
        request.attributes.push(RouteAttribute::Source(RouteAddress::Inet(from)));
        request.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to)));
        let found = match self.ask(RouteNetlinkMessage::GetRoute(request), 0) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            found => found?,
        };
        Ok(found.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(ifindex) => Some(*ifindex),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    pub(crate) fn remove_link(&mut self, ifindex: u32) -> io::Result<()> {
        let mut request = LinkMessage::default();
        request.header.index = ifindex;
        match self.ask(RouteNetlinkMessage::DelLink(request), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The neighbours at all ports.
    pub(crate) fn neighbours(&mut self) -> io::Result<Vec<Neighbour>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let found = self.ask(request, NLM_F_DUMP)?;
        Ok(found
            .iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => Neighbour::read(neighbour),
                _ => None,
            })
            .collect())
    }

    /// Does with a neighbour what a packet to it would do: the kernel asks for it if it does not know it, and asks again if
    /// it has heard nothing of it for long (`ip neighbour ... use`).
    pub(crate) fn use_neighbour(&mut self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut request = NeighbourMessage::default();
        let (family, destination) = match address {
            IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        request.header.family = family;
        request.header.ifindex = ifindex;
        request.header.flags = NeighbourFlags::Use;
        request.attributes.push(NeighbourAttribute::Destination(destination));
        self.ask(RouteNetlinkMessage::NewNeighbour(request), NLM_F_CREATE).map(drop)
    }

    /// Whether the port has a qdisc that filters of packets coming in can stand on: clsact, or the older ingress.
    pub(crate) fn has_ingress(&mut self, ifindex: u32) -> io::Result<bool> {
        let request = TcMessage::with_index(ifindex as i32);
        let found = self.ask(RouteNetlinkMessage::GetQueueDiscipline(request), NLM_F_DUMP)?;
        Ok(found.iter().any(|message| {
            match message {
            RouteNetlinkMessage::NewQueueDiscipline(qdisc) => {
                qdisc.header.index == ifindex as i32
                    && qdisc.attributes.iter().any(|attribute| {
                        matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact" || kind == "ingress")
                    })
            }
            _ => false,
        }
        }))
    }

    /// Whether any filter stands on the port's clsact qdisc, at ingress or egress.
    pub(crate) fn has_filters(&mut self, ifindex: u32) -> io::Result<bool> {
        Ok(!self.filters(ifindex, INGRESS)?.is_empty() || !self.filters(ifindex, EGRESS)?.is_empty())
    }

    /// The filters that packets meet which come in by the port.
    pub(crate) fn filters_at_ingress(&mut self, ifindex: u32) -> io::Result<Vec<Filter>> {
        self.filters(ifindex, INGRESS)
    }

    fn filters(&mut self, ifindex: u32, parent: TcHandle) -> io::Result<Vec<Filter>> {
        let mut request = TcMessage::with_index(ifindex as i32);
        request.header.parent = parent;
        let found = self.ask(RouteNetlinkMessage::GetTrafficFilter(request), NLM_F_DUMP)?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewTrafficFilter(filter) => {
                    let handle = filter.header.handle;
                    Some(Filter {
                        // `tcm_info`: the priority, then the protocol.
                        priority: filter.header.info >> 16,
                        handle: u32::from(handle.major) << 16 | u32::from(handle.minor),
                    })
                }
                _ => None,
            })
            .collect())
    }

    /// Sends one request, and reads its answers to their end.
    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | if flags & NLM_F_DUMP == NLM_F_DUMP { 0 } else { NLM_F_ACK };
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram)? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(end) if end.code.is_some() => return Err(end.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

/// The messages in a datagram.
pub(crate) fn messages(datagram: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkMessage::deserialize(rest)
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error.to_string()))?;
        // Messages are aligned to four bytes (NLMSG_ALIGN).
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length.max(4)..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

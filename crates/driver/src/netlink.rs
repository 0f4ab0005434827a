//! Talking to the kernel over rtnetlink: one request at a time, each to its end.
//!
//! The kernel handles a routing request while it is being sent, so an answer is there at once and waiting for it does
//! not block; this needs neither a task of its own nor a table of pending requests.

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;

use crate::netns::NetNs;

/// A dump that the kernel says was disturbed by changes is repeated this often. On an element that changes without
/// pause the last one is taken as it is: what it misses will be told by an event.
const DUMP_ATTEMPTS: usize = 8;
/// The kernel always answers. If it does not, we have misunderstood each other, and begin anew.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// Why the kernel did not do, or say, what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel's answer, with its reason where it gives one (`NLMSGERR_ATTR_MSG`).
    #[error("{}{errno}", reason.as_ref().map(|reason| format!("{reason}: ")).unwrap_or_default())]
    Refused { errno: Errno, reason: Option<String> },
    #[error("netlink")]
    Broken(#[from] io::Error),
}

impl NetlinkError {
    /// What the kernel answered, if it did.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            NetlinkError::Broken(_) => None,
        }
    }
}

/// A netlink socket in a namespace.
pub struct Connection {
    socket: Socket,
    /// The kernel's number for the socket ("port"), unique in the namespace.
    pub id: u32,
    sequence: u32,
}

impl Connection {
    pub fn open(netns: &NetNs) -> io::Result<Self> {
        let mut socket = netns.run(|| Socket::new(NETLINK_ROUTE))?;
        let id = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel filters dumps by table and protocol (Linux 4.20), and explains what it refuses (4.12).
        socket.set_netlink_get_strict_chk(true)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        setsockopt(&socket, ReceiveTimeout, &PATIENCE)?;
        Ok(Self { socket, id, sequence: 0 })
    }

    /// The socket itself.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Asks for a change. `flags` beside the usual ones: `NLM_F_CREATE`, `NLM_F_REPLACE`, …
    pub fn change(&mut self, request: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.send(request, NLM_F_ACK | flags)?;
        self.receive(|_| ()).map(|_| ())
    }

    /// Asks for one object.
    pub fn get(&mut self, request: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        self.send(request, NLM_F_ACK)?;
        let mut found = None;
        self.receive(|message| found = Some(message))?;
        Ok(found)
    }

    /// Asks for all objects like `request`.
    pub fn dump(&mut self, request: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            self.send(request.clone(), NLM_F_DUMP)?;
            if self.receive(|message| found.push(message))? == Dump::Consistent {
                break;
            }
        }
        Ok(found)
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads the answer up to its end.
    fn receive(&mut self, mut take: impl FnMut(RouteNetlinkMessage)) -> Result<Dump, NetlinkError> {
        let mut dump = Dump::Consistent;
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                // With a time limit, reading is not resumed by itself after a signal (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            for message in messages(&datagram) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Disturbed;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Error(answer) => return refusal(&answer).map(|()| dump),
                    NetlinkPayload::Done(answer) if answer.code != 0 => {
                        return Err(refused(answer.code, None));
                    }
                    NetlinkPayload::Done(_) => return Ok(dump),
                    _ => {}
                }
            }
        }
    }
}

/// Whether anything changed while the kernel told what there is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dump {
    Consistent,
    Disturbed,
}

/// The messages in a datagram. One that cannot be read (an attribute newer than our library) is left out, and logged;
/// ours are made of old attributes.
pub fn messages(datagram: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Ok(raw) = NetlinkBuffer::new_checked(rest) {
        let (length, kind) = (raw.length() as usize, raw.message_type());
        match NetlinkMessage::deserialize(&rest[..length]) {
            Ok(message) => found.push(message),
            // An end that cannot be read must still be an end.
            Err(error) if kind == NLMSG_ERROR || kind == NLMSG_DONE => {
                tracing::warn!(%error, "the kernel's answer ends in a way that cannot be read");
            }
            Err(error) => tracing::warn!(%error, kind, "a netlink message cannot be read"),
        }
        // Messages are aligned to four bytes (NLMSG_ALIGN).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The table of nftables (family inet) that is ours.
pub const OUR_NFTABLES_TABLE: &str = "catena";

/// What a message of `NETLINK_NETFILTER` tells of nftables.
pub struct NftablesMessage {
    /// `NFT_MSG_NEWTABLE` and its sisters in linux/netfilter/nf_tables.h.
    kind: u8,
    /// Of the socket that asked for the change.
    pub port_number: u32,
    pub table: Option<String>,
}

impl NftablesMessage {
    /// Whether it is about a table, a chain or a rule, and not about what is in sets.
    pub fn is_of_rules(&self) -> bool {
        const NFT_MSG_DELRULE: u8 = 8;
        self.kind <= NFT_MSG_DELRULE
    }
}

/// What the messages in a datagram tell of nftables.
pub fn nftables_messages(datagram: &[u8]) -> Vec<NftablesMessage> {
    /// `NFNL_SUBSYS_NFTABLES` in linux/netfilter/nfnetlink.h.
    const SUBSYSTEM: u8 = 10;
    /// Bytes of `struct nfgenmsg`.
    const HEADER: usize = 4;
    /// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`, `NFTA_SET_ELEM_LIST_TABLE` and all their sisters.
    const OF_TABLE: u16 = 1;
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let (length, port_number) = (message.length() as usize, message.port_number());
        let [kind, subsystem] = message.message_type().to_le_bytes();
        let mut attributes = NlasIterator::new(message.payload().get(HEADER..).unwrap_or_default()).flatten();
        if subsystem == SUBSYSTEM {
            let name = attributes.find(|attribute| attribute.kind() == OF_TABLE);
            let table = name.and_then(|name| {
                let name = name.value().strip_suffix(b"\0")?;
                Some(String::from_utf8_lossy(name).into_owned())
            });
            found.push(NftablesMessage { kind, port_number, table });
        }
        // Messages are aligned to four bytes (NLMSG_ALIGN).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn refusal(answer: &ErrorMessage) -> Result<(), NetlinkError> {
    match answer.code {
        None => Ok(()),
        Some(code) => Err(refused(code.get(), reason(&answer.header))),
    }
}

fn refused(code: i32, reason: Option<String>) -> NetlinkError {
    NetlinkError::Refused { errno: Errno::from_raw(code.abs()), reason }
}

/// The text after the header of the request that was refused (`NLMSGERR_ATTR_MSG`).
fn reason(payload: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    const TEXT: u16 = 1;
    let attributes = NlasIterator::new(payload.get(HEADER..)?);
    let text = attributes.flatten().find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == TEXT)?;
    Some(String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_reason_is_found() {
        // Sixteen bytes of header, then an attribute of type 1: its length, its type, its text.
        let mut payload = vec![0; 16];
        payload.extend([12, 0, 1, 0]);
        payload.extend(b"because\0");
        assert_eq!(reason(&payload).as_deref(), Some("because"));
        assert_eq!(reason(&payload[..16]), None);
    }
}

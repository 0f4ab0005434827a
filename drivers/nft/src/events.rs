//! What happens to what is ours, as the kernel tells it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use catena_driver::Event;
use catena_driver::hops::{priority, table_of};
use catena_driver::netlink::{OUR_NFTABLES_TABLE, messages, nftables_messages};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::RuleAttribute;
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::Shared;

/// `NFNLGRP_NFTABLES` in linux/netfilter/nfnetlink.h.
const NFTABLES: [u32; 1] = [7];
/// Routes and rules of both families: `enum rtnetlink_groups` in linux/rtnetlink.h.
const ROUTES_AND_RULES: [u32; 4] = [7, 8, 11, 19];
/// What a receiver has not read yet. It looks at the element after each event, so more would tell it nothing.
const BACKLOG: usize = 16;
/// Before trying again to listen where that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins to listen before it returns: what happens from then on is told.
pub(crate) fn listen(shared: &Arc<Shared>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let listener = Listener::open(shared);
    tokio::spawn(run(shared.clone(), listener, sender));
    receiver
}

async fn run(shared: Arc<Shared>, mut listener: io::Result<Listener>, sender: mpsc::Sender<Event>) {
    loop {
        let error = match listener {
            Ok(listener) => tokio::select! {
                error = listener.tell(&shared, &sender) => error,
                () = sender.closed() => return,
            },
            Err(error) => error,
        };
        tracing::warn!(element = %shared.place.element, %error, "cannot listen to netlink; trying again");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = sender.closed() => return,
        }
        listener = Listener::open(&shared);
        if listener.is_ok() {
            tell(&sender, "events may have been missed");
        }
    }
}

struct Listener {
    nftables: AsyncFd<Socket>,
    routing: AsyncFd<Socket>,
}

impl Listener {
    fn open(shared: &Shared) -> io::Result<Self> {
        let open = |protocol, groups: &[u32]| -> io::Result<AsyncFd<Socket>> {
            let mut socket = shared.netns.run(|| Socket::new(protocol))?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            // SAFETY: a Socket owns one descriptor, always the same, and closes it when it is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        Ok(Self {
            nftables: open(NETLINK_NETFILTER, &NFTABLES)?,
            routing: open(NETLINK_ROUTE, &ROUTES_AND_RULES)?,
        })
    }

    /// Ends with the first error.
    async fn tell(self, shared: &Shared, sender: &mpsc::Sender<Event>) -> io::Error {
        loop {
            let what = tokio::select! {
                datagram = receive(&self.nftables) => {
                    datagram.map(|datagram| of_nftables(shared, &datagram).then_some("the nftables table was changed"))
                }
                datagram = receive(&self.routing) => {
                    datagram.map(|datagram| of_routing(shared, &datagram).then_some("a next hop's rule or route was changed"))
                }
            };
            match what {
                Ok(Some(what)) => tell(sender, what),
                Ok(None) => {}
                // The kernel had more to tell than we had room for.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    tell(sender, "events were missed: too many at once");
                }
                Err(error) => return error,
            }
        }
    }
}

/// One that finds the backlog full is one of many that say the same: look again.
fn tell(sender: &mpsc::Sender<Event>, what: &str) {
    let _ = sender.try_send(Event::Drift { what: what.to_owned() });
}

async fn receive(socket: &AsyncFd<Socket>) -> io::Result<Vec<u8>> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(outcome) = ready.try_io(|socket| socket.get_ref().recv_from_full()) {
            return outcome.map(|(datagram, _)| datagram);
        }
    }
}

/// Whether a datagram tells that somebody else changed our nftables table.
fn of_nftables(shared: &Shared, datagram: &[u8]) -> bool {
    let mut messages = nftables_messages(datagram).into_iter();
    messages.any(|message| {
        message.table.as_deref() == Some(OUR_NFTABLES_TABLE) && !shared.nft.is_own(message.port_number)
    })
}

/// Whether a datagram tells that somebody else changed a rule or route that hops need.
fn of_routing(shared: &Shared, datagram: &[u8]) -> bool {
    let numbers = &shared.numbers;
    messages(datagram).into_iter().any(|message| {
        let requester = message.header.port_number;
        if requester != 0 && requester == shared.socket_id() {
            return false;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule),
            ) => {
                numbers.is_our_priority(priority(&rule))
                    || rule.attributes.contains(&RuleAttribute::Protocol(numbers.protocol))
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            ) => numbers.hop(table_of(&route)).is_some(),
            _ => false,
        }
    })
}

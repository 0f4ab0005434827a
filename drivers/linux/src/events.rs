//! What happens on the element that ours depends on, as the kernel tells it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use catena_driver::Event;
use catena_driver::netlink::{Connection, OUR_NFTABLES_TABLE, messages, nftables_messages};
use catena_driver::netns::NetNs;
use catena_model::name::PortName;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteFlags, RouteMessage};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::Shared;
use crate::kernel::{is_up, name_of};
use crate::table::table_of;
use crate::words;

/// `enum rtnetlink_groups` in linux/rtnetlink.h: links, and addresses, routes and rules of both families.
const ROUTING: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES` in linux/netfilter/nfnetlink.h.
const NFTABLES: [u32; 1] = [7];
/// What a receiver has not read yet. It looks at the element after each event, so more would tell it nothing.
const BACKLOG: usize = 64;
/// Before trying again to listen where that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins to listen before it returns: what happens from then on is told.
pub(crate) fn listen(shared: &Arc<Shared>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let listener = Listener::open(&shared.netns);
    tokio::spawn(run(shared.clone(), listener, sender));
    receiver
}

async fn run(shared: Arc<Shared>, mut listener: io::Result<Listener>, sender: mpsc::Sender<Event>) {
    loop {
        let error = match listener {
            Ok(listener) => tokio::select! {
                ended = listener.tell(&shared, &sender) => match ended {
                    Ended::Unheard => return,
                    Ended::Failed(error) => error,
                },
                () = sender.closed() => return,
            },
            Err(error) => error,
        };
        tracing::warn!(element = %shared.place.element, %error, "cannot listen to netlink; trying again");
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = sender.closed() => return,
        }
        listener = Listener::open(&shared.netns);
        let drift = Event::Drift { what: "events may have been missed".to_owned() };
        if listener.is_ok() && send(&sender, drift).await.is_err() {
            return;
        }
    }
}

struct Listener {
    netns: NetNs,
    routing: AsyncFd<Socket>,
    nftables: AsyncFd<Socket>,
    ports: Ports,
}

/// Why listening ended.
enum Ended {
    /// Nobody wants to know any more.
    Unheard,
    Failed(io::Error),
}

impl Listener {
    fn open(netns: &NetNs) -> io::Result<Self> {
        let open = |protocol, groups: &[u32]| -> io::Result<AsyncFd<Socket>> {
            let mut socket = netns.run(|| Socket::new(protocol))?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            groups.iter().try_for_each(|group| socket.add_membership(*group))?;
            // SAFETY: a Socket owns one descriptor, always the same, and closes it when it is dropped.
            Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
        };
        let (routing, nftables) = (open(NETLINK_ROUTE, &ROUTING)?, open(NETLINK_NETFILTER, &NFTABLES)?);
        Ok(Self { netns: netns.clone(), routing, nftables, ports: Ports::read(netns)? })
    }

    async fn tell(mut self, shared: &Shared, sender: &mpsc::Sender<Event>) -> Ended {
        loop {
            let told = tokio::select! {
                datagram = receive(&self.routing) => datagram.map(|datagram| self.events(shared, &datagram)),
                datagram = receive(&self.nftables) => datagram.map(|datagram| of_packet_filter(&datagram)),
            };
            let events = match told {
                Ok(events) => events,
                // The kernel had more to tell than we had room for.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => match self.catch_up() {
                    Ok(events) => events,
                    Err(error) => return Ended::Failed(error),
                },
                Err(error) => return Ended::Failed(error),
            };
            for event in events {
                if send(sender, event).await.is_err() {
                    return Ended::Unheard;
                }
            }
        }
    }

    /// What a datagram tells; the same thing several times is told once.
    fn events(&mut self, shared: &Shared, datagram: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for message in messages(datagram) {
            for event in self.read(shared, message) {
                if !events.contains(&event) {
                    events.push(event);
                }
            }
        }
        events
    }

    fn read(&mut self, shared: &Shared, message: NetlinkMessage<RouteNetlinkMessage>) -> Vec<Event> {
        // The kernel names the socket that asked for a change: of what we did ourselves nobody need be told.
        let requester = message.header.port_number;
        if requester != 0 && requester == shared.socket_id() {
            return Vec::new();
        }
        let NetlinkPayload::InnerMessage(message) = message.payload else { return Vec::new() };
        let drift = |what: String| vec![Event::Drift { what }];
        match message {
            RouteNetlinkMessage::NewLink(link) => self.ports.changed(&link),
            RouteNetlinkMessage::DelLink(link) => self.ports.gone(&link),
            RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule)
                if is_owners_rule(&rule, shared) =>
            {
                vec![Event::Routing]
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                if is_owners_route(&route, shared) =>
            {
                vec![Event::Routing]
            }
            RouteNetlinkMessage::NewRule(rule) => {
                drift(format!("rule {} was added", words::foreign_rule(&rule)))
            }
            RouteNetlinkMessage::DelRule(rule) => {
                drift(format!("rule {} was deleted", words::foreign_rule(&rule)))
            }
            RouteNetlinkMessage::NewRoute(route) if concerns_tables(&route, shared) => {
                drift(format!("route {} was put", words::route(&route)))
            }
            RouteNetlinkMessage::DelRoute(route) if concerns_tables(&route, shared) => {
                drift(format!("route {} was deleted", words::route(&route)))
            }
            RouteNetlinkMessage::NewAddress(address) => {
                drift(format!("an address of {} was put or changed", self.ports.name(address.header.index)))
            }
            RouteNetlinkMessage::DelAddress(address) => {
                drift(format!("an address of {} was deleted", self.ports.name(address.header.index)))
            }
            _ => Vec::new(),
        }
    }

    fn catch_up(&mut self) -> io::Result<Vec<Event>> {
        let now = Ports::read(&self.netns)?;
        let mut events = vec![Event::Drift { what: "events were missed: too many at once".to_owned() }];
        events.extend(std::mem::replace(&mut self.ports, now.clone()).differences(&now));
        Ok(events)
    }
}

async fn receive(socket: &AsyncFd<Socket>) -> io::Result<Vec<u8>> {
    loop {
        let mut ready = socket.readable().await?;
        if let Ok(outcome) = ready.try_io(|socket| socket.get_ref().recv_from_full()) {
            return outcome.map(|(datagram, _)| datagram);
        }
    }
}

/// What the owner's packet filter does to addresses may have changed.
fn of_packet_filter(datagram: &[u8]) -> Vec<Event> {
    let mut messages = nftables_messages(datagram).into_iter();
    let is_owners =
        messages.any(|message| message.is_of_rules() && message.table.as_deref() != Some(OUR_NFTABLES_TABLE));
    is_owners.then_some(Event::Routing).into_iter().collect()
}

/// What finds the backlog full is one of many that say the same: look again.
async fn send(sender: &mpsc::Sender<Event>, event: Event) -> Result<(), ()> {
    match &event {
        Event::Drift { .. } | Event::Routing => match sender.try_send(event) {
            Err(mpsc::error::TrySendError::Closed(_)) => Err(()),
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        },
        Event::Port { .. } => sender.send(event).await.map_err(|_| ()),
    }
}

/// Ours, those among ours, and those before ours: they decide first.
fn concerns_rules(rule: &RuleMessage, shared: &Shared) -> bool {
    let numbers = &shared.numbers;
    crate::rule::priority(rule) <= numbers.last_priority()
        || rule.attributes.contains(&RuleAttribute::Protocol(numbers.protocol))
}

/// It decides behind ours: only of packets that ours let pass.
fn is_owners_rule(rule: &RuleMessage, shared: &Shared) -> bool {
    !concerns_rules(rule, shared)
}

/// In none of our tables, and no entry of a cache.
fn is_owners_route(route: &RouteMessage, shared: &Shared) -> bool {
    !concerns_tables(route, shared)
        && route.header.protocol != shared.numbers.protocol
        && !route.header.flags.contains(RouteFlags::Cloned)
}

fn concerns_tables(route: &RouteMessage, shared: &Shared) -> bool {
    shared.numbers.path(table_of(route)).is_some()
}

/// All ports of the element, and whether they are up.
#[derive(Clone, Debug, Default)]
struct Ports(BTreeMap<u32, (PortName, bool)>);

impl Ports {
    fn read(netns: &NetNs) -> io::Result<Self> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = Connection::open(netns)?.dump(&request).map_err(io::Error::other)?;
        let mut ports = Self::default();
        for link in links {
            if let RouteNetlinkMessage::NewLink(link) = link {
                ports.changed(&link);
            }
        }
        Ok(ports)
    }

    fn changed(&mut self, link: &LinkMessage) -> Vec<Event> {
        let Some(port) = port_of(link) else { return Vec::new() };
        let before = self.0.insert(link.header.index, port.clone());
        difference(before, Some(port))
    }

    fn gone(&mut self, link: &LinkMessage) -> Vec<Event> {
        if port_of(link).is_none() {
            return Vec::new();
        }
        difference(self.0.remove(&link.header.index), None)
    }

    fn differences(&self, now: &Ports) -> Vec<Event> {
        let indices = self.0.keys().chain(now.0.keys().filter(|index| !self.0.contains_key(index)));
        indices.flat_map(|index| difference(self.0.get(index).cloned(), now.0.get(index).cloned())).collect()
    }

    fn name(&self, index: u32) -> String {
        self.0.get(&index).map_or_else(|| format!("port {index}"), |(name, _)| name.to_string())
    }
}

/// What a message says of a port; `None` where it tells of something else, such as being a bridge's.
fn port_of(link: &LinkMessage) -> Option<(PortName, bool)> {
    if link.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    Some((name_of(link)?, is_up(link)))
}

fn difference(before: Option<(PortName, bool)>, after: Option<(PortName, bool)>) -> Vec<Event> {
    if before == after {
        return Vec::new();
    }
    let renamed = match (&before, &after) {
        (Some((old, _)), Some((new, _))) => old != new,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let left = before.filter(|_| renamed).map(|(port, _)| Event::Port { port, up: false });
    left.into_iter().chain(after.map(|(port, up)| Event::Port { port, up })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, up: bool) -> Option<(PortName, bool)> {
        Some((name.parse().unwrap(), up))
    }

    fn told(port: &str, up: bool) -> Event {
        Event::Port { port: port.parse().unwrap(), up }
    }

    #[test]
    fn a_port_is_told_when_it_changes() {
        assert_eq!(difference(None, port("a", true)), [told("a", true)]);
        assert_eq!(difference(port("a", true), port("a", true)), []);
        assert_eq!(difference(port("a", true), port("a", false)), [told("a", false)]);
        assert_eq!(difference(port("a", false), None), [told("a", false)]);
        assert_eq!(difference(port("a", true), port("b", true)), [told("a", false), told("b", true)]);
    }
}

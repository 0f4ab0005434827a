//! Telling of changes by others.
//!
//! Ports come and go by netlink's word, and so do neighbours, of whom nobody is told: the maps are brought up to date with
//! both (`surroundings`); and routes, which tunnels depend on that cut outer packets. Filters and qdiscs are told by
//! netlink too, removed pins by inotify. But when
//! someone detaches a tcx link, or removes a program through it, the kernel tells nobody: that alone is why the
//! attachments are also looked at every [`Times::look`](crate::Times), which costs a few system calls a port and
//! reads no map.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{DriverError, Event};
use catena_model::name::PortName;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::netlink::{Link, messages};
use crate::observe::Damage;
use crate::pins::Pins;

/// How many events wait for a slow listener; more are told as one.
const WAITING: usize = 64;

/// A driver whose element can be watched.
pub(crate) trait Watched: Send + Sync + 'static {
    fn netns(&self) -> &NetNs;
    fn pins(&self) -> &Pins;
    /// How often to look where nobody tells.
    fn look_every(&self) -> Duration;
    /// The groups of rtnetlink (`RTNLGRP_…`) that tell of what makes looking worthwhile.
    fn groups(&self) -> &[u32];
    /// Brings up to date what others decide, when netlink has said something.
    fn refresh(&self) -> Result<(), DriverError>;
    /// What is wrong with routes, which is looked at when netlink has said something.
    fn misrouted(&self) -> Result<BTreeSet<Damage>, DriverError> {
        Ok(BTreeSet::new())
    }
    /// What is wrong.
    fn damage(&self) -> Result<BTreeSet<Damage>, DriverError>;
}

/// Watches until the listener or the driver is gone. Needs a Tokio runtime.
pub(crate) fn watch<W: Watched>(driver: &Arc<W>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let driver = Arc::downgrade(driver);
    tokio::spawn(async move {
        if let Err(error) = Watch::run(driver, &sender).await {
            tracing::warn!(%error, "the steering engine is no longer watched");
            let _ = sender.send(Event::Drift { what: format!("watching ended: {error}") }).await;
        }
    });
    receiver
}

struct Watch<'a, W> {
    driver: Weak<W>,
    sender: &'a mpsc::Sender<Event>,
    /// What was wrong when last looked.
    known: BTreeSet<Damage>,
    /// What of it has to do with routes.
    misrouted: BTreeSet<Damage>,
}

impl<W: Watched> Watch<'_, W> {
    async fn run(driver: Weak<W>, sender: &mpsc::Sender<Event>) -> Result<(), DriverError> {
        let Some(first) = driver.upgrade() else { return Ok(()) };
        let failed = |error: io::Error| DriverError::failed("cannot watch the element", error);
        let netlink = first.netns().run(|| listen(first.groups())).map_err(failed)?;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let links = readiness(netlink.as_fd()).map_err(failed)?;
        let pins = readiness(inotify.as_fd()).map_err(failed)?;
        let mut look = interval(first.look_every());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        drop(first);

        let mut watch = Watch { driver, sender, known: BTreeSet::new(), misrouted: BTreeSet::new() };
        let mut is_told = false;
        loop {
            tokio::select! {
                () = sender.closed() => return Ok(()),
                ready = links.readable() => {
                    ready.map_err(failed)?.clear_ready();
                    let told = read_netlink(&netlink);
                    told.events.into_iter().for_each(|event| watch.tell(event));
                    is_told = true;
                    // These come all the time, and can wait for the next look.
                    if told.is_of_neighbours_alone {
                        continue;
                    }
                }
                ready = pins.readable() => {
                    ready.map_err(failed)?.clear_ready();
                    // What happened is found out by looking.
                    while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                }
                _ = look.tick() => {}
            }
            let Some(driver) = watch.driver.upgrade() else { return Ok(()) };
            watch_pins(&inotify, driver.pins());
            watch.look(driver, std::mem::take(&mut is_told)).await;
        }
    }

    /// `is_told`: netlink has said something. Only then routes can be others.
    async fn look(&mut self, driver: Arc<W>, is_told: bool) {
        let look = move || {
            if is_told && let Err(error) = driver.refresh() {
                tracing::debug!(%error, "cannot ask for ports and neighbours");
            }
            Ok((driver.damage()?, if is_told { Some(driver.misrouted()?) } else { None }))
        };
        let looked: Result<Result<_, DriverError>, _> = tokio::task::spawn_blocking(look).await;
        let damage = match looked {
            Ok(Ok((damage, misrouted))) => {
                self.misrouted = misrouted.unwrap_or(std::mem::take(&mut self.misrouted));
                &damage | &self.misrouted
            }
            Ok(Err(error)) => BTreeSet::from([format!("cannot look at the element: {error}")]),
            // The driver ends, and the runtime with it.
            Err(_) => return,
        };
        let new = damage.difference(&self.known).cloned().collect::<Vec<_>>();
        if !new.is_empty() {
            self.tell(Event::Drift { what: new.join(", ") });
        }
        self.known = damage;
    }

    fn tell(&self, event: Event) {
        // A full queue holds events that make the listener look at everything anyway.
        let _ = self.sender.try_send(event);
    }
}

/// Tells when there is something to read.
fn readiness(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the clone owns its descriptor, and nobody else can close it.
    Ok(unsafe { AsyncFd::register(fd.try_clone_to_owned()?) }?)
}

fn listen(groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// What netlink has told.
#[derive(Debug)]
struct Told {
    events: Vec<Event>,
    is_of_neighbours_alone: bool,
}

/// What it has told since. What it had no room for is found by looking.
fn read_netlink(socket: &Socket) -> Told {
    let mut told = Told { events: Vec::new(), is_of_neighbours_alone: true };
    loop {
        match socket.recv_from_full() {
            Ok((datagram, _)) => {
                for message in messages(&datagram).unwrap_or_default() {
                    told.is_of_neighbours_alone &= is_of_neighbour(&message.payload);
                    told.events.extend(port_event(&message.payload));
                }
            }
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                told.is_of_neighbours_alone = false;
            }
            Err(_) => return told,
        }
    }
}

fn is_of_neighbour(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    use RouteNetlinkMessage::{DelNeighbour, NewNeighbour};
    matches!(payload, NetlinkPayload::InnerMessage(NewNeighbour(_) | DelNeighbour(_)))
}

fn port_event(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<Event> {
    let (link, there) = match payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => (link, true),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => (link, false),
        _ => return None,
    };
    let link = Link::read(link)?;
    Some(Event::Port { port: PortName::new(&link.name).ok()?, up: there && link.up })
}

/// The folder comes and goes with the objects; watching it twice is watching it once.
fn watch_pins(inotify: &Inotify, pins: &Pins) {
    let folder = pins.folder();
    if let Err(error) = inotify.add_watch(folder, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF)
        && error != Errno::ENOENT
    {
        tracing::debug!(%error, "the folder of pins cannot be watched");
    }
}

//! Policy routing over netlink, in any network namespace: physical Linux routers, and virtual ones such as Neutron's
//! `qrouter-…`.
//!
//! A [`Rule`](catena_model::forwarding::Rule) is a line of `ip rule` with a guard behind it, a [`Table`](catena_model::forwarding::Table) a
//! routing table of its own:
//!
//! ```text
//! # ip rule
//! 10000:  from 172.16.1.0/24 lookup 10001 proto 202
//! 10256:  from 172.16.1.0/24 unreachable proto 202
//! # ip route show table 10001
//! default via 10.21.0.5 dev qr-abc proto 202
//! unreachable default proto 202 metric 4278198272
//! ```
//!
//! The guard and the unreachable route do the same work: what a rule claims never falls through to the owner's routing.
//! There are two because either may be taken away: a flushed table lets packets on to the guard, and while the guard is
//! missing the table is closed.
//!
//! What has our protocol number, and lies in our band of priorities or range of tables ([`numbers`]), is ours; nothing
//! else is touched. The driver keeps nothing in memory that the kernel does not know, apart from the newest epoch.
//!
//! It knows nothing of eBPF, of chains, or of why a rule is wanted. Begin reading at [`apply`], then [`rule`] and
//! [`table`], which say how ours look to the kernel.

mod apply;
mod base;
mod check;
mod error;
mod events;
mod iptables;
mod kernel;
mod netfilter;
mod numbers;
mod observe;
mod rule;
mod rules;
mod table;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use catena_driver::netlink::Connection;
use catena_driver::netns::NetNs;
use catena_driver::{Driver, DriverError, Epoch, Event};
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, Kind};
use catena_model::name::NodeName;
use catena_model::resource::LinuxSpec;
use tokio::sync::mpsc;

use kernel::Kernel;
use numbers::Numbers;
use words::Place;

/// The element to drive.
#[derive(Clone, Debug)]
pub struct LinuxConfig {
    pub element: NodeName,
    pub netns: NetNs,
    /// Which numbers are ours. Its namespace's name is for messages alone; `netns` is where things happen.
    pub spec: LinuxSpec,
}

/// Drives the policy routing of one element. Its methods need a Tokio runtime.
pub struct LinuxDriver {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    netns: NetNs,
    numbers: Numbers,
    state: Mutex<State>,
    /// The id of the socket that asks for our changes; 0 as long as there is none.
    socket_id: AtomicU32,
}

struct State {
    /// Opened at the first call, and again after it broke.
    connection: Option<Connection>,
    newest: Epoch,
}

impl LinuxDriver {
    pub fn new(config: LinuxConfig) -> Self {
        let LinuxConfig { element, netns, spec } = config;
        Self {
            shared: Arc::new(Shared {
                numbers: Numbers::of(&spec),
                place: Place { element, netns: spec.netns },
                netns,
                state: Mutex::new(State { connection: None, newest: Epoch(0) }),
                socket_id: AtomicU32::new(0),
            }),
        }
    }

    /// Runs `work` where it may block. It runs to its end also if the caller no longer waits for it.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared, &mut State) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let shared = self.shared.clone();
        let place = shared.place.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A call that panicked leaves no state that the next one relies on.
            let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            work(&shared, &mut state)
        });
        done.await.map_err(|error| DriverError::failed(place.to_string(), error))?
    }
}

impl Shared {
    fn with_kernel<T>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut Kernel<'_>) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let connection = match &mut state.connection {
            Some(connection) => connection,
            none => {
                let opened = Connection::open(&self.netns).map_err(|error| {
                    DriverError::failed(format!("{}: opening netlink", self.place), error)
                })?;
                self.socket_id.store(opened.id, Ordering::Relaxed);
                none.insert(opened)
            }
        };
        let mut kernel = Kernel::new(&self.place, self.numbers, connection);
        let outcome = work(&mut kernel);
        if kernel.lost {
            state.connection = None;
        }
        outcome
    }

    fn socket_id(&self) -> u32 {
        self.socket_id.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Driver for LinuxDriver {
    fn capabilities(&self) -> BTreeSet<Kind> {
        BTreeSet::from([Kind::Table, Kind::Rule])
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.call(move |shared, state| {
            shared.with_kernel(state, |kernel| check::check(kernel, &shared.netns, &changes))
        })
        .await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        self.call(|shared, state| shared.with_kernel(state, observe::observe)).await
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.call(move |shared, state| {
            if epoch < state.newest {
                return Err(DriverError::Stale { given: epoch, newest: state.newest });
            }
            state.newest = epoch;
            shared.with_kernel(state, |kernel| apply::apply(kernel, &changes))
        })
        .await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        events::listen(&self.shared)
    }

    async fn base(&self) -> Result<Option<BaseRouting>, DriverError> {
        self.call(|shared, state| {
            let translations = netfilter::translations(&shared.place, &shared.netns)?;
            let base = shared.with_kernel(state, base::base)?;
            Ok(Some(BaseRouting { translations, ..base }))
        })
        .await
    }
}

impl fmt::Debug for LinuxDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxDriver").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::SocketAddr;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_broke_is_opened_anew() {
        let driver = LinuxDriver::new(LinuxConfig {
            element: "qrouter-1234".parse().unwrap(),
            netns: NetNs::create().unwrap(),
            spec: LinuxSpec::in_netns("qrouter-1234"),
        });
        driver.observe().await.unwrap();
        {
            let mut state = driver.shared.state.lock().unwrap();
            // No longer to the kernel, but to a program that does not exist.
            state.connection.as_mut().unwrap().socket().connect(&SocketAddr::new(u32::MAX - 1, 0)).unwrap();
        }
        assert!(driver.observe().await.unwrap_err().is_transient());
        driver.observe().await.unwrap();
    }
}

//! Policy routing by nftables verdict maps, in any network namespace.
//!
//! The kernel looks at its policy rules one after the other, so that with a rule for each tenant every packet pays for all
//! of them. Here a tenant's rule is an element of a hash map. A packet is looked up there, in one step for each length of
//! prefix in use, and gets the number of a next hop into its mark; `ip rule` has one line for each next hop, which all
//! tenants share. What the maps look like is told in [`contents`], what the kernel has beside them in [`catena_driver::hops`].
//!
//! What a rule claims goes to its next hop or is dropped, whichever part somebody takes away:
//!
//! - a hop's routing table ends in an unreachable route;
//! - without the hop's line of `ip rule`, or with an empty table, the packet meets the guard, a last line for all packets
//!   that have a hop;
//! - without any of our lines (`ip rule flush`) it comes to the chain `forward`, which drops what has a hop and is about to
//!   leave by another port;
//! - a rule whose table is not there leads to the chain `nowhere`.
//!
//! The table `inet catena` as a whole is what nothing else guards: who deletes it (`nft flush ruleset`) opens the owner's
//! ways until it is put back. Packets that the element sends itself are not looked at.
//!
//! All in the table `inet catena` is ours, and of policy rules and routes what has our protocol number and lies in our band
//! of priorities or range of tables; nothing else is touched. The driver keeps nothing in memory that the kernel does not
//! know, apart from the newest epoch.
//!
//! It knows nothing of eBPF, of chains, or of why a rule is wanted. Begin reading at [`contents`], then [`apply`].

mod apply;
mod check;
mod class;
mod contents;
mod events;
mod installed;
mod nft;
mod observe;
mod ruleset;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use catena_driver::hops::{Kernel, Numbers, Place};
use catena_driver::netlink::Connection;
use catena_driver::netns::NetNs;
use catena_driver::{Driver, DriverError, Epoch, Event};
use catena_model::forwarding::{Change, ElementState, Kind};
use catena_model::name::NodeName;
use catena_model::resource::LinuxSpec;
use tokio::sync::mpsc;

use nft::Nft;

/// The element to drive.
#[derive(Clone, Debug)]
pub struct NftConfig {
    pub element: NodeName,
    pub netns: NetNs,
    /// Which numbers are ours. Its namespace's name is for messages alone; `netns` is where things happen.
    pub spec: LinuxSpec,
}

/// Drives the policy routing of one element by nftables. Its methods need a Tokio runtime.
pub struct NftDriver {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    netns: NetNs,
    numbers: Numbers,
    nft: Nft,
    state: Mutex<State>,
    /// The id of the socket that asks for our changes; 0 as long as there is none.
    socket_id: AtomicU32,
}

struct State {
    /// Opened at the first call, and again after it broke.
    connection: Option<Connection>,
    newest: Epoch,
}

impl NftDriver {
    pub fn new(config: NftConfig) -> Self {
        let NftConfig { element, netns, spec } = config;
        let numbers = Numbers::of(&spec);
        let place = Place { element, netns: spec.netns };
        Self {
            shared: Arc::new(Shared {
                nft: Nft::new(place.clone(), netns.clone()),
                place,
                netns,
                numbers,
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
impl Driver for NftDriver {
    fn capabilities(&self) -> BTreeSet<Kind> {
        BTreeSet::from([Kind::Table, Kind::Rule])
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.call(move |shared, state| {
            shared.with_kernel(state, |kernel| check::check(&shared.place, &shared.nft, kernel, &changes))
        })
        .await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        self.call(|shared, state| {
            let released = shared.numbers.released;
            shared.with_kernel(state, |kernel| observe::observe(&shared.nft, kernel, released))
        })
        .await
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        let changes = changes.to_vec();
        self.call(move |shared, state| {
            if epoch < state.newest {
                return Err(DriverError::Stale { given: epoch, newest: state.newest });
            }
            state.newest = epoch;
            let released = shared.numbers.released;
            shared.with_kernel(state, |kernel| {
                apply::apply(&shared.place, &shared.nft, kernel, released, &changes)
            })
        })
        .await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        events::listen(&self.shared)
    }
}

impl fmt::Debug for NftDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NftDriver").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

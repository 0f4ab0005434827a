//! The drivers that there are, and the controller with them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use catena::linux;
use catena_control::{Controller, Drivers, Mode, Settings};
use catena_driver::netns::NetNs;
use catena_driver::simulated::{SimulatedDriver, SimulatedElement};
use catena_driver::{Driver, DriverError};
use catena_model::name::NodeName;
use catena_model::resource::{DriverSpec, Element, LinuxSpec};
use catena_replay::Place;
use catena_store::{Embedded, InMemory, Store, StoreError};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use tokio::sync::mpsc;

use crate::error::CliError;

/// Starts a controller of this machine that remembers in the folder `state`. One that only looks creates nothing there.
pub async fn controller(state: &Path, mode: Mode) -> Result<Controller, CliError> {
    let file = state.join("catena.redb");
    let store: Arc<dyn Store> = if mode == Mode::Look && !file.exists() {
        Arc::new(InMemory::default())
    } else {
        Arc::new(Embedded::open(file).await.map_err(CliError::Store)?)
    };
    let settings = Settings { mode, ..Settings::default() };
    Controller::start(store, Arc::new(Machine::default()), settings).await.map_err(CliError::Start)
}

/// Tries again for a while if the state is in use: by another command that does without a daemon, most likely.
pub async fn once_free<T>(attempt: impl AsyncFn() -> Result<T, CliError>) -> Result<T, CliError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(20);
    let start = Instant::now();
    loop {
        match attempt().await {
            Err(CliError::Store(StoreError::InUse { .. })) if start.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// The questions and answers of a controller of this machine.
pub async fn router(state: &Path, mode: Mode) -> Result<Router, CliError> {
    Ok(catena_api::router(controller(state, mode).await?))
}

/// This machine: its network namespaces.
#[derive(Debug, Default)]
struct Machine {
    /// They are nowhere else, so they are kept.
    simulated: Mutex<BTreeMap<NodeName, SimulatedElement>>,
}

impl Drivers for Machine {
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
        match &element.driver {
            DriverSpec::Linux(spec) => linux_drivers(&element.name, spec),
            DriverSpec::Simulated => {
                let mut all = self.simulated.lock().unwrap_or_else(PoisonError::into_inner);
                let simulated = all.entry(element.name.clone()).or_insert_with(|| SimulatedElement::new(0));
                Ok(vec![Arc::new(SimulatedDriver::new(simulated))])
            }
        }
    }

    fn identity(&self, element: &Element) -> Option<u64> {
        match &element.driver {
            DriverSpec::Linux(LinuxSpec { netns: Some(name), .. }) => {
                let path = namespace(name);
                // `ip netns add` makes an empty file first, and mounts the namespace over it.
                let mounted = statfs(&path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
                fs::metadata(path).ok().filter(|_| mounted).map(|found| found.ino())
            }
            DriverSpec::Linux(_) | DriverSpec::Simulated => None,
        }
    }

    fn arrivals(&self) -> Option<mpsc::Receiver<()>> {
        let (tell, told) = mpsc::channel(1);
        let watching = std::thread::Builder::new().name("netns-arrivals".to_owned()).spawn(move || {
            if let Err(error) = watch_namespaces(&tell) {
                tracing::warn!(%error, "arrivals of namespaces are not noticed at once");
            }
        });
        watching.ok().map(|_| told)
    }
}

/// Below the BPF file system's usual place: a folder for each element.
const PINS: &str = "/sys/fs/bpf/catena";

/// Routing by one driver, steering by another.
fn linux_drivers(element: &NodeName, spec: &LinuxSpec) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
    let netns = match &spec.netns {
        Some(name) => NetNs::named(name),
        None => NetNs::current(),
    };
    let netns = netns.map_err(|error| {
        let name = spec.netns.as_deref().unwrap_or("of this process");
        DriverError::failed(format!("cannot open the network namespace {name}"), error)
    })?;
    let pins = Path::new(PINS).join(element.as_str());
    let place = Place { element: element.clone(), netns, spec: spec.clone(), pins };
    Ok(vec![linux::routing(&place)?, linux::steering(&place, linux::settings(&spec.steer))?])
}

fn namespace(name: &str) -> PathBuf {
    Path::new(NetNs::NAMED).join(name)
}

/// Tells when something comes to where namespaces are named, or goes, until nobody listens.
fn watch_namespaces(tell: &mpsc::Sender<()>) -> Result<(), Errno> {
    /// `ip netns add` mounts the namespace right after it made the file.
    const MOUNTED_AFTER: Duration = Duration::from_millis(20);
    let inotify = Inotify::init(InitFlags::empty())?;
    let parent = Path::new(NetNs::NAMED).parent().unwrap_or(Path::new("/"));
    inotify.add_watch(parent, AddWatchFlags::IN_CREATE)?;
    loop {
        // The folder itself comes with the first namespace. Watching it again changes nothing.
        match inotify.add_watch(NetNs::NAMED, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
        inotify.read_events()?;
        std::thread::sleep(MOUNTED_AFTER);
        match tell.try_send(()) {
            // Full: it has been told already.
            Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
            Err(mpsc::error::TrySendError::Closed(())) => return Ok(()),
        }
    }
}

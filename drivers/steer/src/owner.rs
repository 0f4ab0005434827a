//! One program at a time changes an element: two that heal it by different wishes would undo each other's work forever.
//!
//! The sign of it is a socket in the element's namespace (unix(7), "abstract"): it leaves nothing behind on any way that
//! a program can end, and tells who holds it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use catena_driver::DriverError;
use nix::sys::socket::{getsockopt, sockopt};

/// Held by whoever may change the element.
#[derive(Debug)]
pub(crate) struct Owner {
    _socket: UnixListener,
}

/// So many milliseconds a thread may take to drop what it held.
const CLOSING: usize = 50;

/// Held by drivers of this process: they share it.
static HELD: Mutex<BTreeMap<PathBuf, Weak<Owner>>> = Mutex::new(BTreeMap::new());

impl Owner {
    /// In the element's namespace. `pins` are the element's.
    pub(crate) fn claim(pins: &Path) -> Result<Arc<Self>, DriverError> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, owner| owner.strong_count() > 0);
        if let Some(owner) = held.get(pins).and_then(Weak::upgrade) {
            return Ok(owner);
        }
        let failed = |error| DriverError::failed("cannot claim the element for this program", error);
        let name = name(pins).map_err(failed)?;
        let bind = || UnixListener::bind_addr(&name);
        let is_taken = |bound: &io::Result<_>| {
            bound.as_ref().is_err_and(|error: &io::Error| error.kind() == ErrorKind::AddrInUse)
        };
        let mut socket = bind();
        // One of our own that nobody holds any more is about to be closed by the thread that held it last.
        for _ in 0..CLOSING {
            if !is_taken(&socket) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            socket = bind();
        }
        let owner = match socket {
            Ok(socket) => Arc::new(Self { _socket: socket }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(in_use(pins, &name)),
            Err(error) => return Err(failed(error)),
        };
        held.insert(pins.to_owned(), Arc::downgrade(&owner));
        Ok(owner)
    }
}

/// Such a name has at most 107 bytes: of a long path, its end.
fn name(pins: &Path) -> io::Result<SocketAddr> {
    const LONGEST: usize = 90;
    let path = pins.as_os_str().as_encoded_bytes();
    let end = &path[path.len().saturating_sub(LONGEST)..];
    SocketAddr::from_abstract_name([b"catena-steer:", end].concat())
}

fn in_use(pins: &Path, name: &SocketAddr) -> DriverError {
    let holder = UnixStream::connect_addr(name)
        .ok()
        .and_then(|socket| getsockopt(&socket, sockopt::PeerCredentials).ok())
        .map_or("another program".to_owned(), |holder| format!("another program (process {})", holder.pid()));
    DriverError::Conflict {
        what: format!("{holder}, which steers by {},", pins.display()),
        help: "end it first, or ask it for the change: an element has one controller".to_owned(),
    }
}

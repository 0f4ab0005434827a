//! Linux network namespaces: holding one, making one without a name, doing something in one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace. It lives for as long as anybody holds it.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<File>);

impl NetNs {
    /// Where iproute2 keeps named namespaces.
    pub const NAMED: &str = "/run/netns";

    /// The namespace that `ip netns` calls `name`.
    pub fn named(name: &str) -> io::Result<Self> {
        Self::at(&Path::new(Self::NAMED).join(name))
    }

    /// The namespace that this thread is in.
    pub fn current() -> io::Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// A new namespace without a name: it and all in it are gone when the last holder lets go.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })
    }

    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(path)?)))
    }

    /// Runs `work` in the namespace, on a thread of its own, and waits for it. Sockets that `work` opens stay in it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A thread that changed its namespace is not given back to a pool: nobody would expect it there.
fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

//! The folder in a BPF file system that keeps the engine alive when nobody holds it: maps under their names, links
//! under the number of their port. It exists exactly while the element has an object.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use catena_driver::DriverError;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::statfs;

const LINK_PREFIX: &str = "link-";

/// An element has a folder for each of its engines, side by side.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    /// The steering engine's: others' names begin with it, and go on with a sign that no element's name has. (A BPF file
    /// system takes no dots.)
    element: PathBuf,
    folder: PathBuf,
}

/// Held while maps are read together, or changed: drivers of one element (a daemon's, a command's) do not see each
/// other's half-made changes. The kernel's forwarding does not ask for it.
pub(crate) type Lock = Flock<File>;

impl Pins {
    pub(crate) fn new(element: PathBuf) -> Self {
        Self { folder: element.clone(), element }
    }

    /// Of the routing engine.
    pub(crate) fn of_routes(element: PathBuf) -> Self {
        Self { folder: beside(&element, "route"), element }
    }

    /// The one of our engines that leaves a port last is to take the clsact qdisc away, since one of them has made it.
    pub(crate) fn leave_clsact(&self, ifindex: u32) -> Result<(), DriverError> {
        match fs::create_dir(self.clsact(ifindex)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(self.failed("make a sign in", error))
            }
            _ => Ok(()),
        }
    }

    /// Whether that was said, which is no longer so then.
    pub(crate) fn inherit_clsact(&self, ifindex: u32) -> bool {
        fs::remove_dir(self.clsact(ifindex)).is_ok()
    }

    fn clsact(&self, ifindex: u32) -> PathBuf {
        beside(&self.element, &format!("clsact-{ifindex}"))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn link(&self, ifindex: u32) -> PathBuf {
        self.folder.join(format!("{LINK_PREFIX}{ifindex}"))
    }

    /// The ports whose links are pinned.
    pub(crate) fn links(&self) -> Result<Vec<u32>, DriverError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("read", error)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| name.strip_prefix(LINK_PREFIX)?.parse().ok()).collect())
    }

    /// For reading; `None` if there is no folder.
    pub(crate) fn share(&self) -> Result<Option<Lock>, DriverError> {
        match File::open(&self.folder) {
            Ok(folder) => self.lock(folder, FlockArg::LockShared).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("open", error)),
        }
    }

    /// For changing; makes the folder.
    pub(crate) fn take(&self) -> Result<Lock, DriverError> {
        // Another driver may take the folder, or its parent, away between two of these steps.
        const ATTEMPTS: usize = 100;
        for _ in 0..ATTEMPTS {
            match fs::create_dir_all(&self.folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.failed("make", error)),
                _ => {}
            }
            let Ok(folder) = File::open(&self.folder) else { continue };
            let lock = self.lock(folder, FlockArg::LockExclusive)?;
            if self.exists() {
                return Ok(lock);
            }
        }
        Err(self.failed("make", io::Error::other("it is taken away again and again")))
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<(), DriverError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(DriverError::failed(format!("cannot remove {}", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Takes everything away, and the parent if nobody else has anything there.
    pub(crate) fn remove_all(&self) -> Result<(), DriverError> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.failed("remove", error)),
            _ => {}
        }
        if let Some(parent) = self.folder.parent() {
            // Fails where others' pins are, or where the file system itself begins: then it stays.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    /// Whether the folder is, or would be, in a BPF file system.
    pub(crate) fn check(&self) -> Result<(), DriverError> {
        let existing = self.folder.ancestors().find(|folder| folder.is_dir());
        let found = existing.and_then(|folder| statfs(folder).ok());
        if found.is_some_and(|found| i128::from(found.filesystem_type().0) == i128::from(libc::BPF_FS_MAGIC))
        {
            return Ok(());
        }
        Err(DriverError::Unsupported {
            what: format!("{} is not in a BPF file system", self.folder.display()),
            help: "mount one: mount -t bpf bpf /sys/fs/bpf".to_owned(),
        })
    }

    fn lock(&self, folder: File, how: FlockArg) -> Result<Lock, DriverError> {
        Flock::lock(folder, how).map_err(|(_, error)| self.failed("lock", error.into()))
    }

    fn failed(&self, what: &str, error: io::Error) -> DriverError {
        DriverError::failed(format!("cannot {what} the folder of pins {}", self.folder.display()), error)
    }
}

fn beside(element: &Path, what: &str) -> PathBuf {
    let mut name = element.as_os_str().to_owned();
    name.push("@");
    name.push(what);
    name.into()
}

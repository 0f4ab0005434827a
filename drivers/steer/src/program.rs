//! The programs: compiled by the build, verified and loaded by the kernel here.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use catena_driver::DriverError;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{ErrorKind, MapCore, MapHandle, Object, OpenMapMut, OpenObject, ProgramImpl};

use crate::bpf::{self, ProgramInfo};
use crate::hook::Seat;
use crate::maps::Maps;
use crate::pins::Pins;
use crate::settings::Settings;

pub(crate) mod skeleton {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, unused)]
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}

/// A program that the kernel has verified.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
    info: ProgramInfo,
    pub(crate) seat: Seat,
}

impl Program {
    /// `maps` are the numbers of those that outlive a program.
    pub(crate) fn new<T>(
        program: &ProgramImpl<'_, T>,
        maps: &BTreeSet<u32>,
        seat: Seat,
    ) -> Result<Self, DriverError> {
        let fd = program.as_fd().try_clone_to_owned();
        let described = fd.and_then(|fd| Ok(Self { info: bpf::program_info(fd.as_fd())?, fd, seat }));
        let mut program = described
            .map_err(|error| DriverError::failed("cannot ask about a program that was loaded", error))?;
        program.info.maps.retain(|id| maps.contains(id));
        Ok(program)
    }

    /// Whether another program is the same code on the same maps.
    pub(crate) fn is(&self, other: &ProgramInfo) -> bool {
        self.info.tag == other.tag && self.info.maps.iter().all(|id| other.maps.contains(id))
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The program set, with its maps.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) maps: Maps,
    /// The kernel's numbers of the maps.
    pub(crate) ids: BTreeSet<u32>,
    /// At every port.
    pub(crate) steer: Program,
    /// At the hidden end of the veth pair of tunnels.
    pub(crate) encap: Program,
    /// At no port: it goes over the flow table. Shared, since that may take longer than others want to wait.
    pub(crate) sweep: Arc<Program>,
}

impl Programs {
    /// Loads the programs into the kernel, on those maps that are pinned and new ones for the rest. Pins nothing.
    pub(crate) fn load(pins: &Pins, settings: &Settings) -> Result<Self, DriverError> {
        quiet_libbpf();
        let mut storage = MaybeUninit::<OpenObject>::uninit();
        let mut open = skeleton::SteerSkelBuilder::default()
            .open(&mut storage)
            .map_err(|error| DriverError::failed("cannot read the steering programs", error))?;
        prepare(open.open_object_mut(), pins, |map| settings.entries(map))?;
        let loaded = open.load().map_err(not_loaded)?;
        let find = |name: &'static str| map_of(loaded.object(), name);
        let maps = Maps::find(find)?;
        let ids = maps.ids()?;
        Ok(Self {
            maps,
            steer: Program::new(&loaded.progs.catena_steer, &ids, Seat::STEER)?,
            encap: Program::new(&loaded.progs.catena_encap, &ids, Seat::STEER)?,
            sweep: Arc::new(Program::new(&loaded.progs.catena_sweep, &ids, Seat::STEER)?),
            ids,
        })
    }
}

/// Gives the maps of an object the sizes that `entries` says, and puts those that are pinned in the place of new ones.
pub(crate) fn prepare(
    object: &mut OpenObject,
    pins: &Pins,
    entries: impl Fn(&str) -> Option<u32>,
) -> Result<(), DriverError> {
    // Those that libbpf makes of C's constants have a dot in their names, and come and go with each program.
    let is_ours = |map: &OpenMapMut<'_>| !map.name().as_encoded_bytes().contains(&b'.');
    for mut map in object.maps_mut().filter(is_ours) {
        if let Some(entries) = map.name().to_str().and_then(&entries) {
            map.set_max_entries(entries)
                .map_err(|error| DriverError::failed("cannot set the size of a map", error))?;
        }
        reuse(&mut map, pins)?;
    }
    Ok(())
}

pub(crate) fn map_of(object: &Object, name: &'static str) -> Result<MapHandle, DriverError> {
    let found = object.maps().find(|map| map.name() == name);
    let map = found.ok_or_else(|| DriverError::failed("the programs lack a map", name))?;
    MapHandle::try_from(&map).map_err(|error| DriverError::failed(format!("cannot hold map {name}"), error))
}

/// Takes the pinned map in the place of a new one, if there is one, and if it is what this program expects. It keeps the
/// size that it was made with.
fn reuse(map: &mut OpenMapMut<'_>, pins: &Pins) -> Result<(), DriverError> {
    let path = map.name().to_str().map(|name| pins.map(name)).unwrap_or_default();
    let failed = |error| DriverError::failed(format!("cannot open the pinned map {}", path.display()), error);
    let pinned = match MapHandle::from_pinned_path(&path) {
        Ok(pinned) => pinned,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let same = pinned.map_type() == map.map_type()
        && pinned.key_size() == map.key_size()
        && pinned.value_size() == map.value_size();
    if !same {
        return Err(DriverError::Conflict {
            what: format!("the pinned map {} of another version of the engine", path.display()),
            help: format!(
                "delete the chains with the version that made it, or, if forwarding may stop, remove {}",
                pins.folder().display()
            ),
        });
    }
    let (entries, wanted) = (pinned.max_entries(), map.max_entries());
    if entries != wanted {
        tracing::info!(map = %path.display(), entries, wanted, "a map keeps its size until all chains are deleted");
    }
    map.reuse_fd(pinned.as_fd()).map_err(failed)
}

pub(crate) fn not_loaded(error: libbpf_rs::Error) -> DriverError {
    let error = bpf::io_error(error);
    if let Some(refusal) = REFUSAL.take() {
        return DriverError::Unsupported {
            what: format!("this kernel's verifier does not take the steering programs: {refusal}"),
            help: "run Linux 6.1 or newer, and tell us of one that is and says this; the log has all of it at level debug"
                .to_owned(),
        };
    }
    match error.raw_os_error() {
        Some(libc::EPERM) => DriverError::Unsupported {
            what: "the kernel does not let us load eBPF programs".to_owned(),
            help: "run as root, or with the capabilities BPF, NET_ADMIN and PERFMON".to_owned(),
        },
        Some(libc::ENOSYS) => DriverError::Unsupported {
            what: "the kernel has no eBPF".to_owned(),
            help: "run Linux 6.1 or newer with CONFIG_BPF_SYSCALL".to_owned(),
        },
        // What the kernel does not know.
        Some(libc::EACCES | libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP) => DriverError::Unsupported {
            what: format!("this kernel does not take the steering programs ({error})"),
            help: "run Linux 6.1 or newer with CONFIG_BPF_SYSCALL, CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF; the log says \
                   more at level debug"
                .to_owned(),
        },
        _ => DriverError::failed("the kernel does not take the steering programs", error),
    }
}

thread_local! {
    /// The end of what the verifier said last when it refused a program, on this thread.
    static REFUSAL: Cell<Option<String>> = const { Cell::new(None) };
}

/// The last words before the verifier's statistics are why it refused.
fn refusal(log: &str) -> Option<String> {
    const WORDS: usize = 3;
    let (_, log) = log.split_once("-- BEGIN PROG LOAD LOG --")?;
    let said = log.lines().filter(|line| !line.is_empty() && !line.starts_with("--"));
    let said: Vec<_> = said.take_while(|line| !line.starts_with("processed ")).collect();
    Some(said[said.len().saturating_sub(WORDS)..].join("; "))
}

/// libbpf prints to standard error unless told otherwise; what it says belongs in the log.
pub(crate) fn quiet_libbpf() {
    libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Debug, |_, message| {
        if let Some(refusal) = refusal(&message) {
            REFUSAL.set(Some(refusal));
        }
        tracing::debug!(target: "libbpf", "{}", message.trim_end());
    })));
}

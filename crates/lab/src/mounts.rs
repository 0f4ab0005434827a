//! A lab's view of the file system: the machine's, but for what namespaces, the controller and eBPF keep in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use catena_driver::netns::NetNs;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::LabError;

/// Where the output of services goes, and that of the lab itself once it is detached.
pub(crate) const LOGS: &str = "/run/catena/lab";

const RUN: &str = "/run";
const BPF: &str = "/sys/fs/bpf";

/// What of the machine's `/run` a lab does not see. The lock file would make labs wait for each other.
const HIDDEN: [&str; 4] = ["netns", "catena", "catena-lab", "xtables.lock"];

/// Gives this mount namespace its own `/proc`, `/run` and `/sys/fs/bpf`.
pub(crate) fn make_own() -> Result<(), LabError> {
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(LabError::system("cannot make the mounts private"))?;
    forget_named_namespaces().map_err(LabError::system("cannot unmount the machine's /run/netns"))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, nothing)
        .map_err(LabError::system("cannot mount /proc"))?;
    own_run().map_err(LabError::system("cannot make a private /run"))?;
    mount(Some("bpf"), BPF, Some("bpf"), plain, nothing)
        .map_err(LabError::system(format!("cannot mount a BPF file system on {BPF}")))
}

/// The machine's named namespaces are mounts, which this mount namespace was given copies of: kept, they would keep alive
/// what the machine deletes.
fn forget_named_namespaces() -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // Later mounts may lie over earlier ones.
    for point in
        points.filter(|point| Path::new(point).starts_with(NetNs::NAMED)).collect::<Vec<_>>().iter().rev()
    {
        umount2(*point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// A new `/run` with all of the machine's in it but for [`HIDDEN`]. Mounting on single folders instead would leave these
/// folders behind on a machine that had none.
fn own_run() -> io::Result<()> {
    let machines = File::open(RUN)?;
    let machines = PathBuf::from(format!("/proc/self/fd/{}", machines.as_raw_fd()));
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("catena-lab"), RUN, Some("tmpfs"), plain, Some("mode=0755"))?;
    for entry in fs::read_dir(&machines)? {
        let entry = entry?;
        if !HIDDEN.iter().any(|hidden| entry.file_name() == *hidden) {
            show(&entry)?;
        }
    }
    fs::create_dir(NetNs::NAMED)?;
    fs::create_dir_all(LOGS)
}

fn show(entry: &fs::DirEntry) -> io::Result<()> {
    let (from, to) = (entry.path(), Path::new(RUN).join(entry.file_name()));
    let kind = entry.file_type()?;
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    match kind.is_dir() {
        true => fs::create_dir(&to)?,
        false => drop(File::create(&to)?),
    }
    mount(Some(&from), &to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    Ok(())
}

/// Gives a namespace a name, as `ip netns add` does.
pub(crate) fn name_namespace(netns: &NetNs, name: &str) -> io::Result<()> {
    use std::os::fd::AsFd;
    let path = Path::new(NetNs::NAMED).join(name);
    File::create_new(&path)?;
    let held = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
    mount(Some(held.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

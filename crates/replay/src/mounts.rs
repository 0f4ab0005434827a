//! Where a copy's programs and maps are pinned: where nobody else sees them, and nothing is left of them.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::ReplayError;

const BPF: &str = "/sys/fs/bpf";

/// Gives this thread, and those that it starts from now on, a mount namespace with a BPF file system of its own, which ends
/// with the last of them; tells where that is.
pub fn own_bpf_file_system() -> Result<PathBuf, ReplayError> {
    let failed = |error: Errno| ReplayError::BpfFileSystem(error.into());
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(failed)?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPF, Some("bpf"), plain, nothing).map_err(failed)?;
    Ok(PathBuf::from(BPF).join("catena"))
}

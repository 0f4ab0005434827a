//! What a lab's commands find in their environment: a controller's places of their own, and this program by its name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Tells that a process is in a lab.
const INSIDE: &str = "CATENA_LAB";
/// Private to each lab.
const RUN: &str = "/run/catena";

pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

pub fn variables() -> Vec<(OsString, OsString)> {
    let run = Path::new(RUN);
    vec![
        (INSIDE.into(), "1".into()),
        ("CATENA_SOCKET".into(), run.join("catena.sock").into()),
        ("CATENA_STATE".into(), run.join("state").into()),
        ("PATH".into(), path()),
    ]
}

/// This program's folder first, so that `catena` in a lab is the one that made it.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let own: Option<PathBuf> = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let folders = own.into_iter().chain(std::env::split_paths(&path));
    // A folder with a colon in its name cannot stand in a PATH.
    std::env::join_paths(folders).unwrap_or(path)
}

//! System calls on eBPF objects that libbpf-rs has no safe name for: links of tcx, pins, what a program is, and those on
//! many entries of a map at once, which tell how far they came.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use libbpf_sys::{
    BPF_F_AFTER, BPF_F_BEFORE, BPF_F_ID, BPF_LINK_TYPE_TCX, BPF_TCX_INGRESS, bpf_link_create,
    bpf_link_create_opts, bpf_link_detach, bpf_link_info, bpf_link_update, bpf_map_batch_opts,
    bpf_map_delete_batch, bpf_map_lookup_batch, bpf_map_update_batch, bpf_obj_get, bpf_obj_get_info_by_fd,
    bpf_obj_pin, bpf_prog_get_fd_by_id, bpf_prog_info, bpf_prog_query_opts, bpf_prog_test_run_opts,
    bpf_test_run_opts,
};

/// What a program is made of, and which maps it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub(crate) name: String,
    /// A digest of its instructions.
    pub(crate) tag: [u8; 8],
    pub(crate) maps: Vec<u32>,
}

/// Where a tcx link is attached, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// 0 once it is detached, or its device gone.
    pub(crate) ifindex: u32,
    pub(crate) program: u32,
}

/// Attaches at tc ingress of a port of this thread's namespace, before all others, or right after the program `behind`: a
/// packet that another program takes or lets pass must not thereby go round a chain.
pub(crate) fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32, behind: Option<u32>) -> io::Result<OwnedFd> {
    let mut options = bpf_link_create_opts {
        sz: size_of::<bpf_link_create_opts>() as u64,
        flags: behind.map_or(BPF_F_BEFORE, |_| BPF_F_AFTER | BPF_F_ID),
        ..Default::default()
    };
    options.__bindgen_anon_1.tcx.relative_id = behind.unwrap_or_default();
    // SAFETY: the descriptor is open, and the options live until the call returns.
    let fd = unsafe { bpf_link_create(program.as_raw_fd(), ifindex as i32, BPF_TCX_INGRESS, &options) };
    owned(fd)
}

/// How many programs stand at tcx ingress of a port of this thread's namespace; `None` where the kernel has no tcx
/// (before Linux 6.6).
pub(crate) fn count_tcx(ifindex: u32) -> Option<u32> {
    let mut options =
        bpf_prog_query_opts { sz: size_of::<bpf_prog_query_opts>() as u64, ..Default::default() };
    // SAFETY: the options live until the call returns; they point nowhere, so nothing but numbers is written.
    let outcome = unsafe { libbpf_sys::bpf_prog_query_opts(ifindex as i32, BPF_TCX_INGRESS, &mut options) };
    // SAFETY: all variants of the union are that number.
    (outcome == 0).then_some(unsafe { options.__bindgen_anon_1.prog_cnt })
}

/// The programs at tcx ingress of a port of this thread's namespace, in their order.
pub(crate) fn tcx_programs(ifindex: u32) -> Vec<u32> {
    const MOST: usize = 64;
    let mut programs = [0_u32; MOST];
    let mut options =
        bpf_prog_query_opts { sz: size_of::<bpf_prog_query_opts>() as u64, ..Default::default() };
    options.prog_ids = programs.as_mut_ptr();
    options.__bindgen_anon_1.prog_cnt = MOST as u32;
    // SAFETY: the options and the numbers live until the call returns, and are as many as said.
    let outcome = unsafe { libbpf_sys::bpf_prog_query_opts(ifindex as i32, BPF_TCX_INGRESS, &mut options) };
    // SAFETY: all variants of the union are that number.
    let count = unsafe { options.__bindgen_anon_1.prog_cnt } as usize;
    if outcome == 0 { programs[..count.min(MOST)].to_vec() } else { Vec::new() }
}

/// Another program in the place of the link's, between two packets.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open; null stands for no options.
    checked(unsafe { bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), ptr::null()) })
}

/// Detaches whoever else holds the link.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    checked(unsafe { bpf_link_detach(link.as_raw_fd()) })
}

/// `None` for what is not a tcx link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    let mut info = bpf_link_info::default();
    object_info(link, &mut info)?;
    if info.type_ != BPF_LINK_TYPE_TCX {
        return Ok(None);
    }
    // SAFETY: the kernel fills the part of the union that belongs to the type.
    let ifindex = unsafe { info.__bindgen_anon_1.tcx.ifindex };
    Ok(Some(LinkInfo { ifindex, program: info.prog_id }))
}

pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    const MOST_MAPS: usize = 64;
    let mut maps = [0_u32; MOST_MAPS];
    let mut info = bpf_prog_info {
        nr_map_ids: MOST_MAPS as u32,
        map_ids: maps.as_mut_ptr() as u64,
        ..Default::default()
    };
    object_info(program, &mut info)?;
    let count = (info.nr_map_ids as usize).min(MOST_MAPS);
    let name = info.name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte as u8)).collect();
    Ok(ProgramInfo { name, tag: info.tag, maps: maps[..count].to_vec() })
}

/// The kernel's numbers for programs are given anew after 2³¹ others: a program is what its info says.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes a number, gives a descriptor that is ours.
    owned(unsafe { bpf_prog_get_fd_by_id(id) })
}

pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the descriptor is open, and the string lives until the call returns.
    checked(unsafe { bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
}

pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the string lives until the call returns; the descriptor is ours.
    owned(unsafe { bpf_obj_get(path.as_ptr()) })
}

/// Writes `count` entries, and says how many were written when one of them could not be. A batch is no transaction.
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> Result<(), (u32, io::Error)> {
    let mut done = count;
    // SAFETY: keys and values live until the call returns, and are as many as said.
    let outcome = unsafe {
        bpf_map_update_batch(
            map.as_raw_fd(),
            keys.as_ptr().cast(),
            values.as_ptr().cast(),
            &mut done,
            &batch_options(),
        )
    };
    checked(outcome).map_err(|error| (done.min(count), error))
}

/// Deletes entries up to the first that is not there, and says how many were deleted then.
pub(crate) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> Result<(), (u32, io::Error)> {
    let mut done = count;
    // SAFETY: the keys live until the call returns, and are as many as said.
    let outcome =
        unsafe { bpf_map_delete_batch(map.as_raw_fd(), keys.as_ptr().cast(), &mut done, &batch_options()) };
    checked(outcome).map_err(|error| (done.min(count), error))
}

/// Where reading a map in batches goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place(Option<u32>);

/// Reads as many entries as `keys` and `values` have room for, from `place` on. Says how many, and where to go on; no
/// further place: that was all.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    mut place: Place,
    keys: &mut [u8],
    values: &mut [u8],
    room: u32,
) -> io::Result<(u32, Option<Place>)> {
    let mut next = 0_u32;
    let mut count = room;
    let from = place.0.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the buffers live until the call returns and have room for as many as said; a place in a hash or an array
    // is four bytes long.
    let outcome = unsafe {
        bpf_map_lookup_batch(
            map.as_raw_fd(),
            from.cast(),
            ptr::from_mut(&mut next).cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &mut count,
            &batch_options(),
        )
    };
    match checked(outcome) {
        Ok(()) => Ok((count.min(room), Some(Place(Some(next))))),
        // The end; what was read until then counts.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((count.min(room), None)),
        Err(error) => Err(error),
    }
}

fn batch_options() -> bpf_map_batch_opts {
    bpf_map_batch_opts { sz: size_of::<bpf_map_batch_opts>() as _, ..Default::default() }
}

/// Runs a program of tc once, on a frame that nobody sent, and says what it returned.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: frame.len() as u32,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the frame lives until the call returns, and is as long as said.
    checked(unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) })?;
    Ok(options.retval)
}

fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut length = size_of::<T>() as u32;
    let info = ptr::from_mut(info).cast();
    // SAFETY: `T` is the kernel's structure for this kind of object, and `length` says how much of it there is.
    checked(unsafe { bpf_obj_get_info_by_fd(object.as_fd().as_raw_fd(), info, &mut length) })
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// With the number that the kernel gave.
pub(crate) fn io_error(error: libbpf_rs::Error) -> io::Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(number);
        }
        source = cause.source();
    }
    io::Error::other(error)
}

/// libbpf's calls return the negative error number.
fn checked(outcome: i32) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::from_raw_os_error(-outcome)) } else { Ok(()) }
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    checked(fd)?;
    // SAFETY: the call that returned it gave it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

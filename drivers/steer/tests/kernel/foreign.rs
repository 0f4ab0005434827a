//! Somebody else's program at our ports.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use catena_driver::netns::NetNs;
use nix::net::if_::if_nametoindex;

use crate::world::skipped;

/// Whether the kernel has tcx (Linux 6.6). Where it has not, says so.
pub fn has_tcx() -> bool {
    let mut options = libbpf_sys::bpf_prog_query_opts {
        sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as u64,
        ..Default::default()
    };
    // SAFETY: the options live until the call returns. Every namespace has a first interface.
    let has = unsafe { libbpf_sys::bpf_prog_query_opts(1, libbpf_sys::BPF_TCX_INGRESS, &mut options) } == 0;
    if !has {
        skipped("this kernel has no tcx; filters are tested alone");
    }
    has
}

/// Somebody else's program, by tcx, at some ports.
pub struct Foreign {
    program: OwnedFd,
    _links: Vec<OwnedFd>,
    /// While it is open, the kernel counts how often programs run.
    _statistics: OwnedFd,
}

impl Foreign {
    /// A program that lets everything pass on.
    pub fn attach(netns: &NetNs, ports: &[&str]) -> Self {
        // mov r0, -1 (TCX_NEXT); exit
        let instructions = [[0xb7_u8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], [0x95, 0, 0, 0, 0, 0, 0, 0]];
        // SAFETY: the instructions and strings live until the call returns; the descriptor is ours.
        let program = unsafe {
            let fd = libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
                c"foreign".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr().cast(),
                instructions.len() as u64,
                std::ptr::null_mut(),
            );
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        let attach = |port: &&str| {
            let ifindex = if_nametoindex(*port)?;
            // SAFETY: null stands for no options; the descriptor is ours.
            let fd = unsafe {
                libbpf_sys::bpf_link_create(
                    program.as_raw_fd(),
                    ifindex as i32,
                    libbpf_sys::BPF_TCX_INGRESS,
                    std::ptr::null(),
                )
            };
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let links = netns.run(|| ports.iter().map(attach).collect::<std::io::Result<_>>()).unwrap();
        // SAFETY: takes a number; the descriptor is ours.
        let statistics = unsafe {
            let fd = libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME);
            assert!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
            OwnedFd::from_raw_fd(fd)
        };
        Self { program, _links: links, _statistics: statistics }
    }

    pub fn program_id(&self) -> u32 {
        self.info().id
    }

    /// How often it has run.
    pub fn runs(&self) -> u64 {
        self.info().run_cnt
    }

    fn info(&self) -> libbpf_sys::bpf_prog_info {
        let mut info = libbpf_sys::bpf_prog_info::default();
        let mut length = size_of_val(&info) as u32;
        // SAFETY: the structure lives until the call returns, and is as long as said.
        let outcome =
            unsafe { libbpf_sys::bpf_prog_get_info_by_fd(self.program.as_raw_fd(), &mut info, &mut length) };
        assert_eq!(outcome, 0);
        info
    }
}

/// The programs at tcx ingress of a port.
pub fn programs(netns: &NetNs, port: &str) -> Vec<u32> {
    netns
        .run(|| {
            let mut ids = [0; 16];
            let mut options = libbpf_sys::bpf_prog_query_opts {
                sz: size_of::<libbpf_sys::bpf_prog_query_opts>() as u64,
                prog_ids: ids.as_mut_ptr(),
                ..Default::default()
            };
            options.__bindgen_anon_1.prog_cnt = ids.len() as u32;
            let ifindex = if_nametoindex(port)? as i32;
            // SAFETY: the options and what they point to live until the call returns.
            let outcome = unsafe {
                libbpf_sys::bpf_prog_query_opts(ifindex, libbpf_sys::BPF_TCX_INGRESS, &mut options)
            };
            // SAFETY: the kernel has set it, unless it has no tcx.
            let count = if outcome == 0 { unsafe { options.__bindgen_anon_1.prog_cnt } } else { 0 };
            Ok(ids[..count as usize].to_vec())
        })
        .unwrap()
}

//! The few instructions of eBPF that the measuring itself needs, written down as such: there is nothing to compile.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use libbpf_rs::{TC_INGRESS, TcHookBuilder};
use libbpf_sys::bpf_insn;

use crate::frames::SHORT;
use crate::world::Port;

const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
/// The helper function's number.
const REDIRECT_PEER: i32 = libbpf_sys::BPF_FUNC_redirect_peer as i32;

/// Attaches a program to `port` that sends all packets to the other end of `to`'s cable, and does nothing else: the
/// least that steering by tc can cost.
pub fn redirect(port: &Port, to: &Port) -> Result<()> {
    let program = load(&[
        set(1, to.ifindex as i32),
        set(2, 0),
        instruction(libbpf_sys::BPF_JMP | libbpf_sys::BPF_CALL, 0, 0, 0, REDIRECT_PEER),
        exit(),
    ])?;
    attach(port, program.as_fd())
}

/// What a program counts.
#[derive(Debug)]
pub struct Tally(OwnedFd);

impl Tally {
    /// Attaches a program to `port` that counts short frames and drops them. All others pass.
    pub fn attach(port: &Port) -> Result<Self> {
        let map = new_array()?;
        let program = load(&[
            // The length stands first in struct __sk_buff.
            instruction(libbpf_sys::BPF_LDX | libbpf_sys::BPF_MEM | libbpf_sys::BPF_W, 0, 1, 0, 0),
            instruction(libbpf_sys::BPF_JMP | libbpf_sys::BPF_JNE | libbpf_sys::BPF_K, 0, 0, 6, SHORT as i32),
            // The address of the array's only value, in two instructions.
            instruction(
                libbpf_sys::BPF_LD | libbpf_sys::BPF_DW | libbpf_sys::BPF_IMM,
                2,
                libbpf_sys::BPF_PSEUDO_MAP_VALUE,
                0,
                map.as_raw_fd(),
            ),
            instruction(0, 0, 0, 0, 0),
            set(3, 1),
            instruction(
                libbpf_sys::BPF_STX | libbpf_sys::BPF_ATOMIC | libbpf_sys::BPF_DW,
                2,
                3,
                0,
                libbpf_sys::BPF_ADD as i32,
            ),
            set(0, TC_ACT_SHOT),
            exit(),
            set(0, TC_ACT_OK),
            exit(),
        ])?;
        attach(port, program.as_fd())?;
        Ok(Self(map))
    }

    pub fn read(&self) -> Result<u64> {
        let (key, mut value) = (0_u32, 0_u64);
        // SAFETY: key and value are as large as the map says (`new_array`), and outlive the call.
        let error = unsafe {
            libbpf_sys::bpf_map_lookup_elem(
                self.0.as_raw_fd(),
                (&raw const key).cast(),
                (&raw mut value).cast(),
            )
        };
        if error != 0 {
            return Err(io::Error::last_os_error()).context("cannot read what was counted");
        }
        Ok(value)
    }
}

fn instruction(code: u32, destination: u8, source: u32, offset: i16, immediate: i32) -> bpf_insn {
    let mut instruction = bpf_insn { code: code as u8, off: offset, imm: immediate, ..Default::default() };
    instruction.set_dst_reg(destination);
    instruction.set_src_reg(source as u8);
    instruction
}

fn set(register: u8, value: i32) -> bpf_insn {
    instruction(libbpf_sys::BPF_ALU64 | libbpf_sys::BPF_MOV | libbpf_sys::BPF_K, register, 0, 0, value)
}

fn exit() -> bpf_insn {
    instruction(libbpf_sys::BPF_JMP | libbpf_sys::BPF_EXIT, 0, 0, 0, 0)
}

fn load(instructions: &[bpf_insn]) -> Result<OwnedFd> {
    // SAFETY: the instructions outlive the call; name and licence are C strings; there are no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
            c"bench".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            instructions.as_ptr(),
            instructions.len() as _,
            std::ptr::null_mut(),
        )
    };
    owned(fd).context("cannot load a program of the measuring itself")
}

fn new_array() -> Result<OwnedFd> {
    // SAFETY: the name is a C string; there are no options.
    let fd = unsafe {
        libbpf_sys::bpf_map_create(
            libbpf_sys::BPF_MAP_TYPE_ARRAY,
            c"bench".as_ptr(),
            size_of::<u32>() as u32,
            size_of::<u64>() as u32,
            1,
            std::ptr::null(),
        )
    };
    owned(fd).context("cannot make a map to count in")
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(port: &Port, program: BorrowedFd<'_>) -> Result<()> {
    let attached = port.host.netns.run(|| {
        let mut hook = TcHookBuilder::new(program)
            .ifindex(port.ifindex as i32)
            .replace(true)
            .handle(1)
            .priority(1)
            .hook(TC_INGRESS);
        hook.create().and_then(|mut hook| hook.attach()).map(drop).map_err(io::Error::other)
    });
    attached.with_context(|| format!("cannot attach a program to {}", port.name))
}

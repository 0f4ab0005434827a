//! Sending prebuilt frames as fast as one core can.
//!
//! A packet socket hands each frame to the veth without a queue in between (PACKET_QDISC_BYPASS), and the softirq that
//! carries it on runs on the same core before the next frame is sent. So the sender can never be faster than what
//! it measures: nothing is lost in queues, and a slice's rate is the reciprocal of what one packet costs, its sending
//! included.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::frames::{self, Frames};
use crate::world::Port;

/// How many frames one system call sends.
const BATCH: usize = 64;

/// What a sender does with the frames of a batch before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Nothing: they are flows that were there before.
    Kept,
    /// Gives each one ports that it never had: each is a new flow.
    Fresh,
}

/// What was sent, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub short: u64,
    pub samples: u64,
    pub time: Duration,
}

pub struct Sender {
    socket: OwnedFd,
    frames: Frames,
    /// Longer frames, one in each [`Sender::BATCHES_PER_SAMPLE`] batches.
    samples: Vec<Vec<u8>>,
    ports: Ports,
    /// The time that a batch has; none means as fast as it goes.
    batch_time: Option<Duration>,
    next_frame: usize,
    next_sample: usize,
    batches: usize,
    /// How often all frames have been sent: what makes their ports fresh.
    round: u32,
}

impl Sender {
    const BATCHES_PER_SAMPLE: usize = Self::FRAMES_PER_SAMPLE / BATCH;
    pub const FRAMES_PER_SAMPLE: usize = 4096;

    /// From the port, to whoever the frames are addressed to. The number of frames is a multiple of a batch's.
    pub fn new(port: &Port, frames: Frames, samples: Vec<Vec<u8>>, ports: Ports) -> Result<Self> {
        anyhow::ensure!(
            frames.len() > 0 && frames.len().is_multiple_of(BATCH),
            "frames come in batches of {BATCH}"
        );
        let socket = port.host.netns.run(|| open(port.ifindex)).context("cannot open a packet socket")?;
        Ok(Self {
            socket,
            frames,
            samples,
            ports,
            batch_time: None,
            next_frame: 0,
            next_sample: 0,
            batches: 0,
            round: 0,
        })
    }

    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// From now on, no more than so many packets a second.
    pub fn limit(&mut self, rate: Option<f64>) {
        self.batch_time = rate.map(|rate| Duration::from_secs_f64(BATCH as f64 / rate));
    }

    /// Sends for so long. To be called on the sending core.
    pub fn send_for(&mut self, time: Duration) -> Result<Sent> {
        let start = Instant::now();
        let mut sent = Sent { short: 0, samples: 0, time };
        while start.elapsed() < time {
            self.send_batch(&mut sent)?;
            self.wait(start, &sent);
        }
        sent.time = start.elapsed();
        Ok(sent)
    }

    /// Sends so many batches' worth, or a little more. To be called on the sending core.
    pub fn send(&mut self, count: u64) -> Result<Sent> {
        let start = Instant::now();
        let mut sent = Sent { short: 0, samples: 0, time: Duration::ZERO };
        while sent.short < count {
            self.send_batch(&mut sent)?;
            self.wait(start, &sent);
        }
        sent.time = start.elapsed();
        Ok(sent)
    }

    fn send_batch(&mut self, sent: &mut Sent) -> Result<()> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        for (at, vector) in vectors.iter_mut().enumerate() {
            let Some(frame) = self.frames.get_mut(self.next_frame + at) else { break };
            if self.ports == Ports::Fresh {
                let [high, low] = [(self.round >> 16) as u16, self.round as u16];
                frames::set_ports(frame, low, 1024 + high);
            }
            *vector = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        }
        self.next_frame += BATCH;
        if self.next_frame == self.frames.len() {
            self.next_frame = 0;
            self.round += 1;
        }
        self.batches += 1;
        let sample = self
            .samples
            .get_mut(self.next_sample)
            .filter(|_| self.batches.is_multiple_of(Self::BATCHES_PER_SAMPLE));
        let samples = u64::from(sample.is_some());
        if let Some(sample) = sample {
            vectors[0] = libc::iovec { iov_base: sample.as_mut_ptr().cast(), iov_len: sample.len() };
            self.next_sample = (self.next_sample + 1) % self.samples.len();
        }
        self.transmit(&mut vectors)?;
        sent.samples += samples;
        sent.short += BATCH as u64 - samples;
        Ok(())
    }

    /// Until the next batch is due.
    fn wait(&self, start: Instant, sent: &Sent) {
        let Some(batch_time) = self.batch_time else { return };
        let due = batch_time * ((sent.short + sent.samples) / BATCH as u64) as u32;
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
    }

    fn transmit(&self, vectors: &mut [libc::iovec; BATCH]) -> Result<()> {
        // SAFETY: all zeros is a message header without address, data and control messages.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (message, vector) in messages.iter_mut().zip(vectors.iter_mut()) {
            message.msg_hdr.msg_iov = vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        while done < BATCH {
            let rest = &mut messages[done..];
            // SAFETY: the messages point to vectors, and those to frames, that outlive the call and that nobody else uses.
            let count =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            match usize::try_from(count) {
                Ok(count) => done += count,
                // The receiving end's queue is full: with that frame lost, as on any cable.
                Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => done += 1,
                Err(_) => return Err(io::Error::last_os_error()).context("cannot send frames"),
            }
        }
        Ok(())
    }
}

/// A packet socket that only sends, by the port with this number in this thread's namespace.
fn open(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed; protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let yes: libc::c_int = 1;
    // SAFETY: the option's value outlives the call, and its size is given.
    let error = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    if error != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is an address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    // SAFETY: the address outlives the call, and its size is given.
    let error =
        unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) };
    if error != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

//! The end of a line: short frames are counted there, and samples are looked at, byte by byte.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::frames::{Link, Tuple, frame};
use crate::program::Tally;
use crate::world::{Host, Port};

/// Whom all packets are for.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Where short frames would be delivered, if they were (RFC 863).
pub const DISCARD: u16 = 9;
/// Where samples are delivered.
const SAMPLES: u16 = 7;
/// How many different samples there are.
const KINDS: u16 = 32;
const PAYLOAD: usize = 256;
/// What came, and could not be used, in the lines of `/proc/net/snmp`.
const ERRORS: [(&str, &str); 5] = [
    ("Ip:", "InHdrErrors"),
    ("Udp:", "InErrors"),
    ("Udp:", "InCsumErrors"),
    ("Tcp:", "InErrs"),
    ("Tcp:", "InCsumErrors"),
];

pub struct Sink {
    host: Host,
    tally: Tally,
    samples: UdpSocket,
    errors: u64,
}

impl Sink {
    /// At the port of a host that has [`ADDRESS`].
    pub fn new(port: &Port) -> Result<Self> {
        let host = port.host.clone();
        host.ip(&format!("address add {ADDRESS}/32 dev lo"))?;
        let samples = host
            .netns
            .run(|| UdpSocket::bind(SocketAddrV4::new(ADDRESS, SAMPLES)))
            .context("cannot receive samples")?;
        samples.set_read_timeout(Some(Duration::from_millis(200)))?;
        Ok(Self { tally: Tally::attach(port)?, samples, errors: errors(&host)?, host })
    }

    /// How many short frames have come so far.
    pub fn count(&self) -> Result<u64> {
        self.tally.read()
    }

    /// Until so many have come, or nothing comes any more: where other programs want the core, too, the kernel puts
    /// softirqs off.
    pub fn wait_for(&self, count: u64) -> Result<()> {
        const PATIENCE: Duration = Duration::from_millis(100);
        let start = Instant::now();
        while self.count()? < count && start.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Takes the samples that have come and makes sure that they are what was sent. Says how many they were.
    pub fn take_samples(&self, sent: u64) -> Result<u64> {
        let mut buffer = [0; 2048];
        for taken in 0..sent {
            let Ok((length, from)) = self.samples.recv_from(&mut buffer) else { return Ok(taken) };
            let kind = from.port().wrapping_sub(1);
            ensure!(
                kind < KINDS && buffer.get(..length) == Some(&payload(kind)),
                "a packet from {from} did not arrive as it was sent"
            );
        }
        Ok(sent)
    }

    /// The kernel checks all that it delivers: what was damaged on the way is counted.
    pub fn check_errors(&mut self) -> Result<()> {
        let now = errors(&self.host)?;
        let before = std::mem::replace(&mut self.errors, now);
        if now != before {
            bail!("{} packets arrived damaged", now - before);
        }
        Ok(())
    }
}

/// Frames that a [`Sink`] knows again.
pub fn samples(link: Link, source: Ipv4Addr) -> Vec<Vec<u8>> {
    let sample = |kind| {
        let tuple = Tuple { source, source_port: kind + 1, destination: ADDRESS, destination_port: SAMPLES };
        frame(link, tuple, &payload(kind))
    };
    (0..KINDS).map(sample).collect()
}

fn payload(kind: u16) -> [u8; PAYLOAD] {
    let mut state = u32::from(kind) + 1;
    [(); PAYLOAD].map(|()| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

fn errors(host: &Host) -> Result<u64> {
    let text = host.proc_net("snmp")?;
    let lines: Vec<&str> = text.lines().collect();
    let mut sum = 0;
    for (group, name) in ERRORS {
        // Each group has a line of names and one of figures.
        let mut pair = lines.iter().filter(|line| line.starts_with(group));
        let (Some(names), Some(figures)) = (pair.next(), pair.next()) else {
            bail!("no {group} in net/snmp")
        };
        let at = names.split_whitespace().position(|word| word == name);
        let figure = at.and_then(|at| figures.split_whitespace().nth(at)?.parse::<u64>().ok());
        sum += figure.with_context(|| format!("no {group} {name} in net/snmp"))?;
    }
    Ok(sum)
}

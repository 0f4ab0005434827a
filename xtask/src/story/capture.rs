//! Packets as they are on the wire: tcpdump at a port, and what it wrote, read.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command;
use crate::story::node;
use crate::story::world::SCRATCH;

/// Running tcpdumps, one at each place.
pub struct Captures(Vec<Capture>);

/// What a TCP header (RFC 9293) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub syn: bool,
    pub ack: bool,
    pub sequence: u32,
    /// How many bytes it carries.
    pub data: usize,
}

impl Captures {
    /// Captures what `filter` (pcap-filter(7)) matches at ports of nodes; returns once all listen.
    pub fn start(places: &[(&str, &str)], filter: &str) -> Result<Self> {
        let begun: Result<Vec<Capture>> =
            places.iter().map(|(node, port)| Capture::begin(node, port, filter)).collect();
        let mut captures = begun?;
        for capture in &mut captures {
            capture.wait_until_it_listens()?;
        }
        Ok(Self(captures))
    }

    /// Ends the captures and gives back what each saw, in order, with the node where it was.
    pub fn stop(self) -> Result<Vec<(String, Vec<Captured>)>> {
        // What has just passed is still on its way to tcpdump.
        std::thread::sleep(Duration::from_millis(150));
        self.0.into_iter().map(|capture| Ok((capture.node.clone(), capture.end()?))).collect()
    }
}

/// A running tcpdump.
struct Capture {
    tcpdump: Child,
    /// Held until the end: tcpdump sums up there.
    stderr: BufReader<ChildStderr>,
    file: PathBuf,
    node: String,
}

/// An IP packet, and when it passed (since the epoch).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    pub at: Duration,
    pub packet: Packet,
}

/// An IP packet from its first header byte to its last payload byte; an Ethernet frame's padding is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet(pub Vec<u8>);

impl Capture {
    fn begin(node: &str, port: &str, filter: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = Path::new(SCRATCH).join(format!("{number}.pcap"));
        let mut tcpdump = node::on(node, "tcpdump");
        tcpdump.args(["-n", "-p", "-U", "-s", "0", "--immediate-mode", "-Z", "root", "-i", port]);
        // From one function to the next it may be less than a microsecond.
        tcpdump.args(["--time-stamp-precision", "nano", "-w"]);
        tcpdump.arg(&file).arg(filter).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tcpdump = tcpdump.spawn().context("cannot run tcpdump")?;
        let stderr = BufReader::new(tcpdump.stderr.take().context("tcpdump has no standard error")?);
        Ok(Self { tcpdump, stderr, file, node: node.to_owned() })
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let mut said = String::new();
        while self.stderr.read_line(&mut said).context("cannot hear from tcpdump")? > 0 {
            if said.contains("listening on") {
                return Ok(());
            }
        }
        bail!("tcpdump on {} does not listen: {said}", self.node)
    }

    fn end(mut self) -> Result<Vec<Captured>> {
        let pid = self.tcpdump.id().to_string();
        command::read("ending a capture", Command::new("kill").args(["-INT", &pid]))?;
        self.tcpdump.wait().context("cannot wait for tcpdump")?;
        let bytes = std::fs::read(&self.file).with_context(|| format!("no capture of {}", self.node))?;
        read_pcap(&bytes).with_context(|| format!("the capture of {} cannot be read", self.node))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Both have been done already where all went well; there is nothing to be said if not.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Packet {
    fn version(&self) -> u8 {
        self.0.first().map_or(0, |byte| byte >> 4)
    }

    /// The bytes that no router may change: all but TTL and header checksum (IPv4) or hop limit (IPv6).
    pub fn unchanging(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        let changing: &[usize] = if self.version() == 4 { &[8, 10, 11] } else { &[7] };
        for at in changing {
            if let Some(byte) = bytes.get_mut(*at) {
                *byte = 0;
            }
        }
        bytes
    }

    /// The TTL (IPv4) or hop limit (IPv6).
    pub fn hops_left(&self) -> u8 {
        let at = if self.version() == 4 { 8 } else { 7 };
        self.0.get(at).copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the header of what it carries begins; IPv6 without extension headers.
    fn payload(&self) -> &[u8] {
        let start = if self.version() == 4 {
            usize::from(self.0.first().map_or(0, |byte| byte & 15)) * 4
        } else {
            40
        };
        self.0.get(start..).unwrap_or_default()
    }

    /// The ports and flags, if this is TCP.
    pub fn tcp(&self) -> Option<Tcp> {
        const TCP: u8 = 6;
        let protocol = self.0.get(if self.version() == 4 { 9 } else { 6 })?;
        let header = self.payload();
        let two = |at: usize| Some(u16::from_be_bytes([*header.get(at)?, *header.get(at + 1)?]));
        let length = usize::from(header.get(12)? >> 4) * 4;
        let flags = *header.get(13)?;
        (*protocol == TCP).then_some(Tcp {
            source_port: two(0)?,
            destination_port: two(2)?,
            syn: flags & 0x02 != 0,
            ack: flags & 0x10 != 0,
            sequence: u32::from(two(4)?) << 16 | u32::from(two(6)?),
            data: header.len().saturating_sub(length),
        })
    }

    /// The MTU that an ICMP "too big" message tells: "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443).
    pub fn told_mtu(&self) -> Option<u32> {
        let protocol = self.0.get(if self.version() == 4 { 9 } else { 6 })?;
        match (protocol, self.payload()) {
            (1, [3, 4, _, _, _, _, high, low, ..]) => Some(u16::from_be_bytes([*high, *low]).into()),
            (58, [2, 0, _, _, a, b, c, d, ..]) => Some(u32::from_be_bytes([*a, *b, *c, *d])),
            _ => None,
        }
    }
}

/// The classic capture format (draft-ietf-opsawg-pcap), Ethernet, as tcpdump writes it on this machine.
fn read_pcap(bytes: &[u8]) -> Result<Vec<Captured>> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const NANOSECONDS: u32 = 0xa1b2_3c4d;
    const ETHERNET: u32 = 1;
    let word = |at: usize| -> Result<u32> {
        let four = bytes.get(at..at + 4).context("it ends too soon")?;
        Ok(u32::from_ne_bytes(four.try_into()?))
    };
    let scale = match word(0)? {
        MICROSECONDS => 1000,
        NANOSECONDS => 1,
        other => bail!("it begins with {other:#x}"),
    };
    ensure!(word(20)? == ETHERNET, "its link type is {}", word(20)?);
    let mut found = Vec::new();
    let mut at = HEADER;
    while at < bytes.len() {
        let length = word(at + 8)? as usize;
        ensure!(length == word(at + 12)? as usize, "a packet was cut");
        let frame = bytes.get(at + RECORD..at + RECORD + length).context("it ends too soon")?;
        let time = Duration::new(word(at)?.into(), word(at + 4)? * scale);
        found.extend(ip_packet(frame).map(|packet| Captured { at: time, packet }));
        at += RECORD + length;
    }
    Ok(found)
}

/// The IP packet in an Ethernet frame, if there is one.
fn ip_packet(frame: &[u8]) -> Option<Packet> {
    let (header, body) = frame.split_at_checked(14)?;
    let length = match header[12..] {
        [0x08, 0x00] => usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?])),
        [0x86, 0xdd] => 40 + usize::from(u16::from_be_bytes([*body.get(4)?, *body.get(5)?])),
        _ => return None,
    };
    Some(Packet(body.get(..length)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet of 24 bytes with TTL 64, in an Ethernet frame padded to 60.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 24, 0, 1, 0x40, 0, 64, 6, 0xaa, 0xbb]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4]);
        frame.resize(60, 0xff);
        frame
    }

    fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let mut bytes = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1]);
        for frame in frames {
            bytes.extend(words(&[7, 5, frame.len() as u32, frame.len() as u32]));
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn a_capture_is_read_without_padding() {
        let found = read_pcap(&pcap(&[frame(), vec![0; 20], frame()])).unwrap();
        assert_eq!(found.len(), 2, "what is not IP is left out");
        assert_eq!(found[0].at, Duration::new(7, 5000));
        assert_eq!(found[0].packet.len(), 24);
        assert_eq!(found[0].packet.hops_left(), 64);
        assert_eq!(found[0].packet.payload(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_broken_capture_is_not_taken_for_a_short_one() {
        let whole = pcap(&[frame()]);
        assert!(read_pcap(&whole[..whole.len() - 1]).is_err());
        assert!(read_pcap(&[]).is_err());
    }

    #[test]
    fn only_ttl_and_checksum_may_change() {
        let sent = ip_packet(&frame()).unwrap();
        let with = |at: usize| {
            let mut packet = sent.clone();
            packet.0[at] ^= 1;
            packet
        };
        for at in 0..24 {
            let same = with(at).unchanging() == sent.unchanging();
            assert_eq!(same, [8, 10, 11].contains(&at), "byte {at}");
        }
    }

    #[test]
    fn a_tcp_header_is_read() {
        let mut packet = ip_packet(&frame()).unwrap();
        packet.0.truncate(20);
        packet.0.extend([0, 80, 0x9c, 0x40, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, 0x12, 0, 0, 0, 0, 0, 0, b'd']);
        let tcp = packet.tcp().unwrap();
        assert_eq!((tcp.source_port, tcp.destination_port, tcp.sequence), (80, 40000, 0x0102_0304));
        assert!(tcp.syn && tcp.ack);
        assert_eq!(tcp.data, 1);
        packet.0[9] = 17;
        assert_eq!(packet.tcp(), None);
    }

    #[test]
    fn too_big_tells_the_mtu() {
        let mut v4 = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
        v4.extend([3, 4, 0, 0, 0, 0, 5, 0xc0]);
        assert_eq!(Packet(v4).told_mtu(), Some(1472));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
        v6.extend([0; 32]);
        v6.extend([2, 0, 0, 0, 0, 0, 5, 0xc0]);
        assert_eq!(Packet(v6).told_mtu(), Some(1472));
    }
}

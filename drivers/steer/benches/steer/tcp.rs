//! One TCP stream: what arrives is looked at, byte by byte at places, and counted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::line::{Measurable, on_sending_core};
use crate::sink;
use crate::world::Host;

const PORT: u16 = 5001;
const PATIENCE: Duration = Duration::from_secs(5);
/// The bytes that are sent, again and again. Their number is prime: a piece that is lost or moved is noticed.
const PATTERN: usize = 1_048_573;
/// How many bytes are compared at each end of what is read in one go.
const COMPARED: usize = 64;

/// A connection, and the thread that receives from it.
pub struct Stream {
    stream: TcpStream,
    pattern: Arc<[u8]>,
    sent: u64,
    receiver: Receiver,
}

struct Receiver {
    received: Arc<AtomicU64>,
    differs: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// To the sink's host, which has [`sink::ADDRESS`].
    pub fn open(source: &Host, to: &Host) -> Result<Self> {
        let address = SocketAddrV4::new(sink::ADDRESS, PORT);
        let listener = to.netns.run(|| TcpListener::bind(address)).context("cannot listen")?;
        let stream = source
            .netns
            .run(|| TcpStream::connect_timeout(&address.into(), PATIENCE))
            .context("cannot connect through what is to be measured")?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (accepted, _) = listener.accept()?;
        let pattern = pattern();
        let receiver = Receiver::start(accepted, Arc::clone(&pattern));
        Ok(Self { stream, pattern, sent: 0, receiver })
    }

    fn send_for(&mut self, time: Duration) -> Result<()> {
        const PIECE: usize = 256 << 10;
        let start = Instant::now();
        while start.elapsed() < time {
            let at = (self.sent % PATTERN as u64) as usize;
            let piece = &self.pattern[at..PATTERN.min(at + PIECE)];
            self.sent += self.stream.write(piece).context("the stream does not get through")? as u64;
        }
        Ok(())
    }

    fn wait_for_the_rest(&self) -> Result<()> {
        let start = Instant::now();
        while self.receiver.received.load(Ordering::Acquire) < self.sent {
            ensure!(start.elapsed() < PATIENCE, "the end of the stream does not arrive");
            std::hint::spin_loop();
        }
        ensure!(!self.receiver.differs.load(Ordering::Acquire), "other bytes arrive than were sent");
        Ok(())
    }
}

impl Measurable for Stream {
    /// Bits per second, until the last one has arrived.
    fn slice(&mut self, time: Duration) -> Result<f64> {
        let before = self.sent;
        on_sending_core(|| {
            let start = Instant::now();
            self.send_for(time)?;
            self.wait_for_the_rest()?;
            Ok((self.sent - before) as f64 * 8.0 / start.elapsed().as_secs_f64())
        })
    }
}

impl Receiver {
    /// On whatever core the calling thread is kept to.
    fn start(stream: TcpStream, pattern: Arc<[u8]>) -> Self {
        let (received, differs) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (received, differs) = (Arc::clone(&received), Arc::clone(&differs));
            move || receive(stream, &pattern, &received, &differs)
        });
        Self { received, differs, thread: Some(thread) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Whether it still can be told or not: the receiver ends with the connection.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.receiver.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(mut stream: TcpStream, pattern: &[u8], received: &AtomicU64, differs: &AtomicBool) {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0_u64;
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            return;
        }
        let compared = count.min(COMPARED);
        for begin in [0, count - compared] {
            let expected = ((at + begin as u64) % PATTERN as u64) as usize;
            if buffer[begin..begin + compared] != pattern[expected..expected + compared] {
                differs.store(true, Ordering::Release);
            }
        }
        at += count as u64;
        received.store(at, Ordering::Release);
    }
}

/// The pattern, and its beginning once more.
fn pattern() -> Arc<[u8]> {
    let byte = |at: usize| ((at % PATTERN) as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..PATTERN + COMPARED).map(byte).collect()
}

//! Packets from a sender to a sink, and what lies between: measured a slice at a time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::chain::Chain;
use crate::frames::{Frames, Link, Tuple};
use crate::send::{Ports, Sender};
use crate::sink::{self, Sink};
use crate::softirq;
use crate::world::{self, SENDING_CORE};

/// Something of which a slice can be measured.
pub trait Measurable {
    /// The rate at which it goes, per second.
    fn slice(&mut self, time: Duration) -> Result<f64>;
}

/// Whether what lies between may lose packets when more come than it can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All is done on the sending core, before the next packet is sent: what does not arrive was dropped wrongly.
    Forbidden,
    /// Another core carries the packets on: it takes what it can.
    Expected,
}

pub struct Line {
    sender: Sender,
    sink: Sink,
    loss: Loss,
}

impl Line {
    /// From the one end of a chain to the other, with these flows.
    pub fn new(chain: &Chain, tuples: impl IntoIterator<Item = Tuple>, loss: Loss) -> Result<Self> {
        let source = chain.source()?;
        let link = Link { source: source.mac, destination: chain.gateway };
        let mut tuples = tuples.into_iter().peekable();
        let sampled = tuples.peek().context("nothing to send")?.source;
        let samples = sink::samples(link, sampled);
        let sender = Sender::new(source, Frames::new(link, tuples), samples, Ports::Kept)?;
        let mut line = Self { sender, sink: Sink::new(chain.sink()?)?, loss };
        line.warm_up()?;
        Ok(line)
    }

    /// Sends no more than so many packets a second: if what lies between is kept busy by what it has to drop, it gets more
    /// done that way.
    pub fn limit(&mut self, rate: Option<f64>) {
        self.sender.limit(rate);
    }

    /// Each flow has been there before it is measured.
    fn warm_up(&mut self) -> Result<()> {
        const GENTLY: f64 = 20_000.0;
        let (limit, attempts) = match self.loss {
            Loss::Forbidden => (None, 1),
            Loss::Expected => (Some(GENTLY), 10),
        };
        let all = self.sender.frames().max(Sender::FRAMES_PER_SAMPLE) as u64;
        self.sender.limit(limit);
        for _ in 0..attempts {
            let sent = on_sending_core(|| self.sender.send(all))?;
            if self.sink.take_samples(sent.samples)? > 0 {
                self.sender.limit(None);
                return self.sink.check_errors();
            }
        }
        bail!("no packet arrives")
    }
}

impl Measurable for Line {
    fn slice(&mut self, time: Duration) -> Result<f64> {
        let sender = &mut self.sender;
        let sink = &self.sink;
        let loss = self.loss;
        let (sent, time, arrived, elsewhere) = on_sending_core(|| {
            let softirqs = softirq::Processed::now()?;
            let before = sink.count()?;
            let start = Instant::now();
            let sent = sender.send_for(time)?;
            if loss == Loss::Forbidden {
                sink.wait_for(before + sent.short)?;
            }
            let time = start.elapsed();
            Ok((sent, time, sink.count()? - before, softirqs.elsewhere_than(SENDING_CORE)?))
        })?;
        let samples = self.sink.take_samples(sent.samples)?;
        self.sink.check_errors()?;
        if loss == Loss::Forbidden {
            ensure!(
                arrived == sent.short && samples == sent.samples,
                "{} of {} packets arrived, and {samples} of {} samples",
                arrived,
                sent.short,
                sent.samples
            );
            ensure!(
                elsewhere < 0.01,
                "{:.0} % of the softirqs' work was done on another core",
                elsewhere * 100.0
            );
        }
        Ok((arrived + samples) as f64 / time.as_secs_f64())
    }
}

/// Runs `work` on a thread that has the sending core for itself.
pub fn on_sending_core<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            world::pin_to(SENDING_CORE)?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

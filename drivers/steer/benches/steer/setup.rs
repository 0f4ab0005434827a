//! New flows: every packet is the first one of its flow, and is dropped as soon as the first function has it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chain::{Chain, Joint};
use crate::figure::{Bar, Figure, Key};
use crate::flows;
use crate::frames::{Frames, Link};
use crate::line::on_sending_core;
use crate::program::Tally;
use crate::send::{Ports, Sender};

pub const FLOW_SETUP: Key = Key {
    name: "flow_setup_per_s",
    what: "new flows on one core, into a chain of 3",
    unit: Some("/s"),
    bar: Bar::AtLeast(500_000.0),
};

const TENANTS: u32 = 256;
/// Frames that are sent again and again, each time with new ports.
const FRAMES: usize = 4096;
/// In one go. All of them stay in the flow table.
const FLOWS: u64 = 1 << 17;

/// The rate includes the sending: what a packet costs without it is told beside it.
pub fn measure(rounds: usize) -> Result<Figure> {
    let mut rates = Vec::new();
    let mut known = Vec::new();
    for _ in 0..rounds {
        // Anew each time: with an empty flow table.
        let chain = Chain::new(3, Joint::Hub)?;
        let engine = chain.start_engine()?;
        engine.apply(&chain.load(TENANTS)?)?;
        let function = &chain.lefts[0];
        let tally = Tally::attach(function)?;
        rates.push(rate(&chain, &tally, Ports::Fresh)?);
        known.push(rate(&chain, &tally, Ports::Kept)?);
        engine.expect_no_drops()?;
    }
    Ok(Figure::amount(FLOW_SETUP, rates).with("known_flows_per_s", known).with("tenants", TENANTS))
}

fn rate(chain: &Chain, tally: &Tally, ports: Ports) -> Result<f64> {
    let link = Link { source: chain.source()?.mac, destination: chain.gateway };
    let frames = Frames::new(link, flows::of_tenants(FRAMES, TENANTS));
    let mut sender = Sender::new(chain.source()?, frames, Vec::new(), ports)?;
    let before = tally.read()?;
    let sent = on_sending_core(|| sender.send(FLOWS))?;
    std::thread::sleep(Duration::from_millis(1));
    let arrived = tally.read()? - before;
    ensure!(arrived == sent.short, "{arrived} of {} packets reached the first function", sent.short);
    Ok(arrived as f64 / sent.time.as_secs_f64())
}

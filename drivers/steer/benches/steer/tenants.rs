//! Many tenants: what they cost the packets of each other, how fast they are installed and changed, and the memory that
//! they take.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use catena_model::forwarding::{Change, Object};
use serde_json::json;

use crate::chain::{Chain, Joint};
use crate::engine::Engine;
use crate::figure::{Bar, Figure, Key};
use crate::flows;
use crate::line::{Line, Loss};
use crate::memory::Memory;
use crate::objects;
use crate::pairs::{Effort, Pairs};

pub const VS_ONE: Key = Key {
    name: "tenants_100k_vs_1",
    what: "forwarding with 100,000 tenants ÷ with 1, the same flows",
    unit: None,
    bar: Bar::AtLeast(0.95),
};
pub const LOAD: Key = Key {
    name: "load_100k_tenants_s",
    what: "from none to 100,000 tenants",
    unit: Some("s"),
    bar: Bar::AtMost(2.0),
};
pub const UPDATES: Key = Key {
    name: "updates_per_s",
    what: "policies changed, with 100,000 tenants there",
    unit: Some("/s"),
    bar: Bar::AtLeast(100_000.0),
};
pub const BYTES: Key = Key {
    name: "bytes_per_tenant",
    what: "kernel memory, with two prefixes and a chain of 3",
    unit: Some("B"),
    bar: Bar::AtMost(1024.0),
};

/// As many as a flow cache of usual size holds, and too many for the fast caches of a core.
const FLOWS: usize = 1 << 17;
/// Changes that are applied in one go.
const BATCH: usize = 1000;
const BATCHES: usize = 10;

/// One function, so that the way to it is as much as possible of what is measured.
pub fn vs_one(effort: Effort, tenants: u32) -> Result<Figure> {
    let mut pairs = Pairs::default();
    for _ in 0..effort.builds {
        let [many, one] = [Chain::new(1, Joint::Hub)?, Chain::new(1, Joint::Hub)?];
        let engines = [many.start_engine()?, one.start_engine()?];
        engines[0].apply(&many.load(tenants)?)?;
        engines[1].put(one.site(1, &flows::prefixes_of_all())?)?;
        let line = |chain| Line::new(chain, flows::of_tenants(FLOWS, tenants), Loss::Forbidden);
        pairs.measure(effort, &mut line(&many)?, &mut line(&one)?)?;
        engines.iter().try_for_each(Engine::expect_no_drops)?;
    }
    Ok(Figure::ratio(VS_ONE, pairs).with("flows", FLOWS).with("tenants", tenants))
}

/// [`LOAD`], [`UPDATES`] and [`BYTES`].
pub fn managed(rounds: usize, tenants: u32) -> Result<Vec<Figure>> {
    let [mut times, mut rates, mut bytes] = [(); 3].map(|()| Vec::new());
    let mut memory = json!(null);
    for _ in 0..rounds {
        let chain = Chain::new(3, Joint::Hub)?;
        let engine = chain.start_engine()?;
        let empty = Memory::now(engine.pins())?;
        let changes = chain.load(tenants)?;
        times.push(engine.apply(&changes)?.as_secs_f64());
        // What RCU still holds is given back.
        std::thread::sleep(Duration::from_millis(500));
        let full = Memory::now(engine.pins())?;
        bytes.push(full.more_than(&empty) / f64::from(tenants));
        memory = json!({"empty": empty.to_json(), "full": full.to_json()});
        rates.push(updates_per_second(&engine, &changes)?);
    }
    Ok(vec![
        Figure::amount(UPDATES, rates).with("batch", BATCH).with("tenants", tenants),
        Figure::amount(LOAD, times).with("tenants", tenants),
        Figure::amount(BYTES, bytes).with("tenants", tenants).with("memory_bytes", memory),
    ])
}

/// Policies all over the table get another rule, batch by batch.
fn updates_per_second(engine: &Engine, installed: &[Change]) -> Result<f64> {
    let policies: Vec<&Object> =
        installed.iter().map(Change::object).filter(|object| object.is_classifier()).collect();
    let stride = (policies.len() / (BATCH * BATCHES)).max(1);
    let scattered: Vec<&Object> = policies.into_iter().step_by(stride).collect();
    let batches: Vec<Vec<Change>> = scattered
        .chunks(BATCH)
        .map(|policies| policies.iter().map(|policy| narrowed(policy)).collect::<Result<_>>())
        .collect::<Result<_>>()?;
    let count: usize = batches.iter().map(Vec::len).sum();
    let start = Instant::now();
    for batch in &batches {
        engine.apply(batch)?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// The same policy for web traffic alone.
fn narrowed(object: &Object) -> Result<Change> {
    let Object::Policy(policy) = object else { bail!("{object:?} is no policy") };
    let mut new = policy.clone();
    let rule = new.rules.first_mut().context("a policy without rules")?;
    rule.matches = objects::web();
    Ok(Change::Put { new: Object::Policy(new), old: Some(object.clone()) })
}

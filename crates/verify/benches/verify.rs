//! What it costs to prove ten thousand chains, and whether damage is found. `cargo xtask bench verify` starts it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what stands in the tests' worlds fails by panicking")]

#[path = "../tests/world/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use catena_model::forwarding::{Key, Object};
use catena_model::name::{ChainName, NodeName, SiteName};
use catena_model::numbering::PathOwner;
use catena_render::render;
use catena_verify::{Report, Touched, Verdict, Verifier};
use clap::Parser;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

use world::World;
use world::damage::{Dice, damage};
use world::hunt::hunt;

/// Measures the verifier, on one core.
#[derive(Parser)]
#[command(name = "cargo xtask bench verify")]
struct Arguments {
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// A tenth of the tenants, edits and mutants: to try things out
    #[arg(long)]
    quick: bool,
    /// What was counted where packets were sent through real networks
    #[arg(long, value_name = "FILE")]
    differential: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// One figure.
struct Figure {
    key: &'static str,
    what: &'static str,
    value: f64,
    /// What it may be at most.
    bar: f64,
}

impl Figure {
    fn is_ok(&self) -> bool {
        self.value <= self.bar
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let share = if arguments.quick { 10 } else { 1 };
    let differential = arguments.differential.as_deref().map(Differential::read).transpose()?;
    let (many, few) = (10_000 / share, 1_000 / share);
    let before = World::provider(many);
    let [full_few, full_many] = full([&World::provider(few), &before])?;
    let mut edits = incremental(before, 2_000 / share)?;
    let mean = edits.iter().sum::<Duration>() / edits.len() as u32;
    let peak = peak_mib()?;
    let (mutants, missed) = mutants(10_000 / share as usize);
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let mut figures = vec![
        Figure {
            key: "full_10k_ms",
            what: "all chains of 10,000 tenants, ms",
            value: full_many.as_secs_f64() * 1e3,
            bar: 2_000.0,
        },
        Figure {
            key: "full_growth",
            what: "10,000 tenants ÷ 1,000 tenants",
            value: full_many.as_secs_f64() / full_few.as_secs_f64(),
            bar: 12.0,
        },
        Figure {
            key: "incremental_us_mean",
            what: "one chain edited among 10,000 tenants, mean, µs",
            value: us(mean),
            bar: 100.0,
        },
        Figure {
            key: "incremental_us_p99",
            what: "one chain edited among 10,000 tenants, p99, µs",
            value: us(percentile(&mut edits, 99)),
            bar: 1_000.0,
        },
        Figure { key: "peak_mib", what: "memory of all the above, MiB", value: peak, bar: 1_024.0 },
        Figure {
            key: "mutants_missed",
            what: "mutants that treat packets otherwise and are not found",
            value: missed as f64,
            bar: 0.0,
        },
    ];
    figures.extend(differential.as_ref().map(Differential::figure));
    println!("{}", table(&figures));
    println!(
        "\n{mutants} mutants; processor time on one core{}",
        if arguments.quick { "; a tenth" } else { "" }
    );
    match &differential {
        Some(Differential { networks, packets, .. }) => {
            println!("{packets} packets through {networks} random networks");
        }
        None => println!("nothing was sent through real networks: `cargo xtask bench verify` does that"),
    }
    let mut counts =
        Map::from_iter([("mutants", json!(mutants)), ("quick", json!(arguments.quick))].map(named));
    counts.extend(differential.iter().flat_map(Differential::counts));
    write(&arguments.json, &figures, counts)
}

fn named((key, value): (&str, Value)) -> (String, Value) {
    (key.to_owned(), value)
}

/// What the test `differential` of the program `catena` has counted.
struct Differential {
    networks: u64,
    packets: u64,
    disagreed: u64,
}

impl Differential {
    fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let counts: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
        let count = |key: &str| {
            counts[key].as_u64().with_context(|| format!("{} does not say `{key}`", file.display()))
        };
        Ok(Self { networks: count("networks")?, packets: count("packets")?, disagreed: count("disagreed")? })
    }

    fn figure(&self) -> Figure {
        Figure {
            key: "differential_disagreed",
            what: "packets that real networks treat otherwise than predicted",
            value: self.disagreed as f64,
            bar: 0.0,
        }
    }

    fn counts(&self) -> [(String, Value); 2] {
        [("differential_networks", json!(self.networks)), ("differential_packets", json!(self.packets))]
            .map(named)
    }
}

/// The least that verifying all takes, of seven times: of both in turns, so that what slows memory down meanwhile meets both.
fn full(worlds: [&World; 2]) -> Result<[Duration; 2]> {
    let mut best = [Duration::MAX; 2];
    for _ in 0..7 {
        for (world, best) in worlds.iter().zip(&mut best) {
            let (report, time) = timed(|| world.verify());
            proven(&report)?;
            *best = time.min(*best);
        }
    }
    Ok(best)
}

/// Edits one chain after the other, each once: what a look after each of them takes.
fn incremental(before: World, edits: u32) -> Result<Vec<Duration>> {
    let mut after = before.clone();
    for chain in after.model.chains.values_mut() {
        chain.functions.reverse();
    }
    after.state =
        render(&after.model, &mut after.numbering).map_err(|errors| anyhow!("not rendered: {errors:?}"))?;
    let [old, new] = [&before, &after].map(|world| objects_by_site(world, &after));
    let names: Vec<ChainName> = before.model.chains.keys().cloned().collect();
    let mut world = World { numbering: after.numbering.clone(), ..before };
    let mut verifier = Verifier::new(&world.network());
    proven(verifier.report())?;
    let mut dice = Dice(1);
    let mut edited = BTreeSet::new();
    let mut times = Vec::new();
    while times.len() < edits as usize {
        let Some(name) = dice.one(&names).filter(|name| edited.insert((*name).clone())) else { continue };
        let chain = after.model.chains[name].clone();
        let mut touched = Touched { chains: [name.clone()].into(), ..Touched::default() };
        for site in &chain.sites {
            for (element, object) in &old[site] {
                world.state.elements.entry(element.clone()).or_default().remove(&object.key());
                touched.objects.insert((element.clone(), object.key()));
            }
            for (element, object) in &new[site] {
                world.state.insert(element, object.clone());
                touched.objects.insert((element.clone(), object.key()));
            }
        }
        world.model.chains.insert(name.clone(), chain);
        let (_, time) = timed(|| verifier.update(&world.network(), &touched).verdict);
        proven(verifier.report())?;
        ensure!(verifier.looked_at() == 1, "{} sites were looked at", verifier.looked_at());
        times.push(time);
    }
    ensure!(*verifier.report() == world.verify(), "a look at everything says something else");
    Ok(times)
}

/// The objects of paths and policies, by whose they are.
fn objects_by_site(world: &World, names: &World) -> BTreeMap<SiteName, Vec<(NodeName, Object)>> {
    let by_id: BTreeMap<_, _> = names.numbering.sites().map(|(name, id)| (id, name.clone())).collect();
    let of_path = |path| names.numbering.owner(path).map(PathOwner::site).cloned();
    let mut objects: BTreeMap<SiteName, Vec<(NodeName, Object)>> = BTreeMap::new();
    for (element, state) in &world.state.elements {
        for object in state.iter() {
            let site = match object.key() {
                Key::Table(path, _) | Key::Path(path) | Key::Rule(_, _, path) => of_path(path),
                Key::Policy(site) | Key::Tunnel(site) => by_id.get(&site).cloned(),
                Key::Ingress(_) | Key::Instance(_) => None,
            };
            if let Some(site) = site {
                objects.entry(site).or_default().push((element.clone(), object.clone()));
            }
        }
    }
    objects
}

/// Damages networks until so many mutants treat packets otherwise than they should: how many that are, and how many of
/// them are not found.
fn mutants(wanted: usize) -> (usize, usize) {
    let (mut shown, mut missed) = (0, 0);
    for seed in 2.. {
        let bag = hunt(damage, seed, 500, true);
        shown += bag.shown;
        missed += bag.missed.len();
        for mutant in &bag.missed {
            eprintln!("missed: {mutant}");
        }
        if shown >= wanted {
            break;
        }
    }
    (shown, missed)
}

fn proven(report: &Report) -> Result<()> {
    ensure!(report.verdict == Verdict::Proven, "not proven:\n{}", world::in_words(report));
    Ok(())
}

/// What `work` takes of the processor, whatever else the machine does meanwhile.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let spent = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap();
    let before = spent();
    let done = work();
    (done, spent() - before)
}

/// The smallest time that so many per cent of all do not exceed.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

/// The most memory that this process had so far.
fn peak_mib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 =
        line.split_whitespace().next().context("no VmHWM")?.parse().context("VmHWM is no number")?;
    Ok((kib / 1024.0).ceil())
}

/// As Markdown, which is as readable on a terminal.
fn table(figures: &[Figure]) -> String {
    let mut rows = vec![["key", "what", "measured", "bar", "ok?"].map(str::to_owned)];
    rows.extend(figures.iter().map(|figure| {
        let Figure { key, what, value, bar } = figure;
        let ok = if figure.is_ok() { "yes" } else { "no" };
        [format!("`{key}`"), (*what).to_owned(), short(*value), format!("≤ {}", short(*bar)), ok.to_owned()]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        let _ = writeln!(text, "|{}|", cells.join("|"));
        if nth == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            let _ = writeln!(text, "|{}|", rule.join("|"));
        }
    }
    text.trim_end().to_owned()
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn write(file: &Path, figures: &[Figure], counts: Map<String, Value>) -> Result<()> {
    let mut report: Map<String, Value> = figures
        .iter()
        .map(|figure| (figure.key.to_owned(), json!((figure.value * 10.0).round() / 10.0)))
        .collect();
    report.extend(counts);
    std::fs::write(file, format!("{}\n", Value::Object(report)))
        .with_context(|| format!("cannot write {}", file.display()))
}

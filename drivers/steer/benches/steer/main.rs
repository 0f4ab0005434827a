//! How fast the steering engine is: each figure beside what it is compared with, measured in turns in one run. What each
//! one means, and what limits it, is in `docs/bench.md`. `cargo xtask bench steer` starts it.
//!
//! Start reading at [`measure`], then `hops` for one group of figures and `line` for how packets are sent and counted.

mod chain;
mod engine;
mod figure;
mod flows;
mod frames;
mod hops;
mod line;
mod machine;
mod memory;
mod number;
mod objects;
mod ovs;
mod pairs;
mod plot;
mod program;
mod router;
mod send;
mod setup;
mod sink;
mod softirq;
mod statistics;
mod table;
mod tcp;
mod tenants;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use serde_json::{Map, Value, json};

use crate::figure::{Figure, Key};
use crate::pairs::Effort;

/// Measures the steering engine. Needs root and two cores that do nothing else.
#[derive(Parser)]
#[command(name = "cargo xtask bench steer")]
struct Arguments {
    /// Fewer and shorter slices: wider intervals
    #[arg(long)]
    quick: bool,
    /// Where the figures go
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// Where the picture goes
    #[arg(long, value_name = "FILE")]
    svg: PathBuf,
    /// These figures alone, and those that come with them
    #[arg(long, value_name = "KEY")]
    only: Vec<String>,
    /// Where 100,000 are meant: to try things out
    #[arg(long, default_value_t = 100_000)]
    tenants: u32,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is measured.
struct Scope {
    effort: Effort,
    /// How often what is no ratio is measured.
    rounds: usize,
    tenants: u32,
}

impl Scope {
    fn new(quick: bool, tenants: u32) -> Self {
        let slice = Duration::from_millis(250);
        if quick {
            Self { effort: Effort { slice, pairs: 6, builds: 1 }, rounds: 3, tenants }
        } else {
            Self { effort: Effort { slice, pairs: 12, builds: 3 }, rounds: 7, tenants }
        }
    }
}

/// Figures that are measured together.
type Group = (&'static [Key], fn(&Scope) -> Result<Vec<Figure>>);

const GROUPS: [Group; 8] = [
    (&[hops::VS_STATIC, hops::VS_CABLED, hops::VS_CABLED_TCP], |scope| hops::measure(scope.effort)),
    (&[tenants::VS_ONE], |scope| Ok(vec![tenants::vs_one(scope.effort, scope.tenants)?])),
    (&[router::VS_IPRULE_1K], |scope| {
        Ok(vec![router::vs_iprule(router::VS_IPRULE_1K, scope.effort, 1_000)?])
    }),
    (&[router::VS_IPRULE_10K], |scope| {
        Ok(vec![router::vs_iprule(router::VS_IPRULE_10K, scope.effort, 10_000)?])
    }),
    (&[router::VS_NFT_10K], |scope| Ok(vec![router::vs_nft(scope.effort, 10_000)?])),
    (&[ovs::VS_OVS], |scope| Ok(vec![ovs::measure(scope.effort)?])),
    (&[tenants::UPDATES, tenants::LOAD, tenants::BYTES], |scope| {
        tenants::managed(scope.rounds, scope.tenants)
    }),
    (&[setup::FLOW_SETUP], |scope| Ok(vec![setup::measure(scope.rounds)?])),
];

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
    let groups = chosen(&arguments.only)?;
    world::keep_mounts_to_ourselves()?;
    world::pin_to(world::OTHER_CORE)?;
    let scope = Scope::new(arguments.quick, arguments.tenants);
    let (figures, failures) = measure(&groups, &scope);
    let machine = machine::describe();
    println!("{}\n\n{}", machine::summary(&machine), table::table(&figures));
    let reached = figures.iter().filter(|figure| figure.is_ok()).count();
    println!("\n{reached} of {} bars reached", figures.len());
    let by_key: Map<String, Value> =
        figures.iter().map(|figure| (figure.key.name.to_owned(), figure.to_json())).collect();
    let report = json!({
        "machine": machine,
        "quick": arguments.quick,
        "slice_ms": scope.effort.slice.as_millis() as u64,
        "figures": by_key,
        "failures": failures,
    });
    write(&arguments.json, &format!("{report:#}\n"))?;
    write(&arguments.svg, &plot::plot(&figures, &machine::summary(&machine)))?;
    ensure!(failures.is_empty(), "{} of the groups could not be measured: see above", failures.len());
    Ok(())
}

/// One group after the other. One that fails does not keep the others from being measured.
fn measure(groups: &[Group], scope: &Scope) -> (Vec<Figure>, Vec<String>) {
    let (mut figures, mut failures) = (Vec::new(), Vec::new());
    for (keys, measure) in groups {
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        eprintln!("measuring {} …", names.join(", "));
        match measure(scope) {
            Ok(measured) => figures.extend(measured),
            Err(error) => {
                let failure = format!("{}: {error:#}", names.join(", "));
                eprintln!("  {failure}");
                failures.push(failure);
            }
        }
    }
    (figures, failures)
}

fn chosen(only: &[String]) -> Result<Vec<Group>> {
    let names = || GROUPS.iter().flat_map(|(keys, _)| keys.iter().map(|key| key.name));
    if let Some(unknown) = only.iter().find(|name| !names().any(|known| known == name.as_str())) {
        bail!("there is no figure {unknown}; there are {}", names().collect::<Vec<_>>().join(", "));
    }
    let is_chosen =
        |keys: &[Key]| only.is_empty() || keys.iter().any(|key| only.iter().any(|name| name == key.name));
    Ok(GROUPS.into_iter().filter(|(keys, _)| is_chosen(keys)).collect())
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

//! Frames of every kind, and what chance makes of them, through the programs: each must do what a plain model says, and none
//! may go round a function.
//!
//! A run is a seed on an element. A disagreement is made small before it is told: of all frames before it only those
//! stay that it needs.

mod bench;
mod functions;
mod generate;
mod model;
mod objects;
mod outer;
mod places;
mod safety;
mod sight;
mod worlds;

pub(super) use bench::Tagger;
use bench::{Bench, Step};
use generate::Generator;
use worlds::{Element, elements};

/// Frames of one run: as many as still find a flow table and counters that can be looked through.
const RUN: usize = 5_000;

fn try_element(element: &Element, seed: u64, frames: usize) {
    let bench = Bench::new(element);
    let mut generator = Generator::new(seed, &bench.world, element.addresses.clone());
    let mut steps = Vec::with_capacity(frames);
    let failure = bench.run(|run| {
        let mut next: Option<Step> = None;
        for _ in 0..frames {
            let step = next.take().unwrap_or_else(|| Step::new(generator.next(), &mut generator.random));
            steps.push(step.clone());
            let done = run.step(&step)?;
            if generator.random.chance(60) {
                let back = done.counted.last().and_then(|counted| generator.hand_back(counted, &done.bytes));
                next = back.map(|back| Step::new(back, &mut generator.random));
            }
        }
        run.finish()
    });
    if let Err(failure) = failure {
        let (steps, failure) = bench.shrink(steps, failure);
        let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
        panic!("element {}, seed {seed:#x}:\n  {}\n{failure}", element.name, steps.join("\n  "));
    }
}

fn try_all(seed: u64, frames: usize) {
    for element in elements() {
        for run in 0..frames.div_ceil(RUN) as u64 {
            try_element(&element, seed ^ run << 16, frames.min(RUN));
        }
    }
}

#[test]
fn programs_do_what_the_model_says() {
    try_all(0x5eed, RUN);
}

/// A million frames: `cargo xtask test --long`. Other ones with another number in `CATENA_FUZZ_SEED`.
#[test]
#[ignore = "takes minutes"]
fn programs_do_what_the_model_says_a_million_times() {
    let first = std::env::var("CATENA_FUZZ_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + 8 {
        try_all(seed << 32, 21_000);
    }
}

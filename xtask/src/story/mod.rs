//! The story of the first chain, told with real traffic: what `cargo xtask demo` shows and `cargo xtask test` checks.
//!
//! It runs inside a lab that is this story's alone ([`crate::demo`] starts it there). Each chapter is a module, in the
//! order in which [`tell`] calls them; each check is a name and a closure that fails with what it saw instead. The
//! instruments: [`node`] does things on nodes, [`capture`] sees packets, [`journey`] follows a connection through the
//! functions, [`talk`] holds a connection in packets of exact
//! sizes, [`snapshot`] compares what the machine is set up to do.

mod capture;
mod chained;
mod claims;
mod counted;
mod crash;
mod direct;
mod edit;
pub mod engine;
mod functions;
mod journey;
mod node;
mod picture;
mod removal;
mod second_tenant;
mod snapshot;
pub mod talk;
mod traced;
mod unmodified;
mod watch;
pub mod world;

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::progress::Waiting;
use crate::test::Tally;

use engine::Engine;
use snapshot::Snapshot;
use watch::Watch;
use world::World;

/// Tells the story. All of it, also when a check fails.
pub fn tell(catena: &Path, engine: Engine) -> Result<Tally> {
    let mut story = Story::default();
    let mut world = World::new(catena, engine)?;
    story.check("somebody else's ip rule and tc program are there first", || {
        watch::add_foreign_objects()?;
        // The snapshots at the beginning and at the end have both.
        watch::foreign_objects_are_there()?;
        Ok("")
    });
    let before = Snapshot::take()?;

    story.chapter("Without a chain");
    world.start_daemon()?;
    direct::tell(&world, &mut story);

    story.chapter("With the chain fw → ips → web");
    chained::tell(&world, &mut story);
    let watch = Watch::start()?;

    story.chapter("What the functions forbid");
    functions::tell(&world, &mut story);

    story.chapter("Unmodified");
    unmodified::tell(&world, &mut story);

    story.chapter("catena trace");
    traced::tell(&world, &mut story);

    story.chapter("What is going on");
    counted::tell(&world, &mut story);

    story.chapter("The order is edited under traffic");
    edit::tell(&world, &mut story);

    story.chapter("Crash and drift");
    crash::tell(&mut world, &mut story);

    story.chapter("The claims are damaged");
    claims::tell(&mut world, &mut story);

    story.chapter("A second tenant, attached at layer 2");
    second_tenant::tell(&world, &mut story);

    story.check("in all of this no packet of the chain's went round a function", || watch.stop());

    story.chapter("Everything is taken away");
    removal::tell(&mut world, &mut story, &before);

    if story.tally.failed > 0 {
        println!("\nthe end of the daemon's log:\n{}", world.log_end());
    }
    Ok(story.tally)
}

/// What has been checked so far.
#[derive(Default)]
pub struct Story {
    tally: Tally,
}

impl Story {
    fn chapter(&mut self, title: &str) {
        println!("\n{title}");
    }

    /// Runs one check, and prints its name with what it found or why it failed.
    pub fn check<T: Into<String>>(&mut self, name: &str, check: impl FnOnce() -> Result<T>) {
        let start = Instant::now();
        let outcome = {
            let _waiting = Waiting::for_(name);
            check().map(Into::into)
        };
        let seconds = start.elapsed().as_secs_f32();
        match outcome {
            Ok(found) => {
                self.tally.passed += 1;
                let found = if found.is_empty() { found } else { format!(": {found}") };
                println!("  ✓ {name}{found}");
            }
            Err(error) => {
                self.tally.failed += 1;
                println!("  ✗ {name} ({seconds:.1} s)\n      {error:#}");
            }
        }
    }
}

//! Whatever happens, in whatever order, it ends well: seeded random requests, faults, losses and deaths.

use std::collections::BTreeSet;
use std::time::Duration;

use catena_control::Controller;
use catena_driver::simulated::SimulatedElement;
use catena_model::forwarding::{Object, Purpose};
use catena_model::name::{NodeName, PortName};
use catena_model::resource::{ResourceKind, Source};
use tokio::time::{sleep, timeout};

use crate::world::*;

const SEEDS: u64 = 10;
const LIVES: usize = 4;
const DEEDS: usize = 6;

/// A linear congruential generator (Knuth, MMIX).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn element(&mut self, world: &World) -> (NodeName, SimulatedElement) {
        let elements: Vec<_> = world.elements().into_iter().collect();
        elements[self.roll(elements.len())].clone()
    }

    /// One to three functions in any order.
    fn functions(&mut self) -> Vec<&'static str> {
        let mut all = vec!["fw", "ips", "web"];
        let count = self.roll(3) + 1;
        (0..count).map(|_| all.swap_remove(self.roll(all.len()))).collect()
    }
}

#[test]
fn every_story_ends_well() {
    for seed in 1..=SEEDS {
        let world = World::new(seed);
        let mut dice = Dice(seed);
        for life in 0..LIVES {
            live(life_of(&world, &mut dice, life));
        }
        live(in_the_end(&world, seed));
    }
}

/// Runs in a world of time of its own; whatever still runs when `story` is over is killed where it stands.
fn live<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(story)
}

async fn life_of(world: &World, dice: &mut Dice, life: usize) {
    let controller = world.controller().await;
    if life == 0 {
        apply(&controller, &inventory()).await.unwrap();
    }
    for (name, element) in world.elements() {
        element.put_foreign(foreign(&name));
        element.slow(Duration::from_millis(1));
    }
    for _ in 0..DEEDS {
        deed(world, &controller, dice).await;
    }
    // The last one is cut short.
    let patience = Duration::from_millis(dice.roll(60) as u64);
    let _ = timeout(patience, request(&controller, dice)).await;
}

async fn deed(world: &World, controller: &Controller, dice: &mut Dice) {
    let (name, element) = dice.element(world);
    match dice.roll(8) {
        0..=2 => request(controller, dice).await,
        3 => drop(world.disturb(&name, SimulatedElement::lose_any)),
        4 => element.flaky(20),
        5 => {
            let path = controller.status().chains.first().and_then(|chain| Some(chain.sites.first()?.path));
            let flows = dice.roll(2) as u64;
            path.into_iter().for_each(|path| world.element("br-int").set_live_flows(path, flows));
        }
        6 => {
            element.cut_off();
            sleep(Duration::from_millis(dice.roll(2000) as u64)).await;
        }
        _ => {
            let port: PortName = ["wan", "vr", "lan", "gw", "fw1-in"][dice.roll(5)].parse().unwrap();
            world.disturb(&name, |element| element.unplug(&port));
            sleep(Duration::from_millis(dice.roll(300) as u64)).await;
            element.plug(&port);
        }
    }
    if dice.roll(3) == 0 {
        world.elements().values().for_each(SimulatedElement::mend);
    }
}

/// Asks for something. That it is refused or fails is no wonder here.
async fn request(controller: &Controller, dice: &mut Dice) {
    let tenant = ["acme", "globex"][dice.roll(2)];
    let name = format!("{tenant}-web");
    let _ = match dice.roll(4) {
        0 => delete(controller, &[&format!("chain/{name}")]).await,
        _ => apply(controller, &[chain_of(tenant, &name, &dice.functions())]).await,
    };
}

/// All faults end: everything must come to be as it was last asked for, and stay so.
async fn in_the_end(world: &World, seed: u64) {
    for (name, element) in world.elements() {
        element.mend();
        for path in 1..200 {
            element.set_live_flows(catena_model::forwarding::PathId(path), 0);
        }
        assert!(element.foreign().contains(&foreign(&name)), "seed {seed}: {name} lost what is not ours");
    }
    let controller = world.controller().await;
    let settled = timeout(Duration::from_secs(100), async {
        while !controller.status().converged || !controller.status().draining.is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    if settled.await.is_err() {
        panic!("seed {seed}: {:#?}\n{:#?}", controller.status(), controller.events());
    }
    assert_converged(&controller, world);

    let chains: Vec<Source> = controller
        .resources(Some(ResourceKind::Chain))
        .into_iter()
        .map(|resource| Source::new(resource.source, resource.text))
        .collect();
    let wanted = rendered(&[inventory(), chains].concat());
    assert_eq!(shape(&world.installed()), shape(&wanted), "seed {seed}");

    // The next pass changes nothing, nor does the next life.
    let changes = world.changes();
    sleep(Duration::from_secs(130)).await;
    drop(controller);
    let controller = world.controller().await;
    assert_eq!(world.changes(), changes, "seed {seed}");
    assert!(controller.status().converged);

    let all: BTreeSet<String> = controller
        .resources(None)
        .iter()
        .map(|resource| format!("{}/{}", resource.kind.singular(), resource.name))
        .collect();
    delete(&controller, &all.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    assert!(world.installed().elements.is_empty(), "seed {seed}: something is left");
}

/// Another program's: at a port that none of ours is at.
fn foreign(element: &NodeName) -> Object {
    Object::Ingress(catena_model::forwarding::Ingress {
        port: "foreign".parse().unwrap(),
        directions: BTreeSet::new(),
        purpose: if element.as_str() < "d" { Purpose::Claim } else { Purpose::Steer },
        site: None,
    })
}

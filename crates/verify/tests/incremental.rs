//! The verifier that remembers says after each change what one says that looks at everything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::forwarding::{Object, OnFailure};
use catena_model::name::{ChainName, FunctionName};
use catena_model::numbering::Numbering;
use catena_model::resource::{Engine, Model};
use catena_render::render;
use catena_verify::{Touched, Verdict, Verifier};
use proptest::prelude::*;
use world::damage::{Dice, damage};
use world::{World, assert_proven, in_words};

fn worlds() -> [World; 4] {
    [World::paper(), World::insertion_without_nat(), World::one_armed(), World::provider(4)]
}

/// One change, of any kind, and what it is called. `healthy` has the chains that there can be.
fn edit(healthy: &Model, world: &World, dice: &mut Dice) -> Option<(String, World)> {
    let mut edited = world.clone();
    match dice.roll(10) {
        // Another engine has everything looked at again.
        0..4 => {
            let same = |(_, damaged): &(String, World)| damaged.model.elements == world.model.elements;
            return (0..8).find_map(|_| damage(world, dice).filter(same));
        }
        4 => return damage(world, dice),
        5 => return healed(world, dice),
        6 => {
            let chains: Vec<ChainName> = healthy.chains.keys().cloned().collect();
            let name = dice.one(&chains)?.clone();
            let what = match edited.model.chains.remove(&name) {
                Some(_) => format!("without chain {name}"),
                None => {
                    edited.model.chains.insert(name.clone(), healthy.chains[&name].clone());
                    format!("with chain {name}")
                }
            };
            // Now and then nothing has been installed yet.
            if dice.roll(3) > 0 {
                rendered(&mut edited);
            }
            return Some((what, edited));
        }
        7 => {
            let mut chains: Vec<_> = edited.model.chains.values_mut().collect();
            let nth = dice.roll(chains.len());
            let chain = chains.get_mut(nth)?;
            match dice.roll(4) {
                0 => chain.functions.reverse(),
                1 if chain.functions.len() > 1 => drop(chain.functions.pop()),
                2 if chain.matches.len() > 1 => drop(chain.matches.pop()),
                _ => chain.priority += 1,
            }
        }
        8 => {
            let functions: Vec<FunctionName> = edited.model.functions.keys().cloned().collect();
            let function = edited.model.functions.get_mut(dice.one(&functions)?)?;
            function.on_failure = match function.on_failure {
                OnFailure::Closed => OnFailure::Skip,
                OnFailure::Skip => OnFailure::Closed,
            };
        }
        _ => {
            let mut sites: Vec<_> = edited.model.sites.values_mut().collect();
            let nth = dice.roll(sites.len());
            let site = sites.get_mut(nth)?;
            if site.prefixes.len() > 1 {
                site.prefixes.pop_last();
            }
        }
    }
    rendered(&mut edited);
    Some(("the model otherwise, and rendered".to_owned(), edited))
}

fn rendered(world: &mut World) {
    world.state = render(&world.model, &mut world.numbering).unwrap();
}

/// One object as it should be, which it was not, or all base routing as it was.
fn healed(world: &World, dice: &mut Dice) -> Option<(String, World)> {
    let mut healed = world.clone();
    if dice.roll(4) == 0 {
        healed.base.clear();
        return Some(("no foreign rules".to_owned(), healed));
    }
    let wanted = render(&world.model, &mut healed.numbering).unwrap();
    let elements: Vec<_> = wanted.elements.keys().cloned().collect();
    let name = dice.one(&elements)?.clone();
    let there = healed.state.elements.entry(name.clone()).or_default();
    let missing: Vec<Object> =
        wanted.elements[&name].iter().filter(|object| !there.contains(object)).cloned().collect();
    let object = dice.one(&missing)?.clone();
    there.insert(object.clone());
    Some((format!("{name}: {object:?} as it should be"), healed))
}

/// Makes changes, one after the other, and says how often less than everything was looked at.
fn follow(seed: u64, which: usize, changes: usize) -> Result<usize, TestCaseError> {
    let mut dice = Dice(seed);
    let healthy = worlds()[which].clone();
    let mut world = healthy.clone();
    for element in healthy.model.elements.keys() {
        let engines = [Engine::Rules, Engine::Nft, Engine::Steer];
        world.engine(element.as_str(), engines[dice.roll(engines.len())]);
    }
    let mut verifier = Verifier::new(&world.network());
    let mut story = Vec::new();
    let mut few = 0;
    for _ in 0..changes {
        let Some((what, next)) = edit(&healthy.model, &world, &mut dice) else { continue };
        story.push(what);
        let touched = Touched::between(&world.network(), &next.network());
        let whole = next.verify();
        let told = verifier.update(&next.network(), &touched);
        let story = || format!("{}\n{}\nand not\n{}", story.join("\n"), in_words(told), in_words(&whole));
        prop_assert_eq!(told, &whole, "{}", story());
        if whole.verdict != Verdict::Proven {
            let anew = Verifier::new(&next.network());
            let beyond = verifier.broken().find_map(|broken| broken.beyond(anew.broken()));
            let missing = anew.broken().find_map(|broken| broken.beyond(verifier.broken()));
            prop_assert_eq!((beyond, missing), (None, None));
        }
        few += usize::from(verifier.looked_at() < whole.coverage.sites);
        world = next;
    }
    Ok(few)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn says_what_a_look_at_everything_says(seed in any::<u64>(), which in 0..4_usize) {
        follow(seed, which, 8)?;
    }
}

#[test]
#[ignore = "takes minutes"]
fn says_so_for_long() {
    const STORIES: u64 = 4_000;
    let few: usize = (0..STORIES).map(|seed| follow(seed, seed as usize % 4, 8).unwrap()).sum();
    println!("{few} times less than everything was looked at");
    assert!(few > STORIES as usize, "only {few} times less than everything was looked at");
}

/// What is to be looked at after a change of the second site's chain.
fn looked_at_after(change: impl Fn(&mut World)) -> usize {
    let world = World::provider(4);
    let mut verifier = Verifier::new(&world.network());
    let mut next = world.clone();
    change(&mut next);
    rendered(&mut next);
    let touched = Touched::between(&world.network(), &next.network());
    assert!(!touched.objects.is_empty());
    assert_proven(verifier.update(&next.network(), &touched));
    verifier.looked_at()
}

#[test]
fn a_chain_costs_what_its_site_costs() {
    assert_eq!(
        looked_at_after(|world| world.model.chains.get_mut("chain-1").unwrap().functions.reverse()),
        1
    );
    assert_eq!(looked_at_after(|world| drop(world.model.chains.remove("chain-1"))), 1);
    let without = |world: &mut World| drop(world.model.chains.get_mut("chain-1").unwrap().matches.pop());
    assert_eq!(looked_at_after(without), 1);
}

#[test]
fn a_function_is_about_all() {
    let skip = |world: &mut World| world.model.functions.get_mut("fw").unwrap().on_failure = OnFailure::Skip;
    assert_eq!(looked_at_after(skip), 4);
}

/// A number that is nobody's any more, while its objects are still there, makes them somebody else's.
#[test]
fn numbers_that_were_lost_are_a_change() {
    let world = World::paper();
    let mut verifier = Verifier::new(&world.network());
    let mut next = world.clone();
    next.numbering = Numbering::default();
    let touched = Touched::between(&world.network(), &next.network());
    assert_eq!(*verifier.update(&next.network(), &touched), next.verify());
    assert_eq!(verifier.report().verdict, Verdict::Violated);
}

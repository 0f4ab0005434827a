//! What is told about each mistake. Every test makes one in a small world without any, and shows all that is said.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chains;
mod fields;
mod functions;
mod network;
mod sites;
mod syntax;

use catena_model::resource::{self, Source};

const WORLD: &str = include_str!("world.yaml");

#[test]
fn nothing_is_wrong_with_the_world() {
    assert!(resource::load(&[Source::new("world.yaml", WORLD)]).is_ok());
}

/// What is said about the world with `to` in the place of `from`.
fn told(from: &str, to: &str) -> String {
    told_all(&[(from, to)])
}

/// What is said about the world with several such changes, one after the other.
fn told_all(changes: &[(&str, &str)]) -> String {
    let mut world = WORLD.to_owned();
    for (from, to) in changes {
        assert_eq!(world.matches(from).count(), 1, "`{from}` must stand once in the world");
        world = world.replace(from, to);
    }
    told_of(&[Source::new("world.yaml", world)])
}

/// What is said about the world with these documents added, which stand in a file of their own.
fn told_with(added: &str) -> String {
    told_of(&[Source::new("world.yaml", WORLD), Source::new("added.yaml", added)])
}

fn told_of(sources: &[Source]) -> String {
    match resource::load(sources) {
        Ok(_) => "nothing".to_owned(),
        Err(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"),
    }
}

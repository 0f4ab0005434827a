//! Forwarding state in few words, and how drivers are given it.

use catena_driver::{Driver, DriverError, Epoch};
use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Change, ElementState, Object, PathId, Rule, Selector, Table};
use catena_model::name::PortName;

pub fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

/// The default route of a path: `via` tells the family.
pub fn table(path: u32, port_name: &str, via: &str) -> Object {
    let via = via.parse().unwrap();
    Object::Table(Table {
        path: PathId(path),
        family: Family::of(via),
        port: port(port_name),
        via: Some(via),
    })
}

/// A rule for all packets of a source.
pub fn from(prefix: &str, path: u32) -> Object {
    rule(0, selector(prefix), path)
}

pub fn selector(prefix: &str) -> Selector {
    let prefix: Prefix = prefix.parse().unwrap();
    Selector { family: prefix.family(), from: Some(prefix), to: None, in_port: None, unless_released: false }
}

pub fn rule(order: u16, selector: Selector, path: u32) -> Object {
    Object::Rule(Rule { order, selector, table: PathId(path) })
}

pub async fn put(driver: &impl Driver, objects: &[Object]) -> Result<(), DriverError> {
    let changes: Vec<_> =
        objects.iter().map(|object| Change::Put { new: object.clone(), old: None }).collect();
    driver.apply(Epoch(1), &changes).await
}

pub async fn delete(driver: &impl Driver, objects: &[Object]) -> Result<(), DriverError> {
    let changes: Vec<_> = objects.iter().map(|object| Change::Delete { old: object.clone() }).collect();
    driver.apply(Epoch(1), &changes).await
}

pub fn state(objects: &[Object]) -> ElementState {
    objects.iter().cloned().collect()
}

/// An error with all its causes.
pub fn words(error: DriverError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

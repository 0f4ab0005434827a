//! What is told of others' doings.

use std::time::Duration;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, Event};
use catena_driver_steer::Hook;
use catena_model::forwarding::{Action, Direction, Object, Purpose};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::foreign::has_tcx;
use crate::objects::{ingress, policy, tcp};
use crate::world::{Pins, cable, driver, ip, put, quiet_namespace, run};

/// For what should come. The kernel tells of a lost carrier once a second at most.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what should not.
const A_WHILE: Duration = Duration::from_millis(700);

fn objects() -> Vec<Object> {
    vec![
        policy(1, &["172.16.1.0/24"], vec![tcp(80, Action::Claim)], None),
        ingress("lan", Purpose::Claim, &[Direction::Up]),
    ]
}

fn access() -> (NetNs, NetNs, Pins) {
    let [access, beyond] = [(); 2].map(|()| quiet_namespace(true));
    cable((&access, "lan", &[]), (&beyond, "lan-x", &[]));
    (access, beyond, Pins::new())
}

async fn drift(events: &mut Receiver<Event>, within: Duration) -> Option<String> {
    loop {
        match timeout(within, events.recv()).await {
            Ok(Some(Event::Drift { what })) => return Some(what),
            Ok(Some(_)) => {}
            _ => return None,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_program_is_told() {
    if !has_tcx() {
        return;
    }
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, Some(Hook::Tcx));
    put(&driver, &objects()).await;
    let mut events = driver.events();
    assert_eq!(drift(&mut events, A_WHILE).await, None, "nothing has happened");
    let link = std::fs::read_dir(pins.of("access-a"))
        .unwrap()
        .flatten()
        .find_map(|pin| pin.file_name().to_str()?.starts_with("link-").then(|| pin.path()));
    libbpf_rs::Link::open(link.unwrap()).unwrap().detach().unwrap();
    assert!(drift(&mut events, PATIENCE).await.is_some_and(|what| what.contains("lan")));
    put(&driver, &objects()).await;
    assert_eq!(drift(&mut events, A_WHILE).await, None, "what we do ourselves is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_filter_is_told() {
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, Some(Hook::Clsact));
    put(&driver, &objects()).await;
    let mut events = driver.events();
    assert_eq!(drift(&mut events, A_WHILE).await, None, "nothing has happened");
    run(&netns, "tc filter del dev lan ingress");
    assert!(drift(&mut events, PATIENCE).await.is_some_and(|what| what.contains("lan")));
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_pins_are_told() {
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    let mut events = driver.events();
    assert_eq!(drift(&mut events, A_WHILE).await, None, "nothing has happened");
    std::fs::remove_file(pins.of("access-a").join("policies")).unwrap();
    assert!(drift(&mut events, PATIENCE).await.is_some());
    put(&driver, &objects()).await;
    std::fs::remove_dir_all(pins.of("access-a")).unwrap();
    assert!(drift(&mut events, PATIENCE).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_told() {
    let (netns, beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    let mut events = driver.events();
    assert_eq!(drift(&mut events, A_WHILE).await, None, "nothing has happened");
    ip(&beyond, "link set lan-x down");
    let told = timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert_eq!(told, Event::Port { port: "lan".parse().unwrap(), up: false });
    ip(&netns, "link del lan");
    assert!(drift(&mut events, PATIENCE).await.is_some_and(|what| what.contains("lan")));
}

//! What is pinned, and what happens when it is not.

use catena_driver::netns::NetNs;
use catena_driver::{Driver, DriverError, Epoch};
use catena_driver_steer::{Config, Hook, SteerDriver};
use catena_model::forwarding::{Action, Change, Direction, Object, Purpose};

use crate::foreign::has_tcx;
use crate::objects::{ingress, policy, tcp};
use crate::world::{MARK, Pins, cable, config, delete, driver, put, quiet_namespace};

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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_pinned_before_the_first_object() {
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    driver.observe().await.unwrap();
    driver.check(&[]).await.unwrap();
    driver.apply(Epoch(1), &[Change::Delete { old: objects()[1].clone() }]).await.unwrap();
    let nowhere = ingress("nowhere", Purpose::Claim, &[Direction::Up]);
    driver.apply(Epoch(1), &[Change::Put { new: nowhere, old: None }]).await.unwrap_err();
    assert!(pins.are_none());
}

async fn pins_that_were_removed_are_put_back(hook: Hook) {
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, Some(hook));
    put(&driver, &objects()).await;
    std::fs::remove_dir_all(pins.of("access-a")).unwrap();
    assert!(driver.observe().await.unwrap().is_empty());
    put(&driver, &objects()[..1]).await;
    // The program was never off the port, so nothing else had to be put again.
    assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect());

    let all: Vec<_> = std::fs::read_dir(pins.of("access-a")).unwrap().flatten().collect();
    for pin in all {
        std::fs::remove_file(pin.path()).unwrap();
        assert!(!driver.observe().await.unwrap().contains(&objects()[1]), "without {:?}", pin.file_name());
        put(&driver, &objects()).await;
        assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_that_were_removed_are_put_back_while_the_driver_lives_by_tcx() {
    if !has_tcx() {
        return;
    }
    pins_that_were_removed_are_put_back(Hook::Tcx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_that_were_removed_are_put_back_while_the_driver_lives_by_clsact() {
    pins_that_were_removed_are_put_back(Hook::Clsact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_mark_is_another_state() {
    let (netns, _beyond, pins) = access();
    put(&driver("access-a", &netns, &pins, None), &objects()).await;
    let other = Config { mark: MARK << 1, ..config("access-a", &netns, &pins, None) };
    let other = SteerDriver::new(other).unwrap();
    assert!(
        !other.observe().await.unwrap().contains(&objects()[1]),
        "it marks by a bit that is no longer ours"
    );
    put(&other, &objects()[1..]).await;
    assert_eq!(other.observe().await.unwrap(), objects().into_iter().collect());
}

#[test]
fn a_folder_elsewhere_is_refused() {
    let (netns, _beyond, pins) = access();
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Config { pins: folder.path().join("pins"), ..config("access-a", &netns, &pins, None) };
    let error = SteerDriver::new(elsewhere).unwrap_err();
    assert!(
        matches!(&error, DriverError::Unsupported { help, .. } if help.contains("mount -t bpf")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_of_one_element_see_what_the_others_did() {
    let (netns, _beyond, pins) = access();
    let daemon = driver("access-a", &netns, &pins, None);
    let command = driver("access-a", &netns, &pins, None);
    put(&command, &objects()).await;
    assert_eq!(daemon.observe().await.unwrap(), objects().into_iter().collect());
    delete(&daemon, &objects()[..1]).await;
    assert_eq!(command.observe().await.unwrap(), objects()[1..].iter().cloned().collect());
    delete(&command, &objects()).await;
    assert!(pins.are_none());
    put(&daemon, &objects()[..1]).await;
    assert_eq!(
        daemon.observe().await.unwrap(),
        objects()[..1].iter().cloned().collect(),
        "nothing old is back"
    );
}

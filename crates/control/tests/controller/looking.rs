//! A controller that only looks: it says all that another would, and touches nothing.

use catena_control::ApplyError;
use catena_control::report::{ControllerState, ElementState};
use catena_driver::simulated::SimulatedElement;
use catena_store::Store;

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn looking_repairs_nothing_and_writes_nothing() {
    let world = World::new(1);
    drop(chained(&world).await);
    world.disturb(&"gateway".parse().unwrap(), SimulatedElement::lose_any).unwrap();
    let before = (world.installed(), world.changes(), world.store.revision().await.unwrap());

    let controller = looker(&world).await;
    let status = controller.status();
    assert!(!status.converged);
    assert_eq!(status.controller, ControllerState::None);
    let gateway = status.elements.iter().find(|element| element.name.as_str() == "gateway").unwrap();
    assert_eq!(gateway.state, ElementState::OutOfSync);
    assert!(gateway.last_error.as_ref().unwrap().contains("missing: "), "{gateway:?}");
    assert_eq!(status.revision, before.2.0);
    plan_for(&controller, &[chain(&["ips", "fw"])]).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert!(before == (world.installed(), world.changes(), world.store.revision().await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn looking_tells_why_something_cannot_be_installed() {
    let world = World::new(1);
    drop(chained(&world).await);
    let port = "web1-in".parse().unwrap();
    world.disturb(&"br-int".parse().unwrap(), |switch| switch.unplug(&port));
    let status = looker(&world).await.status();
    let switch = status.elements.iter().find(|element| element.name.as_str() == "br-int").unwrap();
    assert!(switch.last_error.as_ref().unwrap().contains("no port web1-in"), "{switch:?}");
}

#[tokio::test(start_paused = true)]
async fn who_only_looks_carries_nothing_out() {
    let world = World::new(1);
    drop(chained(&world).await);
    let (changes, revision) = (world.changes(), world.store.revision().await.unwrap());
    let controller = looker(&world).await;
    let error = apply(&controller, &[chain(&["ips"])]).await.unwrap_err();
    assert!(matches!(error, ApplyError::Store(_)), "{error:?}");
    assert_eq!((world.changes(), world.store.revision().await.unwrap()), (changes, revision));
}

//! Another version of the controller is started on what its predecessor installed.

use std::time::Duration;

use catena_control::report::{EventKind, Hold};
use catena_control::{ApplyError, Controller, Rollback};
use catena_driver::simulated::{Fault, SimulatedElement};
use catena_store::{Store, Write};
use catena_verify::{Property, Verdict};

use crate::gate::{BROKEN, apply_allowing, divert, restore};
use crate::world::*;

/// From now on what is rendered is not what was let through last.
async fn upgrade(world: &World) {
    const JUDGED: &str = "control/judged";
    let entry = world.store.get(JUDGED).await.unwrap().unwrap();
    let mut judged: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    judged["desired"] = 4711.into();
    world.store.transact(vec![Write::put(JUDGED, judged.to_string())]).await.unwrap();
}

/// Something is installed otherwise than this version would.
fn differ(world: &World) {
    world.disturb(&"gateway".parse().unwrap(), SimulatedElement::lose_any).unwrap();
}

/// A new version that would break the chain, as far as its verifier can tell, has been started.
async fn held(world: &World) -> (Controller, Hold) {
    drop(chained(world).await);
    upgrade(world).await;
    divert(world);
    differ(world);
    let controller = world.controller().await;
    let hold = controller.status().hold.unwrap();
    (controller, hold)
}

#[tokio::test(start_paused = true)]
async fn what_another_version_would_break_is_left_as_it_is() {
    let world = World::new(1);
    let (controller, hold) = held(&world).await;
    let (installed, changes) = (world.installed(), world.changes());
    assert!(hold.why.contains("no-bypass of chain acme-web"), "{}", hold.why);
    assert!(hold.help.contains("--allow no-bypass"), "{}", hold.help);
    assert!(hold.violations.iter().any(|shown| shown.property == Property::NoBypass), "{hold:?}");
    assert_eq!(kinds_of_events(&controller, 0)[0], EventKind::Held);
    assert!(!kinds_of_events(&controller, 0).contains(&EventKind::Drift));
    world.element("edge").plug(&"wan".parse().unwrap());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!controller.status().converged);
    // It was never let through: that it is asked for is no leave.
    for result in [
        plan_for(&controller, &[chain(&["fw", "ips", "web"])]).await,
        apply(&controller, &[chain(&["fw", "ips", "web"])]).await,
        apply(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await,
    ] {
        assert!(matches!(result, Err(ApplyError::Violates(_))), "{result:?}");
    }
    drop(controller);
    let controller = world.controller().await;
    assert!(controller.status().hold.is_some());
    assert!(world.installed() == installed && world.changes() == changes);
    // What is installed is verified meanwhile.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(controller.status().chains[0].verdict.clone().unwrap().verdict, Verdict::Violated);

    apply_allowing(&controller, &[chain(&["fw", "ips", "web"])], &BROKEN).await.unwrap();
    let status = assert_converged(&controller, &world);
    assert_eq!(status.hold, None);
    assert!(status.given_up.iter().any(|given_up| given_up.promise.property == Property::NoBypass));
    assert!(world.installed() != installed);
    drop(controller);
    assert_eq!(world.controller().await.status().hold, None);
}

#[tokio::test(start_paused = true)]
async fn what_holds_again_is_installed_with_the_next_request() {
    let world = World::new(1);
    let (controller, _) = held(&world).await;
    restore(&world);
    apply(&controller, &[chain(&["fw", "ips", "web"])]).await.unwrap();
    let status = assert_converged(&controller, &world);
    assert_eq!((status.hold, status.given_up), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_fails_meanwhile_brings_nothing_back_that_was_not_let_through() {
    let world = World::new(1);
    let (controller, _) = held(&world).await;
    restore(&world);
    let gateway = world.element("gateway").installed();
    world.element("br-int").fail(1, Fault::Refuse);
    let error = apply(&controller, &[chain(&["fw"])]).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Failed { rollback: Rollback::Partial(_), .. }), "{error:?}");
    assert!(controller.status().hold.is_some());
    assert!(world.element("gateway").installed() == gateway);
    world.element("br-int").mend();
    apply(&controller, &[chain(&["fw"])]).await.unwrap();
    assert_eq!(assert_converged(&controller, &world).hold, None);
}

#[tokio::test(start_paused = true)]
async fn what_was_broken_before_holds_no_other_version_back() {
    let world = World::new(1);
    let controller = chained(&world).await;
    divert(&world);
    apply(&controller, &[chain_of("globex", "globex-web", &["fw"])]).await.unwrap();
    drop(controller);
    upgrade(&world).await;
    differ(&world);
    let controller = world.controller().await;
    let status = assert_converged(&controller, &world);
    assert_eq!((status.hold, status.given_up), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn another_version_that_breaks_nothing_is_installed() {
    let world = World::new(1);
    drop(chained(&world).await);
    upgrade(&world).await;
    differ(&world);
    let controller = world.controller().await;
    assert_converged(&controller, &world);
    assert_eq!(kinds_of_events(&controller, 0), [EventKind::Repaired, EventKind::Started]);
    // Once is enough: it has been let through.
    drop(controller);
    divert(&world);
    let controller = world.controller().await;
    assert_eq!(assert_converged(&controller, &world).hold, None);
}

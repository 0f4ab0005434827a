//! Others' programs on our ports, and others' hands on ours.

use catena_driver::Driver;
use catena_driver::netns::NetNs;
use catena_driver_steer::Hook;
use catena_model::forwarding::{Action, Direction, Object, Purpose};

use crate::foreign::{Foreign, has_tcx, programs};
use crate::objects::{ingress, policy, tcp, tunnel};
use crate::world::{Pins, attempt, cable, delete, driver, ip, put, quiet_namespace, run};

const PREFIXES: [&str; 1] = ["172.16.1.0/24"];

fn objects() -> Vec<Object> {
    vec![
        policy(1, &PREFIXES, vec![tcp(80, Action::Claim)], None),
        ingress("lan", Purpose::Claim, &[Direction::Up]),
        Object::Tunnel(tunnel(1, "203.0.113.2", "203.0.113.1", Some(1), &["0.0.0.0/0"])),
    ]
}

/// An access router.
fn access() -> (NetNs, NetNs, Pins) {
    let [access, beyond] = [(); 2].map(|()| quiet_namespace(true));
    cable((&access, "lan", &["172.16.1.1/24"]), (&beyond, "lan-x", &["172.16.1.10/24"]));
    cable((&access, "wan", &["203.0.113.2/30"]), (&beyond, "wan-x", &["203.0.113.1/30"]));
    (access, beyond, Pins::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_program_still_runs_behind_ours() {
    if !has_tcx() {
        return;
    }
    let (netns, beyond, pins) = access();
    let foreign = Foreign::attach(&netns, &["lan"]);
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    let before = foreign.runs();
    run(&beyond, "ping -n -c 3 -i 0.2 -W 2 172.16.1.1");
    assert!(foreign.runs() >= before + 3, "it sees what we let pass");
    delete(&driver, &objects()).await;
    let before = foreign.runs();
    run(&beyond, "ping -n -c 3 -i 0.2 -W 2 172.16.1.1");
    assert!(foreign.runs() >= before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_program_that_comes_later_does_not_stand_before_ours() {
    if !has_tcx() {
        return;
    }
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    let before = run(&netns, "ip -o link show; tc qdisc show");
    let foreign = Foreign::attach(&netns, &["lan"]);
    assert!(!driver.observe().await.unwrap().contains(&objects()[1]), "it could let packets by");
    put(&driver, &objects()[1..2]).await;
    assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect());
    let programs = programs(&netns, "lan");
    assert_eq!((programs.len(), programs[1]), (2, foreign.program_id()), "ours is the first");
    assert_eq!(run(&netns, "tc filter show dev lan ingress"), "", "and not there twice");
    drop(foreign);
    assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect(), "it may stay so");
    assert_eq!(run(&netns, "ip -o link show; tc qdisc show"), before);
    delete(&driver, &objects()).await;
    assert!(!run(&netns, "tc qdisc show").contains("clsact"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_filter_does_not_stand_before_ours() {
    if !has_tcx() {
        return;
    }
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    run(&netns, "tc filter add dev lan ingress pref 7 protocol all bpf bytecode '1,6 0 0 0,'");
    assert!(!driver.observe().await.unwrap().contains(&objects()[1]), "it could let packets by");
    put(&driver, &objects()[1..2]).await;
    assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect());
    assert_eq!(programs(&netns, "lan").len(), 1, "by tcx, before all filters");
    delete(&driver, &objects()).await;
    assert!(run(&netns, "tc filter show dev lan ingress").contains("pref 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clsact_qdisc_goes_only_if_it_is_ours_and_empty() {
    const FILTER: &str = "ingress pref 7 protocol all bpf bytecode '1,6 0 0 0,'";
    // Theirs before ours.
    let (netns, _beyond, pins) = access();
    run(&netns, "tc qdisc add dev lan clsact");
    let first = driver("access-a", &netns, &pins, Some(Hook::Clsact));
    put(&first, &objects()).await;
    delete(&first, &objects()).await;
    assert!(run(&netns, "tc qdisc show dev lan").contains("clsact"), "it was there before us");
    assert!(!run(&netns, "tc qdisc show dev wan").contains("clsact"), "this one was ours");
    // Their filter on our qdisc.
    put(&first, &objects()).await;
    run(&netns, &format!("tc filter add dev wan {FILTER}"));
    delete(&first, &objects()).await;
    assert!(run(&netns, "tc filter show dev wan ingress").contains("pref 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_made_again_is_seen_and_healed() {
    let (netns, beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    ip(&netns, "link del lan");
    let seen = driver.observe().await.unwrap();
    assert!(!seen.contains(&objects()[1]), "its port is gone");
    assert!(seen.contains(&objects()[0]) && seen.contains(&objects()[2]));
    cable((&netns, "lan", &["172.16.1.1/24"]), (&beyond, "lan-x", &["172.16.1.10/24"]));
    assert!(!driver.observe().await.unwrap().contains(&objects()[1]), "another port of the same name");
    put(&driver, &objects()[1..2]).await;
    assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_of_tunnels_is_healed() {
    let (netns, _beyond, pins) = access();
    let driver = driver("access-a", &netns, &pins, None);
    put(&driver, &objects()).await;
    for damage in ["link set catena-gre down", "link del catena-gre", "link set catena-gre-x down"] {
        ip(&netns, damage);
        assert!(!driver.observe().await.unwrap().contains(&objects()[2]), "{damage}");
        put(&driver, &objects()[2..]).await;
        assert_eq!(driver.observe().await.unwrap(), objects().into_iter().collect(), "{damage}");
    }
    assert!(attempt(&netns, "ip link show catena-gre").status.success());
}

//! Real packets: where they go, and above all where they do not.

use catena_testbed::traffic::{ALONG, DROPPED, V4, V6};

use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_where_they_should() {
    for plan in [V4, V6] {
        let world = World::default();
        plan.build(&world, world.driver()).goes_where_it_should().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_dropped_and_do_not_leak_when_the_port_goes() {
    for plan in [V4, V6] {
        let world = World::default();
        plan.build(&world, world.driver()).does_not_leak_without_its_port(&plan, &world).await;
    }
}

/// What somebody does in one stroke to the rule, its table or what leads there, and where packets go until it is healed.
#[tokio::test(flavor = "multi_thread")]
async fn meddling_opens_no_way_round() {
    for plan in [V4, V6] {
        let flag = plan.flag();
        let world = World::default();
        let commands = [
            ("tc filter del dev qg-ext ingress", DROPPED),
            ("tc qdisc del dev qg-ext clsact", DROPPED),
            (&*format!("ip {flag} route flush table 10001"), ALONG),
            (&*format!("ip {flag} rule del pref 10000 lookup 10001"), ALONG),
            (&*format!("ip {flag} rule del pref 10256"), ALONG),
            (&*format!("ip {flag} rule del pref 10257"), ALONG),
            (&*format!("ip {flag} rule flush; ip {flag} rule add pref 32766 lookup main"), ALONG),
        ];
        plan.build(&world, world.driver()).is_meddled_with(&world, &commands).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_objects_are_replaced() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        traffic.loses_nothing_while_objects_are_replaced(&plan, &world, 30).await;
    }
}

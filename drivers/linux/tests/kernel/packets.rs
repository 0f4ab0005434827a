//! Real packets: where they go, and above all where they do not.

use catena_driver::Driver;
use catena_model::forwarding::Selector;
use catena_testbed::objects::{port, put, rule, selector, state};
use catena_testbed::run;
use catena_testbed::traffic::{ALONG, DROPPED, Plan, ROUND, V4, V6};

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

/// What somebody does to the rule or its table in one stroke, and where packets go until it is healed.
#[tokio::test(flavor = "multi_thread")]
async fn meddling_opens_no_way_round() {
    for plan in [V4, V6] {
        let flag = plan.flag();
        let world = World::default();
        let commands = [
            (&*format!("ip {flag} route flush table 10001 type unicast"), DROPPED),
            (&*format!("ip {flag} route flush table 10001"), DROPPED),
            (&*format!("ip {flag} rule del pref 10000"), DROPPED),
            (&*format!("ip {flag} rule del pref 10256"), ALONG),
        ];
        plan.build(&world, world.driver()).is_meddled_with(&world, &commands).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_objects_are_replaced() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        traffic.loses_nothing_while_objects_are_replaced(&plan, &world, 300).await;
    }
}

/// nftables stands for the program that marks what a policy releases.
async fn what_is_released_alone_goes_round(plan: Plan, flag: &str) {
    let world = World::default();
    let traffic = plan.build(&world, world.driver());
    let inbound = Selector { in_port: Some(port("qg-ext")), unless_released: true, ..selector(plan.prefix) };
    let objects = [traffic.objects[0].clone(), rule(0, inbound, 1)];
    put(&traffic.driver, &objects).await.unwrap();
    assert_eq!(traffic.driver.observe().await.unwrap(), state(&objects));
    assert_eq!(traffic.send(), ALONG, "nobody releases anything");

    run(
        &world.router,
        "nft 'add table inet release; \
         add chain inet release entry { type filter hook prerouting priority raw; }; \
         add rule inet release entry meta mark set 0x04000000'",
    );
    assert_eq!(traffic.send(), ROUND, "all is released");
    world.ip(&format!("{flag} rule del pref 10000"));
    assert_eq!(traffic.send(), ROUND, "the guard too means only what is not released");
    run(&world.router, "nft delete table inet release");
    assert_eq!(traffic.send(), DROPPED, "nobody releases anything, and the rule is gone");
    put(&traffic.driver, &objects).await.unwrap();
    assert_eq!(traffic.send(), ALONG, "healed");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ipv4_what_is_released_alone_goes_round() {
    what_is_released_alone_goes_round(V4, "-4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ipv6_what_is_released_alone_goes_round() {
    what_is_released_alone_goes_round(V6, "-6").await;
}

//! Real packets: where they go, and above all where they do not.

use catena_model::forwarding::Selector;
use catena_testbed::ip;
use catena_testbed::objects::{delete, port, put, rule, selector};
use catena_testbed::traffic::{ALONG, DROPPED, ROUND, V4, V6};

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
        let tables = if flag == "-6" { "tables-ip6" } else { "tables-ip" };
        let world = World::default();
        let commands = [
            (&*format!("ip {flag} route flush table 10001 type unicast"), DROPPED),
            (&*format!("ip {flag} route flush table 10001"), DROPPED),
            (&*format!("ip {flag} rule del pref 10000 lookup 10001"), DROPPED),
            (&*format!("ip {flag} rule del pref 10256"), ALONG),
            (&*format!("ip {flag} rule flush; ip {flag} rule add pref 32766 lookup main"), DROPPED),
            ("nft flush set inet catena hops", DROPPED),
            ("nft flush chain inet catena forward", ALONG),
            ("nft flush chain inet catena nowhere", ALONG),
            (&*format!("nft flush map inet catena {tables}"), ALONG),
        ];
        plan.build(&world, world.driver()).is_meddled_with(&world, &commands).await;
    }
}

/// What the driver's page says that nothing guards: this fails if it gets a guard, and the page is to be corrected.
#[tokio::test(flavor = "multi_thread")]
async fn who_deletes_the_whole_table_opens_the_owners_way_until_it_is_put_back() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    put(&traffic.driver, &traffic.objects).await.unwrap();
    world.nft("flush ruleset");
    assert_eq!(traffic.send(), ROUND);
    put(&traffic.driver, &traffic.objects).await.unwrap();
    assert_eq!(traffic.send(), ALONG);
}

/// Somebody before us, such as a tc program or another table, gives packets a hop's mark.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_others_chooses_no_hop() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    put(&traffic.driver, &traffic.objects).await.unwrap();
    // Not what the rule is for, but marked as if it were.
    let elsewhere = rule(0, Selector { in_port: Some(port("qr-abc")), ..selector(V4.prefix) }, 1);
    put(&traffic.driver, &[elsewhere]).await.unwrap();
    delete(&traffic.driver, &traffic.objects[2..]).await.unwrap();
    world.nft(
        "table inet other { chain c { type filter hook prerouting priority raw; meta mark set 0x2010001; }; }",
    );
    assert_eq!(traffic.send(), ROUND);
}

/// The mark that a policy sets on what no chain claims.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_is_passed_over() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        let claims = rule(0, Selector { unless_released: true, ..selector(plan.prefix) }, 1);
        put(&traffic.driver, &traffic.objects[..2]).await.unwrap();
        put(&traffic.driver, &[claims]).await.unwrap();
        assert_eq!(traffic.send(), ALONG);
        world.nft(
            "table inet release { chain c { type filter hook prerouting priority raw; meta mark set 0x4000000; }; }",
        );
        assert_eq!(traffic.send(), ROUND);
    }
}

/// Routing sees the addresses that translation leaves, and so do the maps.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_at_is_what_routing_sees() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    let replies = Selector { from: None, to: "198.51.100.10/32".parse().ok(), ..selector(V4.prefix) };
    put(&traffic.driver, &traffic.objects[..2]).await.unwrap();
    put(&traffic.driver, &[rule(128, replies, 1)]).await.unwrap();
    world.nft(
        "table ip nat { chain c { type nat hook prerouting priority dstnat; ip daddr 198.51.100.99 dnat to 198.51.100.10; }; }",
    );
    ip(&world.site, "route add 198.51.100.99 via 10.20.0.2");
    for _ in 0..20 {
        traffic.sender.send_to(b"packet", "198.51.100.99:9000").unwrap();
    }
    assert_eq!(traffic.arrived(), ALONG);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_objects_are_replaced() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        traffic.loses_nothing_while_objects_are_replaced(&plan, &world, 30).await;
    }
}

/// A program that sends the packet on by routing it once more (`bpf_redirect_neigh`) would find the hop's rule.
#[tokio::test(flavor = "multi_thread")]
async fn the_mark_does_not_leave_with_the_packet() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    put(&traffic.driver, &traffic.objects).await.unwrap();
    world.nft(
        "table inet leaving { chain c { type filter hook postrouting priority 300; \
         meta mark & 0x3ff0000 != 0 counter drop; }; }",
    );
    assert_eq!(traffic.send(), ALONG);
}

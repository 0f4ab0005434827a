//! Other programs and people change what is ours, or what ours depends on.

use std::time::Duration;

use catena_driver::{Driver, DriverError, Epoch, Event};
use catena_driver_nft::NftDriver;
use catena_model::forwarding::{Change, Object, PathId, Selector};
use catena_testbed::objects::{delete, from, port, put, rule, selector, state, table, words};
use catena_testbed::{QR_ABC, run};
use tokio::time::{sleep, timeout};

use crate::world::World;

const SITE: &str = "172.16.1.0/24";

/// What the tests below install, and how to check that it is whole again.
async fn installed(world: &World) -> (NftDriver, Vec<Object>) {
    let driver = world.driver();
    let objects = vec![
        table(1, "qr-abc", "10.21.0.5"),
        table(1, "qr-abc", "2001:db8:21::5"),
        from(SITE, 1),
        from("2001:db8:a1::/64", 1),
    ];
    put(&driver, &objects).await.unwrap();
    (driver, objects)
}

/// Each command damages something; what is then observed is not what was installed, and putting it again heals it.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_seen_and_healed() {
    const COMMANDS: [&str; 27] = [
        "ip route flush table 10001",
        "ip -6 route flush table 10002",
        "ip route del default table 10001 metric 0",
        "ip route del unreachable default table 10001 metric 4278198272",
        "ip -6 route del unreachable default table 10002 metric 4278198272",
        "ip route replace default via 10.23.0.2 dev qg-def table 10001 proto 202",
        "ip -6 route append default via 2001:db8:23::2 dev qg-def table 10002 proto 202",
        "ip route add 198.51.100.0/24 via 10.23.0.2 table 10001 proto 202",
        "ip rule del pref 10000",
        "ip -6 rule del pref 10000",
        "ip rule del pref 10256",
        "ip -6 rule del pref 10256",
        "nft delete table inet catena",
        "nft flush table inet catena",
        "nft flush map inet catena order0-ip-from24",
        "nft flush map inet catena tables-ip6",
        "nft flush set inet catena hops",
        "nft add element inet catena order0-ip-from24 { 192.0.2.0 : goto hop-1 }",
        "nft add element inet catena order0-ip-from24 { 192.0.2.0 : accept }",
        "nft add element inet catena order0-ip-from24 { 192.0.2.0 comment \\\"path 9\\\" : goto hop-1 }",
        "nft flush chain inet catena prerouting",
        "nft flush chain inet catena forward",
        "nft flush chain inet catena hop-1",
        "nft add rule inet catena hop-1 accept",
        "nft insert rule inet catena prerouting accept",
        "nft add chain inet catena prerouting { policy drop\\; }",
        "nft add chain inet catena extra",
    ];
    for command in COMMANDS {
        let world = World::default();
        let (driver, objects) = installed(&world).await;
        let before = world.snapshot();
        run(&world.router, command);
        assert_ne!(driver.observe().await.unwrap(), state(&objects), "after {command}");
        let nowhere: Vec<_> = driver
            .observe()
            .await
            .unwrap()
            .iter()
            .filter(|found| matches!(found, Object::Rule(rule) if rule.table == PathId::NOWHERE || rule.table == PathId(9)))
            .map(|found| Change::Delete { old: found.clone() })
            .collect();
        put(&driver, &objects).await.unwrap();
        driver.apply(Epoch(1), &nowhere).await.unwrap();
        assert_eq!(driver.observe().await.unwrap(), state(&objects), "after {command}");
        assert_eq!(world.snapshot(), before, "after {command}");
    }
}

/// The undoing of a plan that healed a damaged rule or table: what they match is dropped again.
#[tokio::test(flavor = "multi_thread")]
async fn what_leads_nowhere_can_be_put() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    run(&world.router, "nft flush chain inet catena prerouting; ip route del default table 10001 metric 0");
    let found = driver.observe().await.unwrap();
    let damaged: Vec<_> = found.iter().filter(|object| !objects.contains(object)).cloned().collect();
    assert_eq!(damaged.len(), 3, "{damaged:?}");
    put(&driver, &objects).await.unwrap();
    put(&driver, &damaged).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), found);
    put(&driver, &objects).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
}

/// What an L3 agent does with a port of a virtual router.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_made_anew_gets_its_next_hops_back() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    world.ip("link del qr-abc");
    assert!(matches!(put(&driver, &objects).await, Err(DriverError::NoPort(name)) if name == port("qr-abc")));
    world.cable("qr-abc", &QR_ABC);
    put(&driver, &objects).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
}

/// A rule of a port that is gone is still ours, matches nothing, and works again when the port comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_a_port_that_is_gone_is_observed_and_can_be_removed() {
    let world = World::default();
    let driver = world.driver();
    let inbound = rule(0, Selector { in_port: Some(port("qg-ext")), ..selector(SITE) }, 1);
    let objects = [table(1, "qr-abc", "10.21.0.5"), inbound.clone()];
    put(&driver, &objects).await.unwrap();
    world.ip("link del qg-ext");
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
    delete(&driver, &[inbound]).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects[..1]));
}

/// After a crash between the two parts of a step, and after a change of the element's engine.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_is_cleared_away() {
    const LEFT: [&str; 5] = [
        "ip rule add pref 10000 fwmark 0x2070000/0x3ff0000 lookup 10007 proto 202",
        "ip route add unreachable default table 10007 proto 202 metric 4278198272",
        "ip rule add pref 10136 from 172.16.1.0/24 lookup 10004 proto 202",
        "ip rule add pref 10392 from 172.16.1.0/24 unreachable proto 202",
        "ip route add default via 10.21.0.5 table 10004 proto 202",
    ];
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    let before = world.snapshot();
    for command in LEFT {
        run(&world.router, command);
    }
    put(&driver, &objects).await.unwrap();
    assert_eq!(world.snapshot(), before);
}

/// Tenants share their next hops: the kernel has rules and tables for these alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_has_as_many_rules_as_there_are_next_hops() {
    let world = World::default();
    let driver = world.driver();
    let bare = world.ip("rule show").lines().count();
    let objects: Vec<_> = (1..=200)
        .flat_map(|n| {
            let via = if n % 2 == 0 { "10.21.0.5" } else { "10.21.0.6" };
            [table(n, "qr-abc", via), from(&format!("10.{n}.0.0/16"), n)]
        })
        .collect();
    put(&driver, &objects).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
    assert_eq!(world.ip("rule show").lines().count(), bare + 3, "two next hops and their guard");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_comes_before_its_rules_and_goes_after_them() {
    let world = World::default();
    let driver = world.driver();
    let error = words(put(&driver, &[from(SITE, 1)]).await.unwrap_err());
    assert_eq!(
        error,
        "element qrouter-1234 (netns qrouter-1234): a rule for path 1: its table is not there; it must be put first"
    );
    put(&driver, &[table(1, "qr-abc", "10.21.0.5"), from(SITE, 1)]).await.unwrap();
    let error = words(delete(&driver, &[table(1, "qr-abc", "10.21.0.5")]).await.unwrap_err());
    assert!(error.ends_with("a rule of ours still leads to it; it must go first"), "{error}");
}

/// What comes before a change that fails is applied, and what comes after it is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_stops_there() {
    let world = World::default();
    let driver = world.driver();
    let objects = [table(1, "qr-abc", "10.21.0.5"), table(2, "qr-abc", "192.0.2.1"), from(SITE, 1)];
    let error = words(put(&driver, &objects).await.unwrap_err());
    assert_eq!(
        error,
        "element qrouter-1234 (netns qrouter-1234): ip route add default via 192.0.2.1 dev qr-abc table 10002: \
         Nexthop has invalid gateway: ENETUNREACH: Network is unreachable"
    );
    assert_eq!(driver.observe().await.unwrap(), state(&objects[..1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_changes_are_told_and_our_own_are_not() {
    let world = World::default();
    let driver = world.driver();
    let mut events = driver.events();
    let (objects, others) =
        ([table(1, "qr-abc", "10.21.0.5"), from(SITE, 1)], "table inet other { chain c { }; }");
    put(&driver, &objects).await.unwrap();
    delete(&driver, &objects[1..]).await.unwrap();
    world.nft(others);
    world.ip("route add 192.0.2.0/24 via 10.23.0.2");
    world.ip("rule add pref 500 from 192.0.2.0/24 lookup main");
    sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_err());

    for (command, told) in [
        ("nft flush map inet catena tables-ip", "the nftables table was changed"),
        ("nft delete table inet catena", "the nftables table was changed"),
        ("ip rule del pref 10000", "a next hop's rule or route was changed"),
        ("ip route flush table 10001", "a next hop's rule or route was changed"),
    ] {
        run(&world.router, command);
        let event = timeout(Duration::from_secs(2), events.recv()).await.unwrap().unwrap();
        assert_eq!(event, Event::Drift { what: told.to_owned() }, "{command}");
        sleep(Duration::from_millis(50)).await;
        while events.try_recv().is_ok() {}
    }
}

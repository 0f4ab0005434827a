//! Other programs and people change what is ours, or what ours depends on.

use catena_driver::{Driver, DriverError, Epoch};
use catena_model::forwarding::{Change, Object, PathId, Selector, Table};
use catena_model::name::PortName;
use catena_testbed::objects::{delete, from, port, put, rule, selector, state, table, words};
use catena_testbed::{QR_ABC, run, set};

use crate::world::World;

const SITE: &str = "172.16.1.0/24";

/// What the tests below install, and how to check that it is whole again.
async fn installed(world: &World) -> (catena_driver_linux::LinuxDriver, Vec<Object>) {
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
    const COMMANDS: [&str; 16] = [
        "route flush table 10001",
        "-6 route flush table 10001",
        "route del default table 10001 metric 0",
        "route del unreachable default table 10001 metric 4278198272",
        "-6 route del unreachable default table 10001 metric 4278198272",
        "-6 route del default via 2001:db8:21::5 table 10001",
        "route replace default via 10.23.0.2 dev qg-def table 10001 proto 202",
        "route replace default table 10001 proto 202 nexthop via 10.21.0.5 dev qr-abc nexthop via 10.23.0.2 dev qg-def",
        "-6 route append default via 2001:db8:23::2 dev qg-def table 10001 proto 202",
        "route add 198.51.100.0/24 via 10.23.0.2 table 10001 proto 202",
        "route append default via 10.21.0.7 dev qr-abc table 10001 proto 202",
        "rule flush",
        "rule del pref 10000",
        "-6 rule del pref 10000",
        "rule del pref 10256",
        "-6 rule del pref 10256",
    ];
    for command in COMMANDS {
        let world = World::default();
        let (driver, objects) = installed(&world).await;
        let before = world.snapshot();
        world.ip(command);
        assert_ne!(driver.observe().await.unwrap(), state(&objects), "after {command}");
        put(&driver, &objects).await.unwrap();
        assert_eq!(driver.observe().await.unwrap(), state(&objects), "after {command}");
        if command != "rule flush" {
            assert_eq!(world.snapshot(), before, "after {command}");
        }
    }
}

/// Whatever is left of a table is found, so that it can be taken away.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_table_is_seen_and_removed() {
    const COMMANDS: [&str; 3] = [
        "route del default table 10001 metric 0",
        "route del unreachable default table 10001 metric 4278198272",
        "route add 198.51.100.0/24 via 10.23.0.2 table 10001 proto 202",
    ];
    for command in COMMANDS {
        let world = World::default();
        let before = world.snapshot();
        let driver = world.driver();
        let whole = table(1, "qr-abc", "10.21.0.5");
        put(&driver, std::slice::from_ref(&whole)).await.unwrap();
        world.ip(command);
        let left: Vec<_> = driver.observe().await.unwrap().iter().cloned().collect();
        assert_eq!(left.len(), 1, "after {command}");
        assert_eq!((left[0].key(), left[0] == whole), (whole.key(), false), "after {command}");
        delete(&driver, &left).await.unwrap();
        assert_eq!(world.snapshot(), before, "after {command}");
    }
}

/// A rule without its guard, and a guard without its rule, as after a crash between the two.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_rule_is_seen_and_removed() {
    for priority in [10_000, 10_256] {
        let world = World::default();
        let driver = world.driver();
        let closed = table(1, "qr-abc", "10.21.0.5");
        put(&driver, std::slice::from_ref(&closed)).await.unwrap();
        let before = world.snapshot();
        put(&driver, &[from(SITE, 1)]).await.unwrap();
        world.ip(&format!("rule del pref {priority}"));
        let nowhere = from(SITE, PathId::NOWHERE.0);
        assert_eq!(driver.observe().await.unwrap(), state(&[closed, nowhere.clone()]), "{priority}");
        delete(&driver, &[nowhere]).await.unwrap();
        assert_eq!(world.snapshot(), before, "{priority}");
    }
}

/// Until the last of them goes.
#[tokio::test(flavor = "multi_thread")]
async fn rules_in_one_place_share_a_guard() {
    let world = World::default();
    let driver = world.driver();
    put(&driver, &[table(1, "qr-abc", "10.21.0.5"), table(2, "qr-abc", "10.21.0.6"), from(SITE, 1)])
        .await
        .unwrap();
    world.ip("rule add pref 10000 from 172.16.1.0/24 lookup 10002 proto 202");
    for (gone, guards) in [(from(SITE, PathId::NOWHERE.0), 1), (from(SITE, 1), 1), (from(SITE, 2), 0)] {
        delete(&driver, &[gone]).await.unwrap();
        assert_eq!(world.ip("rule show pref 10256").lines().count(), guards);
    }
    assert_eq!(world.ip("rule show pref 10000"), "");
}

/// The undoing of a plan that healed a damaged rule: what it matches is dropped again.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_leads_nowhere_can_be_put() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    world.ip("rule del pref 10000");
    let heal = Change::Put { new: from(SITE, 1), old: Some(from(SITE, PathId::NOWHERE.0)) };
    let undo = heal.inverse();
    driver.apply(Epoch(1), &[heal]).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
    driver.apply(Epoch(1), &[undo]).await.unwrap();
    assert_eq!(world.ip("rule show pref 10000"), "");
    assert_eq!(world.ip("rule show pref 10256").lines().count(), 1);
}

/// The undoing of a plan that healed a damaged table.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leads_nowhere_can_be_put() {
    let world = World::default();
    let (driver, _) = installed(&world).await;
    world.ip("route del default table 10001 metric 0");
    let Some(Object::Table(nowhere)) =
        driver.observe().await.unwrap().get(&table(1, "qr-abc", "10.21.0.5").key()).cloned()
    else {
        panic!("the table is not observed");
    };
    let heal =
        Change::Put { new: table(1, "qr-abc", "10.21.0.5"), old: Some(Object::Table(nowhere.clone())) };
    let undo = heal.inverse();
    driver.apply(Epoch(1), &[heal]).await.unwrap();
    driver.apply(Epoch(1), &[undo]).await.unwrap();
    assert!(driver.observe().await.unwrap().contains(&Object::Table(nowhere)));
    assert_eq!(world.ip("route show table 10001").lines().count(), 1, "unreachable is left");
}

/// What an L3 agent does with a port of a virtual router.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_made_anew_gets_its_table_back() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    world.ip("link del qr-abc");
    for family in ["", "-6 "] {
        let left = world.ip(&format!("{family}route show table 10001"));
        assert!(left.starts_with("unreachable default") && left.lines().count() == 1, "{left}");
    }
    assert!(matches!(put(&driver, &objects).await, Err(DriverError::NoPort(name)) if name == port("qr-abc")));

    world.cable("qr-abc", &QR_ABC);
    put(&driver, &objects).await.unwrap();
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
}

/// Without the port the table cannot be healed, but it must not let packets through to the next rule.
#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_table_in_use_is_closed_even_if_its_port_is_gone() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    world.ip("link del qr-abc");
    world.ip("route flush table 10001");
    assert!(matches!(put(&driver, &objects[..1]).await, Err(DriverError::NoPort(_))));
    assert!(world.ip("route show table 10001").starts_with("unreachable default"));
}

/// A rule whose port is gone is still ours, matches nothing, and works by itself when the port comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_rule_is_observed_and_can_be_removed() {
    let world = World::default();
    let driver = world.driver();
    let inbound = rule(0, Selector { in_port: Some(port("qg-ext")), ..selector(SITE) }, 1);
    let objects = [table(1, "qr-abc", "10.21.0.5"), inbound.clone()];
    put(&driver, &objects).await.unwrap();
    world.ip("link del qg-ext");
    assert!(world.ip("rule show").contains("[detached]"));
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
    delete(&driver, &[inbound]).await.unwrap();
    assert!(!world.ip("rule show").contains("[detached]"));
}

/// The kernel deletes the first rule that has all that is named: one for a single port is one for the prefix too.
#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_rule_spares_a_narrower_one() {
    let world = World::default();
    let driver = world.driver();
    let wide = from(SITE, 1);
    let narrow = rule(0, Selector { in_port: Some(port("qg-ext")), ..selector(SITE) }, 1);
    let narrower =
        rule(0, Selector { in_port: Some(port("qg-ext")), unless_released: true, ..selector(SITE) }, 1);
    let closed = table(1, "qr-abc", "10.21.0.5");
    for unwanted in [&wide, &narrow, &narrower] {
        let all = [closed.clone(), narrower.clone(), narrow.clone(), wide.clone()];
        put(&driver, &all).await.unwrap();
        delete(&driver, std::slice::from_ref(unwanted)).await.unwrap();
        let left: Vec<_> = all.iter().filter(|object| *object != unwanted).cloned().collect();
        assert_eq!(driver.observe().await.unwrap(), state(&left));
        delete(&driver, &left[1..]).await.unwrap();
    }
}

/// `ip rule save` and `restore`, as boot scripts do it, make every rule twice.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_stand_twice_are_all_deleted() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    run(&world.router, "ip rule save | ip rule restore");
    assert_eq!(world.ip("rule show pref 10000").lines().count(), 2);
    assert_eq!(driver.observe().await.unwrap(), state(&objects));
    delete(&driver, &objects[2..]).await.unwrap();
    assert_eq!(world.ip("rule show pref 10000"), "");
}

/// Rules with our marks that ours cannot be: left by other settings, or changed by hand.
#[tokio::test(flavor = "multi_thread")]
async fn odd_rules_with_our_marks_are_cleared_away() {
    const ODD: [&str; 4] = [
        "pref 10003 from 172.16.1.0/24 ipproto tcp lookup 10001 proto 202",
        "pref 10004 from 172.16.1.0/24 fwmark 0x1/0x1 lookup 10001 proto 202",
        "pref 10005 not from 172.16.1.0/24 lookup 10001 proto 202",
        "pref 10006 from 172.16.1.0/24 lookup main proto 202",
    ];
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    let before = world.snapshot();
    for odd in ODD {
        world.ip(&format!("rule add {odd}"));
    }
    assert_eq!(driver.observe().await.unwrap(), state(&objects), "they cannot be told in our words");
    put(&driver, &objects).await.unwrap();
    assert_eq!(world.snapshot(), before);
}

/// A route of another program in a table of ours would lead packets round the chain, and is not ours to remove.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_route_in_our_table_is_a_conflict() {
    let world = World::default();
    let (driver, objects) = installed(&world).await;
    world.ip("route add 198.51.100.0/24 via 10.23.0.2 table 10001 proto static");
    assert_ne!(driver.observe().await.unwrap(), state(&objects));
    let error = put(&driver, &objects).await.unwrap_err();
    assert!(matches!(error, DriverError::Conflict { .. }));
    assert_eq!(
        words(error),
        "element qrouter-1234 (netns qrouter-1234): the route 198.51.100.0/24 table 10001 proto 4 is in the way and \
         is not ours; remove it (ip -n qrouter-1234 route del 198.51.100.0/24 table 10001 proto 4), or give the \
         element's driver another tableBase"
    );
    delete(&driver, &[objects[2].clone(), objects[0].clone()]).await.unwrap();
    assert_eq!(
        world.ip("route show table 10001").trim_end(),
        "198.51.100.0/24 via 10.23.0.2 dev qg-def proto static"
    );
}

/// Packets that such a rule claims would go on to the main table.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_does_not_come_before_its_table_nor_stay_after_it() {
    let world = World::default();
    let driver = world.driver();
    let error = words(put(&driver, &[from(SITE, 1)]).await.unwrap_err());
    assert_eq!(
        error,
        "element qrouter-1234 (netns qrouter-1234): ip rule add pref 10000 from 172.16.1.0/24 lookup 10001 proto 202: \
         table 10001 does not end in an unreachable route; it must be put first"
    );
    put(&driver, &[table(1, "qr-abc", "10.21.0.5"), from(SITE, 1)]).await.unwrap();
    let error = words(delete(&driver, &[table(1, "qr-abc", "10.21.0.5")]).await.unwrap_err());
    assert!(error.ends_with("a rule of ours still looks up this table; it must go first"), "{error}");
    world.ip("route del unreachable default table 10001 metric 4278198272");
    delete(&driver, &[table(1, "qr-abc", "10.21.0.5")]).await.unwrap_err();
    assert!(world.ip("route show table 10001").starts_with("default via"));
}

/// What the kernel says is passed on, with the command that would have failed in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn a_next_hop_that_is_not_a_neighbour_is_named() {
    let world = World::default();
    let error = put(&world.driver(), &[table(1, "qr-abc", "192.0.2.1")]).await.unwrap_err();
    assert!(error.is_transient());
    assert_eq!(
        words(error),
        "element qrouter-1234 (netns qrouter-1234): ip route replace default via 192.0.2.1 dev qr-abc table 10001 \
         proto 202: Nexthop has invalid gateway: ENETUNREACH: Network is unreachable"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_switched_off_on_a_port_is_named() {
    let world = World::default();
    set(&world.router, "net/ipv6/conf/qr-abc/disable_ipv6", 1);
    let nowhere: PortName = port("qr-abc");
    let by_port = Object::Table(Table {
        path: PathId(1),
        family: catena_model::address::Family::V6,
        port: nowhere,
        via: None,
    });
    let error = put(&world.driver(), &[by_port]).await.unwrap_err();
    assert!(matches!(error, DriverError::Unsupported { .. }), "{error:?}");
    assert!(words(error).ends_with("sysctl -w net.ipv6.conf.PORT.disable_ipv6=0"));
}

//! What we install, as a network engineer reads it.

use catena_driver::{Driver, Epoch};
use catena_model::address::Family;
use catena_model::forwarding::{Change, Object, PathId, Selector, Table};
use catena_testbed::objects::{from, port, put, rule, selector, table};
use serde_json::{Value, json};

use crate::world::World;

/// The paper's Figure 2.
#[tokio::test(flavor = "multi_thread")]
async fn figure_2_reads_as_in_the_paper() {
    let world = World::default();
    put(&world.driver(), &[table(1, "qr-abc", "10.21.0.5"), from("172.16.1.0/24", 1)]).await.unwrap();

    assert_eq!(
        lines(&world.ip("rule show")),
        [
            "0: from all lookup local",
            "10000: from 172.16.1.0/24 lookup 10001 proto 202",
            "10256: from 172.16.1.0/24 unreachable proto 202",
            "32766: from all lookup main",
            "32767: from all lookup default",
        ]
    );
    assert_eq!(
        lines(&world.ip("route show table 10001")),
        ["default via 10.21.0.5 dev qr-abc proto 202", "unreachable default proto 202 metric 4278198272"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn figure_2_reads_as_in_the_paper_in_json() {
    let world = World::default();
    put(&world.driver(), &[table(1, "qr-abc", "10.21.0.5"), from("172.16.1.0/24", 1)]).await.unwrap();

    let rules: Value = serde_json::from_str(&world.ip("-j rule show pref 10000")).unwrap();
    assert_eq!(
        rules,
        json!([{"priority": 10000, "src": "172.16.1.0", "srclen": 24, "table": "10001", "protocol": "202"}])
    );
    let routes: Value = serde_json::from_str(&world.ip("-j route show table 10001")).unwrap();
    assert_eq!(
        routes,
        json!([
            {"dst": "default", "gateway": "10.21.0.5", "dev": "qr-abc", "protocol": "202", "flags": []},
            {"type": "unreachable", "dst": "default", "protocol": "202", "metric": 4_278_198_272_u32, "flags": []},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_selector_is_installed() {
    let world = World::default();
    let whole = Selector {
        to: "198.51.100.0/24".parse().ok(),
        in_port: Some(port("qg-ext")),
        unless_released: true,
        ..selector("172.16.1.0/24")
    };
    let tunnel = Table { path: PathId(7), family: Family::V4, port: port("qg-ext"), via: None };
    put(&world.driver(), &[Object::Table(tunnel), rule(255, whole, 7)]).await.unwrap();
    assert_eq!(
        lines(&world.ip("rule show pref 10255")),
        ["10255: from 172.16.1.0/24 to 198.51.100.0/24 fwmark 0/0x4000000 iif qg-ext lookup 10007 proto 202"]
    );
    assert_eq!(
        lines(&world.ip("rule show pref 10511")),
        ["10511: from 172.16.1.0/24 to 198.51.100.0/24 fwmark 0/0x4000000 iif qg-ext unreachable proto 202"]
    );
    assert_eq!(
        lines(&world.ip("route show table 10007")),
        ["default dev qg-ext proto 202 scope link", "unreachable default proto 202 metric 4278198272"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_reads_the_same() {
    let world = World::default();
    put(&world.driver(), &[table(1, "qr-abc", "2001:db8:21::5"), from("2001:db8:a1::/64", 1)]).await.unwrap();
    assert_eq!(
        lines(&world.ip("-6 rule show pref 10000")),
        ["10000: from 2001:db8:a1::/64 lookup 10001 proto 202"]
    );
    assert_eq!(
        lines(&world.ip("-6 rule show pref 10256")),
        ["10256: from 2001:db8:a1::/64 unreachable proto 202"]
    );
    assert_eq!(
        lines(&world.ip("-6 route show table 10001")),
        [
            "default via 2001:db8:21::5 dev qr-abc proto 202 metric 1024 pref medium",
            "unreachable default dev lo proto 202 metric 4278198272 pref medium",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_rule_stands_behind_the_old_one_before_that_goes() {
    let world = World::default();
    let driver = world.driver();
    put(&driver, &[table(1, "qr-abc", "10.21.0.5"), table(2, "qr-abc", "10.21.0.6")]).await.unwrap();
    put(&driver, &[from("172.16.1.0/24", 1)]).await.unwrap();
    // As it stands in the middle, if the program dies there.
    world.ip("rule add pref 10000 from 172.16.1.0/24 lookup 10002 proto 202");
    let both = driver.observe().await.unwrap();
    assert!(both.contains(&from("172.16.1.0/24", 1)) && both.contains(&from("172.16.1.0/24", 2)));

    let change = Change::Put { new: from("172.16.1.0/24", 2), old: Some(from("172.16.1.0/24", 1)) };
    driver.apply(Epoch(1), &[change]).await.unwrap();
    assert_eq!(
        lines(&world.ip("rule show pref 10000")),
        ["10000: from 172.16.1.0/24 lookup 10002 proto 202"]
    );
    assert_eq!(lines(&world.ip("rule show pref 10256")), ["10256: from 172.16.1.0/24 unreachable proto 202"]);
}

/// Without the white space that `ip` ends lines with, and with one blank where it has several.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

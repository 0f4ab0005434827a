//! From whatever is installed the wanted state is reached, and the next pass does nothing.

use std::collections::BTreeMap;

use catena_driver::{Driver, Epoch};
use catena_driver_nft::NftDriver;
use catena_model::address::Family;
use catena_model::forwarding::{Change, ElementState, Object, PathId, Rule, Selector, Table};
use catena_testbed::objects::port;
use catena_testbed::run;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::world::World;

/// Of others, beside and among ours, all the time.
const FOREIGN: &str = "\
    ip rule add pref 10000 fwmark 0x2010000/0x3ff0000 lookup 77 proto static
    ip -6 rule add pref 10256 fwmark 0x2000000/0x2000000 unreachable proto static
    ip rule add pref 9999 from 172.16.1.0/24 lookup 10001 proto 202
    ip route add default via 10.20.0.1 table 77 proto 202
    ip route add default via 10.20.0.1 table 10001 proto static
    ip -6 route add default via 2001:db8:20::1 table 10001 proto static
    nft add table ip catena
    nft add set ip catena hops '{ type mark . ifname; }'";

/// What people, agents and crashes do to ours. Some of it fails where there is nothing to do it to.
const MESS: [&str; 20] = [
    "ip route flush table 10002",
    "ip -6 route flush table 10003",
    "ip route del default table 10002 metric 0",
    "ip -6 route del unreachable default table 10003 metric 4278198272",
    "ip route append default via 10.23.0.2 table 10002 proto 202",
    "ip route add unreachable default table 10009 metric 4278198272 proto 202",
    "ip rule del pref 10000 proto 202",
    "ip -6 rule del pref 10256 proto 202",
    "ip rule add pref 10136 from 172.16.1.0/24 lookup 10001 proto 202",
    "ip rule save | ip rule restore",
    "nft flush ruleset; nft add table ip catena; nft add set ip catena hops '{ type mark . ifname; }'",
    "nft flush set inet catena hops",
    "nft flush map inet catena tables-ip",
    "nft flush map inet catena order0-ip-from24",
    "nft flush chain inet catena prerouting",
    "nft flush chain inet catena hop-2",
    "nft add rule inet catena forward accept",
    "nft add element inet catena order0-ip-from24 '{ 192.0.2.0 : goto nowhere }'",
    "nft add element inet catena order0-ip-from24 '{ 192.0.2.0 comment \"path 2\" : goto nowhere }'",
    "nft add map inet catena order7-ip-to24 '{ type ipv4_addr : verdict; }'",
];

fn any_table() -> impl Strategy<Value = Option<(String, Option<&'static str>)>> {
    let ways = vec![("qr-abc", Some("5")), ("qr-abc", Some("6")), ("qg-ext", Some("5")), ("qg-def", None)];
    proptest::option::of(select(ways).prop_map(|(port, host)| (port.to_owned(), host)))
}

/// A table for each path and family, or none.
fn any_tables() -> impl Strategy<Value = Vec<Table>> {
    proptest::collection::vec(any_table(), 6).prop_map(|ways| {
        let places = (1..=3).flat_map(|path| Family::BOTH.map(|family| (PathId(path), family)));
        places
            .zip(ways)
            .filter_map(|((path, family), way)| {
                let (name, host) = way?;
                let net = if name == "qr-abc" { "21" } else { "20" };
                let via = host.map(|host| match family {
                    Family::V4 => format!("10.{net}.0.{host}"),
                    Family::V6 => format!("2001:db8:{net}::{host}"),
                });
                Some(Table { path, family, port: port(&name), via: via.map(|via| via.parse().unwrap()) })
            })
            .collect()
    })
}

fn places() -> Vec<(u16, Selector)> {
    let mut places = Vec::new();
    for (prefix, family) in [("172.16.1.0/24", Family::V4), ("2001:db8:a1::/64", Family::V6)] {
        let prefix = prefix.parse().ok();
        let plain = Selector { family, from: prefix, to: None, in_port: None, unless_released: false };
        let at_port = Selector { in_port: Some(port("qg-ext")), ..plain.clone() };
        let claims = Selector { unless_released: true, ..at_port.clone() };
        let replies = Selector { from: None, to: prefix, ..plain.clone() };
        places.extend([(0, plain.clone()), (0, at_port), (0, claims), (1, plain), (1, replies)]);
    }
    places
}

/// Some tables, and rules that lead to some of them, at most one in a place.
fn any_state() -> impl Strategy<Value = Vec<Object>> {
    let all = places();
    let count = all.len();
    (
        any_tables(),
        subsequence(all, 0..=count),
        proptest::collection::vec(any::<prop::sample::Index>(), count),
    )
        .prop_map(|(tables, places, choices)| {
            let rules = places.into_iter().zip(choices).filter_map(|((order, selector), choice)| {
                let of_family: Vec<_> =
                    tables.iter().filter(|table| table.family == selector.family).map(|t| t.path).collect();
                let table = (!of_family.is_empty()).then(|| *choice.get(&of_family))?;
                Some(Object::Rule(Rule { order, selector, table }))
            });
            let rules: Vec<_> = rules.collect();
            tables.into_iter().map(Object::Table).chain(rules).collect()
        })
}

/// What the planner would do, in its order: tables, then rules, then what nobody uses any more.
fn plan(installed: &ElementState, desired: &[Object]) -> Vec<Change> {
    let wanted: BTreeMap<_, _> = desired.iter().map(|object| (object.key(), object)).collect();
    let put = |object: &&Object| !installed.contains(object);
    let (rules, tables): (Vec<_>, Vec<_>) =
        desired.iter().filter(put).partition(|object| object.is_classifier());
    let extra = installed.iter().filter(|object| !wanted.contains_key(&object.key()));
    let (unused_rules, unused_tables): (Vec<_>, Vec<_>) = extra.partition(|object| object.is_classifier());
    let puts = tables.into_iter().chain(rules).map(|new| Change::Put { new: new.clone(), old: None });
    let deletes =
        unused_rules.into_iter().chain(unused_tables).map(|old| Change::Delete { old: old.clone() });
    puts.chain(deletes).collect()
}

async fn pass(driver: &NftDriver, desired: &[Object]) {
    let changes = plan(&driver.observe().await.unwrap(), desired);
    driver.apply(Epoch(1), &changes).await.unwrap();
}

/// What `ip rule restore` makes of the kernel's first rule, whose priority is 0 and not saved, is no matter of ours, nor
/// whether a foreign rule stands there twice.
fn lines(text: &str) -> std::collections::BTreeSet<&str> {
    text.lines().filter(|line| !line.ends_with("from all lookup local")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_state_is_reached_from_any_other(
        first in any_state(),
        mess in proptest::collection::vec(select(MESS.to_vec()), 0..5),
        second in any_state(),
    ) {
        let world = World::default();
        run(&world.router, FOREIGN);
        let bare = world.snapshot();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            pass(&world.driver(), &first).await;
            for command in &mess {
                run(&world.router, &format!("{command} 2>/dev/null || true"));
            }
            let driver = world.driver();
            pass(&driver, &second).await;
            let desired: ElementState = second.iter().cloned().collect();
            prop_assert_eq!(driver.observe().await.unwrap(), desired);

            let reached = world.snapshot();
            prop_assert_eq!(plan(&driver.observe().await.unwrap(), &second), vec![]);
            let all: Vec<_> = second.iter().map(|new| Change::Put { new: new.clone(), old: None }).collect();
            driver.apply(Epoch(1), &all).await.unwrap();
            prop_assert_eq!(world.snapshot(), reached);

            pass(&driver, &[]).await;
            let left = world.snapshot();
            prop_assert_eq!(lines(&left), lines(&bare), "after {:?}", mess);
            Ok(())
        })?;
    }
}

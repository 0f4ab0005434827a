//! Of the rules that match a packet, the lowest order wins, whatever maps they are in.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use catena_model::address::{Family, Prefix};
use catena_model::forwarding::{Object, Rule, Selector};
use catena_testbed::objects::{delete, port, put, rule, table};
use catena_testbed::{add_address, ip};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use crate::world::World;

const SITES: [&str; 4] = ["10.1.1.1", "10.1.1.2", "10.1.2.1", "10.2.1.1"];
const INTERNET: &str = "198.51.100.10";
/// What leads to the switch, and what to the gateway.
const PATHS: [u32; 2] = [1, 2];

/// As the renderer orders them: rules that name the port first, longer prefixes before shorter ones.
fn order(length: u8, with_port: bool) -> u16 {
    u16::from(32 - length) + if with_port { 0 } else { 128 }
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let mut places = Vec::new();
    for (from, to) in [
        ("10.0.0.0/8", None),
        ("10.1.0.0/16", None),
        ("10.1.1.0/24", None),
        ("10.1.1.0/25", None),
        ("10.1.1.2/32", None),
        ("10.2.0.0/16", Some("198.51.100.0/24")),
        ("", Some("198.51.100.10/32")),
        ("", Some("198.51.0.0/17")),
    ] {
        for in_port in [None, Some("qg-ext"), Some("qr-abc")] {
            let parsed = |text: &str| text.parse::<Prefix>().unwrap();
            let from = (!from.is_empty()).then(|| parsed(from));
            let to = to.map(parsed);
            let length = from.or(to).unwrap().length();
            let selector =
                Selector { family: Family::V4, from, to, in_port: in_port.map(port), unless_released: false };
            places.push((order(length, in_port.is_some()), selector));
        }
    }
    let count = places.len();
    let paths = proptest::collection::vec(select(PATHS.to_vec()), count);
    (subsequence(places, 0..=8), paths).prop_map(|(places, paths)| {
        let rule = |((order, selector), path)| match rule(order, selector, path) {
            Object::Rule(rule) => rule,
            other => panic!("{other:?}"),
        };
        places.into_iter().zip(paths).map(rule).collect()
    })
}

/// Where a packet that came in by `qg-ext` must go: the gateway's way is also that of all that no rule matches.
fn expected(rules: &[Rule], source: IpAddr, destination: IpAddr) -> u32 {
    let matches = |rule: &&Rule| {
        let Selector { from, to, in_port, .. } = &rule.selector;
        from.is_none_or(|prefix| prefix.contains(source))
            && to.is_none_or(|prefix| prefix.contains(destination))
            && in_port.as_ref().is_none_or(|port| port.as_str() == "qg-ext")
    };
    let first = rules.iter().filter(matches).min_by_key(|rule| (rule.order, rule.selector.clone()));
    first.map_or(PATHS[1], |rule| rule.table.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_order_wins() {
    let world = World::default();
    add_address(&world.site, "10.20.0.1/24", "xqg-ext");
    add_address(&world.switch, "10.21.0.5/24", "xqr-abc");
    add_address(&world.gateway, "10.23.0.2/30", "xqg-def");
    ip(&world.site, &format!("route add {INTERNET} via 10.20.0.2"));
    world.ip(&format!("route add {INTERNET} via 10.23.0.2"));
    for netns in [&world.switch, &world.gateway] {
        add_address(netns, &format!("{INTERNET}/32"), "lo");
    }
    let to: SocketAddr = format!("{INTERNET}:9000").parse().unwrap();
    let receivers = [&world.switch, &world.gateway].map(|netns| netns.run(|| UdpSocket::bind(to)).unwrap());
    for receiver in &receivers {
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let senders = SITES.map(|site| {
        add_address(&world.site, &format!("{site}/32"), "lo");
        world.site.run(|| UdpSocket::bind(format!("{site}:0"))).unwrap()
    });
    let driver = world.driver();
    let tables = [table(PATHS[0], "qr-abc", "10.21.0.5"), table(PATHS[1], "qg-def", "10.23.0.2")];
    put(&driver, &tables).await.unwrap();

    let runtime = tokio::runtime::Handle::current();
    let config = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let outcome = tokio::task::block_in_place(|| {
        TestRunner::new(config).run(&any_rules(), |rules| {
            let objects: Vec<_> = rules.iter().cloned().map(Object::Rule).collect();
            runtime.block_on(put(&driver, &objects)).unwrap();
            for sender in &senders {
                let source = sender.local_addr().unwrap();
                let text = source.to_string();
                sender.send_to(text.as_bytes(), to).unwrap();
                let path = expected(&rules, source.ip(), to.ip());
                let receiver = &receivers[PATHS.iter().position(|known| *known == path).unwrap()];
                let mut packet = [0; 64];
                let (length, _) = receiver.recv_from(&mut packet).map_err(|error| {
                    TestCaseError::fail(format!("from {source} not by path {path}: {error}"))
                })?;
                prop_assert_eq!(&packet[..length], text.as_bytes());
            }
            runtime.block_on(delete(&driver, &objects)).unwrap();
            Ok(())
        })
    });
    outcome.unwrap();
}

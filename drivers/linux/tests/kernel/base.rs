//! The routing that is not ours.

use catena_driver::Driver;
use catena_model::address::{Family, Prefix};
use catena_model::base::{BaseRouteAction, BaseRouting, BaseRule, BaseRuleAction, Translation};
use catena_testbed::objects::{from, port, put, table};
use catena_testbed::{ip, run, set};

use crate::world::World;

async fn base(world: &World) -> BaseRouting {
    world.driver().base().await.unwrap().unwrap()
}

fn rules_at(base: &BaseRouting, priority: u32, family: Family) -> Vec<&BaseRule> {
    base.rules.iter().filter(|rule| (rule.priority, rule.family) == (priority, family)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kernel_sets_up_is_told() {
    let world = World::default();
    let base = base(&world).await;
    assert_eq!(base.our_priority, 10_000);
    assert!(base.addresses.contains(&(port("qr-abc"), "10.21.0.1/24".parse().unwrap())));
    assert!(base.addresses.contains(&(port("qr-abc"), "2001:db8:21::1/64".parse().unwrap())));
    for (family, expected) in [
        (Family::V4, vec![(0, 255), (32_766, 254), (32_767, 253)]),
        (Family::V6, vec![(0, 255), (32_766, 254)]),
    ] {
        let rules = base.rules.iter().filter(|rule| rule.family == family);
        let lookups: Vec<_> =
            rules.map(|rule| (rule.priority, rule.action.clone(), rule.opaque.len())).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(priority, table)| (priority, BaseRuleAction::Lookup(table), 0))
            .collect();
        assert_eq!(lookups, expected);
    }
    for net in ["10.21.0.0/24", "2001:db8:21::/64"] {
        let route = base.routes.iter().find(|route| route.prefix.to_string() == net && route.table == 254);
        assert_eq!(
            route.map(|route| &route.action),
            Some(&BaseRouteAction::Forward { port: port("qr-abc"), via: None })
        );
    }
    for host in ["10.21.0.1/32", "2001:db8:21::1/128"] {
        let route = base.routes.iter().find(|route| route.prefix.to_string() == host);
        assert_eq!(route.map(|route| (route.table, &route.action)), Some((255, &BaseRouteAction::Local)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_is_not_told() {
    let world = World::default();
    let before = base(&world).await;
    let objects =
        [table(1, "qr-abc", "10.21.0.5"), table(1, "qr-abc", "2001:db8:21::5"), from("172.16.1.0/24", 1)];
    put(&world.driver(), &objects).await.unwrap();
    assert_eq!(base(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_routes_are_told_also_among_ours() {
    let world = World::default();
    world.ip("route add default via 10.23.0.2 metric 7");
    world.ip("route add blackhole 192.0.2.0/24");
    world.ip("route add 198.51.100.0/24 via 10.23.0.2 table 10001 proto static");
    world.ip("route add default table 77 nexthop via 10.23.0.2 dev qg-def nexthop via 10.20.0.1 dev qg-ext");
    let base = base(&world).await;
    let found = |table: u32, prefix: &str| -> Vec<_> {
        let routes = base.routes.iter().filter(|r| r.table == table && r.prefix.to_string() == prefix);
        routes.map(|route| (route.metric, route.action.clone())).collect()
    };
    let forward =
        |name: &str, via: &str| BaseRouteAction::Forward { port: port(name), via: via.parse().ok() };
    assert_eq!(found(254, "0.0.0.0/0"), [(7, forward("qg-def", "10.23.0.2"))]);
    assert_eq!(found(254, "192.0.2.0/24"), [(0, BaseRouteAction::Drop)]);
    assert_eq!(found(10_001, "198.51.100.0/24"), [(0, forward("qg-def", "10.23.0.2"))]);
    assert_eq!(
        found(77, "0.0.0.0/0"),
        [(0, forward("qg-def", "10.23.0.2")), (0, forward("qg-ext", "10.20.0.1"))]
    );
}

/// What cannot be evaluated is said, in the words of `ip rule`.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_rules_are_told_with_what_is_opaque_in_them() {
    let world = World::default();
    let cases = [
        ("from 172.16.0.0/16 to 192.0.2.0/24 iif qg-ext lookup 77", "", BaseRuleAction::Lookup(77)),
        ("fwmark 0x1/0xff lookup 77", "fwmark 0x1/0xff", BaseRuleAction::Lookup(77)),
        ("not from 172.16.0.0/16 lookup 77", "not", BaseRuleAction::Lookup(77)),
        ("ipproto tcp dport 80-81 lookup 77", "dport 80-81, ipproto 6", BaseRuleAction::Lookup(77)),
        ("ipproto tcp dport 80 lookup 77", "dport 80-80, ipproto 6", BaseRuleAction::Lookup(77)),
        ("tos 0x10 lookup 77", "tos 0x10", BaseRuleAction::Lookup(77)),
        ("lookup main suppress_prefixlength 0", "suppress_prefixlength 0", BaseRuleAction::Lookup(254)),
        ("oif qg-ext lookup 77", "oif qg-ext", BaseRuleAction::Lookup(77)),
        ("from 192.0.2.0/24 prohibit", "", BaseRuleAction::Drop),
        ("from 192.0.2.0/24 goto 32766", "", BaseRuleAction::Other("goto 32766".to_owned())),
        ("lookup 78", "with route 192.0.2.0/24 table 78 proto 3", BaseRuleAction::Lookup(78)),
    ];
    world.ip("route add throw 192.0.2.0/24 table 78");
    for (priority, (words, _, _)) in (100..).zip(&cases) {
        world.ip(&format!("rule add pref {priority} {words}"));
    }
    let base = base(&world).await;
    for (priority, (words, opaque, action)) in (100..).zip(cases) {
        let rules = rules_at(&base, priority, Family::V4);
        let [rule] = rules[..] else { panic!("{words}: {rules:?}") };
        assert_eq!((rule.opaque.join(", ").as_str(), &rule.action), (opaque, &action), "{words}");
    }
    let first = rules_at(&base, 100, Family::V4)[0];
    assert_eq!(first.from, "172.16.0.0/16".parse().ok());
    assert_eq!(first.to, "192.0.2.0/24".parse().ok());
    assert_eq!(first.in_port, Some(port("qg-ext")));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_rules_at_our_priorities_are_told() {
    let world = World::default();
    world.ip("rule add pref 10000 from 172.16.0.0/16 lookup 77 proto static");
    world.ip("rule add pref 10256 from 172.16.0.0/16 unreachable proto static");
    world.ip("rule add pref 9000 from 172.16.0.0/16 lookup 77 proto 202");
    let base = base(&world).await;
    assert_eq!(rules_at(&base, 10_000, Family::V4).len(), 1);
    assert_eq!(rules_at(&base, 10_256, Family::V4).len(), 1);
    assert_eq!(rules_at(&base, 9_000, Family::V4).len(), 1);
}

/// A foreign rule that leads into a table of ours is followed by the kernel.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_rule_into_our_table_is_opaque() {
    let world = World::default();
    put(&world.driver(), &[table(1, "qr-abc", "10.21.0.5"), from("172.16.1.0/24", 1)]).await.unwrap();
    world.ip("rule add pref 100 from 192.0.2.0/24 lookup 10001 proto static");
    let base = base(&world).await;
    let [rule] = rules_at(&base, 100, Family::V4)[..] else { panic!("{base:?}") };
    assert!(rule.opaque.concat().contains("table 10001"), "{rule:?}");
    assert!(base.routes.iter().all(|route| route.table != 10_001), "{base:?}");
}

/// Routes whose next hops stand elsewhere, or which do more than send packets on.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_be_told_makes_its_table_opaque() {
    let cases = [
        ("nexthop add id 7 via 10.23.0.2 dev qg-def", "route add 198.51.100.0/24 nhid 7"),
        ("link set lo up", "route add 198.51.100.0/24 encap ip id 7 dst 10.23.0.2 dev qg-def"),
    ];
    for (before, route) in cases {
        let world = World::default();
        // With this, the kernel does not repeat in the route what the nexthop object says.
        set(&world.router, "net/ipv4/nexthop_compat_mode", 0);
        world.ip(before);
        world.ip(route);
        let base = base(&world).await;
        let [main] = rules_at(&base, 32_766, Family::V4)[..] else { panic!("{base:?}") };
        assert!(main.opaque.concat().contains("198.51.100.0/24"), "{route}: {main:?}");
    }
}

/// By the flags of the port, not by its operational state, which is unknown of an ifb that sends.
#[tokio::test(flavor = "multi_thread")]
async fn ports_are_down_that_are_set_down_or_have_no_carrier() {
    let world = World::default();
    let own = async || -> Vec<String> {
        let down = base(&world).await.down;
        let ours = ["ifb", "qg-def", "qg-ext", "qr-abc", "tap"];
        ours.into_iter().filter(|name| down.contains(&port(name))).map(str::to_owned).collect()
    };
    world.ip("link add ifb type ifb");
    assert_eq!(own().await, ["ifb"]);
    world.ip("link set ifb up");
    assert!(own().await.is_empty());
    // Nobody holds its other end.
    world.ip("tuntap add tap mode tap");
    world.ip("link set tap up");
    world.ip("link set qg-ext down");
    ip(&world.switch, "link set xqr-abc down");
    assert_eq!(own().await, ["qg-ext", "qr-abc", "tap"]);
    // The routes by a port without a carrier are still there.
    let leads = |base: &BaseRouting, name: &str| {
        let of_port = |action: &BaseRouteAction| matches!(action, BaseRouteAction::Forward { port, .. } if port.as_str() == name);
        base.routes.iter().any(|route| route.table == 254 && of_port(&route.action))
    };
    let now = base(&world).await;
    assert!(leads(&now, "qr-abc") && !leads(&now, "qg-ext"));
    set(&world.router, "net/ipv4/conf/qr-abc/ignore_routes_with_linkdown", 1);
    set(&world.router, "net/ipv6/conf/qr-abc/ignore_routes_with_linkdown", 1);
    assert!(!leads(&base(&world).await, "qr-abc"));
    ip(&world.switch, "link set xqr-abc up");
    world.ip("link set qg-ext up");
    assert_eq!(own().await, ["tap"]);
}

/// What our rules ask for by name has to be there, and by itself.
#[tokio::test(flavor = "multi_thread")]
async fn ports_of_our_rules_are_down_that_have_another_name_or_are_in_a_bridge() {
    let world = World::default();
    let is_down = async || base(&world).await.down.contains(&port("qr-abc"));
    world.ip("rule add pref 10008 to 172.16.1.0/24 iif qr-abc lookup 10003 protocol 202");
    assert!(!is_down().await);
    world.ip("link set qr-abc down");
    world.ip("link set qr-abc name other");
    world.ip("link set other up");
    assert!(is_down().await);
    world.ip("link set other down");
    world.ip("link set other name qr-abc");
    world.ip("link set qr-abc up");
    assert!(!is_down().await);
    world.ip("link add br0 type bridge");
    world.ip("link set br0 up");
    world.ip("link set qr-abc master br0");
    assert!(is_down().await);
}

/// What is done to addresses, as text: when, of which packets, into what, by which rule.
async fn translations(world: &World) -> Vec<String> {
    let told = base(world).await.translations.into_iter();
    told.map(|Translation { hook, family, port, from, to, into, rule }| {
        let prefix = |prefix: Option<Prefix>| prefix.map(|prefix| prefix.to_string()).unwrap_or_default();
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        format!("{hook:?} {family:?} {port} {} {} into {into:?}: {rule}", prefix(from), prefix(to))
    })
    .collect()
}

/// What asks for more than ports and prefixes is told as if it did not: for more packets than it is.
#[tokio::test(flavor = "multi_thread")]
async fn others_translations_of_addresses_are_told() {
    let world = World::default();
    assert_eq!(base(&world).await.translations, []);
    let ruleset = "
        table ip nat {
            set guests { type ipv4_addr; flags interval; elements = { 192.0.2.0/25 } }
            chain postrouting {
                type nat hook postrouting priority 100
                oifname qg-ext ip saddr 172.16.0.0/12 masquerade
                oifname \"q*\" ip daddr != 192.0.2.1 ip saddr @guests tcp dport 80 snat to 10.20.0.7
                jump others
            }
            chain prerouting {
                type nat hook prerouting priority -100
                iif qr-abc ip daddr 198.51.100.7 tcp dport 80 dnat to 10.23.0.9
            }
            chain own { type nat hook output priority -100; dnat to 10.23.0.9; }
            chain others { masquerade random; }
            set ports { type ifname; elements = { qr-abc } }
            chain sets { iifname @ports dnat to 10.23.0.9; }
        }
        table inet filter {
            chain forward { type filter hook forward priority 0; policy accept; ct state invalid drop; counter; }
            chain stateless {
                type filter hook postrouting priority -300
                ip6 saddr 2001:db8:66::/48 ip6 daddr set 2001:db8::1 ip6 daddr 2001:db8::1 counter
            }
        }
        table inet catena { chain hop-1 { meta mark set 7; }; }";
    run(&world.router, &format!("nft -f - <<'end'\n{ruleset}\nend"));
    let told = translations(&world).await;
    assert_eq!(
        told,
        [
            "Leaving Some(V4) qg-ext 172.16.0.0/12  into Own: masquerade in chain postrouting of table ip nat",
            "Leaving Some(V4)    into Within(10.20.0.7/32): snat in chain postrouting of table ip nat",
            "Arriving Some(V4) qr-abc  198.51.100.7/32 into Within(10.23.0.9/32): dnat in chain prerouting of table ip nat",
            "Leaving Some(V4)    into Own: masquerade in chain others of table ip nat",
            "Arriving Some(V4)    into Within(10.23.0.9/32): dnat in chain sets of table ip nat",
            "Arriving Some(V6)  2001:db8:66::/48  into Within(2001:db8::1/128): a change of addresses in chain stateless of table inet filter",
        ]
    );
}

/// nft(8) does not know what the rules of iptables do: iptables does.
#[tokio::test(flavor = "multi_thread")]
async fn others_translations_by_iptables_are_told() {
    let world = World::default();
    let rules = "
        iptables-nft -t nat -A PREROUTING -i qg-ext -d 198.51.100.7 -p tcp --dport 80 -j DNAT --to-destination 172.16.1.7:8080
        iptables-nft -t nat -N agent
        iptables-nft -t nat -A agent ! -s 172.16.0.0/12 -o qg-ext -j SNAT --to-source 10.20.0.7-10.20.0.9
        iptables-nft -t nat -A POSTROUTING -j agent
        iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 7
        ip6tables-nft -t mangle -A PREROUTING -j DNPT --src-pfx 2001:db8:1::/64 --dst-pfx 2001:db8:2::/64";
    run(&world.router, &format!("set -e\n{rules}"));
    let nft = [
        "Arriving Some(V4) qg-ext  198.51.100.7/32 into Within(172.16.1.7/32): DNAT in chain PREROUTING of table ip nat",
        "Leaving Some(V4) qg-ext   into Within(10.20.0.0/28): SNAT in chain agent of table ip nat",
        "Arriving Some(V6)    into Within(2001:db8:2::/64): DNPT in chain PREROUTING of table ip6 mangle",
    ];
    assert_eq!(translations(&world).await, nft);
}

/// A table that is in use and empty does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn others_translations_by_the_old_iptables_are_told() {
    let world = World::default();
    run(&world.router, "iptables-legacy -t nat -L && iptables-legacy -t mangle -L && iptables-legacy -L");
    assert!(
        world
            .router
            .run(|| std::fs::read_to_string("/proc/thread-self/net/ip_tables_names"))
            .unwrap()
            .contains("nat")
    );
    assert_eq!(translations(&world).await, [""; 0]);
    let rules = "
        iptables-legacy -t nat -A POSTROUTING -s 172.16.0.0/12 -o qg-ext -j MASQUERADE
        iptables-legacy -t nat -A OUTPUT -j DNAT --to-destination 10.23.0.9
        iptables-legacy -A FORWARD -i qr-abc -j NFQUEUE --queue-num 7";
    run(&world.router, &format!("set -e\n{rules}"));
    let told = translations(&world).await;
    let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "Arriving Some(V4) qr-abc   into Any: NFQUEUE in chain FORWARD of table filter of iptables-legacy (ipv4)",
            "Leaving Some(V4) qg-ext 172.16.0.0/12  into Own: MASQUERADE in chain POSTROUTING of table nat of iptables-legacy (ipv4)",
        ]
    );
}

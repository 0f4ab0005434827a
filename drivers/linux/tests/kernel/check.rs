//! What stands against a change is said before anything is touched, with the way out.

use catena_driver::{Driver, DriverError};
use catena_model::forwarding::{Change, Object, Path, PathId, Selector, SiteId, TUNNEL_PORT, Table};
use catena_testbed::objects::{from, port, put, rule, selector, table, words};
use catena_testbed::set;

use crate::world::World;

const SITE: &str = "172.16.1.0/24";

async fn check(world: &World, objects: &[Object]) -> Result<(), DriverError> {
    let changes: Vec<_> =
        objects.iter().map(|object| Change::Put { new: object.clone(), old: None }).collect();
    let before = world.snapshot();
    let outcome = world.driver().check(&changes).await;
    assert_eq!(world.snapshot(), before);
    outcome
}

fn from_port(name: &str) -> Object {
    rule(0, Selector { in_port: Some(port(name)), ..selector(SITE) }, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_must_exist() {
    let world = World::default();
    for object in [table(1, "qr-xyz", "10.21.0.5"), from_port("qr-xyz")] {
        let error = check(&world, &[object]).await.unwrap_err();
        assert!(matches!(error, DriverError::NoPort(name) if name == port("qr-xyz")));
    }
}

/// Another driver makes it, with the first tunnel.
#[tokio::test(flavor = "multi_thread")]
async fn the_tunnels_port_need_not_exist_yet() {
    let world = World::default();
    let objects = [table(1, TUNNEL_PORT, "10.21.0.5"), from_port(TUNNEL_PORT)];
    check(&world, &objects).await.unwrap();
    assert!(matches!(put(&world.driver(), &objects).await, Err(DriverError::NoPort(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_rule_among_ours_is_in_the_way() {
    let world = World::default();
    world.ip("rule add pref 10007 from 172.16.0.0/16 lookup 77 proto static");
    let error = check(&world, &[from(SITE, 1)]).await.unwrap_err();
    assert!(matches!(error, DriverError::Conflict { .. }));
    assert_eq!(
        words(error),
        "element qrouter-1234 (netns qrouter-1234): the rule pref 10007 from 172.16.0.0/16 lookup 77 proto 4 is in the \
         way and is not ours; move it out of 10000 to 10511 (ip -n qrouter-1234 rule show pref 10007), or give the \
         element's driver another rulePriority"
    );
    check(&world, &[from("2001:db8:a1::/64", 1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_route_in_the_table_is_in_the_way() {
    let world = World::default();
    world.ip("route add default via 10.23.0.2 table 10001 proto static");
    let error = check(&world, &[table(1, "qr-abc", "10.21.0.5")]).await.unwrap_err();
    assert!(matches!(error, DriverError::Conflict { .. }));
    check(&world, &[table(2, "qr-abc", "10.21.0.5")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_reverse_path_filtering_is_refused() {
    let world = World::default();
    set(&world.router, "net/ipv4/conf/qg-ext/rp_filter", 1);
    let error = check(&world, &[from_port("qg-ext")]).await.unwrap_err();
    assert_eq!(
        words(error),
        "element qrouter-1234 (netns qrouter-1234): reverse path filtering is strict on net/ipv4/conf/qg-ext/rp_filter; \
         make it loose: run ip netns exec qrouter-1234 sysctl -w net/ipv4/conf/qg-ext/rp_filter=2"
    );
    check(&world, &[from_port("qr-abc")]).await.unwrap();

    set(&world.router, "net/ipv4/conf/all/rp_filter", 1);
    assert!(check(&world, &[from_port("qr-abc")]).await.is_err(), "the setting of all counts for each");
    assert!(check(&world, &[from(SITE, 1)]).await.is_err(), "a rule for all ports");
    set(&world.router, "net/ipv4/conf/qr-abc/rp_filter", 2);
    check(&world, &[from_port("qr-abc")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_must_forward() {
    let world = World::default();
    set(&world.router, "net/ipv4/conf/all/forwarding", 0);
    let error = check(&world, &[from_port("qg-ext")]).await.unwrap_err();
    assert_eq!(
        words(error),
        "element qrouter-1234 (netns qrouter-1234): net/ipv4/conf/qg-ext/forwarding is 0, so nothing is forwarded; \
         run ip netns exec qrouter-1234 sysctl -w net/ipv4/conf/all/forwarding=1"
    );
    check(&world, &[from("2001:db8:a1::/64", 1)]).await.unwrap();
    set(&world.router, "net/ipv6/conf/all/forwarding", 0);
    assert!(check(&world, &[from("2001:db8:a1::/64", 1)]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_routing_cannot_do_is_refused() {
    let world = World::default();
    let path = Object::Path(Path { id: PathId(1), site: SiteId(1), hops: vec![], vlan: None });
    let everything = from("0.0.0.0/0", 1);
    let mixed = rule(0, Selector { to: "2001:db8::/32".parse().ok(), ..selector(SITE) }, 1);
    let beyond_the_band = rule(256, selector(SITE), 1);
    let beyond_the_range = from(SITE, 0x0100_0000);
    let Object::Table(of_ipv4) = table(1, "qr-abc", "10.21.0.5") else { panic!("not a table") };
    let across = Object::Table(Table { via: "2001:db8:21::5".parse().ok(), ..of_ipv4 });
    for object in [path, everything, mixed, beyond_the_band, beyond_the_range, across] {
        let outcome = check(&world, std::slice::from_ref(&object)).await;
        assert!(matches!(outcome, Err(DriverError::Unsupported { .. })), "{object:?}: {outcome:?}");
        let outcome = put(&world.driver(), std::slice::from_ref(&object)).await;
        assert!(matches!(outcome, Err(DriverError::Unsupported { .. })), "{object:?}: {outcome:?}");
    }
}

/// A port's name may have a dot, which sysctl would take for a level of its tree.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_with_a_dot_in_its_name_can_be_checked() {
    let world = World::default();
    world.cable("eth0.100", &["192.0.2.1/24"]);
    check(&world, &[from_port("eth0.100")]).await.unwrap();
    set(&world.router, "net/ipv4/conf/eth0.100/rp_filter", 1);
    assert!(check(&world, &[from_port("eth0.100")]).await.is_err());
}

//! What stands against a change is said before anything is touched, with the way out.

use catena_driver::{Driver, DriverError};
use catena_model::forwarding::{Change, Direction, Ingress, Object, Purpose, Selector, TUNNEL_PORT, Table};
use catena_testbed::objects::{from, port, put, rule, selector, table, words};

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
async fn what_maps_cannot_do_is_refused() {
    let world = World::default();
    let ingress = Object::Ingress(Ingress {
        port: port("qg-ext"),
        directions: [Direction::Up].into(),
        purpose: Purpose::Claim,
        site: None,
    });
    let everything = from("0.0.0.0/0", 1);
    let all_of_a_port = rule(0, Selector { from: None, in_port: Some(port("qg-ext")), ..selector(SITE) }, 1);
    let mixed = rule(0, Selector { to: "2001:db8::/32".parse().ok(), ..selector(SITE) }, 1);
    let beyond = rule(256, selector(SITE), 1);
    let Object::Table(of_ipv4) = table(1, "qr-abc", "10.21.0.5") else { panic!("not a table") };
    let across = Object::Table(Table { via: "2001:db8:21::5".parse().ok(), ..of_ipv4 });
    for object in [ingress, everything, all_of_a_port, mixed, beyond, across] {
        let outcome = check(&world, std::slice::from_ref(&object)).await;
        assert!(matches!(outcome, Err(DriverError::Unsupported { .. })), "{object:?}: {outcome:?}");
        let outcome = put(&world.driver(), std::slice::from_ref(&object)).await;
        assert!(matches!(outcome, Err(DriverError::Unsupported { .. })), "{object:?}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn next_hops_are_numbered_as_far_as_the_mark_goes() {
    let world = World::default();
    let hops = |count: u32| -> Vec<_> {
        (1..=count).map(|n| table(n, "qr-abc", &format!("10.21.{}.{}", n / 256, n % 256))).collect()
    };
    check(&world, &hops(511)).await.unwrap();
    let error = words(check(&world, &hops(512)).await.unwrap_err());
    assert_eq!(
        error,
        "element qrouter-1234 (netns qrouter-1234): more than 511 next hops; leave out the driver's engine, or lead \
         some of the sites another way"
    );
}

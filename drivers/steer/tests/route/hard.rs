//! Packets that a router has to think about: the kernel answers them, and never leads them by its owner's routes. And the claim,
//! whose program stands at the same port.

use std::time::Duration;

use catena_driver::{Driver, Epoch, Event};
use catena_driver_steer::{Config, Hook, Settings, SteerDriver, Times};
use catena_model::forwarding::{
    Action, Change, Direction, FlowMatch, Ingress, Object, Policy, PolicyRule, Purpose, Selector, SiteId,
};
use catena_testbed::objects::{port, put, rule, selector, state};
use catena_testbed::traffic::{ALONG, DROPPED, Plan, ROUND, V4, V6};
use catena_testbed::{add_address, ip, run};
use tokio::time::timeout;

use crate::world::World;

/// A packet whose TTL ends at the router is answered by the router, with both families.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_at_its_end_is_answered() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        put(&traffic.driver, &traffic.objects).await.unwrap();
        assert_eq!(traffic.send(), ALONG);
        way_back(&world, &plan);
        let (from, to) = (address(plan.site), address(plan.internet));
        let ping = format!("ping {} -c1 -W2 -t1 -I {from} {to}; true", plan.flag());
        let said = run(&world.site, &ping);
        assert!(said.contains("exceeded") && said.contains(plan.router), "{said}");
    }
}

/// What is too long for the next link is answered with that link's MTU, which is smaller on the chain's way.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_is_too_long_is_answered() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        put(&traffic.driver, &traffic.objects).await.unwrap();
        assert_eq!(traffic.send(), ALONG);
        world.ip("link set qr-abc mtu 1300");
        way_back(&world, &plan);
        let (from, to) = (address(plan.site), address(plan.internet));
        run(&world.site, &format!("ping {} -c1 -W1 -M do -s 1350 -I {from} {to}; true", plan.flag()));
        let route = run(&world.site, &format!("ip {} route get {to} from {from}", plan.flag()));
        assert!(route.contains("mtu 1300"), "{route}");
    }
}

/// Hosts of the site reach the router's own addresses, as before; also one that came later.
#[tokio::test(flavor = "multi_thread")]
async fn the_element_is_reached() {
    for plan in [V4, V6] {
        let world = World::default();
        let traffic = plan.build(&world, world.driver());
        put(&traffic.driver, &traffic.objects).await.unwrap();
        let events = traffic.driver.events();
        let from = address(plan.site);
        way_back(&world, &plan);
        let ping = |to: &str| run(&world.site, &format!("ping {} -c1 -W2 -I {from} {to}", plan.flag()));
        let near = if plan.flag() == "-6" { "2001:db8:21::1" } else { "10.21.0.1" };
        run(&world.site, &format!("ip {} route add {near} via {}", plan.flag(), plan.router));
        ping(near);
        let later = if plan.flag() == "-6" { "2001:db8:99::9" } else { "192.0.2.99" };
        let bits = if plan.flag() == "-6" { 128 } else { 32 };
        run(&world.site, &format!("ip {} route add {later} via {}", plan.flag(), plan.router));
        add_address(&world.router, &format!("{later}/{bits}"), "lo");
        tokio::time::sleep(Duration::from_millis(500)).await;
        ping(later);
        drop(events);
    }
}

/// The claim's program tells what is released; whichever of the two came first, it is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn the_claim_is_asked_before() {
    for (ours, theirs) in [
        (None, None),
        (Some(Hook::Clsact), Some(Hook::Clsact)),
        (Some(Hook::Tcx), Some(Hook::Tcx)),
        (Some(Hook::Clsact), Some(Hook::Tcx)),
    ] {
        for claim_first in [true, false] {
            let case = format!("{ours:?}, {theirs:?}, {claim_first}");
            let world = World::with(ours);
            let traffic = V4.build(&world, world.driver());
            let bare = world.attached();
            let claimed =
                Selector { unless_released: true, in_port: Some(port("qg-ext")), ..selector(V4.prefix) };
            let routes = [traffic.objects[..2].to_vec(), vec![rule(0, claimed, 1)]].concat();
            let claim = claim(&world, theirs);
            if claim_first {
                apply(&claim, &policy(9001)).await;
                put(&traffic.driver, &routes).await.unwrap();
            } else {
                put(&traffic.driver, &routes).await.unwrap();
                assert_eq!(traffic.send(), ALONG, "nobody has released anything: {case}");
                apply(&claim, &policy(9001)).await;
            }
            assert_eq!(traffic.send(), ROUND, "released: {case}");
            apply(&claim, &policy(9000)).await;
            assert_eq!(traffic.send(), ALONG, "claimed: {case}");
            assert_eq!(traffic.driver.observe().await.unwrap(), state(&routes), "{case}");
            // Without the claim, nothing is released.
            apply(&claim, &policy(9001)).await;
            let deletes: Vec<_> = policy(9001).into_iter().rev().map(|old| Change::Delete { old }).collect();
            claim.apply(Epoch(1), &deletes).await.unwrap();
            assert_eq!(traffic.send(), ALONG, "nothing is released: {case}");
            let deletes: Vec<_> = routes.into_iter().rev().map(|old| Change::Delete { old }).collect();
            traffic.driver.apply(Epoch(1), &deletes).await.unwrap();
            assert_eq!(world.attached(), bare, "whoever leaves last takes the qdisc with him: {case}");
        }
    }
}

fn claim(world: &World, hook: Option<Hook>) -> SteerDriver {
    SteerDriver::new(Config {
        element: "qrouter-1234".parse().unwrap(),
        netns: world.router.clone(),
        pins: world.pins.element(),
        mark: 0x0400_0000,
        hook,
        settings: Settings::default(),
        times: Times::default(),
    })
    .unwrap()
}

/// UDP to a port is claimed; all else is released.
fn policy(to: u16) -> Vec<Object> {
    let protocol = Some(catena_model::address::Protocol::UDP);
    let matches = FlowMatch { protocol, ports: Some(to.into()), ..FlowMatch::default() };
    vec![
        Object::Policy(Policy {
            site: SiteId(1),
            prefixes: [V4.prefix.parse().unwrap()].into(),
            rules: vec![PolicyRule { matches, action: Action::Claim }],
            exits: None,
        }),
        Object::Ingress(Ingress {
            port: port("qg-ext"),
            directions: [Direction::Up].into(),
            purpose: Purpose::Claim,
            site: None,
        }),
    ]
}

async fn apply(driver: &SteerDriver, objects: &[Object]) {
    let puts: Vec<_> = objects.iter().map(|new| Change::Put { new: new.clone(), old: None }).collect();
    driver.apply(Epoch(1), &puts).await.unwrap();
}

/// What comes in by a port that nobody has looked at, since the program is off, goes nowhere: also what is no tenant's. And it is
/// told.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_the_program_is_closed() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    let elsewhere = rule(0, Selector { in_port: Some(port("qg-ext")), ..selector("172.16.9.0/24") }, 1);
    put(&traffic.driver, &traffic.objects[..2]).await.unwrap();
    put(&traffic.driver, std::slice::from_ref(&elsewhere)).await.unwrap();
    assert_eq!(traffic.send(), ROUND, "no tenant's");
    let mut events = traffic.driver.events();
    run(&world.router, "tc filter del dev qg-ext ingress");
    assert_eq!(traffic.send(), DROPPED);
    let told = timeout(Duration::from_secs(2), events.recv()).await.unwrap().unwrap();
    assert!(matches!(&told, Event::Drift { what } if what.contains("off port qg-ext")), "{told:?}");
    put(&traffic.driver, &[elsewhere]).await.unwrap();
    assert_eq!(traffic.send(), ROUND, "healed");
}

/// Rules that name no port are for ports that come later, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_comes_later_is_looked_at() {
    let world = World::default();
    let traffic = V4.build(&world, world.driver());
    let anywhere = rule(0, selector(V4.prefix), 1);
    put(&traffic.driver, &[traffic.objects[0].clone(), anywhere]).await.unwrap();
    let events = traffic.driver.events();
    world.ip("link del qg-ext");
    world.cable("qg-ext", &["10.20.0.2/24"]);
    add_address(&world.site, V4.edge, "xqg-ext");
    ip(&world.site, &format!("route add {} via {}", V4.internet, V4.router));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(traffic.send(), ALONG);
    drop(events);
}

/// The router's own answers to the site need a way.
fn way_back(world: &World, plan: &Plan) {
    world.ip(&format!("{} route add {} via {}", plan.flag(), plan.prefix, address(plan.edge)));
}

fn address(prefix: &str) -> &str {
    prefix.split('/').next().unwrap()
}

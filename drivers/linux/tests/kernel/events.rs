//! What the driver tells without being asked.

use std::time::Duration;

use catena_driver::{Driver, Event};
use catena_testbed::objects::{delete, from, port, put, table};
use catena_testbed::{ip, run};
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use crate::world::World;

const SITE: &str = "172.16.1.0/24";

async fn next(events: &mut Receiver<Event>) -> Event {
    timeout(Duration::from_secs(2), events.recv()).await.expect("an event").expect("the driver listens")
}

/// Waits for an event like this, past others.
async fn expect(events: &mut Receiver<Event>, wanted: impl Fn(&Event) -> bool) {
    while !wanted(&next(events).await) {}
}

fn drift(what: &str) -> impl Fn(&Event) -> bool {
    move |event| matches!(event, Event::Drift { what: told } if told == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn others_changes_are_told_in_words() {
    let world = World::default();
    let driver = world.driver();
    put(&driver, &[table(1, "qr-abc", "10.21.0.5"), from(SITE, 1)]).await.unwrap();
    let mut events = driver.events();

    world.ip("rule del pref 10000");
    expect(&mut events, drift("rule pref 10000 from 172.16.1.0/24 lookup 10001 proto 202 was deleted")).await;
    world.ip("route del default table 10001 metric 0");
    expect(&mut events, drift("route default table 10001 proto 202 was deleted")).await;
    world.ip("-6 route add default via 2001:db8:21::5 table 10001 proto static");
    expect(&mut events, drift("route default table 10001 proto 4 metric 1024 was put")).await;
    world.ip("address del 10.21.0.1/24 dev qr-abc");
    expect(&mut events, drift("an address of qr-abc was deleted")).await;
    // It is not ours, but it decides before ours.
    world.ip("rule add pref 100 from 172.16.1.0/24 lookup main");
    let of_before = |event: &Event| matches!(event, Event::Drift { what } if what.starts_with("rule pref 100 from 172.16.1.0/24"));
    expect(&mut events, of_before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_told_as_they_come_and_go() {
    let world = World::default();
    let mut events = world.driver().events();
    let told = |name: &str, up: bool| {
        let port = port(name);
        move |event: &Event| *event == Event::Port { port: port.clone(), up }
    };
    world.ip("link set qr-abc down");
    expect(&mut events, told("qr-abc", false)).await;
    world.ip("link set qr-abc up");
    expect(&mut events, told("qr-abc", true)).await;
    // The other end of the cable.
    ip(&world.switch, "link set xqr-abc down");
    expect(&mut events, told("qr-abc", false)).await;
    world.ip("link del qr-abc");
    world.cable("qr-abc", &[]);
    expect(&mut events, told("qr-abc", true)).await;
    world.ip("link set qg-ext down");
    world.ip("link set qg-ext name qg-new");
    expect(&mut events, told("qg-new", false)).await;
}

/// Otherwise whoever reacts to an event by applying would never come to rest.
#[tokio::test(flavor = "multi_thread")]
async fn our_own_changes_are_not_told_and_others_that_damage_nothing_as_such() {
    let world = World::default();
    let driver = world.driver();
    let mut events = driver.events();
    let objects = [table(1, "qr-abc", "10.21.0.5"), from(SITE, 1)];
    put(&driver, &objects).await.unwrap();
    delete(&driver, &[objects[1].clone(), objects[0].clone()]).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_err());

    // Whatever table it is in, and behind ours: it may decide where what ours let pass goes, and nothing of ours is damaged.
    for command in [
        "route add 192.0.2.0/24 via 10.23.0.2",
        "route add 192.0.2.0/24 via 10.23.0.2 table 100",
        "-6 route add blackhole 2001:db8:66::/48 table 100",
        "route del 192.0.2.0/24 table 100",
        "rule add pref 32000 from 192.0.2.0/24 lookup main",
    ] {
        world.ip(command);
        assert_eq!(next(&mut events).await, Event::Routing, "{command}");
    }
    sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_err());

    world.ip("rule add pref 10000 from 192.0.2.0/24 lookup main");
    expect(&mut events, |_| true).await;
}

/// What may be in the packet filter may give packets other addresses. What is in its sets is not looked at, and what is ours is no news.
#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_owners_packet_filter_are_told() {
    let world = World::default();
    let mut events = world.driver().events();
    run(&world.router, "nft add table ip nat; nft add set ip nat hosts '{ type ipv4_addr; }'");
    expect(&mut events, |told| *told == Event::Routing).await;
    sleep(Duration::from_millis(100)).await;
    while events.try_recv().is_ok() {}

    run(
        &world.router,
        "nft add element ip nat hosts '{ 192.0.2.1 }'; nft add table inet catena; nft add chain inet catena a",
    );
    sleep(Duration::from_millis(100)).await;
    assert!(events.try_recv().is_err());

    for command in ["add chain ip nat a", "add rule ip nat a masquerade", "flush ruleset"] {
        run(&world.router, &format!("nft {command}"));
        assert_eq!(next(&mut events).await, Event::Routing, "{command}");
        sleep(Duration::from_millis(100)).await;
        while events.try_recv().is_ok() {}
    }
}

/// More than the socket holds: what was missed is told as such, and a port's change is not lost.
#[tokio::test(flavor = "current_thread")]
async fn an_overrun_is_told() {
    let world = World::default();
    let driver = world.driver();
    let mut events = driver.events();
    // On this thread, so that nobody reads meanwhile.
    run(
        &world.router,
        "for n in $(seq 4000); do echo route add 192.0.2.1 via 10.23.0.2 metric $n table 10001; done | ip -batch -",
    );
    world.ip("link set qr-abc down");
    let mut missed = false;
    loop {
        match next(&mut events).await {
            Event::Drift { what } => missed |= what == "events were missed: too many at once",
            // Addresses and routes of the port went with it.
            Event::Routing => {}
            told @ Event::Port { .. } => {
                assert_eq!(told, Event::Port { port: port("qr-abc"), up: false });
                break;
            }
        }
    }
    assert!(missed);
}

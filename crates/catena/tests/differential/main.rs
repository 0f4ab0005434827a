//! The verifier against the kernel: random networks, built for real by the real drivers, in which random packets go where
//! `catena_verify` says that they go. After the first packets something changes, and others are sent. Needs root.
//!
//! What is compared: every port of every node at which a packet comes in, in the order of time, and the copies that taps
//! get. What is not seen, and so not compared: outer packets of tunnels on their way, and why a packet was dropped.
//!
//! What is not sent, because the verifier does not speak of it, or takes too much for possible:
//!
//! - later packets of flows that were there before an edit, which stay on their old path;
//! - where a chain looks at the DSCP, packets that answer nothing: the switch takes them for claimed whatever their own;
//! - where an owner's packet filter exchanges addresses, what has no ports, and answers that it would not take for ones;
//! - packets to or from nodes' own addresses, which nodes and functions keep or drop;
//! - what a chain claims of what one site sends to another: a function that routes may send it back by its own routes, and then
//!   it is dropped.
//!
//! A failure names its seed: `CATENA_DIFFERENTIAL_SEED=N cargo test -p catena --test differential` does it again.
//! `CATENA_DIFFERENTIAL=NETWORKS,PACKETS` chooses how many of either; `cargo xtask test --long` takes 200 and 50.
//! `CATENA_DIFFERENTIAL_JSON=FILE` has the counts written there, whatever they are: `cargo xtask bench verify` reads them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chance;
mod network;
mod traffic;
mod world;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catena_model::forwarding::{Change, Kind, Object};
use catena_model::name::{NodeName, PortName};
use catena_replay::Sender;
use serde_json::json;
use tokio::runtime::Handle;

use chance::Chance;
use network::Network;
use traffic::{Entries, Traffic};
use world::{World, run};

/// Worlds that are built side by side.
const WORKERS: usize = 2;
/// Of each network's packets, so many parts are sent, with something changed in between.
const ROUNDS: usize = 3;
/// Networks that were once predicted otherwise than they were. They are built again each time.
const KEPT: [u64; 10] = [5, 10, 15, 25, 112, 305, 352, 368, 371, 381];
/// The seeds of the others begin here.
const FIRST: u64 = 200;

/// What became of all packets.
#[derive(Debug, Default)]
struct Tally {
    networks: usize,
    packets: usize,
    /// Of these the verifier said that it does not know.
    undecided: usize,
    disagreements: Vec<String>,
}

#[test]
fn packets_go_where_the_verifier_says() {
    let chosen = std::env::var("CATENA_DIFFERENTIAL").unwrap_or_else(|_| "20,20".to_owned());
    let (networks, packets) = chosen.split_once(',').unwrap();
    compare(networks.parse().unwrap(), packets.parse().unwrap());
}

#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn packets_go_where_the_verifier_says_in_many_networks() {
    compare(200, 50);
}

fn compare(networks: usize, packets: usize) {
    let of_new = FIRST..;
    let of_new = of_new.filter(|seed| !KEPT.contains(seed));
    let seeds: Vec<u64> = match std::env::var("CATENA_DIFFERENTIAL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => KEPT.into_iter().chain(of_new).take(networks).collect(),
    };
    let begin = Instant::now();
    let Tally { networks, packets, undecided, disagreements } = all(&seeds, packets);
    // Past the capture of test output, for those who measure.
    let _ = writeln!(
        std::io::stdout(),
        "differential: {networks} networks, {packets} packets, {undecided} undecided, {:.1} s\n\
         differential_disagreed: {}",
        begin.elapsed().as_secs_f64(),
        disagreements.len()
    );
    if let Ok(file) = std::env::var("CATENA_DIFFERENTIAL_JSON") {
        let counts = json!({
            "networks": networks,
            "packets": packets,
            "undecided": undecided,
            "disagreed": disagreements.len(),
        });
        std::fs::write(file, counts.to_string()).unwrap();
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
    assert!(packets > 0 && undecided * 10 <= packets, "{undecided} of {packets} packets are undecided");
}

fn all(seeds: &[u64], packets: usize) -> Tally {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let found = one(*seed, packets, runtime.handle());
                    let mut tally = tally.lock().unwrap();
                    tally.networks += 1;
                    tally.packets += found.packets;
                    tally.undecided += found.undecided;
                    tally.disagreements.extend(found.disagreements);
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// One network: some packets, a change, others.
fn one(seed: u64, packets: usize, runtime: &Handle) -> Tally {
    let mut chance = Chance::new(seed);
    let mut owner = Chance::new(!seed);
    let mut network = Network::random(&mut chance);
    let mut tally = Tally::default();
    let mut story = vec![format!("seed {seed}")];
    let mut world = World::build(network.model().unwrap(), runtime.clone());
    let entries = Entries::new(&world, &network);
    let mut sender = Sender::new(&world).unwrap();
    let mut traffic = Traffic::default();
    let mut damaged = false;
    for round in 0..ROUNDS {
        if round > 0 {
            damaged = round == ROUNDS - 1 && chance.percent(60);
            story.push(match damaged {
                true => damage(&mut world, &mut chance),
                false => network.edit(&mut chance),
            });
        }
        if damaged {
            world.look();
        } else if let Err(error) = world.apply(network.model().unwrap()) {
            tally.disagreements.push(format!("{}: not installed: {error}", story.join(", ")));
            break;
        }
        if round == ROUNDS - 1 && owner.percent(60) {
            story.push(translate(&mut world, &mut owner));
            world.look();
        }
        let count = packets / ROUNDS + usize::from(round < packets % ROUNDS);
        let sent = traffic.send(count, &world, &network, &entries, &mut sender, &mut chance);
        tally.packets += sent.packets;
        tally.undecided += sent.undecided;
        let told = sent.disagreements.iter().map(|what| format!("{}:\n{what}", story.join(", ")));
        tally.disagreements.extend(told);
    }
    if let (Ok(folder), false) = (std::env::var("CATENA_DIFFERENTIAL_FILES"), tally.disagreements.is_empty())
    {
        std::fs::write(format!("{folder}/{seed}.yaml"), network.text()).unwrap();
    }
    tally
}

/// The owner of an element has its packet filter exchange addresses; says what. Where the Internet is, sources are hidden most often.
fn translate(world: &mut World, chance: &mut Chance) -> String {
    let cables = world.model.elements.keys().flat_map(|name| world.topology.cables(name));
    let (outside, inside): (Vec<_>, Vec<_>) = cables.partition(|cable| cable.near.external);
    let cables = if chance.percent(70) { outside } else { inside };
    let near = &chance.of(&cables).near;
    let (port, name) = (&near.port, near.node.clone());
    let v6 = near.addresses.iter().any(|own| own.addr().is_ipv6()) && chance.percent(30);
    let (family, sites, asked, given, site) = match v6 {
        true => ("ip6", "2001:db8:a0::/44", "2001:db8:ffff::66", "2001:db8:ffff::99", "2001:db8:a1::99"),
        false => ("ip", "172.16.0.0/12", "198.51.100.66", "198.51.100.99", "172.16.1.99"),
    };
    let from = if chance.percent(50) { format!("{family} saddr {sites} ") } else { String::new() };
    let given = if chance.percent(70) { given } else { site };
    let (hook, rule) = match chance.below(4) {
        0 | 1 => ("postrouting", format!("oifname {port} {from}masquerade")),
        2 => ("postrouting", format!("oifname {port} {from}snat to {given}")),
        _ => ("prerouting", format!("iifname {port} {from}{family} daddr {asked} dnat to {given}")),
    };
    let chain = format!("chain {hook} {{ type nat hook {hook} priority 100; {rule}; }}");
    let command = format!("nft 'table {family} nat {{ {chain}; }}'");
    run(&world.namespaces[&name], &command);
    // Programs hear of it.
    std::thread::sleep(Duration::from_millis(50));
    format!("{command} on {name}")
}

/// Somebody else does something to an element, or takes away what is ours; says what.
fn damage(world: &mut World, chance: &mut Chance) -> String {
    let elements: Vec<NodeName> = world.model.elements.keys().cloned().collect();
    let name = chance.of(&elements).clone();
    let netns = world.namespaces[&name].clone();
    let command = match chance.below(6) {
        nth @ 0..=2 => {
            let (v4, v6) = [
                ("to 198.51.100.0/24 lookup main", "to 2001:db8:ffff::/48 lookup main"),
                ("from 172.16.1.0/24 unreachable", "from 2001:db8:a1::/64 unreachable"),
                ("from 172.16.1.0/25 lookup main", "from 2001:db8:a1::/64 lookup main"),
            ][nth];
            let (family, rule) = if chance.percent(30) { ("-6", v6) } else { ("-4", v4) };
            format!("ip {family} rule add {rule} priority 100")
        }
        3 => "ip route add blackhole 198.51.100.64/26".to_owned(),
        4 => {
            let ports: Vec<&PortName> = world.topology.cables(&name).map(|cable| &cable.near.port).collect();
            format!("ip link set {} down", chance.of(&ports))
        }
        _ => {
            let state = world.installed.element(&name);
            let rules: Vec<Object> =
                state.iter().filter(|object| object.kind() == Kind::Rule).cloned().collect();
            if rules.is_empty() {
                return "nothing".to_owned();
            }
            let old = chance.of(&rules).clone();
            world.change(&name, &[Change::Delete { old: old.clone() }]);
            return format!("{name} without {old:?}");
        }
    };
    run(&netns, &command);
    // The engines hear of ports, and the routing engine of its owner's rules and routes.
    std::thread::sleep(Duration::from_millis(50));
    format!("{command} on {name}")
}

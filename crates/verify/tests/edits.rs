//! Between the steps of an edit each packet goes the old way or the new one, through all functions of that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

use catena_model::address::{Dscp, Protocol};
use catena_model::forwarding::Change;
use catena_model::name::NodeName;
use catena_model::packet::Packet;
use catena_plan::plan;
use catena_render::render;
use catena_verify::{End, Entry};
use world::{World, way};

/// What somebody may ask for, one after the other.
fn wishes() -> Vec<String> {
    let chain = |name: &str, tenant: &str, spec: &str| {
        format!(
            "\n---\n{{apiVersion: catena/v1alpha1, kind: Chain, metadata: {{name: {name}}}, \
             spec: {{tenant: {tenant}, {spec}}}}}\n"
        )
    };
    let acme = |spec: &str| chain("acme", "acme", spec);
    vec![
        String::new(),
        acme("match: [{protocol: tcp, ports: [80, 443]}], functions: [fw, ips, web]"),
        acme("match: [{protocol: tcp, ports: [443]}], functions: [fw, ips, web]"),
        acme("functions: [web, fw]"),
        acme("functions: [ips]"),
        acme("priority: 5, match: [{protocol: tcp, ports: [80]}], functions: [fw]")
            + &chain("rest", "acme", "functions: [ips, web]"),
        acme("priority: 1, match: [{protocol: tcp}], functions: [fw]")
            + &chain(
                "rest",
                "acme",
                "priority: 5, match: [{protocol: tcp, ports: [80]}], functions: [ips, web]",
            ),
        acme("match: [{protocol: udp}], functions: [web]") + &chain("globex", "globex", "functions: [ips]"),
    ]
}

/// Acme's packets, and those that answer them, with where they come in.
fn packets() -> Vec<(Entry, Packet)> {
    let entry = |node: &str, port: &str| Entry {
        node: node.parse().unwrap(),
        port: port.parse().unwrap(),
        tunnel: None,
    };
    let ends = [("172.16.1.10", "198.51.100.10"), ("2001:db8:a1::10", "2001:db8:ffff::10")];
    let flows = [(Protocol::TCP, 80), (Protocol::TCP, 443), (Protocol::TCP, 22), (Protocol::UDP, 53)];
    let mut packets = Vec::new();
    for (source, destination) in ends {
        for (protocol, destination_port) in flows {
            let packet = Packet {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol,
                source_port: 40_000,
                destination_port,
                dscp: Dscp::default(),
            };
            packets.push((entry("access-a", "lan"), packet));
            packets.push((entry("core", "inet"), packet.reply()));
        }
    }
    packets
}

/// From the state before an edit by each change of its plan to the state after it.
struct Edit {
    before: World,
    after: World,
    changes: Vec<(NodeName, Change)>,
}

impl Edit {
    fn new(old: &str, new: &str) -> Self {
        let before = World::paper_with(old);
        let mut after = World::paper_with(new);
        after.numbering = before.numbering.clone();
        after.state = render(&after.model, &mut after.numbering).unwrap();
        let plan = plan(&before.state, &after.state, &after.topology);
        let changes = plan
            .steps
            .iter()
            .flat_map(|step| step.changes.iter().map(|change| (step.element.clone(), change.clone())));
        Self { before: before.clone(), after, changes: changes.collect() }
    }

    /// How many states there are on the way, and one where a packet goes neither way.
    fn walk(&self, packets: &[(Entry, Packet)]) -> (usize, Option<String>) {
        let known: Vec<[Taken; 2]> = packets
            .iter()
            .map(|(entry, packet)| [&self.before, &self.after].map(|world| taken(world, entry, *packet)))
            .collect();
        let mut world = World { numbering: self.after.numbering.clone(), ..self.before.clone() };
        for (nth, (element, change)) in self.changes.iter().enumerate() {
            world.state.elements.entry(element.clone()).or_default().apply(change);
            for ((entry, packet), known) in packets.iter().zip(&known) {
                let now = taken(&world, entry, *packet);
                if !known.contains(&now) {
                    let way = way(&world.walk(entry, *packet));
                    let told = format!("after {change:?} at {element}: {now:?}, not {known:?}\n{way}");
                    return (nth + 1, Some(told));
                }
            }
        }
        (self.changes.len(), None)
    }
}

/// The functions that a packet passes, and where it ends.
type Taken = (Vec<String>, End);

fn taken(world: &World, entry: &Entry, packet: Packet) -> Taken {
    let walk = world.walk(entry, packet);
    (walk.functions().into_iter().map(str::to_owned).collect(), walk.end)
}

#[test]
fn each_packet_goes_the_old_way_or_the_new_one() {
    let (wishes, packets) = (wishes(), packets());
    let mut states = 0;
    for old in &wishes {
        for new in &wishes {
            let (count, lost) = Edit::new(old, new).walk(&packets);
            states += count;
            assert_eq!(lost, None, "from: {old}\nto: {new}");
        }
    }
    assert!(states > 1_000, "{states} states between");
}

/// In another order packets would go neither way: so that is what the order is for, and it would be seen here.
#[test]
fn the_order_of_the_steps_matters() {
    let wishes = wishes();
    let mut edit = Edit::new(&wishes[1], &wishes[3]);
    edit.changes.reverse();
    assert!(edit.walk(&packets()).1.is_some());
}

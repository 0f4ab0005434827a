//! Networks that the tests render, damage and verify.

#![allow(dead_code, reason = "each test uses a part")]

pub mod damage;
pub mod exchange;
pub mod hunt;

use std::collections::BTreeMap;

use catena_model::address::Family;
use catena_model::base::{BaseRouting, BaseRule, BaseRuleAction};
use catena_model::forwarding::{ElementState, ForwardingState, Key, Object};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{DriverSpec, Engine, LinuxSpec, Model, Source, load};
use catena_model::topology::Topology;
use catena_render::render;
use catena_verify::{Entry, Network, Probe, Property, Report, Verdict, Walk, verify, walk_from};
use exchange::Exchange;

#[derive(Clone)]
pub struct World {
    pub model: Model,
    pub topology: Topology,
    pub state: ForwardingState,
    pub base: BTreeMap<NodeName, BaseRouting>,
    pub numbering: Numbering,
    /// What a packet filter of an owner's does.
    pub exchange: Option<Exchange>,
}

impl World {
    pub fn of(texts: &[&str]) -> Self {
        let sources: Vec<Source> =
            texts.iter().map(|text| Source::new("world", (*text).to_owned())).collect();
        let model = load(&sources).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let topology = Topology::of(&model);
        let mut numbering = Numbering::default();
        let state = render(&model, &mut numbering).unwrap();
        Self { model, topology, state, base: BTreeMap::new(), numbering, exchange: None }
    }

    /// Files of one of the examples.
    pub fn example(folder: &str, files: &[&str]) -> Self {
        let folder = format!("{}/../../examples/{folder}/", env!("CARGO_MANIFEST_DIR"));
        let texts: Vec<String> =
            files.iter().map(|name| std::fs::read_to_string(format!("{folder}{name}")).unwrap()).collect();
        Self::of(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The paper's network: acme by a tunnel, globex by a cable, both with a chain.
    pub fn paper() -> Self {
        let files = ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml", "globex-chain.yaml"];
        Self::example("paper", &files)
    }

    /// The paper's network with the chain of acme alone, and with what else `text` says.
    pub fn acme(text: &str) -> Self {
        let chain = include_str!("../../../../examples/paper/chain.yaml");
        Self::paper_with(&format!("{chain}\n---\n{text}"))
    }

    /// The paper's network with no chains but those that `text` says.
    pub fn paper_with(text: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/paper/");
        let read = |name| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        let files = ["network.yaml", "functions.yaml", "tenants.yaml"].map(read);
        Self::of(&[&format!("{}\n---\n{text}", files.join("\n---\n"))])
    }

    /// Functions of every kind, for a customer whose router is not driven.
    pub fn insertion() -> Self {
        Self::example("insertion", &["network.yaml", "functions.yaml", "tenants.yaml", "chains.yaml"])
    }

    /// The same without the chain whose replies nobody can follow.
    pub fn insertion_without_nat() -> Self {
        let mut world = Self::insertion();
        let mut model = world.model.clone();
        model.chains.retain(|name, _| name.as_str() != "mail");
        world.state = render(&model, &mut world.numbering).unwrap();
        world.model = model;
        world
    }

    pub fn one_armed() -> Self {
        Self::of(&[include_str!("one-armed.yaml")])
    }

    /// The same where nobody may talk to the switch itself, and nothing comes from the Internet with the customer's
    /// addresses (BCP 38): on its one leg the switch could not tell that from the customer's own packets.
    pub fn one_armed_and_guarded() -> Self {
        let mut world = Self::one_armed();
        world.foreign_rule("gateway", |rule| {
            rule.from = Some("172.16.1.0/24".parse().unwrap());
            rule.in_port = Some("inet".parse().unwrap());
            rule.action = BaseRuleAction::Drop;
        });
        world.foreign_rule("access", |rule| {
            rule.to = Some("10.21.0.0/24".parse().unwrap());
            rule.action = BaseRuleAction::Drop;
        });
        world
    }

    /// Has an element's rules installed by `engine`.
    pub fn engine(&mut self, element: &str, engine: Engine) {
        let element = self.model.elements.get_mut(&element.parse::<NodeName>().unwrap()).unwrap();
        element.driver = DriverSpec::Linux(LinuxSpec { engine, ..LinuxSpec::default() });
    }

    /// Puts a foreign IPv4 rule in front of all of ours.
    pub fn foreign_rule(&mut self, element: &str, change: impl FnOnce(&mut BaseRule)) {
        let mut rule = BaseRule {
            priority: 100,
            family: Family::V4,
            from: None,
            to: None,
            in_port: None,
            opaque: Vec::new(),
            action: BaseRuleAction::Lookup(254),
        };
        change(&mut rule);
        self.base(element).rules.insert(0, rule);
    }

    /// The routing of an element as its owner has it.
    pub fn base(&mut self, element: &str) -> &mut BaseRouting {
        let name: NodeName = element.parse().unwrap();
        let of_inventory = catena_verify::of_inventory(&self.model, &self.topology, &name);
        self.base.entry(name).or_insert(of_inventory)
    }

    /// Customers with routers of their own, each with a chain of three functions, in both families.
    pub fn provider(tenants: u32) -> Self {
        Self::of(&[&Self::provider_text(tenants)])
    }

    pub fn provider_text(tenants: u32) -> String {
        let mut text = include_str!("provider.yaml").to_owned();
        for number in 0..tenants {
            let (high, low) = (number / 256, number % 256);
            text += &format!(
                "---
apiVersion: catena/v1alpha1
kind: Tenant
metadata: {{name: tenant-{number}}}
spec: {{prefixes: [10.{high}.{low}.0/24, '2001:db8:a:{number:x}::/64']}}
---
apiVersion: catena/v1alpha1
kind: Site
metadata: {{name: site-{number}}}
spec:
  tenant: tenant-{number}
  attachment:
    gre:
      customer: {{address: 192.0.{high}.{low}}}
      cloud: {{element: edge, address: 203.0.113.10}}
      key: {number}
---
apiVersion: catena/v1alpha1
kind: Chain
metadata: {{name: chain-{number}}}
spec:
  tenant: tenant-{number}
  match: [{{protocol: tcp, ports: [80, 443]}}]
  functions: [fw, ips, web]
"
            );
        }
        text
    }

    pub fn network(&self) -> Network<'_> {
        let Self { model, topology, state, base, numbering, .. } = self;
        Network { model, topology, state, base, numbering }
    }

    pub fn verify(&self) -> Report {
        verify(&self.network(), None)
    }

    /// A single packet, which keeps its addresses: see [`walk_exchanged`](Self::walk_exchanged).
    pub fn walk(&self, entry: &Entry, probe: impl Into<Probe>) -> Walk {
        let base = self.exchange.as_ref().map_or(&self.base, |exchange| &exchange.base);
        walk_from(&Network { base, ..self.network() }, entry, probe)
    }

    pub fn element(&mut self, name: &str) -> &mut ElementState {
        self.state.elements.get_mut(name).unwrap()
    }

    /// The objects of an element that `which` accepts.
    pub fn objects(&self, element: &str, which: impl Fn(&Object) -> bool) -> Vec<Object> {
        self.state.element(&element.parse().unwrap()).iter().filter(|object| which(object)).cloned().collect()
    }

    /// Puts in the place of each object that `which` accepts what `change` makes of it.
    pub fn change(&mut self, element: &str, which: impl Fn(&Object) -> bool, change: impl Fn(&mut Object)) {
        let found = self.objects(element, which);
        assert!(!found.is_empty(), "nothing of {element} is to be changed");
        for mut object in found {
            let key: Key = object.key();
            self.element(element).remove(&key);
            change(&mut object);
            self.element(element).insert(object);
        }
    }

    pub fn remove(&mut self, element: &str, which: impl Fn(&Object) -> bool) {
        let found = self.objects(element, which);
        assert!(!found.is_empty(), "nothing of {element} is to be removed");
        for object in found {
            self.element(element).remove(&object.key());
        }
    }
}

pub fn properties(report: &Report) -> Vec<Property> {
    let mut properties: Vec<Property> =
        report.violations.iter().map(|violation| violation.property).collect();
    properties.sort_unstable();
    properties.dedup();
    properties
}

pub fn in_words(report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.verdict, report.coverage);
    for violation in &report.violations {
        text += &format!("{violation}\n  enters at {}\n{}", violation.entry, way(&violation.walk));
    }
    for undecided in &report.undecided {
        text += &format!("undecided: {undecided}\n{}", undecided.walk.as_ref().map(way).unwrap_or_default());
    }
    text
}

pub fn way(walk: &Walk) -> String {
    let packet = &walk.packet;
    let kind = if walk.kind.is_whole() { String::new() } else { format!("{} ", walk.kind) };
    let mut text = format!(
        "  {kind}{} {} port {} → {} port {}\n",
        packet.protocol, packet.source, packet.source_port, packet.destination, packet.destination_port
    );
    for visit in &walk.visits {
        let port = visit.in_port.as_ref().map(|port| format!(" ({port})")).unwrap_or_default();
        text += &format!("    {}{port}\n", visit.node);
        for decision in &visit.decisions {
            text += &format!("      {decision}\n");
        }
    }
    text + &format!("    {}\n", walk.end)
}

pub fn assert_proven(report: &Report) {
    assert_eq!(report.verdict, Verdict::Proven, "{}", in_words(report));
}

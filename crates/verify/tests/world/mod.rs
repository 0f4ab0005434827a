//! Networks that the tests render, damage and verify.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::forwarding::{ElementState, ForwardingState, Key, Object};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{Model, Source, load};
use catena_model::topology::Topology;
use catena_render::render;
use catena_verify::{Entry, Network, Property, Report, Verdict, Walk, verify, walk_from};

#[derive(Clone)]
pub struct World {
    pub model: Model,
    pub topology: Topology,
    pub state: ForwardingState,
    pub base: BTreeMap<NodeName, BaseRouting>,
    pub numbering: Numbering,
}

impl World {
    pub fn of(texts: &[&str]) -> Self {
        let sources: Vec<Source> = texts.iter().map(|text| Source::new("world", (*text).to_owned())).collect();
        let model = load(&sources).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let topology = Topology::of(&model);
        let mut numbering = Numbering::default();
        let state = render(&model, &mut numbering).unwrap();
        Self { model, topology, state, base: BTreeMap::new(), numbering }
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
        let files =
            ["network.yaml", "functions.yaml", "tenants.yaml", "chain.yaml", "globex-chain.yaml"];
        Self::example("paper", &files)
    }

    /// Functions of every kind, for a customer whose router is not driven.
    pub fn insertion() -> Self {
        Self::example("insertion", &["network.yaml", "functions.yaml", "tenants.yaml", "chains.yaml"])
    }

    pub fn network(&self) -> Network<'_> {
        let Self { model, topology, state, base, numbering } = self;
        Network { model, topology, state, base, numbering }
    }

    pub fn verify(&self) -> Report {
        verify(&self.network(), None)
    }

    pub fn walk(&self, entry: &Entry, packet: catena_model::packet::Packet) -> Walk {
        walk_from(&self.network(), entry, packet)
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
    let mut properties: Vec<Property> = report.violations.iter().map(|violation| violation.property).collect();
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
    let mut text = format!(
        "  {} {} port {} → {} port {}\n",
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

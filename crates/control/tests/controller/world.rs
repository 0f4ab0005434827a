//! The paper's network with simulated drivers, and a controller on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catena_control::report::{ApplyReport, EventKind, StatusReport};
use catena_control::{
    ApplyError, Controller, Drivers, Mode, Request, ResourceId, Settings, StartError, Terms,
};
use catena_driver::simulated::{SimulatedDriver, SimulatedElement};
use catena_driver::{Driver, DriverError};
use catena_model::forwarding::{Action, ElementState, ForwardingState, Hop, Key, Kind, Object};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{Element, Source, load};
use catena_render::render;
use catena_store::InMemory;
use tokio::sync::mpsc;

/// What outlives a controller: the store, and what is installed.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub store: InMemory,
    network: Arc<Mutex<Network>>,
}

#[derive(Debug, Default)]
struct Network {
    seed: u64,
    elements: BTreeMap<NodeName, SimulatedElement>,
    /// Elements that are not there.
    gone: BTreeSet<NodeName>,
    /// How often an element was replaced by another of its name.
    replaced: BTreeMap<NodeName, u64>,
    /// Kinds that no driver installs.
    unsupported: BTreeSet<Kind>,
    arrivals: Vec<mpsc::Sender<()>>,
    /// What others took away, and after how many of our changes.
    losses: BTreeMap<NodeName, Vec<(usize, Vec<Key>)>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let network = Network { seed, ..Network::default() };
        Self { store: InMemory::default(), network: Arc::new(Mutex::new(network)) }
    }

    pub async fn controller(&self) -> Controller {
        self.start(settings()).await.unwrap()
    }

    pub async fn start(&self, settings: Settings) -> Result<Controller, StartError> {
        Controller::start(Arc::new(self.store.clone()), Arc::new(self.clone()), settings).await
    }

    pub fn element(&self, name: &str) -> SimulatedElement {
        self.network.lock().unwrap().element(&name.parse().unwrap())
    }

    pub fn elements(&self) -> BTreeMap<NodeName, SimulatedElement> {
        self.network.lock().unwrap().elements.clone()
    }

    /// What is installed everywhere.
    pub fn installed(&self) -> ForwardingState {
        let elements = self.elements().into_iter().map(|(name, element)| (name, element.installed()));
        ForwardingState { elements: elements.filter(|(_, state)| !state.is_empty()).collect() }
    }

    /// The element goes, with all that is installed on it.
    pub fn remove(&self, name: &str) {
        let name: NodeName = name.parse().unwrap();
        let mut network = self.network.lock().unwrap();
        network.element(&name).cut_off();
        network.gone.insert(name);
        network.tell();
    }

    /// An element of this name comes, with nothing installed.
    pub fn bring(&self, name: &str) {
        let name: NodeName = name.parse().unwrap();
        let mut network = self.network.lock().unwrap();
        let seed = network.seed;
        network.gone.remove(&name);
        network.elements.insert(name.clone(), SimulatedElement::new(seed));
        network.losses.remove(&name);
        *network.replaced.entry(name).or_default() += 1;
        network.tell();
    }

    /// From now on no driver installs these.
    pub fn forbid(&self, kind: Kind) {
        self.network.lock().unwrap().unsupported.insert(kind);
    }

    /// How many changes were made, everywhere.
    pub fn changes(&self) -> usize {
        self.elements().values().map(|element| element.log().len()).sum()
    }

    /// Somebody else does something to an element: what is lost thereby is remembered.
    pub fn disturb<T>(&self, name: &NodeName, deed: impl FnOnce(&SimulatedElement) -> T) -> T {
        let element = self.element(name.as_str());
        let (before, at) = (element.installed(), element.log().len());
        let result = deed(&element);
        let after = element.installed();
        let lost: Vec<Key> = before.iter().map(Object::key).filter(|key| after.get(key).is_none()).collect();
        self.network.lock().unwrap().losses.entry(name.clone()).or_default().push((at, lost));
        result
    }

    /// No single change that was ever made has taken away what something there refers to, or has put something that
    /// refers to what was not there.
    pub fn assert_always_safe(&self) {
        for (name, element) in self.elements() {
            let mut losses = self.network.lock().unwrap().losses.get(&name).cloned().unwrap_or_default();
            losses.reverse();
            let mut state = ElementState::default();
            for (at, applied) in element.log().iter().enumerate() {
                while let Some((_, lost)) = losses.pop_if(|(when, _)| *when <= at) {
                    lost.iter().for_each(|key| drop(state.remove(key)));
                }
                let before = missing(&state);
                state.apply(&applied.change);
                let caused: Vec<Key> =
                    missing(&state).into_iter().filter(|key| !before.contains(key)).collect();
                assert_eq!(caused, [], "on {name} after {}", applied.change);
            }
        }
    }
}

impl Network {
    fn tell(&self) {
        for arrival in &self.arrivals {
            // Full: it has been told already.
            let _ = arrival.try_send(());
        }
    }

    fn element(&mut self, name: &NodeName) -> SimulatedElement {
        let seed = self.seed;
        self.elements.entry(name.clone()).or_insert_with(|| SimulatedElement::new(seed)).clone()
    }
}

impl Drivers for World {
    /// As on Linux: one driver for routing, another for steering.
    fn for_element(&self, element: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
        let mut network = self.network.lock().unwrap();
        if network.gone.contains(&element.name) {
            return Err(DriverError::failed("it is not there", "no such namespace"));
        }
        let world = network.element(&element.name);
        let drivers = [
            vec![Kind::Table, Kind::Rule],
            vec![Kind::Tunnel, Kind::Ingress, Kind::Instance, Kind::Path, Kind::Policy],
        ];
        let driver = |kinds: Vec<Kind>| {
            let kinds = kinds.into_iter().filter(|kind| !network.unsupported.contains(kind));
            Arc::new(SimulatedDriver::of_kinds(&world, kinds)) as Arc<dyn Driver>
        };
        Ok(drivers.into_iter().map(driver).collect())
    }

    fn identity(&self, element: &Element) -> Option<u64> {
        let network = self.network.lock().unwrap();
        let gone = network.gone.contains(&element.name);
        (!gone).then(|| network.replaced.get(&element.name).copied().unwrap_or_default())
    }

    fn arrivals(&self) -> Option<mpsc::Receiver<()>> {
        let (sender, receiver) = mpsc::channel(1);
        self.network.lock().unwrap().arrivals.push(sender);
        Some(receiver)
    }
}

/// A controller that only looks.
pub async fn looker(world: &World) -> Controller {
    world.start(Settings { mode: Mode::Look, ..settings() }).await.unwrap()
}

pub fn settings() -> Settings {
    Settings { driver_timeout: Duration::from_secs(5), ..Settings::default() }
}

/// What a classifier or a path uses but the element does not have.
pub fn missing(element: &ElementState) -> Vec<Key> {
    let uses = element.iter().flat_map(|object| match object {
        Object::Rule(rule) => vec![Key::Table(rule.table, rule.selector.family)],
        Object::Path(path) => path.hops.iter().flat_map(Hop::ids).map(Key::Instance).collect(),
        Object::Policy(policy) => policy
            .rules
            .iter()
            .filter_map(|rule| match rule.action {
                Action::Path(path) => Some(Key::Path(path)),
                Action::Claim => None,
            })
            .collect(),
        _ => Vec::new(),
    });
    uses.filter(|key| element.get(key).is_none()).collect()
}

fn example(name: &str) -> Source {
    let path = format!("{}/../../examples/paper/{name}", env!("CARGO_MANIFEST_DIR"));
    Source::new(name, std::fs::read_to_string(path).unwrap())
}

/// The network, its functions and tenants.
pub fn inventory() -> Vec<Source> {
    ["network.yaml", "functions.yaml", "tenants.yaml"].map(example).to_vec()
}

/// A chain of acme's, or of another tenant's.
pub fn chain_of(tenant: &str, name: &str, functions: &[&str]) -> Source {
    let functions = functions.join(", ");
    let text = format!(
        "apiVersion: catena/v1alpha1\nkind: Chain\nmetadata: {{name: {name}}}\nspec:\n  tenant: {tenant}\n  match: \
         [{{protocol: tcp, ports: [80, 443]}}]\n  functions: [{functions}]\n"
    );
    Source::new(format!("{name}.yaml"), text)
}

pub fn chain(functions: &[&str]) -> Source {
    chain_of("acme", "acme-web", functions)
}

/// What a fresh controller would install for these.
pub fn rendered(sources: &[Source]) -> ForwardingState {
    render(&load(sources).unwrap(), &mut Numbering::default()).unwrap()
}

/// Numbers aside, what follows from two requests is the same if there are as many objects of each kind everywhere.
pub fn shape(state: &ForwardingState) -> BTreeMap<(NodeName, Kind), usize> {
    let mut shape = BTreeMap::new();
    for (name, element) in &state.elements {
        for object in element.iter() {
            *shape.entry((name.clone(), object.kind())).or_default() += 1;
        }
    }
    shape
}

pub async fn apply(controller: &Controller, sources: &[Source]) -> Result<ApplyReport, ApplyError> {
    controller.request(Request::Apply(sources.to_vec()), Terms::default()).await
}

pub async fn plan_for(controller: &Controller, sources: &[Source]) -> Result<ApplyReport, ApplyError> {
    let terms = Terms { dry_run: true, ..Terms::default() };
    controller.request(Request::Apply(sources.to_vec()), terms).await
}

pub async fn delete(controller: &Controller, names: &[&str]) -> Result<ApplyReport, ApplyError> {
    let id = |text: &&str| {
        let (kind, name) = text.split_once('/').unwrap();
        ResourceId { kind: kind.parse().unwrap(), name: name.to_owned() }
    };
    let resources = names.iter().map(id).collect();
    controller.request(Request::Delete { sources: Vec::new(), resources }, Terms::default()).await
}

/// A controller with the inventory and acme's chain applied.
pub async fn chained(world: &World) -> Controller {
    let controller = world.controller().await;
    apply(&controller, &inventory()).await.unwrap();
    apply(&controller, &[chain(&["fw", "ips", "web"])]).await.unwrap();
    controller
}

pub fn kinds_of_events(controller: &Controller, after: u64) -> Vec<EventKind> {
    controller.events().into_iter().filter(|event| event.id > after).map(|event| event.kind).collect()
}

pub fn last_event(controller: &Controller) -> u64 {
    controller.events().last().map_or(0, |event| event.id)
}

pub fn assert_converged(controller: &Controller, world: &World) -> StatusReport {
    let status = controller.status();
    assert!(status.converged, "{status:#?}\n{:#?}", controller.events());
    world.assert_always_safe();
    status
}

/// The words of a report's changes, each with its phase and element.
pub fn lines(report: &ApplyReport) -> Vec<String> {
    let steps = report.plan.0.iter();
    steps
        .flat_map(|step| {
            step.changes
                .iter()
                .map(move |change| format!("{} {}: {}", step.phase, step.element, change.words))
        })
        .collect()
}

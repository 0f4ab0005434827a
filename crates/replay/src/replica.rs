//! A network built anew: what the inventory says of it, and what its elements are told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, DriverError, Epoch};
use catena_lab::Namespaces;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, ForwardingState, Kind, Object};
use catena_model::name::{NodeName, PortName};
use catena_model::resource::{DriverSpec, Host, LinuxSpec, Model};
use catena_model::topology::Topology;
use catena_plan::plan;
use tokio::task::JoinSet;

use crate::ReplayError;
use crate::owner;

/// Where an element of the copy is, and what it is to be.
#[derive(Clone, Debug)]
pub struct Place {
    pub element: NodeName,
    pub netns: NetNs,
    pub spec: LinuxSpec,
    /// A folder of its own in a BPF file system; it need not be there yet.
    pub pins: PathBuf,
}

/// Makes the drivers of elements, each when it is used first.
pub trait Workshop {
    /// For rules and tables.
    fn routing(&self, place: &Place) -> Result<Arc<dyn Driver>, DriverError>;
    /// For all other objects.
    fn steering(&self, place: &Place) -> Result<Arc<dyn Driver>, DriverError>;
    /// Installs nothing, and knows the owner's routing.
    fn owner(&self, place: &Place) -> Arc<dyn Driver>;
}

/// The copy. All of it is gone with this value.
pub struct Replica<W> {
    pub model: Model,
    pub topology: Topology,
    pub namespaces: Namespaces,
    /// What is installed, and the owners' routing, as last read.
    pub installed: ForwardingState,
    pub base: BTreeMap<NodeName, BaseRouting>,
    elements: BTreeMap<NodeName, Element>,
    workshop: W,
    epoch: u64,
}

struct Element {
    place: Place,
    owner: Arc<dyn Driver>,
    routing: Option<Arc<dyn Driver>>,
    steering: Option<Arc<dyn Driver>>,
    /// Some drivers see to what happens on the element only while somebody listens to them.
    listening: JoinSet<()>,
}

/// The two drivers of an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Routing,
    Steering,
}

impl Part {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Rule | Kind::Table => Self::Routing,
            Kind::Tunnel | Kind::Ingress | Kind::Instance | Kind::Path | Kind::Policy => Self::Steering,
        }
    }
}

impl<W: Workshop> Replica<W> {
    /// Builds all nodes and links, and sets the hosts up, each in the folder that `folders` has for it or else here. Their
    /// services are not started. Pins go below `pins`, which lies in a BPF file system. To be called in a Tokio runtime.
    pub async fn build(
        model: Model,
        folders: &BTreeMap<NodeName, PathBuf>,
        pins: &Path,
        workshop: W,
    ) -> Result<Self, ReplayError> {
        let namespaces = catena_lab::connect_unnamed(&model)?;
        set_up_hosts(&model, folders, &namespaces)?;
        let elements = model.elements.values().map(|element| {
            let spec = match &element.driver {
                DriverSpec::Linux(spec) => spec.clone(),
                DriverSpec::Simulated => LinuxSpec::default(),
            };
            let (name, netns) = (element.name.clone(), namespaces[&element.name].clone());
            let pins = pins.join(name.as_str());
            let place = Place { element: name.clone(), netns, spec, pins };
            let owner = workshop.owner(&place);
            (name, Element { place, owner, routing: None, steering: None, listening: JoinSet::new() })
        });
        let elements = elements.collect();
        let mut replica = Self {
            topology: Topology::of(&model),
            installed: ForwardingState::default(),
            base: BTreeMap::new(),
            epoch: 0,
            model,
            namespaces,
            elements,
            workshop,
        };
        replica.look().await?;
        Ok(replica)
    }

    /// Has all elements do as `desired`, and looks whether they do.
    pub async fn install(&mut self, desired: &ForwardingState) -> Result<(), ReplayError> {
        for step in plan(&self.installed, desired, &self.topology).steps {
            self.change(&step.element, &step.changes).await?;
        }
        self.look().await?;
        for name in self.installed.elements.keys().chain(desired.elements.keys()) {
            if let Some(difference) = difference(self.installed.element(name), desired.element(name)) {
                return Err(ReplayError::Differs { element: name.clone(), difference });
            }
        }
        Ok(())
    }

    /// Makes changes of one element, in order, each by the driver that knows the kind.
    pub async fn change(&mut self, name: &NodeName, changes: &[Change]) -> Result<(), ReplayError> {
        self.epoch += 1;
        let Some(element) = self.elements.get_mut(name) else {
            return Err(ReplayError::NoElement(name.clone()));
        };
        let failed = |what| move |source| ReplayError::Driver { element: name.clone(), what, source };
        let part = |change: &Change| Part::of(change.object().kind());
        for run in changes.chunk_by(|one, next| part(one) == part(next)) {
            let Some(first) = run.first() else { continue };
            let driver =
                element.driver(part(first), &self.workshop).map_err(failed("there is no driver for it"))?;
            driver.check(run).await.map_err(failed("what it is told cannot be installed"))?;
            driver
                .apply(Epoch(self.epoch), run)
                .await
                .map_err(failed("what it is told was not installed"))?;
        }
        Ok(())
    }

    /// Has the owners of elements route as is said here, with the same ports down, and tells what of that cannot be had in a
    /// copy.
    pub async fn adopt(
        &mut self,
        wanted: &BTreeMap<NodeName, BaseRouting>,
    ) -> Result<Vec<String>, ReplayError> {
        let mut left_out = Vec::new();
        for (name, wanted) in wanted {
            let Some(element) = self.elements.get(name) else { continue };
            left_out.extend(owner::adopt(&element.place, &element.owner, wanted).await?);
        }
        for (name, wanted) in wanted {
            wanted.down.iter().try_for_each(|port| self.set_down(name, port))?;
        }
        self.look().await?;
        Ok(left_out)
    }

    /// Has nothing get through by a port: an element keeps the routes by it if the host at its other end loses the carrier.
    fn set_down(&self, node: &NodeName, port: &PortName) -> Result<(), ReplayError> {
        let Some(cable) = self.topology.cable(node, port) else { return Ok(()) };
        let is_driven = self.elements.contains_key(&cable.far.node);
        let end = if is_driven { &cable.near } else { &cable.far };
        match self.namespaces.get(&end.node) {
            Some(netns) => {
                let link = ["link", "set", "dev", end.port.as_str(), "down"];
                owner::command(&end.node, netns, "ip", &link, "")
            }
            None => Ok(()),
        }
    }

    /// Reads what is installed, and the owners' routing.
    pub async fn look(&mut self) -> Result<(), ReplayError> {
        for (name, element) in &self.elements {
            let failed =
                |source| ReplayError::Driver { element: name.clone(), what: "cannot be read", source };
            self.installed.elements.insert(name.clone(), element.observe().await.map_err(failed)?);
            if let Some(base) = element.owner.base().await.map_err(failed)? {
                self.base.insert(name.clone(), base);
            }
        }
        self.installed.elements.retain(|_, state| !state.is_empty());
        Ok(())
    }
}

impl Element {
    fn driver(&mut self, part: Part, workshop: &impl Workshop) -> Result<Arc<dyn Driver>, DriverError> {
        let (driver, make): (_, fn(_, _) -> _) = match part {
            Part::Routing => (&mut self.routing, Workshop::routing),
            Part::Steering => (&mut self.steering, Workshop::steering),
        };
        match driver {
            Some(driver) => Ok(Arc::clone(driver)),
            None => {
                let made = driver.insert(make(workshop, &self.place)?);
                let mut events = made.events();
                self.listening.spawn(async move { while events.recv().await.is_some() {} });
                Ok(Arc::clone(made))
            }
        }
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        let mut all = ElementState::default();
        for driver in self.routing.iter().chain(&self.steering) {
            all.extend(driver.observe().await?.iter().cloned());
        }
        Ok(all)
    }
}

/// The first thing that one of the two has and the other has not.
fn difference(installed: &ElementState, desired: &ElementState) -> Option<String> {
    let missing = desired.iter().find(|object| !installed.contains(object));
    let surplus = installed.iter().find(|object| desired.get(&object.key()).is_none());
    let said = |what: &str, object: &Object| format!("{what} {object:?}");
    missing.map(|object| said("it lacks", object)).or(surplus.map(|object| said("it has", object)))
}

/// Hosts do not wait for each other.
fn set_up_hosts(
    model: &Model,
    folders: &BTreeMap<NodeName, PathBuf>,
    namespaces: &Namespaces,
) -> Result<(), ReplayError> {
    let here = PathBuf::from(".");
    let hosts = || model.hosts.values().filter(|host| !host.setup.is_empty());
    let folder_of = |host: &Host| folders.get(&host.name).unwrap_or(&here);
    if let Some(host) = hosts().find(|host| !folder_of(host).is_dir()) {
        return Err(ReplayError::NoFolder { host: host.name.clone(), folder: folder_of(host).clone() });
    }
    std::thread::scope(|scope| {
        let hosts: Vec<_> = hosts()
            .map(|host| {
                let folder = folder_of(host);
                scope.spawn(|| catena_lab::set_up_host(host, folder, &namespaces[&host.name]))
            })
            .collect();
        hosts.into_iter().try_for_each(|host| match host.join() {
            Ok(result) => result.map_err(ReplayError::from),
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

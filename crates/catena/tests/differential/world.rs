//! A network, built: namespaces without names, the drivers that the binary would use, and what they have installed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use catena_driver::netns::NetNs;
use catena_driver::{Driver, Epoch};
use catena_driver_linux::{LinuxConfig, LinuxDriver};
use catena_driver_nft::{NftConfig, NftDriver};
use catena_driver_steer::{Config, RouteConfig, RouteDriver, Settings, SteerDriver, Times};
use catena_lab::Namespaces;
use catena_model::base::BaseRouting;
use catena_model::forwarding::{Change, ElementState, ForwardingState, Kind, Object};
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{DriverSpec, Engine, LinuxSpec, Model};
use catena_model::topology::Topology;
use catena_plan::plan;
use catena_render::render;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// Few tenants and flows are to come: less to be set aside for them.
const ROOM: Settings = Settings {
    tenants: 64,
    flows: 8192,
    tenant_flows: 0,
    tenant_half_open: 0,
    tenant_new_per_second: 0,
    tell_too_big: false,
};

pub struct World {
    pub model: Model,
    pub topology: Topology,
    pub numbering: Numbering,
    pub namespaces: Namespaces,
    /// What is installed, and the owners' routing, as last read.
    pub installed: ForwardingState,
    pub base: BTreeMap<NodeName, BaseRouting>,
    elements: BTreeMap<NodeName, Element>,
    runtime: Handle,
    epoch: u64,
    _pins: Pins,
}

struct Element {
    name: NodeName,
    netns: NetNs,
    spec: LinuxSpec,
    pins: PathBuf,
    linux: LinuxDriver,
    /// Each made when it is used first: to load their programs takes the kernel most of the time that this test takes.
    routing: Option<Box<dyn Driver>>,
    steering: Option<Box<dyn Driver>>,
}

impl World {
    /// Builds everything but the chains.
    pub fn build(model: Model, runtime: Handle) -> Self {
        let namespaces = catena_lab::connect_unnamed(&model).unwrap();
        for host in model.hosts.values() {
            for command in &host.setup {
                run(&namespaces[&host.name], command);
            }
        }
        let pins = Pins::new();
        let _inside = runtime.enter();
        let driven = model.elements.values().map(|element| {
            let DriverSpec::Linux(spec) = &element.driver else { panic!("{} is not driven", element.name) };
            let element = element.name.clone();
            (
                element.clone(),
                Element::new(element.clone(), namespaces[&element].clone(), spec, pins.of(&element)),
            )
        });
        let elements = driven.collect();
        let mut world = Self {
            topology: Topology::of(&model),
            numbering: Numbering::default(),
            installed: ForwardingState::default(),
            base: BTreeMap::new(),
            epoch: 0,
            _pins: pins,
            model,
            namespaces,
            elements,
            runtime,
        };
        world.look();
        world
    }

    /// Brings the world to where the model wants it, and looks whether it is there.
    pub fn apply(&mut self, model: Model) -> Result<(), String> {
        let desired = render(&model, &mut self.numbering).map_err(|error| format!("{error:?}"))?;
        self.model = model;
        let plan = plan(&self.installed, &desired, &self.topology);
        for step in plan.steps {
            self.change(&step.element, &step.changes)?;
        }
        self.look();
        match self.installed == desired {
            true => Ok(()),
            false => Err(format!("installed:\n{:#?}\nbut desired:\n{desired:#?}", self.installed)),
        }
    }

    /// Applies changes of one element, each by the driver that knows the kind.
    pub fn change(&mut self, element: &NodeName, changes: &[Change]) -> Result<(), String> {
        self.epoch += 1;
        let Some(on) = self.elements.get_mut(element) else { panic!("{element} is not driven") };
        for change in changes {
            let driver = on.driver(change.object().kind());
            let changed = self.runtime.block_on(async {
                driver.check(std::slice::from_ref(change)).await?;
                driver.apply(Epoch(self.epoch), std::slice::from_ref(change)).await
            });
            changed.map_err(|error| format!("{element}: {change:?}: {error:?}"))?;
        }
        Ok(())
    }

    /// Reads what is installed, and the owners' routing.
    pub fn look(&mut self) {
        for (name, element) in &self.elements {
            let (state, base) = self.runtime.block_on(element.look());
            self.base.insert(name.clone(), base);
            self.installed.elements.insert(name.clone(), state);
        }
        self.installed.elements.retain(|_, state| !state.is_empty());
    }
}

impl Element {
    fn new(name: NodeName, netns: NetNs, spec: &LinuxSpec, pins: PathBuf) -> Self {
        let spec = spec.clone();
        let linux =
            LinuxDriver::new(LinuxConfig { element: name.clone(), netns: netns.clone(), spec: spec.clone() });
        Self { name, netns, spec, pins, linux, routing: None, steering: None }
    }

    fn driver(&mut self, kind: Kind) -> &dyn Driver {
        let made = match kind {
            Kind::Rule | Kind::Table => self.routing.take().unwrap_or_else(|| self.new_routing()),
            _ => self.steering.take().unwrap_or_else(|| self.new_steering()),
        };
        assert!(made.capabilities().contains(&kind));
        let place = match kind {
            Kind::Rule | Kind::Table => &mut self.routing,
            _ => &mut self.steering,
        };
        &**place.insert(made)
    }

    fn new_routing(&self) -> Box<dyn Driver> {
        let (element, netns, spec) = (self.name.clone(), self.netns.clone(), self.spec.clone());
        match spec.engine {
            Engine::Rules => Box::new(LinuxDriver::new(LinuxConfig { element, netns, spec })),
            Engine::Nft => Box::new(NftDriver::new(NftConfig { element, netns, spec })),
            Engine::Steer => {
                let (pins, look) = (self.pins.clone(), Times::default().look);
                let config = RouteConfig { element, netns, pins, spec, hook: None, look };
                Box::new(RouteDriver::new(config).unwrap())
            }
        }
    }

    fn new_steering(&self) -> Box<dyn Driver> {
        let config = Config {
            element: self.name.clone(),
            netns: self.netns.clone(),
            pins: self.pins.clone(),
            mark: self.spec.mark,
            hook: None,
            settings: ROOM,
            times: Times::default(),
        };
        Box::new(SteerDriver::new(config).unwrap())
    }

    async fn look(&self) -> (ElementState, BaseRouting) {
        let mut all = ElementState::default();
        for driver in self.routing.iter().chain(&self.steering) {
            let state = driver.observe().await.unwrap();
            state.iter().for_each(|object: &Object| drop(all.insert(object.clone())));
        }
        (all, self.linux.base().await.unwrap().unwrap())
    }
}

/// A BPF file system of a world's own.
struct Pins(TempDir);

impl Pins {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("bpf"), folder.path(), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        Self(folder)
    }

    fn of(&self, element: &NodeName) -> PathBuf {
        self.0.path().join("catena").join(element.as_str())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // What is pinned goes with the file system, and the file system with its last mount.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

/// Runs a command in a namespace; it must succeed.
pub fn run(netns: &NetNs, command: &str) {
    let output = netns.run(|| Command::new("sh").args(["-c", command]).output()).unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

use std::time::Duration;

use async_trait::async_trait;
use catena_model::address::Family;
use catena_model::forwarding::{
    Action, Delivery, Direction, Exits, FlowMatch, Hop, Ingress, Insertion, Instance, InstanceId,
    InstanceState, Key, NextHops, Object, Oversize, Path, Policy, PolicyRule, Purpose, Rule, Selector, Side,
    SiteId, Table, Tunnel,
};
use catena_model::name::PortName;

use super::*;
use crate::conformance::{Fixture, Replacement, Sample};

mod conforming {
    use super::Simulation;
    crate::conformance_tests!(Simulation::new());
}

#[tokio::test]
async fn the_nth_change_fails_and_those_before_it_are_applied() {
    let (element, driver) = element();
    let changes = tables(3);
    element.fail(1, Fault::Refuse);
    let error = driver.apply(Epoch(1), &changes).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(element.installed().len(), 1);
    driver.apply(Epoch(1), &changes).await.unwrap();
    assert_eq!(element.installed().len(), 3);
    let applied: Vec<_> = element.log().into_iter().map(|applied| applied.change).collect();
    assert_eq!(applied, changes, "each change is in the log once");
}

#[tokio::test]
async fn an_answer_is_lost_but_not_the_change() {
    let (element, driver) = element();
    element.fail(1, Fault::LoseAnswer);
    driver.apply(Epoch(1), &tables(3)).await.unwrap_err();
    assert_eq!(element.installed().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_hangs_or_is_slow() {
    let (element, driver) = element();
    element.fail(0, Fault::Hang);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, driver.apply(Epoch(1), &tables(1))).await.is_err());

    element.slow(Duration::from_secs(2));
    let begin = tokio::time::Instant::now();
    driver.apply(Epoch(1), &tables(3)).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(6));
}

#[tokio::test]
async fn a_newer_plan_overtakes() {
    let (element, driver) = element();
    element.supersede(Epoch(5));
    let error = driver.apply(Epoch(4), &tables(1)).await.unwrap_err();
    assert!(matches!(error, DriverError::Stale { given: Epoch(4), newest: Epoch(5) }));
}

#[tokio::test]
async fn a_port_takes_its_objects_with_it() {
    let (element, driver) = element();
    let mut events = driver.events();
    driver.apply(Epoch(1), &tables(2)).await.unwrap();
    element.unplug(&port("p1"));
    assert_eq!(element.installed().len(), 1);
    assert_eq!(events.recv().await, Some(Event::Port { port: port("p1"), up: false }));
    assert!(matches!(driver.check(&tables(2)).await, Err(DriverError::NoPort(gone)) if gone == port("p1")));
    element.plug(&port("p1"));
    driver.check(&tables(2)).await.unwrap();
}

#[tokio::test]
async fn what_is_cut_off_fails_until_it_is_mended() {
    let (element, driver) = element();
    element.cut_off();
    assert!(driver.observe().await.unwrap_err().is_transient());
    assert!(driver.apply(Epoch(1), &tables(1)).await.is_err());
    element.mend();
    driver.apply(Epoch(1), &tables(1)).await.unwrap();
}

#[tokio::test]
async fn chance_is_the_same_for_the_same_seed() {
    async fn story(seed: u64) -> Vec<bool> {
        let element = SimulatedElement::new(seed);
        let driver = SimulatedDriver::new(&element);
        element.flaky(50);
        let mut outcomes = Vec::new();
        for change in tables(64) {
            outcomes.push(driver.apply(Epoch(1), &[change]).await.is_ok());
        }
        outcomes
    }
    assert_eq!(story(1).await, story(1).await);
    assert_ne!(story(1).await, story(2).await);
    let failed = story(3).await.iter().filter(|succeeded| !**succeeded).count();
    assert!((16..48).contains(&failed), "{failed} of 64 failed at 50 percent");
}

#[tokio::test]
async fn what_is_lost_at_random_is_told() {
    let (element, driver) = element();
    assert_eq!(element.lose_any(), None);
    driver.apply(Epoch(1), &tables(3)).await.unwrap();
    let mut events = driver.events();
    let key = element.lose_any().unwrap();
    assert_eq!(element.installed().get(&key), None);
    assert!(matches!(events.recv().await, Some(Event::Drift { .. })));
}

#[tokio::test]
async fn what_is_foreign_is_in_the_way() {
    let (element, driver) = element();
    let [put]: [Change; 1] = tables(1).try_into().unwrap();
    element.put_foreign(put.object().clone());
    assert!(matches!(driver.apply(Epoch(1), &[put]).await, Err(DriverError::Conflict { .. })));
}

#[tokio::test]
async fn several_drivers_share_an_element() {
    let element = SimulatedElement::new(0);
    let routing = SimulatedDriver::of_kinds(&element, [Kind::Table, Kind::Rule]);
    let steering = SimulatedDriver::of_kinds(&element, [Kind::Path]);
    routing.apply(Epoch(1), &tables(1)).await.unwrap();
    assert!(steering.observe().await.unwrap().is_empty());
    assert!(!routing.observe().await.unwrap().is_empty());
    assert!(matches!(steering.check(&tables(1)).await, Err(DriverError::Unsupported { .. })));
}

fn element() -> (SimulatedElement, SimulatedDriver) {
    let element = SimulatedElement::new(0);
    let driver = SimulatedDriver::new(&element);
    (element, driver)
}

fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

/// Puts of tables 0, 1, … at the ports p0, p1, …
fn tables(count: u32) -> Vec<Change> {
    let table = |n: u32| Table {
        path: PathId(n),
        family: Family::V4,
        port: port(&format!("p{n}")),
        via: Some("192.0.2.1".parse().unwrap()),
    };
    (0..count).map(|n| Change::Put { new: Object::Table(table(n)), old: None }).collect()
}

/// The suite's fixture, here and where the suite itself is tried.
pub(crate) struct Simulation {
    pub(crate) element: SimulatedElement,
}

impl Simulation {
    pub(crate) fn new() -> Self {
        let element = SimulatedElement::new(0);
        element.unplug(&port("nowhere"));
        Self { element }
    }

    fn foreign() -> [Object; 2] {
        [
            Object::Table(Table { path: PathId(900), family: Family::V4, port: port("p0"), via: None }),
            Object::Path(Path { id: PathId(901), site: SiteId(9), hops: vec![], vlan: None }),
        ]
    }
}

#[async_trait]
impl Fixture for Simulation {
    async fn driver(&self) -> Box<dyn Driver> {
        Box::new(SimulatedDriver::new(&self.element))
    }

    fn sample(&self) -> Sample {
        let prefix = "172.16.1.0/24".parse().unwrap();
        let side = |name: &str| Side {
            port: port(name),
            next_hops: NextHops { v4: "10.0.0.1".parse().ok(), v6: None },
        };
        let table = |path, port_name| {
            Object::Table(Table { path: PathId(path), family: Family::V4, port: port(port_name), via: None })
        };
        let selector = Selector {
            family: Family::V4,
            from: Some(prefix),
            to: None,
            in_port: None,
            unless_released: false,
        };
        let rule = |path| Object::Rule(Rule { order: 0, selector: selector.clone(), table: PathId(path) });
        let policy = |path| {
            Object::Policy(Policy {
                site: SiteId(1),
                prefixes: [prefix].into(),
                rules: vec![PolicyRule { matches: FlowMatch::default(), action: Action::Path(PathId(path)) }],
                exits: Some(Exits { up: side("up"), down: side("down") }),
            })
        };
        let path = |id| {
            let hops = vec![Hop::of([InstanceId(1)])];
            Object::Path(Path { id: PathId(id), site: SiteId(1), hops, vlan: None })
        };
        Sample {
            objects: vec![
                table(1, "p1"),
                table(2, "p2"),
                Object::Tunnel(Tunnel {
                    site: SiteId(1),
                    underlay: port("wan"),
                    local: "203.0.113.1".parse().unwrap(),
                    remote: "203.0.113.2".parse().unwrap(),
                    key: None,
                    mtu: 1476,
                    oversize: Oversize::default(),
                    allowed: [prefix].into(),
                }),
                Object::Ingress(Ingress {
                    port: port("p1"),
                    directions: Direction::BOTH.into(),
                    purpose: Purpose::Steer,
                    site: None,
                }),
                Object::Instance(Instance {
                    id: InstanceId(1),
                    insertion: Insertion::L3,
                    inside: side("fw-in"),
                    outside: side("fw-out"),
                    state: InstanceState::default(),
                    rewrites: false,
                    delivery: Delivery::default(),
                }),
                path(1),
                path(2),
                rule(1),
                policy(1),
            ],
            replacements: vec![
                Replacement { old: rule(1), new: rule(2) },
                Replacement { old: policy(1), new: policy(2) },
                Replacement { old: table(1, "p1"), new: table(1, "p3") },
            ],
            nowhere: table(3, "nowhere"),
        }
    }

    async fn snapshot(&self) -> String {
        let log = self.element.log();
        let mut text = String::new();
        for object in self.element.installed().iter() {
            // An object that was removed and put again is not the same one.
            let put = log.iter().rposition(|applied| applied.change.object() == object);
            text += &format!("{object:?} put by change {put:?}\n");
        }
        for object in self.element.foreign().iter() {
            text += &format!("foreign {object:?}\n");
        }
        text
    }

    async fn install_foreign(&self) {
        for object in Self::foreign() {
            self.element.put_foreign(object);
        }
    }

    async fn lost_foreign(&self) -> Vec<String> {
        let there = self.element.foreign();
        Self::foreign().iter().filter(|object| !there.contains(object)).map(|o| format!("{o:?}")).collect()
    }

    async fn damage(&self) {
        assert!(self.element.lose(&Key::Path(PathId(1))));
    }
}

//! The suite must tell a bad driver from a good one: each defect here is one that a driver could well have, and the
//! promise that it breaks must be found broken.

use super::*;
use crate::simulated::tests::Simulation;
use crate::simulated::{SimulatedDriver, SimulatedElement};
use crate::{Event, Kind};
use catena_model::forwarding::Key;
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug)]
enum Defect {
    /// Installs no policies, but says it did.
    Forgets,
    /// Deletes before it puts.
    Reinstalls,
    /// Takes foreign objects for its own and clears them away.
    Sweeps,
    /// Leaves tables behind when it deletes.
    Litters,
    /// Takes what comes from any plan.
    Timeless,
    /// Takes down what it installed when it ends.
    TidiesUp,
    /// Cannot delete what is not there.
    Picky,
    /// Installs when it is only asked to check.
    Eager,
    /// Does not look whether a port is there.
    Trusting,
    /// Tells of nothing.
    Mute,
    /// Says that it installed what it remembers, not what is there.
    Dreams,
    /// Undoes what it finds and did not put itself.
    Distrusts,
}

#[derive(Debug)]
struct Defective {
    defect: Defect,
    element: SimulatedElement,
    inner: SimulatedDriver,
    memory: std::sync::Mutex<ElementState>,
}

impl Defective {
    fn is(&self, defect: Defect) -> bool {
        self.defect as u8 == defect as u8
    }

    /// The changes that it makes instead of those it was asked for.
    fn instead(&self, change: &Change) -> Vec<Change> {
        let skipped = |kind: Kind| change.object().kind() == kind;
        match (self.defect, change) {
            (Defect::Forgets, _) if skipped(Kind::Policy) => vec![],
            (Defect::Litters, Change::Delete { .. }) if skipped(Kind::Table) => vec![],
            (Defect::Reinstalls, Change::Put { new, old }) => {
                let old = old.as_ref().unwrap_or(new).clone();
                vec![Change::Delete { old }, change.clone()]
            }
            _ => vec![change.clone()],
        }
    }
}

#[async_trait]
impl Driver for Defective {
    fn capabilities(&self) -> BTreeSet<Kind> {
        self.inner.capabilities()
    }

    async fn check(&self, changes: &[Change]) -> Result<(), DriverError> {
        if self.is(Defect::Eager) {
            self.inner.apply(Epoch(1), changes).await?;
        }
        self.inner.check(changes).await
    }

    async fn observe(&self) -> Result<ElementState, DriverError> {
        if self.is(Defect::Dreams) {
            return Ok(self.memory.lock().unwrap().clone());
        }
        self.inner.observe().await
    }

    async fn apply(&self, epoch: Epoch, changes: &[Change]) -> Result<(), DriverError> {
        if self.is(Defect::Sweeps) {
            for foreign in self.element.foreign().iter() {
                self.element.remove_foreign(&foreign.key());
            }
        }
        if self.is(Defect::Distrusts) {
            let memory = self.memory.lock().unwrap().clone();
            for stranger in self.element.installed().iter().filter(|object| !memory.contains(object)) {
                self.element.lose(&stranger.key());
            }
        }
        let nowhere = "nowhere".parse().unwrap();
        if self.is(Defect::Trusting) {
            self.element.plug(&nowhere);
        }
        let epoch = if self.is(Defect::Timeless) { Epoch(9) } else { epoch };
        for change in changes {
            if self.is(Defect::Picky) && self.element.installed().get(&change.object().key()).is_none() {
                self.inner.apply(epoch, &[]).await?;
                if let Change::Delete { old } = change {
                    return Err(DriverError::failed("deleting", format!("there is no {old:?}")));
                }
            }
            for change in self.instead(change) {
                self.inner.apply(epoch, &[change]).await?;
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
            self.memory.lock().unwrap().apply(change);
        }
        Ok(())
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        if self.is(Defect::Mute) { mpsc::channel(1).1 } else { self.inner.events() }
    }
}

impl Drop for Defective {
    fn drop(&mut self) {
        if self.is(Defect::TidiesUp) {
            let installed: Vec<Key> = self.element.installed().iter().map(Object::key).collect();
            for key in installed {
                self.element.lose(&key);
            }
        }
    }
}

struct Bench {
    defect: Defect,
    sound: Simulation,
}

impl Bench {
    fn with(defect: Defect) -> Self {
        Self { defect, sound: Simulation::new() }
    }
}

#[async_trait]
impl Fixture for Bench {
    async fn driver(&self) -> Box<dyn Driver> {
        let element = self.sound.element.clone();
        let inner = SimulatedDriver::new(&element);
        Box::new(Defective { defect: self.defect, element, inner, memory: Default::default() })
    }

    fn sample(&self) -> Sample {
        self.sound.sample()
    }

    async fn snapshot(&self) -> String {
        self.sound.snapshot().await
    }

    async fn install_foreign(&self) {
        self.sound.install_foreign().await;
    }

    async fn lost_foreign(&self) -> Vec<String> {
        self.sound.lost_foreign().await
    }

    async fn damage(&self) {
        self.sound.damage().await;
    }
}

macro_rules! finds {
    ($($defect:ident: $promise:ident => $breach:pat,)*) => {
        /// For each defect, the promise that it breaks, and how the suite must put it.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn each_defect_is_found() {
            $(
                let outcome = $promise(&Bench::with(Defect::$defect)).await;
                assert!(matches!(&outcome, Err($breach)), "{:?}: {outcome:?}", Defect::$defect);
            )*
        }
    };
}

finds! {
    Forgets: applied_is_observed => Breach::State { .. },
    Reinstalls: applying_again_does_nothing => Breach::Changed { .. },
    Reinstalls: replacing_leaves_no_gap => Breach::Gap { .. },
    Sweeps: foreign_objects_survive => Breach::Foreign { .. },
    Litters: removing_leaves_nothing => Breach::State { .. },
    Timeless: older_epochs_are_refused => Breach::NotStale(None),
    TidiesUp: a_new_driver_adopts => Breach::Changed { .. },
    Distrusts: a_new_driver_adopts => Breach::Changed { .. },
    Picky: deleting_what_is_not_there_succeeds => Breach::Failed { .. },
    Eager: checking_touches_nothing => Breach::Changed { .. },
    Trusting: a_port_that_is_not_there_is_named => Breach::PortNotNamed(None),
    Mute: damage_is_told_and_healed => Breach::Silent(_),
    Dreams: damage_is_told_and_healed => Breach::Blind,
    Forgets: a_step_killed_half_way_is_healed => Breach::State { .. },
}

#[tokio::test]
async fn a_breach_says_what_is_missing() {
    let breach = applied_is_observed(&Bench::with(Defect::Forgets)).await.unwrap_err().to_string();
    assert!(
        breach.starts_with("after the sample was applied, the driver observes something else"),
        "{breach}"
    );
    assert!(breach.contains("missing    Policy(Policy { site: 1"), "{breach}");
}

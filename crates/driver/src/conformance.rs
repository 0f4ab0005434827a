//! What every driver must keep, as tests: each function here tries one promise of [`Driver`] and returns the [`Breach`]
//! if the driver broke it.
//!
//! A driver's tests implement [`Fixture`] for an element of theirs and write [`conformance_tests!`](crate::conformance_tests):
//!
//! ```text
//! catena_driver::conformance_tests!(MyFixture::new().await);
//! ```
//!
//! The suite believes the driver as little as it can. Beside what the driver observes it looks at
//! [`Fixture::snapshot`], what an outsider sees of the element.

mod breach;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catena_model::forwarding::{Change, ElementState, Object};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use breach::Breach;
use breach::{Call, unchanged};

use crate::{Driver, DriverError, Epoch};

/// An element to try a driver on. Every test gets one of its own; what is not the suite's business (a namespace, links,
/// addresses) stands when the test begins and goes when the fixture is dropped. Methods may panic: this is test code.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A driver as after a restart of the program: it knows nothing but what is on the element. Several may be alive
    /// at once, to look over each other's shoulders; one at a time is asked to change something.
    async fn driver(&self) -> Box<dyn Driver>;

    /// Objects that make sense on this element.
    fn sample(&self) -> Sample;

    /// All that is on the element, whoever put it there, as text: the same as long as nobody changes anything.
    async fn snapshot(&self) -> String;

    /// Does what other programs on the element would do: puts objects beside ours, between them, and where one could
    /// take them for ours.
    async fn install_foreign(&self);

    /// Those of the foreign objects that are not as they were installed, in words.
    async fn lost_foreign(&self) -> Vec<String>;

    /// With the sample installed: removes or changes something of ours, behind the driver's back.
    async fn damage(&self);
}

/// What the suite installs.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Objects that can stand side by side, at least one of every kind that the driver installs, each after those that
    /// it uses.
    pub objects: Vec<Object>,
    /// One of `objects`, and what can take its place; what that uses is among `objects` too.
    pub replacements: Vec<Replacement>,
    /// An object at a port that the element does not have.
    pub nowhere: Object,
}

#[derive(Clone, Debug)]
pub struct Replacement {
    pub old: Object,
    pub new: Object,
}

/// One `#[tokio::test]` for each promise; the argument makes a [`Fixture`] and may `.await`.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests! { @each $fixture;
            sample_has_every_kind, applied_is_observed, applying_again_does_nothing, foreign_objects_survive,
            removing_leaves_nothing, replacing_leaves_no_gap, a_step_killed_half_way_is_healed,
            damage_is_told_and_healed, older_epochs_are_refused, a_new_driver_adopts,
            deleting_what_is_not_there_succeeds, checking_touches_nothing, a_port_that_is_not_there_is_named,
        }
    };
    (@each $fixture:expr; $($promise:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            let fixture = $fixture;
            if let Err(breach) = $crate::conformance::$promise(&fixture).await {
                panic!("{breach}");
            }
        }
    )*};
}

/// The epoch of all that is applied, where epochs are not what is tried.
const EPOCH: Epoch = Epoch(1);

/// An event is told within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Not a promise of the driver: a sample with less would let the other tests pass too easily.
pub async fn sample_has_every_kind(fixture: &impl Fixture) -> Result<(), Breach> {
    let kinds: BTreeSet<_> = fixture.sample().objects.iter().map(Object::kind).collect();
    let capabilities = fixture.driver().await.capabilities();
    if kinds != capabilities {
        return Err(Breach::Sample { kinds, capabilities });
    }
    Ok(())
}

/// What was applied is observed, complete and as it was put.
pub async fn applied_is_observed(fixture: &impl Fixture) -> Result<(), Breach> {
    let driver = fixture.driver().await;
    expect_state(&*driver, "before anything was applied", &[]).await?;
    let sample = install_sample(fixture, &*driver).await?;
    expect_state(&*driver, "after the sample was applied", &sample.objects).await
}

/// Putting what is there does nothing.
pub async fn applying_again_does_nothing(fixture: &impl Fixture) -> Result<(), Breach> {
    let driver = fixture.driver().await;
    let sample = install_sample(fixture, &*driver).await?;
    let before = fixture.snapshot().await;
    driver.apply(EPOCH, &puts(&sample.objects)).await.call("applying the sample again")?;
    unchanged("applying the sample again", &before, &fixture.snapshot().await)
}

/// Others' objects are neither observed nor touched, whatever we do.
pub async fn foreign_objects_survive(fixture: &impl Fixture) -> Result<(), Breach> {
    fixture.install_foreign().await;
    let before = fixture.snapshot().await;
    let driver = fixture.driver().await;
    let sample = fixture.sample();
    expect_state(&*driver, "with foreign objects alone", &[]).await?;

    driver.apply(EPOCH, &puts(&sample.objects)).await.call("applying the sample beside foreign objects")?;
    expect_foreign(fixture, "after the sample was applied").await?;
    expect_state(&*driver, "after the sample was applied beside foreign objects", &sample.objects).await?;

    for Replacement { old, new } in &sample.replacements {
        let replace = Change::Put { new: new.clone(), old: Some(old.clone()) };
        let undo = replace.inverse();
        driver.apply(EPOCH, &[replace]).await.call("replacing beside foreign objects")?;
        driver.apply(EPOCH, &[undo]).await.call("replacing back beside foreign objects")?;
        expect_foreign(fixture, "after an object was replaced").await?;
    }

    driver.apply(EPOCH, &deletes(&sample.objects)).await.call("removing the sample from foreign objects")?;
    expect_foreign(fixture, "after the sample was removed").await?;
    unchanged("applying and removing beside foreign objects", &before, &fixture.snapshot().await)
}

/// The element is as it was found once all that was put has been deleted.
pub async fn removing_leaves_nothing(fixture: &impl Fixture) -> Result<(), Breach> {
    let before = fixture.snapshot().await;
    let driver = fixture.driver().await;
    let sample = install_sample(fixture, &*driver).await?;
    if fixture.snapshot().await == before {
        return Err(Breach::Invisible);
    }
    driver.apply(EPOCH, &deletes(&sample.objects)).await.call("removing the sample")?;
    expect_state(&*driver, "after the sample was removed", &[]).await?;
    unchanged("applying and removing the sample", &before, &fixture.snapshot().await)
}

/// While one object takes the other's place, one of them at least is there.
pub async fn replacing_leaves_no_gap(fixture: &impl Fixture) -> Result<(), Breach> {
    const ROUNDS: usize = 20;
    let driver = fixture.driver().await;
    let sample = install_sample(fixture, &*driver).await?;
    for Replacement { old, new } in sample.replacements {
        let watch = watch_for_gap(fixture.driver().await.into(), &old, &new);
        let there = [Change::Put { new: new.clone(), old: Some(old.clone()) }];
        let back = [there[0].inverse()];
        for _ in 0..ROUNDS {
            driver.apply(EPOCH, &there).await.call("replacing an object")?;
            expect_replaced(&*driver, &old, &new).await?;
            driver.apply(EPOCH, &back).await.call("replacing it back")?;
            expect_replaced(&*driver, &new, &old).await?;
        }
        watch.finish().await?;
    }
    Ok(())
}

/// Whatever part of a step was applied before the program died, the next pass reaches the goal, in both directions.
pub async fn a_step_killed_half_way_is_healed(fixture: &impl Fixture) -> Result<(), Breach> {
    let before = fixture.snapshot().await;
    let objects = fixture.sample().objects;
    for done in 0..=objects.len() {
        let killed = fixture.driver().await;
        killed.apply(EPOCH, &puts(&objects[..done])).await.call("applying a part of the sample")?;
        drop(killed);
        reach(&*fixture.driver().await, &objects).await?;

        let killed = fixture.driver().await;
        let removal = deletes(&objects);
        killed.apply(EPOCH, &removal[..done]).await.call("removing a part of the sample")?;
        drop(killed);
        reach(&*fixture.driver().await, &[]).await?;
        unchanged("applying and removing in two steps each", &before, &fixture.snapshot().await)?;
    }
    Ok(())
}

/// Someone's meddling with our objects is told, seen and healed.
pub async fn damage_is_told_and_healed(fixture: &impl Fixture) -> Result<(), Breach> {
    let driver = fixture.driver().await;
    let sample = install_sample(fixture, &*driver).await?;
    let mut events = driver.events();
    fixture.damage().await;
    timeout(PATIENCE, events.recv()).await.ok().flatten().ok_or(Breach::Silent(PATIENCE))?;
    if observe(&*driver).await? == state(&sample.objects) {
        return Err(Breach::Blind);
    }
    reach(&*driver, &sample.objects).await
}

/// What comes of an older plan is refused and changes nothing; what is of the newest goes on.
pub async fn older_epochs_are_refused(fixture: &impl Fixture) -> Result<(), Breach> {
    let driver = fixture.driver().await;
    let sample = fixture.sample();
    driver.apply(Epoch(7), &puts(&sample.objects)).await.call("applying at epoch 7")?;
    let before = fixture.snapshot().await;
    match driver.apply(Epoch(6), &deletes(&sample.objects)).await {
        Err(DriverError::Stale { given: Epoch(6), newest: Epoch(7) }) => {}
        other => return Err(Breach::NotStale(other.err().map(|error| error.to_string()))),
    }
    unchanged("a change of an older epoch", &before, &fixture.snapshot().await)?;
    driver.apply(Epoch(7), &deletes(&sample.objects)).await.call("applying at epoch 7 again")?;
    expect_state(&*driver, "after removing at the newest epoch", &[]).await
}

/// A driver that ends leaves all in place, and the next one takes it over as if it were its own.
pub async fn a_new_driver_adopts(fixture: &impl Fixture) -> Result<(), Breach> {
    let bare = fixture.snapshot().await;
    let first = fixture.driver().await;
    let sample = install_sample(fixture, &*first).await?;
    let before = fixture.snapshot().await;
    drop(first);
    unchanged("the end of the driver", &before, &fixture.snapshot().await)?;

    let second = fixture.driver().await;
    expect_state(&*second, "by a new driver", &sample.objects).await?;
    second.apply(EPOCH, &puts(&sample.objects)).await.call("applying again by a new driver")?;
    unchanged("adopting", &before, &fixture.snapshot().await)?;
    second.apply(EPOCH, &deletes(&sample.objects)).await.call("removing by a new driver")?;
    unchanged("applying by one driver and removing by another", &bare, &fixture.snapshot().await)
}

/// Deleting what is not there succeeds and does nothing.
pub async fn deleting_what_is_not_there_succeeds(fixture: &impl Fixture) -> Result<(), Breach> {
    let before = fixture.snapshot().await;
    let driver = fixture.driver().await;
    let sample = fixture.sample();
    driver.apply(EPOCH, &deletes(&sample.objects)).await.call("deleting what was never there")?;
    unchanged("deleting what was never there", &before, &fixture.snapshot().await)?;

    driver.apply(EPOCH, &puts(&sample.objects)).await.call("applying the sample")?;
    for _ in 0..2 {
        driver.apply(EPOCH, &deletes(&sample.objects)).await.call("deleting, and once more")?;
    }
    unchanged("applying and deleting twice", &before, &fixture.snapshot().await)
}

/// `check` allows what `apply` then does, and touches nothing.
pub async fn checking_touches_nothing(fixture: &impl Fixture) -> Result<(), Breach> {
    let before = fixture.snapshot().await;
    let driver = fixture.driver().await;
    let sample = fixture.sample();
    driver.check(&puts(&sample.objects)).await.call("checking the sample")?;
    unchanged("a check", &before, &fixture.snapshot().await)?;

    driver.apply(EPOCH, &puts(&sample.objects)).await.call("applying what was checked")?;
    let before = fixture.snapshot().await;
    driver.check(&deletes(&sample.objects)).await.call("checking the removal of the sample")?;
    unchanged("a check", &before, &fixture.snapshot().await)
}

/// An object at a port that does not exist is refused by that port's name, by `check` and by `apply`.
pub async fn a_port_that_is_not_there_is_named(fixture: &impl Fixture) -> Result<(), Breach> {
    let before = fixture.snapshot().await;
    let driver = fixture.driver().await;
    let put = puts(&[fixture.sample().nowhere]);
    for outcome in [driver.check(&put).await, driver.apply(EPOCH, &put).await] {
        match outcome {
            Err(DriverError::NoPort(_)) => {}
            other => return Err(Breach::PortNotNamed(other.err().map(|error| error.to_string()))),
        }
    }
    expect_state(&*driver, "after an object was refused", &[]).await?;
    unchanged("an object that was refused", &before, &fixture.snapshot().await)
}

async fn install_sample(fixture: &impl Fixture, driver: &dyn Driver) -> Result<Sample, Breach> {
    let sample = fixture.sample();
    driver.apply(EPOCH, &puts(&sample.objects)).await.call("applying the sample")?;
    Ok(sample)
}

/// One pass of a control loop that knows no more than what is observed and what is wanted.
async fn reach(driver: &dyn Driver, desired: &[Object]) -> Result<(), Breach> {
    let installed = observe(driver).await?;
    let desired_state = state(desired);
    let missing: Vec<_> = desired.iter().filter(|object| !installed.contains(object)).cloned().collect();
    let extra: Vec<_> =
        installed.iter().filter(|object| desired_state.get(&object.key()).is_none()).cloned().collect();
    let changes: Vec<_> = puts(&missing).into_iter().chain(deletes(&extra)).collect();
    driver.apply(EPOCH, &changes).await.call("healing")?;
    expect_state(driver, "after the next pass", desired).await
}

fn puts(objects: &[Object]) -> Vec<Change> {
    objects.iter().map(|object| Change::Put { new: object.clone(), old: None }).collect()
}

/// Users first, as a plan orders them.
fn deletes(objects: &[Object]) -> Vec<Change> {
    objects.iter().rev().map(|object| Change::Delete { old: object.clone() }).collect()
}

fn state(objects: &[Object]) -> ElementState {
    objects.iter().cloned().collect()
}

async fn observe(driver: &dyn Driver) -> Result<ElementState, Breach> {
    driver.observe().await.call("observing")
}

async fn expect_state(driver: &dyn Driver, when: &'static str, expected: &[Object]) -> Result<(), Breach> {
    Breach::unless_equal(when, &state(expected), &observe(driver).await?)
}

async fn expect_foreign(fixture: &impl Fixture, when: &'static str) -> Result<(), Breach> {
    match fixture.lost_foreign().await {
        lost if lost.is_empty() => Ok(()),
        lost => Err(Breach::Foreign { when, lost }),
    }
}

async fn expect_replaced(driver: &dyn Driver, old: &Object, new: &Object) -> Result<(), Breach> {
    let installed = observe(driver).await?;
    if installed.contains(new) && !installed.contains(old) {
        return Ok(());
    }
    Err(Breach::NotReplaced { old: Box::new(old.clone()), new: Box::new(new.clone()) })
}

/// Someone who looks at the element again and again.
struct Watch {
    stop: oneshot::Sender<()>,
    looking: tokio::task::JoinHandle<Result<(), Breach>>,
}

fn watch_for_gap(driver: Arc<dyn Driver>, old: &Object, new: &Object) -> Watch {
    let (stop, mut stopped) = oneshot::channel();
    let (old, new) = (old.clone(), new.clone());
    let looking = tokio::spawn(async move {
        loop {
            let installed = observe(&*driver).await?;
            if !installed.contains(&old) && !installed.contains(&new) {
                return Err(Breach::Gap { old: Box::new(old), new: Box::new(new) });
            }
            if stopped.try_recv().is_ok() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    });
    Watch { stop, looking }
}

impl Watch {
    async fn finish(self) -> Result<(), Breach> {
        // A watch that has already seen a gap listens no more.
        let _ = self.stop.send(());
        match self.looking.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests;

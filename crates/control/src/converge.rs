//! Keeping what is installed as it must be: what was told to have changed, failed before, or was left half by a crash is
//! looked at, and repaired by a plan like any other.

use std::collections::{BTreeMap, BTreeSet};

use catena_model::forwarding::{Change, ElementState as Installed, ForwardingState, Object, PathId};
use catena_model::name::NodeName;
use catena_plan::{Phase, Plan, plan};

use crate::core::Core;
use crate::damage::Damage;
use crate::error::chain_of;
use crate::events::About;
use crate::execute::{execute, observe};
use crate::report::{ElementState, EventKind, Timestamp};
use crate::tracked::Tracked;

/// What was found on elements that differ from what they must do.
type Found = BTreeMap<NodeName, Installed>;

impl Core {
    /// Looks at these elements, and repairs those that differ from what they must do.
    ///
    /// Each is repaired by itself, since the others are as they must be, or will be repaired by themselves too. Only
    /// what an unfinished change touches is repaired together, in the order of one plan.
    pub(crate) async fn converge(&mut self, mut names: BTreeSet<NodeName>) {
        self.stirs += 1;
        if names.iter().any(|name| self.journal.contains(name)) {
            names.extend(self.journal.iter().cloned());
        }
        names.retain(|name| self.elements.contains_key(name));
        self.reconnect(&names).await;
        let mut different = self.look_at(&names).await;
        if self.only_looks() {
            self.explain(different).await;
            return;
        }
        let unfinished: Found = self.journal.iter().filter_map(|name| different.remove_entry(name)).collect();
        if !unfinished.is_empty() {
            let unread = |name: &NodeName| self.elements.get(name).is_some_and(Tracked::is_unreachable);
            let blind = self.journal.iter().any(unread);
            self.repair(unfinished, blind, &Damage::default()).await;
        }
        for (name, installed) in different {
            let rests = self.elements.get_mut(&name).is_some_and(|tracked| tracked.rest(&self.settings));
            if !rests {
                self.repair(Found::from([(name, installed)]), false, &Damage::default()).await;
            }
        }
        self.settle(&BTreeSet::new()).await;
    }

    /// Finds out why these elements are not as they must be, as far as that can be told without touching them.
    async fn explain(&mut self, different: Found) {
        for (name, installed) in different {
            let found = Found::from([(name.clone(), installed)]);
            let changes: Vec<Change> =
                self.repair_plan(&found).steps.into_iter().flat_map(|step| step.changes).collect();
            let refused = match self.connected().get(&name) {
                Some(connection) => connection.check(&changes).await.err(),
                None => None,
            };
            let differs = || self.difference(&name, found.get(&name)?);
            let why = refused.map(|error| chain_of(&error)).or_else(differs).unwrap_or_default();
            if let Some(tracked) = self.elements.get_mut(&name) {
                tracked.fail(ElementState::OutOfSync, why, &self.settings);
            }
        }
    }

    /// How what was found on an element differs from what must be there.
    fn difference(&self, name: &NodeName, installed: &Installed) -> Option<String> {
        self.names.difference(self.intent.expected.element(name), installed)
    }

    /// Brings elements that a change has touched back to where they were before it, with the damage that was there. That
    /// they differ is no drift. Says where it did not succeed, and why.
    pub(crate) async fn bring_back(
        &mut self,
        touched: &BTreeSet<&NodeName>,
        damage: &Damage,
    ) -> BTreeMap<NodeName, String> {
        let connections = self.connected();
        let mut found = Found::new();
        let mut left = BTreeMap::new();
        for (name, installed) in observe(touched.iter().copied(), &connections).await {
            match installed {
                Ok(installed) => drop(found.insert(name, installed)),
                Err(error) => {
                    self.lost(&name, chain_of(&error));
                    left.insert(name, chain_of(&error));
                }
            }
        }
        let blind = found.len() < touched.len();
        left.extend(self.repair(found, blind, damage).await);
        left
    }

    /// Takes away what these elements need no longer do. That they differ is no drift; those that are not as they must be
    /// for another reason are left to [`Core::converge`].
    pub(crate) async fn take_away(&mut self, names: &BTreeSet<NodeName>) {
        self.stirs += 1;
        let connections = self.connected();
        let healthy = names.iter().filter(|name| self.elements.get(*name).is_some_and(Tracked::is_in_sync));
        let observed = observe(healthy, &connections).await;
        for (name, installed) in observed {
            match installed {
                Err(error) => self.lost(&name, chain_of(&error)),
                Ok(installed) => {
                    self.repair(Found::from([(name, installed)]), false, &Damage::default()).await;
                }
            }
        }
        self.settle(&BTreeSet::new()).await;
    }

    /// The element cannot be reached.
    pub(crate) fn lost(&mut self, name: &NodeName, error: String) {
        let Some(tracked) = self.elements.get_mut(name) else { return };
        tracked.connection = None;
        if tracked.fail(ElementState::Unreachable, error.clone(), &self.settings) {
            self.events.record(EventKind::Unreachable, About::element(name), format!("{name}: {error}"));
        }
    }

    /// The element was read, and does what it must.
    pub(crate) fn in_sync(&mut self, name: &NodeName) {
        let Some(tracked) = self.elements.get_mut(name) else { return };
        let kind = match tracked.state {
            ElementState::InSync => None,
            ElementState::Unreachable => tracked.last_error.as_ref().map(|_| EventKind::Reachable),
            ElementState::OutOfSync => Some(EventKind::Repaired),
        };
        match kind {
            Some(EventKind::Repaired) => tracked.succeed_after_repair(&self.settings),
            _ => tracked.succeed(),
        }
        let Some(kind) = kind else { return };
        self.events.record(kind, About::element(name), format!("{name} does what it must do"));
    }

    /// Something is wrong with the element, and could not be repaired now.
    pub(crate) fn out_of_sync(&mut self, name: &NodeName, error: String) {
        let Some(tracked) = self.elements.get_mut(name) else { return };
        if tracked.fail(ElementState::OutOfSync, error.clone(), &self.settings) {
            self.events.record(EventKind::RepairFailed, About::element(name), format!("{name}: {error}"));
        }
    }

    /// Connects to the elements that have no connection, or one to a thing that is not there any more.
    pub(crate) async fn reconnect(&mut self, names: &BTreeSet<NodeName>) {
        for name in names {
            let Some(tracked) = self.elements.get(name) else { continue };
            let identity = self.drivers.identity(&tracked.element);
            if tracked.connection.as_ref().is_some_and(|connection| connection.identity == identity) {
                continue;
            }
            let element = tracked.element.clone();
            let connected = self.connect(&element).await;
            match (connected, self.elements.get_mut(name)) {
                (Ok(connection), Some(tracked)) => tracked.connection = Some(connection),
                (Err(error), _) => self.lost(name, chain_of(&error)),
                (Ok(_), None) => {}
            }
        }
    }

    /// Reads the elements that have a connection, and says which differ.
    async fn look_at(&mut self, names: &BTreeSet<NodeName>) -> Found {
        let connections = self.connected();
        let mut different = Found::new();
        let connected = names.iter().filter(|name| connections.contains_key(*name));
        for (name, installed) in observe(connected, &connections).await {
            match installed {
                Err(error) => self.lost(&name, chain_of(&error)),
                Ok(installed) if installed == *self.intent.expected.element(&name) => self.in_sync(&name),
                Ok(installed) => {
                    self.differs(&name, &installed);
                    different.insert(name, installed);
                }
            }
        }
        different
    }

    /// Says so, unless it is known.
    fn differs(&mut self, name: &NodeName, installed: &Installed) {
        let Some(tracked) = self.elements.get_mut(name) else { return };
        let known =
            tracked.state == ElementState::OutOfSync || self.journal.contains(name) || self.hold.is_some();
        tracked.enter(ElementState::OutOfSync);
        if !known {
            let difference = self.difference(name, installed).unwrap_or_default();
            self.events.record(EventKind::Drift, About::element(name), format!("{name}: {difference}"));
        }
    }

    /// Repairs what was found to differ. With `blind`, there are others that belong to the same change and cannot be read:
    /// they may still send packets that are classified here, so no classifier is withdrawn. `damage` is left as it is. Says
    /// which elements still differ otherwise, and why.
    async fn repair(&mut self, found: Found, blind: bool, damage: &Damage) -> BTreeMap<NodeName, String> {
        let mend = |(name, found): (NodeName, Installed)| (name.clone(), damage.mended(&name, found));
        let found: Found = found.into_iter().map(mend).collect();
        let mut plan = self.repair_plan(&found);
        if blind {
            keep_classifiers(&mut plan);
        }
        let connections = self.connected();
        let epoch = self.next_epoch();
        let result = execute(&plan, epoch, &connections, &self.names).await;
        let failed = result.err().map(|failure| {
            let error = format!("cannot {}: {}", failure.phase, chain_of(&failure.source));
            (failure.element, error)
        });
        let mut left = BTreeMap::new();
        for (name, installed) in observe(found.keys(), &connections).await {
            let failure =
                failed.as_ref().filter(|(failed, _)| *failed == name).map(|(_, error)| error.clone());
            match installed {
                Err(error) => {
                    self.lost(&name, chain_of(&error));
                    left.insert(name, chain_of(&error));
                }
                Ok(installed) if installed == *self.intent.expected.element(&name) => self.in_sync(&name),
                Ok(installed) => {
                    let difference = || self.difference(&name, &installed);
                    let error = failure.or_else(difference).unwrap_or_default();
                    self.out_of_sync(&name, error.clone());
                    if damage.mended(&name, installed) != *self.intent.expected.element(&name) {
                        left.insert(name, error);
                    }
                }
            }
        }
        left
    }

    /// The plan that repairs these elements, all others being as they must be.
    fn repair_plan(&self, found: &Found) -> Plan {
        let expected = &self.intent.expected;
        if let [name] = *found.keys().collect::<Vec<_>>() {
            // The others do not matter: what one element's plan costs depends on that element alone.
            let only = |state: &Installed| ForwardingState {
                elements: BTreeMap::from([(name.clone(), state.clone())]),
            };
            let installed = found.get(name).map(only).unwrap_or_default();
            return plan(&installed, &only(expected.element(name)), &self.intent.topology);
        }
        let mut installed = expected.clone();
        installed.elements.extend(found.clone());
        plan(&installed, expected, &self.intent.topology)
    }

    /// Forgets what has come to its end: an unfinished change whose elements are all as they must be or have been
    /// `confirmed`, elements that have left and have nothing of ours any more, numbers that nothing bears any more.
    pub(crate) async fn settle(&mut self, confirmed: &BTreeSet<NodeName>) {
        let in_sync = |name: &NodeName| self.elements.get(name).is_none_or(Tracked::is_in_sync);
        let done = |name: &NodeName| in_sync(name) || confirmed.contains(name);
        let finished = !self.journal.is_empty() && self.journal.iter().all(done);
        let gone = |name: &NodeName| in_sync(name) || self.given_up(name);
        let left: Vec<NodeName> = self.intent.leaving.keys().filter(|name| gone(name)).cloned().collect();
        let release = self.numbers_to_release && self.elements.values().all(Tracked::is_in_sync);
        if !finished && left.is_empty() && !release {
            return;
        }
        let journal = if finished { BTreeSet::new() } else { self.journal.clone() };
        let mut intent = (*self.intent).clone();
        intent.leaving.retain(|name, _| !left.contains(name));
        if release {
            intent.numbering.release(&paths_in(&intent.expected));
        }
        let same = journal == self.journal && left.is_empty() && intent.numbering == self.intent.numbering;
        if !same {
            if let Err(error) = self.records.replace(&self.intent, &mut intent, &journal).await {
                // Nothing is lost: the next pass, or the next start, finds it finished again.
                tracing::warn!(error = chain_of(&error), "cannot remember that a change is finished");
                return;
            }
            self.journal = journal;
            self.elements.retain(|name, _| !left.contains(name));
            self.adopt(intent);
        }
        self.numbers_to_release &= !release;
    }

    /// Whether an element that has left the model has not been there for so long that it will hardly come back.
    fn given_up(&self, name: &NodeName) -> bool {
        self.elements.get(name).is_some_and(|tracked| {
            let away = Timestamp::now().duration_since(tracked.since);
            tracked.state == ElementState::Unreachable && away.unsigned_abs() >= self.settings.give_up
        })
    }
}

/// Leaves out the steps that withdraw classifiers, and those that remove what such classifiers refer to.
fn keep_classifiers(plan: &mut Plan) {
    let withdrawals = plan.steps.iter().filter(|step| step.phase == Phase::Withdraw);
    let kept: BTreeSet<NodeName> = withdrawals.map(|step| step.element.clone()).collect();
    plan.steps.retain(|step| match step.phase {
        Phase::Install | Phase::Flip => true,
        Phase::Withdraw => false,
        Phase::Remove => !kept.contains(&step.element),
    });
}

/// The numbers of all paths that some object is of.
fn paths_in(state: &ForwardingState) -> BTreeSet<PathId> {
    let objects = state.elements.values().flat_map(Installed::iter);
    objects
        .filter_map(|object| match object {
            Object::Table(table) => Some(table.path),
            Object::Path(path) => Some(path.id),
            Object::Rule(rule) => Some(rule.table),
            Object::Tunnel(_) | Object::Ingress(_) | Object::Instance(_) | Object::Policy(_) => None,
        })
        .collect()
}

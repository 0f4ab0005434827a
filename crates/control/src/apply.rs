//! Requests: from sources to a change that is installed everywhere and read back, or nowhere.
//!
//! [`Core::prepare`] finds out all that can go wrong beforehand and touches nothing; [`Core::carry_out`] remembers the
//! change and makes it; [`Core::roll_back`] unmakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use catena_driver::DriverError;
use catena_model::forwarding::{Change, ElementState as Installed, ForwardingState, Object, PathId};
use catena_model::name::{ChainName, NodeName};
use catena_model::resource::{Diagnostic, Element, ResourceKind};
use catena_plan::{Phase, Plan, draining, plan};
use tokio::time::Instant;

use crate::converge::not_there;
use crate::core::{Core, generation_of};
use crate::drivers::Connection;
use crate::error::{ApplyError, Rollback, StepError, chain_of};
use crate::events::About;
use crate::execute::{Connections, Failure, execute, observe};
use crate::intent::{Intent, Request, ResourceId};
use crate::report::{
    ApplyReport, ChangeReport, EventKind, Outcome, PlanReport, ResourceChange, StepReport, Timestamp,
};
use crate::retained::Retained;
use crate::tracked::Tracked;
use crate::view::draining_report;
use crate::words::Names;

/// A change about which everything is known that can be known before making it.
struct Prepared {
    intent: Intent,
    resources: Vec<ResourceChange>,
    plan: Plan,
    /// Of the numbers of both intents.
    names: Names,
    survey: Survey,
}

/// The elements that a change concerns, as found.
#[derive(Default)]
struct Survey {
    /// Connections made for this change; the loop takes them over when the change is made.
    connections: Connections,
    installed: BTreeMap<NodeName, Installed>,
    unreadable: BTreeMap<NodeName, DriverError>,
}

impl Core {
    pub(crate) async fn request(
        &mut self,
        request: Request,
        dry_run: bool,
    ) -> Result<ApplyReport, ApplyError> {
        let begun = Instant::now();
        let prepared = self.prepare(request).await?;
        if dry_run {
            let revision = self.records.revision.0;
            return Ok(prepared.report(true, revision, &self.flows));
        }
        let result = self.carry_out(prepared).await;
        match &result {
            Ok(report) => self.tell_applied(report, begun.elapsed()),
            Err(error) => {
                let kind = match error {
                    ApplyError::Failed { .. } => EventKind::RolledBack,
                    _ => EventKind::ApplyFailed,
                };
                self.events.record(kind, About::default(), chain_of(error));
            }
        }
        result
    }

    async fn prepare(&mut self, request: Request) -> Result<Prepared, ApplyError> {
        let old = Arc::clone(&self.intent);
        let (mut intent, resources) = think(move || old.after(&request)).await?;
        self.refuse_driver_changes(&intent)?;
        // Where nothing was installed, nothing is left behind.
        let used =
            |name: &NodeName| !self.intent.expected.element(name).is_empty() || self.journal.contains(name);
        intent.leaving.retain(|name, _| used(name));
        let survey = self.survey(&intent).await;
        refuse_incapable(&intent, &self.connections_with(&survey))?;

        let mut installed = self.intent.expected.clone();
        installed.elements.extend(survey.installed.clone());
        let retained = self.retained(&installed, &intent.desired);
        intent = intent.retaining(retained);
        for (name, error) in &survey.unreadable {
            self.refuse_blind_change(name, error, &intent)?;
            // It is left as it is, and repaired when it can be read again.
            installed.elements.insert(name.clone(), intent.expected.element(name).clone());
        }
        let mut names = Names::of(&intent.numbering);
        names.add_all(&self.names);
        let (intent, plan) = think(move || {
            let plan = plan(&installed, &intent.expected, &intent.topology);
            (intent, plan)
        })
        .await;
        self.check(&plan, &survey).await?;
        Ok(Prepared { intent, resources, plan, names, survey })
    }

    /// With other settings a driver would not find what it installed with the former ones.
    fn refuse_driver_changes(&self, intent: &Intent) -> Result<(), ApplyError> {
        for (name, element) in &intent.model.elements {
            let changed =
                self.elements.get(name).is_some_and(|tracked| tracked.element.driver != element.driver);
            let used = |intent: &Intent| !intent.expected.element(name).is_empty();
            if changed && (used(&self.intent) || used(intent)) {
                return Err(ApplyError::DriverInUse { element: name.clone() });
            }
        }
        Ok(())
    }

    /// Reads every element that is new or must do something else than before.
    async fn survey(&mut self, intent: &Intent) -> Survey {
        let mut survey = Survey::default();
        let all: BTreeMap<NodeName, Element> =
            self.intent.elements().chain(intent.elements()).map(|e| (e.name.clone(), e.clone())).collect();
        let mut readable = BTreeSet::new();
        for (name, element) in all {
            let tracked = self.elements.get(&name);
            let known = tracked.is_some_and(|tracked| tracked.element.driver == element.driver);
            let desired = (self.intent.desired.element(&name), intent.desired.element(&name));
            if known && desired.0 == desired.1 && !self.journal.contains(&name) {
                continue;
            }
            if !known || tracked.is_none_or(|tracked| tracked.connection.is_none()) {
                match self.connect(&element).await {
                    Ok(connection) => survey.connections.insert(name.clone(), connection),
                    Err(error) => {
                        survey.unreadable.insert(name, error);
                        continue;
                    }
                };
            }
            readable.insert(name);
        }
        for (name, installed) in observe(&readable, &self.connections_with(&survey)).await {
            match installed {
                Ok(installed) => drop(survey.installed.insert(name, installed)),
                Err(error) => drop(survey.unreadable.insert(name, error)),
            }
        }
        survey
    }

    fn connections_with(&self, survey: &Survey) -> Connections {
        let mut connections = self.connected();
        connections.extend(survey.connections.clone());
        connections
    }

    /// The paths that flows may still be on after the change.
    fn retained(&self, installed: &ForwardingState, desired: &ForwardingState) -> Retained {
        let deadline = Timestamp::now() + self.settings.drain;
        Retained::of(&draining(installed, desired), |element, path| {
            match self.intent.retained.get(element, path) {
                Some(retiree) => Some((retiree.generation, retiree.deadline)),
                None => Some((generation_of(&self.intent.numbering, path)?, deadline)),
            }
        })
    }

    /// An element that cannot be read can lose objects later, when it can be; it cannot be given any.
    fn refuse_blind_change(
        &self,
        name: &NodeName,
        error: &DriverError,
        intent: &Intent,
    ) -> Result<(), ApplyError> {
        let former = self.intent.expected.element(name);
        if intent.expected.element(name).iter().all(|object| former.contains(object)) {
            return Ok(());
        }
        let source = not_there(Some(&chain_of(error)));
        Err(ApplyError::Unreachable { element: name.clone(), source })
    }

    /// Asks every driver whether it could do its part.
    async fn check(&self, plan: &Plan, survey: &Survey) -> Result<(), ApplyError> {
        let connections = self.connections_with(survey);
        let mut changes: BTreeMap<&NodeName, Vec<Change>> = BTreeMap::new();
        for step in &plan.steps {
            changes.entry(&step.element).or_default().extend(step.changes.iter().cloned());
        }
        for (name, changes) in changes {
            let result = match connections.get(name) {
                Some(connection) => connection.check(&changes).await,
                None => Err(not_there(None)),
            };
            result.map_err(|source| ApplyError::Refused { element: name.clone(), source })?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, mut prepared: Prepared) -> Result<ApplyReport, ApplyError> {
        let old = Arc::clone(&self.intent);
        let touched: BTreeSet<NodeName> =
            prepared.plan.steps.iter().map(|step| step.element.clone()).collect();
        let journal = self.journal.union(&touched).cloned().collect();
        if prepared.changes_anything(&old) {
            let stored = self.records.replace(&old, &mut prepared.intent, &journal).await;
            stored.map_err(ApplyError::Store)?;
            self.journal = journal;
        }
        let connections = self.connections_with(&prepared.survey);
        let epoch = self.next_epoch();
        let executed = match execute(&prepared.plan, epoch, &connections, &prepared.names).await {
            Ok(()) => confirm_all(&prepared, &touched, &connections).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = executed {
            let Failure { element, phase, source, executed } = *failure;
            let rollback = self.roll_back(prepared, &executed, &connections).await;
            return Err(ApplyError::Failed { element, phase, rollback, source });
        }
        self.take_over(&mut prepared);
        self.settle().await;
        Ok(prepared.report(false, self.records.revision.0, &self.flows))
    }

    /// The change is made: from now on it is what must be.
    fn take_over(&mut self, prepared: &mut Prepared) {
        let retained = prepared.intent.retained.iter().map(|(name, path, _)| (name.clone(), path));
        let new: Vec<(NodeName, PathId)> =
            retained.filter(|(name, path)| self.intent.retained.get(name, *path).is_none()).collect();
        self.adopt(prepared.intent.clone());
        for (name, path) in new {
            let message = format!("{name}: {} stays until its flows have ended", prepared.names.path(path));
            let chain = prepared.names.chain(path).cloned();
            self.events.record(EventKind::Draining, About { element: Some(name), chain }, message);
        }
        self.next_drain = Instant::now() + self.settings.drain_poll;

        let intent = Arc::clone(&self.intent);
        let present: BTreeSet<&NodeName> = intent.elements().map(|element| &element.name).collect();
        self.elements.retain(|name, _| present.contains(name));
        for element in intent.elements() {
            let tracked =
                self.elements.entry(element.name.clone()).or_insert_with(|| Tracked::new(element.clone()));
            tracked.element = element.clone();
        }
        for (name, connection) in std::mem::take(&mut prepared.survey.connections) {
            if let Some(tracked) = self.elements.get_mut(&name) {
                tracked.connection = Some(connection);
            }
        }
        for name in prepared.survey.installed.keys() {
            self.in_sync(name);
        }
        for (name, error) in &prepared.survey.unreadable {
            self.lost(name, chain_of(error));
        }
    }

    /// Brings back what was before: first in what outlives us, then on the elements that were touched. The way back is a
    /// plan from what is found there, so that what had been damaged before is not damaged again.
    async fn roll_back(
        &mut self,
        prepared: Prepared,
        executed: &Plan,
        connections: &Connections,
    ) -> Rollback {
        let touched: BTreeSet<&NodeName> = executed.steps.iter().map(|step| &step.element).collect();
        let mut restored = (*self.intent).clone();
        restored.numbering.pass_over(&prepared.intent.numbering);
        for element in prepared.intent.elements().filter(|element| touched.contains(&element.name)) {
            // One that the controller did not know before must be cleaned before it is forgotten again.
            let tracked = self.elements.entry(element.name.clone()).or_insert_with(|| {
                restored.leaving.insert(element.name.clone(), element.clone());
                Tracked::new(element.clone())
            });
            tracked.connection = connections.get(&element.name).cloned();
        }
        let stored = self.records.replace(&prepared.intent, &mut restored, &self.journal).await;
        self.adopt(restored);
        Arc::make_mut(&mut self.names).add_all(&prepared.names);

        self.bring_back(&touched).await;
        let left = touched.into_iter().filter_map(|name| {
            let tracked = self.elements.get(name).filter(|tracked| !tracked.is_in_sync())?;
            Some((name.clone(), tracked.last_error.clone().unwrap_or_default()))
        });
        let left: Vec<_> = left.collect();
        self.settle().await;
        match stored {
            Err(error) => Rollback::Unrecorded { why: chain_of(&error) },
            Ok(()) if left.is_empty() => Rollback::Whole,
            Ok(()) => Rollback::Partial(left),
        }
    }

    fn tell_applied(&self, report: &ApplyReport, took: Duration) {
        let count = |outcome| report.resources.iter().filter(|change| change.outcome == outcome).count();
        let outcomes = [Outcome::Created, Outcome::Changed, Outcome::Deleted, Outcome::Unchanged];
        let outcomes = outcomes.map(|outcome| (count(outcome), outcome));
        let outcomes: Vec<String> = outcomes
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, outcome)| format!("{count} {outcome}"))
            .collect();
        let changes: usize = report.plan.0.iter().map(|step| step.changes.len()).sum();
        let elements: BTreeSet<&NodeName> = report.plan.0.iter().map(|step| &step.element).collect();
        let message = format!(
            "resources: {}; {changes} changes on {} elements, in {} ms",
            outcomes.join(", "),
            elements.len(),
            took.as_millis()
        );
        let mut chains = report.resources.iter().filter(|change| change.kind == ResourceKind::Chain);
        let chain = match (chains.next(), chains.next()) {
            (Some(only), None) => ChainName::new(&only.name).ok(),
            _ => None,
        };
        self.events.record(EventKind::Applied, About { element: None, chain }, message);
    }
}

impl Prepared {
    /// Whether anything is to be remembered or installed.
    fn changes_anything(&self, old: &Intent) -> bool {
        let new = &self.intent;
        let same = |id: &ResourceId| match (old.documents.get(id), new.documents.get(id)) {
            (Some(old), Some(new)) => Arc::ptr_eq(&old.document, &new.document),
            (old, new) => old.is_none() && new.is_none(),
        };
        !self.plan.is_empty()
            || !old.documents.keys().chain(new.documents.keys()).all(same)
            || old.numbering != new.numbering
            || old.retained != new.retained
            || old.leaving.keys().ne(new.leaving.keys())
    }

    fn report(&self, dry_run: bool, revision: u64, flows: &BTreeMap<(NodeName, PathId), u64>) -> ApplyReport {
        let change =
            |change: &Change| ChangeReport { words: self.names.change(change), change: change.clone() };
        let steps = self.plan.steps.iter().map(|step| StepReport {
            phase: step.phase,
            element: step.element.clone(),
            changes: step.changes.iter().map(change).collect(),
        });
        ApplyReport {
            dry_run,
            revision,
            resources: self.resources.clone(),
            plan: PlanReport(steps.collect()),
            draining: draining_report(&self.intent.retained, &self.names, flows),
        }
    }
}

/// Reads back that every element that was touched does what it must.
async fn confirm_all(
    prepared: &Prepared,
    touched: &BTreeSet<NodeName>,
    connections: &Connections,
) -> Result<(), Box<Failure>> {
    let phase = prepared.plan.steps.last().map_or(Phase::Install, |step| step.phase);
    let fail =
        |element, source| Err(Box::new(Failure { element, phase, source, executed: prepared.plan.clone() }));
    for (name, installed) in observe(touched, connections).await {
        match installed {
            Err(error) => return fail(name, error.into()),
            Ok(installed) => {
                let expected = prepared.intent.expected.element(&name);
                if let Some(missing) = prepared.names.difference(expected, &installed) {
                    return fail(name, StepError::NotConfirmed { missing });
                }
            }
        }
    }
    Ok(())
}

/// Every object must go to a driver that installs its kind.
fn refuse_incapable(intent: &Intent, connections: &Connections) -> Result<(), ApplyError> {
    let lacks = |name: &NodeName, connection: &Arc<Connection>| {
        let kinds: BTreeSet<_> = intent.desired.element(name).iter().map(Object::kind).collect();
        kinds.into_iter().find(|kind| !connection.can(*kind))
    };
    let mut diagnostics = Vec::new();
    for (name, connection) in connections {
        let Some(kind) = lacks(name, connection) else { continue };
        let message = format!("{name} must install a {kind}, and none of its drivers can");
        let help = "give the element a driver that can, or lead the chain round it";
        let id = ResourceId { kind: ResourceKind::Element, name: name.to_string() };
        let diagnostic = Diagnostic::new(message, help);
        diagnostics.push(match intent.documents.get(&id) {
            Some(kept) => diagnostic.at(kept.document.name_label("")),
            None => diagnostic,
        });
    }
    if diagnostics.is_empty() { Ok(()) } else { Err(ApplyError::Invalid(diagnostics)) }
}

/// Works on a thread of its own what may take long: the core's other tasks go on meanwhile.
async fn think<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

//! Requests: from sources to a change that is installed everywhere and read back, or nowhere.
//!
//! [`Core::prepare`] finds out all that can go wrong beforehand and touches nothing; [`Core::carry_out`] remembers the
//! change and makes it; [`Core::roll_back`] unmakes it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use catena_model::forwarding::PathId;
use catena_model::name::{ChainName, NodeName};
use catena_model::resource::ResourceKind;
use catena_plan::{Phase, Plan};
use tokio::time::Instant;

use crate::core::Core;
use crate::error::{ApplyError, RecordError, Rollback, StepError, chain_of};
use crate::events::About;
use crate::execute::{Connections, Failure, execute, observe};
use crate::intent::{Intent, Request, Terms};
use crate::prepare::Prepared;
use crate::records::Journal;
use crate::report::{ApplyReport, EventKind, GivenUp, Outcome};
use crate::settings::Mode;
use crate::tracked::Tracked;
use crate::words::counted;

impl Core {
    pub(crate) async fn request(
        &mut self,
        request: Request,
        terms: Terms,
    ) -> Result<ApplyReport, ApplyError> {
        let begun = Instant::now();
        let dry_run = terms.dry_run;
        let prepared = self.prepare(request, terms).await?;
        if dry_run {
            return Ok(self.report(&prepared, true));
        }
        if self.settings.mode == Mode::Look {
            return Err(ApplyError::Store(RecordError::OnlyLooking));
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

    async fn carry_out(&mut self, mut prepared: Prepared) -> Result<ApplyReport, ApplyError> {
        let old = Arc::clone(&self.intent);
        let touched: BTreeSet<NodeName> =
            prepared.plan.steps.iter().map(|step| step.element.clone()).collect();
        let mut journal: Journal = self.journal.union(&touched).cloned().collect();
        if self.hold.is_some() {
            journal.extend(prepared.intent.elements().map(|element| element.name.clone()));
        }
        if prepared.changes_anything(&old) {
            let stored = self.records.replace(&old, &mut prepared.intent, &journal).await;
            stored.map_err(ApplyError::Store)?;
            self.journal = journal;
        }
        self.stirs += 1;
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
        if self.hold.take().is_some() {
            // All that was held back is one change.
            self.converge(self.elements.keys().cloned().collect()).await;
        } else {
            self.settle(&touched).await;
            self.converge(prepared.damage.elements().cloned().collect()).await;
        }
        Ok(self.report(&prepared, false))
    }

    /// The change is made: from now on it is what must be.
    fn take_over(&mut self, prepared: &mut Prepared) {
        let retained = prepared.intent.retained.iter().map(|(name, path, _)| (name.clone(), path));
        let new: Vec<(NodeName, PathId)> =
            retained.filter(|(name, path)| self.intent.retained.get(name, *path).is_none()).collect();
        self.tell_given_up(&prepared.intent);
        self.adopt(prepared.intent.clone());
        if !new.is_empty() {
            // Flows whose first packet is on its way just now are not counted yet.
            self.next_drain = Instant::now() + self.settings.drain_poll;
        }
        for (name, path) in new {
            let message = format!("{name}: {} stays until its flows have ended", prepared.names.path(path));
            let chain = prepared.names.chain(path).cloned();
            self.events.record(EventKind::Draining, About { element: Some(name), chain }, message);
        }

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
        for name in prepared.survey.installed.keys().filter(|name| !prepared.damage.is_on(name)) {
            self.in_sync(name);
        }
        for (name, why) in &prepared.survey.unreadable {
            self.lost(name, why.clone());
        }
    }

    /// What the next intent breaks with somebody's leave and this one does not, and the other way round.
    pub(crate) fn tell_given_up(&self, next: &Intent) {
        let (before, after) = (self.intent.given_up(), next.given_up());
        let among = |all: &[GivenUp], one: &GivenUp| {
            all.iter().any(|other| other.at == one.at && other.promise.is_about(&one.promise))
        };
        let is_kept = |one: &GivenUp| after.iter().any(|other| other.promise.is_about(&one.promise));
        let about = |chain: &ChainName| About { element: None, chain: Some(chain.clone()) };
        for given_up in after.iter().filter(|one| !among(&before, one)) {
            let GivenUp { promise, by, .. } = given_up;
            let message = format!("{promise}: given up by {by}");
            self.events.record(EventKind::GivenUp, about(&promise.chain), message);
        }
        for GivenUp { promise, by, .. } in before.iter().filter(|one| !is_kept(one)) {
            // Of a chain that is gone nothing is promised.
            if next.serves(&promise.chain, &promise.site) {
                let message = format!("{promise}: holds again, given up by {by} until now");
                self.events.record(EventKind::HoldsAgain, about(&promise.chain), message);
            }
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

        let left = match &self.hold {
            None => self.bring_back(&touched, &prepared.damage).await,
            // What was there before is not what this version would bring back.
            Some(hold) => touched.iter().map(|name| ((*name).clone(), hold.why.clone())).collect(),
        };
        let brought_back = touched.into_iter().filter(|name| !left.contains_key(*name));
        self.settle(&brought_back.cloned().collect()).await;
        match stored {
            Err(error) => Rollback::Unrecorded { why: chain_of(&error) },
            Ok(()) if left.is_empty() => Rollback::Whole,
            Ok(()) => Rollback::Partial(left.into_iter().collect()),
        }
    }

    fn tell_applied(&self, report: &ApplyReport, took: Duration) {
        let nothing = report.resources.iter().all(|change| change.outcome == Outcome::Absent);
        if nothing && report.plan.0.is_empty() {
            return;
        }
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
            "resources: {}; {} on {}, in {} ms",
            outcomes.join(", "),
            counted(changes, "change"),
            counted(elements.len(), "element"),
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

/// Reads back that every element that was touched does what it must, but for what was damaged before.
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
                let installed = prepared.damage.mended(&name, installed);
                if let Some(missing) = prepared.names.difference(expected, &installed) {
                    return fail(name, StepError::NotConfirmed { missing });
                }
            }
        }
    }
    Ok(())
}

//! Finding out, without touching anything, all that a request comes to and all that can go wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use catena_model::forwarding::{Change, ElementState as Installed, ForwardingState, Object};
use catena_model::name::NodeName;
use catena_model::resource::{Diagnostic, Element, ResourceKind};
use catena_plan::{Plan, draining, plan};
use catena_verify::Report;

use crate::core::{Core, generation_of};
use crate::damage::Damage;
use crate::drivers::Connection;
use crate::error::{ApplyError, chain_of};
use crate::execute::{Connections, not_connected, observe};
use crate::gate::judge;
use crate::intent::{Intent, Request, ResourceId, Terms};
use crate::report::{
    ApplyReport, ChangeReport, ElementState, NotInstalled, PlanReport, ResourceChange, StepReport, Timestamp,
};
use crate::retained::Retained;
use crate::think::attempt;
use crate::trace::base_routing;
use crate::view::draining_report;
use crate::words::Names;

/// A change about which everything is known that can be known before making it.
pub struct Prepared {
    pub intent: Intent,
    pub resources: Vec<ResourceChange>,
    pub plan: Plan,
    /// Of the numbers of both intents.
    pub names: Names,
    pub survey: Survey,
    /// What was found wanting that the change has nothing to do with.
    pub damage: Damage,
    /// What holds of the chains once it is made.
    pub verified: Report,
}

/// The elements that a change concerns, as found.
#[derive(Default)]
pub struct Survey {
    /// Connections made for this change; the loop takes them over when the change is made.
    pub connections: Connections,
    pub installed: BTreeMap<NodeName, Installed>,
    /// Those that could not be read, and why.
    pub unreadable: BTreeMap<NodeName, String>,
}

impl Core {
    pub(crate) async fn prepare(&mut self, request: Request, terms: Terms) -> Result<Prepared, ApplyError> {
        let old = Arc::clone(&self.intent);
        let former = Arc::clone(&old);
        let (mut intent, resources) =
            attempt(move || old.after(&request)).await.map_err(ApplyError::internal)??;
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
        for (name, why) in &survey.unreadable {
            self.refuse_blind_change(name, why, &intent)?;
            // It is left as it is, and repaired when it can be read again.
            installed.elements.insert(name.clone(), intent.expected.element(name).clone());
        }
        let damage = Damage::of(&survey.installed, &self.intent.expected, &intent.expected);
        for name in damage.elements() {
            let found = installed.elements.remove(name).unwrap_or_default();
            installed.elements.insert(name.clone(), damage.mended(name, found));
        }
        let mut names = Names::of(&intent.numbering);
        names.add_all(&self.names);
        let base = base_routing(&self.connections_with(&survey)).await;
        let mut gate = std::mem::take(self.gate.get_mut().unwrap_or_else(PoisonError::into_inner));
        let thought = attempt(move || {
            let plan = plan(&installed, &intent.expected, &intent.topology);
            let judged = judge(&mut gate, &former, &intent, &base, &terms);
            (intent, plan, judged, gate)
        });
        let (mut intent, plan, judged, gate) = thought.await.map_err(ApplyError::internal)?;
        self.gate = Mutex::new(gate);
        self.check(&plan, &survey).await?;
        let verified = judged?.note_in(&mut intent);
        Ok(Prepared { intent, resources, plan, names, survey, damage, verified })
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
                        survey.unreadable.insert(name, chain_of(&error));
                        continue;
                    }
                };
            }
            readable.insert(name);
        }
        for (name, installed) in observe(&readable, &self.connections_with(&survey)).await {
            match installed {
                Ok(installed) => drop(survey.installed.insert(name, installed)),
                Err(error) => drop(survey.unreadable.insert(name, chain_of(&error))),
            }
        }
        survey
    }

    pub(crate) fn connections_with(&self, survey: &Survey) -> Connections {
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
    fn refuse_blind_change(&self, name: &NodeName, why: &str, intent: &Intent) -> Result<(), ApplyError> {
        let former = self.intent.expected.element(name);
        if intent.expected.element(name).iter().all(|object| former.contains(object)) {
            return Ok(());
        }
        Err(ApplyError::Unreachable { element: name.clone(), why: why.to_owned() })
    }

    /// What the change comes to, and what else is not as it must be.
    pub(crate) fn report(&self, prepared: &Prepared, dry_run: bool) -> ApplyReport {
        let change =
            |change: &Change| ChangeReport { words: prepared.names.change(change), change: change.clone() };
        let steps = prepared.plan.steps.iter().map(|step| StepReport {
            phase: step.phase,
            element: step.element.clone(),
            changes: step.changes.iter().map(change).collect(),
        });
        let intent = &prepared.intent;
        ApplyReport {
            dry_run,
            revision: self.records.revision.0,
            resources: prepared.resources.clone(),
            plan: PlanReport(steps.collect()),
            draining: draining_report(&intent.retained, &prepared.names, &self.flows),
            verified: Some(prepared.verified.clone()),
            given_up: intent.given_up(),
            not_installed: intent.elements().filter_map(|e| self.not_installed(&e.name, prepared)).collect(),
        }
    }

    fn not_installed(&self, name: &NodeName, prepared: &Prepared) -> Option<NotInstalled> {
        let tracked = self.elements.get(name).filter(|tracked| !tracked.is_in_sync());
        let found = tracked
            .map(|tracked| (tracked.state, tracked.last_error.clone().unwrap_or_default(), tracked.since));
        // What this request has found out, the loop may not know.
        let unreadable = prepared.survey.unreadable.get(name);
        let unreadable = unreadable.map(|why| (ElementState::Unreachable, why.clone(), Timestamp::now()));
        let (state, why, since) = found.or(unreadable)?;
        let objects = prepared.intent.expected.element(name).len();
        Some(NotInstalled { element: name.clone(), state, why, since, objects })
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
                None => Err(not_connected(name)),
            };
            result.map_err(|source| ApplyError::Refused { element: name.clone(), source })?;
        }
        Ok(())
    }
}

impl Prepared {
    /// Whether anything is to be remembered or installed.
    pub fn changes_anything(&self, old: &Intent) -> bool {
        let new = &self.intent;
        let same = |id: &ResourceId| match (old.documents.get(id), new.documents.get(id)) {
            (Some(old), Some(new)) => Arc::ptr_eq(&old.document, &new.document),
            (old, new) => old.is_none() && new.is_none(),
        };
        !self.plan.is_empty()
            || !old.documents.keys().chain(new.documents.keys()).all(same)
            || old.numbering != new.numbering
            || old.retained != new.retained
            || old.waivers != new.waivers
            || old.judgement != new.judgement
            || old.leaving.keys().ne(new.leaving.keys())
    }
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

#[cfg(test)]
mod tests {
    use catena_driver::{Driver, DriverError};
    use catena_model::resource::Source;
    use catena_store::InMemory;
    use tokio::sync::mpsc;

    use super::*;
    use crate::drivers::Drivers;
    use crate::events::EventLog;
    use crate::prover::Prover;
    use crate::records::Records;
    use crate::settings::Settings;

    #[derive(Debug)]
    struct NoDrivers;

    impl Drivers for NoDrivers {
        fn for_element(&self, _: &Element) -> Result<Vec<Arc<dyn Driver>>, DriverError> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_verifier_that_panics_refuses_the_change_and_ends_nothing() {
        let memory = Records::open(Arc::new(InMemory::default())).await.unwrap();
        let (post, inbox) = mpsc::channel(1);
        let (events, settings) = (EventLog::new(1, 1), Settings::default());
        let mut core = Core::new(Arc::new(NoDrivers), settings, memory, events, (post.downgrade(), inbox));
        core.gate = Mutex::new(Prover::that_panics());
        let tenant = "apiVersion: catena/v1alpha1\nkind: Tenant\nmetadata: {name: acme}\nspec: {prefixes: [192.0.2.0/24]}\n";
        let request = Request::Apply(vec![Source::new("tenant.yaml", tenant)]);
        let error = core.request(request.clone(), Terms::default()).await.unwrap_err();
        assert!(matches!(&error, ApplyError::Internal(why) if why == "a mistake of ours"), "{error:?}");
        assert!(error.to_string().contains("nothing was touched"), "{error}");
        assert!(core.intent.documents.is_empty());
        core.request(request, Terms::default()).await.unwrap();
        assert_eq!(core.intent.documents.len(), 1);
    }
}

//! What was asked for, and all that follows from it: a value that is replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{self, Diagnostic, Document, Element, Model, ResourceKind, Source};
use catena_model::topology::Topology;
use catena_render::{RenderError, Subject, render};
use catena_store::Revision;
use catena_verify::{Network, Property};

use crate::error::ApplyError;
use crate::gate::Waiver;
use crate::hold::Judgement;
use crate::needed::still_needed;
use crate::report::{GivenUp, Outcome, ResourceChange};
use crate::retained::Retained;

/// Names one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    pub kind: ResourceKind,
    pub name: String,
}

impl ResourceId {
    pub fn of(document: &Document) -> Self {
        Self { kind: document.kind(), name: document.name().to_owned() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.singular(), self.name)
    }
}

/// A resource in the store.
#[derive(Clone, Debug)]
pub struct Kept {
    pub document: Arc<Document>,
    /// When it was last changed; 0 as long as it is not stored.
    pub revision: Revision,
}

/// What is asked of the controller.
#[derive(Clone, Debug)]
pub enum Request {
    Apply(Vec<Source>),
    /// The resources that stand in the sources, and those that are named.
    Delete {
        sources: Vec<Source>,
        resources: Vec<ResourceId>,
    },
}

/// How it is to be done, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// These may be broken by the change.
    pub allow: BTreeSet<Property>,
    /// Who is put on record for that, as people know them.
    pub by: String,
}

#[derive(Clone, Debug, Default)]
pub struct Intent {
    pub documents: BTreeMap<ResourceId, Kept>,
    pub model: Model,
    pub topology: Topology,
    pub numbering: Numbering,
    /// What follows from the model.
    pub desired: ForwardingState,
    /// What stays for old flows.
    pub retained: Retained,
    /// Elements that have left the model but may still have objects of ours.
    pub leaving: BTreeMap<NodeName, Element>,
    /// What must be installed: `desired`, and what is `retained`.
    pub expected: ForwardingState,
    /// What `desired` breaks with somebody's leave.
    pub waivers: Vec<Waiver>,
    /// Of what was last let through: of `desired`, unless this version renders something else than the last did.
    pub judgement: Judgement,
}

impl Intent {
    /// The intent that `documents` make.
    pub fn new(
        documents: BTreeMap<ResourceId, Kept>,
        mut numbering: Numbering,
        retained: Retained,
        leaving: BTreeMap<NodeName, Element>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let all: Vec<Document> = documents.values().map(|kept| (*kept.document).clone()).collect();
        let model = resource::validate(&all)?;
        let desired = render(&model, &mut numbering).map_err(|errors| located(&errors, &documents))?;
        let topology = Topology::of(&model);
        let expected = retained.added_to(&desired);
        Ok(Self {
            documents,
            model,
            topology,
            numbering,
            desired,
            retained,
            leaving,
            expected,
            waivers: Vec::new(),
            judgement: Judgement::default(),
        })
    }

    /// The same with other retained paths.
    pub fn retaining(self, retained: Retained) -> Self {
        let expected = retained.added_to(&self.desired);
        Self { retained, expected, ..self }
    }

    /// The intent after `request`, as if nothing were retained, and what becomes of each resource that it names.
    pub fn after(&self, request: &Request) -> Result<(Intent, Vec<ResourceChange>), ApplyError> {
        match request {
            Request::Apply(sources) => self.after_apply(sources),
            Request::Delete { sources, resources } => self.after_delete(sources, resources),
        }
    }

    /// What `desired` breaks with somebody's leave, and whose.
    pub fn given_up(&self) -> Vec<GivenUp> {
        self.waivers.iter().map(|waiver| waiver.given_up.clone()).collect()
    }

    /// What becomes of packets where the elements do as `state` says.
    pub fn network<'a>(
        &'a self,
        state: &'a ForwardingState,
        base: &'a BTreeMap<NodeName, BaseRouting>,
    ) -> Network<'a> {
        let Self { model, topology, numbering, .. } = self;
        Network { model, topology, state, base, numbering }
    }

    /// Every element that we may have something on: those of the model and those that are leaving it.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        let leaving = self.leaving.iter().filter(|(name, _)| !self.model.elements.contains_key(*name));
        self.model.elements.values().chain(leaving.map(|(_, element)| element))
    }

    fn after_apply(&self, sources: &[Source]) -> Result<(Intent, Vec<ResourceChange>), ApplyError> {
        let given = read(sources)?;
        self.refuse_duplicates(&given)?;
        let mut documents = self.documents.clone();
        let mut changes = Vec::new();
        for document in &given {
            let id = ResourceId::of(document);
            let former = self.documents.get(&id);
            let outcome = match former {
                None => Outcome::Created,
                Some(kept) if kept.document.resource == document.resource => Outcome::Unchanged,
                Some(_) => Outcome::Changed,
            };
            changes.push(ResourceChange { kind: id.kind, name: id.name.clone(), outcome });
            let same = former.filter(|kept| kept.document.source == document.source);
            let new = || Kept { document: Arc::new(document.clone()), revision: Revision(0) };
            documents.insert(id, same.cloned().unwrap_or_else(new));
        }
        let intent = self.with_documents(documents).map_err(ApplyError::Invalid)?;
        Ok((intent, changes))
    }

    /// By name, the later of two resources would silently replace the earlier. Validation sees them both.
    fn refuse_duplicates(&self, given: &[Document]) -> Result<(), ApplyError> {
        let mut count: BTreeMap<ResourceId, usize> = BTreeMap::new();
        given.iter().for_each(|document| *count.entry(ResourceId::of(document)).or_default() += 1);
        if count.values().all(|count| *count == 1) {
            return Ok(());
        }
        let others = self.documents.iter().filter(|(id, _)| !count.contains_key(*id));
        let others = others.map(|(_, kept)| (*kept.document).clone());
        let all: Vec<Document> = others.chain(given.iter().cloned()).collect();
        resource::validate(&all).map(|_| ()).map_err(ApplyError::Invalid)
    }

    fn after_delete(
        &self,
        sources: &[Source],
        resources: &[ResourceId],
    ) -> Result<(Intent, Vec<ResourceChange>), ApplyError> {
        let written = read(sources)?;
        let mut documents = self.documents.clone();
        let mut changes = Vec::new();
        for id in written.iter().map(ResourceId::of).chain(resources.iter().cloned()) {
            let outcome = match documents.remove(&id) {
                Some(_) => Outcome::Deleted,
                None => Outcome::Absent,
            };
            changes.push(ResourceChange { kind: id.kind, name: id.name, outcome });
        }
        let refused = |diagnostics| {
            let gone: Vec<ResourceId> =
                self.documents.keys().filter(|id| !documents.contains_key(*id)).cloned().collect();
            ApplyError::StillNeeded(still_needed(diagnostics, &gone, &documents))
        };
        let intent = self.with_documents(documents.clone()).map_err(refused)?;
        Ok((intent, changes))
    }

    fn with_documents(&self, documents: BTreeMap<ResourceId, Kept>) -> Result<Self, Vec<Diagnostic>> {
        let numbering = self.numbering.clone();
        let mut intent = Self::new(documents, numbering, Retained::default(), BTreeMap::new())?;
        let gone = self.elements().filter(|element| !intent.model.elements.contains_key(&element.name));
        intent.leaving = gone.map(|element| (element.name.clone(), element.clone())).collect();
        Ok(intent)
    }
}

fn read(sources: &[Source]) -> Result<Vec<Document>, ApplyError> {
    let (documents, diagnostics) = resource::parse(sources);
    if diagnostics.is_empty() { Ok(documents) } else { Err(ApplyError::Invalid(diagnostics)) }
}

/// Shows where the resources are written that cannot be rendered.
fn located(errors: &[RenderError], documents: &BTreeMap<ResourceId, Kept>) -> Vec<Diagnostic> {
    let diagnostic = |error: &RenderError| {
        let id = match error.subject() {
            Subject::Site(name) => ResourceId { kind: ResourceKind::Site, name: name.to_string() },
            Subject::Chain(name) => ResourceId { kind: ResourceKind::Chain, name: name.to_string() },
        };
        let text = error.to_string();
        let (message, help) = text.split_once("; ").unwrap_or((&text, "change the network or the chain"));
        let diagnostic = Diagnostic::new(message, help);
        match documents.get(&id) {
            Some(kept) => diagnostic.at(kept.document.name_label("")),
            None => diagnostic,
        }
    };
    errors.iter().map(diagnostic).collect()
}

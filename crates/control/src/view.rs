//! What the core shows of itself: a value that readers take and keep, so that they neither wait nor are waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_model::forwarding::{Object, PathId};
use catena_model::name::{NodeName, SiteName};
use catena_model::numbering::PathOwner;
use catena_model::resource::{Chain, Model, ResourceKind};

use crate::error::chain_of;
use crate::execute::Connections;
use crate::intent::{Intent, Kept, ResourceId};
use crate::records::Journal;
use crate::report::{
    ChainHop, ChainSite, ChainState, ChainStatus, ControllerState, DrainReport, DriverStatus, ElementStatus,
    Hold, ResourceReport, StatusReport,
};
use crate::retained::Retained;
use crate::tracked::Tracked;
use crate::watching::Verdicts;
use crate::words::Names;

#[derive(Clone, Debug, Default)]
pub struct View {
    pub revision: u64,
    pub controller: ControllerState,
    pub intent: Arc<Intent>,
    pub names: Arc<Names>,
    /// The elements that an unfinished change touches.
    pub unfinished: Journal,
    pub elements: BTreeMap<NodeName, Tracked>,
    pub flows: BTreeMap<(NodeName, PathId), u64>,
    /// How often something was changed, or may have been.
    pub stirs: u64,
    pub hold: Option<Hold>,
}

impl View {
    pub fn status(&self, verdicts: &Verdicts) -> StatusReport {
        StatusReport {
            revision: self.revision,
            converged: self.is_converged(),
            controller: self.controller,
            elements: self.elements.values().map(|tracked| self.element_status(tracked)).collect(),
            chains: self.chains(verdicts),
            draining: draining_report(&self.intent.retained, &self.names, &self.flows),
            given_up: self.intent.given_up(),
            hold: self.hold.clone(),
        }
    }

    pub fn is_converged(&self) -> bool {
        self.hold.is_none() && self.unfinished.is_empty() && self.elements.values().all(Tracked::is_in_sync)
    }

    /// The resources of one kind, or all.
    pub fn resources(&self, kind: Option<ResourceKind>) -> Vec<ResourceReport> {
        let wanted = self.intent.documents.iter().filter(|(id, _)| kind.is_none_or(|kind| kind == id.kind));
        wanted.map(|(id, kept)| resource_report(id, kept)).collect()
    }

    pub fn resource(&self, id: &ResourceId) -> Option<ResourceReport> {
        self.intent.documents.get(id).map(|kept| resource_report(id, kept))
    }

    pub fn connections(&self) -> Connections {
        let connection = |tracked: &Tracked| Some((tracked.name().clone(), tracked.connection.clone()?));
        self.elements.values().filter_map(connection).collect()
    }

    fn element_status(&self, tracked: &Tracked) -> ElementStatus {
        let capabilities = tracked.connection.iter().flat_map(|connection| connection.capabilities());
        ElementStatus {
            name: tracked.name().clone(),
            role: tracked.element.role,
            state: tracked.state,
            since: tracked.since,
            objects: self.intent.expected.element(tracked.name()).len(),
            last_error: tracked.last_error.clone(),
            drivers: capabilities.map(|kinds| DriverStatus { kinds }).collect(),
        }
    }

    fn chains(&self, verdicts: &Verdicts) -> Vec<ChainStatus> {
        let unwell = self.sites_of(|tracked| !tracked.is_in_sync());
        let unfinished = self.sites_of(|tracked| self.unfinished.contains(tracked.name()));
        let network = self.network_changed_at();
        self.intent
            .model
            .chains
            .values()
            .map(|chain| {
                let verdict = verdicts.of(&chain.name, self.changed_at(network, chain)).cloned();
                ChainStatus { verdict, ..self.chain_status(chain, &unwell, &unfinished) }
            })
            .collect()
    }

    /// When the network was last changed that all chains share.
    fn network_changed_at(&self) -> u64 {
        let is_shared =
            |kind| !matches!(kind, ResourceKind::Tenant | ResourceKind::Site | ResourceKind::Chain);
        let shared = self.intent.documents.iter().filter(|(id, _)| is_shared(id.kind));
        shared.map(|(_, kept)| kept.revision.0).max().unwrap_or_default()
    }

    /// When something was last changed that a chain is made of.
    fn changed_at(&self, network: u64, chain: &Chain) -> u64 {
        let revision = |kind, name: &str| {
            let id = ResourceId { kind, name: name.to_owned() };
            self.intent.documents.get(&id).map_or(0, |kept| kept.revision.0)
        };
        let sites = chain.sites.iter().map(|site| revision(ResourceKind::Site, site.as_str()));
        sites.fold(network.max(revision(ResourceKind::Chain, chain.name.as_str())), u64::max)
    }

    /// The sites that use an element of which `which` holds, with these elements.
    pub fn sites_of(&self, which: impl Fn(&Tracked) -> bool) -> BTreeMap<SiteName, BTreeSet<NodeName>> {
        let mut sites: BTreeMap<SiteName, BTreeSet<NodeName>> = BTreeMap::new();
        for tracked in self.elements.values().filter(|tracked| which(tracked)) {
            for object in self.intent.expected.element(tracked.name()).iter() {
                if let Some(site) = self.site_of(object) {
                    sites.entry(site.clone()).or_default().insert(tracked.name().clone());
                }
            }
        }
        sites
    }

    fn site_of(&self, object: &Object) -> Option<&SiteName> {
        let of_path = |path| self.names.owner(path).map(PathOwner::site);
        match object {
            Object::Table(table) => of_path(table.path),
            Object::Path(path) => of_path(path.id),
            Object::Rule(rule) => of_path(rule.table),
            Object::Tunnel(tunnel) => self.names.site_name(tunnel.site),
            Object::Policy(policy) => self.names.site_name(policy.site),
            Object::Ingress(_) | Object::Instance(_) => None,
        }
    }

    fn chain_status(
        &self,
        chain: &Chain,
        unwell: &BTreeMap<SiteName, BTreeSet<NodeName>>,
        unfinished: &BTreeMap<SiteName, BTreeSet<NodeName>>,
    ) -> ChainStatus {
        let elements = |of: &BTreeMap<SiteName, BTreeSet<NodeName>>| -> BTreeSet<NodeName> {
            chain.sites.iter().filter_map(|site| of.get(site)).flatten().cloned().collect()
        };
        let (unwell, unfinished) = (elements(unwell), elements(unfinished));
        let (state, reason) = match (unfinished.is_empty(), unwell.is_empty()) {
            (false, _) => (ChainState::Pending, Some(self.reason("a change is unfinished on", &unfinished))),
            (true, false) => (ChainState::Degraded, Some(self.reason("not as it must be:", &unwell))),
            (true, true) => (ChainState::Installed, None),
        };
        let model = &self.intent.model;
        let tenant =
            chain.sites.first().and_then(|site| model.sites.get(site)).map(|site| site.tenant.clone());
        ChainStatus {
            name: chain.name.clone(),
            tenant,
            functions: chain.functions.clone(),
            state,
            reason,
            verdict: None,
            sites: chain.sites.iter().filter_map(|site| self.chain_site(chain, site)).collect(),
        }
    }

    fn reason(&self, what: &str, elements: &BTreeSet<NodeName>) -> String {
        let words = elements.iter().map(|name| match self.elements.get(name) {
            Some(tracked) if !tracked.is_in_sync() => format!("{name} ({})", tracked.state),
            _ => name.to_string(),
        });
        format!("{what} {}", words.collect::<Vec<_>>().join(", "))
    }

    fn chain_site(&self, chain: &Chain, site: &SiteName) -> Option<ChainSite> {
        let owner = PathOwner::Chain(chain.name.clone(), site.clone());
        let revision = self.intent.numbering.revision(&owner)?;
        Some(ChainSite {
            site: site.clone(),
            path: revision.id,
            generation: revision.generation,
            vlan: self.intent.numbering.vlan_of(revision.id),
            hops: chain_hops(chain, &self.intent.model),
        })
    }
}

fn chain_hops(chain: &Chain, model: &Model) -> Vec<ChainHop> {
    let functions = chain.functions.iter().filter_map(|name| model.functions.get(name));
    let hop = |function: &catena_model::resource::ServiceFunction| ChainHop {
        function: function.name.clone(),
        instances: function.instances.iter().map(|instance| instance.name.clone()).collect(),
    };
    functions.map(hop).collect()
}

fn resource_report(id: &ResourceId, kept: &Kept) -> ResourceReport {
    let source = &kept.document.source;
    let document = serde_json::to_value(&*kept.document).unwrap_or_else(|error| {
        // Every resource has a form in JSON; if one has not, its text is still there.
        tracing::warn!(resource = %id, error = chain_of(&error), "cannot be shown as JSON");
        serde_json::Value::Null
    });
    ResourceReport {
        kind: id.kind,
        name: id.name.clone(),
        revision: kept.revision.0,
        source: source.name.clone(),
        line: source.lines_before + 1,
        text: source.text.clone(),
        document,
    }
}

/// The retained paths, as shown to people.
pub fn draining_report(
    retained: &Retained,
    names: &Names,
    flows: &BTreeMap<(NodeName, PathId), u64>,
) -> Vec<DrainReport> {
    let report = |(element, path, retiree): (&NodeName, PathId, &crate::retained::Retiree)| {
        let PathOwner::Chain(chain, site) = names.owner(path)? else { return None };
        Some(DrainReport {
            element: element.clone(),
            path,
            chain: chain.clone(),
            site: site.clone(),
            generation: retiree.generation,
            flows: flows.get(&(element.clone(), path)).copied(),
            deadline: retiree.deadline,
        })
    };
    retained.iter().filter_map(report).collect()
}

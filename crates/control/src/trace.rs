//! Where packets go, as far as it can be told from what is really installed, and what holds of the chains.

use std::collections::BTreeMap;
use std::sync::Arc;

use catena_model::base::BaseRouting;
use catena_model::forwarding::{Direction, ForwardingState};
use catena_model::name::{NodeName, SiteName, TenantName};
use catena_model::packet::Packet;
use catena_model::resource::Chain;
use catena_verify::{Report, Trace, Undecided, Verdict, trace, verify};
use futures::future::join_all;

use crate::error::chain_of;
use crate::execute::{Connections, observe};
use crate::intent::Intent;
use crate::report::VerifiedNetwork;
use crate::think::think;
use crate::view::View;

impl View {
    /// The way of `packet` and of its reply through what all elements do at this moment. Of an element that cannot be
    /// read, what it must do is taken, and the inventory's word for its routing.
    pub async fn trace(&self, packet: Packet) -> Trace {
        let Observed { intent, state, base, .. } = self.observed().await;
        trace(&intent.network(&state, &base), packet)
    }

    /// What holds of the chains of a tenant, or of all: of what all elements do at this moment, or of what they are to do,
    /// over the routing that they have at this moment.
    pub async fn verify(&self, tenant: Option<TenantName>, observed: bool) -> Report {
        self.verify_observed(Arc::new(self.subject(observed).await), tenant).await
    }

    /// The same, with the network of which it holds.
    pub async fn verified(&self, tenant: Option<TenantName>, observed: bool) -> VerifiedNetwork {
        let subject = Arc::new(self.subject(observed).await);
        let report = self.verify_observed(Arc::clone(&subject), tenant).await;
        let Observed { state, base, .. } = (*subject).clone();
        VerifiedNetwork { report, resources: self.resources(None), state, base }
    }

    async fn subject(&self, observed: bool) -> Observed {
        if observed {
            return self.observed().await;
        }
        let intent = Arc::clone(&self.intent);
        let base = base_routing(&self.connections()).await;
        Observed { state: intent.desired.clone(), intent, base, unread: BTreeMap::new() }
    }

    /// What holds of the chains as `observed`. Nothing is proven by what could not be read.
    pub async fn verify_observed(&self, observed: Arc<Observed>, tenant: Option<TenantName>) -> Report {
        let unread = self.unread(&observed, tenant.as_ref());
        let verify = move || {
            let Observed { intent, state, base, .. } = &*observed;
            verify(&intent.network(state, base), tenant.as_ref())
        };
        let mut report = think(verify).await;
        if report.verdict == Verdict::Proven && !unread.is_empty() {
            report.verdict = Verdict::Undecided;
        }
        report.undecided.extend(unread);
        report
    }

    /// The chains that pass elements which could not be read.
    fn unread(&self, observed: &Observed, tenant: Option<&TenantName>) -> Vec<Undecided> {
        let sites = self.sites_of(|tracked| observed.unread.contains_key(tracked.name()));
        let wanted = |site: &SiteName| {
            let site = self.intent.model.sites.get(site);
            tenant.is_none_or(|tenant| site.is_some_and(|site| site.tenant == *tenant))
        };
        let of_site = |chain: &Chain, site: &SiteName| {
            let element = sites.get(site)?.first()?;
            let why = observed.unread.get(element)?;
            Some(Undecided {
                property: None,
                chain: chain.name.clone(),
                site: site.clone(),
                direction: Direction::Up,
                what: format!("element {element} cannot be read: {why}"),
                entry: None,
                walk: None,
            })
        };
        let chains = self.intent.model.chains.values();
        chains
            .flat_map(|chain| {
                let sites = chain.sites.iter().filter(|site| wanted(site));
                sites.filter_map(|site| of_site(chain, site)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// What all elements do; of one that cannot be read, what it must do.
    pub async fn observed(&self) -> Observed {
        let connections = self.connections();
        let mut state = self.intent.expected.clone();
        let away = self.elements.values().filter(|tracked| tracked.connection.is_none());
        let mut unread: BTreeMap<NodeName, String> = away
            .map(|tracked| (tracked.name().clone(), tracked.last_error.clone().unwrap_or_default()))
            .collect();
        for (name, installed) in observe(connections.keys(), &connections).await {
            match installed {
                Ok(installed) => drop(state.elements.insert(name, installed)),
                Err(error) => drop(unread.insert(name, chain_of(&error))),
            }
        }
        let base = base_routing(&connections).await;
        Observed { intent: Arc::clone(&self.intent), state, base, unread }
    }
}

/// What all elements were found to do at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What was asked for then.
    pub intent: Arc<Intent>,
    pub state: ForwardingState,
    pub base: BTreeMap<NodeName, BaseRouting>,
    /// Elements that could not be read, and why: they are taken to do what they must.
    pub unread: BTreeMap<NodeName, String>,
}

impl PartialEq for Observed {
    /// Whether the same would be found out from both.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.intent, &other.intent)
            && self.unread == other.unread
            && self.base == other.base
            && self.state == other.state
    }
}

/// The owners' routing, of the elements that can be asked for it.
pub async fn base_routing(connections: &Connections) -> BTreeMap<NodeName, BaseRouting> {
    let bases = connections.iter().map(async |(name, connection)| (name.clone(), connection.base().await));
    let mut base = BTreeMap::new();
    for (name, found) in join_all(bases).await {
        match found {
            Ok(Some(found)) => drop(base.insert(name, found)),
            Ok(None) => {}
            Err(error) => tracing::debug!(element = %name, error = chain_of(&error), "no base routing"),
        }
    }
    base
}

//! Where packets go, as far as it can be told from what is really installed, and what holds of the chains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_driver::DriverError;
use catena_model::address::Family;
use catena_model::base::{BaseRouting, BaseRule, BaseRuleAction};
use catena_model::forwarding::{ElementState, ForwardingState, Object};
use catena_model::name::{NodeName, TenantName};
use catena_model::packet::Packet;
use catena_verify::{Broken, Report, Trace, Violation, trace, verify};
use futures::future::join_all;

use crate::error::{UnknownTenant, chain_of};
use crate::execute::{Connections, observe};
use crate::gate::{beyond, told};
use crate::intent::Intent;
use crate::prover::{Proof, Prover};
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
    pub async fn verify(&self, tenant: Option<TenantName>, observed: bool) -> Result<Report, UnknownTenant> {
        Ok(self.verified_subject(tenant, observed).await?.1)
    }

    /// The same, with the network of which it holds.
    pub async fn verified(
        &self,
        tenant: Option<TenantName>,
        observed: bool,
    ) -> Result<VerifiedNetwork, UnknownTenant> {
        let (subject, report) = self.verified_subject(tenant, observed).await?;
        let (state, base) = subject.as_far_as_read();
        Ok(VerifiedNetwork { report, resources: self.resources(None), state, base })
    }

    async fn verified_subject(
        &self,
        tenant: Option<TenantName>,
        observed: bool,
    ) -> Result<(Arc<Observed>, Report), UnknownTenant> {
        UnknownTenant::refuse(&self.intent.model, tenant.as_ref())?;
        let subject = Arc::new(self.subject(observed).await);
        let report = self.verify_observed(Arc::clone(&subject), tenant).await;
        Ok((subject, report))
    }

    async fn subject(&self, observed: bool) -> Observed {
        if observed {
            return self.observed().await;
        }
        let (intent, base) = (Arc::clone(&self.intent), self.base_routing().await);
        Observed { state: intent.desired.clone(), intent, base, unread: BTreeMap::new() }
    }

    /// What holds of the chains as `observed`. Nothing is proven by what could not be read.
    pub async fn verify_observed(&self, observed: Arc<Observed>, tenant: Option<TenantName>) -> Report {
        think(move || observed.verify(tenant.as_ref())).await
    }

    /// What all elements do; of one that cannot be read, what it must do.
    pub async fn observed(&self) -> Observed {
        let connections = self.connections();
        let mut state = self.intent.expected.clone();
        let mut unread = self.away();
        for (name, installed) in observe(connections.keys(), &connections).await {
            match installed {
                Ok(installed) => drop(state.elements.insert(name, installed)),
                Err(error) => drop(unread.insert(name, chain_of(&error))),
            }
        }
        let mut base = BTreeMap::new();
        for (name, found) in read_base(&connections).await {
            match found {
                Ok(found) => base.extend(found.map(|found| (name, found))),
                Err(error) => drop(unread.entry(name).or_insert_with(|| chain_of(&error))),
            }
        }
        Observed { intent: Arc::clone(&self.intent), state, base, unread }
    }

    /// The owners' routing, as far as there is a driver that knows of it.
    async fn base_routing(&self) -> BTreeMap<NodeName, BaseRouting> {
        let mut base = base_routing(&self.connections()).await;
        base.extend(self.away().into_iter().map(|(name, why)| (name, unreadable(&why))));
        base
    }

    /// The elements that there is no connection to, and why.
    fn away(&self) -> BTreeMap<NodeName, String> {
        let away = self.elements.values().filter(|tracked| tracked.connection.is_none());
        away.map(|tracked| (tracked.name().clone(), tracked.last_error.clone().unwrap_or_default())).collect()
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

impl Observed {
    /// What holds of all chains; what is as `prover` saw it last is not looked at again. Beside it, what is broken beyond what was
    /// `before`, with packets that show it.
    pub fn prove(&self, prover: &mut Prover, before: &[Broken]) -> (Proof, Vec<Violation>) {
        let (state, base) = self.as_far_as_read();
        let proof = prover.prove(&self.intent, &state, &base);
        let more = beyond(&proof.broken, before);
        let more = told(&more, &proof.report, &self.intent.network(&state, &base)).violations;
        (proof, more)
    }

    fn verify(&self, tenant: Option<&TenantName>) -> Report {
        let (state, base) = self.as_far_as_read();
        verify(&self.intent.network(&state, &base), tenant)
    }

    /// The same, but that nobody can tell where packets go that come to an element which could not be read.
    fn as_far_as_read(&self) -> (ForwardingState, BTreeMap<NodeName, BaseRouting>) {
        let (mut state, mut base) = (self.state.clone(), self.base.clone());
        for (name, why) in &self.unread {
            base.insert(name.clone(), unreadable(why));
            if let Some(element) = state.elements.get_mut(name) {
                *element = routing_alone(element);
            }
        }
        (state, base)
    }
}

/// The same element with nothing that takes packets before they are routed.
fn routing_alone(element: &ElementState) -> ElementState {
    element.iter().filter(|object| !matches!(object, Object::Ingress(_))).cloned().collect()
}

/// The routing of an element that cannot be read: before all else stands what nobody can evaluate.
fn unreadable(why: &str) -> BaseRouting {
    let rule = |family| BaseRule {
        priority: 0,
        family,
        from: None,
        to: None,
        in_port: None,
        opaque: vec![format!("the element cannot be read: {why}")],
        action: BaseRuleAction::Other("unknown".to_owned()),
    };
    BaseRouting { rules: Family::BOTH.map(rule).to_vec(), ..BaseRouting::default() }
}

/// The owners' routing, of the elements that can be asked for it, with all ports up: what is to be does not hang on a link
/// that is down at this moment.
pub async fn base_routing(connections: &Connections) -> BTreeMap<NodeName, BaseRouting> {
    let known = |(name, found): (NodeName, Result<Option<BaseRouting>, DriverError>)| match found {
        Ok(found) => Some((name, BaseRouting { down: BTreeSet::new(), ..found? })),
        Err(error) => Some((name, unreadable(&chain_of(&error)))),
    };
    read_base(connections).await.into_iter().filter_map(known).collect()
}

async fn read_base(connections: &Connections) -> Vec<(NodeName, Result<Option<BaseRouting>, DriverError>)> {
    let bases = connections.iter().map(async |(name, connection)| (name.clone(), connection.base().await));
    join_all(bases).await
}

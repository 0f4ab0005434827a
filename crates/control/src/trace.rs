//! Where packets go, as far as it can be told from what is really installed, and what holds of the chains.

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::{NodeName, TenantName};
use catena_model::packet::Packet;
use catena_verify::{Report, Trace, trace, verify};
use futures::future::join_all;

use crate::error::chain_of;
use crate::execute::{Connections, observe};
use crate::view::View;

impl View {
    /// The way of `packet` and of its reply through what all elements do at this moment. Of an element that cannot be
    /// read, what it must do is taken, and the inventory's word for its routing.
    pub async fn trace(&self, packet: Packet) -> Trace {
        let (state, base) = (self.installed().await, base_routing(&self.connections()).await);
        trace(&self.intent.network(&state, &base), packet)
    }

    /// What holds of the chains of a tenant, or of all: of what all elements do at this moment, or of what they are to do,
    /// over the routing that they have at this moment.
    pub async fn verify(&self, tenant: Option<&TenantName>, observed: bool) -> Report {
        let base = base_routing(&self.connections()).await;
        let installed;
        let state = match observed {
            true => {
                installed = self.installed().await;
                &installed
            }
            false => &self.intent.desired,
        };
        verify(&self.intent.network(state, &base), tenant)
    }

    /// What all elements do; of one that cannot be read, what it must do.
    async fn installed(&self) -> ForwardingState {
        let connections = self.connections();
        let mut state = self.intent.expected.clone();
        for (name, installed) in observe(connections.keys(), &connections).await {
            match installed {
                Ok(installed) => drop(state.elements.insert(name, installed)),
                Err(error) => tracing::debug!(element = %name, error = chain_of(&error), "cannot be read"),
            }
        }
        state
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

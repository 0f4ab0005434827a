//! Where a packet goes, as far as it can be told from what is really installed.

use std::collections::BTreeMap;

use catena_model::forwarding::ForwardingState;
use catena_model::packet::Packet;
use catena_verify::{Network, Trace, trace};
use futures::future::join_all;

use crate::error::chain_of;
use crate::execute::observe;
use crate::view::View;

impl View {
    /// The way of `packet` and of its reply through what all elements do at this moment. Of an element that cannot be
    /// read, what it must do is taken, and the inventory's word for its routing.
    pub async fn trace(&self, packet: Packet) -> Trace {
        let connections = self.connections();
        let mut state = self.intent.expected.clone();
        for (name, installed) in observe(connections.keys(), &connections).await {
            match installed {
                Ok(installed) => drop(state.elements.insert(name, installed)),
                Err(error) => tracing::debug!(element = %name, error = chain_of(&error), "cannot be read"),
            }
        }
        self.walk(&state, packet).await
    }

    async fn walk(&self, state: &ForwardingState, packet: Packet) -> Trace {
        let connections = self.connections();
        let bases =
            connections.iter().map(async |(name, connection)| (name.clone(), connection.base().await));
        let mut base = BTreeMap::new();
        for (name, found) in join_all(bases).await {
            match found {
                Ok(Some(found)) => drop(base.insert(name, found)),
                Ok(None) => {}
                Err(error) => tracing::debug!(element = %name, error = chain_of(&error), "no base routing"),
            }
        }
        let intent = &self.intent;
        let network = Network {
            model: &intent.model,
            topology: &intent.topology,
            state,
            base: &base,
            numbering: &intent.numbering,
        };
        trace(&network, packet)
    }
}

//! Old paths: kept as long as flows are on them, then taken away.

use std::collections::BTreeSet;
use std::sync::Arc;

use catena_model::count::counted;
use catena_model::forwarding::PathId;
use catena_model::name::NodeName;
use futures::future::join_all;

use crate::core::Core;
use crate::error::chain_of;
use crate::events::About;
use crate::report::{EventKind, Timestamp};

impl Core {
    /// Counts the flows on the retained paths, and takes away those that have none left or whose time is over.
    pub(crate) async fn drain(&mut self) {
        self.count_flows().await;
        if self.only_looks() {
            return;
        }
        let now = Timestamp::now();
        let retained = self.intent.retained.iter();
        let over: Vec<(NodeName, PathId, Option<u64>)> = retained
            .filter_map(|(name, path, retiree)| {
                let flows = self.flows.get(&(name.clone(), path)).copied();
                (flows == Some(0) || now >= retiree.deadline).then(|| (name.clone(), path, flows))
            })
            .collect();
        if over.is_empty() {
            return;
        }
        let names = Arc::clone(&self.names);
        let mut kept = self.intent.retained.clone();
        over.iter().for_each(|(name, path, _)| kept.remove(name, *path));
        let mut intent = (*self.intent).clone().retaining(kept);
        if let Err(error) = self.records.replace(&self.intent, &mut intent, &self.journal).await {
            tracing::warn!(error = chain_of(&error), "cannot remember that paths have drained; trying again");
            return;
        }
        self.adopt(intent);
        let elements: BTreeSet<NodeName> = over.iter().map(|(name, ..)| name.clone()).collect();
        self.take_away(&elements).await;
        for (name, path, flows) in over {
            let why = match flows {
                Some(0) => "its flows have ended".to_owned(),
                Some(left) => format!("its time is over, with {} left", counted(left as usize, "flow")),
                None => "its time is over".to_owned(),
            };
            let chain = names.chain(path).cloned();
            let message = format!("{name}: {} goes: {why}", names.path(path));
            self.events.record(EventKind::Drained, About { element: Some(name), chain }, message);
        }
    }

    async fn count_flows(&mut self) {
        let connections = self.connected();
        let retained: Vec<(NodeName, PathId)> =
            self.intent.retained.iter().map(|(name, path, _)| (name.clone(), path)).collect();
        let count = async |(name, path): (NodeName, PathId)| {
            let flows = match connections.get(&name) {
                Some(connection) => connection.live_flows(path).await.ok(),
                None => None,
            };
            flows.map(|flows| ((name, path), flows))
        };
        self.flows = join_all(retained.into_iter().map(count)).await.into_iter().flatten().collect();
    }
}

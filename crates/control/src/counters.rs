//! What was counted, with names in place of numbers.

use std::collections::BTreeMap;

use catena_driver::{Counted, Counter};
use catena_model::name::{FunctionName, InstanceName, NodeName};
use catena_model::numbering::PathOwner;
use futures::future::join_all;

use crate::error::chain_of;
use crate::report::{CountedKind, CounterReport};
use crate::view::View;

impl View {
    /// The counters of all elements that can be read now.
    pub async fn counters(&self) -> Vec<CounterReport> {
        let connections = self.connections();
        let read = connections.iter().map(async |(name, connection)| (name, connection.counters().await));
        let functions = self.functions();
        let mut reports = Vec::new();
        for (name, counters) in join_all(read).await {
            match counters {
                Ok(counters) => {
                    reports.extend(counters.iter().map(|counter| self.counter(name, counter, &functions)));
                }
                Err(error) => {
                    tracing::debug!(element = %name, error = chain_of(&error), "cannot read counters")
                }
            }
        }
        reports
    }

    fn functions(&self) -> BTreeMap<&InstanceName, &FunctionName> {
        let functions = self.intent.model.functions.values();
        functions.flat_map(|f| f.instances.iter().map(|instance| (&instance.name, &f.name))).collect()
    }

    fn counter(
        &self,
        element: &NodeName,
        counter: &Counter,
        functions: &BTreeMap<&InstanceName, &FunctionName>,
    ) -> CounterReport {
        let blank = |counted| CounterReport {
            element: element.clone(),
            counted,
            chain: None,
            site: None,
            path: None,
            generation: None,
            position: None,
            function: None,
            instance: None,
            direction: None,
            reason: None,
            packets: counter.packets,
            bytes: counter.bytes,
        };
        let of_path = |counted, path, direction| CounterReport {
            chain: self.names.chain(path).cloned(),
            site: self.names.owner(path).map(PathOwner::site).cloned(),
            path: Some(path),
            generation: self.names.generation(path),
            direction: Some(direction),
            ..blank(counted)
        };
        let of_site = |counted, site, direction| CounterReport {
            site: self.names.site_name(site).cloned(),
            direction,
            ..blank(counted)
        };
        match counter.of {
            Counted::Hop { path, position, instance, direction } => {
                let instance = self.names.instance_name(instance).cloned();
                let function = instance.as_ref().and_then(|name| functions.get(name)).copied().cloned();
                let position = Some(position);
                CounterReport { position, function, instance, ..of_path(CountedKind::Hop, path, direction) }
            }
            Counted::Returned { instance, direction } => {
                let instance = self.names.instance_name(instance).cloned();
                let function = instance.as_ref().and_then(|name| functions.get(name)).copied().cloned();
                let direction = Some(direction);
                CounterReport { function, instance, direction, ..blank(CountedKind::Returned) }
            }
            Counted::Exit { path, direction } => of_path(CountedKind::Exit, path, direction),
            Counted::Transit { site, direction } => of_site(CountedKind::Transit, site, Some(direction)),
            Counted::Claimed { site, direction } => of_site(CountedKind::Claimed, site, Some(direction)),
            Counted::Encapsulated { site } => of_site(CountedKind::Encapsulated, site, None),
            Counted::Decapsulated { site } => of_site(CountedKind::Decapsulated, site, None),
            Counted::Dropped { path, reason } => CounterReport {
                reason: Some(reason),
                chain: path.and_then(|path| self.names.chain(path)).cloned(),
                site: path.and_then(|path| self.names.owner(path)).map(PathOwner::site).cloned(),
                path,
                generation: path.and_then(|path| self.names.generation(path)),
                ..blank(CountedKind::Dropped)
            },
        }
    }
}

//! What was counted, with names in place of numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use catena_driver::{Counted, Counter, DriverError};
use catena_model::forwarding::PathId;
use catena_model::name::{FunctionName, InstanceName, NodeName, SiteName, TenantName};
use catena_model::numbering::PathOwner;
use futures::future::join_all;

use crate::drivers::Connection;
use crate::error::chain_of;
use crate::report::{CountedKind, CounterReport, CountersReport, UnreadElement};
use crate::tracked::Tracked;
use crate::view::View;

/// How long one element's counters are waited for: who looks at all elements is not held up by one that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

impl View {
    /// The counters of all elements, and which elements they could not be read of.
    pub async fn counters(&self) -> CountersReport {
        let read = self.elements.values().map(async |tracked| (tracked.name(), read(tracked).await));
        let functions = self.functions_of_instances();
        let mut report = CountersReport::default();
        for (name, counters) in join_all(read).await {
            match counters {
                Ok(counters) => {
                    let counters = counters.iter().map(|counter| self.counter(name, counter, &functions));
                    report.counters.extend(counters);
                }
                Err(why) => report.unread.push(UnreadElement { element: name.clone(), why }),
            }
        }
        report
    }

    fn functions_of_instances(&self) -> BTreeMap<&InstanceName, &FunctionName> {
        let functions = self.intent.model.functions.values();
        functions.flat_map(|f| f.instances.iter().map(|instance| (&instance.name, &f.name))).collect()
    }

    fn tenant_of(&self, site: &SiteName) -> Option<&TenantName> {
        self.intent.model.sites.get(site).map(|site| &site.tenant)
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
            tenant: None,
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
        let of_path = |counted, path| {
            let site = self.names.owner(path).map(PathOwner::site);
            CounterReport {
                tenant: site.and_then(|site| self.tenant_of(site)).cloned(),
                chain: self.names.chain(path).cloned(),
                site: site.cloned(),
                path: Some(path),
                generation: self.names.generation(path),
                ..blank(counted)
            }
        };
        let of_site = |counted, site, direction| {
            let site = self.names.site_name(site);
            CounterReport {
                tenant: site.and_then(|site| self.tenant_of(site)).cloned(),
                site: site.cloned(),
                direction,
                ..blank(counted)
            }
        };
        let of_instance = |report: CounterReport, instance, direction| {
            let instance = self.names.instance_name(instance).cloned();
            let function = instance.as_ref().and_then(|name| functions.get(name)).copied().cloned();
            CounterReport { function, instance, direction: Some(direction), ..report }
        };
        match counter.of {
            Counted::Hop { path: PathId::NOWHERE, position: _, instance, direction } => {
                of_instance(blank(CountedKind::Hop), instance, direction)
            }
            Counted::Hop { path, position, instance, direction } => {
                let position = Some(position);
                let hop = CounterReport { position, ..of_path(CountedKind::Hop, path) };
                of_instance(hop, instance, direction)
            }
            Counted::Returned { instance, direction } => {
                of_instance(blank(CountedKind::Returned), instance, direction)
            }
            Counted::Exit { path, direction } => {
                CounterReport { direction: Some(direction), ..of_path(CountedKind::Exit, path) }
            }
            Counted::Transit { site, direction } => of_site(CountedKind::Transit, site, Some(direction)),
            Counted::Claimed { site, direction } => of_site(CountedKind::Claimed, site, Some(direction)),
            Counted::Encapsulated { site } => of_site(CountedKind::Encapsulated, site, None),
            Counted::Decapsulated { site } => of_site(CountedKind::Decapsulated, site, None),
            Counted::Dropped { path: Some(path), reason } => {
                CounterReport { reason: Some(reason), ..of_path(CountedKind::Dropped, path) }
            }
            Counted::Dropped { path: None, reason } => {
                CounterReport { reason: Some(reason), ..blank(CountedKind::Dropped) }
            }
        }
    }
}

/// The counters of one element, or why there are none.
async fn read(tracked: &Tracked) -> Result<Vec<Counter>, String> {
    let Some(connection) = &tracked.connection else {
        return Err(tracked.last_error.clone().unwrap_or_else(|| "it cannot be reached".to_owned()));
    };
    within_patience(connection).await.map_err(|error| chain_of(&error))
}

async fn within_patience(connection: &Connection) -> Result<Vec<Counter>, DriverError> {
    tokio::time::timeout(PATIENCE, connection.counters()).await.unwrap_or_else(|elapsed| {
        Err(DriverError::failed(format!("the driver gave no answer within {PATIENCE:?}"), elapsed))
    })
}

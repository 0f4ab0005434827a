//! Carrying out a plan, without choices: step by step, reading back what later steps rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_driver::{DriverError, Epoch};
use catena_model::forwarding::{Change, ElementState};
use catena_model::name::NodeName;
use catena_plan::{Phase, Plan, Step};
use futures::future::join_all;

use crate::drivers::Connection;
use crate::error::StepError;
use crate::words::Names;

/// Those elements that can be reached.
pub type Connections = BTreeMap<NodeName, Arc<Connection>>;

/// Where a plan stopped.
#[derive(Debug)]
pub struct Failure {
    pub element: NodeName,
    pub phase: Phase,
    pub source: StepError,
    /// All that may have been done, the failed step included.
    pub executed: Plan,
}

/// Takes the steps of a plan in order, up to the first that fails.
pub async fn execute(
    plan: &Plan,
    epoch: Epoch,
    connections: &Connections,
    names: &Names,
) -> Result<(), Box<Failure>> {
    for (index, step) in plan.steps.iter().enumerate() {
        let fail = |element: &NodeName, source| {
            let executed = Plan { steps: plan.steps[..=index].to_vec() };
            Box::new(Failure { element: element.clone(), phase: step.phase, source, executed })
        };
        apply(step, epoch, connections, names).await.map_err(|error| fail(&step.element, error.into()))?;
        let next = plan.steps.get(index + 1);
        if next.is_some_and(|next| next.phase != step.phase) {
            let done = plan.steps[..=index].iter().filter(|done| done.phase == step.phase);
            confirm(done, connections, names).await.map_err(|(element, error)| fail(&element, error))?;
        }
    }
    Ok(())
}

/// What is installed on each of the elements.
pub async fn observe<'a>(
    elements: impl IntoIterator<Item = &'a NodeName>,
    connections: &Connections,
) -> BTreeMap<NodeName, Result<ElementState, DriverError>> {
    let observe = async |name: &NodeName| match connections.get(name) {
        Some(connection) => (name.clone(), connection.observe().await),
        None => (name.clone(), Err(not_connected(name))),
    };
    join_all(elements.into_iter().map(observe)).await.into_iter().collect()
}

async fn apply(
    step: &Step,
    epoch: Epoch,
    connections: &Connections,
    names: &Names,
) -> Result<(), DriverError> {
    let Step { phase, element, changes } = step;
    let Some(connection) = connections.get(element) else { return Err(not_connected(element)) };
    connection.apply(epoch, changes).await?;
    for change in changes {
        tracing::info!(epoch = epoch.0, %element, %phase, "{}", names.change(change));
    }
    Ok(())
}

/// Reads back that everything the steps have put is there.
async fn confirm<'a>(
    steps: impl Iterator<Item = &'a Step>,
    connections: &Connections,
    names: &Names,
) -> Result<(), (NodeName, StepError)> {
    let mut put: BTreeMap<&NodeName, Vec<&Change>> = BTreeMap::new();
    for step in steps {
        let changes = step.changes.iter().filter(|change| matches!(change, Change::Put { .. }));
        put.entry(&step.element).or_default().extend(changes);
    }
    put.retain(|_, changes| !changes.is_empty());
    let elements: BTreeSet<&NodeName> = put.keys().copied().collect();
    for (element, found) in observe(elements, connections).await {
        let found = found.map_err(|error| (element.clone(), error.into()))?;
        let expected = put.get(&element).into_iter().flatten();
        if let Some(missing) = expected.map(|change| change.object()).find(|object| !found.contains(object)) {
            let missing = names.object(missing);
            return Err((element, StepError::NotConfirmed { missing }));
        }
    }
    Ok(())
}

pub fn not_connected(element: &NodeName) -> DriverError {
    DriverError::failed(format!("element {element} cannot be reached"), "it has no connection at the moment")
}

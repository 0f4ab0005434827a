//! From what is installed and what must be to ordered steps. Pure; knows forwarding state and cables, no resources, no
//! drivers.
//!
//! The order makes before it breaks. Objects that nobody uses yet come first ([`Phase::Install`]); then the classifiers
//! that put them to use, from the far end of each way back towards the sender, so that an element that receives is ready
//! before the element that sends to it ([`Phase::Flip`]); then classifiers that go, from the sender onwards
//! ([`Phase::Withdraw`]); last what nobody uses any more ([`Phase::Remove`]). The end of a tunnel lets packets in like a
//! classifier, and comes and goes with them.
//!
//! Who executes a plan confirms, by observing, that all is there after the last step of `Install` and of `Flip`, and
//! waits until no flow is left on what `Remove` takes away: see [`draining`].
//!
//! Start reading at [`plan`].

mod difference;
mod drain;
mod rank;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use catena_model::forwarding::{Change, ForwardingState};
use catena_model::name::NodeName;
use catena_model::topology::Topology;
use serde::{Deserialize, Serialize};

pub use drain::draining;

use rank::{Rank, Ranks};

/// Steps to be taken one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// Changes of one element that can be made together, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub phase: Phase,
    pub element: NodeName,
    pub changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Put what no packet uses yet.
    Install,
    /// Put what lets packets through, in place of older ones or as new ones: packets begin to use what was installed.
    Flip,
    /// Take away what lets packets through.
    Withdraw,
    /// Take away what no packet uses any more.
    Remove,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Install => "install",
            Phase::Flip => "flip",
            Phase::Withdraw => "withdraw",
            Phase::Remove => "remove",
        })
    }
}

/// The steps that turn `installed` into `desired`; none if they are the same.
pub fn plan(installed: &ForwardingState, desired: &ForwardingState, topology: &Topology) -> Plan {
    let new_ranks = Ranks::new(desired, installed, topology);
    let old_ranks = Ranks::new(installed, installed, topology);
    // Within a phase, steps go by rank. Rank then element is the key, so that equal ones make one step.
    let mut steps: BTreeMap<(Phase, Rank, &NodeName), Vec<Change>> = BTreeMap::new();
    let elements: BTreeSet<&NodeName> = installed.elements.keys().chain(desired.elements.keys()).collect();
    for element in elements {
        for change in difference::changes(installed.element(element), desired.element(element)) {
            let (phase, rank) = match &change {
                Change::Put { new, old } => match new_ranks.of_put(element, new, old.as_ref()) {
                    Some(rank) => (Phase::Flip, rank),
                    None => (Phase::Install, new_ranks.of_element(element)),
                },
                Change::Delete { old } => match old_ranks.of_delete(element, old) {
                    Some(rank) => (Phase::Withdraw, rank),
                    None => (Phase::Remove, old_ranks.of_element(element).reversed()),
                },
            };
            steps.entry((phase, rank, element)).or_default().push(change);
        }
    }
    let steps = steps.into_iter();
    Plan {
        steps: steps
            .map(|((phase, _, element), changes)| Step { phase, element: element.clone(), changes })
            .collect(),
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What `state` becomes.
    pub fn apply_to(&self, state: &mut ForwardingState) {
        for step in &self.steps {
            let element = state.elements.entry(step.element.clone()).or_default();
            step.changes.iter().for_each(|change| element.apply(change));
        }
        state.elements.retain(|_, element| !element.is_empty());
    }
}

//! Verifying one state of the network after the other: each time only what differs from the last is looked at.

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::Model;
use catena_model::topology::Topology;
use catena_verify::{Broken, Network, Report, Touched, Verifier};

use crate::intent::Intent;

/// What was last verified.
#[derive(Default)]
pub struct Prover {
    last: Option<Last>,
    #[cfg(test)]
    panics: bool,
}

struct Last {
    model: Model,
    topology: Topology,
    state: ForwardingState,
    base: BTreeMap<NodeName, BaseRouting>,
    numbering: Numbering,
    verifier: Verifier,
}

/// What holds of the chains, and all that does not.
#[derive(Clone, Debug)]
pub struct Proof {
    pub report: Report,
    pub broken: Vec<Broken>,
}

impl Prover {
    #[cfg(test)]
    pub fn that_panics() -> Self {
        Self { panics: true, ..Self::default() }
    }

    /// What holds of `intent`'s chains where all elements do as `state` says, over this routing of their owners.
    pub fn prove(
        &mut self,
        intent: &Intent,
        state: &ForwardingState,
        base: &BTreeMap<NodeName, BaseRouting>,
    ) -> Proof {
        #[cfg(test)]
        assert!(!self.panics, "a mistake of ours");
        let network = intent.network(state, base);
        let verifier = match self.last.take() {
            Some(Last { model, topology, state, base, numbering, mut verifier }) => {
                let last = Network {
                    model: &model,
                    topology: &topology,
                    state: &state,
                    base: &base,
                    numbering: &numbering,
                };
                verifier.update(&network, &Touched::between(&last, &network));
                verifier
            }
            None => Verifier::new(&network),
        };
        let proof = Proof { report: verifier.report().clone(), broken: verifier.broken().cloned().collect() };
        self.last = Some(Last {
            model: intent.model.clone(),
            topology: intent.topology.clone(),
            state: state.clone(),
            base: base.clone(),
            numbering: intent.numbering.clone(),
            verifier,
        });
        proof
    }
}

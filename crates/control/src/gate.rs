//! The gate: what a change would break is found out before anything is touched.
//!
//! What is verified is the desired state as it is once the change is made. While an old and a new path stand side by
//! side, each packet is on one of the two, and either has passed the gate.

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::{ChainName, NodeName, SiteName};
use catena_model::numbering::Numbering;
use catena_model::resource::Model;
use catena_model::topology::Topology;
use catena_verify::{Network, Property, Report, Touched, Undecided, Verifier, Violation};

use crate::error::ApplyError;
use crate::intent::{Intent, Terms};
use crate::report::{GivenUp, Promise, Timestamp};

/// What was last verified, so that the next time only what differs from it is.
#[derive(Default)]
pub struct Gate(Option<Last>);

struct Last {
    model: Model,
    topology: Topology,
    state: ForwardingState,
    base: BTreeMap<NodeName, BaseRouting>,
    numbering: Numbering,
    verifier: Verifier,
}

impl Gate {
    /// What holds of the chains where all elements do as `intent` desires, over this routing of their owners.
    fn verify(&mut self, intent: &Intent, base: &BTreeMap<NodeName, BaseRouting>) -> Report {
        let network = intent.network(&intent.desired, base);
        let verifier = match self.0.take() {
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
        let report = verifier.report().clone();
        self.0 = Some(Last {
            model: intent.model.clone(),
            topology: intent.topology.clone(),
            state: intent.desired.clone(),
            base: base.clone(),
            numbering: intent.numbering.clone(),
            verifier,
        });
        report
    }
}

/// What holds of the chains once a change is made, which may be made.
#[derive(Clone, Debug)]
pub struct Judged {
    pub report: Report,
    /// Of what does not hold, that which somebody has given up, now or before.
    pub given_up: Vec<GivenUp>,
}

/// Refuses a change that breaks a promise, unless `terms` give it up or somebody did before. What was broken already
/// refuses nothing: who repairs one thing need not repair all others first.
pub fn judge(
    gate: &mut Gate,
    old: &Intent,
    new: &Intent,
    base: &BTreeMap<NodeName, BaseRouting>,
    terms: &Terms,
) -> Result<Judged, ApplyError> {
    let report = gate.verify(new, base);
    let mut given_up: Vec<GivenUp> =
        old.given_up.iter().filter_map(|old| still_given_up(old, &report)).collect();
    let is_settled =
        |violation: &Violation| given_up.iter().any(|settled| settled.promise.is_broken_by(violation));
    let unsettled: Vec<&Violation> =
        report.violations.iter().filter(|violation| !is_settled(violation)).collect();
    if !unsettled.is_empty() {
        let before = gate.verify(old, base).violations;
        let is_new = |violation: &&Violation| !before.iter().any(|before| stood(before, violation, new));
        let (allowed, refused): (Vec<&Violation>, Vec<&Violation>) = unsettled
            .into_iter()
            .filter(is_new)
            .partition(|violation| terms.allow.contains(&violation.property));
        if !refused.is_empty() {
            return Err(ApplyError::Violates(refused.into_iter().cloned().collect()));
        }
        let at = Timestamp::now();
        given_up.extend(allowed.into_iter().map(|violation| GivenUp {
            promise: Promise::broken_by(violation),
            by: terms.by.clone(),
            at,
        }));
    }
    Ok(Judged { report, given_up })
}

/// Whether `violation` is what was violated `before`, and no doing of the change to `new`.
fn stood(before: &Violation, violation: &Violation, new: &Intent) -> bool {
    // What a chain that is gone has left behind is told of another one of its site.
    let heir = Violation { chain: violation.chain.clone(), ..before.clone() };
    let before = if new.serves(&before.chain, &before.site) { before } else { &heir };
    Promise::broken_by(before).is_broken_by(violation)
}

/// `None` if it holds again.
fn still_given_up(given_up: &GivenUp, report: &Report) -> Option<GivenUp> {
    let Promise { chain, site, direction, .. } = &given_up.promise;
    let unknown = |undecided: &Undecided| {
        (&undecided.chain, &undecided.site, &undecided.direction) == (chain, site, direction)
    };
    match report.violations.iter().find(|violation| given_up.promise.is_broken_by(violation)) {
        Some(violation) => Some(GivenUp { promise: Promise::broken_by(violation), ..given_up.clone() }),
        None => report.undecided.iter().any(unknown).then(|| given_up.clone()),
    }
}

impl Promise {
    pub fn broken_by(violation: &Violation) -> Self {
        let Violation { property, chain, site, direction, .. } = violation;
        Self { property: *property, chain: chain.clone(), site: site.clone(), direction: *direction }
    }

    pub fn is_broken_by(&self, violation: &Violation) -> bool {
        (self.property, &self.site, self.direction)
            == (violation.property, &violation.site, violation.direction)
            && (is_of_site(self.property) || self.chain == violation.chain)
    }
}

/// Whether a property is a site's: what breaks it is told of any one of its chains.
pub fn is_of_site(property: Property) -> bool {
    matches!(property, Property::Isolation | Property::UnclaimedUntouched)
}

impl Intent {
    pub(crate) fn serves(&self, chain: &ChainName, site: &SiteName) -> bool {
        self.model.chains.get(chain).is_some_and(|chain| chain.sites.contains(site))
    }
}

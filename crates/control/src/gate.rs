//! The gate: what a change would break is found out before anything is touched.
//!
//! What is verified is the desired state as it is once the change is made. While an old and a new path stand side by
//! side, each packet is on one of the two, and either has passed the gate.
//!
//! Breaks are compared by the packets for which something is broken: what stood before the change, or was given up, covers
//! those packets and no others.

use std::collections::BTreeMap;

use catena_model::base::BaseRouting;
use catena_model::name::{ChainName, NodeName, SiteName};
use catena_verify::{Broken, Network, Property, Report, Undecided, Violation};
use serde::{Deserialize, Serialize};

use crate::by_site::BySite;
use crate::error::{ApplyError, Refusal};
use crate::hold::{Digest, Judgement};
use crate::intent::{Intent, Terms};
use crate::prover::{Proof, Prover};
use crate::report::{GivenUp, Promise, Timestamp};

/// Somebody's leave to break a promise for some packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiver {
    pub given_up: GivenUp,
    pub broken: Vec<Broken>,
}

/// What holds of the chains once a change is made, which may be made.
#[derive(Clone, Debug)]
pub struct Judged {
    pub report: Report,
    /// Of what does not hold, that which somebody has given up, now or before.
    pub waivers: Vec<Waiver>,
    /// All that does not hold.
    pub broken: Vec<Broken>,
}

impl Judged {
    /// Has `intent`, of which it is, remember that it was let through. Gives back what holds of it.
    pub fn note_in(self, intent: &mut Intent) -> Report {
        let Self { report, waivers, broken } = self;
        intent.waivers = waivers;
        intent.judgement = Judgement { desired: Digest::of(&intent.desired), broken };
        report
    }
}

/// Refuses a change that breaks a promise, or may break it, unless `terms` give it up or somebody did before. What was broken
/// already refuses nothing: who repairs one thing need not repair all others first. If `terms` give that up it is put on
/// record all the same.
pub fn judge(
    prover: &mut Prover,
    old: &Intent,
    new: &Intent,
    base: &BTreeMap<NodeName, BaseRouting>,
    terms: &Terms,
) -> Result<Judged, ApplyError> {
    let proof = prover.prove(new, &new.desired, base);
    // What was never let through is nothing that stood.
    let before = || match old.is_judged() {
        true => prover.prove(old, &old.desired, base).broken,
        false => old.judgement.broken.clone(),
    };
    weigh(proof, &new.network(&new.desired, base), &old.waivers, terms, before).map_err(ApplyError::Violates)
}

/// The same of what was found; `before` says what was broken without the change.
fn weigh(
    Proof { report, broken }: Proof,
    network: &Network,
    waivers: &[Waiver],
    terms: &Terms,
    before: impl FnOnce() -> Vec<Broken>,
) -> Result<Judged, Refusal> {
    let mut waivers = still_used(waivers, &broken, &report);
    let settled = BySite::new(waivers.iter().flat_map(|waiver| &waiver.broken));
    let unsettled = broken.iter().filter_map(|broken| broken.beyond(settled.of(&broken.site)));
    let (allowed, others): (Vec<Broken>, Vec<Broken>) =
        unsettled.partition(|broken| terms.allow.contains(&broken.property));
    if !others.is_empty() {
        let before = before();
        let refused = beyond(&others, &before);
        if !refused.is_empty() {
            return Err(told(&refused, &report, network));
        }
    }
    waivers.extend(given_up(allowed, terms));
    Ok(Judged { report, waivers, broken })
}

/// What is broken beyond what was so `before`.
pub fn beyond(broken: &[Broken], before: &[Broken]) -> Vec<Broken> {
    let before = BySite::new(before);
    broken.iter().filter_map(|broken| broken.beyond(before.of(&broken.site))).collect()
}

/// Of `waivers` those that something still needs of which this was found, as far as it does.
fn still_used(waivers: &[Waiver], broken: &[Broken], report: &Report) -> Vec<Waiver> {
    let (broken, undecided) = (BySite::new(broken), BySite::new(&report.undecided));
    waivers.iter().filter_map(|waiver| waiver.still_used(&broken, &undecided)).collect()
}

/// The same for what is seen at one moment, which is no answer to a request: leave ends at a site where all holds, and not while
/// something else there keeps packets from going astray.
pub fn still_needed(waivers: &[Waiver], Proof { report, broken }: &Proof) -> Vec<Waiver> {
    let (broken, undecided) = (BySite::new(broken), BySite::new(&report.undecided));
    let is_well = |site| broken.of(site).next().is_none() && undecided.of(site).next().is_none();
    waivers.iter().filter(|waiver| !is_well(&waiver.given_up.promise.site)).cloned().collect()
}

/// What is put on record: each promise once.
fn given_up(allowed: Vec<Broken>, terms: &Terms) -> Vec<Waiver> {
    let at = Timestamp::now();
    let mut promises: BTreeMap<Promise, Vec<Broken>> = BTreeMap::new();
    for broken in allowed {
        promises.entry(Promise::of(&broken)).or_default().push(broken);
    }
    let given_up = |promise| GivenUp { promise, by: terms.by.clone(), at };
    promises.into_iter().map(|(promise, broken)| Waiver { given_up: given_up(promise), broken }).collect()
}

impl Waiver {
    /// As far as what it gave up is broken still, or cannot be told; `None` if all of that holds again.
    fn still_used(&self, broken: &BySite<Broken>, undecided: &BySite<Undecided>) -> Option<Self> {
        let site = &self.given_up.promise.site;
        let mut still: Vec<Broken> =
            broken.of(site).filter_map(|broken| broken.within(&self.broken)).collect();
        if undecided.of(site).next().is_some() {
            still.clone_from(&self.broken);
        }
        let given_up = GivenUp { promise: Promise::of(still.first()?), ..self.given_up.clone() };
        Some(Self { given_up, broken: still })
    }
}

/// Each promise that is refused once, with a packet that shows it, if there is one.
pub fn told(refused: &[Broken], report: &Report, network: &Network) -> Refusal {
    let mut refusal = Refusal::default();
    let (violations, undecided) = (BySite::new(&report.violations), BySite::new(&report.undecided));
    for of_site in BySite::new(refused).sites() {
        let mut promises: Vec<Promise> = Vec::new();
        for broken in of_site {
            let promise = Promise::of(broken);
            if promises.contains(&promise) {
                continue;
            }
            let known: Vec<&Violation> =
                violations.of(&broken.site).filter(|known| promise.is_broken_by(known)).collect();
            let is_shown = |broken: &&Broken| {
                known.iter().find(|known| {
                    known.without == broken.without && broken.has(&known.entry, &known.walk.packet)
                })
            };
            let of_promise = |broken: &&&Broken| Promise::of(broken) == promise;
            let shown = of_site.iter().filter(of_promise).find_map(is_shown).map(|known| (*known).clone());
            match shown.or_else(|| with_another_packet(broken, &known, network)) {
                Some(violation) => refusal.violations.push(violation),
                None => refusal.undecided.push(without_packet(broken, undecided.of(&broken.site))),
            }
            promises.push(promise);
        }
    }
    refusal
}

/// What is `known` by a packet for which it stood before, with one for which it did not.
fn with_another_packet(broken: &Broken, known: &[&Violation], network: &Network) -> Option<Violation> {
    let known = *known.iter().find(|known| known.without == broken.without)?;
    if broken.without.is_some() {
        return Some(known.clone());
    }
    let walk = broken.example(network)?;
    let (what, entry) = (broken.what.clone(), broken.entry.clone());
    Some(Violation { chain: broken.chain.clone(), what, entry, walk, ..known.clone() })
}

fn without_packet<'u>(broken: &Broken, mut undecided: impl Iterator<Item = &'u Undecided>) -> Undecided {
    let promise = Promise::of(broken);
    let known = undecided.find(|undecided| promise.is_feared_by(undecided));
    known.cloned().unwrap_or_else(|| Undecided {
        property: Some(broken.property),
        chain: broken.chain.clone(),
        site: broken.site.clone(),
        direction: broken.direction,
        what: broken.what.clone(),
        entry: Some(broken.entry.clone()),
        walk: None,
    })
}

impl Promise {
    pub fn of(broken: &Broken) -> Self {
        let Broken { property, chain, site, direction, .. } = broken;
        Self { property: *property, chain: chain.clone(), site: site.clone(), direction: *direction }
    }

    pub fn broken_by(violation: &Violation) -> Self {
        let Violation { property, chain, site, direction, .. } = violation;
        Self { property: *property, chain: chain.clone(), site: site.clone(), direction: *direction }
    }

    /// What may be broken; `None` if it is not known what.
    pub fn feared_by(undecided: &Undecided) -> Option<Self> {
        let Undecided { property, chain, site, direction, .. } = undecided;
        let (chain, site, direction) = (chain.clone(), site.clone(), *direction);
        property.map(|property| Self { property, chain, site, direction })
    }

    pub fn is_broken_by(&self, violation: &Violation) -> bool {
        self.is_about(&Self::broken_by(violation))
    }

    pub fn is_feared_by(&self, undecided: &Undecided) -> bool {
        Self::feared_by(undecided).is_some_and(|feared| self.is_about(&feared))
    }

    /// Whether the two are the same: which of a site's chains it is told of may not matter.
    pub(crate) fn is_about(&self, other: &Self) -> bool {
        (self.property, &self.site, self.direction) == (other.property, &other.site, other.direction)
            && (is_of_site(self.property) || self.chain == other.chain)
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

#[cfg(test)]
mod tests {
    use catena_model::forwarding::ForwardingState;
    use catena_verify::{Coverage, Verdict};

    use super::*;

    /// For all packets that an address sends by one entry.
    fn broken(property: Property, from: u32) -> Broken {
        let all = u128::MAX;
        let text = format!(
            r#"{{
                "property": "{property}", "chain": "web", "site": "hq", "direction": "down",
                "what": "replies may pass another instance", "entry": {{"node": "core", "port": "inet"}},
                "packets": [{{
                    "family": "v4", "kinds": 1, "senders": {{"first": 0, "last": 4294967295}},
                    "source": {{"first": {from}, "last": {from}}},
                    "destination": {{"first": 0, "last": 4294967295}}, "protocols": [{all}, {all}],
                    "sourcePorts": {{"first": 0, "last": 65535}},
                    "destinationPorts": {{"first": 0, "last": 65535}}, "dscps": 1
                }}]
            }}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn feared(broken: &Broken) -> Undecided {
        without_packet(broken, std::iter::empty())
    }

    fn report(undecided: Vec<Undecided>) -> Report {
        let coverage = Coverage::default();
        Report { verdict: Verdict::Undecided, coverage, violations: Vec::new(), undecided }
    }

    fn weighed(
        now: &[Broken],
        waivers: &[Waiver],
        allow: &[Property],
        before: &[Broken],
    ) -> Result<Vec<Waiver>, Refusal> {
        let (intent, state, base) = (Intent::default(), ForwardingState::default(), BTreeMap::new());
        let proof = Proof { report: report(now.iter().map(feared).collect()), broken: now.to_vec() };
        let terms =
            Terms { allow: allow.iter().copied().collect(), by: "root".to_owned(), ..Terms::default() };
        weigh(proof, &intent.network(&state, &base), waivers, &terms, || before.to_vec())
            .map(|judged| judged.waivers)
    }

    #[test]
    fn what_may_be_broken_is_refused_although_no_packet_shows_it() {
        let one = broken(Property::SameWayBack, 1);
        let refusal = weighed(std::slice::from_ref(&one), &[], &[Property::NoLoop], &[]).unwrap_err();
        assert_eq!((&refusal.violations[..], &refusal.undecided[..]), (&[][..], &[feared(&one)][..]));
        let error = ApplyError::Violates(refusal);
        assert!(error.to_string().contains("same-way-back of chain web for site hq, down"), "{error}");
        assert!(error.help().unwrap().contains("--allow same-way-back"), "{:?}", error.help());

        let waivers = weighed(std::slice::from_ref(&one), &[], &[Property::SameWayBack], &[]).unwrap();
        assert_eq!((waivers.len(), waivers[0].given_up.by.as_str()), (1, "root"));
        assert_eq!(waivers[0].broken, [one]);
    }

    #[test]
    fn what_is_given_up_or_stood_before_is_so_for_its_packets_alone() {
        let (one, other) = (broken(Property::NoBypass, 1), broken(Property::NoBypass, 2));
        let both = [one.clone(), other.clone()];
        let first = std::slice::from_ref(&one);
        let waivers = weighed(first, &[], &[Property::NoBypass], &[]).unwrap();
        for refused in [weighed(&both, &waivers, &[], &[]), weighed(&both, &[], &[], first)] {
            assert_eq!(refused.unwrap_err().undecided, [feared(&one)], "a promise is told once");
        }
        assert_eq!(weighed(&both, &waivers, &[], std::slice::from_ref(&other)).unwrap(), waivers);
        let wider = weighed(&both, &waivers, &[Property::NoBypass], first).unwrap();
        let packets: Vec<_> = wider.iter().map(|waiver| waiver.broken.as_slice()).collect();
        assert_eq!(packets, [first, std::slice::from_ref(&other)]);
        assert_eq!(wider[0], waivers[0]);
    }

    #[test]
    fn what_stood_before_and_is_given_up_now_is_on_record() {
        let one = [broken(Property::Order, 1)];
        assert_eq!(weighed(&one, &[], &[], &one).unwrap(), []);
        assert_eq!(weighed(&one, &[], &[Property::Order], &one).unwrap().len(), 1);
    }
}

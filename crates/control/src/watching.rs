//! Watching: what holds of the chains as they are really installed, found out anew whenever something may have changed.
//!
//! One task looks and verifies, beside the core; what happens meanwhile makes it look once more when it is done. What it
//! has read counts only if the core changed nothing while it was read: half a change is no state to judge. Of what it has
//! read it verifies again what differs from the last time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catena_model::name::ChainName;
use catena_model::resource::Chain;
use catena_verify::{Broken, Report, Undecided, Verdict, Violation};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio::time::Instant;

use crate::by_site::BySite;
use crate::core::Message;
use crate::events::{About, EventLog};
use crate::gate::{is_of_site, still_needed};
use crate::prover::{Proof, Prover};
use crate::report::{ChainVerdict, EventKind, Promise, Timestamp};
use crate::think::think;
use crate::trace::Observed;
use crate::view::View;

/// The latest verdict of each chain that there was when they were last looked at.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    found: BTreeMap<ChainName, Found>,
    /// After that, nothing is known any more.
    good_until: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Found {
    verdict: ChainVerdict,
    /// What a packet shows, or was shown by one and cannot be told at this moment.
    broken: Vec<Promise>,
}

impl Verdicts {
    /// What is known of a chain that was last changed at `revision` of the store; `None` if that was never looked at, or
    /// not for too long.
    pub fn of(&self, chain: &ChainName, revision: u64) -> Option<&ChainVerdict> {
        let known = self.found.get(chain).map(|found| &found.verdict);
        let is_late = self.good_until.is_none_or(|until| Instant::now() > until);
        known.filter(|verdict| verdict.revision >= revision && !is_late)
    }
}

/// Verifies as often as something may have changed.
#[derive(Clone)]
pub struct Watcher {
    pub view: watch::Receiver<Arc<View>>,
    /// Whether the core is between two turns: what it shows is what it has done.
    pub is_calm: watch::Receiver<bool>,
    pub events: EventLog,
    pub verdicts: watch::Sender<Arc<Verdicts>>,
    /// To whoever keeps what was given up.
    pub post: mpsc::WeakSender<Message>,
    /// How long a verdict is good for.
    pub good_for: Duration,
    /// How long to wait when verifying has failed.
    pub pause: Duration,
}

impl Watcher {
    /// Until the core is gone. Should verifying fail, nothing is known, and it is tried again.
    pub async fn keep_watching(self) {
        let failed = |error: &JoinError| {
            self.verdicts.send_replace(Arc::default());
            let message = format!("what holds of the chains is not known: verifying has failed ({error})");
            self.events.record(EventKind::Undecided, About::default(), message);
        };
        supervise(|| self.clone().watch(), failed, self.pause).await;
    }

    async fn watch(mut self) {
        let mut last: Option<(u64, Arc<Observed>)> = None;
        let mut prover = Prover::default();
        let mut proof: Option<Proof> = None;
        let mut broken: Vec<Broken> = Vec::new();
        loop {
            let seen = last.as_ref().map(|(stirs, _)| *stirs);
            // `Err`: the core is gone.
            if self.view.wait_for(|view| Some(view.stirs) != seen).await.is_err()
                || self.rest().await.is_err()
            {
                return;
            }
            let now = Arc::clone(&self.view.borrow_and_update());
            let (at, as_of) = (Instant::now(), Timestamp::now());
            let observed = Arc::new(now.observed().await);
            // What a turn has changed that is not over yet is known only then.
            if self.rest().await.is_err() {
                return;
            }
            if self.view.borrow().stirs != now.stirs {
                continue;
            }
            let is_known = last.as_ref().is_some_and(|(_, known)| *known == observed);
            last = Some((now.stirs, Arc::clone(&observed)));
            let mut found = self.verdicts.borrow().found.clone();
            if !is_known {
                let before = std::mem::take(&mut broken);
                let prove = move || {
                    let (proof, more) = observed.prove(&mut prover, &before);
                    (proof, more, before, prover)
                };
                let (found_out, more, before);
                (found_out, more, before, prover) = think(prove).await;
                found = next(&found, &now, &Findings::of(&found_out.report, &more), &self.events);
                broken = still_feared(&found_out, before);
                proof = Some(found_out);
            }
            if let Some(proof) = &proof {
                self.tell_what_holds_again(&now, proof).await;
            }
            for Found { verdict, .. } in found.values_mut() {
                (verdict.revision, verdict.as_of) = (now.revision, as_of);
            }
            let good_until = Some(at + self.good_for);
            self.verdicts.send_replace(Arc::new(Verdicts { found, good_until }));
        }
    }

    /// What was given up and holds, now that all is installed, is given up no longer.
    async fn tell_what_holds_again(&self, view: &View, proof: &Proof) {
        let waivers = &view.intent.waivers;
        if waivers.is_empty() || !view.is_converged() {
            return;
        }
        let still_needed = still_needed(waivers, proof);
        if still_needed != *waivers {
            let (revision, stirs) = (view.revision, view.stirs);
            let message = Message::HoldsAgain { revision, stirs, still_needed };
            if let Some(post) = self.post.upgrade() {
                // If the core is gone, what is stored is weighed by the next one.
                let _ = post.send(message).await;
            }
        }
    }

    /// Waits until the core is not at work.
    async fn rest(&mut self) -> Result<(), watch::error::RecvError> {
        self.is_calm.wait_for(|is_calm| *is_calm).await.map(|_| ())
    }
}

/// Runs a task until it ends of itself; one that panics is told to `failed` and, after a `pause`, run anew.
async fn supervise<T: Future<Output = ()> + Send + 'static>(
    task: impl Fn() -> T,
    failed: impl Fn(&JoinError),
    pause: Duration,
) {
    while let Err(error) = tokio::spawn(task()).await {
        if !error.is_panic() {
            // The runtime is shutting down.
            return;
        }
        failed(&error);
        tokio::time::sleep(pause).await;
    }
}

/// What is broken, and what was `before` at sites of which it cannot be told whether it still is.
fn still_feared(Proof { report, broken }: &Proof, before: Vec<Broken>) -> Vec<Broken> {
    let (mut broken, undecided) = (broken.clone(), BySite::new(&report.undecided));
    broken.extend(before.into_iter().filter(|broken| undecided.of(&broken.site).next().is_some()));
    broken
}

/// What is to be said of chains.
struct Findings<'r> {
    violations: BySite<'r, Violation>,
    undecided: BySite<'r, Undecided>,
    /// What is broken for more packets than it was.
    more: BySite<'r, Violation>,
}

impl<'r> Findings<'r> {
    fn of(report: &'r Report, more: &'r [Violation]) -> Self {
        let Report { violations, undecided, .. } = report;
        Self {
            violations: BySite::new(violations),
            undecided: BySite::new(undecided),
            more: BySite::new(more),
        }
    }

    fn violations_of(&self, chain: &Chain) -> impl Iterator<Item = &'r Violation> {
        told_of(chain, &self.violations)
    }

    /// Those that are broken for more packets.
    fn grown_of(&self, chain: &Chain) -> impl Iterator<Item = &'r Violation> {
        told_of(chain, &self.more)
    }

    /// What is not understood on a site's way may concern all that comes by there.
    fn undecided_of(&self, chain: &Chain) -> impl Iterator<Item = &'r Undecided> {
        chain.sites.iter().flat_map(|site| self.undecided.of(site))
    }
}

/// What is told of a site as a whole is true of each of its chains, by whichever of them it is told.
fn told_of<'r>(chain: &Chain, all: &BySite<'r, Violation>) -> impl Iterator<Item = &'r Violation> {
    let all = chain.sites.iter().flat_map(|site| all.of(site));
    all.filter(|violation| violation.chain == chain.name || is_of_site(violation.property))
}

/// What is known after these findings; what has become worse or better is told.
fn next(
    former: &BTreeMap<ChainName, Found>,
    view: &View,
    findings: &Findings,
    events: &EventLog,
) -> BTreeMap<ChainName, Found> {
    let now = Timestamp::now();
    let found = |chain: &Chain| {
        let former = former.get(&chain.name);
        let (verdict, why) = verdict_of(chain, findings);
        let since = former.filter(|former| former.verdict.verdict == verdict);
        let since = since.map_or(now, |former| former.verdict.since);
        let broken = broken_of(chain, former, findings);
        let more = broken.len().saturating_sub(1);
        let verdict = ChainVerdict { verdict, since, why, more, revision: view.revision, as_of: now };
        let found = Found { verdict, broken };
        if let Some(what) = news(chain, former, &found, findings) {
            tell(&chain.name, found.verdict.verdict, what, events);
        }
        found
    };
    view.intent.model.chains.values().map(|chain| (chain.name.clone(), found(chain))).collect()
}

/// The promises that are broken, each once; one that was, for as long as it cannot be told whether it is.
fn broken_of(chain: &Chain, former: Option<&Found>, findings: &Findings) -> Vec<Promise> {
    let shown = findings.violations_of(chain).map(Promise::broken_by);
    let is_unknown = findings.undecided_of(chain).next().is_some();
    let feared = former.filter(|_| is_unknown).into_iter().flat_map(|former| former.broken.iter().cloned());
    let mut broken: Vec<Promise> = Vec::new();
    for promise in shown.chain(feared) {
        if !is_among(&promise, &broken) {
            broken.push(promise);
        }
    }
    broken
}

fn is_among(promise: &Promise, promises: &[Promise]) -> bool {
    promises.iter().any(|other| other.is_about(promise))
}

/// What is to be told of a chain, if anything: one more promise that is broken, one that is broken for more packets, another
/// verdict, or one promise of several that holds again. That a new chain is as it should be is said by what made it.
fn news(chain: &Chain, former: Option<&Found>, found: &Found, findings: &Findings) -> Option<String> {
    let known = former.map(|former| former.broken.as_slice()).unwrap_or_default();
    let is_new = |violation: &&Violation| !is_among(&Promise::broken_by(violation), known);
    let mut new = findings.violations_of(chain).filter(is_new);
    if let Some(violation) = new.next() {
        return Some(match new.count() {
            0 => told(violation),
            more => format!("{}; and {more} more: `catena verify --observed` has them all", told(violation)),
        });
    }
    if let Some(violation) = findings.grown_of(chain).next() {
        return Some(format!("for more packets than before: {}", told(violation)));
    }
    let ChainVerdict { verdict, why, .. } = &found.verdict;
    if former.map_or(Verdict::Proven, |former| former.verdict.verdict) != *verdict {
        return Some(why.clone().unwrap_or_else(|| format!("chain {} holds", chain.name)));
    }
    let mended: Vec<String> =
        known.iter().filter(|promise| !is_among(promise, &found.broken)).map(Promise::to_string).collect();
    let still = || why.as_ref().map(|why| format!("; still broken: {why}")).unwrap_or_default();
    (!mended.is_empty()).then(|| format!("no longer broken: {}{}", mended.join(", "), still()))
}

fn verdict_of(chain: &Chain, findings: &Findings) -> (Verdict, Option<String>) {
    let violation = findings.violations_of(chain).next();
    let undecided = findings.undecided_of(chain).min_by_key(|undecided| undecided.property.is_none());
    match (violation, undecided) {
        (Some(violation), _) => (Verdict::Violated, Some(told(violation))),
        // It is broken, although no packet was found to show it.
        (None, Some(undecided)) if undecided.property.is_some() => {
            (Verdict::Violated, Some(undecided.to_string()))
        }
        (None, Some(undecided)) => (Verdict::Undecided, Some(undecided.to_string())),
        (None, None) => (Verdict::Proven, None),
    }
}

/// What is broken, and which packet shows it.
fn told(violation: &Violation) -> String {
    let packet = &violation.walk.packet;
    let port = |port: u16| if port == 0 { String::new() } else { format!(" port {port}") };
    format!(
        "{violation}; such as {} {}{} → {}{}, which enters by {}",
        packet.protocol,
        packet.source,
        port(packet.source_port),
        packet.destination,
        port(packet.destination_port),
        violation.entry,
    )
}

fn tell(chain: &ChainName, verdict: Verdict, what: String, events: &EventLog) {
    let kind = match verdict {
        Verdict::Proven => EventKind::Proven,
        Verdict::Violated => EventKind::Violated,
        Verdict::Undecided => EventKind::Undecided,
    };
    let about = About { element: None, chain: Some(chain.clone()) };
    events.record(kind, about, what);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use catena_model::address::{Dscp, Protocol};
    use catena_model::forwarding::Direction;
    use catena_model::packet::Packet;
    use catena_model::resource::Traffic;
    use catena_verify::{Coverage, End, Entry, Kind, Property, Walk};

    use super::*;
    use crate::intent::Intent;

    fn chain(name: &str, site: &str) -> Chain {
        Chain {
            name: name.parse().unwrap(),
            sites: [site.parse().unwrap()].into(),
            matches: vec![Traffic::default()],
            priority: 0,
            functions: Vec::new(),
        }
    }

    fn broken(property: Property) -> Violation {
        let packet = Packet {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            protocol: Protocol::TCP,
            source_port: 1,
            destination_port: 2,
            dscp: Dscp::default(),
        };
        let node = "core".parse().unwrap();
        Violation {
            property,
            chain: "web".parse().unwrap(),
            site: "hq".parse().unwrap(),
            direction: Direction::Up,
            what: String::new(),
            without: None,
            losses: Vec::new(),
            entry: Entry { node, port: "inet".parse().unwrap(), tunnel: None },
            walk: Walk {
                packet,
                kind: Kind::Whole,
                visits: Vec::new(),
                end: End::NoStart { why: String::new() },
            },
        }
    }

    fn report(violations: Vec<Violation>, undecided: Vec<Undecided>) -> Report {
        Report { verdict: Verdict::Undecided, coverage: Coverage::default(), violations, undecided }
    }

    #[test]
    fn what_is_broken_for_a_site_is_broken_for_all_of_its_chains() {
        let chains = [chain("web", "hq"), chain("dns", "hq"), chain("far", "branch")];
        let verdicts = |report: &Report| {
            let findings = Findings::of(report, &[]);
            chains.each_ref().map(|chain| verdict_of(chain, &findings).0)
        };
        use Verdict::{Proven, Undecided as Unknown, Violated};
        for property in [Property::Isolation, Property::UnclaimedUntouched] {
            let report = report(vec![broken(property)], Vec::new());
            assert_eq!(verdicts(&report), [Violated, Violated, Proven], "{property}");
        }
        let of_one = report(vec![broken(Property::NoBypass)], Vec::new());
        assert_eq!(verdicts(&of_one), [Violated, Proven, Proven]);
        assert_eq!(verdicts(&report(Vec::new(), vec![unknown()])), [Unknown, Unknown, Proven]);
    }

    /// What is told of the chain `web` of one report after the other.
    fn told_of(reports: &[Report]) -> Vec<String> {
        let (mut intent, events) = (Intent::default(), EventLog::new(100, 1));
        intent.model.chains.insert("web".parse().unwrap(), chain("web", "hq"));
        let view = View { intent: Arc::new(intent), ..View::default() };
        let mut found = BTreeMap::new();
        for report in reports {
            found = next(&found, &view, &Findings::of(report, &[]), &events);
        }
        events.all().into_iter().map(|event| format!("{}: {}", event.kind, event.message)).collect()
    }

    fn unknown() -> Undecided {
        let Violation { chain, site, direction, .. } = broken(Property::Order);
        Undecided { property: None, chain, site, direction, what: String::new(), entry: None, walk: None }
    }

    #[test]
    fn one_of_several_that_holds_again_is_told() {
        let both = || vec![broken(Property::Order), broken(Property::NoLoop)];
        let [one, two] = [both(), both()].map(|broken| report(broken, Vec::new()));
        let rest = || report(vec![broken(Property::NoLoop)], Vec::new());
        let told = told_of(&[one, two, rest(), rest(), report(Vec::new(), Vec::new())]);
        assert_eq!(told.len(), 3, "{told:#?}");
        assert!(told[0].starts_with("violated: order: "), "{told:#?}");
        assert!(
            told[1].starts_with(
                "violated: no longer broken: order of chain web for site hq, up; still broken: no-loop: "
            ),
            "{told:#?}"
        );
        assert_eq!(told[2], "proven: chain web holds");
    }

    /// What cannot be told does not hold again.
    #[test]
    fn what_was_broken_is_so_until_it_is_known_to_hold() {
        let all = report(vec![broken(Property::Order), broken(Property::NoLoop)], Vec::new());
        let hidden = report(vec![broken(Property::NoLoop)], vec![unknown()]);
        let rest = report(vec![broken(Property::NoLoop)], Vec::new());
        assert_eq!(told_of(&[all.clone(), hidden.clone()]).len(), 1);
        assert_eq!(told_of(&[all.clone(), hidden.clone(), all.clone()]).len(), 1);
        assert_eq!(told_of(&[all, hidden, rest]).len(), 2);
    }

    #[test]
    fn a_sites_promise_is_the_same_whichever_chain_it_is_told_of() {
        let of_web = broken(Property::Isolation);
        let of_other = Violation { chain: "dns".parse().unwrap(), ..of_web.clone() };
        let told = told_of(&[of_web, of_other].map(|broken| report(vec![broken], Vec::new())));
        assert_eq!(told.len(), 1, "{told:#?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_told_and_run_anew() {
        let (runs, failures) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let task = || {
            let runs = Arc::clone(&runs);
            async move { assert!(runs.fetch_add(1, SeqCst) == 2, "not yet") }
        };
        let failed = |_: &JoinError| {
            failures.fetch_add(1, SeqCst);
        };
        supervise(task, failed, Duration::from_secs(1)).await;
        assert_eq!((runs.load(SeqCst), failures.load(SeqCst)), (3, 2));
    }
}

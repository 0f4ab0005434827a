//! Watching: what holds of the chains as they are really installed, found out anew whenever something may have changed.
//!
//! One task looks and verifies, beside the core; what happens meanwhile makes it look once more when it is done. What it
//! has read counts only if the core changed nothing while it was read: half a change is no state to judge.

use std::collections::BTreeMap;
use std::sync::Arc;

use catena_model::name::ChainName;
use catena_verify::{Report, Verdict, Violation};
use tokio::sync::watch;

use crate::events::{About, EventLog};
use crate::report::{ChainVerdict, EventKind, Timestamp};
use crate::trace::Observed;
use crate::view::View;

/// The latest verdict of each chain that there was when they were last looked at.
pub type Verdicts = BTreeMap<ChainName, ChainVerdict>;

/// Whether the core is at work. It is between two turns that what it shows is what it has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How many it has begun.
    pub number: u64,
    pub is_over: bool,
}

/// Verifies until the core is gone.
pub async fn watch_chains(
    mut view: watch::Receiver<Arc<View>>,
    mut turn: watch::Receiver<Turn>,
    events: EventLog,
    verdicts: watch::Sender<Arc<Verdicts>>,
) {
    let mut last: Option<(u64, Arc<Observed>)> = None;
    loop {
        let seen = last.as_ref().map(|(stirs, _)| *stirs);
        // `Err`: the core is gone.
        if view.wait_for(|view| Some(view.stirs) != seen).await.is_err() {
            return;
        }
        let Ok(calm) = turn.wait_for(|turn| turn.is_over).await.map(|turn| *turn) else { return };
        let now = Arc::clone(&view.borrow_and_update());
        let observed = Arc::new(now.observed().await);
        if *turn.borrow() != calm {
            continue;
        }
        let is_known = last.as_ref().is_some_and(|(_, known)| *known == observed);
        last = Some((now.stirs, Arc::clone(&observed)));
        if is_known {
            continue;
        }
        let report = now.verify_observed(observed, None).await;
        let next = next(&verdicts.borrow(), &now, &report, &events);
        verdicts.send_replace(Arc::new(next));
    }
}

/// The verdicts after `report`; those that have changed are told.
fn next(former: &Verdicts, view: &View, report: &Report, events: &EventLog) -> Verdicts {
    let now = Timestamp::now();
    let verdict = |chain: &ChainName| {
        let (verdict, why) = verdict_of(chain, report);
        let former = former.get(chain);
        let same = former.filter(|former| former.verdict == verdict);
        // That a new chain is as it should be is said by what made it.
        if same.is_none() && (former.is_some() || verdict != Verdict::Proven) {
            tell(chain, verdict, why.as_deref(), events);
        }
        ChainVerdict { verdict, since: same.map_or(now, |same| same.since), why }
    };
    view.intent.model.chains.keys().map(|chain| (chain.clone(), verdict(chain))).collect()
}

fn verdict_of(chain: &ChainName, report: &Report) -> (Verdict, Option<String>) {
    let violation = report.violations.iter().find(|violation| violation.chain == *chain);
    let undecided = report.undecided.iter().find(|undecided| undecided.chain == *chain);
    match (violation, undecided) {
        (Some(violation), _) => (Verdict::Violated, Some(told(violation))),
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

fn tell(chain: &ChainName, verdict: Verdict, why: Option<&str>, events: &EventLog) {
    let kind = match verdict {
        Verdict::Proven => EventKind::Proven,
        Verdict::Violated => EventKind::Violated,
        Verdict::Undecided => EventKind::Undecided,
    };
    let about = About { element: None, chain: Some(chain.clone()) };
    events.record(kind, about, why.map_or_else(|| format!("chain {chain} holds"), str::to_owned));
}

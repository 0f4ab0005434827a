//! `verify --replay`: the packets of violations, sent for real in a copy of the network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use catena::linux::OfCopies;
use catena_lab::check_root;
use catena_model::base::BaseRouting;
use catena_model::forwarding::ForwardingState;
use catena_model::name::NodeName;
use catena_model::resource::{Model, ResourceKind, Source, parse};
use catena_replay::{Outcome, ReplayError, Replayed, Replica, own_bpf_file_system};
use catena_verify::{Arrival, Arrivals, Violation};
use serde::Serialize;

use super::wait;
use crate::error::CliError;
use crate::output::{BAD, GOOD, Table, styled};

/// The network that is copied.
pub struct Original {
    model: Model,
    /// Where the hosts' commands run.
    folders: BTreeMap<NodeName, PathBuf>,
    state: ForwardingState,
    base: BTreeMap<NodeName, BaseRouting>,
}

/// What became of the packets.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replays {
    /// One for each violation, in their order.
    packets: Vec<Replayed>,
    /// What of the network cannot be had in a copy. No packet of a violation meets it.
    left_out: Vec<String>,
}

impl Original {
    /// `model` is that of `sources`.
    pub fn new(
        sources: &[Source],
        model: Model,
        state: ForwardingState,
        base: BTreeMap<NodeName, BaseRouting>,
    ) -> Self {
        let (documents, _) = parse(sources);
        let hosts = documents.iter().filter(|document| document.kind() == ResourceKind::Host);
        let folders = hosts.filter_map(|host| {
            let folder = Path::new(&host.source.name).parent()?;
            // "x.yaml" lies in "", which is no path.
            Some((host.name().parse().ok()?, Path::new(".").join(folder)))
        });
        Self { folders: folders.collect(), model, state, base }
    }
}

/// Builds the copy, sends the packets, and leaves nothing behind, however it ends: all that the copy is, ends with it or with
/// this process.
pub fn replay(original: Original, violations: &[Violation]) -> Result<Replays, CliError> {
    if violations.is_empty() {
        return Ok(Replays::default());
    }
    check_root().map_err(|_| ReplayError::NotRoot)?;
    std::thread::scope(|scope| match scope.spawn(|| on_own_thread(original, violations)).join() {
        Ok(replays) => replays,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn on_own_thread(original: Original, violations: &[Violation]) -> Result<Replays, CliError> {
    let pins = own_bpf_file_system()?;
    wait(async {
        let Original { model, folders, state, base } = original;
        let mut replica = Replica::build(model, &folders, &pins, OfCopies).await?;
        replica.install(&state).await?;
        let left_out = replica.adopt(&base).await?;
        let packets = catena_replay::replay(&mut replica, violations).await?;
        Ok(Replays { packets, left_out })
    })
}

impl Replays {
    /// Whether all packets went as predicted.
    pub fn agree(&self) -> bool {
        self.packets.iter().all(|packet| packet.outcome == Outcome::AsPredicted)
    }

    /// What was predicted of a violation's packet, beside what was seen.
    pub fn shown(&self, nth: usize) -> String {
        let Some(Replayed { outcome, predicted, seen, why }) = self.packets.get(nth) else {
            return String::new();
        };
        let Some(seen) = seen else {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            return format!("  {}\n", styled(BAD, format!("not sent{why}")));
        };
        let verdict = match outcome {
            Outcome::AsPredicted => styled(GOOD, "went as predicted"),
            Outcome::Otherwise | Outcome::NotSent => styled(BAD, other_way(predicted, seen)),
        };
        format!("  sent for real, in a copy:\n{}  {verdict}\n", beside(predicted, seen).indented(4))
    }

    pub fn summary(&self) -> String {
        let as_predicted =
            self.packets.iter().filter(|packet| packet.outcome == Outcome::AsPredicted).count();
        let all = self.packets.len();
        let mut text = match all {
            0 => "\nreplay: no packet shows a violation, so none was sent\n".to_owned(),
            _ => {
                let style = if as_predicted == all { GOOD } else { BAD };
                let count = styled(style, format!("{as_predicted} of {all}"));
                format!("\nreplay: {count} packets went as predicted, in a copy of the network\n")
            }
        };
        for what in &self.left_out {
            text += &format!("  not in the copy: {what}\n");
        }
        text
    }
}

/// Where the packet comes in, one after the other.
fn beside(predicted: &Arrivals, seen: &Arrivals) -> Table {
    let mut table = Table::new(["", "PREDICTED", "SEEN"]);
    let cell = |arrivals: &[Arrival], nth: usize| arrivals.get(nth).map(in_words).unwrap_or_default();
    for nth in 0..predicted.ports.len().max(seen.ports.len()) {
        let [expected, came] = [predicted, seen].map(|arrivals| cell(&arrivals.ports, nth));
        table.row([(nth + 1).into(), expected.into(), came.into()]);
    }
    for nth in 0..predicted.copies.len().max(seen.copies.len()) {
        let [expected, came] = [predicted, seen].map(|arrivals| cell(&arrivals.copies, nth));
        table.row(["copy".into(), expected.into(), came.into()]);
    }
    table
}

fn other_way(predicted: &Arrivals, seen: &Arrivals) -> String {
    let differ = |nth: &usize| predicted.ports.get(*nth) != seen.ports.get(*nth);
    let Some(nth) = (0..predicted.ports.len().max(seen.ports.len())).find(differ) else {
        return "went another way: its copies did".to_owned();
    };
    let place = |arrival: Option<&Arrival>| arrival.map_or_else(|| "nowhere".to_owned(), in_words);
    let [expected, came] = [predicted, seen].map(|arrivals| place(arrivals.ports.get(nth)));
    format!("went another way: as number {} it was to come to {expected}, and came to {came}", nth + 1)
}

fn in_words(arrival: &Arrival) -> String {
    format!("{} by {}", arrival.node, arrival.port)
}

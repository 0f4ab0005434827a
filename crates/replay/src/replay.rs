//! The counter-examples of a report, sent for real.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use catena_verify::{Arrivals, Kind, Loss, Violation};
use serde::{Deserialize, Serialize};

use crate::ReplayError;
use crate::replica::{Replica, Workshop};
use crate::sending::{Sender, Shot, agree};

/// So many packets are under way at once.
const AT_ONCE: usize = 64;

/// What became of one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    pub outcome: Outcome,
    pub predicted: Arrivals,
    /// `None` if it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Arrivals>,
    /// Why it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Obstacle>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    AsPredicted,
    /// It went another way.
    Otherwise,
    NotSent,
}

/// Why a packet cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Obstacle {
    /// No link of the inventory is where it enters.
    Nobody,
    /// It is a fragment or an ICMP error.
    NotWhole,
}

/// Sends the packet of each violation, with what must be gone for it gone; in their order.
pub async fn replay<W: Workshop>(
    replica: &mut Replica<W>,
    violations: &[Violation],
) -> Result<Vec<Replayed>, ReplayError> {
    let mut sender = Sender::new(replica)?;
    let whole: Vec<&Violation> = violations.iter().filter(|violation| is_sent(violation.walk.kind)).collect();
    let mut sent = Vec::with_capacity(whole.len());
    for group in whole.chunk_by(|one, next| one.losses == next.losses) {
        let losses = group.first().map(|violation| violation.losses.as_slice()).unwrap_or_default();
        lose(replica, losses).await?;
        for shots in volleys(replica, group) {
            let seen = sender.send(replica, &shots)?;
            sent.extend(shots.into_iter().zip(seen).map(|(shot, seen)| Replayed::new(shot.expected, seen)));
        }
        bring_back(replica, losses).await?;
    }
    let mut sent = sent.into_iter();
    let replayed = violations.iter().filter_map(|violation| match is_sent(violation.walk.kind) {
        true => sent.next(),
        false => Some(Replayed::not_whole(violation.walk.arrivals(&replica.model, &replica.topology))),
    });
    Ok(replayed.collect())
}

fn is_sent(kind: Kind) -> bool {
    matches!(kind, Kind::Whole | Kind::Options)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::Nobody => "nobody is where it would come from",
            Obstacle::NotWhole => "it is no whole packet, and only those are sent",
        })
    }
}

impl Replayed {
    fn not_whole(predicted: Arrivals) -> Self {
        Self { outcome: Outcome::NotSent, predicted, seen: None, why: Some(Obstacle::NotWhole) }
    }

    fn new(predicted: Arrivals, seen: Option<Arrivals>) -> Self {
        let outcome = match &seen {
            None => Outcome::NotSent,
            Some(seen) if agree(&predicted, seen) => Outcome::AsPredicted,
            Some(_) => Outcome::Otherwise,
        };
        let why = seen.is_none().then_some(Obstacle::Nobody);
        Self { outcome, predicted, seen, why }
    }
}

async fn lose<W: Workshop>(replica: &mut Replica<W>, losses: &[Loss]) -> Result<(), ReplayError> {
    for Loss { element, change } in losses {
        replica.change(element, std::slice::from_ref(change)).await?;
    }
    Ok(())
}

async fn bring_back<W: Workshop>(replica: &mut Replica<W>, losses: &[Loss]) -> Result<(), ReplayError> {
    for Loss { element, change } in losses.iter().rev() {
        replica.change(element, &[change.inverse()]).await?;
    }
    Ok(())
}

/// Packets that can be sent together: no two are of one flow, since what is predicted is predicted of new ones.
fn volleys<W>(replica: &Replica<W>, violations: &[&Violation]) -> Vec<Vec<Shot>> {
    let mut volleys: Vec<Vec<Shot>> = Vec::new();
    let mut flows: BTreeSet<[(IpAddr, u16); 2]> = BTreeSet::new();
    for violation in violations {
        let packet = violation.walk.packet;
        let mut flow = [(packet.source, packet.source_port), (packet.destination, packet.destination_port)];
        flow.sort_unstable();
        let expected = violation.walk.arrivals(&replica.model, &replica.topology);
        let options = violation.walk.kind == Kind::Options;
        let shot = Shot { entry: violation.entry.clone(), packet, options, translated: false, expected };
        match volleys.last_mut() {
            Some(volley) if volley.len() < AT_ONCE && flows.insert(flow) => volley.push(shot),
            _ => {
                flows = BTreeSet::from([flow]);
                volleys.push(vec![shot]);
            }
        }
    }
    volleys
}

//! The counter-examples of a report, sent for real.

use std::collections::BTreeSet;
use std::net::IpAddr;

use catena_verify::{Arrivals, Loss, Violation};
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    AsPredicted,
    /// It went another way.
    Otherwise,
    /// Nobody is there who could send it.
    NotSent,
}

/// Sends the packet of each violation, with what must be gone for it gone; in their order.
pub async fn replay<W: Workshop>(
    replica: &mut Replica<W>,
    violations: &[Violation],
) -> Result<Vec<Replayed>, ReplayError> {
    let mut sender = Sender::new(replica)?;
    let mut all = Vec::with_capacity(violations.len());
    for group in violations.chunk_by(|one, next| one.losses == next.losses) {
        let losses = group.first().map(|violation| violation.losses.as_slice()).unwrap_or_default();
        lose(replica, losses).await?;
        for shots in volleys(replica, group) {
            let seen = sender.send(replica, &shots)?;
            all.extend(shots.into_iter().zip(seen).map(|(shot, seen)| Replayed::new(shot.expected, seen)));
        }
        bring_back(replica, losses).await?;
    }
    Ok(all)
}

impl Replayed {
    fn new(predicted: Arrivals, seen: Option<Arrivals>) -> Self {
        let outcome = match &seen {
            None => Outcome::NotSent,
            Some(seen) if agree(&predicted, seen) => Outcome::AsPredicted,
            Some(_) => Outcome::Otherwise,
        };
        Self { outcome, predicted, seen }
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
fn volleys<W>(replica: &Replica<W>, violations: &[Violation]) -> Vec<Vec<Shot>> {
    let mut volleys: Vec<Vec<Shot>> = Vec::new();
    let mut flows: BTreeSet<[(IpAddr, u16); 2]> = BTreeSet::new();
    for violation in violations {
        let packet = violation.walk.packet;
        let mut flow = [(packet.source, packet.source_port), (packet.destination, packet.destination_port)];
        flow.sort_unstable();
        let expected = violation.walk.arrivals(&replica.model, &replica.topology);
        let shot = Shot { entry: violation.entry.clone(), packet, expected };
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

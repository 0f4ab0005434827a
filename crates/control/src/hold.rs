//! What this program would install otherwise than what was last let through is judged before it is installed. If it breaks
//! a promise, everything is left as it is until somebody gives the promise up, or asks for something that keeps it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use catena_model::forwarding::ForwardingState;
use catena_verify::Broken;
use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::error::{ApplyError, chain_of};
use crate::events::About;
use crate::gate::judge;
use crate::intent::{Intent, Terms};
use crate::report::{EventKind, Hold, Timestamp};
use crate::settings::Mode;
use crate::think::attempt;
use crate::trace::base_routing;

/// What was last let through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    pub desired: Digest,
    /// What did not hold of it then.
    pub broken: Vec<Broken>,
}

/// Of what all elements must do. That of another version of this program, or of its compiler, may differ although the state is
/// the same: then it is judged once more than it need be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(u64);

impl Digest {
    /// That of nothing is the default one.
    pub fn of(state: &ForwardingState) -> Self {
        let objects =
            || state.elements.iter().flat_map(|(name, element)| element.iter().map(move |o| (name, o)));
        if objects().next().is_none() {
            return Self::default();
        }
        let mut hasher = DefaultHasher::new();
        objects().for_each(|object| object.hash(&mut hasher));
        Self(hasher.finish())
    }
}

impl Intent {
    /// Whether what must be installed is what was last let through.
    pub fn is_judged(&self) -> bool {
        self.judgement.desired == Digest::of(&self.desired)
    }
}

impl Core {
    /// Nothing is repaired or taken away.
    pub(crate) fn only_looks(&self) -> bool {
        self.settings.mode == Mode::Look || self.hold.is_some()
    }

    /// Judges what is to be installed, unless that was done before. What is let through is installed as one change.
    pub(crate) async fn judge_at_start(&mut self) {
        if self.settings.mode == Mode::Look || self.intent.is_judged() {
            return;
        }
        if let Err(error) = self.let_through().await {
            self.hold_back(&error);
        }
    }

    async fn let_through(&mut self) -> Result<(), ApplyError> {
        self.reconnect(&self.elements.keys().cloned().collect()).await;
        let base: BTreeMap<_, _> = base_routing(&self.connected()).await;
        let mut gate = std::mem::take(self.gate.get_mut().unwrap_or_else(PoisonError::into_inner));
        let wanted = Arc::clone(&self.intent);
        let thought = attempt(move || (judge(&mut gate, &wanted, &wanted, &base, &Terms::default()), gate));
        let (judged, gate) = thought.await.map_err(ApplyError::internal)?;
        self.gate = Mutex::new(gate);
        let mut intent = (*self.intent).clone();
        judged?.note_in(&mut intent);
        let journal = self.elements.keys().cloned().collect();
        let stored = self.records.replace(&self.intent, &mut intent, &journal).await;
        stored.map_err(ApplyError::Store)?;
        self.journal = journal;
        self.adopt(intent);
        Ok(())
    }

    fn hold_back(&mut self, error: &ApplyError) {
        let refusal = error.refusal().cloned().unwrap_or_default();
        let why = match error {
            ApplyError::Violates(refusal) => {
                format!("what this version would install, and the last did not, would break {refusal}")
            }
            other => format!("what this version would install cannot be judged: {}", chain_of(other)),
        };
        let help = match error {
            ApplyError::Violates(refusal) => format!(
                "apply what holds, or give it up, with any of the files that were applied: `catena apply -f FILE {}`; or \
                 start the version that ran before",
                refusal.flags()
            ),
            _ => "remove the cause and start the controller again, or start the version that ran before"
                .to_owned(),
        };
        self.events.record(EventKind::Held, About::default(), format!("{why}; everything is left as it is"));
        let (violations, undecided) = (refusal.violations, refusal.undecided);
        self.hold = Some(Hold { since: Timestamp::now(), why, help, violations, undecided });
    }
}

//! What happened: a ring of the latest events, and those who follow it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catena_model::name::{ChainName, NodeName};
use tokio::sync::watch;

use crate::report::{EventKind, EventReport, Timestamp};

/// The latest events. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    kept: Arc<Mutex<Kept>>,
    capacity: usize,
    /// The id of the latest event.
    latest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    ring: VecDeque<EventReport>,
    /// How many there have been, those that the ring has forgotten included.
    counts: BTreeMap<EventKind, u64>,
}

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub element: Option<NodeName>,
    pub chain: Option<ChainName>,
}

impl About {
    pub fn element(name: &NodeName) -> Self {
        Self { element: Some(name.clone()), chain: None }
    }
}

impl EventLog {
    /// The log of the `starts`th controller on its store. Its ids are above those of all logs before it.
    pub fn new(capacity: usize, starts: u64) -> Self {
        /// No controller lives to record more.
        const EVENTS_OF_ONE_START: u64 = 1 << 32;
        let before = starts.saturating_sub(1).saturating_mul(EVENTS_OF_ONE_START);
        Self { kept: Arc::default(), capacity, latest: watch::Sender::new(before) }
    }

    /// Remembers the event, and writes it as one line of the process's own log.
    pub fn record(&self, kind: EventKind, about: About, message: impl Into<String>) {
        let message = message.into();
        let mut kept = self.kept();
        let id = *self.latest.borrow() + 1;
        write_line(id, kind, &about, &message);
        let About { element, chain } = about;
        *kept.counts.entry(kind).or_default() += 1;
        if kept.ring.len() == self.capacity {
            kept.ring.pop_front();
        }
        kept.ring.push_back(EventReport { id, time: Timestamp::now(), kind, element, chain, message });
        self.latest.send_replace(id);
    }

    /// All that are remembered, the oldest first.
    pub fn all(&self) -> Vec<EventReport> {
        self.after(0)
    }

    /// How many there have been of each kind.
    pub fn counts(&self) -> BTreeMap<EventKind, u64> {
        self.kept().counts.clone()
    }

    /// Follows the log from the event after `id` on.
    pub fn follow(&self, id: u64) -> Follower {
        Follower { log: self.clone(), latest: self.latest.subscribe(), seen: id, ready: VecDeque::new() }
    }

    fn after(&self, id: u64) -> Vec<EventReport> {
        let kept = self.kept();
        let first = kept.ring.partition_point(|event| event.id <= id);
        kept.ring.range(first..).cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that can panic runs under this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_line(id: u64, kind: EventKind, about: &About, message: &str) {
    let element = about.element.as_ref().map(NodeName::as_str);
    let chain = about.chain.as_ref().map(ChainName::as_str);
    match kind {
        EventKind::Drift
        | EventKind::Held
        | EventKind::Unreachable
        | EventKind::RepairFailed
        | EventKind::ApplyFailed
        | EventKind::RolledBack
        | EventKind::GivenUp
        | EventKind::Violated
        | EventKind::Undecided => {
            tracing::warn!(event = id, %kind, element, chain, "{message}");
        }
        EventKind::Started
        | EventKind::Applied
        | EventKind::Repaired
        | EventKind::Reachable
        | EventKind::Draining
        | EventKind::Drained
        | EventKind::HoldsAgain
        | EventKind::Proven => {
            tracing::info!(event = id, %kind, element, chain, "{message}");
        }
    }
}

/// A place in the log of events.
#[derive(Debug)]
pub struct Follower {
    log: EventLog,
    latest: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<EventReport>,
}

impl Follower {
    /// Waits for the next event. A follower that falls far behind misses some, and sees it by their ids. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> EventReport {
        loop {
            self.latest.mark_unchanged();
            if self.ready.is_empty() {
                self.ready = self.log.after(self.seen).into();
            }
            if let Some(event) = self.ready.pop_front() {
                self.seen = event.id;
                return event;
            }
            // The follower holds the log, so the sender lives.
            if self.latest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_see_what_was_and_what_comes() {
        let log = EventLog::new(3, 1);
        for number in 1..=4 {
            log.record(EventKind::Applied, About::default(), format!("event {number}"));
        }
        assert_eq!(log.all().iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(log.counts(), BTreeMap::from([(EventKind::Applied, 4)]));
        let mut follower = log.follow(3);
        assert_eq!(follower.next().await.message, "event 4");
        let (event, ()) = tokio::join!(follower.next(), async {
            tokio::task::yield_now().await;
            log.record(EventKind::Applied, About::default(), "event 5");
        });
        assert_eq!((event.id, event.message.as_str()), (5, "event 5"));
    }

    #[tokio::test]
    async fn ids_go_on_after_a_restart() {
        let last = |starts| {
            let log = EventLog::new(3, starts);
            log.record(EventKind::Started, About::default(), "");
            log.all()[0].id
        };
        assert!((1..5).all(|starts| last(starts) < last(starts + 1)));
    }
}

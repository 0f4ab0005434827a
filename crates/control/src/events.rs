//! What happened: a ring of the latest events, and those who follow it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catena_model::name::{ChainName, NodeName};
use tokio::sync::watch;

use crate::report::{EventKind, EventReport, Timestamp};

/// The latest events. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    ring: Arc<Mutex<VecDeque<EventReport>>>,
    capacity: usize,
    /// The id of the latest event.
    latest: watch::Sender<u64>,
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
    pub fn new(capacity: usize) -> Self {
        let ring = Arc::new(Mutex::new(VecDeque::with_capacity(capacity)));
        Self { ring, capacity, latest: watch::Sender::new(0) }
    }

    /// Remembers the event, and writes it as one line of the process's own log.
    pub fn record(&self, kind: EventKind, about: About, message: impl Into<String>) {
        let message = message.into();
        let mut ring = self.ring();
        let id = *self.latest.borrow() + 1;
        write_line(id, kind, &about, &message);
        let About { element, chain } = about;
        if ring.len() == self.capacity {
            ring.pop_front();
        }
        ring.push_back(EventReport { id, time: Timestamp::now(), kind, element, chain, message });
        self.latest.send_replace(id);
    }

    /// All that are remembered, the oldest first.
    pub fn all(&self) -> Vec<EventReport> {
        self.after(0)
    }

    /// Follows the log from the event after `id` on.
    pub fn follow(&self, id: u64) -> Follower {
        Follower { log: self.clone(), latest: self.latest.subscribe(), seen: id, ready: VecDeque::new() }
    }

    fn after(&self, id: u64) -> Vec<EventReport> {
        let ring = self.ring();
        let first = ring.partition_point(|event| event.id <= id);
        ring.range(first..).cloned().collect()
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<EventReport>> {
        // Nothing that can panic runs under this lock.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_line(id: u64, kind: EventKind, about: &About, message: &str) {
    let element = about.element.as_ref().map(NodeName::as_str);
    let chain = about.chain.as_ref().map(ChainName::as_str);
    match kind {
        EventKind::Drift
        | EventKind::Unreachable
        | EventKind::RepairFailed
        | EventKind::ApplyFailed
        | EventKind::RolledBack => {
            tracing::warn!(event = id, %kind, element, chain, "{message}");
        }
        EventKind::Started
        | EventKind::Applied
        | EventKind::Repaired
        | EventKind::Reachable
        | EventKind::Draining
        | EventKind::Drained => {
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
        let log = EventLog::new(3);
        for number in 1..=4 {
            log.record(EventKind::Applied, About::default(), format!("event {number}"));
        }
        assert_eq!(log.all().iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3, 4]);
        let mut follower = log.follow(3);
        assert_eq!(follower.next().await.message, "event 4");
        let (event, ()) = tokio::join!(follower.next(), async {
            tokio::task::yield_now().await;
            log.record(EventKind::Applied, About::default(), "event 5");
        });
        assert_eq!((event.id, event.message.as_str()), (5, "event 5"));
    }
}

//! What happened lately, for those who watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{Revision, StoreError, Write};

/// The writes of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    /// `None`: deleted.
    pub value: Option<Vec<u8>>,
}

/// The transactions of this process's lifetime, as many as fit.
#[derive(Debug)]
pub(crate) struct Feed {
    history: Mutex<History>,
    latest: watch::Sender<Revision>,
}

/// The most bytes of keys and values that are kept for slow watchers; who falls behind further lists again.
const CAPACITY: usize = 16 << 20;

#[derive(Debug)]
struct History {
    transactions: VecDeque<Arc<Transaction>>,
    bytes: usize,
    /// All that happened after this is in `transactions`.
    known_after: Revision,
}

impl Feed {
    pub fn starting_at(revision: Revision) -> Arc<Self> {
        let history = History { transactions: VecDeque::new(), bytes: 0, known_after: revision };
        Arc::new(Self { history: Mutex::new(history), latest: watch::Sender::new(revision) })
    }

    /// Tells of a transaction that has been made. Callers do so in the order of revisions.
    pub fn publish(&self, revision: Revision, writes: Vec<Write>) {
        let changes = writes.into_iter().map(|Write { key, value, .. }| Change { key, value }).collect();
        self.history().push(Transaction { revision, changes });
        self.latest.send_replace(revision);
    }

    pub fn watch(self: &Arc<Self>, prefix: &str, from: Revision) -> Watch {
        Watch {
            feed: Arc::downgrade(self),
            latest: self.latest.subscribe(),
            prefix: prefix.to_owned(),
            position: from,
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // Nothing that can panic runs under this lock.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn push(&mut self, transaction: Transaction) {
        self.bytes += transaction.size();
        self.transactions.push_back(Arc::new(transaction));
        while self.bytes > CAPACITY
            && let Some(oldest) = self.transactions.pop_front()
        {
            self.bytes -= oldest.size();
            self.known_after = oldest.revision;
        }
    }

    fn after(&self, position: Revision) -> Result<Option<Arc<Transaction>>, StoreError> {
        if position < self.known_after {
            return Err(StoreError::Forgotten { from: position, oldest: self.known_after });
        }
        let next = self.transactions.partition_point(|transaction| transaction.revision <= position);
        Ok(self.transactions.get(next).cloned())
    }
}

impl Transaction {
    fn size(&self) -> usize {
        self.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// A watcher's place in what happens.
#[derive(Debug)]
pub struct Watch {
    /// Weak, so that a watcher is told when the store is gone.
    feed: std::sync::Weak<Feed>,
    latest: watch::Receiver<Revision>,
    prefix: String,
    position: Revision,
}

impl Watch {
    /// Waits for the next transaction below the prefix; only the changes below it are in it.
    ///
    /// After [`StoreError::Forgotten`] list, and watch from the listing's revision. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Transaction, StoreError> {
        loop {
            self.latest.mark_unchanged();
            if let Some(transaction) = self.advance()? {
                return Ok(transaction);
            }
            self.latest.changed().await.map_err(|_| StoreError::Closed)?;
        }
    }

    fn advance(&mut self) -> Result<Option<Transaction>, StoreError> {
        let feed = self.feed.upgrade().ok_or(StoreError::Closed)?;
        loop {
            let Some(transaction) = feed.history().after(self.position)? else { return Ok(None) };
            self.position = transaction.revision;
            let below = |change: &&Change| change.key.starts_with(&self.prefix);
            let changes: Vec<Change> = transaction.changes.iter().filter(below).cloned().collect();
            if !changes.is_empty() {
                return Ok(Some(Transaction { revision: transaction.revision, changes }));
            }
        }
    }
}

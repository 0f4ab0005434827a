use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::feed::{Feed, Watch};
use crate::{Entry, Listing, Revision, Store, StoreError, Write, check};

/// A store that is gone with its last holder. Clones are the same store.
#[derive(Clone, Debug)]
pub struct InMemory {
    content: Arc<Mutex<Content>>,
    feed: Arc<Feed>,
}

#[derive(Debug, Default)]
struct Content {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
}

impl Default for InMemory {
    fn default() -> Self {
        Self { content: Arc::default(), feed: Feed::starting_at(Revision(0)) }
    }
}

impl InMemory {
    fn content(&self) -> MutexGuard<'_, Content> {
        // Nothing that can panic runs under this lock.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for InMemory {
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.content().revision)
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.content().entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let content = self.content();
        let from = content.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let entries =
            from.map(|(_, entry)| entry).take_while(|entry| entry.key.starts_with(prefix)).cloned().collect();
        Ok(Listing { revision: content.revision, entries })
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        let mut content = self.content();
        check(&writes, |key| Ok(content.entries.get(key).map(|entry| entry.revision)))?;
        let revision = Revision(content.revision.0 + 1);
        content.revision = revision;
        for Write { key, value, .. } in &writes {
            match value {
                Some(value) => {
                    let entry = Entry { key: key.clone(), value: value.clone(), revision };
                    content.entries.insert(key.clone(), entry);
                }
                None => {
                    content.entries.remove(key);
                }
            }
        }
        self.feed.publish(revision, writes);
        Ok(revision)
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        self.feed.watch(prefix, from)
    }
}

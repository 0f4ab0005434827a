//! A revisioned key-value store: read, list, write if unchanged, watch.
//!
//! What the controller must remember across its death goes through the [`Store`] trait: [`Embedded`] keeps it in one file
//! on this machine, [`InMemory`] keeps it nowhere and is for tests. What must not be known here: what is stored. Keys are
//! text, values are bytes.
//!
//! Start reading at [`Store`]; `tests/conformance.rs` says what every implementation does.

mod embedded;
mod error;
mod feed;
mod memory;

use std::fmt;

use async_trait::async_trait;

pub use embedded::Embedded;
pub use error::StoreError;
pub use feed::{Change, Transaction, Watch};
pub use memory::InMemory;

/// A state of the whole store. Each transaction makes the next one, so revisions tell the order of all writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: Vec<u8>,
    /// The transaction that wrote it last.
    pub revision: Revision,
}

/// All entries below a prefix at one moment, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// That moment: a [`watch`](Store::watch) from here misses nothing.
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// What a writer believes of a key. If it is not so, somebody else was here, and nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    At(Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    /// `None` deletes the key; deleting one that is absent is no error.
    pub value: Option<Vec<u8>>,
    pub expect: Expect,
}

impl Write {
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: Some(value.into()), expect: Expect::Anything }
    }

    pub fn delete(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, expect: Expect::Anything }
    }

    pub fn expecting(self, expect: Expect) -> Self {
        Self { expect, ..self }
    }
}

/// A store. What a method reports as done survives the death of the process at any later moment.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// The revision of the last transaction; 0 before the first.
    async fn revision(&self) -> Result<Revision, StoreError>;

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Makes all writes or none. They are made if every expectation holds beforehand; a key is written at most once.
    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError>;

    /// Tells of every transaction after `from` that touched a key below `prefix`, in order, none twice.
    fn watch(&self, prefix: &str, from: Revision) -> Watch;

    async fn put_if(&self, key: &str, value: Vec<u8>, expect: Expect) -> Result<Revision, StoreError> {
        self.transact(vec![Write::put(key, value).expecting(expect)]).await
    }

    async fn delete_if(&self, key: &str, expect: Expect) -> Result<Revision, StoreError> {
        self.transact(vec![Write::delete(key).expecting(expect)]).await
    }
}

/// Checks what can be checked of a transaction before any of it is written. `found` tells a key's present revision.
fn check(
    writes: &[Write],
    mut found: impl FnMut(&str) -> Result<Option<Revision>, StoreError>,
) -> Result<(), StoreError> {
    let mut keys = std::collections::BTreeSet::new();
    for Write { key, expect, .. } in writes {
        if !keys.insert(key) {
            return Err(StoreError::WrittenTwice { key: key.clone() });
        }
        let found = match expect {
            Expect::Anything => continue,
            Expect::Absent | Expect::At(_) => found(key)?,
        };
        let expected = match expect {
            Expect::At(revision) => Some(*revision),
            Expect::Anything | Expect::Absent => None,
        };
        if found != expected {
            return Err(StoreError::Conflict { key: key.clone(), expected, found });
        }
    }
    Ok(())
}

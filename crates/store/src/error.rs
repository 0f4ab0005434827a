use std::io;
use std::path::{Path, PathBuf};

use crate::Revision;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another process: a controller is running; talk to it, or stop it first", path.display())]
    InUse { path: PathBuf },
    #[error(
        "cannot open {}: give a place where this user may create and write files, on a disk with room left",
        path.display()
    )]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a store, or is damaged: restore it from a backup, or move it away to begin anew", path.display())]
    NotAStore {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error(
        "{key} was changed by somebody else (expected {}, found {}); read it again",
        at(expected),
        at(found)
    )]
    Conflict { key: String, expected: Option<Revision>, found: Option<Revision> },
    #[error("{key} is written twice in one transaction; write it once")]
    WrittenTwice { key: String },
    #[error("what happened after revision {from} is no longer known, only after {oldest}; list again")]
    Forgotten { from: Revision, oldest: Revision },
    #[error("the store is closed; open it again")]
    Closed,
    #[error("cannot read or write the store; what was reported as stored is still there")]
    Failed(#[source] Box<redb::Error>),
}

fn at(revision: &Option<Revision>) -> String {
    match revision {
        Some(revision) => format!("revision {revision}"),
        None => "nothing".to_owned(),
    }
}

impl StoreError {
    pub(crate) fn failed(error: impl Into<redb::Error>) -> Self {
        Self::Failed(Box::new(error.into()))
    }

    pub(crate) fn opening(path: &Path, error: redb::DatabaseError) -> Self {
        let path = path.to_owned();
        match redb::Error::from(error) {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path },
            // What redb says of a file that is something else.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::NotAStore { path, source: Box::new(redb::Error::Io(error)) }
            }
            redb::Error::Io(source) => Self::Unusable { path, source },
            source => Self::NotAStore { path, source: Box::new(source) },
        }
    }
}

//! What the controller remembers across its death, and under which keys.
//!
//! | key | value |
//! |---|---|
//! | `resource/KIND/NAME` | the [`Source`] of the document |
//! | `control/numbering` | the [`Numbering`] |
//! | `control/retained` | the [`Retained`] paths |
//! | `control/leaving` | elements that left the model but may have objects of ours |
//! | `control/given-up` | what chains promise and what was asked for breaks, by whose leave |
//! | `control/journal` | the elements that an unfinished change touches; absent when there is none |
//! | `control/starts` | how often a controller has started on this store |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_model::name::NodeName;
use catena_model::numbering::Numbering;
use catena_model::resource::{self, Diagnostic, Document, Element, Source};
use catena_store::{Entry, Expect, Revision, Store, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{RecordError, StartError};
use crate::intent::{Intent, Kept, ResourceId};
use crate::retained::Retained;

const RESOURCES: &str = "resource/";
const NUMBERING: &str = "control/numbering";
const RETAINED: &str = "control/retained";
const LEAVING: &str = "control/leaving";
const GIVEN_UP: &str = "control/given-up";
const JUDGED: &str = "control/judged";
const JOURNAL: &str = "control/journal";
const STARTS: &str = "control/starts";

/// The elements that an unfinished change touches.
pub type Journal = BTreeSet<NodeName>;

/// The controller's hold on its store. Only one controller has it: a later start on the same store takes it away.
#[derive(Debug)]
pub struct Records {
    store: Arc<dyn Store>,
    /// How often a controller has started on this store, this one included.
    pub starts: u64,
    /// The revision of [`STARTS`], which every write expects unchanged. `None`: this controller only looks.
    hold: Option<Revision>,
    pub revision: Revision,
}

impl Records {
    /// Takes hold of the store and reads what is in it.
    pub async fn open(store: Arc<dyn Store>) -> Result<(Self, Intent, Journal), StartError> {
        let former = store.get(STARTS).await.map_err(RecordError::Store)?;
        let (count, expect) = match &former {
            Some(entry) => (read(entry)?, Expect::At(entry.revision)),
            None => (0u64, Expect::Absent),
        };
        let starts = count + 1;
        let hold = store.transact(vec![put(STARTS, &starts)?.expecting(expect)]).await;
        let hold = hold.map_err(RecordError::Store)?;
        let records = Self { store, starts, hold: Some(hold), revision: hold };
        let intent = records.intent().await?;
        let journal = records.record(JOURNAL).await?;
        Ok((records, intent, journal))
    }

    /// Reads what is in the store, and takes no hold of it: writes are refused.
    pub async fn look(store: Arc<dyn Store>) -> Result<(Self, Intent, Journal), StartError> {
        let starts = match store.get(STARTS).await.map_err(RecordError::Store)? {
            Some(entry) => read(&entry)?,
            None => 0,
        };
        let revision = store.revision().await.map_err(RecordError::Store)?;
        let records = Self { store, starts, hold: None, revision };
        let intent = records.intent().await?;
        let journal = records.record(JOURNAL).await?;
        Ok((records, intent, journal))
    }

    /// Stores what differs between two intents, and the journal; afterwards `new` knows its resources' revisions.
    pub async fn replace(
        &mut self,
        old: &Intent,
        new: &mut Intent,
        journal: &Journal,
    ) -> Result<(), RecordError> {
        let Some(hold) = self.hold else { return Err(RecordError::OnlyLooking) };
        let mut writes = Vec::new();
        let mut stored = Vec::new();
        for (id, kept) in &new.documents {
            let former = old.documents.get(id);
            if former.is_none_or(|former| !Arc::ptr_eq(&former.document, &kept.document)) {
                writes.push(put(&key_of(id), &kept.document.source)?);
                stored.push(id.clone());
            }
        }
        let gone = old.documents.keys().filter(|id| !new.documents.contains_key(*id));
        writes.extend(gone.map(|id| Write::delete(key_of(id))));
        if old.numbering != new.numbering {
            writes.push(put(NUMBERING, &new.numbering)?);
        }
        if old.retained != new.retained {
            writes.push(put(RETAINED, &new.retained)?);
        }
        if old.leaving != new.leaving {
            writes.push(put(LEAVING, &new.leaving)?);
        }
        if old.waivers != new.waivers {
            writes.push(put(GIVEN_UP, &new.waivers)?);
        }
        if old.judgement != new.judgement {
            writes.push(put(JUDGED, &new.judgement)?);
        }
        writes.push(match journal.is_empty() {
            true => Write::delete(JOURNAL),
            false => put(JOURNAL, journal)?,
        });
        writes.push(put(STARTS, &self.starts)?.expecting(Expect::At(hold)));
        let revision = self.store.transact(writes).await?;
        self.revision = revision;
        self.hold = Some(revision);
        for id in stored {
            if let Some(kept) = new.documents.get_mut(&id) {
                kept.revision = revision;
            }
        }
        Ok(())
    }

    async fn intent(&self) -> Result<Intent, StartError> {
        let numbering: Numbering = self.record(NUMBERING).await?;
        let retained: Retained = self.record(RETAINED).await?;
        let leaving: BTreeMap<NodeName, Element> = self.record(LEAVING).await?;
        let documents = self.documents().await?;
        let waivers = self.record(GIVEN_UP).await?;
        let judgement = self.record(JUDGED).await?;
        let intent = Intent::new(documents, numbering, retained, leaving).map_err(StartError::Invalid)?;
        Ok(Intent { waivers, judgement, ..intent })
    }

    async fn documents(&self) -> Result<BTreeMap<ResourceId, Kept>, StartError> {
        let mut documents = BTreeMap::new();
        let mut diagnostics = Vec::new();
        for entry in self.store.list(RESOURCES).await.map_err(RecordError::Store)?.entries {
            let (parsed, found) = parse_one(read(&entry)?);
            diagnostics.extend(found);
            documents.extend(parsed.map(|document| {
                let kept = Kept { document: Arc::new(document), revision: entry.revision };
                (ResourceId::of(&kept.document), kept)
            }));
        }
        if diagnostics.is_empty() { Ok(documents) } else { Err(StartError::Invalid(diagnostics)) }
    }

    /// The value of a record; the default where there is none.
    async fn record<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T, RecordError> {
        match self.store.get(key).await? {
            Some(entry) => read(&entry),
            None => Ok(T::default()),
        }
    }
}

fn key_of(id: &ResourceId) -> String {
    format!("{RESOURCES}{id}")
}

/// A source that was cut out of its file holds one document.
fn parse_one(source: Source) -> (Option<Document>, Vec<Diagnostic>) {
    let (documents, diagnostics) = resource::parse(&[source]);
    (documents.into_iter().next(), diagnostics)
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, RecordError> {
    serde_json::from_slice(&entry.value)
        .map_err(|source| RecordError::Damaged { key: entry.key.clone(), source })
}

fn put(key: &str, value: &impl Serialize) -> Result<Write, RecordError> {
    let value =
        serde_json::to_vec(value).map_err(|source| RecordError::Damaged { key: key.to_owned(), source })?;
    Ok(Write::put(key, value))
}

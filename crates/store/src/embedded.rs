use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::feed::{Feed, Watch};
use crate::{Entry, Listing, Revision, Store, StoreError, Write, check};

/// Key → (revision of the transaction that wrote it, value).
const ENTRIES: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("entries");
/// [`REVISION`] → the revision of the last transaction.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";

/// A store in one file (redb: copy on write, a checksum on every page). A commit is on the disk when it is reported, and
/// the file is whole at every moment, so that the process can be killed at any.
#[derive(Clone, Debug)]
pub struct Embedded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    database: Database,
    /// Held from before a commit until watchers have been told, so that they are told in order.
    writing: Mutex<()>,
    feed: Arc<Feed>,
}

impl Embedded {
    /// Opens the file, or creates it and the directories above it, for this user alone. One process at a time can have
    /// it open.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let inner = blocking(move || Inner::open(path)).await?;
        Ok(Self(Arc::new(inner)))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&inner)).await
    }
}

/// Reads and writes wait for the disk, so they have threads of their own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_shutting_down) => Err(StoreError::Closed),
    }
}

#[async_trait]
impl Store for Embedded {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.with(Inner::revision).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.with(move |inner| inner.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.with(move |inner| inner.list(&prefix)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        self.with(move |inner| inner.transact(writes)).await
    }

    fn watch(&self, prefix: &str, from: Revision) -> Watch {
        self.0.feed.watch(prefix, from)
    }
}

impl Inner {
    fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file =
            open_private(&path).map_err(|source| StoreError::Unusable { path: path.clone(), source })?;
        let database = FileBackend::new(file).and_then(|file| Database::builder().create_with_backend(file));
        let database = database.map_err(|error| StoreError::opening(&path, error))?;
        let revision = create_tables(&database)?;
        Ok(Self { path, database, writing: Mutex::new(()), feed: Feed::starting_at(revision) })
    }

    fn revision(&self) -> Result<Revision, StoreError> {
        let transaction = self.database.begin_read().map_err(StoreError::failed)?;
        read_revision(&transaction.open_table(META).map_err(StoreError::failed)?)
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let transaction = self.database.begin_read().map_err(StoreError::failed)?;
        let entries = transaction.open_table(ENTRIES).map_err(StoreError::failed)?;
        let found = entries.get(key).map_err(StoreError::failed)?;
        Ok(found.map(|guard| entry(key, guard.value())))
    }

    fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        // One read transaction sees one moment.
        let transaction = self.database.begin_read().map_err(StoreError::failed)?;
        let revision = read_revision(&transaction.open_table(META).map_err(StoreError::failed)?)?;
        let table = transaction.open_table(ENTRIES).map_err(StoreError::failed)?;
        let mut entries = Vec::new();
        for row in table.range(prefix..).map_err(StoreError::failed)? {
            let (key, value) = row.map_err(StoreError::failed)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            entries.push(entry(key.value(), value.value()));
        }
        Ok(Listing { revision, entries })
    }

    fn transact(&self, writes: Vec<Write>) -> Result<Revision, StoreError> {
        // A commit that panicked has been rolled back: what the lock guards, the order, is not harmed.
        let _order = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = self.commit(&writes)?;
        self.feed.publish(revision, writes);
        Ok(revision)
    }

    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError> {
        // A transaction that is dropped without a commit leaves nothing.
        let transaction = self.database.begin_write().map_err(StoreError::failed)?;
        let revision = {
            let mut meta = transaction.open_table(META).map_err(StoreError::failed)?;
            let mut entries = transaction.open_table(ENTRIES).map_err(StoreError::failed)?;
            check(writes, |key| {
                let found = entries.get(key).map_err(StoreError::failed)?;
                Ok(found.map(|guard| Revision(guard.value().0)))
            })?;
            let revision = Revision(read_revision(&meta)?.0 + 1);
            meta.insert(REVISION, revision.0).map_err(StoreError::failed)?;
            for Write { key, value, .. } in writes {
                match value {
                    Some(value) => entries.insert(key.as_str(), (revision.0, value.as_slice())),
                    None => entries.remove(key.as_str()),
                }
                .map_err(StoreError::failed)?;
            }
            revision
        };
        transaction.commit().map_err(StoreError::failed)?;
        Ok(revision)
    }
}

/// What is stored tells who is connected to whom: others need not read it.
fn open_private(path: &Path) -> std::io::Result<File> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// So that readers always find the tables. Says the revision. Writes nothing where they are.
fn create_tables(database: &Database) -> Result<Revision, StoreError> {
    let reading = database.begin_read().map_err(StoreError::failed)?;
    if let (Ok(_), Ok(meta)) = (reading.open_table(ENTRIES), reading.open_table(META)) {
        return read_revision(&meta);
    }
    let transaction = database.begin_write().map_err(StoreError::failed)?;
    let revision = {
        transaction.open_table(ENTRIES).map_err(StoreError::failed)?;
        read_revision(&transaction.open_table(META).map_err(StoreError::failed)?)?
    };
    transaction.commit().map_err(StoreError::failed)?;
    Ok(revision)
}

fn read_revision(meta: &impl ReadableTable<&'static str, u64>) -> Result<Revision, StoreError> {
    let found = meta.get(REVISION).map_err(StoreError::failed)?;
    Ok(Revision(found.map_or(0, |guard| guard.value())))
}

fn entry(key: &str, (revision, value): (u64, &[u8])) -> Entry {
    Entry { key: key.to_owned(), value: value.to_vec(), revision: Revision(revision) }
}

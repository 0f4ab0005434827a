//! What every store does, asked of each.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use catena_store::{Change, Embedded, Expect, InMemory, Revision, Store, StoreError, Transaction, Write};

macro_rules! conformance {
    ($($case:ident)*) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(&catena_store::InMemory::default()).await;
            })*
        }
        mod embedded {
            $(#[tokio::test]
            async fn $case() {
                let directory = tempfile::tempdir().unwrap();
                let store = catena_store::Embedded::open(directory.path().join("state.redb")).await.unwrap();
                super::$case(&store).await;
            })*
        }
    };
}

conformance! {
    begins_empty
    gives_back_what_was_put
    every_transaction_has_the_next_revision
    lists_by_prefix_in_order
    put_if_absent
    put_if_unchanged
    delete_if_unchanged
    a_transaction_is_made_whole_or_not_at_all
    a_key_is_written_once_in_a_transaction
    of_racing_writers_one_wins
    watching_misses_nothing_and_repeats_nothing
    a_watcher_wakes_up
    a_watcher_that_fell_behind_is_told
}

async fn begins_empty(store: &dyn Store) {
    assert_eq!(store.revision().await.unwrap(), Revision(0));
    assert_eq!(store.get("a").await.unwrap(), None);
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.revision, listing.entries.len()), (Revision(0), 0));
}

async fn gives_back_what_was_put(store: &dyn Store) {
    let revision = store.put_if("a", b"1".to_vec(), Expect::Anything).await.unwrap();
    let entry = store.get("a").await.unwrap().unwrap();
    assert_eq!(
        (entry.key.as_str(), entry.value.as_slice(), entry.revision),
        ("a", b"1".as_slice(), revision)
    );
    store.delete_if("a", Expect::Anything).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
}

async fn every_transaction_has_the_next_revision(store: &dyn Store) {
    for number in 1..=10 {
        let writes = vec![Write::put("a", "x"), Write::put(format!("b/{number}"), "y"), Write::delete("c")];
        assert_eq!(store.transact(writes).await.unwrap(), Revision(number));
        assert_eq!(store.revision().await.unwrap(), Revision(number));
        assert_eq!(store.get("a").await.unwrap().unwrap().revision, Revision(number));
    }
    assert_eq!(store.get("b/3").await.unwrap().unwrap().revision, Revision(3));
}

async fn lists_by_prefix_in_order(store: &dyn Store) {
    let keys = ["b/2", "a", "b/1", "b0", "b/10", "c"];
    store.transact(keys.iter().map(|key| Write::put(*key, *key)).collect()).await.unwrap();
    let keys = async |prefix| -> Vec<String> {
        store.list(prefix).await.unwrap().entries.into_iter().map(|entry| entry.key).collect()
    };
    assert_eq!(keys("b/").await, ["b/1", "b/10", "b/2"]);
    assert_eq!(keys("").await, ["a", "b/1", "b/10", "b/2", "b0", "c"]);
    assert!(keys("d").await.is_empty());
}

async fn put_if_absent(store: &dyn Store) {
    let first = store.put_if("a", b"1".to_vec(), Expect::Absent).await.unwrap();
    let error = store.put_if("a", b"2".to_vec(), Expect::Absent).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Conflict { key, expected: None, found } if key == "a" && *found == Some(first)),
        "{error:?}"
    );
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    assert_eq!(store.revision().await.unwrap(), first, "what failed is no transaction");
}

async fn put_if_unchanged(store: &dyn Store) {
    let first = store.put_if("a", b"1".to_vec(), Expect::Absent).await.unwrap();
    let other = store.put_if("b", b"1".to_vec(), Expect::Absent).await.unwrap();
    assert!(store.put_if("a", b"2".to_vec(), Expect::At(other)).await.is_err());
    let second = store.put_if("a", b"2".to_vec(), Expect::At(first)).await.unwrap();
    assert!(store.put_if("a", b"3".to_vec(), Expect::At(first)).await.is_err());
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, second);
    assert!(store.put_if("c", b"1".to_vec(), Expect::At(first)).await.is_err(), "there is no c");
}

async fn delete_if_unchanged(store: &dyn Store) {
    let first = store.put_if("a", b"1".to_vec(), Expect::Absent).await.unwrap();
    assert!(store.delete_if("a", Expect::Absent).await.is_err());
    store.delete_if("a", Expect::At(first)).await.unwrap();
    assert!(store.delete_if("a", Expect::At(first)).await.is_err(), "it is gone");
    store.delete_if("a", Expect::Absent).await.unwrap();
}

async fn a_transaction_is_made_whole_or_not_at_all(store: &dyn Store) {
    let first = store.put_if("b", b"1".to_vec(), Expect::Absent).await.unwrap();
    let writes = |b| vec![Write::put("a", "2"), Write::put("b", "2").expecting(b), Write::delete("c")];
    assert!(store.transact(writes(Expect::Absent)).await.is_err());
    assert_eq!(store.get("a").await.unwrap(), None);
    let second = store.transact(writes(Expect::At(first))).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, second);
    assert_eq!(store.get("b").await.unwrap().unwrap().revision, second);
}

async fn a_key_is_written_once_in_a_transaction(store: &dyn Store) {
    let error = store.transact(vec![Write::put("a", "1"), Write::delete("a")]).await.unwrap_err();
    assert!(matches!(&error, StoreError::WrittenTwice { key } if key == "a"), "{error:?}");
    assert_eq!(store.revision().await.unwrap(), Revision(0));
}

async fn of_racing_writers_one_wins(store: &dyn Store) {
    let attempts = std::iter::repeat_n((), 8).map(|()| store.put_if("a", b"1".to_vec(), Expect::Absent));
    let mut won = 0;
    for attempt in join_all(attempts.collect()).await {
        won += usize::from(attempt.is_ok());
    }
    assert_eq!(won, 1);
}

/// Polls all futures together.
async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(value) = std::pin::Pin::new(future).poll(context)
            {
                *output = Some(value);
            }
        }
        if outputs.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

async fn watching_misses_nothing_and_repeats_nothing(store: &dyn Store) {
    store.transact(vec![Write::put("a/1", "before")]).await.unwrap();
    let listing = store.list("a/").await.unwrap();
    store.transact(vec![Write::put("b/1", "elsewhere")]).await.unwrap();
    store.transact(vec![Write::put("a/2", "x"), Write::put("b/2", "y"), Write::delete("a/1")]).await.unwrap();
    let mut watch = store.watch("a/", listing.revision);
    store.transact(vec![Write::put("a/2", "z")]).await.unwrap();
    let change = |key: &str, value: Option<&str>| Change {
        key: key.to_owned(),
        value: value.map(|text| text.as_bytes().to_vec()),
    };
    let first =
        Transaction { revision: Revision(3), changes: vec![change("a/2", Some("x")), change("a/1", None)] };
    assert_eq!(watch.next().await.unwrap(), first);
    let second = Transaction { revision: Revision(4), changes: vec![change("a/2", Some("z"))] };
    assert_eq!(watch.next().await.unwrap(), second);
    let nothing = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

async fn a_watcher_wakes_up(store: &dyn Store) {
    let mut watch = store.watch("", Revision(0));
    let (seen, written) = tokio::join!(watch.next(), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        store.transact(vec![Write::put("a", "1")]).await
    });
    assert_eq!(seen.unwrap().revision, written.unwrap());
}

async fn a_watcher_that_fell_behind_is_told(store: &dyn Store) {
    let mut watch = store.watch("", Revision(0));
    for _ in 0..5 {
        store.transact(vec![Write::put("a", vec![0; 5 << 20])]).await.unwrap();
    }
    assert!(matches!(watch.next().await, Err(StoreError::Forgotten { from: Revision(0), .. })));
    let listing = store.list("").await.unwrap();
    let mut watch = store.watch("", listing.revision);
    let next = store.transact(vec![Write::put("a", "1")]).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, next);
}

#[tokio::test]
async fn a_watcher_is_told_that_its_store_is_gone() {
    let store = InMemory::default();
    let mut watch = store.watch("", Revision(0));
    drop(store);
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn an_embedded_store_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("below").join("state.redb");
    let store = Embedded::open(&path).await.unwrap();
    let revision = store.put_if("a", b"1".to_vec(), Expect::Absent).await.unwrap();
    drop(store);
    let store = Embedded::open(&path).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, b"1");
    assert_eq!(store.revision().await.unwrap(), revision);
    let mut watch = store.watch("", Revision(0));
    assert!(matches!(watch.next().await, Err(StoreError::Forgotten { .. })), "it was in another life");
}

#[tokio::test]
async fn an_embedded_store_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let _owner = Embedded::open(&path).await.unwrap();
    let error = Embedded::open(&path).await.unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path: named } if *named == path), "{error:?}");
    assert!(error.to_string().contains("a controller is running"));
}

#[tokio::test]
async fn a_place_that_cannot_be_a_store_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("notes");
    std::fs::write(&file, "these are notes, and long enough to be mistaken for pages\n".repeat(400)).unwrap();

    let error = Embedded::open(file.join("state.redb")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unusable { .. }), "below a file: {error:?}");
    let error = Embedded::open(directory.path()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unusable { .. }), "a directory: {error:?}");
    let error = Embedded::open(&file).await.unwrap_err();
    assert!(matches!(&error, StoreError::NotAStore { .. }), "another file: {error:?}");
    assert!(error.to_string().starts_with(&file.display().to_string()));
}

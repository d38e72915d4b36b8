//! The contract of `backup_core::vault::store`, sentence by sentence, for every store: memory, directory, S3 on a server
//! in this process and on moto (plain, with versions, with locks), and any endpoint that `BACKUP_TEST_S3_ENDPOINT` and its companions name.
//!
//! A fake that does not keep the contract must fail here: `a_store_that_breaks_the_contract_is_caught` runs the suite
//! over stores that are wrong in one way each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::monitor::Silent;
use backup_core::secret::Secret;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::protection::{LockMode, LockRule};
use backup_core::vault::s3::{S3Credentials, S3Options, S3Store};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use harness::moto::{Kind, Moto};
use harness::s3::{Bucket, S3Server};

pub(crate) fn path(text: &str) -> StorePath {
    StorePath::new(text).unwrap()
}

/// Options for a bucket of the harness, under `prefix`, with short times.
pub(crate) fn options(bucket: &Bucket, prefix: &str) -> S3Options {
    let credentials = S3Credentials::Static {
        access_key_id: bucket.access_key.clone(),
        secret_access_key: Secret::new(bucket.secret_key.clone()),
        session_token: None,
    };
    let mut options =
        S3Options::new(bucket.endpoint.clone(), bucket.bucket.clone(), bucket.region.clone(), credentials);
    options.prefix = (!prefix.is_empty()).then(|| path(prefix));
    options.retry.base = Duration::from_millis(5);
    options.retry.cap = Duration::from_millis(50);
    options.retry.attempt = Duration::from_secs(20);
    options.retry.total = Duration::from_mins(1);
    options
}

async fn s3(bucket: &Bucket, prefix: &str, page_names: u16) -> S3Store {
    let mut options = options(bucket, prefix);
    options.page_names = page_names;
    S3Store::connect(options, Arc::new(Silent)).await.unwrap()
}

/// Real stores have real clocks; the suite compares them with this machine's.
#[expect(clippy::disallowed_methods, reason = "the edge: a test's own clock")]
fn wall() -> Clock {
    Clock::new(Utc::now)
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    conform(&MemoryStore::new(wall()), Place::GOOD).await;
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), LocalOptions::default()).unwrap();
    conform(&store, Place::GOOD).await;
    assert_only_drafts_folder_is_left(dir.path());
}

fn assert_only_drafts_folder_is_left(root: &Path) {
    let left: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".tmp"], "empty folders were left behind");
    assert_eq!(std::fs::read_dir(root.join(".tmp")).unwrap().count(), 0, "drafts were left behind");
}

#[tokio::test]
async fn s3_keeps_the_contract() {
    let server = S3Server::start().unwrap();
    // Pages of three names, so that every listing of the suite is cut.
    conform(&s3(&server.bucket, "v/deep", 3).await, Place::S3S_FS).await;
    conform(&s3(&server.bucket, "", 1000).await, Place::S3S_FS).await;
    let strict = s3(&server.bucket, "strict", 3).await.with_readback(true).with_if_none_match(true);
    conform(&strict, Place::S3S_FS).await;
}

#[tokio::test]
async fn s3_behind_tls_of_a_private_authority_keeps_the_contract() {
    let server = S3Server::start_tls().unwrap();
    let mut options = options(&server.bucket, "v");
    options.ca = Some(harness::s3::CA_PEM.as_bytes().to_vec());
    let store = S3Store::connect(options, Arc::new(Silent)).await.unwrap();
    conform(&store, Place::S3S_FS).await;
}

#[tokio::test]
async fn moto_keeps_the_contract_but_for_emptied_folders() {
    let Some(moto) = Moto::start().unwrap() else { return };
    conform(&s3(&moto.bucket("plain", Kind::Plain).unwrap(), "v", 3).await, Place::GOOD).await;
    let versioned = s3(&moto.bucket("versioned", Kind::Versioned).unwrap(), "v", 1000).await;
    conform(&versioned.with_if_none_match(true), Place::MOTO_VERSIONED).await;
    let lock =
        LockRule { mode: LockMode::Governance, window: TimeDelta::days(1), period: TimeDelta::days(1), clock: wall() };
    let locked = s3(&moto.bucket("locked", Kind::Locked).unwrap(), "v", 1000).await.with_lock(Some(lock));
    conform(&locked, Place::MOTO_VERSIONED).await;
}

#[tokio::test]
async fn an_endpoint_given_by_environment_keeps_the_contract() {
    let Some(bucket) = Bucket::from_env().unwrap() else {
        return harness::skip("s3-endpoint outside of the tests", "BACKUP_TEST_S3_ENDPOINT is not set");
    };
    let unique = format!("conformance-{}", wall().now().timestamp_micros());
    let store = s3(&bucket, &unique, 3).await;
    conform(&store, Place::GOOD).await;
    let probe = store.probe().await.unwrap();
    let strict = s3(&bucket, &unique, 1000)
        .await
        .with_readback(!probe.checksums_verified)
        .with_if_none_match(probe.if_none_match);
    conform(&strict, Place::GOOD).await;
}

/// What is known of the place that a store writes to; the stores themselves must keep the whole contract.
#[derive(Debug, Clone, Copy)]
struct Place {
    longest_path_bytes: usize,
    folders_are_missing: bool,
    emptied_folders_vanish: bool,
}

impl Place {
    const GOOD: Self =
        Self { longest_path_bytes: StorePath::MAX_BYTES, folders_are_missing: true, emptied_folders_vanish: true };

    /// s3s-fs answers 500 when a key is a directory on its disk.
    const S3S_FS: Self = Self { folders_are_missing: false, ..Self::GOOD };

    /// Where moto keeps versions it lists the folder of a body that only a delete marker is left of. S3 does not.
    const MOTO_VERSIONED: Self = Self { emptied_folders_vanish: false, ..Self::GOOD };
}

/// Runs every part of the suite. The store must be empty and is empty again afterwards.
async fn conform(store: &dyn Store, place: Place) {
    assert_eq!(store.list(None).await.unwrap(), [], "not empty at the start");
    bodies_come_back(store).await;
    create_only_never_changes(store).await;
    replace_replaces(store).await;
    limits_are_kept(store).await;
    missing_is_missing(store, place).await;
    listings_are_whole_and_sorted(store).await;
    children_are_the_next_parts(store).await;
    deletion_is_idempotent_and_narrow(store, place).await;
    what_is_set_aside_is_kept(store).await;
    long_paths_work(store, place.longest_path_bytes).await;
    readers_see_nothing_or_the_whole(store).await;
    many_writers_at_once(store).await;
    the_clock_moves_with_bodies(store).await;
    store.sync().await.unwrap();
    for entry in store.list(None).await.unwrap() {
        store.delete(&entry.path).await.unwrap();
    }
    assert_eq!(store.list(None).await.unwrap(), [], "not empty at the end");
    if place.emptied_folders_vanish {
        assert_eq!(store.children(None).await.unwrap(), Vec::<String>::new());
    }
    store.sync().await.unwrap();
}

async fn put(store: &dyn Store, at: &str, body: &'static [u8]) {
    store.put(&path(at), Bytes::from_static(body), PutMode::Replace).await.unwrap();
}

async fn bodies_come_back(store: &dyn Store) {
    let every_byte: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for (at, body) in [("bodies/empty", Bytes::new()), ("bodies/A-z_0.9", Bytes::from(every_byte))] {
        let at = path(at);
        assert_eq!(store.put(&at, body.clone(), PutMode::CreateOnly).await.unwrap(), PutOutcome::Created);
        assert_eq!(store.get(&at, body.len() as u64).await.unwrap(), body);
        let entry = store.stat(&at).await.unwrap().unwrap();
        assert_eq!((entry.path, entry.bytes), (at, body.len() as u64));
    }
    store.sync().await.unwrap();
}

async fn create_only_never_changes(store: &dyn Store) {
    let at = path("create/only");
    let create = |body: &'static [u8]| store.put(&at, Bytes::from_static(body), PutMode::CreateOnly);
    assert_eq!(create(b"first").await.unwrap(), PutOutcome::Created);
    assert_eq!(create(b"first").await.unwrap(), PutOutcome::AlreadyThere);
    // Names are hashes of bodies: the same size is taken for the same body, and it is left alone.
    assert_eq!(create(b"FIRST").await.unwrap(), PutOutcome::AlreadyThere);
    let error = create(b"longer than first").await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Exists { path, found_bytes: 5, wanted_bytes: 17, .. } if path == "create/only"),
        "{error}"
    );
    assert_eq!(store.get(&at, 100).await.unwrap(), "first");
}

async fn replace_replaces(store: &dyn Store) {
    let at = path("replace/me");
    for body in ["one", "two", "a longer one", ""] {
        let outcome = store.put(&at, Bytes::from_static(body.as_bytes()), PutMode::Replace).await.unwrap();
        assert_eq!(outcome, PutOutcome::Created);
        assert_eq!(store.get(&at, 100).await.unwrap(), body);
        assert_eq!(store.stat(&at).await.unwrap().unwrap().bytes, body.len() as u64);
    }
}

async fn limits_are_kept(store: &dyn Store) {
    put(store, "limits/five", b"12345").await;
    assert_eq!(store.get(&path("limits/five"), 5).await.unwrap(), "12345");
    let error = store.get(&path("limits/five"), 4).await.unwrap_err();
    assert!(matches!(&error, StoreError::TooLarge { path, limit_bytes: 4, .. } if path == "limits/five"), "{error}");
}

async fn missing_is_missing(store: &dyn Store, place: Place) {
    put(store, "missing/folder/body", b"x").await;
    let folder = place.folders_are_missing.then_some("missing/folder");
    for at in ["missing/nothing", "nowhere/at/all", "missing/folder/body2"].into_iter().chain(folder) {
        let error = store.get(&path(at), 100).await.unwrap_err();
        assert!(matches!(&error, StoreError::NotFound { path, .. } if path == at), "{at}: {error}");
        assert!(error.to_string().contains(&store.describe()), "{error}");
        assert_eq!(store.stat(&path(at)).await.unwrap(), None, "{at}");
    }
}

async fn listings_are_whole_and_sorted(store: &dyn Store) {
    let names = ["a", "b/x", "b/y/z", "b-c", "b.d", "bc/x", "B/x", "b/0", "c/1", "c/2", "c/3", "c/4", "c/5"];
    for name in names {
        put(store, &format!("list/{name}"), b"four").await;
    }
    let mut expected: Vec<String> = names.iter().map(|name| format!("list/{name}")).collect();
    expected.sort();
    let paths = |entries: Vec<Entry>| entries.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>();
    let listed = store.list(Some(&path("list"))).await.unwrap();
    assert!(listed.iter().all(|entry| entry.bytes == 4));
    assert_eq!(paths(listed), expected);
    // Whole parts, and only what is below.
    assert_eq!(paths(store.list(Some(&path("list/b"))).await.unwrap()), ["list/b/0", "list/b/x", "list/b/y/z"]);
    assert_eq!(paths(store.list(Some(&path("list/a"))).await.unwrap()), Vec::<String>::new());
    assert_eq!(paths(store.list(Some(&path("no/such"))).await.unwrap()), Vec::<String>::new());
    let all = paths(store.list(None).await.unwrap());
    assert!(all.is_sorted() && expected.iter().all(|name| all.contains(name)), "{all:?}");
}

async fn children_are_the_next_parts(store: &dyn Store) {
    // Bodies are those of `listings_are_whole_and_sorted`.
    assert_eq!(store.children(Some(&path("list"))).await.unwrap(), ["B", "a", "b", "b-c", "b.d", "bc", "c"]);
    assert_eq!(store.children(Some(&path("list/b"))).await.unwrap(), ["0", "x", "y"]);
    assert_eq!(store.children(Some(&path("list/c"))).await.unwrap(), ["1", "2", "3", "4", "5"]);
    assert_eq!(store.children(Some(&path("no/such"))).await.unwrap(), Vec::<String>::new());
    assert!(store.children(None).await.unwrap().contains(&"list".to_owned()));
}

async fn deletion_is_idempotent_and_narrow(store: &dyn Store, place: Place) {
    put(store, "delete/one/a", b"x").await;
    put(store, "delete/two/a", b"x").await;
    put(store, "delete/two/ab", b"x").await;
    store.delete(&path("delete/nothing")).await.unwrap();
    store.delete(&path("delete/no/folder")).await.unwrap();
    store.delete(&path("delete/one/a")).await.unwrap();
    store.delete(&path("delete/one/a")).await.unwrap();
    store.delete(&path("delete/two/a")).await.unwrap();
    // A folder without bodies does not exist.
    if place.emptied_folders_vanish {
        assert_eq!(store.children(Some(&path("delete"))).await.unwrap(), ["two"]);
    }
    assert_eq!(store.children(Some(&path("delete/two"))).await.unwrap(), ["ab"]);
    // And its name can be used again.
    put(store, "delete/one/b", b"x").await;
    assert_eq!(store.children(Some(&path("delete"))).await.unwrap(), ["one", "two"]);
}

async fn long_paths_work(store: &dyn Store, longest_bytes: usize) {
    let part = "p".repeat(64);
    let mut long = "long".to_owned();
    while long.len() + 1 + part.len() <= longest_bytes {
        long = format!("{long}/{part}");
    }
    if longest_bytes - long.len() > 1 {
        long = format!("{long}/{}", "e".repeat((longest_bytes - long.len() - 1).min(StorePath::MAX_PART_BYTES)));
    }
    put(store, &long, b"deep").await;
    assert_eq!(store.get(&path(&long), 4).await.unwrap(), "deep");
    assert_eq!(store.list(Some(&path("long"))).await.unwrap()[0].path, path(&long));
}

async fn readers_see_nothing_or_the_whole(store: &dyn Store) {
    const BYTES: usize = 400_000;
    let at = path("atomic/body");
    let writing = async {
        for round in 0..12_u8 {
            store.put(&at, Bytes::from(vec![round; BYTES]), PutMode::Replace).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..24 {
            match store.get(&at, BYTES as u64).await {
                Ok(body) => {
                    assert_eq!(body.len(), BYTES);
                    assert!(body.iter().all(|byte| *byte == body[0]), "a mixture of two bodies");
                }
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    futures::future::join(writing, reading).await;
}

async fn many_writers_at_once(store: &dyn Store) {
    let work = (0..40).map(|n| async move {
        let at = path(&format!("many/{:02}/{n}", n % 7));
        store.put(&at, Bytes::from(vec![b'x'; n]), PutMode::CreateOnly).await.unwrap()
    });
    let outcomes = futures::future::join_all(work).await;
    assert!(outcomes.iter().all(|outcome| *outcome == PutOutcome::Created));
    // Every `put` that has returned is seen.
    let listed = store.list(Some(&path("many"))).await.unwrap();
    assert_eq!(listed.len(), 40);
    assert!(listed.iter().all(|e| e.path.as_str().rsplit('/').next() == Some(e.bytes.to_string().as_str())));
    store.sync().await.unwrap();
}

async fn what_is_set_aside_is_kept(store: &dyn Store) {
    let [at, aside, none] = ["aside/of/a", "_aside/1/aside/of/a", "aside/of/none"].map(path);
    assert!(!store.set_aside(&none, &aside).await.unwrap(), "nothing lies there");
    assert_eq!(store.stat(&aside).await.unwrap(), None);
    store.put(&at, "bad".into(), PutMode::Replace).await.unwrap();
    assert!(store.set_aside(&at, &aside).await.unwrap());
    // What takes its place changes nothing of what was kept.
    store.put(&at, "good".into(), PutMode::Replace).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.get(&aside, 9).await.unwrap(), "bad");
    assert_eq!(store.get(&at, 9).await.unwrap(), "good");
    for path in [at, aside] {
        store.delete(&path).await.unwrap();
    }
}

async fn the_clock_moves_with_bodies(store: &dyn Store) {
    // S3 tells whole seconds.
    let slack = TimeDelta::seconds(2);
    let before = store.now().await.unwrap();
    put(store, "clock/body", b"x").await;
    let after = store.now().await.unwrap();
    let modified = store.stat(&path("clock/body")).await.unwrap().unwrap().modified;
    assert!(before - slack <= modified && modified <= after + slack, "{before} {modified} {after}");
    let listed = store.list(Some(&path("clock"))).await.unwrap()[0].modified;
    assert!((listed - modified).abs() <= slack, "{listed} {modified}");
}

/// What a faulty store does wrong.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    CreateOnlyReplaces,
    IgnoresLimits,
    EmptyForMissing,
    ListsByText,
    UnsortedList,
    LosesABody,
    FailsOnMissingDelete,
    ClockFarAway,
}

#[derive(Debug)]
struct Faulty(MemoryStore, Wrong);

#[async_trait]
impl Store for Faulty {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        match self.1 {
            Wrong::CreateOnlyReplaces => self.0.put(path, body, PutMode::Replace).await,
            Wrong::LosesABody if path.as_str().ends_with("/33") => Ok(PutOutcome::Created),
            _ => self.0.put(path, body, mode).await,
        }
    }
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let limit_bytes = if matches!(self.1, Wrong::IgnoresLimits) { u64::MAX } else { limit_bytes };
        match self.0.get(path, limit_bytes).await {
            Err(StoreError::NotFound { .. }) if matches!(self.1, Wrong::EmptyForMissing) => Ok(Bytes::new()),
            other => other,
        }
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.0.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        match (self.1, prefix) {
            (Wrong::ListsByText, Some(prefix)) => {
                let all = self.0.list(None).await?;
                Ok(all.into_iter().filter(|entry| entry.path.as_str().starts_with(prefix.as_str())).collect())
            }
            (Wrong::UnsortedList, _) => Ok(self.0.list(prefix).await?.into_iter().rev().collect()),
            _ => self.0.list(prefix).await,
        }
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.0.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        if matches!(self.1, Wrong::FailsOnMissingDelete) && self.0.stat(path).await?.is_none() {
            return Err(StoreError::NotFound { path: path.to_string(), store: self.describe() });
        }
        self.0.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.0.sync().await
    }
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let away = if matches!(self.1, Wrong::ClockFarAway) { TimeDelta::hours(1) } else { TimeDelta::zero() };
        Ok(self.0.now().await? + away)
    }
}

#[tokio::test]
async fn a_store_that_breaks_the_contract_is_caught() {
    for wrong in [
        Wrong::CreateOnlyReplaces,
        Wrong::IgnoresLimits,
        Wrong::EmptyForMissing,
        Wrong::ListsByText,
        Wrong::UnsortedList,
        Wrong::LosesABody,
        Wrong::FailsOnMissingDelete,
        Wrong::ClockFarAway,
    ] {
        let store = Faulty(MemoryStore::new(wall()), wrong);
        let run = std::panic::AssertUnwindSafe(conform(&store, Place::GOOD)).catch_unwind().await;
        assert!(run.is_err(), "{wrong:?} passed the suite");
    }
}

//! The store that keeps to a rate passes everything on: what it forgot would be a pin without a hold, a lock that nobody waits
//! for, a deleted body that nobody finds. And it does keep to the rate.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::protection::{Gone, Lifecycle, LockMode, Older, Remembered, Retention};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use backup_core::vault::throttle::Throttled;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::store_conformance::path;

/// Writes down what it is asked, and has an answer of its own for everything that a store has a default for.
#[derive(Debug)]
struct Noting {
    memory: MemoryStore,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Noting {
    fn note(&self, call: &str, about: &dyn std::fmt::Display) {
        self.asked.lock().unwrap().push(format!("{call} {about}"));
    }
}

fn of(path: &StorePath) -> Older {
    Older { path: path.clone(), version: "v7".to_owned(), bytes: 3, modified: DateTime::UNIX_EPOCH }
}

fn remembered(folder: &StorePath) -> Remembered<Gone> {
    let gone = Gone { path: folder.clone(), first: DateTime::UNIX_EPOCH, last: DateTime::UNIX_EPOCH };
    Remembered { found: vec![gone], is_cut: true }
}

#[async_trait]
impl Store for Noting {
    fn describe(&self) -> String {
        "noting".to_owned()
    }
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.note("put", &format!("{path} {mode:?}"));
        self.memory.put(path, body, mode).await
    }
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.note("get", &format!("{path} {limit_bytes}"));
        self.memory.get(path, limit_bytes).await
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.note("stat", path);
        self.memory.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.note("list", &prefix.map_or(".", StorePath::as_str));
        self.memory.list(prefix).await
    }
    async fn each(&self, prefix: Option<&StorePath>, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        self.note("each", &prefix.map_or(".", StorePath::as_str));
        self.memory.each(prefix, take).await
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.note("children", &prefix.map_or(".", StorePath::as_str));
        self.memory.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.note("delete", path);
        self.memory.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.note("sync", &".");
        Ok(())
    }
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok("2020-02-02T02:02:02Z".parse().unwrap())
    }
    fn locks(&self) -> bool {
        true
    }
    async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        self.note("protection", path);
        Ok(Some(Retention { mode: Some(LockMode::Compliance), until: None, legal_hold: true }))
    }
    async fn hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        self.note("hold", &format!("{path} {on}"));
        Ok(())
    }
    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        self.note("older", path);
        Ok(vec![of(path)])
    }
    async fn deleted(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        self.note("deleted", folder);
        Ok(remembered(folder))
    }
    async fn folders_ever(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        self.note("folders_ever", folder);
        Ok(Remembered { found: vec!["ever".to_owned()], is_cut: true })
    }
    async fn get_older(&self, older: &Older, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.note("get_older", &format!("{} {} {limit_bytes}", older.path, older.version));
        Ok(Bytes::from_static(b"old"))
    }
    async fn lifecycle(&self) -> Result<Lifecycle, StoreError> {
        Ok(Lifecycle::Unknown("noted".to_owned()))
    }
}

fn throttled(bytes_per_second: u64) -> (Throttled<Noting>, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::default();
    let memory = MemoryStore::new(Clock::new(|| DateTime::UNIX_EPOCH));
    (Throttled::new(Noting { memory, asked: Arc::clone(&asked) }, bytes_per_second), asked)
}

#[tokio::test]
async fn every_call_is_passed_on_with_what_it_is_about_and_its_answer_comes_back() {
    let (store, asked) = throttled(u64::MAX);
    let (a, folder) = (path("f/a"), path("f"));
    let took = |expected: &str| {
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked, [expected]);
    };
    assert_eq!(store.describe(), "noting");
    assert_eq!(store.put(&a, Bytes::from_static(b"body"), PutMode::Replace).await.unwrap(), PutOutcome::Created);
    took("put f/a Replace");
    let again = store.put(&a, Bytes::from_static(b"BODY"), PutMode::CreateOnly).await.unwrap();
    assert_eq!(again, PutOutcome::AlreadyThere);
    took("put f/a CreateOnly");
    assert_eq!(store.get(&a, 9).await.unwrap(), "body");
    took("get f/a 9");
    assert_eq!(store.stat(&a).await.unwrap().unwrap().bytes, 4);
    took("stat f/a");
    assert_eq!(store.list(Some(&folder)).await.unwrap().len(), 1);
    took("list f");
    let mut seen = 0;
    store.each(Some(&folder), &mut |_| seen += 1).await.unwrap();
    assert_eq!(seen, 1);
    took("each f");
    assert_eq!(store.children(Some(&folder)).await.unwrap(), ["a"]);
    took("children f");
    store.sync().await.unwrap();
    took("sync .");
    assert_eq!(store.now().await.unwrap().to_rfc3339(), "2020-02-02T02:02:02+00:00");
    assert!(store.locks());
    assert!(store.protection(&a).await.unwrap().unwrap().legal_hold);
    took("protection f/a");
    for on in [true, false] {
        store.hold(&a, on).await.unwrap();
        took(&format!("hold f/a {on}"));
    }
    let older = store.older(&a).await.unwrap();
    assert_eq!(older, [of(&a)]);
    took("older f/a");
    assert_eq!(store.get_older(&older[0], 5).await.unwrap(), "old");
    took("get_older f/a v7 5");
    assert_eq!(store.deleted(&folder).await.unwrap(), remembered(&folder));
    took("deleted f");
    let ever = store.folders_ever(&folder).await.unwrap();
    assert_eq!((ever.found, ever.is_cut), (vec!["ever".to_owned()], true));
    took("folders_ever f");
    assert_eq!(store.lifecycle().await.unwrap(), Lifecycle::Unknown("noted".to_owned()));
    store.delete(&a).await.unwrap();
    took("delete f/a");
    assert!(matches!(store.get(&a, 9).await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn bodies_keep_to_the_rate_together_and_reading_waits_for_nobody() {
    // Three bodies of 50 ms each: the third waits for the two before it.
    let (store, _) = throttled(1_000_000);
    let body = Bytes::from(vec![7; 50_000]);
    let begun = Instant::now();
    let put = async |name: &str| store.put(&path(name), body.clone(), PutMode::Replace).await.unwrap();
    futures::future::join3(put("a"), put("b"), put("c")).await;
    assert!(begun.elapsed() >= Duration::from_millis(95), "{:?}", begun.elapsed());
    // The line is still taken, and a reader does not stand in it. Fails where reading is slowed down as well.
    let (slow, _) = throttled(1000);
    slow.put(&path("a"), body.clone(), PutMode::Replace).await.unwrap();
    let begun = Instant::now();
    slow.get(&path("a"), 50_000).await.unwrap();
    slow.stat(&path("a")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // The line is taken for those who write.
    assert!(
        tokio::time::timeout(Duration::from_millis(300), slow.put(&path("b"), body, PutMode::Replace)).await.is_err()
    );
}

#[tokio::test]
async fn a_pause_is_no_allowance() {
    let (store, _) = throttled(100_000);
    let body = Bytes::from(vec![7; 50_000]);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let begun = Instant::now();
    for name in ["a", "b"] {
        store.put(&path(name), body.clone(), PutMode::Replace).await.unwrap();
    }
    // Fails where the half second that the first one takes is paid by the pause before it.
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
}

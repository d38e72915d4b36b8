//! A store in memory: the fake that keeps the contract, for tests and for trying a plan without a place to write.
//!
//! Clones share their content, so a test can look at what an engine wrote. Nothing outlives the last clone, so `sync`
//! has nothing to do. It never fails by itself; faults are a wrapper's work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::store::{Entry, Identity, PutMode, PutOutcome, Store, StoreError, StorePath};
use crate::clock::Clock;

/// An ordered map behind the [`Store`] contract.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    bodies: Arc<Mutex<BTreeMap<StorePath, Body>>>,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct Body {
    bytes: Bytes,
    modified: DateTime<Utc>,
    /// Which of all writes it is.
    write: u64,
}

/// Writes of all stores of this process: a body that is put again is another one.
static WRITES: AtomicU64 = AtomicU64::new(0);

impl MemoryStore {
    /// An empty store whose own clock is `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { bodies: Arc::default(), clock }
    }

    /// Another store, with the clock `clock`, that begins with what lies in this one: bodies and when they were written.
    #[must_use]
    pub fn copy(&self, clock: Clock) -> Self {
        let bodies = self.lock().clone();
        Self { bodies: Arc::new(Mutex::new(bodies)), clock }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<StorePath, Body>> {
        // A test that panicked while it held the lock left no half-done change: each change is one map operation.
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows `prefix/` in `path`; the whole path when there is no prefix; `None` when it lies elsewhere.
fn below<'a>(path: &'a StorePath, prefix: Option<&StorePath>) -> Option<&'a str> {
    match prefix {
        None => Some(path.as_str()),
        Some(prefix) => path.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/'),
    }
}

fn entry(path: &StorePath, body: &Body) -> Entry {
    let identity = Some(Identity::of_numbers(0, body.write));
    Entry { path: path.clone(), bytes: body.bytes.len() as u64, modified: body.modified, identity }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        let modified = self.clock.now();
        let mut bodies = self.lock();
        if let (PutMode::CreateOnly, Some(there)) = (mode, bodies.get(path)) {
            if there.bytes.len() == body.len() {
                return Ok(PutOutcome::AlreadyThere);
            }
            return Err(StoreError::Exists {
                path: path.to_string(),
                store: self.describe(),
                found_bytes: there.bytes.len() as u64,
                wanted_bytes: body.len() as u64,
            });
        }
        let write = WRITES.fetch_add(1, Ordering::Relaxed);
        bodies.insert(path.clone(), Body { bytes: body, modified, write });
        Ok(PutOutcome::Created)
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let bodies = self.lock();
        let Some(body) = bodies.get(path) else {
            return Err(StoreError::NotFound { path: path.to_string(), store: self.describe() });
        };
        if body.bytes.len() as u64 > limit_bytes {
            return Err(StoreError::TooLarge { path: path.to_string(), store: self.describe(), limit_bytes });
        }
        Ok(body.bytes.clone())
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        Ok(self.lock().get(path).map(|body| entry(path, body)))
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        let bodies = self.lock();
        Ok(bodies
            .iter()
            .filter(|(path, _)| below(path, prefix).is_some())
            .map(|(path, body)| entry(path, body))
            .collect())
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        let bodies = self.lock();
        let names: BTreeSet<&str> = bodies.keys().filter_map(|path| below(path, prefix)?.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.lock().remove(path);
        Ok(())
    }

    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(self.clock.now())
    }
}

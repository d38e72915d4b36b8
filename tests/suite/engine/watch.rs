//! A store that remembers what it was asked, fails at one call, and lets a test act in the middle of another.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use chrono::{DateTime, Utc};

/// What becomes of the call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused.
    Refused,
    /// It is done, and the answer is lost.
    AnswerLost,
}

type Hook = Box<dyn Fn(&str) + Send + Sync>;

#[derive(Default)]
struct Seen {
    calls: Vec<(&'static str, String)>,
    /// Paths that were put since the last barrier.
    loose: BTreeSet<String>,
    fail: Option<(usize, Fault)>,
    /// Called before a `put`, with its path.
    hook: Option<Arc<Hook>>,
}

/// A watched [`MemoryStore`].
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) memory: MemoryStore,
    seen: Arc<Mutex<Seen>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Whether the path is a snapshot's document: its presence is a commit.
pub(crate) fn is_commit(path: &str) -> bool {
    // What a repair moved aside is no part of the vault.
    path.contains("/snapshots/") && path.strip_suffix(".json").is_some() && !path.starts_with("_damaged/")
}

impl Watch {
    pub(crate) fn new(memory: MemoryStore) -> Self {
        Self { memory, seen: Arc::default() }
    }

    /// Forgets what was seen; from now on the `n`-th call (from 0) fails.
    pub(crate) fn fail(&self, at: Option<(usize, Fault)>) {
        let mut seen = self.seen.lock().unwrap();
        seen.calls.clear();
        seen.fail = at;
    }

    pub(crate) fn before_put(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        self.seen.lock().unwrap().hook = Some(Arc::new(Box::new(hook)));
    }

    /// How many calls there were since [`Watch::fail`].
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls.len()
    }

    /// Paths of the calls of one kind, in order.
    pub(crate) fn paths(&self, call: &str) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.calls.iter().filter(|(name, _)| *name == call).map(|(_, path)| path.clone()).collect()
    }

    /// Paths of objects that were put.
    pub(crate) fn objects_put(&self) -> Vec<String> {
        self.paths("put").into_iter().filter(|path| path.contains("/objects/")).collect()
    }

    /// The whole content, below `prefix`.
    pub(crate) async fn content(&self, prefix: &str) -> Vec<(String, Bytes)> {
        let mut all = Vec::new();
        for entry in self.memory.list(Some(&StorePath::new(prefix).unwrap())).await.unwrap() {
            let bytes = self.memory.get(&entry.path, u64::MAX).await.unwrap();
            all.push((entry.path.to_string(), bytes));
        }
        all
    }

    fn call(&self, name: &'static str, path: &str) -> Result<Option<StoreError>, StoreError> {
        let mut seen = self.seen.lock().unwrap();
        let fault = seen.fail.filter(|(at, _)| *at == seen.calls.len()).map(|(_, fault)| fault);
        seen.calls.push((name, path.to_owned()));
        let error = || StoreError::Failed {
            action: "write",
            path: path.to_owned(),
            store: "watched".to_owned(),
            attempts: 1,
            reason: "the test says so".to_owned(),
        };
        match fault {
            Some(Fault::Refused) => Err(error()),
            Some(Fault::AnswerLost) => Ok(Some(error())),
            None => Ok(None),
        }
    }
}

fn answer<T>(lost: Option<StoreError>, answer: T) -> Result<T, StoreError> {
    lost.map_or(Ok(answer), Err)
}

#[async_trait]
impl Store for Watch {
    fn describe(&self) -> String {
        "watched".to_owned()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        let lost = self.call("put", path.as_str())?;
        let hook = self.seen.lock().unwrap().hook.clone();
        if let Some(hook) = hook {
            hook(path.as_str());
        }
        {
            let mut seen = self.seen.lock().unwrap();
            // Rule 1: what a snapshot names is durable before its document appears.
            assert!(!is_commit(path.as_str()) || seen.loose.is_empty(), "{path} before a barrier: {:?}", seen.loose);
            seen.loose.insert(path.to_string());
        }
        answer(lost, self.memory.put(path, body, mode).await?)
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let lost = self.call("get", path.as_str())?;
        answer(lost, self.memory.get(path, limit_bytes).await?)
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        let lost = self.call("stat", path.as_str())?;
        answer(lost, self.memory.stat(path).await?)
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        let lost = self.call("list", prefix.map_or("", StorePath::as_str))?;
        answer(lost, self.memory.list(prefix).await?)
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        let lost = self.call("children", prefix.map_or("", StorePath::as_str))?;
        answer(lost, self.memory.children(prefix).await?)
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        let lost = self.call("delete", path.as_str())?;
        answer(lost, self.memory.delete(path).await?)
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let lost = self.call("sync", "")?;
        self.seen.lock().unwrap().loose.clear();
        answer(lost, self.memory.sync().await?)
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let lost = self.call("now", "")?;
        answer(lost, self.memory.now().await?)
    }
}

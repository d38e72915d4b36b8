//! A store that remembers what it was asked, fails at one call or dies there, lets a test act in the middle of another,
//! and forgets at a power cut what no barrier made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::protection::Older;
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
    /// It is not done, and nothing after it: the process has died.
    DiesBefore,
    /// It is done, and nothing after it: the process has died without the answer.
    DiesAfter,
}

/// How a store is that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// Nobody reaches it.
    Away,
    /// It refuses everybody: credentials have lapsed.
    Denied,
}

/// A path that was written or deleted, and not made durable since.
struct Unsynced {
    /// What a power cut may bring back; `None`: nothing lay there.
    durable: Option<(Bytes, DateTime<Utc>)>,
    /// Whether the next barrier makes it durable: this process wrote into its folder, or a listing of this process
    /// showed something there.
    covered: bool,
}

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// Says of a path whether listings leave it out.
pub(crate) type Hides = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Default)]
struct Seen {
    calls: Vec<(&'static str, String)>,
    /// Paths that were put since the last barrier.
    loose: BTreeSet<String>,
    unsynced: BTreeMap<String, Unsynced>,
    fail: Option<(usize, Fault)>,
    /// Which process is alive; every other one gets no answer any more.
    process: usize,
    dead: bool,
    down: Option<Down>,
    /// What lies below this path is in a bucket with versions.
    versions: Option<StorePath>,
    /// Called before a `put`, with its path.
    hook: Option<Arc<Hook>>,
    /// Called before a `get` and before a `delete`, with the path.
    other_hook: Option<Arc<Hook>>,
    hides: Option<Hides>,
}

/// A watched [`MemoryStore`].
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) memory: MemoryStore,
    seen: Arc<Mutex<Seen>>,
    process: usize,
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
        Self { memory, seen: Arc::default(), process: 0 }
    }

    /// Another store with the same content, all of it durable, and the same modification times.
    pub(crate) fn copy(&self, clock: Clock) -> Self {
        Self::new(self.memory.copy(clock))
    }

    /// The store as the next process sees it. What the one before still has under way reaches it no more, and what that one
    /// did not make durable is left to whoever lists it.
    #[must_use]
    pub(crate) fn next_process(&self) -> Self {
        let mut seen = self.seen.lock().unwrap();
        seen.process += 1;
        (seen.dead, seen.fail) = (false, None);
        seen.calls.clear();
        seen.loose.clear();
        seen.unsynced.values_mut().for_each(|unsynced| unsynced.covered = false);
        Self { memory: self.memory.clone(), seen: self.seen.clone(), process: seen.process }
    }

    /// The machine loses its power: of everything that no barrier made durable, `keeps` says what is there afterwards. What
    /// comes back is as old as it was: `at` sets the store's clock.
    pub(crate) async fn power_cut(&self, mut keeps: impl FnMut() -> bool, at: impl Fn(DateTime<Utc>)) {
        let unsynced = std::mem::take(&mut self.seen.lock().unwrap().unsynced);
        for (path, unsynced) in unsynced {
            if keeps() {
                continue;
            }
            let path = StorePath::new(path).unwrap();
            match unsynced.durable {
                Some((body, modified)) => {
                    at(modified);
                    self.memory.put(&path, body, PutMode::Replace).await.unwrap();
                }
                None => self.memory.delete(&path).await.unwrap(),
            }
        }
    }

    /// Remembers what lies at a path that is about to change.
    async fn changes(&self, path: &StorePath) {
        let mut durable = None;
        if let Some(entry) = self.memory.stat(path).await.unwrap() {
            durable = self.memory.get(path, u64::MAX).await.ok().map(|body| (body, entry.modified));
        }
        {
            let mut seen = self.seen.lock().unwrap();
            seen.unsynced.entry(path.to_string()).or_insert(Unsynced { durable, covered: true });
        }
        self.touches(std::iter::once(path));
    }

    /// A barrier makes folders durable: from here on it is for everything in those that hold these paths.
    fn touches<'a>(&self, paths: impl Iterator<Item = &'a StorePath>) {
        let mut seen = self.seen.lock().unwrap();
        if seen.unsynced.is_empty() {
            return;
        }
        let folders: BTreeSet<&str> = paths.flat_map(|path| above(path.as_str())).collect();
        for (path, unsynced) in &mut seen.unsynced {
            unsynced.covered |= folders.contains(folder(path));
        }
    }

    /// Forgets what was seen; from now on the `n`-th call (from 0) fails.
    pub(crate) fn fail(&self, at: Option<(usize, Fault)>) {
        let mut seen = self.seen.lock().unwrap();
        seen.calls.clear();
        (seen.fail, seen.dead) = (at, false);
    }

    pub(crate) fn before_put(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        self.seen.lock().unwrap().hook = Some(Arc::new(Box::new(hook)));
    }

    pub(crate) fn before_get_or_delete(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        self.seen.lock().unwrap().other_hook = Some(Arc::new(Box::new(hook)));
    }

    /// Listings leave out the paths of which `hides` says so; whoever asks for one gets it. `None`: they show everything again.
    pub(crate) fn hide(&self, hides: Option<Hides>) {
        self.seen.lock().unwrap().hides = hides;
    }

    fn is_hidden(&self, path: &str) -> bool {
        let hides = self.seen.lock().unwrap().hides.clone();
        hides.is_some_and(|hides| hides(path))
    }

    /// Everything below `path` keeps its older versions.
    pub(crate) fn keep_versions_below(&self, path: StorePath) {
        self.seen.lock().unwrap().versions = Some(path);
    }

    fn call_other_hook(&self, path: &StorePath) {
        let hook = self.seen.lock().unwrap().other_hook.clone();
        if let Some(hook) = hook {
            hook(path.as_str());
        }
    }

    /// From now on it does not answer; or it does again. Gives how it was.
    pub(crate) fn down(&self, down: Option<Down>) -> Option<Down> {
        std::mem::replace(&mut self.seen.lock().unwrap().down, down)
    }

    /// Whether the process died since [`Watch::fail`].
    pub(crate) fn is_dead(&self) -> bool {
        self.seen.lock().unwrap().dead
    }

    /// How many calls there were since [`Watch::fail`].
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls.len()
    }

    /// Which calls there were, in order: what was asked and of which path.
    pub(crate) fn asked(&self) -> Vec<(&'static str, String)> {
        self.seen.lock().unwrap().calls.clone()
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
        let store = "watched".to_owned();
        match seen.down {
            Some(Down::Away) => return Err(StoreError::Missing { store, reason: "the test says so".to_owned() }),
            Some(Down::Denied) => {
                let (action, path, reason) = ("read", path.to_owned(), "the test says so".to_owned());
                return Err(StoreError::Denied { action, path, store, reason });
            }
            None => {}
        }
        let fault = if seen.dead || seen.process != self.process { Some(Fault::Refused) } else { fault };
        seen.dead |= matches!(fault, Some(Fault::DiesBefore | Fault::DiesAfter));
        if seen.process == self.process {
            seen.calls.push((name, path.to_owned()));
        }
        let error = || StoreError::Failed {
            action: "write",
            path: path.to_owned(),
            store: "watched".to_owned(),
            attempts: 1,
            reason: "the test says so".to_owned(),
        };
        match fault {
            Some(Fault::Refused | Fault::DiesBefore) => Err(error()),
            Some(Fault::AnswerLost | Fault::DiesAfter) => Ok(Some(error())),
            None => Ok(None),
        }
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The folder of a path and all above it.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(folder(path)), |at| (!at.is_empty()).then(|| folder(at)))
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
        self.changes(path).await;
        answer(lost, self.memory.put(path, body, mode).await?)
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let lost = self.call("get", path.as_str())?;
        self.call_other_hook(path);
        answer(lost, self.memory.get(path, limit_bytes).await?)
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        let lost = self.call("stat", path.as_str())?;
        let found = self.memory.stat(path).await?;
        self.touches(found.iter().map(|entry| &entry.path));
        answer(lost, found)
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        let lost = self.call("list", prefix.map_or("", StorePath::as_str))?;
        let mut found = self.memory.list(prefix).await?;
        found.retain(|entry| !self.is_hidden(entry.path.as_str()));
        self.touches(found.iter().map(|entry| &entry.path));
        answer(lost, found)
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        let lost = self.call("children", prefix.map_or("", StorePath::as_str))?;
        let mut found = self.memory.children(prefix).await?;
        found.retain(|name| {
            let path = prefix.map_or_else(|| name.clone(), |prefix| format!("{prefix}/{name}"));
            !self.is_hidden(&path)
        });
        answer(lost, found)
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        let lost = self.call("delete", path.as_str())?;
        self.call_other_hook(path);
        self.changes(path).await;
        answer(lost, self.memory.delete(path).await?)
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let lost = self.call("sync", "")?;
        {
            let mut seen = self.seen.lock().unwrap();
            seen.loose.clear();
            seen.unsynced.retain(|_, unsynced| !unsynced.covered);
        }
        answer(lost, self.memory.sync().await?)
    }

    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        let kept = self.seen.lock().unwrap().versions.clone();
        let same = kept.is_some_and(|kept| path.as_str().starts_with(kept.as_str()));
        let gone = self.memory.stat(path).await?.is_none();
        let older = Older { path: path.clone(), version: "1".to_owned(), bytes: 1, modified: DateTime::UNIX_EPOCH };
        Ok(if same && gone { vec![older] } else { Vec::new() })
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        let lost = self.call("now", "")?;
        answer(lost, self.memory.now().await?)
    }
}

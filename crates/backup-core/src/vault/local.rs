//! A store in a directory.
//!
//! What is promised and why it holds: a body is written to a file of its own in `.tmp`, synced, and renamed into place,
//! so a reader sees nothing or the whole. Names become durable when their directory is synced, which is done once per
//! directory at the barrier ([`Store::sync`]). Barriers come one after the other and each runs to its end even when its
//! caller is gone: so none returns while another still syncs what it relies on, and none is forgotten half-way. Deletions
//! wait for barriers, which would miss the folders that they remove. The syncs of bodies run on several threads, because each of them waits
//! for the disk. After a failed sync the kernel may have dropped the data and marked the pages clean, so asking again can
//! answer `Ok` for bytes that are gone: the first such error is remembered and every later write or barrier fails.
//!
//! What it never does: create its root (a directory that is missing is a disk that is not mounted), follow a symbolic
//! link below its root, touch files that it does not know, or try again — a disk that fails once is not asked twice.

mod calls;
mod tree;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rustix::io::Errno;
use tokio::sync::{RwLock, Semaphore};

use self::tree::{ReadError, Tree, WriteError, Written};
use super::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};

/// How a directory is used.
#[derive(Debug, Clone, Copy)]
pub struct LocalOptions {
    /// How many bodies are written and synced at the same time; at least 1.
    pub threads: usize,
    /// Temporary files of a dead run are removed on opening when they are older than this, by the store's clock. Zero: none
    /// is, and opening changes nothing.
    pub stale_after: Duration,
}

impl Default for LocalOptions {
    /// Four threads; a day.
    fn default() -> Self {
        Self { threads: 4, stale_after: Duration::from_hours(24) }
    }
}

/// Room in the file system of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// A directory behind the [`Store`] contract.
#[derive(Debug)]
pub struct LocalStore {
    inner: Arc<Inner>,
    writers: Arc<Semaphore>,
    threads: usize,
    /// Written by a barrier, read by deletions.
    barrier: Arc<RwLock<()>>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    tree: Tree,
    touched: Mutex<Touched>,
    /// The first failed sync, in words.
    broken: Mutex<Option<String>>,
    /// The next sync of folders waits until the other end speaks or is gone.
    #[cfg(test)]
    gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

/// Directories whose names are not known to be durable: relative paths, the root is empty.
#[derive(Debug, Default)]
struct Touched {
    /// Written into: if one is gone at the barrier, bodies are gone.
    written: BTreeSet<String>,
    /// Only looked at, or deleted from: may be gone, as after a prune by another process.
    seen: BTreeSet<String>,
}

/// `a`, `a/b` and the root for the directory `a/b`: a directory is durable when its own name is.
fn with_parents(dir: &str) -> impl Iterator<Item = String> {
    let cuts = dir.match_indices('/').map(|(at, _)| &dir[..at]);
    std::iter::once("").chain(cuts).chain(std::iter::once(dir)).map(str::to_owned)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalStore {
    /// Opens the directory `path`, which must exist ([`StoreError::Missing`] otherwise). Blocks for a moment.
    pub fn open(path: &Path, options: LocalOptions) -> Result<Self, StoreError> {
        let tree = Tree::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                StoreError::Missing { store: path.display().to_string(), reason: "no such directory".to_owned() }
            }
            io::ErrorKind::NotADirectory => {
                StoreError::Missing { store: path.display().to_string(), reason: "not a directory".to_owned() }
            }
            _ => refusal(path, "list", ".", &error),
        })?;
        if !options.stale_after.is_zero() {
            // Best effort: on a read-only vault there is nothing to clean, and a restore must work from there.
            let _ = tree.remove_stale(options.stale_after);
        }
        let threads = options.threads.max(1);
        let inner = Inner {
            root: path.to_owned(),
            tree,
            touched: Mutex::default(),
            broken: Mutex::default(),
            #[cfg(test)]
            gate: Mutex::default(),
        };
        let writers = Arc::new(Semaphore::new(threads));
        Ok(Self { inner: Arc::new(inner), writers, threads, barrier: Arc::default() })
    }

    /// Room left, for the reserve that a run must not eat into.
    pub async fn free_space(&self) -> Result<FreeSpace, StoreError> {
        self.blocking("read", ".", |inner| {
            let (free_bytes, total_bytes) = inner.tree.space().map_err(|e| inner.error("read", ".", &e))?;
            Ok(FreeSpace { free_bytes, total_bytes })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &str,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(join) => Err(self.inner.failed(action, path, join.to_string())),
        }
    }
}

/// Syncs what was touched so far, on `threads` threads. Waits for all of them, so that no sync still runs after the answer.
async fn barrier(inner: Arc<Inner>, threads: usize) -> Result<(), StoreError> {
    // Looked at here: the barrier before may have failed while this one waited for it.
    inner.whole("sync", ".")?;
    let touched = std::mem::take(&mut *lock(&inner.touched));
    let mut tasks = Vec::new();
    for (dirs, may_be_gone) in [(touched.written, false), (touched.seen, true)] {
        let dirs: Vec<String> = dirs.into_iter().collect();
        for part in dirs.chunks(dirs.len().div_ceil(threads).max(1)) {
            let (part, inner) = (part.to_vec(), Arc::clone(&inner));
            tasks.push(tokio::task::spawn_blocking(move || inner.sync(&part, may_be_gone)));
        }
    }
    let mut answer = Ok(());
    for task in tasks {
        // A thread that did not come to its end has synced nobody knows what.
        let done = task.await.unwrap_or_else(|join| Err(inner.broke(".", &io::Error::other(join))));
        answer = answer.and(done);
    }
    answer
}

impl Inner {
    fn store(&self) -> String {
        self.root.display().to_string()
    }

    fn failed(&self, action: &'static str, path: &str, reason: String) -> StoreError {
        StoreError::Failed { action, path: path.to_owned(), store: self.store(), attempts: 1, reason }
    }

    fn error(&self, action: &'static str, path: &str, error: &io::Error) -> StoreError {
        refusal(&self.root, action, path, error)
    }

    /// Remembers that a sync failed: from here on nothing is written any more.
    fn broke(&self, path: &str, error: &io::Error) -> StoreError {
        let reason = format!("sync failed, what was written since the last barrier may be lost: {error}");
        lock(&self.broken).get_or_insert_with(|| reason.clone());
        self.failed("sync", path, reason)
    }

    fn whole(&self, action: &'static str, path: &str) -> Result<(), StoreError> {
        match &*lock(&self.broken) {
            None => Ok(()),
            Some(reason) => Err(self.failed(action, path, format!("an earlier {reason}"))),
        }
    }

    fn put(&self, path: &StorePath, body: &[u8], mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.whole("write", path.as_str())?;
        let written = self.tree.write(path, body, mode).map_err(|error| match error {
            WriteError::Io(error) => self.error("write", path.as_str(), &error),
            WriteError::Sync(error) => self.broke(path.as_str(), &error),
        })?;
        // Also for a body that was there: the run that wrote it may have died before its barrier.
        lock(&self.touched).written.extend(with_parents(tree::parent(path)));
        match written {
            Written::New => Ok(PutOutcome::Created),
            Written::There { bytes } if bytes == body.len() as u64 => Ok(PutOutcome::AlreadyThere),
            Written::There { bytes } => Err(StoreError::Exists {
                path: path.to_string(),
                store: self.store(),
                found_bytes: bytes,
                wanted_bytes: body.len() as u64,
            }),
        }
    }

    fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        match self.tree.read(path, limit_bytes) {
            Ok(body) => Ok(body.into()),
            Err(ReadError::NotFound) => Err(StoreError::NotFound { path: path.to_string(), store: self.store() }),
            Err(ReadError::TooLarge) => {
                Err(StoreError::TooLarge { path: path.to_string(), store: self.store(), limit_bytes })
            }
            Err(ReadError::Io(error)) => Err(self.error("read", path.as_str(), &error)),
        }
    }

    fn sync(&self, dirs: &[String], may_be_gone: bool) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(gate) = { lock(&self.gate).take() } {
            let _ = gate.recv();
        }
        for dir in dirs {
            match self.tree.sync_dir(dir) {
                Err(error) if may_be_gone && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.broke(if dir.is_empty() { "." } else { dir }, &error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// A link stands where a folder should.
const LOOP: Option<i32> = Some(Errno::LOOP.raw_os_error());

fn refusal(root: &Path, action: &'static str, path: &str, error: &io::Error) -> StoreError {
    let (path, store) = (path.to_owned(), root.display().to_string());
    if action == "read" && (error.kind() == io::ErrorKind::InvalidData || error.raw_os_error() == LOOP) {
        return StoreError::Unusable { path, store, reason: error.to_string() };
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::Full { path, store },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            StoreError::Denied { action, path, store, reason: error.to_string() }
        }
        _ => StoreError::Failed { action, path, store, attempts: 1, reason: error.to_string() },
    }
}

#[async_trait]
impl Store for LocalStore {
    fn describe(&self) -> String {
        self.inner.store()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        // The permit travels into the thread: a caller that is dropped does not let more writers in.
        let permit = Arc::clone(&self.writers).acquire_owned().await;
        let wanted = path.clone();
        self.blocking("write", path.as_str(), move |inner| {
            let _permit = permit;
            inner.put(&wanted, &body, mode)
        })
        .await
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let wanted = path.clone();
        self.blocking("read", path.as_str(), move |inner| inner.get(&wanted, limit_bytes)).await
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        let wanted = path.clone();
        self.blocking("read", path.as_str(), move |inner| {
            let entry = inner.tree.stat(&wanted).map_err(|e| inner.error("read", wanted.as_str(), &e))?;
            if entry.is_some() {
                lock(&inner.touched).seen.extend(with_parents(tree::parent(&wanted)));
            }
            Ok(entry)
        })
        .await
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.each(prefix, &mut |entry| entries.push(entry)).await?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    async fn each(&self, prefix: Option<&StorePath>, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        let prefix = prefix.map_or(String::new(), StorePath::to_string);
        let shown = if prefix.is_empty() { "." } else { &prefix }.to_owned();
        // One directory is read while the one before it is taken.
        let (give, mut given) = tokio::sync::mpsc::channel::<Vec<Entry>>(1);
        let asked = shown.clone();
        let walk = self.blocking("list", &shown, move |inner| {
            // Nobody takes any more where the caller was dropped.
            let mut on = |entries| give.blocking_send(entries).is_ok();
            let dirs = inner.tree.walk(&prefix, &mut on).map_err(|e| inner.error("list", &asked, &e))?;
            lock(&inner.touched).seen.extend(dirs.iter().flat_map(|dir| with_parents(dir)));
            Ok(())
        });
        let taken = async {
            while let Some(entries) = given.recv().await {
                entries.into_iter().for_each(&mut *take);
            }
        };
        tokio::join!(walk, taken).0
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.map_or(String::new(), StorePath::to_string);
        let shown = if prefix.is_empty() { "." } else { &prefix }.to_owned();
        self.blocking("list", &shown.clone(), move |inner| {
            let mut names = inner.tree.children(&prefix).map_err(|e| inner.error("list", &shown, &e))?;
            names.sort();
            Ok(names)
        })
        .await
    }

    async fn set_aside(&self, path: &StorePath, aside: &StorePath) -> Result<bool, StoreError> {
        let (from, to) = (path.clone(), aside.clone());
        let no_barrier = Arc::clone(&self.barrier).read_owned().await;
        self.blocking("write", aside.as_str(), move |inner| {
            let _no_barrier = no_barrier;
            inner.whole("write", to.as_str())?;
            let moved = inner.tree.set_aside(&from, &to).map_err(|e| inner.error("write", to.as_str(), &e))?;
            // Where nothing lay no folder was made, and the barrier would miss it.
            if moved {
                let mut touched = lock(&inner.touched);
                touched.written.extend(with_parents(tree::parent(&to)));
                touched.seen.extend(with_parents(tree::parent(&from)));
            }
            Ok(moved)
        })
        .await
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        let wanted = path.clone();
        let no_barrier = Arc::clone(&self.barrier).read_owned().await;
        self.blocking("delete", path.as_str(), move |inner| {
            let _no_barrier = no_barrier;
            let kept = inner.tree.delete(&wanted).map_err(|e| inner.error("delete", wanted.as_str(), &e))?;
            let mut touched = lock(&inner.touched);
            // Folders that this deletion emptied and removed are not missing at the barrier.
            let removed = with_parents(tree::parent(&wanted)).filter(|dir| dir.len() > kept.len());
            for dir in removed {
                touched.written.remove(&dir);
            }
            touched.seen.extend(with_parents(&kept));
            Ok(())
        })
        .await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let (inner, threads) = (Arc::clone(&self.inner), self.threads);
        let alone = Arc::clone(&self.barrier).write_owned().await;
        // On a task of its own: a caller that is dropped must not leave syncs behind that nobody waits for.
        let task = tokio::spawn(async move {
            let _alone = alone;
            barrier(inner, threads).await
        });
        task.await.unwrap_or_else(|join| Err(self.inner.broke(".", &io::Error::other(join))))
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.blocking("read", ".", |inner| inner.tree.now().map_err(|e| inner.error("write", ".tmp", &e))).await
    }
}

#[cfg(test)]
mod tests;

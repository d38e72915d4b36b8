//! What a vault needs of the place where its bytes lie.
//!
//! The contract, which the suite `store_conformance` checks sentence by sentence for every implementation:
//!
//! - A path is relative, `/`-separated, of `[A-Za-z0-9._-]` parts that do not begin with a dot, each at most 200 bytes,
//!   at most 512 bytes in all. (What begins with a dot belongs to the store itself.) No path is both a body and a folder.
//! - `put` is atomic: a reader sees nothing or the whole body. When it returns `Ok`, the body is stored; it is durable
//!   after the next [`Store::sync`] (a no-op where the answer already means durable, as on S3).
//! - `put` with [`PutMode::CreateOnly`] never changes an existing body: *already there with this size* is
//!   [`PutOutcome::AlreadyThere`], another size is [`StoreError::Exists`]. It may cost a look before the write; two
//!   writers at once may both succeed on stores without conditional writes, which is harmless because the names of
//!   objects are hashes of their bytes.
//! - `sync` covers also what `put` answered with `AlreadyThere`, and what `stat` and `list` showed: a run that relies on
//!   a listing relies on durable bytes. After a failed `sync` the store takes no more writes in this run.
//! - `get`, `stat`: a missing path is [`StoreError::NotFound`] / `None`, never an empty body. A folder is a missing path.
//! - `get` does not judge the body: whether it is the right one is the reader's check (hash or signature). A body that
//!   ends before its announced length is a failed read.
//! - `list` gives every path below a prefix, sorted by bytes of the path; it sees every `put` that returned before it
//!   began. Foreign files whose names are no paths are left out and left alone. A missing prefix is an empty list.
//! - `children` shows a folder only while there is a body below it: empty folders do not exist.
//! - `delete` of a missing path is a success.
//! - `set_aside` keeps what lies at a path under another one where nothing is, before it is replaced: `false` where nothing
//!   lies there. The first path may keep it or lose it; at no instant is it in neither place.
//! - What `list` and `stat` say of a body changes when the body does: see [`Entry::identity`].
//! - An implementation retries what is worth it within its deadline; an error that comes out is final for this run.
//! - An error names the path and never holds a credential.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::protection::{Gone, Lifecycle, Older, Remembered, Retention};
use crate::id::Hash256;

/// Largest body that [`Store::set_aside`] takes through this process.
pub const MAX_ASIDE_BYTES: u64 = 256 << 20;

/// A checked path inside a store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

impl StorePath {
    /// Longest path that a store must accept.
    pub const MAX_BYTES: usize = 512;
    /// Longest part of a path: file systems stop at 255.
    pub const MAX_PART_BYTES: usize = 200;

    /// Checks `path`. Returns `None` for anything that the contract forbids.
    pub fn new(path: impl Into<String>) -> Option<Self> {
        let path = path.into();
        let good = |part: &str| {
            !part.is_empty()
                && part.len() <= Self::MAX_PART_BYTES
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        (path.len() <= Self::MAX_BYTES && path.split('/').all(good)).then_some(Self(path))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What to do when the path exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Leave it alone.
    CreateOnly,
    /// Replace it atomically.
    Replace,
}

/// What a `put` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The body was written.
    Created,
    /// A body of the same size was there and was left alone.
    AlreadyThere,
}

/// One stored path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the store's root.
    pub path: StorePath,
    /// Size of the stored body.
    pub bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: DateTime<Utc>,
    /// What the store itself gives a body and no writer can choose: another one for other bytes, and the same only where
    /// nobody wrote to the path since. `None` where the store has no such thing; then nothing may be concluded.
    pub identity: Option<Identity>,
}

/// Which body lies at a path: opaque, compared only with another one of the same path in the same store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(pub [u8; 16]);

impl Identity {
    /// From two numbers.
    pub fn of_numbers(first: u64, second: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        Self(bytes)
    }

    /// From a text of any length, as a bucket's entity tag: the first half of its SHA-256.
    pub fn of_text(text: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&Hash256::of(text.as_bytes()).0[..16]);
        Self(bytes)
    }
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The path does not exist.
    #[error("`{path}` is not in {store}")]
    NotFound {
        /// The path.
        path: String,
        /// Where it was looked for.
        store: String,
    },
    /// The path exists with other content, and the caller asked not to replace.
    #[error("`{path}` is already in {store} with {found_bytes} bytes instead of {wanted_bytes}")]
    Exists {
        /// The path.
        path: String,
        /// The store.
        store: String,
        /// Its size in the store.
        found_bytes: u64,
        /// The size that should have been written.
        wanted_bytes: u64,
    },
    /// The body is larger than the reader allows.
    #[error("`{path}` in {store} has more than {limit_bytes} bytes")]
    TooLarge {
        /// The path.
        path: String,
        /// The store.
        store: String,
        /// What the reader allows.
        limit_bytes: u64,
    },
    /// What lies at the path is no body (a link, a pipe), or the store answered for good that it gives this one to nobody.
    /// Asking again does not help, and nothing is said about any other path.
    #[error("`{path}` in {store} cannot be read: {reason}")]
    Unusable {
        /// The path.
        path: String,
        /// The store.
        store: String,
        /// What was seen.
        reason: String,
    },
    /// Credentials were refused, or do not allow this.
    #[error("{store} refused to {action} `{path}`: {reason}")]
    Denied {
        /// `read`, `write`, `list` or `delete`.
        action: &'static str,
        /// The path or prefix.
        path: String,
        /// The store.
        store: String,
        /// What it said.
        reason: String,
    },
    /// No room left.
    #[error("no space left in {store} for `{path}`")]
    Full {
        /// The path.
        path: String,
        /// The store.
        store: String,
    },
    /// The place itself is not there (directory not mounted, bucket missing).
    #[error("{store} is not there: {reason}")]
    Missing {
        /// The store.
        store: String,
        /// What was seen.
        reason: String,
    },
    /// It did not answer, or failed, until the deadline.
    #[error("{store} failed to {action} `{path}` after {attempts} attempts: {reason}")]
    Failed {
        /// `read`, `write`, `list`, `sync` or `delete`.
        action: &'static str,
        /// The path or prefix.
        path: String,
        /// The store.
        store: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure, with its chain.
        reason: String,
    },
}

/// A place for bytes. The module's header is the contract.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What to call this place in messages, without credentials: a directory, or `s3://bucket/prefix at endpoint`.
    fn describe(&self) -> String;

    /// Stores `body` at `path`.
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError>;

    /// The body at `path`, refused when it has more than `limit_bytes`.
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError>;

    /// Size and time of `path`, or `None`.
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError>;

    /// Everything below `prefix` (whole parts: `a/b` matches neither `a/bc` nor a body at `a/b`); `None` lists all.
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError>;

    /// Hands everything that [`Store::list`] would give to `take`, in no order, so that a listing of very many files need not
    /// be held. After an error what was taken counts for nothing. This form holds it all the same.
    async fn each(&self, prefix: Option<&StorePath>, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        self.list(prefix).await?.into_iter().for_each(take);
        Ok(())
    }

    /// The names directly below `prefix`, sorted: folders and files alike, without what lies deeper.
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError>;

    /// Keeps what lies at `path` at `aside` as well or instead, where nothing may be yet; `false`: nothing lies at `path`.
    /// This form reads and writes up to [`MAX_ASIDE_BYTES`]; a store that can do without the way through this process
    /// (also for what [`Store::get`] refuses) has its own.
    async fn set_aside(&self, path: &StorePath, aside: &StorePath) -> Result<bool, StoreError> {
        match self.get(path, MAX_ASIDE_BYTES).await {
            Ok(body) => self.put(aside, body, PutMode::CreateOnly).await.map(|_| true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes `path`.
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError>;

    /// Makes everything durable whose `put` has returned: the barrier before a commit. An error here is final: what
    /// was written since the last barrier must be considered lost.
    async fn sync(&self) -> Result<(), StoreError>;

    /// The store's own clock (deadlines and prune's grace are measured by it, not by the host's).
    async fn now(&self) -> Result<DateTime<Utc>, StoreError>;

    /// Whether what is put is locked here. Then a deletion may have to wait, and [`Store::hold`] does something.
    fn locks(&self) -> bool {
        false
    }

    /// What keeps the body at `path` from being deleted, as the store shows it; `None` where nothing does. A missing path is
    /// [`StoreError::NotFound`] in a store that has locks.
    async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        let _ = path;
        Ok(None)
    }

    /// Sets or lifts a legal hold on the body at `path`. Does nothing in a store without locks.
    async fn hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        let _ = (path, on);
        Ok(())
    }

    /// Lets the lock of the body at `path` last as long as one that is put now, where it would end earlier; never makes one shorter.
    /// A lock that could not be made longer fails nothing (it lasts as long as before) and is told by the store itself; a path
    /// without a body is passed over. Does nothing in a store without locks.
    async fn renew(&self, path: &StorePath) -> Result<(), StoreError> {
        let _ = path;
        Ok(())
    }

    /// The versions of a body that a plain read does not give, newest first; none where the store was not seen to keep them.
    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        let _ = path;
        Ok(Vec::new())
    }

    /// Paths below `folder` whose body was deleted and of which an older version is left, sorted; none where the store was not
    /// seen to keep versions. Of a folder that somebody filled with a hundred thousand versions the first are given, and that
    /// it is not all. Where nobody may ask whether it keeps versions, [`StoreError::Denied`].
    async fn deleted(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        let _ = folder;
        Ok(Remembered::default())
    }

    /// Names of the folders directly below `folder` in which anything lies or has lain, sorted, as far as the store remembers;
    /// otherwise as [`Store::deleted`].
    async fn folders_ever(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        let _ = folder;
        Ok(Remembered::default())
    }

    /// The bytes of one of [`Store::older`], refused when it has more than `limit_bytes`.
    async fn get_older(&self, older: &Older, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let _ = limit_bytes;
        Err(StoreError::NotFound { path: older.path.to_string(), store: self.describe() })
    }

    /// The rules by which the store itself deletes; none where it has no such rules.
    async fn lifecycle(&self) -> Result<Lifecycle, StoreError> {
        Ok(Lifecycle::Rules(Vec::new()))
    }
}

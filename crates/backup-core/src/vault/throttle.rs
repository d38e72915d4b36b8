//! A store whose `put` keeps to a rate, for links that others need as well. Everything else passes through.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::sync::Mutex;

use super::protection::{Gone, Lifecycle, Older, Remembered, Retention};
use super::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};

/// Limits the bytes per second that are put.
#[derive(Debug)]
pub struct Throttled<S> {
    inner: S,
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl<S: Store> Throttled<S> {
    /// `inner`, at most `bytes_per_second` (at least 1) on average over a few bodies.
    pub fn new(inner: S, bytes_per_second: u64) -> Self {
        Self { inner, bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Takes a place in the line for `bytes` and waits for it.
    async fn wait(&self, bytes: usize) {
        let mut free_at = self.free_at.lock().await;
        let start = (*free_at).max(Instant::now());
        #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *free_at = start + takes;
        drop(free_at);
        tokio::time::sleep_until(start.into()).await;
    }
}

#[async_trait]
impl<S: Store> Store for Throttled<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.wait(body.len()).await;
        self.inner.put(path, body, mode).await
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get(path, limit_bytes).await
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.inner.stat(path).await
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn each(&self, prefix: Option<&StorePath>, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        self.inner.each(prefix, take).await
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.inner.children(prefix).await
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.inner.delete(path).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.inner.now().await
    }

    fn locks(&self) -> bool {
        self.inner.locks()
    }

    async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        self.inner.protection(path).await
    }

    async fn hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        self.inner.hold(path, on).await
    }

    async fn renew(&self, path: &StorePath) -> Result<(), StoreError> {
        self.inner.renew(path).await
    }

    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        self.inner.older(path).await
    }

    async fn deleted(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        self.inner.deleted(folder).await
    }

    async fn folders_ever(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        self.inner.folders_ever(folder).await
    }

    async fn get_older(&self, older: &Older, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.inner.get_older(older, limit_bytes).await
    }

    async fn lifecycle(&self) -> Result<Lifecycle, StoreError> {
        self.inner.lifecycle().await
    }
}

//! A store in an S3-compatible bucket, under a prefix.
//!
//! Why a `put` can be believed: the body travels with `x-amz-checksum-sha256`, computed here from the caller's bytes, and
//! the server refuses what does not match. Whether an endpoint really checks is seen by [`S3Store::probe`]; for one that
//! does not, [`S3Store::with_readback`] reads every body back and compares it. `CreateOnly` is a HEAD before the PUT;
//! `If-None-Match` is an extra where the endpoint was seen to honour it, because some answer 200 and overwrite. There it
//! goes with every PUT, because a bucket's policy may demand it; only a name that is taken and is to be replaced is then
//! asked for without.
//!
//! How long an attempt may take depends on its bytes, and on whether they move: see [`Progress`].
//!
//! Once a PUT was sent, later attempts of the same call do not look again: an endpoint may keep a body that it refused,
//! and a look would take it for a finished one. A name that turns out to be taken then is read and compared, and where a
//! body was refused and nothing good came after it, what lies there is deleted, for the same reason.
//!
//! With [`S3Store::with_lock`] each body is stored under Object Lock (the checksum that S3 demands then is sent anyway), and the
//! first one of a process is looked at: an endpoint that answers 200 to a lock and sets none is told of. Older versions are
//! asked for by readers only, and only where the bucket says that it keeps them: some endpoints answer with version ids, keep
//! no versions, and delete the only body when an id is named.
//!
//! What it never does: go to an endpoint that was not named, through a proxy that the environment names, or delete in
//! batches (some servers answer 200 and delete nothing). All repetition is [`super::retry`]'s; the SDK's own is off.
//! Requests are signed with the system's time, which is a matter of the wire, not of any decision here.

mod answers;
mod bodies;
mod client;
mod credentials;
mod error;
mod lifecycle;
mod lock;
mod probe;
mod sending;
mod shield;
mod turning;
mod versions;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use base64::Engine as _;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::Instant;

pub use self::client::S3OpenError;
pub use self::credentials::{CredentialsError, S3Credentials, parse_credentials};
pub use self::probe::{Probe, Versioning};
pub use self::shield::{LockSeen, Shield};

use self::client::{DateHeader, LastAnswer, agree};
use self::error::{Kind, Refusal, judge, judge_head, unsaid};
use self::turning::Turns;
use super::protection::{Gone, Lifecycle, LockRule, Older, Remembered, Retention};
use super::retry::{Failure, GaveUp, Jitter, Progress, Retry, RetryPolicy};
use super::store::{Entry, Identity, PutMode, PutOutcome, Store, StoreError, StorePath};
use crate::monitor::{Event, Monitor};

/// Which bucket, and how to talk to it.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// `http://` or `https://`, host, optional port. Always named: there is no default on the internet.
    pub endpoint: String,
    /// The bucket, which must exist.
    pub bucket: String,
    /// Where in the bucket; `None` for its root.
    pub prefix: Option<StorePath>,
    /// Region to sign for.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM certificates that alone are trusted; `None` for the system's.
    pub ca: Option<Vec<u8>>,
    /// Who asks.
    pub credentials: S3Credentials,
    /// How long to try.
    pub retry: RetryPolicy,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// Names per page of a listing, 1 to 1000.
    pub page_names: u16,
    /// Names that a listing may have: of more, it has no end. What is held whole may have a quarter of them.
    pub most_names: u64,
}

impl S3Options {
    /// Longest prefix: S3 knows keys of up to 1024 bytes, and a path of [`StorePath::MAX_BYTES`] and a `/` follow.
    pub const MAX_PREFIX_BYTES: usize = 1024 - 1 - StorePath::MAX_BYTES;

    /// Options with the usual times, path style, no prefix and the system's certificates.
    pub fn new(
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        region: impl Into<String>,
        credentials: S3Credentials,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            bucket: bucket.into(),
            prefix: None,
            region: region.into(),
            path_style: true,
            ca: None,
            credentials,
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(5),
            page_names: 1000,
            // As many as the largest inventory has. A source has about a million chunks in a generation.
            most_names: 4_000_000,
        }
    }
}

/// A bucket's prefix behind the [`Store`] contract.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Empty, or ends in `/`.
    prefix: String,
    name: String,
    page_names: u16,
    most_names: u64,
    retry: Retry,
    readback: bool,
    if_none_match: bool,
    /// A missing key and a missing bucket look the same in a HEAD; once the bucket was seen it is not asked for again.
    bucket_seen: AtomicBool,
    lock: Option<LockRule>,
    /// Whether the first locked body was looked at.
    lock_looked_at: AtomicBool,
    /// When the endpoint answered last, by its own clock.
    answered: LastAnswer,
    /// Whether the bucket keeps versions, once it has answered.
    versioned: OnceCell<versions::Kept>,
    /// Nobody answered that question: until when it is not asked again, and what was seen.
    unasked: Mutex<Option<(Instant, String)>>,
    /// Whether it was told that it did not.
    unasked_told: AtomicBool,
    monitor: Arc<dyn Monitor>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("name", &self.name).finish_non_exhaustive()
    }
}

enum Put {
    Created,
    There { bytes: u64 },
}

impl S3Store {
    /// Checks the options and makes the client. Talks to nobody yet: whether the bucket answers is seen by the first
    /// call. Retries are told to `monitor`.
    pub async fn connect(options: S3Options, monitor: Arc<dyn Monitor>) -> Result<Self, S3OpenError> {
        let answered = LastAnswer::default();
        let client = client::build(&options, answered.clone()).await?;
        let prefix = options.prefix.as_ref().map_or(String::new(), |prefix| format!("{prefix}/"));
        let name = format!("s3://{}/{} at {}", options.bucket, prefix, options.endpoint.trim_end_matches('/'));
        Ok(Self {
            client,
            bucket: options.bucket,
            name: name.replace("/ at ", " at "),
            prefix,
            page_names: options.page_names.clamp(1, 1000),
            most_names: options.most_names,
            retry: Retry::new(options.retry, Jitter::random(), Arc::clone(&monitor)),
            readback: false,
            if_none_match: false,
            bucket_seen: AtomicBool::new(false),
            lock: None,
            lock_looked_at: AtomicBool::new(false),
            answered,
            versioned: OnceCell::new(),
            unasked: Mutex::new(None),
            unasked_told: AtomicBool::new(false),
            monitor,
        })
    }

    /// Reads every body back after its PUT: for endpoints that do not check checksums.
    #[must_use]
    pub fn with_readback(mut self, readback: bool) -> Self {
        self.readback = readback;
        self
    }

    /// Adds `If-None-Match: *` to PUTs: for endpoints that were seen to honour it.
    #[must_use]
    pub fn with_if_none_match(mut self, if_none_match: bool) -> Self {
        self.if_none_match = if_none_match;
        self
    }

    /// Stores every body under Object Lock: for buckets that were seen to enforce it.
    #[must_use]
    pub fn with_lock(mut self, lock: Option<LockRule>) -> Self {
        self.lock = lock;
        self
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    async fn call<T, F, Fut>(&self, action: &'static str, path: &str, attempt: F) -> Result<T, GaveUp<Refusal>>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, Failure<Refusal>>>,
    {
        self.call_moving(action, path, &Progress::default(), attempt).await
    }

    /// [`S3Store::call`] for bodies.
    async fn call_moving<T, F, Fut>(
        &self,
        action: &'static str,
        path: &str,
        progress: &Progress,
        mut attempt: F,
    ) -> Result<T, GaveUp<Refusal>>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, Failure<Refusal>>>,
    {
        let what = format!("{action} `{path}` in {}", self.name);
        let doubted = AtomicBool::new(false);
        let attempt = |number| {
            let (made, doubted) = (attempt(number), &doubted);
            async move {
                match made.await {
                    // Once it may be one machine's mistake; a second time it is the answer.
                    Err(Failure::Again(refusal)) if matches!(refusal.kind, Kind::Skewed | Kind::Unsaid) => {
                        let is_answer = doubted.swap(true, Ordering::Relaxed);
                        Err(if is_answer { Failure::Final(refusal) } else { Failure::Again(refusal) })
                    }
                    other => other,
                }
            }
        };
        // On the heap: else every caller's future holds the whole of a request, and its type all types below it.
        let answer = Box::pin(self.retry.run_moving(&what, progress, attempt)).await;
        if answer.is_ok() {
            self.bucket_seen.store(true, Ordering::Relaxed);
        }
        answer
    }

    fn error(&self, action: &'static str, path: &str, gave_up: GaveUp<Refusal>) -> StoreError {
        let (path, store) = (path.to_owned(), self.name.clone());
        let GaveUp { attempts, error: Refusal { kind, reason } } = gave_up;
        match kind {
            Kind::NoKey => StoreError::NotFound { path, store },
            Kind::NoBucket => StoreError::Missing { store, reason },
            Kind::Denied { .. } | Kind::Unsaid => StoreError::Denied { action, path, store, reason },
            Kind::Skewed => {
                let clocks = self.answered.refused().map_or(String::new(), |clocks| format!(": {clocks}"));
                StoreError::Denied { action, path, store, reason: format!("{reason}{clocks}") }
            }
            Kind::Full => StoreError::Full { path, store },
            Kind::TooLarge { limit_bytes } => StoreError::TooLarge { path, store, limit_bytes },
            Kind::Refused if action == "read" => StoreError::Unusable { path, store, reason },
            Kind::Taken | Kind::Digest | Kind::Refused | Kind::Other => {
                StoreError::Failed { action, path, store, attempts, reason }
            }
        }
    }

    /// Turns "no such key" into "no such bucket" where that is what it means.
    async fn missing(&self) -> Result<(), Failure<Refusal>> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.client.head_bucket().bucket(&self.bucket).send().await.map_err(judge) {
            Err(Failure::Final(Refusal { kind: Kind::NoKey | Kind::NoBucket, .. })) => {
                Err(Failure::Final(Refusal { kind: Kind::NoBucket, reason: "no such bucket".to_owned() }))
            }
            // Not allowed to ask is not a proof of anything: the key is missing, as was said.
            Ok(_) | Err(Failure::Final(_)) => Ok(()),
            Err(again) => Err(again),
        }
    }

    async fn head_once(&self, path: &StorePath) -> Result<Option<Entry>, Failure<Refusal>> {
        let asked = self.client.head_object().bucket(&self.bucket).key(self.key(path.as_str())).send();
        match Box::pin(asked).await.map_err(judge) {
            Ok(head) => {
                let (Some(bytes), Some(modified)) = (head.content_length(), head.last_modified()) else {
                    return Err(Failure::Again(Refusal::other("answer without size and time")));
                };
                let (path, identity) = (path.clone(), identity(head.e_tag()));
                Ok(Some(Entry { path, bytes: to_u64(bytes), modified: to_chrono(modified), identity }))
            }
            Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => self.missing().await.map(|()| None),
            // An answer to HEAD has no body, so no code. A listing is refused with the same code, and says it.
            Err(Failure::Final(refusal)) if matches!(refusal.kind, Kind::Denied { code_known: false }) => {
                match self.page(&self.prefix, None, None, 1).await {
                    Err(Failure::Final(why)) if matches!(why.kind, Kind::Denied { .. }) => Err(Failure::Final(why)),
                    Err(Failure::Again(why)) if matches!(why.kind, Kind::Skewed) => Err(Failure::Again(why)),
                    _ => Err(unsaid(refusal)),
                }
            }
            Err(other) => Err(other),
        }
    }

    /// The endpoint's clock in one answer, and when it came.
    async fn clock_once(&self) -> Result<client::Dated, Failure<Refusal>> {
        let date = DateHeader::default();
        let asked = self.client.head_bucket().bucket(&self.bucket).customize().interceptor(date.clone()).send();
        match Box::pin(asked).await.map_err(judge_head) {
            Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => {
                let reason = "no such bucket".to_owned();
                return Err(Failure::Final(Refusal { kind: Kind::NoBucket, reason }));
            }
            other => other?,
        };
        date.dated().ok_or_else(|| Failure::Final(Refusal::other("answer without a readable `Date`")))
    }

    async fn page(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        token: Option<String>,
        names: u16,
    ) -> Result<aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output, Failure<Refusal>> {
        let asked = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .set_delimiter(delimiter.map(str::to_owned))
            .set_continuation_token(token)
            .max_keys(i32::from(names))
            .send();
        Box::pin(asked).await.map_err(judge)
    }

    /// Every page below `prefix`, each with a deadline of its own: a listing may be long without being stuck.
    async fn pages(
        &self,
        prefix: Option<&StorePath>,
        delimiter: Option<&str>,
        most_names: u64,
        mut take: impl FnMut(&str, aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output) + Send,
    ) -> Result<(), StoreError> {
        let below = prefix.map_or_else(|| self.prefix.clone(), |prefix| format!("{}{prefix}/", self.prefix));
        let shown = prefix.map_or(".", StorePath::as_str);
        let mut token: Option<String> = None;
        let mut turns = Turns::new(most_names, self.page_names);
        loop {
            let page = self
                .call("list", shown, |_| self.page(&below, delimiter, token.clone(), self.page_names))
                .await
                .map_err(|gave_up| self.error("list", shown, gave_up))?;
            let next = page.is_truncated().unwrap_or(false).then(|| page.next_continuation_token().map(str::to_owned));
            let first = page.contents().first().and_then(|object| object.key());
            let first = first.or(page.common_prefixes().first().and_then(|folder| folder.prefix()));
            turns
                .page(first.map(str::to_owned), page.contents().len() + page.common_prefixes().len())
                .map_err(|error| self.error("list", shown, GaveUp { attempts: 1, error }))?;
            take(&below, page);
            match next {
                None => return Ok(()),
                Some(next) if next.is_some() && next != token => token = next,
                // A server that says "more" and does not say where would be asked for ever, or believed too early.
                Some(_) => {
                    let error = Refusal::other("listing is cut off without a new place to go on");
                    return Err(self.error("list", shown, GaveUp { attempts: 1, error }));
                }
            }
        }
    }

    /// [`Store::each`] of at most so many names.
    async fn each_of(
        &self,
        prefix: Option<&StorePath>,
        most_names: u64,
        take: &mut (dyn FnMut(Entry) + Send),
    ) -> Result<(), StoreError> {
        self.pages(prefix, None, most_names, |_, page| {
            for object in page.contents() {
                let path = object.key().and_then(|key| StorePath::new(key.strip_prefix(&self.prefix)?));
                if let (Some(path), Some(bytes), Some(modified)) = (path, object.size(), object.last_modified()) {
                    let (modified, identity) = (to_chrono(modified), identity(object.e_tag()));
                    take(Entry { path, bytes: to_u64(bytes), modified, identity });
                }
            }
        })
        .await
    }
}

/// So often is an endpoint asked for its clock until two answers in a row agree: any one of them may be wrong.
const CLOCK_ANSWERS: u32 = 4;

/// Of [`S3Options::most_names`], so small a part of them may be held with their paths.
const HELD: u64 = 4;

/// What the endpoint calls the body. Quoted in one answer and bare in another, and empty where an endpoint has none.
fn identity(tag: Option<&str>) -> Option<Identity> {
    let tag = tag?.trim_matches('"');
    (!tag.is_empty()).then(|| Identity::of_text(tag))
}

fn to_u64(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn to_chrono(time: &aws_sdk_s3::primitives::DateTime) -> DateTime<Utc> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos()).unwrap_or(DateTime::UNIX_EPOCH)
}

fn sha256_base64(body: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body))
}

#[async_trait]
impl Store for S3Store {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        let (key, checksum) = (self.key(path.as_str()), sha256_base64(&body));
        let (sent, digest_refused) = (AtomicBool::new(false), AtomicBool::new(false));
        let (create, progress) = (mode == PutMode::CreateOnly, Arc::new(Progress::default()));
        let lock = self.lock_for(path);
        let attempt = async |_| {
            let earlier = sent.load(Ordering::Relaxed);
            if create
                && !earlier
                && let Some(there) = self.head_once(path).await?
            {
                return Ok(Put::There { bytes: there.bytes });
            }
            sent.store(true, Ordering::Relaxed);
            let written = match self.put_once(&key, body.clone(), &checksum, self.if_none_match, lock, &progress).await
            {
                Err(Failure::Final(taken)) if matches!(taken.kind, Kind::Taken) => {
                    if create && !earlier {
                        let there = self.head_once(path).await?;
                        return there.map(|there| Put::There { bytes: there.bytes }).ok_or(Failure::Again(taken));
                    }
                    // What an attempt of this call left there, whose answer was lost, may be damaged: its size says nothing.
                    if create && self.holds(path, &body, &progress).await? {
                        Ok(())
                    } else {
                        // To be replaced: by the caller's wish, or because it is not what this call sent.
                        self.overwrite_once(path, &key, &body, &checksum, &progress).await
                    }
                }
                other => other,
            };
            if let Err(Failure::Again(refusal)) = &written {
                digest_refused.fetch_or(matches!(refusal.kind, Kind::Digest), Ordering::Relaxed);
            }
            written?;
            if self.readback && self.get_once(path.as_str(), body.len() as u64, &progress).await? != body {
                let reason = "what was read back is not what was written".to_owned();
                digest_refused.store(true, Ordering::Relaxed);
                return Err(Failure::Again(Refusal { kind: Kind::Digest, reason }));
            }
            Ok(Put::Created)
        };
        match self.call_moving("write", path.as_str(), &progress, attempt).await {
            Ok(Put::Created) => {
                if lock.is_some() && !self.lock_looked_at.swap(true, Ordering::Relaxed) {
                    self.look_at_lock(path).await;
                }
                Ok(PutOutcome::Created)
            }
            Ok(Put::There { bytes }) if bytes == body.len() as u64 => Ok(PutOutcome::AlreadyThere),
            Ok(Put::There { bytes }) => Err(StoreError::Exists {
                path: path.to_string(),
                store: self.name.clone(),
                found_bytes: bytes,
                wanted_bytes: body.len() as u64,
            }),
            Err(gave_up) => {
                // Whatever the last attempt died of: an endpoint may have kept what it refused from one before. What is
                // whole stays, another writer may count on it; so does what cannot be read now, because it may be whole.
                let differs = async |_| match self.get_once(path.as_str(), body.len() as u64, &progress).await {
                    Ok(found) => Ok(found != body),
                    Err(Failure::Final(refusal)) => Ok(matches!(refusal.kind, Kind::TooLarge { .. })),
                    Err(again) => Err(again),
                };
                if create
                    && digest_refused.load(Ordering::Relaxed)
                    && matches!(self.call_moving("read", path.as_str(), &progress, differs).await, Ok(true))
                {
                    // Best effort; the failure that is reported is the upload's.
                    let _ = self.call("delete", path.as_str(), |_| self.delete_once(&key)).await;
                }
                Err(self.error("write", path.as_str(), gave_up))
            }
        }
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let progress = Progress::default();
        let attempt = |_| self.get_once(path.as_str(), limit_bytes, &progress);
        let answer = self.call_moving("read", path.as_str(), &progress, attempt).await;
        answer.map_err(|gave_up| self.error("read", path.as_str(), gave_up))
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        let answer = self.call("read", path.as_str(), |_| self.head_once(path)).await;
        answer.map_err(|gave_up| self.error("read", path.as_str(), gave_up))
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.each_of(prefix, self.most_names / HELD, &mut |entry| entries.push(entry)).await?;
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    async fn each(&self, prefix: Option<&StorePath>, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), StoreError> {
        self.each_of(prefix, self.most_names, take).await
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        let mut names = std::collections::BTreeSet::new();
        self.pages(prefix, Some("/"), self.most_names / HELD, |below, page| {
            let folders = page.common_prefixes().iter().filter_map(|folder| folder.prefix()?.strip_suffix('/'));
            let bodies = page.contents().iter().filter_map(|object| object.key());
            let known = folders.chain(bodies).filter_map(|key| StorePath::new(key.strip_prefix(below)?));
            names.extend(known.map(|name| name.to_string()));
        })
        .await?;
        Ok(names.into_iter().collect())
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        let key = self.key(path.as_str());
        let answer = self.call("delete", path.as_str(), |_| self.delete_once(&key)).await;
        answer.map_err(|gave_up| self.error("delete", path.as_str(), gave_up))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        if let Some(now) = self.answered.now() {
            return Ok(now);
        }
        let attempt = async |_| {
            // Two answers, one after the other, must show the same clock.
            let mut before = self.answered.heard();
            let mut apart = String::new();
            for _ in 0..CLOCK_ANSWERS {
                let shown = self.clock_once().await?;
                match before {
                    Some(before) if agree(before, shown) => return Ok(shown.0),
                    Some((before, _)) => apart = format!("{before}, and then {}", shown.0),
                    None => {}
                }
                before = Some(shown);
            }
            Err(Failure::Final(Refusal::other(format!("the clocks in its answers are apart: {apart}"))))
        };
        let now = self.call("read", "the clock", attempt).await;
        now.map(|now| self.answered.told(now)).map_err(|gave_up| self.error("read", "the clock", gave_up))
    }

    fn locks(&self) -> bool {
        self.lock.is_some()
    }

    async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        self.retention(path).await
    }

    async fn hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        if self.lock.is_some() { self.set_hold(path, on).await } else { Ok(()) }
    }

    async fn renew(&self, path: &StorePath) -> Result<(), StoreError> {
        self.renew_lock(path).await;
        Ok(())
    }

    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        match self.keeps_versions(path).await {
            Ok(true) => self.older_versions(path).await,
            Ok(false) => Ok(Vec::new()),
            Err(error) => {
                // Who reads goes on with what is there, so it is told here.
                if !matches!(error, StoreError::Denied { .. }) && !self.unasked_told.swap(true, Ordering::Relaxed) {
                    let text = format!("older versions are not looked for: {error}");
                    self.monitor.event(Event::Warning { text });
                }
                Err(error)
            }
        }
    }

    async fn deleted(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        if self.keeps_versions(folder).await? { self.deleted_below(folder).await } else { Ok(Remembered::default()) }
    }

    async fn folders_ever(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        if self.keeps_versions(folder).await? { self.version_folders(folder).await } else { Ok(Remembered::default()) }
    }

    async fn get_older(&self, older: &Older, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let (path, progress) = (older.path.as_str(), Progress::default());
        let attempt = |_| self.get_version_once(path, Some(&older.version), limit_bytes, &progress);
        let answer = self.call_moving("read", path, &progress, attempt).await;
        answer.map_err(|gave_up| self.error("read", path, gave_up))
    }

    async fn lifecycle(&self) -> Result<Lifecycle, StoreError> {
        self.bucket_rules().await
    }
}

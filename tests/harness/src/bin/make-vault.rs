//! Fills a vault with many snapshots, as a long and busy life would leave them: what `scripts/bench-vault.sh` measures on.
//!
//! `make-vault --vault DIR --state DIR --stack S --host-key FILE --recipient age1… --sources N --snapshots M --objects K`:
//! sources `s01`, `s02`, … get N x M snapshots, one an hour up to now, K objects each beside the manifest's. It is the engine
//! that makes them, with the clocks of host and store set to the hour; only the modification times in the folder are today's.

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::backup::{BackupRequest, Host, backup};
use backup_core::clock::Clock;
use backup_core::manifest::StreamKind;
use backup_core::monitor::{Monitor, Silent};
use backup_core::signature::{HostKey, Signers};
use backup_core::source::files::FilesError;
use backup_core::source::{Captured, CapturedStream, Sink, SinkError, Source, SourceError};
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

/// The hour that it is.
#[derive(Clone, Debug)]
struct Hour(Arc<Mutex<DateTime<Utc>>>);

impl Hour {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: DateTime<Utc>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// A directory whose clock is set.
#[derive(Debug)]
struct Dated(LocalStore, Hour);

#[async_trait]
impl Store for Dated {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.0.put(path, body, mode).await
    }
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get(path, limit_bytes).await
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.0.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.0.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.0.sync().await
    }
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(self.1.now())
    }
}

/// So many streams that share nothing with anything: each becomes an object.
struct Streams {
    name: String,
    count: u64,
}

#[async_trait]
impl Source for Streams {
    fn kind(&self) -> &'static str {
        "files"
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, _: &dyn Monitor) -> Result<Captured, SourceError> {
        let failed = |error: SinkError| SourceError::from(FilesError::Sink(error));
        let instant = clock.now();
        let mut streams = Vec::new();
        for number in 0..self.count {
            let mut writer = sink.open(StreamKind::Output).await.map_err(failed)?;
            writer.write(Bytes::from(format!("{} {instant} {number}\n", self.name))).await.map_err(failed)?;
            let stream = writer.finish().await.map_err(failed)?;
            streams.push(CapturedStream { stream, copy: None, members: Vec::new(), paths: Vec::new() });
        }
        let (tables, properties, suspect) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Captured { instant, streams, tables, properties, suspect })
    }
}

async fn make(args: &HashMap<String, String>) -> Result<u64, Box<dyn Error>> {
    let text = |name: &str| args.get(name).ok_or_else(|| format!("`--{name}` is missing"));
    let number = |name: &str| Ok::<u64, Box<dyn Error>>(text(name)?.parse()?);
    let (sources, snapshots, objects) = (number("sources")?, number("snapshots")?, number("objects")?);
    #[expect(clippy::disallowed_methods, reason = "a program's edge: its snapshots end now")]
    let end = Utc::now();
    let hour = Hour(Arc::new(Mutex::new(end)));
    let store = LocalStore::open(Path::new(text("vault")?), LocalOptions::default())?;
    let vault = Vault::open("local", Arc::new(Dated(store, hour.clone())), None).await?;
    let key = HostKey::from_openssh(&std::fs::read_to_string(text("host-key")?)?)?;
    let signers = Signers::pin_fingerprint(&key.fingerprint());
    let state = State::open(Path::new(text("state")?), &text("stack")?.parse()?).await?;
    let monitor: Arc<dyn Monitor> = Arc::new(Silent);
    let clock = {
        let hour = hour.clone();
        Clock::new(move || hour.now())
    };
    let mut made = 0;
    for age in (0..snapshots).rev() {
        for source in 1..=sources {
            let name = format!("s{source:02}");
            // Seconds apart, so that no two names are of one instant.
            let ago = TimeDelta::seconds(i64::try_from(age * 3600 + sources - source)?);
            hour.set(end - ago);
            let request = BackupRequest {
                stack: text("stack")?.parse()?,
                source: name.parse()?,
                run: "made".to_owned(),
                recipients: vec![text("recipient")?.clone()],
                period: "7d".parse()?,
                level: 1,
                budget_bytes: 64 << 20,
                cpus: 2,
                secret: false,
                next_due: None,
                config: serde_json::json!({}),
                tool: "make-vault".to_owned(),
            };
            let host = Host { key: &key, signers: &signers, state: &state, clock: &clock, monitor: &monitor };
            backup(&vault, host, &request, &Streams { name, count: objects }).await?;
            made += 1;
        }
    }
    Ok(made)
}

fn main() -> ExitCode {
    let mut args = HashMap::new();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        args.insert(name.trim_start_matches("--").to_owned(), given.next().unwrap_or_default());
    }
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into);
    match done.and_then(|runtime| runtime.block_on(make(&args))) {
        Ok(made) => {
            let _ = writeln!(std::io::stderr(), "{made} snapshots");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "make-vault: {error}");
            ExitCode::FAILURE
        }
    }
}

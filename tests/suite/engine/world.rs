//! A host, its keys, two clocks, a scripted source and a watched vault.

use std::sync::{Arc, Mutex};

use age::secrecy::ExposeSecret;
use async_trait::async_trait;
use backup_core::backup::{BackupError, BackupRequest, Committed, Host, backup};
use backup_core::clock::Clock;
use backup_core::manifest::StreamKind;
use backup_core::monitor::{Event, Monitor, Silent};
use backup_core::seal::key::Identities;
use backup_core::signature::{HostKey, Namespace, Signers};
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::files::FilesError;
use backup_core::source::{Captured, CapturedStream, Sink, SinkError, Source, SourceError, Streams};
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, Grounds, PruneStage, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId, signature_of};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store, StorePath};
use backup_core::verify::{Depth, Fraction, Verified, verify};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::recover::noise;
use super::watch::Watch;

/// A clock that a test moves.
#[derive(Clone)]
pub(crate) struct Time(Arc<Mutex<DateTime<Utc>>>);

impl Time {
    fn at(text: &str) -> Self {
        Self::new(text.parse().unwrap())
    }

    pub(crate) fn new(at: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    pub(crate) fn set(&self, at: DateTime<Utc>) {
        *self.0.lock().unwrap() = at;
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    pub(crate) fn pass(&self, by: TimeDelta) {
        *self.0.lock().unwrap() += by;
    }

    pub(crate) fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now())
    }
}

/// Gives byte streams as written down, each in uneven writes; those of `abandoned` are opened and dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) streams: Vec<Vec<u8>>,
    pub(crate) abandoned: Vec<Vec<u8>>,
}

impl Script {
    /// One stream of `bytes` that do not compress.
    pub(crate) fn noise(bytes: usize, seed: u64) -> Self {
        Self { streams: vec![noise(bytes, seed)], abandoned: Vec::new() }
    }
}

fn failed(error: SinkError) -> SourceError {
    FilesError::Sink(error).into()
}

#[async_trait]
impl Source for Script {
    fn kind(&self) -> &'static str {
        "command"
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, _: &dyn Monitor) -> Result<Captured, SourceError> {
        let mut streams = Vec::new();
        let all =
            self.abandoned.iter().map(|bytes| (bytes, false)).chain(self.streams.iter().map(|bytes| (bytes, true)));
        for (bytes, keep) in all {
            let mut writer = sink.open(StreamKind::Output).await.map_err(failed)?;
            for part in bytes.chunks(700_001) {
                writer.write(Bytes::copy_from_slice(part)).await.map_err(failed)?;
            }
            if keep {
                let stream = writer.finish().await.map_err(failed)?;
                streams.push(CapturedStream { stream, copy: None, members: Vec::new(), paths: Vec::new() });
            }
        }
        let (tables, properties, suspect) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Captured { instant: clock.now(), streams, tables, properties, suspect })
    }
}

/// Remembers what the operator would be warned of.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Monitor for Told {
    fn event(&self, event: Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

impl Told {
    /// How many warnings hold `part`; forgets all.
    pub(crate) fn count(&self, part: &str) -> usize {
        std::mem::take(&mut *self.0.lock().unwrap()).iter().filter(|text| text.contains(part)).count()
    }
}

/// A document of a prune in its place, with its signature by `key`.
pub(crate) fn announcement(doc: &SnapshotDoc, stage: PruneStage, key: &HostKey) -> [(StorePath, Vec<u8>); 2] {
    let announced = ExpiredDoc {
        format: 1,
        stage,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        generation: doc.generation.clone(),
        at: doc.instant,
        newest: doc.id.clone(),
        snapshots: vec![(doc.id.clone(), "old".to_owned())],
        grounds: Grounds::default(),
        signer: key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    let bytes = serde_json::to_vec(&announced).unwrap();
    let signature = key.sign(Namespace::Expired, &bytes).unwrap().into_bytes();
    let path = doc.dir().file(stage.file());
    [(signature_of(&path), signature), (path, bytes)]
}

/// What somebody without a pinned key could put where an announcement belongs: no signature, another's, another document,
/// one that is larger than what is read.
pub(crate) fn forgeries(doc: &SnapshotDoc, stage: PruneStage, key: &HostKey) -> Vec<Vec<(StorePath, Vec<u8>)>> {
    let [signature, body] = announcement(doc, stage, key);
    let other = match stage {
        PruneStage::Expired => PruneStage::Deleting,
        PruneStage::Deleting => PruneStage::Expired,
    };
    let [other_signature, other_body] = announcement(doc, other, key);
    vec![
        vec![(body.0.clone(), b"{}".to_vec())],
        vec![body.clone()],
        announcement(doc, stage, &host_key(9)).to_vec(),
        vec![(signature.0.clone(), other_signature.1), (body.0.clone(), other_body.1)],
        vec![signature, (body.0, vec![b' '; 5 << 20])],
    ]
}

pub(crate) fn host_key(seed: u8) -> HostKey {
    HostKey::from_openssh(&host_key_text(seed)).unwrap()
}

/// The same as a file has it.
pub(crate) fn host_key_text(seed: u8) -> String {
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&[seed; 32]);
    let key = ssh_key::PrivateKey::new(pair.into(), "test").unwrap();
    key.to_openssh(ssh_key::LineEnding::LF).unwrap().to_string()
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) watch: Watch,
    pub(crate) vault: Vault,
    pub(crate) key: HostKey,
    pub(crate) signers: Signers,
    pub(crate) identities: Identities,
    pub(crate) state: State,
    pub(crate) host: Time,
    pub(crate) store: Time,
    pub(crate) request: BackupRequest,
    pub(crate) monitor: Arc<dyn Monitor>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (host, store) = (Time::at("2026-11-21T02:00:00Z"), Time::at("2026-11-21T02:00:00Z"));
        let watch = Watch::new(MemoryStore::new(store.clock()));
        let vault = make_vault("first", &watch, store.now()).await;
        let identity = age::x25519::Identity::generate();
        let key = host_key(1);
        let dir = tempfile::tempdir().unwrap();
        Self {
            watch,
            vault,
            signers: Signers::pin_fingerprint(&key.fingerprint()),
            key,
            identities: Identities::parse(identity.to_string().expose_secret().as_bytes(), None).unwrap(),
            state: State::open(dir.path(), &"shop".parse().unwrap()).await.unwrap(),
            host,
            store,
            request: BackupRequest {
                stack: "shop".parse().unwrap(),
                source: "db".parse().unwrap(),
                run: "run".to_owned(),
                recipients: vec![identity.to_public().to_string()],
                period: "7d".parse().unwrap(),
                level: 1,
                budget_bytes: 0,
                cpus: 2,
                secret: false,
                next_due: None,
                config: serde_json::json!({}),
                tool: "backup 0".to_owned(),
            },
            monitor: Arc::new(Silent),
            dir,
        }
    }

    pub(crate) fn pass(&self, by: TimeDelta) {
        self.host.pass(by);
        self.store.pass(by);
    }

    /// A run, a minute after whatever was before.
    pub(crate) async fn run(&self, source: &Script) -> Result<Committed, BackupError> {
        self.pass(TimeDelta::minutes(1));
        let clock = self.host.clock();
        let host =
            Host { key: &self.key, signers: &self.signers, state: &self.state, clock: &clock, monitor: &self.monitor };
        backup(&self.vault, host, &self.request, source).await
    }

    /// The host's state is lost.
    pub(crate) async fn lose_state(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
        self.state = State::open(self.dir.path(), &"shop".parse().unwrap()).await.unwrap();
    }

    pub(crate) async fn history(&self) -> Vec<(GenerationDir, SnapshotId)> {
        self.vault.history(&self.request.stack, &self.request.source).await.unwrap()
    }

    /// Opens and reads a snapshot to its end; its streams, or the first error with its causes.
    pub(crate) async fn read(&self, at: &(GenerationDir, SnapshotId)) -> Result<Vec<Vec<u8>>, String> {
        read(&self.vault, &self.signers, &self.identities, at).await
    }

    /// Reads a committed snapshot.
    pub(crate) async fn read_doc(&self, doc: &SnapshotDoc) -> Result<Vec<Vec<u8>>, String> {
        self.read(&(doc.dir(), doc.id.clone())).await
    }

    /// Verifies; with `deep` every object is hashed and every stream opened.
    pub(crate) async fn verify(&self, deep: bool) -> Verified {
        self.verify_by(deep, deep).await
    }

    /// Verifies, hashing every object where `hash`, opening every stream where `open`.
    pub(crate) async fn verify_by(&self, hash: bool, open: bool) -> Verified {
        let read = hash.then_some(Fraction { part: 1, of: 1 });
        let depth = Depth { read, identities: open.then_some(&self.identities) };
        verify(&self.vault, &self.signers, &self.request.stack, &self.request.source, None, depth).await.unwrap()
    }

    pub(crate) async fn body(&self, path: &StorePath) -> Vec<u8> {
        self.watch.memory.get(path, u64::MAX).await.unwrap().to_vec()
    }

    /// Replaces what lies at a path; `None` removes it.
    pub(crate) async fn set(&self, path: &StorePath, body: Option<Vec<u8>>) {
        let memory = &self.watch.memory;
        match body {
            Some(body) => drop(memory.put(path, body.into(), PutMode::Replace).await.unwrap()),
            None => memory.delete(path).await.unwrap(),
        }
    }
}

/// Opens and reads a snapshot to its end; its streams, or the first error with its causes.
pub(crate) async fn read(
    vault: &Vault,
    signers: &Signers,
    identities: &Identities,
    at: &(GenerationDir, SnapshotId),
) -> Result<Vec<Vec<u8>>, String> {
    let text = |error: &dyn std::error::Error| backup_core::verify::chain_text(error);
    let path = at.0.snapshot(&at.1, ".json");
    let signed = vault.get_signed::<SnapshotDoc>(&path, signers).await.map_err(|e| text(&e))?;
    vault.get_inventory(&signed.doc).await.map_err(|e| text(&e))?;
    let snapshot = OpenSnapshot::open(vault, &signed, identities).await.map_err(|e| text(&e))?;
    let mut streams = Vec::new();
    for number in (1..).take(snapshot.manifest().streams.len()) {
        let mut reader = snapshot.open(number).await.map_err(|e| text(&e))?;
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await.map_err(|e| text(&e))? {
            all.extend_from_slice(&bytes);
        }
        streams.push(all);
    }
    Ok(streams)
}

pub(crate) async fn make_vault(name: &str, watch: &Watch, now: DateTime<Utc>) -> Vault {
    let id = backup_core::id::Hash256::of(name.as_bytes()).to_string()[..32].parse().unwrap();
    Vault::create(name, Arc::new(watch.clone()), id, now, "backup 0").await.unwrap()
}

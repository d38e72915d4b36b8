//! One capture of one source into one vault: the upper half of the data-flow picture.
//!
//! ```text
//! open_generation -> confirm what is known -> capture (Source -> Pipeline) -> barrier -> judge (unusual?)
//!   -> manifest objects -> barrier -> inventory -> signature -> snapshot.json   (the commit)
//! ```
//!
//! What holds at any instant, also after a crash: `snapshot.json` appears only after everything that it names is durable
//! in that vault and was confirmed in this run. A run that dies before that leaves objects that the journal and the next
//! listing find again, and nothing that looks like a snapshot.

mod guard;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::chunk::{ChunkSizes, Cutter};
use crate::clock::Clock;
use crate::id::{Hash256, SourceName, StackName};
use crate::manifest::{Manifest, Stream, text};
use crate::monitor::{Event, Monitor};
use crate::pipeline::known::{Confirming, JournalEntry};
use crate::pipeline::{Journal, Pipeline, PipelineError, PipelineParts};
use crate::prune::notice::{self, Standing};
use crate::prune::purge;
use crate::seal::key::{NewKey, NewKeyError};
use crate::seal::{SealError, Sealer};
use crate::signature::{HostKey, Signers};
use crate::source::{Captured, CapturedStream, Source, SourceError};
use crate::state::{State, StateError};
use crate::vault::document::{FORMAT, GenerationDoc, ManifestRef, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{GenerationDir, GenerationId, Period, SnapshotId, Volume};
use crate::vault::{Listed, Signed, Vault, VaultError};
use crate::words::plain;

/// What the configuration says of the source to capture.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// Stack.
    pub stack: StackName,
    /// Source.
    pub source: SourceName,
    /// The run that this is part of.
    pub run: String,
    /// Operators' recipients.
    pub recipients: Vec<String>,
    /// Length of generations.
    pub period: Period,
    /// zstd level.
    pub level: i32,
    /// Bytes that packs may use at once.
    pub budget_bytes: usize,
    /// Threads for CPU work.
    pub cpus: usize,
    /// Whether a restore must keep everything to its owner.
    pub secret: bool,
    /// When the next snapshot is due.
    pub next_due: Option<DateTime<Utc>>,
    /// The resolved configuration, without secrets, for the manifest.
    pub config: serde_json::Value,
    /// Name and version of this program.
    pub tool: String,
}

/// Who does it, and with what.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Signs.
    pub key: &'a HostKey,
    /// Whose announcement of a prune is obeyed.
    pub signers: &'a Signers,
    /// Remembers.
    pub state: &'a State,
    /// Tells the time.
    pub clock: &'a Clock,
    /// Is told.
    pub monitor: &'a Arc<dyn Monitor>,
}

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source could not be captured.
    #[error("source `{name}`")]
    Source {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The pipeline stopped.
    #[error("source `{name}`")]
    Pipeline {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: Arc<PipelineError>,
    },
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// No generation could be opened.
    #[error("no generation could be opened for source `{name}`")]
    Generation {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: NewKeyError,
    },
    /// The generation's key cannot be used for sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The vault's clock is past the generation's deadline.
    #[error("generation `{generation}` accepts nothing after {deadline}, and the vault's clock says {now}")]
    PastDeadline {
        /// The generation.
        generation: GenerationId,
        /// Its deadline.
        deadline: DateTime<Utc>,
        /// The vault's clock.
        now: DateTime<Utc>,
        /// Whether this host's clock says the same: then it is no clock, but the capture that took too long.
        clocks_agree: bool,
    },
    /// The clocks of this host and of the vault disagree.
    #[error("this host's clock says {host} and vault `{vault}` says {store}")]
    Clocks {
        /// This host's clock.
        host: DateTime<Utc>,
        /// The vault's clock.
        store: DateTime<Utc>,
        /// The vault.
        vault: String,
    },
    /// The host's key ended while the capture lasted. Nothing was committed.
    #[error("what the host key {signer} signs now would not be believed: {reason}")]
    Ended {
        /// Fingerprint of the key.
        signer: String,
        /// Which limit of its pinned line was hit.
        reason: String,
    },
    /// A prune has announced the generation's deletion.
    #[error("generation `{generation}` is being removed by a prune")]
    Pruned {
        /// The generation.
        generation: GenerationId,
    },
    /// The generation was purged while this run was at work in it.
    #[error("generation `{generation}` is being purged ({reason}), and what this run captured went there")]
    Purged {
        /// The generation.
        generation: GenerationId,
        /// Why, in the operator's words.
        reason: String,
    },
    /// What the pipeline stored and what the source gave do not fit together. A defect; nothing was committed.
    #[error("source `{name}`: {reason}")]
    Inconsistent {
        /// The source's name.
        name: SourceName,
        /// What does not fit.
        reason: String,
    },
}

/// A snapshot that is durable in a vault: state `stored`.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its document.
    pub snapshot: Signed<SnapshotDoc>,
    /// Why it should be looked at first.
    pub suspect: Vec<String>,
    /// The newest snapshot that this host made before, where this vault does not list it: it lies in another one, or somebody
    /// removed it.
    pub unlisted: Option<String>,
}

/// Captures `source` into `vault`.
pub async fn backup(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    source: &dyn Source,
) -> Result<Committed, BackupError> {
    let started = host.clock.now();
    clocks_agree(vault, started).await?;
    let import = source.is_import();
    let (mut generation, mut listed) = if import {
        looked_into(vault, new_generation(vault, host, request).await?).await?
    } else {
        open_generation(vault, host, request).await?
    };
    let mut told = Vec::new();
    match refuse_if_pruned(vault, host, &generation.doc.dir(), &listed, &mut told).await {
        // What was purged takes nothing more; the source goes on in another generation.
        Err(BackupError::Purged { .. }) if !import => {
            (generation, listed) = looked_into(vault, remembered_generation(vault, host, request).await?).await?;
        }
        other => other?,
    }
    let dir = generation.doc.dir();
    let journal: Arc<dyn Journal> = if import { Arc::new(Forgetful) } else { Arc::new(host.state.clone()) };
    let pipeline = start_pipeline(vault, host, request, (&generation.doc, listed.objects), journal).await?;
    let mut captured = match capture(&pipeline, host, request, source).await {
        Ok(captured) => captured,
        Err(error) => {
            // What is on its way must have ended before another attempt begins with a budget of its own.
            let _ = pipeline.barrier().await;
            return Err(error);
        }
    };
    barrier(&pipeline, request).await?;
    let history = history(vault, host, request).await?;
    let judged = guard::judge(vault, host, request, source, (&history, &captured)).await?;
    captured.suspect.extend_from_slice(&judged.reasons);
    let before = if import { None } else { host.state.newest(&request.source).await?.map(|(id, _)| id) };
    let unlisted = before.filter(|before| history.iter().all(|(_, id)| id.as_str() != before));
    let draft = Draft { started, generation, captured, history, import };
    let mut committed = commit(vault, host, request, source.kind(), &pipeline, draft).await?;
    committed.unlisted = unlisted;
    withdraw_if_pruned(vault, host, &dir, &committed, &told).await?;
    if !import {
        host.state.set_head(&request.source, committed.snapshot.doc.id.as_str(), committed.snapshot.hash()).await?;
        guard::remember(host, request, &committed, &judged).await?;
    }
    Ok(committed)
}

/// Two clocks further apart than this cannot date a snapshot.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::hours(1);

/// Generations, names and deadlines hang on the time. A host that is a year ahead would make snapshots that stay the newest for
/// a year; one that is behind would find out only after the capture.
async fn clocks_agree(vault: &Vault, host: DateTime<Utc>) -> Result<(), BackupError> {
    let store = vault.now().await?;
    if (store - host).abs() > CLOCK_TOLERANCE {
        return Err(BackupError::Clocks { host, store, vault: vault.name().to_owned() });
    }
    Ok(())
}

/// What the vault has of the source that this run can have to do with: what is newer than all that this host remembers, and
/// at least that. The chain's head and the guard's baseline are looked for from the newest name down to what is remembered,
/// and a name of this second is none of last month's; so what lies in generations that were closed by then changes nothing,
/// and a source with many generations costs no more requests than one with few. Without a memory it is everything.
async fn history(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
) -> Result<Vec<(GenerationDir, SnapshotId)>, BackupError> {
    let head = host.state.newest(&request.source).await?.and_then(|(id, _)| id.parse::<SnapshotId>().ok());
    let good = guard::remembers(host, request).await?;
    let (stack, source) = (&request.stack, &request.source);
    Ok(match (head, good) {
        (Some(head), Some(good)) => vault.history_since(stack, source, head.instant().min(good.instant())).await?,
        _ => vault.history(stack, source).await?,
    })
}

/// A generation with what it holds.
async fn looked_into(
    vault: &Vault,
    generation: Signed<GenerationDoc>,
) -> Result<(Signed<GenerationDoc>, Listed), BackupError> {
    let listed = vault.look(&generation.doc.dir()).await?;
    Ok((generation, listed))
}

/// The generation that this capture goes into: the one that is open, or a new one where the period has turned, the
/// recipients have changed, another key signs, or the state was lost. With what one listing of this run shows there: whether
/// it is there, whether a prune announced anything (looked for again after the commit, which is what decides), and its objects.
async fn open_generation(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
) -> Result<(Signed<GenerationDoc>, Listed), BackupError> {
    let now = host.clock.now();
    let first_day = request.period.first_day(now, &request.source);
    if let Some(open) = host.state.generation(&request.source).await? {
        let doc = &open.doc;
        let fits = doc.stack == request.stack
            && doc.source == request.source
            && doc.period == request.period
            && doc.generation.first_day() == first_day
            && doc.recipients == request.recipients
            && doc.signer == host.key.fingerprint();
        if fits {
            // It may have been opened in another vault, or this one may have been emptied: what is not there is put again,
            // unless it is not there because it was purged.
            let listed = vault.look(&doc.dir()).await?;
            if listed.files.contains("generation.json") {
                return Ok((open, listed));
            }
            if purge::done(vault, host.signers, &doc.dir()).await?.is_none() {
                vault.put_verbatim(&open).await?;
                return Ok((open, listed));
            }
        }
    }
    looked_into(vault, remembered_generation(vault, host, request).await?).await
}

/// A new generation that the next capture goes into as well.
async fn remembered_generation(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
) -> Result<Signed<GenerationDoc>, BackupError> {
    let signed = new_generation(vault, host, request).await?;
    host.state.set_generation(&signed).await?;
    Ok(signed)
}

/// Nothing looks into an import's generation again.
struct Forgetful;

#[async_trait]
impl Journal for Forgetful {
    async fn record(&self, _: &GenerationDir, _: &JournalEntry) {}
}

/// A generation with a key of its own, which nobody remembers yet. An import has one to itself: captures share nothing
/// with it, so that neither it nor they keep the other from going.
async fn new_generation(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
) -> Result<Signed<GenerationDoc>, BackupError> {
    let now = host.clock.now();
    let first_day = request.period.first_day(now, &request.source);
    let name = || request.source.clone();
    let key =
        NewKey::generate(&request.recipients).map_err(|source| BackupError::Generation { name: name(), source })?;
    let doc = GenerationDoc {
        format: FORMAT,
        stack: request.stack.clone(),
        source: name(),
        generation: GenerationId::new(first_day, request.period, &key.public_key),
        period: request.period,
        opened: now,
        public_key: key.public_key,
        recipients: request.recipients.clone(),
        wrapped_key: key.wrapped,
        chunk_average_bytes: sizes(vault, host, request).await?.average_bytes as u64,
        signer: host.key.fingerprint(),
        tool: request.tool.clone(),
    };
    let signed = vault.put_signed(&doc, host.key).await?;
    host.monitor.event(Event::Note { text: format!("opened generation {}", doc.generation) });
    Ok(signed)
}

async fn start_pipeline(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    (doc, objects): (&GenerationDoc, Vec<InventoryLine>),
    journal: Arc<dyn Journal>,
) -> Result<Pipeline, BackupError> {
    let dir = doc.dir();
    let mut confirming = Confirming::new(&objects);
    host.state.journal(&dir, |entry| confirming.take(&entry)).await?;
    let known = confirming.finish();
    drop(objects);
    let sizes = ChunkSizes { average_bytes: usize::try_from(doc.chunk_average_bytes).unwrap_or(64 << 10) };
    Ok(Pipeline::new(PipelineParts {
        vault: vault.clone(),
        dir,
        sealer: Sealer::new(&doc.public_key, request.level)?,
        cutter: Cutter::new(sizes, seed(host.key)),
        known,
        journal,
        monitor: host.monitor.clone(),
        budget_bytes: request.budget_bytes,
        cpus: request.cpus,
    }))
}

/// Chunk sizes by what the source's newest snapshot held; a source's first generation is cut small.
async fn sizes(vault: &Vault, host: Host<'_>, request: &BackupRequest) -> Result<ChunkSizes, BackupError> {
    let own = Signers::pin_fingerprint(&host.key.fingerprint());
    let history = vault.history(&request.stack, &request.source).await?;
    for at in history.iter().rev().filter(|(_, id)| !id.is_imported()) {
        if let Some(found) = believed(vault, &own, at).await? {
            return Ok(ChunkSizes::for_source(found.doc.plain_bytes));
        }
    }
    Ok(ChunkSizes::SMALL)
}

/// A listed snapshot, or `None` where what lies there is not believed: whoever can write into the vault can plant names,
/// and must not be able to stop a run with them. Errors: only a store that fails.
async fn believed(
    vault: &Vault,
    signers: &Signers,
    (dir, id): &(GenerationDir, SnapshotId),
) -> Result<Option<Signed<SnapshotDoc>>, VaultError> {
    match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(None),
        Err(error) => Err(error),
    }
}

fn seed(key: &HostKey) -> u64 {
    let secret = key.derive("chunker");
    u64::from_be_bytes(std::array::from_fn(|i| secret[i]))
}

async fn capture(
    pipeline: &Pipeline,
    host: Host<'_>,
    request: &BackupRequest,
    source: &dyn Source,
) -> Result<Captured, BackupError> {
    host.monitor.event(Event::CaptureStarted { source: request.source.to_string() });
    let name = request.source.clone();
    source.capture(pipeline, host.clock, &**host.monitor).await.map_err(|error| match pipeline.failure() {
        // The source only saw that its sink stopped; the cause is the pipeline's.
        Some(source) => BackupError::Pipeline { name, source },
        None => BackupError::Source { name, source: error },
    })
}

async fn barrier(pipeline: &Pipeline, request: &BackupRequest) -> Result<(), BackupError> {
    let failed = |source| BackupError::Pipeline { name: request.source.clone(), source };
    pipeline.barrier().await.map_err(failed)
}

struct Draft {
    started: DateTime<Utc>,
    generation: Signed<GenerationDoc>,
    captured: Captured,
    /// What the vault listed of the source when everything was stored.
    history: Vec<(GenerationDir, SnapshotId)>,
    import: bool,
}

async fn commit(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    source_type: &str,
    pipeline: &Pipeline,
    draft: Draft,
) -> Result<Committed, BackupError> {
    let Draft { started, generation, captured, history, import } = draft;
    let (instant, suspect) = (captured.instant, captured.suspect.clone());
    let manifest = manifest(pipeline, request, source_type, captured)?;
    let text = text::write(&manifest);
    // What could not be read back must not be committed.
    if let Err(error) = text::parse(&text) {
        return Err(BackupError::Inconsistent { name: request.source.clone(), reason: error.to_string() });
    }
    let failed = |source| BackupError::Pipeline { name: request.source.clone(), source };
    let objects = pipeline.put_manifest(&text, seed(host.key)).await.map_err(failed)?;
    vault.sync().await?;

    let generation = generation.doc;
    let dir = generation.dir();
    let rows = manifest.tables.iter().map(|table| table.rows).sum();
    let plain_bytes = manifest.streams.iter().map(|stream| stream.bytes).sum();
    let volume = if manifest.tables.is_empty() { Volume::Bytes(plain_bytes) } else { Volume::Rows(rows) };
    let named = second_of_its_own(&history, instant);
    let id = SnapshotId::new(named, volume, random(), !suspect.is_empty());
    let id = if import { id.into_imported() } else { id };
    let needed =
        manifest.streams.iter().flat_map(|s| s.extents.iter().map(|e| e.object)).chain(objects.iter().copied());
    let lines = pipeline.inventory(needed);
    let stored_bytes = lines.iter().map(|line| line.bytes).sum();
    let inventory = vault.put_inventory(&dir, &id, lines).await?;

    let now = vault.now().await?;
    let deadline = dir.id.deadline();
    if now > deadline {
        let clocks_agree = (now - host.clock.now()).abs() <= CLOCK_TOLERANCE;
        return Err(BackupError::PastDeadline { generation: dir.id, deadline, now, clocks_agree });
    }
    let doc = SnapshotDoc {
        format: FORMAT,
        stack: request.stack.clone(),
        source: request.source.clone(),
        source_type: source_type.to_owned(),
        generation: dir.id.clone(),
        id,
        run: request.run.clone(),
        instant,
        started,
        finished: host.clock.now(),
        next_due: request.next_due,
        tables: manifest.tables.len() as u64,
        rows,
        files: files(&manifest),
        plain_bytes,
        stored_bytes,
        added_bytes: pipeline.added_bytes(),
        secret: request.secret,
        suspect: suspect.len() as u64,
        inventory,
        manifest: ManifestRef { sha256: Hash256::of(text.as_bytes()), bytes: text.len() as u64, objects },
        public_key: generation.public_key,
        recipients: generation.recipients,
        wrapped_key: generation.wrapped_key,
        // The chain tells whether captures are missing; files that people bring are no links of it.
        previous: if import { None } else { previous(vault, host, request, &history).await? },
        signer: host.key.fingerprint(),
        tool: request.tool.clone(),
    };
    // A key can end while a capture lasts: what nobody would believe must not look like a commit.
    if let Some(reason) = host.signers.ended(&doc.signer, doc.finished) {
        return Err(BackupError::Ended { signer: doc.signer, reason });
    }
    host.state.note_commit(vault.id(), &dir, &doc.id).await?;
    Ok(Committed { snapshot: vault.put_signed(&doc, host.key).await?, suspect, unlisted: None })
}

/// The second for a snapshot's name: its instant, moved on past seconds that have a snapshot already. Names sort by time,
/// and what is newest, and what follows on what, is read from that order.
fn second_of_its_own(history: &[(GenerationDir, SnapshotId)], instant: DateTime<Utc>) -> DateTime<Utc> {
    /// Somebody who plants names cannot move ours further than this.
    const MOST: u32 = 60;
    let taken: HashSet<i64> = history.iter().map(|(_, id)| id.instant().timestamp()).collect();
    let mut seconds = (0..MOST).map(|seconds| instant + TimeDelta::seconds(seconds.into()));
    seconds.find(|at| !taken.contains(&at.timestamp())).unwrap_or(instant)
}

fn files(manifest: &Manifest) -> u64 {
    let paths = manifest.streams.iter().flat_map(|stream| &stream.paths);
    paths.filter(|path| path.kind == crate::manifest::PathKind::File).count() as u64
}

fn manifest(
    pipeline: &Pipeline,
    request: &BackupRequest,
    source_type: &str,
    captured: Captured,
) -> Result<Manifest, BackupError> {
    let inconsistent =
        |reason: &str| BackupError::Inconsistent { name: request.source.clone(), reason: reason.to_owned() };
    let stream = |captured: CapturedStream| {
        let CapturedStream { stream, copy, members, paths } = captured;
        let extents =
            pipeline.extents(&stream).ok_or_else(|| inconsistent("a stream has bytes that no object holds"))?;
        let sum: u64 = extents.iter().map(|e| u64::from(e.bytes)).sum();
        if sum != stream.bytes {
            return Err(inconsistent("a stream's extents do not add up to its length"));
        }
        Ok(Stream { kind: stream.kind, bytes: stream.bytes, sha256: stream.sha256, extents, copy, members, paths })
    };
    Ok(Manifest {
        source_type: source_type.to_owned(),
        streams: captured.streams.into_iter().map(stream).collect::<Result<_, _>>()?,
        tables: captured.tables,
        properties: captured.properties,
        suspect: captured.suspect,
        config: request.config.clone(),
    })
}

/// How many of our snapshots that do not continue the chain from the newest one a head is looked for behind.
const STRAYS: usize = 8;

/// Head of the chain: from the state, or, where that was lost, the newest snapshot of this host in the vault.
///
/// A run can end between its commit and its note in the state (a crash, a last answer that was lost), and a state that cannot be
/// written for weeks notes none of them. Those snapshots are whole and listed, so the chain must go through them: snapshots of ours
/// that follow on the remembered head, however many, move it. What does not lead back to the remembered head does not replace it,
/// so that a vault that was rolled back shows an open chain.
async fn previous(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
    history: &[(GenerationDir, SnapshotId)],
) -> Result<Option<Hash256>, BackupError> {
    let (name, head) = host.state.newest(&request.source).await?.unzip();
    let own = Signers::pin_fingerprint(&host.key.fingerprint());
    let (mut newest, mut link, mut strays) = (None, None, 0);
    for at in history.iter().rev().filter(|(_, id)| !id.is_imported()) {
        // The remembered head itself. To read it would tell nothing: nothing newer of ours led to it, so nothing takes its
        // place, whatever lies there; what is wrong with it is `verify`'s to say.
        if name.as_deref() == Some(at.1.as_str()) {
            break;
        }
        // Names that prove nothing do not count, or eight planted ones would hide all of ours.
        let Some(found) = believed(vault, &own, at).await? else { continue };
        let hash = Some(found.hash());
        if newest.is_some() && hash != link {
            strays += 1;
            if strays == STRAYS {
                break;
            }
            continue;
        }
        newest = newest.or(hash);
        link = found.doc.previous;
        if head.is_none() || head == hash || head == link {
            return Ok(newest);
        }
        if link.is_none() {
            break;
        }
    }
    Ok(head)
}

/// Looks for what a listing of this run shows of prune's documents. That saves a run for nothing, no more: what is announced
/// after that listing, or what a store with stale listings hid, is asked for by name in [`withdraw_if_pruned`].
async fn refuse_if_pruned(
    vault: &Vault,
    host: Host<'_>,
    dir: &GenerationDir,
    listed: &Listed,
    told: &mut Vec<String>,
) -> Result<(), BackupError> {
    let mut standing = notice::standing_listed(vault, host.signers, dir, &listed.files).await?;
    told.append(&mut standing.foreign);
    warn(host, told.iter());
    refused(standing, dir).map_or(Ok(()), Err)
}

fn warn<'t>(host: Host<'_>, texts: impl Iterator<Item = &'t String>) {
    texts.for_each(|text| host.monitor.event(Event::Warning { text: text.clone() }));
}

/// Why nothing may be committed into a generation, if so.
fn refused(standing: Standing, dir: &GenerationDir) -> Option<BackupError> {
    let generation = dir.id.clone();
    match standing.purged {
        Some(reason) => Some(BackupError::Purged { generation, reason: plain(&reason) }),
        None => standing.pruned.then_some(BackupError::Pruned { generation }),
    }
}

/// A prune that began between our first look and our commit may already have listed the generation without us: then the
/// commit is taken back, and the run fails loudly, rather than leaving a snapshot whose objects are about to go.
async fn withdraw_if_pruned(
    vault: &Vault,
    host: Host<'_>,
    dir: &GenerationDir,
    committed: &Committed,
    told: &[String],
) -> Result<(), BackupError> {
    let standing = notice::standing(vault, host.signers, dir).await?;
    // Also what no listing shows: a link or a pipe in a directory.
    warn(host, standing.foreign.iter().filter(|text| !told.contains(text)));
    let Some(lost) = refused(standing, dir) else { return Ok(()) };
    let id = &committed.snapshot.doc.id;
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        vault.delete(&dir.snapshot(id, suffix)).await?;
        // For good: a power cut must not bring the document back without what belongs to it.
        vault.sync().await?;
    }
    Err(lost)
}

fn random() -> [u8; 6] {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

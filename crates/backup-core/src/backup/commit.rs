//! From what was captured to `snapshot.json`: manifest objects, barrier, inventory, signature, document.
//!
//! Everything that the document names is durable before it appears, and what could not be read back is not committed.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::chain::previous;
use super::pipeline::seed;
use super::{BackupError, BackupRequest, CLOCK_TOLERANCE, Committed, Host};
use crate::id::Hash256;
use crate::manifest::{Manifest, Stream, text};
use crate::pipeline::Pipeline;
use crate::source::{Captured, CapturedStream};
use crate::vault::document::{FORMAT, GenerationDoc, ManifestRef, SnapshotDoc};
use crate::vault::layout::{GenerationDir, SnapshotId, Volume};
use crate::vault::{Signed, Vault};

pub(super) struct Draft {
    pub(super) started: DateTime<Utc>,
    pub(super) generation: Signed<GenerationDoc>,
    pub(super) captured: Captured,
    /// What the vault listed of the source when everything was stored.
    pub(super) history: Vec<(GenerationDir, SnapshotId)>,
    pub(super) import: bool,
}

pub(super) async fn commit(
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

fn random() -> [u8; 6] {
    let mut bytes = [0; 6];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

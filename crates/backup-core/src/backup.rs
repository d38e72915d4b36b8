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

mod chain;
mod commit;
mod error;
mod generation;
mod guard;
mod pipeline;
mod pruned;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock;
use crate::id::{SourceName, StackName};
use crate::monitor::Monitor;
use crate::pipeline::Journal;
use crate::signature::{HostKey, Signers};
use crate::source::Source;
use crate::state::State;
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::Period;
use crate::vault::{Signed, Vault};
use chain::history;
use commit::{Draft, commit};
use generation::{looked_into, new_generation, open_generation, remembered_generation};
use pipeline::{Forgetful, barrier, capture, start_pipeline};
use pruned::{refuse_if_pruned, withdraw_if_pruned};

pub use error::BackupError;

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

//! The source's bytes on their way into objects: what is known there already, the capture, the barrier behind it.

use std::sync::Arc;

use async_trait::async_trait;

use super::{BackupError, BackupRequest, Host};
use crate::chunk::{ChunkSizes, Cutter};
use crate::monitor::Event;
use crate::pipeline::known::{Confirming, JournalEntry};
use crate::pipeline::{Journal, Pipeline, PipelineParts};
use crate::seal::Sealer;
use crate::signature::HostKey;
use crate::source::{Captured, Source};
use crate::vault::Vault;
use crate::vault::document::GenerationDoc;
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::GenerationDir;

/// Nothing looks into an import's generation again.
pub(super) struct Forgetful;

#[async_trait]
impl Journal for Forgetful {
    async fn record(&self, _: &GenerationDir, _: &JournalEntry) {}
}

pub(super) async fn start_pipeline(
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

pub(super) fn seed(key: &HostKey) -> u64 {
    let secret = key.derive("chunker");
    u64::from_be_bytes(std::array::from_fn(|i| secret[i]))
}

pub(super) async fn capture(
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

pub(super) async fn barrier(pipeline: &Pipeline, request: &BackupRequest) -> Result<(), BackupError> {
    let failed = |source| BackupError::Pipeline { name: request.source.clone(), source };
    pipeline.barrier().await.map_err(failed)
}

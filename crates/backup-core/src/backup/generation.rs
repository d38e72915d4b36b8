//! Which generation a capture goes into: the one that is open, or a new one with a key of its own.
//!
//! The secret half of a new key exists here while the generation opens, wrapped for the operators, and is dropped. What is read from the
//! vault decides nothing but how finely a new generation is cut, and only where this host's key signed it.

use super::chain::believed;
use super::{BackupError, BackupRequest, Host};
use crate::chunk::ChunkSizes;
use crate::monitor::Event;
use crate::prune::purge;
use crate::seal::key::NewKey;
use crate::signature::Signers;
use crate::vault::document::{FORMAT, GenerationDoc};
use crate::vault::layout::GenerationId;
use crate::vault::{Listed, Signed, Vault};

/// A generation with what it holds.
pub(super) async fn looked_into(
    vault: &Vault,
    generation: Signed<GenerationDoc>,
) -> Result<(Signed<GenerationDoc>, Listed), BackupError> {
    let listed = vault.look(&generation.doc.dir()).await?;
    Ok((generation, listed))
}

/// The generation that this capture goes into: the one that is open, or a new one where the period has turned, the
/// recipients have changed, another key signs, or the state was lost. With what one listing of this run shows there: whether
/// it is there, whether a prune announced anything (looked for again after the commit, which is what decides), and its objects.
pub(super) async fn open_generation(
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
pub(super) async fn remembered_generation(
    vault: &Vault,
    host: Host<'_>,
    request: &BackupRequest,
) -> Result<Signed<GenerationDoc>, BackupError> {
    let signed = new_generation(vault, host, request).await?;
    host.state.set_generation(&signed).await?;
    Ok(signed)
}

/// A generation with a key of its own, which nobody remembers yet. An import has one to itself: captures share nothing
/// with it, so that neither it nor they keep the other from going.
pub(super) async fn new_generation(
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

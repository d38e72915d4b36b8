//! A run and a prune in one generation: whichever comes second sees the other, and a run that lost takes its commit back.

use super::{BackupError, Committed, Host};
use crate::monitor::Event;
use crate::prune::notice::{self, Standing};
use crate::vault::layout::GenerationDir;
use crate::vault::{Listed, Vault};
use crate::words::plain;

/// Looks for what a listing of this run shows of prune's documents. That saves a run for nothing, no more: what is announced
/// after that listing, or what a store with stale listings hid, is asked for by name in [`withdraw_if_pruned`].
pub(super) async fn refuse_if_pruned(
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
pub(super) async fn withdraw_if_pruned(
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

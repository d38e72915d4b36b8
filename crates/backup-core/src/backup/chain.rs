//! What a new snapshot follows on: this host's newest before it, as it is remembered, or as the vault lists it.
//!
//! What lies in the vault is believed where this host's key signed it, and no further: whoever can write there can plant names.

use super::{BackupError, BackupRequest, Host, guard};
use crate::id::Hash256;
use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::{Signed, Vault, VaultError};

/// What the vault has of the source that this run can have to do with: what is newer than all that this host remembers, and
/// at least that. The chain's head and the guard's baseline are looked for from the newest name down to what is remembered,
/// and a name of this second is none of last month's; so what lies in generations that were closed by then changes nothing,
/// and a source with many generations costs no more requests than one with few. Without a memory it is everything.
pub(super) async fn history(
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

/// How many of our snapshots that do not continue the chain from the newest one a head is looked for behind.
const STRAYS: usize = 8;

/// Head of the chain: from the state, or, where that was lost, the newest snapshot of this host in the vault.
///
/// A run can end between its commit and its note in the state (a crash, a last answer that was lost), and a state that cannot be
/// written for weeks notes none of them. Those snapshots are whole and listed, so the chain must go through them: snapshots of ours
/// that follow on the remembered head, however many, move it. What does not lead back to the remembered head does not replace it,
/// so that a vault that was rolled back shows an open chain.
pub(super) async fn previous(
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

/// A listed snapshot, or `None` where what lies there is not believed: whoever can write into the vault can plant names,
/// and must not be able to stop a run with them. Errors: only a store that fails.
pub(super) async fn believed(
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

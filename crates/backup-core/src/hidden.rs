//! Snapshots whose own document somebody deleted in a bucket that keeps versions: no listing shows them, and nothing of them is
//! lost while the older versions stay.
//!
//! A delete marker over a document is also what a prune leaves. A signed receipt, or a signed notice that still stands, says
//! that it was a prune; without one it was somebody else. Only a document that a pinned signer signed counts, as everywhere:
//! whoever writes a name and deletes it again hides nothing.
//!
//! It costs a listing of versions for each generation of which the store remembers anything, and nothing where no versions
//! are kept. So it is for `verify`, `audit`, `doctor`, `list` and `restore`; a run, a replication and a prune do not ask:
//! what they would find is no longer held there.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::id::{SourceName, StackName};
use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::document::{ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, GenerationId, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};

/// Requests at once.
const AT_ONCE: usize = 16;

/// So many documents are read of one source: whoever hides more is told of all the same.
const READ: usize = 1000;

/// A snapshot that no listing shows.
#[derive(Debug, Clone)]
pub struct Hidden {
    /// Its generation.
    pub dir: GenerationDir,
    /// Its name.
    pub id: SnapshotId,
    /// Its document, from an older version.
    pub signed: Signed<SnapshotDoc>,
}

/// Finds them, oldest first. None where the store keeps no versions, or does not let these credentials list them. Errors: only a
/// store that fails.
pub async fn snapshots(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
) -> Result<Vec<Hidden>, VaultError> {
    match look(vault, signers, stack, source).await {
        Err(VaultError::Store { source: StoreError::Denied { .. }, .. }) => Ok(Vec::new()),
        found => found,
    }
}

async fn look(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<Hidden>, VaultError> {
    let ever = vault.generations_ever(stack, source).await?;
    if ever.is_empty() {
        return Ok(Vec::new());
    }
    let there: BTreeSet<GenerationDir> = vault.generations(stack, source).await?.into_iter().collect();
    let receipts = receipts(vault, stack, source).await?;
    let mut found: Vec<Hidden> = stream::iter(ever)
        .map(|dir| {
            let (is_there, of_it) = (there.contains(&dir), receipts.get(&dir.id).map_or(&[][..], Vec::as_slice));
            in_generation(vault, signers, dir, is_there, of_it)
        })
        .buffer_unordered(AT_ONCE)
        .try_concat()
        .await?;
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The receipts of a source, by name only, by generation.
async fn receipts(
    vault: &Vault,
    stack: &StackName,
    source: &SourceName,
) -> Result<BTreeMap<GenerationId, Vec<StorePath>>, VaultError> {
    let mut all: BTreeMap<GenerationId, Vec<StorePath>> = BTreeMap::new();
    for entry in vault.list(&layout::receipts(stack, source)).await? {
        let name = entry.path.as_str().rsplit('/').next().and_then(|name| name.strip_suffix(".json"));
        let generation = name.and_then(|name| name.split_once('-')).and_then(|(_, id)| id.parse().ok());
        if let Some(id) = generation {
            all.entry(id).or_default().push(entry.path);
        }
    }
    Ok(all)
}

async fn in_generation(
    vault: &Vault,
    signers: &Signers,
    dir: GenerationDir,
    is_there: bool,
    receipts: &[StorePath],
) -> Result<Vec<Hidden>, VaultError> {
    let mut removed = BTreeSet::new();
    for path in receipts {
        match vault.get_signed::<ReceiptDoc>(path, signers).await {
            // Of a generation that is gone the receipt is enough: what was withdrawn from it stands in none.
            Ok(_) if !is_there => return Ok(Vec::new()),
            Ok(receipt) => removed.extend(receipt.doc.snapshots.into_iter().map(|(id, _)| id)),
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error),
        }
    }
    let mut ids = vault.deleted_snapshots(&dir).await?;
    ids.retain(|id| !removed.contains(id));
    // A run that lost to a prune withdrew its own.
    if ids.is_empty() || notice::standing(vault, signers, &dir).await?.pruned {
        return Ok(Vec::new());
    }
    let older = vault.reading_older();
    let read = stream::iter(ids.into_iter().take(READ)).map(|id| {
        let (older, dir) = (&older, &dir);
        async move {
            let signed = older.get_signed::<SnapshotDoc>(&dir.snapshot(&id, ".json"), signers).await.ok()?;
            Some(Hidden { dir: dir.clone(), id, signed })
        }
    });
    Ok(read.buffered(AT_ONCE).filter_map(std::future::ready).collect().await)
}

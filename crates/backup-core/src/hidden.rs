//! Snapshots whose own document somebody deleted in a bucket that keeps versions: no listing shows them, and nothing of them is
//! lost while the older versions stay.
//!
//! A delete marker over a document is also what a prune leaves, and a writer that lost to one. A signed receipt that names it says that it
//! was a prune; an announcement that still stands, that a writer took back what it put after it (whose document the store got no earlier);
//! where the generation is gone, its receipt says the same of what came shortly before it, and nothing of what is older.
//! Without one it was somebody else, and an old announcement that somebody put back says nothing. Only a document that a pinned
//! signer signed counts, as everywhere: whoever writes a name and deletes it again hides nothing. Names are read in the order in which the
//! store got them, so that whoever writes a thousand and deletes them stands behind what was there before; what is left
//! unread is told.
//!
//! It costs a listing of versions for each generation of which the store remembers anything, and nothing where no versions
//! are kept. So it is for `verify`, `audit`, `doctor`, `list` and `restore`; a run, a replication and a prune do not ask:
//! what they would find is no longer held there.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::id::{SourceName, StackName};
use crate::prune::{GRACE, announced, history, notice};
use crate::signature::Signers;
use crate::vault::document::{ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::protection::{Gone, Remembered};
use crate::vault::store::StoreError;
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Requests at once.
const AT_ONCE: usize = 16;

/// So many documents are read of one generation; that there are more is told.
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

/// What was found, and how far anybody could look.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Oldest first.
    pub snapshots: Vec<Hidden>,
    /// What could not be looked at, in words, each thing once; empty where everything was, or no versions are kept.
    pub unseen: Vec<String>,
}

/// Finds them. None where the store keeps no versions; where it does not let these credentials look, that is told. Errors: only a
/// store that fails.
pub async fn snapshots(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
) -> Result<Found, VaultError> {
    let mut found = Found::default();
    let ever = match permitted(vault.generations_ever(stack, source).await, &mut found)? {
        Some(ever) if !ever.found.is_empty() => ever,
        _ => return Ok(found),
    };
    if ever.is_cut {
        found.unseen.push(format!("`{source}` has so many versions that not all of its generations were looked for"));
    }
    let mut gone: Vec<(GenerationDir, Remembered<(SnapshotId, Gone)>)> = Vec::new();
    let mut asked = stream::iter(ever.found)
        .map(async |dir| {
            let gone = vault.deleted_snapshots(&dir).await;
            (dir, gone)
        })
        .buffer_unordered(AT_ONCE);
    while let Some((dir, one)) = asked.next().await {
        let Some(one) = permitted(one, &mut found)? else { return Ok(found) };
        gone.push((dir, one));
    }
    drop(asked);
    gone.retain(|(_, one)| one.is_cut || !one.found.is_empty());
    if gone.is_empty() {
        return Ok(found);
    }
    // After the versions: a deletion puts its receipt before anything goes, so what it took meanwhile is named here.
    let receipts = history::receipts(vault, signers, stack, source).await?;
    let there: BTreeSet<GenerationDir> = vault.generations(stack, source).await?.into_iter().collect();
    for (dir, one) in gone {
        let of_it: Vec<&ReceiptDoc> = receipts.iter().filter(|receipt| receipt.generation == dir.id).collect();
        in_generation((vault, signers), (&dir, there.contains(&dir)), one, &of_it, &mut found).await?;
    }
    found.snapshots.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// Those of one generation, for who looks at it once more.
pub(crate) async fn of_generation(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
) -> Result<Vec<Hidden>, VaultError> {
    let mut found = Found::default();
    if let Some(gone) = permitted(vault.deleted_snapshots(dir).await, &mut found)?.filter(|gone| !gone.found.is_empty())
    {
        let receipts = history::receipts_of(vault, signers, dir).await?;
        let is_there = vault.generations(&dir.stack, &dir.source).await?.contains(dir);
        in_generation((vault, signers), (dir, is_there), gone, &receipts.iter().collect::<Vec<_>>(), &mut found)
            .await?;
    }
    Ok(found.snapshots)
}

/// What the store remembers; `None`, and told, where these credentials may not ask.
fn permitted<T>(answer: Result<T, VaultError>, found: &mut Found) -> Result<Option<T>, VaultError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error @ VaultError::Store { source: StoreError::Denied { .. }, .. }) => {
            found.unseen.push(format!(
                "versions could not be listed, so nobody can say whether documents were deleted: {}",
                plain(&chain_text(&error))
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether what no receipt names, of a generation that is gone, may be what a writer took back from it. The announcement went with the
/// generation; a nightly prune put it two days before its receipt at most. A generation that is deleted takes no commits
/// any more, so what came there since is a copy, and the copier looked for the announcement before it began. What came earlier was deleted
/// by somebody.
fn is_withdrawn(receipt: &ReceiptDoc, one: &Gone) -> bool {
    (receipt.at - GRACE * 2 - announced::LATE..=receipt.at + GRACE).contains(&one.first)
}

async fn in_generation(
    (vault, signers): (&Vault, &Signers),
    (dir, is_there): (&GenerationDir, bool),
    Remembered { found: mut gone, is_cut }: Remembered<(SnapshotId, Gone)>,
    receipts: &[&ReceiptDoc],
    found: &mut Found,
) -> Result<(), VaultError> {
    if is_cut {
        found.unseen.push(format!("generation {} has so many versions that not all deleted names were seen", dir.id));
    }
    let removed: BTreeSet<&SnapshotId> =
        receipts.iter().flat_map(|receipt| &receipt.snapshots).map(|(id, _)| id).collect();
    gone.retain(|(id, _)| !removed.contains(id));
    if gone.is_empty() {
        return Ok(());
    }
    // A writer that lost to a prune withdrew what it had put after the announcement. By the first body: whoever deletes a
    // document of before can put it once more and delete it again.
    for (at, named) in announced::standing(vault, signers, dir).await? {
        gone.retain(|(id, one)| named.contains(id) || one.first < at - announced::LATE);
    }
    if !is_there {
        gone.retain(|(_, one)| !receipts.iter().any(|receipt| is_withdrawn(receipt, one)));
    }
    if gone.is_empty() {
        return Ok(());
    }
    // Whoever floods the folder now only adds names that came later.
    gone.sort_by(|a, b| (a.1.first, &a.0).cmp(&(b.1.first, &b.0)));
    if gone.len() > READ {
        found.unseen.push(format!(
            "generation {}: {} names of deleted documents were not read, somebody made very many",
            dir.id,
            gone.len() - READ
        ));
    }
    let older = &vault.reading_older();
    let read: Vec<Option<Hidden>> = stream::iter(gone.iter().take(READ).map(|(id, _)| id))
        .map(async |id| match older.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
            Ok(signed) => Ok(Some(Hidden { dir: dir.clone(), id: id.clone(), signed })),
            Err(error) if notice::is_foreign(vault, &error).await => Ok(None),
            Err(error) => Err(error),
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let unread = read.iter().zip(&gone).find(|(read, _)| read.is_none()).map(|(_, (id, _))| id);
    if let Some(id) = unread {
        let answer = vault.may_read_older(&dir.snapshot(id, ".json")).await;
        if let Err(error @ VaultError::Store { source: StoreError::Denied { .. }, .. }) = answer {
            found.unseen.push(format!(
                "documents were deleted, and older versions of them could not be read: {}",
                plain(&chain_text(&error))
            ));
        }
    }
    found.snapshots.extend(read.into_iter().flatten());
    Ok(())
}

//! A pin, where the store has locks: a legal hold on every file that the pinned snapshot needs.
//!
//! The mark keeps prune away; the hold keeps everybody away, also whoever holds this host's key, and without an end. It is set
//! after the mark and lifted after it, so that what is held has a mark to show for it, unless a call died in between: then
//! the same command again mends it. What two pinned snapshots of a generation share stays held until both are unpinned.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::document::{MarkKind, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};

/// Calls at once: a snapshot may have some ten thousand objects, and each is a call of its own.
const AT_ONCE: usize = 16;

/// Holds every file of a snapshot; gives how many. Does nothing where the store has no locks.
pub async fn set(vault: &Vault, snapshot: &Signed<SnapshotDoc>) -> Result<u64, VaultError> {
    if !vault.locks() {
        return Ok(0);
    }
    let (dir, mut files) = (snapshot.doc.dir(), files(vault, &snapshot.doc).await?);
    // Last: what [`keep`] looks at says that the others are held.
    let document = dir.snapshot(&snapshot.doc.id, ".json");
    files.remove(&document);
    Ok(all(vault, files, true).await? + all(vault, BTreeSet::from([document]), true).await?)
}

/// Holds every file of a snapshot that has a believed pin in this vault, unless its document is held already: for a pin, or a
/// snapshot, that was copied there. Gives how many. Does nothing where the store has no locks.
pub async fn keep(vault: &Vault, signers: &Signers, dir: &GenerationDir, id: &SnapshotId) -> Result<u64, VaultError> {
    if !vault.locks() {
        return Ok(0);
    }
    let Some(snapshot) = pinned(vault, signers, dir, id).await? else { return Ok(0) };
    let held = vault.protection(&dir.snapshot(id, ".json")).await?.is_some_and(|kept| kept.legal_hold);
    if held { Ok(0) } else { set(vault, &snapshot).await }
}

/// Holds those of `put`, files of one generation that were put anew, that a pinned snapshot needs; gives how many. Does
/// nothing where the store has no locks.
pub async fn again(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    put: &BTreeSet<StorePath>,
) -> Result<u64, VaultError> {
    let listed = if vault.locks() && !put.is_empty() { vault.snapshots(dir).await? } else { Vec::new() };
    let mut needed = BTreeSet::new();
    for id in &listed {
        if let Some(snapshot) = pinned(vault, signers, dir, id).await? {
            needed.extend(files(vault, &snapshot.doc).await?.into_iter().filter(|path| put.contains(path)));
        }
    }
    all(vault, needed, true).await
}

/// The document of a snapshot whose pin is believed; `None` where it has none, or is itself not believed.
async fn pinned(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    id: &SnapshotId,
) -> Result<Option<Signed<SnapshotDoc>>, VaultError> {
    if !super::is_there(vault, dir, id, MarkKind::Pin).await? {
        return Ok(None);
    }
    match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
        Ok(snapshot) => Ok(super::has(vault, signers, &snapshot, MarkKind::Pin).await?.then_some(snapshot)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lifts the hold from every file of a snapshot that no other pinned snapshot of its generation needs; gives from how many.
/// Does nothing where the store has no locks, or the snapshot is not there.
pub async fn lift(vault: &Vault, signers: &Signers, dir: &GenerationDir, id: &SnapshotId) -> Result<u64, VaultError> {
    let listed = if vault.locks() { vault.snapshots(dir).await? } else { Vec::new() };
    if !listed.contains(id) {
        return Ok(0);
    }
    let read = async |id: &SnapshotId| {
        let signed = vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await?;
        files(vault, &signed.doc).await
    };
    let mut mine = read(id).await?;
    for other in listed.iter().filter(|other| *other != id) {
        if vault.exists(&layout::mark(&dir.stack, &dir.source, other, MarkKind::Pin)).await? {
            // One that cannot be read keeps everything held: the error says which.
            let theirs = read(other).await?;
            mine.retain(|path| !theirs.contains(path));
        }
    }
    all(vault, mine, false).await
}

/// Every file that a restore of the snapshot reads.
pub(crate) async fn files(vault: &Vault, doc: &SnapshotDoc) -> Result<BTreeSet<StorePath>, VaultError> {
    let dir = doc.dir();
    let (lines, _) = vault.get_inventory(doc).await?;
    let mut files: BTreeSet<StorePath> = lines.iter().map(|line| dir.object(&line.name)).collect();
    for document in [dir.file("generation.json"), dir.snapshot(&doc.id, ".json")] {
        files.insert(layout::signature_of(&document));
        files.insert(document);
    }
    files.insert(dir.snapshot(&doc.id, ".inventory.zst"));
    Ok(files)
}

async fn all(vault: &Vault, files: BTreeSet<StorePath>, on: bool) -> Result<u64, VaultError> {
    let count = files.len() as u64;
    let calls = stream::iter(files).map(|path| async move { vault.hold(&path, on).await });
    calls.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(count)
}

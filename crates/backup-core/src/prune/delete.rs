//! The files of a generation, and the order in which they go.
//!
//! Snapshots first, so that nothing is listed whose objects are going; then objects; then the rest, `deleting.json` and its
//! signature last. What this program does not make is left, and counted.

use std::collections::BTreeSet;

use super::notice;
use crate::vault::document::PruneStage;
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::{Entry, StorePath};
use crate::vault::{Vault, VaultError};

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Files.
    pub(super) files: u64,
    /// Their stored bytes.
    pub(super) bytes: u64,
    /// Files that were left because they belong to nothing that this program makes.
    pub(super) strangers: u64,
}

/// At which place a file of a generation is deleted; `None` for what this program does not make.
fn rank(dir: &GenerationDir, path: &str) -> Option<u8> {
    let rest = &path[dir.dir().as_str().len() + 1..];
    let document = StorePath::new(path.strip_suffix(".sig").unwrap_or(path))?;
    let name = rest.rsplit('/').next().unwrap_or(rest);
    Some(match rest.split('/').next()? {
        "snapshots" if name.ends_with(".json") => 0,
        "snapshots" if name.ends_with(".json.sig") || name.ends_with(".inventory.zst") => 1,
        "objects" => match name.parse() {
            Ok(object) if dir.object(&object).as_str() == path => 2,
            _ => return None,
        },
        // Until the last object has gone, whoever was granted the key can still open what is there.
        "grants" if dir.is_grant(&document) => 3,
        "generation.json" | "generation.json.sig" => 3,
        "expired.json" | "expired.json.sig" => 4,
        "deleting.json" => 5,
        "deleting.json.sig" => LAST,
        _ => return None,
    })
}

/// The signature of `deleting.json` goes last: the document must not lie there without one, or the deletion would not be
/// taken up again.
const LAST: u8 = 6;

/// Whether this program makes such a file.
pub(super) fn is_ours(dir: &GenerationDir, entry: &Entry) -> bool {
    rank(dir, entry.path.as_str()).is_some()
}

/// The snapshots of a generation that a listing shows, by name.
pub(super) fn snapshots(dir: &GenerationDir, files: &[Entry]) -> Vec<SnapshotId> {
    let folder = format!("{}/", dir.snapshots());
    let name = |entry: &Entry| entry.path.as_str().strip_prefix(&folder)?.strip_suffix(".json")?.parse().ok();
    files.iter().filter_map(name).collect()
}

/// How many objects a listing of a generation shows, and their stored bytes.
pub(super) fn objects(dir: &GenerationDir, files: &[Entry]) -> (u64, u64) {
    let objects = files.iter().filter(|entry| rank(dir, entry.path.as_str()) == Some(2));
    objects.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes))
}

/// Whether of all the files of this program only that signature is left.
pub(super) fn is_swept(dir: &GenerationDir, files: &[Entry]) -> bool {
    let ranks: BTreeSet<u8> = files.iter().filter_map(|entry| rank(dir, entry.path.as_str())).collect();
    ranks == BTreeSet::from([LAST])
}

/// Deletes that signature and nothing else: nobody signed this, and a replicate may have begun to fill the folder since the
/// plan. `None` where it is not alone any more; then nothing is deleted.
pub(super) async fn sweep(vault: &Vault, dir: &GenerationDir) -> Result<Option<Removed>, VaultError> {
    let files = vault.list(&dir.dir()).await?;
    let lone = layout::signature_of(&dir.file(PruneStage::Deleting.file()));
    let Some(entry) = files.iter().find(|entry| entry.path == lone).filter(|_| is_swept(dir, &files)) else {
        return Ok(None);
    };
    vault.delete(&lone).await?;
    vault.sync().await?;
    Ok(Some(Removed { files: 1, bytes: entry.bytes, strangers: files.len() as u64 - 1 }))
}

/// Deletes everything that this program made in a generation. Of the snapshots that are `named` to go, and of those that the listing
/// betrays, the document goes also where the listing does not show it: one that came to light later would have lost its objects.
pub(super) async fn delete(
    vault: &Vault,
    dir: &GenerationDir,
    named: &BTreeSet<SnapshotId>,
) -> Result<Removed, VaultError> {
    let mut files = vault.list(&dir.dir()).await?;
    files.extend(hidden(vault, dir, &files, named).await?);
    let rank = |path: &str| rank(dir, path);
    let strangers = files.iter().filter(|entry| rank(entry.path.as_str()).is_none()).count() as u64;
    let mut removed = Removed { strangers, ..Removed::default() };
    files.retain(|entry| rank(entry.path.as_str()).is_some());
    files.sort_by_key(|entry| rank(entry.path.as_str()));
    let mut last = 0;
    for entry in files {
        let rank = rank(entry.path.as_str()).unwrap_or(0);
        if rank != last {
            vault.sync().await?;
            last = rank;
        }
        vault.delete(&entry.path).await?;
        removed.files += 1;
        removed.bytes += entry.bytes;
    }
    vault.sync().await?;
    Ok(removed)
}

/// Documents of a generation that a listing of it does not show, and that lie there: of a signature that it shows, of the snapshots that
/// are `named` and of those that an inventory betrays.
async fn hidden(
    vault: &Vault,
    dir: &GenerationDir,
    files: &[Entry],
    named: &BTreeSet<SnapshotId>,
) -> Result<Vec<Entry>, VaultError> {
    let shown: BTreeSet<&StorePath> = files.iter().map(|entry| &entry.path).collect();
    let signed = files.iter().filter_map(|entry| StorePath::new(entry.path.as_str().strip_suffix(".sig")?));
    let inventories = files.iter().filter_map(|entry| entry.path.as_str().strip_suffix(".inventory.zst"));
    let inventories = inventories.filter_map(|path| StorePath::new(format!("{path}.json")));
    let named = named.iter().map(|id| dir.snapshot(id, ".json"));
    let mut asked: BTreeSet<StorePath> = signed.chain(inventories).chain(named).collect();
    asked.retain(|path| !shown.contains(path) && rank(dir, path.as_str()).is_some());
    let mut hidden = Vec::new();
    for path in asked {
        match vault.entry(&path).await {
            Ok(entry) => hidden.extend(entry),
            // A link or a pipe is nothing that this program made.
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hidden)
}

/// What repairs moved aside of a generation: damaged, and leaked all the same.
pub(super) async fn aside(vault: &Vault, dir: &GenerationDir) -> Result<Vec<Entry>, VaultError> {
    let Some(root) = StorePath::new(layout::DAMAGED) else { return Ok(Vec::new()) };
    let (root_folder, below) = (format!("{root}/"), format!("{}/", dir.dir()));
    let mut files = vault.list(&root).await?;
    files.retain(|entry| {
        let rest = entry.path.as_str().strip_prefix(&root_folder).and_then(|rest| rest.split_once('/'));
        rest.is_some_and(|(_, file)| file.starts_with(&below))
    });
    Ok(files)
}

/// Deletes everything that this program made in a generation and what repairs moved aside of it, and says whether the store still has
/// older versions.
pub(super) async fn purge(
    vault: &Vault,
    dir: &GenerationDir,
    named: &BTreeSet<SnapshotId>,
) -> Result<(Removed, bool), VaultError> {
    // First, so that `deleting.json` is there until the last of them has gone.
    let aside = aside(vault, dir).await?;
    for entry in &aside {
        vault.delete(&entry.path).await?;
    }
    vault.sync().await?;
    let files = vault.list(&dir.dir()).await?;
    let mut asked: Vec<&Entry> = files.iter().filter(|entry| is_ours(dir, entry)).collect();
    // An object of the generation, if one is left: those are what an interrupted call deleted first.
    asked.sort_by_key(|entry| rank(dir, entry.path.as_str()) != Some(2));
    let mut removed = delete(vault, dir, named).await?;
    let mut older = false;
    for entry in asked.first().copied().into_iter().chain(aside.first()) {
        // A store that does not say is one that may keep them.
        older |= vault.has_older(&entry.path).await.unwrap_or(true);
    }
    removed.files += aside.len() as u64;
    removed.bytes += aside.iter().map(|entry| entry.bytes).sum::<u64>();
    Ok((removed, older))
}

/// Takes both documents of a prune away, the one that lets files go first.
pub(super) async fn withdraw(vault: &Vault, dir: &GenerationDir) -> Result<(), VaultError> {
    remove_document(vault, dir, PruneStage::Deleting).await?;
    remove_document(vault, dir, PruneStage::Expired).await
}

/// Takes one of them away.
pub(super) async fn remove_document(vault: &Vault, dir: &GenerationDir, stage: PruneStage) -> Result<(), VaultError> {
    let path = dir.file(stage.file());
    vault.delete(&path).await?;
    // A power cut must not bring the document back without its signature.
    vault.sync().await?;
    vault.delete(&layout::signature_of(&path)).await?;
    vault.sync().await
}

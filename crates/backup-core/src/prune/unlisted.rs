//! Names that a listing should show and does not.
//!
//! A store whose listings lag, or lose names, still answers for a name that it is asked for. What is announced and deleted must
//! not rest on a listing alone: a snapshot that it hides would lose its objects, and a generation of which it hides every
//! snapshot looks like one that a dead run left. So whoever plans and deletes asks by name
//!
//! - for a document whose signature or inventory is listed ([`snapshots`], [`documents`]): a commit puts three files;
//! - for snapshots that this host committed there, or that another vault shows ([`there`], by
//!   [`PruneRequest::known`](super::PruneRequest::known)).
//!
//! What is found so keeps its generation as if it were listed. What is hidden altogether in the middle of a chain leaves the chain
//! open, which freezes expiry. What is left: the first and the last snapshots of another host, and its imports, where a store hides all
//! three names for days and no other vault shows them. Nothing in the vault names those, so nobody can ask.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::notice;
use crate::id::{SourceName, StackName};
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::store::{Entry, StorePath};
use crate::vault::{Vault, VaultError};

/// Names that are asked for at once.
const AT_ONCE: usize = 16;

/// Snapshots that belong to files of these names, directly in a folder of snapshots, and whose own document is not among them.
fn half_shown<'n>(names: impl Iterator<Item = &'n str>) -> BTreeSet<SnapshotId> {
    let (mut shown, mut betrayed) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        if let Some(id) = name.strip_suffix(".json") {
            shown.extend(id.parse::<SnapshotId>().ok());
        } else if let Some(id) = name.strip_suffix(".json.sig").or_else(|| name.strip_suffix(".inventory.zst")) {
            betrayed.extend(id.parse::<SnapshotId>().ok());
        }
    }
    betrayed.retain(|id| !shown.contains(id));
    betrayed
}

/// The snapshots of a generation that a listing of it does not show, and that lie there all the same.
pub(super) async fn snapshots(
    vault: &Vault,
    dir: &GenerationDir,
    files: &[Entry],
) -> Result<BTreeSet<SnapshotId>, VaultError> {
    let folder = format!("{}/", dir.snapshots());
    let names = files.iter().filter_map(|entry| entry.path.as_str().strip_prefix(&folder));
    there(vault, dir, half_shown(names)).await
}

/// All snapshots of a generation: those that a listing of this moment shows, and those that it betrays.
pub(super) async fn every(vault: &Vault, dir: &GenerationDir) -> Result<BTreeSet<SnapshotId>, VaultError> {
    let names = vault.children(Some(&dir.snapshots())).await?;
    let shown = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok());
    let mut all: BTreeSet<SnapshotId> = shown.collect();
    all.extend(there(vault, dir, half_shown(names.iter().map(String::as_str))).await?);
    Ok(all)
}

/// All snapshots of a source, oldest first, with their generations: as [`Vault::history`], and what the listings betray.
pub(super) async fn history(
    vault: &Vault,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<(GenerationDir, SnapshotId)>, VaultError> {
    let named = stream::iter(vault.generations(stack, source).await?)
        .map(async |dir| {
            let ids = every(vault, &dir).await?;
            Ok::<_, VaultError>(ids.into_iter().map(|id| (dir.clone(), id)).collect::<Vec<_>>())
        })
        .buffered(AT_ONCE);
    let mut all: Vec<_> = named.try_concat().await?;
    all.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(all)
}

/// Those of `ids` whose document lies in a generation, by asking for each. What lies there and can be read by nobody is there.
pub(super) async fn there(
    vault: &Vault,
    dir: &GenerationDir,
    ids: impl IntoIterator<Item = SnapshotId>,
) -> Result<BTreeSet<SnapshotId>, VaultError> {
    let asked = stream::iter(ids)
        .map(async |id| match vault.exists(&dir.snapshot(&id, ".json")).await {
            Ok(there) => Ok(there.then_some(id)),
            Err(error) if notice::is_foreign(vault, &error).await => Ok(Some(id)),
            Err(error) => Err(error),
        })
        .buffered(AT_ONCE);
    asked.try_filter_map(async |id| Ok(id)).try_collect().await
}

/// What an operator is told of a snapshot that was found so.
pub(super) fn text(id: &SnapshotId) -> String {
    format!("the store's listing does not show snapshot `{id}`, which lies there: listings of this store are not whole")
}

/// Paths of documents by a listing of their folder: those that it shows, and those whose signature it shows. Whoever reads them finds
/// out which are there.
pub(crate) fn documents(files: Vec<Entry>) -> BTreeSet<StorePath> {
    let document = |entry: Entry| {
        let path = entry.path.as_str();
        let path = path.strip_suffix(".sig").unwrap_or(path);
        path.ends_with(".json").then(|| StorePath::new(path)).flatten()
    };
    files.into_iter().filter_map(document).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_or_an_inventory_alone_betrays_its_document() {
        let [one, two, three] =
            ["20261101T000000Z-1r-abcdef", "20261102T000000Z-1r-abcdef", "20261103T000000Z-1b-abcdef-imported"];
        let names = [
            format!("{one}.json"),
            format!("{one}.json.sig"),
            format!("{one}.inventory.zst"),
            format!("{two}.json.sig"),
            format!("{three}.inventory.zst"),
            "x.json.sig".to_owned(),
            format!("{one}.pin.json.sig"),
        ];
        let found = half_shown(names.iter().map(String::as_str));
        assert_eq!(found.iter().map(SnapshotId::as_str).collect::<Vec<_>>(), [two, three]);
    }
}

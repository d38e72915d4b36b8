//! Signatures whose document is not there.
//!
//! Every document is put after its signature and taken away before it, so one that is alone is what an interrupted call left, or
//! somebody removed the document: a pin that nobody took back, the newest snapshot. Which of the two nothing can prove,
//! so it is no damage; but it is all that is left to see of such a loss, and nobody else looks. `generation.json` is not
//! asked for: where anything needs it, its absence is damage.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use crate::id::{SourceName, StackName};
use crate::vault::document::PruneStage;
use crate::vault::layout::{self, GenerationDir};
use crate::vault::store::StorePath;
use crate::vault::{Vault, VaultError};

/// What a signature's name ends in.
const SIGNATURE: &str = ".sig";

/// Those of a generation, by path. None of one that is being deleted: there documents go first.
pub(super) async fn of_generation(vault: &Vault, dir: &GenerationDir) -> Result<Vec<StorePath>, VaultError> {
    let folders = [dir.dir(), dir.snapshots(), dir.grants()];
    let names = try_join_all(folders.iter().map(|folder| vault.children(Some(folder)))).await?;
    if names.first().is_some_and(|names| names.iter().any(|name| name == PruneStage::Deleting.file())) {
        return Ok(Vec::new());
    }
    let alone = folders.iter().zip(&names).flat_map(|(folder, names)| among(folder, names));
    Ok(alone.filter(|path| *path != layout::signature_of(&dir.file("generation.json"))).collect())
}

/// Those of a source's marks and receipts, by path.
pub(super) async fn of_source(
    vault: &Vault,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<StorePath>, VaultError> {
    let folders = [layout::marks(stack, source), layout::receipts(stack, source)];
    let names = try_join_all(folders.iter().map(|folder| vault.children(Some(folder)))).await?;
    Ok(folders.iter().zip(&names).flat_map(|(folder, names)| among(folder, names)).collect())
}

/// Signatures among the names of one folder that lie there without their document.
fn among(folder: &StorePath, names: &[String]) -> Vec<StorePath> {
    let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let signed = all.iter().filter_map(|name| name.strip_suffix(SIGNATURE));
    let alone = signed.filter(|document| document.ends_with(".json") && !all.contains(document));
    alone.filter_map(|document| StorePath::new(format!("{folder}/{document}{SIGNATURE}"))).collect()
}

/// In words.
pub(super) fn text(vault: &Vault, path: &StorePath) -> String {
    format!(
        "`{path}` in vault `{}` is a signature without its document: a call that was interrupted left it, or somebody removed the \
         document",
        vault.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signature_whose_document_is_gone_is_alone() {
        let names = ["a.json", "a.json.sig", "b.json.sig", "c.json", "notes.sig", "d.inventory.zst"].map(str::to_owned);
        let alone = among(&StorePath::new("s/db/marks").unwrap(), &names);
        assert_eq!(alone, [StorePath::new("s/db/marks/b.json.sig").unwrap()]);
    }
}

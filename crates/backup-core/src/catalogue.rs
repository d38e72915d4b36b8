//! Finding snapshots over several vaults, by names alone.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::id::{SourceName, StackName};
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::{Vault, VaultError};

/// A committed snapshot and the vaults that list it, in the order in which they were given.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Where it belongs.
    pub dir: GenerationDir,
    /// Its name.
    pub id: SnapshotId,
    /// Who has it.
    pub vaults: Vec<Vault>,
}

/// All snapshots of a source over `vaults`, oldest first, with the vaults that could not be asked.
///
/// A vault that fails does not hide what the others have; the caller must name it.
pub async fn snapshots(
    vaults: &[Vault],
    stack: &StackName,
    source: &SourceName,
) -> (Vec<Listed>, Vec<(String, VaultError)>) {
    let mut all: BTreeMap<(SnapshotId, GenerationDir), Vec<Vault>> = BTreeMap::new();
    let mut silent = Vec::new();
    for vault in vaults {
        match vault.history(stack, source).await {
            Ok(history) => {
                for (dir, id) in history {
                    all.entry((id, dir)).or_default().push(vault.clone());
                }
            }
            Err(error) => silent.push((vault.name().to_owned(), error)),
        }
    }
    (all.into_iter().map(|((id, dir), vaults)| Listed { dir, id, vaults }).collect(), silent)
}

/// The newest snapshot whose data is not later than `at` (whole seconds, as in the name); the newest of all without it.
///
/// An import is the answer only where there is no capture: its date is what a file said, and may be the day of a copy.
pub fn newest(listed: &[Listed], at: Option<DateTime<Utc>>) -> Option<&Listed> {
    let newest = || listed.iter().rev().filter(|listed| at.is_none_or(|at| listed.id.instant() <= at));
    newest().find(|listed| !listed.id.is_imported()).or_else(|| newest().next())
}

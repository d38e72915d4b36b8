//! Whether another vault holds everything of a generation, so that nobody has to wait for the day to pass.
//!
//! The day between announcing and deleting is there for a person to notice a mistake. With `--now` a second copy takes its
//! place, and a copy is only what was seen to be one: the same signed documents, the inventories, and every object read there
//! and hashed by this very call. What a listing shows, and what was once found good, is not enough. Whether the other vault's own rules
//! keep it or have it expired as well does not matter; one that is deleting it does not hold it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::Step;
use super::notice::{self, Notice};
use crate::id::ObjectName;
use crate::signature::Signers;
use crate::vault::document::{GenerationDoc, Holder, PruneStage, SnapshotDoc};
use crate::vault::layout::GenerationDir;
use crate::vault::{Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Objects read at once.
const READS: usize = 6;

/// Another vault that may hold what is to be deleted.
#[derive(Debug, Clone, Copy)]
pub struct Witness<'a> {
    /// The vault.
    pub vault: &'a Vault,
    /// What is known to be damaged there, also where no hash shows it.
    pub damaged: &'a BTreeSet<(GenerationDir, String)>,
}

/// The first of `others` that holds everything, or why none does, in words.
pub(super) async fn find<'a>(
    vault: &Vault,
    signers: &Signers,
    step: &Step,
    others: &[Witness<'a>],
) -> Result<(&'a Vault, Holder), String> {
    let mut reasons = Vec::new();
    for other in others {
        match prove(vault, signers, step, *other).await {
            Ok(holder) => return Ok((other.vault, holder)),
            Err(reason) => reasons.push(format!("vault `{}`: {reason}", other.vault.name())),
        }
    }
    if reasons.is_empty() {
        reasons.push("no other vault that answers is configured".to_owned());
    }
    Err(format!("no other vault was seen to hold all of it ({})", reasons.join("; ")))
}

async fn prove(vault: &Vault, signers: &Signers, step: &Step, other: Witness<'_>) -> Result<Holder, String> {
    let Witness { vault: other, damaged } = other;
    let said = |error: VaultError| plain(&chain_text(&error));
    let dir = &step.dir;
    if other.id() == vault.id() {
        return Err("it is the same vault".to_owned());
    }
    if let Some((_, item)) = damaged.iter().find(|(known, _)| known == dir) {
        return Err(format!("`{item}` is known to be damaged there"));
    }
    if is_deleting(other, signers, dir).await.map_err(said)? {
        return Err("it is deleting it, too".to_owned());
    }
    other.get_signed::<GenerationDoc>(&dir.file("generation.json"), signers).await.map_err(said)?;
    let mut needed: BTreeMap<ObjectName, u64> = BTreeMap::new();
    for (id, _) in &step.snapshots {
        let path = dir.snapshot(id, ".json");
        let here = vault.get_signed::<SnapshotDoc>(&path, signers).await.map_err(said)?;
        let there = other.get_signed::<SnapshotDoc>(&path, signers).await.map_err(said)?;
        if here.hash() != there.hash() {
            return Err(format!("`{path}` is another one there"));
        }
        let (lines, _) = other.get_inventory(&there.doc).await.map_err(said)?;
        needed.extend(lines.into_iter().map(|line| (line.name, line.bytes)));
    }
    let lines: Vec<(ObjectName, u64)> = needed.into_iter().collect();
    let bytes = stream::iter(lines.iter().map(|(name, bytes)| async move {
        let read = other.get_object(dir, name).await.map_err(said)?.len() as u64;
        if read == *bytes { Ok(read) } else { Err(format!("object `{name}` has {read} bytes there, not {bytes}")) }
    }))
    .buffer_unordered(READS)
    .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
    .await?;
    let (vault, name) = (other.id().clone(), other.name().to_owned());
    Ok(Holder { vault, name, objects: lines.len() as u64, bytes })
}

/// Whether nobody has begun to delete it there since it was read. A vault that fails holds nothing.
pub(super) async fn still_holds(other: &Vault, signers: &Signers, step: &Step) -> bool {
    let Ok(false) = is_deleting(other, signers, &step.dir).await else { return false };
    let Ok(listed) = other.snapshots(&step.dir).await else { return false };
    step.snapshots.iter().all(|(id, _)| listed.contains(id))
}

async fn is_deleting(other: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<bool, VaultError> {
    Ok(matches!(notice::read(other, signers, dir, PruneStage::Deleting).await?, Notice::Signed(_)))
}

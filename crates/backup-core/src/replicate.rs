//! Copying snapshots from one vault to another: verbatim, hashing on the way, without any key.
//!
//! Order: the newest snapshot of each source first, so that the newest is safe before the backlog is worked off. For each,
//! the commit's order holds in the destination as in a backup: generation, objects, barrier, inventory, signature,
//! `snapshot.json`. What is interrupted is taken up again by the next call, because a listing tells what is there.

mod grants;
mod marks;

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use crate::id::{ObjectName, SourceName, StackName};
use crate::monitor::{Event, Monitor};
use crate::prune::{notice, purge};
use crate::signature::Signers;
use crate::vault::document::{GenerationDoc, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::store::{PutMode, StoreError};
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

pub use grants::replicate_grants;
pub use marks::{Marks, marks, marks_of, replicate_marks};

/// Documents read at once.
const PROOFS: usize = 8;
/// Objects copied at once.
const COPIES: usize = 6;

/// What one call did for one source, also where it failed on the way.
#[derive(Debug, Default)]
pub struct Replicated {
    /// Snapshots that were committed in the destination.
    pub snapshots: Vec<SnapshotId>,
    /// Objects that were copied.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Snapshots that the destination lacks and that its policy would not keep.
    pub not_wanted: u64,
    /// What was not copied and why, in the order in which it was met. A vault that fails ends the call; what is planted
    /// or damaged does not.
    pub errors: Vec<ReplicateError>,
}

/// Why a snapshot was not copied.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// A vault failed, or the copy in the first vault is damaged.
    #[error("snapshot `{snapshot}` could not be copied from vault `{from}` to vault `{to}`")]
    Snapshot {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The vault that has it.
        from: String,
        /// The vault that lacks it.
        to: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// A vault could not be listed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A mark that is believed in the first vault could not be put into the second.
    #[error("mark `{path}` could not be put into vault `{to}`")]
    Mark {
        /// Its path.
        path: String,
        /// The vault that lacks it, or has another in its place that is not believed.
        to: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// A grant that is believed in the first vault could not be put into the second.
    #[error("grant `{path}` could not be put into vault `{to}`")]
    Grant {
        /// Its path.
        path: String,
        /// The vault that lacks it, or has another in its place that is not believed.
        to: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// A snapshot that is pinned in the second vault could not be put under a legal hold there.
    #[error("snapshot `{snapshot}` is pinned in vault `{to}`, and its files could not be held there")]
    Hold {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The vault.
        to: String,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// The first vault's inventory names an object that the first vault does not have.
    #[error("snapshot `{snapshot}` needs object `{object}`, which vault `{from}` does not hold")]
    Incomplete {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The missing object.
        object: ObjectName,
        /// The vault.
        from: String,
    },
    /// The generation was purged in one of the two vaults.
    #[error("snapshot `{snapshot}` was not copied: its generation was purged in vault `{vault}` ({reason})")]
    Purged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The vault that knows of the purge.
        vault: String,
        /// Why, in the operator's words.
        reason: String,
    },
    /// The destination is pruning that generation.
    #[error("snapshot `{snapshot}` was not copied: vault `{to}` is removing its generation")]
    Pruned {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The destination.
        to: String,
    },
}

impl ReplicateError {
    /// Whether another snapshot may still be copied: no vault failed, only this snapshot is not as it should be.
    fn is_of_one_snapshot(&self) -> bool {
        match self {
            Self::Snapshot { source: VaultError::Store { source, .. }, .. } => {
                matches!(
                    source,
                    StoreError::NotFound { .. }
                        | StoreError::TooLarge { .. }
                        | StoreError::Exists { .. }
                        | StoreError::Unusable { .. }
                )
            }
            Self::Vault(_) => false,
            Self::Mark { .. }
            | Self::Grant { .. }
            | Self::Hold { .. }
            | Self::Snapshot { .. }
            | Self::Incomplete { .. }
            | Self::Pruned { .. }
            | Self::Purged { .. } => true,
        }
    }
}

/// From where, to where, believing whom.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// Has the snapshots.
    pub from: &'a Vault,
    /// Gets them.
    pub to: &'a Vault,
    /// Whose snapshots are copied: planted ones are not spread.
    pub signers: &'a Signers,
    /// Is told.
    pub monitor: &'a Arc<dyn Monitor>,
}

/// What lies in a vault under a snapshot's name: a name alone is no copy.
#[derive(Debug)]
pub enum Proof {
    /// A pinned signer's document.
    Signed(Box<Signed<SnapshotDoc>>),
    /// It is not believed, so the vault lacks the snapshot.
    Foreign(VaultError),
    /// The store failed: nobody knows.
    Unknown(VaultError),
}

/// Reads the document of a listed snapshot.
async fn prove(vault: &Vault, signers: &Signers, dir: &GenerationDir, id: &SnapshotId) -> Proof {
    match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
        Ok(signed) => Proof::Signed(Box::new(signed)),
        Err(error) if notice::is_foreign(vault, &error).await => Proof::Foreign(error),
        Err(error) => Proof::Unknown(error),
    }
}

/// Reads the documents of listed snapshots, some at once; in the order in which they were given.
pub async fn proofs(vault: &Vault, signers: &Signers, listed: &[(GenerationDir, SnapshotId)]) -> Vec<Proof> {
    stream::iter(listed).map(|(dir, id)| prove(vault, signers, dir, id)).buffered(PROOFS).collect().await
}

/// Copies what `to` lacks of one source, newest first. `wanted` tells what the destination's policy would keep. With
/// `newest_only` the backlog is left for a second call: it ends with the first that is wanted and believed there, copied
/// now or before; a name that somebody planted is not the newest of anything. What was done is given in any case, with
/// what failed.
pub async fn replicate(
    route: Route<'_>,
    stack: &StackName,
    source: &SourceName,
    wanted: &(dyn Fn(&SnapshotId) -> bool + Sync),
    newest_only: bool,
) -> Replicated {
    let mut done = Replicated::default();
    let listed = async { Ok((route.to.history(stack, source).await?, route.from.history(stack, source).await?)) };
    let (have, mut lacking) = match listed.await {
        Ok(listed) => listed,
        Err(error) => {
            done.errors.push(ReplicateError::Vault(error));
            return done;
        }
    };
    lacking.reverse();
    // Imports are not in a hurry: they come from files that are there.
    lacking.sort_by_key(|(_, id)| id.is_imported());
    for (dir, id) in lacking {
        let held = have.contains(&(dir.clone(), id.clone()));
        if !wanted(&id) {
            // What is not believed is nothing that a policy could expire.
            if !held && !newest_only && matches!(prove(route.from, route.signers, &dir, &id).await, Proof::Signed(_)) {
                done.not_wanted += 1;
            }
            continue;
        }
        if held {
            match prove(route.to, route.signers, &dir, &id).await {
                Proof::Signed(_) if newest_only => break,
                Proof::Signed(_) => continue,
                Proof::Foreign(error) => {
                    let text =
                        format!("foreign or unsigned snapshot, replaced by a copy: {}", plain(&chain_text(&error)));
                    route.monitor.event(Event::Warning { text });
                }
                Proof::Unknown(error) => {
                    done.errors.push(ReplicateError::Vault(error));
                    break;
                }
            }
        }
        match copy(route, &dir, &id).await {
            Ok((objects, bytes)) => {
                done.objects += objects;
                done.bytes += bytes;
                done.snapshots.push(id);
                if newest_only {
                    break;
                }
            }
            Err(error) => {
                // One that is planted or damaged must not keep the others from being copied.
                let go_on = error.is_of_one_snapshot();
                done.errors.push(error);
                if !go_on {
                    break;
                }
            }
        }
    }
    done
}

/// Copies one snapshot, whatever lies in its place: for a caller that has listed both vaults already and knows that the
/// destination lacks it or has something there that is not believed.
pub async fn replicate_one(route: Route<'_>, dir: &GenerationDir, id: &SnapshotId) -> Replicated {
    let mut done = Replicated::default();
    match copy(route, dir, id).await {
        Ok((objects, bytes)) => {
            (done.objects, done.bytes) = (objects, bytes);
            done.snapshots.push(id.clone());
        }
        Err(error) => done.errors.push(error),
    }
    done
}

async fn copy(route: Route<'_>, dir: &GenerationDir, id: &SnapshotId) -> Result<(u64, u64), ReplicateError> {
    let Route { from, to, signers, monitor } = route;
    let failed = |source| ReplicateError::Snapshot {
        snapshot: id.clone(),
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        source,
    };
    let signed = from.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await.map_err(failed)?;
    let (lines, stored) = from.get_inventory(&signed.doc).await.map_err(failed)?;
    for text in refuse_if_pruned(route, dir, id).await? {
        monitor.event(Event::Warning { text });
    }
    refuse_if_purged(route, dir, id).await?;
    let generation = dir.file("generation.json");
    let there = match to.exists(&generation).await {
        Ok(true) => to.get_signed::<GenerationDoc>(&generation, signers).await.map(|_| true),
        other => other,
    };
    let put = match there {
        Ok(believed) => !believed,
        Err(error) if notice::is_foreign(to, &error).await => {
            let text = format!("foreign or unsigned generation, replaced by a copy: {}", plain(&chain_text(&error)));
            monitor.event(Event::Warning { text });
            true
        }
        Err(error) => return Err(failed(error)),
    };
    if put {
        let signed = from.get_signed::<GenerationDoc>(&generation, signers).await.map_err(failed)?;
        to.put_verbatim(&signed).await.map_err(failed)?;
    }
    let there: HashMap<ObjectName, u64> = sizes(to.list_objects(dir).await.map_err(failed)?);
    let source_has: HashMap<ObjectName, u64> = sizes(from.list_objects(dir).await.map_err(failed)?);
    let missing: Vec<InventoryLine> =
        lines.iter().copied().filter(|line| there.get(&line.name) != Some(&line.bytes)).collect();
    if let Some(line) = missing.iter().find(|line| source_has.get(&line.name) != Some(&line.bytes)) {
        return Err(ReplicateError::Incomplete {
            snapshot: id.clone(),
            object: line.name,
            from: from.name().to_owned(),
        });
    }
    let wrong = |line: &InventoryLine| there.contains_key(&line.name);
    let copied = stream::iter(missing.iter().map(|line| async move {
        // One that is there with another size is damaged: what replaces it was checked against its name.
        let mode = if wrong(line) { PutMode::Replace } else { PutMode::CreateOnly };
        let bytes = to.copy_object(dir, &line.name, from, mode).await?;
        monitor.event(Event::Stored { bytes });
        Ok::<u64, VaultError>(bytes)
    }))
    .buffer_unordered(COPIES)
    .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
    .await
    .map_err(failed)?;
    to.put_inventory_verbatim(&signed.doc, stored).await.map_err(failed)?;
    to.put_verbatim(&signed).await.map_err(failed)?;
    let whole = is_whole(to, &signed.doc, &lines).await.map_err(failed)?;
    let pruned = refuse_if_pruned(route, dir, id).await.err();
    let lost =
        pruned.or_else(|| (!whole).then(|| ReplicateError::Pruned { snapshot: id.clone(), to: to.name().to_owned() }));
    if let Some(lost) = lost {
        for suffix in [".json", ".json.sig", ".inventory.zst"] {
            to.delete(&dir.snapshot(id, suffix)).await.map_err(failed)?;
            // For good: a power cut must not bring the document back without what belongs to it.
            to.sync().await.map_err(failed)?;
        }
        return Err(lost);
    }
    Ok((missing.len() as u64, copied))
}

/// Whether everything that a just committed snapshot needs is still there: a prune that began and ended while its
/// objects were copied leaves no document behind, only holes.
async fn is_whole(to: &Vault, doc: &SnapshotDoc, lines: &[InventoryLine]) -> Result<bool, VaultError> {
    let dir = doc.dir();
    let there = sizes(to.list_objects(&dir).await?);
    let whole = lines.iter().all(|line| there.get(&line.name) == Some(&line.bytes));
    Ok(whole && to.exists(&dir.file("generation.json")).await?)
}

/// Gives what lies at the destination where an announcement belongs and is not believed.
async fn refuse_if_pruned(
    route: Route<'_>,
    dir: &GenerationDir,
    id: &SnapshotId,
) -> Result<Vec<String>, ReplicateError> {
    let standing = notice::standing(route.to, route.signers, dir).await?;
    if let Some(reason) = &standing.purged {
        return Err(purged(id, route.to, reason));
    }
    if standing.pruned {
        return Err(ReplicateError::Pruned { snapshot: id.clone(), to: route.to.name().to_owned() });
    }
    Ok(standing.foreign)
}

/// What was purged in one of the two vaults is leaked data: it must not come back there from here, nor go on from there.
async fn refuse_if_purged(route: Route<'_>, dir: &GenerationDir, id: &SnapshotId) -> Result<(), ReplicateError> {
    let there = purge::done(route.to, route.signers, dir).await?.map(|reason| (route.to, reason));
    let found = match there {
        None => purge::reason(route.from, route.signers, dir).await?.map(|reason| (route.from, reason)),
        there => there,
    };
    let Some((vault, reason)) = found else { return Ok(()) };
    Err(purged(id, vault, &reason))
}

fn purged(id: &SnapshotId, vault: &Vault, reason: &str) -> ReplicateError {
    ReplicateError::Purged { snapshot: id.clone(), vault: vault.name().to_owned(), reason: plain(reason) }
}

fn sizes(lines: Vec<InventoryLine>) -> HashMap<ObjectName, u64> {
    lines.into_iter().map(|line| (line.name, line.bytes)).collect()
}

//! A prune deletes while we look: what it took is no damage, and nothing else is excused by it.
//!
//! A deletion puts its signed receipt first, then removes every snapshot's document, then what they need
//! (`prune::delete`). So whoever misses something for that reason finds, looking once more, the snapshot's name gone and
//! the receipt there that names it. Only then the generation is looked at again, from its listing on, and the first look is
//! forgotten: what is then there and wrong is damage, as is what went without a receipt. Where no name is left, no object
//! is read: nothing needs them, and they are going.

use std::collections::BTreeSet;

use super::{Depth, Found, Pace, generation};
use crate::hidden::{self, Hidden};
use crate::prune::history;
use crate::signature::Signers;
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::{Vault, VaultError};

/// Looks at a generation that goes while it is looked at. Between two of them its files went once more; each kind goes once.
const LOOKS: usize = 4;

/// What there is to look at once more.
enum Left {
    /// Other snapshots are there.
    Some,
    /// No snapshot.
    None,
}

/// Looks at one generation, or at `which` of it, once more where a deletion was faster.
pub(super) async fn look(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    (only, hidden): (Option<&SnapshotId>, &[Hidden]),
    (mut depth, pace): (Depth<'_>, &Pace<'_>),
) -> Result<Found, VaultError> {
    let mut found = generation(vault, signers, dir, (only, hidden), (depth, pace)).await?;
    let (mut went, mut hidden) = (false, hidden.to_vec());
    hidden.retain(|one| one.dir == *dir);
    for _ in 1..LOOKS {
        if is_good(&found) {
            break;
        }
        // What no listing showed in the first place went by nobody's deletion since.
        let seen = found.verified.snapshots.iter().map(|verdict| &verdict.id);
        let seen = seen.filter(|id| !hidden.iter().any(|one| one.id == **id)).cloned().collect();
        match gone(vault, signers, dir, seen).await? {
            None => break,
            Some(Left::Some) => {}
            Some(Left::None) => depth = Depth { read: None, identities: None },
        }
        if !hidden.is_empty() {
            hidden = hidden::of_generation(vault, signers, dir).await?;
            hidden.retain(|one| only.is_none_or(|only| *only == one.id));
        }
        found = generation(vault, signers, dir, (only, &hidden), (depth, pace)).await?;
        went = true;
    }
    if went && is_good(&found) {
        found.verified.deleted.push(dir.clone());
    }
    Ok(found)
}

fn is_good(Found { verified, .. }: &Found) -> bool {
    !verified.is_damaged() && !verified.is_foreign() && verified.places.is_empty()
}

/// Whether a signed receipt says that what is not listed any more of what was `seen` was deleted.
async fn gone(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    seen: BTreeSet<SnapshotId>,
) -> Result<Option<Left>, VaultError> {
    let there: BTreeSet<SnapshotId> = vault.snapshots(dir).await?.into_iter().collect();
    let gone: Vec<&SnapshotId> = seen.difference(&there).collect();
    if gone.is_empty() && !there.is_empty() {
        return Ok(None);
    }
    let receipts = history::receipts_of(vault, signers, dir).await?;
    let named = |id: &SnapshotId| receipts.iter().any(|receipt| receipt.snapshots.iter().any(|(named, _)| named == id));
    if receipts.is_empty() || !gone.into_iter().all(named) {
        return Ok(None);
    }
    Ok(Some(if there.is_empty() { Left::None } else { Left::Some }))
}

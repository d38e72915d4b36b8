//! Does the chain of a source go on twice? Asked of its newest snapshots only, over all vaults that answer: two machines with
//! one key, each with a vault of its own, meet in the vault that both replicate to. `verify` looks at all of them.

use std::collections::BTreeSet;

use backup_core::catalogue::Listed;
use backup_core::id::{Hash256, SourceName};
use backup_core::mark;
use backup_core::replicate::{Proof, proofs};
use backup_core::signature::Signers;
use backup_core::vault::document::MarkKind;
use backup_core::verify::{Fork, forks_of};

use crate::find::Found;

/// So many of the newest are read: two machines at one snapshot a day each are seen for a week.
const READ: usize = 16;

/// The forks among the newest snapshots. What cannot be read or is not believed is for others to tell.
pub(super) async fn newest(found: &Found, source: &SourceName, signers: &Signers) -> Vec<Fork> {
    let all = found.of(source);
    let captures = all.into_iter().rev().filter(|one| !one.id.is_imported()).take(READ);
    let mut wanted: Vec<&Listed> = captures.collect();
    let mut documents = Vec::new();
    let mut accepted: BTreeSet<Hash256> = BTreeSet::new();
    for vault in &found.vaults {
        let here = |one: &&Listed| one.vaults.iter().any(|other| other.name() == vault.name());
        let (held, rest): (Vec<&Listed>, Vec<&Listed>) = wanted.iter().copied().partition(here);
        let named: Vec<_> = held.iter().map(|one| (one.dir.clone(), one.id.clone())).collect();
        wanted = rest;
        for (one, proof) in held.into_iter().zip(proofs(vault, signers, &named).await) {
            match proof {
                Proof::Signed(signed) => documents.push((one.dir.clone(), *signed)),
                Proof::Foreign(_) | Proof::Unknown(_) => wanted.push(one),
            }
        }
    }
    let open = forks_of(&documents, &accepted);
    // Marks are read only where one could settle something.
    let branches: BTreeSet<_> = open.iter().flat_map(|fork| &fork.snapshots).collect();
    for (_, signed) in documents.iter().filter(|(_, signed)| branches.contains(&signed.doc.id)) {
        for vault in &found.vaults {
            if matches!(mark::has(vault, signers, signed, MarkKind::Accept).await, Ok(true)) {
                accepted.insert(signed.hash());
                break;
            }
        }
    }
    if accepted.is_empty() { open } else { forks_of(&documents, &accepted) }
}

//! Does the chain of a source go on twice, or lack a link? Asked of its newest snapshots only, over all vaults that answer: two machines with
//! one key, each with a vault of its own, meet in the vault that both replicate to. `verify` looks at all of them.

use std::collections::BTreeSet;

use backup_core::catalogue::Listed;
use backup_core::id::{SourceName, StackName};
use backup_core::mark;
use backup_core::prune::history::{self, Fact};
use backup_core::replicate::{Proof, proofs};
use backup_core::signature::Signers;
use backup_core::vault::document::MarkKind;
use backup_core::verify::{Closed, Fork, Open, forks_of, holes_of};
use chrono::{DateTime, Utc};

use crate::find::Found;

/// So many of the newest are read: two machines at one snapshot a day each are seen for a week.
const READ: usize = 16;

/// What is wrong with the chain of the newest snapshots.
#[derive(Default)]
pub(super) struct Chain {
    /// Where it goes on twice.
    pub(super) forks: Vec<Fork>,
    /// Where it does not close: something between was removed, or a vault was put back to an earlier time.
    pub(super) holes: Vec<Open>,
    /// The instants of those that are believed.
    pub(super) instants: Vec<DateTime<Utc>>,
}

/// Looks. What cannot be read or is not believed is for others to tell.
pub(super) async fn newest(found: &Found, stack: &StackName, source: &SourceName, signers: &Signers) -> Chain {
    let all = found.of(source);
    let captures = all.into_iter().rev().filter(|one| !one.id.is_imported()).take(READ);
    let mut wanted: Vec<&Listed> = captures.collect();
    let mut documents = Vec::new();
    let mut facts = BTreeSet::new();
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
    let instants = documents.iter().map(|(_, signed)| signed.doc.instant).collect();
    let open = forks_of(&documents, &BTreeSet::new());
    let mut holes = Vec::new();
    // One that was not read, or lies in a vault that does not answer, may be what seems to be missing.
    if found.silent.is_empty() && wanted.is_empty() && !holes_of(&documents, &[]).is_empty() {
        let mut receipts = Vec::new();
        for vault in &found.vaults {
            match history::receipts(vault, signers, stack, source).await {
                Ok(some) => receipts.extend(some),
                Err(_) => return Chain { forks: open, holes, instants },
            }
        }
        holes = holes_of(&documents, &receipts);
    }
    // Marks are read only where one could settle something.
    let branches: BTreeSet<_> =
        open.iter().flat_map(|fork| &fork.snapshots).chain(holes.iter().map(|hole| &hole.id)).collect();
    for (_, signed) in documents.iter().filter(|(_, signed)| branches.contains(&signed.doc.id)) {
        for vault in &found.vaults {
            if let Ok(Some(mark)) = mark::get(vault, signers, signed, MarkKind::Accept).await {
                facts.extend(Fact::of(&mark));
            }
        }
    }
    // In each vault that has what follows: what was known to be missing from one may have been in another one then.
    holes.retain(|hole| {
        let listed = found.of(source);
        let mut having = listed.iter().filter(|one| one.id == hole.id).flat_map(|one| &one.vaults);
        !having.all(|vault| Closed::by(&facts, Some(vault.id())).holds(hole))
    });
    let accepted = Fact::accepted(&facts);
    let forks = if accepted.is_empty() { open } else { forks_of(&documents, &accepted) };
    Chain { forks, holes, instants }
}

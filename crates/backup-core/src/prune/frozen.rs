//! Suspect snapshots that nobody has accepted: nothing from before them expires, so somebody has to be told, and what it costs.
//!
//! Cheap where all is well: a suspect snapshot says so in its name, and nothing is read where no name does. A name alone freezes
//! nothing; only a document that a pinned signer signed counts, and only a signed mark about its very bytes accepts it, as in the
//! plan of a prune.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use super::notice;
use crate::catalogue::Listed;
use crate::id::Hash256;
use crate::replicate;
use crate::signature::Signers;
use crate::vault::document::{MarkKind, SnapshotDoc};
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::{Vault, VaultError};

/// So many of the newest snapshots say how fast a vault fills.
const SAMPLE: usize = 32;

/// The suspect captures of one source that nobody has accepted.
#[derive(Debug, Default)]
pub struct Unaccepted {
    /// Their documents, oldest first.
    pub found: Vec<SnapshotDoc>,
    /// Vaults that failed on the way, by name: there may be an acceptance in them, or another suspect one.
    pub failed: Vec<(String, VaultError)>,
}

/// Finds them among `listed`, all of one source; an acceptance in any of `vaults` counts.
pub async fn unaccepted(vaults: &[Vault], signers: &Signers, listed: &[&Listed]) -> Unaccepted {
    let mut answer = Unaccepted::default();
    let suspects: Vec<&Listed> =
        listed.iter().copied().filter(|one| one.id.is_suspect() && !one.id.is_imported()).collect();
    let Some(dir) = suspects.first().map(|one| &one.dir) else { return answer };
    let names: BTreeSet<SnapshotId> = suspects.iter().map(|one| one.id.clone()).collect();
    let mut accepted: BTreeSet<Hash256> = BTreeSet::new();
    for vault in vaults {
        match replicate::marks_of(vault, signers, &dir.stack, &dir.source, &names).await {
            Ok(marks) => {
                let marks = marks.signed.into_values().filter(|mark| mark.doc.mark == MarkKind::Accept);
                accepted.extend(marks.map(|mark| mark.doc.document));
            }
            Err(error) => answer.failed.push((vault.name().to_owned(), error)),
        }
    }
    for one in suspects {
        for vault in &one.vaults {
            match vault.get_signed::<SnapshotDoc>(&one.dir.snapshot(&one.id, ".json"), signers).await {
                Ok(signed) => {
                    if !accepted.contains(&signed.hash()) {
                        answer.found.push(signed.doc);
                    }
                    break;
                }
                Err(error) if notice::is_refused(&error) => {}
                Err(error) => answer.failed.push((vault.name().to_owned(), error)),
            }
        }
    }
    answer
}

/// Bytes a day that a source adds to a vault while nothing of it expires: a full copy for each generation, and what its newest
/// snapshots there added besides. `None` where there is none that is believed. `listed` are all of the source, oldest first.
pub async fn bytes_per_day(vault: &Vault, signers: &Signers, listed: &[&Listed]) -> Result<Option<u64>, VaultError> {
    let here = |one: &&&Listed| !one.id.is_imported() && one.vaults.iter().any(|v| v.name() == vault.name());
    let mut opens: BTreeMap<&GenerationDir, &SnapshotId> = BTreeMap::new();
    for one in listed.iter().filter(here) {
        opens.entry(&one.dir).or_insert(&one.id);
    }
    let mut docs: Vec<SnapshotDoc> = Vec::new();
    for one in listed.iter().rev().filter(here).take(SAMPLE) {
        match vault.get_signed::<SnapshotDoc>(&one.dir.snapshot(&one.id, ".json"), signers).await {
            Ok(signed) => docs.push(signed.doc),
            Err(error) if notice::is_refused(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let Some(newest) = docs.first() else { return Ok(None) };
    let added = docs.iter().map(|doc| {
        let first = opens.get(&doc.dir()) == Some(&&doc.id);
        (doc.instant, if first { 0 } else { doc.added_bytes })
    });
    Ok(Some(rate(newest.stored_bytes, newest.generation.period().days(), added)))
}

/// Bytes a day of a full copy each `days`, and of what was added at these instants.
fn rate(full_bytes: u64, days: u32, added: impl Iterator<Item = (DateTime<Utc>, u64)> + Clone) -> u64 {
    let instants = added.clone().map(|(instant, _)| instant);
    let span = instants.clone().max().zip(instants.min()).map_or(TimeDelta::zero(), |(last, first)| last - first);
    // Of two that somebody made within a minute no day can be told.
    let seconds = span.num_seconds().max(86_400).unsigned_abs();
    let sum: u128 = added.map(|(_, bytes)| u128::from(bytes)).sum();
    let bytes = sum * 86_400 / u128::from(seconds) + u128::from(full_bytes) / u128::from(days.max(1));
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_full_copy_a_generation_and_what_is_added_a_day() {
        let at = |hours: i64, bytes| (DateTime::UNIX_EPOCH + TimeDelta::hours(hours), bytes);
        assert_eq!(rate(700, 7, std::iter::empty()), 100);
        assert_eq!(rate(700, 7, [at(0, 0), at(1, 30)].into_iter()), 130, "an hour is no measure of a day");
        assert_eq!(rate(700, 7, [at(48, 30), at(24, 30), at(0, 0)].into_iter()), 130);
        assert_eq!(rate(u64::MAX, 1, [at(0, u64::MAX)].into_iter()), u64::MAX);
        assert_eq!(rate(0, 7, [at(0, 0)].into_iter()), 0);
    }
}

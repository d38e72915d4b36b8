//! Until when a file is locked: the one place that asks.
//!
//! Object Lock keeps even the owner of the credentials from deleting. What was promised and is not seen counts as not kept: an
//! auditor reports what is proved. A store is asked once for each file, so not all objects are asked for: those that the
//! audit reads, else one in [`SAMPLE`], other ones in each generation; documents all. What this program did not make was
//! promised no lock, and a file that the store refuses alone hides no other one.
//!
//! What lies beside the generations (`vault.json`, the recovery document) must be locked as long as the last of them: whoever
//! opens one renews those locks (`Vault::renew_locks`), and here it is seen whether somebody did.
//!
//! A pin is a promise without an end: what a pinned snapshot needs must be under a legal hold, also when its lock has ended.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;

use crate::mark::hold;
use crate::prune::history::{Fact, Seen};
use crate::vault::document::{MarkKind, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::protection::{LockMode, LockRule, Retention};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Vault, VaultError};
use crate::verify::{Fraction, damage_or};

use super::strangers::{Made, belongs};
use super::{Finding, Kind, count, few};

/// One object in so many is asked for.
const SAMPLE: u32 = 64;

/// Questions that are under way at once.
const AT_ONCE: usize = 16;

/// What was seen of the locks of one source.
#[derive(Debug, Default)]
pub struct Locks {
    /// Files that were asked for.
    pub asked: usize,
    /// Those that are not locked as promised, and why.
    pub unlocked: Vec<(StorePath, String)>,
    /// Snapshots whose pin is believed here, with their files that were asked for and are under no legal hold.
    pub unheld: BTreeMap<SnapshotId, Vec<StorePath>>,
}

/// Asks for the locks of everything that must still be locked at `now`, by the generations of one source, and of what lies beside
/// them.
pub(super) async fn read(
    vault: &Vault,
    rule: &LockRule,
    now: DateTime<Utc>,
    seen: &Seen,
    read: Option<Fraction>,
) -> Result<Locks, VaultError> {
    let mut locks = Locks::default();
    let sample = read.unwrap_or(Fraction { part: 1, of: SAMPLE });
    for dir in &seen.generations {
        let promised = rule.promised(&dir.id);
        if promised <= now {
            continue;
        }
        let files = vault.list(&dir.dir()).await?.into_iter().map(|entry| entry.path);
        let files: Vec<StorePath> = files.filter(|path| is_asked(dir, path, sample)).collect();
        locks.asked += files.len();
        let mut answers = futures::stream::iter(files)
            .map(async |path| {
                let seen = vault.protection(&path).await;
                (path, seen)
            })
            .buffered(AT_ONCE);
        while let Some((path, seen)) = answers.next().await {
            let why = match seen {
                Ok(seen) => short(seen.as_ref(), rule.mode, promised),
                Err(error) => Some(format!("not proved: {}", damage_or(vault, error).await?)),
            };
            locks.unlocked.extend(why.map(|why| (path, why)));
        }
    }
    let last = seen.generations.iter().map(|dir| rule.promised(&dir.id)).max().filter(|promised| *promised > now);
    for path in last.iter().flat_map(|_| layout::beside_generations()) {
        let why = match vault.protection(&path).await {
            // Missing is no lock's business.
            Err(VaultError::Store { source: StoreError::NotFound { .. }, .. }) => continue,
            Ok(seen) => last.and_then(|promised| short(seen.as_ref(), rule.mode, promised)),
            Err(error) => Some(format!("not proved: {}", damage_or(vault, error).await?)),
        };
        locks.asked += 1;
        locks.unlocked.extend(why.map(|why| (path, format!("{why}; `backup init` renews it"))));
    }
    for (dir, signed) in &seen.documents {
        if Fact::marks(&seen.marks, signed.hash(), MarkKind::Pin) {
            let unheld = unheld(vault, dir, &signed.doc, sample).await?;
            if !unheld.is_empty() {
                locks.unheld.insert(signed.doc.id.clone(), unheld);
            }
        }
    }
    Ok(locks)
}

/// Whether a file of a generation is one that this program made, and among those that are asked for.
fn is_asked(dir: &GenerationDir, path: &StorePath, sample: Fraction) -> bool {
    match belongs(&dir.stack, &dir.source, path) {
        Some(Made::Object(_, name)) => sample.holds(&name),
        Some(Made::Document) => true,
        None => false,
    }
}

/// Files of a pinned snapshot that are not seen to be held. Its documents are among those that are asked for, so that a hold that was
/// never set is found whatever the sample is. What is missing is damage, which is told as such.
async fn unheld(
    vault: &Vault,
    dir: &GenerationDir,
    doc: &SnapshotDoc,
    sample: Fraction,
) -> Result<Vec<StorePath>, VaultError> {
    let files = match hold::files(vault, doc).await {
        Ok(files) => files.into_iter().filter(|path| is_asked(dir, path, sample)).collect(),
        Err(error) => {
            damage_or(vault, error).await?;
            vec![dir.snapshot(&doc.id, ".json")]
        }
    };
    let mut answers = futures::stream::iter(files)
        .map(async |path| {
            let seen = vault.protection(&path).await;
            (path, seen)
        })
        .buffered(AT_ONCE);
    let mut unheld = Vec::new();
    while let Some((path, seen)) = answers.next().await {
        let held = match seen {
            Ok(seen) => seen.is_some_and(|seen| seen.legal_hold),
            Err(VaultError::Store { source: StoreError::NotFound { .. }, .. }) => true,
            Err(error) => {
                damage_or(vault, error).await?;
                false
            }
        };
        unheld.extend((!held).then_some(path));
    }
    Ok(unheld)
}

/// Why what was seen is less than what was promised.
fn short(seen: Option<&Retention>, mode: LockMode, promised: DateTime<Utc>) -> Option<String> {
    let Some(Retention { mode: Some(found), until: Some(until), .. }) = seen else {
        return Some("not locked".to_owned());
    };
    if *until < promised {
        return Some(format!("locked until {} only, not {}", until.format("%F"), promised.format("%F")));
    }
    (mode == LockMode::Compliance && *found == LockMode::Governance)
        .then(|| "locked in governance mode, which some users may lift".to_owned())
}

/// Judges what was seen in a vault whose policy promises a lock; what nobody asked for is not proved.
pub(super) fn judge(locks: Option<&Locks>) -> Option<Finding> {
    let Some(locks) = locks else {
        let text = "an Object Lock is promised, and nobody asked for it".to_owned();
        return Some(Finding { kind: Kind::Unlocked, text, about: Vec::new() });
    };
    let (_, first) = locks.unlocked.first()?;
    let about: Vec<String> = locks.unlocked.iter().map(|(path, _)| path.to_string()).collect();
    let text = format!(
        "{} of {} that were asked for are not locked as promised; the first is {first}: {}",
        count(about.len(), "file"),
        locks.asked,
        few(&about)
    );
    Some(Finding { kind: Kind::Unlocked, text, about })
}

/// Judges the holds of pinned snapshots: whoever pinned one was told that nobody can delete it.
pub(super) fn holds(locks: Option<&Locks>) -> Vec<Finding> {
    let each = locks.into_iter().flat_map(|locks| &locks.unheld);
    each.map(|(id, files)| {
        let about: Vec<String> = files.iter().map(ToString::to_string).collect();
        let text = format!(
            "`{id}` is pinned, with {} under no legal hold: {}; `backup pin {}` sets it again",
            count(about.len(), "file"),
            few(&about),
            id.short()
        );
        Finding { kind: Kind::Unheld, text, about }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_lock_is_judged_by_its_end_and_its_mode() {
        let promised = at("2026-12-16T00:00:00Z");
        let lock = |mode, until: &str| Retention { mode, until: Some(at(until)), legal_hold: false };
        let (strong, weak) = (Some(LockMode::Compliance), Some(LockMode::Governance));
        let judged = |seen: Option<Retention>, mode| short(seen.as_ref(), mode, promised);
        assert_eq!(judged(Some(lock(strong, "2026-12-16T00:00:00Z")), LockMode::Compliance), None);
        assert_eq!(judged(Some(lock(strong, "2026-12-16T00:00:00Z")), LockMode::Governance), None);
        assert!(judged(Some(lock(strong, "2026-12-15T23:59:59Z")), LockMode::Compliance).is_some());
        assert!(judged(Some(lock(weak, "2027-01-01T00:00:00Z")), LockMode::Compliance).is_some());
        assert!(judged(None, LockMode::Governance).is_some());
        let held = Retention { mode: None, until: None, legal_hold: true };
        assert!(judged(Some(held), LockMode::Governance).is_some(), "whoever set the hold can lift it");
        assert!(judge(None).is_some(), "not asked is not proved");
        assert!(judge(Some(&Locks { asked: 5, ..Locks::default() })).is_none());
    }
}

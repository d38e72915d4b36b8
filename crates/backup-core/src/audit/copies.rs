//! One vault against the others: what it promises and lacks, whether it is behind, whether histories part.

use std::collections::{BTreeMap, BTreeSet};

use retention::{History, Reason, Stamp};

use crate::id::Hash256;
use crate::prune::history::Fact;
use crate::prune::{elsewhere, history};
use crate::vault::layout::SnapshotId;
use crate::verify::{self, Accounted, Closed, Fork};

use super::judge::{Captures, captures};
use super::{Evidence, Expected, Finding, Kind, Promise, count, few};

/// The snapshots of all vaults, each once.
fn union(promises: &[Promise]) -> History {
    history::union(promises.iter().filter_map(|promise| promise.evidence.as_ref()).map(|one| &one.seen.history))
}

/// What the policies of the other vaults promise and they do not hold whole: it stays here too.
pub(super) fn promised_elsewhere(expected: &Expected<'_>, promises: &[Promise], promise: &Promise) -> BTreeSet<String> {
    let others = promises.iter().filter(|other| other.vault != promise.vault);
    let others = others.map(|other| (other.policy, other.evidence.as_ref().map(|one| &one.seen.history)));
    elsewhere::promised(others, &union(promises), expected.now, expected.timezone)
}

/// Snapshots that a vault promises and does not list: such as another vault holds, and such as were removed too early.
pub(super) fn absent(
    expected: &Expected<'_>,
    promises: &[Promise],
    promise: &Promise,
    evidence: &Evidence,
    removed: &BTreeMap<SnapshotId, String>,
) -> Vec<Finding> {
    let mut union = union(promises);
    let whole: BTreeSet<String> =
        union.stamps.iter().filter(|stamp| stamp.complete).map(|stamp| stamp.id.clone()).collect();
    let known: BTreeSet<String> = union.stamps.iter().map(|stamp| stamp.id.clone()).collect();
    let gone = removed.keys().filter(|id| !known.contains(id.as_str()));
    union.stamps.extend(gone.map(|id| Stamp::whole(id.to_string(), String::new(), id.instant())));
    let verified = evidence.verified.iter().flat_map(|verified| &verified.snapshots);
    let listed: BTreeSet<String> = verified.map(|verdict| verdict.id.to_string()).collect();
    let mut finished = BTreeMap::new();
    for signed in promises.iter().filter_map(|one| one.evidence.as_ref()).flat_map(|one| &one.seen.documents) {
        finished.insert(signed.1.doc.id.to_string(), signed.1.doc.finished);
    }
    let (mut lacking, mut early) = (Vec::new(), Vec::new());
    for (id, reasons) in elsewhere::kept(promise.policy.as_ref(), &union, expected.now, expected.timezone) {
        if listed.contains(&id) || reasons == [Reason::Frozen] {
            continue;
        }
        let parsed: Option<SnapshotId> = id.parse().ok();
        if let Some((id, why)) = parsed.and_then(|id| removed.get_key_value(&id)) {
            // Rules about the newest, marks and anomalies may have come to hold after the removal; what `keep` says did not.
            let promised = promise.policy.is_none()
                || reasons.iter().any(|reason| matches!(reason, Reason::Within { .. } | Reason::Tier { .. }));
            if promised {
                early.push((id.clone(), why.clone()));
            }
        } else if whole.contains(&id) && finished.get(&id).is_none_or(|at| *at + expected.copied_within < expected.now)
        {
            lacking.push(id);
        }
    }
    let mut findings = Vec::new();
    if !lacking.is_empty() {
        findings.push(Finding {
            kind: Kind::NotReplicated,
            text: format!(
                "{} that other vaults hold is promised here and absent: {}",
                count(lacking.len(), "snapshot"),
                few(&lacking)
            ),
            about: lacking,
        });
    }
    if let Some((first, why)) = early.first() {
        let about: Vec<String> = early.iter().map(|(id, _)| id.to_string()).collect();
        findings.push(Finding {
            kind: Kind::Removed,
            text: format!(
                "{} gone before its time: `{first}`, by a signed receipt {why}",
                count(early.len(), "snapshot")
            ),
            about,
        });
    }
    findings
}

/// Whether another vault has a newer snapshot.
pub(super) fn behind(all: &Captures<'_>, here: &Captures<'_>) -> Option<Finding> {
    let newest = all.keys().next_back()?;
    let (text, own) = match here.keys().next_back() {
        Some(own) if own == newest => return None,
        Some(own) => (format!("behind: its newest is `{own}`, another vault has `{newest}`"), Some(own)),
        None => (format!("holds nothing, another vault has `{newest}`"), None),
    };
    let about = own.into_iter().chain([newest]).map(ToString::to_string).collect();
    Some(Finding { kind: Kind::Behind, text, about })
}

/// Where the chain over all vaults together does not close, or goes on twice, although each vault's own does not: two hosts
/// that sign with one key and do not know of each other, or a vault that was put back to an earlier time and written to again.
/// A fork or a hole that somebody looked at and accepted, in whichever vault, is none.
pub(super) fn forks(promises: &[Promise]) -> Vec<Finding> {
    let evidence = || promises.iter().filter_map(|promise| promise.evidence.as_ref());
    if evidence().count() < 2 {
        return Vec::new();
    }
    let facts: BTreeSet<&Fact> = evidence().flat_map(|one| &one.seen.marks).collect();
    let (accepted, closed) = (Fact::accepted(facts.iter().copied()), Closed::by(facts, None));
    let mut documents: BTreeMap<Hash256, _> = BTreeMap::new();
    let (mut holes, mut known) = (BTreeSet::new(), Vec::new());
    for one in evidence() {
        documents.extend(one.seen.documents.iter().map(|(dir, signed)| (signed.hash(), (dir.clone(), signed.clone()))));
        let own = verify::chains(&verify::links(&one.seen.documents), &Accounted::by(&one.seen.receipts), &accepted);
        holes.extend(own.broken.into_iter().map(|open| open.text));
        known.extend(own.forks);
    }
    let removed = Accounted::by(evidence().flat_map(|one| &one.seen.receipts));
    let documents: Vec<_> = documents.into_values().collect();
    let all = verify::chains(&verify::links(&documents), &removed, &accepted).looked_at(&closed);
    let broken = all.broken.into_iter().map(|open| open.text).filter(|text| !holes.contains(text));
    // The same branches are the same fork, also where the snapshot that they follow on is in another vault only.
    let told = |fork: &Fork| known.iter().any(|own| own.signer == fork.signer && own.snapshots == fork.snapshots);
    let forks = all.forks.iter().filter(|fork| !told(fork)).map(Fork::to_string);
    broken
        .chain(forks)
        .map(|text| Finding {
            kind: Kind::Fork,
            text: format!("the histories of the vaults part: {text}"),
            about: promises
                .iter()
                .filter(|one| one.evidence.as_ref().is_some_and(|one| !captures(one).is_empty()))
                .map(|one| one.vault.clone())
                .collect(),
        })
        .collect()
}

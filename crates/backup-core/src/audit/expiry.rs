//! What stays too long in a vault, and what goes next.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use retention::{Clocks, GenerationReason, Plan, Policy, Reason, Span, maximum_life};

use crate::prune::GRACE;
use crate::prune::history::Fact;
use crate::vault::document::{MarkKind, PruneStage};
use crate::vault::layout::GenerationDir;

use super::{Evidence, Expected, Finding, Kind, Promise, copies, count};

/// Lines about what goes next.
const NEXT: usize = 3;

/// Findings, and what goes next.
pub(super) struct Expiry {
    pub(super) findings: Vec<Finding>,
    pub(super) next: Vec<String>,
}

/// Plans as a prune would, with what every vault knows.
pub(super) fn judge(expected: &Expected<'_>, promises: &[Promise], promise: &Promise, evidence: &Evidence) -> Expiry {
    let Some(policy) = &promise.policy else {
        return Expiry { findings: Vec::new(), next: vec!["nothing: everything is kept for ever".to_owned()] };
    };
    let mut history = evidence.seen.history.clone();
    history.promised_elsewhere = copies::promised_elsewhere(expected, promises, promise);
    let marks: BTreeSet<_> = promises
        .iter()
        .filter_map(|one| one.evidence.as_ref())
        .flat_map(|one| one.seen.marks.iter().cloned())
        .collect();
    // The stamps are those of the documents, in their order.
    for (stamp, (_, signed)) in history.stamps.iter_mut().zip(&evidence.seen.documents) {
        let marked = |kind: MarkKind| Fact::marks(&marks, signed.hash(), kind);
        stamp.pinned |= marked(MarkKind::Pin);
        stamp.accepted |= marked(MarkKind::Accept);
        stamp.checked |= marked(MarkKind::Checked);
        stamp.restored |= marked(MarkKind::Restored);
    }
    let clocks = Clocks { store: expected.now, host: expected.now };
    let plan = retention::plan(policy, &history, clocks, expected.timezone);
    Expiry {
        findings: too_long(expected, policy, evidence, &plan).into_iter().collect(),
        next: next(expected, policy, evidence, &plan),
    }
}

/// Expired snapshots that are older than anything can get while captures and prunes go on.
fn too_long(expected: &Expected<'_>, policy: &Policy, evidence: &Evidence, plan: &Plan) -> Option<Finding> {
    let (mut about, mut because) = (BTreeSet::new(), None);
    for dir in &evidence.seen.generations {
        let life = maximum_life(policy, Span::days(u64::from(dir.id.period().days())), Span::of_delta(GRACE));
        let Some(decision) = plan.generations.iter().find(|decision| decision.id == dir.id.as_str()) else { continue };
        if matches!(decision.reason, GenerationReason::Holds { .. } | GenerationReason::Empty) {
            continue;
        }
        let documents = evidence.seen.documents.iter().filter(|(at, _)| at == dir).map(|(_, signed)| &signed.doc);
        let old = documents.filter(|doc| !doc.id.is_imported() && expected.now - doc.instant > life.total().as_delta());
        let before = about.len();
        about.extend(old.map(|doc| doc.id.to_string()));
        if about.len() > before && because.is_none() {
            because = Some(format!("{life}; its generation: {}", decision.text()));
        }
    }
    let (oldest, because) = (about.first()?, because?);
    let text =
        format!("{} should be gone, the oldest is `{oldest}`: {because}", count(about.len(), "expired snapshot"));
    Some(Finding { kind: Kind::TooLong, text, about: about.into_iter().collect() })
}

fn next(expected: &Expected<'_>, policy: &Policy, evidence: &Evidence, plan: &Plan) -> Vec<String> {
    let frozen = plan.frozen.iter().chain(&plan.frozen_also);
    let mut lines: Vec<String> = frozen.map(|freeze| format!("nothing: {freeze}")).collect();
    for doc in &evidence.announced {
        let of = format!("{} ({})", doc.generation, count(doc.snapshots.len(), "snapshot"));
        lines.push(match doc.stage {
            PruneStage::Deleting => format!("{of}: being deleted since {}", minute(doc.at)),
            PruneStage::Expired => {
                format!("{of}: announced, may be deleted from {} on", minute(doc.at + GRACE))
            }
        });
    }
    if plan.frozen.is_some() {
        return lines;
    }
    let is_announced = |dir: &GenerationDir| evidence.announced.iter().any(|doc| doc.generation == dir.id);
    for dir in evidence.seen.generations.iter().filter(|dir| !is_announced(dir)).take(NEXT) {
        let Some(decision) = plan.generations.iter().find(|decision| decision.id == dir.id.as_str()) else { continue };
        let documents = evidence.seen.documents.iter().filter(|(at, _)| at == dir);
        let newest = documents.clone().map(|(_, signed)| signed.doc.instant).max();
        let of = format!("{} ({})", dir.id, count(documents.count(), "snapshot"));
        if decision.delete {
            lines.push(format!("{of}: expired; the next `backup prune --apply` announces it"));
            continue;
        }
        let decisions = plan.snapshots.iter().filter(|snapshot| snapshot.generation == dir.id.as_str());
        let mut holds: Vec<String> = decisions
            .flat_map(|snapshot| &snapshot.reasons)
            .filter(|reason| !is_of_time(reason))
            .map(ToString::to_string)
            .collect();
        holds.sort();
        holds.dedup();
        if holds.is_empty() {
            let closes = dir.id.deadline() + TimeDelta::days(1);
            let expires = newest.and_then(|at| at.checked_add_signed(policy.within.as_delta()));
            let from = expires.map_or(closes, |expires| expires.max(closes)).max(expected.now);
            lines.push(format!("{of}: not before {}", minute(from)));
        } else {
            lines.push(format!("{of}: stays while it is {}", holds.join(", ")));
        }
    }
    lines
}

/// Whether a reason ends by the mere course of captures.
fn is_of_time(reason: &Reason) -> bool {
    use Reason::{Expired, Frozen, Min, Newest, Within};
    matches!(reason, Newest | Min { .. } | Within { .. } | Expired { .. } | Frozen)
}

fn minute(at: DateTime<Utc>) -> String {
    at.format("%F %R UTC").to_string()
}

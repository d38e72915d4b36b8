//! From evidence to findings. Pure: everything is an argument.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ObjectName;
use crate::vault::Signed;
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::SnapshotId;
use crate::verify::Verified;

use super::{Audited, Evidence, Expected, Finding, Judged, Kind, Promise, copies, count, days, expiry, few, locks};

/// Names and texts that one finding on damage holds: a vault that lost one object may have lost all.
const MOST: usize = 1000;

/// Signed captures by name, which is by instant. Imports are no captures and keep no promise.
pub(super) type Captures<'a> = BTreeMap<SnapshotId, &'a Signed<SnapshotDoc>>;

/// The captures that one vault proves.
pub(super) fn captures(evidence: &Evidence) -> Captures<'_> {
    let documents = evidence.seen.documents.iter().map(|(_, signed)| signed);
    documents.filter(|signed| !signed.doc.id.is_imported()).map(|signed| (signed.doc.id.clone(), signed)).collect()
}

/// The captures that any vault proves.
fn all_captures(promises: &[Promise]) -> Captures<'_> {
    promises.iter().filter_map(|promise| promise.evidence.as_ref()).flat_map(captures).collect()
}

/// Judges a source in every vault whose evidence was read for it.
pub fn judge(expected: &Expected<'_>, promises: &[Promise]) -> Judged {
    let all = all_captures(promises);
    let judged = || {
        promises.iter().filter_map(|promise| {
            let evidence = promise.evidence.as_ref()?;
            Some((promise, evidence, evidence.verified.as_ref()?))
        })
    };
    let vaults: Vec<Audited> = judged()
        .map(|(promise, evidence, verified)| {
            let mut audited = one(expected, promises, promise, evidence, &all);
            audited.findings.extend(proofs(verified));
            audited.findings.sort_by_key(|finding| (std::cmp::Reverse(finding.kind.weight()), finding.kind));
            audited
        })
        .collect();
    let mut findings = copies::forks(promises);
    findings.extend(objective(expected, &all));
    if all.is_empty() && !vaults.is_empty() {
        let text = "no vault that answers holds a snapshot that is believed".to_owned();
        findings.push(Finding { kind: Kind::NoSnapshot, text, about: Vec::new() });
    }
    let foreign = judged().any(|(.., verified)| verified.snapshots.iter().any(|verdict| verdict.foreign.is_some()));
    let believed = promises.iter().filter_map(|promise| promise.evidence.as_ref());
    let is_all_foreign = foreign && believed.map(|evidence| evidence.seen.documents.len()).sum::<usize>() == 0;
    Judged { vaults, findings, is_all_foreign }
}

fn one(
    expected: &Expected<'_>,
    promises: &[Promise],
    promise: &Promise,
    evidence: &Evidence,
    all: &Captures<'_>,
) -> Audited {
    let here = captures(evidence);
    let removed = days::removed(evidence);
    let mut findings = Vec::new();
    let mut promised = Vec::new();
    if let Some(beginning) = days::beginning(promise, all) {
        promised = days::days(expected, beginning.from, &here);
        findings.extend(days::missing(&promised, all, &removed));
        findings.extend(days::short(&promised));
        if let Some(oldest) = beginning.after {
            findings.push(Finding {
                kind: Kind::Beginning,
                text: format!("everything is promised, and `{oldest}` follows on a snapshot that no vault holds"),
                about: vec![oldest.to_string()],
            });
        }
    }
    findings.extend(copies::absent(expected, promises, promise, evidence, &removed));
    findings.extend(copies::behind(all, &here));
    let expiry = expiry::judge(expected, promises, promise, evidence);
    findings.extend(expiry.findings);
    if promise.lock.is_some() {
        findings.extend(locks::judge(evidence.locks.as_ref()));
        findings.extend(locks::holds(evidence.locks.as_ref()));
    }
    findings.extend(suspects(evidence));
    findings.extend(evidence.strangers.findings());
    Audited {
        vault: promise.vault.clone(),
        findings,
        days: promised,
        snapshots: here.len(),
        newest: here.values().next_back().map(|signed| signed.doc.instant),
        next: expiry.next,
    }
}

/// What a verification found, finding by finding.
fn proofs(verified: &Verified) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut named: BTreeSet<ObjectName> = BTreeSet::new();
    for verdict in &verified.snapshots {
        if let (Some(first), more) = (verdict.damage.first(), verdict.damage.len().saturating_sub(1)) {
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            all.push(Finding {
                kind: Kind::Damaged,
                text: format!("snapshot `{}`: {first}{more}", verdict.id),
                about: std::iter::once(&verdict.id.to_string()).chain(&verdict.damage).take(MOST).cloned().collect(),
            });
            named.extend(&verdict.objects);
        }
        if let Some(foreign) = &verdict.foreign {
            all.push(Finding {
                kind: Kind::Foreign,
                text: format!("snapshot `{}` counts for nothing: {foreign}", verdict.id),
                about: vec![verdict.id.to_string()],
            });
        }
    }
    // Damaged objects that no snapshot needs: nothing is lost with them.
    let lone = verified.objects.keys().map(|(_, name)| name).filter(|name| !named.contains(name));
    let lone: Vec<String> = lone.map(ToString::to_string).collect();
    if !lone.is_empty() {
        let text = format!("{} damaged that no signed snapshot needs: {}", count(lone.len(), "object"), few(&lone));
        all.push(Finding { kind: Kind::Damaged, text, about: lone });
    }
    let each = |kind: Kind, texts: &[String]| -> Vec<Finding> {
        texts.iter().map(|text| Finding { kind, text: text.clone(), about: Vec::new() }).collect()
    };
    all.extend(each(Kind::Chain, &verified.chain));
    all.extend(verified.accepted.iter().map(|open| Finding {
        kind: Kind::Accepted,
        text: format!("{}: looked at and accepted", open.text),
        about: vec![open.id.to_string()],
    }));
    all.extend(verified.forks.iter().map(|fork| Finding {
        kind: Kind::Fork,
        text: fork.to_string(),
        about: fork.snapshots.iter().map(ToString::to_string).collect(),
    }));
    all.extend(each(Kind::Document, &verified.unbelieved));
    all.extend(each(Kind::Foreign, &verified.foreign));
    all.extend(each(Kind::Alone, &verified.alone));
    all.extend(each(Kind::Unseen, &verified.unseen));
    all
}

fn suspects(evidence: &Evidence) -> Option<Finding> {
    let suspect = evidence.seen.history.stamps.iter().filter(|stamp| stamp.suspect && !stamp.accepted);
    let about: Vec<String> = suspect.map(|stamp| stamp.id.clone()).collect();
    let text = format!("suspect and not accepted: {}", few(&about));
    (!about.is_empty()).then_some(Finding { kind: Kind::Suspect, text, about })
}

/// The newest snapshot of all vaults against the objective, as `status` judges it.
fn objective(expected: &Expected<'_>, all: &Captures<'_>) -> Option<Finding> {
    let newest = all.values().next_back()?;
    let (age, rpo) = (expected.now - newest.doc.instant, expected.rpo?);
    let hours = |span: chrono::TimeDelta| format!("{}h{:02}m", span.num_hours(), span.num_minutes() % 60);
    (age > rpo).then(|| Finding {
        kind: Kind::Objective,
        text: format!(
            "the newest snapshot (`{}`) is {} old, and {} are promised",
            newest.doc.id,
            hours(age),
            hours(rpo)
        ),
        about: vec![newest.doc.id.to_string()],
    })
}

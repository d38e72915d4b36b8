//! Filling every vault with what the others have and its own policy would keep. Used by `replicate` and after `run`.
//!
//! The newest snapshot of each source goes first, into all vaults; then the backlog, newest first. A snapshot is taken
//! from the first vault that can give it: what is damaged in one is taken from the next, and the damage is reported. A
//! vault that fails is not asked again in this call and stops no other; nothing is thrown, everything is in the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use backup_core::catalogue::{self, Listed};
use backup_core::config;
use backup_core::id::SourceName;
use backup_core::replicate::{ReplicateError, Route, replicate};
use backup_core::signature::Signers;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::{self, SnapshotId};
use backup_core::vault::store::StoreError;
use backup_core::vault::{Vault, VaultError};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use retention::{Clocks, History, Policy, Reason, Stamp};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::pruning;
use crate::session::Session;
use crate::words;

/// What was copied of one source from one vault to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Name of the vault that has the snapshots; the same as `to` where it is `to` itself that could not be listed.
    pub(crate) from: String,
    /// Name of the vault that gets them.
    pub(crate) to: String,
    /// The source.
    pub(crate) source: SourceName,
    /// Snapshots that were committed, in the order in which they were (newest first).
    pub(crate) snapshots: Vec<SnapshotId>,
    /// Objects that were copied.
    pub(crate) objects: u64,
    /// Their stored bytes.
    pub(crate) bytes: u64,
    /// What failed.
    pub(crate) errors: Vec<CliError>,
}

impl Lane {
    /// How a run ends that has this lane: done, partial, or damage.
    pub(crate) fn exit(&self) -> Exit {
        self.errors.iter().fold(Exit::Done, |end, error| end.worse(error.as_part()))
    }

    /// Lines for a run's report; none where nothing was to be done.
    pub(crate) fn text(&self) -> String {
        let Self { from, to, source, .. } = self;
        let mut text = String::new();
        if !self.snapshots.is_empty() {
            let size = words::bytes(self.bytes);
            let _ = writeln!(text, "{source}: {} replicated from {from} to {to}, {size}", self.snapshots.len());
        }
        for error in &self.errors {
            let _ = writeln!(text, "error: {}", error.message());
            if let Some(hint) = error.advice() {
                let _ = writeln!(text, "  hint: {hint}");
            }
        }
        text
    }

    /// For `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let errors: Vec<Value> = self.errors.iter().map(CliError::to_json).collect();
        json!({
            "from": self.from, "to": self.to, "source": self.source, "snapshots": self.snapshots,
            "objects": self.objects, "bytes": self.bytes, "errors": errors,
        })
    }
}

/// How a run ends whose lanes these are: done, partial, or damage.
pub(crate) fn exit(lanes: &[Lane]) -> Exit {
    lanes.iter().map(Lane::exit).fold(Exit::Done, Exit::worse)
}

/// A snapshot that a vault lacks.
pub(crate) struct Lack {
    /// The vault that lacks it.
    pub(crate) to: Vault,
    /// The source.
    pub(crate) source: SourceName,
    /// The snapshot, and who has it.
    pub(crate) listed: Listed,
    /// Whether the vault's policy would keep it.
    pub(crate) wanted: bool,
}

/// What is lacking, in the order in which it should be copied, and what could not be found out.
#[derive(Default)]
pub(crate) struct Work {
    /// The newest of each source and vault first, then the backlog, newest first.
    pub(crate) lacks: Vec<Lack>,
    /// Vaults that could not be listed.
    pub(crate) silent: Vec<(String, SourceName, CliError)>,
}

/// Copies into each of `vaults` (opened for writing) what it lacks of `sources` and others of `vaults` have.
///
/// Errors: only what keeps everything from starting (the signers). Whatever fails on the way is in the lanes.
pub(crate) async fn fill(
    session: &Session<'_>,
    vaults: &[Vault],
    sources: &[SourceName],
) -> Result<Vec<Lane>, CliError> {
    let signers = session.signers()?;
    let work = survey(session, vaults, sources, None).await;
    Ok(copy(session, vaults, &signers, work).await)
}

/// Lists what is lacking; with `into`, in that vault only. Reads only.
pub(crate) async fn survey(
    session: &Session<'_>,
    vaults: &[Vault],
    sources: &[SourceName],
    into: Option<&str>,
) -> Work {
    let (mut newest, mut backlog, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for name in sources {
        let Some(source) = session.config.source(name.as_str()) else { continue };
        let (listed, failed) = catalogue::snapshots(vaults, session.stack(), name).await;
        // A vault that cannot be listed would seem to lack everything.
        let deaf: BTreeSet<String> = failed.iter().map(|(vault, _)| vault.clone()).collect();
        silent.extend(failed.into_iter().map(|(vault, error)| (vault, name.clone(), error.into())));
        let marks = marks(session, vaults, name).await;
        let stamps: Vec<Stamp> = listed.iter().map(|listed| stamp(listed, &marks)).collect();
        let into_all = vaults.iter().filter(|to| into.is_none_or(|into| into == to.name()));
        for to in into_all.filter(|to| !deaf.contains(to.name())) {
            let keep = session.config.vault(to.name()).and_then(|vault| vault.keep);
            let policy = keep.map(|keep| pruning::policy(&keep, source.generation));
            let wanted = wanted(policy.as_ref(), &stamps, session.cx.clock.now(), session.config.timezone);
            let lacking = listed.iter().rev().filter(|listed| !listed.vaults.iter().any(|has| has.id() == to.id()));
            let mut first = true;
            for listed in lacking {
                let wanted = wanted.contains(listed.id.as_str());
                let lack = Lack { to: to.clone(), source: name.clone(), listed: listed.clone(), wanted };
                if wanted && std::mem::take(&mut first) { newest.push(lack) } else { backlog.push(lack) }
            }
        }
    }
    newest.append(&mut backlog);
    Work { lacks: newest, silent }
}

/// The snapshots that a policy would keep in a vault that held all of them; without a policy, all.
///
/// A plan that is frozen for a gap or a clock keeps what no rule names, because deleting is final; a copy is not made for
/// that reason alone, or an outage long ago would bring back what was pruned since.
fn wanted(policy: Option<&Policy>, stamps: &[Stamp], now: DateTime<Utc>, timezone: Tz) -> BTreeSet<String> {
    let Some(policy) = policy else { return stamps.iter().map(|stamp| stamp.id.clone()).collect() };
    let history = History { stamps: stamps.to_vec(), ..History::default() };
    let plan = retention::plan(policy, &history, Clocks { store: now, host: now }, timezone);
    let named = plan.snapshots.into_iter().filter(|decision| decision.keep && decision.reasons != [Reason::Frozen]);
    named.map(|decision| decision.id).collect()
}

/// What the names alone say: believed here, because it can only add a copy of what is signed.
fn stamp(listed: &Listed, marks: &BTreeSet<String>) -> Stamp {
    let marked =
        |kind: MarkKind| marks.contains(layout::mark(&listed.dir.stack, &listed.dir.source, &listed.id, kind).as_str());
    Stamp {
        id: listed.id.to_string(),
        generation: listed.dir.id.to_string(),
        data: listed.id.instant(),
        stored: listed.id.instant(),
        pinned: marked(MarkKind::Pin),
        suspect: listed.id.is_suspect(),
        accepted: marked(MarkKind::Accept),
        checked: marked(MarkKind::Checked),
        restored: marked(MarkKind::Restored),
        complete: true,
    }
}

/// Paths of all marks of a source. A vault that fails here fails again where it is counted.
async fn marks(session: &Session<'_>, vaults: &[Vault], source: &SourceName) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for vault in vaults {
        let paths = vault.marks(session.stack(), source).await.unwrap_or_default();
        all.extend(paths.into_iter().map(|path| path.to_string()));
    }
    all
}

/// Copies what is lacking and wanted; then the marks, between all vaults.
pub(crate) async fn copy(session: &Session<'_>, vaults: &[Vault], signers: &Signers, work: Work) -> Vec<Lane> {
    let mut lanes = Lanes::default();
    let mut dead: BTreeSet<String> = BTreeSet::new();
    for (vault, source, error) in work.silent {
        dead.insert(vault.clone());
        lanes.at(&vault, &vault, &source).errors.push(error);
    }
    for lack in work.lacks.iter().filter(|lack| lack.wanted) {
        for from in &lack.listed.vaults {
            if dead.contains(lack.to.name()) {
                break;
            }
            if dead.contains(from.name()) {
                continue;
            }
            let route = Route { from, to: &lack.to, signers, monitor: &session.monitor };
            let only = |id: &SnapshotId| *id == lack.listed.id;
            let done = replicate(route, session.stack(), &lack.source, &only, false).await;
            let lane = lanes.at(from.name(), lack.to.name(), &lack.source);
            match done {
                Ok(done) => {
                    lane.snapshots.extend(done.snapshots);
                    lane.objects += done.objects;
                    lane.bytes += done.bytes;
                    break;
                }
                Err(error) => {
                    dead.extend(silent_vault(&error));
                    lane.errors.push(error.into());
                }
            }
        }
    }
    marks_between(session, vaults, signers, &mut lanes, &mut dead).await;
    lanes.0.into_values().collect()
}

/// Marks are made after a snapshot was copied: they travel also where nothing else does.
async fn marks_between(
    session: &Session<'_>,
    vaults: &[Vault],
    signers: &Signers,
    lanes: &mut Lanes,
    dead: &mut BTreeSet<String>,
) {
    let sources: Vec<SourceName> = session.config.sources.iter().map(|source| source.name.clone()).collect();
    for source in &sources {
        let mut have: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for vault in vaults.iter().filter(|vault| !dead.contains(vault.name())) {
            let Ok(paths) = vault.marks(session.stack(), source).await else { continue };
            have.insert(vault.name(), paths.into_iter().map(|path| path.to_string()).collect());
        }
        for (from, to) in vaults.iter().flat_map(|from| vaults.iter().map(move |to| (from, to))) {
            let (Some(given), Some(there)) = (have.get(from.name()), have.get(to.name())) else { continue };
            if given.is_subset(there) || dead.contains(from.name()) || dead.contains(to.name()) {
                continue;
            }
            let route = Route { from, to, signers, monitor: &session.monitor };
            if let Err(error) = replicate(route, session.stack(), source, &|_| false, false).await {
                dead.extend(silent_vault(&error));
                lanes.at(from.name(), to.name(), source).errors.push(error.into());
            }
        }
    }
}

/// The vault that failed as a whole, if that is what the error says.
fn silent_vault(error: &ReplicateError) -> Option<String> {
    let (ReplicateError::Vault(error) | ReplicateError::Snapshot { source: error, .. }) = error else { return None };
    match error {
        VaultError::Store {
            vault,
            source:
                StoreError::Denied { .. } | StoreError::Full { .. } | StoreError::Missing { .. } | StoreError::Failed { .. },
        } => Some(vault.clone()),
        _ => None,
    }
}

/// Lanes by source and vaults.
#[derive(Default)]
struct Lanes(BTreeMap<(SourceName, String, String), Lane>);

impl Lanes {
    fn at(&mut self, from: &str, to: &str, source: &SourceName) -> &mut Lane {
        self.0.entry((source.clone(), to.to_owned(), from.to_owned())).or_insert_with(|| Lane {
            from: from.to_owned(),
            to: to.to_owned(),
            source: source.clone(),
            snapshots: Vec::new(),
            objects: 0,
            bytes: 0,
            errors: Vec::new(),
        })
    }
}

/// All configured sources by name, or those that were chosen.
pub(crate) fn names(sources: &[&config::Source]) -> Vec<SourceName> {
    sources.iter().map(|source| source.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use retention::Span;

    fn stamps(ages_days: &[i64], now: DateTime<Utc>) -> Vec<Stamp> {
        let stamp = |days: &i64| Stamp {
            id: format!("{days}d"),
            generation: "g".to_owned(),
            data: now - TimeDelta::days(*days),
            stored: now - TimeDelta::days(*days),
            pinned: false,
            suspect: false,
            accepted: false,
            checked: false,
            restored: false,
            complete: true,
        };
        ages_days.iter().map(stamp).collect()
    }

    #[test]
    fn only_what_the_policy_would_keep_is_wanted() {
        let now: DateTime<Utc> = "2026-06-01T00:00:00Z".parse().unwrap();
        let policy = Policy { within: Span::days(7), weekly: None, monthly: None, yearly: None, min: 2 };
        let ask = |policy: Option<&Policy>, ages: &[i64]| {
            let wanted = wanted(policy, &stamps(ages, now), now, Tz::UTC);
            ages.iter().copied().filter(|age| wanted.contains(&format!("{age}d"))).collect::<Vec<i64>>()
        };
        assert_eq!(ask(Some(&policy), &[0, 1, 6, 7, 8, 12]), [0, 1, 6, 7]);
        assert_eq!(ask(None, &[0, 400]), [0, 400], "no policy keeps everything");
        // Ages count from the newest snapshot, so an outage makes nothing older; and a gap wants nothing back.
        assert_eq!(ask(Some(&policy), &[300, 301, 310]), [300, 301]);
        assert_eq!(ask(Some(&policy), &[0, 1, 40, 41]), [0, 1]);
        assert_eq!(ask(Some(&policy), &[0, 50]), [0, 50], "the newest `min`, whatever their age");
    }

    #[test]
    fn the_worst_lane_decides() {
        let lane = |errors: Vec<CliError>| Lane {
            from: "a".into(),
            to: "b".into(),
            source: "db".parse().unwrap(),
            snapshots: Vec::new(),
            objects: 0,
            bytes: 0,
            errors,
        };
        let (failed, damage) = (CliError::new(Exit::Failed, "x"), CliError::new(Exit::Damage, "y"));
        assert_eq!(exit(&[lane(vec![])]), Exit::Done);
        assert_eq!(exit(&[lane(vec![]), lane(vec![failed.clone()])]), Exit::Partial);
        assert_eq!(exit(&[lane(vec![damage]), lane(vec![failed])]), Exit::Damage);
    }
}

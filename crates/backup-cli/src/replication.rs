//! Filling every vault with what the others have and its own policy would keep. Used by `replicate` and after `run`.
//!
//! The newest snapshot of each source goes first, into all vaults; then the backlog, newest first. A snapshot is taken
//! from the first vault that can give it: what is damaged in one is taken from the next, and the damage is reported. A
//! vault that fails is not asked again in this call and stops no other; nothing is thrown, everything is in the result.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use backup_core::catalogue::{self, Listed};
use backup_core::config;
use backup_core::id::{Hash256, SourceName};
use backup_core::monitor::Event;
use backup_core::prune::{elsewhere, purge};
use backup_core::replicate::{
    Marks, Proof, ReplicateError, Route, marks_of, proofs, replicate_grants, replicate_marks, replicate_one,
};
use backup_core::signature::Signers;
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::vault::store::StoreError;
use backup_core::vault::{Signed, Vault, VaultError};
use backup_core::words::plain;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use retention::{History, Policy, Reason, Stamp};
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
    /// Nothing copied yet.
    pub(crate) fn new(from: &str, to: &str, source: &SourceName) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            source: source.clone(),
            snapshots: Vec::new(),
            objects: 0,
            bytes: 0,
            errors: Vec::new(),
        }
    }

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
    /// How many more are lacking that are believed, and that the policy there would expire at once.
    pub(crate) expiring: usize,
    /// Vaults that could not be read.
    pub(crate) silent: Vec<(String, SourceName, CliError)>,
    /// Snapshots that a vault lists and that are not believed there, and marks that it could not give.
    pub(crate) refused: Vec<(String, SourceName, CliError)>,
    /// The newest capture that each vault proves, by source and vault: what a name says would be remembered too long.
    held: BTreeMap<(SourceName, String), SnapshotId>,
    /// The marks of each source, by vault.
    marks: BTreeMap<SourceName, BTreeMap<String, Marks>>,
    /// The only vault that gets anything.
    into: Option<String>,
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
    let work = survey(session, vaults, &signers, sources, None).await;
    Ok(copy(session, vaults, &signers, work).await)
}

/// Lists what is lacking; with `into`, in that vault only. Reads only.
///
/// Names say what is there and prove nothing: what a policy would keep is asked of the signed documents and marks alone. A
/// planted name of the year 2999 would otherwise make everything else too old to be copied.
pub(crate) async fn survey(
    session: &Session<'_>,
    vaults: &[Vault],
    signers: &Signers,
    sources: &[SourceName],
    into: Option<&str>,
) -> Work {
    let mut work = Work { into: into.map(str::to_owned), ..Work::default() };
    let mut backlog = Vec::new();
    for name in sources {
        let Some(source) = session.config.source(name.as_str()) else { continue };
        let (listed, failed) = catalogue::snapshots(vaults, session.stack(), name).await;
        // A vault that cannot be listed would seem to lack everything.
        let deaf: BTreeSet<String> = failed.iter().map(|(vault, _)| vault.clone()).collect();
        work.silent.extend(failed.into_iter().map(|(vault, error)| (vault, name.clone(), error.into())));
        let ids: BTreeSet<SnapshotId> = listed.iter().map(|listed| listed.id.clone()).collect();
        for vault in vaults {
            if deaf.contains(vault.name()) {
                continue;
            }
            match marks_of(vault, signers, session.stack(), name, &ids).await {
                Ok(found) => {
                    for reason in found.foreign.values() {
                        session.monitor.event(Event::Warning { text: format!("foreign or unsigned mark: {reason}") });
                    }
                    work.marks.entry(name.clone()).or_default().insert(vault.name().to_owned(), found);
                }
                // What lies among the marks must not keep snapshots from being copied.
                Err(error) => work.refused.push((vault.name().to_owned(), name.clone(), error.into())),
            }
        }
        let into_all =
            || vaults.iter().filter(|to| into.is_none_or(|into| into == to.name()) && !deaf.contains(to.name()));
        let (stamps, unproven) = work.believed(name, &listed, vaults, &deaf, signers).await;
        let has = |listed: &Listed, to: &Vault| {
            let named = listed.vaults.iter().any(|has| has.id() == to.id());
            named && !unproven.contains(&(to.name().to_owned(), listed.id.clone()))
        };
        let proved: BTreeSet<String> = stamps.iter().map(|stamp| stamp.id.clone()).collect();
        let history = History { stamps, ..History::default() };
        for to in into_all() {
            let keep = session.config.vault(to.name()).and_then(|vault| vault.keep);
            let policy = keep.map(|keep| pruning::policy(&keep, source.generation));
            let wanted = wanted(policy.as_ref(), &history, session.cx.clock.now(), session.config.timezone);
            let mut first = true;
            for listed in listed.iter().rev().filter(|listed| !has(listed, to)) {
                let wanted = wanted.contains(listed.id.as_str());
                let mut listed = listed.clone();
                listed.vaults.retain(|from| from.id() != to.id());
                // What is not believed is told as that, whatever `keep` would say of it.
                work.expiring += usize::from(!wanted && proved.contains(listed.id.as_str()));
                let lack = Lack { to: to.clone(), source: name.clone(), listed, wanted };
                if wanted && std::mem::take(&mut first) { work.lacks.push(lack) } else { backlog.push(lack) }
            }
        }
    }
    work.lacks.append(&mut backlog);
    work.leave_purged(vaults, signers).await;
    work
}

impl Work {
    /// The snapshots that some vault proves, each as the first vault that can shows it, with the marks that any has; and
    /// those that a vault lists and whose document there is not believed: a name is no copy.
    async fn believed(
        &mut self,
        source: &SourceName,
        listed: &[Listed],
        vaults: &[Vault],
        deaf: &BTreeSet<String>,
        signers: &Signers,
    ) -> (Vec<Stamp>, BTreeSet<(String, SnapshotId)>) {
        let marked: BTreeSet<(Hash256, &str)> = self
            .marks
            .get(source)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(|marks| marks.signed.values())
            .map(|mark| (mark.doc.document, mark.doc.mark.word()))
            .collect();
        let (mut stamps, mut unproven) = (BTreeMap::new(), BTreeSet::new());
        for vault in vaults.iter().filter(|vault| !deaf.contains(vault.name())) {
            let held = listed.iter().filter(|listed| listed.vaults.iter().any(|has| has.id() == vault.id()));
            let held: Vec<_> = held.map(|listed| (listed.dir.clone(), listed.id.clone())).collect();
            for ((_, id), proof) in held.iter().zip(proofs(vault, signers, &held).await) {
                let error = match proof {
                    Proof::Signed(signed) => {
                        if !id.is_imported() {
                            // Oldest first: the last one stays.
                            self.held.insert((source.clone(), vault.name().to_owned()), id.clone());
                        }
                        stamps.entry(id.clone()).or_insert_with(|| stamp(&signed, &marked));
                        continue;
                    }
                    Proof::Foreign(error) => {
                        unproven.insert((vault.name().to_owned(), id.clone()));
                        error
                    }
                    Proof::Unknown(error) => error,
                };
                self.refused.push((vault.name().to_owned(), source.clone(), error.into()));
            }
        }
        (stamps.into_values().collect(), unproven)
    }

    /// What was purged in one vault is leaked data, and is copied from none to none. A copy looks at its own two vaults itself;
    /// here the others are asked, of what is to be copied only.
    async fn leave_purged(&mut self, vaults: &[Vault], signers: &Signers) {
        let mut known: BTreeMap<(GenerationDir, String), Option<String>> = BTreeMap::new();
        for lack in self.lacks.iter_mut().filter(|lack| lack.wanted) {
            let dir = &lack.listed.dir;
            let between = |vault: &Vault| {
                vault.id() == lack.to.id() || lack.listed.vaults.iter().any(|from| from.id() == vault.id())
            };
            for vault in vaults.iter().filter(|vault| !between(vault)) {
                let at = (dir.clone(), vault.name().to_owned());
                if !known.contains_key(&at) {
                    // One that cannot be asked is told elsewhere.
                    let reason = purge::reason(vault, signers, dir).await.unwrap_or_default();
                    if let Some(reason) = &reason {
                        let (vault, snapshot) = (at.1.clone(), lack.listed.id.clone());
                        let error = ReplicateError::Purged { snapshot, vault, reason: plain(reason) };
                        self.refused.push((at.1.clone(), lack.source.clone(), error.into()));
                    }
                    known.insert(at.clone(), reason);
                }
                lack.wanted &= known[&at].is_none();
            }
        }
    }

    /// What could not be read and what is not believed.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &(String, SourceName, CliError)> {
        self.silent.iter().chain(&self.refused)
    }
}

/// The snapshots that a policy would keep in a vault that held all of them; without a policy, all.
///
/// A plan that is frozen for a gap or a clock keeps what no rule names, because deleting is final; a copy is not made for
/// that reason alone, or an outage long ago would bring back what was pruned since.
pub(crate) fn wanted(policy: Option<&Policy>, history: &History, now: DateTime<Utc>, timezone: Tz) -> BTreeSet<String> {
    let kept = elsewhere::kept(policy, history, now, timezone).into_iter();
    kept.filter(|(_, reasons)| reasons.as_slice() != [Reason::Frozen]).map(|(id, _)| id).collect()
}

/// What a policy is asked about a snapshot, with the marks that any vault has.
pub(crate) fn stamp(signed: &Signed<SnapshotDoc>, marks: &BTreeSet<(Hash256, &str)>) -> Stamp {
    let (doc, hash) = (&signed.doc, signed.hash());
    let marked = |kind: MarkKind| marks.contains(&(hash, kind.word()));
    Stamp {
        pinned: marked(MarkKind::Pin),
        suspect: doc.suspect > 0,
        accepted: marked(MarkKind::Accept),
        checked: marked(MarkKind::Checked),
        restored: marked(MarkKind::Restored),
        imported: doc.id.is_imported(),
        ..Stamp::whole(doc.id.to_string(), doc.generation.to_string(), doc.instant)
    }
}

/// Copies what is lacking and wanted; then the marks, between all vaults.
pub(crate) async fn copy(session: &Session<'_>, vaults: &[Vault], signers: &Signers, mut work: Work) -> Vec<Lane> {
    let mut held = std::mem::take(&mut work.held);
    let mut lanes = Lanes::default();
    let mut dead: BTreeSet<String> = BTreeSet::new();
    for (vault, source, error) in &work.silent {
        dead.insert(vault.clone());
        lanes.at(vault, vault, source).errors.push(error.clone());
    }
    for (vault, source, error) in &work.refused {
        lanes.at(vault, vault, source).errors.push(error.clone());
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
            let done = replicate_one(route, &lack.listed.dir, &lack.listed.id).await;
            let lane = lanes.at(from.name(), lack.to.name(), &lack.source);
            for id in done.snapshots.iter().filter(|id| !id.is_imported()) {
                let newest = held.entry((lack.source.clone(), lack.to.name().to_owned())).or_insert_with(|| id.clone());
                newest.clone_from(&(*newest).clone().max(id.clone()));
            }
            lane.snapshots.extend(done.snapshots);
            lane.objects += done.objects;
            lane.bytes += done.bytes;
            if done.errors.is_empty() {
                break;
            }
            for error in done.errors {
                dead.extend(silent_vault(vaults, &error).await);
                lane.errors.push(error.into());
            }
        }
    }
    grants_between(session, vaults, signers, &work, &mut lanes, &mut dead).await;
    marks_between(session, vaults, signers, work, &mut lanes, &mut dead).await;
    seen(session, vaults, held).await;
    lanes.0.into_values().collect()
}

/// Remembers what each vault holds, for the day when it does not answer. A memory that fails costs only that.
async fn seen(session: &Session<'_>, vaults: &[Vault], held: BTreeMap<(SourceName, String), SnapshotId>) {
    let Some(state) = session.remembered().await else { return };
    for ((source, vault), newest) in held {
        let Some(vault) = vaults.iter().find(|known| known.name() == vault) else { continue };
        let _ = state.set_seen(vault.id(), &source, &newest, session.cx.clock.now()).await;
    }
}

/// Grants too are made after a generation was copied.
async fn grants_between(
    session: &Session<'_>,
    vaults: &[Vault],
    signers: &Signers,
    work: &Work,
    lanes: &mut Lanes,
    dead: &mut BTreeSet<String>,
) {
    let revoked = &session.config.keys.revoked;
    for source in work.marks.keys() {
        for to in vaults.iter().filter(|to| work.into.as_deref().is_none_or(|into| into == to.name())) {
            for from in vaults.iter().filter(|from| from.name() != to.name()) {
                if dead.contains(to.name()) || dead.contains(from.name()) {
                    continue;
                }
                let place = (session.stack(), source);
                let (_, errors) = replicate_grants((from, to), signers, place, revoked, &session.monitor).await;
                for error in errors {
                    dead.extend(silent_vault(vaults, &error).await);
                    lanes.at(from.name(), to.name(), source).errors.push(error.into());
                }
            }
        }
    }
}

/// Marks are made after a snapshot was copied: they travel also where nothing else does.
async fn marks_between(
    session: &Session<'_>,
    vaults: &[Vault],
    signers: &Signers,
    work: Work,
    lanes: &mut Lanes,
    dead: &mut BTreeSet<String>,
) {
    for (source, mut have) in work.marks {
        for to in vaults.iter().filter(|to| work.into.as_deref().is_none_or(|into| into == to.name())) {
            let Some(mut there) = have.remove(to.name()) else { continue };
            for from in vaults.iter().filter(|from| from.name() != to.name()) {
                let Some(given) = have.get(from.name()).filter(|_| !dead.contains(to.name())) else { continue };
                let (_, errors) = replicate_marks(given, to, &there, signers, &session.monitor).await;
                for error in errors {
                    dead.extend(silent_vault(vaults, &error).await);
                    lanes.at(from.name(), to.name(), &source).errors.push(error.into());
                }
                there.signed.extend(given.signed.clone());
            }
            have.insert(to.name().to_owned(), there);
        }
    }
}

/// The vault that failed as a whole, if that is what the error says.
async fn silent_vault(vaults: &[Vault], error: &ReplicateError) -> Option<String> {
    let (ReplicateError::Vault(cause)
    | ReplicateError::Snapshot { source: cause, .. }
    | ReplicateError::Grant { source: cause, .. }
    | ReplicateError::Hold { source: cause, .. }
    | ReplicateError::Mark { source: cause, .. }) = error
    else {
        return None;
    };
    let VaultError::Store { vault, source } = cause else { return None };
    let away = match source {
        StoreError::Full { .. } | StoreError::Missing { .. } | StoreError::Failed { .. } => true,
        // What must not be replaced says nothing about the rest.
        StoreError::Denied { .. } => {
            !matches!(error, ReplicateError::Mark { .. } | ReplicateError::Grant { .. } | ReplicateError::Hold { .. })
        }
        _ => false,
    };
    // A body that is given to nobody says nothing about the rest either.
    let alone = match vaults.iter().find(|known| known.name() == vault) {
        Some(known) if away => known.refuses_only_that(cause).await,
        _ => false,
    };
    (away && !alone).then(|| vault.clone())
}

/// Lanes by source and vaults.
#[derive(Default)]
struct Lanes(BTreeMap<(SourceName, String, String), Lane>);

impl Lanes {
    fn at(&mut self, from: &str, to: &str, source: &SourceName) -> &mut Lane {
        let at = (source.clone(), to.to_owned(), from.to_owned());
        self.0.entry(at).or_insert_with(|| Lane::new(from, to, source))
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

    fn history(ages_days: &[i64], now: DateTime<Utc>) -> History {
        let stamp = |days: &i64| Stamp::whole(format!("{days}d"), "g".to_owned(), now - TimeDelta::days(*days));
        History { stamps: ages_days.iter().map(stamp).collect(), ..History::default() }
    }

    #[test]
    fn only_what_the_policy_would_keep_is_wanted() {
        let now: DateTime<Utc> = "2026-06-01T00:00:00Z".parse().unwrap();
        let policy = Policy { within: Span::days(7), weekly: None, monthly: None, yearly: None, min: 2 };
        let ask = |policy: Option<&Policy>, ages: &[i64]| {
            let wanted = wanted(policy, &history(ages, now), now, Tz::UTC);
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

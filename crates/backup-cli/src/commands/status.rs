//! `backup status`: is every source backed up as promised?
//!
//! A source's newest snapshot counts only if its signature is good: a name that anybody could have put into a vault
//! must not turn a breach into `ok`.

mod forks;
mod frozen;
mod known;
mod lag;
mod told;
mod verdict;

use backup_core::config::{Config, Job, Objective, Source};
use backup_core::id::SourceName;
use backup_core::prune::frozen::unaccepted;
use backup_core::signature::Signers;
use backup_core::state::RunRecord;
use backup_core::vault::VaultError;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::store::StoreError;
use backup_core::verify::{Fork, Open};
use backup_scheduler::Crontab;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::verify::report::{FORK_ADVICE, fork_json};
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, Found};
use crate::heads::{self, Head};
use crate::pending::{self, Pending};
use crate::session::Session;
use crate::words;
use frozen::Frozen;
use lag::Lag;
use told::Told;
use verdict::Verdict;

/// Show each source's newest snapshot and its age against the objectives
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Everything about one source.
struct Standing<'a> {
    source: &'a Source,
    /// Newest snapshot that is believed: its id, and the instant of its data.
    newest: Option<SnapshotDoc>,
    verdict: Verdict,
    /// How old its newest may be where nothing was promised.
    patience: TimeDelta,
    /// When the next run of a job with this source is due.
    next_due: Option<DateTime<Utc>>,
    /// Since when a newer snapshot should have been there.
    overdue_since: Option<DateTime<Utc>>,
    lags: Vec<(String, Lag)>,
    pending: Vec<Pending>,
    /// What keeps everything older from expiring until somebody looks.
    frozen: Option<Frozen>,
    /// What else kept anything from expiring when it was last planned.
    told: Option<Told>,
    /// Where the chain of the newest snapshots goes on twice.
    forks: Vec<Fork>,
    /// Snapshots that are in no vault any more, in words.
    gone: Vec<CliError>,
}

/// So many runs are asked for the reasons of a suspect snapshot.
const REMEMBERED: u32 = 100;

/// Prints it: exit 5 if an objective is breached, or a source without one has no snapshot or is late, in one of the vaults that its
/// jobs fill as well; 3 if a vault does not answer or a
/// suspect snapshot waits for somebody or the newest is announced for deletion, 4 if a snapshot is damaged (12 where its signer is not pinned), something is known to be damaged,
/// a chain forks or lacks a link, or the newest snapshot is gone.
pub(crate) async fn run(cx: &Context, _: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let signers = session.signers()?;
    let now = cx.clock.now();
    let heads = heads::remembered(&session, &session.config.sources.iter().collect::<Vec<_>>()).await;
    let mut found = find::snapshots(&session, &[], None).await?;
    let mut damage: Vec<CliError> = Vec::new();
    let mut forgetting = Exit::Done;
    let runs = match super::runs::remembered(&session, REMEMBERED).await {
        Ok(records) => records,
        Err(error) => {
            forgetting = Exit::Partial;
            cx.printer.warn(error.message(), error.advice().unwrap_or("check `state`"));
            Vec::new()
        }
    };
    let last = runs.first();
    let mut all = Vec::new();
    for source in &session.config.sources {
        all.push(standing(&session, source, &mut found, &signers, now, (&runs, &mut damage)).await?);
    }
    for one in &mut all {
        let head = heads.iter().find(|(name, _)| *name == one.source.name);
        one.gone.extend(gone(&session, &found, &signers, head).await);
    }
    let stuck: Vec<&Source> = all.iter().filter(|one| one.frozen.is_some()).map(|one| one.source).collect();
    let (fillings, quiet) = frozen::filling(&session, &found, &stuck, &signers, now).await;
    for (name, error) in quiet {
        failed(&mut found, &name, error, &mut damage);
    }
    for (vault, source, number, error) in known::damage(&session, &found).await {
        let standing = all.iter_mut().filter(|one| one.source.name == source);
        for (_, lag) in standing.flat_map(|one| &mut one.lags).filter(|(name, _)| *name == vault) {
            lag.damaged = number;
        }
        damage.push(error);
    }
    let mut exit = found.warn(&session).worse(forgetting);
    let advice = |error: &CliError| error.advice().unwrap_or("see what is damaged with `backup verify`").to_owned();
    for text in words::once_for_each_reason(damage.iter().map(CliError::message)) {
        let of = damage.iter().find(|error| text.starts_with(error.message()));
        cx.printer.warn(&text, &of.map(advice).unwrap_or_default());
    }
    for error in &damage {
        // One whose signer is not pinned may be good: then it is the signer that is told, as by `verify`.
        exit = exit.worse(error.exit());
    }
    for one in &all {
        exit = exit.worse(one.verdict.exit());
        for fork in &one.forks {
            cx.printer.warn(&format!("source `{}`: {fork}", one.source.name), FORK_ADVICE);
            exit = exit.worse(Exit::Damage);
        }
        for error in &one.gone {
            cx.printer.warn(error.message(), error.advice().unwrap_or_default());
            exit = exit.worse(Exit::Damage);
        }
        if one.verdict == Verdict::Missing {
            cx.printer.warn(&format!("source `{}` has no snapshot", one.source.name), "make one with `backup run`");
        }
        if let (Verdict::Stale, Some(newest)) = (one.verdict, &one.newest) {
            cx.printer.warn(
                &format!(
                    "source `{}` is late: its newest snapshot is {}, and without an `objective` {} is the most",
                    one.source.name,
                    words::old(now - newest.instant),
                    words::age(one.patience)
                ),
                "see in `backup runs` why, and whether cron(8) still starts them; promise another pace with `objective`",
            );
        }
        for (vault, lacking) in one.starving(&session.config, now) {
            cx.printer.warn(
                &format!(
                    "vault `{vault}` has nothing of the last {} of source `{}`",
                    words::age(lacking),
                    one.source.name
                ),
                "copy what it lacks with `backup replicate`; why no run did, `backup runs` and `backup doctor` tell",
            );
            exit = exit.worse(Exit::Breach);
        }
        if let Some(frozen) = &one.frozen {
            cx.printer.warn(&frozen.warning(one.source.name.as_str(), session.config.timezone), &frozen.advice());
            exit = exit.worse(Exit::Partial);
        }
        if let Some(told) = &one.told {
            cx.printer.warn(&told.warning(one.source.name.as_str(), session.config.timezone), Told::ADVICE);
            exit = exit.worse(Exit::Partial);
        }
        if one.is_leaving(&found) {
            cx.printer.warn(
                &format!(
                    "source `{}`: its newest snapshot is announced for deletion in every vault that has it",
                    one.source.name
                ),
                "make another with `backup run`, or take a purge back with `backup purge GENERATION --source S --undo`",
            );
            exit = exit.worse(Exit::Partial);
        }
        if one.newest.as_ref().is_some_and(|newest| verdict::is_ahead(newest.instant, now)) {
            cx.printer.warn(
                &format!("the newest snapshot of `{}` is from the future", one.source.name),
                "check the clocks of this host and of the database's",
            );
        }
    }
    let services: Vec<(&str, Option<DateTime<Utc>>, Verdict)> = session
        .config
        .services
        .iter()
        .map(|service| {
            let newest = |name: &SourceName| {
                all.iter()
                    .find(|one| one.source.name == *name)
                    .and_then(|one| one.newest.as_ref())
                    .map(|doc| doc.instant)
            };
            let point = verdict::oldest(service.needs.iter().map(newest));
            let objective = service.objective.as_ref();
            let verdict =
                judge(objective, point, (false, false), now, session.config.timezone, !found.vaults.is_empty());
            (service.name.as_str(), point, verdict)
        })
        .collect();
    exit = services.iter().fold(exit, |exit, (.., verdict)| exit.worse(verdict.exit()));
    let timezone = session.config.timezone;
    let value = json!({
        "stack": session.stack(),
        "at": words::utc(now),
        "class": exit.word(),
        "sources": all.iter().map(|one| one.json(now)).collect::<Vec<_>>(),
        "services": services.iter().zip(&session.config.services).map(|((name, point, verdict), service)| json!({
            "service": name,
            "needs": service.needs,
            "verdict": verdict.word(),
            "instant": point.map(words::utc),
            "age_seconds": point.map(|point| (now - point).num_seconds()),
            "objective": service.objective.as_ref().map(objective_json),
        })).collect::<Vec<_>>(),
        "filling": fillings.iter().map(frozen::Filling::to_json).collect::<Vec<_>>(),
        "last_run": last.map(|run| json!({
            "id": run.id,
            "job": run.job,
            "started": words::utc(run.started),
            "finished": run.finished.map(words::utc),
            "outcome": super::runs::outcome(run),
        })),
        "silent": found.silent_json(),
        "damage": damage.iter().map(CliError::to_json).collect::<Vec<_>>(),
    });
    cx.printer.result("status", value, || {
        let mut blocks: Vec<String> = all.iter().map(|one| one.text(now, timezone)).collect();
        for ((name, point, verdict), service) in services.iter().zip(&session.config.services) {
            let age = point.map_or_else(
                || {
                    let unknown = *verdict == Verdict::Unknown;
                    if unknown { "not known: no vault answers" } else { "not every need has a snapshot" }.to_owned()
                },
                |point| format!("back to {}, {}", words::local(point, timezone), words::ago(now - point)),
            );
            let objective = service.objective.as_ref().map(objective_text).unwrap_or_default();
            blocks.push(format!("service {name}: {}\n  {age}{objective}\n", verdict.word()));
        }
        blocks.extend(fillings.iter().map(|filling| filling.text(now, timezone)));
        let run = last.map_or_else(
            || "last run: none is remembered on this host\n".to_owned(),
            |run| {
                let (outcome, started) = (super::runs::outcome(run), words::local(run.started, timezone));
                format!("last run: {outcome} ({}, started {started})\n", run.id)
            },
        );
        blocks.push(run);
        blocks.join("\n")
    })?;
    Ok(exit)
}

/// Looks at one source in all vaults that answer. What is not believed goes to `damage`.
async fn standing<'a>(
    session: &Session<'a>,
    source: &'a Source,
    found: &mut Found,
    signers: &Signers,
    now: DateTime<Utc>,
    (runs, damage): (&[RunRecord], &mut Vec<CliError>),
) -> Result<Standing<'a>, CliError> {
    let timezone = session.config.timezone;
    let newest = newest(found, &source.name, signers, damage).await;
    let pending = pending(session, source, found, signers, damage).await;
    let unaccepted = unaccepted(&found.vaults, signers, &found.of(&source.name)).await;
    for (name, error) in unaccepted.failed {
        failed(found, &name, error, damage);
    }
    let frozen = Frozen::of(unaccepted.found, runs);
    let told = Told::of(session, source).await;
    let schedules = schedules(session.config.jobs.iter().filter(|job| job.sources.contains(&source.name)));
    let due = |after: DateTime<Utc>| next_due(&schedules, after);
    let overdue_since = newest.as_ref().and_then(|doc| due(doc.instant)).filter(|due| *due <= now);
    let instant = newest.as_ref().map(|doc| doc.instant);
    let forks::Chain { forks, holes, instants } = forks::newest(found, session.stack(), &source.name, signers).await;
    let patience = verdict::patience(&instants);
    let overdue = (!schedules.is_empty()).then(|| overdue_since.map_or_else(TimeDelta::zero, |since| now - since));
    let stale = instant.is_some_and(|instant| verdict::is_stale(now - instant, patience, overdue));
    let due_now = (overdue_since.is_some(), stale);
    let verdict = judge(source.objective.as_ref(), instant, due_now, now, timezone, !found.vaults.is_empty());
    let lags = lag::of(session, source, found, signers, newest.as_ref().map(|doc| &doc.id)).await;
    let hole = |open: &Open| {
        CliError::new(Exit::Damage, format!("source `{}`: {}", source.name, open.text))
            .hint(heads::hole_advice(open.id.short()))
    };
    let gone = holes.iter().map(hole).collect();
    Ok(Standing {
        source,
        newest,
        verdict,
        patience,
        next_due: due(now),
        overdue_since,
        lags,
        pending,
        frozen,
        told,
        forks,
        gone,
    })
}

/// Whether the newest snapshot that this host made is in no vault, where all of them answered.
async fn gone(session: &Session<'_>, found: &Found, signers: &Signers, head: Option<&Head>) -> Option<CliError> {
    let (source, (snapshot, _)) = head.filter(|_| found.silent.is_empty())?;
    if found.of(source).iter().any(|one| one.id.as_str() == snapshot)
        || heads::was_removed(session, &found.vaults, signers, (source, snapshot)).await
    {
        return None;
    }
    Some(heads::lost(source, snapshot))
}

fn judge(
    objective: Option<&Objective>,
    instant: Option<DateTime<Utc>>,
    (overdue, stale): (bool, bool),
    now: DateTime<Utc>,
    timezone: Tz,
    asked: bool,
) -> Verdict {
    if !asked {
        return Verdict::Unknown;
    }
    let rpo = objective.map(|objective| objective.rpo.as_chrono());
    let today = now.with_timezone(&timezone).date_naive();
    let waived = objective.and_then(|objective| objective.waiver.as_ref()).is_some_and(|waiver| today <= waiver.until);
    verdict::verdict(instant.map(|instant| now - instant), rpo, waived, overdue, stale)
}

/// The jobs that put a source's captures into a vault; `None`: no job does, and the source has others. A source without a job is run by
/// its name, which fills all.
fn filling<'c>(config: &'c Config, source: &SourceName, vault: &str) -> Option<Vec<&'c Job>> {
    let filling: Vec<&Job> = config.jobs.iter().filter(|job| job.fills(source, vault)).collect();
    let has_none = || config.jobs.iter().all(|job| !job.sources.contains(source));
    (!filling.is_empty() || has_none()).then_some(filling)
}

/// When the next run of these jobs is due, each by its schedule.
fn next_due(schedules: &[(Crontab, Tz)], after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    schedules.iter().filter_map(|(cron, tz)| cron.next_after(after, *tz)).min()
}

fn schedules<'j>(jobs: impl IntoIterator<Item = &'j Job>) -> Vec<(Crontab, Tz)> {
    let parsed = |job: &Job| Some((Crontab::parse(job.cron.as_deref()?).ok()?, job.timezone));
    jobs.into_iter().filter_map(parsed).collect()
}

/// The newest snapshot of a source whose document is good in one of the vaults that list it.
async fn newest(
    found: &mut Found,
    source: &SourceName,
    signers: &Signers,
    damage: &mut Vec<CliError>,
) -> Option<SnapshotDoc> {
    // An import keeps no promise about captures.
    let candidates: Vec<_> = found.of(source).into_iter().filter(|one| !one.id.is_imported()).cloned().collect();
    for one in candidates.iter().rev() {
        let path = one.dir.snapshot(&one.id, ".json");
        for vault in &one.vaults {
            match vault.get_signed::<SnapshotDoc>(&path, signers).await {
                Ok(signed) => return Some(signed.doc),
                Err(error) => failed(found, vault.name(), error, damage),
            }
        }
    }
    None
}

/// Sorts a failure: a store that fails is silent, everything else is a document that is not believed.
fn failed(found: &mut Found, vault: &str, error: VaultError, damage: &mut Vec<CliError>) {
    let is_away = matches!(&error, VaultError::Store { source, .. }
        if !matches!(source, StoreError::NotFound { .. } | StoreError::TooLarge { .. }));
    if !is_away {
        damage.push(error.into());
    } else if !found.silent.iter().any(|(name, _)| name == vault) {
        found.silent.push((vault.to_owned(), error.into()));
    }
}

/// Generations that a prune has announced or begun to delete.
async fn pending(
    session: &Session<'_>,
    source: &Source,
    found: &mut Found,
    signers: &Signers,
    damage: &mut Vec<CliError>,
) -> Vec<Pending> {
    let mut all = Vec::new();
    for vault in found.vaults.clone() {
        match pending::of(&vault, signers, session.stack(), &source.name).await {
            Ok(some) => {
                for one in some {
                    match one {
                        Ok(one) => all.push(one),
                        Err(error) => failed(found, vault.name(), error, damage),
                    }
                }
            }
            Err(error) => failed(found, vault.name(), error, damage),
        }
    }
    all
}

fn objective_json(objective: &Objective) -> Value {
    json!({
        "rpo_seconds": objective.rpo.as_seconds(),
        "rto_seconds": objective.rto.as_seconds(),
        "waiver": objective.waiver.as_ref().map(|waiver| json!({ "until": waiver.until, "reason": waiver.reason })),
    })
}

fn objective_text(objective: &Objective) -> String {
    let waiver = objective.waiver.as_ref();
    let waiver = waiver.map(|waiver| format!("\n  waiver    until {}: {}", waiver.until, waiver.reason));
    format!(" (objective {}){}", objective.rpo, waiver.unwrap_or_default())
}

impl Standing<'_> {
    /// Whether the newest snapshot goes with a deletion that was announced in every vault that lists it: soon there is none.
    fn is_leaving(&self, found: &Found) -> bool {
        let Some(newest) = &self.newest else { return false };
        let leaves = |vault: &str| {
            let named = |pending: &&Pending| pending.doc.snapshots.iter().any(|(id, _)| *id == newest.id);
            self.pending.iter().filter(|pending| pending.vault == vault).any(|pending| named(&pending))
        };
        let listed = found.of(&self.source.name).into_iter().find(|one| one.id == newest.id);
        listed.is_some_and(|one| one.vaults.iter().all(|vault| leaves(vault.name())))
    }

    /// Vaults that lack captures that should be there, and for how long: where jobs with a schedule fill it, a run of theirs was due a day
    /// ago; else, for longer than the source's own newest is ever old.
    fn starving(&self, config: &Config, now: DateTime<Utc>) -> Vec<(&str, TimeDelta)> {
        let mut starving = Vec::new();
        for (vault, lag) in &self.lags {
            let (Some(since), Some(jobs)) = (lag.lacks_since(), filling(config, &self.source.name, vault)) else {
                continue;
            };
            let schedules = schedules(jobs);
            let starves = match next_due(&schedules, since) {
                Some(due) => now - due > TimeDelta::days(1),
                None => now - since > self.patience,
            };
            if starves {
                starving.push((vault.as_str(), now - since));
            }
        }
        starving
    }

    fn json(&self, now: DateTime<Utc>) -> Value {
        let newest = self.newest.as_ref();
        json!({
            "source": self.source.name,
            "verdict": self.verdict.word(),
            "newest": newest.map(|doc| &doc.id),
            "instant": newest.map(|doc| words::utc(doc.instant)),
            "age_seconds": newest.map(|doc| (now - doc.instant).num_seconds()),
            "suspect": newest.map(|doc| doc.suspect > 0),
            "objective": self.source.objective.as_ref().map(objective_json),
            "next_due": self.next_due.map(words::utc),
            "overdue_since": self.overdue_since.map(words::utc),
            "vaults": self.lags.iter().map(|(vault, lag)| lag.to_json(vault)).collect::<Vec<_>>(),
            "gone": self.gone.iter().map(CliError::to_json).collect::<Vec<_>>(),
            "forks": self.forks.iter().map(fork_json).collect::<Vec<_>>(),
            "pending": self.pending.iter().map(Pending::to_json).collect::<Vec<_>>(),
            "frozen": self.frozen.as_ref().map(Frozen::to_json),
            "frozen_when_pruned": self.told.as_ref().map(Told::to_json),
        })
    }

    fn text(&self, now: DateTime<Utc>, timezone: Tz) -> String {
        let mut lines = vec![format!("{}: {}", self.source.name, self.verdict.word())];
        let objective = self.source.objective.as_ref().map(objective_text).unwrap_or_default();
        let newest = self.newest.as_ref().map_or_else(
            || if self.verdict == Verdict::Unknown { "not known: no vault answers" } else { "no snapshot" }.to_owned(),
            |doc| {
                let suspect = if doc.suspect > 0 { ", suspect" } else { "" };
                let (at, age) = (words::local(doc.instant, timezone), words::old(now - doc.instant));
                format!("{} of {at}, {age}{suspect}", doc.id.short())
            },
        );
        lines.push(format!("  newest    {newest}{objective}"));
        if let Some(due) = self.next_due {
            lines.push(format!("  next due  {}", words::local(due, timezone)));
        }
        if let Some(since) = self.overdue_since {
            lines.push(format!("  overdue   since {}", words::local(since, timezone)));
        }
        for (vault, lag) in &self.lags {
            lines.push(format!("  vault     {vault}: {}", lag.text(now)));
        }
        lines.extend(self.gone.iter().map(|error| format!("  GONE      {}", error.message())));
        for fork in &self.forks {
            lines.push(format!(
                "  fork      {}",
                fork.snapshots.iter().map(SnapshotId::short).collect::<Vec<_>>().join(", ")
            ));
        }
        for pending in &self.pending {
            let (stage, since) = (pending.stage(), words::local(pending.doc.at, timezone));
            let count = words::count(pending.doc.snapshots.len(), "snapshot");
            let (vault, generation) = (&pending.vault, &pending.doc.generation);
            let purge = pending.doc.grounds.purge.as_ref().map_or("", |_| ", by a purge");
            lines.push(format!("  {stage:<8}  {vault}: {generation}, {count}, since {since}{purge}"));
        }
        lines.extend(self.frozen.iter().flat_map(|frozen| frozen.lines(timezone)));
        lines.extend(self.told.iter().flat_map(|told| told.lines(timezone)));
        lines.join("\n") + "\n"
    }
}

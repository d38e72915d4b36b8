//! `backup run`.

use std::collections::BTreeSet;
use std::time::Duration;

use backup_core::backup::{BackupError, BackupRequest, Committed, Host, backup};
use backup_core::config::{self, Job, Place, Reserve, Step};
use backup_core::id::{IdError, SourceName};
use backup_core::signature::{HostKey, Signers};
use backup_core::source::postgres::preflight::preflight;
use backup_core::state::{RunRecord, State, StateError};
use backup_core::vault::Vault;
use backup_core::vault::local::{FreeSpace, LocalOptions, LocalStore};
use backup_core::vault::store::StoreError;
use backup_scheduler::Crontab;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::commands::verify;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::heads;
use crate::lock::RunLock;
use crate::report::{Report, SourceReport, problem};
use crate::session::{Session, TOOL};
use crate::{pruning, replication, words};

/// Capture sources into the first vault that answers, then copy into the others
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job to run [default: all sources, all vaults]
    #[arg(value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Show what would be captured
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Level of zstd: on tables of numbers 1 is both faster and smaller than 3 at frames of 4 MiB.
pub(crate) const LEVEL: i32 = 1;

/// Runs a job. Whatever fails is named in the report; the report is remembered, also when the run failed.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    session.config.refuse_revoked()?;
    let work = Work::choose(&session, args)?;
    let key = session.host_key()?;
    if session.config.keys.recipients.is_empty() {
        return Err(CliError::usage("`keys.recipients` is empty: nobody could read the backup")
            .hint("make an identity with `backup key new FILE` and name its recipient"));
    }
    if args.dry_run {
        return dry_run(&session, &work).await;
    }
    let begun = session.state_or_new().await?;
    let _locks = work
        .sources
        .iter()
        .map(|source| RunLock::take(session.state_dir()?, session.stack(), &source.name))
        .collect::<Result<Vec<_>, _>>()?;
    let started = cx.clock.now();
    let mut record =
        RunRecord { id: run_id(started), job: args.job.clone(), started, finished: None, outcome: None, report: None };
    let mut report = Report::new(&record.id, args.job.as_deref(), started);
    let state = begin(&session, begun, &record, &mut report).await?;
    let finished = match work.deadline {
        Some(deadline) => match tokio::time::timeout(deadline, everything(&session, &work, &key, &state, &mut report))
            .await
        {
            Ok(done) => done,
            Err(_) => {
                Err(CliError::new(Exit::Failed, format!("the job's deadline of {} s has passed", deadline.as_secs()))
                    .hint("raise the job's `deadline`, or see in `backup runs` what took so long"))
            }
        },
        None => everything(&session, &work, &key, &state, &mut report).await,
    };
    if let Err(error) = &finished {
        report.fail(error);
    }
    report.finish(cx.clock.now());
    record.finished = Some(cx.clock.now());
    record.outcome = Some(report.outcome().to_owned());
    record.report = Some(report.to_json().to_string());
    if let Err(error) = state.put_run(&record).await {
        // What was stored is stored, and is told.
        report.forgets(error.into());
    }
    let exit = report.exit();
    report.print(&cx.printer)?;
    Ok(exit)
}

/// Notes that the run begins. A state that cannot be written now must not keep a backup from being made: the run goes on
/// with one of its own, which knows nothing and is forgotten, and ends as partial.
async fn begin(
    session: &Session<'_>,
    begun: Result<State, StateError>,
    record: &RunRecord,
    report: &mut Report,
) -> Result<State, CliError> {
    let noted = match begun {
        Ok(state) => state.put_run(record).await.map(|()| state),
        Err(error) => Err(error),
    };
    match noted {
        Err(error) if error.is_unusable() => {
            report.forgets(error.into());
            let state = State::of_this_process(session.stack()).await?;
            state.put_run(record).await?;
            Ok(state)
        }
        other => Ok(other?),
    }
}

/// What a call asks for.
struct Work<'a> {
    job: Option<&'a Job>,
    sources: Vec<&'a config::Source>,
    vaults: Vec<&'a config::Vault>,
    /// Vaults that only get copies: with a `replicate` step, all that are not the job's.
    others: Vec<&'a config::Vault>,
    deadline: Option<Duration>,
}

impl<'a> Work<'a> {
    fn choose(session: &'a Session<'_>, args: &Args) -> Result<Self, CliError> {
        let config = &session.config;
        let job = match &args.job {
            Some(name) => Some(config.job(name).ok_or_else(|| {
                let known: Vec<String> = config.jobs.iter().map(|job| format!("`{}`", job.name)).collect();
                CliError::usage(format!("there is no job `{name}` in the configuration"))
                    .hint(format!("choose one of {}, or leave it out to run everything", known.join(", ")))
            })?),
            None => None,
        };
        let mut sources = session.sources(&args.source)?;
        if let Some(job) = job
            && args.source.is_empty()
        {
            sources.retain(|source| job.sources.contains(&source.name));
        }
        let vaults: Vec<&config::Vault> = match job {
            Some(job) => job.vaults.iter().filter_map(|name| config.vault(name)).collect(),
            None => config.vaults.iter().collect(),
        };
        let others = match job {
            Some(job) if job.then.contains(&Step::Replicate) => {
                config.vaults.iter().filter(|vault| !job.vaults.contains(&vault.name)).collect()
            }
            _ => Vec::new(),
        };
        let deadline = job.and_then(|job| job.deadline).map(|span| Duration::from_secs(span.as_seconds()));
        Ok(Self { job, sources, vaults, others, deadline })
    }

    /// All vaults that this run fills.
    fn filled(&self) -> Vec<&'a config::Vault> {
        self.vaults.iter().chain(&self.others).copied().collect()
    }

    fn retries(&self) -> (u32, Duration) {
        self.job
            .map_or((0, Duration::ZERO), |job| (job.retry.times, Duration::from_secs(job.retry.backoff.as_seconds())))
    }

    /// When the next run of this job is due.
    fn next_due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let job = self.job?;
        Crontab::parse(job.cron.as_deref()?).ok()?.next_after(now, job.timezone)
    }
}

/// What would be captured. Each source is asked first: what would fail at once is not said to be captured, and ends this as it would
/// end the run.
async fn dry_run(session: &Session<'_>, work: &Work<'_>) -> Result<Exit, CliError> {
    let mut asked = Vec::new();
    for source in &work.sources {
        asked.push((*source, begins(source).await.err()));
    }
    let several = asked.len() > 1;
    let failed = asked.iter().filter_map(|(_, error)| error.as_ref()).map(CliError::exit);
    let failed = failed.map(|exit| if several { exit.of_several() } else { exit });
    let end = failed.fold(Exit::Done, Exit::worse);
    let one = |(source, error): &(&config::Source, Option<CliError>)| json!({ "source": source.name, "type": source.kind.word(), "error": error.as_ref().map(CliError::to_json) });
    let sources: Vec<Value> = asked.iter().map(one).collect();
    let names = |vaults: &[&config::Vault]| vaults.iter().map(|vault| vault.name.clone()).collect::<Vec<_>>();
    let (vaults, others) = (names(&work.vaults), names(&work.others));
    let value = json!({ "dry_run": true, "sources": sources, "vaults": vaults, "copied_into": others });
    session.cx.printer.result("run", value, || {
        let lines = asked.iter().map(|(source, error)| match error {
            None => format!("would capture {} ({})\n", source.name, source.kind.word()),
            Some(error) => format!("could not capture {} ({})\n{}", source.name, source.kind.word(), problem(error)),
        });
        let into = format!("into the first that answers of: {}\n", vaults.join(", "));
        let copied = (!others.is_empty()).then(|| format!("and copy also into: {}\n", others.join(", ")));
        lines.chain([into]).chain(copied).collect()
    })?;
    Ok(end)
}

/// Whether a source's capture would begin: its server answers and lets everything be read, its paths are there.
async fn begins(source: &config::Source) -> Result<(), CliError> {
    crate::session::engine(source)?;
    match &source.kind {
        config::SourceKind::Postgres(database) => {
            let asked = preflight(&crate::session::postgres(&source.name, database)?).await;
            asked.map(|_| ()).map_err(|error| CliError::from(error).about(format!("source `{}`", source.name)))
        }
        config::SourceKind::Files(files) => {
            for path in files.paths.iter().filter(|path| !files.optional.contains(path)) {
                std::fs::symlink_metadata(path).map_err(|error| {
                    let what = format!("source `{}`: cannot look at `{}`", source.name, path.display());
                    CliError::caused(Exit::Failed, what, &error).hint("check `paths`, or list the path in `optional`")
                })?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn everything(
    session: &Session<'_>,
    work: &Work<'_>,
    key: &HostKey,
    state: &State,
    report: &mut Report,
) -> Result<(), CliError> {
    let stored = store(session, work, key, state, report).await;
    // Also after a failure: what `prune` gives back may be the room that this run lacked.
    for step in work.job.map(|job| job.then.as_slice()).unwrap_or_default() {
        let end = match *step {
            // It widened what was copied.
            Step::Replicate => continue,
            Step::Prune => pruning::follow(session, &work.sources, &work.filled()).await,
            Step::Verify { read_data, full } => {
                verify::follow(session, read_data, full, (&work.sources, &work.filled())).await
            }
        };
        report.followed(*step, end);
    }
    stored
}

/// Captures into the first vault that can be used, then copies between all.
async fn store(
    session: &Session<'_>,
    work: &Work<'_>,
    key: &HostKey,
    state: &State,
    report: &mut Report,
) -> Result<(), CliError> {
    let mut open = usable(session, &work.vaults, report).await;
    if open.is_empty() {
        return Err(report.no_vault());
    }
    let run = report.run.clone();
    let signers = session.signers()?;
    let (mut into, mut refused) = (0, BTreeSet::new());
    for source in &work.sources {
        let begun = session.cx.clock.now();
        let mut at = into;
        let end = loop {
            let (vault, next) = (&open[at], open.get(at + 1));
            let captures = Captures { session, work, vault, key, signers: &signers, state, run: &run };
            match (captures.with_retries(source, next.is_some()).await, next) {
                (Err(Failure { error, refusal: Some(refusal) }), Some(next)) => {
                    // One that is full is so for all; what refuses one source may take the others, until it refuses twice.
                    let first = refused.insert(at);
                    if first {
                        let what = refusal.words(source.name.as_str(), next.name());
                        report.vault_stopped(vault.name(), &error.about(what));
                    }
                    at += 1;
                    if refusal == Refusal::Full || !first {
                        into = into.max(at);
                    }
                }
                (end, _) => break end.map_err(|failure| failure.error),
            }
        };
        let seconds = (session.cx.clock.now() - begun).num_seconds();
        report.sources.push(match end {
            Ok(committed) => {
                let gone = match &committed.unlisted {
                    Some(before) => heads::look_for(session, &source.name, before).await,
                    None => None,
                };
                SourceReport::stored(&source.name, open[at].name(), &committed, seconds).gone(gone)
            }
            Err(error) => SourceReport::failed(&source.name, &error, seconds),
        });
    }
    let names: Vec<SourceName> = work.sources.iter().map(|source| source.name.clone()).collect();
    open.extend(usable(session, &work.others, report).await);
    if open.len() > 1 {
        report.replication = replication::fill(session, &open, &names).await?;
    }
    Ok(())
}

/// Opens vaults for writing. One that does not open, or has no room, is named in the report, and the others are used.
async fn usable(session: &Session<'_>, vaults: &[&config::Vault], report: &mut Report) -> Vec<Vault> {
    let mut open = Vec::new();
    for vault in vaults {
        let found = match session.vault(vault, true).await {
            Ok(opened) => reserve(session, vault).await.map(|()| opened),
            Err(error) => Err(error),
        };
        match found {
            Ok(vault) => open.push(vault),
            Err(error) => report.vault_failed(&vault.name, &error),
        }
    }
    open
}

/// A full disk is met before the database server meets it.
pub(crate) async fn reserve(session: &Session<'_>, vault: &config::Vault) -> Result<(), CliError> {
    let Place::Path(path) = &vault.place else { return Ok(()) };
    let space = LocalStore::open(path, LocalOptions::default())?.free_space().await?;
    room(&vault.name, space, session.config.limits.reserve)
}

fn room(vault: &str, space: FreeSpace, reserve: Reserve) -> Result<(), CliError> {
    let reserve_bytes = reserve.of(space.total_bytes);
    if space.free_bytes > reserve_bytes {
        return Ok(());
    }
    let message = format!(
        "vault `{vault}` has {} free, and `limits.reserve` keeps {}",
        words::bytes(space.free_bytes),
        words::bytes(reserve_bytes)
    );
    Err(CliError::new(Exit::Failed, message).hint("make room, or see what may go with `backup prune`"))
}

/// Where the captures of one run go, and who makes them.
struct Captures<'a> {
    session: &'a Session<'a>,
    work: &'a Work<'a>,
    vault: &'a Vault,
    key: &'a HostKey,
    signers: &'a Signers,
    state: &'a State,
    run: &'a str,
}

/// Why a capture failed.
struct Failure {
    error: CliError,
    /// What the vault has to do with it; `None`: nothing, so another vault would not help.
    refusal: Option<Refusal>,
}

/// Why a vault takes nothing. Only what was surely not committed there may go on in another vault: two commits that follow on one would
/// fork the chain. A vault that fails may have committed before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// No room.
    Full,
    /// Read-only, or without the right to write.
    Closed,
}

impl Refusal {
    /// What the store's error among the causes says.
    fn of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.filter_map(|cause| cause.downcast_ref::<StoreError>()).find_map(|cause| match cause {
            StoreError::Full { .. } => Some(Self::Full),
            StoreError::Denied { action: "write", .. } => Some(Self::Closed),
            _ => None,
        })
    }

    fn words(self, source: &str, next: &str) -> String {
        match self {
            Self::Full => format!("it is full; what follows goes into vault `{next}`"),
            Self::Closed => format!("it refuses; source `{source}` goes into vault `{next}`"),
        }
    }
}

impl Captures<'_> {
    /// `others`: another vault may take it, so that waiting for this one is no use.
    async fn with_retries(&self, source: &config::Source, others: bool) -> Result<Committed, Failure> {
        let (times, mut pause) = self.work.retries();
        let mut attempt = 0;
        loop {
            let failure = match self.once(source).await {
                Ok(committed) => return Ok(committed),
                Err(failure) => failure,
            };
            let error = &failure.error;
            if attempt == times || !matches!(error.exit(), Exit::Failed) || (failure.refusal.is_some() && others) {
                return Err(failure);
            }
            attempt += 1;
            let text = format!("source `{}`: attempt {attempt} failed: {}", source.name, error.message());
            self.session.cx.printer.warn(&text, &format!("the next attempt begins in {} s", pause.as_secs()));
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn once(&self, source: &config::Source) -> Result<Committed, Failure> {
        let wrong = |error| Failure { error, refusal: None };
        let config = &self.session.config;
        let engine = crate::session::engine(source).map_err(wrong)?;
        let memory = usize::try_from(config.limits.memory.0).unwrap_or(usize::MAX);
        let secret = matches!(&source.kind, config::SourceKind::Files(files) if files.secret);
        let request = BackupRequest {
            stack: config.stack.clone(),
            source: source.name.clone(),
            run: self.run.to_owned(),
            recipients: config.keys.recipients.clone(),
            period: source.generation.to_string().parse().map_err(|error: IdError| wrong(error.into()))?,
            level: LEVEL,
            // Half for packs; the rest is what the program, the known chunks and a database's rows need.
            budget_bytes: memory / 2,
            cpus: std::thread::available_parallelism().map_or(2, usize::from),
            secret,
            next_due: self.work.next_due(self.session.cx.clock.now()),
            config: config.show_json(config::View::Full),
            tool: TOOL.to_owned(),
        };
        let host = Host {
            key: self.key,
            signers: self.signers,
            state: self.state,
            clock: &self.session.cx.clock,
            monitor: &self.session.monitor,
        };
        let committed: Result<Committed, BackupError> = backup(self.vault, host, &request, engine.as_ref()).await;
        committed.map_err(|error| Failure { refusal: Refusal::of(&error), error: error.into() })
    }
}

pub(crate) fn run_id(now: DateTime<Utc>) -> String {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    format!("{}-{}", now.format("%Y%m%dT%H%M%SZ"), hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::restore::tests::parse;

    #[test]
    fn a_vault_at_its_reserve_has_no_room() {
        let space = |free_bytes| FreeSpace { free_bytes, total_bytes: 2000 << 20 };
        assert_eq!(room("local", space(101 << 20), Reserve::Percent(5)), Ok(()));
        let short = room("local", space(100 << 20), Reserve::Percent(5)).unwrap_err();
        assert_eq!(short.message(), "vault `local` has 100.0 MiB free, and `limits.reserve` keeps 100.0 MiB");
        assert_eq!((short.exit(), short.as_part()), (Exit::Failed, Exit::Partial));
    }

    #[test]
    fn takes_a_job_and_sources() {
        let args: Args = parse(&["nightly", "--source", "db", "--source", "files"]).unwrap();
        assert_eq!((args.job.as_deref(), args.source.len()), (Some("nightly"), 2));
        assert!(parse::<Args>(&["--source", "../x"]).is_err());
    }
}

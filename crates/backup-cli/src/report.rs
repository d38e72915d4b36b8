//! What a run did: for the terminal, for cron's mail, for `backup runs`, for `--json`.

use std::io::IsTerminal;

use backup_core::backup::Committed;
use backup_core::config::Step;
use backup_core::id::SourceName;
use backup_core::vault::layout::Volume;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::commands::silent;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::replication::Lane;
use crate::table::Table;
use crate::words;

/// A run's report.
pub(crate) struct Report {
    /// Id of the run.
    pub(crate) run: String,
    /// Each source.
    pub(crate) sources: Vec<SourceReport>,
    /// Each copy.
    pub(crate) replication: Vec<Lane>,
    job: Option<String>,
    started: DateTime<Utc>,
    finished: Option<DateTime<Utc>>,
    failed_vaults: Vec<(String, CliError)>,
    /// Those that took no more while something was captured into them.
    stopped_vaults: Vec<String>,
    forgetting: Option<CliError>,
    failure: Option<CliError>,
    steps: Vec<StepReport>,
}

/// What a step that followed the run did.
pub(crate) struct StepReport {
    /// The step.
    pub(crate) step: Step,
    /// How it ended, as a part of the run.
    pub(crate) exit: Exit,
    /// What its verb would print with `--json`.
    pub(crate) found: Value,
    /// Lines about all that is wrong.
    pub(crate) problems: Vec<String>,
}

impl StepReport {
    fn to_json(&self) -> Value {
        json!({
            "step": self.step.to_string(), "outcome": self.exit.word(), "exit": self.exit.code(),
            "found": self.found, "problems": self.problems,
        })
    }

    fn text(&self) -> String {
        let lines = self.problems.iter().map(|line| format!("  {line}\n"));
        [format!("then {}: {}\n", self.step, self.exit.word())].into_iter().chain(lines).collect()
    }
}

/// An error as lines of a step's report.
pub(crate) fn told(what: &str, error: &CliError) -> Vec<String> {
    let hint = error.advice().map(|hint| format!("  hint: {hint}"));
    [format!("{what}: {}", error.message())].into_iter().chain(hint).collect()
}

/// What became of one source.
pub(crate) struct SourceReport {
    source: String,
    seconds: i64,
    end: Result<Held, CliError>,
    /// That the snapshot before this one is in no vault any more.
    gone: Option<CliError>,
}

struct Held {
    vault: String,
    snapshot: String,
    is_database: bool,
    short: String,
    rows: u64,
    files: u64,
    plain_bytes: u64,
    added_bytes: u64,
    stored_bytes: u64,
    suspect: Vec<String>,
}

impl SourceReport {
    /// It has a new snapshot, in this vault.
    pub(crate) fn stored(source: &SourceName, vault: &str, committed: &Committed, seconds: i64) -> Self {
        let doc = &committed.snapshot.doc;
        let stored = Held {
            vault: vault.to_owned(),
            snapshot: doc.id.to_string(),
            is_database: matches!(doc.id.volume(), Volume::Rows(_)),
            short: doc.id.short().to_owned(),
            rows: doc.rows,
            files: doc.files,
            plain_bytes: doc.plain_bytes,
            added_bytes: doc.added_bytes,
            stored_bytes: doc.stored_bytes,
            suspect: committed.suspect.clone(),
        };
        Self { source: source.to_string(), seconds, end: Ok(stored), gone: None }
    }

    /// It has none.
    pub(crate) fn failed(source: &SourceName, error: &CliError, seconds: i64) -> Self {
        Self { source: source.to_string(), seconds, end: Err(error.clone()), gone: None }
    }

    /// With what is wrong about the snapshot before it.
    pub(crate) fn gone(self, gone: Option<CliError>) -> Self {
        Self { gone, ..self }
    }

    fn exit(&self) -> Exit {
        match &self.end {
            Ok(stored) if stored.suspect.is_empty() => Exit::Done,
            Ok(_) => Exit::Partial,
            Err(error) => error.exit(),
        }
    }

    fn to_json(&self) -> Value {
        match &self.end {
            Ok(s) => json!({
                "source": self.source, "outcome": if s.suspect.is_empty() { "stored" } else { "suspect" },
                "vault": s.vault, "snapshot": s.snapshot, "rows": s.rows, "files": s.files, "plain_bytes": s.plain_bytes,
                "added_bytes": s.added_bytes, "stored_bytes": s.stored_bytes, "seconds": self.seconds,
                "suspect": s.suspect, "gone": self.gone.as_ref().map(CliError::to_json),
            }),
            Err(error) => json!({
                "source": self.source, "outcome": "failed", "seconds": self.seconds,
                "error": error.message(), "hint": error.advice(),
            }),
        }
    }
}

impl Report {
    /// A run that begins.
    pub(crate) fn new(run: &str, job: Option<&str>, started: DateTime<Utc>) -> Self {
        Self {
            run: run.to_owned(),
            sources: Vec::new(),
            replication: Vec::new(),
            job: job.map(str::to_owned),
            started,
            finished: None,
            failed_vaults: Vec::new(),
            stopped_vaults: Vec::new(),
            forgetting: None,
            failure: None,
            steps: Vec::new(),
        }
    }

    /// A vault cannot be used.
    pub(crate) fn vault_failed(&mut self, name: &str, error: &CliError) {
        self.failed_vaults.push((name.to_owned(), error.clone()));
    }

    /// A vault takes nothing more: it has what was captured before.
    pub(crate) fn vault_stopped(&mut self, name: &str, error: &CliError) {
        self.stopped_vaults.push(name.to_owned());
        self.vault_failed(name, error);
    }

    /// The state cannot be written: nothing is remembered of this run.
    pub(crate) fn forgets(&mut self, error: CliError) {
        self.forgetting =
            Some(error.about("nothing is remembered of this run, and the next one may upload everything anew"));
    }

    /// Why no vault opened.
    pub(crate) fn no_vault(&self) -> CliError {
        silent::none(&self.failed_vaults).unwrap_or_else(|| {
            CliError::new(Exit::NoVault, "no vault is configured")
                .hint("add a `[vault.NAME]` table, then `backup init`")
        })
    }

    /// The run ended early.
    pub(crate) fn fail(&mut self, error: &CliError) {
        self.failure = Some(error.clone());
    }

    /// A step has ended, or could not begin. Neither keeps the next one from being tried.
    pub(crate) fn followed(&mut self, step: Step, end: Result<StepReport, CliError>) {
        self.steps.push(end.unwrap_or_else(|error| StepReport {
            step,
            exit: error.as_part(),
            found: Value::Null,
            problems: told("it could not begin", &error),
        }));
    }

    /// The run is over.
    pub(crate) fn finish(&mut self, now: DateTime<Utc>) {
        self.finished = Some(now);
    }

    /// Each vault that something was captured into, in that order, with the sources.
    fn captured(&self) -> Vec<(&str, Vec<&str>)> {
        let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
        for source in &self.sources {
            let Ok(held) = &source.end else { continue };
            match all.iter_mut().find(|(vault, _)| *vault == held.vault) {
                Some((_, sources)) => sources.push(&source.source),
                None => all.push((&held.vault, vec![&source.source])),
            }
        }
        all
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.gone().fold(self.own_exit(), |end, error| end.worse(error.exit()))
    }

    /// What was there before and is in no vault any more: no failure of this run.
    fn gone(&self) -> impl Iterator<Item = &CliError> {
        self.sources.iter().filter_map(|source| source.gone.as_ref())
    }

    fn own_exit(&self) -> Exit {
        let several = self.sources.len() > 1;
        let sources = self.sources.iter().map(SourceReport::exit);
        let sources = sources.map(|exit| if several { exit.of_several() } else { exit });
        let failure = self.failure.iter().map(CliError::exit);
        let vaults = self.failed_vaults.iter().map(|(_, error)| error).chain(&self.forgetting).map(CliError::as_part);
        let lanes = self.replication.iter().map(Lane::exit);
        let steps = self.steps.iter().map(|step| step.exit);
        failure.chain(sources).chain(vaults).chain(lanes).chain(steps).fold(Exit::Done, Exit::worse)
    }

    /// One word.
    pub(crate) fn outcome(&self) -> &'static str {
        match self.own_exit() {
            Exit::Done if self.gone().next().is_some() => "partial",
            Exit::Done => "done",
            Exit::Partial if self.sources.iter().any(|s| s.end.as_ref().is_ok_and(|s| !s.suspect.is_empty())) => {
                "suspect"
            }
            Exit::Partial => "partial",
            _ => "failed",
        }
    }

    /// For programs and for the state.
    pub(crate) fn to_json(&self) -> Value {
        let error = |(vault, error): &(String, CliError)| json!({ "vault": vault, "error": error.message(), "hint": error.advice() });
        json!({
            "run": self.run,
            "job": self.job,
            "outcome": self.outcome(),
            "exit": self.exit().code(),
            "started": self.started,
            "finished": self.finished,
            "vault": self.captured().first().map(|(vault, _)| vault),
            "sources": self.sources.iter().map(SourceReport::to_json).collect::<Vec<_>>(),
            "failed_vaults": self.failed_vaults.iter().map(error).collect::<Vec<_>>(),
            "replication": self.replication.iter().map(Lane::to_json).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(StepReport::to_json).collect::<Vec<_>>(),
            "state_error": self.forgetting.as_ref().map(CliError::to_json),
            "error": self.failure.as_ref().map(CliError::to_json),
        })
    }

    /// Prints: JSON always; text on a terminal, and in a pipe only when there is something to tell (cron mails it).
    pub(crate) fn print(&self, printer: &Printer) -> Result<(), CliError> {
        let exit = self.exit();
        let silent = exit == Exit::Done && !printer.is_verbose() && !std::io::stdout().is_terminal();
        printer.result("run", self.to_json(), || if silent { String::new() } else { self.text() })?;
        if let Some(failure) = &self.failure {
            printer.error(failure);
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut out = format!("run {}: {}\n", self.run, self.outcome());
        let captured = self.captured();
        for (vault, sources) in &captured {
            // Which source is where is said where they are not all in one place.
            let of = if captured.len() > 1 { format!(": {}", sources.join(", ")) } else { String::new() };
            out.push_str(&format!("captured into vault {vault}{of}\n"));
        }
        if !captured.is_empty() {
            out.push('\n');
        }
        let mut table = Table::new(&["SOURCE", "SNAPSHOT", "SIZE", "NEW", "TIME", "HOLDS"]);
        for source in &self.sources {
            let time = format!("{} s", source.seconds);
            table.row(match &source.end {
                Ok(s) => {
                    // An empty folder has no files, and an empty database no rows.
                    let holds = match (s.rows, s.files) {
                        (0, 0) if s.is_database => "0 rows".to_owned(),
                        (0, files) => words::count(usize::try_from(files).unwrap_or(usize::MAX), "file"),
                        (rows, _) => format!("{rows} rows"),
                    };
                    let (size, new) = (words::bytes(s.plain_bytes), words::bytes(s.added_bytes));
                    vec![source.source.clone(), s.short.clone(), size, new, time, holds]
                }
                Err(_) => vec![source.source.clone(), "-".into(), "-".into(), "-".into(), time, "failed".into()],
            });
        }
        if !self.sources.is_empty() {
            out.push_str(&table.render());
        }
        for lane in &self.replication {
            out.push_str(&lane.text());
        }
        for source in &self.sources {
            match &source.end {
                Ok(stored) => {
                    for reason in &stored.suspect {
                        out.push_str(&format!("suspect: {}: {reason}\n", source.source));
                    }
                    if !stored.suspect.is_empty() {
                        let id = &stored.short;
                        out.push_str(&format!(
                            "  hint: nothing from before it expires until somebody has looked (`backup show {id}`) and said \
                             `backup accept {id}`\n"
                        ));
                    }
                }
                Err(error) => out.push_str(&problem(error)),
            }
        }
        out.extend(self.gone().map(problem));
        for (vault, error) in &self.failed_vaults {
            let took = captured.iter().any(|(name, _)| name == vault) || self.stopped_vaults.contains(vault);
            let part = if took { "did not take everything" } else { "did not take part" };
            out.push_str(&format!("vault {vault} {part}\n{}", problem(error)));
        }
        out.extend(self.forgetting.iter().map(problem));
        out.extend(self.steps.iter().map(StepReport::text));
        out
    }
}

/// An error as lines of a report.
pub(crate) fn problem(error: &CliError) -> String {
    let hint = error.advice().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
    format!("error: {}\n{hint}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new("r", Some("nightly"), DateTime::UNIX_EPOCH)
    }

    fn failed(exit: Exit) -> SourceReport {
        SourceReport::failed(&"db".parse().unwrap(), &CliError::new(exit, "x"), 1)
    }

    #[test]
    fn a_cause_alone_keeps_its_code_and_among_several_sources_it_is_a_failure() {
        let mut one = report();
        one.sources.push(failed(Exit::WrongKey));
        assert_eq!(one.exit(), Exit::WrongKey);
        one.sources.push(failed(Exit::WrongKey));
        assert_eq!(one.exit(), Exit::Failed);
    }

    #[test]
    fn where_it_was_captured_into_is_said_of_what_was_captured() {
        let stored = |source: &str, vault: &str, files: u64| {
            let held = Held {
                vault: vault.to_owned(),
                snapshot: "20261122T000000Z-1b-abcdef".to_owned(),
                is_database: false,
                short: "abcdef".to_owned(),
                rows: 0,
                files,
                plain_bytes: 1,
                added_bytes: 1,
                stored_bytes: 1,
                suspect: Vec::new(),
            };
            SourceReport { source: source.to_owned(), seconds: 1, end: Ok(held), gone: None }
        };
        let mut run = report();
        run.sources.push(failed(Exit::Failed));
        assert!(!run.text().contains("captured into"), "{}", run.text());
        assert_eq!(run.to_json()["vault"], Value::Null);
        run.sources.push(stored("conf", "offsite", 0));
        run.vault_failed("local", &CliError::new(Exit::Failed, "full"));
        let text = run.text();
        assert!(text.contains("captured into vault offsite\n\n") && text.contains("0 files"), "{text}");
        assert!(text.contains("vault local did not take part"), "{text}");
        run.sources.push(stored("docs", "local", 1));
        let text = run.text();
        assert!(text.contains("captured into vault offsite: conf\ncaptured into vault local: docs\n\n"), "{text}");
        assert!(text.contains("1 file\n") && text.contains("vault local did not take everything"), "{text}");
        assert_eq!(run.to_json()["sources"][2]["vault"], "local");
    }

    #[test]
    fn damage_in_any_part_outranks_what_ended_the_run() {
        let mut run = report();
        run.fail(&CliError::new(Exit::NoVault, "x"));
        assert_eq!(run.exit(), Exit::NoVault);
        run.vault_failed("local", &CliError::new(Exit::Failed, "full"));
        assert_eq!(run.exit(), Exit::NoVault, "a part that failed makes it no better and no worse");
        run.followed(Step::Prune, Err(CliError::new(Exit::Damage, "y")));
        assert_eq!(run.exit(), Exit::Damage);
    }

    #[test]
    fn every_failed_vault_and_step_is_printed_with_its_reason() {
        let mut run = report();
        run.fail(&CliError::new(Exit::Failed, "the run"));
        run.vault_failed("local", &CliError::new(Exit::Failed, "2 MiB free").hint("make room"));
        run.vault_stopped("usb", &CliError::new(Exit::Failed, "0 B free"));
        run.followed(Step::Prune, Err(CliError::new(Exit::WrongKey, "no key").hint("make one")));
        let verify = Step::Verify { read_data: None, full: true };
        let problems = vec!["s1 in vault local".to_owned(), "  object gone".to_owned()];
        run.followed(verify, Ok(StepReport { step: verify, exit: Exit::Damage, found: json!({}), problems }));
        let text = run.text();
        for part in [
            "vault local did not take part\nerror: 2 MiB free\n  hint: make room\n",
            "vault usb did not take everything\nerror: 0 B free\n",
            "then prune: partial\n  it could not begin: no key\n    hint: make one\n",
            "then verify --full: damage\n  s1 in vault local\n    object gone\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let json = run.to_json();
        assert_eq!(json["steps"][1]["problems"][0], "s1 in vault local");
        assert_eq!(json["failed_vaults"][0]["vault"], "local");
        assert_eq!(json["exit"], 4);
    }
}

//! `backup runs`: what this host remembers of past runs. The memory can be lost; the vaults are the truth.

use backup_core::state::{RunRecord, State};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::table::Table;
use crate::words;

/// So many runs are listed.
const LISTED: u32 = 50;

/// List past runs, or show one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run to show: its id or the start of it
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
}

/// Prints them.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let timezone = session.config.timezone;
    if let Some(text) = &args.run {
        let records = remembered(&session, u32::MAX).await?;
        let record = one(&records, text)?;
        cx.printer.result("runs", json!({ "run": record_json(record) }), || show(record, timezone))?;
    } else {
        let records = remembered(&session, LISTED).await?;
        let value = json!({ "runs": records.iter().map(record_json).collect::<Vec<_>>() });
        cx.printer.result("runs", value, || table(&records, timezone))?;
    }
    Ok(Exit::Done)
}

/// The last runs, newest first. A host that never ran has none, and asking makes no state.
pub(crate) async fn remembered(session: &Session<'_>, limit: u32) -> Result<Vec<RunRecord>, CliError> {
    let dir = session.state_dir()?;
    if !dir.join("state.sqlite").exists() {
        return Ok(Vec::new());
    }
    Ok(State::open(dir, session.stack()).await?.runs(limit).await?)
}

/// The run whose id is `text`, or starts with it if only one does.
fn one<'a>(records: &'a [RunRecord], text: &str) -> Result<&'a RunRecord, CliError> {
    if let Some(exact) = records.iter().find(|record| record.id == text) {
        return Ok(exact);
    }
    let fitting: Vec<&RunRecord> =
        records.iter().filter(|record| !text.is_empty() && record.id.starts_with(text)).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(CliError::usage(format!("there is no run `{text}` in the state of this host"))
            .hint("see the runs with `backup runs`")),
        several => {
            let names: Vec<String> = several.iter().take(6).map(|record| format!("`{}`", record.id)).collect();
            Err(CliError::usage(format!("`{text}` is the start of {} runs: {}", several.len(), names.join(", ")))
                .hint("give more characters, or the whole id"))
        }
    }
}

/// What became of a run.
pub(crate) fn outcome(record: &RunRecord) -> &str {
    match (record.finished, record.outcome.as_deref()) {
        (Some(_), Some(outcome)) => outcome,
        (Some(_), None) => "unknown",
        (None, _) => "interrupted or running",
    }
}

fn duration(record: &RunRecord) -> String {
    record.finished.map_or_else(|| "-".to_owned(), |finished| words::age(finished - record.started))
}

/// The report as it was written; null when there is none or it cannot be read.
fn report(record: &RunRecord) -> Value {
    record.report.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

fn record_json(record: &RunRecord) -> Value {
    json!({
        "id": record.id,
        "job": record.job,
        "started": words::utc(record.started),
        "finished": record.finished.map(words::utc),
        "seconds": record.finished.map(|finished| (finished - record.started).num_seconds()),
        "outcome": record.finished.and(record.outcome.as_deref()),
        "report": report(record),
    })
}

fn table(records: &[RunRecord], timezone: Tz) -> String {
    if records.is_empty() {
        return "no runs\n".to_owned();
    }
    let mut table = Table::new(&["RUN", "JOB", "STARTED", "TOOK", "OUTCOME"]);
    for record in records {
        table.row(vec![
            record.id.clone(),
            record.job.clone().unwrap_or_else(|| "-".to_owned()),
            words::local(record.started, timezone),
            duration(record),
            outcome(record).to_owned(),
        ]);
    }
    table.render()
}

/// One run in lines: a block for each source and each copy. Members that an older version did not write are left out.
fn show(record: &RunRecord, timezone: Tz) -> String {
    let report = report(record);
    let mut lines = vec![format!("run {}: {}", record.id, outcome(record))];
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name:<9} {value}")));
    };
    line("job", record.job.clone());
    line("started", Some(words::local(record.started, timezone)));
    line("finished", record.finished.map(|at| format!("{}, took {}", words::local(at, timezone), duration(record))));
    line("vault", text(&report, "vault"));
    line("exit", number(&report, "exit").map(|exit| exit.to_string()));
    if let Some(error) = report.get("error") {
        line("error", text(error, "message"));
        line("hint", text(error, "hint"));
    }
    for source in array(&report, "sources") {
        let name = text(source, "source").unwrap_or_else(|| "?".to_owned());
        lines.push(format!("\nsource {name}: {}", text(source, "outcome").unwrap_or_else(|| "unknown".to_owned())));
        let mut line = |name: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("  {name:<9} {value}")));
        };
        line("snapshot", text(source, "snapshot"));
        line("rows", number(source, "rows").map(|rows| rows.to_string()));
        line("read", number(source, "plain_bytes").map(words::bytes));
        line("added", number(source, "added_bytes").map(words::bytes));
        line("took", source.get("seconds").and_then(Value::as_f64).map(|seconds| format!("{seconds:.1}s")));
        for reason in array(source, "suspect").iter().filter_map(Value::as_str) {
            line("suspect", Some(reason.to_owned()));
        }
        line("error", text(source, "error"));
        line("hint", text(source, "hint"));
    }
    for copy in array(&report, "replication") {
        let word = |name: &str| text(copy, name).unwrap_or_else(|| "?".to_owned());
        let snapshots = words::count(array(copy, "snapshots").len(), "snapshot");
        let objects = number(copy, "objects").map(|objects| format!(", {objects} objects")).unwrap_or_default();
        let bytes = number(copy, "bytes").map(|bytes| format!(", {}", words::bytes(bytes))).unwrap_or_default();
        lines.push(format!("\ncopy {} to {}: {}", word("from"), word("to"), word("source")));
        lines.push(format!("  {snapshots}{objects}{bytes}"));
        for error in array(copy, "errors") {
            lines.extend(text(error, "message").map(|message| format!("  {:<9} {message}", "error")));
            lines.extend(text(error, "hint").map(|hint| format!("  {:<9} {hint}", "hint")));
        }
    }
    for vault in array(&report, "failed_vaults") {
        lines.push(format!("\nvault {} did not take part", text(vault, "vault").unwrap_or_else(|| "?".to_owned())));
        lines.extend(text(vault, "error").map(|error| format!("  {:<9} {error}", "error")));
        lines.extend(text(vault, "hint").map(|hint| format!("  {:<9} {hint}", "hint")));
    }
    for step in array(&report, "steps") {
        let word = |name: &str| text(step, name).unwrap_or_else(|| "?".to_owned());
        lines.push(format!("\nthen {}: {}", word("step"), word("outcome")));
        lines.extend(array(step, "problems").iter().filter_map(Value::as_str).map(|line| format!("  {line}")));
    }
    if report.is_null() && record.report.is_some() {
        lines.push("\nits report cannot be read".to_owned());
    }
    lines.join("\n") + "\n"
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn number(value: &Value, name: &str) -> Option<u64> {
    value.get(name).and_then(Value::as_u64)
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn record(id: &str, report: Option<Value>) -> RunRecord {
        let started = "2026-11-21T02:00:00Z".parse().unwrap();
        RunRecord {
            id: id.into(),
            job: Some("nightly".into()),
            started,
            finished: Some(started + TimeDelta::seconds(75)),
            outcome: Some("partial".into()),
            report: report.map(|report| report.to_string()),
        }
    }

    #[test]
    fn a_run_without_an_end_is_never_called_done() {
        let killed = RunRecord { finished: None, outcome: Some("done".into()), ..record("r", None) };
        assert_eq!(outcome(&killed), "interrupted or running");
        assert_eq!(record_json(&killed)["outcome"], Value::Null);
        assert_eq!(outcome(&record("r", None)), "partial");
        assert!(table(&[killed], Tz::UTC).contains("interrupted or running"));
    }

    #[test]
    fn is_found_by_a_start_that_fits_one() {
        let all = [record("20261121-ab", None), record("20261121-ac", None), record("20261121", None)];
        assert_eq!(one(&all, "20261121-ab").unwrap().id, "20261121-ab");
        assert_eq!(one(&all, "20261121").unwrap().id, "20261121", "a whole id wins");
        assert!(one(&all, "20261121-").unwrap_err().message().contains("2 runs"));
        assert!(one(&all, "").unwrap_err().message().starts_with("there is no run"));
    }

    #[test]
    fn shows_what_the_report_has_and_bears_what_it_has_not() {
        let report = json!({
            "run": "r", "exit": 3, "vault": "local",
            "sources": [
                { "source": "db", "outcome": "done", "snapshot": "20261121T020000Z-9r-abc234", "rows": 9,
                  "plain_bytes": 2048, "added_bytes": 1024, "seconds": 1.25, "error": null, "suspect": ["few rows"] },
                { "source": "files", "outcome": "failed", "error": "no such file", "hint": "check `paths`" },
                {},
            ],
            "replication": [{ "from": "local", "to": "offsite", "source": "db", "snapshots": ["x"], "objects": 3,
                              "bytes": 4096, "errors": [{ "message": "timed out", "hint": "run again" }] }],
            "failed_vaults": [{ "vault": "usb", "error": "not mounted", "hint": "mount it" }],
            "steps": [
                { "step": "verify --full", "outcome": "damage", "problems": ["s1 in vault local", "  gone"] },
                { "step": "prune", "outcome": "done", "problems": [] },
                {},
            ],
            "error": { "message": "the deadline has passed", "hint": "raise it" },
        });
        let shown = show(&record("r", Some(report)), Tz::UTC);
        for part in [
            "run r: partial\n",
            "  finished  2026-11-21 02:01, took 75s\n",
            "source db: done\n",
            "  added     1.0 KiB\n",
            "  suspect   few rows\n",
            "source files: failed\n",
            "  error     no such file\n",
            "  hint      check `paths`\n",
            "source ?: unknown\n",
            "copy local to offsite: db\n  1 snapshot, 3 objects, 4.0 KiB\n  error     timed out\n  hint      run again\n",
            "  error     the deadline has passed\n  hint      raise it\n",
            "\nvault usb did not take part\n  error     not mounted\n  hint      mount it\n",
            "\nthen verify --full: damage\n  s1 in vault local\n    gone\n",
            "\nthen prune: done\n",
            "\nthen ?: ?\n",
        ] {
            assert!(shown.contains(part), "{part:?} in\n{shown}");
        }
        let damaged = RunRecord { report: Some("{".into()), ..record("r", None) };
        assert!(show(&damaged, Tz::UTC).ends_with("its report cannot be read\n"));
    }
}

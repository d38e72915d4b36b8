//! What the last prune of a run said that keeps anything from expiring: a gap, clocks apart, a chain that does not close.
//!
//! To find it out anew, every document of every vault would have to be read, and `status` is to be quick. Reports of runs are
//! read anyway; so it is told as it was then, with the time. A `backup prune` outside of a run leaves no report.

use backup_core::config::Step;
use backup_core::id::SourceName;
use backup_core::state::RunRecord;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::words;

/// What was frozen of one source when a run pruned it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    run: String,
    at: DateTime<Utc>,
    /// Vault, and why nothing expires there.
    freezes: Vec<(String, String)>,
}

impl Told {
    /// By the newest of `runs` (which come newest first) that pruned the source; `None` where that one told of nothing.
    pub(super) fn of(runs: &[RunRecord], source: &SourceName) -> Option<Self> {
        let pruned = runs.iter().find_map(|run| {
            let report: Value = serde_json::from_str(run.report.as_deref()?).ok()?;
            let step = Step::Prune.to_string();
            let mut steps = report["steps"].as_array()?.iter().filter(|one| one["step"] == *step);
            let plans: Vec<Value> = steps.find_map(|step| {
                let plans = step["found"].as_array()?.iter().filter(|plan| plan["source"] == *source.as_str());
                let plans: Vec<Value> = plans.cloned().collect();
                (!plans.is_empty()).then_some(plans)
            })?;
            Some((run, plans))
        });
        let (run, plans) = pruned?;
        let mut freezes = Vec::new();
        for plan in &plans {
            let vault = plan["vault"].as_str().unwrap_or_default();
            let texts = plan["frozen"].as_array().into_iter().flatten().filter_map(Value::as_str);
            freezes.extend(texts.map(|text| (vault.to_owned(), text.to_owned())));
        }
        (!freezes.is_empty()).then(|| Self { run: run.id.clone(), at: run.finished.unwrap_or(run.started), freezes })
    }

    /// The warning.
    pub(super) fn warning(&self, source: &str, timezone: Tz) -> String {
        let at = words::local(self.at, timezone);
        let each: Vec<String> = self.freezes.iter().map(|(vault, why)| format!("vault `{vault}`: {why}")).collect();
        format!("nothing of `{source}` expired when it was last pruned ({at}): {}", each.join("; "))
    }

    /// What to do about it.
    pub(super) const ADVICE: &str = "see with `backup prune` whether it is still so; a gap or a hole in the chain is closed by `backup accept` of \
                                     the snapshot after it, when that is what it should be";

    /// Lines of the source's block.
    pub(super) fn lines(&self, timezone: Tz) -> Vec<String> {
        let at = words::local(self.at, timezone);
        self.freezes.iter().map(|(vault, why)| format!("  frozen    {vault}, as pruned {at}: {why}")).collect()
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let one = |(vault, why): &(String, String)| json!({ "vault": vault, "reason": why });
        json!({
            "run": self.run, "at": words::utc(self.at), "freezes": self.freezes.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_that_pruned_the_source_tells() {
        let run = |id: &str, steps: Value| RunRecord {
            id: id.to_owned(),
            job: None,
            started: DateTime::UNIX_EPOCH,
            finished: None,
            outcome: None,
            report: Some(json!({ "steps": steps }).to_string()),
        };
        let plan = |source: &str, frozen: &[&str]| json!({ "vault": "local", "source": source, "frozen": frozen });
        let pruned = |id: &str, plans: &[Value]| {
            run(id, json!([{ "step": "replicate", "found": [] }, { "step": "prune", "found": plans }]))
        };
        let source: SourceName = "db".parse().unwrap();
        let bare = RunRecord { report: None, ..run("bare", json!([])) };
        let old = pruned("old", &[plan("db", &["the chain does not close"])]);
        let other = pruned("other", &[plan("files", &["x"])]);
        let failed = run("failed", json!([{ "step": "prune", "found": null }]));
        let told = Told::of(&[bare, other, failed, old], &source).unwrap();
        assert_eq!((told.run.as_str(), told.freezes.len()), ("old", 1));
        assert_eq!(told.lines(Tz::UTC), ["  frozen    local, as pruned 1970-01-01 00:00: the chain does not close"]);
        // Fails where an older run is believed although a newer one found nothing frozen.
        let old = pruned("old", &[plan("db", &["a gap"])]);
        assert_eq!(Told::of(&[pruned("new", &[plan("db", &[])]), old], &source), None);
        assert_eq!(Told::of(&[], &source), None);
    }
}

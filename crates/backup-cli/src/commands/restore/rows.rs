//! `--data-only`: rows into tables that are there. What the engine plans, and its proof.

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::postgres::restore::{RestoreError, RestoreOptions, data_only};

use super::database::{at_url, described, options};
use super::proof::Proof;
use super::{Args, Scene};
use crate::error::CliError;
use crate::words;

/// A planned load.
pub(super) struct Rows {
    options: RestoreOptions,
    plan: data_only::Plan,
    truncate: bool,
}

impl Rows {
    pub(super) async fn plan(
        scene: &Scene<'_>,
        args: &Args,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Self, CliError> {
        let options = options(scene, args, source, snapshot)?;
        let plan = data_only::plan(&options, args.truncate, &described(snapshot), snapshot).await;
        let plan = plan.map_err(|error| at_url(args, error))?;
        Ok(Self { options, plan, truncate: args.truncate })
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.database
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let plan = &self.plan;
        let mut lines = vec![format!(
            "  rows only, into database {} on {}, which is there: {} tables, {} rows, {}",
            plan.database,
            self.options.connect.address(),
            plan.tables,
            plan.rows,
            words::bytes(plan.bytes)
        )];
        if self.truncate {
            let names = if plan.emptied.is_empty() { "none has any".to_owned() } else { plan.emptied.join(", ") };
            lines.push(format!("  rows that are there now and go: {names}"));
        }
        lines.extend(plan.notes.iter().map(|note| format!("  note: {note}")));
        lines
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        self.plan.refusals.clone()
    }

    /// What to do about the refusals.
    pub(super) fn way_out(&self) -> &'static str {
        if !self.truncate && !self.plan.emptied.is_empty() {
            "let their rows go with `--truncate`, or restore beside them with `--table T --into NAME`"
        } else {
            "make it fit, or restore beside it: without `--data-only`, with `--into NAME`"
        }
    }

    pub(super) async fn execute(
        self,
        scene: &Scene<'_>,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Proof, CliError> {
        let described = described(snapshot);
        match data_only::execute(&self.plan, &self.options, &described, snapshot, &*scene.monitor).await {
            Ok(proof) => Ok(Proof::rows(source, snapshot, &proof)),
            Err(error) => Err(as_it_was(error, &self.plan.database)),
        }
    }
}

/// A failure of one transaction: its hint says that nothing was changed, unless nobody can know.
pub(super) fn as_it_was(error: RestoreError, database: &str) -> CliError {
    if matches!(error, RestoreError::CommitLost { .. }) {
        return error.into();
    }
    let error = CliError::from(error);
    let hint = format!("database `{database}` is as it was; {}", error.advice().unwrap_or("then try again"));
    error.hint(hint)
}

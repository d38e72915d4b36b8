//! `--into-schema`: tables beside the live ones. What the engine plans, and its proof.

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::postgres::restore::{RestoreOptions, into_schema};

use super::database::{at_url, described, options};
use super::proof::Proof;
use super::rows::as_it_was;
use super::{Args, Scene};
use crate::error::CliError;
use crate::words;

/// A planned schema.
pub(super) struct Beside {
    options: RestoreOptions,
    plan: into_schema::Plan,
}

impl Beside {
    pub(super) async fn plan(
        scene: &Scene<'_>,
        args: &Args,
        schema: &str,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Self, CliError> {
        let options = options(scene, args, source, snapshot)?;
        let plan = into_schema::plan(&options, schema, &described(snapshot)).await;
        let plan = plan.map_err(|error| at_url(args, error))?;
        Ok(Self { options, plan })
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.database
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let plan = &self.plan;
        let mut lines = vec![format!(
            "  new schema {} in database {} on {}, which is there: {} tables, {} rows, {}",
            plan.schema,
            plan.database,
            self.options.connect.address(),
            plan.tables.len(),
            plan.rows,
            words::bytes(plan.bytes)
        )];
        lines.extend(plan.notes.iter().map(|note| format!("  note: {note}")));
        lines
    }

    pub(super) fn refusals(&self) -> Vec<String> {
        self.plan.refusals.clone()
    }

    pub(super) async fn execute(
        self,
        scene: &Scene<'_>,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Proof, CliError> {
        let described = described(snapshot);
        match into_schema::execute(&self.plan, &self.options, &described, snapshot, &*scene.monitor).await {
            Ok(proof) => Ok(Proof::beside(source, snapshot, &proof, &self.plan.schema)),
            Err(error) => Err(as_it_was(error, &self.plan.database)),
        }
    }
}

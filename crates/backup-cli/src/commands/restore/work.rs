//! One source's restore: planned, described, executed.

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::postgres::restore::Selection;
use chrono::TimeDelta;
use serde_json::{Value, json};

use super::beside::Beside;
use super::choose::Chosen;
use super::database::Database;
use super::files::Files;
use super::plain::Plain;
use super::proof::Proof;
use super::rows::Rows;
use super::suspicion::Suspicion;
use super::{Args, Scene};
use crate::error::CliError;
use crate::words;

/// One source's restore.
pub(super) struct Work {
    pub(super) source: SourceName,
    pub(super) suspicion: Option<Suspicion>,
    snapshot: OpenSnapshot,
    age: TimeDelta,
    kind: Kind,
}

enum Kind {
    Database(Box<Database>),
    Rows(Box<Rows>),
    Beside(Box<Beside>),
    Files(Box<Files>),
    Plain(Plain),
}

impl Work {
    /// Changes nothing.
    pub(super) async fn plan(scene: &Scene<'_>, args: &Args, chosen: Chosen) -> Result<Self, CliError> {
        let Chosen { source, snapshot, unsuspected } = chosen;
        let kind = match (snapshot.manifest().source_type.as_str(), &args.into, &args.into_dir) {
            ("files", _, _) => Files::plan(args, &source, &snapshot).map(|plan| Kind::Files(Box::new(plan))),
            ("postgres", None, Some(dir)) => Plain::plan(dir, &source).map(Kind::Plain),
            ("postgres", _, _) if args.data_only => {
                Rows::plan(scene, args, &source, &snapshot).await.map(|plan| Kind::Rows(Box::new(plan)))
            }
            ("postgres", _, _) if let Some(schema) = &args.into_schema => {
                Beside::plan(scene, args, schema, &source, &snapshot).await.map(|plan| Kind::Beside(Box::new(plan)))
            }
            ("postgres", _, _) => {
                Database::plan(scene, args, &source, &snapshot).await.map(|plan| Kind::Database(Box::new(plan)))
            }
            (other, _, _) => {
                Err(CliError::usage(format!("it is of type `{other}`, which this version cannot restore"))
                    .hint("use the stock tools: `RECOVER-1.md` in the vault"))
            }
        };
        let kind = kind.map_err(|error| error.about(format!("source `{source}`")))?;
        let age = scene.cx.clock.now() - snapshot.doc().instant;
        let suspicion = Suspicion::of(&snapshot, unsuspected);
        Ok(Self { source, suspicion, snapshot, age, kind })
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let doc = self.snapshot.doc();
        let mut lines = vec![format!(
            "{}: snapshot {} of {} ({}) from vault {}",
            self.source,
            doc.id,
            doc.instant.format("%F %T UTC"),
            words::ago(self.age),
            self.snapshot.vault().name()
        )];
        lines.extend(self.suspicion.iter().map(|suspicion| format!("  {}", suspicion.text())));
        lines.extend(match &self.kind {
            Kind::Database(database) => database.describe(),
            Kind::Rows(rows) => rows.describe(),
            Kind::Beside(beside) => beside.describe(),
            Kind::Files(files) => files.describe(),
            Kind::Plain(plain) => plain.describe(),
        });
        lines
    }

    fn refusals(&self) -> Vec<String> {
        match &self.kind {
            Kind::Database(database) => database.refusals(),
            Kind::Rows(rows) => rows.refusals(),
            Kind::Beside(beside) => beside.refusals(),
            Kind::Files(files) => files.refusals(),
            Kind::Plain(_) => Vec::new(),
        }
    }

    /// Why it must not start.
    pub(super) fn refusal(&self) -> Option<CliError> {
        let refusals = self.refusals();
        (!refusals.is_empty()).then(|| {
            let lacks = refusals.iter().all(|refusal| refusal.starts_with(Selection::LACKS));
            let room = matches!(&self.kind, Kind::Files(_));
            CliError::usage(refusals.join("; ")).about(format!("source `{}`", self.source)).hint(match &self.kind {
                _ if lacks => "see the tables of the snapshot with `backup show ID --identity FILE`",
                _ if room => "make room there, or restore beside it with `--into-dir DIR` where there is room",
                Kind::Rows(rows) => rows.way_out(),
                Kind::Beside(_) => {
                    "name another schema, or restore into a new database: `--into NAME` without `--into-schema`"
                }
                Kind::Database(database) => database.way_out(),
                Kind::Files(_) | Kind::Plain(_) => "restore beside it with `--into-dir DIR`",
            })
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let doc = self.snapshot.doc();
        json!({
            "source": self.source, "snapshot": doc.id, "instant": doc.instant, "age_seconds": self.age.num_seconds(),
            "vault": self.snapshot.vault().name(), "plan": self.describe(), "refusals": self.refusals(),
            "suspect": self.suspicion.as_ref().map(Suspicion::to_json),
        })
    }

    /// What `--replace` asks the operator to type.
    pub(super) fn target_name(&self) -> String {
        match &self.kind {
            Kind::Database(database) => database.name().to_owned(),
            Kind::Rows(rows) => rows.name().to_owned(),
            Kind::Beside(beside) => beside.name().to_owned(),
            Kind::Files(_) | Kind::Plain(_) => self.source.to_string(),
        }
    }

    pub(super) async fn execute(self, scene: &Scene<'_>) -> Result<Proof, CliError> {
        let proof = match self.kind {
            Kind::Database(database) => database.execute(scene, &self.source, &self.snapshot).await,
            Kind::Rows(rows) => rows.execute(scene, &self.source, &self.snapshot).await,
            Kind::Beside(beside) => beside.execute(scene, &self.source, &self.snapshot).await,
            Kind::Files(files) => files.execute(scene, &self.source, &self.snapshot).await,
            Kind::Plain(plain) => plain.execute(&self.source, &self.snapshot).await,
        }?;
        Ok(match &self.suspicion {
            Some(suspicion) => proof.suspect(suspicion),
            None => proof,
        })
    }
}

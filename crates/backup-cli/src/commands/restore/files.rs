//! A files source's restore.

use std::path::PathBuf;

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::files::{self, RestoreOptions, RestorePlan, Target, Verify};

use super::proof::Proof;
use super::{Args, Compare, Scene};
use crate::error::CliError;
use crate::words;

/// A planned restore of files.
pub(super) struct Files {
    plan: RestorePlan,
}

impl Files {
    /// Below `--into-dir` each source has a folder of its own, so that two can not meet. It is made by the execution.
    pub(super) fn plan(args: &Args, source: &SourceName, snapshot: &OpenSnapshot) -> Result<Self, CliError> {
        let manifest = snapshot.manifest();
        let options = RestoreOptions {
            target: match &args.into_dir {
                Some(dir) => {
                    let dir = std::path::absolute(dir.join(source.as_str()))
                        .map_err(|error| CliError::usage(format!("`{}`: {error}", dir.display())))?;
                    Target::IntoDir(dir)
                }
                None => Target::Original,
            },
            only: args.path.iter().map(PathBuf::from).collect(),
            replace: args.replace,
            verify: match args.verify {
                Compare::Counts => Verify::Written,
                Compare::Content => Verify::Content,
            },
        };
        Ok(Self { plan: files::plan(&manifest.streams, &manifest.properties, &options)? })
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let line = |target: &files::PlannedTarget| {
            format!(
                "  {}: {} paths, space needed {}, free {}",
                target.path.display(),
                target.paths,
                words::bytes(target.bytes),
                words::bytes(target.free_bytes)
            )
        };
        self.plan.targets.iter().map(line).collect()
    }

    pub(super) async fn execute(
        self,
        scene: &Scene<'_>,
        source: &SourceName,
        snapshot: &OpenSnapshot,
    ) -> Result<Proof, CliError> {
        let restored = files::execute(self.plan, snapshot, &scene.cx.clock, &*scene.monitor).await?;
        Ok(Proof::files(source, snapshot, &restored))
    }
}

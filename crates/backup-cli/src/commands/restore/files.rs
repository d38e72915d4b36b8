//! A files source's restore.

use std::path::PathBuf;

use backup_core::id::SourceName;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::files::{self, RestoreError, RestoreOptions, RestorePlan, Target, Verify};

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
        let plan = files::plan(&manifest.streams, &manifest.properties, &options).map_err(|error| match error {
            RestoreError::Exists { .. } | RestoreError::Mounted { .. } if args.into_dir.is_some() => {
                CliError::from(error).hint("name another folder with `--into-dir DIR`, one that is new or empty")
            }
            error => error.into(),
        });
        Ok(Self { plan: plan? })
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

    /// A target whose file system cannot take what goes there. Files with holes are not counted, and where a file system may compress,
    /// only what does not fit by far is refused, because a refusal in error would keep the data away.
    pub(super) fn refusals(&self) -> Vec<String> {
        let short = |target: &&files::PlannedTarget| match target.room_bytes {
            Some(room_bytes) => room_bytes < target.bytes,
            None => hopeless(target.bytes, target.free_bytes),
        };
        let line = |target: &files::PlannedTarget| {
            let (needed, free) = (words::bytes(target.bytes), words::bytes(target.free_bytes));
            format!("`{}` needs {needed}, and its file system has {free} free", target.path.display())
        };
        self.plan.targets.iter().filter(short).map(line).collect()
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

/// Content that would have to shrink to a tenth.
fn hopeless(bytes: u64, free_bytes: u64) -> bool {
    free_bytes.saturating_mul(10) < bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_fit_by_far_is_refused() {
        assert!(hopeless(900_000, 0) && hopeless(1, 0) && hopeless(1001, 100));
        assert!(!hopeless(0, 0) && !hopeless(1000, 100) && !hopeless(u64::MAX, u64::MAX));
    }
}

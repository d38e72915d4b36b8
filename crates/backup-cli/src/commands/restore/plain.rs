//! A database as plain files, without a server: what `RECOVER-1.md` would write, for a look or for stock tools.
//!
//! It writes into a new folder of its own beside the target, which gets the target's name last; a failure removes that
//! folder and those made above it, and nothing else.

use std::path::{Path, PathBuf};

use backup_core::id::SourceName;
use backup_core::manifest::StreamKind;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::{StreamError, Streams};
use tokio::fs::{self, DirBuilder, File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::proof::Proof;
use crate::error::CliError;
use crate::exit::Exit;

/// A planned extraction.
pub(super) struct Plain {
    dir: PathBuf,
}

impl Plain {
    pub(super) fn plan(dir: &Path, source: &SourceName) -> Result<Self, CliError> {
        let dir = std::path::absolute(dir.join(source.as_str()))
            .map_err(|error| CliError::caused(Exit::Usage, format!("`{}`", dir.display()), &error))?;
        if std::fs::symlink_metadata(&dir).is_ok() {
            return Err(CliError::usage(format!("`{}` exists", dir.display()))
                .hint("name another folder with `--into-dir DIR`"));
        }
        Ok(Self { dir })
    }

    pub(super) fn describe(&self) -> Vec<String> {
        vec![format!("  plain files into {}: globals.sql, archive.dump, copy/", self.dir.display())]
    }

    /// Writes beside the target and names it last. Every stream's SHA-256 is compared by its reader.
    pub(super) async fn execute(self, source: &SourceName, snapshot: &OpenSnapshot) -> Result<Proof, CliError> {
        let stage = Stage::make(&self.dir).await?;
        let written = async {
            write(&stage.path, snapshot).await?;
            fs::rename(&stage.path, &self.dir).await.map_err(|error| failed(&self.dir, &error))
        };
        match written.await {
            Ok(()) => Ok(Proof::plain(source, snapshot, &self.dir)),
            Err(error) => {
                stage.discard().await;
                Err(error)
            }
        }
    }
}

/// A new folder beside the target, and the folders above it that had to be made.
struct Stage {
    path: PathBuf,
    parents: Vec<PathBuf>,
}

impl Stage {
    async fn make(target: &Path) -> Result<Self, CliError> {
        let holder = target.parent().unwrap_or(target);
        let missing: Vec<&Path> = holder.ancestors().take_while(|dir| !dir.exists()).collect();
        let mut id = [0; 8];
        getrandom::fill(&mut id).expect("the system gives random bytes");
        let path = holder.join(format!(".backup-restoring-{}", hex::encode(id)));
        let mut stage = Self { path, parents: Vec::new() };
        for dir in missing.into_iter().rev() {
            if let Err(error) = fs::create_dir(dir).await {
                stage.discard_parents().await;
                return Err(failed(dir, &error));
            }
            stage.parents.push(dir.to_owned());
        }
        // Fails if it is there: what is removed later is ours. Rows of a database are for its owner alone.
        if let Err(error) = DirBuilder::new().mode(0o700).create(&stage.path).await {
            stage.discard_parents().await;
            return Err(failed(&stage.path, &error));
        }
        Ok(stage)
    }

    /// Best effort: the name says what it is.
    async fn discard(&self) {
        let _ = fs::remove_dir_all(&self.path).await;
        self.discard_parents().await;
    }

    /// Only those that are empty.
    async fn discard_parents(&self) {
        for dir in self.parents.iter().rev() {
            let _ = fs::remove_dir(dir).await;
        }
    }
}

async fn write(dir: &Path, snapshot: &OpenSnapshot) -> Result<(), CliError> {
    let copy = dir.join("copy");
    fs::create_dir(&copy).await.map_err(|error| failed(&copy, &error))?;
    for (index, stream) in snapshot.manifest().streams.iter().enumerate() {
        let number = index + 1;
        let path = match stream.kind {
            StreamKind::PgGlobals => dir.join("globals.sql"),
            StreamKind::PgArchive | StreamKind::PgTar => dir.join("archive.dump"),
            StreamKind::PgDirectory => dir.join("directory.tar"),
            StreamKind::PgScript => dir.join("script.sql"),
            StreamKind::PgTables => copy.join(format!("{number}.tar")),
            _ => copy.join(format!("{number}.copy")),
        };
        extract(snapshot, number, &path).await?;
        let statements: Vec<(String, &String)> = stream
            .copy
            .iter()
            .map(|copy| (format!("{number}.sql"), copy))
            .chain(stream.members.iter().map(|member| (format!("{number}-{:08}.sql", member.number), &member.copy)))
            .collect();
        for (name, statement) in statements {
            let path = copy.join(name);
            fs::write(&path, format!("{statement}\n")).await.map_err(|error| failed(&path, &error))?;
        }
    }
    Ok(())
}

async fn extract(snapshot: &OpenSnapshot, number: usize, path: &Path) -> Result<(), CliError> {
    let number = u32::try_from(number).map_err(|error| CliError::new(Exit::Failed, error.to_string()))?;
    // By what it is: a vault that went away is not damage.
    let unread = |error: StreamError| CliError::from(error).about(format!("`{}`", path.display()));
    let mut reader = Streams::open(snapshot, number).await.map_err(unread)?;
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .await
        .map_err(|error| failed(path, &error))?;
    while let Some(bytes) = reader.next().await.map_err(unread)? {
        file.write_all(&bytes).await.map_err(|error| failed(path, &error))?;
    }
    file.sync_all().await.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::caused(Exit::Failed, format!("cannot write `{}`", path.display()), error)
        .hint("check room and rights of the target, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_is_discarded_leaves_what_others_made() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b/db");
        let first = Stage::make(&target).await.unwrap();
        std::fs::write(first.path.join("x"), "x").unwrap();
        let second = Stage::make(&target).await.unwrap();
        assert_ne!(first.path, second.path);
        assert_eq!((first.parents.len(), second.parents.len()), (2, 0));

        first.discard().await;
        assert!(!first.path.exists() && second.path.exists(), "another's stage stays, and so do its parents");
        second.discard().await;
        assert!(folder.path().join("a/b").exists(), "made by the first");
        first.discard_parents().await;
        assert!(!folder.path().join("a").exists() && folder.path().exists());
    }

    #[test]
    fn a_target_that_exists_is_refused_and_planning_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let source: SourceName = "db".parse().unwrap();
        let dir = folder.path().join("new");
        assert!(Plain::plan(&dir, &source).is_ok() && !dir.exists());
        std::os::unix::fs::symlink("nowhere", folder.path().join("db")).unwrap();
        assert_eq!(Plain::plan(folder.path(), &source).err().map(|error| error.exit()), Some(Exit::Usage));
    }
}

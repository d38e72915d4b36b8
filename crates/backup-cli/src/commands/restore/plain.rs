//! A database as plain files, without a server: what `RECOVER-1.md` would write, for a look or for stock tools.

use std::path::{Path, PathBuf};

use backup_core::id::SourceName;
use backup_core::manifest::StreamKind;
use backup_core::snapshot::OpenSnapshot;
use backup_core::source::Streams;
use tokio::fs::{self, File, OpenOptions};
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
        let dir = dir.join(source.as_str());
        if dir.exists() {
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
        let beside = self.dir.with_extension("restoring");
        let written = write(&beside, snapshot).await;
        let named = match written {
            Ok(()) => fs::rename(&beside, &self.dir).await.map_err(|error| failed(&self.dir, &error)),
            Err(error) => Err(error),
        };
        if named.is_err() {
            let _ = fs::remove_dir_all(&beside).await;
        }
        named.map(|()| Proof::plain(source, snapshot, &self.dir))
    }
}

async fn write(dir: &Path, snapshot: &OpenSnapshot) -> Result<(), CliError> {
    let copy = dir.join("copy");
    fs::create_dir_all(&copy).await.map_err(|error| failed(&copy, &error))?;
    for (index, stream) in snapshot.manifest().streams.iter().enumerate() {
        let number = index + 1;
        let path = match stream.kind {
            StreamKind::PgGlobals => dir.join("globals.sql"),
            StreamKind::PgArchive => dir.join("archive.dump"),
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
    let damaged = |error: &dyn std::error::Error| {
        CliError::caused(Exit::Damage, format!("`{}`", path.display()), error)
            .hint("restore an older snapshot, or from another vault: `backup restore --vault NAME`")
    };
    let mut reader = Streams::open(snapshot, number).await.map_err(|error| damaged(&error))?;
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .await
        .map_err(|error| failed(path, &error))?;
    while let Some(bytes) = reader.next().await.map_err(|error| damaged(&error))? {
        file.write_all(&bytes).await.map_err(|error| failed(path, &error))?;
    }
    file.sync_all().await.map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::caused(Exit::Failed, format!("cannot write `{}`", path.display()), error)
        .hint("check room and rights of the target, then try again")
}

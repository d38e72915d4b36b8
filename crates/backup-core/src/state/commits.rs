//! What this host committed into which vault: so that a prune can ask for it by name where a vault's listing does not show it.
//!
//! A name is noted before its document is put, so that no crash between the two loses it; one that never came costs a request when
//! its generation is about to go. Lost, a prune goes by the listing, by what that betrays, and by what other vaults show.

use std::collections::BTreeSet;

use sqlx::Row;

use super::{State, StateError};
use crate::id::{SourceName, VaultId};
use crate::vault::layout::{GenerationDir, GenerationId, SnapshotId};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS committed (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, generation TEXT NOT NULL, snapshot TEXT NOT NULL,
    PRIMARY KEY (vault, stack, source, generation, snapshot)) WITHOUT ROWID;
";

impl State {
    /// Notes that a snapshot is about to be committed into a vault.
    pub async fn note_commit(&self, vault: &VaultId, dir: &GenerationDir, id: &SnapshotId) -> Result<(), StateError> {
        sqlx::query("INSERT OR IGNORE INTO committed VALUES (?, ?, ?, ?, ?)")
            .bind(vault.to_string())
            .bind(dir.stack.as_str())
            .bind(dir.source.as_str())
            .bind(dir.id.as_str())
            .bind(id.as_str())
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The snapshots of a source that this host committed into a vault, also those that are gone since.
    pub async fn commits(
        &self,
        vault: &VaultId,
        source: &SourceName,
    ) -> Result<BTreeSet<(GenerationId, SnapshotId)>, StateError> {
        let rows = self
            .of_source(
                "SELECT generation, snapshot FROM committed WHERE vault = ? AND stack = ? AND source = ?",
                vault,
                source,
            )
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let commit = |row: &sqlx::sqlite::SqliteRow| {
            Some((row.get::<String, _>(0).parse().ok()?, row.get::<String, _>(1).parse().ok()?))
        };
        Ok(rows.iter().filter_map(commit).collect())
    }

    /// Forgets what was committed into a generation that this host removed from a vault.
    pub async fn forget_commits(&self, vault: &VaultId, dir: &GenerationDir) -> Result<(), StateError> {
        sqlx::query("DELETE FROM committed WHERE vault = ? AND stack = ? AND source = ? AND generation = ?")
            .bind(vault.to_string())
            .bind(dir.stack.as_str())
            .bind(dir.source.as_str())
            .bind(dir.id.as_str())
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_committed_is_known_until_its_generation_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let stack: crate::id::StackName = "one".parse().unwrap();
        let state = State::open(folder.path(), &stack).await.unwrap();
        let [here, there]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let dir = |source: &str, day: u32| GenerationDir {
            stack: stack.clone(),
            source: source.parse().unwrap(),
            id: format!("2026-11-{day:02}--1d--0123abcd").parse().unwrap(),
        };
        let id: SnapshotId = "20261101T020000Z-1r-abc234".parse().unwrap();
        for (vault, dir) in
            [(&here, dir("db", 1)), (&here, dir("db", 1)), (&here, dir("db", 2)), (&there, dir("db", 1))]
        {
            state.note_commit(vault, &dir, &id).await.unwrap();
        }
        state.note_commit(&here, &dir("docs", 1), &id).await.unwrap();
        let known = async |vault, source: &str| {
            let known = state.commits(vault, &source.parse().unwrap()).await.unwrap();
            known.into_iter().map(|(generation, _)| generation.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(known(&here, "db").await, [dir("db", 1).id.as_str(), dir("db", 2).id.as_str()]);
        state.forget_commits(&here, &dir("db", 1)).await.unwrap();
        assert_eq!(known(&here, "db").await, [dir("db", 2).id.as_str()]);
        assert_eq!((known(&there, "db").await.len(), known(&here, "docs").await.len()), (1, 1));
    }
}

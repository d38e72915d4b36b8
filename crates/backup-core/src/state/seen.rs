//! The newest snapshot that each vault was last seen to hold: what can still be said of a vault that does not answer.
//!
//! Lost, nothing is said.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::{State, StateError};
use crate::id::{SourceName, VaultId};
use crate::vault::layout::SnapshotId;

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS seen (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, snapshot TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (vault, stack, source)) WITHOUT ROWID;
";

impl State {
    /// Remembers that a vault listed this as the newest snapshot of a source at `at`.
    pub async fn set_seen(
        &self,
        vault: &VaultId,
        source: &SourceName,
        newest: &SnapshotId,
        at: DateTime<Utc>,
    ) -> Result<(), StateError> {
        self.of_source("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", vault, source)
            .bind(newest.as_str())
            .bind(at.timestamp())
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The newest snapshot of a source that a vault was last seen to hold, and when that was.
    pub async fn seen(
        &self,
        vault: &VaultId,
        source: &SourceName,
    ) -> Result<Option<(SnapshotId, DateTime<Utc>)>, StateError> {
        let row = self
            .of_source("SELECT snapshot, at FROM seen WHERE vault = ? AND stack = ? AND source = ?", vault, source)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let seen = |row: sqlx::sqlite::SqliteRow| {
            Some((row.get::<String, _>(0).parse().ok()?, DateTime::from_timestamp(row.get(1), 0)?))
        };
        Ok(row.and_then(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_word_of_each_vault_and_source_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        let [one, two]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let [db, docs]: [SourceName; 2] = ["db", "docs"].map(|name| name.parse().unwrap());
        let at: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let [old, new]: [SnapshotId; 2] =
            ["20261121T020000Z-1r-abc234", "20261122T020000Z-1r-def567"].map(|id| id.parse().unwrap());
        state.set_seen(&one, &db, &old, at).await.unwrap();
        state.set_seen(&one, &db, &new, at).await.unwrap();
        assert_eq!(state.seen(&one, &db).await.unwrap(), Some((new, at)));
        assert_eq!(state.seen(&two, &db).await.unwrap(), None);
        assert_eq!(state.seen(&one, &docs).await.unwrap(), None);
    }
}

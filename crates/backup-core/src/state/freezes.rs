//! Why nothing expired of a source when it was last planned in each vault: to find it out anew, every document of every vault
//! would have to be read, and who asks for the status wants an answer now.
//!
//! One row for each vault and source, written with a plan that was made, replaced by the next one: a plan that could not be made
//! changes nothing. Lost, nothing is said until the next plan.

use chrono::{DateTime, Utc};
use sqlx::Row;

use super::{State, StateError};
use crate::id::{SourceName, VaultId};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS freeze (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, at INTEGER NOT NULL, reasons TEXT NOT NULL,
    PRIMARY KEY (vault, stack, source)) WITHOUT ROWID;
";

impl State {
    /// Remembers what a plan at `at` (this host's clock) said of a source in a vault: why nothing expires, or nothing.
    pub async fn set_frozen(
        &self,
        vault: &VaultId,
        source: &SourceName,
        reasons: &[String],
        at: DateTime<Utc>,
    ) -> Result<(), StateError> {
        self.of_source("INSERT OR REPLACE INTO freeze VALUES (?, ?, ?, ?, ?)", vault, source)
            .bind(at.timestamp())
            .bind(serde_json::to_string(reasons).expect("texts can be written"))
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// What the last plan of a source in a vault said, and when it was made; `None`: none is remembered.
    pub async fn frozen(
        &self,
        vault: &VaultId,
        source: &SourceName,
    ) -> Result<Option<(Vec<String>, DateTime<Utc>)>, StateError> {
        let row = self
            .of_source("SELECT reasons, at FROM freeze WHERE vault = ? AND stack = ? AND source = ?", vault, source)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let frozen = |row: sqlx::sqlite::SqliteRow| {
            let reasons = serde_json::from_str(&row.get::<String, _>(0)).ok()?;
            Some((reasons, DateTime::from_timestamp(row.get(1), 0)?))
        };
        Ok(row.and_then(frozen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_plan_of_each_vault_and_source_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        let [one, two]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let [db, docs]: [SourceName; 2] = ["db", "docs"].map(|name| name.parse().unwrap());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        state.set_frozen(&one, &db, &["a \"gap\"".to_owned(), "clocks".to_owned()], at(1)).await.unwrap();
        state.set_frozen(&two, &db, &[], at(2)).await.unwrap();
        let known = state.frozen(&one, &db).await.unwrap();
        assert_eq!(known, Some((vec!["a \"gap\"".to_owned(), "clocks".to_owned()], at(1))));
        assert_eq!(state.frozen(&two, &db).await.unwrap(), Some((Vec::new(), at(2))));
        assert_eq!(state.frozen(&one, &docs).await.unwrap(), None);
        state.set_frozen(&one, &db, &[], at(3)).await.unwrap();
        assert_eq!(state.frozen(&one, &db).await.unwrap(), Some((Vec::new(), at(3))));
    }
}

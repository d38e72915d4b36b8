//! That this state took the place of a broken one, and which vaults were read whole since.
//!
//! What was known to be damaged went with the broken file, and nothing in a vault says it: a prune would count what rots for whole,
//! and let the good copy go. So a renewed state knows that it forgot, until a whole reading of a vault has found everything
//! again ([`State::set_read_whole`]), or [`RECALL`] is over. Only a state that was renewed says so: on a host that never had one
//! nothing was known.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row;

use super::{State, StateError};
use crate::id::{SourceName, VaultId};

/// So long a renewed state counts as one that forgot: a nightly `verify --read-data 1/30` has read everything again by then.
pub const RECALL: TimeDelta = TimeDelta::days(30);

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS renewed (at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS read_whole (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (vault, stack, source)) WITHOUT ROWID;
";

impl State {
    /// Notes that this state begins in a broken one's place at `at`.
    pub(super) async fn note_renewed(&self, at: DateTime<Utc>) -> Result<(), StateError> {
        let insert = sqlx::query("INSERT INTO renewed VALUES (?)").bind(at.timestamp());
        insert.execute(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// When this state took a broken one's place, if it did.
    async fn renewed(&self) -> Result<Option<DateTime<Utc>>, StateError> {
        let row = sqlx::query("SELECT max(at) FROM renewed").fetch_one(&self.pool).await.map_err(|e| self.failed(e))?;
        Ok(row.get::<Option<i64>, _>(0).and_then(|at| DateTime::from_timestamp(at, 0)))
    }

    /// Notes that every object of a source in a vault was read, and what is damaged written down. Of a state that never was
    /// renewed nothing need be noted.
    pub async fn set_read_whole(&self, vault: &VaultId, source: &SourceName) -> Result<(), StateError> {
        if self.renewed().await?.is_none() {
            return Ok(());
        }
        self.of_source("INSERT OR IGNORE INTO read_whole VALUES (?, ?, ?)", vault, source)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Until when what was known to be damaged of a source in a vault counts as forgotten; `None` where it does not at `now`, by
    /// this host's clock.
    pub async fn forgotten(
        &self,
        vault: &VaultId,
        source: &SourceName,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StateError> {
        let Some(until) = self.renewed().await?.map(|at| at + RECALL).filter(|until| now < *until) else {
            return Ok(None);
        };
        let read = self
            .of_source("SELECT 1 FROM read_whole WHERE vault = ? AND stack = ? AND source = ?", vault, source)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(read.is_none().then_some(until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_renewed_state_forgot_until_it_read_or_time_has_passed() {
        let folder = tempfile::tempdir().unwrap();
        let stack = "s".parse().unwrap();
        let [one, two]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let [db, docs]: [SourceName; 2] = ["db", "docs"].map(|name| name.parse().unwrap());
        let at: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let (state, aside) = State::open_or_renew(folder.path(), &stack, at).await.unwrap();
        assert_eq!(
            (aside, state.forgotten(&one, &db, at).await.unwrap()),
            (None, None),
            "a new host knows all there is"
        );
        state.set_read_whole(&one, &db).await.unwrap();
        state.pool.close().await;
        for broken in 0..2 {
            std::fs::write(folder.path().join("state.sqlite"), "no database").unwrap();
            let (state, aside) = State::open_or_renew(folder.path(), &stack, at).await.unwrap();
            assert!(aside.is_some());
            let until = Some(at + RECALL);
            // Of the second one as well: what was read into the first is forgotten with it.
            assert_eq!(state.forgotten(&one, &db, at).await.unwrap(), until, "{broken}");
            assert_eq!(state.forgotten(&one, &db, at + RECALL - TimeDelta::seconds(1)).await.unwrap(), until);
            assert_eq!(state.forgotten(&one, &db, at + RECALL).await.unwrap(), None);
            state.set_read_whole(&one, &db).await.unwrap();
            assert_eq!(state.forgotten(&one, &db, at).await.unwrap(), None);
            assert_eq!(state.forgotten(&two, &db, at).await.unwrap(), until, "another vault was not read");
            assert_eq!(state.forgotten(&one, &docs, at).await.unwrap(), until, "another source was not read");
            state.pool.close().await;
        }
        let other = State::open(folder.path(), &"t".parse().unwrap()).await.unwrap();
        assert!(other.forgotten(&one, &db, at).await.unwrap().is_some(), "a stack beside it lost as much");
    }
}

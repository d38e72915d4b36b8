//! When which object of a vault was last read and found good: what a verification with little time goes on with.
//!
//! Lost, everything counts as never read and is read once more.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::Row;

use super::{State, StateError};
use crate::id::{Hash256, ObjectName, SourceName, VaultId};
use crate::vault::layout::GenerationDir;
use crate::verify::Reads;

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS read_place (
    id INTEGER PRIMARY KEY, vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, generation TEXT NOT NULL,
    UNIQUE (vault, stack, source, generation));
CREATE TABLE IF NOT EXISTS read_object (
    place INTEGER NOT NULL, name BLOB NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (place, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read_turn (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, parts INTEGER NOT NULL, day INTEGER NOT NULL,
    turn INTEGER NOT NULL, PRIMARY KEY (vault, stack, source, parts)) WITHOUT ROWID;
";

impl State {
    /// When the objects of a source were last read in a vault, in whole seconds.
    pub async fn reads(&self, vault: &VaultId, source: &SourceName) -> Result<Reads, StateError> {
        let mut reads = Reads::new();
        for (place, dir) in self.read_places(vault, source).await? {
            let of: &mut HashMap<_, _> = reads.entry(dir).or_default();
            let mut rows =
                sqlx::query("SELECT name, at FROM read_object WHERE place = ?").bind(place).fetch(&self.pool);
            while let Some(row) = rows.try_next().await.map_err(|e| self.failed(e))? {
                let name: Vec<u8> = row.get(0);
                if let (Ok(name), Some(at)) = (name.try_into(), DateTime::from_timestamp(row.get(1), 0)) {
                    of.insert(Hash256(name), at);
                }
            }
        }
        Ok(reads)
    }

    /// Whose turn it is on `day` (its number) where a share of `parts` is read of a source in a vault, and the day since which it
    /// is: the same all day, and on the next day that asks, however many days lie between, the one after the last that was read to
    /// its end ([`State::set_read_turn`]). The first is the day's number itself.
    pub async fn read_turn(
        &self,
        vault: &VaultId,
        source: &SourceName,
        parts: u32,
        day: i64,
    ) -> Result<(i64, i64), StateError> {
        let row = self
            .of_source(
                "SELECT turn + (day <> ?5), day + (day <> ?5) FROM read_turn
             WHERE vault = ?1 AND stack = ?2 AND source = ?3 AND parts = ?4",
                vault,
                source,
            )
            .bind(i64::from(parts))
            .bind(day)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(row.map_or((day, day), |row| (row.get(0), row.get(1))))
    }

    /// Remembers that this turn was read to its end on `day`: a reading that died or ran out of time before goes on there.
    pub async fn set_read_turn(
        &self,
        vault: &VaultId,
        source: &SourceName,
        parts: u32,
        (day, turn): (i64, i64),
    ) -> Result<(), StateError> {
        let query = "INSERT OR REPLACE INTO read_turn VALUES (?, ?, ?, ?, ?, ?)";
        self.put_read_turn(query, (vault, source), parts, (day, turn)).await
    }

    /// Remembers that this turn began on `day` and is not over, where none was read to its end before: the next day's would else be
    /// the day's number again, and another one.
    pub async fn begin_read_turn(
        &self,
        vault: &VaultId,
        source: &SourceName,
        parts: u32,
        (day, turn): (i64, i64),
    ) -> Result<(), StateError> {
        let query = "INSERT OR IGNORE INTO read_turn VALUES (?, ?, ?, ?, ?, ?)";
        self.put_read_turn(query, (vault, source), parts, (day - 1, turn - 1)).await
    }

    async fn put_read_turn(
        &self,
        query: &'static str,
        (vault, source): (&VaultId, &SourceName),
        parts: u32,
        (day, turn): (i64, i64),
    ) -> Result<(), StateError> {
        self.of_source(query, vault, source)
            .bind(i64::from(parts))
            .bind(day)
            .bind(turn)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    async fn read_places(&self, vault: &VaultId, source: &SourceName) -> Result<Vec<(i64, GenerationDir)>, StateError> {
        let rows = self
            .of_source(
                "SELECT id, generation FROM read_place WHERE vault = ? AND stack = ? AND source = ? ORDER BY id",
                vault,
                source,
            )
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let place = |row: &sqlx::sqlite::SqliteRow| {
            let id = row.get::<String, _>(1).parse().ok()?;
            Some((row.get(0), GenerationDir { stack: self.stack.clone(), source: source.clone(), id }))
        };
        Ok(rows.iter().filter_map(place).collect())
    }

    /// Remembers that objects were read in a vault at `at` and found good.
    pub async fn set_read(
        &self,
        vault: &VaultId,
        dir: &GenerationDir,
        names: &[ObjectName],
        at: DateTime<Utc>,
    ) -> Result<(), StateError> {
        let failed = |e| self.failed(e);
        let mut all = self.pool.begin().await.map_err(failed)?;
        let place: i64 = sqlx::query(
            "INSERT INTO read_place (vault, stack, source, generation) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET vault = excluded.vault RETURNING id",
        )
        .bind(vault.to_string())
        .bind(self.stack.as_str())
        .bind(dir.source.as_str())
        .bind(dir.id.as_str())
        .fetch_one(&mut *all)
        .await
        .map_err(failed)?
        .get(0);
        for name in names {
            sqlx::query("INSERT OR REPLACE INTO read_object VALUES (?, ?, ?)")
                .bind(place)
                .bind(&name.0[..])
                .bind(at.timestamp())
                .execute(&mut *all)
                .await
                .map_err(failed)?;
        }
        all.commit().await.map_err(failed)
    }

    /// Forgets what was read of generations of a source that a vault has no more.
    pub async fn keep_reads(
        &self,
        vault: &VaultId,
        source: &SourceName,
        there: &[GenerationDir],
    ) -> Result<(), StateError> {
        for (place, dir) in self.read_places(vault, source).await? {
            if there.contains(&dir) {
                continue;
            }
            for query in ["DELETE FROM read_object WHERE place = ?", "DELETE FROM read_place WHERE id = ?"] {
                sqlx::query(query).bind(place).execute(&self.pool).await.map_err(|e| self.failed(e))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_known_by_vault_and_generation_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        let [one, two]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let source: SourceName = "db".parse().unwrap();
        let dir =
            |id: &str| GenerationDir { stack: "s".parse().unwrap(), source: source.clone(), id: id.parse().unwrap() };
        let (old, new) = (dir("2026-01-01--7d--00000000"), dir("2026-01-08--7d--00000000"));
        let [a, b] = [1, 2].map(|byte| Hash256([byte; 32]));
        let at: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let later = at + chrono::TimeDelta::days(1);
        state.set_read(&one, &old, &[a, b], at).await.unwrap();
        state.set_read(&one, &old, &[b], later).await.unwrap();
        state.set_read(&one, &new, &[a], at).await.unwrap();
        let reads = state.reads(&one, &source).await.unwrap();
        assert_eq!(reads[&old], HashMap::from([(a, at), (b, later)]));
        assert_eq!(reads[&new], HashMap::from([(a, at)]));
        assert_eq!(state.reads(&two, &source).await.unwrap(), Reads::new(), "another vault was not read");
        state.keep_reads(&one, &source, std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(state.reads(&one, &source).await.unwrap().into_keys().collect::<Vec<_>>(), [new]);
    }

    #[tokio::test]
    async fn a_turn_goes_on_until_it_was_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        let vault: VaultId = "1".repeat(32).parse().unwrap();
        let source: SourceName = "db".parse().unwrap();
        let turn = async |day| state.read_turn(&vault, &source, 7, day).await.unwrap();
        assert_eq!(turn(100).await, (100, 100));
        // Begun, and cut: it goes on, and since when it does is known.
        state.begin_read_turn(&vault, &source, 7, (100, 100)).await.unwrap();
        for day in [100, 101, 105] {
            assert_eq!(turn(day).await, (100, 100), "{day}");
        }
        state.set_read_turn(&vault, &source, 7, (105, 100)).await.unwrap();
        assert_eq!((turn(105).await, turn(107).await), ((100, 105), (101, 106)));
        // One that is cut after another one was read changes nothing.
        state.begin_read_turn(&vault, &source, 7, (107, 101)).await.unwrap();
        assert_eq!((turn(107).await, turn(109).await), ((101, 106), (101, 106)));
        assert_eq!(state.read_turn(&vault, &source, 30, 100).await.unwrap(), (100, 100), "other shares have their own");
    }
}

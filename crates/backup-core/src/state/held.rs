//! How many rows the tables of the last snapshots held: manifests say it too, and this host cannot read them.
//!
//! A memory, and no more: it is bound to the signed document by its SHA-256, and a loss costs one night's comparison of single
//! tables. Kept are the newest snapshot without an anomaly and those after it, of which somebody may yet say that they are right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::Row;

use super::{State, StateError};
use crate::anomaly::{Facts, Size};
use crate::id::{Hash256, SourceName};
use crate::vault::layout::SnapshotId;

/// So many snapshots with an anomaly are remembered; of older ones totals are compared when they are accepted.
const ANOMALOUS: i64 = 16;

/// A snapshot that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub snapshot: SnapshotId,
    /// SHA-256 of its document.
    pub sha256: Hash256,
    /// Whether it was found to have lost something; other reasons to be suspect do not count.
    pub anomalous: bool,
}

/// A table's row: schema, name, sizes.
type Row4 = (String, String, u64, u64);

/// [`Facts`] as they are stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    plain_bytes: u64,
    tables: Vec<Row4>,
    excluded: Vec<(String, String)>,
    /// Absent in what earlier versions remembered.
    #[serde(default)]
    foreign: Vec<(String, String)>,
}

impl State {
    /// Remembers what a committed snapshot held, and forgets what will not be compared with any more.
    pub async fn remember(&self, source: &SourceName, held: &Held, facts: &Facts) -> Result<(), StateError> {
        let table =
            |((schema, name), size): (&(String, String), &Size)| (schema.clone(), name.clone(), size.rows, size.bytes);
        let stored = Stored {
            plain_bytes: facts.plain_bytes,
            tables: facts.tables.iter().map(table).collect(),
            excluded: facts.excluded.iter().cloned().collect(),
            foreign: facts.foreign.iter().cloned().collect(),
        };
        let text = serde_json::to_string(&stored).expect("numbers and texts can be written");
        let mut all = self.pool.begin().await.map_err(|e| self.failed(e))?;
        sqlx::query("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?)")
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .bind(held.snapshot.as_str())
            .bind(&held.sha256.0[..])
            .bind(held.anomalous)
            .bind(text)
            .execute(&mut *all)
            .await
            .map_err(|e| self.failed(e))?;
        let forget = "DELETE FROM held WHERE stack = ?1 AND source = ?2 AND (
                snapshot < (SELECT max(snapshot) FROM held WHERE stack = ?1 AND source = ?2 AND NOT anomalous)
                OR (anomalous AND snapshot NOT IN (SELECT snapshot FROM held
                    WHERE stack = ?1 AND source = ?2 AND anomalous ORDER BY snapshot DESC LIMIT ?3)))";
        sqlx::query(forget)
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .bind(ANOMALOUS)
            .execute(&mut *all)
            .await
            .map_err(|e| self.failed(e))?;
        all.commit().await.map_err(|e| self.failed(e))
    }

    /// The snapshots of a source that are remembered, by name.
    pub async fn remembered(&self, source: &SourceName) -> Result<BTreeMap<SnapshotId, Held>, StateError> {
        let rows = sqlx::query("SELECT snapshot, sha256, anomalous FROM held WHERE stack = ? AND source = ?")
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let held = |row: &sqlx::sqlite::SqliteRow| {
            let snapshot: SnapshotId = row.get::<String, _>(0).parse().ok()?;
            let sha256 = Hash256(row.get::<Vec<u8>, _>(1).try_into().ok()?);
            Some((snapshot.clone(), Held { snapshot, sha256, anomalous: row.get(2) }))
        };
        Ok(rows.iter().filter_map(held).collect())
    }

    /// What a remembered snapshot held; `None` where that is not remembered, or cannot be read any more.
    pub async fn facts(&self, source: &SourceName, snapshot: &SnapshotId) -> Result<Option<Facts>, StateError> {
        let row = sqlx::query("SELECT facts FROM held WHERE stack = ? AND source = ? AND snapshot = ?")
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .bind(snapshot.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let stored = row.and_then(|row| serde_json::from_str::<Stored>(&row.get::<String, _>(0)).ok());
        let table = |(schema, name, rows, bytes): Row4| ((schema, name), Size { rows, bytes });
        Ok(stored.map(|stored| Facts {
            tables: stored.tables.into_iter().map(table).collect(),
            excluded: stored.excluded.into_iter().collect(),
            foreign: stored.foreign.into_iter().collect(),
            plain_bytes: stored.plain_bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(day: u32) -> SnapshotId {
        format!("202611{day:02}T020000Z-1r-abc234").parse().unwrap()
    }

    async fn remember(state: &State, source: &str, day: u32, anomalous: bool) -> Facts {
        let held = Held { snapshot: id(day), sha256: Hash256([7; 32]), anomalous };
        let size = Size { rows: u64::from(day), bytes: u64::MAX };
        let facts = Facts {
            tables: [(("s".to_owned(), "odd \"\u{e9}".to_owned()), size)].into(),
            excluded: [("s".to_owned(), "out".to_owned())].into(),
            foreign: [("s".to_owned(), "far".to_owned())].into(),
            plain_bytes: 9,
        };
        state.remember(&source.parse().unwrap(), &held, &facts).await.unwrap();
        facts
    }

    async fn days(state: &State, source: &str) -> Vec<u32> {
        let held = state.remembered(&source.parse().unwrap()).await.unwrap();
        held.into_keys().map(|id| chrono::Datelike::day(&id.instant())).collect()
    }

    #[tokio::test]
    async fn the_newest_good_one_and_those_after_it_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let stack = "one".parse().unwrap();
        let state = State::open(dir.path(), &stack).await.unwrap();
        let db: SourceName = "db".parse().unwrap();
        remember(&state, "other", 1, false).await;
        remember(&state, "db", 1, false).await;
        let facts = remember(&state, "db", 2, false).await;
        assert_eq!(days(&state, "db").await, [2]);
        for day in 3..=20 {
            remember(&state, "db", day, true).await;
        }
        let mut expected = vec![2];
        expected.extend(5..=20);
        assert_eq!(days(&state, "db").await, expected);
        assert_eq!(state.facts(&db, &id(2)).await.unwrap(), Some(facts));
        assert_eq!(state.facts(&db, &id(4)).await.unwrap(), None);
        remember(&state, "db", 21, false).await;
        assert_eq!((days(&state, "db").await, days(&state, "other").await), (vec![21], vec![1]));
        drop(state);
        let other = State::open(dir.path(), &"two".parse().unwrap()).await.unwrap();
        assert_eq!(other.remembered(&db).await.unwrap(), BTreeMap::new());
        drop(other);
        // Opened again, by a version that knows the table already.
        let state = State::open(dir.path(), &stack).await.unwrap();
        assert!(!state.remembered(&db).await.unwrap()[&id(21)].anomalous);
        sqlx::query("UPDATE held SET facts = '{'").execute(&state.pool).await.unwrap();
        assert_eq!(state.facts(&db, &id(21)).await.unwrap(), None);
    }
}

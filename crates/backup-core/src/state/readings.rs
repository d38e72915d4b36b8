//! What reading the generations of a vault proved, so that a plan need not open again what nobody touched: see
//! [`crate::prune::history::Memory`].
//!
//! Lost, everything is read once more.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;

use super::{State, StateError};
use crate::id::{Hash256, SourceName, VaultId};
use crate::prune::history::{Noted, Proved};
use crate::vault::layout::{GenerationDir, GenerationId};

pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS reading (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, generation TEXT NOT NULL, digest BLOB NOT NULL,
    snapshots TEXT NOT NULL, PRIMARY KEY (vault, stack, source, generation)) WITHOUT ROWID;
";

impl State {
    /// What is remembered of a source's generations in a vault. What cannot be read any more is as good as lost.
    pub async fn readings(
        &self,
        vault: &VaultId,
        source: &SourceName,
    ) -> Result<HashMap<GenerationId, Noted>, StateError> {
        let query = "SELECT generation, digest, snapshots FROM reading WHERE vault = ? AND stack = ? AND source = ?";
        let rows = self.of_source(query, vault, source).fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let noted = |row: &sqlx::sqlite::SqliteRow| {
            let id = row.get::<String, _>(0).parse().ok()?;
            let digest = Hash256(row.get::<Vec<u8>, _>(1).try_into().ok()?);
            let snapshots: Vec<Proved> = serde_json::from_str(&row.get::<String, _>(2)).ok()?;
            Some((id, Noted { digest, snapshots }))
        };
        Ok(rows.iter().filter_map(noted).collect())
    }

    /// Remembers `noted`, and forgets the generations that are not `there` any more. Writes nothing where nothing is new.
    pub async fn set_readings(
        &self,
        vault: &VaultId,
        source: &SourceName,
        noted: &[(GenerationId, Noted)],
        there: &[GenerationDir],
    ) -> Result<(), StateError> {
        let failed = |e| self.failed(e);
        let query = "SELECT generation FROM reading WHERE vault = ? AND stack = ? AND source = ?";
        let rows = self.of_source(query, vault, source).fetch_all(&self.pool).await.map_err(failed)?;
        let there: BTreeSet<&str> = there.iter().map(|dir| dir.id.as_str()).collect();
        let known = rows.iter().map(|row| row.get::<String, _>(0));
        let gone: Vec<String> = known.filter(|id| !there.contains(id.as_str())).collect();
        if noted.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let mut all = self.pool.begin().await.map_err(failed)?;
        for id in gone {
            self.of_source(
                "DELETE FROM reading WHERE vault = ? AND stack = ? AND source = ? AND generation = ?",
                vault,
                source,
            )
            .bind(id)
            .execute(&mut *all)
            .await
            .map_err(failed)?;
        }
        for (id, noted) in noted {
            let snapshots = serde_json::to_string(&noted.snapshots).expect("numbers and texts can be written");
            self.of_source("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?, ?, ?)", vault, source)
                .bind(id.as_str())
                .bind(&noted.digest.0[..])
                .bind(snapshots)
                .execute(&mut *all)
                .await
                .map_err(failed)?;
        }
        all.commit().await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_read_is_known_until_it_changes_or_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        let [one, two]: [VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
        let [db, docs]: [SourceName; 2] = ["db", "docs"].map(|name| name.parse().unwrap());
        let dir = |id: &str| GenerationDir { stack: "s".parse().unwrap(), source: db.clone(), id: id.parse().unwrap() };
        let (old, new) = (dir("2026-01-01--7d--00000000"), dir("2026-01-08--7d--00000000"));
        let noted = |byte: u8, id: &str| {
            let proved = Proved {
                id: id.parse().unwrap(),
                instant: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
                sha256: Hash256([byte; 32]),
                previous: (byte > 1).then_some(Hash256([byte - 1; 32])),
                suspect: byte > 1,
                signer: "SHA256:x".to_owned(),
            };
            Noted { digest: Hash256([byte + 100; 32]), snapshots: vec![proved] }
        };
        let (a, b) = (noted(1, "20260102T030405Z-1r-abc234"), noted(2, "20260109T030405Z-1r-def567"));
        let both = [old.clone(), new.clone()];
        state.set_readings(&one, &db, &[(old.id.clone(), a.clone())], &both).await.unwrap();
        state.set_readings(&one, &db, &[(new.id.clone(), b.clone())], &both).await.unwrap();
        let known = HashMap::from([(old.id.clone(), a), (new.id.clone(), b.clone())]);
        assert_eq!(state.readings(&one, &db).await.unwrap(), known);
        assert_eq!(state.readings(&two, &db).await.unwrap(), HashMap::new(), "another vault was not read");
        assert_eq!(state.readings(&one, &docs).await.unwrap(), HashMap::new(), "another source was not read");
        let other = State::open(folder.path(), &"t".parse().unwrap()).await.unwrap();
        assert_eq!(other.readings(&one, &db).await.unwrap(), HashMap::new(), "another stack was not read");
        state.set_readings(&one, &db, &[], std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(state.readings(&one, &db).await.unwrap(), HashMap::from([(new.id.clone(), b)]));
        sqlx::query("UPDATE reading SET snapshots = '[{}]'").execute(&state.pool).await.unwrap();
        assert_eq!(state.readings(&one, &db).await.unwrap(), HashMap::new(), "what cannot be read is lost");
    }
}

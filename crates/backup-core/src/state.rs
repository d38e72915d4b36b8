//! What this host remembers between runs: SQLite through sqlx. All of it can be lost.
//!
//! Three things: the open generation of each source (lost: a new one is opened), which chunks lie in which object (lost
//! with it), and the history of runs with the head of each source's chain (lost: the head is read from the vault again).
//! Nothing here is a secret, and nothing here is needed for a restore.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

use crate::id::{Hash256, ObjectName, SourceName};
use crate::json;
use crate::pipeline::Journal;
use crate::pipeline::known::{JournalEntry, PackedChunk};
use crate::signature::SignedBy;
use crate::vault::Signed;
use crate::vault::document::{FORMAT, GenerationDoc};
use crate::vault::layout::GenerationDir;

/// The state could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the state in `{path}` cannot be used")]
pub struct StateError {
    /// Its file.
    pub path: String,
    /// Why.
    #[source]
    pub source: sqlx::Error,
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS generation (
    source TEXT PRIMARY KEY, document BLOB NOT NULL, signature BLOB NOT NULL, signer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS object (
    generation TEXT NOT NULL, name BLOB NOT NULL, stored_bytes INTEGER NOT NULL, plain_bytes INTEGER NOT NULL,
    chunks BLOB NOT NULL, PRIMARY KEY (generation, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (
    source TEXT PRIMARY KEY, snapshot TEXT NOT NULL, sha256 BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY, job TEXT, started TEXT NOT NULL, finished TEXT, outcome TEXT, report TEXT);
";

/// The state of one stack on this host.
#[derive(Debug, Clone)]
pub struct State {
    pool: SqlitePool,
    path: String,
}

/// One run, as remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Its id.
    pub id: String,
    /// The job that it ran, where one was named.
    pub job: Option<String>,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended; absent while it runs, or when it was killed.
    pub finished: Option<DateTime<Utc>>,
    /// `done`, `partial`, `suspect` or `failed`.
    pub outcome: Option<String>,
    /// Its report, JSON.
    pub report: Option<String>,
}

impl State {
    /// Opens or makes `state.sqlite` in `dir`, which must exist.
    pub async fn open(dir: &Path) -> Result<Self, StateError> {
        let file = dir.join("state.sqlite");
        let path = file.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let failed = |source| StateError { path: path.clone(), source };
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(failed)?;
        Ok(Self { pool, path })
    }

    fn failed(&self, source: sqlx::Error) -> StateError {
        StateError { path: self.path.clone(), source }
    }

    /// The open generation of a source, as its document was signed.
    pub async fn generation(&self, source: &SourceName) -> Result<Option<Signed<GenerationDoc>>, StateError> {
        let row = sqlx::query("SELECT document, signature, signer FROM generation WHERE source = ?")
            .bind(source.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(None) };
        let bytes: Vec<u8> = row.get(0);
        // A document that cannot be read any more is as good as lost.
        let Ok(doc) = json::from_slice(&bytes, FORMAT) else { return Ok(None) };
        let signature: Vec<u8> = row.get(1);
        let by = SignedBy { fingerprint: row.get(2) };
        Ok(Some(Signed { doc, bytes: bytes.into(), signature: signature.into(), by }))
    }

    /// Remembers a new open generation and forgets what was known of older ones of this source.
    pub async fn set_generation(&self, signed: &Signed<GenerationDoc>) -> Result<(), StateError> {
        let doc = &signed.doc;
        let prefix = format!("{}/{}/", doc.stack, doc.source);
        sqlx::query("DELETE FROM object WHERE substr(generation, 1, ?) = ? AND generation <> ?")
            .bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX))
            .bind(&prefix)
            .bind(doc.dir().dir().as_str())
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        sqlx::query("INSERT OR REPLACE INTO generation VALUES (?, ?, ?, ?)")
            .bind(doc.source.as_str())
            .bind(&signed.bytes[..])
            .bind(&signed.signature[..])
            .bind(&signed.by.fingerprint)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Everything that the journal remembers of a generation.
    pub async fn journal(&self, dir: &GenerationDir) -> Result<Vec<JournalEntry>, StateError> {
        let rows = sqlx::query("SELECT name, stored_bytes, plain_bytes, chunks FROM object WHERE generation = ?")
            .bind(dir.dir().as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let entry = |row: &sqlx::sqlite::SqliteRow| {
            let (name, chunks): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(3));
            let name = Hash256(name.try_into().ok()?);
            let plain_bytes = u32::try_from(row.get::<i64, _>(2)).ok()?;
            let chunks = unpack(&name, plain_bytes, &chunks)?;
            let stored_bytes = u64::try_from(row.get::<i64, _>(1)).ok()?;
            Some(JournalEntry { name, stored_bytes, plain_bytes, chunks })
        };
        Ok(rows.iter().filter_map(entry).collect())
    }

    /// Forgets an object that was found damaged or missing: its chunks will be sealed anew.
    pub async fn forget(&self, dir: &GenerationDir, name: &ObjectName) -> Result<(), StateError> {
        sqlx::query("DELETE FROM object WHERE generation = ? AND name = ?")
            .bind(dir.dir().as_str())
            .bind(&name.0[..])
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Head of a source's chain: SHA-256 of its newest snapshot's document by this host.
    pub async fn head(&self, source: &SourceName) -> Result<Option<Hash256>, StateError> {
        let row = sqlx::query("SELECT sha256 FROM head WHERE source = ?")
            .bind(source.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(row.and_then(|row| row.get::<Vec<u8>, _>(0).try_into().ok()).map(Hash256))
    }

    /// Moves the head of a source's chain.
    pub async fn set_head(&self, source: &SourceName, snapshot: &str, sha256: Hash256) -> Result<(), StateError> {
        sqlx::query("INSERT OR REPLACE INTO head VALUES (?, ?, ?)")
            .bind(source.as_str())
            .bind(snapshot)
            .bind(&sha256.0[..])
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Remembers a run: once when it begins, again (same id) when it ends.
    pub async fn put_run(&self, run: &RunRecord) -> Result<(), StateError> {
        sqlx::query("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?)")
            .bind(&run.id)
            .bind(&run.job)
            .bind(run.started.to_rfc3339())
            .bind(run.finished.map(|t| t.to_rfc3339()))
            .bind(&run.outcome)
            .bind(&run.report)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The last `limit` runs, newest first.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRecord>, StateError> {
        let rows = sqlx::query(
            "SELECT id, job, started, finished, outcome, report FROM run ORDER BY started DESC, id DESC LIMIT ?",
        )
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        let time = |text: String| DateTime::parse_from_rfc3339(&text).ok().map(|t| t.with_timezone(&Utc));
        let record = |row: &sqlx::sqlite::SqliteRow| {
            Some(RunRecord {
                id: row.get(0),
                job: row.get(1),
                started: time(row.get(2))?,
                finished: row.get::<Option<String>, _>(3).and_then(time),
                outcome: row.get(4),
                report: row.get(5),
            })
        };
        Ok(rows.iter().filter_map(record).collect())
    }
}

#[async_trait]
impl Journal for State {
    async fn record(&self, dir: &GenerationDir, entry: &JournalEntry) {
        // A journal that cannot be written costs a second upload; it must not cost the backup.
        let _ = sqlx::query("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)")
            .bind(dir.dir().as_str())
            .bind(&entry.name.0[..])
            .bind(i64::try_from(entry.stored_bytes).unwrap_or(i64::MAX))
            .bind(i64::from(entry.plain_bytes))
            .bind(pack(&entry.name, &entry.chunks))
            .execute(&self.pool)
            .await;
    }
}

const PACKED_BYTES: usize = 40;

/// The chunks of an object, with a hash over them and the object's name: a wrong bit in here would put wrong bytes into every
/// later snapshot of the generation, and `SQLite` does not look for one.
fn pack(name: &ObjectName, chunks: &[PackedChunk]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunks.len() * PACKED_BYTES + 32);
    for chunk in chunks {
        out.extend_from_slice(&chunk.id.0);
        out.extend_from_slice(&chunk.offset.to_le_bytes());
        out.extend_from_slice(&chunk.bytes.to_le_bytes());
    }
    let sum = sum(name, &out);
    out.extend_from_slice(&sum.0);
    out
}

fn sum(name: &ObjectName, packed: &[u8]) -> Hash256 {
    Hash256::of(&[&name.0[..], packed].concat())
}

/// `None` for what is not exactly what was packed for this object, or does not fill it from its start to its end.
fn unpack(name: &ObjectName, plain_bytes: u32, bytes: &[u8]) -> Option<Vec<PackedChunk>> {
    let (packed, hash) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if sum(name, packed).0 != *hash || !packed.len().is_multiple_of(PACKED_BYTES) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_le_bytes);
    let chunk = |part: &[u8]| {
        Some(PackedChunk {
            id: Hash256(part.get(..32)?.try_into().ok()?),
            offset: number(part.get(32..36)?)?,
            bytes: number(part.get(36..40)?)?,
        })
    };
    let chunks: Vec<PackedChunk> = packed.chunks(PACKED_BYTES).map(chunk).collect::<Option<_>>()?;
    let end = chunks.iter().try_fold(0_u32, |at, chunk| (chunk.offset == at).then_some(at + chunk.bytes));
    (end == Some(plain_bytes)).then_some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_row_with_a_wrong_bit_is_forgotten() {
        let name = Hash256([7; 32]);
        let chunks = vec![
            PackedChunk { id: Hash256([1; 32]), offset: 0, bytes: 9 },
            PackedChunk { id: Hash256([2; 32]), offset: 9, bytes: 4 },
        ];
        let packed = pack(&name, &chunks);
        assert_eq!(unpack(&name, 13, &packed), Some(chunks.clone()));
        assert_eq!(unpack(&name, 14, &packed), None, "another length");
        assert_eq!(unpack(&Hash256([8; 32]), 13, &packed), None, "another object");
        for at in [0, 33, 70, packed.len() - 1] {
            let mut wrong = packed.clone();
            wrong[at] ^= 1;
            assert_eq!(unpack(&name, 13, &wrong), None, "byte {at}");
        }
        assert_eq!(unpack(&name, 13, &packed[1..]), None);
        assert_eq!(unpack(&name, 0, &[]), None);
    }
}

//! What this host remembers between runs: SQLite through sqlx. All of it can be lost.
//!
//! Four things: the open generation of each source (lost: a new one is opened), which chunks lie in which object (lost
//! with it), the history of runs with the head of each source's chain (lost: the head is read from the vault again), and how
//! many rows the tables of the last snapshots held (`held`; lost: the next capture is compared by its totals only).
//! Nothing here is a secret, and nothing here is needed for a restore.

mod commits;
mod freezes;
pub mod held;
mod readings;
mod reads;
mod renew;
mod renewed;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqlitePool};

use crate::id::{ChunkId, Hash256, ObjectName, SourceName, StackName, VaultId};
use crate::json;
use crate::pipeline::Journal;
use crate::pipeline::known::{JournalEntry, PackedChunk};
use crate::signature::SignedBy;
use crate::vault::Signed;
use crate::vault::document::{FORMAT, GenerationDoc};
use crate::vault::layout::GenerationDir;

pub use renewed::RECALL;

/// The state could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The database failed.
    #[error("the state in `{path}` cannot be used")]
    Database {
        /// Its file.
        path: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Its pages contradict each other.
    #[error("the state in `{path}` is damaged: {reason}")]
    Broken {
        /// Its file.
        path: String,
        /// What `SQLite` found first.
        reason: String,
    },
    /// It is broken, and cannot be moved aside.
    #[error("the state in `{path}` is damaged and cannot be moved aside")]
    Aside {
        /// Its file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A newer program made it.
    #[error("the state in `{path}` has version {found}, and this program knows up to {VERSION}")]
    Newer {
        /// Its file.
        path: String,
        /// Its version.
        found: i64,
    },
}

/// Version of the tables.
const VERSION: i64 = 4;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS generation (
    stack TEXT NOT NULL, source TEXT NOT NULL, document BLOB NOT NULL, signature BLOB NOT NULL, signer TEXT NOT NULL,
    PRIMARY KEY (stack, source));
CREATE TABLE IF NOT EXISTS object (
    generation TEXT NOT NULL, name BLOB NOT NULL, stored_bytes INTEGER NOT NULL, plain_bytes INTEGER NOT NULL,
    chunks BLOB NOT NULL, PRIMARY KEY (generation, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (
    stack TEXT NOT NULL, source TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 BLOB NOT NULL, PRIMARY KEY (stack, source));
CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY, job TEXT, started TEXT NOT NULL, finished TEXT, outcome TEXT, report TEXT, stack TEXT);
CREATE TABLE IF NOT EXISTS damage (
    vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, generation TEXT NOT NULL, item TEXT NOT NULL,
    deep INTEGER NOT NULL, PRIMARY KEY (vault, stack, source, generation, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS held (
    stack TEXT NOT NULL, source TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 BLOB NOT NULL, anomalous INTEGER NOT NULL,
    facts TEXT NOT NULL, PRIMARY KEY (stack, source, snapshot));
PRAGMA user_version = 4;
";

/// Version 3 did not remember what snapshots held: the tables of the next one are not compared.
const FROM_3: &str = "
CREATE TABLE IF NOT EXISTS held (
    stack TEXT NOT NULL, source TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 BLOB NOT NULL, anomalous INTEGER NOT NULL,
    facts TEXT NOT NULL, PRIMARY KEY (stack, source, snapshot));
PRAGMA user_version = 4;
";

/// Version 2 named chunks by another hash: none of them will be met again. Only a second upload is lost.
const FROM_2: &str = "
DELETE FROM object;
PRAGMA user_version = 3;
";

/// Version 1 did not say how damage was found: only a check of everything may call that good again.
const FROM_1: &str = "
ALTER TABLE damage ADD COLUMN deep INTEGER NOT NULL DEFAULT 1;
PRAGMA user_version = 2;
";

/// Version 0 knew no stacks: two that shared a folder took each other's generation and head. A remembered generation says
/// whose it is, a head does not: heads are taken over only where everything that is remembered names one and the same stack.
/// What cannot be told apart is dropped, because it can be lost: a head is read from the vault again.
const FROM_0: [&str; 2] = [
    "
ALTER TABLE generation RENAME TO generation_0;
ALTER TABLE head RENAME TO head_0;
ALTER TABLE run ADD COLUMN stack TEXT;
",
    "
INSERT INTO generation SELECT * FROM (
    SELECT CASE WHEN json_valid(CAST(document AS TEXT)) THEN json_extract(CAST(document AS TEXT), '$.stack') END AS stack,
        source, document, signature, signer FROM generation_0) WHERE stack IS NOT NULL;
INSERT INTO head SELECT generation.stack, head_0.source, head_0.snapshot, head_0.sha256
    FROM head_0 JOIN generation ON generation.source = head_0.source
    WHERE (SELECT count(DISTINCT stack) FROM (
        SELECT stack FROM generation UNION SELECT substr(generation, 1, instr(generation, '/') - 1) FROM object)) = 1;
UPDATE run SET stack = (SELECT min(stack) FROM generation) WHERE (SELECT count(DISTINCT stack) FROM generation) = 1;
DROP TABLE generation_0;
DROP TABLE head_0;
",
];

/// Makes the file its owner's only: it names tables and counts rows. SQLite gives the files beside it the same rights. What cannot be
/// done here is told by the database, or is another owner's to decide.
///
/// A database that is there is never opened for it: closing a handle drops every lock that this process holds on the file (POSIX), and
/// another process could then take the log away from under a state that is open here.
fn private(file: &Path) {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    if std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).is_ok() {
        return;
    }
    for end in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        if std::fs::metadata(&name).is_ok_and(|found| found.permissions().mode() & 0o077 != 0) {
            let _ = std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o600));
        }
    }
}

/// The state of one stack on this host. Several stacks may share a folder.
#[derive(Debug, Clone)]
pub struct State {
    pool: SqlitePool,
    path: String,
    stack: StackName,
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
    /// Opens or makes `state.sqlite` in `dir`, which must exist, for `stack`.
    pub async fn open(dir: &Path, stack: &StackName) -> Result<Self, StateError> {
        Self::open_file(&dir.join("state.sqlite"), stack).await
    }

    async fn open_file(file: &Path, stack: &StackName) -> Result<Self, StateError> {
        private(file);
        let path = file.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let failed = |source| StateError::Database { path: path.clone(), source };
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        match migrate(&pool).await {
            Ok(None) => {}
            Ok(Some(found)) => return Err(StateError::Newer { path, found }),
            Err(source) => {
                pool.close().await;
                return Err(failed(source));
            }
        }
        Ok(Self { pool, path, stack: stack.clone() })
    }

    fn failed(&self, source: sqlx::Error) -> StateError {
        StateError::Database { path: self.path.clone(), source }
    }

    /// A statement whose first three parameters are a vault, this stack, and a source.
    fn of_source(
        &self,
        sql: &'static str,
        vault: &VaultId,
        source: &SourceName,
    ) -> Query<'static, Sqlite, SqliteArguments> {
        let (stack, source) = (self.stack.as_str().to_owned(), source.as_str().to_owned());
        sqlx::query(sql).bind(vault.to_string()).bind(stack).bind(source)
    }

    /// The open generation of a source, as its document was signed.
    pub async fn generation(&self, source: &SourceName) -> Result<Option<Signed<GenerationDoc>>, StateError> {
        let row = sqlx::query("SELECT document, signature, signer FROM generation WHERE stack = ? AND source = ?")
            .bind(self.stack.as_str())
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
        sqlx::query("INSERT OR REPLACE INTO generation VALUES (?, ?, ?, ?, ?)")
            .bind(self.stack.as_str())
            .bind(doc.source.as_str())
            .bind(&signed.bytes[..])
            .bind(&signed.signature[..])
            .bind(&signed.by.fingerprint)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Hands everything that the journal remembers of a generation to `take`, entry by entry: a source may have a quarter of a
    /// million.
    pub async fn journal(&self, dir: &GenerationDir, mut take: impl FnMut(JournalEntry)) -> Result<(), StateError> {
        let dir = dir.dir();
        let mut rows = sqlx::query("SELECT name, stored_bytes, plain_bytes, chunks FROM object WHERE generation = ?")
            .bind(dir.as_str())
            .fetch(&self.pool);
        let entry = |row: &sqlx::sqlite::SqliteRow| {
            let (name, chunks): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(3));
            let name = Hash256(name.try_into().ok()?);
            let plain_bytes = u32::try_from(row.get::<i64, _>(2)).ok()?;
            let chunks = unpack(&name, plain_bytes, &chunks)?;
            let stored_bytes = u64::try_from(row.get::<i64, _>(1)).ok()?;
            Some(JournalEntry { name, stored_bytes, plain_bytes, chunks })
        };
        while let Some(row) = rows.try_next().await.map_err(|e| self.failed(e))? {
            if let Some(entry) = entry(&row) {
                take(entry);
            }
        }
        Ok(())
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
        Ok(self.newest(source).await?.map(|(_, head)| head))
    }

    /// The newest snapshot of a source by this host: its name, and the head of the chain.
    pub async fn newest(&self, source: &SourceName) -> Result<Option<(String, Hash256)>, StateError> {
        let row = sqlx::query("SELECT snapshot, sha256 FROM head WHERE stack = ? AND source = ?")
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(row.and_then(|row| Some((row.get(0), Hash256(row.get::<Vec<u8>, _>(1).try_into().ok()?)))))
    }

    /// Moves the head of a source's chain.
    pub async fn set_head(&self, source: &SourceName, snapshot: &str, sha256: Hash256) -> Result<(), StateError> {
        sqlx::query("INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?)")
            .bind(self.stack.as_str())
            .bind(source.as_str())
            .bind(snapshot)
            .bind(&sha256.0[..])
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Remembers that something of a generation is damaged in a vault: an object, or a snapshot whose objects are good. `deep`
    /// is what shows only when everything is decrypted; what was once found so stays so.
    pub async fn set_damaged(
        &self,
        vault: &VaultId,
        dir: &GenerationDir,
        item: &str,
        deep: bool,
    ) -> Result<(), StateError> {
        let query = "INSERT INTO damage (vault, stack, source, generation, item, deep) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET deep = max(deep, excluded.deep)";
        sqlx::query(query)
            .bind(vault.to_string())
            .bind(dir.stack.as_str())
            .bind(dir.source.as_str())
            .bind(dir.id.as_str())
            .bind(item)
            .bind(deep)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// Forgets that something was damaged: it is good again, or gone with its generation.
    pub async fn set_good(&self, vault: &VaultId, dir: &GenerationDir, item: &str) -> Result<(), StateError> {
        sqlx::query("DELETE FROM damage WHERE vault = ? AND stack = ? AND source = ? AND generation = ? AND item = ?")
            .bind(vault.to_string())
            .bind(dir.stack.as_str())
            .bind(dir.source.as_str())
            .bind(dir.id.as_str())
            .bind(item)
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// What is known to be damaged in a vault: names of objects and of snapshots, each with its generation.
    pub async fn damaged(&self, vault: &VaultId) -> Result<BTreeSet<(GenerationDir, String)>, StateError> {
        Ok(self.damage(vault).await?.into_keys().collect())
    }

    /// The same, each with whether it shows only when everything is decrypted.
    pub async fn damage(&self, vault: &VaultId) -> Result<BTreeMap<(GenerationDir, String), bool>, StateError> {
        let rows = sqlx::query("SELECT source, generation, item, deep FROM damage WHERE vault = ? AND stack = ?")
            .bind(vault.to_string())
            .bind(self.stack.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        let entry = |row: &sqlx::sqlite::SqliteRow| {
            let (source, id): (String, String) = (row.get(0), row.get(1));
            let dir = GenerationDir { stack: self.stack.clone(), source: source.parse().ok()?, id: id.parse().ok()? };
            Some(((dir, row.get(2)), row.get(3)))
        };
        Ok(rows.iter().filter_map(entry).collect())
    }

    /// Remembers a run: once when it begins, again (same id) when it ends.
    pub async fn put_run(&self, run: &RunRecord) -> Result<(), StateError> {
        // Not replaced: a run keeps its place among the others when it ends.
        let sql = "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET job = excluded.job, \
             started = excluded.started, finished = excluded.finished, outcome = excluded.outcome, report = excluded.report, \
             stack = excluded.stack";
        sqlx::query(sql)
            .bind(&run.id)
            .bind(&run.job)
            .bind(run.started.to_rfc3339())
            .bind(run.finished.map(|t| t.to_rfc3339()))
            .bind(&run.outcome)
            .bind(&run.report)
            .bind(self.stack.as_str())
            .execute(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The last `limit` runs, the one that began last first: in the order in which they were noted. A clock that was a year ahead once
    /// must not make that run the last for a year.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunRecord>, StateError> {
        let rows = sqlx::query(
            "SELECT id, job, started, finished, outcome, report FROM run WHERE stack = ? OR stack IS NULL
             ORDER BY rowid DESC LIMIT ?",
        )
        .bind(self.stack.as_str())
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

/// Tables that came since, each with what uses it. They are made where they are missing, so that the version need not change:
/// an older program leaves them alone.
const ADDED: [&str; 6] = [commits::TABLE, freezes::TABLE, readings::TABLE, reads::TABLES, renewed::TABLES, seen::TABLE];

/// Makes the tables, or brings those of an older version up to date; all or nothing, and one process at a time. Gives the
/// version where it is a newer one; then nothing is touched.
async fn migrate(pool: &SqlitePool) -> Result<Option<i64>, sqlx::Error> {
    let mut all = pool.begin_with("BEGIN IMMEDIATE").await?;
    let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *all).await?.get(0);
    if version > VERSION {
        return Ok(Some(version));
    }
    let tables: i64 =
        sqlx::query("SELECT count(*) FROM sqlite_master WHERE name = 'generation'").fetch_one(&mut *all).await?.get(0);
    let steps: &[&'static str] = match version {
        0 if tables > 0 => &[FROM_0[0], SCHEMA, FROM_0[1], FROM_2, FROM_3],
        0 => &[SCHEMA],
        1 => &[FROM_1, FROM_2, FROM_3],
        2 => &[FROM_2, FROM_3],
        3 => &[FROM_3],
        _ => &[],
    };
    for sql in steps.iter().chain(&ADDED) {
        sqlx::raw_sql(*sql).execute(&mut *all).await?;
    }
    all.commit().await?;
    Ok(None)
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
            id: ChunkId(part.get(..32)?.try_into().ok()?),
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

    #[tokio::test]
    async fn stacks_that_share_a_folder_do_not_share_heads() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| name.parse::<StackName>().unwrap());
        let source: SourceName = "db".parse().unwrap();
        let first = State::open(dir.path(), &one).await.unwrap();
        first.set_head(&source, "s", Hash256([1; 32])).await.unwrap();
        let run = RunRecord {
            id: "r".into(),
            job: None,
            started: DateTime::UNIX_EPOCH,
            finished: None,
            outcome: None,
            report: None,
        };
        first.put_run(&run).await.unwrap();
        drop(first);
        let second = State::open(dir.path(), &two).await.unwrap();
        assert_eq!(second.head(&source).await.unwrap(), None);
        assert_eq!(second.runs(9).await.unwrap(), []);
        second.set_head(&source, "s", Hash256([2; 32])).await.unwrap();
        drop(second);
        let first = State::open(dir.path(), &one).await.unwrap();
        assert_eq!(first.head(&source).await.unwrap(), Some(Hash256([1; 32])));
        assert_eq!(first.runs(9).await.unwrap(), std::slice::from_ref(&run));
        // The last is the one that was noted last, also where the clock was ahead before, and it stays that when it ends.
        let ahead =
            RunRecord { id: "a".into(), started: DateTime::UNIX_EPOCH + chrono::TimeDelta::days(9), ..run.clone() };
        let back = RunRecord { id: "b".into(), ..run };
        for noted in [&ahead, &back, &RunRecord { outcome: Some("done".into()), ..ahead.clone() }] {
            first.put_run(noted).await.unwrap();
        }
        let ids: Vec<String> = first.runs(2).await.unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(ids, ["b", "a"]);
    }

    /// The locks that this process holds on a database: one for as long as it is open. Those on the log come and go.
    fn locks(file: &Path) -> usize {
        use std::os::unix::fs::MetadataExt as _;
        let inode = format!(":{} ", std::fs::metadata(file).unwrap().ino());
        let own = format!(" {} ", std::process::id());
        let held = std::fs::read_to_string("/proc/locks").unwrap();
        held.lines().filter(|line| line.contains(&own) && line.contains(&inode)).count()
    }

    #[tokio::test]
    async fn making_the_files_private_again_drops_no_lock() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state.sqlite");
        let state = State::open(dir.path(), &"one".parse().unwrap()).await.unwrap();
        state.runs(1).await.unwrap();
        let held = locks(&file);
        assert!(held > 0, "a state that is open holds its database");
        for mode in [0o600, 0o644] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            private(&file);
            // Fails where the file is opened for it: closing a handle drops them all.
            assert_eq!(locks(&file), held, "{mode:o}");
        }
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(state);
    }

    /// A folder with a database that `sql` made.
    async fn made_by(sql: &'static str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        execute(dir.path(), sql).await;
        dir
    }

    async fn execute(dir: &Path, sql: &'static str) {
        let options = SqliteConnectOptions::new().filename(dir.join("state.sqlite")).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        pool.close().await;
    }

    const OLD: &str = r#"
CREATE TABLE generation (source TEXT PRIMARY KEY, document BLOB NOT NULL, signature BLOB NOT NULL, signer TEXT NOT NULL);
CREATE TABLE object (generation TEXT NOT NULL, name BLOB NOT NULL, stored_bytes INTEGER NOT NULL,
    plain_bytes INTEGER NOT NULL, chunks BLOB NOT NULL, PRIMARY KEY (generation, name)) WITHOUT ROWID;
CREATE TABLE head (source TEXT PRIMARY KEY, snapshot TEXT NOT NULL, sha256 BLOB NOT NULL);
CREATE TABLE run (id TEXT PRIMARY KEY, job TEXT, started TEXT NOT NULL, finished TEXT, outcome TEXT, report TEXT);
INSERT INTO generation VALUES ('db', CAST('{"stack": "one"}' AS BLOB), x'00', 'SHA256:x'), ('odd', x'ff', x'00', '');
INSERT INTO head VALUES ('db', 's', zeroblob(32)), ('odd', 's', zeroblob(32));
INSERT INTO run VALUES ('r', NULL, '2026-01-01T00:00:00Z', NULL, NULL, NULL);
"#;

    #[tokio::test]
    async fn the_head_of_a_folder_that_two_stacks_used_is_nobodys() {
        let db: SourceName = "db".parse().unwrap();
        let others = [
            "INSERT INTO object VALUES ('two/db/2026-01-01--7d--00000000', zeroblob(32), 1, 1, x'00');",
            r#"INSERT INTO generation VALUES ('docs', CAST('{"stack": "two"}' AS BLOB), x'00', 'SHA256:x');"#,
        ];
        for other in others {
            let dir = made_by(OLD).await;
            execute(dir.path(), other).await;
            // Fails where the stack of a generation of the same source is taken for the head's.
            let state = State::open(dir.path(), &"one".parse().unwrap()).await.unwrap();
            assert_eq!(state.head(&db).await.unwrap(), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_newer_version_is_refused_by_name() {
        let dir = made_by("PRAGMA user_version = 5;").await;
        let error = State::open(dir.path(), &"one".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, StateError::Newer { found: 5, .. }), "{error:?}");
        assert!(error.to_string().ends_with("has version 5, and this program knows up to 4"), "{error}");
    }

    #[tokio::test]
    async fn damage_of_version_1_is_kept_until_everything_is_checked() {
        let dir = made_by(
            "CREATE TABLE damage (vault TEXT NOT NULL, stack TEXT NOT NULL, source TEXT NOT NULL, generation TEXT NOT NULL,
                 item TEXT NOT NULL, PRIMARY KEY (vault, stack, source, generation, item)) WITHOUT ROWID;
             CREATE TABLE object (name BLOB);
             INSERT INTO damage VALUES ('00000000000000000000000000000001', 'one', 'db', '2026-01-01--7d--00000000', 'x');
             PRAGMA user_version = 1;",
        )
        .await;
        let vault: VaultId = "00000000000000000000000000000001".parse().unwrap();
        for _ in 0..2 {
            let state = State::open(dir.path(), &"one".parse().unwrap()).await.unwrap();
            let damage = state.damage(&vault).await.unwrap();
            assert_eq!(damage.values().collect::<Vec<_>>(), [&true]);
            let (generation, item) = damage.into_keys().next().unwrap();
            // What is seen again from less deep stays what it was.
            state.set_damaged(&vault, &generation, &item, false).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_state_of_an_older_version_is_taken_over_by_its_own_stack() {
        let dir = made_by(OLD).await;
        let [db, odd] = ["db", "odd"].map(|name| name.parse::<SourceName>().unwrap());
        for (stack, head, runs) in
            [("one", Some(Hash256([0; 32])), 1), ("two", None, 0), ("one", Some(Hash256([0; 32])), 1)]
        {
            let state = State::open(dir.path(), &stack.parse().unwrap()).await.unwrap();
            assert_eq!(state.head(&db).await.unwrap(), head, "{stack}");
            assert_eq!(state.head(&odd).await.unwrap(), None, "what says not whose it is can be lost");
            assert_eq!(state.runs(9).await.unwrap().len(), runs, "{stack}");
        }
    }

    #[test]
    fn a_journal_row_with_a_wrong_bit_is_forgotten() {
        let name = Hash256([7; 32]);
        let chunks = vec![
            PackedChunk { id: ChunkId([1; 32]), offset: 0, bytes: 9 },
            PackedChunk { id: ChunkId([2; 32]), offset: 9, bytes: 4 },
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

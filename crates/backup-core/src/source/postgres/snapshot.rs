//! The coordinator: locks first, then the snapshot, and both held to the end.
//!
//! TRUNCATE and rewrites are not MVCC-safe: a table truncated after our snapshot and before our lock looks empty to
//! us, with no error anywhere. So every table is locked *before* the snapshot is taken, in one statement, all or
//! nothing. What the lock really took is read back from `pg_locks`, because a name can change hands between listing
//! and locking. A table that only the snapshot shows is locked without waiting, and its file node compared.
//!
//! If the server's lock table is too small for everything twice (ours and `pg_dump`'s), nothing is locked here: then
//! workers lock table by table and the comparison of file nodes around each COPY decides.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::catalog::{self, Relation};
use super::error::{PostgresError, sql_state};
use super::formats;
use super::names::{Encoding, literal, shown};
use super::options::ConnectOptions;
use super::plan::{self, Plan, Table};
use super::rows::RowFormat;
use super::session::{Session, column};
use crate::manifest::Kept;

/// An open transaction with its exported snapshot. Dropping or closing it ends the snapshot.
#[derive(Debug)]
pub(super) struct Coordinator {
    /// The session; tables that a worker cannot lock are copied here.
    pub(super) session: Session,
    /// The snapshot's id, for other sessions.
    pub(super) snapshot: String,
    /// The server's clock when the snapshot was taken, not later than the snapshot.
    pub(super) instant: DateTime<Utc>,
    /// Whether every table is locked here.
    pub(super) locked: bool,
}

/// Milliseconds to wait for one lock. Short: whoever comes after a waiting lock request waits as well.
pub(super) const LOCK_TIMEOUT_MS: u32 = 3000;

const EXPORTING: &str = "exporting a snapshot";

impl Coordinator {
    /// Locks every table of `before` whose rows are kept, then takes the snapshot. `Disturbed` if a lock was not had.
    pub(super) async fn take(
        mut session: Session,
        before: &[Table],
        encoding: &Encoding,
    ) -> Result<Self, PostgresError> {
        let room = lock_room(&mut session).await?;
        let wanted: Vec<&Relation> = before.iter().filter(|t| t.kept != Kept::Excluded).map(|t| &t.relation).collect();
        let mut locked = 2 * wanted.len() <= room;
        begin(&mut session).await?;
        if locked && !wanted.is_empty() {
            let names: Vec<String> =
                wanted.iter().map(|r| format!("ONLY {}", encoding.qualified(&r.schema, &r.name))).collect();
            let sql = format!(
                "SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; LOCK TABLE {} IN ACCESS SHARE MODE; SET LOCAL lock_timeout = 0",
                names.join(", ")
            );
            if let Err(error) = session.attempt(sql).await {
                match sql_state(&error).as_deref() {
                    Some("53200") => {
                        session.run("ending a transaction", "ROLLBACK").await?;
                        begin(&mut session).await?;
                        locked = false;
                    }
                    Some("55P03" | "40P01" | "57014") => {
                        let _ = session.attempt("ROLLBACK").await;
                        let blockers = blockers(&mut session).await;
                        let what = "a table could not be locked in time".to_owned();
                        return Err(PostgresError::Disturbed { what, blockers, source: Some(error) });
                    }
                    Some("42P01" | "3F000" | "XX000") => {
                        return Err(PostgresError::disturbed("a table went away while it was locked", Some(error)));
                    }
                    _ => return Err(PostgresError::during("locking the tables")(error)),
                }
            }
        }
        // The first statement that needs a snapshot: from here on the data stands still. `statement_timestamp` was
        // taken just before it, so nothing committed before that instant is missing.
        let sql = "SELECT pg_catalog.pg_export_snapshot() AS id, \
            (extract(epoch FROM pg_catalog.statement_timestamp()) * 1000000)::int8 AS micros";
        let row = session.one(EXPORTING, sql).await?;
        let instant = DateTime::from_timestamp_micros(column(&row, "micros", EXPORTING)?).unwrap_or_default();
        Ok(Self { session, snapshot: column(&row, "id", EXPORTING)?, instant, locked })
    }

    /// Lists again inside the snapshot, takes in what came between listing and locking, and gives the plan.
    pub(super) async fn plan(
        &mut self,
        exclude: &[String],
        encoding: &Encoding,
        standby: bool,
    ) -> Result<Plan, PostgresError> {
        let relations = catalog::relations(&mut self.session).await?;
        let plan = plan::plan(&relations, exclude, standby)?;
        let wanted: Vec<&Relation> =
            plan.tables.iter().filter(|t| t.kept != Kept::Excluded).map(|t| &t.relation).collect();
        if self.locked {
            let held = self.held().await?;
            for newcomer in wanted.iter().filter(|r| !held.contains(&r.oid)) {
                let name = encoding.qualified(&newcomer.schema, &newcomer.name);
                let sql = format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE NOWAIT");
                self.session.attempt(sql).await.map_err(|error| {
                    PostgresError::disturbed(
                        format!("new table `{}` could not be locked", newcomer.shown()),
                        Some(error),
                    )
                })?;
            }
            let held = self.held().await?;
            if let Some(lost) = wanted.iter().find(|r| !held.contains(&r.oid)) {
                let what = format!("table `{}` was replaced by another one of its name", lost.shown());
                return Err(PostgresError::disturbed(what, None));
            }
            self.compare_nodes(&wanted).await?;
        }
        Ok(plan)
    }

    /// Adds columns, as of the snapshot, and sizes, as of now.
    pub(super) async fn look_closer(
        &mut self,
        tables: &mut [Table],
        version: i64,
        encoding: &Encoding,
    ) -> Result<(), PostgresError> {
        let mut columns = catalog::columns(&mut self.session, version).await?;
        let oids: Vec<i64> = tables.iter().filter(|t| t.kept != Kept::Excluded).map(|t| t.relation.oid).collect();
        // This can wait for a lock only where we hold none.
        self.session.run("setting a timeout", format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")).await?;
        let sizes = catalog::sizes(&mut self.session, &oids).await.map_err(as_disturbance)?;
        self.session.run("setting a timeout", "SET LOCAL lock_timeout = 0").await?;
        for table in tables {
            let columns = columns.remove(&table.relation.oid).unwrap_or_default();
            // What lies in the archive comes back through text: bits that only binary keeps would differ then.
            table.format = match table.kept {
                Kept::Streamed => formats::format(columns.iter().map(|column| column.base_type), encoding),
                Kept::Archive | Kept::Excluded => RowFormat::Text,
            };
            if table.format == RowFormat::Binary {
                table.types = columns.iter().map(|column| column.base_type).collect();
            }
            table.columns = columns.into_iter().map(|column| column.name).collect();
            let size = sizes.get(&table.relation.oid).copied().unwrap_or_default();
            // Older servers read the whole table for each range of its blocks.
            let ranges = version >= 140_000 && table.relation.config.is_none();
            (table.disk_bytes, table.toast_bytes) = (size.bytes, size.toast_bytes);
            table.blocks = if ranges { size.blocks } else { 0 };
        }
        Ok(())
    }

    /// Oids of relations that this session holds locked.
    async fn held(&mut self) -> Result<HashSet<i64>, PostgresError> {
        const DURING: &str = "reading our own locks";
        let sql = "SELECT relation::int8 AS oid FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() \
            AND locktype = 'relation' AND mode = 'AccessShareLock' AND granted \
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
        self.session.run(DURING, sql).await?.iter().map(|row| column(row, "oid", DURING)).collect()
    }

    /// The file nodes that the snapshot shows must be the ones in place now: else rows of the snapshot are gone.
    async fn compare_nodes(&mut self, wanted: &[&Relation]) -> Result<(), PostgresError> {
        const DURING: &str = "comparing file nodes";
        let sql = "SELECT oid::int8 AS oid FROM pg_catalog.pg_class WHERE relkind = 'r' AND oid >= 16384 \
            AND pg_catalog.pg_relation_filenode(oid) IS DISTINCT FROM relfilenode";
        let rows = self.session.run(DURING, sql).await?;
        let moved: HashSet<i64> = rows.iter().map(|r| column(r, "oid", DURING)).collect::<Result<_, _>>()?;
        match wanted.iter().find(|r| moved.contains(&r.oid)) {
            Some(relation) => {
                let what = format!("table `{}` was truncated or rewritten after the snapshot", relation.shown());
                Err(PostgresError::disturbed(what, None))
            }
            None => Ok(()),
        }
    }

    /// The transaction must still be open after the last part: else locks and snapshot were gone for some of them.
    pub(super) async fn still_there(&mut self) -> Result<(), PostgresError> {
        const DURING: &str = "asking whether the snapshot was held to the end";
        let sql = "SELECT (extract(epoch FROM pg_catalog.transaction_timestamp()) * 1000000)::int8 AS began, \
            pg_catalog.current_setting('transaction_isolation') AS isolation";
        let row = self.session.one(DURING, sql).await?;
        let began: i64 = column(&row, "began", DURING)?;
        let isolation: String = column(&row, "isolation", DURING)?;
        if isolation == "repeatable read" && began <= self.instant.timestamp_micros() {
            Ok(())
        } else {
            Err(PostgresError::disturbed("the transaction that held locks and snapshot had ended", None))
        }
    }
}

async fn begin(session: &mut Session) -> Result<(), PostgresError> {
    let sql = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    session.run("opening a transaction", sql).await.map(drop)
}

/// How many locks the server's shared table has room for, at least.
async fn lock_room(session: &mut Session) -> Result<usize, PostgresError> {
    const DURING: &str = "asking for the size of the lock table";
    let sql = "SELECT current_setting('max_locks_per_transaction')::int8 * \
        (current_setting('max_connections')::int8 + current_setting('max_prepared_transactions')::int8) AS room";
    let row = session.one(DURING, sql).await?;
    Ok(usize::try_from(column::<i64>(&row, "room", DURING)?).unwrap_or(0))
}

/// A statement that failed on a lock is a disturbance.
fn as_disturbance(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::Query { during, source } if sql_state(&source).as_deref() == Some("55P03") => {
            PostgresError::disturbed(format!("{during} met a lock"), Some(source))
        }
        other => other,
    }
}

/// Time for the server to end our sessions.
pub(super) const ENDING: Duration = Duration::from_secs(10);

/// Ends what the server still has of an attempt, by the name of its sessions, and waits until it is gone: locks are held by
/// sessions, and one of them may be in the middle of a query that nobody reads any more, or be a client program's that runs
/// in a container and has not noticed that we are gone. Gives the [`blockers`] of before.
pub(super) async fn give_way(to: &ConnectOptions) -> Vec<String> {
    let Ok(mut session) = Session::open(to).await else { return Vec::new() };
    let met = blockers(&mut session).await;
    let sql = format!(
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) AS ended FROM pg_catalog.pg_stat_activity \
         WHERE application_name = {} AND usename = session_user AND pid <> pg_catalog.pg_backend_pid()",
        literal(to.application())
    );
    let until = Instant::now() + ENDING;
    while Instant::now() < until {
        match session.attempt(sql.as_str()).await {
            Ok(rows) if rows.first().and_then(|row| column::<i64>(row, "ended", "").ok()).is_some_and(|n| n > 0) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // They end with their connections, at the latest.
            _ => break,
        }
    }
    session.close().await;
    met
}

/// Who holds or waits for an exclusive lock on a table now: for the message only, so failures give nothing.
async fn blockers(session: &mut Session) -> Vec<String> {
    let sql = "SELECT n.nspname::text AS schema, c.relname::text AS name, l.granted, \
        coalesce(pg_catalog.string_agg(DISTINCT l.pid::text, ', '), '') AS pids \
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND c.oid >= 16384 AND c.relpersistence <> 't' \
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
        AND c.relkind IN ('r', 'p', 'm', 'v', 'S') GROUP BY 1, 2, 3";
    let rows = session.attempt(sql).await.unwrap_or_default();
    let text = |row: &_, name| column::<String>(row, name, "").unwrap_or_default();
    let one = |row| {
        let how = if column(row, "granted", "").unwrap_or(false) { "held" } else { "awaited" };
        let table = shown(&text(row, "schema"), &text(row, "name"));
        format!("`{table}` is {how} exclusively by process {}", text(row, "pids"))
    };
    let mut out: Vec<String> = rows.iter().map(one).collect();
    out.sort();
    out
}

//! Statistics for the planner, which no dump has.
//!
//! Not a plain ANALYZE: that also samples foreign tables below a partitioned or inherited one, hence talks to other
//! servers, which a restore must not need. And because a table without statistics is no reason to throw away a restore
//! of hours, what cannot be analyzed (an index may call a function that raises) is told and passed over.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row};

use super::session;
use super::sql::qualified;
use crate::monitor::{Event, Monitor};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;

/// Small tables in one statement; each is a transaction of its own all the same.
const BATCH: usize = 500;

/// A table of so many blocks (8 MiB) is a statement of its own.
const LARGE_BLOCKS: i32 = 1024;

/// Analyzes every table of a database that is not a parent of foreign ones, with so many sessions.
pub(super) async fn all(to: &ConnectOptions, jobs: usize, monitor: &dyn Monitor) -> Result<(), PostgresError> {
    let mut conn = session::open(to).await?;
    let queue = Mutex::new(batches(&mut conn).await?);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = |first: Option<PgConnection>| async {
        let mut conn = first;
        while let Some(batch) = next() {
            let mut session = match conn.take() {
                Some(session) => session,
                None => session::open(to).await?,
            };
            analyze(&mut session, &batch, monitor).await?;
            conn = Some(session);
        }
        if let Some(conn) = conn {
            // A session that is gone at once does not stand in the way of the rename.
            let _ = conn.close().await;
        }
        Ok::<_, PostgresError>(())
    };
    let mut first = Some(conn);
    try_join_all((0..jobs.max(1)).map(|_| worker(first.take()))).await.map(drop)
}

/// The tables, as they are analyzed together: large ones first and alone.
async fn batches(conn: &mut PgConnection) -> Result<VecDeque<Vec<String>>, PostgresError> {
    let during = || PostgresError::during("listing the tables to analyze");
    let sql = "WITH RECURSIVE above AS ( \
            SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
                WHERE c.relkind = 'f' \
            UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid) \
        SELECT n.nspname::text, c.relname::text, \
            (CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_relation_size(c.oid) / 8192 > $1 ELSE false END) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
            AND NOT EXISTS (SELECT FROM above a WHERE a.oid = c.oid) ORDER BY c.oid";
    let rows = sqlx::query(sql).bind(LARGE_BLOCKS).fetch_all(&mut *conn).await.map_err(during())?;
    let (mut large, mut small) = (VecDeque::new(), Vec::new());
    for row in &rows {
        let text = |at: usize| row.try_get::<String, _>(at).map_err(during());
        let name = qualified(&text(0)?, &text(1)?);
        if row.try_get(2).map_err(during())? {
            large.push_back(vec![name]);
        } else {
            small.push(name);
        }
    }
    large.extend(small.chunks(BATCH).map(<[String]>::to_vec));
    Ok(large)
}

async fn analyze(conn: &mut PgConnection, batch: &[String], monitor: &dyn Monitor) -> Result<(), PostgresError> {
    if run(conn, &batch.join(", ")).await.is_ok() {
        return Ok(());
    }
    for name in batch {
        match run(conn, name).await {
            Ok(()) => {}
            Err(error @ sqlx::Error::Database(_)) => {
                let text = format!("table {name} has no statistics, because ANALYZE failed: {error}");
                monitor.event(Event::Warning { text });
            }
            Err(source) => return Err(PostgresError::during("ANALYZE")(source)),
        }
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, tables: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {tables}"))).execute(&mut *conn).await.map(drop)
}

//! Statistics for the planner, which no dump has.
//!
//! Not a plain ANALYZE: that also samples foreign tables below a partitioned or inherited one, hence talks to other
//! servers, which a restore must not need. And because a table without statistics is no reason to throw away a restore
//! of hours, what cannot be analyzed (an index may call a function that raises) is told and passed over.
//!
//! On connections of our own, because names may be any bytes where a database has no encoding. Their transactions are
//! read-only, which ANALYZE does not mind.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;

use super::sql::qualified;
use crate::monitor::{Event, Monitor};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::names::readable;
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::session::{Session, column};

/// Small tables in one statement; each is a transaction of its own all the same.
const BATCH: usize = 500;

/// A table of more blocks (8 MiB) is a statement of its own.
const LARGE_BLOCKS: u64 = 1024;

/// Analyzes every table of a database that is not a parent of foreign ones, with so many sessions.
pub(super) async fn all(to: &ConnectOptions, jobs: usize, monitor: &dyn Monitor) -> Result<(), PostgresError> {
    let mut first = Session::open(to).await?;
    let queue = Mutex::new(batches(&mut first).await?);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = |session: Option<Session>| async {
        let mut session = session;
        while let Some(batch) = next() {
            let mut open = match session.take() {
                Some(open) => open,
                None => Session::open(to).await?,
            };
            analyze(&mut open, &batch, monitor).await?;
            session = Some(open);
        }
        if let Some(session) = session {
            // A session that is gone at once does not stand in the way of the rename.
            session.close().await;
        }
        Ok::<_, PostgresError>(())
    };
    let mut first = Some(first);
    try_join_all((0..jobs.max(1)).map(|_| worker(first.take()))).await.map(drop)
}

/// The tables, as they are analyzed together: large ones first and alone.
async fn batches(session: &mut Session) -> Result<VecDeque<Vec<String>>, PostgresError> {
    const DURING: &str = "listing the tables to analyze";
    let sql = format!(
        "WITH RECURSIVE above AS ( \
            SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
                WHERE c.relkind = 'f' \
            UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid) \
        SELECT n.nspname::text AS schema, c.relname::text AS name, \
            (CASE WHEN c.relkind = 'p' THEN 0 ELSE pg_catalog.pg_relation_size(c.oid) / 8192 END > {LARGE_BLOCKS}) AS large \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
            AND NOT EXISTS (SELECT FROM above a WHERE a.oid = c.oid) ORDER BY c.oid"
    );
    let (mut large, mut small) = (VecDeque::new(), Vec::new());
    for row in session.run(DURING, sql.as_str()).await? {
        let (schema, name): (String, String) = (column(&row, "schema", DURING)?, column(&row, "name", DURING)?);
        let name = qualified(&schema, &name);
        if column(&row, "large", DURING)? {
            large.push_back(vec![name]);
        } else {
            small.push(name);
        }
    }
    large.extend(small.chunks(BATCH).map(<[String]>::to_vec));
    Ok(large)
}

async fn analyze(session: &mut Session, batch: &[String], monitor: &dyn Monitor) -> Result<(), PostgresError> {
    if session.attempt(format!("ANALYZE {}", batch.join(", "))).await.is_ok() {
        return Ok(());
    }
    for name in batch {
        match session.attempt(format!("ANALYZE {name}")).await {
            Ok(_) => {}
            Err(error @ sqlx::Error::Database(_)) => {
                let name = readable(name);
                let text = format!("table {name} has no statistics, because ANALYZE failed: {error}");
                monitor.event(Event::Warning { text });
            }
            Err(source) => return Err(PostgresError::during("ANALYZE")(source)),
        }
    }
    Ok(())
}

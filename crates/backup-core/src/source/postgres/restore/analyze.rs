//! Statistics for the planner, which no dump has.
//!
//! Not a plain ANALYZE: that also samples foreign tables below a partitioned or inherited one, hence talks to other
//! servers, which a restore must not need. And because a table without statistics is no reason to throw away a restore
//! of hours, what cannot be analyzed (an index may call a function that raises) is told and passed over.
//!
//! On a connection of our own, because names may be any bytes where a database has no encoding. Its transactions are
//! read-only, which ANALYZE does not mind.

use super::sql::qualified;
use crate::monitor::{Event, Monitor};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::names::readable;
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::session::{Session, column};

/// Tables in one statement; each is a transaction of its own all the same.
const BATCH: usize = 500;

/// Analyzes every table of a database that is not a parent of foreign ones.
pub(super) async fn all(to: &ConnectOptions, monitor: &dyn Monitor) -> Result<(), PostgresError> {
    const DURING: &str = "listing the tables to analyze";
    let mut session = Session::open(to).await?;
    let sql = "WITH RECURSIVE above AS ( \
            SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
                WHERE c.relkind = 'f' \
            UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid) \
        SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
            AND NOT EXISTS (SELECT FROM above a WHERE a.oid = c.oid) ORDER BY c.oid";
    let mut names = Vec::new();
    for row in session.run(DURING, sql).await? {
        let (schema, name): (String, String) = (column(&row, "schema", DURING)?, column(&row, "name", DURING)?);
        names.push(qualified(&schema, &name));
    }
    for batch in names.chunks(BATCH) {
        if session.attempt(format!("ANALYZE {}", batch.join(", "))).await.is_ok() {
            continue;
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
    }
    session.close().await;
    Ok(())
}

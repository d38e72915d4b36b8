//! Statistics for the planner, which no dump has.
//!
//! Not a plain ANALYZE: that also samples foreign tables below a partitioned or inherited one, hence talks to other
//! servers, which a restore must not need. And because a table without statistics is no reason to throw away a restore
//! of hours, what cannot be analyzed (an index may call a function that raises) is told and passed over.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::sql::qualified;
use crate::monitor::{Event, Monitor};
use crate::source::postgres::error::PostgresError;

/// Tables in one statement; each is a transaction of its own all the same.
const BATCH: usize = 500;

/// Analyzes every table of the database of this session that is not a parent of foreign ones.
pub(super) async fn all(conn: &mut PgConnection, monitor: &dyn Monitor) -> Result<(), PostgresError> {
    let during = || PostgresError::during("listing the tables to analyze");
    let sql = "WITH RECURSIVE above AS ( \
            SELECT i.inhparent AS oid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
                WHERE c.relkind = 'f' \
            UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN above a ON a.oid = i.inhrelid) \
        SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' \
            AND NOT EXISTS (SELECT FROM above a WHERE a.oid = c.oid) ORDER BY c.oid";
    let rows = sqlx::query(sql).fetch_all(&mut *conn).await.map_err(during())?;
    let mut names = Vec::with_capacity(rows.len());
    for row in &rows {
        let (schema, name): (String, String) = (row.try_get(0).map_err(during())?, row.try_get(1).map_err(during())?);
        names.push(qualified(&schema, &name));
    }
    for batch in names.chunks(BATCH) {
        if run(conn, &batch.join(", ")).await.is_ok() {
            continue;
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
    }
    Ok(())
}

async fn run(conn: &mut PgConnection, tables: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {tables}"))).execute(&mut *conn).await.map(drop)
}

//! Triggers while rows are loaded. A replica's session fires none of the usual ones, foreign keys' included. Two kinds
//! need a word more: those that fire on a replica too, or only there (`ENABLE ALWAYS`, `ENABLE REPLICA`), are switched off;
//! those of deferrable unique and exclusion constraints are the constraint, and stay on.
//!
//! Of partitioned tables that are emptied as a whole the triggers on TRUNCATE count as well: those alone are not their leaves'.
//!
//! All are put back in the same transaction, each to what it was: `pg_restore --disable-triggers` does not.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::existing::Existing;
use super::run;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::restore::sql::{ident, qualified};

const DURING: &str = "switching triggers";

/// Switches triggers for the load; gives the statements that put them back.
pub(super) async fn switch(conn: &mut PgConnection, found: &Existing) -> Result<Vec<String>, PostgresError> {
    if !found.may_be_replica {
        return Ok(Vec::new());
    }
    let sql = "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text, \
            t.tgfoid = 'pg_catalog.unique_key_recheck'::pg_catalog.regproc \
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        LEFT JOIN pg_catalog.pg_constraint con ON con.oid = t.tgconstraint AND con.contype = 'f' \
        WHERE (t.tgrelid::int8 = ANY ($1) OR t.tgrelid::int8 = ANY ($2) AND t.tgtype & 32 <> 0) AND con.oid IS NULL";
    let failed = |error| PostgresError::during(DURING)(error);
    let mut back = Vec::new();
    let asked = sqlx::query(sql).bind(found.oids()).bind(&found.roots).fetch_all(&mut *conn).await;
    for row in asked.map_err(failed)? {
        let text = |at: usize| row.try_get::<String, _>(at).map_err(failed);
        let recheck: bool = row.try_get(4).map_err(failed)?;
        let (now, later) = match (text(3)?.as_str(), recheck) {
            ("O", true) => ("ENABLE ALWAYS", "ENABLE"),
            ("R", true) => ("ENABLE ALWAYS", "ENABLE REPLICA"),
            ("A", false) => ("DISABLE", "ENABLE ALWAYS"),
            ("R", false) => ("DISABLE", "ENABLE REPLICA"),
            _ => continue,
        };
        let (table, trigger) = (qualified(&text(0)?, &text(1)?), ident(&text(2)?));
        run(conn, DURING, &format!("ALTER TABLE ONLY {table} {now} TRIGGER {trigger}")).await?;
        back.push(format!("ALTER TABLE ONLY {table} {later} TRIGGER {trigger}"));
    }
    Ok(back)
}

/// Puts them back.
pub(super) async fn back(conn: &mut PgConnection, statements: &[String]) -> Result<(), PostgresError> {
    for statement in statements {
        run(conn, DURING, statement).await?;
    }
    Ok(())
}

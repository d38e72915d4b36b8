//! Foreign keys of the loaded tables, checked as a whole: what the server does itself when a key is added.
//!
//! Equality is the key's own operators and collations (`pg_constraint.conpfeqop`). A key that the server does not hold to
//! be true (NOT VALID, NOT ENFORCED) is not checked: it was not true before either.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use crate::source::postgres::error::PostgresError;
use crate::source::postgres::restore::error::RestoreError;
use crate::source::postgres::restore::sql::{ident, qualified};

const DURING: &str = "reading the foreign keys";

/// One foreign key.
#[derive(Debug)]
pub(super) struct Key {
    /// For people.
    pub(super) shown: String,
    /// The table that is referred to.
    pub(super) target_oid: i64,
    /// The same, as LOCK takes it.
    pub(super) lock: String,
    /// Its last column is a period (PostgreSQL 18).
    pub(super) temporal: bool,
    /// Counts the rows that refer to nothing.
    sql: String,
}

/// The keys of these tables.
pub(super) async fn of(conn: &mut PgConnection, tables: &[i64]) -> Result<Vec<Key>, PostgresError> {
    // Where a partitioned table is referred to, each of its partitions has a key of its own that says less; these are
    // left out: parent and child are then keys of the same table.
    let sql = "SELECT con.conname::text, fn.nspname::text, f.relname::text, pn.nspname::text, p.relname::text, \
            con.confrelid::int8, p.relkind = 'p', con.confmatchtype = 'f', \
            coalesce((pg_catalog.to_jsonb(con) ->> 'conperiod')::bool, false), \
            ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k (number, at) \
                JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.number ORDER BY k.at), \
            ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY k (number, at) \
                JOIN pg_catalog.pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.number ORDER BY k.at), \
            ARRAY(SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname) \
                FROM pg_catalog.unnest(con.conpfeqop) WITH ORDINALITY k (oid, at) \
                JOIN pg_catalog.pg_operator o ON o.oid = k.oid JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
                ORDER BY k.at), \
            ARRAY(SELECT coalesce((SELECT pg_catalog.format(' COLLATE %I.%I', n.nspname, c.collname) \
                    FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
                    WHERE c.oid = pa.attcollation AND pa.attcollation <> fa.attcollation), '') \
                FROM ROWS FROM (pg_catalog.unnest(con.conkey), pg_catalog.unnest(con.confkey)) WITH ORDINALITY k (number, target, at) \
                JOIN pg_catalog.pg_attribute fa ON fa.attrelid = con.conrelid AND fa.attnum = k.number \
                JOIN pg_catalog.pg_attribute pa ON pa.attrelid = con.confrelid AND pa.attnum = k.target ORDER BY k.at) \
        FROM pg_catalog.pg_constraint con \
        JOIN pg_catalog.pg_class f ON f.oid = con.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace \
        JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
        WHERE con.contype = 'f' AND con.conrelid::int8 = ANY ($1) AND con.convalidated \
            AND coalesce((pg_catalog.to_jsonb(con) ->> 'conenforced')::bool, true) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint up WHERE up.oid = con.conparentid AND up.conrelid = con.conrelid) \
        ORDER BY 2, 3, 1";
    let failed = |error| PostgresError::during(DURING)(error);
    let rows = sqlx::query(sql).bind(tables).fetch_all(conn).await.map_err(failed)?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in &rows {
        let text = |at: usize| row.try_get::<String, _>(at).map_err(failed);
        let flag = |at: usize| row.try_get::<bool, _>(at).map_err(failed);
        let list = |at: usize| row.try_get::<Vec<String>, _>(at).map_err(failed);
        let (name, schema, table, to_schema, to_table) = (text(0)?, text(1)?, text(2)?, text(3)?, text(4)?);
        let target = qualified(&to_schema, &to_table);
        // Children of a plain table are not referred to, leaves of a partitioned one are.
        let target = if flag(6)? { target } else { format!("ONLY {target}") };
        let columns = list(9)?;
        let given: Vec<String> = columns.iter().map(|column| format!("f.{} IS NOT NULL", ident(column))).collect();
        // MATCH FULL: all or none; a row with some has no equal and is found.
        let given = given.join(if flag(7)? { " OR " } else { " AND " });
        let pairs = columns.iter().zip(list(10)?).zip(list(11)?.into_iter().zip(list(12)?));
        let equal: Vec<String> = pairs
            .map(|((column, target), (operator, collate))| {
                format!("p.{}{collate} {operator} f.{}{collate}", ident(&target), ident(column))
            })
            .collect();
        keys.push(Key {
            shown: format!("foreign key `{name}` of `{schema}.{table}` to `{to_schema}.{to_table}`"),
            target_oid: row.try_get(5).map_err(failed)?,
            temporal: flag(8)?,
            sql: format!(
                "SELECT pg_catalog.count(*) FROM ONLY {} f WHERE ({given}) AND NOT EXISTS (SELECT FROM {target} p WHERE {})",
                qualified(&schema, &table),
                equal.join(" AND ")
            ),
            lock: target,
        });
    }
    Ok(keys)
}

/// Counts for each key the rows that refer to nothing; all keys that do not hold are told at once.
pub(super) async fn hold(conn: &mut PgConnection, keys: &[Key]) -> Result<(), RestoreError> {
    let mut broken = Vec::new();
    for key in keys {
        let during = || PostgresError::during(format!("checking {}", key.shown));
        let sql = AssertSqlSafe(key.sql.clone());
        let row = sqlx::raw_sql(sql).fetch_one(&mut *conn).await.map_err(during())?;
        let rows: i64 = row.try_get(0).map_err(during())?;
        if rows > 0 {
            broken.push(format!("{} ({rows} rows)", key.shown));
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(RestoreError::Orphans { keys: broken }) }
}

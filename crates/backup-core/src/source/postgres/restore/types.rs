//! Binary rows go only into columns of the types that they were captured from.
//!
//! The server cannot tell: eight bytes of a float are a fine integer. The archive that made the columns came with the
//! rows, so a difference means that somebody changed one of the two.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::RestoreError;
use crate::manifest::TableEntry;
use crate::source::postgres::catalog::BASE_TYPES;
use crate::source::postgres::error::PostgresError;

/// Compares the columns of the tables that are to be loaded with what the manifest says.
pub(super) async fn compare<'a>(
    conn: &mut PgConnection,
    entries: impl Iterator<Item = &'a TableEntry>,
) -> Result<(), RestoreError> {
    let entries: Vec<_> = entries.filter(|entry| !entry.types.is_empty()).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let during = || PostgresError::during("reading the types of the columns");
    let sql = format!(
        "WITH RECURSIVE {BASE_TYPES} SELECT n.nspname::text, c.relname::text, a.attname::text, \
         coalesce(b.base, a.atttypid)::int8 FROM pg_catalog.pg_attribute a \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN base b ON b.oid = a.atttypid \
         WHERE c.relkind = 'r' AND c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped"
    );
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(conn).await.map_err(during())?;
    let mut found: HashMap<(String, String, String), i64> = HashMap::new();
    for row in rows {
        let text = |at: usize| row.try_get::<String, _>(at).map_err(during());
        found.insert((text(0)?, text(1)?, text(2)?), row.try_get(3).map_err(during())?);
    }
    for entry in entries {
        for (column, expected) in entry.columns.iter().zip(&entry.types) {
            let key = (entry.schema.clone(), entry.name.clone(), column.clone());
            if found.get(&key) != Some(expected) {
                let table = format!("{}.{}", entry.schema, entry.name);
                let why =
                    format!("column `{column}` of `{table}` was captured as another type than the archive makes it");
                return Err(RestoreError::Manifest { why });
            }
        }
    }
    Ok(())
}

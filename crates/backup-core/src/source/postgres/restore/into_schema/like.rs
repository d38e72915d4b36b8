//! One table made like a live one: columns before the rows come, all that judges rows after them.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};

use crate::manifest::TableEntry;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::restore::data_only::run;
use crate::source::postgres::restore::error::RestoreError;
use crate::source::postgres::restore::sql::{ident, qualified};

const DURING: &str = "reading the definition of a live table";

/// A new table.
pub(super) struct Table {
    /// The statement that brings its rows into the live table.
    pub(super) bring_back: String,
    /// What is made when it has its rows, as (what it is, statement).
    later: Vec<(String, String)>,
    /// What is not made.
    notes: Vec<String>,
    name: String,
}

impl Table {
    /// Makes the table in `schema` like the live one of an entry: columns, plain defaults, generated columns.
    pub(super) async fn make(conn: &mut PgConnection, entry: &TableEntry, schema: &str) -> Result<Self, RestoreError> {
        let (live, new) = (qualified(&entry.schema, &entry.name), qualified(schema, &entry.name));
        let like = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMMENTS";
        run(conn, &format!("making table {new}"), &format!("CREATE TABLE {new} (LIKE {live} {like})")).await?;
        let mut later = Vec::new();
        let columns = "SELECT a.attname::text, a.attnotnull, a.attidentity <> '', EXISTS (SELECT FROM pg_catalog.pg_attrdef d \
                JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid \
                    AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                JOIN pg_catalog.pg_class s ON s.oid = p.refobjid AND s.relkind = 'S' \
                WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) \
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::text::pg_catalog.regclass AND a.attnum > 0 \
            AND NOT a.attisdropped ORDER BY a.attnum";
        let mut identity = false;
        for row in rows(conn, columns, &live).await? {
            let (plain, column) = (text(&row, 0)?, ident(&text(&row, 0)?));
            let alter = format!("ALTER TABLE {new} ALTER COLUMN {column}");
            if get(&row, 3)? {
                run(conn, "leaving out a default", &format!("{alter} DROP DEFAULT")).await?;
            }
            if get(&row, 1)? {
                // Perhaps it was not asked for yet when the rows were captured.
                run(conn, "leaving out NOT NULL", &format!("{alter} DROP NOT NULL")).await?;
                later.push((format!("NOT NULL of column `{plain}`"), format!("{alter} SET NOT NULL")));
            }
            identity |= get::<bool>(&row, 2)?;
        }
        let constraints = "SELECT conname::text, pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint \
            WHERE conrelid = $1::text::pg_catalog.regclass AND contype IN ('c', 'p', 'u', 'x') ORDER BY contype = 'c', conname";
        for row in rows(conn, constraints, &live).await? {
            let (name, definition) = (text(&row, 0)?, text(&row, 1)?);
            let sql = format!("ALTER TABLE {new} ADD CONSTRAINT {} {definition}", ident(&name));
            later.push((format!("constraint `{name}`"), sql));
        }
        let mut notes = Vec::new();
        for (name, sql) in indexes(conn, &live, &new).await? {
            match sql {
                Some(sql) => later.push((format!("index `{name}`"), sql)),
                None => notes.push(format!(
                    "index `{name}` of {live} has a definition that is not understood, and was not made"
                )),
            }
        }
        let bring_back = bring_back(entry, (&live, &new), identity, skips_those_there(conn, &live).await?);
        Ok(Self { bring_back, later, notes, name: format!("{schema}.{}", entry.name) })
    }

    /// Makes what is left, each on its own; says what could not be made.
    pub(super) async fn complete(&self, conn: &mut PgConnection) -> Result<Vec<String>, RestoreError> {
        let mut notes = self.notes.clone();
        for (what, sql) in &self.later {
            run(conn, "setting a savepoint", "SAVEPOINT later").await?;
            match sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *conn).await {
                Ok(_) => run(conn, "leaving a savepoint", "RELEASE SAVEPOINT later").await?,
                Err(refused) => {
                    // Fails as well when it is the session that is gone.
                    let back = "ROLLBACK TO SAVEPOINT later; RELEASE SAVEPOINT later";
                    run(conn, "going back to a savepoint", back).await?;
                    let why =
                        refused.as_database_error().map_or_else(|| refused.to_string(), |e| e.message().to_owned());
                    notes.push(format!("{what} of {} could not be made: {why}", self.name));
                }
            }
        }
        Ok(notes)
    }
}

/// Indexes that belong to no constraint. The server prints a definition whole; its head, up to the method, is printed here
/// once more to be exchanged for one that names the new table.
async fn indexes(
    conn: &mut PgConnection,
    live: &str,
    new: &str,
) -> Result<Vec<(String, Option<String>)>, PostgresError> {
    let sql = "SELECT x.name, x.uniq, pg_catalog.substr(x.def, pg_catalog.length(x.head) + 1), \
            pg_catalog.starts_with(x.def, x.head) FROM ( \
            SELECT i.relname::text AS name, CASE WHEN d.indisunique THEN 'UNIQUE ' ELSE '' END AS uniq, \
                pg_catalog.pg_get_indexdef(i.oid) AS def, pg_catalog.format('CREATE %sINDEX %I ON %I.%I USING ', \
                    CASE WHEN d.indisunique THEN 'UNIQUE ' ELSE '' END, i.relname, n.nspname, c.relname) AS head \
            FROM pg_catalog.pg_index d JOIN pg_catalog.pg_class i ON i.oid = d.indexrelid \
            JOIN pg_catalog.pg_class c ON c.oid = d.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            WHERE d.indrelid = $1::text::pg_catalog.regclass AND d.indisvalid AND NOT EXISTS ( \
                SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x'))) x ORDER BY 1";
    let mut out = Vec::new();
    for row in rows(conn, sql, live).await? {
        let (name, unique, tail) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
        let sql = format!("CREATE {unique}INDEX {} ON {new} USING {tail}", ident(&name));
        out.push((name, get::<bool>(&row, 3)?.then_some(sql)));
    }
    Ok(out)
}

/// Whether INSERT can leave out rows whose keys are in the live table: there is a key, and all are checked at once.
async fn skips_those_there(conn: &mut PgConnection, live: &str) -> Result<bool, PostgresError> {
    let sql = "SELECT coalesce(pg_catalog.bool_and(d.indimmediate), false) AND NOT pg_catalog.bool_or(c.relhasrules) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index d ON d.indrelid = c.oid AND (d.indisunique OR d.indisexclusion) \
        WHERE c.oid = $1::text::pg_catalog.regclass";
    let rows = rows(conn, sql, live).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    Ok(get::<Option<bool>>(row, 0)?.unwrap_or(false))
}

fn bring_back(entry: &TableEntry, (live, new): (&str, &str), identity: bool, skips: bool) -> String {
    let columns: Vec<String> = entry.columns.iter().map(|name| ident(name)).collect();
    let columns = columns.join(", ");
    let into = if columns.is_empty() { String::new() } else { format!(" ({columns})") };
    let from = if columns.is_empty() { String::new() } else { format!(" {columns}") };
    let overriding = if identity { " OVERRIDING SYSTEM VALUE" } else { "" };
    let skip = if skips { " ON CONFLICT DO NOTHING" } else { "" };
    format!("INSERT INTO {live}{into}{overriding} SELECT{from} FROM {new}{skip};")
}

async fn rows(conn: &mut PgConnection, sql: &'static str, live: &str) -> Result<Vec<PgRow>, PostgresError> {
    sqlx::query(sql).bind(live).fetch_all(conn).await.map_err(PostgresError::during(DURING))
}

fn get<'r, T>(row: &'r PgRow, at: usize) -> Result<T, PostgresError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(PostgresError::during(DURING))
}

fn text(row: &PgRow, at: usize) -> Result<String, PostgresError> {
    get(row, at)
}

//! Sequences of the loaded tables, set to where they were at the capture.
//!
//! A sequence that only loaded tables use gets exactly the captured value. One that other tables use as well, or, where a
//! part is loaded, one that no table uses, is only ever moved on, never back: values may be out that are not in our rows.
//! The values are in the archive's table of contents; `setval` alone would not roll back, so each sequence is restarted
//! first, which gives it new storage that goes with the transaction.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row as _};

use super::run;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::restore::Selection;
use crate::source::postgres::restore::archive::Archive;
use crate::source::postgres::restore::error::RestoreError;
use crate::source::postgres::restore::select;
use crate::source::postgres::restore::sql::{literal, qualified, statements};

const DURING: &str = "setting the sequences";

/// A sequence as it was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Captured {
    /// Its name as SQL writes it, qualified.
    name: String,
    /// The last value.
    value: i64,
    /// It was given out.
    called: bool,
}

/// Reads the values from the archive.
pub(super) async fn captured(archive: &Archive<'_>) -> Result<Vec<Captured>, RestoreError> {
    let list = select::kept(&archive.list(&[]).await?, |entry| entry.starts_with("SEQUENCE SET "));
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let list = select::file(&list)?;
    let script = archive.script(list.path()).await?;
    Ok(parse(&String::from_utf8_lossy(&script)))
}

/// The calls `SELECT pg_catalog.setval('name', value, called)` of a script.
fn parse(script: &str) -> Vec<Captured> {
    let mut out = Vec::new();
    for statement in statements(script) {
        if !statement.begins(&["SELECT", "pg_catalog", ".", "setval", "("]) {
            continue;
        }
        let [name, rest @ ..] = &statement.tokens[5..] else { continue };
        let rest: String = rest.iter().map(|token| token.text.as_str()).collect();
        let mut rest = rest.trim_matches([',', ')']).split(',');
        let value = rest.next().and_then(|value| value.parse().ok());
        if let (true, Some(value), Some(called @ ("true" | "false"))) = (name.quoted, value, rest.next()) {
            out.push(Captured { name: name.text.clone(), value, called: called == "true" });
        }
    }
    out
}

/// A sequence as it is now.
struct Present {
    schema: String,
    name: String,
    /// Tables that own it or whose defaults use it.
    users: BTreeSet<i64>,
    increment: i64,
}

/// Sets what the loaded tables (by object id) need; says what was done.
pub(super) async fn set(
    conn: &mut PgConnection,
    captured: &[Captured],
    only: &Selection,
    loaded: &BTreeSet<i64>,
) -> Result<Vec<String>, PostgresError> {
    let mut notes = Vec::new();
    for one in captured {
        let Some(present) = present(conn, &one.name).await? else {
            if *only == Selection::All {
                notes.push(format!("sequence {} is missing there and was not set", one.name));
            }
            continue;
        };
        let ours = !present.users.is_disjoint(loaded);
        let here = matches!(only, Selection::Schema(schema) if *schema == present.schema && present.users.is_empty());
        if *only != Selection::All && !ours && !here {
            continue;
        }
        // What nobody is known to use may be used inside of functions.
        let exact = !present.users.is_empty() && present.users.is_subset(loaded) && (*only == Selection::All || ours);
        let goes = exact || is_behind(conn, &present, one).await? && is_behind_for_good(conn, &present, one).await?;
        if !goes {
            notes.push(format!("sequence {} is used by others too and was left where it is", one.name));
            continue;
        }
        let name = qualified(&present.schema, &present.name);
        let sql = format!(
            "ALTER SEQUENCE {name} RESTART WITH {value}; SELECT pg_catalog.setval({}::pg_catalog.regclass, {value}, {})",
            literal(&name),
            one.called,
            value = one.value
        );
        run(conn, &format!("setting sequence {name}"), &sql).await?;
        let how = if one.called { "" } else { ", not used yet" };
        notes.push(format!("sequence {} was set to {}{how}", one.name, one.value));
    }
    Ok(notes)
}

async fn present(conn: &mut PgConnection, name: &str) -> Result<Option<Present>, PostgresError> {
    let sql = "SELECT n.nspname::text, c.relname::text, s.seqincrement, ARRAY( \
            SELECT d.refobjid::int8 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') \
            UNION SELECT a.adrelid::int8 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attrdef a ON a.oid = d.objid \
                WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid) \
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid WHERE c.oid = pg_catalog.to_regclass($1)";
    let failed = |error| PostgresError::during(DURING)(error);
    let row = sqlx::query(sql).bind(name).fetch_optional(conn).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Present {
        schema: row.try_get(0).map_err(failed)?,
        name: row.try_get(1).map_err(failed)?,
        increment: row.try_get(2).map_err(failed)?,
        users: row.try_get::<Vec<i64>, _>(3).map_err(failed)?.into_iter().collect(),
    }))
}

/// Whether a sequence has not come as far as it had at the capture.
async fn is_behind(conn: &mut PgConnection, present: &Present, captured: &Captured) -> Result<bool, PostgresError> {
    let sql = format!("SELECT last_value, is_called FROM {}", qualified(&present.schema, &present.name));
    let failed = |error| PostgresError::during(DURING)(error);
    let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(conn).await.map_err(failed)?;
    let (value, called): (i64, bool) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let ahead = if present.increment > 0 { captured.value > value } else { captured.value < value };
    Ok(ahead || (captured.value == value && captured.called && !called))
}

/// The same, asked again when nobody can draw from it any more until we are done: of what is not a table, LOCK takes
/// nothing, and a change that changes nothing does.
async fn is_behind_for_good(
    conn: &mut PgConnection,
    present: &Present,
    captured: &Captured,
) -> Result<bool, PostgresError> {
    let name = qualified(&present.schema, &present.name);
    run(conn, DURING, &format!("ALTER SEQUENCE {name} INCREMENT BY {}", present.increment)).await?;
    is_behind(conn, present, captured).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_pg_dump_writes_them() {
        let script = "SET statement_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\
            -- Name: a; Type: SEQUENCE SET\nSELECT pg_catalog.setval('public.sale_id_seq', 200, true);\n\
            SELECT pg_catalog.setval('\"odd, one\".\"It''s (1, true)\"', -5, false);\n";
        let of = |name: &str, value, called| Captured { name: name.to_owned(), value, called };
        let expected = [of("public.sale_id_seq", 200, true), of("\"odd, one\".\"It's (1, true)\"", -5, false)];
        assert_eq!(parse(script), expected);
        assert_eq!(parse("SELECT pg_catalog.setval(x, 1, true);"), []);
    }
}

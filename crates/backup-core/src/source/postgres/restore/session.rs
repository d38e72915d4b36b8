//! Sessions that load rows or read them back.

use sqlx::postgres::PgConnection;

use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;
use crate::source::postgres::wire::Wire;

/// What loaders and readers set, where the server knows it: values mean the same as at capture, nothing times out,
/// and no setting of the restored database or of a role gets in between. Commits do not wait for the disk: the last
/// one of the restore does, and with it everything before.
const SETTINGS: [(&str, &str); 23] = [
    ("array_nulls", "on"),
    ("bytea_output", "hex"),
    ("client_min_messages", "error"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "3"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("intervalstyle", "postgres"),
    ("jit", "off"),
    ("lc_monetary", "C"),
    ("lock_timeout", "0"),
    ("max_parallel_workers_per_gather", "0"),
    ("quote_all_identifiers", "off"),
    ("row_security", "off"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("synchronize_seqscans", "off"),
    ("synchronous_commit", "off"),
    ("timezone", "UTC"),
    ("transaction_timeout", "0"),
    ("xmloption", "content"),
];

/// Opens a session with these settings. Statements travel as UTF-8; the encoding of rows is named in each COPY, so
/// that names of tables and the server's messages are not subject to it.
pub(super) async fn open(to: &ConnectOptions) -> Result<PgConnection, PostgresError> {
    let mut conn = to.connect().await?;
    let during = || PostgresError::during("setting up a session");
    let (names, values): (Vec<&str>, Vec<&str>) = SETTINGS.into_iter().unzip();
    let sql = "SELECT count(set_config(s.name, v.value, false)) FROM unnest($1::text[], $2::text[]) AS v(name, value) \
               JOIN pg_settings s ON lower(s.name) = v.name";
    sqlx::query(sql).bind(names).bind(values).execute(&mut conn).await.map_err(during())?;
    sqlx::raw_sql("SET search_path = ''").execute(&mut conn).await.map_err(during())?;
    Ok(conn)
}

/// The same for COPY in bulk.
pub(super) async fn open_wire(to: &ConnectOptions) -> Result<Wire, PostgresError> {
    let mut wire = Wire::open(to).await.map_err(|source| PostgresError::connecting(to, source))?;
    let values: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
    let sql = format!(
        "SELECT count(pg_catalog.set_config(s.name, v.value, false)) FROM (VALUES {}, ('search_path', '')) v (name, value) \
         JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = v.name",
        values.join(", ")
    );
    wire.query(&sql).await.map_err(PostgresError::during("setting up a session"))?;
    Ok(wire)
}

/// The same for what is done from outside of the restored database: there each commit waits for the disk.
pub(super) async fn open_maintenance(to: &ConnectOptions) -> Result<PgConnection, PostgresError> {
    let mut conn = open(to).await?;
    let during = PostgresError::during("setting up a session");
    sqlx::raw_sql("SET synchronous_commit = on").execute(&mut conn).await.map_err(during)?;
    Ok(conn)
}

/// The same for sessions of `pg_restore`, as startup options: these win over settings of the database and of roles. What
/// changes how values print (`DateStyle`, `TimeZone`) is left as it is: a materialized view that is filled here must
/// say what it says when it is refreshed there.
pub(super) fn child_settings(server_major: u32) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("client_min_messages", "warning"),
        ("default_transaction_deferrable", "off"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("quote_all_identifiers", "off"),
        ("transform_null_equals", "off"),
        ("idle_in_transaction_session_timeout", "0"),
        ("lock_timeout", "0"),
        ("statement_timeout", "0"),
        ("synchronous_commit", "off"),
        ("array_nulls", "on"),
    ];
    if server_major >= 14 {
        settings.push(("idle_session_timeout", "0"));
    }
    if server_major >= 17 {
        settings.push(("transaction_timeout", "0"));
    }
    settings
}

//! TimescaleDB, which wants to be told of a restore.
//!
//! Its tables describe tables in which the rows lie, so a restore from outside is a state of its own, in the order that
//! its manual gives: the extension at the very version of the capture, `timescaledb_pre_restore()`, everything else,
//! `timescaledb_post_restore()`. The first of these makes a setting of the database, which every session of ours and of
//! `pg_restore` then has, and by which the extension stands aside; the last one takes it away and starts the extension's
//! workers. Rows are compared before that: workers drop and compress what is old, and what is compared must be what was
//! loaded. The checks of the configuration are asked after it, as an application would ask.
//!
//! The extension is made before all definitions, so before any schema: it must lie in one that a new database has. Rows
//! of a table of its own kind lie in other tables: parts are refused, because they would come back empty and agree.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::extensions::Extension;
use super::sql::{ident, literal, qualified};
use super::{Selection, database, session};
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;

/// Name of the extension.
pub(super) const NAME: &str = "timescaledb";

/// Why a single table, or rows only, do not come back.
pub(super) const WHOLE: &str =
    "a database with extension `timescaledb` comes back whole only: its tables keep their rows in other tables";

/// Why a database with it is not restored to a server that offers these versions.
pub(super) fn refusals(version: &str, schema: &str, offered: &[String], only: &Selection) -> Vec<String> {
    let mut out = Vec::new();
    if !offered.iter().any(|offered| offered == version) {
        let offered = offered.join("`, `");
        out.push(format!(
            "extension `{NAME}` must be restored at the captured version `{version}`, and the server offers `{offered}`"
        ));
    }
    if schema != "public" {
        out.push(format!("extension `{NAME}` lies in schema `{schema}`: it can be restored in `public` only"));
    }
    if *only != Selection::All {
        out.push(WHOLE.to_owned());
    }
    out
}

/// That of the captured extensions that is meant here.
pub(super) fn among(extensions: &[Extension]) -> Option<&Extension> {
    extensions.iter().find(|extension| extension.name == NAME)
}

/// Whether the database of this session has it now, whatever it had at the capture.
pub(super) async fn is_there(conn: &mut PgConnection) -> Result<bool, PostgresError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = $1)";
    let asked = sqlx::query_scalar::<_, bool>(sql).bind(NAME).fetch_one(&mut *conn).await;
    asked.map_err(PostgresError::during("asking for the extensions"))
}

/// Before anything is in the database: makes the extension and tells it.
pub(super) async fn before(to: &ConnectOptions, extension: &Extension) -> Result<(), PostgresError> {
    let create = format!(
        "CREATE EXTENSION {} SCHEMA {} VERSION {}",
        ident(NAME),
        ident(&extension.schema),
        literal(&extension.version)
    );
    let call = format!("SELECT {}()", qualified(&extension.schema, "timescaledb_pre_restore"));
    tell(to, &[create, call]).await
}

/// After everything was compared.
pub(super) async fn after(to: &ConnectOptions, extension: &Extension) -> Result<(), PostgresError> {
    tell(to, &[format!("SELECT {}()", qualified(&extension.schema, "timescaledb_post_restore"))]).await
}

/// In a session of its own: what it sets is for those that come later.
async fn tell(to: &ConnectOptions, statements: &[String]) -> Result<(), PostgresError> {
    let mut conn = session::open(to).await?;
    database::run(&mut conn, &format!("telling extension `{NAME}` of the restore"), statements).await?;
    let _ = conn.close().await;
    Ok(())
}

//! Roles, memberships and tablespaces: what lives beside the database and is needed to restore it elsewhere.

use super::child;
use super::clients::{Clients, Tool};
use super::error::PostgresError;
use super::names::Encoding;
use super::options::{ConnectOptions, Globals};
use super::session::{Session, column};
use crate::manifest::StreamKind;
use crate::monitor::{Event, Monitor};
use crate::source::{FinishedStream, Sink};

/// For its sessions: a reader of the script relies on how strings are written.
const SETTINGS: [(&str, &str); 3] =
    [("standard_conforming_strings", "on"), ("quote_all_identifiers", "off"), ("statement_timeout", "0")];

/// What can be had: password hashes need SELECT on `pg_authid`.
pub(super) async fn possible(
    wanted: Globals,
    session: &mut Session,
    monitor: &dyn Monitor,
) -> Result<Globals, PostgresError> {
    const DURING: &str = "asking whether password hashes may be read";
    if wanted != Globals::Passwords {
        return Ok(wanted);
    }
    let sql = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS may";
    if column(&session.one(DURING, sql).await?, "may", DURING)? {
        return Ok(Globals::Passwords);
    }
    let text = "the roles' password hashes may not be read (this needs a superuser); roles are kept without passwords";
    monitor.event(Event::Warning { text: text.to_owned() });
    Ok(Globals::NoPasswords)
}

/// Streams `pg_dumpall --globals-only`; with what it warned of.
pub(super) async fn dump(
    clients: &Clients,
    to: &ConnectOptions,
    globals: Globals,
    encoding: &Encoding,
    sink: &dyn Sink,
) -> Result<Option<(FinishedStream, Vec<String>)>, PostgresError> {
    if globals == Globals::None {
        return Ok(None);
    }
    let start = |source| PostgresError::ClientStart { program: "pg_dumpall --help".to_owned(), source };
    let help = clients.command(Tool::PgDumpall).arg("--help").output().await.map_err(start)?;
    let mut command = clients.connected(Tool::PgDumpall, to, &SETTINGS);
    command.arg("--globals-only").arg(format!("--database={}", to.database()));
    if encoding.name != "SQL_ASCII" {
        // Else in the database's own, of which the reader of the script knows nothing.
        command.arg("--encoding=UTF8");
    }
    if globals == Globals::NoPasswords {
        command.arg("--no-role-passwords");
    }
    if String::from_utf8_lossy(&help.stdout).contains("--restrict-key") {
        // Random by default: then no two captures of the same roles would be the same bytes.
        command.arg("--restrict-key=backup");
    }
    child::stream(command, "pg_dumpall", StreamKind::PgGlobals, None, sink).await.map(Some)
}

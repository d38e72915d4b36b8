//! `pg_dump`'s part: everything but the rows that we stream, as a custom-format archive.
//!
//! The archive streams straight into the sink. Its table of contents stands at its start, so the same bytes are fed to
//! a `pg_restore -l` until that has read enough; what it prints is held against the plan by `reconcile`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::child;
use super::clients::{Clients, Tool};
use super::error::PostgresError;
use super::names::{self, Encoding, literal};
use super::options::ConnectOptions;
use super::plan::Plan;
use super::reconcile::Contents;
use super::session::{CHILD_SETTINGS, Session, column};
use crate::manifest::{Kept, StreamKind};
use crate::source::{FinishedStream, Sink};

/// Arguments that keep the rows of streamed, excluded and unreadable tables out of the archive. `pg_dump` reads them in the
/// database's encoding, so the server converts them.
pub(super) async fn excludes(
    session: &mut Session,
    plan: &Plan,
    encoding: &Encoding,
) -> Result<Vec<OsString>, PostgresError> {
    const DURING: &str = "converting table names to the database's encoding";
    let left = plan.tables.iter().filter(|table| table.kept != Kept::Archive).map(|table| &table.relation);
    let left = left.chain(&plan.unreadable);
    let patterns = names::patterns(left.map(|relation| (relation.schema.as_str(), relation.name.as_str())));
    let mut out = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        let mut argument = b"--exclude-table-data=".to_vec();
        if encoding.is_none() {
            argument.extend(names::to_bytes(&pattern));
        } else if pattern.is_ascii() || encoding.is_utf8() {
            argument.extend(pattern.into_bytes());
        } else {
            let sql = format!(
                "SELECT pg_catalog.encode(pg_catalog.convert_to({}, {}), 'hex') AS bytes",
                literal(&pattern),
                literal(&encoding.name)
            );
            let row = session.one(DURING, sql).await?;
            let bytes = hex::decode(column::<String>(&row, "bytes", DURING)?);
            argument.extend(bytes.map_err(|e| PostgresError::during(DURING)(sqlx::Error::Decode(e.into())))?);
        }
        out.push(OsString::from_vec(argument));
    }
    Ok(out)
}

/// Dumps, and reads the archive's table of contents on the way; with what `pg_dump` warned of.
pub(super) async fn dump(
    clients: &Clients,
    to: &ConnectOptions,
    snapshot: &str,
    excludes: &[OsString],
    sink: &dyn Sink,
) -> Result<(FinishedStream, Contents, Vec<String>), PostgresError> {
    let mut command = clients.connected(Tool::PgDump, to, &CHILD_SETTINGS);
    command.args(["--format=custom", "--compress=0", "--lock-wait-timeout=5s"]);
    command.arg(format!("--snapshot={snapshot}")).args(excludes);

    let program = "pg_restore --list";
    let start = |source| PostgresError::ClientStart { program: program.to_owned(), source };
    let mut lister = clients.command(Tool::PgRestore);
    lister.arg("--list").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut lister = lister.spawn().map_err(start)?;
    let (tee, stdout, stderr) = (lister.stdin.take(), lister.stdout.take(), lister.stderr.take());
    let listing = async {
        let mut contents = Contents::default();
        if let Some(pipe) = stdout {
            let (mut lines, mut line) = (BufReader::new(pipe), Vec::new());
            while lines.read_until(b'\n', &mut line).await.map_err(start)? > 0 {
                contents.line(&line);
                line.clear();
            }
        }
        Ok::<_, PostgresError>(contents)
    };
    let streaming = child::stream(command, "pg_dump", StreamKind::PgArchive, tee, sink);
    let streaming = async { streaming.await.map_err(locked_out) };
    let ((stream, warnings), contents, stderr) =
        futures::try_join!(streaming, listing, async { Ok(child::tail(stderr).await) })?;
    let status = lister.wait().await.map_err(start)?;
    if !status.success() {
        return Err(PostgresError::ClientFailed { program: program.to_owned(), status: status.to_string(), stderr });
    }
    Ok((stream, contents, warnings))
}

/// What `pg_dump` says then; the last two when the session that holds the snapshot has ended.
const DISTURBED: [&str; 7] = [
    "LOCK TABLE",
    "deadlock detected",
    "conflict with recovery",
    "cache lookup failed",
    "could not open relation with OID",
    "invalid snapshot identifier",
    "SET TRANSACTION SNAPSHOT",
];

/// `pg_dump` that could not lock a table, or lost one while it looked, was disturbed; everything else is a failure.
fn locked_out(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::ClientFailed { stderr, .. } if DISTURBED.iter().any(|sign| stderr.contains(sign)) => {
            PostgresError::disturbed(format!("pg_dump was disturbed: {stderr}"), None)
        }
        other => other,
    }
}

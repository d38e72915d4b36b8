//! A pooler between us and the server, which may give each transaction another session.
//!
//! What a capture relies on belongs to a session: its settings, its locks, the snapshot that it exported, the process id by which
//! it is found and ended. Settings that landed in somebody else's session would change what rows look like without
//! an error anywhere. Where the server itself answers, it announces the process id that it has; a pooler makes one up. Then it
//! is tried, with a second session, whether the first one stays the same. A pooler that keeps sessions apart passes.

use super::error::PostgresError;
use super::options::ConnectOptions;
use super::session::{Session, column};

const DURING: &str = "asking whether a pooler answers";

/// Refuses a pooler that does not give each connection a session of its own.
pub(super) async fn refuse(session: &mut Session, to: &ConnectOptions) -> Result<(), PostgresError> {
    let before = pid(session).await?;
    if session.announced() == Some(before) {
        return Ok(());
    }
    // In a transaction, the other one has a session of the server for itself. If it is ours, we had none.
    let mut other = Session::open(to).await?;
    other.run(DURING, "BEGIN").await?;
    let mut shared = pid(&mut other).await? == before;
    // One that takes its sessions in turn may have skipped ours: alone, the first one would be given another each time.
    for _ in 0..2 {
        shared |= pid(session).await? != before;
    }
    other.close().await;
    for _ in 0..2 {
        shared |= pid(session).await? != before;
    }
    if shared { Err(PostgresError::Pooler { address: to.address(), source: None }) } else { Ok(()) }
}

async fn pid(session: &mut Session) -> Result<i64, PostgresError> {
    column(&session.one(DURING, "SELECT pg_catalog.pg_backend_pid()::int8 AS pid").await?, "pid", DURING)
}

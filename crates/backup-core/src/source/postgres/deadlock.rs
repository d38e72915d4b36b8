//! The deadlock that the server cannot see.
//!
//! Somebody wants an exclusive lock between our locks and `pg_dump`'s: he waits for us, `pg_dump` waits behind him, and we
//! wait for `pg_dump`, which is no lock. And everybody who wants to read that table waits behind him as well. `pg_dump` gives
//! up after its own time for locks; until then applications would stand still. So somebody looks, often at first and seldom
//! later (`pg_dump` takes its locks at its beginning), and ends the attempt.

use std::future::Future;
use std::time::Duration;

use futures::future::{Either, select};

use super::error::PostgresError;
use super::options::ConnectOptions;
use super::session::{Session, column};

/// Between two looks: while `pg_dump` takes its locks, and for the rest of its time.
const OFTEN: (u32, Duration) = (150, Duration::from_millis(200));
const SELDOM: Duration = Duration::from_secs(10);

/// Lets `dump` run, unless it waits for somebody who waits for the session with process id `pid`.
pub(super) async fn unless<T>(
    to: &ConnectOptions,
    pid: i64,
    dump: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    match select(Box::pin(dump), Box::pin(met(to, pid))).await {
        Either::Left((dumped, _)) => dumped,
        // What looked has failed: the dump has its own time for locks.
        Either::Right((Err(_), dump)) => dump.await,
        Either::Right((Ok(()), dump)) => {
            drop(dump);
            Err(PostgresError::disturbed("pg_dump waits behind somebody who waits for our locks", None))
        }
    }
}

/// Ends when it is so.
async fn met(to: &ConnectOptions, pid: i64) -> Result<(), PostgresError> {
    const DURING: &str = "looking for a deadlock";
    // Only a waiting LOCK TABLE of this program is looked into: that takes the server's lock table for a moment.
    let sql = format!(
        "SELECT count(*) AS met FROM pg_catalog.pg_stat_activity a CROSS JOIN LATERAL \
         pg_catalog.unnest(CASE WHEN a.wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(a.pid) END) b (pid) \
         WHERE a.application_name = 'backup' AND a.usename = current_user AND a.datname = pg_catalog.current_database() \
         AND a.wait_event_type = 'Lock' AND a.query LIKE 'LOCK TABLE%' AND {pid} = ANY (pg_catalog.pg_blocking_pids(b.pid))"
    );
    let mut session = Session::open(to).await?;
    for look in 0_u64.. {
        tokio::time::sleep(if look < OFTEN.0.into() { OFTEN.1 } else { SELDOM }).await;
        let row = session.one(DURING, sql.as_str()).await?;
        if column::<i64>(&row, "met", DURING)? > 0 {
            break;
        }
    }
    session.close().await;
    Ok(())
}

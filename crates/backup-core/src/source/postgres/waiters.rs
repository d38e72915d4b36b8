//! Who waits because of our locks, and when to step aside.
//!
//! Nobody who only reads or writes rows conflicts with our locks. Somebody who wants an exclusive one waits for us, and from
//! then on everybody waits behind him. Two kinds of that end the attempt, and with it the locks:
//! - `pg_dump` waits behind him. That is a deadlock that the server cannot see: he waits for us, `pg_dump` for him, and we for
//!   `pg_dump`, which is no lock. It is ended as soon as it is seen.
//! - An application waits behind him. It may wait for as long as we ourselves would wait for a lock (`LOCK_TIMEOUT_MS`), not
//!   for the hours that a capture can take.
//!
//! He alone may wait: a schema change without readers behind it costs nobody anything. What was stored by an attempt that is
//! ended is found again by the next one, chunk by chunk.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::Instant;

use super::error::PostgresError;
use super::options::ConnectOptions;
use super::session::{Session, column};
use super::snapshot::LOCK_TIMEOUT_MS;

/// Between two looks: while `pg_dump` takes its locks, and for the rest of the time.
const OFTEN: (u32, Duration) = (150, Duration::from_millis(200));
const LATER: Duration = Duration::from_millis(500);
/// A look takes at most this part of the time: it stops, for its moment, whoever needs the server's lock table.
const PART: u32 = 20;
/// How long somebody may wait. What is left of our own time for locks is for ending our sessions.
const PATIENCE: Duration = Duration::from_millis(LOCK_TIMEOUT_MS as u64 - 500);

/// Lets `work` run, unless somebody waits behind the locks of the session with process id `pid`, or of `pg_dump`'s.
///
/// # Errors
/// Those of `work`; `Disturbed` where somebody waits.
pub(super) async fn unless<T>(
    to: &ConnectOptions,
    pid: i64,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    match select(Box::pin(work), Box::pin(met(to, pid))).await {
        Either::Left((done, _)) => done,
        // What looked has failed: `pg_dump` has its own time for locks, and captures went on without looking before.
        Either::Right((Err(_), work)) => work.await,
        Either::Right((Ok(what), work)) => {
            drop(work);
            Err(PostgresError::disturbed(what, None))
        }
    }
}

/// Ends with what was met.
async fn met(to: &ConnectOptions, pid: i64) -> Result<String, PostgresError> {
    const DURING: &str = "looking who waits for our locks";
    // A session without rights to look at others is told of locks all the same. `pg_blocking_pids` counts who stands ahead in
    // a queue, too.
    let sql = format!(
        "WITH ours AS (SELECT pid, query LIKE 'LOCK TABLE%' AS locking FROM pg_catalog.pg_stat_activity \
         WHERE application_name = 'backup' AND usename = current_user AND datname = pg_catalog.current_database()), \
         waiting AS MATERIALIZED (SELECT pid, pg_catalog.pg_blocking_pids(pid) AS behind FROM (\
         SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted AND locktype = 'relation' AND database = \
         (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) w) \
         SELECT w.pid::int8 AS pid, coalesce(o.locking, false) AS dump, o.pid IS NULL AS application \
         FROM waiting w LEFT JOIN ours o ON o.pid = w.pid WHERE EXISTS (SELECT FROM waiting q \
         WHERE q.pid = ANY (w.behind) AND q.pid NOT IN (SELECT pid FROM ours) \
         AND ({pid} = ANY (q.behind) OR o.pid IS NULL AND q.behind && ARRAY (SELECT pid FROM ours)))"
    );
    let mut session = Session::open(to).await?;
    // Each process that waits behind somebody, with the last moment in which it was not seen to.
    let mut free: HashMap<i64, Instant> = HashMap::new();
    let (mut looks, mut before) = (0, Instant::now());
    loop {
        let began = Instant::now();
        let rows = session.run(DURING, sql.as_str()).await?;
        let pause = if looks < OFTEN.0 { OFTEN.1 } else { LATER }.max(began.elapsed() * PART);
        let mut met = None;
        let mut now = HashMap::new();
        for row in rows {
            let waiting: i64 = column(&row, "pid", DURING)?;
            let free = free.get(&waiting).copied().unwrap_or(before);
            if column(&row, "dump", DURING)? {
                met = Some("pg_dump waits behind somebody who waits for our locks".to_owned());
            } else if column(&row, "application", DURING)? {
                if free.elapsed() + pause >= PATIENCE {
                    met = met.or(Some(format!("process {waiting} waits behind somebody who waits for our locks")));
                }
                now.insert(waiting, free);
            }
        }
        if let Some(met) = met {
            session.close().await;
            return Ok(met);
        }
        (free, before, looks) = (now, began, looks + 1);
        tokio::time::sleep(pause).await;
    }
}

//! Who waits because of our locks, and when to step aside.
//!
//! Nobody who only reads or writes rows conflicts with our locks. Somebody who wants an exclusive one waits for us, and from
//! then on everybody waits behind him: for the same table, or for a row or an advisory lock that he has already. Two kinds of
//! that end the attempt, and with it the locks:
//! Our own sessions are those that carry the name of the attempt, from its first lock to its last: the coordinator, the
//! workers, and the client programs wherever they run.
//!
//! - One of our own sessions waits behind him, `pg_dump` as a rule. That is a deadlock that the server cannot see: he waits for
//!   us, `pg_dump` for him, and we for `pg_dump`, which is no lock. It is ended as soon as it is seen.
//! - An application waits behind him. It may wait for as long as we ourselves would wait for a lock (`LOCK_TIMEOUT_MS`), not
//!   for the hours that a capture can take.
//!
//! Whoever wants an exclusive lock himself may wait: a schema change without readers behind it costs nobody anything. What was
//! stored by an attempt that is ended is found again by the next one, chunk by chunk.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::time::Instant;

use super::error::PostgresError;
use super::names::literal;
use super::options::ConnectOptions;
use super::session::{Session, column};
use super::snapshot::{LOCK_TIMEOUT_MS, give_way};
use crate::monitor::{Event, Monitor};

/// Between two looks: while `pg_dump` takes its locks, and for the rest of the time.
const OFTEN: (u32, Duration) = (150, Duration::from_millis(200));
const LATER: Duration = Duration::from_millis(500);
/// A look takes at most this part of the time: it stops, for its moment, whoever needs the server's lock table.
const PART: u32 = 20;
/// How long somebody may wait. What is left of our own time for locks is for ending our sessions.
const PATIENCE: Duration = Duration::from_millis(LOCK_TIMEOUT_MS as u64 - 500);
/// Before it is tried again to look, where that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Lets `work` run, unless somebody waits behind the locks of its sessions, which all have the name that `to` gives them.
///
/// # Errors
/// Those of `work`; `Disturbed` where somebody waits.
pub(super) async fn unless<T>(
    to: &ConnectOptions,
    monitor: &dyn Monitor,
    work: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, PostgresError> {
    match select(Box::pin(work), Box::pin(watch(to, monitor))).await {
        Either::Left((done, _)) => done,
        Either::Right((what, work)) => {
            // While the locks are still held, it can be seen who waits for them.
            let blockers = give_way(to).await;
            drop(work);
            Err(PostgresError::Disturbed { what, blockers, source: None })
        }
    }
}

/// Ends with what was met. That nobody can look is no reason to end a capture: `pg_dump` has its own time for locks.
async fn watch(to: &ConnectOptions, monitor: &dyn Monitor) -> String {
    let mut attempt = 1;
    loop {
        match met(to).await {
            Ok(what) => return what,
            Err(error) => {
                let what = "looking who waits for the locks of a capture".to_owned();
                monitor.event(Event::Retry { what, why: error.to_string(), attempt });
            }
        }
        tokio::time::sleep(AGAIN).await;
        attempt += 1;
    }
}

/// Ends with what was met.
async fn met(to: &ConnectOptions) -> Result<String, PostgresError> {
    const DURING: &str = "looking who waits for our locks";
    // A session without rights to look at others is told of locks all the same. `pg_blocking_pids` counts who stands ahead in
    // a queue, too. `waitstart` is there from 14 on.
    let sql = format!(
        "WITH RECURSIVE ours AS (SELECT pid FROM pg_catalog.pg_stat_activity \
         WHERE application_name = {} AND usename = session_user AND datname = pg_catalog.current_database()), \
         waiting AS MATERIALIZED (SELECT pid, since, pg_catalog.pg_blocking_pids(pid) AS behind FROM (SELECT pid, \
         pg_catalog.min(pg_catalog.to_jsonb(l) ->> 'waitstart') AS since FROM pg_catalog.pg_locks l WHERE NOT granted \
         GROUP BY pid) w), \
         first AS (SELECT pid FROM waiting WHERE pid NOT IN (SELECT pid FROM ours) \
         AND behind && ARRAY (SELECT pid FROM ours)), \
         held (pid) AS (SELECT pid FROM first UNION SELECT w.pid FROM waiting w JOIN held h ON h.pid = ANY (w.behind)) \
         SELECT w.pid::int8 AS pid, coalesce(w.since, '') AS since, w.pid IN (SELECT pid FROM ours) AS ours \
         FROM waiting w JOIN held USING (pid) WHERE w.pid NOT IN (SELECT pid FROM first)",
        literal(to.application())
    );
    let mut session = Session::open(to).await?;
    // Each wait behind somebody, with the last moment in which it was not seen.
    let mut free: HashMap<(i64, String), Instant> = HashMap::new();
    let (mut looks, mut before) = (0, Instant::now());
    loop {
        let began = Instant::now();
        let rows = session.run(DURING, sql.as_str()).await?;
        let pause = if looks < OFTEN.0 { OFTEN.1 } else { LATER }.max(began.elapsed() * PART);
        let mut met = None;
        let mut now = HashMap::new();
        for row in rows {
            let wait: (i64, String) = (column(&row, "pid", DURING)?, column(&row, "since", DURING)?);
            let free = free.get(&wait).copied().unwrap_or(before);
            if column(&row, "ours", DURING)? {
                met =
                    Some("pg_dump or another session of ours waits behind somebody who waits for our locks".to_owned());
            } else if free.elapsed() + pause >= PATIENCE {
                met = met.or(Some(format!("process {} waits behind somebody who waits for our locks", wait.0)));
            }
            now.insert(wait, free);
        }
        if let Some(met) = met {
            session.close().await;
            return Ok(met);
        }
        (free, before, looks) = (now, began, looks + 1);
        tokio::time::sleep(pause).await;
    }
}

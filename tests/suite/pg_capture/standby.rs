//! A standby as the source, and a primary that does not know of it: what comes from there removes rows that our snapshot shows.
//! The server then ends whoever looks at them, so a capture there starts over or says why it gave up; it never goes on with fewer.

use std::time::Duration;

use backup_core::source::postgres::{PostgresError, PostgresOptions};
use harness::pg::{Cluster, Options, SUPERUSER};

use super::sink::{MemorySink, assert_counts, table};
use super::{chain, options, run};

/// A primary, and a standby that waits for nobody.
fn servers() -> (Cluster, Cluster) {
    let settings = [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("hot_standby_feedback", "off"),
        ("max_standby_streaming_delay", "50ms"),
        ("wal_receiver_status_interval", "1s"),
        ("autovacuum", "off"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let primary = Cluster::start_with(Options { settings, ..Options::default() });
    let sql = "CREATE TABLE first AS SELECT i, md5(i::text) t FROM generate_series(1, 200000) i;
        CREATE TABLE second AS SELECT i, 0 AS gen FROM generate_series(1, 5000) i;";
    primary.psql("postgres", sql);
    let standby = primary.standby();
    (primary, standby)
}

/// Lets the old rows of `second` go, there and here.
fn conflict(primary: &Cluster) {
    primary.psql("postgres", "UPDATE second SET gen = gen + 1");
    primary.psql("postgres", "VACUUM second");
}

#[tokio::test]
async fn a_replay_that_is_in_the_way_makes_it_start_over() {
    let (primary, standby) = servers();
    let (sink, gate) = MemorySink::paused_at(backup_core::manifest::StreamKind::PgTable);
    let meddle = async {
        gate.reached.notified().await;
        conflict(&primary);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, ..options(&standby, SUPERUSER, "postgres") };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), meddle);
    let (captured, recorder) = outcome.unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(!recorder.retries().is_empty(), "the replay was in nobody's way");
    assert_eq!((table(&captured, "public", "first").rows, table(&captured, "public", "second").rows), (200_000, 5000));
    assert_counts(&captured);
}

#[tokio::test]
async fn a_replay_that_is_always_in_the_way_is_the_reason_to_give_up() {
    let (primary, standby) = servers();
    let (sink, gate) = MemorySink::paused_at(backup_core::manifest::StreamKind::PgTable);
    let meddle = async {
        gate.reached.notified().await;
        conflict(&primary);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, attempts: 1, ..options(&standby, SUPERUSER, "postgres") };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), meddle);
    let error = outcome.map(|(captured, _)| captured.tables).unwrap_err();
    let text = chain(&error);
    assert!(matches!(error, PostgresError::GaveUp { .. }) && error.is_recovery_conflict(), "{text}");
}

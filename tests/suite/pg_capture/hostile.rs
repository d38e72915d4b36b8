//! Settings, roles and clocks that could make rows vanish, or a capture end, without a word about why.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use backup_core::clock::Clock;
use backup_core::manifest::StreamKind;
use backup_core::source::postgres::{PostgresError, PostgresOptions, capture};
use chrono::TimeDelta;
use harness::pg::{Cluster, Options, SUPERUSER, Stop, available};

use super::sink::{MemorySink, assert_counts, table};
use super::{Recorder, captured, chain, clock, options, run};

/// Overwrites the second block of a table, while the server is down.
fn damage(cluster: &Cluster, table: &str) {
    let path = cluster.psql("postgres", &format!("CHECKPOINT; SELECT pg_relation_filepath('{table}')"));
    cluster.stop(Stop::Fast);
    let file = File::options().write(true).open(cluster.dir().join("data").join(path)).unwrap();
    file.write_all_at(&[0xa5; 8192], 8192).unwrap();
    cluster.start_again();
}

#[tokio::test]
async fn a_setting_that_hides_damaged_pages_makes_the_snapshot_suspect() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT i, md5(i::text) h FROM generate_series(1, 1000) i");
    damage(&cluster, "t");
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let error = run(&wanted, &MemorySink::default()).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("table `public.t`") && text.contains("invalid page in block 1"), "{text}");

    // Of a role or a database alone: an administrator's look at the server's configuration would not show it.
    let hidden =
        "ALTER ROLE postgres SET zero_damaged_pages = on; ALTER DATABASE postgres SET ignore_checksum_failure = on";
    cluster.psql("postgres", hidden);
    let captured = captured(&cluster, "postgres").await;
    let rows = table(&captured, "public", "t").rows;
    assert!(rows > 500 && rows < 1000, "{rows} rows: a page is gone");
    for name in ["zero_damaged_pages", "ignore_checksum_failure"] {
        let told = captured.suspect.iter().filter(|why| why.contains(&format!("`{name}` on"))).count();
        assert_eq!(told, 1, "{name}: {:?}", captured.suspect);
    }
}

/// Each session of a capture stands still for longer than any of these limits: the coordinator all the time, workers while
/// nobody takes their rows, `pg_dump` while nobody takes the archive.
async fn limits_of_a_second_end_nothing(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = Cluster::start_with(Options { version: Some(major), ..Options::default() });
    let sql = "CREATE TABLE big AS SELECT i, md5(i::text) t FROM generate_series(1, 200000) i;
        CREATE TABLE next AS SELECT i, md5(i::text) t FROM generate_series(1, 60000) i;
        SELECT lo_from_bytea(0, decode(repeat('ab', 3000000), 'hex'));";
    cluster.psql("postgres", sql);
    let mut limits = vec!["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    limits.extend((major >= 14).then_some("idle_session_timeout"));
    limits.extend((major >= 17).then_some("transaction_timeout"));
    for limit in limits {
        cluster.psql(
            "postgres",
            &format!("ALTER ROLE postgres SET {limit} = '1s'; ALTER DATABASE postgres SET {limit} = '1s'"),
        );
    }
    for kind in [StreamKind::PgTable, StreamKind::PgArchive] {
        let (sink, gate) = MemorySink::paused_at(kind);
        let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, "postgres") };
        let wait = async {
            gate.reached.notified().await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            gate.open();
        };
        let (outcome, ()) = tokio::join!(run(&wanted, &sink), wait);
        let (captured, recorder) = outcome.unwrap_or_else(|e| panic!("{kind:?} on {major}: {}", chain(&e)));
        assert_eq!(recorder.retries(), Vec::<String>::new(), "{kind:?} on {major}");
        assert_eq!(table(&captured, "public", "big").rows, 200_000);
        assert_counts(&captured);
    }
}

#[tokio::test]
async fn limits_of_a_second_end_nothing_on_13() {
    limits_of_a_second_end_nothing(13).await;
}

#[tokio::test]
async fn limits_of_a_second_end_nothing_on_15() {
    limits_of_a_second_end_nothing(15).await;
}

#[tokio::test]
async fn limits_of_a_second_end_nothing_on_18() {
    limits_of_a_second_end_nothing(18).await;
}

#[tokio::test]
async fn a_server_whose_clock_is_far_from_ours_is_told_and_captured() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10) x");
    let wanted = options(&cluster, SUPERUSER, "postgres");
    for (minutes, told) in [(-185, true), (-50, false), (50, false), (185, true)] {
        let here = clock();
        let bent = Clock::new(move || here.now() + TimeDelta::minutes(minutes));
        let captured = capture(&wanted, &MemorySink::default(), &bent, &Recorder::default()).await.unwrap();
        assert_eq!(table(&captured, "public", "t").rows, 10);
        // The instant is the server's: what its rows say of time is said by that clock.
        assert!((clock().now() - captured.instant).num_minutes() < 5, "{}", captured.instant);
        let words = captured.suspect.iter().filter(|why| why.contains("the server's clock is 18")).count();
        assert_eq!(words, usize::from(told), "{minutes}: {:?}", captured.suspect);
    }
}

#[tokio::test]
async fn row_level_security_is_refused_or_hides_nothing() {
    let cluster = Cluster::start();
    let sql = "CREATE ROLE keeper LOGIN; CREATE ROLE sees LOGIN BYPASSRLS; CREATE ROLE blind LOGIN;
        CREATE TABLE forced AS SELECT i, 'w' || i % 4 AS who FROM generate_series(1, 40) i;
        CREATE TABLE own AS TABLE forced; CREATE TABLE plain AS TABLE forced;
        CREATE POLICY own ON forced USING (who = 'w1'); CREATE POLICY own ON own USING (who = 'w1');
        ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY;
        ALTER TABLE own ENABLE ROW LEVEL SECURITY;
        ALTER TABLE forced OWNER TO keeper; ALTER TABLE own OWNER TO keeper; ALTER TABLE plain OWNER TO keeper;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO sees, blind;";
    cluster.psql("postgres", sql);
    let of = |user: &str| options(&cluster, user, "postgres");
    let refused = |error: PostgresError| match error {
        PostgresError::NotReadable { objects, .. } => objects,
        error => panic!("{}", chain(&error)),
    };
    let forced = "table `public.forced` (row-level security hides rows)";
    let own = "table `public.own` (row-level security hides rows)";
    let all = async |user: &str| {
        let (captured, _) =
            run(&of(user), &MemorySink::default()).await.unwrap_or_else(|e| panic!("{user}: {}", chain(&e)));
        assert_counts(&captured);
        assert!(captured.tables.len() == 3 && captured.tables.iter().all(|table| table.rows == 40), "{user}");
    };
    // FORCE holds for the owner as well; without it the owner sees everything.
    assert_eq!(refused(run(&of("keeper"), &MemorySink::default()).await.unwrap_err()), [forced]);
    assert_eq!(refused(run(&of("blind"), &MemorySink::default()).await.unwrap_err()), [forced, own]);
    all("sees").await;
    all(SUPERUSER).await;
    cluster.psql("postgres", "ALTER TABLE forced NO FORCE ROW LEVEL SECURITY");
    all("keeper").await;
}

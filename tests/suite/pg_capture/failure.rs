//! Each thing that can go wrong is an error that names it, never a capture that looks whole.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use backup_core::manifest::StreamKind;
use backup_core::secret::Secret;
use backup_core::source::postgres::{ClientsOption, ConnectOptions, PostgresError, PostgresOptions};
use harness::pg::{Cluster, Options, SUPERUSER, Stop};

use super::sink::{MemorySink, assert_counts, table};
use super::{chain, options, run};

/// A directory of clients in which `pg_dump` is a script; `$real` is the real one.
pub(super) fn clients_with(cluster: &Cluster, script: &str) -> (tempfile::TempDir, ClientsOption) {
    let dir = tempfile::tempdir().unwrap();
    for program in ["pg_restore", "pg_dumpall", "psql"] {
        symlink(cluster.clients().join(program), dir.path().join(program)).unwrap();
    }
    let real = cluster.clients().join("pg_dump");
    let path = dir.path().join("pg_dump");
    let real = real.display();
    let text =
        format!("#!/bin/bash\nreal={real}\nif [ \"$1\" = --version ]; then exec $real --version; fi\n{script}\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let option = ClientsOption::Dir(dir.path().to_owned());
    (dir, option)
}

async fn fails(options: &PostgresOptions) -> String {
    let error = run(options, &MemorySink::default()).await.unwrap_err();
    let text = chain(&error);
    assert!(!format!("{text}{error:?}").contains("canary"), "{text}");
    text
}

#[tokio::test]
async fn a_server_that_cannot_be_used_says_why() {
    let cluster = Cluster::start_with(Options { password: Some("canary-right".to_owned()), ..Options::default() });
    let good = options(&cluster, SUPERUSER, "postgres");
    let with = |url: String, password: &str| PostgresOptions {
        connect: ConnectOptions::new(&url, Some(Secret::new(password))).unwrap(),
        ..good.clone()
    };
    let text = fails(&with(cluster.url("postgres"), "canary-wrong")).await;
    assert!(text.contains("refuses user `postgres`"), "{text}");
    let text = fails(&with(cluster.url("missing"), "canary-right")).await;
    assert!(text.contains("no database `missing`"), "{text}");
    cluster.stop(Stop::Fast);
    let text = fails(&good).await;
    assert!(text.contains("does not answer"), "{text}");
}

#[tokio::test]
async fn all_refusals_are_listed_before_anything_is_copied() {
    let cluster = Cluster::start();
    let sql = "CREATE ROLE weak LOGIN; CREATE SCHEMA hidden; CREATE TABLE hidden.a (x int); CREATE TABLE b (x serial);
        CREATE TABLE c (x int); GRANT SELECT ON c TO weak; CREATE TABLE d (x int); GRANT SELECT ON d TO weak;
        ALTER TABLE d ENABLE ROW LEVEL SECURITY;";
    cluster.psql("postgres", sql);
    let text = fails(&options(&cluster, "weak", "postgres")).await;
    for name in ["user `weak`", "4 objects", "`hidden.a`", "`public.b`", "`public.b_x_seq`", "`public.d` (row-level"] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("`public.c`"), "{text}");
}

#[tokio::test]
async fn a_pg_dump_that_does_not_end_well_is_no_archive() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) x");
    let (_dir, clients) = clients_with(&cluster, "$real \"$@\" | head -c 900; kill -9 $$");
    let text = fails(&PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(text.contains("`pg_dump` failed") && text.contains("SIGKILL"), "{text}");
    let (_dir, clients) = clients_with(&cluster, "$real \"$@\"; echo 'disk on fire' >&2; exit 1");
    let text = fails(&PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(text.contains("disk on fire") && text.contains("exit status: 1"), "{text}");
    // Cut short before the end of its table of contents, with a good exit status.
    let (_dir, clients) = clients_with(&cluster, "$real \"$@\" | head -c 900; exit 0");
    let text = fails(&PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(text.contains("pg_restore --list"), "{text}");
}

#[tokio::test]
async fn an_archive_that_disagrees_with_the_plan_is_refused() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 10) x; CREATE TABLE u (x int)");
    let spoil =
        "for a in \"$@\"; do case $a in --exclude-table-data=*) ;; *) b+=(\"$a\");; esac; done; exec $real \"${b[@]}\"";
    let (_dir, clients) = clients_with(&cluster, spoil);
    let text = fails(&PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(text.contains("`public.t` are streamed and in the archive as well"), "{text}");
    let (_dir, clients) = clients_with(&cluster, "exec $real --exclude-table=public.u \"$@\"");
    let text = fails(&PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(text.contains("the definition of table `public.u` is not in the archive"), "{text}");
}

#[tokio::test]
async fn a_lock_that_stays_names_table_and_process() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t (x int)");
    let mut holder = super::concurrency::Script::start(&cluster, "postgres");
    let pid = holder.ask("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_backend_pid();");
    let text = fails(&PostgresOptions { attempts: 2, ..options(&cluster, SUPERUSER, "postgres") }).await;
    assert!(
        text.contains("2 attempts") && text.contains(&format!("`public.t` is held exclusively by process {pid}")),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_that_restarts_in_the_middle_ends_the_capture() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE big AS SELECT i, md5(i::text) t FROM generate_series(1, 300000) i");
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTable);
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let restart = async {
        gate.reached.notified().await;
        cluster.restart(Stop::Immediate);
        gate.open();
    };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), restart);
    // A session that was just being opened meets a server that is not there.
    let told = |error: &PostgresError| {
        matches!(
            error,
            PostgresError::Lost { .. } | PostgresError::ClientFailed { .. } | PostgresError::ServerDown { .. }
        )
    };
    // Where the server is there again before every attempt was made, it starts over and says why.
    match outcome.map(|(_, recorder)| recorder.retries()) {
        Ok(retries) => assert!(retries.iter().any(|why| why.contains("it was restarted")), "{retries:?}"),
        Err(error) => assert!(told(&error), "{}", chain(&error)),
    }
}

#[tokio::test]
async fn a_schema_that_changes_places_in_the_middle_is_noticed() {
    let cluster = Cluster::start();
    let sql = "CREATE SCHEMA a; CREATE SCHEMA b;
        CREATE TABLE a.t AS SELECT i, md5(i::text) t FROM generate_series(1, 100000) i;
        CREATE TABLE b.t AS SELECT i, 'b' || i t FROM generate_series(1, 7) i;";
    cluster.psql("postgres", sql);
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTable);
    let swap = async {
        gate.reached.notified().await;
        // Not held up by locks on the tables; `pg_dump` may still be looking, so it has a moment.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        cluster.psql("postgres", "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; ALTER SCHEMA c RENAME TO b");
        gate.open();
    };
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), swap);
    let (captured, recorder) = outcome.unwrap();
    assert!(recorder.retries().iter().any(|why| why.contains("was renamed or replaced")), "{:?}", recorder.retries());
    assert_eq!((table(&captured, "a", "t").rows, table(&captured, "b", "t").rows), (7, 100_000));
    assert_counts(&captured);
}

#[tokio::test]
async fn an_enum_label_renamed_in_the_middle_is_noticed() {
    let cluster = Cluster::start();
    let sql = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE m (m mood, t text);
        INSERT INTO m SELECT 'ok', md5(i::text) FROM generate_series(1, 100000) i";
    cluster.psql("postgres", sql);
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTable);
    let rename = async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.psql("postgres", "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'");
        gate.open();
    };
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), rename);
    let (captured, recorder) = outcome.unwrap();
    assert!(recorder.retries().iter().any(|why| why.contains("enum label `ok`")), "{:?}", recorder.retries());
    let file = &super::sink::parts(&captured, table(&captured, "public", "m"))[0].1;
    assert!(file.split(|b| *b == b'\n').filter(|row| !row.is_empty()).all(|row| row.starts_with(b"fine\t")));
}

#[tokio::test]
async fn a_coordinator_that_was_ended_is_noticed() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE big AS SELECT i, md5(i::text) t FROM generate_series(1, 100000) i");
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTable);
    let end = async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
            WHERE application_name ~ '^backup/' AND state = 'idle in transaction' AND query !~ 'COPY'";
        assert_ne!(cluster.psql("postgres", sql), "0");
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, "postgres") };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), end);
    let error = outcome.unwrap_err();
    assert!(matches!(error, PostgresError::Lost { .. }), "{}", chain(&error));
}

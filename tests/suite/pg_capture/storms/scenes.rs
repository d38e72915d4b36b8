//! One change at one moment.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backup_core::manifest::StreamKind;
use backup_core::source::Captured;
use backup_core::source::postgres::{ClientsOption, PostgresError, PostgresOptions};
use harness::pg::{Cluster, SUPERUSER, available};

use super::super::concurrency::Script;
use super::super::sink::{MemorySink, assert_counts};
use super::super::{Recorder, chain, options, run};
use super::judge::Picture;
use super::{ALONE, CHANGES, WIDER, cluster, settled};

const BASE: &str = "base";

/// The same test on the oldest major, on Debian's and on the newest.
macro_rules! on_majors {
    ($what:ident) => {
        mod $what {
            #[tokio::test]
            async fn on_13() {
                super::$what(13).await;
            }

            #[tokio::test]
            async fn on_15() {
                super::$what(15).await;
            }

            #[tokio::test]
            async fn on_18() {
                super::$what(18).await;
            }
        }
    };
}

on_majors!(a_change_in_the_middle_without_locks);
on_majors!(a_change_in_the_middle_with_locks);
on_majors!(changes_that_are_open_before_the_locks);
on_majors!(a_truncate_between_our_locks_and_pg_dumps);
on_majors!(names_that_change_before_pg_dump_looks);
on_majors!(a_coordinator_that_is_ended_and_then_a_truncate);

/// All scenes in a campaign; else those that differ in how they are noticed.
fn chosen(name: &str, few: &[&str]) -> bool {
    few.contains(&name) || std::env::var_os("BACKUP_STORM_ROUNDS").is_some()
}

/// A copy of the base for one scene, and what it is before anything happens.
struct Scene {
    cluster: Arc<Cluster>,
    name: &'static str,
}

impl Scene {
    fn new(cluster: &Arc<Cluster>, name: &'static str) -> Self {
        cluster.psql("postgres", &format!("CREATE DATABASE scene TEMPLATE {BASE}"));
        Self { cluster: cluster.clone(), name }
    }

    fn wanted(&self) -> PostgresOptions {
        PostgresOptions { workers: 1, ..options(&self.cluster, SUPERUSER, "scene") }
    }

    /// What was captured must be one of the two, and if it is the later one although the first attempt cannot have
    /// seen that, the first attempt must have said why it ended. Gives whether it is the earlier one.
    fn judge(self, before: &Picture, outcome: Result<(Captured, Recorder), PostgresError>, late: bool) -> bool {
        let name = self.name;
        let (captured, recorder) = outcome.unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
        assert_counts(&captured);
        let found = Picture::captured(&self.cluster, &captured);
        let after = Picture::of(&self.cluster, "scene");
        assert!(after != *before || ALONE.iter().any(|(alone, _)| *alone == name), "{name}: nothing has changed");
        let retries = recorder.retries();
        println!("{name}: {} after {retries:?}", if found == *before { "before" } else { "after" });
        if found != *before {
            let differences = found.differences(&after);
            let others = found.differences(before);
            assert!(differences.is_empty(), "{name}: neither nor: {differences:#?}\nand before: {others:#?}");
            assert!(!late || !retries.is_empty(), "{name}: the change was seen, and nobody said so");
        }
        self.cluster.psql("postgres", "DROP DATABASE scene");
        found == *before
    }
}

/// The change is made in the middle of the copying.
async fn in_the_middle(cluster: &Arc<Cluster>, before: &Picture, name: &'static str, sql: &str, room: bool) {
    let scene = Scene::new(cluster, name);
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTables);
    let alone = ALONE.iter().any(|(alone, _)| *alone == name);
    let sql = if alone { sql.to_owned() } else { format!("BEGIN; {sql}; COMMIT") };
    let meddle = async {
        gate.reached.notified().await;
        let cluster = cluster.clone();
        // Without our locks only `pg_dump` is in the way, until it has ended.
        let patience = (!room).then_some(Duration::from_secs(20));
        let done = tokio::task::spawn_blocking(move || {
            let mut script = Script::start(&cluster, "scene");
            (settled(&cluster, &mut script, &sql, patience), script)
        });
        let (done, script) = done.await.unwrap();
        gate.open();
        (done, script)
    };
    let wanted = scene.wanted();
    let (outcome, (done, mut script)) = tokio::join!(run(&wanted, &sink), meddle);
    // The session, too, must be gone before its database can be.
    let _ = done || script.line() == "done";
    drop(script);
    scene.judge(before, outcome, true);
}

/// Without locks of ours: the change happens, and what was copied before it is thrown away.
async fn a_change_in_the_middle_without_locks(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, false, BASE);
    let before = Picture::of(&cluster, BASE);
    let few =
        ["truncated", "replaced_column", "swapped_columns", "exchanged", "dropped", "blue and green", "a type renamed"];
    for (name, sql) in CHANGES.into_iter().chain(WIDER).chain(ALONE).filter(|(name, _)| chosen(name, &few)) {
        in_the_middle(&cluster, &before, name, sql, false).await;
    }
}

/// With our locks: changes of tables wait, all of them in one capture; those that no lock holds up are made.
async fn a_change_in_the_middle_with_locks(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, true, BASE);
    let before = Picture::of(&cluster, BASE);
    for (name, sql) in WIDER.into_iter().filter(|(name, _)| chosen(name, &["blue and green", "a label renamed"])) {
        in_the_middle(&cluster, &before, name, sql, true).await;
    }
    let scene = Scene::new(&cluster, "all tables");
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTables);
    let meddle = async {
        gate.reached.notified().await;
        while !sink.archived.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cluster = cluster.clone();
        let scripts = tokio::task::spawn_blocking(move || {
            let change = |(name, sql): (&str, &str)| {
                let mut script = Script::start(&cluster, "scene");
                let done = settled(&cluster, &mut script, &format!("BEGIN; {sql}; COMMIT"), None);
                // Until 13 nothing but the parent is locked to detach a partition, and `pg_dump` alone locks that.
                assert!(!done || matches!(name, "emptied" | "detached"), "{name} should wait for the capture");
                script
            };
            CHANGES.into_iter().map(change).collect::<Vec<_>>()
        });
        let scripts = scripts.await.unwrap();
        gate.open();
        scripts
    };
    let wanted = scene.wanted();
    let (outcome, scripts) = tokio::join!(run(&wanted, &sink), meddle);
    for mut script in scripts {
        assert_eq!(script.line(), "done");
    }
    assert_eq!(outcome.as_ref().map(|(_, recorder)| recorder.retries()).unwrap_or_default(), Vec::<String>::new());
    assert!(scene.judge(&before, outcome, true), "what waited for our locks is not in the snapshot");
}

/// Changes that are begun when the capture begins, and committed one after another while it waits for its locks.
async fn changes_that_are_open_before_the_locks(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, true, BASE);
    let before = Picture::of(&cluster, BASE);
    let scene = Scene::new(&cluster, "open changes");
    let changes = CHANGES.into_iter().filter(|(name, _)| *name != "emptied").chain([WIDER[0], WIDER[2]]);
    let begin = |(_, sql): (&str, &str)| {
        let mut script = Script::start(&cluster, "scene");
        script.ask(&format!("BEGIN; {sql}; SELECT 1;"));
        script
    };
    let scripts: Vec<Script> = changes.map(begin).collect();
    let commit = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for mut script in scripts {
            script.ask("COMMIT; SELECT 1;");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let wanted = scene.wanted();
    let sink = MemorySink::default();
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), commit);
    assert!(!scene.judge(&before, outcome, false), "the snapshot came before the changes, and the locks did not");
}

/// Clients whose `pg_dump` waits for the file `go` before it begins, and says so by the file `begun`.
fn held_pg_dump(cluster: &Cluster) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for program in ["pg_restore", "pg_dumpall", "psql"] {
        symlink(cluster.clients().join(program), dir.path().join(program)).unwrap();
    }
    let (real, at) = (cluster.clients().join("pg_dump"), dir.path().display().to_string());
    let real = real.display();
    let text = format!(
        "#!/bin/bash\nif [ \"$1\" = --version ]; then exec {real} --version; fi\ntouch {at}/begun\n\
         while [ ! -e {at}/go ]; do sleep 0.02; done\nexec {real} \"$@\"\n"
    );
    let path = dir.path().join("pg_dump");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn appears(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Shorter than `pg_dump` would wait for its lock: whoever waits behind a statement that waits for us is not forgotten.
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// The deadlock that the server cannot see: a TRUNCATE waits for our lock, `pg_dump` waits behind it, we wait for
/// `pg_dump`; and the application behind all three.
async fn a_truncate_between_our_locks_and_pg_dumps(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, true, BASE);
    let before = Picture::of(&cluster, BASE);
    let scene = Scene::new(&cluster, "a TRUNCATE in between");
    let clients = held_pg_dump(&cluster);
    let wanted = PostgresOptions { clients: ClientsOption::Dir(clients.path().to_owned()), ..scene.wanted() };
    let sink = MemorySink::default();
    let meddle = async {
        appears(&clients.path().join("begun")).await;
        let (cluster, go) = (cluster.clone(), clients.path().join("go"));
        let reading = tokio::task::spawn_blocking(move || {
            let mut script = Script::start(&cluster, "scene");
            assert!(!settled(&cluster, &mut script, "TRUNCATE app.truncated", None), "the TRUNCATE did not wait");
            let mut reader = Script::start(&cluster, "scene");
            reader.ask("SET statement_timeout = '60s'; SELECT 1;");
            std::fs::write(go, "").unwrap();
            let began = Instant::now();
            assert_eq!(reader.ask("SELECT count(*) FROM app.truncated;"), "0");
            let waited = began.elapsed();
            assert_eq!(script.line(), "done");
            waited
        });
        reading.await.unwrap()
    };
    let (outcome, waited) = tokio::join!(run(&wanted, &sink), meddle);
    println!("on {major} a SELECT waited {waited:?}");
    assert!(waited < LONGEST_WAIT, "a SELECT waited {waited:?}");
    let retries = outcome.as_ref().map(|(_, recorder)| recorder.retries()).unwrap_or_default();
    assert!(retries.iter().any(|why| why.contains("pg_dump") && why.contains("`app.truncated`")), "{retries:?}");
    assert!(!scene.judge(&before, outcome, true));
}

/// `pg_dump` has its snapshot, and names change before it looks: what it writes then is no one instant.
async fn names_that_change_before_pg_dump_looks(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, true, BASE);
    let before = Picture::of(&cluster, BASE);
    // The two others would wait for locks.
    let free = WIDER.into_iter().filter(|(name, _)| !matches!(*name, "attached" | "a schema dropped"));
    for (name, sql) in free.filter(|(name, _)| {
        chosen(name, &["blue and green", "a type renamed", "an index renamed", "a view's column renamed"])
    }) {
        let scene = Scene::new(&cluster, name);
        let clients = held_pg_dump(&cluster);
        let wanted = PostgresOptions { clients: ClientsOption::Dir(clients.path().to_owned()), ..scene.wanted() };
        let sink = MemorySink::default();
        let meddle = async {
            appears(&clients.path().join("begun")).await;
            // The workers have copied everything by then, and every check of theirs has passed.
            tokio::time::sleep(Duration::from_millis(400)).await;
            cluster.psql("scene", &format!("BEGIN; {sql}; COMMIT"));
            std::fs::write(clients.path().join("go"), "").unwrap();
        };
        let (outcome, ()) = tokio::join!(run(&wanted, &sink), meddle);
        scene.judge(&before, outcome, true);
    }
}

/// The session with locks and snapshot is ended, and at once a table is truncated that is still to be copied.
async fn a_coordinator_that_is_ended_and_then_a_truncate(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = cluster(major, true, BASE);
    let (sink, gate) = MemorySink::paused_at(StreamKind::PgTables);
    let end = async {
        gate.reached.notified().await;
        // The one that has most locks; `pg_dump` has ended or is ended with it.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^backup/' \
            AND state = 'idle in transaction' ORDER BY backend_start LIMIT 1";
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(cluster.psql("postgres", sql), "t");
        cluster.psql(BASE, "SET lock_timeout = '10s'; TRUNCATE app.truncated");
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, BASE) };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), end);
    match outcome {
        Err(error) => {
            println!("on {major}: {}", chain(&error));
            assert!(matches!(error, PostgresError::Lost { .. }), "{}", chain(&error));
        }
        Ok((captured, recorder)) => {
            assert!(!recorder.retries().is_empty(), "nobody noticed");
            let found = Picture::captured(&cluster, &captured);
            assert_eq!(found.differences(&Picture::of(&cluster, BASE)), Vec::<String>::new());
        }
    }
}

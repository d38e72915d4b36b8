//! Captures while others write: what is captured is one instant, whatever they do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use harness::pg::{Cluster, Options, SUPERUSER, available};

use super::sink::{MemorySink, assert_counts, parts, rows_of, table};
use super::{options, run};
use backup_core::source::postgres::PostgresOptions;

/// A psql session that is told statements one after another.
pub(crate) struct Script {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Script {
    pub(crate) fn start(cluster: &Cluster, database: &str) -> Self {
        Self::of(cluster, database, Stdio::inherit())
    }

    /// One whose errors are nobody's.
    pub(crate) fn quiet(cluster: &Cluster, database: &str) -> Self {
        Self::of(cluster, database, Stdio::null())
    }

    fn of(cluster: &Cluster, database: &str, stderr: Stdio) -> Self {
        let mut command = cluster.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(stderr).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// Sends statements without waiting for them.
    pub(crate) fn tell(&mut self, sql: &str) {
        writeln!(self.stdin, "{sql}").unwrap();
        self.stdin.flush().unwrap();
    }

    /// Sends statements and waits for the last one's row.
    pub(crate) fn ask(&mut self, sql: &str) -> String {
        self.tell(sql);
        self.line()
    }

    /// Waits for the next row of what was sent.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn locks_come_before_the_snapshot() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) x");
    let mut writer = Script::start(&cluster, "postgres");
    writer.ask("BEGIN; TRUNCATE t; INSERT INTO t SELECT generate_series(1, 10); SELECT 1;");
    let commit = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        writer.ask("COMMIT; SELECT 1;");
    };
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let sink = MemorySink::default();
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), commit);
    let (captured, recorder) = outcome.unwrap();
    // With the snapshot first, the old rows would be visible and their file gone: noticed, and begun again.
    assert_eq!(recorder.retries(), Vec::<String>::new());
    assert_eq!(table(&captured, "public", "t").rows, 10);
}

#[tokio::test]
async fn a_truncate_that_waits_for_us_holds_nothing_up() {
    let cluster = Cluster::start();
    let sql = "CREATE TABLE first AS SELECT i, md5(i::text) t FROM generate_series(1, 200000) i;
        CREATE TABLE second AS SELECT i, md5(i::text) t FROM generate_series(1, 100000) i;";
    cluster.psql("postgres", sql);
    let (sink, gate) = MemorySink::paused_at(backup_core::manifest::StreamKind::PgTable);
    let mut writer = Script::start(&cluster, "postgres");
    let truncate = async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        // No worker has locked `second` yet; from now on none can, except by the coordinator's own lock.
        writer.tell("TRUNCATE second;");
        while cluster.psql("postgres", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, "postgres") };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), truncate);
    let (captured, recorder) = outcome.unwrap();
    assert_eq!(recorder.retries(), Vec::<String>::new());
    assert_eq!(table(&captured, "public", "second").rows, 100_000);
    assert_counts(&captured);
    writer.ask("SELECT 1;");
    assert_eq!(cluster.psql("postgres", "SELECT count(*) FROM second"), "0");
}

/// The capture stands still in the middle of a table; a schema change waits for it, and somebody who only wants to read behind
/// that. Without `waiters` he waits for a minute, and is refused.
#[tokio::test]
async fn a_reader_behind_a_schema_change_does_not_wait_for_the_capture() {
    let cluster = Cluster::start();
    let sql = "CREATE TABLE first AS SELECT i, md5(i::text) t FROM generate_series(1, 200000) i;
        CREATE TABLE second AS SELECT i FROM generate_series(1, 1000) i;";
    cluster.psql("postgres", sql);
    let (sink, gate) = MemorySink::paused_at(backup_core::manifest::StreamKind::PgTable);
    let (mut writer, mut reader) = (Script::start(&cluster, "postgres"), Script::start(&cluster, "postgres"));
    reader.ask("SET statement_timeout = '60s'; SELECT 1;");
    let meddle = async {
        gate.reached.notified().await;
        writer.tell("ALTER TABLE second ADD COLUMN later int DEFAULT 7;");
        while cluster.psql("postgres", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Longer than a reader may wait: a schema change alone does.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let reading = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            reader.ask("SELECT sum(later) FROM second;");
            began.elapsed()
        });
        let waited = reading.await.unwrap();
        gate.open();
        waited
    };
    let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, "postgres") };
    let (outcome, waited) = tokio::join!(run(&wanted, &sink), meddle);
    let (captured, recorder) = outcome.unwrap();
    // It came back before the gate was opened; how soon, a busy machine has a say in.
    println!("a SELECT waited {waited:?}");
    let why = recorder.retries();
    assert!(why.iter().any(|why| why.contains("waits behind somebody") && why.contains("`public.second`")), "{why:?}");
    assert_eq!(table(&captured, "public", "second").columns, ["i", "later"]);
    assert_counts(&captured);
}

/// Accounts move between two tables, so that each committed state holds 2,000 of them; `refilled` is truncated and
/// filled with 500 rows in one transaction, so that no committed state shows it empty. Every transaction logs itself.
const SCHEMA: &str = "CREATE TABLE left_side AS SELECT generate_series(1, 2000) id;
    CREATE TABLE right_side (id int); CREATE TABLE refilled AS SELECT generate_series(1, 500) x;
    CREATE INDEX ON left_side (id); CREATE INDEX ON right_side (id);
    CREATE TABLE bulk AS SELECT i, md5(i::text) t FROM generate_series(1, 300000) i;
    CREATE TABLE log (kind text);";

/// One transaction of a writer, as pgbench reads it.
const MOVE: &str = "\\set id random(1, 2000)
BEGIN;
WITH gone AS (DELETE FROM left_side WHERE id = :id RETURNING id) INSERT INTO right_side SELECT id FROM gone;
INSERT INTO log VALUES ('move');
COMMIT;
BEGIN;
WITH gone AS (DELETE FROM right_side WHERE id = :id RETURNING id) INSERT INTO left_side SELECT id FROM gone;
INSERT INTO log VALUES ('move');
COMMIT;
";

const REFILL: &str = "BEGIN; TRUNCATE refilled; INSERT INTO refilled SELECT generate_series(1, 500);
    INSERT INTO log VALUES ('truncate');";

struct Writers(Child);

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How many transactions of a kind were committed between two instants, by the server's own commit timestamps.
fn committed(cluster: &Cluster, kind: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
    let sql = format!(
        "SELECT count(DISTINCT xmin::text) FROM log WHERE kind = '{kind}' AND pg_xact_commit_timestamp(xmin) \
         BETWEEN '{}' AND '{}'",
        from.to_rfc3339(),
        to.to_rfc3339()
    );
    cluster.psql("postgres", &sql).parse().unwrap()
}

#[tokio::test]
async fn twenty_rounds_among_writers_each_capture_one_instant() {
    let settings = vec![("track_commit_timestamp".to_owned(), "on".to_owned())];
    let cluster = Cluster::start_with(Options { settings, ..Options::default() });
    cluster.psql("postgres", SCHEMA);
    let script = cluster.dir().join("move.sql");
    std::fs::write(&script, MOVE).unwrap();
    let mut bench = cluster.client("pgbench", "postgres");
    bench.args(["-n", "-c", "2", "-T", "600", "-f"]).arg(&script).stdout(Stdio::null()).stderr(Stdio::null());
    let writers = Writers(bench.spawn().unwrap());
    let wanted = PostgresOptions { attempts: 20, ..options(&cluster, SUPERUSER, "postgres") };
    let (mut rounds, mut tries, mut restarts) = (0, 0u64, 0);
    while rounds < 20 {
        tries += 1;
        assert!(tries <= 60, "only {rounds} of {tries} rounds had a TRUNCATE and 100 commits inside the capture");
        let mut writer = Script::start(&cluster, "postgres");
        // Open when the capture begins, committed while it waits for its locks, the most dangerous moment; then once
        // more at another moment of each round, waiting for our locks or in `pg_dump`'s way.
        writer.ask(&format!("{REFILL} SELECT 1;"));
        let refill = async {
            tokio::time::sleep(Duration::from_millis(60 + tries * 13 % 100)).await;
            writer.ask("COMMIT; SELECT 1;");
            tokio::time::sleep(Duration::from_millis(250 + tries * 37 % 400)).await;
            writer.tell(&format!("{REFILL} COMMIT;"));
        };
        let from = super::clock().now();
        let sink = MemorySink::default();
        let (outcome, ()) = tokio::join!(run(&wanted, &sink), refill);
        let to = super::clock().now();
        let (captured, recorder) = outcome.unwrap();
        restarts += recorder.retries().len();
        assert_counts(&captured);
        let rows = |name: &str| table(&captured, "public", name).rows;
        assert_eq!(rows("left_side") + rows("right_side"), 2000, "two instants in one capture");
        assert_eq!((rows("refilled"), rows("bulk")), (500, 300_000));
        // No account twice and none missing, by the rows themselves.
        let mut ids: Vec<Vec<u8>> = Vec::new();
        for side in ["left_side", "right_side"] {
            let side = table(&captured, "public", side);
            ids.extend(rows_of(&side.format, &parts(&captured, side)[0].1).into_iter().map(<[u8]>::to_vec));
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 2000);
        drop(writer);
        if committed(&cluster, "truncate", from, to) >= 1 && committed(&cluster, "move", from, to) >= 100 {
            rounds += 1;
        }
    }
    drop(writers);
    assert!(restarts < 60, "{restarts} restarts in {tries} rounds");
}

#[tokio::test]
async fn tables_that_come_and_change_while_we_wait_for_locks_are_taken_in() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE TABLE t AS SELECT generate_series(1, 1000) x; CREATE TABLE goes (x int)");
    let mut writer = Script::start(&cluster, "postgres");
    writer.ask("BEGIN; DROP TABLE t; CREATE TABLE t AS SELECT generate_series(1, 5) x; SELECT 1;");
    let change = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        // Listed neither before the locks nor locked with the others: only the snapshot shows it.
        cluster.psql("postgres", "CREATE TABLE newcomer AS SELECT generate_series(1, 7) x");
        writer.ask("COMMIT; SELECT 1;");
    };
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let sink = MemorySink::default();
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), change);
    let (captured, recorder) = outcome.unwrap();
    assert_eq!(recorder.retries(), Vec::<String>::new());
    let rows = |name: &str| table(&captured, "public", name).rows;
    assert_eq!((rows("t"), rows("newcomer"), rows("goes")), (5, 7, 0));
    assert_counts(&captured);
}

#[tokio::test]
async fn without_room_for_locks_a_truncate_in_the_middle_is_noticed() {
    let small = [("max_locks_per_transaction", "10"), ("max_connections", "20")];
    let settings = small.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start_with(Options { settings, ..Options::default() });
    let sql = "CREATE TABLE first AS SELECT i, md5(i::text) t FROM generate_series(1, 100000) i;
        CREATE TABLE second AS SELECT i, md5(i::text) t FROM generate_series(1, 50000) i;
        SELECT format('CREATE TABLE t%s (x int)', n) FROM generate_series(1, 120) n \\gexec";
    cluster.psql("postgres", sql);
    let (sink, gate) = MemorySink::paused_at(backup_core::manifest::StreamKind::PgTable);
    let truncate = async {
        gate.reached.notified().await;
        // `pg_dump` has its own locks; when it has ended, nobody holds `second` any more.
        while cluster.try_psql("postgres", "SET lock_timeout = '50ms'; TRUNCATE second").is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        gate.open();
    };
    let wanted = PostgresOptions { workers: 1, ..options(&cluster, SUPERUSER, "postgres") };
    let (outcome, ()) = tokio::join!(run(&wanted, &sink), truncate);
    let (captured, recorder) = outcome.unwrap();
    let retries = recorder.retries();
    assert!(retries.iter().any(|why| why.contains("`public.second` was truncated or rewritten")), "{retries:?}");
    assert_eq!((table(&captured, "public", "first").rows, table(&captured, "public", "second").rows), (100_000, 0));
    assert_counts(&captured);
}

/// `pg_dump` whose backend is in the middle of something when the capture steps aside, and does not notice that nobody reads
/// any more: as in a container, whose client program lives on when the wrapper is killed. Its lock must go all the same.
async fn what_does_not_notice_is_ended(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = Cluster::start_with(Options { version: Some(major), ..Options::default() });
    cluster.psql("postgres", "CREATE TABLE second AS SELECT i FROM generate_series(1, 1000) i");
    // The first time it takes a lock and sleeps; `exec` so that what is killed is the client and nothing else.
    let script = "if [ ! -e $0.slept ]; then touch $0.slept; for a in \"$@\"; do case $a in --dbname=*) to=${a#--dbname=};; esac; done
        exec ${real%pg_dump}psql -X \"$to\" -c 'BEGIN; LOCK TABLE second IN ACCESS SHARE MODE; SELECT pg_sleep(60)'; fi
        exec $real \"$@\"";
    let (dir, clients) = super::failure::clients_with(&cluster, script);
    let wanted = PostgresOptions { clients, ..options(&cluster, SUPERUSER, "postgres") };
    let meddle = async {
        let asleep =
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ 'SELECT pg_sleep' AND application_name ~ '^backup/'";
        while !dir.path().join("pg_dump.slept").exists() || cluster.psql("template1", asleep) == "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut writer = Script::start(&cluster, "postgres");
        writer.tell("ALTER TABLE second ADD COLUMN later int DEFAULT 7;");
        while cluster.psql("template1", "SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut reader = Script::start(&cluster, "postgres");
        let reading = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            assert_eq!(reader.ask("SELECT sum(later) FROM second;"), "7000");
            began.elapsed()
        });
        let waited = reading.await.unwrap();
        drop(writer);
        waited
    };
    let sink = MemorySink::default();
    let (outcome, waited) = tokio::join!(run(&wanted, &sink), meddle);
    let (captured, recorder) = outcome.unwrap();
    assert!(waited < Duration::from_secs(20), "a SELECT waited {waited:?}");
    let why = recorder.retries();
    assert!(why.iter().any(|why| why.contains("waits behind somebody") && why.contains("`public.second`")), "{why:?}");
    assert_eq!(table(&captured, "public", "second").columns, ["i", "later"]);
    // Whatever became of an attempt, none of its sessions is left, and nobody else's was ended.
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^backup/'";
    let ended = Instant::now();
    while cluster.psql("template1", left) != "0" {
        assert!(ended.elapsed() < Duration::from_secs(10), "a session is left");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn what_does_not_notice_is_ended_on_13() {
    what_does_not_notice_is_ended(13).await;
}

#[tokio::test]
async fn what_does_not_notice_is_ended_on_18() {
    what_does_not_notice_is_ended(18).await;
}

/// The capture has locked one table and waits for the next one, when somebody wants the first one for himself, and a reader
/// waits behind him.
#[tokio::test]
async fn a_reader_waits_no_longer_while_the_capture_takes_its_locks() {
    let cluster = Cluster::start();
    // Locked in this order. Each lock is waited for as long as one may take: together that is longer than a reader waits.
    let tables = ["a", "b", "c", "d", "e", "f"];
    let mut holders = Vec::new();
    for name in tables {
        cluster.psql("postgres", &format!("CREATE TABLE {name} AS SELECT 1 AS x"));
    }
    for (at, name) in tables.iter().enumerate().skip(1) {
        let mut holder = Script::start(&cluster, "postgres");
        holder.ask(&format!("BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; SELECT 1;"));
        // Given back one after another, each before its wait is over.
        holder.tell(&format!("SELECT pg_sleep({}); COMMIT; SELECT 'done';", 2 * at));
        holders.push(holder);
    }
    let meddle = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        while cluster.psql("template1", waits) == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (mut writer, mut reader) = (Script::start(&cluster, "postgres"), Script::start(&cluster, "postgres"));
        writer.tell("ALTER TABLE a ADD COLUMN later int DEFAULT 7;");
        while cluster.psql("template1", waits) == "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let reading = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            assert_eq!(reader.ask("SELECT later FROM a;"), "7");
            (began.elapsed(), writer)
        });
        reading.await.unwrap().0
    };
    let wanted = options(&cluster, SUPERUSER, "postgres");
    let sink = MemorySink::default();
    let (outcome, waited) = tokio::join!(run(&wanted, &sink), meddle);
    let (captured, recorder) = outcome.unwrap();
    println!("a SELECT waited {waited:?}");
    let why = recorder.retries();
    assert!(why.iter().any(|why| why.contains("waits behind somebody") && why.contains("`public.a`")), "{why:?}");
    assert!(waited < Duration::from_secs(7), "a SELECT waited {waited:?}");
    assert_eq!(table(&captured, "public", "a").columns, ["x", "later"]);
    drop(holders);
}

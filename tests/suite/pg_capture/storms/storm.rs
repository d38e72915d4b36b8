//! Everything at once and at random: clients that truncate, rewrite, rename, drop, create, vacuum, cluster, swap schemas,
//! rename labels, detach and attach, and now and then end our sessions, during one capture after another.
//!
//! What a snapshot must be is in the data. Each of three groups of tables has a generation, which is in every row of all
//! its tables, in the label of its enum, in the number of rows, and in a log written by the same transaction. A capture
//! that is one instant shows one generation per group, the log's last one, with the rows of that generation in each table.
//! All the time a reader asks for counts, and its longest wait is measured.
//!
//! `BACKUP_STORM_ROUNDS` is how many captures there are on each major, `BACKUP_STORM_SEED` what the clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backup_core::manifest::StreamKind;
use backup_core::source::Captured;
use backup_core::source::postgres::{PostgresError, PostgresOptions};
use harness::pg::{Cluster, Options, SUPERUSER, available, fed};

use super::super::concurrency::Script;
use super::super::sink::{MemorySink, assert_counts, only, stream};
use super::super::{chain, options, run};
use super::judge::rows;

const GROUPS: u64 = 3;
const CLIENTS: u64 = 3;

/// Numbers that look random, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Rows of each table of a group in a generation.
fn expected_rows(generation: i64) -> i64 {
    100 + generation % 89
}

/// `next(group)` counts a generation up and logs it; `fill(schema, generation)` writes the rows of all its tables, which
/// must be empty. The enum's label is the generation; a table's name may change, so they are found by how they begin.
fn schema() -> String {
    let mut sql = "CREATE TABLE log (g int, generation int); CREATE TABLE bulk AS SELECT i, md5(i::text) t FROM generate_series(1, 60000) i;
        CREATE FUNCTION next(grp int) RETURNS int LANGUAGE sql AS $$
            INSERT INTO public.log SELECT grp, max(generation) + 1 FROM public.log WHERE g = grp RETURNING generation $$;
        CREATE PROCEDURE fill(s text, generation int) LANGUAGE plpgsql AS $$ DECLARE t text; BEGIN
            FOR t IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                WHERE n.nspname = s AND c.relkind = 'r' AND c.relname ~ '^(a|b|c)' ORDER BY 1 LOOP
                EXECUTE format('INSERT INTO %I.%I (id, gen, t) SELECT i, $1, md5(i::text) FROM generate_series(1, 100 + $1 %% 89) i', s, t) USING generation;
            END LOOP;
            EXECUTE format('INSERT INTO %I.moods SELECT i, (enum_range(NULL::%1$I.mood))[1] FROM generate_series(1, 100 + $1 %% 89) i', s) USING generation;
        END $$;
        CREATE PROCEDURE make(s text, generation int) LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE format('CREATE SCHEMA %I; CREATE TYPE %1$I.mood AS ENUM (%2$L); CREATE TABLE %1$I.moods (id int, m %1$I.mood);
                CREATE TABLE %1$I.a (id int PRIMARY KEY, gen int, t text); CREATE TABLE %1$I.b (id int PRIMARY KEY, gen int, t text);
                CREATE TABLE %1$I.parts (id int, gen int, t text) PARTITION BY RANGE (id);
                CREATE TABLE %1$I.c PARTITION OF %1$I.parts FOR VALUES FROM (0) TO (1000)', s, 'g' || generation);
            CALL public.fill(s, generation); END $$;\n"
        .to_owned();
    for group in 1..=GROUPS {
        sql += &format!("INSERT INTO log VALUES ({group}, 1); CALL make('s{group}', 1);\n");
    }
    sql
}

/// One thing that a client does, and its name.
fn change(dice: &mut Dice) -> (&'static str, String) {
    let group = 1 + dice.below(GROUPS);
    let s = format!("s{group}");
    let table = ["a", "b"][usize::try_from(dice.below(2)).unwrap()];
    // The group's own clients take turns: two at once would write one generation twice.
    let turn =
        format!("BEGIN; SELECT pg_advisory_xact_lock({group}) AS l \\gset\n SELECT next({group}) AS gen \\gset x_\n");
    let label = format!(
        "SELECT format('ALTER TYPE {s}.mood RENAME VALUE %L TO %L', (enum_range(NULL::{s}.mood))[1], 'g' || :x_gen) \\gexec\n"
    );
    let all = format!("{s}.a, {s}.b, {s}.c, {s}.moods");
    let update =
        format!("UPDATE {s}.a SET gen = :x_gen; UPDATE {s}.b SET gen = :x_gen; UPDATE {s}.c SET gen = :x_gen;");
    let refill = format!("TRUNCATE {all}; {label} CALL fill('{s}', :x_gen);");
    match dice.below(13) {
        0 | 1 => ("truncate", format!("{turn} {refill} COMMIT;")),
        2 => ("delete", format!("{turn} DELETE FROM {s}.a; DELETE FROM {s}.b; DELETE FROM {s}.c; DELETE FROM {s}.moods; {label} CALL fill('{s}', :x_gen); COMMIT;")),
        3 => {
            let to = ["int8", "int4"][usize::try_from(dice.below(2)).unwrap()];
            ("rewrite", format!("{turn} ALTER TABLE {s}.{table} ALTER gen TYPE {to}; {refill} COMMIT;"))
        }
        4 => ("rename", format!("ALTER TABLE {s}.{table} RENAME TO {table}_away; SELECT pg_sleep(0.05) AS l \\gset\n ALTER TABLE {s}.{table}_away RENAME TO {table};")),
        5 => (
            "drop and create",
            format!("{turn} DROP TABLE {s}.{table}; CREATE TABLE {s}.{table} (id int PRIMARY KEY, gen int, t text); {refill} COMMIT;"),
        ),
        6 => ("vacuum full", format!("VACUUM FULL {s}.{table};")),
        7 => ("cluster", format!("CLUSTER {s}.{table} USING {table}_pkey;")),
        8 => (
            "blue and green",
            format!("{turn} CALL make('{s}_next', :x_gen); ALTER SCHEMA {s} RENAME TO {s}_old; ALTER SCHEMA {s}_next RENAME TO {s}; DROP SCHEMA {s}_old CASCADE; COMMIT;"),
        ),
        9 => ("add label", format!("ALTER TYPE {s}.mood ADD VALUE IF NOT EXISTS 'later';")),
        10 => ("detach and attach", format!("ALTER TABLE {s}.parts DETACH PARTITION {s}.c; SELECT pg_sleep(0.05) AS l \\gset\n ALTER TABLE {s}.parts ATTACH PARTITION {s}.c FOR VALUES FROM (0) TO (1000);")),
        11 => ("swap columns", format!("BEGIN; ALTER TABLE {s}.{table} RENAME id TO x; ALTER TABLE {s}.{table} RENAME gen TO id; ALTER TABLE {s}.{table} RENAME x TO gen;
            ALTER TABLE {s}.{table} RENAME id TO x; ALTER TABLE {s}.{table} RENAME gen TO id; ALTER TABLE {s}.{table} RENAME x TO gen; COMMIT;")),
        _ => {
            // All rows stay, in other tuples; no label may be left behind, so that is renamed as well.
            let keep = format!("{turn} {update} DELETE FROM {s}.moods; {label}");
            ("update", format!("{keep} TRUNCATE {all}; CALL fill('{s}', :x_gen); COMMIT;"))
        }
    }
}

/// Everything that a capture of the storm must be.
fn judge(cluster: &Cluster, captured: &Captured, scratch: &str) {
    assert_counts(captured);
    let log = captured.tables.iter().find(|table| table.name == "log").unwrap();
    let mut last = vec![0i64; usize::try_from(GROUPS + 1).unwrap()];
    for row in rows(captured, log) {
        let (group, generation) = row.split_once('\t').unwrap();
        let at = &mut last[group.parse::<usize>().unwrap()];
        *at = generation.parse::<i64>().unwrap().max(*at);
    }
    for group in 1..=GROUPS {
        let generation = last[usize::try_from(group).unwrap()];
        let said = || format!("group {group}, generation {generation}");
        let mut seen = Vec::new();
        for table in captured.tables.iter().filter(|table| table.schema == format!("s{group}")) {
            seen.push(&table.name[..1]);
            assert_eq!(table.rows.cast_signed(), expected_rows(generation), "{} in {}", table.name, said());
            let wanted = if table.name == "moods" { format!("g{generation}") } else { generation.to_string() };
            for row in rows(captured, table) {
                assert_eq!(row.split('\t').nth(1), Some(wanted.as_str()), "{row} of {} in {}", table.name, said());
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b", "c", "m"], "tables in {}", said());
    }
    assert_eq!(captured.tables.iter().find(|table| table.name == "bulk").unwrap().rows, 60_000);
    // Its definitions are of one instant, too: they can be made.
    cluster.psql("postgres", &format!("CREATE DATABASE {scratch}"));
    let mut restore = cluster.client("pg_restore", scratch);
    let output = fed(
        restore.args(["--exit-on-error", "--schema-only", "--dbname", scratch]),
        stream(captured, only(captured, StreamKind::PgArchive)),
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.psql("postgres", &format!("DROP DATABASE {scratch} WITH (FORCE)"));
}

/// A thread of its own that is told to stop, and then ends.
struct Background<T>(Arc<AtomicBool>, Option<std::thread::JoinHandle<T>>);

impl<T: Send + 'static> Background<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Self(stop, Some(std::thread::spawn(move || work(&told))))
    }

    fn end(mut self) -> T {
        self.0.store(true, Ordering::SeqCst);
        self.1.take().unwrap().join().unwrap()
    }
}

/// Counts all the time; gives the longest wait and how many counts there were.
fn reader(cluster: Arc<Cluster>, seed: u64) -> Background<(Duration, u64)> {
    Background::start(move |stop| {
        let mut dice = Dice(seed);
        let mut script = Script::quiet(&cluster, "postgres");
        // Over what it may wait for us, so that it is measured and not cut off.
        script.ask("SET statement_timeout = '60s'; SELECT 1;");
        let (mut longest, mut asked) = (Duration::ZERO, 0);
        while !stop.load(Ordering::SeqCst) {
            let (group, table) =
                (1 + dice.below(GROUPS), ["a", "b", "c", "moods"][usize::try_from(dice.below(4)).unwrap()]);
            let began = Instant::now();
            // A table that is away just then is an error, and the answer is the other row.
            script.ask(&format!("SELECT count(*) AS n FROM s{group}.{table} \\gset\nSELECT 'asked';"));
            longest = longest.max(began.elapsed());
            asked += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        (longest, asked)
    })
}

/// Between two changes it waits up to `pause` milliseconds.
fn client(cluster: Arc<Cluster>, seed: u64, done: Arc<AtomicU64>, pause: Arc<AtomicU64>) -> Background<()> {
    Background::start(move |stop| {
        let mut dice = Dice(seed);
        let mut script = Script::quiet(&cluster, "postgres");
        while !stop.load(Ordering::SeqCst) {
            let (_, sql) = change(&mut dice);
            // After an error the transaction is over, whatever it was.
            script.ask(&format!("{sql}\n ROLLBACK;\n SELECT 'done';"));
            done.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(dice.below(pause.load(Ordering::SeqCst))));
        }
    })
}

/// Longer than we make anybody wait: `pg_dump`'s time for its locks, and time to see that it is over.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

async fn storm(major: u32, room: bool) {
    if !available(major) {
        return;
    }
    let (rounds, seed) = (number("BACKUP_STORM_ROUNDS", 2), number("BACKUP_STORM_SEED", 1));
    let mut settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    if !room {
        settings.extend(
            [("max_locks_per_transaction", "10"), ("max_connections", "20")].map(|(n, v)| (n.into(), v.into())),
        );
    }
    let cluster = Arc::new(Cluster::start_with(Options { version: Some(major), settings, ..Options::default() }));
    cluster.psql("postgres", &schema());
    if !room {
        let filler =
            "CREATE SCHEMA zz; SELECT format('CREATE TABLE zz.t%s ()', n) FROM generate_series(1, 90) n \\gexec";
        cluster.psql("postgres", filler);
    }
    let done = Arc::new(AtomicU64::new(0));
    let pause = Arc::new(AtomicU64::new(400));
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| client(cluster.clone(), seed * 100 + n, done.clone(), pause.clone())).collect();
    let reader = reader(cluster.clone(), seed);
    let mut dice = Dice(seed);
    let (mut exact, mut restarts, mut gave_up, mut lost, mut ended) = (0, 0, 0, 0, 0);
    let mut round = 0;
    while round < rounds || (exact == 0 || ended == 0) && round < rounds + 6 {
        let wanted = PostgresOptions { workers: 2, attempts: 12, ..options(&cluster, SUPERUSER, "postgres") };
        let sink = MemorySink::default();
        // The second round of seven, so that also a short storm has one; and more where none met anybody.
        let ends = round % 7 == 1 || round >= rounds && ended == 0;
        let (after, which) = (Duration::from_millis(dice.below(300)), dice.below(4));
        let over = AtomicBool::new(false);
        let end = async {
            // The sessions of an attempt have its name.
            let ours = "FROM pg_stat_activity WHERE application_name ~ '^backup/'";
            while ends
                && !over.load(Ordering::SeqCst)
                && cluster.psql("template1", &format!("SELECT count(*) {ours}")) == "0"
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if ends {
                tokio::time::sleep(after).await;
                let sql = format!(
                    "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid {ours} ORDER BY backend_start OFFSET {which} LIMIT 1) p"
                );
                ended += cluster.psql("template1", &sql).parse::<u32>().unwrap();
            }
        };
        let work = async {
            let outcome = run(&wanted, &sink).await;
            over.store(true, Ordering::SeqCst);
            outcome
        };
        let (outcome, ()) = tokio::join!(work, end);
        match outcome {
            Ok((captured, recorder)) => {
                let retries = recorder.retries();
                restarts += retries.len();
                assert!(retries.iter().all(|why| !why.is_empty()));
                judge(&cluster, &captured, "scratch");
                exact += 1;
            }
            Err(error @ PostgresError::GaveUp { .. }) => {
                println!("round {round} gave up: {}", chain(&error));
                gave_up += 1;
                // A capture steps aside for the reader behind a change. On a slow machine no capture fits between two changes of
                // such a storm; a storm that lets none through proves nothing.
                pause.fetch_max(pause.load(Ordering::SeqCst) * 4, Ordering::SeqCst);
            }
            Err(error) if ends => {
                println!("round {round}, a session of which was ended: {}", chain(&error));
                lost += 1;
            }
            Err(error) => panic!("round {round}: {}\n{error:?}", chain(&error)),
        }
        round += 1;
    }
    let (longest, asked) = reader.end();
    for client in clients {
        client.end();
    }
    println!(
        "PostgreSQL {major}, {} locks, seed {seed}: {rounds} rounds, {exact} exact, {restarts} restarts, {gave_up} gave up, \
         {ended} sessions ended, {lost} captures lost by it, {} changes, longest wait of {asked} SELECTs {longest:?}",
        if room { "with" } else { "without" },
        done.load(Ordering::SeqCst)
    );
    assert!(ended > 0, "no session was ended");
    assert!(exact > 0 && done.load(Ordering::SeqCst) > 0 && asked > 0, "the storm proves nothing");
    assert!(longest < LONGEST_WAIT, "a SELECT waited {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capture_in_a_storm_is_one_instant_on_13() {
    storm(13, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capture_in_a_storm_is_one_instant_on_15() {
    storm(15, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capture_in_a_storm_is_one_instant_on_18() {
    storm(18, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_capture_in_a_storm_without_locks_is_one_instant() {
    storm(15, false).await;
    if std::env::var_os("BACKUP_STORM_ROUNDS").is_some() {
        storm(13, false).await;
        storm(18, false).await;
    }
}

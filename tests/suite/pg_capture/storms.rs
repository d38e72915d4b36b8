//! Definitions that change while a capture is on its way, on the oldest, Debian's and the newest major.
//!
//! A few scenes run always, all of them with `BACKUP_STORM_ROUNDS`. Each changes one thing at one moment: while the capture waits for its locks, between its locks and `pg_dump`'s,
//! in the middle of the copying with locks, and there without (a lock table that is too small). What comes out must be
//! the database as it was before the change or as it is after it, definitions and rows, judged by `psql` and `pg_dump`
//! before and after; and where it is what only a second attempt can have seen, the first one must have said why it ended.

#![expect(clippy::print_stdout, reason = "a campaign shows its figures")]

mod judge;
mod scenes;
mod storm;

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::pg::{Cluster, Options};

use super::concurrency::Script;

/// Table-level changes: each has a table of its own in schema `app`, named as here.
const CHANGES: [(&str, &str); 16] = [
    ("truncated", "TRUNCATE app.truncated"),
    ("refilled", "TRUNCATE app.refilled; INSERT INTO app.refilled SELECT i, 2, 'new' FROM generate_series(1, 150) i"),
    ("emptied", "DELETE FROM app.emptied"),
    ("rewritten", "ALTER TABLE app.rewritten ALTER gen TYPE int8"),
    ("widened", "ALTER TABLE app.widened ADD more int DEFAULT 7"),
    ("narrowed", "ALTER TABLE app.narrowed DROP t"),
    // No rewrite, and the same names: another column under one of them.
    (
        "replaced_column",
        "ALTER TABLE app.replaced_column DROP t; ALTER TABLE app.replaced_column ADD t text DEFAULT 'x'",
    ),
    (
        "swapped_columns",
        "ALTER TABLE app.swapped_columns RENAME id TO x; ALTER TABLE app.swapped_columns RENAME gen TO id; \
         ALTER TABLE app.swapped_columns RENAME x TO gen",
    ),
    ("renamed", "ALTER TABLE app.renamed RENAME TO renamed_now"),
    (
        "exchanged",
        "ALTER TABLE app.exchanged RENAME TO exchanged_old; \
         CREATE TABLE app.exchanged AS SELECT i AS id, 2 AS gen, 'new' AS t FROM generate_series(1, 7) i",
    ),
    ("dropped", "DROP TABLE app.dropped"),
    ("recreated", "DROP TABLE app.recreated; CREATE TABLE app.recreated AS SELECT 1 AS id, 2 AS gen, 'new' AS t"),
    ("moved", "ALTER TABLE app.moved SET SCHEMA next"),
    ("clustered", "CLUSTER app.clustered USING clustered_pkey"),
    ("unlogged", "ALTER TABLE app.unlogged SET UNLOGGED"),
    ("detached", "ALTER TABLE app.detached_from DETACH PARTITION app.detached"),
];

/// Changes that no lock on a table holds up, or that are wider than one table.
const WIDER: [(&str, &str); 10] = [
    ("created", "CREATE TABLE app.created AS SELECT i AS id, 2 AS gen, 'new' AS t FROM generate_series(1, 7) i"),
    (
        "blue and green",
        "ALTER SCHEMA app RENAME TO away; ALTER SCHEMA next RENAME TO app; ALTER SCHEMA away RENAME TO next",
    ),
    ("a label renamed", "ALTER TYPE app.mood RENAME VALUE 'ok' TO 'fine'"),
    ("a label added", "ALTER TYPE app.mood ADD VALUE 'mad'"),
    ("a type renamed", "ALTER TYPE app.mood RENAME TO feeling"),
    ("a function renamed", "ALTER FUNCTION app.positive(int) RENAME TO above_zero"),
    ("an index renamed", "ALTER INDEX app.by_mood RENAME TO by_feeling"),
    ("a view's column renamed", "ALTER VIEW app.shown RENAME COLUMN m TO feeling"),
    ("attached", "ALTER TABLE app.detached_from ATTACH PARTITION app.loose FOR VALUES FROM (1000) TO (2000)"),
    ("a schema dropped", "DROP SCHEMA next CASCADE"),
];

/// Changes that cannot be part of a transaction.
const ALONE: [(&str, &str); 1] = [("vacuum full", "VACUUM FULL app.emptied")];

/// The database of the scenes. `a.first` fills the first write of the small tables' tar: where that is stopped, all
/// others are still to be copied.
fn schema() -> String {
    let mut sql = "CREATE SCHEMA a; CREATE SCHEMA app; CREATE SCHEMA next;
        CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE TYPE next.mood AS ENUM ('sad', 'ok', 'new');
        CREATE FUNCTION app.positive(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
        CREATE TABLE app.loose AS SELECT i AS id, 1 AS gen, md5(i::text) AS t FROM generate_series(1000, 1100) i;
        CREATE TABLE app.moods (id int CHECK (app.positive(id)), m app.mood);
        INSERT INTO app.moods SELECT i, 'ok' FROM generate_series(1, 100) i;
        CREATE TABLE next.moods (id int, m next.mood); INSERT INTO next.moods VALUES (1, 'new'), (2, 'ok');
        CREATE TABLE next.truncated (id int, gen int, t text); INSERT INTO next.truncated VALUES (1, 2, 'next');
        CREATE INDEX by_mood ON app.moods (m); COMMENT ON INDEX app.by_mood IS 'named by its comment';
        CREATE VIEW app.shown AS SELECT m, count(*) FROM app.moods GROUP BY m;
        COMMENT ON COLUMN app.shown.m IS 'named by its comment';
        CREATE TABLE app.detached_from (id int, gen int, t text) PARTITION BY RANGE (id);
        CREATE TABLE app.detached PARTITION OF app.detached_from FOR VALUES FROM (0) TO (1000);
        INSERT INTO app.detached SELECT i, 1, md5(i::text) FROM generate_series(1, 300) i;\n"
        .to_owned();
    for (name, _) in CHANGES.iter().filter(|(name, _)| *name != "detached") {
        sql += &format!(
            "CREATE TABLE app.{name} (id int PRIMARY KEY, gen int, t text);
            INSERT INTO app.{name} SELECT i, 1, md5(i::text) FROM generate_series(1, 300) i;\n"
        );
    }
    sql
}

/// A cluster of a major, with room for locks or without.
fn cluster(major: u32, room: bool, database: &str) -> Arc<Cluster> {
    let mut settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    if !room {
        settings.extend(
            [("max_locks_per_transaction", "10"), ("max_connections", "15")].map(|(n, v)| (n.into(), v.into())),
        );
    }
    let cluster = Cluster::start_with(Options { version: Some(major), settings, ..Options::default() });
    cluster.psql("postgres", &format!("CREATE DATABASE {database}"));
    cluster.psql(database, &schema());
    if !room {
        let filler =
            "CREATE SCHEMA zz; SELECT format('CREATE TABLE zz.t%s ()', n) FROM generate_series(1, 60) n \\gexec";
        cluster.psql(database, filler);
    }
    // The first by name and the youngest: copied first with locks and without.
    let first = "CREATE TABLE a.first AS SELECT i AS id, 1 AS gen, md5(i::text) AS t FROM generate_series(1, 5000) i";
    cluster.psql(database, first);
    Arc::new(cluster)
}

/// Lets a session begin statements and waits until they are done or wait for a lock; gives whether they are done.
fn settled(cluster: &Cluster, script: &mut Script, sql: &str, until_done: Option<Duration>) -> bool {
    let pid = script.ask("SELECT pg_backend_pid();");
    script.tell(&format!("{sql}; SELECT 'done';"));
    let query = format!(
        "SELECT state = 'idle' AND query ~ 'done', coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity WHERE pid = {pid}"
    );
    let began = Instant::now();
    loop {
        let answer = cluster.psql("postgres", &query);
        let patient = until_done.is_some_and(|patience| began.elapsed() < patience);
        match answer.as_str() {
            "t|f" | "t|t" => return true,
            "f|t" if !patient => return false,
            _ => assert!(began.elapsed() < Duration::from_mins(1), "{sql}: {answer}"),
        }
        std::thread::sleep(Duration::from_millis(15));
    }
}

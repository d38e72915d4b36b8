//! Runs of the program while others write: each snapshot is one instant, and what comes back is what its manifest counts.
//! A round counts only where a TRUNCATE and a hundred commits fell into the capture, so a few rounds meet what many do;
//! `BACKUP_WRITER_ROUNDS=20` and more are the campaign. The engine's own twenty are in `pg_capture::concurrency`.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::pg::{Cluster, Options};
use serde_json::Value;

use super::host::{Host, of_source};
use super::pg_capture::concurrency::Script;

/// Rounds that must count.
fn rounds_wanted() -> u64 {
    std::env::var("BACKUP_WRITER_ROUNDS").map_or(8, |text| text.parse().unwrap())
}

/// Accounts move between two tables, so that each committed state holds 2,000 of them; `refilled` is truncated and filled
/// with 500 rows in one transaction; `grown` gets rows and loses others. Every transaction logs itself.
const SCHEMA: &str = "CREATE TABLE left_side AS SELECT generate_series(1, 2000) id;
    CREATE TABLE right_side (id int); CREATE TABLE refilled AS SELECT generate_series(1, 500) x;
    CREATE INDEX ON left_side (id); CREATE INDEX ON right_side (id);
    CREATE TABLE bulk AS SELECT i, md5(i::text) t FROM generate_series(1, 60000) i;
    CREATE TABLE grown (id bigserial PRIMARY KEY, t text);
    CREATE TABLE log (kind text);";

/// Transactions of a writer, as pgbench reads them.
const MOVE: &str = "\\set id random(1, 2000)
BEGIN;
WITH gone AS (DELETE FROM left_side WHERE id = :id RETURNING id) INSERT INTO right_side SELECT id FROM gone;
INSERT INTO grown (t) VALUES ('x'), ('y');
INSERT INTO log VALUES ('move');
COMMIT;
BEGIN;
WITH gone AS (DELETE FROM right_side WHERE id = :id RETURNING id) INSERT INTO left_side SELECT id FROM gone;
DELETE FROM grown WHERE id = (SELECT min(id) FROM grown);
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

/// How many transactions of a kind were committed within a capture, by the server's own commit timestamps.
fn committed(cluster: &Cluster, kind: &str, snapshot: &Value) -> u64 {
    let (from, to) = (snapshot["started"].as_str().unwrap(), snapshot["finished"].as_str().unwrap());
    let sql = format!(
        "SELECT count(DISTINCT xmin::text) FROM log WHERE kind = '{kind}' \
         AND pg_xact_commit_timestamp(xmin) BETWEEN '{from}' AND '{to}'"
    );
    cluster.psql("postgres", &sql).parse().unwrap()
}

/// What a round's snapshot counted, compared with a restore of it. Gives the snapshot's document.
fn compare(host: &Host, cluster: &Cluster, id: &str, database: &str) -> Value {
    let shown = host.good(&["show", id, "--identity", "ops.txt", "--json"]).json();
    host.good(&["restore", id, "--identity", "ops.txt", "--into", database, "--json"]);
    let tables = shown["manifest"]["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 6, "{tables:#?}");
    let mut rows = std::collections::BTreeMap::new();
    for table in tables {
        let name = table["name"].as_str().unwrap();
        let counted: u64 = cluster.psql(database, &format!("SELECT count(*) FROM public.{name}")).parse().unwrap();
        assert_eq!(table["rows"], counted, "`{name}` of {id}");
        rows.insert(name, counted);
    }
    assert_eq!(rows["left_side"] + rows["right_side"], 2000, "two instants in one snapshot");
    assert_eq!((rows["refilled"], rows["bulk"]), (500, 60_000), "{id}");
    let both = "SELECT count(DISTINCT id) FROM (SELECT id FROM left_side UNION ALL SELECT id FROM right_side) x";
    assert_eq!(cluster.psql(database, both), "2000", "each account once");
    cluster.psql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    shown["snapshot"].clone()
}

#[test]
fn postgres_rounds_among_writers_come_back_as_counted() {
    let settings = [("track_commit_timestamp", "on"), ("fsync", "off")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start_with(Options { settings, ..Options::default() });
    cluster.psql("postgres", SCHEMA);
    let host = Host::new();
    let source =
        format!("[source.db]\ntype = \"postgres\"\nurl = \"{}\"\nglobals = \"none\"\n", cluster.url("postgres"));
    host.configure(&format!("{}{source}", Host::local("local")));
    host.good(&["init"]);
    let script = cluster.dir().join("move.sql");
    fs::write(&script, MOVE).unwrap();
    let mut bench = cluster.client("pgbench", "postgres");
    bench.args(["-n", "-c", "2", "-R", "400", "-T", "3600", "-f"]).arg(&script);
    let writers = Writers(bench.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let wanted = rounds_wanted();
    let (mut rounds, mut tries) = (0, 0_u64);
    while rounds < wanted {
        tries += 1;
        assert!(
            tries <= 2 * wanted,
            "only {rounds} of {tries} rounds had a TRUNCATE and 100 commits inside the capture"
        );
        // Open when the capture begins, committed while it waits for its locks, the most dangerous moment; then once more
        // at another moment of each round, waiting for our locks or in `pg_dump`'s way.
        let mut writer = Script::start(&cluster, "postgres");
        writer.ask(&format!("{REFILL} SELECT 1;"));
        let run = host.command(&["run", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(350 + tries * 13 % 100));
        writer.ask("COMMIT; SELECT 1;");
        std::thread::sleep(Duration::from_millis(100 + tries * 37 % 400));
        writer.tell(&format!("{REFILL} COMMIT;"));
        let ended = super::host::Ended::of(run.wait_with_output().unwrap());
        assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
        // The second one has committed as well before the next round begins.
        writer.ask("SELECT 1;");
        drop(writer);
        let report = ended.json();
        let id = of_source(&report, "db")["snapshot"].as_str().unwrap();
        let snapshot = compare(&host, &cluster, id, &format!("round_{tries}"));
        if committed(&cluster, "truncate", &snapshot) >= 1 && committed(&cluster, "move", &snapshot) >= 100 {
            rounds += 1;
        }
    }
    drop(writers);
    println!("{rounds} of {tries} rounds count");
}

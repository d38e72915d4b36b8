//! What others do while rows are loaded, and who would notice: each scene stops the load at a lock that somebody holds.

use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use backup_core::source::postgres::restore::{RestoreError, RestoreProof, Target, data_only};
use harness::pg::Cluster;

use super::super::fixture::Fixture;
use super::super::{Told, contents, options};
use super::{Selection, assert_same, load, table};

const DAYS: &str = "CREATE TABLE place (id int PRIMARY KEY); INSERT INTO place VALUES (1);
    CREATE SCHEMA app; CREATE TABLE app.days (day date, at int REFERENCES place) PARTITION BY RANGE (day);
    CREATE TABLE app.days_a PARTITION OF app.days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    INSERT INTO app.days VALUES ('2024-02-02', 1), ('2024-02-03', 1);";

fn days() -> (Cluster, Fixture) {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql("shop", DAYS);
    let fixture = Fixture::capture(&cluster, "shop");
    (cluster, fixture)
}

fn days_a() -> Selection {
    Selection::Table { schema: "app".to_owned(), name: "days_a".to_owned() }
}

/// Somebody with a row of `place` in hand: the load waits for them after its own locks and before its first change.
struct Holder(Child);

impl Holder {
    fn new(cluster: &Cluster) -> Self {
        let mut child = cluster.client("psql", "shop").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let sql = "BEGIN; LOCK TABLE place IN ROW EXCLUSIVE MODE;\n";
        child.stdin.as_mut().unwrap().write_all(sql.as_bytes()).unwrap();
        until(cluster, "place", "mode = 'RowExclusiveLock' AND granted");
        Self(child)
    }

    fn let_go(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Waits for a lock on a relation.
fn until(cluster: &Cluster, relation: &str, what: &str) {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE relation = '{relation}'::regclass AND {what}");
    for _ in 0..1000 {
        if cluster.psql("shop", &sql) != "0" {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody has it: {what}");
}

/// Loads while somebody else acts on a thread of their own.
fn beside<T>(loading: impl Future<Output = T>, act: impl FnOnce() + Send) -> T {
    std::thread::scope(|scope| {
        scope.spawn(act);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(loading))
    })
}

/// Loads with `--truncate` while `others` act, in the moment when the load has its locks and has not begun.
fn load_while(
    cluster: &Cluster,
    fixture: &Fixture,
    others: impl FnOnce(&Cluster) + Send,
) -> Result<RestoreProof, RestoreError> {
    let holder = Holder::new(cluster);
    let act = || {
        until(cluster, "place", "NOT granted");
        others(cluster);
        holder.let_go();
    };
    beside(load(cluster, fixture, days_a(), true), act)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_comes_under_a_table_that_is_emptied() {
    let (cluster, fixture) = days();
    let before = contents(&cluster, "shop");
    let new = "SET lock_timeout = '200ms'; CREATE TABLE app.days_b PARTITION OF app.days \
        FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); INSERT INTO app.days VALUES ('2025-05-05', 1)";
    let done = load_while(&cluster, &fixture, |cluster| {
        let refused = cluster.try_psql("shop", new).unwrap_err();
        assert!(refused.contains("lock timeout"), "{refused}");
    });
    done.unwrap();
    assert_same(&before, &contents(&cluster, "shop"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_swapped_meanwhile_takes_no_rows() {
    let (cluster, fixture) = days();
    let swap = format!(
        "ALTER SCHEMA app RENAME TO old; CREATE SCHEMA app; {}; TRUNCATE app.days",
        // Without the key: making one would wait for those who hold `place`.
        DAYS.split_once("CREATE SCHEMA app;").unwrap().1.replace(" REFERENCES place", "").trim_end_matches(';')
    );
    let done = load_while(&cluster, &fixture, |cluster| drop(cluster.psql("shop", &swap)));
    let error = done.unwrap_err();
    assert!(error.to_string().contains("were renamed or replaced"), "{error}");
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM app.days"), "0");
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM old.days"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nobody_was_told_of_are_not_emptied() {
    let (cluster, fixture) = days();
    cluster.psql("shop", "TRUNCATE app.days");
    let mut options = options(&cluster, Target::Original);
    options.only = days_a();
    let snapshot = fixture.snapshot();
    let plan = data_only::plan(&options, true, &snapshot, &fixture).await.unwrap();
    assert_eq!(plan.emptied, [""; 0]);
    cluster.psql("shop", "INSERT INTO app.days VALUES ('2024-12-31', 1)");
    let error = data_only::execute(&plan, &options, &snapshot, &fixture, &Told::default()).await.unwrap_err();
    assert!(error.to_string().contains("table `app.days_a` has got rows since it was planned"), "{error}");
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM app.days"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_on_truncate_of_the_table_above_stay_silent_or_are_told() {
    let (cluster, fixture) = days();
    cluster.psql(
        "shop",
        "CREATE TABLE told (n int); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO public.told VALUES (1); RETURN NULL; END $$; \
         CREATE TRIGGER tell BEFORE TRUNCATE ON app.days EXECUTE FUNCTION tell(); ALTER TABLE app.days ENABLE ALWAYS TRIGGER tell; \
         CREATE ROLE loader LOGIN; GRANT ALL ON SCHEMA app, public TO loader; GRANT ALL ON ALL TABLES IN SCHEMA app, public TO loader",
    );
    load(&cluster, &fixture, days_a(), true).await.unwrap();
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM told"), "0");
    let enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'tell'";
    assert_eq!(cluster.psql("shop", enabled), "A", "it is put back");

    // One who may not switch it off.
    let mut options = options(&cluster, Target::Original);
    options.only = days_a();
    options.connect = backup_core::source::postgres::ConnectOptions::new(
        &cluster.url_as("loader", "postgres"),
        cluster.password().map(backup_core::secret::Secret::new),
    )
    .unwrap();
    let plan = data_only::plan(&options, true, &fixture.snapshot(), &fixture).await.unwrap();
    assert!(plan.refusals.iter().any(|why| why.contains("`tell` of `app.days`")), "{:?}", plan.refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_not_captured_is_told() {
    let (cluster, fixture) = days();
    cluster.psql("shop", "ALTER TABLE place ADD COLUMN kind text NOT NULL DEFAULT 'new', ADD COLUMN \"Why\" text");
    cluster.psql("shop", "DROP TABLE app.days; TRUNCATE place");
    let mut options = options(&cluster, Target::Original);
    options.only = table("place");
    let plan = data_only::plan(&options, false, &fixture.snapshot(), &fixture).await.unwrap();
    let told = "columns `Why`, `kind` of `public.place`: not captured, so the default or NULL is filled in";
    assert!(plan.notes.iter().any(|note| note == told), "{:?}", plan.notes);
    assert_eq!(plan.refusals, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_others_draw_from_is_never_set_back() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql(
        "shop",
        "CREATE TABLE place (id int); CREATE SEQUENCE shared; CREATE TABLE one (id int DEFAULT nextval('shared'), at int); \
         CREATE TABLE two (id int DEFAULT nextval('shared')); INSERT INTO one (at) SELECT 1 FROM generate_series(1, 20)",
    );
    let fixture = Fixture::capture(&cluster, "shop");
    cluster.psql("shop", "TRUNCATE one");
    // Behind what was captured when it is looked at, ahead when it could be set: sequences know no transactions.
    let mut child = cluster.client("psql", "shop").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let begin = "BEGIN; SELECT setval('shared', 5); LOCK TABLE place IN ROW EXCLUSIVE MODE;\n";
    child.stdin.as_mut().unwrap().write_all(begin.as_bytes()).unwrap();
    until(&cluster, "place", "mode = 'RowExclusiveLock' AND granted");
    let cluster_too = &cluster;
    let act = move || {
        until(cluster_too, "shared", "NOT granted");
        let draw = "INSERT INTO two SELECT nextval('shared') FROM generate_series(1, 100); COMMIT;\n";
        child.stdin.as_mut().unwrap().write_all(draw.as_bytes()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
    };
    beside(load(&cluster, &fixture, table("one"), false), act).unwrap();
    let last: i64 = cluster.psql("shop", "SELECT last_value FROM shared").parse().unwrap();
    assert!(last >= 105, "set back to {last}");
}

//! Restore of PostgreSQL snapshots, judged by stock `pg_dump` and `psql`.
//!
//! The snapshots are made here by hand from `pg_dump`, `pg_dumpall` and `COPY`, so that the restore is not judged by
//! the capture it belongs to. Each verification is broken on purpose and must say so, and then no database may carry
//! the final name.

mod data_only;
mod expect;
pub(super) mod fixture;
mod into_schema;
mod parts;

use std::sync::Mutex;

use backup_core::clock::Clock;
use backup_core::monitor::{Event, Monitor};
use backup_core::secret::Secret;
use backup_core::source::postgres::restore::{
    Expectations, RestoreError, RestoreOptions, RestorePlan, RestoreProof, Selection, Target, Verify, execute, plan,
};
use backup_core::source::postgres::{ClientsOption, ConnectOptions, PostgresOptions, capture};
use fixture::{Fixture, SAMPLE};
use harness::pg::{Cluster, Options};

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Monitor for Told {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

fn options(cluster: &Cluster, target: Target) -> RestoreOptions {
    let password = cluster.password().map(Secret::new);
    RestoreOptions {
        source: "db".to_owned(),
        connect: ConnectOptions::new(&cluster.url("postgres"), password).unwrap(),
        maintenance: "postgres".to_owned(),
        clients: ClientsOption::Search,
        target,
        only: Selection::All,
        jobs: 2,
        verify: Verify::Content,
        id: "t3st".to_owned(),
        at: Clock::fixed(std::time::UNIX_EPOCH.into()).now(),
        early_bytes: 0,
        expect: Expectations::none(),
        keep_failed: false,
    }
}

async fn restore(fixture: &Fixture, options: &RestoreOptions) -> Result<(RestorePlan, RestoreProof), RestoreError> {
    let snapshot = fixture.snapshot();
    let plan = plan(options, &snapshot, fixture).await?;
    let proof = execute(&plan, options, &snapshot, fixture, &Told::default()).await?;
    Ok((plan, proof))
}

/// Definitions and properties as stock `pg_dump` sees them, without what differs in each run.
fn definitions(cluster: &Cluster, database: &str) -> String {
    let output = cluster.client("pg_dump", database).args(["-C", "--schema-only"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// Every row of every table, sorted, and all sequences and large objects. Partition trees as a whole: a hash over an
/// enum depends on the oids of its labels, so in another database other leaves may take its rows.
fn contents(cluster: &Cluster, database: &str) -> String {
    let names = cluster.psql(
        database,
        "SELECT relkind, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
         WHERE relkind IN ('r', 'm', 'S', 'p') AND NOT relispartition AND n.nspname !~ '^pg_|^information_schema' ORDER BY 2",
    );
    let dump = |line: &str| {
        let (kind, name) = line.split_once('|').unwrap();
        let sql = if kind == "S" {
            format!("SELECT last_value, is_called FROM {name}")
        } else {
            let only = if kind == "p" { "" } else { "ONLY" };
            format!("SELECT t::text FROM {only} {name} t ORDER BY 1")
        };
        format!("== {name}\n{}\n", cluster.psql(database, &sql))
    };
    let tables: String = names.lines().map(dump).collect();
    let large = cluster.psql(database, "SELECT loid, pageno, md5(data) FROM pg_largeobject ORDER BY 1, 2");
    format!("{tables}== large objects\n{large}\n")
}

fn databases(cluster: &Cluster) -> Vec<String> {
    let sql = "SELECT datname FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY 1";
    cluster.psql("postgres", sql).lines().map(str::to_owned).collect()
}

fn sample() -> (Cluster, Fixture) {
    let cluster = Cluster::start();
    cluster.psql("postgres", fixture::ROLES);
    cluster.psql("shop", SAMPLE);
    let fixture = Fixture::capture(&cluster, "shop");
    (cluster, fixture)
}

fn assert_same(left: &str, right: &str) {
    for (left, right) in left.lines().zip(right.lines()) {
        assert_eq!(left, right);
    }
    assert_eq!(left.lines().count(), right.lines().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_on_an_empty_server() {
    let (source, fixture) = sample();
    let empty = Cluster::start_with(Options { password: Some("canary-pw".to_owned()), ..Options::default() });
    let (plan, proof) = restore(&fixture, &options(&empty, Target::Original)).await.unwrap();

    assert_eq!(plan.create_roles, ["Read Only", "app"]);
    assert_eq!(plan.grant_memberships, [("Read Only".to_owned(), "app".to_owned())]);
    assert_eq!(proof.database, "shop");
    assert!(proof.tables.iter().all(|table| table.ok() && table.read_back), "{:?}", proof.tables);
    assert!(proof.tables.len() > 10);
    assert_eq!(databases(&empty), ["shop"]);
    assert_same(&definitions(&source, "shop"), &definitions(&empty, "shop"));
    assert_same(&contents(&source, "shop"), &contents(&empty, "shop"));
    let roles = "SELECT a.rolname, a.rolcanlogin, a.rolpassword, r.rolconfig FROM pg_authid a JOIN pg_roles r USING (oid) \
                 WHERE a.rolname !~ '^pg_|postgres' ORDER BY 1";
    assert_same(&source.psql("postgres", roles), &empty.psql("postgres", roles));
    let open = "SELECT datallowconn, datconnlimit FROM pg_database WHERE datname = 'shop'";
    assert_eq!(empty.psql("postgres", open), "t|17");
    assert!(empty.psql("shop", "SELECT relfrozenxid FROM pg_class WHERE relname = 'item'") != "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_database_is_refused_then_replaced_and_kept() {
    let (cluster, fixture) = sample();
    let before = databases(&cluster);
    let refused = restore(&fixture, &options(&cluster, Target::Original)).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains("database `shop` exists"), "{refused}");
    assert_eq!(databases(&cluster), before);

    let expected = contents(&cluster, "shop");
    cluster.psql("shop", "DELETE FROM sale; CREATE TABLE newer (); ALTER ROLE app CONNECTION LIMIT 5;");
    // Somebody is connected and must not keep the swap from happening.
    let mut sleeper = cluster.client("psql", "shop").args(["-c", "SELECT pg_sleep(600)"]).spawn().unwrap();
    let (plan, proof) = restore(&fixture, &options(&cluster, Target::Replace)).await.unwrap();
    assert!(!sleeper.wait().unwrap().success(), "the session was not ended");
    assert_eq!(plan.create_roles, Vec::<String>::new());
    assert!(plan.replaced_bytes.unwrap() > 1_000_000);
    let kept = "shop__before_19700101t000000z";
    assert_eq!(proof.replaced.as_deref(), Some(kept));
    assert_eq!(databases(&cluster), ["shop", kept]);
    assert_same(&expected, &contents(&cluster, "shop"));
    assert_eq!(cluster.psql(kept, "SELECT count(*) FROM newer"), "0");
    assert_eq!(cluster.psql("postgres", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app'"), "5");
    // The name of the kept one is taken now: the next one in the same second is refused before it begins.
    let again = restore(&fixture, &options(&cluster, Target::Replace)).await.unwrap_err();
    assert!(again.to_string().contains(kept), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tied_to_the_old_database_stands_against_replacing_it() {
    let settings = [("max_prepared_transactions", "5"), ("wal_level", "logical")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start_with(Options { settings, ..Options::default() });
    cluster.psql("postgres", fixture::ROLES);
    cluster.psql("shop", "CREATE TABLE t AS SELECT 1 AS n");
    let fixture = Fixture::capture(&cluster, "shop");
    // In this order: a new slot waits for the end of every running transaction, prepared ones as well.
    cluster.psql("shop", "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')");
    cluster.psql("shop", "BEGIN; DELETE FROM t; PREPARE TRANSACTION 'half';");
    let error = restore(&fixture, &options(&cluster, Target::Replace)).await.unwrap_err().to_string();
    assert!(error.contains("prepared transaction 'half'") && error.contains("slot 'slot'"), "{error}");

    // The same when they appear only after the plan: the swap is called off and the old database opened again.
    let snapshot = fixture.snapshot();
    cluster.psql("shop", "ROLLBACK PREPARED 'half'");
    cluster.psql("shop", "SELECT pg_drop_replication_slot('slot')");
    let options = options(&cluster, Target::Replace);
    let plan = plan(&options, &snapshot, &fixture).await.unwrap();
    cluster.psql("shop", "BEGIN; DELETE FROM t; PREPARE TRANSACTION 'late';");
    let error = execute(&plan, &options, &snapshot, &fixture, &Told::default()).await.unwrap_err().to_string();
    assert!(error.contains("'late'"), "{error}");
    assert_eq!(cluster.psql("shop", "SELECT n FROM t"), "1");
    assert_eq!(databases(&cluster), ["shop", "shop__restoring_t3st"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_another_name_leaves_the_original_alone() {
    let (cluster, fixture) = sample();
    let mut options = options(&cluster, Target::Into("shop copy".to_owned()));
    options.verify = Verify::Counts;
    // One session: `checked` certainly comes before the table that its CHECK looks at.
    options.jobs = 1;
    let (_, proof) = restore(&fixture, &options).await.unwrap();
    assert!(proof.tables.iter().all(backup_core::source::postgres::restore::TableProof::ok));
    // The table in the archive has no count of our own COPY, and the tree that went through its root is compared there.
    assert!(proof.tables.iter().any(|table| table.name == "in_archive" && table.read_back));
    assert!(proof.tables.iter().any(|table| table.name == "item" && !table.read_back));
    assert_same(&contents(&cluster, "shop"), &contents(&cluster, "shop copy"));
    assert_eq!(databases(&cluster), ["shop", "shop copy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_table_comes_back_with_its_types_and_indexes() {
    let (cluster, fixture) = sample();
    let mut options = options(&cluster, Target::Into("one".to_owned()));
    options.only = Selection::Table { schema: "public".to_owned(), name: "sale".to_owned() };
    let (_, proof) = restore(&fixture, &options).await.unwrap();
    let names: Vec<&str> = proof.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["sale"]);
    let sale = "SELECT s::text FROM sale s ORDER BY 1";
    assert_same(&cluster.psql("shop", sale), &cluster.psql("one", sale));
    assert_eq!(cluster.psql("one", "SELECT count(*) FROM item"), "0");
    let indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'sale' ORDER BY 1";
    assert_same(&cluster.psql("shop", indexes), &cluster.psql("one", indexes));

    // The command that brings rows back is run as printed.
    cluster.psql("shop", "DELETE FROM sale");
    let environment = cluster.client("psql", "postgres");
    let mut shell = std::process::Command::new("/bin/sh");
    shell.env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(shell.args(["-c", &proof.bring_back[0]]).status().unwrap().success(), "{}", proof.bring_back[0]);
    assert_same(&cluster.psql("one", sale), &cluster.psql("shop", sale));

    let nothing = Selection::Table { schema: "public".to_owned(), name: "nothing".to_owned() };
    options = RestoreOptions { only: nothing, target: Target::Into("two".to_owned()), ..options };
    assert!(restore(&fixture, &options).await.unwrap_err().to_string().contains("the snapshot has no table"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_our_own_capture_took_comes_back() {
    let source = Cluster::start();
    source.psql("postgres", fixture::ROLES);
    source.psql("shop", SAMPLE);
    let connect = ConnectOptions::new(&source.url("shop"), None).unwrap();
    let clock = Clock::fixed(std::time::UNIX_EPOCH.into());
    let captured =
        capture(&PostgresOptions::new("db", connect), &fixture::Keep, &clock, &Told::default()).await.unwrap();
    let mut fixture = Fixture::from(captured);
    let empty = Cluster::start();
    restore(&fixture, &options(&empty, Target::Original)).await.unwrap();
    assert_same(&definitions(&source, "shop"), &definitions(&empty, "shop"));
    assert_same(&contents(&source, "shop"), &contents(&empty, "shop"));

    fixture.table("item").rows += 1;
    let mut into = options(&empty, Target::Into("copy".to_owned()));
    into.id = "n3xt".to_owned();
    restore(&fixture, &into).await.unwrap_err();
    assert_eq!(databases(&empty), ["shop"]);
}

/// Breaks a snapshot in one way and expects an error with these words, and no trace of the database.
async fn broken(cluster: &Cluster, fixture: &Fixture, words: &str, how: impl FnOnce(&mut Fixture)) {
    let mut fixture = fixture.clone();
    how(&mut fixture);
    let error = restore(&fixture, &options(cluster, Target::Original)).await.expect_err(words);
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(text.contains(words), "expected `{words}`, got: {text}");
    assert_eq!(databases(cluster), Vec::<String>::new(), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_differs_is_found_and_never_gets_the_name() {
    let (_source, fixture) = sample();
    let target = Cluster::start();
    let item = fixture.stream_of("item", 0);
    let other = fixture.stream_of("item", 1);

    broken(&target, &fixture, "rows of `public.item` differ", |f| {
        let end = f.bytes[item].iter().rposition(|b| *b == b'\n').unwrap();
        let cut = f.bytes[item][..end].iter().rposition(|b| *b == b'\n').unwrap();
        f.bytes[item].truncate(cut + 1);
    })
    .await;
    broken(&target, &fixture, "rows of `public.item` differ", |f| {
        let at = f.bytes[item].iter().position(|b| *b == b'x').unwrap();
        f.bytes[item][at] = b'y';
    })
    .await;
    broken(&target, &fixture, "rows of `public.item` differ", |f| f.bytes.swap(item, other)).await;
    broken(&target, &fixture, "is not whole", |f| f.truncated = Some(item)).await;
    broken(&target, &fixture, "end inside a row", |f| {
        f.bytes[item].pop();
    })
    .await;
    broken(&target, &fixture, "do not add up", |f| f.table("item").rows += 1).await;
    broken(&target, &fixture, "do not cover it once", |f| f.table("item").parts[1].blocks = Some((11, None))).await;
    broken(&target, &fixture, "shares a part", |f| {
        let part = f.table("item").parts[0].clone();
        let entry = f.table("sale");
        (entry.rows, entry.fingerprint) = (part.rows, part.fingerprint);
        entry.parts = vec![backup_core::manifest::Part { blocks: None, ..part }];
    })
    .await;
    // A tar whose members are swapped, and one that ends early.
    let tar = fixture.stream_of("sale", 0);
    broken(&target, &fixture, "differ from the capture", |f| f.swap_members("seller", "buyer")).await;
    broken(&target, &fixture, "has no member", |f| {
        f.bytes[tar].truncate(0);
    })
    .await;
    // The archive: rows that are missing in it, a cut one, one that is whole but whose stream does not end.
    let archive = fixture.archive();
    broken(&target, &fixture, "`public.in_archive` (4 rows captured, 3 restored)", |f| {
        f.table("in_archive").rows = 4;
    })
    .await;
    broken(&target, &fixture, "`pg_restore` failed", |f| {
        let half = f.bytes[archive].len() / 2;
        f.bytes[archive].truncate(half);
    })
    .await;
    broken(&target, &fixture, "is not whole", |f| f.truncated = Some(archive)).await;
    broken(&target, &fixture, "property `database.owner` is missing", |f| {
        f.properties.retain(|property| property.name != "database.owner");
    })
    .await;

    // Unbroken it goes through: what stopped the others was what was broken.
    restore(&fixture, &options(&target, Target::Original)).await.unwrap();
    assert_eq!(databases(&target), ["shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_can_be_kept_closed_to_others() {
    let (_source, fixture) = sample();
    let target = Cluster::start();
    let mut broken = fixture.clone();
    broken.table("in_archive").rows = 4;
    let mut options = options(&target, Target::Original);
    options.keep_failed = true;
    restore(&broken, &options).await.unwrap_err();
    assert_eq!(databases(&target), ["shop__restoring_t3st"]);
    let refused = target.client("psql", "shop__restoring_t3st").env("PGUSER", "app").args(["-c", "SELECT 1"]).output();
    let text = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(text.contains("too many connections"), "{text}");
    // The next one says that it is there.
    options.id = "n3xt".to_owned();
    let plan = plan(&options, &fixture.snapshot(), &fixture).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("shop__restoring_t3st")), "{:?}", plan.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_no_superuser_can_restore_what_it_owns() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE ROLE keeper LOGIN CREATEDB; CREATE ROLE other LOGIN;");
    cluster.psql("postgres", "CREATE DATABASE shop OWNER keeper");
    cluster
        .client("psql", "shop")
        .env("PGUSER", "keeper")
        .args(["-qc", "CREATE TABLE t AS SELECT 1 AS n"])
        .status()
        .unwrap();
    let mut fixture = Fixture::capture(&cluster, "shop");
    let into = || Target::Into("copy".to_owned());
    let mut options = options(&cluster, into());
    options.connect = ConnectOptions::new(&cluster.url_as("keeper", "postgres"), None).unwrap();
    options.keep_failed = true;
    let entry = |database: &str| {
        let mut psql = cluster.client("psql", database);
        psql.env("PGUSER", "other").args(["-qAtc", "SELECT 1"]).output().unwrap().status.success()
    };
    let rows = fixture.table("t").rows;
    let member = fixture.table("t").parts[0].clone();
    fixture.table("t").fingerprint.0 ^= 1;
    fixture.table("t").parts[0].fingerprint.0 ^= 1;
    let error = restore(&fixture, &options).await.unwrap_err().to_string();
    assert!(error.contains("`public.t` differ"), "{error}");
    assert!(!entry("copy__restoring_t3st"), "another user could enter");
    cluster.psql("postgres", "DROP DATABASE copy__restoring_t3st");

    fixture.table("t").parts[0] = member.clone();
    fixture.table("t").fingerprint = member.fingerprint;
    assert_eq!(restore(&fixture, &options).await.unwrap().1.tables[0].found.rows, rows);
    assert!(entry("copy"), "the finished database is closed");

    options.connect = ConnectOptions::new(&cluster.url_as("other", "postgres"), None).unwrap();
    options.target = Target::Into("third".to_owned());
    let error = restore(&fixture, &options).await.unwrap_err().to_string();
    assert!(error.contains("user `other` may not create databases"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_or_is_down_is_named() {
    let cluster = Cluster::start_with(Options { password: Some("right".to_owned()), ..Options::default() });
    cluster.psql("postgres", fixture::ROLES);
    cluster.psql("shop", "CREATE TABLE t AS SELECT 1 AS n");
    let fixture = Fixture::capture(&cluster, "shop");
    let mut options = options(&cluster, Target::Into("copy".to_owned()));
    options.connect = ConnectOptions::new(&cluster.url("postgres"), Some(Secret::new("wr0ng-canary"))).unwrap();
    let error = restore(&fixture, &options).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("refuses user `postgres`") && !text.contains("wr0ng-canary"), "{text}");

    options.connect = ConnectOptions::new(&cluster.url("postgres"), Some(Secret::new("right"))).unwrap();
    let ready = plan(&options, &fixture.snapshot(), &fixture).await.unwrap();
    cluster.kill9();
    let error = restore(&fixture, &options).await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    let error =
        execute(&ready, &options, &fixture.snapshot(), &fixture, &Told::default()).await.unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    cluster.start_again();
    assert_eq!(databases(&cluster), ["shop"]);
    execute(&ready, &options, &fixture.snapshot(), &fixture, &Told::default()).await.unwrap();
}

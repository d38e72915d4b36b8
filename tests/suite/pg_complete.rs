//! Everything that `pg_dump` knows comes back, and what it loses as well: round trips by our own capture and restore
//! into a second cluster, judged by stock programs (`judge`).
//!
//! The fixture is `fixtures/postgres`: SQL by subject, loaded in the order of the files' names; `since-N` is for servers
//! of major N and later.

mod extensions;
mod formats;
mod judge;
mod many;
mod odd;
mod places;
mod scene;

use std::sync::Mutex;

use backup_core::clock::Clock;
use backup_core::monitor::{Event, Monitor};
use backup_core::source::postgres::restore::{TableProof, Target};
use backup_core::source::postgres::{ClientsOption, PostgresOptions};
use harness::pg::available;
use judge::Picture;

use super::pg_restore::fixture::Fixture;
use scene::{DATABASE, Server, captured, into, options, restored, restored_by_stock};

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Monitor for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is the edge")]
fn clock() -> Clock {
    Clock::new(chrono::Utc::now)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The fixture from one major to another server of the same major.
async fn round_trip(major: u32) -> Option<(Server, Picture)> {
    if !available(major) {
        return None;
    }
    let source = Server::complete(major);
    let (fixture, suspect) =
        captured(&options(&source.cluster, DATABASE)).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let before = Picture::of(&source.cluster, DATABASE);
    assert!(before.tables() > 120, "{}", before.tables());
    let target = Server::start(major);
    let proof = restored(&fixture, &into(&target.cluster, Target::Original)).await;
    let proof = proof.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), target.cluster.log()));
    assert!(proof.tables.iter().all(TableProof::ok));
    let after = Picture::of(&target.cluster, DATABASE);
    let differences = before.differences(&after);
    assert!(differences.is_empty(), "{differences}");
    let expected =
        ["not captured: rows of `extended.builtin`, a table of extension `backup_sample` that it does not have dumped"];
    assert_eq!(suspect, expected);
    // That they are not captured is known, and no reason to look at each night's snapshot.
    let foreign = fixture.properties.iter().find(|property| property.name == "foreign_tables").unwrap();
    assert_eq!(foreign.value, serde_json::json!([["others", "remote"], ["others", "remote_part"]]));
    Some((target, before))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_15() {
    let Some((target, before)) = round_trip(15).await else { return };
    // The judge sees what is broken, whatever it is.
    let broken = [
        ("TRUNCATE vals.texts", "== vals.texts r"),
        ("INSERT INTO tables.many_parts VALUES (77, 'x')", "== tables.many_parts r"),
        ("INSERT INTO code.branch VALUES (2, NULL, '{}')", "== code.branch r"),
        ("SELECT setval('tables.alone', 1)", "== tables.alone S"),
        ("REFRESH MATERIALIZED VIEW views.tenant WITH NO DATA", "populated\tviews\ttenant\tf"),
        ("SELECT lo_put(70003, 0, '\\x02')", "large object\t70003"),
        ("REVOKE SELECT ON LARGE OBJECT 70003 FROM worker CASCADE", "large object\t70003"),
        ("DROP POLICY own ON code.secret", "- CREATE POLICY own ON code.secret"),
        ("COMMENT ON COLUMN tables.serials.t IS NULL", "- COMMENT ON COLUMN tables.serials.t"),
        ("ALTER DATABASE complete CONNECTION LIMIT 5", "CONNECTION LIMIT = 5"),
        ("ALTER ROLE worker IN DATABASE complete RESET ALL", "- == setting\tworker"),
        ("ALTER ROLE worker CREATEDB", "+ ALTER ROLE worker WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB"),
    ];
    for (sql, _) in broken {
        target.cluster.psql(
            DATABASE,
            &format!("ALTER EVENT TRIGGER forbidden DISABLE; {sql}; ALTER EVENT TRIGGER forbidden ENABLE ALWAYS"),
        );
    }
    let differences = before.differences(&Picture::of(&target.cluster, DATABASE));
    for (sql, words) in broken {
        assert!(differences.contains(words), "{sql} is not seen:\n{differences}");
    }
}

/// A restore that fails leaves nothing behind, also where a subscription and event triggers stand in the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_leaves_no_database() {
    let source = harness::pg::Cluster::start();
    source.psql("postgres", "CREATE DATABASE shop");
    source.psql(
        "shop",
        "CREATE TABLE t AS SELECT 1 AS x; CREATE SUBSCRIPTION subscribed CONNECTION 'host=127.0.0.1 port=1 dbname=d' PUBLICATION p
             WITH (connect = false);",
    );
    let (mut fixture, _) = captured(&options(&source, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let target = harness::pg::Cluster::start();
    fixture.table("t").rows += 1;
    let part = &mut fixture.table("t").parts[0];
    part.rows += 1;
    restored(&fixture, &into(&target, Target::Original)).await.unwrap_err();
    assert_eq!(target.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'shop'"), "0");
    fixture.table("t").rows -= 1;
    fixture.table("t").parts[0].rows -= 1;
    restored(&fixture, &into(&target, Target::Original)).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let enabled = "SELECT subname, subenabled FROM pg_subscription";
    assert_eq!(target.psql("postgres", enabled), "subscribed|f");
}

/// A column that a child had before it was attached stands elsewhere afterwards: there `pg_dump` is not exact, and ours is
/// what stock programs make of it.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_stock_programs_reorder_come_back_as_they_do_it() {
    let source = harness::pg::Cluster::start();
    source.psql("postgres", "CREATE DATABASE shop");
    source.psql(
        "shop",
        "CREATE TABLE animal (id int, name text); CREATE TABLE adopted (name text, extra int, id int);
         INSERT INTO animal VALUES (1, 'cow'); INSERT INTO adopted VALUES ('stray', 5, 2); ALTER TABLE adopted INHERIT animal",
    );
    let (fixture, _) = captured(&options(&source, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let (ours, stock) = (harness::pg::Cluster::start(), harness::pg::Cluster::start());
    restored(&fixture, &into(&ours, Target::Original)).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    restored_by_stock(&source, &stock, "shop");
    let (before, ours, stock) = (Picture::of(&source, "shop"), Picture::of(&ours, "shop"), Picture::of(&stock, "shop"));
    assert_ne!(before.definitions, stock.definitions, "stock programs can do it now: hold ours against the original");
    assert_eq!(ours.differences(&stock), "");
    assert_eq!(before.rows, ours.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_18() {
    let _ = round_trip(18).await;
}

// A server for which only newer client programs are here.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_16() {
    let _ = round_trip(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_17() {
    let _ = round_trip(17).await;
}

/// From 13 into 18: definitions against what 18's own programs make of the same database, rows against the original,
/// because stock programs lose rows whose CHECK looks at a table that is loaded later.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_gives_what_stock_programs_give() {
    if !available(13) || !available(18) {
        return;
    }
    let source = Server::complete(13);
    // Stock programs make event triggers before they fill materialized views, and then stumble over them.
    source
        .cluster
        .psql(DATABASE, "DROP EVENT TRIGGER forbidden; DROP EVENT TRIGGER log_start; DROP EVENT TRIGGER log_end");
    let (ours, stock) = (Server::start(18), Server::start(18));
    // As the manual says of an upgrade, and so that both sides are asked by the same program.
    let newer = PostgresOptions {
        clients: ClientsOption::Dir(ours.cluster.clients().to_owned()),
        ..options(&source.cluster, DATABASE)
    };
    let (fixture, _) = captured(&newer).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let told = restored_by_stock(&source.cluster, &stock.cluster, DATABASE);
    let proof = restored(&fixture, &into(&ours.cluster, Target::Original)).await;
    proof.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), ours.cluster.log()));
    let expected =
        Picture { rows: Picture::of(&source.cluster, DATABASE).rows, ..Picture::of(&stock.cluster, DATABASE) };
    let differences = expected.differences(&Picture::of(&ours.cluster, DATABASE));
    assert!(differences.is_empty(), "{differences}\n{told:#?}");
}

//! Everything that `pg_dump` knows comes back, and what it loses as well: round trips by our own capture and restore
//! into a second cluster, judged by stock programs (`judge`).
//!
//! The fixture is `fixtures/postgres`: SQL by subject, loaded in the order of the files' names; `since-N` is for servers
//! of major N and later.

mod judge;
mod odd;
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
async fn round_trip(major: u32) {
    if !available(major) {
        return;
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
    let expected = [
        "not captured: foreign table `others.remote`: its rows live on another server",
        "not captured: foreign table `others.remote_part`: its rows live on another server",
        "not captured: rows of `extended.builtin`, a table of extension `backup_sample` that it does not have dumped",
    ];
    assert_eq!(suspect, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_15() {
    round_trip(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_18() {
    round_trip(18).await;
}

// A server for which only newer client programs are here.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_fixture_comes_back_on_16() {
    round_trip(16).await;
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

//! Checks of a restored database: only true is good, whatever else a query answers, and then nothing carries the name.

use std::time::Duration;

use backup_core::source::postgres::restore::{Answer, Expectation, Expectations, RestoreError, Selection, Target};
use harness::pg::Cluster;

use super::fixture::Fixture;
use super::{databases, options, restore};

fn check(name: &str, sql: &str) -> Expectation {
    Expectation { name: name.to_owned(), sql: sql.to_owned() }
}

fn shop() -> (Cluster, Fixture) {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql(
        "shop",
        "CREATE TABLE price AS SELECT '2026-03-01 12:00+00'::timestamptz - g * interval '1 h' AS at, g AS n
             FROM generate_series(0, 99) g;
         CREATE SCHEMA app; CREATE TABLE app.here AS SELECT 1 AS n; ALTER DATABASE shop SET search_path = public, app;
         CREATE SEQUENCE counter;",
    );
    let fixture = Fixture::capture(&cluster, "shop");
    (cluster, fixture)
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_asked_as_of_the_snapshot_and_only_true_is_good() {
    let (cluster, fixture) = shop();
    let instant = "2026-03-01T12:00:00.000001Z".parse().unwrap();
    let good = [
        // Exact to the microsecond, and a `timestamptz` for whatever is done with it.
        check("fresh", "SELECT max(at) = $1 - interval '1 microsecond' FROM price"),
        check("typed", "SELECT pg_typeof($1) = 'timestamptz'::regtype"),
        check("plain", "SELECT count(*) = 100 FROM price -- of all $1"),
        check("path", "SELECT n = 1 FROM here"),
        check("read only", "SELECT current_setting('transaction_read_only') = 'on'"),
        check("leaves a setting", "SELECT set_config('app.left', 'x', false) = 'x'"),
        check("finds none", "SELECT coalesce(current_setting('app.left', true), '') = ''"),
        check("analyzed", "SELECT reltuples = 100 FROM pg_class WHERE oid = 'price'::regclass"),
        // It does not have its name yet.
        check("unnamed", "SELECT current_database() LIKE '%restoring%'"),
    ];
    let mut into = options(&cluster, Target::Into("good".to_owned()));
    into.expect = Expectations::new(good.to_vec(), instant);
    let (_, proof) = restore(&fixture, &into).await.unwrap();
    let said: Vec<_> = proof.expected.iter().map(|one| (one.name.as_str(), &one.found)).collect();
    assert_eq!(said, good.iter().map(|one| (one.name.as_str(), &Answer::True)).collect::<Vec<_>>());

    let bad = [
        (check("false", "SELECT max(at) > $1 FROM price"), Answer::False),
        (check("null", "SELECT max(n) > 1 FROM price WHERE n > 1000"), Answer::Null),
        (check("no row", "SELECT true FROM price WHERE n > 1000"), Answer::Nothing),
        (check("two rows", "SELECT true FROM price LIMIT 2"), Answer::ManyRows),
        (check("two columns", "SELECT true, true"), Answer::Columns(2)),
        (check("no column", "SELECT"), Answer::Columns(0)),
        (check("number", "SELECT count(*) FROM price"), Answer::NotBoolean("int8".to_owned())),
        (check("text", "SELECT 'true'::text"), Answer::NotBoolean("text".to_owned())),
        (check("missing", "SELECT n > 0 FROM nowhere"), Answer::Refused(String::new())),
        (check("no sql", "SELEC"), Answer::Refused(String::new())),
        (check("two statements", "SELECT true; SELECT true"), Answer::Refused(String::new())),
        (
            check("writes", "WITH x AS (DELETE FROM price RETURNING n) SELECT true FROM x LIMIT 1"),
            Answer::Refused(String::new()),
        ),
        (check("counts", "SELECT nextval('counter') > 0"), Answer::Refused(String::new())),
        (check("commits", "COMMIT"), Answer::Nothing),
        (check("slow", "SELECT pg_sleep(60) IS NOT NULL"), Answer::TooSlow(1)),
        (check("true", "SELECT true"), Answer::True),
    ];
    let mut into = options(&cluster, Target::Into("bad".to_owned()));
    let checks = bad.iter().map(|(check, _)| check.clone()).collect();
    into.expect = Expectations { timeout: Duration::from_secs(1), ..Expectations::new(checks, instant) };
    let error = restore(&fixture, &into).await.unwrap_err();
    let text = error.to_string();
    let RestoreError::Unexpected { proofs } = error else { panic!("{text}") };
    for ((check, wanted), found) in bad.iter().zip(&proofs) {
        match (&found.found, wanted) {
            (Answer::Refused(words), Answer::Refused(_)) => assert!(!words.is_empty(), "{}", check.name),
            (found, wanted) => assert_eq!(found, wanted, "{}", check.name),
        }
        assert_eq!(text.contains(&format!("check `{}` gives {}", check.name, found.found)), !found.ok(), "{text}");
    }
    assert_eq!(proofs.len(), bad.len());
    assert_eq!(databases(&cluster), ["good", "shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_of_the_whole_are_not_asked_of_a_part() {
    let (cluster, fixture) = shop();
    let mut into = options(&cluster, Target::Into("part".to_owned()));
    into.expect = Expectations::new(vec![check("whole", "SELECT false")], std::time::UNIX_EPOCH.into());
    into.only = Selection::Table { schema: "public".to_owned(), name: "price".to_owned() };
    let (plan, proof) = restore(&fixture, &into).await.unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("not asked: `whole`")), "{:?}", plan.notes);
    assert_eq!((proof.expected.len(), proof.not_asked), (0, vec!["whole".to_owned()]));
}

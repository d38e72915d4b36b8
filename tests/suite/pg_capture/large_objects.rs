//! Large objects: all of those that may not be read are named, and the sums know every byte, owner, privilege and comment.

use backup_core::manifest::Property;
use backup_core::source::postgres::PostgresError;
use harness::pg::{Cluster, Options, available};
use serde_json::Value;

use super::sink::MemorySink;
use super::{captured, chain, options, run};

fn facts(properties: &[Property]) -> Value {
    properties.iter().find(|property| property.name == "large_objects").unwrap().value.clone()
}

async fn unreadable(major: u32) {
    if !available(major) {
        return;
    }
    let cluster = Cluster::start_with(Options { version: Some(major), ..Options::default() });
    // The right to read all tables is none to read large objects.
    let all = if major >= 14 { "GRANT pg_read_all_data TO weak;" } else { "" };
    let sql = "CREATE ROLE weak LOGIN; CREATE ROLE team; {all} GRANT team TO weak; CREATE ROLE others;
        SELECT count(lo_from_bytea(70000 + i, convert_to('object ' || i, 'UTF8'))) FROM generate_series(1, 30) i;
        GRANT SELECT ON LARGE OBJECT 70001 TO weak; GRANT SELECT ON LARGE OBJECT 70002 TO PUBLIC;
        ALTER LARGE OBJECT 70003 OWNER TO weak; ALTER LARGE OBJECT 70004 OWNER TO team;
        GRANT SELECT ON LARGE OBJECT 70005 TO team; GRANT UPDATE ON LARGE OBJECT 70006 TO weak;
        GRANT SELECT ON LARGE OBJECT 70007 TO others;
        ALTER LARGE OBJECT 70008 OWNER TO weak; REVOKE ALL ON LARGE OBJECT 70008 FROM weak;";
    cluster.psql("postgres", &sql.replace("{all}", all));
    let wanted = options(&cluster, "weak", "postgres");
    let error = run(&wanted, &MemorySink::default()).await.unwrap_err();
    let PostgresError::NotReadable { objects, .. } = &error else { panic!("{}", chain(&error)) };
    let mut named: Vec<String> = (70_006..70_026).map(|oid| format!("large object {oid}")).collect();
    named.push("5 more large objects".to_owned());
    assert_eq!(objects, &named, "on {major}");
    assert!(error.to_string().contains("may not read 25 objects: large object 70006, "), "{error}");

    // What the list says is what is missing.
    cluster.psql(
        "postgres",
        "SELECT format('GRANT SELECT ON LARGE OBJECT %s TO weak', i) FROM generate_series(70006, 70030) i \\gexec",
    );
    let (by_weak, _) = run(&wanted, &MemorySink::default()).await.unwrap_or_else(|e| panic!("{major}: {}", chain(&e)));
    let by_all = captured(&cluster, "postgres").await;
    assert_eq!(facts(&by_weak.properties), facts(&by_all.properties));
    assert_eq!(facts(&by_all.properties)["count"], 30);
}

#[tokio::test]
async fn all_large_objects_that_may_not_be_read_are_listed_on_13() {
    unreadable(13).await;
}

#[tokio::test]
async fn all_large_objects_that_may_not_be_read_are_listed_on_15() {
    unreadable(15).await;
}

#[tokio::test]
async fn all_large_objects_that_may_not_be_read_are_listed_on_18() {
    unreadable(18).await;
}

#[tokio::test]
async fn the_sums_know_every_byte_and_fact_and_no_page() {
    let cluster = Cluster::start();
    cluster.psql(
        "postgres",
        "CREATE ROLE reads; SELECT lo_from_bytea(70001, decode(repeat('ab', 3000000), 'hex')), lo_create(70002)",
    );
    let now = async || facts(&captured(&cluster, "postgres").await.properties);
    let before = now().await;
    assert_eq!((&before["count"], &before["slices"]), (&Value::from(2), &Value::from(4)), "{before}");
    let changes = [
        ("SELECT lo_put(70001, 2500000, '\\x00')", "contents"),
        ("SELECT lo_put(70001, 3000000, '\\x00')", "contents"),
        ("SELECT lo_put(70002, 0, '\\x00')", "contents"),
        ("GRANT SELECT ON LARGE OBJECT 70001 TO reads", "facts"),
        ("COMMENT ON LARGE OBJECT 70001 IS 'a'", "facts"),
        ("COMMENT ON LARGE OBJECT 70001 IS 'b'", "facts"),
        ("ALTER LARGE OBJECT 70002 OWNER TO reads", "facts"),
    ];
    let mut last = before;
    for (sql, which) in changes {
        cluster.psql("postgres", sql);
        let found = now().await;
        for name in ["contents", "facts"] {
            assert_eq!(found[name] == last[name], name != which, "{name} after {sql}: {found}");
        }
        last = found;
    }
    // A hole, and zeros that were written: two ways to store the same bytes.
    cluster.psql("postgres", "SELECT lo_create(70003), lo_put(70003, 1500000, '\\x01')");
    let hole = now().await;
    let pages = "SELECT count(*) FROM pg_largeobject WHERE loid = 70003";
    assert_eq!(cluster.psql("postgres", pages), "1");
    cluster.psql("postgres", "SELECT lo_put(70003, 0, decode(repeat('00', 1500000), 'hex'))");
    assert!(cluster.psql("postgres", pages).parse::<u32>().unwrap() > 700);
    assert_eq!(now().await, hole);
}

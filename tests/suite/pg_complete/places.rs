//! Tablespaces: what lay in one lies in it again where the server has it, and is told where it has not.

use backup_core::source::postgres::restore::{Target, execute, plan};
use backup_core::source::postgres::{Globals, PostgresOptions};
use harness::pg::Cluster;

use super::scene::{captured, into, options};
use super::{Recorder, chain};

/// A cluster with tablespaces of these names, which lie inside of it.
fn with(names: &[&str]) -> Cluster {
    let cluster = Cluster::start();
    for name in names {
        cluster.psql("postgres", &format!("SET allow_in_place_tablespaces = on; CREATE TABLESPACE {name} LOCATION ''"));
    }
    cluster
}

const TABLES: &str = "CREATE TABLE kept (id int PRIMARY KEY USING INDEX TABLESPACE fast, v text) TABLESPACE fast;
    INSERT INTO kept SELECT i, 'v' || i FROM generate_series(1, 3000) i; CREATE INDEX kept_v ON kept (v);
    CREATE TABLE plain (v int); INSERT INTO plain VALUES (1); CREATE INDEX plain_v ON plain (v) TABLESPACE fast;
    CREATE TABLE tree (k int) PARTITION BY LIST (k) TABLESPACE fast; CREATE TABLE leaf PARTITION OF tree DEFAULT;
    INSERT INTO tree VALUES (1); CREATE MATERIALIZED VIEW seen TABLESPACE fast AS SELECT count(*) FROM kept;";

/// Every table and index with its place.
fn places(cluster: &Cluster, database: &str) -> String {
    let sql = "SELECT c.relname, coalesce(t.spcname, '-') FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1";
    cluster.psql(database, sql)
}

/// No provider of labels is in any package, so that one is written where the server keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_the_database_is_kept_and_told() {
    let source = Cluster::start();
    source.psql("postgres", "CREATE DATABASE shop");
    let label = "SET allow_system_table_mods = on; INSERT INTO pg_shseclabel
        SELECT oid, 'pg_database'::regclass, 'dummy', 'it''s secret' FROM pg_database WHERE datname = 'shop'";
    source.psql("postgres", label);
    source.psql("shop", "CREATE TABLE t AS SELECT 1 AS x");
    let (fixture, _) = captured(&options(&source, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let to = into(&source, Target::Into("back".to_owned()));
    let planned = plan(&to, &fixture.snapshot(), &fixture).await.unwrap();
    let told = "the database's own security label is left to you: SECURITY LABEL FOR \"dummy\" ON DATABASE \"back\" IS 'it''s secret'";
    assert_eq!(planned.notes, [told]);
    let done = execute(&planned, &to, &fixture.snapshot(), &fixture, &Recorder::default()).await;
    done.unwrap_or_else(|e| panic!("{}", chain(&e)));
}

fn place_of(cluster: &Cluster, database: &str) -> String {
    let from = "FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace";
    cluster.psql("postgres", &format!("SELECT spcname {from} WHERE datname = '{database}'"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_indexes_stay_in_their_tablespace_where_there_is_one() {
    let source = with(&["fast", "of_others"]);
    source.psql("postgres", "CREATE DATABASE shop; CREATE DATABASE whole TABLESPACE fast");
    source.psql("shop", TABLES);
    source.psql("whole", "CREATE TABLE t AS SELECT 1 AS x");
    let before = places(&source, "shop");
    let in_fast = ["kept|fast", "kept_pkey|fast", "kept_v|-", "leaf|fast", "plain|-", "plain_v|fast", "seen|fast"];
    assert!(in_fast.iter().all(|line| before.lines().any(|found| found == *line)), "{before}");
    // What another database's tables lie in is not missed.
    let (there, elsewhere) = (with(&["fast"]), with(&["of_others"]));
    for globals in [Globals::Passwords, Globals::None] {
        for database in ["shop", "whole"] {
            let wanted = PostgresOptions { globals, ..options(&source, database) };
            let (fixture, _) = captured(&wanted).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
            for target in [&there, &elsewhere] {
                let name = format!("{database}_{globals:?}").to_lowercase();
                let to = into(target, Target::Into(name.clone()));
                let planned = plan(&to, &fixture.snapshot(), &fixture).await.unwrap();
                let done = execute(&planned, &to, &fixture.snapshot(), &fixture, &Recorder::default()).await;
                done.unwrap_or_else(|e| panic!("{name}: {}\n{}", chain(&e), target.log()));
                let has = target.port() == there.port();
                let told = ["no tablespace is used, because the server has no `fast`"];
                assert_eq!(planned.notes, if has { &[][..] } else { &told[..] }, "{name}");
                let at_home = if has && database == "whole" { "fast" } else { "pg_default" };
                assert_eq!(place_of(target, &name), at_home);
                if database == "shop" {
                    let wanted = if has { before.clone() } else { before.replace("|fast", "|-") };
                    assert_eq!(places(target, &name), wanted);
                }
            }
        }
    }
}

//! Extensions between servers that offer different ones, and TimescaleDB, of which this is a stand-in: it has the two
//! functions, writes down what there is when they are called, and refuses rows when it was not told of a restore.

use std::fs;

use backup_core::source::postgres::restore::{Selection, Target, data_only, execute, plan};
use harness::pg::{Cluster, Installation, Options};

use super::scene::{captured, into, options};
use super::{Recorder, chain};

/// `setting` is dumped but for what the extension itself wrote; after a restore it has a row more, as its workers' are.
const STAND_IN: &str = "
    CREATE TABLE calls (id serial, call text, tables bigint, rows bigint, indexes bigint, setting text);
    CREATE TABLE setting (name text PRIMARY KEY, own boolean NOT NULL DEFAULT true);
    INSERT INTO setting VALUES ('built in', false);
    SELECT pg_catalog.pg_extension_config_dump('setting', 'WHERE own');
    CREATE FUNCTION write_down(call text) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE rows bigint := 0;
        BEGIN
            IF to_regclass('public.chunk') IS NOT NULL THEN EXECUTE 'SELECT count(*) FROM public.chunk' INTO rows; END IF;
            INSERT INTO @extschema@.calls (call, tables, rows, indexes, setting) SELECT call,
                (SELECT count(*) FROM pg_class WHERE relname IN ('chunk', 'readings')), rows,
                (SELECT count(*) FROM pg_class WHERE relname = 'chunk_at'), (SELECT string_agg(name, ',' ORDER BY name) FROM @extschema@.setting);
        END $$;
    CREATE FUNCTION timescaledb_pre_restore() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM @extschema@.write_down('pre');
        EXECUTE format('ALTER DATABASE %I SET timescaledb.restoring = on', current_database());
        RETURN true; END $$;
    CREATE FUNCTION timescaledb_post_restore() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        PERFORM @extschema@.write_down('post');
        EXECUTE format('ALTER DATABASE %I RESET timescaledb.restoring', current_database());
        INSERT INTO @extschema@.setting VALUES ('a worker was here');
        RETURN true; END $$;
    CREATE FUNCTION stands_aside() RETURNS boolean LANGUAGE sql AS $$
        SELECT coalesce(current_setting('timescaledb.restoring', true), '') = 'on' $$;";

const TABLES: &str = "CREATE EXTENSION timescaledb VERSION '2.0'; INSERT INTO setting VALUES ('ours');
    CREATE TABLE readings (at int, v text); CREATE SCHEMA inside;
    CREATE TABLE chunk (CHECK (stands_aside())) INHERITS (readings); CREATE INDEX chunk_at ON chunk (at);
    SET timescaledb.restoring = on; INSERT INTO chunk SELECT i, 'r' || i FROM generate_series(1, 3000) i;";

/// A server that offers these extensions, each with its versions, of which the last is the default.
struct Server {
    cluster: Cluster,
    _installation: Installation,
}

impl Server {
    fn offering(extensions: &[(&str, &[&str])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, versions) in extensions {
            let control = format!("default_version = '{}'\nrelocatable = false\n", versions.last().unwrap());
            fs::write(dir.path().join(format!("{name}.control")), control).unwrap();
            for version in *versions {
                let script =
                    if *name == "timescaledb" { STAND_IN } else { "CREATE FUNCTION f() RETURNS int RETURN 1;" };
                fs::write(dir.path().join(format!("{name}--{version}.sql")), script).unwrap();
            }
        }
        let installation = Installation::with_extension(15, dir.path());
        let options = Options { version: Some(15), bin: Some(installation.bin()), ..Options::default() };
        let cluster = Cluster::start_with(options);
        Self { cluster, _installation: installation }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timescale_is_told_before_and_after_at_the_captured_version() {
    let both: &[(&str, &[&str])] = &[("timescaledb", &["2.0", "2.1"])];
    let source = Server::offering(both);
    source.cluster.psql("postgres", "CREATE DATABASE shop");
    source.cluster.psql("shop", TABLES);
    let (fixture, _) = captured(&options(&source.cluster, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));

    let target = Server::offering(both);
    let wanted = into(&target.cluster, Target::Original);
    let snapshot = fixture.snapshot();
    let planned = plan(&wanted, &snapshot, &fixture).await.unwrap();
    assert_eq!((planned.refusals.clone(), planned.notes.clone()), (Vec::new(), Vec::new()));
    let done = execute(&planned, &wanted, &snapshot, &fixture, &Recorder::default()).await;
    done.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), target.cluster.log()));
    let said = |sql: &str| target.cluster.psql("shop", sql);
    assert_eq!(said("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"), "2.0");
    // Nothing was there before; rows, indexes and the extension's own rows were, after; a worker's row is no difference.
    let calls = said("SELECT call, tables, rows, indexes, setting FROM calls ORDER BY id");
    assert_eq!(calls, "pre|0|0|0|built in\npost|2|3000|1|built in,ours");
    assert_eq!(said("SELECT count(*) FROM setting"), "3");
    assert_eq!(said("SELECT count(*) FROM pg_db_role_setting"), "0");

    // What a part of it would be is not what it says it is.
    let part = Selection::Table { schema: "public".to_owned(), name: "readings".to_owned() };
    let mut wanted = into(&target.cluster, Target::Into("part".to_owned()));
    wanted.only = part;
    let refused = plan(&wanted, &snapshot, &fixture).await.unwrap().refusals;
    assert!(refused.len() == 1 && refused[0].contains("comes back whole only"), "{refused:?}");
    let rows = data_only::plan(&into(&target.cluster, Target::Original), true, &snapshot, &fixture).await.unwrap();
    assert!(rows.refusals.iter().any(|why| why.contains("comes back whole only")), "{:?}", rows.refusals);
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_that_a_server_does_not_offer_are_told_before_anything_starts() {
    let source = Server::offering(&[("timescaledb", &["2.0"]), ("gone", &["1"]), ("moved", &["1"])]);
    source.cluster.psql("postgres", "CREATE DATABASE shop; CREATE ROLE app; ALTER DATABASE shop OWNER TO app");
    source.cluster.psql(
        "shop",
        "CREATE SCHEMA g; CREATE SCHEMA m; CREATE EXTENSION gone SCHEMA g; CREATE EXTENSION moved SCHEMA m",
    );
    source.cluster.psql("shop", TABLES);
    let (fixture, _) = captured(&options(&source.cluster, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let snapshot = fixture.snapshot();

    let target = Server::offering(&[("timescaledb", &["2.1", "2.2"]), ("moved", &["1", "2"])]);
    let wanted = into(&target.cluster, Target::Original);
    let planned = plan(&wanted, &snapshot, &fixture).await.unwrap();
    let refusals = [
        "the server does not offer extension `gone`, captured at 1",
        "extension `timescaledb` must be restored at the captured version `2.0`, and the server offers `2.1`, `2.2`",
    ];
    assert_eq!(planned.refusals, refusals);
    assert_eq!(planned.notes, ["extension `moved` was captured at 1, the server makes it at 2"]);
    execute(&planned, &wanted, &snapshot, &fixture, &Recorder::default()).await.unwrap_err();
    let there = "SELECT count(*) FROM pg_database WHERE datname ~ 'shop' UNION ALL SELECT count(*) FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(target.cluster.psql("postgres", there), "0\n0", "something was started");

    let target = Server::offering(&[("moved", &["1"])]);
    let planned = plan(&into(&target.cluster, Target::Original), &snapshot, &fixture).await.unwrap();
    let names = ["`gone`, captured at 1", "`timescaledb`, captured at 2.0"];
    let refusals = names.map(|name| format!("the server does not offer extension {name}"));
    assert_eq!((planned.refusals, planned.notes), (refusals.to_vec(), Vec::new()));
}

/// Made before any schema of the database, the extension can lie in none of them.
#[tokio::test(flavor = "multi_thread")]
async fn timescale_in_a_schema_of_its_own_is_refused() {
    let source = Server::offering(&[("timescaledb", &["2.0"])]);
    source.cluster.psql("postgres", "CREATE DATABASE shop");
    source.cluster.psql("shop", "CREATE SCHEMA own; CREATE EXTENSION timescaledb SCHEMA own");
    let (fixture, _) = captured(&options(&source.cluster, "shop")).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let wanted = into(&source.cluster, Target::Into("again".to_owned()));
    let planned = plan(&wanted, &fixture.snapshot(), &fixture).await.unwrap();
    let why = "extension `timescaledb` lies in schema `own`: it can be restored in `public` only";
    assert_eq!(planned.refusals, [why]);
}

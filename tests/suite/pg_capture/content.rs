//! What is captured is what was there, byte for byte, whatever the names, types and encodings.

use std::sync::atomic::Ordering;

use backup_core::manifest::{Kept, StreamKind};
use backup_core::source::Captured;
use backup_core::source::postgres::{Globals, PostgresOptions};
use harness::pg::{self, Cluster, SUPERUSER};

use super::sink::{MemorySink, assert_counts, only, parts, stream, table};
use super::{captured, options, run};

/// Restores with stock tools: the archive's sections around the COPY files, each loaded by its own statement.
fn restore_with_stock_tools(cluster: &Cluster, captured: &Captured, database: &str) {
    let archive = stream(captured, only(captured, StreamKind::PgArchive));
    let section = |name: &str| {
        let mut command = cluster.client("pg_restore", database);
        let output = pg::fed(command.args(["--exit-on-error", "--dbname", database, "--section", name]), archive);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    section("pre-data");
    section("data");
    for table in &captured.tables {
        for (copy, content) in parts(captured, table) {
            let mut command = cluster.client("psql", database);
            command.env("PGCLIENTENCODING", &table.encoding).args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &copy]);
            let output = pg::fed(&mut command, &content);
            assert!(output.status.success(), "{copy}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    section("post-data");
}

/// Captures, restores with stock tools, captures the copy: rows, bytes and fingerprints must be equal.
async fn round_trip(cluster: &Cluster, database: &str, create: &str) -> Captured {
    let first = captured(cluster, database).await;
    assert_counts(&first);
    cluster.psql("postgres", create);
    restore_with_stock_tools(cluster, &first, "copy");
    let second = captured(cluster, "copy").await;
    let facts = |captured: &Captured| {
        let of = |t: &backup_core::manifest::TableEntry| {
            (t.schema.clone(), t.name.clone(), t.kept, t.rows, t.bytes, t.fingerprint, t.columns.clone())
        };
        captured.tables.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(facts(&first), facts(&second));
    first
}

#[tokio::test]
async fn odd_names_columns_and_values_come_back_with_stock_tools() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE \"Odd \"\"db.\"");
    let sql = r#"
        CREATE SCHEMA "S.1"; CREATE SCHEMA "é";
        CREATE TABLE "S.1"."Tab ""q"" \x" (id int GENERATED ALWAYS AS IDENTITY, "Line
end" text, gone int, twice int GENERATED ALWAYS AS (2) STORED, "Ünï" bytea, n numeric, f float8, j jsonb, a text[]);
        ALTER TABLE "S.1"."Tab ""q"" \x" DROP COLUMN gone;
        INSERT INTO "S.1"."Tab ""q"" \x" ("Line
end", "Ünï", n, f, j, a) SELECT E'tab\t nl\n cr\r bs\\ \\. N\\N é' || i, '\x00ff0a', i / 7.0, 'NaN', '{"k": "\n"}',
            ARRAY['a,b', NULL, '"'] FROM generate_series(1, 500) i;
        CREATE TABLE "é"."|*+?()[]{}.^$" (x int); INSERT INTO "é"."|*+?()[]{}.^$" VALUES (1), (NULL);
        CREATE TABLE "é"."new
line" (x text); INSERT INTO "é"."new
line" VALUES (''), (NULL), (E'\n');
        CREATE TABLE empty (x int);
        CREATE TABLE nothing (); INSERT INTO nothing SELECT FROM generate_series(1, 3);
        CREATE TABLE computed (x int GENERATED ALWAYS AS (7) STORED); INSERT INTO computed DEFAULT VALUES;
        CREATE UNLOGGED TABLE fast (x int); INSERT INTO fast VALUES (1);
        CREATE TABLE parent (k int) PARTITION BY RANGE (k);
        CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10); INSERT INTO parent VALUES (3);
        CREATE TABLE base (x int); CREATE TABLE derived (y int) INHERITS (base);
        INSERT INTO base VALUES (1); INSERT INTO derived VALUES (2, 3);
        CREATE TABLE flat (t text); INSERT INTO flat SELECT repeat('x', 3000000);
        CREATE TABLE big (i int, t text); INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 60000) i;
        CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE moods (m mood); INSERT INTO moods VALUES ('ok');
        CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM big;
        SELECT lo_from_bytea(0, '\x010203');
    "#;
    cluster.psql("Odd \"db.", sql);
    let first = round_trip(&cluster, "Odd \"db.", "CREATE DATABASE copy").await;
    let rows = |schema: &str, name: &str| table(&first, schema, name).rows;
    assert_eq!((rows("public", "nothing"), rows("public", "computed"), rows("public", "empty")), (3, 1, 0));
    assert_eq!((rows("public", "base"), rows("public", "derived"), rows("public", "leaf")), (1, 1, 1));
    assert_eq!(table(&first, "S.1", "Tab \"q\" \\x").columns, ["id", "Line\nend", "Ünï", "n", "f", "j", "a"]);
    // Compressed on disk it is small; by its bytes it is not.
    assert!(table(&first, "public", "flat").parts[0].member.is_none());
    assert!(table(&first, "public", "empty").parts[0].member.is_some());
    let sql = "SELECT sum(length(lo_get(oid))) FROM pg_largeobject_metadata; SELECT count FROM counted";
    assert_eq!(cluster.psql("copy", sql), "3\n60000");
    let kinds: Vec<_> = first.streams.iter().map(|s| s.stream.kind).collect();
    assert_eq!(kinds, [StreamKind::PgArchive, StreamKind::PgTable, StreamKind::PgTable, StreamKind::PgTables]);
    assert!(first.suspect.is_empty(), "{:?}", first.suspect);
}

#[tokio::test]
async fn bytes_of_other_encodings_are_kept() {
    let cluster = Cluster::start();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let create = |name: &str| {
            format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
        };
        cluster.psql("postgres", &create("odd"));
        let mut sql = b"SET client_encoding = ".to_vec();
        sql.extend(format!("'{encoding}'; CREATE TABLE t (b text);").into_bytes());
        // 0xE9 alone is a letter in LATIN1 and no valid UTF-8 at all.
        sql.extend(b"INSERT INTO t VALUES ('caf\xe9 \xff\xfe');");
        sql.extend(if encoding == "LATIN1" { b"CREATE TABLE \"caf\xe9\" (\"\xfc\" int);".as_slice() } else { b"" });
        sql.extend(if encoding == "LATIN1" { b"INSERT INTO \"caf\xe9\" VALUES (1);".as_slice() } else { b"" });
        let output = pg::fed(cluster.client("psql", "odd").args(["-X", "-q", "-f", "-"]), &sql);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let first = round_trip(&cluster, "odd", &create("copy")).await;
        let t = table(&first, "public", "t");
        assert_eq!(t.encoding, encoding);
        assert_eq!(parts(&first, t)[0].1, b"caf\xe9 \xff\xfe\n");
        if encoding == "LATIN1" {
            let copy = &parts(&first, table(&first, "public", "café"))[0].0;
            assert_eq!(copy, "COPY \"public\".U&\"caf\\00E9\" (U&\"\\00FC\") FROM STDIN");
        }
        cluster.psql("postgres", "DROP DATABASE odd; DROP DATABASE copy");
    }
}

#[tokio::test]
async fn settings_of_roles_and_databases_do_not_change_bytes() {
    let cluster = Cluster::start();
    let sql = "CREATE TABLE v (t timestamptz, i interval, f float8, b bytea, m money);
        INSERT INTO v VALUES ('2024-02-29 12:00+00', '1 year 2 days 03:04', 0.1::float8 + 0.2, '\\xdeadbeef', 12.5);
        CREATE TABLE big AS SELECT i FROM generate_series(1, 200000) i";
    cluster.psql("postgres", sql);
    let plain = captured(&cluster, "postgres").await;
    let sql = "ALTER DATABASE postgres SET datestyle = 'German'; ALTER DATABASE postgres SET timezone = 'Asia/Tokyo';
        ALTER ROLE postgres SET intervalstyle = 'iso_8601'; ALTER ROLE postgres SET extra_float_digits = -5;
        ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET search_path = 'pg_temp';
        ALTER DATABASE postgres SET statement_timeout = '1ms'; ALTER ROLE postgres SET client_encoding = 'LATIN1';
        ALTER ROLE postgres SET standard_conforming_strings = off";
    cluster.psql("postgres", sql);
    let bent = captured(&cluster, "postgres").await;
    assert_eq!(plain.tables, bent.tables);
}

#[tokio::test]
async fn the_manifest_knows_the_database_and_its_globals() {
    let cluster = Cluster::start_with(pg::Options { password: Some("canary-pw".to_owned()), ..pg::Options::default() });
    let sql =
        "CREATE ROLE \"Reader\" LOGIN PASSWORD 'canary-pw'; CREATE DATABASE shop OWNER \"Reader\" CONNECTION LIMIT 7;
        COMMENT ON DATABASE shop IS 'it''s'; GRANT CONNECT ON DATABASE shop TO \"Reader\";
        ALTER DATABASE shop SET work_mem = '5MB'; ALTER ROLE \"Reader\" IN DATABASE shop SET datestyle = 'ISO, DMY';";
    cluster.psql("postgres", sql);
    cluster.psql("shop", "CREATE EXTENSION hstore; SELECT lo_from_bytea(0, '\\x0102'); CREATE TABLE t (h hstore);");
    let wanted = PostgresOptions { globals: Globals::Passwords, ..options(&cluster, SUPERUSER, "shop") };
    let (first, _) = run(&wanted, &MemorySink::default()).await.unwrap();
    let property = |name: &str| first.properties.iter().find(|p| p.name == name).unwrap().value.to_string();
    assert_eq!(property("database.name"), "\"shop\"");
    assert_eq!(property("database.owner"), "\"Reader\"");
    assert_eq!(property("database.encoding"), "\"UTF8\"");
    assert_eq!(property("database.connection_limit"), "7");
    assert_eq!(property("database.comment"), "\"it's\"");
    assert_eq!(property("database.locale_provider"), "\"c\"");
    assert_eq!(property("database.icu_locale"), "null");
    assert!(property("database.acl").contains("Reader"));
    let settings =
        "[{\"role\":null,\"settings\":[\"work_mem=5MB\"]},{\"role\":\"Reader\",\"settings\":[\"DateStyle=ISO, DMY\"]}]";
    assert_eq!(property("database.settings"), settings);
    assert_eq!(property("roles"), "[\"Reader\",\"postgres\"]");
    assert!(property("extensions").contains("{\"name\":\"hstore\",\"schema\":\"public\",\"version\":"));
    let objects = first.properties.iter().find(|p| p.name == "large_objects").unwrap();
    assert_eq!((&objects.value["count"], &objects.value["slices"]), (&1.into(), &1.into()));
    assert!(property("server.version_num").parse::<u32>().unwrap() >= 100_000);
    assert!(property("client.version").len() > 2 && property("server.version").len() > 2);
    let globals = String::from_utf8(stream(&first, 1).to_vec()).unwrap();
    assert!(globals.contains("CREATE ROLE \"Reader\"") && globals.contains("SCRAM-SHA-256"), "{globals}");
    let (again, _) = run(&wanted, &MemorySink::default()).await.unwrap();
    assert_eq!(stream(&first, 1), stream(&again, 1), "globals of unchanged roles are the same bytes");
    let wanted = PostgresOptions { globals: Globals::NoPasswords, ..wanted };
    let (without, _) = run(&wanted, &MemorySink::default()).await.unwrap();
    let globals = String::from_utf8(stream(&without, 1).to_vec()).unwrap();
    assert!(globals.contains("CREATE ROLE \"Reader\"") && !globals.contains("SCRAM-SHA-256"), "{globals}");
}

#[tokio::test]
async fn many_small_tables_share_one_tar_and_large_rows_come_in_slices() {
    let cluster = Cluster::start();
    let sql = "SELECT format('CREATE TABLE t%s AS SELECT i, %s AS k FROM generate_series(1, %s) i', n, n, n)
        FROM generate_series(1, 300) n \\gexec
        CREATE TABLE wide (b text); ALTER TABLE wide ALTER b SET STORAGE EXTERNAL;
        INSERT INTO wide SELECT repeat(md5(i::text), 100000) FROM generate_series(1, 3) i;";
    cluster.psql("postgres", sql);
    let sink = MemorySink::default();
    let (first, _) = run(&options(&cluster, SUPERUSER, "postgres"), &sink).await.unwrap();
    assert_counts(&first);
    assert_eq!(first.streams.last().unwrap().members.len(), 300);
    assert_eq!(first.tables.iter().map(|t| t.rows).sum::<u64>(), 300 * 301 / 2 + 3);
    assert!(sink.largest_write.load(Ordering::Relaxed) <= 256 * 1024);
    let (again, _) = run(&options(&cluster, SUPERUSER, "postgres"), &MemorySink::default()).await.unwrap();
    let tar = |captured: &Captured| captured.streams.last().unwrap().stream.sha256;
    assert_eq!(tar(&first), tar(&again), "the same tables are the same tar");
}

#[tokio::test]
async fn what_is_left_out_is_said() {
    let cluster = Cluster::start();
    let sql = "CREATE TABLE keep (x int); CREATE TABLE scratch AS SELECT generate_series(1, 5) x;
        CREATE TABLE \"Odd.name\" AS SELECT 1 x;
        CREATE EXTENSION file_fdw; CREATE SERVER s FOREIGN DATA WRAPPER file_fdw;
        CREATE FOREIGN TABLE remote (x text) SERVER s OPTIONS (filename '/etc/hostname');";
    cluster.psql("postgres", sql);
    let exclude = ["public.scratch", "public.\"Odd.name\"", "public.typo"];
    let wanted = PostgresOptions {
        exclude_data: exclude.map(str::to_owned).to_vec(),
        ..options(&cluster, SUPERUSER, "postgres")
    };
    let (first, _) = run(&wanted, &MemorySink::default()).await.unwrap();
    for name in ["scratch", "Odd.name"] {
        let left = table(&first, "public", name);
        assert_eq!((left.kept, left.rows, left.parts.len()), (Kept::Excluded, 0, 0));
    }
    // Rows of a foreign table are another server's: told, and nothing to be suspicious of.
    assert_eq!(first.suspect.len(), 1, "{:?}", first.suspect);
    assert!(first.suspect[0].contains("typo"));
    assert!(
        first.properties.iter().any(|property| property.value.to_string().contains("remote")),
        "{:?}",
        first.properties
    );
    let archive = stream(&first, only(&first, StreamKind::PgArchive));
    let list = pg::fed(cluster.client("pg_restore", "postgres").arg("--list"), archive);
    assert!(!String::from_utf8_lossy(&list.stdout).contains("TABLE DATA"));
}

#[tokio::test]
async fn rows_left_to_the_archive_are_counted_beside() {
    let cluster = Cluster::start();
    // What an extension's script does by pg_extension_config_dump, done by hand.
    let sql = "CREATE EXTENSION hstore; CREATE TABLE config (x int, keep bool);
        INSERT INTO config SELECT i, i > 2 FROM generate_series(1, 5) i;
        CREATE TABLE inner_rows AS SELECT 1 x; CREATE TABLE inner_empty (x int);
        ALTER EXTENSION hstore ADD TABLE config; ALTER EXTENSION hstore ADD TABLE inner_rows;
        ALTER EXTENSION hstore ADD TABLE inner_empty;
        UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid], extcondition = ARRAY['WHERE keep']
            WHERE extname = 'hstore';
        CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
        CREATE TABLE odd (x int) USING other; INSERT INTO odd VALUES (1), (2);";
    cluster.psql("postgres", sql);
    let first = captured(&cluster, "postgres").await;
    let facts: Vec<_> =
        first.tables.iter().map(|t| (t.name.as_str(), t.kept, t.rows, t.bytes, t.parts.len())).collect();
    assert_eq!(facts, [("config", Kept::Archive, 3, 0, 0), ("odd", Kept::Archive, 2, 0, 0)]);
    assert_ne!(first.tables[0].fingerprint, first.tables[1].fingerprint);
    assert_eq!(first.suspect.len(), 1, "{:?}", first.suspect);
    assert!(first.suspect[0].contains("public.inner_rows"));
}

#[tokio::test]
async fn a_role_that_may_only_read_is_enough() {
    let cluster = Cluster::start();
    let sql = "CREATE TABLE t AS SELECT generate_series(1, 9) x; CREATE SEQUENCE s; CREATE ROLE reader LOGIN;
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader;";
    cluster.psql("postgres", sql);
    let wanted = PostgresOptions { globals: Globals::Passwords, ..options(&cluster, "reader", "postgres") };
    let (first, recorder) = run(&wanted, &MemorySink::default()).await.unwrap();
    assert_eq!(table(&first, "public", "t").rows, 9);
    assert!(recorder.warnings().iter().any(|text| text.contains("without passwords")), "{:?}", recorder.warnings());
    assert!(stream(&first, 1).windows(19).any(|bytes| bytes == b"CREATE ROLE reader;"));
}

#[tokio::test]
async fn what_pg_dump_leaves_out_with_a_warning_makes_the_snapshot_suspect() {
    let cluster = Cluster::start();
    let sql = "CREATE ROLE reader LOGIN; CREATE TABLE t (); GRANT SELECT ON t TO reader;
        CREATE SUBSCRIPTION of_orders CONNECTION 'host=nowhere' PUBLICATION p
            WITH (connect = false, enabled = false, create_slot = false, slot_name = NONE);";
    cluster.psql("postgres", sql);
    // A superuser's dump has it.
    let (whole, _) = run(&options(&cluster, SUPERUSER, "postgres"), &MemorySink::default()).await.unwrap();
    assert_eq!(whole.suspect, Vec::<String>::new());
    let (less, _) = run(&options(&cluster, "reader", "postgres"), &MemorySink::default()).await.unwrap();
    assert!(less.suspect.iter().any(|why| why.contains("subscriptions not dumped")), "{:?}", less.suspect);
}

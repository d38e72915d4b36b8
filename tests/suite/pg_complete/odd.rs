//! Databases and servers that are unlike others: other encodings, nothing in them, settings against us, a standby, many
//! tables.

use std::process::Stdio;

use backup_core::manifest::Kept;
use backup_core::source::postgres::restore::Target;
use backup_core::source::postgres::{ClientsOption, PostgresOptions};
use harness::pg::{Cluster, Options, available, fed};

use super::judge::Picture;
use super::scene::{captured, into, options, restored};
use super::{Fixture, chain};

async fn capture_of(options: &PostgresOptions) -> (Fixture, Vec<String>) {
    captured(options).await.unwrap_or_else(|e| panic!("{}", chain(&e)))
}

/// Captures, restores on another cluster, compares.
async fn comes_back(source: &Cluster, target: &Cluster, database: &str) -> Vec<String> {
    let (fixture, suspect) = capture_of(&options(source, database)).await;
    let done = restored(&fixture, &into(target, Target::Original)).await;
    done.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), target.log()));
    let differences = Picture::of(source, database).differences(&Picture::of(target, database));
    assert!(differences.is_empty(), "{differences}");
    suspect
}

/// Runs a script of bytes.
fn run(cluster: &Cluster, database: &str, script: &[u8]) {
    let mut command = cluster.client("psql", database);
    command.args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    let output = fed(&mut command, script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const LATIN1: &[u8] = b"SET client_encoding = 'LATIN1';
    CREATE ROLE \"R\xf4le\"; COMMENT ON ROLE \"R\xf4le\" IS 'h\xfbte'; COMMENT ON DATABASE odd IS '\xfcber';
    ALTER DATABASE odd OWNER TO \"R\xf4le\"; ALTER DATABASE odd SET app.tenant TO '\xe9'; GRANT CONNECT ON DATABASE odd TO \"R\xf4le\";
    CREATE SCHEMA \"sch\xe9ma\"; CREATE TYPE \"sch\xe9ma\".\"\xeb\" AS ENUM ('\xe9', 'b');
    CREATE TABLE \"sch\xe9ma\".\"caf\xe9\" (\"\xfc\" int PRIMARY KEY, t text DEFAULT '\xff', e \"sch\xe9ma\".\"\xeb\", a text[]);
    COMMENT ON COLUMN \"sch\xe9ma\".\"caf\xe9\".\"\xfc\" IS '\xe0';
    INSERT INTO \"sch\xe9ma\".\"caf\xe9\" VALUES (1, 'caf\xe9 \xff\xfe\xa0', '\xe9', ARRAY['\xe9', NULL]), (2, '\x80\x9f', NULL, NULL);
    CREATE TABLE excluded_by_nobody AS SELECT i, '\xe9' || i AS t FROM generate_series(1, 3000) i;
    CREATE FUNCTION \"f\xe9\"() RETURNS text LANGUAGE sql AS $$ SELECT '\xe9'::text $$;
    CREATE MATERIALIZED VIEW \"m\xe9\" AS SELECT \"f\xe9\"();";

const CREATE: &str = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING";

/// Whole servers of that encoding: names of roles are the same bytes in all databases, whatever these are in.
#[tokio::test(flavor = "multi_thread")]
async fn a_latin_database_comes_back_with_names_in_its_encoding() {
    let latin = || Options { encoding: "LATIN1".to_owned(), locale: "C".to_owned(), ..Options::default() };
    let (source, target) = (Cluster::start_with(latin()), Cluster::start_with(latin()));
    source.psql("postgres", &format!("CREATE DATABASE odd {CREATE} 'LATIN1'"));
    run(&source, "odd", LATIN1);
    assert_eq!(comes_back(&source, &target, "odd").await, Vec::<String>::new());
}

/// Bytes that are no text at all, and names that are.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_an_encoding_comes_back() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source.psql("postgres", &format!("CREATE DATABASE ascii {CREATE} 'SQL_ASCII'"));
    let mut script = b"CREATE SCHEMA \"sch\xc3\xa9ma\"; CREATE TABLE \"sch\xc3\xa9ma\".t (\"\xc3\xa9\" text, b bytea, a text[]);
        INSERT INTO \"sch\xc3\xa9ma\".t VALUES ('caf\xe9 \xff\xfe \x80', '\\xff', ARRAY['\xe9', E'\\\\ \\n']), ('caf\xc3\xa9', NULL, NULL);
        COMMENT ON TABLE \"sch\xc3\xa9ma\".t IS '\xff'; CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '\xe9'::text $$;
        CREATE VIEW v AS SELECT '\xfe'::text AS x;".to_vec();
    script.splice(0..0, b"SET client_encoding = 'SQL_ASCII';".iter().copied());
    run(&source, "ascii", &script);
    assert_eq!(comes_back(&source, &target, "ascii").await, Vec::<String>::new());
}

/// Names that are no text in any encoding: of tables, schemas, columns, types, labels, functions. Such tables lie in the
/// archive, counted and fingerprinted as all others.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_bytes_come_back() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source.psql("postgres", &format!("CREATE DATABASE ascii {CREATE} 'SQL_ASCII'"));
    let script = b"SET client_encoding = 'SQL_ASCII'; CREATE TABLE \"caf\xe9\" (x int PRIMARY KEY, t text);
        INSERT INTO \"caf\xe9\" SELECT i, '\xff' || i FROM generate_series(1, 2000) i;
        CREATE TABLE \"caf\xea\" (x int); INSERT INTO \"caf\xea\" VALUES (7);
        CREATE SCHEMA \"\xe0\"; CREATE TABLE \"\xe0\".\"\xc3\xa9\" (a int, \"b\xfe\"\"\" text); INSERT INTO \"\xe0\".\"\xc3\xa9\" VALUES (1, 'x'), (2, NULL);
        CREATE TABLE \"\xee\xbf\xa9\" (x int); INSERT INTO \"\xee\xbf\xa9\" VALUES (8), (9);
        CREATE TABLE plain (a text, gone int); ALTER TABLE plain RENAME gone TO \"g\xff\"; ALTER TABLE plain DROP COLUMN \"g\xff\";
        INSERT INTO plain VALUES ('\xe9'); CREATE TABLE columns (\"\xe9\n\" int, k text); INSERT INTO columns VALUES (5, '\xe9');
        CREATE TYPE \"m\xf3od\" AS ENUM ('\xe9', 'b'); CREATE TABLE moods (m \"m\xf3od\"); INSERT INTO moods VALUES ('\xe9');
        CREATE TABLE parent (k int) PARTITION BY LIST (k); CREATE TABLE \"leaf\xe9\" PARTITION OF parent DEFAULT; INSERT INTO parent VALUES (1);
        CREATE SEQUENCE \"s\xe9\"; SELECT nextval('\"s\xe9\"'); CREATE VIEW \"v\xe9\" AS SELECT * FROM \"caf\xe9\"; CREATE INDEX \"i\xe9\" ON \"caf\xe9\" (t);
        CREATE MATERIALIZED VIEW \"mv\xe9\" AS SELECT count(*) FROM \"caf\xe9\"; COMMENT ON TABLE \"caf\xe9\" IS '\xe9'; CREATE TABLE scratch (\"\xe9\" int);
        INSERT INTO scratch VALUES (1); ALTER TABLE \"caf\xea\" ENABLE ROW LEVEL SECURITY; CREATE UNLOGGED TABLE \"u\xe9\" (x int);";
    run(&source, "ascii", script);
    let wanted = PostgresOptions { exclude_data: vec!["public.scratch".to_owned()], ..options(&source, "ascii") };
    let (fixture, suspect) = capture_of(&wanted).await;
    assert_eq!(suspect, Vec::<String>::new());
    let kept: Vec<_> = fixture.tables.iter().map(|t| (t.name.as_str(), t.kept, t.rows)).collect();
    let (streamed, archive) = (Kept::Streamed, Kept::Archive);
    let expected = [
        ("caf\u{efe9}", archive, 2000),
        ("caf\u{efea}", archive, 1),
        ("columns", archive, 1),
        ("leaf\u{efe9}", archive, 1),
        ("moods", streamed, 1),
        ("plain", streamed, 1),
        ("scratch", Kept::Excluded, 0),
        ("u\u{efe9}", archive, 0),
        // A name that is UTF-8, of the character that stands for 0xE9.
        ("\u{efee}\u{efbf}\u{efa9}", archive, 2),
        ("\u{e9}", archive, 2),
    ];
    let mut expected: Vec<_> = expected.into_iter().collect();
    expected.sort_by_key(|(name, ..)| kept.iter().position(|(other, ..)| other == name));
    assert_eq!(kept, expected);
    let done = restored(&fixture, &into(&target, Target::Original)).await;
    done.unwrap_or_else(|e| panic!("{}\n{}", chain(&e), target.log()));
    source.psql("ascii", "TRUNCATE scratch");
    let differences = Picture::of(&source, "ascii").differences(&Picture::of(&target, "ascii"));
    assert!(differences.is_empty(), "{differences}");

    // A row more in the manifest is a difference, also of such a table; and nobody gets fewer rows for want of rights.
    let mut broken = fixture.clone();
    broken.table("caf\u{efe9}").rows += 1;
    let into_other = into(&target, Target::Into("other".to_owned()));
    let error = restored(&broken, &into_other).await.unwrap_err();
    assert!(error.to_string().contains("2001 rows captured, 2000 restored"), "{}", chain(&error));
    source.psql("ascii", "CREATE ROLE weak LOGIN");
    let connect = backup_core::source::postgres::ConnectOptions::new(&source.url_as("weak", "ascii"), None).unwrap();
    let Err(error) = captured(&PostgresOptions { connect, ..options(&source, "ascii") }).await else { panic!() };
    assert!(error.to_string().contains("table `public.caf\\xE9`"), "{error}");
}

/// What the whole server shares must be text: it is written down by other sessions than this database's.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_comment_is_no_text_is_refused_by_name() {
    let source = Cluster::start();
    source.psql("postgres", &format!("CREATE DATABASE ascii {CREATE} 'SQL_ASCII'"));
    run(&source, "ascii", b"SET client_encoding = 'SQL_ASCII'; COMMENT ON DATABASE ascii IS '\xfcber'");
    let Err(error) = captured(&options(&source, "ascii")).await else { panic!("a comment was bent") };
    assert!(error.to_string().contains("`database.comment` holds bytes that are not UTF-8: \"\\xFCber\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_and_one_without_schemas_come_back() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source.psql("postgres", "CREATE DATABASE empty; CREATE DATABASE bare; CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-AT'");
    source.psql("bare", "DROP SCHEMA public");
    source.psql("icu", "CREATE TABLE t (x text COLLATE \"und-x-icu\" PRIMARY KEY); INSERT INTO t VALUES ('ä'), ('z')");
    for database in ["empty", "bare", "icu"] {
        assert_eq!(comes_back(&source, &target, database).await, Vec::<String>::new(), "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_roles_and_databases_change_nothing() {
    let (source, target) = (Cluster::start(), Cluster::start());
    source.psql("postgres", "CREATE DATABASE bent");
    let sql = r#"
        CREATE TABLE a (t timestamptz DEFAULT '2024-02-03 04:05:06+00', i interval DEFAULT '-1 days -02:03:04', f float8, b bytea, m money,
            s text[], x xml, d date DEFAULT '2024-02-03', g bytea GENERATED ALWAYS AS (b || '\x01') STORED);
        INSERT INTO a (f, b, m, s, x) VALUES (0.1::float8 + 0.2, '\xdeadbeef', 12.5, '{NULL,"NULL",a}', 'just text <b/>'), ('NaN', '\x5c', -1, NULL, '');
        CREATE TABLE big AS SELECT i, md5(i::text) AS h FROM generate_series(1, 50000) i;
        CREATE TABLE days (day date, n int) PARTITION BY RANGE (day);
        CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2024-02-03') TO ('2024-03-02');
        INSERT INTO days VALUES ('2024-02-04', 1);
        CREATE FUNCTION f(text[] DEFAULT '{NULL}') RETURNS interval LANGUAGE sql AS $$ SELECT interval '1 day' $$;
        CREATE VIEW nulls AS SELECT f = NULL AS never, f, E'back\\slash' AS b FROM a;
        CREATE INDEX ON big (h, i); SELECT lo_from_bytea(0, '\x00ff');"#;
    source.psql("bent", sql);
    let straight = Picture::of(&source, "bent");
    let settings = "array_nulls = off; xmloption = document; parallel_setup_cost = 0; parallel_tuple_cost = 0; min_parallel_table_scan_size = 0;
        max_parallel_workers_per_gather = 4; statement_timeout = '1s'; lock_timeout = '1s'; idle_in_transaction_session_timeout = '1s';
        idle_session_timeout = '1s'; default_transaction_read_only = on; datestyle = 'German, DMY'; intervalstyle = 'sql_standard';
        bytea_output = 'escape'; extra_float_digits = -15; timezone = 'Asia/Kathmandu'; lc_monetary = 'C'; search_path = 'pg_temp';
        quote_all_identifiers = on; standard_conforming_strings = off; backslash_quote = off; transform_null_equals = on; row_security = on;
        default_transaction_isolation = 'serializable'; default_transaction_deferrable = on; synchronize_seqscans = on; enable_seqscan = off;
        enable_tidscan = off; client_encoding = 'LATIN1'; xmlbinary = 'hex'; default_table_access_method = 'heap'; check_function_bodies = on;
        client_min_messages = 'debug5'; jit = on; jit_above_cost = 0; escape_string_warning = off; default_toast_compression = 'pglz'";
    for setting in settings.split(';') {
        let writing = "SET default_transaction_read_only = off;";
        source.psql("postgres", &format!("{writing} ALTER DATABASE bent SET {setting}"));
        // The same for every session of the role, in all databases of both servers.
        for cluster in [&source, &target] {
            cluster.psql("postgres", &format!("{writing} ALTER ROLE postgres SET {setting}"));
        }
    }
    // Its texts are made by the settings, there and here.
    let kept = "SET default_transaction_read_only = off; CREATE MATERIALIZED VIEW public.kept AS
        SELECT t::text, i::text, d::text, f::text, b::text FROM public.a";
    source.psql("bent", kept);
    assert_eq!(comes_back(&source, &target, "bent").await, Vec::<String>::new());
    target.psql("bent", "SET default_transaction_read_only = off; DROP MATERIALIZED VIEW public.kept");
    let bent = Picture::of(&target, "bent");
    assert_eq!(straight.rows, bent.rows, "what was stored is what was there before anything was set");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_a_source() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned()), ("hot_standby".to_owned(), "on".to_owned())];
    let source = Cluster::start_with(Options { settings, ..Options::default() });
    source.psql("postgres", "CREATE DATABASE shop");
    source.psql(
        "shop",
        "CREATE TABLE t AS SELECT i, md5(i::text) AS h FROM generate_series(1, 20000) i; CREATE TABLE u (x serial PRIMARY KEY);
         CREATE UNLOGGED TABLE fast AS SELECT 1 AS x; INSERT INTO u DEFAULT VALUES; SELECT lo_from_bytea(0, '\\x00');
         CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t",
    );
    let standby = source.standby();
    assert_eq!(standby.psql("shop", "SELECT pg_is_in_recovery()"), "t");
    let (fixture, suspect) = capture_of(&options(&standby, "shop")).await;
    assert_eq!(suspect, ["not captured: unlogged table `public.fast`: it cannot be read on a standby"]);
    let target = Cluster::start();
    restored(&fixture, &into(&target, Target::Original)).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    source.psql("shop", "TRUNCATE fast");
    let differences = Picture::of(&source, "shop").differences(&Picture::of(&target, "shop"));
    assert!(differences.is_empty(), "{differences}");
}

/// A newer server than the clients is refused by name; temporary tables of a session that is open are nobody's loss.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_for_others_is_not_captured() {
    let source = Cluster::start();
    source.psql("postgres", "CREATE DATABASE shop; CREATE TABLE t AS SELECT 1 AS x");
    let mut session = source.client("psql", "shop");
    session.args(["-X", "-q"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut session = session.spawn().unwrap();
    let script = b"CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 9) AS x; CREATE TEMPORARY SEQUENCE s; CREATE TABLE ready ();\n";
    std::io::Write::write_all(session.stdin.as_mut().unwrap(), script).unwrap();
    while source.psql("shop", "SELECT to_regclass('ready')").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (fixture, suspect) = capture_of(&options(&source, "shop")).await;
    drop(session.stdin.take());
    session.wait().unwrap();
    assert_eq!(suspect, Vec::<String>::new());
    assert_eq!(fixture.tables.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["ready"]);
    if available(18) {
        let newer = Cluster::start_with(Options { version: Some(18), ..Options::default() });
        let older =
            PostgresOptions { clients: ClientsOption::Dir(source.clients().to_owned()), ..options(&newer, "postgres") };
        let Err(error) = captured(&older).await else { panic!("an older client was used") };
        assert!(error.to_string().contains("15") && error.to_string().contains("18"), "{error}");
    }
}

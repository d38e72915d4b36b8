//! A database by the vault's own page into another cluster, compared by stock `pg_dump`, `pg_dumpall` and `COPY`.

use std::process::Output;

use backup_core::secret::Secret;
use backup_core::source::postgres::{ClientsOption, ConnectOptions, PostgresOptions};
use harness::pg::{Cluster, Options};

use super::scene::Scene;

/// Its name needs quoting in SQL, in JSON and in a connection string.
const DATABASE: &str = r#"the "shop's" \ db"#;

const ROLES: &str = r#"
    CREATE ROLE app LOGIN PASSWORD 'secret;--''"'; CREATE ROLE "Read Only"; GRANT "Read Only" TO app;
    ALTER ROLE app SET work_mem = '5MB'; COMMENT ON ROLE app IS E'it''s;\nALTER ROLE postgres NOLOGIN; the app';
    CREATE DATABASE "the ""shop's"" \ db" OWNER app CONNECTION LIMIT 17;
    ALTER DATABASE "the ""shop's"" \ db" SET search_path TO "$user", public, "odd, one";
    ALTER DATABASE "the ""shop's"" \ db" SET default_transaction_read_only = on;
    ALTER ROLE postgres IN DATABASE "the ""shop's"" \ db" SET statement_timeout = '1h';
"#;

const SAMPLE: &str = r#"
    SET default_transaction_read_only = off;
    CREATE SCHEMA "odd, one"; CREATE SCHEMA sales AUTHORIZATION app;
    CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN price AS numeric(12,4) CHECK (VALUE >= 0);
    CREATE TABLE big (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text, cost price, how mood, raw bytea,
        at timestamptz, twice numeric GENERATED ALWAYS AS (cost * 2) STORED, gone int, tags text[]);
    ALTER TABLE big DROP COLUMN gone;
    INSERT INTO big (text, cost, how, raw, at, tags)
        SELECT md5(g::text) || E'\t\n\r\\ \u00e9' || md5((g + 1)::text), g / 7.0, 'ok', decode(md5((g + 2)::text), 'hex'),
            '2024-01-01'::timestamptz + g * interval '1 min', ARRAY['a,b', NULL, '"'] FROM generate_series(1, 45000) g;
    INSERT INTO big (text, cost) VALUES (NULL, NULL), ('', 0), ('\.', 1), ('\N', 2);
    CREATE INDEX big_text ON big (lower(text));
    CREATE TABLE empty (n int);
    CREATE TABLE sales.buyer (id serial PRIMARY KEY, name text UNIQUE);
    INSERT INTO sales.buyer (name) SELECT 'b' || g FROM generate_series(1, 50) g;
    CREATE TABLE sales.sale (buyer int REFERENCES sales.buyer, item bigint REFERENCES big (id), n int CHECK (n > 0));
    INSERT INTO sales.sale SELECT g % 50 + 1, g, g FROM generate_series(1, 200) g;
    CREATE FUNCTION known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM sales.buyer WHERE id = $1)';
    CREATE TABLE "a checked" (buyer int CHECK (known(buyer))); INSERT INTO "a checked" VALUES (1), (2);
    CREATE TABLE "odd, one"."$(id)`; --" ("Sel ect" int, "ü:'x'" text);
    CREATE TABLE "odd, one"."Ta""b
le\n" (n int, raw bytea);
    INSERT INTO "odd, one"."Ta""b
le\n" VALUES (1, '\x000a0d5c'), (2, NULL), (3, E'\\x');
    CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
    CREATE TABLE days (day date, n int) PARTITION BY RANGE (day);
    CREATE TABLE days_a PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE days_b PARTITION OF days DEFAULT;
    INSERT INTO days SELECT '2024-12-01'::date + g, g FROM generate_series(1, 90) g;
    CREATE VIEW cheap AS SELECT id, text FROM big WHERE cost < 10;
    CREATE MATERIALIZED VIEW totals AS SELECT buyer, count(*) FROM sales.sale GROUP BY buyer;
    CREATE SEQUENCE lonely START 5; SELECT nextval('lonely'), nextval('lonely');
    SELECT lo_from_bytea(0, decode(repeat('ab', 70000), 'hex'));
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'triggers must not run'; END $$;
    CREATE TRIGGER shout BEFORE INSERT ON sales.buyer FOR EACH ROW EXECUTE FUNCTION shout();
    ALTER TABLE sales.sale ENABLE ROW LEVEL SECURITY; ALTER TABLE sales.sale FORCE ROW LEVEL SECURITY;
    ALTER TABLE sales.buyer OWNER TO app; GRANT SELECT ON big TO "Read Only"; COMMENT ON TABLE big IS 'things; it''s';
"#;

#[tokio::test]
async fn a_database_comes_back_by_the_vaults_own_page() {
    let Some(scene) = Scene::new().await else { return };
    let origin = cluster("origin's password");
    origin.psql("postgres", ROLES);
    origin.psql(DATABASE, SAMPLE);
    origin.psql(
        DATABASE,
        "SET default_transaction_read_only = off; INSERT INTO \"odd, one\".\"$(id)`; --\" VALUES (1, 'ü'), (2, NULL)",
    );
    let connect = ConnectOptions::new(&origin.url(DATABASE), origin.password().map(Secret::new)).unwrap();
    let mut source = PostgresOptions::new("db", connect);
    source.clients = ClientsOption::Dir(origin.clients().to_owned());
    let committed = scene.backup("db", &source).await;
    assert_eq!(committed.suspect, Vec::<String>::new());
    let doc = committed.snapshot.doc;
    assert!(doc.plain_bytes > 5 << 20 && doc.rows > 45_000, "{} bytes, {} rows", doc.plain_bytes, doc.rows);
    let copy = scene.copy_of_vault();
    scene.check_page(&copy);

    // Without a server: files only, no client is looked for.
    let out = scene.path("files only");
    scene.recover(&copy, "db", &out, &[], &[]).succeeds();
    assert!(out.join("globals.sql").exists() && out.join("archive.dump").exists());

    let target = cluster("target's password");
    // A role that exists there keeps what it has.
    target.psql("postgres", "CREATE ROLE \"Read Only\" CONNECTION LIMIT 3");
    scene.link_clients(target.clients());
    let port = target.port().to_string();
    let server = |password: &'static str| {
        [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", port.as_str()),
            ("PGUSER", "postgres"),
            ("PGPASSWORD", password),
            ("RECOVER_INTO_SERVER", "yes"),
        ]
    };
    let refused = scene.recover(&copy, "db", &scene.path("refused"), &[], &server("wrong"));
    assert!(!refused.stderr().contains("is restored") && refused.stderr().contains("password authentication failed"));
    let recovered = scene.recover(&copy, "db", &scene.path("out"), &[], &server("target's password"));
    recovered.succeeds();
    assert!(recovered.stderr().contains(&format!("database {DATABASE} is restored")), "{}", recovered.stderr());

    assert_eq!(definitions(&target), definitions(&origin));
    let (before, after) = (contents(&origin), contents(&target));
    assert!(before.len() > 5 << 20 && before.matches("\n== ").count() > 12, "the comparison sees the tables");
    assert!(before == after, "the contents differ");
    assert_eq!(roles(&target), roles(&origin).replace("Read Only|-1", "Read Only|3"));
    // Once more into the same server: the database is there, and nothing of it is touched.
    let again = scene.recover(&copy, "db", &scene.path("again"), &[], &server("target's password"));
    assert!(again.stderr().contains("already exists") && !again.stderr().contains("is restored"), "{}", again.stderr());
    assert!(contents(&target) == before);
}

fn cluster(password: &str) -> Cluster {
    Cluster::start_with(Options { password: Some(password.to_owned()), ..Options::default() })
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.contains("restrict ")).fold(String::new(), |all, line| all + line + "\n")
}

/// Definitions, properties and privileges as stock `pg_dump` sees them.
fn definitions(cluster: &Cluster) -> String {
    text(cluster.client("pg_dump", "postgres").args(["-C", "--schema-only", "-d"]).arg(conninfo()).output().unwrap())
}

/// `pg_dump` takes a database's name for a connection string when it looks like one.
fn conninfo() -> String {
    format!("dbname='{}'", DATABASE.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Every row of every table and view, sorted, all sequences and large objects.
fn contents(cluster: &Cluster) -> String {
    let names = cluster.psql(
        DATABASE,
        "SELECT relkind, encode(convert_to(format('%I.%I', n.nspname, c.relname), 'UTF8'), 'hex') FROM pg_class c JOIN pg_namespace n \
         ON n.oid = relnamespace WHERE relkind IN ('r', 'm', 'S', 'v') AND n.nspname !~ '^pg_|^information_schema' ORDER BY 2",
    );
    let mut all = String::new();
    for line in names.lines() {
        let (kind, name) = line.split_once('|').unwrap();
        let name = String::from_utf8(unhex(name)).unwrap();
        let query = match kind {
            "S" => format!("SELECT last_value, is_called FROM {name}"),
            _ => format!("SELECT t.* FROM ONLY {name} t ORDER BY t::text"),
        };
        let rows = cluster.psql(DATABASE, &format!("COPY ({query}) TO STDOUT"));
        all.extend(["\n== ", &name, "\n", &rows]);
    }
    all + "\n== large objects\n"
        + &cluster.psql(DATABASE, "SELECT loid, pageno, md5(data) FROM pg_largeobject ORDER BY 1, 2")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// Roles with all that they have, but for the superuser's password, which each cluster has its own.
fn roles(cluster: &Cluster) -> String {
    cluster.psql(
        "postgres",
        "SELECT rolname, rolconnlimit, rolcanlogin, rolsuper, CASE rolname WHEN 'postgres' THEN '' ELSE rolpassword END, \
         shobj_description(oid, 'pg_authid'), (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0), \
         ARRAY(SELECT roleid::regrole FROM pg_auth_members WHERE member = a.oid) \
         FROM pg_authid a WHERE rolname !~ '^pg_' ORDER BY 1",
    )
}

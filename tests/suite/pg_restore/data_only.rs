//! Rows into tables that are there: all of it or nothing, and what is in the way is told before the first byte.

mod meanwhile;

use backup_core::source::postgres::restore::{RestoreError, RestoreProof, Selection, Target, data_only};
use harness::pg::Cluster;

use super::fixture::Fixture;
use super::{Told, assert_same, contents, options};

const TABLES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE buyer (id serial PRIMARY KEY, name text DEFERRABLE_UNIQUE, how mood);
    CREATE TABLE sale (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, buyer int NOT NULL REFERENCES buyer, up int REFERENCES sale,
        twice int GENERATED ALWAYS AS (buyer * 2) STORED);
    ALTER TABLE buyer ADD COLUMN best int REFERENCES sale;
    INSERT INTO buyer (name, how) SELECT 'b' || g, 'ok' FROM generate_series(1, 50) g;
    INSERT INTO sale (buyer, up) SELECT g % 50 + 1, NULLIF(g, 200) + 1 FROM generate_series(1, 199) g WHERE g < 199;
    UPDATE buyer SET best = id;
    CREATE TABLE log (n int);
    CREATE TABLE zone (id int PRIMARY KEY); INSERT INTO zone VALUES (1), (2);
    CREATE FUNCTION known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.zone WHERE id = $1)';
    CREATE TABLE checked (zone int CHECK (known(zone))); INSERT INTO checked VALUES (1), (2);
    CREATE TABLE days (day date, n int) PARTITION BY RANGE (day);
    CREATE TABLE days_a PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE days_b PARTITION OF days DEFAULT; INSERT INTO days VALUES ('2024-02-02', 1), ('2030-01-01', 2);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (1); RETURN NEW; END $$;
    CREATE TRIGGER a BEFORE INSERT ON buyer FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER b BEFORE INSERT ON buyer FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE buyer ENABLE ALWAYS TRIGGER b;";

fn shop() -> (Cluster, Fixture) {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    let tables = TABLES.replace("DEFERRABLE_UNIQUE", "UNIQUE DEFERRABLE").replace(
        "NULLIF(g, 200) + 1 FROM generate_series(1, 199) g WHERE g < 199",
        "NULL FROM generate_series(1, 200) g",
    );
    cluster.psql("shop", &tables);
    cluster.psql("shop", "UPDATE sale SET up = id + 1 WHERE id < 200");
    let fixture = Fixture::capture(&cluster, "shop");
    (cluster, fixture)
}

async fn load(
    cluster: &Cluster,
    fixture: &Fixture,
    only: Selection,
    truncate: bool,
) -> Result<RestoreProof, RestoreError> {
    let mut options = options(cluster, Target::Original);
    options.only = only;
    let snapshot = fixture.snapshot();
    let plan = data_only::plan(&options, truncate, &snapshot, fixture).await?;
    data_only::execute(&plan, &options, &snapshot, fixture, &Told::default()).await
}

fn table(name: &str) -> Selection {
    Selection::Table { schema: "public".to_owned(), name: name.to_owned() }
}

const TRIGGERS: &str = "SELECT tgrelid::regclass, tgfoid::regproc, tgenabled FROM pg_trigger ORDER BY tgrelid, tgname";

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_into_a_live_database_with_keys_triggers_and_sequences() {
    let (cluster, fixture) = shop();
    let (before, triggers) = (contents(&cluster, "shop"), cluster.psql("shop", TRIGGERS));

    // All that is not empty is told at once, and nothing is touched.
    let refused = load(&cluster, &fixture, Selection::All, false).await.unwrap_err().to_string();
    for name in ["buyer", "sale", "zone", "checked", "days_a", "days_b"] {
        assert!(refused.contains(&format!("`public.{name}`")), "{refused}");
    }
    assert_same(&before, &contents(&cluster, "shop"));

    cluster.psql(
        "shop",
        "UPDATE buyer SET best = NULL, name = 'x' || id; DELETE FROM sale; SELECT setval('buyer_id_seq', 9000)",
    );
    let proof = load(&cluster, &fixture, Selection::All, true).await.unwrap();
    assert!(proof.tables.iter().all(|table| table.ok() && table.read_back), "{:?}", proof.tables);
    assert_same(&before, &contents(&cluster, "shop"));
    assert_same(&triggers, &cluster.psql("shop", TRIGGERS));
    assert!(proof.notes.iter().any(|note| note == "sequence public.buyer_id_seq was set to 50"), "{:?}", proof.notes);

    // One table, empty: only that.
    cluster.psql("shop", "TRUNCATE checked; DELETE FROM zone WHERE id = 2; INSERT INTO zone VALUES (2)");
    load(&cluster, &fixture, table("checked"), false).await.unwrap();
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM checked"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_leaves_what_was_there() {
    let (cluster, fixture) = shop();
    // Rows that would refer to nothing: the TRUNCATE goes back, too.
    cluster.psql(
        "shop",
        "ALTER TABLE buyer DROP COLUMN best; UPDATE sale SET up = NULL; DELETE FROM sale WHERE id > 3; ALTER TABLE sale DROP COLUMN up",
    );
    cluster.psql("shop", "ALTER TABLE sale ADD COLUMN up int REFERENCES sale; DELETE FROM buyer WHERE id > 10 AND id NOT IN (SELECT buyer FROM sale)");
    let (before, triggers) = (contents(&cluster, "shop"), cluster.psql("shop", TRIGGERS));
    let error = load(&cluster, &fixture, table("sale"), true).await.unwrap_err();
    assert!(matches!(error, RestoreError::Orphans { .. }), "{error}");
    assert!(error.to_string().contains("foreign key `sale_buyer_fkey` of `public.sale` to `public.buyer`"), "{error}");
    assert_same(&before, &contents(&cluster, "shop"));

    // A table that stays refers to one that would go; a column is missing; a table is missing or is none.
    let error = load(&cluster, &fixture, table("buyer"), true).await.unwrap_err().to_string();
    assert!(error.contains("`public.sale` refers to it by foreign key `sale_buyer_fkey`"), "{error}");
    assert!(error.contains("column `best` of `public.buyer` is missing there"), "{error}");
    cluster.psql("shop", "DROP TABLE checked; ALTER TABLE log RENAME TO old; CREATE VIEW log AS SELECT 1 AS n");
    let error = load(&cluster, &fixture, Selection::All, true).await.unwrap_err().to_string();
    assert!(
        error.contains("table `public.checked` is missing there") && error.contains("`public.log` is a view there"),
        "{error}"
    );

    // Bytes that are not those of the capture, and a stream that breaks off.
    let before = contents(&cluster, "shop");
    let mut broken = fixture.clone();
    broken.swap_members("zone", "days_a");
    load(&cluster, &broken, table("zone"), true).await.unwrap_err();
    let mut broken = fixture.clone();
    broken.truncated = Some(fixture.stream_of("zone", 0));
    load(&cluster, &broken, table("zone"), true).await.unwrap_err();
    let mut broken = fixture.clone();
    broken.table("zone").rows += 1;
    load(&cluster, &broken, table("zone"), true).await.unwrap_err();
    assert_same(&before, &contents(&cluster, "shop"));
    assert_same(&triggers, &cluster.psql("shop", TRIGGERS));
}

//! Tables beside the live ones: a new schema or nothing, and the live tables as they were.

use backup_core::source::postgres::restore::{RestoreError, RestoreProof, Selection, Target, Verify, into_schema};
use harness::pg::Cluster;

use super::fixture::Fixture;
use super::{Told, assert_same, contents, definitions, options};

const TABLES: &str = r#"CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE buyer (id serial PRIMARY KEY, name text DEFAULT 'nobody' NOT NULL, how mood, CONSTRAINT named CHECK (name <> ''));
    CREATE UNIQUE INDEX "Odd; index" ON buyer (lower(name), how) WHERE how <> 'sad';
    CREATE TABLE sale (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, buyer int NOT NULL REFERENCES buyer,
        twice int GENERATED ALWAYS AS (buyer * 2) STORED);
    INSERT INTO buyer (name, how) SELECT 'b' || g, 'ok' FROM generate_series(1, 50) g;
    INSERT INTO sale (buyer) SELECT g % 50 + 1 FROM generate_series(1, 200) g;
    CREATE TABLE days (day date PRIMARY KEY, n int) PARTITION BY RANGE (day);
    CREATE TABLE days_a PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    INSERT INTO days VALUES ('2024-02-02', 1), ('2024-03-03', 2);
    CREATE TABLE in_archive (n int); INSERT INTO in_archive VALUES (1);
    CREATE SCHEMA "odd, one"; CREATE TABLE "odd, one"."Ta""ble" ("Sel ect" int); INSERT INTO "odd, one"."Ta""ble" VALUES (7);"#;

fn shop() -> (Cluster, Fixture) {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql("shop", TABLES);
    let fixture = Fixture::capture(&cluster, "shop");
    (cluster, fixture)
}

fn table(name: &str) -> Selection {
    Selection::Table { schema: "public".to_owned(), name: name.to_owned() }
}

async fn beside(
    cluster: &Cluster,
    fixture: &Fixture,
    only: Selection,
    (target, schema): (Target, &str),
) -> Result<RestoreProof, RestoreError> {
    let mut options = options(cluster, target);
    options.only = only;
    // What must be read back, because no types are known, is so here as well.
    options.verify = Verify::Counts;
    let snapshot = fixture.snapshot();
    let plan = into_schema::plan(&options, schema, &snapshot).await?;
    into_schema::execute(&plan, &options, &snapshot, fixture, &Told::default()).await
}

async fn refused(cluster: &Cluster, fixture: &Fixture, only: Selection, schema: &str) -> String {
    let error = beside(cluster, fixture, only, (Target::Original, schema)).await.unwrap_err();
    assert!(matches!(error, RestoreError::Refused { .. }), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_beside_the_live_ones_and_their_rows_back() {
    let (cluster, fixture) = shop();
    // Rows are lost and changed, and the live table asks for more than it did.
    cluster.psql("shop", "DELETE FROM sale WHERE id > 150; UPDATE buyer SET how = 'sad' WHERE id = 1");
    cluster.psql("shop", "ALTER TABLE buyer ADD CONSTRAINT new_one CHECK (id > 0) NOT VALID");
    cluster.psql("shop", "ALTER TABLE buyer ADD CONSTRAINT never CHECK (id <> 1 OR how = 'sad')");
    cluster.psql("shop", "UPDATE buyer SET how = 'sad'; ALTER TABLE buyer ALTER how SET NOT NULL");
    let (before, defined) = (contents(&cluster, "shop"), definitions(&cluster, "shop"));

    let only = Selection::Schema("public".to_owned());
    let proof = beside(&cluster, &fixture, only, (Target::Original, "old \"one\"")).await.unwrap();
    assert!(proof.tables.iter().all(|table| table.ok() && table.read_back && table.schema == "old \"one\""));
    let names: Vec<&str> = proof.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["buyer", "days_a", "sale"]);
    assert_eq!(proof.notes.len(), 2, "{:?}", proof.notes);
    assert!(
        proof.notes[0].starts_with("constraint `never` of old \"one\".buyer could not be made: "),
        "{:?}",
        proof.notes
    );
    assert!(proof.notes[1].ends_with("pg_dump's archive: public.in_archive"), "{:?}", proof.notes);

    // What is there has its definitions, nothing of the live tables, and none of it is shared.
    let shape = "SELECT string_agg(format('%s.%s:%s%s', c.relname, a.attname, CASE WHEN attnotnull THEN '!' END, \
        CASE WHEN attgenerated <> '' THEN '=' WHEN atthasdef THEN '?' END), ' ' ORDER BY c.relname, attnum) \
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = '\"old \"\"one\"\"\"'::regnamespace \
        AND relkind = 'r' AND attnum > 0";
    let expected = "buyer.id:! buyer.name:!? buyer.how:! days_a.day:! days_a.n: sale.id:! sale.buyer:! sale.twice:=";
    assert_eq!(cluster.psql("shop", shape), expected);
    let made = "SELECT string_agg(name, ' ' ORDER BY name) FROM (SELECT conname::text AS name FROM pg_constraint \
        WHERE contype <> 'n' AND connamespace = '\"old \"\"one\"\"\"'::regnamespace UNION SELECT relname FROM pg_class \
        WHERE relkind = 'i' AND relnamespace = '\"old \"\"one\"\"\"'::regnamespace) x";
    assert_eq!(cluster.psql("shop", made), "Odd; index buyer_pkey days_a_pkey named new_one sale_pkey");

    // What is told brings the rows back, also those of an identity; those that are there stay.
    let sale = proof.bring_back.iter().find(|sql| sql.contains("\"public\".\"sale\"")).unwrap();
    assert!(sale.contains(" OVERRIDING SYSTEM VALUE ") && sale.ends_with(" ON CONFLICT DO NOTHING;"), "{sale}");
    cluster.psql("shop", sale);
    assert_eq!(
        cluster.psql("shop", "SELECT count(*), sum(twice) FROM sale"),
        cluster.psql("shop", "SELECT count(*), sum(twice) FROM \"old \"\"one\"\"\".sale")
    );
    cluster.psql("shop", "DELETE FROM sale WHERE id > 150");
    // The schema can go without touching anything else.
    cluster.psql("shop", "DROP SCHEMA \"old \"\"one\"\"\" CASCADE");
    assert_same(&before, &contents(&cluster, "shop"));
    assert_same(&defined, &definitions(&cluster, "shop"));

    // A leaf alone, odd names, another database.
    let proof = beside(&cluster, &fixture, table("days_a"), (Target::Original, "leaf")).await.unwrap();
    assert_eq!(cluster.psql("shop", "SELECT string_agg(n::text, ',' ORDER BY n) FROM leaf.days_a"), "1,2");
    assert_eq!(proof.bring_back.len(), 1);
    cluster.psql("postgres", "CREATE DATABASE other TEMPLATE shop");
    let odd = Selection::Table { schema: "odd, one".to_owned(), name: "Ta\"ble".to_owned() };
    let proof = beside(&cluster, &fixture, odd, (Target::Into("other".to_owned()), "odd")).await.unwrap();
    cluster.psql("other", &format!("TRUNCATE \"odd, one\".\"Ta\"\"ble\"; {}", proof.bring_back[0]));
    assert_eq!(cluster.psql("other", "SELECT \"Sel ect\" FROM \"odd, one\".\"Ta\"\"ble\""), "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let (cluster, fixture) = shop();
    cluster.psql("shop", "CREATE SCHEMA taken");
    let said = refused(&cluster, &fixture, table("buyer"), "taken").await;
    assert!(said.contains("schema `taken` exists in database `shop`"), "{said}");
    for name in ["", "pg_mine", &"n".repeat(64)] {
        let said = refused(&cluster, &fixture, table("buyer"), name).await;
        assert!(said.contains("cannot be the name of a schema"), "{said}");
    }
    let said = refused(&cluster, &fixture, Selection::All, "n").await;
    assert!(said.contains("name them"), "{said}");
    let said = refused(&cluster, &fixture, table("nowhere"), "n").await;
    assert!(said.contains("the snapshot has no table"), "{said}");
    let said = refused(&cluster, &fixture, table("in_archive"), "n").await;
    assert!(said.contains("lie in pg_dump's archive"), "{said}");
    let error = beside(&cluster, &fixture, table("buyer"), (Target::Into("none".to_owned()), "n")).await.unwrap_err();
    assert!(error.to_string().contains("database `none` does not exist"), "{error}");

    cluster.psql("shop", "CREATE PUBLICATION everything FOR ALL TABLES");
    let said = refused(&cluster, &fixture, table("buyer"), "n").await;
    assert!(said.contains("a publication there is for all tables"), "{said}");
    cluster.psql("shop", "DROP PUBLICATION everything");

    cluster.psql("shop", "ALTER TABLE buyer ADD COLUMN more int; ALTER TABLE buyer RENAME name TO title");
    let said = refused(&cluster, &fixture, table("buyer"), "n").await;
    for why in ["column `name` of `public.buyer` is missing there", "column `more` of `public.buyer` was not captured"]
    {
        assert!(said.contains(why), "{said}");
    }
    cluster.psql("shop", "ALTER TABLE sale RENAME TO gone");
    let said = refused(&cluster, &fixture, table("sale"), "n").await;
    assert!(said.contains("table `public.sale` is missing there"), "{said}");
    assert_eq!(cluster.psql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname = 'n'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_no_schema() {
    let (cluster, fixture) = shop();
    let (before, defined) = (contents(&cluster, "shop"), definitions(&cluster, "shop"));
    let mut cut = fixture.clone();
    cut.truncated = Some(fixture.stream_of("buyer", 0));
    let mut swapped = fixture.clone();
    swapped.swap_members("buyer", "sale");
    let mut more = fixture.clone();
    more.table("buyer").rows += 1;
    for broken in [cut, swapped, more] {
        let failed = beside(&cluster, &broken, table("buyer"), (Target::Original, "n")).await;
        assert!(!matches!(failed, Ok(_) | Err(RestoreError::Refused { .. })), "{failed:?}");
        assert_same(&defined, &definitions(&cluster, "shop"));
    }
    // A type that makes other values of the same text: read back, they differ.
    cluster.psql("shop", "ALTER TABLE days ALTER n TYPE numeric(9, 3)");
    let defined = definitions(&cluster, "shop");
    let failed = beside(&cluster, &fixture, table("days_a"), (Target::Original, "n")).await.unwrap_err();
    assert!(matches!(failed, RestoreError::Differs { .. }), "{failed}");
    assert_same(&defined, &definitions(&cluster, "shop"));
    cluster.psql("shop", "ALTER TABLE days ALTER n TYPE int");
    assert_same(&before, &contents(&cluster, "shop"));
}

//! Tables that our capture took in binary and in several ranges of their blocks: they come back, and every way of
//! breaking such a part is found.

use backup_core::clock::Clock;
use backup_core::manifest::Part;
use backup_core::monitor::{Event, Monitor};
use backup_core::source::postgres::restore::{Target, execute, plan};
use backup_core::source::postgres::{ConnectOptions, PostgresOptions, capture};
use harness::pg::Cluster;

use super::fixture::{Fixture, Keep};
use super::{Told, assert_same, broken, contents, databases, definitions, options, restore};

const TABLES: &str = "CREATE TABLE ticks AS SELECT i AS id, i * 1.5 AS price, md5(i::text)::uuid AS key,
        CASE WHEN i % 7 > 0 THEN i::text END AS tag, jsonb_build_object('i', i) AS body
        FROM generate_series(1, 30000) i;
    ALTER TABLE ticks DROP COLUMN tag, ADD COLUMN tag text, ADD CHECK (id > 0);
    DELETE FROM ticks WHERE id BETWEEN 9000 AND 12000;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE moods AS SELECT i AS id, 'ok'::mood AS mood FROM generate_series(1, 60000) i;
    CREATE DOMAIN amount AS numeric CHECK (VALUE >= 0); CREATE DOMAIN money_in AS amount;
    CREATE TABLE paid AS SELECT i AS id, (i / 3.0)::money_in AS sum FROM generate_series(1, 20) i;
    CREATE TABLE lists AS SELECT i AS id, ARRAY['a', NULL, 'b'] AS tags FROM generate_series(1, 20) i;
    UPDATE lists SET tags[2] = 'no longer NULL';
    ALTER TABLE ticks ADD PRIMARY KEY (id); CREATE INDEX ON ticks (price, id DESC); CREATE INDEX ON ticks (abs(price));
    CREATE UNIQUE INDEX by_key ON ticks (key); ALTER TABLE ticks CLUSTER ON by_key; ALTER TABLE moods ADD UNIQUE (id);
    CREATE TABLE blanks (); INSERT INTO blanks SELECT FROM generate_series(1, 5);";

async fn captured(cluster: &Cluster, part_blocks: u64) -> Fixture {
    let connect = ConnectOptions::new(&cluster.url("shop"), None).unwrap();
    let wanted = PostgresOptions { part_blocks, workers: 3, ..PostgresOptions::new("db", connect) };
    let clock = Clock::fixed(std::time::UNIX_EPOCH.into());
    Fixture::from(capture(&wanted, &Keep, &clock, &Told::default()).await.unwrap())
}

fn shop() -> Cluster {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql("shop", TABLES);
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_in_several_parts_come_back() {
    let source = shop();
    let mut fixture = captured(&source, 64).await;
    assert!(fixture.table("ticks").parts.len() > 3 && fixture.table("moods").parts.len() > 3);
    assert_eq!(fixture.table("ticks").rows, 26_999);
    let format = |fixture: &mut Fixture, name: &str| fixture.table(name).format.clone();
    assert_eq!(
        ["ticks", "moods", "paid", "lists", "blanks"].map(|name| format(&mut fixture, name)),
        ["binary", "text", "binary", "text", "binary"]
    );
    let empty = Cluster::start();
    let (_, proof) = restore(&fixture, &options(&empty, Target::Original)).await.unwrap();
    assert!(proof.tables.iter().all(|table| table.ok() && table.read_back), "{:?}", proof.tables);
    assert_same(&definitions(&source, "shop"), &definitions(&empty, "shop"));
    assert_same(&contents(&source, "shop"), &contents(&empty, "shop"));

    // The same rows in one part are the same fingerprint; rows that come later change the last part only.
    let mut whole = captured(&source, u64::MAX).await;
    assert_eq!(whole.table("ticks").parts.len(), 1);
    assert_eq!(whole.table("ticks").fingerprint, fixture.table("ticks").fingerprint);
    source.psql("shop", "INSERT INTO ticks SELECT i, 1, md5(i::text)::uuid, '{}' FROM generate_series(30001, 30010) i");
    let mut later = captured(&source, 64).await;
    let (before, after) = (fixture.table("ticks").parts.clone(), later.table("ticks").parts.clone());
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at].fingerprint != after[*at].fingerprint).collect();
    // The deleted rows' space is not free yet: without VACUUM new rows go to the end.
    assert_eq!(changed, [before.len() - 1]);
}

/// A table that is nearly all TOAST is cut by what its rows bring along, and what is appended moves no boundary.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_mostly_toast_comes_back_in_parts_that_stand_still() {
    let source = Cluster::start();
    source.psql("postgres", "CREATE DATABASE shop");
    source.psql(
        "shop",
        "CREATE TABLE papers (id int, head text, body text); ALTER TABLE papers ALTER body SET STORAGE EXTERNAL;
        ALTER TABLE papers ALTER head SET STORAGE PLAIN",
    );
    let more = |from: u32, to: u32| {
        let rows = format!(
            "SELECT i, rpad(i::text, 1000, 'x'), repeat(md5(i::text), 700) FROM generate_series({from}, {to}) i"
        );
        source.psql("shop", &format!("INSERT INTO papers {rows}"));
    };
    more(1, 400);
    // By its blocks alone it would be one part.
    let blocks = source.psql("shop", "SELECT pg_relation_size('papers') / 8192");
    assert!((40..64).contains(&blocks.parse::<u32>().unwrap()), "{blocks}");
    let parts = |fixture: &mut Fixture| fixture.table("papers").parts.clone();
    let mut fixture = captured(&source, 64).await;
    let before = parts(&mut fixture);
    assert_eq!(before[0].blocks, Some((0, Some(4))));
    assert!(before.len() > 10 && before.iter().all(|part| (1..=28).contains(&part.rows)), "{before:?}");
    assert!(fixture.table("papers").is_covered());

    let empty = Cluster::start();
    let (_, proof) = restore(&fixture, &options(&empty, Target::Original)).await.unwrap();
    assert!(proof.tables.iter().all(|table| table.ok() && table.read_back), "{:?}", proof.tables);
    assert_same(&contents(&source, "shop"), &contents(&empty, "shop"));

    for (from, to) in [(401, 404), (405, 800)] {
        more(from, to);
        let mut later = captured(&source, 64).await;
        let after = parts(&mut later);
        assert_eq!(later.table("papers").rows, u64::from(to));
        let last = before.len() - 1;
        let facts = |parts: &[Part]| parts.iter().map(|part| (part.blocks, part.fingerprint)).collect::<Vec<_>>();
        assert_eq!(facts(&before[..last]), facts(&after[..last]));
        assert!(
            after[last].blocks.unwrap().0 == before[last].blocks.unwrap().0 && after[last].rows > before[last].rows
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_not_what_it_was_is_found() {
    let fixture = captured(&shop(), 64).await;
    let target = Cluster::start();
    let (first, second) = (fixture.stream_of("ticks", 0), fixture.stream_of("ticks", 1));
    let moods = fixture.stream_of("moods", 0);

    broken(&target, &fixture, "rows of `public.ticks` differ", |f| f.bytes.swap(first, second)).await;
    broken(&target, &fixture, "rows of `public.ticks` differ", |f| {
        // A byte of the first row's number.
        f.bytes[first][19 + 2 + 4] ^= 1;
    })
    .await;
    broken(&target, &fixture, "rows of `public.ticks` differ", |f| {
        // The first row is left out.
        let row = first_row(&f.bytes[first]);
        f.bytes[first].drain(19..19 + row);
    })
    .await;
    broken(&target, &fixture, "end inside a row", |f| {
        // The mark at the end is gone: the server takes that, we do not.
        let end = f.bytes[first].len();
        f.bytes[first].truncate(end - 2);
    })
    .await;
    broken(&target, &fixture, "rows of `public.ticks` cannot be loaded", |f| f.bytes[first].truncate(1000)).await;
    broken(&target, &fixture, "cannot be loaded", |f| f.bytes.swap(first, moods)).await;
    broken(&target, &fixture, "do not cover it once", |f| {
        // The sums are those of the parts that are left: only the ranges can tell.
        let entry = f.table("ticks");
        let gone = entry.parts.remove(1);
        entry.rows -= gone.rows;
        entry.fingerprint.0 = entry.fingerprint.0.wrapping_sub(gone.fingerprint.0);
    })
    .await;
    broken(&target, &fixture, "do not add up", |f| {
        let parts = &mut f.table("ticks").parts;
        let second = parts.remove(1);
        parts[0].blocks = parts[0].blocks.map(|(from, _)| (from, second.blocks.and_then(|(_, to)| to)));
    })
    .await;
    broken(&target, &fixture, "was captured as another type", |f| f.table("ticks").types[0] = 701).await;
    broken(&target, &fixture, "COPY format `csv`", |f| "csv".clone_into(&mut f.table("ticks").format)).await;
    assert_eq!(databases(&target), Vec::<String>::new());
}

/// Changes the restored rows before they are compared.
struct Meddler<'a> {
    cluster: &'a Cluster,
    sql: &'a str,
}

impl Monitor for Meddler<'_> {
    fn event(&self, event: Event) {
        if matches!(event, Event::Phase { phase, .. } if phase == "comparing") {
            self.cluster.psql("shop__restoring_t3st", self.sql);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_names_the_table_and_the_number_of_rows() {
    let fixture = captured(&shop(), 64).await;
    let target = Cluster::start();
    for (sql, said) in [
        (
            "UPDATE ticks SET price = price + 1 WHERE id IN (1, 8000, 29999)",
            "the rows of 1 table differ from the capture: `public.ticks` (26999 rows captured, 26999 restored: \
             3 of them missing, 3 there that were not captured)",
        ),
        (
            "DELETE FROM paid WHERE id <= 2; INSERT INTO moods SELECT 60001, mood FROM moods WHERE id = 7; DELETE FROM moods WHERE id = 9",
            "the rows of 2 tables differ from the capture: `public.moods` (60000 rows captured, 60000 restored: \
             1 of them missing, 1 there that were not captured), `public.paid` (20 rows captured, 18 restored: \
             2 of them missing, 0 there that were not captured)",
        ),
        ("DELETE FROM blanks WHERE ctid = '(0,1)'", "1 of them missing, 0 there"),
        ("TRUNCATE ticks", "`public.ticks` (26999 rows captured, 0 restored: 26999 of them missing, 0 there"),
    ] {
        let (options, snapshot) = (options(&target, Target::Original), fixture.snapshot());
        let planned = plan(&options, &snapshot, &fixture).await.unwrap();
        let meddler = Meddler { cluster: &target, sql };
        let error = execute(&planned, &options, &snapshot, &fixture, &meddler).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(databases(&target), Vec::<String>::new());
    }
}

/// Definitions of another night fit or they do not; what the archive has of rows is compared like all others.
#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_another_night_is_found() {
    let source = shop();
    // Rows that are left to the archive, as an extension's are.
    let sql = "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
        CREATE TABLE odd (x int) USING other; INSERT INTO odd VALUES (1), (2);";
    source.psql("shop", sql);
    let first = captured(&source, 64).await;
    source.psql("shop", "UPDATE odd SET x = 3 WHERE x = 2");
    let second = captured(&source, 64).await;
    source.psql("shop", "ALTER TABLE lists RENAME tags TO words; CREATE TABLE newer AS SELECT 1 AS x");
    let third = captured(&source, 64).await;
    let target = Cluster::start();
    let archive = third.archive();
    broken(&target, &second, "`public.odd` (2 rows captured, 2 restored", |f| {
        f.bytes[archive].clone_from(&first.bytes[archive]);
    })
    .await;
    broken(&target, &third, "`public.newer` was captured as another type", |f| {
        f.bytes[archive].clone_from(&second.bytes[archive]);
    })
    .await;
    restore(&third, &options(&target, Target::Original)).await.unwrap();
}

/// Bytes of the first row of a binary COPY file.
fn first_row(file: &[u8]) -> usize {
    let number = |at: usize| i32::from_be_bytes(*file[at..].first_chunk().unwrap());
    let fields = i16::from_be_bytes(*file[19..].first_chunk().unwrap());
    (0..fields).fold(2, |at, _| at + 4 + usize::try_from(number(19 + at).max(0)).unwrap())
}

//! The same values by text and by binary, from one major to another: judged by `md5` of ordered text, asked of the servers.
//!
//! Fingerprints are of bytes, so they can be compared where the bytes must be the same: rows of one format, whatever the
//! major. Those of two formats never are; the manifest says which it was, and reading back repeats it.

use backup_core::manifest::TableEntry;
use backup_core::source::postgres::PostgresOptions;
use backup_core::source::postgres::restore::{RestoreError, TableProof, Target};
use harness::pg::{Cluster, Options, available};

use super::scene::{captured, into, options, restored};
use super::{Fixture, chain};

/// One column of each type that goes in binary, with values at its ends.
const VALUES: &str = r#"
    CREATE TABLE everything (id int PRIMARY KEY, b bool, y bytea, c "char", n name, i8 int8, i2 int2, t text, j json, ci cidr, f4 float4,
        f8 float8, m8 macaddr8, m6 macaddr, ip inet, bc char(7), vc varchar(20), d date, tm time, ts timestamp, tz timestamptz, iv interval,
        tt timetz, bi bit(5), vb varbit, nu numeric, u uuid, jb jsonb);
    INSERT INTO everything SELECT i, i % 2 = 0, decode(md5(i::text), 'hex'), chr(33 + i % 90)::"char", 'n' || i, i * 1e15::int8, i % 32767, E'tab\t\n\\ é' || i,
        json_build_object('k ', i), ('10.' || i % 256 || '.0.0/16')::cidr, i / 3.0::float4, i / 7.0::float8, '08:00:2b:01:02:03:04:05', '08:00:2b:01:02:03',
        ('fe80::' || to_hex(i))::inet, 'x' || i % 100, 'v' || i, '2000-01-01'::date + i, '00:00'::time + i * interval '1.000001 s', '2001-01-01'::timestamp + i * interval '1 day 1 us',
        '1999-12-31 23:59:59.999999+05:30'::timestamptz + i * interval '1 hour', i * interval '1 mon 2 days 00:00:03.5', '12:34:56.789+11:30'::timetz, (i % 32)::bit(5),
        (i % 8)::bit(3)::varbit, i / 11.0::numeric, md5(i::text)::uuid, jsonb_build_object('b', i, 'a', ARRAY[NULL, i]) FROM generate_series(1, 1500) i;
    INSERT INTO everything (id) VALUES (-1);
    INSERT INTO everything (id, f4, f8, nu, d, ts, tz, t, y, jb, i8, i2) VALUES
        (-2, 'NaN', '-0', 'NaN', 'infinity', '-infinity', 'infinity', '', '', '1e-400', -9223372036854775808, -32768),
        (-3, 'Infinity', '5e-324', 1e-300, '4713-01-01 BC', '294276-12-31 23:59:59.999999', '4713-01-02 00:00+00 BC', '\N', '\x00', '"\u00e9"', 0, 0),
        (-4, '-Infinity', '1.7976931348623157e308', -0.000, '-infinity', NULL, NULL, E'\\N', '\x5c78', 'null', 1, 1);
    CREATE TABLE nothing (); INSERT INTO nothing SELECT FROM generate_series(1, 5);
"#;

/// What the servers say: of rows in an order that all agree on.
fn said(cluster: &Cluster, database: &str) -> String {
    let sql = "SET timezone = 'UTC'; SET extra_float_digits = 3; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
        SELECT count(*), md5(string_agg(e::text, E'\\n' ORDER BY id)) FROM everything e; SELECT count(*) FROM nothing;";
    cluster.psql(database, sql)
}

fn table<'a>(fixture: &'a Fixture, name: &str) -> &'a TableEntry {
    fixture.tables.iter().find(|table| table.name == name).unwrap()
}

async fn fixture_of(cluster: &Cluster, database: &str, text_only: bool) -> Fixture {
    let wanted = PostgresOptions { text_only, ..options(cluster, database) };
    captured(&wanted).await.unwrap_or_else(|e| panic!("{}", chain(&e))).0
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_the_same_by_text_and_by_binary_across_majors() {
    let majors: Vec<u32> = [13, 15, 18].into_iter().filter(|major| available(*major)).collect();
    let Some(newest) = majors.last() else { return };
    let target = Cluster::start_with(Options { version: Some(*newest), ..Options::default() });
    let (mut sums, mut number) = (Vec::new(), 0);
    for major in majors {
        let source = Cluster::start_with(Options { version: Some(major), ..Options::default() });
        source.psql("postgres", "CREATE DATABASE shop");
        source.psql("shop", VALUES);
        let wanted = said(&source, "shop");
        for text_only in [true, false] {
            let fixture = fixture_of(&source, "shop", text_only).await;
            let format = if text_only { "text" } else { "binary" };
            assert!(fixture.tables.iter().all(
                |table| table.format == format && table.types.is_empty() == (text_only || table.columns.is_empty())
            ));
            number += 1;
            let name = format!("back{number}");
            let proof = restored(&fixture, &into(&target, Target::Into(name.clone()))).await;
            let proof = proof.unwrap_or_else(|e| panic!("{major}, {format}: {}", chain(&e)));
            assert!(proof.tables.iter().all(|table| TableProof::ok(table) && table.read_back));
            assert_eq!(said(&target, &name), wanted, "{major}, {format}");
            // What came back is captured again, there in both formats: the same bytes in each, whatever the majors.
            for again in [true, false] {
                let there = fixture_of(&target, &name, again).await;
                let entry = table(&there, "everything");
                sums.push(format!("{} {} {}", entry.format, entry.rows, entry.fingerprint));
                let same = entry.fingerprint == table(&fixture, "everything").fingerprint;
                assert_eq!(same, again == text_only, "{major}, {format}: fingerprints of formats");
            }
            // A fingerprint of the other format is a difference here, not something to compare with.
            let mut wrong = fixture.clone();
            let other = table(&fixture_of(&source, "shop", !text_only).await, "everything").fingerprint;
            let entry = wrong.table("everything");
            (entry.fingerprint, entry.parts[0].fingerprint) = (other, other);
            let error = restored(&wrong, &into(&target, Target::Into("wrong".to_owned()))).await.unwrap_err();
            assert!(matches!(error, RestoreError::PartDiffers { .. }), "{}", chain(&error));
            target.psql("postgres", &format!("DROP DATABASE {name}"));
        }
    }
    sums.sort();
    sums.dedup();
    assert_eq!(sums.len(), 2, "one fingerprint for each format: {sums:?}");
}

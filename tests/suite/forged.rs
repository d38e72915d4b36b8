//! Snapshots that are whole by every signature and hash, and wrong: as a bug of ours would write them, or somebody with the
//! host's key. The real binary must tell each of them with exit code 4, name the table, and leave no database behind.
//!
//! The snapshots are captured by the engine, altered in memory, and stored by the engine again, so that the only thing that can
//! find out is the comparison of what comes back with what was counted at capture.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::backup::{BackupRequest, Host as Engine, backup};
use backup_core::clock::Clock;
use backup_core::manifest::StreamKind;
use backup_core::monitor::{Monitor, Silent};
use backup_core::signature::Signers;
use backup_core::source::postgres::{ClientsOption, ConnectOptions, Globals, PostgresOptions, capture};
use backup_core::source::{Captured, CapturedStream, Sink, Source, SourceError};
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::local::{LocalOptions, LocalStore};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use harness::pg::Cluster;

use super::host::{Ended, Host, of_source};
use super::past::{STACK, host_key, now};
use super::pg_capture::altered::{Liar, Lie, TABLE};
use super::pg_restore::fixture::{Fixture, Keep};

/// `item` and `other` have streams of their own, in several parts.
const SAMPLE: &str = "CREATE TABLE item AS SELECT i AS id, md5(i::text) AS t FROM generate_series(1, 30000) i;
    CREATE TABLE other AS SELECT i AS id, md5((i * 7)::text) AS t FROM generate_series(1, 30000) i;
    CREATE TABLE small AS SELECT i AS id FROM generate_series(1, 10) i;
    SELECT lo_from_bytea(70001, decode(repeat('ab', 100000), 'hex'));";

/// A source that gives what somebody made of a capture.
struct Forged(Fixture, DateTime<Utc>);

#[async_trait]
impl Source for Forged {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn capture(&self, sink: &dyn Sink, _: &Clock, _: &dyn Monitor) -> Result<Captured, SourceError> {
        let mut streams = Vec::new();
        for (stream, bytes) in self.0.streams.iter().zip(&self.0.bytes) {
            let mut writer = sink.open(stream.kind).await.unwrap();
            for piece in bytes.chunks(200_000) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            let stream = CapturedStream {
                stream: writer.finish().await.unwrap(),
                copy: stream.copy.clone(),
                members: stream.members.clone(),
                paths: Vec::new(),
            };
            streams.push(stream);
        }
        let (tables, properties) = (self.0.tables.clone(), self.0.properties.clone());
        Ok(Captured { instant: self.1, streams, tables, properties, suspect: Vec::new() })
    }
}

async fn captured(cluster: &Cluster, database: &str) -> Fixture {
    let connect = ConnectOptions::new(&cluster.url(database), None).unwrap();
    let wanted = PostgresOptions {
        part_blocks: 64,
        text_only: true,
        globals: Globals::None,
        clients: ClientsOption::Dir(cluster.clients().to_owned()),
        ..PostgresOptions::new("db", connect)
    };
    Fixture::from(capture(&wanted, &Keep, &Clock::new(now), &Silent).await.unwrap())
}

/// Commits a snapshot as the host would; gives its id.
async fn commit(host: &Host, forged: Fixture) -> String {
    let store = LocalStore::open(&host.path("local"), LocalOptions::default()).unwrap();
    let vault = Vault::open("local", Arc::new(store), None).await.unwrap();
    let request = BackupRequest {
        stack: STACK.parse().unwrap(),
        source: "db".parse().unwrap(),
        run: "forged".to_owned(),
        recipients: host.recipients().to_vec(),
        period: "28d".parse().unwrap(),
        level: 1,
        budget_bytes: 64 << 20,
        cpus: 2,
        secret: false,
        next_due: None,
        config: serde_json::json!({"stack": STACK}),
        tool: "backup 0".to_owned(),
    };
    let (key, clock, monitor) = (host_key(host), Clock::new(now), Arc::new(Silent) as Arc<dyn Monitor>);
    let signers = Signers::pin_fingerprint(&key.fingerprint());
    let state = State::open(&host.path("state"), &request.stack).await.unwrap();
    let engine = Engine { key: &key, signers: &signers, state: &state, clock: &clock, monitor: &monitor };
    backup(&vault, engine, &request, &Forged(forged, now())).await.unwrap().snapshot.doc.id.to_string()
}

fn host(url: &str, more: &str) -> Host {
    let host = Host::new();
    fs::create_dir(host.path("local")).unwrap();
    let source = format!("[source.db]\ntype = \"postgres\"\nurl = \"{url}\"\nglobals = \"none\"\n{more}");
    host.configure(&format!("{}{source}", Host::local("local")));
    host.good(&["init"]);
    host
}

fn restore(host: &Host, id: &str) -> Ended {
    host.run(&["restore", id, "--identity", "ops.txt", "--into", "back"])
}

/// What was done, by whom, and the words that must be told.
type Harm = (&'static str, fn(&mut Fixture), &'static [&'static str]);

/// Takes the first row out of `item`.
fn cut_row(f: &mut Fixture) {
    let at = f.stream_of("item", 0);
    let end = f.bytes[at].iter().position(|b| *b == b'\n').unwrap();
    f.bytes[at].drain(..=end);
}

const HARMS: [Harm; 8] = [
    ("a row dropped", cut_row, &["`public.item` differ", " rows with fingerprint", "were captured"]),
    (
        "a byte changed",
        |f| {
            let at = f.stream_of("item", 1);
            let byte = f.bytes[at].iter().position(|b| *b == b'a').unwrap();
            f.bytes[at][byte] = b'b';
        },
        &["`public.item` differ", " rows with fingerprint"],
    ),
    (
        "two tables' parts swapped",
        |f| {
            let (one, two) = (f.stream_of("item", 0), f.stream_of("other", 0));
            f.bytes.swap(one, two);
        },
        &["differ from the capture", " rows with fingerprint"],
    ),
    (
        "a range of blocks left out",
        |f| {
            f.table("item").parts.remove(1);
        },
        &["the parts of table `public.item` do not add up"],
    ),
    (
        "a range of blocks left out, and the rows counted without it",
        |f| {
            let entry = f.table("item");
            let gone = entry.parts.remove(1);
            entry.rows -= gone.rows;
            entry.fingerprint.0 = entry.fingerprint.0.wrapping_sub(gone.fingerprint.0);
        },
        &["the parts of table `public.item` do not cover it once"],
    ),
    (
        "a part truncated",
        |f| {
            let at = f.stream_of("item", 1);
            let half = f.bytes[at].len() / 2;
            f.bytes[at].truncate(half);
        },
        &["item", "end inside a row"],
    ),
    (
        "a part truncated behind a row",
        |f| {
            let at = f.stream_of("item", 1);
            let half = f.bytes[at][..f.bytes[at].len() / 2].iter().rposition(|b| *b == b'\n').unwrap();
            f.bytes[at].truncate(half + 1);
        },
        &["`public.item` differ", " rows with fingerprint"],
    ),
    (
        "a small table's rows emptied",
        |f| {
            let at = f.stream_of("small", 0);
            let part = f.bytes[at].windows(2).position(|two| two == b"1\n").unwrap();
            f.bytes[at][part] = b'9';
        },
        &["`public.small` differ", "10 rows with fingerprint"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_signed_snapshot_has_wrong_is_exit_4_and_named() {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql("shop", SAMPLE);
    let host = host(&cluster.url("shop"), "");
    let mut good = captured(&cluster, "shop").await;
    assert!(good.table("item").parts.len() > 2 && good.table("small").parts.len() == 1);
    let fails = |id: &str, name: &str, words: &[&str]| {
        let ended = restore(&host, id);
        assert_eq!(ended.code, 4, "{name}: {}\n{}", ended.out, ended.err);
        for word in words {
            assert!(ended.err.contains(word), "{name}: no `{word}` in {}", ended.err);
        }
        assert!(ended.err.contains("hint: "), "{}", ended.err);
        let left = "SELECT count(*) FROM pg_database WHERE datname ~ 'back'";
        assert_eq!(cluster.psql("postgres", left), "0", "{name}");
    };
    for (name, harm, words) in HARMS {
        let mut forged = good.clone();
        harm(&mut forged);
        fails(&commit(&host, forged).await, name, words);
    }

    // Tonight's archive below the rows of another night, before a column and a large object came.
    let changes: [(&str, &str, &[&str]); 4] = [
        (
            "a large object",
            "SELECT lo_put(70001, 5, '\\x00')",
            &["the large objects differ", "the bytes of at least one of 1"],
        ),
        (
            "a large object's comment",
            "COMMENT ON LARGE OBJECT 70001 IS 'new'",
            &["the large objects differ", "comment of"],
        ),
        ("another large object", "SELECT lo_create(70002)", &["the large objects differ", "2 captured, 1 restored"]),
        ("a column", "ALTER TABLE small ADD COLUMN later int", &["`public.small`", "later"]),
    ];
    for (name, sql, words) in changes {
        let before = captured(&cluster, "shop").await;
        cluster.psql("shop", sql);
        let mut tonight = captured(&cluster, "shop").await;
        let archive = |f: &Fixture| f.streams.iter().position(|stream| stream.kind == StreamKind::PgArchive).unwrap();
        let (from, to) = (archive(&before), archive(&tonight));
        tonight.bytes[to] = before.bytes[from].clone();
        fails(&commit(&host, tonight).await, name, words);
    }

    // What stopped the others was what was wrong with them.
    let id = commit(&host, captured(&cluster, "shop").await).await;
    let ended = restore(&host, &id);
    assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains("2 large objects: read back and equal"), "{}", ended.out);
}

/// `pg_dump` says nothing of an exclude that matched nothing; a name of the configuration that means nothing is told.
#[test]
fn an_exclude_that_matches_nothing_is_never_silent() {
    let cluster = Cluster::start();
    cluster.psql("postgres", TABLE);
    let dir = tempfile::tempdir().unwrap();
    let real = cluster.clients().display();
    for program in ["pg_restore", "pg_dumpall", "psql"] {
        std::os::unix::fs::symlink(cluster.clients().join(program), dir.path().join(program)).unwrap();
    }
    let script = format!(
        "#!/bin/bash\nfor a in \"$@\"; do case $a in --exclude-table-data=*) a=--exclude-table-data=no.where;; esac; b+=(\"$a\"); done\n\
         exec {real}/pg_dump \"${{b[@]}}\"\n"
    );
    fs::write(dir.path().join("pg_dump"), script).unwrap();
    fs::set_permissions(dir.path().join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    let clients = format!("clients = {{ dir = \"{}\" }}\n", dir.path().display());
    let ended = host(&cluster.url("postgres"), &clients).run(&["run"]);
    assert_eq!(ended.code, 4, "{}\n{}", ended.out, ended.err);
    let said = format!("{}{}", ended.out, ended.err);
    assert!(said.contains("rows of table `public.t` are streamed and in the archive as well"), "{said}");

    let host = host(&cluster.url("postgres"), "exclude_data = [\"public.tee\"]\n");
    let ended = host.run(&["run", "--json"]);
    assert_eq!(ended.code, 3, "{}\n{}", ended.out, ended.err);
    let told = of_source(&ended.json(), "db")["suspect"].to_string();
    assert!(told.contains("tee") && told.contains("in exclude_data names no table"), "{told}");
}

#[test]
fn a_server_that_counts_otherwise_than_it_sends_is_exit_4_and_named() {
    let cluster = Cluster::start();
    cluster.psql("postgres", TABLE);
    for (lie, words) in [
        (Lie::RowLeftOut, "table `public.t` gave 999 rows by COPY and 1000 by count(*)"),
        (Lie::OneMore, "COPY of table `public.t` gave 1000 rows, and the server says that it sent 1001"),
        (Lie::TwoInOne, "COPY of table `public.t` sent a message that is not one row"),
    ] {
        let liar = Liar::before(&cluster, lie);
        let host = host(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", liar.port), "");
        let ended = host.run(&["run"]);
        let said = format!("{}{}", ended.out, ended.err);
        assert!(ended.code == 4 && said.contains(words), "{lie:?}: {}, {said}", ended.code);
        assert_eq!(host.good(&["list", "--json"]).json()["snapshots"].as_array().unwrap().len(), 0, "{lie:?}");
    }
}

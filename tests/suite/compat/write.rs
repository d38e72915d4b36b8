//! Writes a fixture: a vault with a past, by the engine, and a present, by the program, and what must come back of it,
//! as its owner had it before: files as they were captured, tables as `psql` copies them, a dump as `pg_dump` wrote it.

use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use harness::pg::Cluster;

use super::super::host::{Host, of_source};
use super::super::past::{Files, Past, contents, host_key, let_a_day_pass, now};
use super::super::stack::files_below;
use super::{CONF, EXPECTED, IDENTITY, Reader, SIGNERS, SUMS, VAULT, same, sums};

/// Binary columns and text, an array (text format), values that need escapes, an empty table, what is not a table.
const SAMPLE: &str = "CREATE TABLE accounts (id int PRIMARY KEY, name text, opened timestamptz, balance float8);
    INSERT INTO accounts SELECT n, E'name\\t' || n, '2026-01-01'::timestamptz + n * interval '1 hour', n / 7.0
        FROM generate_series(1, 60) n;
    CREATE TABLE tags (id int REFERENCES accounts, words text[]); CREATE TABLE nothing (x int);
    INSERT INTO tags VALUES (1, ARRAY['a,b', NULL, '\"', 'ü']), (2, NULL), (3, '{}');
    CREATE VIEW rich AS SELECT id FROM accounts WHERE balance > 5; CREATE INDEX ON accounts (name);";

/// Days before today with a snapshot of the files.
const DAYS: i64 = 7;

/// Makes the vault and writes all parts of the fixture below `out`.
pub(super) async fn write(out: &Path) {
    let cluster = Cluster::start();
    cluster.psql("postgres", "CREATE DATABASE shop");
    cluster.psql("shop", SAMPLE);
    let host = Host::new();
    host.configure(&format!(
        "[vault.local]\npath = \"{VAULT}\"\nkeep = {{ within = \"3d\", min = 1 }}\n\
         [source.{CONF}]\ntype = \"files\"\npaths = [\"data\"]\ngeneration = \"1d\"\n\
         [source.db]\ntype = \"postgres\"\nurl = \"{}\"\nglobals = \"no-passwords\"\n",
        cluster.url("shop")
    ));
    let mut wanted = files_of_a_week(&host).await;

    let report = host.backup();
    let mut databases = vec![id_of(&report, "db")];
    wanted.push((id_of(&report, CONF), contents(&host.path("data"))));
    let before = copies(&host, &cluster, &databases[0]);
    host.good(&["prune", "--apply"]);
    assert_eq!(let_a_day_pass(&host.path(VAULT), &host_key(&host), 2), 2);
    cluster.psql("shop", "UPDATE accounts SET balance = 0 WHERE id = 7; INSERT INTO tags VALUES (4, '{x}')");
    fs::write(host.path("data/app.conf"), "retries = 9\n").unwrap();
    let report = host.backup();
    databases.push(id_of(&report, "db"));
    wanted.push((id_of(&report, CONF), contents(&host.path("data"))));
    let after = copies(&host, &cluster, &databases[1]);
    let dump = cluster.client("pg_dump", "shop").arg("-Fc").output().unwrap().stdout;
    fs::write(host.path("shop.dump"), &dump).unwrap();
    host.good(&["import", "shop.dump", "--source", "db"]);

    // Two generations go, with receipts; the others that expired stay announced.
    host.good(&["prune", "--apply"]);
    let (pinned, accepted) = (&databases[0], &wanted.last().unwrap().0);
    host.good(&["pin", pinned]);
    host.good(&["accept", accepted]);
    host.good(&["verify", "--identity", "ops.txt"]);

    copy_out(&host, out);
    let reader = Reader::of(out);
    for (id, source) in reader.list() {
        let found = reader.restore(&id, &source);
        if let Some((_, files)) = wanted.iter().find(|(of, _)| *of == id) {
            same(&found, files, &id);
        } else if id.contains("-imported") {
            assert!(found["archive.dump"] == dump, "the imported dump differs");
        } else {
            let copies = if id == databases[0] { &before } else { &after };
            let tables: Files = found.clone().into_iter().filter(|(name, _)| name.ends_with(".copy")).collect();
            same(&tables, copies, &id);
        }
        for (name, body) in found {
            let path = out.join(EXPECTED).join(&id).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body).unwrap();
        }
    }
    fs::write(out.join(SUMS), sums(out)).unwrap();
}

/// A snapshot a day, and what was in it.
async fn files_of_a_week(host: &Host) -> Vec<(String, Files)> {
    let data = host.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("app.conf"), "retries = 3\n").unwrap();
    fs::write(data.join("empty"), "").unwrap();
    fs::write(data.join("ünicode name.txt"), "snow ☃\n").unwrap();
    host.good(&["init"]);
    let vault: serde_json::Value =
        serde_json::from_slice(&fs::read(host.path(VAULT).join("vault.json")).unwrap()).unwrap();
    let mut past = Past::new(host, &vault["id"].as_str().unwrap().parse().unwrap(), CONF, vec![data.clone()]).await;
    let (now, mut wanted) = (now(), Vec::new());
    for day in (1..=DAYS).rev() {
        fs::write(data.join("day.txt"), format!("{day} days before\n")).unwrap();
        wanted.push((past.capture(now - TimeDelta::days(day)).await, contents(&data)));
    }
    past.write(&host.path(VAULT), now).await;
    wanted
}

fn id_of(report: &serde_json::Value, source: &str) -> String {
    of_source(report, source)["snapshot"].as_str().unwrap().to_owned()
}

/// Each table as `psql` copies it now, by the statements that a restore of the snapshot names.
fn copies(host: &Host, cluster: &Cluster, id: &str) -> Files {
    host.good(&["restore", id, "--identity", "ops.txt", "--into-dir", "statements"]);
    let mut found = Files::new();
    for (name, statement) in super::look(&host.path("statements/db"), "db") {
        let Some(stem) = name.strip_suffix(".sql").filter(|stem| stem.starts_with("copy/")) else { continue };
        let statement = String::from_utf8(statement).unwrap().replace(" FROM STDIN", " TO STDOUT");
        let mut psql = cluster.client("psql", "shop");
        let output = psql.args(["-X", "-q", "-c", "SET TimeZone = UTC", "-c", &statement]).output().unwrap();
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        found.insert(format!("{stem}.copy"), output.stdout);
    }
    assert!(found.len() >= 3, "{:?}", found.keys());
    fs::remove_dir_all(host.path("statements")).unwrap();
    found
}

fn copy_out(host: &Host, out: &Path) {
    let vault = host.path(VAULT);
    for path in files_below(&vault).into_iter().filter(|path| !path.starts_with(vault.join(".tmp"))) {
        let to = out.join(VAULT).join(path.strip_prefix(&vault).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Contents only: rights and times are no part of a fixture in a repository.
        fs::write(to, fs::read(path).unwrap()).unwrap();
    }
    fs::copy(host.path("signers"), out.join(SIGNERS)).unwrap();
    fs::write(out.join(IDENTITY), fs::read(host.path("ops.txt")).unwrap()).unwrap();
}

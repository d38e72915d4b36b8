//! Imported dumps of every format by the vault's own page, judged by stock `pg_dump`.

use std::process::Command;

use backup_core::source::postgres::ClientsOption;
use backup_core::source::postgres::import::{ImportOptions, inspect};
use harness::pg::Cluster;

use super::scene::{Scene, clock};

const SAMPLE: &str = "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, x text); CREATE TABLE u (id int REFERENCES t);
    INSERT INTO t SELECT n, '2024-01-01'::timestamptz + n * interval '1 h', E'a\\tb\\\\' || n FROM generate_series(1, 3000) n;
    INSERT INTO u SELECT n FROM generate_series(1, 10) n; CREATE INDEX ON t (x); SELECT lo_from_bytea(7, 'abc');";

fn stock(cluster: &Cluster, database: &str, arguments: &[&str]) -> String {
    let out = cluster.client("pg_dump", database).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().filter(|line| !line.contains("restrict ")).fold(String::new(), |all, line| all + line + "\n")
}

#[tokio::test]
async fn imported_dumps_come_back_by_the_vaults_own_page() {
    let Some(scene) = Scene::new().await else { return };
    let cluster = Cluster::start();
    scene.link_clients(cluster.clients());
    cluster.psql("postgres", "CREATE DATABASE \"the \"\"old\"\" one\"");
    let name = "the \"old\" one";
    cluster.psql(name, SAMPLE);
    let before = stock(&cluster, name, &[]);
    assert!(before.contains("CREATE INDEX") && before.contains("2024-01-01"));
    let port = cluster.port().to_string();
    let server =
        [("PGHOST", "127.0.0.1"), ("PGPORT", port.as_str()), ("PGUSER", "postgres"), ("RECOVER_INTO_SERVER", "yes")];
    let dumps = [("custom", &["-Fc"][..]), ("directory", &["-Fd"]), ("tar", &["-Ft"]), ("plain", &["-Fp"])];
    for (at, (format, arguments)) in dumps.into_iter().enumerate() {
        let file = scene.path(format);
        stock(&cluster, name, &[arguments, &["-f", file.to_str().unwrap()]].concat());
        // The last is of tomorrow: no date makes an import the newest.
        let (now, ahead) = (clock().now(), chrono::TimeDelta::days(1));
        let options = ImportOptions {
            path: file,
            clients: ClientsOption::Dir(cluster.clients().to_owned()),
            at: Some(if format == "plain" { now + ahead } else { now - ahead * (1000 - i32::try_from(at).unwrap()) }),
            timezone: chrono_tz::Tz::UTC,
            now: now + ahead,
            database: name.to_owned(),
        };
        let dump = inspect(options).await.unwrap();
        assert_eq!(dump.format().word(), format);
        scene.backup("old", &dump).await;
    }
    cluster.psql("postgres", "ALTER DATABASE \"the \"\"old\"\" one\" RENAME TO original");
    let copy = scene.copy_of_vault();
    let listed = Command::new("find").arg(copy.join("shop/old")).args(["-name", "*-imported.json"]).output().unwrap();
    let mut ids: Vec<String> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(|path| path.rsplit('/').next().unwrap().trim_end_matches(".json").to_owned())
        .collect();
    ids.sort();
    assert_eq!(ids.len(), dumps.len());
    for (n, id) in ids.iter().enumerate() {
        let recovered = scene.recover(&copy, "old", &scene.path(&format!("out {n}")), &[id], &server);
        recovered.succeeds();
        assert!(recovered.stderr().contains(&format!("database {name} is restored")), "{}", recovered.stderr());
        assert!(stock(&cluster, name, &[]) == before, "{id} differs");
        cluster.psql("postgres", "DROP DATABASE \"the \"\"old\"\" one\"");
    }

    // Without a name: the newest import, and a capture before any import, whatever their dates.
    let newest = scene.recover(&copy, "old", &scene.path("newest"), &[], &[]);
    newest.succeeds();
    assert!(newest.stderr().contains(ids.last().unwrap().as_str()), "{}", newest.stderr());
    let files = scene.path("files");
    std::fs::create_dir(&files).unwrap();
    let captured = scene.backup("old", &backup_core::source::files::FilesOptions::new(vec![files])).await;
    let captured = captured.snapshot.doc.id;
    let renamed = scene.copy_of_vault();
    let chosen = scene.recover(&renamed, "old", &scene.path("chosen"), &[], &[]);
    chosen.succeeds();
    assert!(chosen.stderr().contains(captured.as_str()), "{}", chosen.stderr());
}

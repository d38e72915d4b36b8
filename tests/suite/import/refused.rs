//! What is no whole dump is refused and leaves nothing; what cannot be restored is said before anything starts; what comes
//! back differently is a difference.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::scene::{DUMPS, Scene};

/// Nothing of source `db` is listed.
#[track_caller]
fn nothing_was_committed(scene: &Scene) {
    assert_eq!(scene.stack.ids("db"), Vec::<String>::new());
}

fn cut(from: &Path, to: &Path, keep: impl Fn(usize) -> usize) {
    let bytes = fs::read(from).unwrap();
    fs::write(to, &bytes[..keep(bytes.len())]).unwrap();
}

#[test]
fn a_dump_that_is_cut_or_altered_is_refused_and_nothing_is_committed() {
    let scene = Scene::new();
    let bad = scene.stack.path("bad");
    let refused = |what: &str, words: &str| {
        let out = scene.import(&bad, &["--at", "2024-05-01"]).expect(4);
        assert!(out.stderr.contains(words) && out.stderr.contains("hint: "), "{what}: {}", out.stderr);
        scene.import(&bad, &["--at", "2024-05-01", "--dry-run"]).expect(4);
    };
    for (name, arguments, format) in DUMPS {
        let file = scene.dump(name, arguments);
        if format == "directory" {
            fs::remove_file(&bad).unwrap();
            fs::create_dir(&bad).unwrap();
            for entry in fs::read_dir(&file).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), bad.join(entry.file_name())).unwrap();
            }
            let rows = fs::read_dir(&bad).unwrap().map(|entry| entry.unwrap().path());
            let rows = rows
                .filter(|path| path.to_str().unwrap().ends_with(".dat.gz"))
                .max_by_key(|path| path.metadata().unwrap().len());
            let rows = rows.unwrap();
            let whole = fs::read(&rows).unwrap();
            fs::write(&rows, &whole[..whole.len() / 2]).unwrap();
            refused("half a file of rows", "is damaged or cut short");
            fs::remove_file(&rows).unwrap();
            refused("no file of rows", "is damaged or cut short");
            fs::remove_dir_all(&bad).unwrap();
            continue;
        }
        cut(&file, &bad, |length| length / 2);
        refused(name, "is damaged or cut short");
        // Of a plain dump the remarks behind the last statement, of a tar its end mark.
        let last = |length: usize| {
            length
                - if name == "app.sql" {
                    150
                } else if format == "tar" {
                    600
                } else {
                    1
                }
        };
        cut(&file, &bad, last);
        refused(name, "is damaged or cut short");
        if name != "app.sql" && format != "tar" {
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.len() * 3 / 4;
            bytes[at] ^= 0x10;
            fs::write(&bad, bytes).unwrap();
            refused(name, "is damaged or cut short");
        }
    }
    nothing_was_committed(&scene);
}

#[test]
fn what_is_no_dump_and_what_a_restore_could_not_do_is_refused_with_advice() {
    let scene = Scene::new();
    let file = scene.stack.path("file");
    let refused = |code: i32, words: &str, hint: &str| {
        let out = scene.import(&file, &[]).expect(code);
        let (error, advice) = out.stderr.split_once("hint: ").unwrap();
        assert!(error.contains(words) && advice.contains(hint), "{}", out.stderr);
    };
    refused(2, "cannot read", "check the path");
    for (content, words) in [
        (&b""[..], "it is empty"),
        (b"hello\n", "does not begin with"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh9", "bzip2"),
        (b"PK\x03\x04", "zip"),
    ] {
        fs::write(&file, content).unwrap();
        refused(2, words, "");
    }
    let custom = scene.dump("app.dump", &["-Fc"]);
    fs::write(&file, Command::new("gzip").arg("-c").arg(&custom).output().unwrap().stdout).unwrap();
    refused(2, "custom-format archive that somebody compressed", "unpack it first");
    let tar = Command::new("tar").args(["-c", "-C"]).arg(scene.stack.path("data")).arg(".").output().unwrap();
    fs::write(&file, tar.stdout).unwrap();
    refused(2, "none that `pg_dump -Ft` wrote", "unpack");
    let cluster = scene.stack.pg.client("pg_dumpall", "postgres").output().unwrap();
    fs::write(&file, cluster.stdout).unwrap();
    refused(2, "`pg_dumpall`", "each database");
    let created = scene.stack.pg.client("pg_dump", "app").arg("--create").output().unwrap();
    fs::write(&file, created.stdout).unwrap();
    refused(2, "`\\connect` to psql", "--create");
    let plain = fs::read_to_string(scene.dump("app.sql", &[])).unwrap();
    fs::write(&file, plain.replace("SET lock_timeout = 0;", "SELECT 1 \\! touch /nowhere")).unwrap();
    refused(2, "`\\!` to psql", "");
    // A header of a version that nobody knows yet.
    let mut newer = fs::read(&custom).unwrap();
    newer[6] = 99;
    fs::write(&file, newer).unwrap();
    refused(1, "newer `pg_dump`", "install");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused(2, "without `toc.dat`", "");
    let folder = scene.dump("app.dir", &["-Fd"]);
    fs::write(folder.join("note for me.txt"), "x").unwrap();
    fs::remove_dir(&file).unwrap();
    fs::rename(folder, &file).unwrap();
    refused(2, "`note for me.txt`", "nothing else");

    let path = custom.to_str().unwrap();
    let docs = scene.stack.backup(&["import", path, "--source", "docs"]).expect(2);
    assert!(docs.stderr.contains("type `files`"), "{}", docs.stderr);
    scene.stack.backup(&["import", path, "--source", "none"]).expect(2);
    scene.import(&custom, &["--vault", "none"]).expect(2);
    nothing_was_committed(&scene);
    scene.import(&custom, &["--at", "2024-05-01"]).expect(0);
    let again = scene.import(&custom, &["--at", "2024-05-01"]).expect(2);
    assert!(again.stderr.contains("already") && again.stderr.contains("--at"), "{}", again.stderr);

    // Nobody keeps roles in such a dump: one that is missing is told before anything is made.
    scene.stack.pg.psql("postgres", "ALTER ROLE \"car ol\" RENAME TO carol");
    let missing = scene.restore(&["--source", "db", "--into", "back"]).expect(2);
    assert!(missing.stderr.contains("role `car ol` is missing here"), "{}", missing.stderr);
    assert_eq!(scene.stack.pg.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'back'").trim(), "0");
}

#[test]
fn what_comes_back_differently_is_a_difference_and_leaves_no_database() {
    let scene = Scene::new();
    let plain = fs::read_to_string(scene.dump("app.sql", &[])).unwrap();
    let end = "--\n-- PostgreSQL database dump complete";
    for (day, change, with_counts) in
        [("01", "UPDATE ONLY public.parent SET x = 9;", 0), ("02", "DELETE FROM ONLY public.parent;", 4)]
    {
        let file = scene.stack.path("changed.sql");
        fs::write(&file, plain.replace(end, &format!("{change}\n{end}"))).unwrap();
        let at = format!("2024-05-{day}T00:00:00Z");
        let id = scene.import(&file, &["--at", &at, "--json"]).expect(0).json();
        let id = id["snapshot"].as_str().unwrap();
        let out = scene.restore(&[id, "--into", "back"]).expect(4);
        assert!(out.all().contains("`public.parent`") && !out.all().contains("`public.child`"), "{}", out.all());
        assert_eq!(
            scene.stack.pg.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'back'").trim(),
            "0"
        );
        scene.restore(&[id, "--into", "back", "--verify", "counts"]).expect(with_counts);
        scene.stack.pg.psql("postgres", "DROP DATABASE IF EXISTS back");
    }
    // A statement that the server refuses ends it.
    let file = scene.stack.path("refused.sql");
    fs::write(&file, plain.replace(end, &format!("SELECT 1 / 0;\n{end}"))).unwrap();
    scene.import(&file, &["--at", "2024-05-03"]).expect(0);
    let out = scene.restore(&["--source", "db", "--at", "2024-05-03", "--into", "back"]).expect(1);
    assert!(out.all().contains("division by zero"), "{}", out.all());
    assert_eq!(scene.stack.pg.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'back'").trim(), "0");
}

#[test]
fn rows_in_insert_statements_come_back_and_are_said_not_to_be_counted() {
    let scene = Scene::new();
    let before = scene.picture("app");
    for (day, arguments) in [("01", &["--inserts"][..]), ("02", &["--inserts", "-Fc"])] {
        let file = scene.dump("inserts", arguments);
        let at = format!("2024-05-{day}T00:00:00Z");
        let out = scene.import(&file, &["--at", &at, "--json"]).expect(3).json();
        let suspect = out["suspect"].as_array().unwrap();
        assert!(
            suspect.iter().any(|why| why.as_str().unwrap().contains("`public.parent` has its rows in INSERT")),
            "{out:#}"
        );
        assert_eq!(out["rows"], 0);
        let id = out["snapshot"].as_str().unwrap();
        assert!(id.ends_with("-imported-suspect"), "{id}");
        let into = format!("back_{day}");
        scene.restore(&[id, "--into", &into]).expect(0);
        assert!(scene.picture(&into) == before, "{}", super::scene::differences(&before, &scene.picture(&into)));
    }
}

//! The main job from outside: what was captured comes back, from any vault, by any way of naming it, into any place.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::pg::{Cluster, SUPERUSER};
use serde_json::Value;

use super::host::{of_source, stored};
use super::stack::{DATABASE, Out, PASSWORD, Stack, files_below};

/// `backup restore` with the operator's identity, for programs.
fn restore(stack: &Stack, args: &[&str]) -> Out {
    let ops = stack.text("operator/ops.txt");
    stack.backup(&[&["restore", "--identity", &ops, "--json"], args].concat())
}

/// A source's part of a restore's proof; everything in it must be equal.
#[track_caller]
fn proof(out: &Out, source: &str) -> Value {
    let document = out.json();
    assert_eq!(document["complete"], true, "{document:#}");
    let proof = of_source(&document, source).clone();
    assert_eq!(proof["restored"], true, "{proof:#}");
    let all = ["tables", "files"].iter().filter_map(|part| proof[part].as_array()).flatten();
    let equal: Vec<bool> = all.map(|one| one["equal"].as_bool().unwrap()).collect();
    assert!(!equal.is_empty() && equal.iter().all(|equal| *equal), "{proof:#}");
    proof
}

/// The report of a run that must be done.
#[track_caller]
fn run(stack: &Stack) -> Value {
    stack.backup(&["run", "nightly", "--json"]).expect(0).json()
}

fn snapshot_of(report: &Value, source: &str) -> String {
    of_source(report, source)["snapshot"].as_str().unwrap().to_owned()
}

/// What a database says about itself: every row of every table, as one hash each.
fn described(cluster: &Cluster, database: &str) -> String {
    let sql = "SELECT 'events', md5(string_agg(e::text, ',' ORDER BY id)) FROM events e UNION ALL
        SELECT 'users', md5(string_agg(u::text, ',' ORDER BY id)) FROM users u UNION ALL
        SELECT 'orders', md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o UNION ALL
        SELECT 'view', count(*)::text FROM big_orders UNION ALL
        SELECT 'key', string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
          AND contype IN ('p', 'f', 'u')";
    cluster.psql(database, sql)
}

fn databases(cluster: &Cluster) -> Vec<String> {
    let names = cluster.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1");
    names.lines().map(str::to_owned).collect()
}

/// The content of every file below a folder, by its path in it.
fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &Path| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
    files_below(dir).into_iter().map(|path| (name(&path), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_second_run_over_unchanged_data_stores_next_to_nothing() {
    let stack = Stack::ready();
    let empty = stored(&stack.vault("local"));
    let first = run(&stack);
    let after_first = stored(&stack.vault("local"));
    let second = run(&stack);
    let after_second = stored(&stack.vault("local"));
    let added = |report: &Value, source: &str| of_source(report, source)["added_bytes"].as_u64().unwrap();
    for source in ["db", "docs"] {
        let (one, two) = (added(&first, source), added(&second, source));
        println!("{source}: {one} bytes, then {two}");
        assert!(one > 1_000_000 && two * 100 < one, "{source}: {one} bytes, then {two}");
    }
    let (one, two) = (after_first - empty, after_second - after_first);
    println!("on disk: {one} bytes, then {two}");
    assert!(two > 0 && two * 100 < one, "on disk: {one} bytes, then {two}");
    // Changed data is stored: the measure is not always nothing.
    stack.pg.psql(DATABASE, "UPDATE events SET body = md5(body) || md5(kind || id) || md5(body || id)");
    let third = run(&stack);
    assert!(added(&third, "db") * 2 > added(&first, "db"), "{third:#}");
}

#[test]
fn everything_comes_back_into_a_second_cluster_with_its_roles() {
    let stack = Stack::new();
    let roles = "CREATE ROLE app_owner; CREATE ROLE app_user LOGIN PASSWORD 'app-user-s3cret' IN ROLE app_owner;
        ALTER TABLE orders OWNER TO app_owner; GRANT SELECT ON users TO app_user;
        ALTER DATABASE app SET work_mem = '7MB';";
    stack.pg.psql(DATABASE, roles);
    stack.init();
    run(&stack);
    let before = described(&stack.pg, DATABASE);
    let second = Cluster::start();
    let out = restore(&stack, &["--latest", "--source", "db", "--into", &second.url("app_back")]).expect(0);
    let proof = proof(&out, "db");
    assert_eq!(proof["tables"].as_array().unwrap().len(), 3, "{proof:#}");
    let created = proof["created_roles"].to_string();
    for role in ["app_owner", "app_user", "backup"] {
        assert!(created.contains(&format!("\"{role}\"")), "{created}");
    }
    assert_eq!(described(&second, "app_back"), before);
    let facts = "SELECT tableowner FROM pg_tables WHERE tablename = 'orders';
        SELECT pg_has_role('app_user', 'app_owner', 'member'), has_table_privilege('app_user', 'users', 'SELECT');
        SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'app_user'; SHOW work_mem;";
    assert_eq!(second.psql("app_back", facts), "app_owner\nt|t\nt\n7MB");
    // The very password, not just any.
    let hash = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app_user'";
    assert_eq!(second.psql("postgres", hash), stack.pg.psql("postgres", hash));
}

#[test]
fn an_older_snapshot_is_found_by_time_by_id_and_by_run() {
    let stack = Stack::ready();
    let first = run(&stack);
    std::thread::sleep(Duration::from_millis(2100));
    stack.pg.psql(DATABASE, "UPDATE users SET name = 'changed ' || id; DELETE FROM orders WHERE id > 1000");
    fs::write(stack.path("data/notes.txt"), "changed\n").unwrap();
    let second = run(&stack);
    let (old, new) = (snapshot_of(&first, "db"), snapshot_of(&second, "db"));
    let instant = |id: &str| -> chrono::DateTime<chrono::Utc> {
        let shown = stack.backup(&["show", id, "--json"]).expect(0).json();
        shown["snapshot"]["instant"].as_str().unwrap().parse().unwrap()
    };
    // Of both sources: on a busy machine the second one is captured seconds after the first.
    let latest = instant(&old).max(instant(&snapshot_of(&first, "docs")));
    let between = (latest + chrono::TimeDelta::seconds(1)).to_rfc3339();
    let before = (instant(&old) - chrono::TimeDelta::hours(1)).to_rfc3339();
    let shown = stack.backup(&["show", &new, "--json"]).expect(0).json();
    let after = shown["snapshot"]["instant"].as_str().unwrap().to_owned();
    let short = old.split('-').nth(2).unwrap();
    let job = first["run"].as_str().unwrap();
    let ways: [(&[&str], &str); 6] = [
        (&["--at", &between], &old),
        (&["--at", &after], &new),
        (&[&old], &old),
        (&[short], &old),
        (&["--run", job], &old),
        (&["--latest"], &new),
    ];
    for (at, (way, wanted)) in ways.into_iter().enumerate() {
        let name = format!("way_{at}");
        let only: &[&str] = if way[0].starts_with("--") { &["--source", "db"] } else { &[] };
        let out = restore(&stack, &[way, only, &["--into", &name]].concat()).expect(0);
        assert_eq!(proof(&out, "db")["snapshot"], *wanted, "{way:?}");
        let changed = stack.pg.psql(&name, "SELECT count(*) FROM users WHERE name LIKE 'changed%'");
        let orders = stack.pg.psql(&name, "SELECT count(*) FROM orders");
        let expected = if wanted == old { ("0", "2000") } else { ("500", "1000") };
        assert_eq!((changed.as_str(), orders.as_str()), expected, "{way:?}");
    }
    let out = restore(&stack, &["--at", &between, "--source", "docs", "--into-dir", &stack.text("old")]).expect(0);
    proof(&out, "docs");
    let notes = files_below(&stack.path("old")).into_iter().find(|path| path.ends_with("notes.txt")).unwrap();
    assert_eq!(fs::read_to_string(notes).unwrap(), "what the stack wrote\n");
    assert_eq!(restore(&stack, &["--at", &before, "--source", "db", "--into", "nothing"]).code, 2, "none is so old");
    assert_eq!(restore(&stack, &["--at", "2999-01-01", "--source", "db", "--into", "nothing"]).code, 2, "not yet");
    assert_eq!(restore(&stack, &["--run", "20000101T000000Z-abcdef", "--into", "nothing"]).code, 2);
    assert_eq!(restore(&stack, &["zzzzzz", "--into", "nothing"]).code, 2);
    assert!(!databases(&stack.pg).contains(&"nothing".to_owned()));
}

#[test]
fn a_database_is_refused_put_beside_replaced_or_brought_back_in_part() {
    let stack = Stack::ready();
    run(&stack);
    let good = described(&stack.pg, DATABASE);
    let there = databases(&stack.pg);
    stack.pg.psql(DATABASE, "DELETE FROM orders; UPDATE users SET name = 'wrong ' || id");
    let wrong = described(&stack.pg, DATABASE);

    // Where it is already: refused, and what to do is said.
    for (more, replaces) in [(&[][..], true), (&["--into", DATABASE], false)] {
        let refused = restore(&stack, &[&["--latest", "--source", "db"], more].concat()).expect(2);
        let says = |what: &str| refused.stderr.contains(what);
        // Whoever named a database must not be led to replace the source's own.
        assert!(says("--into") && says("--replace") == replaces, "{}", refused.stderr);
    }
    let unasked = restore(&stack, &["--latest", "--source", "db", "--replace"]).expect(2);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    assert_eq!((databases(&stack.pg), described(&stack.pg, DATABASE)), (there.clone(), wrong.clone()));

    // Beside it; a second time it is in the way.
    proof(&restore(&stack, &["--latest", "--source", "db", "--into", "beside"]).expect(0), "db");
    assert_eq!(described(&stack.pg, "beside"), good);
    restore(&stack, &["--latest", "--source", "db", "--into", "beside"]).expect(2);
    assert_eq!(described(&stack.pg, DATABASE), wrong, "not touched");

    // One table, and the command that brings its rows back into the live one.
    restore(&stack, &["--latest", "--source", "db", "--table", "public.orders"]).expect(2);
    let part = restore(&stack, &["--latest", "--source", "db", "--table", "public.orders", "--into", "part"]).expect(0);
    let part = proof(&part, "db");
    assert_eq!(part["tables"].as_array().unwrap().len(), 1, "{part:#}");
    assert_eq!(stack.pg.psql("part", "SELECT count(*) FROM orders"), "2000");
    // Other tables come back empty: their definitions may be needed.
    assert_eq!(stack.pg.psql("part", "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM users)"), "0|0");
    let command = part["bring_back"][0].as_str().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", command]).env_clear().env("PGHOST", "127.0.0.1").env("PGUSER", "backup");
    shell.env("PGPORT", stack.pg.port().to_string()).env("PGPASSWORD", PASSWORD);
    shell.env("PATH", format!("{}:/usr/bin:/bin", stack.pg.clients().display()));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stack.pg.psql(DATABASE, "SELECT count(*), sum(amount) FROM orders"), "2000|2501250.00");

    // In its place; the old one is kept, with what was wrong in it.
    let wrong = described(&stack.pg, DATABASE);
    let replaced = restore(&stack, &["--latest", "--source", "db", "--replace", "--yes"]).expect(0);
    let replaced = proof(&replaced, "db");
    let kept = replaced["replaced"].as_str().unwrap();
    assert!(kept.starts_with("app") && kept != DATABASE && kept.contains("20"), "{kept}");
    assert_eq!((described(&stack.pg, DATABASE), described(&stack.pg, kept)), (good, wrong));
    assert!(!databases(&stack.pg).iter().any(|name| name.contains("restoring")), "{:?}", databases(&stack.pg));
}

#[test]
fn files_come_back_in_part_and_in_their_place() {
    let stack = Stack::ready();
    let good = contents(&stack.path("data"));
    run(&stack);
    fs::write(stack.path("data/notes.txt"), "wrong\n").unwrap();
    fs::remove_file(stack.path("data/sub/model.bin")).unwrap();
    let wrong = contents(&stack.path("data"));

    let model = stack.text("data/sub/model.bin");
    let args = ["--latest", "--source", "docs", "--path", &model, "--into-dir", &stack.text("part")];
    let part = proof(&restore(&stack, &args).expect(0), "docs");
    assert_eq!(part["files"].as_array().unwrap().len(), 1, "{part:#}");
    let found = files_below(&stack.path("part"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(fs::read(&found[0]).unwrap(), good.iter().find(|(name, _)| name == "sub/model.bin").unwrap().1);
    assert_ne!(restore(&stack, &args).code, 0, "a folder that is not empty");
    let absent = stack.text("data/absent");
    let args = ["--latest", "--source", "docs", "--path", &absent, "--into-dir", &stack.text("absent")];
    assert_ne!(restore(&stack, &args).code, 0, "a path that was not captured");

    assert_eq!(restore(&stack, &["--latest", "--source", "docs"]).code, 2, "they are there");
    assert_eq!(contents(&stack.path("data")), wrong);
    let out = restore(&stack, &["--latest", "--source", "docs", "--replace", "--yes"]).expect(0);
    let replaced = proof(&out, "docs");
    assert_eq!(contents(&stack.path("data")), good);
    let old = replaced["placed"][0]["old"].as_str().unwrap();
    assert_eq!(contents(Path::new(old)), wrong, "kept as {old}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let stack = Stack::new();
    let ops = stack.text("operator/ops.txt");
    let everything = || {
        let mut all = Vec::new();
        for place in ["etc", "data", "operator", "local", "state", "back"] {
            if stack.path(place).exists() {
                all.push((place.to_owned(), Vec::new()));
                let changed = |(name, _): &(String, Vec<u8>)| !name.ends_with("-wal") && !name.ends_with("-shm");
                all.extend(contents(&stack.path(place)).into_iter().filter(changed));
            }
        }
        (all, contents(&stack.s3.files()), databases(&stack.pg))
    };
    let before = everything();
    stack.backup(&["init", "--dry-run"]).expect(0);
    assert!(everything() == before, "init");
    stack.init();
    let before = everything();
    stack.backup(&["run", "nightly", "--dry-run"]).expect(0);
    assert!(everything() == before, "run");
    run(&stack);
    fs::rename(stack.path("local"), stack.path("away")).unwrap();
    stack.backup(&["run", "nightly"]).expect(3);
    fs::rename(stack.path("away"), stack.path("local")).unwrap();
    // A process may end before its state's journal is in the main file: whoever is next then puts it there.
    for _ in 0..50 {
        if fs::metadata(stack.path("state/state.sqlite-wal")).map_or(0, |wal| wal.len()) == 0 {
            break;
        }
        stack.backup(&["runs"]).expect(0);
    }
    let before = everything();
    let back = stack.text("back");
    for args in [
        &["replicate", "--dry-run"][..],
        &["prune"],
        &["restore", "--latest", "--source", "db", "--into", "new", "--identity", &ops, "--dry-run"],
        &["restore", "--latest", "--source", "db", "--replace", "--identity", &ops, "--dry-run"],
        &["restore", "--latest", "--source", "docs", "--replace", "--identity", &ops, "--dry-run"],
        &["restore", "--latest", "--into-dir", &back, "--identity", &ops, "--dry-run"],
    ] {
        let out = stack.backup(args).expect(0);
        assert!(everything() == before, "{args:?} {}", out.all());
    }
    // It is not that nothing would have been done, or that nothing would have been seen.
    stack.backup(&["replicate"]).expect(0);
    assert!(everything() != before);
}

#[test]
fn a_vault_that_was_away_is_filled_later() {
    let stack = Stack::ready();
    fs::rename(stack.path("local"), stack.path("away")).unwrap();
    let out = stack.backup(&["run", "nightly", "--json"]).expect(3);
    let report = out.json();
    assert_eq!((&report["vault"], &report["outcome"]), (&"offsite".into(), &"partial".into()), "{report:#}");
    assert_eq!(report["failed_vaults"][0]["vault"], "local");
    let ids = [snapshot_of(&report, "db"), snapshot_of(&report, "docs")];
    assert!(!stack.path("local").exists(), "a missing vault is not made anew");
    let state = |id: &str| {
        let listed = stack.backup(&["list", "--json"]).json();
        let found = listed["snapshots"].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
        (found["state"].as_str().unwrap().to_owned(), found["vaults"].clone())
    };
    assert_eq!(state(&ids[0]), ("stored".to_owned(), serde_json::json!(["offsite"])));
    fs::rename(stack.path("away"), stack.path("local")).unwrap();
    run(&stack);
    for id in &ids {
        let (state, vaults) = state(id);
        assert_eq!((state.as_str(), vaults.as_array().unwrap().len()), ("replicated", 2), "{id}");
    }
    // From the vault that was away alone.
    let out = restore(&stack, &[&ids[0], "--vault", "local", "--into", "back"]).expect(0);
    assert_eq!(proof(&out, "db")["snapshot"], *ids[0]);
    assert_eq!(described(&stack.pg, "back"), described(&stack.pg, DATABASE));
}

#[test]
fn what_is_damaged_in_one_vault_is_taken_from_the_other() {
    let stack = Stack::ready();
    let report = run(&stack);
    let data = contents(&stack.path("data"));
    let damage = |files: &[std::path::PathBuf], what: &str| {
        let hit: Vec<_> = files.iter().filter(|path| path.to_str().unwrap().contains(what)).collect();
        assert!(!hit.is_empty(), "no {what}");
        let good: Vec<Vec<u8>> = hit.iter().map(|path| fs::read(path).unwrap()).collect();
        for (path, good) in hit.iter().zip(&good) {
            let mut bad = good.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 1;
            fs::write(path, bad).unwrap();
        }
        hit.into_iter().cloned().zip(good).collect::<Vec<_>>()
    };
    // Every object, then the document: the plan can be read in one case only.
    for (at, what) in ["/objects/", ".json"].into_iter().enumerate() {
        let mut good = damage(&stack.vault_files("local", "docs"), what);
        good.extend(damage(&stack.vault_files("local", "db"), what));
        let back = stack.text(&format!("back{at}"));
        let out = restore(&stack, &["--latest", "--source", "docs", "--into-dir", &back]).expect(0);
        proof(&out, "docs");
        let found = contents(Path::new(&back));
        let same = |(name, bytes): &(String, Vec<u8>)| {
            found.iter().any(|(path, found)| path.ends_with(name) && found == bytes)
        };
        assert!(found.len() == data.len() && data.iter().all(same), "{what}");
        assert!(out.stderr.contains("warning") && out.stderr.contains("local"), "{what}: {}", out.stderr);
        let out = restore(&stack, &["--latest", "--source", "db", "--into", &format!("back{at}")]).expect(0);
        assert_eq!(proof(&out, "db")["snapshot"], *snapshot_of(&report, "db"));
        assert_eq!(described(&stack.pg, &format!("back{at}")), described(&stack.pg, DATABASE));
        // From the damaged one alone nothing comes back.
        let alone = restore(&stack, &["--latest", "--source", "db", "--vault", "local", "--into", "alone"]);
        assert_eq!(alone.code, 4, "{what}: {}", alone.all());
        assert!(!databases(&stack.pg).contains(&"alone".to_owned()));
        for (path, bytes) in good {
            fs::write(path, bytes).unwrap();
        }
    }
    // Some objects only, in the middle of a table: both vaults give their part.
    let objects: Vec<_> =
        stack.vault_files("local", "db").into_iter().filter(|p| p.to_str().unwrap().contains("/objects/")).collect();
    let last = objects.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::remove_file(last).unwrap();
    let out = restore(&stack, &["--latest", "--source", "db", "--into", "mended"]).expect(0);
    proof(&out, "db");
    assert!(out.stderr.contains("taken from vault `offsite`"), "{}", out.stderr);
    assert_eq!(described(&stack.pg, "mended"), described(&stack.pg, DATABASE));
    // Damaged in both: a failure, and nothing that looks whole.
    let other = stack.vault_files("offsite", "db").into_iter().find(|path| path.file_name() == last.file_name());
    fs::write(other.unwrap(), "damaged").unwrap();
    let failed = restore(&stack, &["--latest", "--source", "db", "--into", "lost"]);
    assert_eq!(failed.code, 4, "{}", failed.all());
    assert!(!databases(&stack.pg).iter().any(|name| name.contains("lost")), "{:?}", databases(&stack.pg));
}

#[test]
fn a_restore_needs_an_address_a_signer_and_an_identity_only() {
    let stack = Stack::ready();
    run(&stack);
    let (data, rows) = (contents(&stack.path("data")), described(&stack.pg, DATABASE));
    let keys = stack.backup(&["key", "list", "--json"]).expect(0).json();
    let signer = keys["host_key"]["fingerprint"].as_str().unwrap().to_owned();
    let ops = stack.text("operator/ops.txt");
    // A copy of the directory elsewhere, as if the disk were in another machine; the S3 vault where it is.
    let elsewhere = stack.path("elsewhere");
    let copied = Command::new("cp").arg("-a").arg(stack.path("local")).arg(&elsewhere).status().unwrap();
    assert!(copied.success());
    let bucket = &stack.s3.bucket;
    let s3 = format!("s3+{}/{}/v?region={}", bucket.endpoint, bucket.bucket, bucket.region);
    for lost in ["etc", "state", "local"] {
        fs::remove_dir_all(stack.path(lost)).unwrap();
    }
    let second = Cluster::start();
    let bare = |args: &[&str]| {
        let mut command = stack.command(args);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(stack.path("operator"));
        command.env("AWS_ACCESS_KEY_ID", &bucket.access_key).env("AWS_SECRET_ACCESS_KEY", &bucket.secret_key);
        super::host::Ended::of(command.output().unwrap())
    };
    for (name, address) in [("from_dir", elsewhere.to_str().unwrap()), ("from_s3", &s3)] {
        let back = stack.text(name);
        let given = ["restore", "--latest", "--json", "--vault", address, "--stack", "s", "--identity", &ops];
        let url = second.url(name);
        let whole = [&given[..], &["--signer", &signer, "--into", &url, "--into-dir", &back]].concat();
        let ended = bare(&whole);
        assert_eq!(ended.code, 0, "{}\n{}", ended.out, ended.err);
        let out = Out { code: 0, stdout: ended.out, stderr: ended.err };
        proof(&out, "db");
        proof(&out, "docs");
        assert_eq!(described(&second, name), rows, "{address}");
        let found = contents(Path::new(&back));
        assert!(found.len() == data.len(), "{found:?}");
        for (path, bytes) in &data {
            assert!(found.iter().any(|(found, content)| found.ends_with(path) && content == bytes), "{path}");
        }
        // Whom to believe must be said, and it must be the one.
        assert_eq!(bare(&[&given[..], &["--into-dir", &stack.text("never")]].concat()).code, 12, "no signer");
        let stranger = format!("SHA256:{}", "A".repeat(43));
        let ended = bare(&[&given[..], &["--signer", &stranger, "--into-dir", &stack.text("never")]].concat());
        assert!(ended.code == 4 || ended.code == 12, "{} {}", ended.code, ended.err);
        assert!(!stack.path("never").exists());
    }
    assert_eq!(second.psql("postgres", &format!("SELECT count(*) FROM pg_roles WHERE rolname = '{SUPERUSER}'")), "1");
}

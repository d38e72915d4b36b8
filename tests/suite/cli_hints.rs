//! Every hint is a command that works when it is typed, and no verb claims what it did not see: by the real binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use harness::tools::Tmpfs;

use super::host::{Host, OPERATORS};

fn mode(host: &Host, name: &str, mode: u32) {
    fs::set_permissions(host.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_hint_names_what_was_given_and_a_verb_that_shows_it() {
    let host = Host::with_two_vaults();
    let identity = ["--identity", OPERATORS[0]];
    fs::create_dir(host.path("full")).unwrap();
    fs::create_dir(host.path("full/docs")).unwrap();
    fs::write(host.path("full/docs/x"), "x").unwrap();
    for (args, hint) in [
        (&["restore", "--latest", "--path", "h.txt", "--into-dir", "new"][..], "`backup show ID --identity FILE`"),
        (&["restore", "--latest", "--into-dir", "full"], "name another folder with `--into-dir DIR`"),
        (&["restore", "--run", "2026", "--into-dir", "new"], "the run's whole id, as `backup runs` shows it"),
    ] {
        let ended = host.run(&[args, &identity].concat());
        assert!(ended.code == 2 && ended.err.contains(hint), "{args:?} {ended:?}");
    }
    for args in [&["--config", "nope.toml", "status"][..], &["status", "--config", "nope.toml"]] {
        let ended = host.run(args);
        assert!(ended.code == 2 && ended.err.contains("hint: name the right file with `--config FILE`"), "{ended:?}");
    }

    // Whoever lost the file of signers has a host key, and must not make a second one.
    let signers = fs::read(host.path("signers")).unwrap();
    fs::remove_file(host.path("signers")).unwrap();
    let lost = host.run(&["status"]);
    assert!(lost.code == 12 && lost.err.contains("`backup key list` prints it"), "{lost:?}");
    let names = host.run(&["list"]);
    assert!(names.code == 12 && names.err.contains("nobody is believed") && names.out.contains("docs"), "{names:?}");
    assert!(!lost.err.contains("key new"), "{lost:?}");
    let listed = host.run(&["key", "list"]);
    assert!(listed.out.contains("namespaces=\"backup.*\" ssh-ed25519 "), "{listed:?}");
    // Another one's key: the hint of a restore by ID does not say to name an ID.
    fs::write(host.path("signers"), signers).unwrap();
    let key = fs::read_to_string(host.path("signers")).unwrap();
    host.good(&["key", "new", "--host", "other"]);
    let other = fs::read_to_string(host.path("other.pub")).unwrap();
    let other: Vec<&str> = other.split_whitespace().take(2).collect();
    let listed = host.good(&["list", "--json"]).json();
    let snapshot =
        listed["snapshots"][0]["id"].as_str().or(listed["snapshots"][0]["snapshot"].as_str()).unwrap().to_owned();
    fs::write(host.path("signers"), format!("backup namespaces=\"backup.*\" {}\n", other.join(" "))).unwrap();
    let stranger = host.run(&[&["restore", snapshot.as_str(), "--into-dir", "new"], &identity[..]].concat());
    assert!(stranger.code == 12 && stranger.err.contains("--signer SHA256:…"), "{stranger:?}");
    assert!(!stranger.err.contains("or name an ID"), "{stranger:?}");
    let names = host.run(&["list"]);
    assert!(names.code == 12 && names.err.contains("the newest snapshot of `docs` is not believed"), "{names:?}");
    // Nothing was left out for the sake of `keep`: nothing was believed.
    for args in [&["replicate"][..], &["replicate", "--dry-run"]] {
        let copied = host.run(args);
        assert!(copied.code == 3 && !copied.out.contains("left out"), "{copied:?}");
    }
    fs::write(host.path("signers"), key).unwrap();
}

#[test]
fn nothing_is_said_of_a_vault_that_does_not_answer() {
    let host = Host::with_two_vaults();
    fs::rename(host.path("offsite"), host.path("away")).unwrap();
    host.run(&["run"]);
    for args in [&["replicate"][..], &["replicate", "--dry-run"]] {
        let ended = host.run(args);
        assert!(ended.code == 3 && ended.out.contains("nothing to copy between the vaults that answer"), "{ended:?}");
    }
    let pruned = host.run(&["prune", "--vault", "offsite"]);
    assert!(pruned.code == 3 && pruned.out.contains("nothing was planned"), "{pruned:?}");
    let pruned = host.run(&["prune"]);
    assert!(pruned.code == 3 && pruned.out.contains("nothing to do in the vaults that answer"), "{pruned:?}");
    fs::rename(host.path("away"), host.path("offsite")).unwrap();
    assert!(host.good(&["prune"]).out.ends_with("nothing to do\n"));
}

#[test]
fn an_exposed_host_key_is_no_good_file_anywhere() {
    let host = Host::with_two_vaults();
    assert!(host.run(&["doctor"]).out.contains("every file that is named is there"));
    host.good(&["config", "check"]);
    mode(&host, "host_key", 0o644);
    let doctor = host.run(&["doctor"]);
    assert!(!doctor.out.contains("every file that is named is there"), "{doctor:?}");
    let (check, run) = (host.run(&["config", "check"]), host.run(&["run"]));
    assert_eq!((check.code, run.code), (12, 12), "{check:?} {run:?}");
    mode(&host, "host_key", 0o600);
    fs::rename(host.path("host_key"), host.path("elsewhere")).unwrap();
    assert!(!host.run(&["doctor"]).out.contains("every file that is named is there"));
}

#[test]
fn files_that_cannot_fit_are_refused_before_anything_is_written() {
    let host = Host::with_two_vaults();
    fs::write(host.path("data/big"), vec![7; 900_000]).unwrap();
    host.good(&["run"]);
    let Some(disk) = Tmpfs::mount(&host.path("small"), "size=64k", "a target that is full") else { return };
    let ended = host.run(&["restore", "--latest", "--into-dir", "small/back", "--identity", OPERATORS[0]]);
    assert!(ended.code == 2 && ended.err.contains("its file system has"), "{ended:?}");
    assert!(ended.err.contains("make room there"), "{ended:?}");
    assert!(!host.path("small/back").exists());
    drop(disk);
    // Nor where only a little is lacking, on a file system that stores what it is given.
    for (size, code) in [("size=600k", 2), ("size=4m", 0)] {
        let Some(disk) = Tmpfs::mount(&host.path("small"), size, "a target that is nearly full") else { return };
        let ended = host.run(&["restore", "--latest", "--into-dir", "small/back", "--identity", OPERATORS[0]]);
        assert!(ended.code == code && ended.err.contains("make room there") == (code == 2), "{size} {ended:?}");
        assert_eq!(host.path("small/back").exists(), code == 0, "{size}");
        drop(disk);
    }
}

#[test]
fn an_announced_purge_is_told_by_who_cannot_take_it_back() {
    let host = Host::with_two_vaults();
    let local = host.path("local/s/docs");
    let dir = fs::read_dir(&local).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let generation = dir.filter(|name| name.starts_with("20")).max().unwrap();
    host.good(&[
        "purge",
        &generation,
        "--source",
        "docs",
        "--reason",
        "leaked",
        "--even-newest",
        "--apply",
        "--yes",
        &generation,
    ]);
    let status = host.run(&["status"]);
    assert!(status.out.contains(", by a purge"));
    assert!(status.code == 3 && status.err.contains("announced for deletion in every vault"), "{status:?}");
    let undone = host.run(&["prune", "--undo"]);
    assert!(undone.out.contains("no prune announced anything"), "{undone:?}");
    let undo = format!("`backup purge {generation} --source docs --undo`");
    assert!(undone.err.contains(&undo), "{undone:?}");
    host.good(&["purge", &generation, "--source", "docs", "--undo"]);
    assert!(host.good(&["prune", "--undo"]).out.contains("nothing is announced"));
    host.good(&["status"]);
}

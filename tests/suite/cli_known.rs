//! What is known to be damaged stays known, a broken state keeps no backup from being made, and a vault that fills up hands
//! the rest to the next one: by the real binary.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::id::{ObjectName, SourceName};
use backup_core::state::State;
use backup_core::vault::layout::GenerationDir;
use backup_core::verify::Fraction;
use harness::tools::Tmpfs;
use serde_json::Value;

use super::host::{Ended, Host, OPERATORS};
use super::past::now;
use super::stack::{files_below, noise};

const MEND: &str = "`backup verify --read-data 1/1 --repair`";

/// The largest object of a vault.
fn object(vault: &Path) -> PathBuf {
    let mut found = files_below(vault);
    found.retain(|path| path.to_str().unwrap().contains("/objects/"));
    found.into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// Puts another byte into the middle, as a disk does: the size stays.
fn flip(path: &Path) -> Vec<u8> {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bad).unwrap();
    good
}

fn host() -> Host {
    let host = Host::with_two_vaults();
    fs::write(host.path("data/b.bin"), noise(1_200_000)).unwrap();
    host.good(&["run"]);
    host
}

fn restore(host: &Host, into: &str, more: &[&str]) -> Ended {
    host.run(&[&["restore", "--latest", "--into-dir", into, "--identity", OPERATORS[0]], more].concat())
}

fn damage_of(status: &Ended) -> Vec<Value> {
    status.json()["damage"].as_array().unwrap().clone()
}

#[test]
fn damage_that_was_found_is_told_until_it_is_good_again() {
    let host = host();
    let bad = object(&host.path("local"));
    let good = flip(&bad);
    // A listing shows nothing, and nothing is known yet.
    host.good(&["verify"]);
    host.good(&["status"]);
    assert_eq!(host.run(&["verify", "--read-data", "1/1"]).code, 4);
    for args in [&["verify"][..], &["verify", "--vault", "local"], &["verify", "--repair", "--dry-run"]] {
        let ended = host.run(args);
        assert!(ended.code == 4 && ended.out.contains("DAMAGED: 1 of 2"), "{args:?} {ended:?}");
        assert!(ended.out.contains("--vault offsite --identity FILE`"), "{ended:?}");
    }
    assert!(host.run(&["verify", "--vault", "local"]).out.contains(MEND));
    host.good(&["verify", "--vault", "offsite"]);
    let status = host.run(&["status"]);
    assert!(status.code == 4 && status.err.contains("vault `local`, source `docs`: 1 damaged object"), "{status:?}");
    assert!(status.err.contains(MEND), "{status:?}");
    let rows = |vault: &str| status.out.lines().find(|line| line.contains(&format!("vault     {vault}: "))).unwrap();
    assert!(rows("local").ends_with(", DAMAGED: 1 object") && rows("offsite").ends_with(", complete"), "{status:?}");
    let told = damage_of(&host.run(&["status", "--json"]));
    assert!(told.len() == 1 && told[0]["class"] == "damage", "{told:?}");
    // By hand: whoever looks sees that it is good.
    fs::write(&bad, good).unwrap();
    host.good(&["verify"]);
    host.good(&["status"]);
}

#[tokio::test]
async fn what_does_not_open_stays_damaged_though_its_bytes_have_their_hash() {
    let host = host();
    let path = object(&host.path("local"));
    let text = path.to_str().unwrap();
    let at: Vec<&str> = text.split("/objects/").next().unwrap().rsplit('/').take(2).collect();
    let dir = GenerationDir { stack: "s".parse().unwrap(), source: at[1].parse().unwrap(), id: at[0].parse().unwrap() };
    let vault: Value = serde_json::from_slice(&fs::read(host.path("local/vault.json")).unwrap()).unwrap();
    let vault = vault["id"].as_str().unwrap().parse().unwrap();
    let state = State::open(&host.path("state"), &dir.stack).await.unwrap();
    // As a check would have left it that could not open the object.
    state.set_damaged(&vault, &dir, path.file_name().unwrap().to_str().unwrap(), true).await.unwrap();
    for args in [&["verify"][..], &["verify", "--read-data", "1/1"], &["verify", "--repair"], &["status"]] {
        let ended = host.run(args);
        assert_eq!(ended.code, 4, "{args:?} {ended:?}");
    }
    // Only opening it shows that it is good.
    host.good(&["verify", "--identity", OPERATORS[0]]);
    host.good(&["verify"]);
    host.good(&["status"]);
}

#[test]
fn a_restore_remembers_what_it_met_and_its_hint_finds_it() {
    let host = host();
    let bad = object(&host.path("local"));
    let good = flip(&bad);
    let alone = restore(&host, "back", &["--vault", "local"]);
    assert!(alone.code == 4 && alone.err.contains("this restore met 1 damaged object there"), "{alone:?}");
    let hints: Vec<&str> = alone.err.lines().filter(|line| line.contains("hint:")).collect();
    assert!(hints.iter().any(|hint| hint.contains(MEND)), "{hints:?}");
    assert!(!alone.err.contains("`backup verify`;"), "a listing does not show it: {}", alone.err);
    assert_eq!(host.run(&["status"]).code, 4, "the restore wrote it down");
    assert_eq!(host.run(&["verify"]).code, 4);
    // The hint as it stands.
    let mended = host.good(&["verify", "--read-data", "1/1", "--repair"]);
    assert!(mended.out.contains("repaired 1 file\n"), "{mended:?}");
    assert_eq!(fs::read(&bad).unwrap(), good);
    host.good(&["status"]);

    // With a good copy beside it the restore ends well, and tells and remembers all the same.
    flip(&bad);
    let both = restore(&host, "back2", &[]);
    assert!(both.code == 0 && both.err.contains("vault `local`: this restore met 1 damaged object there"), "{both:?}");
    assert_eq!(host.run(&["status"]).code, 4);
    // Asking for the plan writes nothing.
    host.good(&["verify", "--repair"]);
    let dry = restore(&host, "back3", &["--dry-run"]);
    assert_eq!((dry.code, host.run(&["status"]).code), (0, 0), "{dry:?}");
}

#[test]
fn a_broken_state_is_moved_aside_and_the_run_goes_on() {
    let host = host();
    let state = host.path("state/state.sqlite");
    // Its first page, which says that there are more.
    let mut torn = fs::read(&state).unwrap();
    torn.resize(4096, 0);
    torn[28..32].copy_from_slice(&99_u32.to_be_bytes());
    torn.copy_within(24..28, 92);
    for (number, body) in [b"this is no database".to_vec(), torn].iter().enumerate() {
        for log in ["state/state.sqlite-wal", "state/state.sqlite-shm"] {
            let _ = fs::remove_file(host.path(log));
        }
        fs::write(&state, body).unwrap();
        let status = host.run(&["status"]);
        assert!(status.code == 3 && status.err.contains("moves it aside"), "{number} {status:?}");
        assert_eq!(&fs::read(&state).unwrap(), body, "who only looks moves nothing");
        let ran = host.good(&["run"]);
        assert!(ran.err.contains("the state was broken; it is kept as `"), "{number} {ran:?}");
        let kept = files_below(&host.path("state"));
        assert!(kept.iter().any(|path| &fs::read(path).unwrap() == body), "{number} {kept:?}");
        host.good(&["status"]);
        assert!(host.good(&["run"]).err.is_empty(), "the new one is good");
    }
    fs::write(&state, "this is no database").unwrap();
    assert!(host.good(&["prune"]).err.contains("moves it aside"), "who only plans moves nothing");
    let pruned = host.good(&["prune", "--apply"]);
    assert!(pruned.err.contains("the state was broken"), "{pruned:?}");
}

#[test]
fn a_state_on_a_full_disk_keeps_no_backup_from_being_made() {
    let host = Host::with_two_vaults();
    fs::write(host.path("data/b.bin"), noise(100_000)).unwrap();
    let Some(disk) = Tmpfs::mount(&host.path("state"), "size=1m", "a full disk of the state") else { return };
    host.good(&["run"]);
    fs::write(host.path("state/ballast"), vec![1; 2 << 20]).unwrap_err();
    let ran = host.run(&["run"]);
    assert!(ran.code == 3 && ran.out.contains("nothing is remembered of this run"), "{ran:?}");
    assert!(ran.out.contains("make room on the disk that holds the folder of `state`"), "{ran:?}");
    assert!(!ran.out.contains("may be deleted"), "{ran:?}");
    let status = host.run(&["list", "--json"]);
    assert_eq!(status.json()["snapshots"].as_array().unwrap().len(), 3, "{status:?}");
    drop(disk);
}

#[test]
fn a_vault_that_takes_nothing_hands_the_run_to_the_next() {
    let host = Host::new();
    for name in ["data", "local", "offsite"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    let local = host.path("local");
    let Some(_disk) = Tmpfs::mount(&local, "size=4m", "a vault that is mounted read-only") else { return };
    let docs = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";
    host.configure(&format!("{}{}{docs}", Host::local("local"), Host::local("offsite")));
    host.good(&["init"]);
    host.good(&["run"]);
    let closed = std::process::Command::new("mount").args(["-o", "remount,ro"]).arg(&local).status();
    assert!(closed.unwrap().success());
    fs::write(host.path("data/new.txt"), "of today").unwrap();
    let ran = host.run(&["run", "--json"]);
    let report = ran.json();
    assert_eq!((ran.code, &report["sources"][0]["outcome"]), (3, &Value::from("stored")), "{report:#}");
    // Fails where it names the vault that was tried first.
    assert_eq!(
        (&report["vault"], &report["sources"][0]["vault"]),
        (&"offsite".into(), &"offsite".into()),
        "{report:#}"
    );
    let failed = &report["failed_vaults"][0];
    assert_eq!(failed["vault"], "local", "{report:#}");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("it refuses; source `docs` goes into vault `offsite`"), "{error}");
    let back = restore(&host, "back", &["--vault", "offsite"]);
    assert_eq!(back.code, 0, "{back:?}");
    assert!(files_below(&host.path("back")).iter().any(|path| path.ends_with("new.txt")));
}

#[test]
fn a_file_of_holes_goes_where_its_content_has_no_room() {
    let host = Host::with_two_vaults();
    let file = fs::File::create(host.path("data/holes.bin")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 6 << 20).unwrap();
    file.set_len(12 << 20).unwrap();
    host.good(&["run"]);
    let Some(disk) = Tmpfs::mount(&host.path("small"), "size=1m", "a small disk to restore to") else { return };
    // Fails where its length is room that it needs: twelve times what is free.
    let back = restore(&host, "small/back", &[]);
    assert_eq!(back.code, 0, "{back:?}");
    let path = files_below(&host.path("small/back")).into_iter().find(|path| path.ends_with("holes.bin")).unwrap();
    assert!(fs::read(path).unwrap() == fs::read(host.path("data/holes.bin")).unwrap());
    // One that is full of bytes does not begin.
    fs::write(host.path("data/full.bin"), noise(12 << 20)).unwrap();
    host.good(&["run"]);
    let told = restore(&host, "small/again", &[]);
    assert!(told.code == 2 && told.err.contains("its file system has"), "{told:?}");
    drop(disk);
}

#[test]
fn a_vault_that_fills_up_hands_the_rest_to_the_next() {
    let host = Host::new();
    for name in ["data", "more", "local", "offsite"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    let Some(disk) = Tmpfs::mount(&host.path("local"), "size=1m", "a vault that fills up") else { return };
    fs::write(host.path("data/a.txt"), "hello").unwrap();
    fs::write(host.path("more/b.bin"), noise(3_000_000)).unwrap();
    let more =
        "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n[source.more]\ntype = \"files\"\npaths = [\"more\"]\n";
    host.configure(&format!("{}{}{more}", Host::local("local"), Host::local("offsite")));
    host.good(&["init"]);
    let ran = host.run(&["run", "--json"]);
    let report = ran.json();
    assert_eq!((ran.code, &report["outcome"]), (3, &Value::from("partial")), "{report:#}");
    for source in report["sources"].as_array().unwrap() {
        assert_eq!(source["outcome"], "stored", "{report:#}");
    }
    let error = report["failed_vaults"][0]["error"].as_str().unwrap();
    assert!(error.contains("it is full; what follows goes into vault `offsite`"), "{error}");
    drop(disk);
    let back = restore(&host, "back", &["--vault", "offsite"]);
    assert_eq!(back.code, 0, "{back:?}");
    let path = files_below(&host.path("back")).into_iter().find(|path| path.ends_with("b.bin")).unwrap();
    assert!(fs::read(path).unwrap() == noise(3_000_000));
}

/// Whoever may write into the vault can stop `--latest`, but not a restore: the error names what can be had.
#[test]
fn a_newest_document_that_is_not_believed_is_told_with_the_one_before() {
    let host = host();
    let listed = host.run(&["list", "--json"]).json();
    let newest =
        listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).max().unwrap().to_owned();
    for vault in ["local", "offsite"] {
        for path in files_below(&host.path(vault)) {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if let Some(end) = name.strip_prefix(&newest) {
                fs::copy(&path, path.with_file_name(format!("29991122T235900Z-9b-aaaaaa{end}"))).unwrap();
            }
        }
    }
    let refused = restore(&host, "back", &[]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(
        refused.err.contains(&format!("the newest of `docs` before it that can be read is `{newest}`")),
        "{refused:?}"
    );
    let back = host.run(&["restore", &newest, "--into-dir", "back", "--identity", OPERATORS[0]]);
    assert_eq!(back.code, 0, "{back:?}");
}

#[tokio::test]
async fn a_part_that_time_cut_is_not_read_and_what_was_read_of_it_counts() {
    let host = host();
    let vault: Value = serde_json::from_slice(&fs::read(host.path("local/vault.json")).unwrap()).unwrap();
    let vault = vault["id"].as_str().unwrap().parse().unwrap();
    let docs: SourceName = "docs".parse().unwrap();
    let state = State::open(&host.path("state"), &"s".parse().unwrap()).await.unwrap();
    let today = now().date_naive().signed_duration_since(chrono::NaiveDate::default()).num_days();
    let turn = async |day| state.read_turn(&vault, &docs, 2, day).await.unwrap();
    let mut objects = files_below(&host.path("local"));
    objects.retain(|path| path.to_str().unwrap().contains("/objects/"));
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<ObjectName>().unwrap();
    // The half that holds something: names are by chance.
    let part = (1..=2).find(|part| objects.iter().any(|path| Fraction { part: *part, of: 2 }.holds(&name(path))));
    let part = i64::from(part.unwrap());
    for round in 0..2 {
        let (began, since) = turn(today).await;
        let share = format!("{}/2", (part - 1 - began).rem_euclid(2) + 1);
        let cut = ["verify", "--vault", "local", "--read-data", &share, "--max-time", "0s"];
        let before = host.good(&cut);
        assert!(before.out.contains("the next call goes on there"), "{round} {before:?}");
        // Fails where the turn is over however little was read of the part.
        assert_eq!(turn(today + 1).await, (began, since), "{round} {before:?}");
        // As calls of yesterday would have left it: the last turn was over two days ago, and all was read since.
        state.set_read_turn(&vault, &docs, 2, (today - 2, began - 1)).await.unwrap();
        assert_eq!(turn(today).await, (began, today - 1));
        for path in &objects {
            let at = path.to_str().unwrap().split("/objects/").next().unwrap().rsplit('/').next().unwrap();
            let dir = GenerationDir { stack: "s".parse().unwrap(), source: docs.clone(), id: at.parse().unwrap() };
            state.set_read(&vault, &dir, &[name(path)], now() - chrono::TimeDelta::days(1)).await.unwrap();
        }
        host.good(&cut);
        // Fails where only what was read today counts: a part larger than a day's time would never be over.
        assert_eq!(turn(today + 1).await, (began + 1, today + 1));
        state.set_read_turn(&vault, &docs, 2, (today - 1, began)).await.unwrap();
    }
}

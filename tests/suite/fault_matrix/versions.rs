//! The same for what only a bucket with versions and locks is asked (moto): versions, legal holds, rules, locks. The short form
//! tries each verb with a passing fault of each kind of request, and each kind of request that no other store is asked with
//! one fault that stays; `BACKUP_FAULT_CELLS=all` all faults of those kinds. No page: not everybody has this server.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use harness::moto::{Kind, Moto};
use harness::proxy::Proxy;

use super::super::host::{DOCS, Host, of_source};
use super::super::past::contents;
use super::super::recover::noise;
use super::fault::{FAULTS, TIMES, Times};
use super::scene::PATIENT;
use super::{Cell, Plan, Trial, in_turn, judged, meddle, patience, shuffle};

/// What a vault in such a bucket is seen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Init,
    Doctor,
    Pin,
    Unpin,
    /// Of a snapshot whose objects were deleted: they are read from older versions.
    Restore,
    Audit,
}

const VERBS: [(Verb, &str); 6] = [
    (Verb::Init, "init"),
    (Verb::Doctor, "doctor"),
    (Verb::Pin, "pin"),
    (Verb::Unpin, "unpin"),
    (Verb::Restore, "restore"),
    (Verb::Audit, "audit"),
];

/// What no bucket without versions and locks is asked.
fn is_own(kind: &str) -> bool {
    ["hold of", "version of", "VERSIONS", "versioning", "lifecycle", "_probe/locked"]
        .iter()
        .any(|part| kind.contains(part))
}

fn trial(verb: Verb, moto: &Moto, keys: &Host, plan: &Plan) -> Trial {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let has_locks = verb != Verb::Restore;
    let kind = if has_locks { Kind::Locked } else { Kind::Versioned };
    let bucket = moto.bucket(&format!("bucket-{number}"), kind).unwrap();
    let host = keys.cloned();
    let lock = if has_locks { "lock = \"governance\"\n" } else { "" };
    let text = format!(
        "[vault.far]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\" }}\ncredentials = {{ file = \"s3.env\" }}\n\
         keep = {{ within = \"7d\", min = 2 }}\n{lock}{DOCS}",
        bucket.endpoint, bucket.bucket
    );
    host.configure(&text);
    host.change("reserve = \"0%\"", &format!("reserve = \"0%\", patience = \"{PATIENT}\""));
    let id = if verb == Verb::Init {
        String::new()
    } else {
        host.good(&["init"]);
        of_source(&host.backup(), "docs")["snapshot"].as_str().unwrap().to_owned()
    };
    match verb {
        Verb::Unpin => drop(host.good(&["pin", &id])),
        Verb::Restore => {
            for key in moto.keys(&bucket.bucket, "/objects/").unwrap() {
                moto.must("DELETE", &format!("/{}/{key}", bucket.bucket), &[], "").unwrap();
            }
        }
        _ => {}
    }
    let args: Vec<&str> = match verb {
        Verb::Init => vec!["init"],
        Verb::Doctor => vec!["doctor"],
        Verb::Pin => vec!["pin", &id],
        Verb::Unpin => vec!["unpin", &id],
        Verb::Restore => vec!["restore", &id, "--identity", "ops.txt", "--into-dir", "back"],
        Verb::Audit => vec!["audit", "--read-data", "1/1"],
    };
    let proxy = Proxy::start(moto.addr()).unwrap();
    let store = format!("s3://{}/v", bucket.bucket);
    let seen = meddle(&proxy, plan, &Arc::new(BTreeSet::new()), (&bucket.bucket, "v", &store));
    let direct = fs::read_to_string(host.path("backup.toml")).unwrap();
    host.change(&bucket.endpoint, &proxy.endpoint());
    host.change(&format!("patience = \"{PATIENT}\""), &format!("patience = \"{}\"", patience(plan)));
    let begun = Instant::now();
    let ended = host.run(&args);
    let took = begun.elapsed();
    drop(proxy);
    let mut wrong = Vec::new();
    let mut came = |name: &str, code: i32| {
        let back = host.path("back");
        let is_there = back.exists();
        if verb == Verb::Restore && (code == 0) != (is_there && contents(&back) == contents(&host.path("data"))) {
            wrong.push(format!("{name}: a restore that ended with {code} brought something else, or nothing"));
        }
        let _ = fs::remove_dir_all(back);
    };
    came("with the fault", ended.code);
    // An `init` that was cut short may have written the id of what it made.
    let pinned = fs::read_to_string(host.path("backup.toml")).unwrap();
    let id_line = pinned.lines().find(|line| line.starts_with("id = ")).map(str::to_owned);
    fs::write(host.path("backup.toml"), direct).unwrap();
    if let (Verb::Init, Some(line)) = (verb, id_line) {
        host.change("[vault.far]\n", &format!("[vault.far]\n{line}\n"));
    }
    let mut again = host.run(&args);
    if again.code == 2 && again.err.contains("hint: join it with `backup init --adopt") {
        again = host.run(&["init", "--adopt", "far"]);
    }
    came("without the fault", again.code);
    let mut check = |name: &str, args: &[&str]| {
        let ended = host.run(args);
        if ended.code != 0 {
            wrong.push(format!("{name} ended with {}: {}{}", ended.code, ended.out, ended.err));
        }
    };
    if again.code != 0 {
        check("the same without the fault", &args);
    }
    check("the next run", &["run"]);
    check("a restore", &["restore", "--latest", "--identity", "ops.txt", "--into-dir", "out"]);
    if host.path("out").exists() && contents(&host.path("out")) != contents(&host.path("data")) {
        wrong.push("the newest snapshot restores something else".to_owned());
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    Trial { ended, took, kinds: seen.kinds, names: seen.names, wrong }
}

#[test]
fn what_only_versions_and_locks_are_asked_survives_every_fault() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let all = std::env::var("BACKUP_FAULT_CELLS").is_ok_and(|form| form == "all" || form == "every");
    let keys = Host::new();
    fs::create_dir(keys.path("data")).unwrap();
    fs::write(keys.path("data/a.bin"), noise(60_000, 1)).unwrap();
    fs::write(keys.path("s3.env"), "AWS_ACCESS_KEY_ID=AKmoto\nAWS_SECRET_ACCESS_KEY=SKmoto\n").unwrap();
    fs::set_permissions(keys.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
    let begun = Instant::now();
    let first = if all { Plan::Nothing } else { Plan::Each(1) };
    let firsts: Vec<Trial> =
        in_turn(&VERBS.iter().collect::<Vec<_>>(), 4, |(verb, _)| trial(*verb, &moto, &keys, &first));
    let (mut wrong, mut cells, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (scene, trial) in firsts.iter().enumerate() {
        if trial.ended.code != 0 || !trial.wrong.is_empty() {
            wrong.push(format!("{}, {first:?}: {:?} {:?}", VERBS[scene].1, trial.ended, trial.wrong));
        }
        for kind in trial.kinds.iter().filter(|kind| is_own(kind) && known.insert((*kind).clone())) {
            for (fault, _) in FAULTS.iter().filter(|(fault, _)| fault.applies(kind)) {
                cells.extend(TIMES.map(|times| Cell { scene, kind: kind.clone(), fault: *fault, times }));
            }
        }
    }
    assert!(known.len() >= 7, "{known:?}");
    let of = cells.len();
    if !all {
        shuffle(&mut cells, 1);
        let mut seen = BTreeSet::new();
        cells.retain(|cell| cell.times == Times::Always && seen.insert(cell.kind.clone()));
    }
    let judge = |cell: &Cell| trial(VERBS[cell.scene].0, &moto, &keys, &Plan::One(cell.clone()));
    let trials = in_turn(&cells.iter().collect::<Vec<_>>(), 4, judge);
    for (cell, trial) in cells.iter().zip(&trials) {
        let word = judged((VERBS[cell.scene].1, "far"), cell, trial, &mut wrong);
        println!("{} {}, {:?} {:?}: {word}", VERBS[cell.scene].1, cell.kind, cell.fault, cell.times);
    }
    println!("{} of {of} cells of {} requests: {:.0?}", cells.len(), known.len(), begun.elapsed());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

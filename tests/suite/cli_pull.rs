//! Pulled replication by the real binary: another machine, its own vault, no key of the host that makes backups.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::signature::HostKey;
use backup_core::vault::Vault;
use backup_core::vault::document::{FORMAT, Grounds, ReceiptDoc};
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::local::{LocalOptions, LocalStore};

use super::host::Host;
use super::stack::{files_below, noise};

/// A host that makes backups into `local`, two snapshots of one source.
fn producer() -> Host {
    let host = Host::new();
    for name in ["data", "local"] {
        fs::create_dir(host.path(name)).unwrap();
    }
    host.configure(&format!("{}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n", Host::local("local")));
    host.good(&["init"]);
    for seed in 0..2 {
        let body: Vec<u8> = noise(1_200_000).into_iter().map(|byte| byte ^ seed).collect();
        fs::write(host.path("data/a.bin"), body).unwrap();
        host.good(&["run"]);
    }
    host
}

/// A machine that pulls: keys of its own, the producer's line pinned, the vault `pulled` made by `init`.
fn puller(producer: &Host) -> Host {
    let host = Host::new();
    let own = fs::read_to_string(host.path("signers")).unwrap();
    fs::write(host.path("signers"), own + &fs::read_to_string(producer.path("signers")).unwrap()).unwrap();
    fs::create_dir(host.path("pulled")).unwrap();
    // What is captured elsewhere is named, so that `list`, `verify` and `status` know of it; nothing is captured here.
    host.configure(&format!("{}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n", Host::local("pulled")));
    host.good(&["init"]);
    host
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Files of the stack in a vault, by path, with their bytes.
fn content(vault: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(&vault.join("s")).into_iter();
    files.map(|path| (path.strip_prefix(vault).unwrap().to_owned(), fs::read(&path).unwrap())).collect()
}

fn fingerprint(host: &Host) -> String {
    HostKey::from_openssh(&fs::read_to_string(host.path("host_key")).unwrap()).unwrap().fingerprint()
}

#[test]
fn another_machine_pulls_restores_and_loses_nothing_that_the_source_loses() {
    let producer = producer();
    let host = puller(&producer);
    let (source, pulled) = (producer.path("local"), host.path("pulled"));
    let before = files_below(&source);
    let pull = ["replicate", "--from", text(&source), "--to", "pulled", "--json"];
    let dry = host.good(&["replicate", "--from", text(&source), "--to", "pulled", "--dry-run"]);
    assert_eq!(dry.out.matches("would copy").count(), 2, "{}", dry.out);
    assert!(content(&pulled).is_empty());
    let done = host.good(&pull).json();
    let lane = &done["sources"][0]["lane"];
    assert_eq!(lane["snapshots"].as_array().unwrap().len(), 2, "{done:#}");
    assert!(lane["snapshots"][0].as_str() > lane["snapshots"][1].as_str(), "the newest first: {done:#}");
    assert_eq!(content(&pulled), content(&source));
    assert_eq!(files_below(&source), before, "the source vault is only read");
    assert_ne!(fs::read(pulled.join("vault.json")).unwrap(), fs::read(source.join("vault.json")).unwrap());

    // Interrupted: the rest is copied, and nothing else.
    let mut lost: Vec<PathBuf> = files_below(&pulled);
    lost.retain(|path| text(path).contains("/snapshots/") || text(path).contains("/objects/"));
    let objects = lost.iter().filter(|path| text(path).contains("/objects/")).count();
    let keep = lost.iter().position(|path| text(path).contains("/objects/")).unwrap();
    for path in lost.iter().filter(|path| **path != lost[keep]) {
        fs::remove_file(path).unwrap();
    }
    let done = host.good(&pull).json();
    assert_eq!(done["sources"][0]["lane"]["objects"].as_u64().unwrap(), objects as u64 - 1, "{done:#}");
    assert_eq!(content(&pulled), content(&source));
    assert_eq!(host.good(&pull).json()["sources"][0]["lane"]["objects"], 0);

    // What the pulled vault holds restores where nothing else is left.
    let bare = tempfile::tempdir().unwrap();
    let out = bare.path().join("out");
    let signer = fingerprint(&producer);
    let identity = producer.path("ops.txt");
    let args = [
        "restore",
        "--latest",
        "--vault",
        text(&pulled),
        "--stack",
        "s",
        "--identity",
        text(&identity),
        "--signer",
        &signer,
        "--into-dir",
        text(&out),
    ];
    assert_eq!(Host::new().run(&args).code, 0);
    let restored = files_below(&out).into_iter().find(|path| path.ends_with("a.bin")).unwrap();
    assert_eq!(fs::read(restored).unwrap(), fs::read(producer.path("data/a.bin")).unwrap());

    // A grant that is made later is pulled too: fails without `replicate_grants` in `backlog`.
    producer.good(&["key", "new", "new.txt"]);
    producer.good(&["key", "grant", &producer.recipient("new.txt"), "--identity", "ops.txt"]);
    host.good(&pull);
    assert!(files_below(&pulled).iter().any(|path| text(path).contains("/grants/")));
    assert_eq!(content(&pulled), content(&source));
    assert!(!host.run(&["audit"]).out.contains("did not make"), "an audit takes a grant for a stranger's");

    // The source vault is rolled back by whoever has the host: named, and nothing is lost here.
    let whole = content(&pulled);
    let mut newest: Vec<PathBuf> =
        files_below(&source).into_iter().filter(|path| text(path).contains("/snapshots/")).collect();
    newest.sort();
    let newest = newest.pop().unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    for path in files_below(&source).into_iter().filter(|path| text(path).contains(&name)) {
        fs::remove_file(path).unwrap();
    }
    let ended = host.run(&pull);
    // Fails without `rolled_back`.
    assert!(ended.code == 4 && ended.err.contains(&name) && ended.err.contains("was pulled before"), "{ended:?}");
    assert_eq!(content(&pulled), whole);
    fs::remove_dir_all(source.join("s")).unwrap();
    let ended = host.run(&pull);
    assert!(ended.code == 4 && ended.err.contains("shows none"), "{ended:?}");
    assert_eq!(content(&pulled), whole);
}

#[tokio::test]
async fn what_the_source_vault_pruned_is_no_rollback_and_every_signer_is_named() {
    let producer = producer();
    let host = puller(&producer);
    let (source, first) = (producer.path("local"), fingerprint(&producer));
    let old = HostKey::from_openssh(&fs::read_to_string(producer.path("host_key")).unwrap()).unwrap();
    // Another host key: its line is added, and the run opens a generation and a chain of its own.
    producer.good(&["key", "new", "--host", "host_key.2"]);
    let public = fs::read_to_string(producer.path("host_key.2.pub")).unwrap();
    let line: Vec<&str> = public.split_whitespace().take(2).collect();
    for host in [&producer, &host] {
        let signers = fs::read_to_string(host.path("signers")).unwrap();
        fs::write(host.path("signers"), format!("{signers}backup namespaces=\"backup.*\" {}\n", line.join(" ")))
            .unwrap();
    }
    producer.change("host_key = \"host_key\"", "host_key = \"host_key.2\"");
    producer.good(&["run"]);
    let second =
        HostKey::from_openssh(&fs::read_to_string(producer.path("host_key.2")).unwrap()).unwrap().fingerprint();
    let pull = ["replicate", "--from", text(&source), "--to", "pulled", "--json"];
    host.good(&pull);
    // The old key's generation expires in the source vault, with a receipt, as every prune leaves one.
    let snapshots = |vault: &Path| -> Vec<PathBuf> {
        let mut all = files_below(vault);
        all.retain(|path| text(path).contains("/snapshots/") && text(path).ends_with(".json"));
        all.sort_by_key(|path| path.file_name().unwrap().to_owned());
        all
    };
    let named = snapshots(&source);
    assert_eq!(named.len(), 3);
    let generation = named[0].parent().unwrap().parent().unwrap().to_owned();
    assert!(named[1].starts_with(&generation) && !named[2].starts_with(&generation));
    let id = |path: &Path| -> SnapshotId { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let gone = tempfile::tempdir().unwrap();
    fs::rename(&generation, gone.path().join("generation")).unwrap();
    let ended = host.run(&pull);
    assert!(ended.code == 4 && ended.err.contains(&first) && !ended.err.contains(&second), "{ended:?}");
    let store = Arc::new(LocalStore::open(&source, LocalOptions::default()).unwrap());
    let vault = Vault::open("local", store, None).await.unwrap();
    let receipt = ReceiptDoc {
        format: FORMAT,
        stack: "s".parse().unwrap(),
        source: "docs".parse().unwrap(),
        generation: generation.file_name().unwrap().to_str().unwrap().parse().unwrap(),
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        snapshots: named[..2].iter().map(|path| (id(path), "expired".to_owned())).collect(),
        vault: None,
        documents: std::collections::BTreeSet::new(),
        objects: 0,
        stored_bytes: 0,
        grounds: Grounds::default(),
        signer: old.fingerprint(),
        tool: "test".to_owned(),
    };
    vault.put_signed(&receipt, &old).await.unwrap();
    // Fails where receipts are not asked: for as long as `keep` is longer here.
    assert_eq!(host.good(&pull).json()["sources"][0]["rolled_back"], serde_json::json!([]));
    // What no receipt names is told of each signer.
    fs::remove_dir_all(source.join("s")).unwrap();
    let ended = host.run(&pull);
    assert!(ended.code == 4 && ended.err.contains(&first) && ended.err.contains(&second), "{ended:?}");
}

#[test]
fn a_pull_without_a_configuration_and_what_it_refuses() {
    let producer = producer();
    let (host, stranger) = (puller(&producer), Host::new());
    let (source, pulled) = (producer.path("local"), host.path("pulled"));
    let signer = fingerprint(&producer);
    let pull = |signer: &str, to: &str| {
        stranger.run(&["replicate", "--from", text(&source), "--to", to, "--stack", "s", "--signer", signer])
    };
    let other = fingerprint(&stranger);
    let ended = pull(&other, text(&pulled));
    // Fails where a signature is not asked for: nobody else's snapshots are copied.
    assert!(ended.code != 0 && content(&pulled).is_empty(), "{ended:?}");
    let ended = pull(&signer, text(&pulled));
    assert_eq!((ended.code, content(&pulled)), (0, content(&source)), "{}{}", ended.out, ended.err);
    // The recovery document is the producer's where only the producer is believed.
    assert_eq!(fs::read(pulled.join("RECOVER-1.md.sig")).unwrap(), fs::read(source.join("RECOVER-1.md.sig")).unwrap());
    assert_eq!(pull(&signer, text(&source)).code, 2, "one vault");
    fs::create_dir(host.path("empty")).unwrap();
    assert_eq!(pull(&signer, text(&host.path("empty"))).code, 10, "not made by `init`");
    assert!(files_below(&host.path("empty")).is_empty());
    let bare = stranger.run(&["replicate", "--from", text(&source), "--to", text(&pulled)]);
    assert!(bare.code == 12 && bare.err.contains("--signer"), "{bare:?}");
    assert_eq!(stranger.run(&["replicate", "--from", text(&source)]).code, 2, "where to?");
}

#[test]
fn verify_goes_on_where_its_time_was_up_and_says_how_much_was_read() {
    let host = producer();
    let read = |args: &[&str]| {
        let found = host.good(&[&["verify", "--json"], args].concat()).json();
        let report = &found["vaults"][0];
        let number = |value: &serde_json::Value| value.as_u64().unwrap();
        (
            number(&report["objects_read"]),
            number(&report["coverage"]["covered_bytes"]),
            number(&report["coverage"]["listed_bytes"]),
        )
    };
    let (objects, covered, listed) = read(&["--max-time", "1h"]);
    assert!(objects > 0 && covered == listed, "{objects} {covered} {listed}");
    // Fails where what was read today is read again.
    assert_eq!(read(&["--max-time", "1h"]), (0, listed, listed));
    fs::write(host.path("data/b.bin"), noise(900_000)).unwrap();
    host.good(&["run"]);
    let (more, covered, listed) = read(&["--max-time", "1h"]);
    assert!(more > 0 && more <= objects && covered == listed, "{more} {covered} {listed}");
    let said = host.good(&["verify", "--read-data", "1/1"]).out;
    assert!(said.contains("local: read 100 % of ") && said.contains("; everything once since 20"), "{said}");
    for wrong in [&["--max-time", "1h", "--full"][..], &["--max-time", "soon"]] {
        assert_eq!(host.run(&[&["verify"], wrong].concat()).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_planted_name_does_not_put_the_backlog_of_one_source_before_the_newest_of_another() {
    let producer = producer();
    let backup = fs::read_to_string(producer.path("backup.toml")).unwrap();
    fs::write(producer.path("backup.toml"), backup + "[source.more]\ntype = \"files\"\npaths = [\"data\"]\n").unwrap();
    producer.good(&["run"]);
    let host = puller(&producer);
    let commits = |vault: &Path, source: &str| {
        let mut found = files_below(&vault.join("s").join(source));
        found.retain(|path| text(path).contains("/snapshots/") && text(path).ends_with(".json"));
        found.sort();
        found
    };
    let docs = commits(&producer.path("local"), "docs");
    fs::write(docs[0].with_file_name("29990101T000000Z-1r-abcdef.json"), "{}").unwrap();
    host.good(&["replicate", "--from", text(&producer.path("local")), "--to", "pulled"]);
    let when = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let (here, more) = (commits(&host.path("pulled"), "docs"), commits(&host.path("pulled"), "more"));
    assert_eq!((here.len(), more.len()), (docs.len(), 1));
    let times: Vec<_> = here.iter().map(when).collect();
    // Fails where the newest name is taken for the newest snapshot.
    assert!(times[2] <= when(&more[0]) && times[..2].iter().all(|time| *time >= when(&more[0])), "{times:?}");
}

//! `backup audit` through the binary: each promise broken once, on a machine without any key.

mod page;
mod scene;

use std::collections::BTreeSet;
use std::fs;

use backup_core::id::Hash256;
use backup_core::signature::Namespace;
use backup_core::vault::document::{Grounds, MarkDoc, MarkKind, PublicDocument, ReceiptDoc, SnapshotDoc};
use backup_core::verify::Fraction;
use chrono::TimeDelta;
use harness::s3::S3Server;

use super::engine::world::host_key;
use super::host::{Ended, Host};
use scene::{Scene, now, other};

const NINE: &str = "keep = { within = \"9d\", min = 2 }";

/// What was printed, on one line: where it is wrapped is for eyes.
fn flat(told: &Ended) -> String {
    told.out.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name of the day so many days ago on which [`Scene`] captured.
fn day(ago: i64) -> String {
    (now() - TimeDelta::minutes(10) - TimeDelta::days(ago)).date_naive().to_string()
}

#[tokio::test]
async fn a_vault_that_holds_what_was_promised_passes_without_any_key() {
    let scene = Scene::of_days(12, &[], "7d").await;
    scene.replicate(&|_| true).await;
    scene.write().await;
    // A draft of a run that died: an audit does not even clear up.
    fs::create_dir(scene.file("first", ".tmp")).unwrap();
    let draft = scene.file("first", ".tmp/put-0123456789abcdef");
    fs::write(&draft, "x").unwrap();
    let old = now() - TimeDelta::days(3);
    fs::File::options().write(true).open(&draft).unwrap().set_modified(old.into()).unwrap();
    scene.configure_both(NINE);
    let good = scene.audit(&["--read-data", "1/1"], 0);
    let table = "VERDICT VAULT SOURCE DAYS SNAPSHOTS NEWEST ok first db 10/10 12 ";
    assert!(flat(&good).starts_with(table), "{}", good.out);
    assert!(flat(&good).contains("read and hashed: ") && flat(&good).contains(" what expires next "), "{}", good.out);
    assert!(flat(&good).contains(": not before 20"), "{}", good.out);
    assert!(good.out.lines().all(|line| line.chars().count() <= 80), "{}", good.out);
    assert_eq!(good.err, "");
    let found = scene.audit(&["--json"], 0).json();
    let vault = &found["sources"][0]["vaults"][1];
    assert_eq!((&vault["verdict"], &vault["snapshots"]), (&"ok".into(), &12.into()));
    let days = vault["days"].as_array().unwrap();
    assert!(days.len() >= 9 && days[0]["found"] == 1, "{days:?}");
    assert!(!scene.host.path("state").exists(), "an audit needs no state");
    assert_eq!(scene.kinds(&["--vault", "first", "--source", "db"], 0), [""; 0]);
}

#[tokio::test]
async fn a_day_without_a_snapshot_is_named() {
    let scene = Scene::of_days(12, &[3, 4, 11], "7d").await;
    scene.write().await;
    let told = scene.audit(&[], 5);
    let range = format!("breach no snapshot of {} to {} (2 days)", day(4), day(3));
    assert!(flat(&told).contains(&range) && told.out.starts_with("VERDICT"), "{}", told.out);
    // Before the first snapshot that ever was nothing is missing, whatever the window.
    scene.configure("keep = { within = \"30d\", min = 2 }", "");
    let missing = &scene.audit(&["--json"], 5).json()["sources"][0]["vaults"][0]["findings"][0];
    assert_eq!((&missing["kind"], &missing["about"]), (&"missing".into(), &serde_json::json!([day(4), day(3)])));
    // A schedule that promises less misses less.
    let never = "[job.j]\ncron = \"0 0 29 2 *\"\n";
    scene.configure(NINE, never);
    assert_eq!(scene.kinds(&[], 0), [""; 0]);
    // Outside of the window nobody asks.
    scene.configure("keep = { within = \"2d\", min = 2 }", "");
    assert_eq!(scene.kinds(&[], 0), [""; 0]);
}

#[tokio::test]
async fn old_days_that_were_deleted_are_missing_although_every_chain_closes() {
    let scene = Scene::of_days(12, &[], "7d").await;
    scene.write().await;
    for doc in &scene.docs[..8] {
        scene.remove("first", doc);
    }
    // Fails where the days before the oldest snapshot that is left are never promised.
    let kinds = scene.kinds(&[], 5);
    assert!(kinds.contains(&"missing".to_owned()) && kinds.contains(&"stranger".to_owned()), "{kinds:?}");
    scene.configure("", "");
    let told = scene.audit(&[], 5);
    assert!(flat(&told).contains("everything is promised, and"), "{}", told.out);
}

#[tokio::test]
async fn damage_outranks_a_breach() {
    let scene = Scene::of_days(6, &[2], "7d").await;
    scene.write().await;
    let object = scene.object("first", &scene.docs[4]);
    let good = fs::read(&object).unwrap();
    fs::remove_file(&object).unwrap();
    let told = scene.audit(&[], 4);
    assert!(
        flat(&told).contains("DAMAGED") && flat(&told).contains("is missing") && flat(&told).contains("no snapshot of"),
        "{}",
        told.out
    );
    let mut bad = good.clone();
    bad[30] ^= 1;
    fs::write(&object, &bad).unwrap();
    assert_eq!(scene.kinds(&[], 5), ["missing"], "a listing shows no flipped byte");
    let told = scene.audit(&["--read-data", "1/1"], 4);
    assert!(flat(&told).contains("its bytes have the SHA-256"), "{}", told.out);
    fs::write(&object, good).unwrap();
    // A snapshot in the middle is gone: the chain says so.
    scene.remove("first", &scene.docs[1]);
    let told = scene.audit(&[], 4);
    assert!(flat(&told).contains("is missing") && flat(&told).contains("a snapshot by SHA256:"), "{}", told.out);
}

#[tokio::test]
async fn what_a_stranger_signed_counts_for_nothing() {
    let scene = Scene::of_days(6, &[], "7d").await;
    scene.write().await;
    let doc = &scene.docs[2];
    let bytes = fs::read(scene.of("first", doc, ".json")).unwrap();
    let path = doc.dir().snapshot(&doc.id, ".json");
    scene.sign("first", path.as_str(), &bytes, &host_key(9), Namespace::Snapshot);
    // The chain is open as well: what follows on it follows on nothing that is believed.
    let kinds = scene.kinds(&[], 4);
    for kind in ["foreign", "missing", "chain"] {
        assert!(kinds.contains(&kind.to_owned()), "{kinds:?}");
    }
    // A newer one from nobody: no day is filled by it, and the head stays.
    scene.sign("first", path.as_str(), &bytes, &scene.world.key, Namespace::Snapshot);
    let planted = bytes.clone();
    let newer = format!("{}-1b-aaaaaa", now().format("%Y%m%dT%H%M%SZ"));
    let planted = String::from_utf8(planted).unwrap().replace(doc.id.as_str(), &newer);
    let path = path.as_str().replace(doc.id.as_str(), &newer);
    scene.sign("first", &path, planted.as_bytes(), &host_key(9), Namespace::Snapshot);
    let told = scene.audit(&[], 5);
    assert!(flat(&told).contains("counts for nothing") && flat(&told).contains("BREACH"), "{}", told.out);
    // With the wrong signers everything is foreign, and the auditor is told that it is the key.
    fs::write(scene.host.path("signers"), host_key(7).allowed_signers_line()).unwrap();
    let kinds = scene.kinds(&[], 12);
    assert!(kinds.contains(&"no-snapshot".to_owned()), "{kinds:?}");
    fs::remove_file(scene.host.path("signers")).unwrap();
    scene.audit(&[], 12);
}

#[tokio::test]
async fn a_vault_that_lacks_what_it_promises_is_named() {
    let scene = Scene::of_days(8, &[], "7d").await;
    let lost = [scene.docs[3].id.clone(), scene.docs[7].id.clone()];
    scene.replicate(&|id| !lost.contains(id)).await;
    scene.write().await;
    scene.configure_both(NINE);
    let told = scene.audit(&[], 4);
    assert!(flat(&told).contains("1 snapshot that other vaults hold is promised here and absent"), "{}", told.out);
    // The newest one is ten minutes old: behind, and not yet late.
    assert!(flat(&told).contains("note behind: its newest is"), "{}", told.out);
    assert_eq!(scene.kinds(&["--vault", "first"], 0), [""; 0], "the first vault is as it should be");
    let kinds = scene.kinds(&["--vault", "second"], 4);
    assert!(["chain", "not-replicated", "behind"].iter().all(|kind| kinds.contains(&(*kind).to_owned())), "{kinds:?}");
    // Without the hole in its chain it is a breach.
    scene.remove("first", &scene.docs[0]);
    let _ = fs::remove_dir_all(scene.host.path("second/s"));
    let told = scene.audit(&["--vault", "second"], 5);
    assert!(
        flat(&told).contains("6 snapshots that other vaults hold") && flat(&told).contains("holds nothing"),
        "{}",
        told.out
    );
}

#[tokio::test]
async fn histories_that_part_are_damage() {
    let mut scene = Scene::of_days(4, &[], "7d").await;
    scene.replicate(&|_| true).await;
    scene.world.run(&other(1)).await.unwrap();
    // A clone of the host: the same key, another state, another vault.
    scene.world.lose_state().await;
    std::mem::swap(&mut scene.world.vault, &mut scene.second.1);
    scene.world.run(&other(2)).await.unwrap();
    std::mem::swap(&mut scene.world.vault, &mut scene.second.1);
    scene.write().await;
    scene.configure_both(NINE);
    let told = scene.audit(&[], 4);
    assert!(flat(&told).contains("the histories of the vaults part"), "{}", told.out);
    assert!(flat(&told).contains("follow on the same snapshot"), "{}", told.out);
}

/// Removes the generation of a snapshot as a prune does: with a signed receipt.
fn pruned(scene: &Scene, gone: &SnapshotDoc) -> ReceiptDoc {
    let commit = gone.dir().snapshot(&gone.id, ".json");
    let receipt = ReceiptDoc {
        format: 1,
        stack: gone.stack.clone(),
        source: gone.source.clone(),
        generation: gone.generation.clone(),
        at: now(),
        vault: Some(scene.world.vault.id().clone()),
        snapshots: vec![(gone.id.clone(), "expire: past 1d".to_owned())],
        documents: BTreeSet::from([Hash256::of(&fs::read(scene.file("first", commit.as_str())).unwrap())]),
        objects: 1,
        stored_bytes: 1,
        grounds: Grounds::default(),
        signer: scene.world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    fs::remove_dir_all(scene.file("first", gone.dir().dir().as_str())).unwrap();
    let bytes = serde_json::to_vec(&receipt).unwrap();
    scene.sign("first", receipt.path().as_str(), &bytes, &scene.world.key, Namespace::Receipt);
    receipt
}

#[tokio::test]
async fn what_was_pruned_in_time_is_no_breach_and_the_newest_of_a_promised_week_is_one() {
    let scene = Scene::of_days(16, &[], "1d").await;
    scene.write().await;
    for gone in &scene.docs[..10] {
        pruned(&scene, gone);
    }
    scene.configure("keep = { within = \"2d\", min = 1 }", "");
    assert_eq!(scene.kinds(&[], 0), [""; 0]);
    // Of the last three weeks that hold snapshots one at least was among them.
    scene.configure("keep = { within = \"2d\", weekly = 3, min = 1 }", "");
    let told = scene.audit(&[], 5);
    assert!(flat(&told).contains("gone before its time") && !flat(&told).contains("no snapshot of"), "{}", told.out);
}

#[tokio::test]
async fn what_was_removed_before_its_time_is_named_with_the_receipts_words() {
    let scene = Scene::of_days(12, &[], "1d").await;
    scene.write().await;
    let gone = &scene.docs[5];
    let receipt = pruned(&scene, gone);
    let bytes = serde_json::to_vec(&receipt).unwrap();
    let told = scene.audit(&[], 5);
    assert!(
        flat(&told).contains("1 snapshot gone before its time") && flat(&told).contains("expire: past 1d"),
        "{}",
        told.out
    );
    assert!(!flat(&told).contains("no snapshot of"), "{}", told.out);
    // The same receipt is in order where the policy promises less.
    scene.configure("keep = { within = \"2d\", min = 2 }", "");
    let kinds = scene.kinds(&[], 5);
    assert_eq!(kinds, ["too-long"], "{kinds:?}");
    // By somebody else it explains nothing.
    scene.configure(NINE, "");
    scene.sign("first", receipt.path().as_str(), &bytes, &host_key(9), Namespace::Receipt);
    let kinds = scene.kinds(&[], 4);
    assert!(kinds.contains(&"missing".to_owned()) && kinds.contains(&"foreign".to_owned()), "{kinds:?}");
}

#[tokio::test]
async fn what_stays_longer_than_promised_is_named() {
    let scene = Scene::of_days(12, &[], "1d").await;
    scene.write().await;
    // One day, and four more until a prune must have removed it.
    scene.configure("keep = { within = \"1d\", min = 1 }", "");
    let told = scene.audit(&[], 5);
    assert!(flat(&told).contains("should be gone, the oldest is"), "{}", told.out);
    assert!(flat(&told).contains("expired; the next `backup prune --apply`"), "{}", told.out);
    let found = &scene.audit(&["--json"], 5).json()["sources"][0]["vaults"][0]["findings"];
    assert_eq!((found[0]["about"].as_array().unwrap().len(), found.as_array().unwrap().len()), (7, 1), "{found:#}");
    // A pin keeps whatever its age.
    let pinned = &scene.docs[0];
    let pin = MarkDoc {
        format: 1,
        stack: pinned.stack.clone(),
        source: pinned.source.clone(),
        snapshot: pinned.id.clone(),
        mark: MarkKind::Pin,
        at: now(),
        document: Hash256::of(&fs::read(scene.of("first", pinned, ".json")).unwrap()),
        closes: None,
        signer: scene.world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    let bytes = serde_json::to_vec(&pin).unwrap();
    scene.sign("first", pin.path().as_str(), &bytes, &scene.world.key, Namespace::Mark);
    let found = &scene.audit(&["--json"], 5).json()["sources"][0]["vaults"][0];
    assert_eq!(found["findings"][0]["about"].as_array().unwrap().len(), 6, "{found:#}");
    assert!(found["next"][0].as_str().unwrap().ends_with("stays while it is pinned"), "{found:#}");
    scene.configure("keep = { within = \"8d\", min = 1 }", "");
    assert_eq!(scene.kinds(&[], 0), [""; 0]);
}

#[tokio::test]
async fn strangers_are_told_and_are_no_breach() {
    let scene = Scene::of_days(3, &[], "7d").await;
    scene.write().await;
    fs::write(scene.file("first", "s/db/notes.txt"), "mine").unwrap();
    fs::write(scene.file("first", "readme"), "mine").unwrap();
    fs::create_dir_all(scene.file("first", "s/old-source/x")).unwrap();
    fs::write(scene.file("first", "s/old-source/x/y"), "mine").unwrap();
    let told = scene.audit(&[], 0);
    assert!(
        flat(&told).contains("note 1 file (4 bytes) that this program did not make: `s/db/notes.txt`"),
        "{}",
        told.out
    );
    assert!(flat(&told).contains("beside the sources of this policy: s/old-source"), "{}", told.out);
    // A mark that nobody signed is none.
    let marks = scene.file("first", "s/db/marks");
    fs::create_dir_all(&marks).unwrap();
    fs::write(marks.join(format!("{}.pin.json", scene.docs[0].id)), "{}").unwrap();
    assert!(scene.kinds(&[], 4).contains(&"document".to_owned()));
}

#[tokio::test]
async fn an_old_head_breaks_the_objective_unless_it_is_waived() {
    let scene = Scene::of_days(8, &[0, 1, 2], "7d").await;
    scene.write().await;
    let objective = |waiver: &str| {
        scene.configure(NINE, "");
        let text = fs::read_to_string(scene.host.path("backup.toml")).unwrap();
        let text = text
            .replace("[\"true\"]\n", &format!("[\"true\"]\nobjective = {{ rpo = \"24h\", rto = \"1h\"{waiver} }}\n"));
        fs::write(scene.host.path("backup.toml"), text).unwrap();
    };
    objective("");
    let kinds = scene.kinds(&[], 5);
    assert!(kinds.contains(&"objective".to_owned()) && kinds.contains(&"missing".to_owned()), "{kinds:?}");
    objective(", waiver = { until = 2999-01-01, reason = \"known\" }");
    assert!(!scene.kinds(&[], 5).contains(&"objective".to_owned()));
}

#[tokio::test]
async fn a_vault_that_does_not_answer_is_partial_and_none_is_exit_10() {
    let scene = Scene::of_days(3, &[], "7d").await;
    scene.replicate(&|_| true).await;
    scene.write().await;
    scene.configure_both(NINE);
    fs::rename(scene.host.path("second"), scene.host.path("away")).unwrap();
    let told = scene.audit(&[], 3);
    assert!(flat(&told).contains("NO ANSWER") && told.err.contains("second"), "{}{}", told.out, told.err);
    scene.audit(&["--vault", "first"], 0);
    fs::rename(scene.host.path("first"), scene.host.path("away-too")).unwrap();
    scene.audit(&[], 10);
    scene.audit(&["--vault", "third"], 2);
    scene.audit(&["--source", "other"], 2);
}

#[tokio::test]
async fn a_suspect_snapshot_is_named() {
    let mut scene = Scene::of_days(6, &[], "1d").await;
    let doc = scene.docs.pop().unwrap();
    let id = format!("{}-suspect", doc.id).parse().unwrap();
    let suspect = SnapshotDoc { id, suspect: 1, ..doc.clone() };
    let path = |doc: &SnapshotDoc, end: &str| doc.dir().snapshot(&doc.id, end);
    let inventory = scene.world.body(&path(&doc, ".inventory.zst")).await;
    scene.world.set(&path(&suspect, ".inventory.zst"), Some(inventory)).await;
    scene.world.vault.put_signed(&suspect, &scene.world.key).await.unwrap();
    for end in [".json", ".json.sig", ".inventory.zst"] {
        scene.world.set(&path(&doc, end), None).await;
    }
    scene.write().await;
    let told = scene.audit(&[], 0);
    assert!(flat(&told).contains(&format!("note suspect and not accepted: `{}`", suspect.id)), "{}", told.out);
    // What was pruned before the anomaly came was pruned rightly, although it would stay now.
    pruned(&scene, &scene.docs[0]);
    scene.configure("keep = { within = \"2d\", min = 1 }", "");
    assert_eq!(scene.kinds(&[], 0), ["suspect"]);
}

#[tokio::test]
async fn a_bucket_is_audited_by_the_policy_file_and_a_lock_that_cannot_be_seen_is_a_breach() {
    let scene = Scene::of_days(4, &[], "7d").await;
    let server = S3Server::start().unwrap();
    let bucket = server.bucket.clone();
    scene::write(&scene.world.watch.memory, &server.files().join("v")).await;
    let configure = |lock: &str| {
        scene.host.configure(&format!(
            "[vault.first]\nid = \"{}\"\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"v\", region = \"{}\" }}\n\
             credentials = {{ file = \"no-such-file\" }}\nlock = \"{lock}\"\n{NINE}\n\
             [source.db]\ntype = \"command\"\ncommand = [\"true\"]\n",
            scene.world.vault.id(),
            bucket.endpoint,
            bucket.bucket,
            bucket.region
        ));
        let policy = scene.host.good(&["config", "show", "--public"]).out;
        assert!(policy.contains("AUDIT_FIRST_SECRET_ACCESS_KEY") && !policy.contains("no-such-file"), "{policy}");
        fs::write(scene.host.path("policy.toml"), policy).unwrap();
    };
    let audit = || {
        let mut command = scene.host.command(&["audit", "--config", "policy.toml", "--read-data", "1/1"]);
        command.env("AUDIT_FIRST_ACCESS_KEY_ID", &bucket.access_key);
        command.env("AUDIT_FIRST_SECRET_ACCESS_KEY", &bucket.secret_key);
        Ended::of(command.output().unwrap())
    };
    configure("none");
    let before = scene::look(&server.files());
    let good = audit();
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    assert_eq!(scene::look(&server.files()), before, "an audit changed the bucket");
    configure("compliance");
    let told = audit();
    assert!(
        told.code == 5 && flat(&told).contains("are not locked as promised; the first is not locked: `s/db/"),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_audit_asks_a_store_for_nothing_but_reading() {
    let scene = Scene::of_days(3, &[], "7d").await;
    let world = &scene.world;
    world.watch.fail(None);
    let all = Some(Fraction { part: 1, of: 1 });
    let names = (&world.request.stack, &world.request.source);
    let read = backup_core::audit::read(&world.vault, &world.signers, names, all, true, None).await.unwrap();
    backup_core::audit::beside(&world.vault, names.0, &BTreeSet::new()).await.unwrap();
    assert_eq!(read.seen.documents.len(), 3);
    for word in ["put", "delete", "sync", "now"] {
        assert_eq!(world.watch.paths(word), [""; 0], "{word}");
    }
    assert!(!world.watch.paths("get").is_empty());
}

#[tokio::test]
async fn the_public_policy_is_enough_for_an_audit() {
    let scene = Scene::of_days(4, &[1], "7d").await;
    scene.write().await;
    let shown = scene.host.good(&["config", "show", "--public"]).out;
    let elsewhere = Host::new();
    fs::write(elsewhere.path("policy.toml"), &shown).unwrap();
    fs::remove_file(elsewhere.path("signers")).unwrap();
    let told = elsewhere.run(&["audit", "--config", "policy.toml", "--json"]);
    assert_eq!(told.code, 5, "{}{}", told.out, told.err);
    let ours = scene.audit(&["--json"], 5).json();
    assert_eq!(told.json()["sources"], ours["sources"]);
    // It reads back to itself.
    let again = elsewhere.good(&["config", "show", "--public", "--config", "policy.toml"]).out;
    assert_eq!(again, shown);
}

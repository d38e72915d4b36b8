//! A snapshot whose own document somebody deleted, in a bucket with versions (moto): told by every verb that looks, restored
//! as it is, put back by a repair; and what a prune deleted is none.

use std::fs;
use std::sync::Arc;

use backup_core::hidden;
use backup_core::monitor::Silent;
use backup_core::signature::{HostKey, Signers};
use backup_core::vault::Vault;
use backup_core::vault::document::{FORMAT, Grounds, ReceiptDoc};
use backup_core::vault::s3::S3Store;
use backup_core::verify::{Depth, Fraction, Pace, verify_at};
use harness::moto::{Kind, Moto};
use harness::s3::Bucket;

use super::host::Host;
use super::stack::files_below;
use super::store_conformance::options;

/// A host with one vault, the prefix `v` of `bucket`, and two snapshots of `docs`: `one`, then `two` in `data/a.txt`.
fn host(bucket: &Bucket) -> Host {
    let host = Host::on_bucket(bucket, "");
    host.good(&["init"]);
    for body in ["one", "two"] {
        fs::write(host.path("data/a.txt"), body).unwrap();
        host.good(&["run"]);
    }
    host
}

fn ids(host: &Host) -> Vec<String> {
    let listed = host.run(&["list", "--json"]).json();
    let all = listed["snapshots"].as_array().unwrap();
    all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// The content of `a.txt` as a restore brings it back, and what it said.
fn restored(host: &Host, into: &str, which: &str) -> (String, String) {
    let ended = host.good(&["restore", which, "--into-dir", into, "--identity", "ops.txt"]);
    let file = files_below(&host.path(into)).into_iter().find(|file| file.ends_with("a.txt")).unwrap();
    (fs::read_to_string(file).unwrap(), ended.err)
}

/// Deletes what has `part` in its key, as whoever has the host's keys can.
fn delete(moto: &Moto, part: &str) {
    for key in moto.keys("bucket", part).unwrap() {
        moto.must("DELETE", &format!("/bucket/{key}"), &[], "").unwrap();
    }
}

async fn vault(bucket: &Bucket) -> Vault {
    let store = Arc::new(S3Store::connect(options(bucket, "v"), Arc::new(Silent)).await.unwrap());
    Vault::open("far", store, None).await.unwrap()
}

#[test]
fn a_snapshot_whose_document_was_deleted_is_told_restored_and_put_back() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("bucket", Kind::Versioned).unwrap();
    let host = host(&bucket);
    let both = ids(&host);
    let newest = both[1].as_str();
    assert!(!host.good(&["list"]).err.contains("deleted"));
    host.good(&["verify"]);
    delete(&moto, &format!("/snapshots/{newest}"));
    assert_eq!(ids(&host), &both[..1], "a listing does not show it");

    // Each of these fails where a listing is all that is looked at.
    let listed = host.run(&["list"]);
    assert!(listed.code == 0 && listed.err.contains("somebody deleted the documents of 1 snapshot"), "{listed:?}");
    assert!(listed.err.contains(newest), "{listed:?}");
    let listed = host.good(&["list", "--json"]).json();
    assert_eq!((&listed["deleted"][0]["id"], &listed["deleted"][0]["vault"]), (&newest.into(), &"far".into()));
    let found = host.run(&["verify"]);
    assert!(
        found.code == 4 && found.out.contains(newest) && found.out.contains("an older version of it is good"),
        "{found:?}"
    );
    let audited = host.run(&["audit"]);
    assert!(audited.code == 4 && audited.out.contains(newest) && audited.out.contains("older version"), "{audited:?}");
    let seen = host.run(&["doctor", "--json"]);
    assert!(seen.code == 5 && seen.out.contains(newest) && seen.out.contains("older versions hold them"), "{seen:?}");

    let (content, said) = restored(&host, "latest", "--latest");
    assert!(content == "two" && said.contains("somebody deleted the documents"), "{content} {said}");
    assert_eq!(restored(&host, "by-id", newest).0, "two");
    assert_eq!(restored(&host, "by-id-2", both[0].as_str()).0, "one");

    // With its objects and the generation's own document gone as well: everything comes back from older versions.
    delete(&moto, "/objects/");
    delete(&moto, "/generation.json");
    assert_eq!(restored(&host, "again", "--latest").0, "two");
    let dry = host.run(&["verify", "--repair", "--dry-run"]);
    assert!(dry.code == 4 && dry.out.contains("would be repaired from vault `far (an older version)`"), "{dry:?}");
    assert_eq!(ids(&host), &both[..1]);
    host.good(&["verify", "--repair"]);
    assert_eq!(ids(&host), both);
    host.good(&["verify", "--read-data", "1/1"]);
    assert!(!host.good(&["list"]).err.contains("deleted"));
    host.good(&["audit"]);
}

#[test]
fn a_generation_of_which_everything_was_deleted_is_found() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("bucket", Kind::Versioned).unwrap();
    let host = host(&bucket);
    let both = ids(&host);
    delete(&moto, "/docs/");
    assert!(ids(&host).is_empty());
    let found = host.run(&["verify", "--json"]);
    assert!(found.code == 4 && both.iter().all(|id| found.out.contains(id)), "{found:?}");
    assert_eq!(restored(&host, "latest", "--latest").0, "two");
    host.good(&["verify", "--repair"]);
    assert_eq!(ids(&host), both);
    assert_eq!(restored(&host, "again", both[0].as_str()).0, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_removed_was_not_hidden_by_somebody() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("bucket", Kind::Versioned).unwrap();
    let host = host(&bucket);
    let both = ids(&host);
    let vault = vault(&bucket).await;
    let (stack, source) = ("s".parse().unwrap(), "docs".parse().unwrap());
    let signers = Signers::parse(&fs::read_to_string(host.path("signers")).unwrap()).unwrap();
    let dir = vault.generations(&stack, &source).await.unwrap().remove(0);
    delete(&moto, &format!("/snapshots/{}", both[0]));
    let hidden = async || {
        let found = hidden::snapshots(&vault, &signers, (&stack, &source)).await.unwrap();
        found.snapshots.into_iter().map(|one| one.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(hidden().await, &both[..1]);
    let receipt = |signer: &HostKey, reason: Option<&str>, named: &[String]| ReceiptDoc {
        format: FORMAT,
        stack: stack.clone(),
        source: source.clone(),
        generation: dir.id.clone(),
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        snapshots: named.iter().map(|id| (id.parse().unwrap(), "expired".to_owned())).collect(),
        vault: None,
        documents: std::collections::BTreeSet::new(),
        objects: 1,
        stored_bytes: 1,
        grounds: Grounds { purge: reason.map(str::to_owned), ..Grounds::default() },
        signer: signer.fingerprint(),
        tool: "test".to_owned(),
    };
    // Who cannot sign explains nothing away.
    host.good(&["key", "new", "--host", "stranger"]);
    let key_of = |name: &str| HostKey::from_openssh(&fs::read_to_string(host.path(name)).unwrap()).unwrap();
    let stranger = key_of("stranger");
    vault.put_signed(&receipt(&stranger, None, &both), &stranger).await.unwrap();
    assert_eq!(hidden().await, &both[..1]);
    let key = key_of("host_key");
    // A receipt of a generation that is still there speaks of what it names.
    vault.put_signed(&receipt(&key, None, &both[1..]), &key).await.unwrap();
    assert_eq!(hidden().await, &both[..1]);
    vault.put_signed(&receipt(&key, None, &both), &key).await.unwrap();
    assert_eq!(hidden().await, Vec::<String>::new());

    // A purge that was done says each time that older versions are left: fails where only the call that deleted does.
    delete(&moto, &format!("/{}/", dir.id));
    vault.put_signed(&receipt(&key, Some("leaked"), &both), &key).await.unwrap();
    let again = host.run(&["purge", dir.id.as_str(), "--source", "docs", "--reason", "leaked"]);
    assert!(again.code == 3 && again.err.contains("older versions of what was deleted are still there"), "{again:?}");
    assert_eq!(hidden().await, Vec::<String>::new(), "the whole generation went by a signed word");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_are_looked_for_within_the_time_of_the_call() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("bucket", Kind::Versioned).unwrap();
    let host = host(&bucket);
    let vault = vault(&bucket).await;
    delete(&moto, "/objects/");
    let signers = Signers::parse(&fs::read_to_string(host.path("signers")).unwrap()).unwrap();
    let names = ("s".parse().unwrap(), "docs".parse().unwrap());
    let depth = Depth { read: Some(Fraction { part: 1, of: 1 }), identities: None };
    let older = async |pace: &Pace<'_>| {
        let found = verify_at(&vault, &signers, (&names.0, &names.1), None, depth, pace).await.unwrap();
        (found.is_damaged(), found.older)
    };
    let (damaged, found) = older(&Pace::default()).await;
    assert!(damaged && found > 0, "{found}");
    let over = Pace { stop: Some(&|| true), ..Pace::default() };
    assert_eq!(older(&over).await, (true, 0));
}

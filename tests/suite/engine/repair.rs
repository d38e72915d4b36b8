//! Repairs: what is damaged in one vault comes back from another, byte for byte; nothing bad is lost, nothing believed is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::prune::purge::{PurgeEnd, PurgeRequest, apply, plan};
use backup_core::recover::RECOVER;
use backup_core::repair::{Mend, Outcome, Repair, RepairError, repair};
use backup_core::replicate::{Route, replicate};
use backup_core::vault::Vault;
use backup_core::vault::document::{
    GenerationDoc, Grounds, MarkDoc, MarkKind, PruneStage, PublicDocument, ReceiptDoc, SnapshotDoc,
};
use backup_core::vault::layout::{self, signature_of};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use backup_core::verify::{Place, judge_recover};
use bytes::Bytes;

use super::watch::{Fault, Watch};
use super::world::{Script, World, announcement, forgeries, host_key, make_vault};

type Content = BTreeMap<String, Bytes>;

/// Two snapshots of one generation in the vault `first`, and copies of both in `second`.
struct Pair {
    world: World,
    docs: Vec<SnapshotDoc>,
    there: Watch,
    second: Vault,
    heads: Vec<(String, Hash256)>,
}

impl Pair {
    async fn new() -> Self {
        let world = World::new().await;
        let mut docs = Vec::new();
        for seed in 1..=2 {
            docs.push(world.run(&Script::noise(500_000, seed)).await.unwrap().snapshot.doc);
        }
        let there = Watch::new(MemoryStore::new(world.store.clock()));
        let second = make_vault("second", &there, world.store.now()).await;
        for vault in [&world.vault, &second] {
            vault.put_recover(RECOVER, &world.key).await.unwrap();
        }
        let route = Route { from: &world.vault, to: &second, signers: &world.signers, monitor: &world.monitor };
        let done = replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await;
        assert!(done.errors.is_empty(), "{done:?}");
        Self { world, docs, there, second, heads: Vec::new() }
    }

    /// What `verify` with every object hashed finds in the first vault.
    async fn found(&self) -> BTreeSet<Place> {
        let verified = self.world.verify_by(true, false).await;
        let now = self.world.host.now();
        let recover = judge_recover(&self.world.vault, &self.world.signers, now).await.unwrap();
        verified.places.into_keys().chain(recover.map(|_| Place::Recover)).collect()
    }

    async fn ask(&self, places: &BTreeSet<Place>, dry_run: bool) -> Vec<Mend> {
        let ask = Repair {
            vault: &self.world.vault,
            others: &[self.world.vault.clone(), self.second.clone()],
            signers: &self.world.signers,
            heads: &self.heads,
            at: self.world.host.now(),
            dry_run,
        };
        repair(ask, places).await
    }

    /// Verifies and repairs until nothing is left or nothing helps; why the rest was not mended.
    async fn mend(&self) -> Vec<RepairError> {
        for _ in 0..4 {
            let places = self.found().await;
            if places.is_empty() {
                break;
            }
            let made = self.ask(&places, false).await;
            if !made.iter().any(Mend::is_made) {
                let left = made.into_iter().filter_map(|mend| match mend.outcome {
                    Outcome::Not(error) => Some(error),
                    _ => None,
                });
                return left.collect();
            }
        }
        Vec::new()
    }

    /// Everything in the first vault but what was moved aside; and that.
    async fn content(&self) -> (Content, Vec<Bytes>) {
        let (mut content, mut aside) = (Content::new(), Vec::new());
        for entry in self.world.watch.memory.list(None).await.unwrap() {
            let body = self.world.watch.memory.get(&entry.path, u64::MAX).await.unwrap();
            if entry.path.as_str().starts_with(layout::DAMAGED) {
                aside.push(body);
            } else {
                content.insert(entry.path.to_string(), body);
            }
        }
        (content, aside)
    }

    /// One file of each kind.
    async fn files(&self) -> Vec<StorePath> {
        let (doc, dir) = (&self.docs[1], self.docs[1].dir());
        let (mut lines, _) = self.world.vault.get_inventory(doc).await.unwrap();
        lines.sort_by_key(|line| line.bytes);
        let snapshot = dir.snapshot(&doc.id, ".json");
        let generation = dir.file("generation.json");
        vec![
            dir.object(&lines.last().unwrap().name),
            dir.object(&doc.manifest.objects[0]),
            dir.snapshot(&doc.id, ".inventory.zst"),
            signature_of(&snapshot),
            snapshot,
            signature_of(&generation),
            generation,
            layout::recover(),
            signature_of(&layout::recover()),
        ]
    }

    fn commit(&self) -> StorePath {
        self.docs[1].dir().snapshot(&self.docs[1].id, ".json")
    }
}

/// Each way to damage a file that leaves something there; `other` is the body of another file.
fn harms(body: &[u8], other: &[u8]) -> Vec<Vec<u8>> {
    let mut flipped = body.to_vec();
    flipped[body.len() / 2] ^= 1;
    let longer = [body, &b"\n"[..]].concat();
    vec![flipped, body[..body.len() - 1].to_vec(), longer, other.to_vec(), Vec::new()]
}

#[tokio::test]
async fn every_kind_of_damage_is_mended_and_what_was_bad_is_kept() {
    let pair = Pair::new().await;
    let (good, none) = pair.content().await;
    assert!(none.is_empty());
    for path in pair.files().await {
        let body = pair.world.body(&path).await;
        let other = if path.as_str().contains("/objects/") { layout::recover() } else { pair.commit() };
        for harm in harms(&body, &pair.world.body(&other).await) {
            // A line end behind an armoured signature, or none, changes nothing.
            if harm == body || path.as_str().ends_with(".sig") && harm.trim_ascii_end() == body.trim_ascii_end() {
                continue;
            }
            pair.world.set(&path, Some(harm.clone())).await;
            let places = pair.found().await;
            assert!(!places.is_empty(), "{path} is damaged and nobody saw it");
            // A dry run says the same and does nothing.
            pair.world.watch.fail(None);
            let dry = pair.ask(&places, true).await;
            assert!(
                dry.iter().any(|mend| matches!(&mend.outcome, Outcome::Mendable { from } if from == "second")),
                "{dry:?}"
            );
            assert_eq!(pair.world.watch.paths("put"), [""; 0]);
            let left = pair.mend().await;
            assert!(left.is_empty(), "{path}: {left:?}");
            let (content, aside) = pair.content().await;
            assert!(content == good, "{path} is not what it was");
            // Fails where a bad file is overwritten: `Bench::put`.
            assert!(aside.contains(&Bytes::from(harm)), "{path}: what was bad is not kept");
            for file in pair.world.watch.memory.list(None).await.unwrap() {
                if file.path.as_str().starts_with(layout::DAMAGED) {
                    pair.world.set(&file.path, None).await;
                }
            }
        }
        if path != pair.commit() {
            // What is gone comes back as well. (A document that is gone is no snapshot: `replicate` brings it.)
            pair.world.set(&path, None).await;
            let left = pair.mend().await;
            assert!(left.is_empty(), "{path}: {left:?}");
            let (content, _) = pair.content().await;
            assert!(content == good, "{path} did not come back");
            for file in pair.world.watch.memory.list(None).await.unwrap() {
                if file.path.as_str().starts_with(layout::DAMAGED) {
                    pair.world.set(&file.path, None).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn no_listing_takes_what_was_moved_aside_for_a_part_of_the_vault() {
    let pair = Pair::new().await;
    for path in pair.files().await {
        pair.world.set(&path, Some(b"bad".to_vec())).await;
    }
    assert!(pair.mend().await.is_empty());
    let (_, aside) = pair.content().await;
    assert_eq!(aside.iter().filter(|body| &body[..] == b"bad").count(), 9, "each one is kept");
    let vault = &pair.world.vault;
    let request = &pair.world.request;
    assert_eq!(vault.stacks().await.unwrap(), std::slice::from_ref(&request.stack));
    assert_eq!(vault.sources(&request.stack).await.unwrap(), std::slice::from_ref(&request.source));
    assert_eq!(pair.world.history().await.len(), 2);
    assert!(!pair.world.verify(true).await.is_damaged());
    assert!(layout::DAMAGED.parse::<backup_core::id::StackName>().is_err(), "no stack can be called so");
    // A run goes on in the same generation.
    pair.world.run(&Script::noise(100_000, 3)).await.unwrap();
}

#[tokio::test]
async fn stopped_at_any_call_nothing_is_lost_and_the_next_call_ends_it() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let mut at = 0;
        loop {
            let pair = Pair::new().await;
            let (good, _) = pair.content().await;
            let files = pair.files().await;
            let bad = |path: &StorePath| format!("bad {path}").into_bytes();
            // An object, the inventory, the document: what one snapshot needs.
            let harmed = [&files[0], &files[2], &files[4]];
            for path in harmed {
                pair.world.set(path, Some(bad(path))).await;
            }
            let places = pair.found().await;
            pair.world.watch.fail(Some((at, fault)));
            pair.ask(&places, false).await;
            let over = pair.world.watch.calls() <= at;
            pair.world.watch.fail(None);
            let (content, aside) = pair.content().await;
            for path in harmed {
                let bad = Bytes::from(bad(path));
                // Fails if a copy is put before the bad file is kept.
                assert!(content[path.as_str()] == bad || aside.contains(&bad), "{fault:?} at {at}: `{path}` is lost");
            }
            let left = pair.mend().await;
            assert!(left.is_empty(), "{fault:?} at {at}: {left:?}");
            assert!(pair.content().await.0 == good, "{fault:?} at {at}");
            if over {
                assert!(at > 20, "{at} calls");
                break;
            }
            at += 1;
        }
    }
}

#[tokio::test]
async fn what_is_believed_here_is_never_replaced() {
    let pair = Pair::new().await;
    // The other vault holds a document of the same name that this host's key signed too.
    let mut other = pair.docs[1].clone();
    other.rows += 1;
    pair.second.put_signed(&other, &pair.world.key).await.unwrap();
    let place = Place::Snapshot(pair.docs[1].dir(), pair.docs[1].id.clone());
    let (good, _) = pair.content().await;
    let made = pair.ask(&BTreeSet::from([place.clone()]), false).await;
    assert!(matches!(made.as_slice(), [Mend { outcome: Outcome::Good, .. }]), "{made:?}");
    assert!(pair.content().await.0 == good);
    // Damaged here, it is put, unless somebody knows better: this host's memory, or a mark.
    let real = Hash256::of(&pair.world.body(&pair.commit()).await);
    pair.world.set(&pair.commit(), Some(b"bad".to_vec())).await;
    let mut pair = pair;
    pair.heads = vec![(pair.docs[1].id.to_string(), real)];
    let refused = async |pair: &Pair| {
        let left = pair.mend().await;
        // Fails without the look at `facts`.
        assert!(matches!(left.as_slice(), [RepairError::Other { expected, .. }] if *expected == real), "{left:?}");
        assert_eq!(pair.world.body(&pair.commit()).await, b"bad");
    };
    refused(&pair).await;
    pair.heads.clear();
    let mark = MarkDoc {
        format: 1,
        stack: other.stack.clone(),
        source: other.source.clone(),
        snapshot: other.id.clone(),
        mark: MarkKind::Checked,
        at: pair.world.host.now(),
        document: real,
        closes: None,
        signer: pair.world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    pair.second.put_signed(&mark, &pair.world.key).await.unwrap();
    refused(&pair).await;
}

#[tokio::test]
async fn a_mark_about_another_document_than_the_one_here_is_not_brought() {
    for is_ours in [false, true] {
        let pair = Pair::new().await;
        let real = Hash256::of(&pair.world.body(&pair.commit()).await);
        let doc = &pair.docs[1];
        let mark = MarkDoc {
            format: 1,
            stack: doc.stack.clone(),
            source: doc.source.clone(),
            snapshot: doc.id.clone(),
            mark: MarkKind::Checked,
            at: pair.world.host.now(),
            document: if is_ours { real } else { Hash256([7; 32]) },
            closes: None,
            signer: pair.world.key.fingerprint(),
            tool: "backup 0".to_owned(),
        };
        pair.second.put_signed(&mark, &pair.world.key).await.unwrap();
        pair.world.set(&mark.path(), Some(b"bad".to_vec())).await;
        let left = pair.mend().await;
        let is_bad = pair.world.body(&mark.path()).await == b"bad";
        // Fails without `is_unrelated`.
        assert_eq!(matches!(left.as_slice(), [RepairError::Unrelated { .. }]), !is_ours, "{left:?}");
        assert_eq!((left.is_empty(), is_bad), (is_ours, !is_ours), "{left:?}");
    }
}

#[tokio::test]
async fn vaults_that_disagree_mend_nothing() {
    let pair = Pair::new().await;
    let third = Watch::new(MemoryStore::new(pair.world.store.clock()));
    let third = make_vault("third", &third, pair.world.store.now()).await;
    let mut other = pair.docs[1].clone();
    other.rows += 1;
    third.put_signed(&other, &pair.world.key).await.unwrap();
    pair.world.set(&pair.commit(), Some(b"bad".to_vec())).await;
    let ask = Repair {
        vault: &pair.world.vault,
        others: &[pair.second.clone(), third],
        signers: &pair.world.signers,
        heads: &[],
        at: pair.world.host.now(),
        dry_run: false,
    };
    let made = repair(ask, &pair.found().await).await;
    // Fails where the first believed document is taken.
    assert!(
        matches!(&made[0].outcome, Outcome::Not(RepairError::Disputed { one, other, .. }) if one == "second" && other == "third"),
        "{made:?}"
    );
    assert_eq!(pair.world.body(&pair.commit()).await, b"bad");
}

#[tokio::test]
async fn a_stranger_mends_nothing() {
    let pair = Pair::new().await;
    let dir = pair.docs[1].dir();
    let path = dir.file("generation.json");
    let generation = pair.world.vault.get_signed::<GenerationDoc>(&path, &pair.world.signers).await.unwrap().doc;
    pair.second.put_signed(&pair.docs[1], &host_key(9)).await.unwrap();
    pair.second.put_signed(&generation, &host_key(9)).await.unwrap();
    pair.second.put_recover("sh -c evil", &host_key(9)).await.unwrap();
    let harmed = [pair.commit(), generation.path(), layout::recover()];
    for path in &harmed {
        pair.world.set(path, Some(b"bad".to_vec())).await;
    }
    let left = pair.mend().await;
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|error| matches!(error, RepairError::NoCopy { .. })), "{left:?}");
    // And a stranger's document here gives way to what is believed elsewhere.
    let pair = Pair::new().await;
    pair.world.vault.put_signed(&pair.docs[1], &host_key(9)).await.unwrap();
    assert!(pair.mend().await.is_empty());
    assert!(!pair.world.verify(true).await.is_foreign());
}

#[tokio::test]
async fn a_copy_that_is_bad_itself_mends_nothing() {
    let pair = Pair::new().await;
    let object = pair.files().await.remove(0);
    let mut bad = pair.world.body(&object).await;
    bad[30] ^= 1;
    pair.world.set(&object, Some(bad.clone())).await;
    bad[31] ^= 1;
    pair.there.memory.put(&object, bad.clone().into(), PutMode::Replace).await.unwrap();
    let (before, _) = pair.content().await;
    let left = pair.mend().await;
    // Fails where a copy is not checked by its name before it is put.
    assert!(matches!(left.as_slice(), [RepairError::NoCopy { .. }]), "{left:?}");
    assert_eq!(pair.content().await, (before, Vec::new()), "nothing was touched");
    // A document is not put before all that it names is there.
    pair.world.set(&pair.commit(), Some(b"bad".to_vec())).await;
    pair.world.set(&object, None).await;
    let left = pair.mend().await;
    assert!(left.iter().any(|error| matches!(error, RepairError::NotWhole { missing: 1, .. })), "{left:?}");
    assert_eq!(pair.world.body(&pair.commit()).await, b"bad");
}

#[tokio::test]
async fn a_generation_that_a_prune_removes_gets_nothing() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let pair = Pair::new().await;
        let object = pair.files().await.remove(0);
        pair.world.set(&object, None).await;
        let places = pair.found().await;
        for forgery in forgeries(&pair.docs[0], stage, &host_key(1)) {
            for (path, body) in &forgery {
                pair.world.set(path, Some(body.clone())).await;
            }
            // Fails where anybody's announcement is heeded.
            assert!(pair.ask(&places, false).await.iter().all(Mend::is_made), "{stage:?}");
            pair.world.set(&object, None).await;
            for (path, _) in &forgery {
                pair.world.set(path, None).await;
                pair.world.set(&signature_of(path), None).await;
            }
        }
        for (path, body) in announcement(&pair.docs[0], stage, &pair.world.key) {
            pair.world.set(&path, Some(body)).await;
        }
        pair.world.watch.fail(None);
        let made = pair.ask(&places, false).await;
        // Fails without the look at `standing`.
        assert!(matches!(made[0].outcome, Outcome::Not(RepairError::Pruned { .. })), "{made:?}");
        assert_eq!(pair.world.watch.paths("put"), [""; 0]);
    }
}

#[tokio::test]
async fn a_prune_that_begins_meanwhile_leaves_nothing_behind() {
    let pair = Pair::new().await;
    let object = pair.files().await.remove(0);
    pair.world.set(&object, None).await;
    let places = pair.found().await;
    let (memory, at) = (pair.world.watch.memory.clone(), object.to_string());
    let files = announcement(&pair.docs[0], PruneStage::Deleting, &pair.world.key);
    pair.world.watch.before_put(move |path| {
        if path == at {
            for (path, body) in &files {
                futures::executor::block_on(memory.put(path, body.clone().into(), PutMode::Replace)).unwrap();
            }
        }
    });
    let made = pair.ask(&places, false).await;
    assert!(matches!(made[0].outcome, Outcome::Not(RepairError::Pruned { .. })), "{made:?}");
    // Fails without `withdraw`: the object stays where nobody will ever look for it.
    assert!(pair.world.watch.memory.stat(&object).await.unwrap().is_none());
}

#[tokio::test]
async fn what_was_purged_here_or_there_is_not_brought_back() {
    for announced_there in [false, true] {
        let pair = Pair::new().await;
        let dir = pair.docs[0].dir();
        let object = pair.files().await.remove(0);
        for path in [object.clone(), pair.commit()] {
            pair.world.set(&path, Some(b"bad".to_vec())).await;
        }
        let places = pair.found().await;
        assert!(places.len() > 1, "{places:?}");
        let grounds = Grounds { purge: Some("leaked".to_owned()), ..Grounds::default() };
        let receipt = |grounds| ReceiptDoc {
            format: 1,
            stack: dir.stack.clone(),
            source: dir.source.clone(),
            generation: dir.id.clone(),
            at: pair.world.store.now(),
            snapshots: Vec::new(),
            vault: None,
            documents: BTreeSet::new(),
            objects: 0,
            stored_bytes: 0,
            grounds,
            signer: pair.world.key.fingerprint(),
            tool: "backup 0".to_owned(),
        };
        let vault = if announced_there {
            let request = PurgeRequest {
                dir: dir.clone(),
                reason: "leaked".to_owned(),
                even_newest: true,
                tool: "backup 0".to_owned(),
            };
            let plan = plan(&pair.second, &pair.world.signers, &request).await.unwrap();
            let ended = apply(&pair.second, &pair.world.key, &plan).await.unwrap();
            assert!(matches!(ended, PurgeEnd::Announced { .. }), "{ended:?}");
            "second"
        } else {
            // Believed only from somebody who is pinned.
            let forged = ReceiptDoc { signer: host_key(9).fingerprint(), ..receipt(grounds.clone()) };
            pair.world.vault.put_signed(&forged, &host_key(9)).await.unwrap();
            let dry = pair.ask(&places, true).await;
            let purged = |mend: &Mend| matches!(mend.outcome, Outcome::Not(RepairError::Purged { .. }));
            assert!(dry.iter().any(|mend| matches!(mend.outcome, Outcome::Mendable { .. })), "{dry:?}");
            assert!(!dry.iter().any(purged), "{dry:?}");
            pair.world.set(&forged.path(), None).await;
            pair.world.set(&signature_of(&forged.path()), None).await;
            pair.world.vault.put_signed(&receipt(grounds), &pair.world.key).await.unwrap();
            "first"
        };
        pair.world.watch.fail(None);
        let made = pair.ask(&places, false).await;
        assert_eq!(made.len(), places.len());
        // Fails without `helpers`, and there without each of its two questions.
        for mend in &made {
            let Outcome::Not(RepairError::Purged { vault: at, reason, .. }) = &mend.outcome else { panic!("{made:?}") };
            assert_eq!((at.as_str(), reason.as_str()), (vault, "leaked"));
        }
        assert_eq!(pair.world.watch.paths("put"), [""; 0]);
    }
}

#[tokio::test]
async fn a_prune_that_began_and_ended_before_the_commit_leaves_no_snapshot_with_holes() {
    let pair = Pair::new().await;
    let dir = pair.docs[1].dir();
    pair.world.set(&pair.commit(), Some(b"bad".to_vec())).await;
    let places = BTreeSet::from([Place::Snapshot(dir.clone(), pair.docs[1].id.clone())]);
    let (memory, below, commit) = (pair.world.watch.memory.clone(), dir.dir(), pair.commit().to_string());
    pair.world.watch.before_put(move |path| {
        if path == commit || path == format!("{commit}.sig") {
            for entry in futures::executor::block_on(memory.list(Some(&below))).unwrap() {
                if !entry.path.as_str().starts_with(&commit) {
                    futures::executor::block_on(memory.delete(&entry.path)).unwrap();
                }
            }
        }
    });
    let made = pair.ask(&places, false).await;
    assert!(made.iter().all(|mend| matches!(mend.outcome, Outcome::Not(RepairError::Pruned { .. }))), "{made:?}");
    // Fails without `holds`: a signed snapshot without its objects.
    assert_eq!(pair.world.watch.content(dir.dir().as_str()).await, []);
}

#[tokio::test]
async fn a_vault_that_fails_is_not_asked_for_every_file() {
    let pair = Pair::new().await;
    let world = &pair.world;
    let (lines, _) = world.vault.get_inventory(&pair.docs[1]).await.unwrap();
    for line in &lines {
        world.set(&pair.docs[1].dir().object(&line.name), None).await;
    }
    let places = pair.found().await;
    assert!(places.len() > 1, "{places:?}");
    let away = Arc::new(AlwaysAway(world.watch.clone()));
    let vault = Vault::open("first", away, None).await.unwrap();
    let ask = Repair {
        vault: &vault,
        others: std::slice::from_ref(&pair.second),
        signers: &world.signers,
        heads: &[],
        at: world.host.now(),
        dry_run: false,
    };
    let made = repair(ask, &places).await;
    assert_eq!(made.len(), places.len());
    assert!(
        made.iter()
            .all(|mend| matches!(mend.outcome, Outcome::Not(RepairError::Vault { .. } | RepairError::NotTried { .. })))
    );
}

/// Reads, and takes nothing.
#[derive(Debug)]
struct AlwaysAway(Watch);

#[async_trait::async_trait]
impl Store for AlwaysAway {
    fn describe(&self) -> String {
        "away".to_owned()
    }
    async fn put(&self, path: &StorePath, _: Bytes, _: PutMode) -> Result<PutOutcome, StoreError> {
        Err(StoreError::Full { path: path.to_string(), store: "away".to_owned() })
    }
    async fn get(&self, path: &StorePath, limit: u64) -> Result<Bytes, StoreError> {
        self.0.get(path, limit).await
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.0.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.0.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.0.sync().await
    }
    async fn now(&self) -> Result<chrono::DateTime<chrono::Utc>, StoreError> {
        self.0.now().await
    }
}

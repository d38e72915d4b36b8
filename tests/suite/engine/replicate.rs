//! Copies from vault to vault: newest first, verbatim, taken up again, and nothing that is not believed.

use std::sync::Arc;

use backup_core::replicate::{ReplicateError, Replicated, Route, marks, replicate, replicate_marks};
use backup_core::vault::Vault;
use backup_core::vault::document::{MarkDoc, MarkKind, PruneStage, PublicDocument, SnapshotDoc};
use backup_core::vault::layout::signature_of;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store, StorePath};
use chrono::TimeDelta;

use super::watch::{Fault, Watch, is_commit};
use super::world::{Script, Told, World, announcement, forgeries, host_key, make_vault};

struct Pair {
    world: World,
    docs: Vec<SnapshotDoc>,
    there: Watch,
    to: Vault,
}

impl Pair {
    /// Three snapshots over two generations here, an empty vault there.
    async fn new() -> Self {
        let world = World::new().await;
        let mut docs = Vec::new();
        for seed in 1..=3 {
            docs.push(world.run(&Script::noise(400_000, seed)).await.unwrap().snapshot.doc);
            if seed == 1 {
                world.pass(TimeDelta::days(7));
            }
        }
        let there = Watch::new(MemoryStore::new(world.store.clock()));
        let to = make_vault("second", &there, world.store.now()).await;
        there.fail(None);
        Self { world, docs, there, to }
    }

    async fn copy(&self, wanted: fn(&Self, &str) -> bool, newest_only: bool) -> Replicated {
        let world = &self.world;
        let route = Route { from: &world.vault, to: &self.to, signers: &world.signers, monitor: &world.monitor };
        let wanted = |id: &backup_core::vault::layout::SnapshotId| wanted(self, id.as_str());
        replicate(route, &world.request.stack, &world.request.source, &wanted, newest_only).await
    }

    /// Marks too: how many were put, and what failed.
    async fn copy_marks(&self) -> (u64, Vec<ReplicateError>) {
        let world = &self.world;
        let read = async |vault| marks(vault, &world.signers, &world.request.stack, &world.request.source).await;
        let (given, there) = (read(&world.vault).await.unwrap(), read(&self.to).await.unwrap());
        replicate_marks(&given, &self.to, &there, &world.signers, &world.monitor).await
    }

    async fn copy_all(&self) -> Replicated {
        self.copy(|_, _| true, false).await
    }

    /// Pins one of the snapshots here.
    async fn pin(&self, at: usize) -> StorePath {
        let mark = MarkDoc {
            format: 1,
            stack: "shop".parse().unwrap(),
            source: "db".parse().unwrap(),
            snapshot: self.docs[at].id.clone(),
            mark: MarkKind::Pin,
            at: self.world.host.now(),
            document: backup_core::id::Hash256([0; 32]),
            closes: None,
            signer: self.world.key.fingerprint(),
            tool: "backup 0".to_owned(),
        };
        self.world.vault.put_signed(&mark, &self.world.key).await.unwrap().doc.path()
    }

    /// Everything that the destination lists can be read there.
    async fn whole(&self) -> usize {
        let listed = self.to.history(&self.world.request.stack, &self.world.request.source).await.unwrap();
        for (dir, id) in &listed {
            let path = dir.snapshot(id, ".json");
            let signed = self.to.get_signed::<SnapshotDoc>(&path, &self.world.signers).await.unwrap();
            let (lines, _) = self.to.get_inventory(&signed.doc).await.unwrap();
            for line in lines {
                self.to.get_object(dir, &line.name).await.unwrap();
            }
        }
        listed.len()
    }
}

#[tokio::test]
async fn everything_is_copied_verbatim_the_newest_first() {
    let pair = Pair::new().await;
    pair.pin(0).await;
    let done = pair.copy_all().await;
    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!(pair.copy_marks().await.0, 1);
    let newest_first: Vec<_> = pair.docs.iter().rev().map(|doc| doc.id.clone()).collect();
    assert_eq!(done.snapshots, newest_first);
    let commits: Vec<String> = pair.there.paths("put").into_iter().filter(|path| is_commit(path)).collect();
    // Fails without `lacking.reverse()` in `replicate`.
    assert!(commits.iter().zip(&newest_first).all(|(path, id)| path.contains(id.as_str())), "{commits:?}");
    assert_eq!(pair.there.content("shop").await, pair.world.watch.content("shop").await);
    // Once more: nothing to do, nothing written, no object read.
    pair.there.fail(None);
    pair.world.watch.fail(None);
    assert_eq!(format!("{:?}", pair.copy_all().await), format!("{:?}", Replicated::default()));
    assert_eq!(pair.copy_marks().await.0, 0);
    assert_eq!(pair.there.paths("put"), Vec::<String>::new());
    assert!(pair.world.watch.paths("get").iter().all(|path| !path.contains("/objects/")));
}

#[tokio::test]
async fn the_newest_alone_and_only_what_is_wanted() {
    let pair = Pair::new().await;
    // Anybody who can write there can write a name. Fails where the newest name is taken for the newest snapshot.
    let planted = pair.docs[2].dir().snapshot(&"29990101T000000Z-1r-abcdef".parse().unwrap(), ".json");
    pair.world.set(&planted, Some(b"{}".to_vec())).await;
    let done = pair.copy(|_, _| true, true).await;
    assert_eq!((done.snapshots, done.errors.len()), (vec![pair.docs[2].id.clone()], 1));
    let again = pair.copy(|_, _| true, true).await;
    assert!(again.snapshots.is_empty(), "the backlog is left: {again:?}");
    let done = pair.copy(|pair, id| id != pair.docs[0].id.as_str(), false).await;
    assert_eq!((done.snapshots, done.not_wanted), (vec![pair.docs[1].id.clone()], 1));
    assert_eq!(pair.whole().await, 2);
}

#[tokio::test]
async fn interrupted_at_any_call_it_is_taken_up_again() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let mut at = 0;
        loop {
            let pair = Pair::new().await;
            pair.there.fail(Some((at, fault)));
            let ended = pair.copy_all().await;
            let over = pair.there.calls() <= at;
            assert_eq!(ended.errors.is_empty(), over, "{fault:?} at call {at}");
            let stored = pair.there.objects_put().len();
            pair.there.fail(None);
            // Fails if a snapshot's document were put before its objects: `copy`.
            pair.whole().await;
            assert!(pair.copy_all().await.errors.is_empty());
            assert_eq!(pair.whole().await, 3);
            assert_eq!(pair.there.content("shop").await, pair.world.watch.content("shop").await);
            let objects =
                pair.there.content("shop").await.iter().filter(|(path, _)| path.contains("/objects/")).count();
            // What is there is not copied again; at most those under way at the failure are.
            assert!(pair.there.objects_put().len() + stored <= objects + 6, "{fault:?} at call {at}");
            if over {
                assert!(at > 25, "{at} calls");
                break;
            }
            at += 1;
        }
    }
}

#[tokio::test]
async fn what_nobody_pinned_signed_is_not_spread_and_hinders_nothing() {
    let pair = Pair::new().await;
    let newest = &pair.docs[2];
    let planted = "29990101T000000Z-1b-aaaaaa".parse().unwrap();
    for suffix in [".json", ".inventory.zst"] {
        let body = pair.world.body(&newest.dir().snapshot(&newest.id, suffix)).await;
        pair.world.set(&newest.dir().snapshot(&planted, suffix), Some(body)).await;
    }
    // Fails without the check of the signature in `copy`; the others are copied all the same: without
    // `is_of_one_snapshot` in `replicate` they are not.
    let ended = pair.copy_all().await;
    let refused = ended.errors.as_slice();
    assert!(matches!(refused, [ReplicateError::Snapshot { snapshot, .. }] if *snapshot == planted), "{ended:?}");
    assert_eq!(ended.snapshots.len(), 3, "what was done is told all the same");
    assert_eq!(pair.whole().await, 3);
    // The same with a damaged and with an incomplete snapshot.
    let pair = Pair::new().await;
    let victim = pair.docs[2].dir().object(&pair.docs[2].manifest.objects[0]);
    let mut body = pair.world.body(&victim).await;
    body[30] ^= 1;
    pair.world.set(&victim, Some(body)).await;
    let ended = pair.copy_all().await;
    assert!(matches!(ended.errors.as_slice(), [ReplicateError::Snapshot { .. }]), "{ended:?}");
    assert_eq!(pair.whole().await, 2);
    pair.world.set(&victim, None).await;
    let ended = pair.copy_all().await;
    assert!(matches!(ended.errors.as_slice(), [ReplicateError::Incomplete { .. }]), "{ended:?}");
    assert_eq!(pair.whole().await, 2);
}

#[tokio::test]
async fn a_generation_that_the_destination_removes_gets_nothing() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let pair = Pair::new().await;
        for (path, body) in announcement(&pair.docs[0], stage, &pair.world.key) {
            pair.there.memory.put(&path, body.into(), PutMode::Replace).await.unwrap();
        }
        pair.there.fail(None);
        // Fails without `refuse_if_pruned` in `copy`; its first call is before anything is put.
        let ended = pair.copy_all().await;
        assert!(matches!(ended.errors.as_slice(), [ReplicateError::Pruned { .. }]), "{ended:?}");
        assert_eq!(pair.whole().await, 2);
        let doomed = pair.docs[0].dir().dir();
        let put: Vec<String> = pair.there.paths("put").into_iter().filter(|p| p.starts_with(doomed.as_str())).collect();
        assert_eq!(put, [""; 0]);
    }
}

#[tokio::test]
async fn a_prune_that_begins_or_ends_during_a_copy_makes_it_withdraw() {
    for stage in [Some(PruneStage::Expired), Some(PruneStage::Deleting), None] {
        let pair = Pair::new().await;
        let (memory, doc) = (pair.there.memory.clone(), pair.docs[0].clone());
        let announced = stage.map(|stage| announcement(&doc, stage, &pair.world.key));
        let (commit, object) = (doc.dir().snapshot(&doc.id, ".json"), doc.dir().object(&doc.manifest.objects[0]));
        pair.there.before_put(move |path| {
            if path != commit.as_str() {
                return;
            }
            for (path, body) in announced.iter().flatten().cloned() {
                futures::executor::block_on(memory.put(&path, body.into(), PutMode::Replace)).unwrap();
            }
            // One that has ended leaves no document, only holes.
            if announced.is_none() {
                futures::executor::block_on(memory.delete(&object)).unwrap();
            }
        });
        let ended = pair.copy_all().await;
        // Fails without the second `refuse_if_pruned`, or without `is_whole`, in `copy`.
        assert!(matches!(ended.errors.as_slice(), [ReplicateError::Pruned { .. }]), "{stage:?}: {ended:?}");
        assert_eq!(pair.whole().await, 2, "the commit was taken back");
    }
}

#[tokio::test]
async fn what_nobody_pinned_announced_keeps_no_copy_away() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        for forgery in forgeries(&Pair::new().await.docs[0], stage, &host_key(1)) {
            let mut pair = Pair::new().await;
            let told = Arc::new(Told::default());
            pair.world.monitor = told.clone();
            let dir = pair.docs[0].dir();
            for (path, body) in forgery {
                let name = path.as_str().rsplit('/').next().unwrap();
                pair.there.memory.put(&dir.file(name), body.into(), PutMode::Replace).await.unwrap();
            }
            // Fails where `standing` believes what lies there.
            assert!(pair.copy_all().await.errors.is_empty());
            assert_eq!(pair.whole().await, 3);
            assert_eq!(told.count("foreign or unsigned mark"), 1, "{stage:?}");
        }
    }
}

#[tokio::test]
async fn what_was_copied_is_told_although_a_later_one_failed() {
    let mut partly = 0;
    for at in 0.. {
        let pair = Pair::new().await;
        pair.there.fail(Some((at, Fault::Refused)));
        let ended = pair.copy_all().await;
        pair.there.fail(None);
        let listed = pair.to.history(&pair.world.request.stack, &pair.world.request.source).await.unwrap();
        // Fails if an error takes the place of what was done. (One that fails after its commit is done and not told.)
        assert!(ended.snapshots.len() + 1 >= listed.len(), "call {at}: {ended:?}");
        partly += usize::from(!ended.snapshots.is_empty() && !ended.errors.is_empty());
        if ended.errors.is_empty() {
            break;
        }
    }
    assert!(partly > 10, "{partly}");
}

#[tokio::test]
async fn one_mark_that_cannot_be_put_is_told() {
    let pair = Pair::new().await;
    pair.pin(0).await;
    // Two listings of marks, of which the second is there; then the signature is put.
    pair.there.fail(Some((1, Fault::Refused)));
    let (put, errors) = pair.copy_marks().await;
    assert!(matches!((put, errors.as_slice()), (0, [ReplicateError::Mark { .. }])), "{errors:?}");
    pair.there.fail(None);
    assert_eq!(pair.copy_marks().await.0, 1);
}

#[tokio::test]
async fn garbage_where_a_mark_belongs_hides_no_signed_one() {
    let mut pair = Pair::new().await;
    let told = Arc::new(Told::default());
    pair.world.monitor = told.clone();
    let (first, second) = (pair.pin(0).await, pair.pin(1).await);
    let body = pair.world.body(&first).await;
    let forged = Some(b"forged".to_vec());
    for (garbage, signature) in [(b"{}".to_vec(), None), (body, forged), (vec![0; 5 << 20], None)] {
        for (path, body) in [(first.clone(), Some(garbage)), (signature_of(&first), signature)] {
            match body {
                Some(body) => drop(pair.there.memory.put(&path, body.into(), PutMode::Replace).await.unwrap()),
                None => pair.there.memory.delete(&path).await.unwrap(),
            }
        }
        let (_, errors) = pair.copy_marks().await;
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(told.count("replaced by a signed one"), 1);
        // Fails if a path that is there counts as a mark that is there.
        for path in [&first, &second] {
            pair.to.get_signed::<MarkDoc>(path, &pair.world.signers).await.unwrap();
        }
    }
    // And the other way round: what is not believed here is not spread.
    pair.world.set(&second, Some(b"{}".to_vec())).await;
    assert_eq!(pair.copy_marks().await.0, 0);
    pair.to.get_signed::<MarkDoc>(&second, &pair.world.signers).await.unwrap();
}

//! The order of a commit, and what a failure at any call leaves behind.

use std::sync::Arc;

use backup_core::backup::BackupError;
use backup_core::seal::Sealer;
use backup_core::vault::VaultError;
use backup_core::vault::document::PruneStage;
use backup_core::vault::layout::signature_of;
use backup_core::vault::store::{PutMode, PutOutcome, Store, StoreError};

use super::watch::{Fault, is_commit};
use super::world::{Script, Told, World, announcement, forgeries};

#[tokio::test]
async fn the_document_comes_last_and_after_a_barrier() {
    let world = World::new().await;
    world.watch.fail(None);
    // `Watch::put` asserts that nothing is loose when a document appears; fails without the `sync` before the document
    // in `Vault::put_verbatim`.
    world.run(&Script::noise(5_000_000, 1)).await.unwrap();
    let put = world.watch.paths("put");
    let [.., inventory, signature, document] = put.as_slice() else { panic!("{put:?}") };
    assert!(
        inventory.ends_with(".inventory.zst") && signature.ends_with(".json.sig") && is_commit(document),
        "{put:?}"
    );
    assert!(put[0].ends_with("generation.json.sig") && put[1].ends_with("generation.json"), "{put:?}");
    assert!(put[2..put.len() - 3].iter().all(|path| path.contains("/objects/")), "{put:?}");
}

#[tokio::test]
async fn snapshots_of_one_second_sort_as_they_follow_on_each_other() {
    let world = World::new().await;
    let mut last = None;
    // Fewer bytes each time: within one second such a name would sort before the one that it follows on.
    for bytes in [400_000, 90_000, 8_000, 700] {
        let done = world.run(&Script::noise(bytes, 1)).await.unwrap();
        assert_eq!(done.snapshot.doc.previous, last);
        last = Some(done.snapshot.hash());
        let newest = world.history().await.pop().unwrap();
        assert_eq!(newest.1, done.snapshot.doc.id, "the newest by name is the newest");
    }
}

/// A run fails at each of its calls in turn. Whatever is then listed as a snapshot can be read whole; the next run
/// succeeds, and its chain closes.
async fn failing(fault: Fault) {
    let (first, second) = (Script::noise(300_000, 1), Script::noise(400_000, 2));
    let mut at = 0;
    let (mut failures, mut commits_of_failures) = (0, 0);
    loop {
        let world = World::new().await;
        world.run(&first).await.unwrap();
        world.watch.fail(Some((at, fault)));
        let ended = world.run(&second).await;
        let over = world.watch.calls() <= at;
        world.watch.fail(None);
        failures += usize::from(ended.is_err());
        for listed in &world.history().await[1..] {
            commits_of_failures += usize::from(ended.is_err());
            let streams = world.read(listed).await.unwrap_or_else(|error| panic!("{fault:?} at call {at}: {error}"));
            assert_eq!(streams, second.streams);
        }
        assert!(ended.is_err() || world.history().await.len() == 2);
        let next = world.run(&second).await.unwrap().snapshot.doc;
        assert_eq!(world.read_doc(&next).await.unwrap(), second.streams);
        // Fails without the walk to the remembered head in `previous`: a commit that was not noted would be skipped.
        let verified = world.verify(true).await;
        assert!(!verified.is_damaged(), "{fault:?} at call {at}: {verified:?}");
        if over {
            break;
        }
        at += 1;
    }
    assert!(failures == at && at > 12, "{failures} of {at} calls");
    assert!(commits_of_failures > 0, "no failure came after the commit: it must be among those tried");
}

#[tokio::test]
async fn a_run_that_is_refused_at_any_call_leaves_no_half_snapshot() {
    failing(Fault::Refused).await;
}

#[tokio::test]
async fn a_run_that_loses_any_answer_leaves_no_half_snapshot() {
    failing(Fault::AnswerLost).await;
}

#[tokio::test]
async fn a_prune_that_begins_during_a_run_makes_it_withdraw() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let world = World::new().await;
        let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
        let (memory, path) = (world.watch.memory.clone(), first.dir().file(stage.file()));
        let planted = announcement(&first, stage, &world.key);
        world.watch.before_put(move |put| {
            for (path, body) in planted.clone().into_iter().filter(|_| is_commit(put)) {
                futures::executor::block_on(memory.put(&path, body.into(), PutMode::Replace)).unwrap();
            }
        });
        // Fails without `withdraw_if_pruned` in `backup`.
        let ended = world.run(&Script::noise(300_000, 2)).await;
        assert!(matches!(ended, Err(BackupError::Pruned { .. })), "{ended:?}");
        assert_eq!(world.history().await.len(), 1, "the commit was taken back");
        // And before the first object: fails without `refuse_if_pruned`.
        world.watch.fail(None);
        let ended = world.run(&Script::noise(300_000, 3)).await;
        assert!(matches!(ended, Err(BackupError::Pruned { .. })), "{ended:?}");
        assert_eq!(world.watch.paths("put"), Vec::<String>::new());
        // Undone, the chain goes on from the snapshot that stayed.
        world.watch.before_put(|_| {});
        world.set(&path, None).await;
        let next = world.run(&Script::noise(300_000, 4)).await.unwrap().snapshot;
        assert_eq!(next.doc.generation, first.generation);
        assert!(!world.verify(true).await.is_damaged());
    }
}

/// The listing with which a run begins is not the last word: whatever is announced after it was answered, and whatever a
/// store with stale listings did not show, is seen after the commit.
#[tokio::test]
async fn what_is_announced_after_the_listing_is_seen_before_the_run_ends() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let world = World::new().await;
        let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
        let (memory, planted) = (world.watch.memory.clone(), announcement(&first, stage, &world.key));
        world.watch.before_put(move |put| {
            for (path, body) in planted.clone().into_iter().filter(|_| put.contains("/objects/")) {
                futures::executor::block_on(memory.put(&path, body.into(), PutMode::Replace)).unwrap();
            }
        });
        world.watch.fail(None);
        // Fails where the last look believes the listing that the run began with.
        let ended = world.run(&Script::noise(300_000, 2)).await;
        assert!(matches!(ended, Err(BackupError::Pruned { .. })), "{ended:?}");
        assert_eq!(world.history().await.len(), 1, "the commit was taken back");
        let asked = world.watch.asked();
        let listed = asked.iter().position(|(call, _)| *call == "list").unwrap();
        let object = asked.iter().position(|(call, path)| *call == "put" && path.contains("/objects/")).unwrap();
        let commit = asked.iter().position(|(call, path)| *call == "put" && is_commit(path)).unwrap();
        let last = asked.iter().rposition(|(call, path)| *call == "stat" && path.ends_with(stage.file())).unwrap();
        assert!(listed < object && object < commit && commit < last, "{asked:?}");
    }
}

#[tokio::test]
async fn what_nobody_pinned_announced_stops_no_run_and_hides_no_announcement() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let mut world = World::new().await;
        let told = Arc::new(Told::default());
        world.monitor = told.clone();
        let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
        for (at, forgery) in (2..).zip(forgeries(&first, stage, &world.key)) {
            world.set(&signature_of(&first.dir().file(stage.file())), None).await;
            for (path, body) in forgery {
                world.set(&path, Some(body)).await;
            }
            // Fails where `notice::read` believes what lies there, or takes a large one for a failure of the store.
            let next = world.run(&Script::noise(300_000, at)).await.unwrap().snapshot.doc;
            assert_eq!(next.generation, first.generation);
            assert_eq!(told.count("foreign or unsigned mark"), 1, "{stage:?}, forgery {at}");
        }
        // The other document, signed, is obeyed all the same.
        let other = if stage == PruneStage::Expired { PruneStage::Deleting } else { PruneStage::Expired };
        for (path, body) in announcement(&first, other, &world.key) {
            world.set(&path, Some(body)).await;
        }
        let ended = world.run(&Script::noise(300_000, 9)).await;
        assert!(matches!(ended, Err(BackupError::Pruned { .. })), "{ended:?}");
    }
}

#[tokio::test]
async fn an_object_that_is_there_is_not_put_over() {
    let world = World::new().await;
    let doc = world.run(&Script::noise(100_000, 1)).await.unwrap().snapshot.doc;
    let sealed = Sealer::new(&doc.public_key, 1).unwrap().seal(b"something new").unwrap();
    let path = doc.dir().object(&sealed.name());
    assert_eq!(world.vault.put_object(&doc.dir(), &sealed).await.unwrap(), PutOutcome::Created);
    let mut same_size = sealed.bytes().to_vec();
    same_size[0] ^= 1;
    let shorter = same_size[1..].to_vec();
    for there in [same_size, shorter] {
        world.set(&path, Some(there.clone())).await;
        let put = world.vault.put_object(&doc.dir(), &sealed).await;
        // Fails where objects are put with `PutMode::Replace`.
        assert_eq!(world.body(&path).await, there);
        let is_there = matches!(put, Ok(PutOutcome::AlreadyThere));
        let exists = matches!(put, Err(VaultError::Store { source: StoreError::Exists { .. }, .. }));
        assert!(if there.len() == sealed.bytes().len() { is_there } else { exists }, "{put:?}");
    }
}

//! A deletion that is taken back after its receipt: the receipt follows the truth, whatever died in between, and excuses nothing.

use backup_core::id::Hash256;
use backup_core::prune::{Action, Done, apply};
use backup_core::vault::document::{ExpiredDoc, Grounds, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::store::StorePath;
use chrono::TimeDelta;

use super::prune::{day, dirs, planned, prune, read_receipts, six_days};
use super::prune_rules::{hash, marked, twelve};
use super::watch::Fault;
use super::world::World;

/// The deleting run, which dies at its first call after the receipt of a generation.
async fn dies_after_receipt(world: &World, doc: &SnapshotDoc) {
    prune(world).await;
    day(world, 7).await;
    world.pass(TimeDelta::hours(1));
    let plan = planned(world).await;
    for at in 0.. {
        world.watch.fail(Some((at, Fault::Refused)));
        assert!(apply(&world.vault, &world.key, &plan).await.is_err(), "call {at}");
        world.watch.fail(None);
        if !of(world, doc).await.is_empty() {
            return;
        }
    }
}

async fn of(world: &World, doc: &SnapshotDoc) -> Vec<ReceiptDoc> {
    let mut all = read_receipts(world).await;
    all.retain(|receipt| receipt.generation == doc.generation);
    all
}

async fn pin(world: &World, doc: &SnapshotDoc) {
    let pin = marked(world, doc, MarkKind::Pin, hash(world, doc).await);
    world.vault.put_signed(&pin, &world.key).await.unwrap();
}

fn action(done: &[Done], doc: &SnapshotDoc) -> Option<Action> {
    done.iter().find(|done| done.dir == doc.dir()).map(|done| done.action.clone())
}

#[tokio::test]
async fn a_receipt_of_what_stayed_goes_with_the_deletion() {
    let (world, docs) = six_days().await;
    dies_after_receipt(&world, &docs[0]).await;
    pin(&world, &docs[0]).await;
    let done = prune(&world).await;
    assert_eq!(action(&done, &docs[0]), Some(Action::Withdraw));
    world.read_doc(&docs[0]).await.unwrap();
    // Fails without `settle` in `apply_beside`.
    assert_eq!(of(&world, &docs[0]).await, []);
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn what_went_stays_in_the_receipt_and_what_stayed_does_not() {
    let (world, docs) = twelve().await;
    let (went, stayed) = (&docs[0], &docs[1]);
    let struck = hash(&world, stayed).await;
    dies_after_receipt(&world, went).await;
    // Taken up again, it dies once more when the first name has gone.
    for at in 0.. {
        let plan = planned(&world).await;
        world.watch.fail(Some((at, Fault::Refused)));
        assert!(apply(&world.vault, &world.key, &plan).await.is_err(), "call {at}");
        world.watch.fail(None);
        if !world.vault.exists(&went.dir().snapshot(&went.id, ".json")).await.unwrap() {
            break;
        }
    }
    pin(&world, stayed).await;
    let before = of(&world, went).await;
    assert_eq!(before[0].snapshots.len(), 2);
    assert_eq!(action(&prune(&world).await, stayed), Some(Action::Withdraw));
    world.read_doc(stayed).await.unwrap();
    let after = of(&world, went).await;
    let names: Vec<_> = after.iter().flat_map(|receipt| &receipt.snapshots).map(|(id, _)| id.clone()).collect();
    assert_eq!(names, std::slice::from_ref(&went.id));
    assert_eq!((after.len(), after[0].documents.len(), after[0].at), (1, 1, before[0].at));
    assert!(before[0].documents.contains(&struck) && !after[0].documents.contains(&struck));
    let verified = world.verify(true).await;
    assert!(verified.chain.is_empty() && !verified.is_damaged(), "{verified:?}");
}

#[tokio::test]
async fn a_withdrawal_that_dies_at_any_call_is_ended_by_the_next_plan() {
    let mut healed = 0;
    // What is called later is the deletion of the others.
    for at in 0..24 {
        let (world, docs) = six_days().await;
        dies_after_receipt(&world, &docs[0]).await;
        pin(&world, &docs[0]).await;
        let plan = planned(&world).await;
        assert!(dirs(&plan, &Action::Withdraw).contains(&docs[0].dir()), "{plan:?}");
        world.watch.fail(Some((at, Fault::AnswerLost)));
        let ended = apply(&world.vault, &world.key, &plan).await;
        let over = world.watch.calls() <= at;
        world.watch.fail(None);
        assert_eq!(ended.is_ok(), over);
        let next = planned(&world).await;
        let deleting = world.vault.exists(&docs[0].dir().file(PruneStage::Deleting.file())).await.unwrap();
        healed += usize::from(!deleting && dirs(&next, &Action::Withdraw).contains(&docs[0].dir()));
        apply(&world.vault, &world.key, &next).await.unwrap();
        // Fails without `untrue` in `Scene::judge`.
        assert_eq!(of(&world, &docs[0]).await, [], "call {at}");
        world.read_doc(&docs[0]).await.unwrap();
        assert!(!dirs(&planned(&world).await, &Action::Withdraw).contains(&docs[0].dir()), "call {at}: once");
        if over {
            break;
        }
    }
    assert!(healed > 2, "{healed}");
}

#[tokio::test]
async fn an_old_document_that_is_put_back_strikes_nothing_out() {
    let (world, docs) = six_days().await;
    let kept = world.watch.content(docs[0].dir().snapshots().as_str()).await;
    prune(&world).await;
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    prune(&world).await;
    let receipts = of(&world, &docs[0]).await;
    assert_eq!(receipts.len(), 1);
    for (path, body) in kept {
        world.set(&StorePath::new(path).unwrap(), Some(body.to_vec())).await;
    }
    // It is signed, and its objects are gone: fails where `untrue` goes by names, or by belief alone.
    prune(&world).await;
    assert_eq!(of(&world, &docs[0]).await, receipts);
}

#[tokio::test]
async fn two_receipts_of_one_second_are_two_and_each_counts_for_its_own() {
    // Begun and not receipted, beside another deletion's receipt of that second.
    for interrupted in [false, true] {
        let (world, docs) = six_days().await;
        prune(&world).await;
        day(&world, 7).await;
        world.pass(TimeDelta::hours(1));
        // Of a part that went long ago, over a vault that was lost.
        let before = docs[0].instant - TimeDelta::hours(1);
        let before = format!("{}-1b-abcdef", before.format("%Y%m%dT%H%M%SZ"));
        let other = ReceiptDoc {
            format: 1,
            stack: docs[0].stack.clone(),
            source: docs[0].source.clone(),
            vault: Some(world.vault.id().clone()),
            generation: docs[0].generation.clone(),
            at: world.store.now(),
            snapshots: vec![(before.parse().unwrap(), "expire: old".to_owned())],
            documents: [Hash256([9; 32])].into(),
            objects: 1,
            stored_bytes: 1,
            grounds: Grounds { without: vec!["lost".to_owned()], ..Grounds::default() },
            signer: world.key.fingerprint(),
            tool: "backup 0".to_owned(),
        };
        world.vault.put_signed(&other, &world.key).await.unwrap();
        let plan = planned(&world).await;
        assert!(dirs(&plan, &Action::Delete).contains(&docs[0].dir()));
        if interrupted {
            let deleting = docs[0].dir().file(PruneStage::Deleting.file());
            for at in 0.. {
                world.watch.fail(Some((at, Fault::Refused)));
                assert!(apply(&world.vault, &world.key, &plan).await.is_err());
                world.watch.fail(None);
                if world.vault.exists(&deleting).await.unwrap() {
                    break;
                }
            }
            let begun = world.vault.get_signed::<ExpiredDoc>(&deleting, &world.signers).await.unwrap();
            assert_eq!(begun.doc.at, other.at, "the same second");
            // Fails where a receipt counts by its instant alone: this one would go without.
            assert_eq!(action(&prune(&world).await, &docs[0]), Some(Action::Resume));
        } else {
            apply(&world.vault, &world.key, &plan).await.unwrap();
        }
        let found = of(&world, &docs[0]).await;
        // Fails without `SECONDS` in `put_receipt`: one would have been written over the other.
        assert_eq!(found.len(), 2, "interrupted: {interrupted}");
        assert!(found.contains(&other));
        let own = found.iter().find(|receipt| **receipt != other).unwrap();
        assert_eq!((own.snapshots.len(), own.snapshots[0].0.clone()), (1, docs[0].id.clone()));
        assert!(!world.verify(true).await.is_damaged());
    }
}

//! A deletion that is taken back after its receipt: the receipt follows the truth, whatever died in between, and excuses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::id::Hash256;
use backup_core::prune::{Action, Done, apply, plan};
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, Grounds, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::store::StorePath;
use chrono::TimeDelta;

use super::prune::{below, day, dirs, planned, prune, read_receipts, request, six_days};
use super::prune_rules::{hash, marked, twelve};
use super::watch::Fault;
use super::world::{World, host_key};

/// The deleting run, which dies at its first call after the receipt of a generation.
pub(super) async fn dies_after_receipt(world: &World, doc: &SnapshotDoc) {
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

pub(super) async fn of(world: &World, doc: &SnapshotDoc) -> Vec<ReceiptDoc> {
    let mut all = read_receipts(world).await;
    all.retain(|receipt| receipt.generation == doc.generation);
    all
}

pub(super) async fn pin(world: &World, doc: &SnapshotDoc) {
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
    // Another process may be in the middle of it: fails where a receipt is set right at once.
    assert_eq!(of(&world, &docs[0]).await.len(), 1);
    assert!(!dirs(&planned(&world).await, &Action::Withdraw).contains(&docs[0].dir()));
    world.pass(TimeDelta::days(1));
    assert_eq!(action(&prune(&world).await, &docs[0]), Some(Action::Withdraw));
    // Fails without `settle` in `apply_beside`.
    assert_eq!(of(&world, &docs[0]).await, []);
    world.read_doc(&docs[0]).await.unwrap();
    assert!(!world.verify(true).await.is_damaged());
}

/// A generation of two snapshots of which one went before its deletion was taken back, a day ago; and its receipt.
async fn half_gone() -> (World, Vec<SnapshotDoc>, ReceiptDoc) {
    let (world, docs) = twelve().await;
    let (went, stayed) = (&docs[0], &docs[1]);
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
    let mut before = of(&world, went).await;
    assert_eq!((before.len(), before[0].snapshots.len()), (1, 2));
    assert_eq!(action(&prune(&world).await, stayed), Some(Action::Withdraw));
    assert_eq!(of(&world, went).await, before);
    world.pass(TimeDelta::days(1));
    (world, docs, before.remove(0))
}

/// What a generation's receipts name: snapshots and documents.
fn named(receipts: &[ReceiptDoc]) -> (Vec<String>, Vec<Hash256>) {
    let ids = receipts.iter().flat_map(|receipt| &receipt.snapshots).map(|(id, _)| id.to_string());
    (ids.collect(), receipts.iter().flat_map(|receipt| receipt.documents.clone()).collect())
}

#[tokio::test]
async fn what_went_stays_in_the_receipt_and_what_stayed_does_not() {
    let (world, docs, before) = half_gone().await;
    let (went, stayed) = (&docs[0], &docs[1]);
    let struck = hash(&world, stayed).await;
    assert_eq!(action(&prune(&world).await, stayed), Some(Action::Withdraw));
    world.read_doc(stayed).await.unwrap();
    let after = of(&world, went).await;
    assert_eq!(named(&after).0, [went.id.to_string()]);
    assert_eq!((after.len(), after[0].documents.len(), after[0].at > before.at), (1, 1, true));
    assert!(before.documents.contains(&struck) && !after[0].documents.contains(&struck));
    let verified = world.verify(true).await;
    assert!(verified.chain.is_empty() && !verified.is_damaged(), "{verified:?}");
}

#[tokio::test]
async fn a_receipt_is_set_right_so_that_one_is_believed_at_every_instant() {
    let (mut world, docs, before) = half_gone().await;
    let (base, now) = (world.watch.clone(), world.store.now());
    assert_eq!(now, world.host.now());
    let (went, stayed) = (&docs[0], &docs[1]);
    let kept = hash(&world, stayed).await;
    let gone = before.documents.iter().copied().find(|document| *document != kept).unwrap();
    let (mut both, mut died) = (0, 0);
    for fault in [Fault::DiesBefore, Fault::DiesAfter] {
        for lost in [false, true] {
            for at in 0.. {
                world.store.set(now);
                world.host.set(now);
                world.watch = base.copy(world.store.clock());
                world.vault = Vault::open("first", Arc::new(world.watch.clone()), None).await.unwrap();
                let plan = planned(&world).await;
                // Nothing but that.
                let only = dirs(&plan, &Action::Withdraw);
                assert_eq!(only, [went.dir()], "{plan:?}");
                world.watch.fail(Some((at, fault)));
                drop(apply(&world.vault, &world.key, &plan).await);
                let over = world.watch.calls() <= at;
                world.watch = world.watch.next_process();
                if lost {
                    world.watch.power_cut(|| false, |at| world.store.set(at)).await;
                    world.store.set(now);
                }
                world.vault = Vault::open("first", Arc::new(world.watch.clone()), None).await.unwrap();
                // Each that lies there is believed, and what went is accounted for: fails where it is written over.
                let there = of(&world, went).await;
                let (ids, documents) = named(&there);
                let about = format!("{fault:?} at {at}, power lost: {lost}");
                assert!(ids.contains(&went.id.to_string()) && documents.contains(&gone), "{about}");
                let verified = world.verify(false).await;
                assert!(verified.chain.is_empty() && !verified.is_damaged(), "{about}: {verified:?}");
                both += usize::from(there.len() == 2);
                died += usize::from(!over);
                // The next call ends it, and no second one stays.
                world.pass(TimeDelta::minutes(1));
                prune(&world).await;
                let there = of(&world, went).await;
                assert_eq!((there.len(), named(&there).0), (1, vec![went.id.to_string()]), "{about}");
                world.read_doc(stayed).await.unwrap();
                if over {
                    break;
                }
            }
        }
    }
    assert!(both > 4 && died > 30, "{both} with both there, {died} died");
}

#[tokio::test]
async fn a_withdrawal_that_dies_at_any_call_is_ended_by_the_next_plan() {
    let mut ended = 0;
    for settling in [false, true] {
        for at in 0..24 {
            let (world, docs) = six_days().await;
            dies_after_receipt(&world, &docs[0]).await;
            pin(&world, &docs[0]).await;
            if settling {
                prune(&world).await;
                world.pass(TimeDelta::days(1));
            }
            let plan = planned(&world).await;
            assert!(dirs(&plan, &Action::Withdraw).contains(&docs[0].dir()), "{plan:?}");
            world.watch.fail(Some((at, Fault::AnswerLost)));
            let result = apply(&world.vault, &world.key, &plan).await;
            let over = world.watch.calls() <= at;
            world.watch.fail(None);
            assert_eq!(result.is_ok(), over);
            ended += usize::from(!over);
            apply(&world.vault, &world.key, &planned(&world).await).await.unwrap();
            world.pass(TimeDelta::days(1));
            prune(&world).await;
            // Fails without `untrue` in `Scene::judge`.
            assert_eq!(of(&world, &docs[0]).await, [], "call {at}");
            world.read_doc(&docs[0]).await.unwrap();
            assert!(!dirs(&planned(&world).await, &Action::Withdraw).contains(&docs[0].dir()), "call {at}: once");
            if over {
                break;
            }
        }
    }
    assert!(ended > 10, "{ended}");
}

#[tokio::test]
async fn who_takes_a_deletion_back_leaves_one_that_is_under_way_its_receipt() {
    // A deletion that begins, and one that takes up another's of three days ago.
    for resumed in [false, true] {
        let (world, docs) = twelve().await;
        let dir = docs[0].dir();
        if resumed {
            dies_after_receipt(&world, &docs[0]).await;
            for seed in 8..=10 {
                day(&world, seed).await;
            }
        } else {
            prune(&world).await;
            day(&world, 7).await;
            world.pass(TimeDelta::hours(1));
        }
        let ours = planned(&world).await;
        let wanted = if resumed { Action::Resume } else { Action::Delete };
        assert!(dirs(&ours, &wanted).contains(&dir), "{ours:?}");
        // Before the first name of the generation goes, somebody pins, and another process plans anew and does what it plans.
        let documents: Vec<StorePath> = docs[..2].iter().map(|doc| dir.snapshot(&doc.id, ".json")).collect();
        let pin = marked(&world, &docs[0], MarkKind::Pin, hash(&world, &docs[0]).await);
        let (vault, signers, request) = (world.vault.clone(), world.signers.clone(), request(&world));
        let (first, at) = (documents[0].to_string(), dir.clone());
        let (watch, once) = (world.watch.clone(), AtomicBool::new(false));
        world.watch.before_get_or_delete(move |path| {
            let deletes = path == first && watch.asked().last().is_some_and(|(call, _)| *call == "delete");
            if deletes && !once.swap(true, Ordering::SeqCst) {
                futures::executor::block_on(async {
                    vault.put_signed(&pin, &host_key(1)).await.unwrap();
                    let mut other = plan(&vault, &signers, &request).await.unwrap();
                    assert!(dirs(&other, &Action::Withdraw).contains(&at), "{other:?}");
                    other.steps.retain(|step| step.dir == at);
                    apply(&vault, &host_key(1), &other).await.unwrap();
                });
            }
        });
        apply(&world.vault, &world.key, &ours).await.unwrap();
        world.watch.before_get_or_delete(|_| {});
        // It was past its last look, and everything went; with a receipt.
        assert_eq!(below(&world, &dir).await, [""; 0], "resumed: {resumed}");
        let (ids, _) = named(&of(&world, &docs[0]).await);
        // Fails without `is_ripe` in `settle`; resumed, also without `is_fresh` in `apply_beside`.
        assert!(docs[..2].iter().all(|doc| ids.contains(&doc.id.to_string())), "resumed: {resumed}: {ids:?}");
        let verified = world.verify(false).await;
        assert!(verified.chain.is_empty() && !verified.is_damaged(), "{verified:?}");
    }
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

//! Leaked data: a generation goes whatever its age, after a day in the open, and stays away.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::backup::{BackupError, Host, backup};
use backup_core::clock::Clock;
use backup_core::monitor::Monitor;
use backup_core::prune::purge::{
    PurgeAction, PurgeEnd, PurgePlan, PurgeRequest, Purged, Refusal, Undone, apply, plan, reason, undo,
};
use backup_core::prune::{self, Action, history};
use backup_core::replicate::{ReplicateError, Replicated, Route, replicate};
use backup_core::source::{Captured, Sink, Source, SourceError};
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, MarkKind, PruneStage};
use backup_core::vault::layout::{GenerationDir, mark, signature_of};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store, StorePath};
use chrono::TimeDelta;

use super::prune::{below, day, dirs, planned, prune as pruned, read_receipts, six_days};
use super::prune_rules::{by_sixty_hours, hash, marked};
use super::watch::{Fault, Watch, is_commit};
use super::world::{Script, World, announcement, make_vault};

const WHY: &str = "customer 4711 asked for it";

fn wanted(dir: GenerationDir) -> PurgeRequest {
    PurgeRequest { dir, reason: WHY.to_owned(), even_newest: false, tool: "backup 0".to_owned() }
}

async fn planned_purge(world: &World, dir: GenerationDir) -> PurgePlan {
    plan(&world.vault, &world.signers, &wanted(dir)).await.unwrap()
}

async fn purge(world: &World, dir: GenerationDir) -> PurgeEnd {
    let plan = planned_purge(world, dir).await;
    apply(&world.vault, &world.key, &plan).await.unwrap()
}

async fn purge_newest(world: &World, dir: GenerationDir) -> PurgeEnd {
    let request = PurgeRequest { even_newest: true, ..wanted(dir) };
    let plan = plan(&world.vault, &world.signers, &request).await.unwrap();
    apply(&world.vault, &world.key, &plan).await.unwrap()
}

async fn copy(world: &World, from: &Vault, to: &Vault) -> Replicated {
    let route = Route { from, to, signers: &world.signers, monitor: &world.monitor };
    replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await
}

async fn empty(world: &World, name: &str) -> (Watch, Vault) {
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let vault = make_vault(name, &there, world.store.now()).await;
    (there, vault)
}

#[tokio::test]
async fn announced_waited_for_and_deleted_with_the_reason() {
    let (world, docs) = six_days().await;
    // In the middle, and wanted by every rule.
    let dir = docs[4].dir();
    let first = planned_purge(&world, dir.clone()).await;
    assert_eq!((&first.action, first.snapshots.as_slice()), (&PurgeAction::Announce, [docs[4].id.clone()].as_slice()));
    assert_eq!(first.objects, world.vault.list_objects(&dir).await.unwrap().len() as u64);
    assert!(!world.vault.exists(&dir.file("expired.json")).await.unwrap(), "a plan reads only");
    let until = world.store.now() + TimeDelta::hours(24);
    assert_eq!(apply(&world.vault, &world.key, &first).await.unwrap(), PurgeEnd::Announced { until });
    let doc = world.vault.get_signed::<ExpiredDoc>(&dir.file("expired.json"), &world.signers).await.unwrap().doc;
    assert_eq!((doc.grounds.purge.as_deref(), doc.snapshots[0].0.clone()), (Some(WHY), docs[4].id.clone()));
    // By the store's clock, not the host's; and no newer snapshot is asked for.
    world.host.pass(TimeDelta::hours(30));
    world.store.pass(TimeDelta::hours(24) - TimeDelta::seconds(1));
    // Fails without `now < announced.until` in `plan`.
    assert_eq!(planned_purge(&world, dir.clone()).await.action, PurgeAction::Wait { until });
    assert_eq!(purge(&world, dir.clone()).await, PurgeEnd::Nothing);
    world.read_doc(&docs[4]).await.unwrap();
    world.store.pass(TimeDelta::seconds(1));
    let later = PurgeRequest { reason: "another wording".to_owned(), ..wanted(dir.clone()) };
    let later = plan(&world.vault, &world.signers, &later).await.unwrap();
    assert_eq!((&later.action, later.announced.as_deref()), (&PurgeAction::Delete, Some(WHY)));
    assert!(matches!(apply(&world.vault, &world.key, &later).await.unwrap(), PurgeEnd::Deleted(_)));
    assert_eq!(below(&world, &dir).await, [""; 0]);
    let receipts = read_receipts(&world).await;
    assert_eq!(receipts.len(), 1);
    assert_eq!((receipts[0].grounds.purge.as_deref(), &receipts[0].generation), (Some(WHY), &docs[4].generation));
    assert_eq!((receipts[0].objects, receipts[0].stored_bytes), (first.objects, first.bytes));
    assert!(matches!(planned_purge(&world, dir).await.action, PurgeAction::Gone { .. }));
    assert_eq!(
        planned_purge(&world, GenerationDir { id: "2026-01-01--1d--00112233".parse().unwrap(), ..docs[0].dir() })
            .await
            .action,
        PurgeAction::Absent
    );
    // The receipt closes the chain, for a verification and for the next prune.
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn the_newest_goes_only_when_it_is_said_and_the_next_run_opens_a_new_generation() {
    let world = World::new().await;
    let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
    world.run(&Script::noise(300_000, 2)).await.unwrap();
    // Fails without `guards` in `plan`.
    let refused = planned_purge(&world, first.dir()).await;
    assert!(
        matches!(&refused.action, PurgeAction::Refuse(Refusal::Newest(why)) if why.contains("newest")),
        "{refused:?}"
    );
    assert_eq!(apply(&world.vault, &world.key, &refused).await.unwrap(), PurgeEnd::Nothing);
    assert!(matches!(purge_newest(&world, first.dir()).await, PurgeEnd::Announced { .. }));
    // Announced: the next capture goes elsewhere. Fails in `backup` where a purge stops a run as a prune does.
    let next = world.run(&Script::noise(300_000, 3)).await.unwrap().snapshot.doc;
    assert_ne!(next.generation, first.generation);
    assert_eq!(next.generation.first_day(), first.generation.first_day());
    assert_eq!(world.run(&Script::noise(300_000, 4)).await.unwrap().snapshot.doc.generation, next.generation);
    world.pass(TimeDelta::hours(24));
    // Now it is no longer the newest.
    assert!(matches!(purge(&world, first.dir()).await, PurgeEnd::Deleted(_)));
    assert_eq!(world.history().await.len(), 2);
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn a_purged_generation_is_not_opened_again_by_the_host_that_remembers_it() {
    let world = World::new().await;
    let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot;
    purge_newest(&world, first.doc.dir()).await;
    world.pass(TimeDelta::hours(24));
    assert!(matches!(purge_newest(&world, first.doc.dir()).await, PurgeEnd::Deleted(_)));
    assert_eq!(world.history().await, []);
    // The state remembers the generation as open, and nothing of it is there: fails without `purge::done` in `open_generation`.
    let next = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot;
    assert_ne!(next.doc.generation, first.doc.generation);
    assert_eq!(next.doc.previous, Some(first.hash()), "the chain goes on");
    assert_eq!(below(&world, &first.doc.dir()).await, [""; 0]);
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn a_writer_that_is_at_work_there_withdraws() {
    let world = World::new().await;
    let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
    purge_newest(&world, first.dir()).await;
    let dir = first.dir();
    let path = dir.file("expired.json");
    let announced = [path.clone(), signature_of(&path)].map(|path| {
        let body = futures::executor::block_on(world.body(&path));
        (path, body)
    });
    undo(&world.vault, &world.signers, &dir).await.unwrap();
    let memory = world.watch.memory.clone();
    world.watch.before_put(move |put| {
        for (path, body) in announced.clone().into_iter().filter(|_| is_commit(put)) {
            futures::executor::block_on(memory.put(&path, body.into(), PutMode::Replace)).unwrap();
        }
    });
    let ended = world.run(&Script::noise(300_000, 2)).await;
    // Fails without `withdraw_if_pruned` in `backup`.
    assert!(matches!(&ended, Err(BackupError::Purged { reason, .. }) if reason == WHY), "{ended:?}");
    assert_eq!(world.history().await.len(), 1, "the commit was taken back");
    world.watch.before_put(|_| {});
    assert_ne!(world.run(&Script::noise(300_000, 3)).await.unwrap().snapshot.doc.generation, first.generation);
}

#[tokio::test]
async fn a_pin_stands_against_it_believed_or_not_also_in_the_last_moment() {
    for believed in [true, false] {
        let (world, docs) = six_days().await;
        let dir = docs[2].dir();
        let path = mark(&docs[2].stack, &docs[2].source, &docs[2].id, MarkKind::Pin);
        let pin = async || {
            if believed {
                let pin = marked(&world, &docs[2], MarkKind::Pin, hash(&world, &docs[2]).await);
                world.vault.put_signed(&pin, &world.key).await.unwrap();
            } else {
                world.set(&path, Some(b"{}".to_vec())).await;
            }
        };
        pin().await;
        // Fails without the look at marks in `plan`.
        let refused = planned_purge(&world, dir.clone()).await;
        assert_eq!(refused.action, PurgeAction::Refuse(Refusal::Pinned(vec![docs[2].id.clone()])));
        assert_eq!(refused.foreign.len(), usize::from(!believed));
        world.set(&path, None).await;
        assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Announced { .. }));
        world.pass(TimeDelta::hours(24));
        let plan = planned_purge(&world, dir.clone()).await;
        pin().await;
        // Fails without `is_pinned` in `apply`.
        assert_eq!(apply(&world.vault, &world.key, &plan).await.unwrap(), PurgeEnd::Changed);
        world.read_doc(&docs[2]).await.unwrap();
        assert!(!world.vault.exists(&dir.file("deleting.json")).await.unwrap());
        assert!(world.vault.exists(&dir.file("expired.json")).await.unwrap(), "the announcement stands");
        assert_eq!(read_receipts(&world).await.len(), 0);
    }
}

#[tokio::test]
async fn what_came_since_is_announced_before_it_goes() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    let plan = planned_purge(&world, dir.clone()).await;
    let late = dir.snapshot(&"20261122T020000Z-1b-zzzzzz".parse().unwrap(), ".json");
    world.set(&late, Some(b"{}".to_vec())).await;
    // After the plan: fails without the second listing in `apply`.
    assert_eq!(apply(&world.vault, &world.key, &plan).await.unwrap(), PurgeEnd::Changed);
    // Before it: fails without the comparison of names in `plan`.
    let plan = planned_purge(&world, dir.clone()).await;
    assert_eq!((&plan.action, plan.snapshots.len()), (&PurgeAction::Announce, 2));
    apply(&world.vault, &world.key, &plan).await.unwrap();
    assert!(matches!(planned_purge(&world, dir.clone()).await.action, PurgeAction::Wait { .. }), "the day counts anew");
    world.pass(TimeDelta::hours(24));
    assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Deleted(_)), "believed or not, it goes");
    assert_eq!(below(&world, &dir).await, [""; 0]);
}

#[tokio::test]
async fn no_replication_brings_it_back_or_on() {
    let (world, docs) = six_days().await;
    let (second, other) = empty(&world, "second").await;
    assert_eq!(copy(&world, &world.vault, &other).await.snapshots.len(), 6);
    let dir = docs[3].dir();
    purge(&world, dir.clone()).await;
    let refused = |done: &Replicated, at: &str| {
        assert_eq!(done.snapshots.iter().filter(|id| **id == docs[3].id).count(), 0);
        let [ReplicateError::Purged { snapshot, vault, reason }] = done.errors.as_slice() else { panic!("{done:?}") };
        assert_eq!((snapshot, vault.as_str(), reason.as_str()), (&docs[3].id, at, WHY));
    };
    // Announced only: it goes nowhere from here. Fails where `refuse_if_purged` does not ask the vault that gives.
    let (_, third) = empty(&world, "third").await;
    refused(&copy(&world, &world.vault, &third).await, "first");
    assert_eq!(reason(&world.vault, &world.signers, &dir).await.unwrap().as_deref(), Some(WHY));
    world.pass(TimeDelta::hours(24));
    assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Deleted(_)));
    // Deleted: it does not come back. Fails where `refuse_if_purged` does not read the receipts.
    refused(&copy(&world, &other, &world.vault).await, "first");
    assert_eq!(below(&world, &dir).await, [""; 0]);
    // A receipt that nobody signed keeps nothing away.
    let planted = format!("shop/db/receipts/20990101T000000Z-{}.json", docs[2].generation);
    world.set(&StorePath::new(planted).unwrap(), Some(b"{\"grounds\":{\"purge\":\"x\"}}".to_vec())).await;
    for (path, _) in world.watch.content(docs[2].dir().dir().as_str()).await {
        world.set(&StorePath::new(path).unwrap(), None).await;
    }
    let done = copy(&world, &other, &world.vault).await;
    assert_eq!(done.snapshots, [docs[2].id.clone()]);
    // A plain receipt, of a prune, does not either: the policy may have grown.
    assert!(second.content(dir.dir().as_str()).await.len() > 3, "the other vault is purged by itself");
}

#[tokio::test]
async fn a_prune_neither_ends_it_nor_takes_it_back() {
    let (world, docs) = six_days().await;
    // One that a prune would let go, and one that it would not.
    for doc in [&docs[0], &docs[4]] {
        purge(&world, doc.dir()).await;
    }
    day(&world, 7).await;
    for _ in 0..2 {
        let plan = planned(&world).await;
        for doc in [&docs[0], &docs[4]] {
            let step = plan.steps.iter().find(|step| step.dir == doc.dir()).unwrap();
            // Fails without `found.purge()` in `judge`.
            assert!(matches!(&step.action, Action::Wait { reason } if reason.contains(WHY)), "{step:?}");
        }
        pruned(&world).await;
        let undone = prune::undo(&world.vault, &world.signers, &docs[0].stack, &docs[0].source).await.unwrap();
        assert!(!undone.made.contains(&docs[0].dir()) && !undone.made.contains(&docs[4].dir()), "{undone:?}");
    }
    assert_eq!(undo(&world.vault, &world.signers, &docs[0].dir()).await.unwrap(), Undone::Made);
    assert_eq!(undo(&world.vault, &world.signers, &docs[0].dir()).await.unwrap(), Undone::None);
    assert!(dirs(&planned(&world).await, &Action::Announce).contains(&docs[0].dir()));
    // And a purge takes over what a prune has announced: its day counts anew.
    pruned(&world).await;
    assert!(world.vault.exists(&docs[1].dir().file("expired.json")).await.unwrap());
    assert!(matches!(purge(&world, docs[1].dir()).await, PurgeEnd::Announced { .. }));
}

#[tokio::test]
async fn what_is_being_purged_takes_nobodys_place() {
    let (world, docs) = six_days().await;
    assert_eq!(by_sixty_hours(&world).await.0.len(), 3);
    purge_newest(&world, docs[5].dir()).await;
    // Fails where `history::read` counts it among the whole ones: what it pushed out would be gone when it is.
    assert_eq!(by_sixty_hours(&world).await, (vec![docs[0].dir(), docs[1].dir()], vec![]));
    // One in the middle makes no gap.
    undo(&world.vault, &world.signers, &docs[5].dir()).await.unwrap();
    purge(&world, docs[4].dir()).await;
    assert_eq!(planned(&world).await.frozen, []);
}

#[tokio::test]
async fn an_announcement_that_was_put_back_spares_no_day() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    purge(&world, dir.clone()).await;
    let path = dir.file("expired.json");
    let old = [(path.clone(), world.body(&path).await), (signature_of(&path), world.body(&signature_of(&path)).await)];
    assert_eq!(undo(&world.vault, &world.signers, &dir).await.unwrap(), Undone::Made);
    world.pass(TimeDelta::hours(2));
    for (path, body) in old {
        world.set(&path, Some(body)).await;
    }
    world.pass(TimeDelta::hours(30));
    let plan = planned_purge(&world, dir.clone()).await;
    // Fails where `announced::find` does not look when the store got it.
    assert_eq!((&plan.action, plan.announced.is_none()), (&PurgeAction::Announce, true));
    assert!(plan.foreign.iter().any(|text| text.contains("put back")), "{:?}", plan.foreign);
    apply(&world.vault, &world.key, &plan).await.unwrap();
    assert!(matches!(planned_purge(&world, dir).await.action, PurgeAction::Wait { .. }));
}

#[tokio::test]
async fn interrupted_at_any_call_it_is_resumed_and_then_not_undone() {
    let (mut at, mut resumed, mut late) = (0, 0, 0);
    loop {
        let (world, docs) = six_days().await;
        let dir = docs[2].dir();
        purge(&world, dir.clone()).await;
        world.pass(TimeDelta::hours(24));
        let plan = planned_purge(&world, dir.clone()).await;
        world.watch.fail(Some((at, Fault::Refused)));
        let ended = apply(&world.vault, &world.key, &plan).await;
        let over = world.watch.calls() <= at;
        world.watch.fail(None);
        assert_eq!(ended.is_ok(), over, "call {at}");
        for listed in world.history().await {
            world.read(&listed).await.unwrap_or_else(|error| panic!("call {at}: {error}"));
        }
        let next = planned_purge(&world, dir.clone()).await;
        if next.action == PurgeAction::Resume {
            resumed += 1;
            let taken_back = undo(&world.vault, &world.signers, &dir).await.unwrap();
            // Once files may be gone, what is left must go as well. (Without the documents there is nothing to take back.)
            assert_ne!(taken_back, Undone::Made, "call {at}");
            late += usize::from(taken_back == Undone::TooLate);
        }
        apply(&world.vault, &world.key, &next).await.unwrap();
        assert_eq!(below(&world, &dir).await, [""; 0], "call {at}: {:?}", next.action);
        let receipts = read_receipts(&world).await;
        assert_eq!(receipts.len(), 1, "call {at}");
        assert_eq!(receipts[0].snapshots.len(), 1);
        if over {
            break;
        }
        at += 1;
    }
    assert!(resumed > 8 && late > 5, "{resumed} resumed, {late} too late, of {at}");
}

#[tokio::test]
async fn an_undo_and_a_deletion_at_once_do_not_both_have_their_way() {
    // The undo ends before the receipt is put.
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    let plan = planned_purge(&world, dir.clone()).await;
    let (vault, signers, at) = (world.vault.clone(), world.signers.clone(), dir.clone());
    world.watch.before_put(move |path| {
        if path.contains("/receipts/") && path.strip_suffix(".json").is_some() {
            let undone = futures::executor::block_on(undo(&vault, &signers, &at)).unwrap();
            assert_eq!(undone, Undone::Made);
        }
    });
    // Fails without `is_still_deleting` in `apply`.
    assert_eq!(apply(&world.vault, &world.key, &plan).await.unwrap(), PurgeEnd::Changed);
    world.watch.before_put(|_| {});
    world.read_doc(&docs[2]).await.unwrap();
    assert_eq!(read_receipts(&world).await.len(), 0, "nothing was deleted");
    assert_eq!(planned_purge(&world, dir.clone()).await.action, PurgeAction::Announce);
    // The deletion comes in the middle of the undo.
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    let plan = planned_purge(&world, dir.clone()).await;
    let (vault, key, once) = (world.vault.clone(), super::world::host_key(1), AtomicBool::new(false));
    world.watch.before_get_or_delete(move |path| {
        if path.ends_with("/deleting.json") && !once.swap(true, Ordering::SeqCst) {
            let end = futures::executor::block_on(apply(&vault, &key, &plan)).unwrap();
            assert!(matches!(end, PurgeEnd::Deleted(_)), "{end:?}");
        }
    });
    // Fails where `undo` does not read the receipts once more.
    assert_eq!(undo(&world.vault, &world.signers, &dir).await.unwrap(), Undone::TooLate);
    assert_eq!(below(&world, &dir).await, [""; 0]);
}

#[tokio::test]
async fn a_prune_that_is_taken_back_before_its_receipt_deletes_nothing() {
    let (world, docs) = six_days().await;
    pruned(&world).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    let memory = world.watch.memory.clone();
    let paths: Vec<StorePath> = docs[..3].iter().map(|doc| doc.dir().file("deleting.json")).collect();
    world.watch.before_put(move |put| {
        for path in paths.iter().filter(|_| put.contains("/receipts/")) {
            futures::executor::block_on(memory.delete(path)).unwrap();
        }
    });
    // Fails without `is_still_deleting` in `Work::remove`.
    let done = prune::apply(&world.vault, &world.key, &plan).await.unwrap();
    assert_eq!(done.iter().filter(|done| done.action == Action::Withdraw && done.files == 0).count(), 3, "{done:?}");
    assert_eq!((world.history().await.len(), read_receipts(&world).await.len()), (7, 0));
}

#[tokio::test]
async fn what_a_repair_moved_aside_goes_too() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    let path = |text: String| StorePath::new(text).unwrap();
    let object = dir.object(&docs[2].manifest.objects[0]);
    let copies = [
        path(format!("_damaged/20261101T000000Z/{object}")),
        path(format!("_damaged/20261102T000000Z-1/{}", dir.snapshot(&docs[2].id, ".json"))),
    ];
    // Of another generation, which stays.
    let other = path(format!("_damaged/20261101T000000Z/{}/objects/x", docs[3].dir().dir()));
    for path in copies.iter().chain([&other]) {
        world.set(path, Some(b"leaked".to_vec())).await;
    }
    let there = async |path: &StorePath| world.vault.exists(path).await.unwrap();
    let first = planned_purge(&world, dir.clone()).await;
    let objects = world.vault.list_objects(&dir).await.unwrap();
    let stored: u64 = objects.iter().map(|line| line.bytes).sum();
    assert_eq!((first.aside, first.bytes), (2, stored + 12));
    apply(&world.vault, &world.key, &first).await.unwrap();
    world.pass(TimeDelta::hours(24));
    let files = below(&world, &dir).await.len() as u64;
    let PurgeEnd::Deleted(purged) = purge(&world, dir.clone()).await else { panic!() };
    // With `deleting.json` and its signature. Fails where `purge` leaves `_damaged` alone.
    assert_eq!((purged.files, purged.older), (files + 2 + 2, false));
    assert!((stored + 12..stored + 12 + 20_000).contains(&purged.bytes), "{} of {stored}", purged.bytes);
    assert!(!there(&copies[0]).await && !there(&copies[1]).await && there(&other).await);
    assert!(matches!(planned_purge(&world, dir.clone()).await.action, PurgeAction::Gone { .. }));
    // One that is found later is not gone.
    world.set(&copies[0], Some(b"leaked".to_vec())).await;
    assert_eq!(planned_purge(&world, dir.clone()).await.action, PurgeAction::Resume);
    assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Deleted(Purged { files: 1, .. })));
    assert!(!there(&copies[0]).await && matches!(planned_purge(&world, dir).await.action, PurgeAction::Gone { .. }));
}

#[tokio::test]
async fn older_versions_that_stay_are_told() {
    for (below, told_later) in
        [(GenerationDir::dir as fn(&GenerationDir) -> StorePath, true), (GenerationDir::objects, false)]
    {
        let (world, docs) = six_days().await;
        let dir = docs[2].dir();
        purge(&world, dir.clone()).await;
        world.pass(TimeDelta::hours(24));
        world.watch.keep_versions_below(below(&dir));
        // Fails where `purge` does not ask the store, or not about an object: what leaked is in those.
        assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Deleted(Purged { older: true, .. })));
        // So is it by every later call, until they are gone: those ask about documents, of which names are left in a receipt.
        let again = planned_purge(&world, dir.clone()).await.action;
        assert!(matches!(again, PurgeAction::Gone { older, .. } if older == told_later), "{again:?}");
        world.watch.keep_versions_below(StorePath::new("elsewhere").unwrap());
        let again = planned_purge(&world, dir).await.action;
        assert!(matches!(again, PurgeAction::Gone { older: false, .. }), "{again:?}");
    }
}

/// A dump that an operator brings.
struct Dump(Script);

#[async_trait]
impl Source for Dump {
    fn kind(&self) -> &'static str {
        "command"
    }
    fn is_import(&self) -> bool {
        true
    }
    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError> {
        self.0.capture(sink, clock, monitor).await
    }
}

#[tokio::test]
async fn an_import_goes_too_though_no_rule_lets_it() {
    let (world, docs) = six_days().await;
    let clock = world.host.clock();
    let host =
        Host { key: &world.key, signers: &world.signers, state: &world.state, clock: &clock, monitor: &world.monitor };
    let import =
        backup(&world.vault, host, &world.request, &Dump(Script::noise(90_000, 9))).await.unwrap().snapshot.doc;
    assert!(import.id.is_imported() && import.generation != docs[5].generation);
    assert!(matches!(purge(&world, import.dir()).await, PurgeEnd::Announced { .. }), "it is not the newest capture");
    world.pass(TimeDelta::hours(24));
    assert!(matches!(purge(&world, import.dir()).await, PurgeEnd::Deleted(_)));
    assert_eq!(below(&world, &import.dir()).await, [""; 0]);
    assert_eq!(world.history().await.len(), 6);
    // It was no capture, so that its receipt fills no gap between captures.
    let place = (&world.request.stack, &world.request.source);
    let none = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let seen = history::read(&world.vault, &world.signers, place, &none.0, &none.1, &none.2).await.unwrap();
    assert!(seen.receipts.len() == 1 && seen.history.removed.is_empty(), "{:?}", seen.history.removed);
}

#[tokio::test]
async fn a_deletion_that_a_prune_began_is_left_to_it() {
    let (world, docs) = six_days().await;
    pruned(&world).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    // Interrupted after its receipt, at the first deletion.
    for at in 0.. {
        world.watch.fail(Some((at, Fault::Refused)));
        let ended = prune::apply(&world.vault, &world.key, &plan).await;
        world.watch.fail(None);
        assert!(ended.is_err());
        if !read_receipts(&world).await.is_empty() {
            break;
        }
    }
    let refused = planned_purge(&world, docs[0].dir()).await;
    assert_eq!(refused.action, PurgeAction::Refuse(Refusal::Pruning));
    assert_eq!(undo(&world.vault, &world.signers, &docs[0].dir()).await.unwrap(), Undone::None);
}

#[tokio::test]
async fn a_planted_deletion_is_no_purge() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    let stranger = super::world::host_key(9);
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        for (path, body) in announcement(&docs[2], stage, &stranger) {
            world.set(&path, Some(body)).await;
        }
    }
    let plan = planned_purge(&world, dir.clone()).await;
    assert_eq!((plan.action, plan.foreign.len()), (PurgeAction::Announce, 2));
    assert_eq!(reason(&world.vault, &world.signers, &dir).await.unwrap(), None);
    let names: BTreeSet<_> = world.history().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(names.len(), 6);
}

#[tokio::test]
async fn the_receipt_of_a_purge_that_ended_outlives_one_that_is_taken_back() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    let kept = world.watch.content(dir.dir().as_str()).await;
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Deleted(_)));
    let receipts = read_receipts(&world).await;
    // Somebody copies it back; days later it is to be purged again, and that is taken back.
    for (path, body) in kept {
        world.set(&StorePath::new(path).unwrap(), Some(body.to_vec())).await;
    }
    world.pass(TimeDelta::days(2));
    assert!(matches!(purge(&world, dir.clone()).await, PurgeEnd::Announced { .. }));
    assert_eq!(undo(&world.vault, &world.signers, &dir).await.unwrap(), Undone::Made);
    world.read_doc(&docs[2]).await.unwrap();
    // Fails without `under` in `undo`: the next replication would spread it.
    assert_eq!(read_receipts(&world).await, receipts);
    assert_eq!(reason(&world.vault, &world.signers, &dir).await.unwrap().as_deref(), Some(WHY));
}

#[tokio::test]
async fn the_receipt_of_a_purge_that_never_began_goes_with_its_announcement_after_a_day() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    // The deletion dies after its receipt, and whoever took it back dies after its first document.
    let plan = planned_purge(&world, dir.clone()).await;
    for at in 0.. {
        world.watch.fail(Some((at, Fault::Refused)));
        assert!(apply(&world.vault, &world.key, &plan).await.is_err(), "call {at}");
        world.watch.fail(None);
        if !read_receipts(&world).await.is_empty() {
            break;
        }
    }
    for path in [dir.file("deleting.json"), signature_of(&dir.file("deleting.json"))] {
        world.set(&path, None).await;
    }
    // The deletion may be past its last look: fails without `is_ripe` in `undo`.
    assert_eq!(undo(&world.vault, &world.signers, &dir).await.unwrap(), Undone::TooLate);
    assert!(world.vault.exists(&dir.file("expired.json")).await.unwrap());
    world.pass(TimeDelta::days(1));
    assert_eq!(undo(&world.vault, &world.signers, &dir).await.unwrap(), Undone::Made);
    // Fails without `settle` in `undo`: no replication would ever take it.
    assert_eq!(read_receipts(&world).await, []);
    assert_eq!(reason(&world.vault, &world.signers, &dir).await.unwrap(), None);
    world.read_doc(&docs[2]).await.unwrap();
}

#[tokio::test]
async fn a_pinned_snapshot_that_was_named_and_is_hidden_since_stands_against_it() {
    let (world, docs) = six_days().await;
    let dir = docs[2].dir();
    purge(&world, dir.clone()).await;
    world.pass(TimeDelta::hours(24));
    let pin = marked(&world, &docs[2], MarkKind::Pin, hash(&world, &docs[2]).await);
    world.vault.put_signed(&pin, &world.key).await.unwrap();
    let folder = format!("{}/", dir.snapshots());
    world.watch.hide(Some(std::sync::Arc::new(move |path: &str| path.starts_with(&folder))));
    // Fails where nobody asks for what was announced: it looks like an empty one.
    let plan = planned_purge(&world, dir.clone()).await;
    assert_eq!(plan.action, PurgeAction::Refuse(Refusal::Pinned(vec![docs[2].id.clone()])));
}

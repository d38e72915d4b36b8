//! Deleting before the day is over: only what another vault was just seen to hold, whole, and only after a newer snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backup_core::backup::{Host, backup};
use backup_core::clock::Clock;
use backup_core::monitor::Monitor;
use backup_core::prune::{Action, Done, PrunePlan, Waiver, Witness, apply, apply_beside, plan_waiving};
use backup_core::replicate::{Route, replicate};
use backup_core::source::{Captured, Sink, Source, SourceError};
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, MarkKind, PruneStage, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, mark};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store};
use chrono::TimeDelta;

use super::prune::{below, day, dirs, planned, prune, read_receipts, request, six_days};
use super::watch::{Fault, Watch};
use super::world::{Script, World, announcement, make_vault};

/// Six days, announced two hours ago, with a newer snapshot since, and a second vault with everything.
struct Pair {
    world: World,
    docs: Vec<SnapshotDoc>,
    there: Watch,
    other: Vault,
}

impl Pair {
    async fn new() -> Self {
        let pair = Self::without_a_newer_one().await;
        pair.world.run(&Script::noise(100_000, 7)).await.unwrap();
        pair.copy().await;
        pair
    }

    async fn without_a_newer_one() -> Self {
        let (world, docs) = six_days().await;
        Self::announced(world, docs).await
    }

    /// The same, and the oldest generation holds two snapshots.
    async fn with_two_in_the_oldest() -> Self {
        let mut world = World::new().await;
        world.request.period = "1d".parse().unwrap();
        let mut docs = vec![day(&world, 1).await, world.run(&Script::noise(100_000, 20)).await.unwrap().snapshot.doc];
        for seed in 2..=6 {
            docs.push(day(&world, seed).await);
        }
        let pair = Self::announced(world, docs).await;
        pair.world.run(&Script::noise(100_000, 7)).await.unwrap();
        pair.copy().await;
        pair
    }

    async fn announced(world: World, docs: Vec<SnapshotDoc>) -> Self {
        let there = Watch::new(MemoryStore::new(world.store.clock()));
        let other = make_vault("second", &there, world.store.now()).await;
        let pair = Self { world, docs, there, other };
        pair.copy().await;
        prune(&pair.world).await;
        pair.world.pass(TimeDelta::hours(2));
        pair
    }

    async fn copy(&self) {
        let world = &self.world;
        let route = Route { from: &world.vault, to: &self.other, signers: &world.signers, monitor: &world.monitor };
        let done = replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await;
        assert!(done.errors.is_empty(), "{done:?}");
    }

    async fn plan(&self) -> PrunePlan {
        let waiver = Waiver { now: true, without: Vec::new() };
        plan_waiving(&self.world.vault, &self.world.signers, &request(&self.world), &waiver).await.unwrap()
    }

    /// Only what becomes of the oldest generation.
    async fn plan_of_one(&self) -> PrunePlan {
        let mut plan = self.plan().await;
        plan.steps.truncate(1);
        plan
    }

    async fn apply(&self, plan: &PrunePlan) -> Vec<Done> {
        self.apply_knowing(plan, &BTreeSet::new()).await
    }

    async fn apply_knowing(&self, plan: &PrunePlan, damaged: &BTreeSet<(GenerationDir, String)>) -> Vec<Done> {
        let witness = Witness { vault: &self.other, damaged };
        apply_beside(&self.world.vault, &self.world.key, plan, &[witness]).await.unwrap()
    }
}

fn hurried(plan: &PrunePlan) -> Vec<GenerationDir> {
    let hurry = plan.steps.iter().filter(|step| matches!(step.action, Action::Hurry { .. }));
    hurry.map(|step| step.dir.clone()).collect()
}

fn waits<'a>(done: &'a [Done], doc: &SnapshotDoc) -> &'a str {
    let found = done.iter().find(|done| done.dir == doc.dir()).unwrap();
    let Action::Wait { reason } = &found.action else { panic!("{found:?}") };
    reason
}

#[tokio::test]
async fn what_another_vault_was_seen_to_hold_goes_at_once_and_the_receipt_names_it() {
    let pair = Pair::new().await;
    let expected: Vec<_> = pair.docs[..3].iter().map(SnapshotDoc::dir).collect();
    assert_eq!(dirs(&planned(&pair.world).await, &Action::Delete), [], "without being asked the day is waited for");
    let plan = pair.plan().await;
    assert_eq!(hurried(&plan), expected);
    let objects = pair.world.vault.list_objects(&expected[0]).await.unwrap();
    let bytes: u64 = objects.iter().map(|line| line.bytes).sum();
    let Action::Hurry { objects: said, bytes: said_bytes, .. } = plan.steps[0].action else { panic!() };
    assert_eq!((said, said_bytes), (objects.len() as u64, bytes));
    // With nobody to look at, nothing goes.
    let done = apply(&pair.world.vault, &pair.world.key, &plan).await.unwrap();
    assert!(waits(&done, &pair.docs[0]).contains("no other vault"), "{done:?}");
    assert_eq!(pair.world.history().await.len(), 7);
    pair.there.fail(None);
    let done = pair.apply(&plan).await;
    assert!(done.iter().filter(|done| done.files > 3).count() == 3, "{done:?}");
    // Every object was read there, and nothing was written.
    let read: BTreeSet<String> =
        pair.there.paths("get").into_iter().filter(|path| path.contains("/objects/")).collect();
    for line in &objects {
        assert!(read.contains(expected[0].object(&line.name).as_str()));
    }
    assert_eq!(pair.there.paths("put"), [""; 0]);
    for receipt in read_receipts(&pair.world).await {
        let holder = receipt.grounds.now.unwrap();
        assert_eq!((holder.name.as_str(), &holder.vault), ("second", pair.other.id()));
        assert_eq!((holder.objects, holder.bytes), (receipt.objects, receipt.stored_bytes));
    }
    assert_eq!(pair.world.history().await.len(), 4);
    assert!(!pair.world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn the_newer_snapshot_is_waited_for_all_the_same() {
    let pair = Pair::without_a_newer_one().await;
    let plan = pair.plan().await;
    // Fails where `hurry` passes over `newer` in `Scene::action`.
    assert_eq!(hurried(&plan), []);
    let step = plan.steps.iter().find(|step| step.dir == pair.docs[0].dir()).unwrap();
    assert!(matches!(&step.action, Action::Wait { reason } if reason.contains("newer than")), "{step:?}");
    // And what was not announced is announced first.
    let (world, _) = six_days().await;
    let waiver = Waiver { now: true, without: Vec::new() };
    let plan = plan_waiving(&world.vault, &world.signers, &request(&world), &waiver).await.unwrap();
    assert_eq!((dirs(&plan, &Action::Announce).len(), hurried(&plan).len()), (3, 0));
}

#[tokio::test]
async fn what_is_not_whole_and_the_same_there_waits() {
    let pair = Pair::new().await;
    let plan = pair.plan_of_one().await;
    let doc = &pair.docs[0];
    let memory = &pair.there.memory;
    let object = doc.dir().object(&doc.manifest.objects[0]);
    let (snapshot, inventory) = (doc.dir().snapshot(&doc.id, ".json"), doc.dir().snapshot(&doc.id, ".inventory.zst"));
    for path in [&object, &snapshot, &inventory, &doc.dir().file("generation.json")] {
        let good = memory.get(path, u64::MAX).await.unwrap();
        let mut flipped = good.to_vec();
        flipped[30] ^= 1;
        for bad in [Some(flipped), None] {
            match bad {
                Some(bad) => drop(memory.put(path, bad.into(), PutMode::Replace).await.unwrap()),
                None => memory.delete(path).await.unwrap(),
            }
            let done = pair.apply(&plan).await;
            // Fails where `prove` leaves one of its looks out.
            assert!(waits(&done, doc).contains("vault `second`"), "{path}: {done:?}");
        }
        memory.put(path, good, PutMode::Replace).await.unwrap();
    }
    // Known to be damaged in a way that no hash shows.
    let known = BTreeSet::from([(doc.dir(), doc.id.to_string())]);
    assert!(waits(&pair.apply_knowing(&plan, &known).await, doc).contains("known to be damaged"));
    // Being deleted there, too.
    for (path, body) in announcement(doc, PruneStage::Deleting, &pair.world.key) {
        memory.put(&path, body.into(), PutMode::Replace).await.unwrap();
    }
    assert!(waits(&pair.apply(&plan).await, doc).contains("deleting it"));
    for (path, _) in announcement(doc, PruneStage::Deleting, &pair.world.key) {
        memory.delete(&path).await.unwrap();
    }
    pair.world.read_doc(doc).await.unwrap();
    assert_eq!(pair.apply(&plan).await[0].action, plan.steps[0].action, "and now it goes");
    assert!(pair.world.read_doc(doc).await.is_err());
}

#[tokio::test]
async fn two_prunes_that_rely_on_each_other_do_not_both_go_on() {
    let pair = Pair::new().await;
    let plan = pair.plan().await;
    let doc = pair.docs[0].clone();
    // The other vault's prune begins after it was read here, and before this one's document is there.
    let (memory, theirs) = (pair.there.memory.clone(), announcement(&doc, PruneStage::Deleting, &pair.world.key));
    let ours = doc.dir().file("deleting.json");
    pair.world.watch.before_put(move |path| {
        for (path, body) in theirs.clone().into_iter().filter(|_| path == ours.as_str()) {
            futures::executor::block_on(memory.put(&path, body.into(), PutMode::Replace)).unwrap();
        }
    });
    let done = pair.apply(&plan).await;
    // Fails without `still_holds` in `Work::remove`.
    assert!(done.iter().any(|done| done.dir == doc.dir() && done.action == Action::Withdraw), "{done:?}");
    pair.world.read_doc(&doc).await.unwrap();
}

/// A source that finds its own data unusual.
pub(super) struct Unusual;

#[async_trait]
impl Source for Unusual {
    fn kind(&self) -> &'static str {
        "command"
    }
    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError> {
        let captured = Script::noise(90_000, 9).capture(sink, clock, monitor).await?;
        Ok(Captured { suspect: vec!["half of it is gone".to_owned()], ..captured })
    }
}

#[tokio::test]
async fn what_happens_while_the_other_vault_is_read_is_seen_before_anything_goes() {
    for event in ["nothing", "suspect", "pin"] {
        let pair = Pair::new().await;
        let world = &pair.world;
        let clock = world.host.clock();
        let (key, signers, state, monitor) = (&world.key, &world.signers, &world.state, &world.monitor);
        let host = Host { key, signers, state, clock: &clock, monitor };
        let suspect = backup(&world.vault, host, &world.request, &Unusual).await.unwrap().snapshot.doc;
        assert_eq!(suspect.suspect, 1);
        let document = suspect.dir().snapshot(&suspect.id, ".json");
        let body = world.body(&document).await;
        // It is not committed yet.
        world.set(&document, None).await;
        let plan = pair.plan().await;
        let expected: Vec<_> = pair.docs[..3].iter().map(SnapshotDoc::dir).collect();
        assert_eq!(hurried(&plan), expected, "{event}");
        let (here, there) = (world.watch.memory.clone(), pair.there.memory.clone());
        let (times, once) = ([world.host.clone(), world.store.clone()], AtomicBool::new(false));
        let pins: Vec<_> =
            pair.docs[..3].iter().map(|doc| mark(&doc.stack, &doc.source, &doc.id, MarkKind::Pin)).collect();
        pair.there.before_get_or_delete(move |path| {
            if !path.contains("/objects/") || once.swap(true, Ordering::SeqCst) {
                return;
            }
            // It takes its time.
            for time in &times {
                time.pass(TimeDelta::hours(3));
            }
            let put = |store: &MemoryStore, path: &_, body: Vec<u8>| {
                futures::executor::block_on(store.put(path, body.into(), PutMode::Replace)).unwrap();
            };
            match event {
                "suspect" => put(&here, &document, body.clone()),
                "pin" => pins.iter().for_each(|pin| put(&there, pin, b"{}".to_vec())),
                _ => {}
            }
        });
        let done = pair.apply(&plan).await;
        if event == "nothing" {
            // Fails where the plan is made again with the host's clock of then: the two would differ by hours.
            assert_eq!(done.iter().filter(|done| done.files > 3).count(), 3, "{done:?}");
            continue;
        }
        // Fails without `stands` in `apply_beside`.
        for doc in &pair.docs[..3] {
            let why = waits(&done, doc);
            assert!(why.contains("something changed") && why.contains(event), "{why}");
            world.read_doc(doc).await.unwrap();
            assert!(!world.vault.exists(&doc.dir().file("deleting.json")).await.unwrap());
        }
        assert_eq!(read_receipts(world).await.len(), 0);
    }
}

#[tokio::test]
async fn what_takes_no_time_is_done_before_another_vault_is_read() {
    let pair = Pair::new().await;
    let plan = pair.plan().await;
    // One more is announced by now: its day is over when the others are hurried.
    assert_eq!(hurried(&plan).len(), 3);
    let kept: Vec<_> = plan.steps.iter().map(|step| step.action.clone()).collect();
    let mut mixed = plan.clone();
    mixed.steps[2].action = Action::Delete;
    let done = pair.apply(&mixed).await;
    let order: Vec<_> = done.iter().map(|done| done.dir.clone()).collect();
    // Fails where the steps are done by age.
    assert_eq!(order[..3], [2, 0, 1].map(|at: usize| pair.docs[at].dir()), "{kept:?}");
}

#[tokio::test]
async fn interrupted_between_two_snapshots_it_goes_on_before_its_day_is_over() {
    let pair = Pair::with_two_in_the_oldest().await;
    let (world, dir) = (&pair.world, pair.docs[0].dir());
    assert_eq!(pair.docs[1].dir(), dir);
    let plan = pair.plan_of_one().await;
    // Behind the receipt the first document goes, and nothing after it.
    let (watch, receipted) = (world.watch.clone(), Arc::new(AtomicBool::new(false)));
    let seen = receipted.clone();
    world.watch.before_put(move |path| {
        if path.contains("/receipts/") {
            seen.store(true, Ordering::SeqCst);
        }
    });
    world.watch.before_get_or_delete(move |path| {
        if super::watch::is_commit(path) && receipted.swap(false, Ordering::SeqCst) {
            watch.fail(Some((0, Fault::Refused)));
        }
    });
    let none = BTreeSet::new();
    let witness = Witness { vault: &pair.other, damaged: &none };
    apply_beside(&world.vault, &world.key, &plan, &[witness]).await.unwrap_err();
    world.watch.before_get_or_delete(|_| {});
    world.watch.fail(None);
    assert_eq!(world.vault.snapshots(&dir).await.unwrap().len(), 1, "one of two is gone");

    // The next call is an ordinary one, which would not begin this before the day is over. Fails without `hurried` in
    // `Scene::judge`: the half of the generation that is left would be kept and called whole.
    assert_eq!(dirs(&planned(world).await, &Action::Resume), std::slice::from_ref(&dir));
    // A document that was copied here from the vault that it names says nothing of this one.
    let path = dir.file(PruneStage::Deleting.file());
    let begun = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap();
    let mut copied = begun.doc.clone();
    copied.grounds.now.as_mut().unwrap().vault = world.vault.id().clone();
    world.vault.put_signed(&copied, &world.key).await.unwrap();
    assert_eq!(dirs(&planned(world).await, &Action::Withdraw), std::slice::from_ref(&dir));
    world.vault.put_signed(&begun.doc, &world.key).await.unwrap();

    prune(world).await;
    assert_eq!(below(world, &dir).await, [""; 0]);
    let receipts = read_receipts(world).await;
    let receipts: Vec<_> = receipts.iter().filter(|receipt| receipt.generation == dir.id).collect();
    assert!(matches!(receipts.as_slice(), [one] if one.grounds.now.is_some()), "{receipts:?}");
    assert!(!world.verify(false).await.is_damaged());
}

#[tokio::test]
async fn interrupted_at_any_call_it_is_ended_or_taken_back() {
    let (mut at, mut resumed, mut withdrawn) = (0, 0, 0);
    loop {
        let pair = Pair::new().await;
        let plan = pair.plan_of_one().await;
        pair.world.watch.fail(Some((at, Fault::Refused)));
        let none = BTreeSet::new();
        let witness = Witness { vault: &pair.other, damaged: &none };
        let ended = apply_beside(&pair.world.vault, &pair.world.key, &plan, &[witness]).await;
        let over = pair.world.watch.calls() <= at;
        pair.world.watch.fail(None);
        // The next one is an ordinary prune, which knows nothing of the other vault.
        let next = planned(&pair.world).await;
        let dir = pair.docs[0].dir();
        resumed += usize::from(dirs(&next, &Action::Resume).contains(&dir));
        withdrawn += usize::from(dirs(&next, &Action::Withdraw).contains(&dir));
        apply(&pair.world.vault, &pair.world.key, &next).await.unwrap();
        for listed in pair.world.history().await {
            pair.world.read(&listed).await.unwrap_or_else(|error| panic!("call {at}: {error}"));
        }
        // Fails where a hurried deletion is not resumed: its objects would stay for ever.
        let left = pair.world.watch.content(dir.dir().as_str()).await;
        let listed = left.iter().any(|(path, _)| super::watch::is_commit(path));
        assert!(left.is_empty() || listed, "call {at}: {left:?}");
        assert_eq!(ended.is_ok() && left.is_empty(), ended.is_ok() && !listed, "call {at}");
        if over {
            break;
        }
        at += 1;
    }
    assert!(resumed > 5 && withdrawn > 2, "{resumed} resumed, {withdrawn} withdrawn of {at}");
}

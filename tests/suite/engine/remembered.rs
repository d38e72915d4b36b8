//! A plan from what an earlier reading proved is the plan that reading everything again would give, and asks for less.

use std::collections::{BTreeSet, HashMap};

use backup_core::mark;
use backup_core::prune::history::{Fact, Memory, Noted, Reading, look};
use backup_core::prune::{Action, PrunePlan, PruneRequest, Waiver, apply, plan_of};
use backup_core::signature::Signers;
use backup_core::vault::document::{MarkKind, PruneStage, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, GenerationId, signature_of};
use backup_core::vault::store::StorePath;
use chrono::{DateTime, TimeDelta, Utc};
use retention::History;

use super::prune::{day, request, six_days};
use super::world::{Script, World, forgeries, host_key};

type Known = HashMap<GenerationId, Noted>;

/// Reads with what is `known`, and adds to it what may be remembered.
async fn read_by(
    world: &World,
    signers: &Signers,
    damaged: &BTreeSet<(GenerationDir, String)>,
    known: &mut Known,
) -> (Reading, DateTime<Utc>) {
    let memory = Memory { now: world.store.now(), generations: known.clone() };
    let whose = (&world.request.stack, &world.request.source);
    let reading = look(&world.vault, signers, whose, damaged, Some(&memory)).await.unwrap();
    known.extend(reading.noted().iter().cloned());
    (reading, memory.now)
}

async fn read(world: &World, known: &mut Known) -> (Reading, DateTime<Utc>) {
    read_by(world, &world.signers, &BTreeSet::new(), known).await
}

/// The paths that a reading asked for below folders of snapshots.
async fn opened(world: &World, known: &mut Known) -> Vec<String> {
    world.watch.fail(None);
    read(world, known).await;
    world.watch.paths("get").into_iter().filter(|path| path.contains("/snapshots/")).collect()
}

fn history(reading: &Reading) -> History {
    reading.history(&BTreeSet::new(), &BTreeSet::new())
}

/// Six days that are all remembered.
async fn remembered() -> (World, Vec<SnapshotDoc>, Known) {
    let (world, docs) = six_days().await;
    world.pass(TimeDelta::minutes(2));
    let mut known = Known::new();
    read(&world, &mut known).await;
    assert_eq!(known.len(), 6);
    (world, docs, known)
}

async fn plan_with(world: &World, known: &mut Known, request: &PruneRequest) -> PrunePlan {
    let (reading, now) = read_by(world, &world.signers, &request.damaged, known).await;
    plan_of(&world.vault, &world.signers, request, &Waiver::default(), (&reading, now)).await.unwrap()
}

/// The plan from memory, which is also the one from a reading of everything.
async fn same_plan(world: &World, known: &mut Known, request: &PruneRequest) -> PrunePlan {
    let fresh = plan_with(world, &mut Known::new(), request).await;
    let plan = plan_with(world, known, request).await;
    assert_eq!(format!("{plan:#?}"), format!("{fresh:#?}"));
    plan
}

#[tokio::test]
async fn what_did_not_change_is_not_opened_again() {
    let (world, docs, mut known) = remembered().await;
    assert_eq!(opened(&world, &mut known).await, Vec::<String>::new());
    // One listing of each generation, and none of it twice.
    let listed = world.watch.paths("list");
    assert_eq!(listed.iter().filter(|path| path.contains("--1d--")).count(), 6, "{listed:?}");
    // A new one costs its own generation's documents; too young, it is read the next time as well.
    let new = day(&world, 7).await;
    for _ in 0..2 {
        let asked = opened(&world, &mut known).await;
        assert!(asked.len() == 3 && asked.iter().all(|path| path.contains(new.id.as_str())), "{asked:?}");
    }
    world.pass(TimeDelta::minutes(1));
    assert_eq!(opened(&world, &mut known).await.len(), 3);
    assert_eq!(opened(&world, &mut known).await, Vec::<String>::new());
    // Lost, all of it is read once more.
    assert_eq!(opened(&world, &mut Known::new()).await.len(), 3 * (docs.len() + 1));
}

#[tokio::test]
async fn another_body_of_the_same_size_and_time_is_read_and_judged() {
    let (world, docs, known) = remembered().await;
    for (at, suffix) in [(1, ".json"), (2, ".json.sig"), (3, ".inventory.zst")] {
        let path = docs[at].dir().snapshot(&docs[at].id, suffix);
        let entry = world.vault.list(&docs[at].dir().snapshots()).await.unwrap();
        let before = entry.into_iter().find(|entry| entry.path == path).unwrap();
        let mut body = world.body(&path).await;
        // A letter in the middle: the size stays.
        let middle = body.len() / 2;
        body[middle] ^= 1;
        let now = world.store.now();
        world.store.set(before.modified);
        world.set(&path, Some(body)).await;
        world.store.set(now);
        let after = world.vault.list(&docs[at].dir().snapshots()).await.unwrap();
        let after = after.into_iter().find(|entry| entry.path == path).unwrap();
        assert_eq!((after.bytes, after.modified), (before.bytes, before.modified), "nothing but its identity tells");
    }
    let mut known = known;
    let stamps = history(&read(&world, &mut known).await.0).stamps;
    let whole: Vec<(&str, bool)> = stamps.iter().map(|stamp| (stamp.id.as_str(), stamp.complete)).collect();
    let expected: Vec<(&str, bool)> = [0, 3, 4, 5].map(|at| (docs[at].id.as_str(), at != 3)).to_vec();
    assert_eq!(whole, expected);
    // What is not good is never remembered: it is looked at each time.
    let asked = opened(&world, &mut known).await;
    for at in [1, 2, 3] {
        assert!(asked.iter().any(|path| path.contains(docs[at].id.as_str())), "{asked:?}");
    }
    assert!(!asked.iter().any(|path| path.contains(docs[0].id.as_str())), "{asked:?}");
}

#[tokio::test]
async fn an_object_that_is_gone_counts_although_the_snapshot_is_remembered() {
    let (world, docs, mut known) = remembered().await;
    let line = world.vault.list_objects(&docs[2].dir()).await.unwrap().remove(0);
    let path = docs[2].dir().object(&line.name);
    let body = world.body(&path).await;
    world.set(&path, None).await;
    for _ in 0..2 {
        let stamps = history(&read(&world, &mut known).await.0).stamps;
        assert_eq!(
            stamps.iter().map(|stamp| stamp.complete).collect::<Vec<_>>(),
            [true, true, false, true, true, true]
        );
    }
    // Of another size it is another one.
    world.set(&path, Some(vec![7; body.len() + 1])).await;
    assert!(!history(&read(&world, &mut known).await.0).stamps[2].complete);
    world.set(&path, Some(body)).await;
    assert!(history(&read(&world, &mut known).await.0).stamps[2].complete);
}

#[tokio::test]
async fn other_signers_judge_anew() {
    let (world, _, known) = remembered().await;
    let other = Signers::parse(&host_key(77).allowed_signers_line()).unwrap();
    let (reading, _) = read_by(&world, &other, &BTreeSet::new(), &mut known.clone()).await;
    assert_eq!(history(&reading).stamps, []);
    // The same key, of which the line now says that it ended.
    let line = world.key.allowed_signers_line().replacen("namespaces", "valid-before=\"20200101Z\",namespaces", 1);
    let ended = Signers::parse(&line).unwrap();
    let (reading, _) = read_by(&world, &ended, &BTreeSet::new(), &mut known.clone()).await;
    assert_eq!(history(&reading).stamps, []);
    assert_eq!(history(&read(&world, &mut known.clone()).await.0).stamps.len(), 6);
}

#[tokio::test]
async fn what_is_known_to_be_damaged_is_not_whole_and_not_remembered_as_whole() {
    let (world, docs, mut known) = remembered().await;
    let object = world.vault.list_objects(&docs[4].dir()).await.unwrap()[0].name;
    let damaged = BTreeSet::from([
        (docs[1].dir(), docs[1].id.to_string()),
        (docs[4].dir(), object.to_string()),
        // Another generation's: it says nothing of this one.
        (docs[5].dir(), docs[3].id.to_string()),
    ]);
    for known in [&mut known, &mut Known::new()] {
        for _ in 0..2 {
            let (reading, _) = read_by(&world, &world.signers, &damaged, known).await;
            let whole: Vec<bool> = history(&reading).stamps.iter().map(|stamp| stamp.complete).collect();
            assert_eq!(whole, [true, false, true, true, false, true]);
        }
    }
    // Repaired since: nothing of it was remembered.
    assert!(history(&read(&world, &mut known).await.0).stamps.iter().all(|stamp| stamp.complete));
}

#[tokio::test]
async fn the_plan_from_memory_is_the_plan_from_everything() {
    let (world, mut docs, mut known) = remembered().await;
    let mark_as = async |doc: &SnapshotDoc, kind: MarkKind| {
        let signed = world.vault.get_signed(&doc.dir().snapshot(&doc.id, ".json"), &world.signers).await.unwrap();
        mark::set(&world.vault, (&world.key, &world.signers), &signed, kind, (world.host.now(), "t")).await.unwrap();
    };
    let plan = same_plan(&world, &mut known, &request(&world)).await;
    let announces = |plan: &PrunePlan| plan.steps.iter().filter(|step| step.action == Action::Announce).count();
    assert!(announces(&plan) == 3 && !plan.deletes());
    // A hole in the chain, and no hole any more.
    let hole = [".json", ".json.sig"].map(|suffix| docs[4].dir().snapshot(&docs[4].id, suffix));
    let now = world.store.now();
    for path in &hole {
        let body = world.body(path).await;
        world.set(path, None).await;
        assert_ne!(same_plan(&world, &mut known, &request(&world)).await.frozen, []);
        world.store.set(docs[4].instant);
        world.set(path, Some(body)).await;
        world.store.set(now);
    }
    assert_eq!(announces(&same_plan(&world, &mut known, &request(&world)).await), 3);
    // Pins and other marks, promises and marks of other vaults.
    mark_as(&docs[0], MarkKind::Pin).await;
    mark_as(&docs[5], MarkKind::Checked).await;
    assert_eq!(announces(&same_plan(&world, &mut known, &request(&world)).await), 2);
    let elsewhere = PruneRequest { promised_elsewhere: [docs[1].id.to_string()].into(), ..request(&world) };
    assert_eq!(announces(&same_plan(&world, &mut known, &elsewhere).await), 1);
    let body = world.body(&docs[2].dir().snapshot(&docs[2].id, ".json")).await;
    let pinned = Fact::Marked(backup_core::id::Hash256::of(&body), MarkKind::Pin.word());
    let others = PruneRequest { marks: BTreeSet::from([pinned]), ..elsewhere };
    assert_eq!(announces(&same_plan(&world, &mut known, &others).await), 0);
    // What somebody without a key put there: documents, announcements, a pin.
    let strange = StorePath::new(format!("{}/x{}", docs[3].dir().snapshots(), ".json")).unwrap();
    world.set(&strange, Some(b"{}".to_vec())).await;
    for (path, body) in forgeries(&docs[4], PruneStage::Expired, &host_key(77)).remove(0) {
        world.set(&path, Some(body)).await;
    }
    let copied = docs[1].dir().snapshot(&docs[2].id, ".json");
    world.set(&copied, Some(body)).await;
    let pin = backup_core::vault::layout::mark(&docs[3].stack, &docs[3].source, &docs[3].id, MarkKind::Pin);
    world.set(&pin, Some(b"{}".to_vec())).await;
    let plan = same_plan(&world, &mut known, &request(&world)).await;
    assert!(plan.foreign.len() >= 2, "{:?}", plan.foreign);
    for path in [copied, strange] {
        world.set(&path, None).await;
    }
    // Both runs of a deletion.
    let plan = same_plan(&world, &mut known, &request(&world)).await;
    apply(&world.vault, &world.key, &plan).await.unwrap();
    docs.push(day(&world, 7).await);
    let plan = same_plan(&world, &mut known, &request(&world)).await;
    assert!(plan.deletes(), "{:?}", plan.steps);
    apply(&world.vault, &world.key, &plan).await.unwrap();
    let plan = same_plan(&world, &mut known, &request(&world)).await;
    assert_eq!(plan.frozen, [], "receipts account for what is gone");
    // A purge that was announced: its snapshots take nobody's place.
    let wanted = backup_core::prune::purge::PurgeRequest {
        dir: docs[4].dir(),
        reason: "leaked".to_owned(),
        even_newest: false,
        tool: "backup 0".to_owned(),
    };
    let purge = backup_core::prune::purge::plan(&world.vault, &world.signers, &wanted).await.unwrap();
    backup_core::prune::purge::apply(&world.vault, &world.key, &purge).await.unwrap();
    assert!(world.vault.exists(&docs[4].dir().file("expired.json")).await.unwrap());
    world.pass(TimeDelta::minutes(2));
    for _ in 0..2 {
        same_plan(&world, &mut known, &request(&world)).await;
    }
    let stamps = history(&read(&world, &mut known).await.0).stamps;
    let purged = stamps.iter().find(|stamp| stamp.id == docs[4].id.as_str()).unwrap();
    assert!(!purged.complete);
    world.run(&Script::noise(10, 9)).await.unwrap();
    same_plan(&world, &mut known, &request(&world)).await;
}

#[tokio::test]
async fn a_signature_that_is_gone_is_missed() {
    let (world, docs, mut known) = remembered().await;
    world.set(&signature_of(&docs[0].dir().snapshot(&docs[0].id, ".json")), None).await;
    assert_eq!(history(&read(&world, &mut known).await.0).stamps.len(), 5);
}

//! A plan from what an earlier reading proved is the plan that reading everything again would give, and asks for less.

use std::collections::{BTreeSet, HashMap};

use backup_core::prune::history::{Memory, Noted, Reading, look};
use backup_core::signature::Signers;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::{GenerationDir, GenerationId, signature_of};
use chrono::{DateTime, TimeDelta, Utc};
use retention::History;

use super::prune::{day, six_days};
use super::world::{World, host_key};

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
async fn a_signature_that_is_gone_is_missed() {
    let (world, docs, mut known) = remembered().await;
    world.set(&signature_of(&docs[0].dir().snapshot(&docs[0].id, ".json")), None).await;
    assert_eq!(history(&read(&world, &mut known).await.0).stamps.len(), 5);
}

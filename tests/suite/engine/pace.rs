//! Verification with little time: what it reads first, where it goes on, and what it says was read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::verify::{Bad, Depth, Fraction, Pace, Reads, Verified, verify_at};
use chrono::{NaiveTime, TimeDelta};

use super::world::{Script, World};

/// Objects of two generations in one vault, and what is remembered of them.
struct Reader {
    world: World,
    before: Reads,
    bad: Bad,
}

impl Reader {
    async fn new() -> Self {
        let world = World::new().await;
        for seed in 1..=4 {
            world.run(&Script::noise(600_000, seed)).await.unwrap();
            if seed == 2 {
                world.pass(TimeDelta::days(7));
            }
        }
        Self { world, before: Reads::new(), bad: Bad::new() }
    }

    /// One call that has time for so many objects, and the objects that it read.
    async fn call(&mut self, objects: usize, share: Fraction) -> (Verified, BTreeSet<String>) {
        let world = &self.world;
        let asked = AtomicUsize::new(0);
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= objects;
        let now = world.host.now();
        let today = now.date_naive().and_time(NaiveTime::MIN).and_utc();
        let pace = Pace {
            stop: Some(&stop),
            before: Some(&self.before),
            fresh: Some(today),
            bad: Some(&self.bad),
            closed: None,
            now,
        };
        let depth = Depth { read: Some(share), identities: None };
        let place = (&world.request.stack, &world.request.source);
        world.watch.fail(None);
        let verified = verify_at(&world.vault, &world.signers, place, None, depth, &pace).await.unwrap();
        let read = world.watch.paths("get").into_iter().filter(|path| path.contains("/objects/"));
        let read: Vec<String> = read.collect();
        for (dir, names) in &verified.good {
            self.before.entry(dir.clone()).or_default().extend(names.iter().map(|name| (*name, now)));
        }
        let distinct: BTreeSet<String> = read.iter().cloned().collect();
        assert_eq!(read.len(), distinct.len(), "one call reads nothing twice");
        (verified, distinct)
    }
}

const ALL: Fraction = Fraction { part: 1, of: 1 };

#[tokio::test]
async fn calls_of_one_day_go_on_where_the_last_one_stopped() {
    let mut reader = Reader::new().await;
    let mut seen = BTreeSet::new();
    let mut calls = 0;
    loop {
        let (verified, read) = reader.call(2, ALL).await;
        if read.is_empty() {
            assert!(verified.coverage.is_whole() && verified.coverage.left_bytes == 0, "{:?}", verified.coverage);
            assert_eq!(verified.snapshots.len(), 4, "documents are looked at in each call");
            break;
        }
        // Fails if what was read today is read again: `Pace::order`.
        assert!(read.len() <= 2 && seen.is_disjoint(&read), "call {calls}: {read:?}");
        seen.extend(read);
        assert_eq!(verified.coverage.is_whole(), verified.coverage.left_bytes == 0);
        calls += 1;
    }
    let objects = reader.world.watch.content("shop").await.into_iter().filter(|(path, _)| path.contains("/objects/"));
    assert_eq!(seen.len(), objects.count());
    assert!(calls > 3, "{calls}");
}

#[tokio::test]
async fn on_later_days_no_generation_starves() {
    let mut reader = Reader::new().await;
    let all = reader.world.watch.content("shop").await.into_iter().filter(|(path, _)| path.contains("/objects/"));
    let mut counts: BTreeMap<String, usize> = all.map(|(path, _)| (path, 0)).collect();
    let objects = counts.len();
    for call in 0..objects * 3 {
        let (_, read) = reader.call(1, ALL).await;
        for path in read {
            *counts.get_mut(&path).unwrap() += 1;
        }
        reader.world.host.pass(TimeDelta::days(1));
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        // Fails if generations are read in a fixed order: the first one takes the time of every day.
        assert!(most - least <= 1, "call {call}: {counts:?}");
    }
    assert!(counts.values().all(|count| *count == 3), "{counts:?}");
}

#[tokio::test]
async fn shares_are_read_each_by_itself_and_together_are_everything() {
    let mut reader = Reader::new().await;
    let mut seen = BTreeSet::new();
    let mut left = Vec::new();
    for part in 1..=5 {
        let (verified, read) = reader.call(1000, Fraction { part, of: 5 }).await;
        assert!(seen.is_disjoint(&read), "{read:?}");
        seen.extend(read);
        left.push(verified.coverage.listed_bytes - verified.coverage.covered_bytes);
    }
    assert!(left.windows(2).all(|pair| pair[0] >= pair[1]) && left[4] == 0, "{left:?}");
}

#[tokio::test]
async fn time_that_is_up_makes_nothing_good_that_was_found_damaged() {
    let mut reader = Reader::new().await;
    let dir = reader.world.vault.generations(&reader.world.request.stack, &reader.world.request.source).await.unwrap();
    let listed = reader.world.vault.list_objects(&dir[0]).await.unwrap();
    let at = (dir[0].clone(), listed[0].name);
    reader.bad.insert(at.clone(), "it was bad".to_owned());
    // Fails where a look knows of nothing but what it reads itself.
    let (verified, read) = reader.call(0, ALL).await;
    assert!(read.is_empty() && verified.is_damaged(), "{verified:?}");
    assert_eq!(verified.objects.get(&at).map(String::as_str), Some("it was bad"));
    assert!(verified.snapshots.iter().any(|verdict| verdict.objects.contains(&at.1)), "{verified:?}");
    // What is read again is what it is.
    let (verified, _) = reader.call(1000, ALL).await;
    assert!(!verified.is_damaged(), "{verified:?}");
}

#[tokio::test]
async fn each_day_that_asks_has_its_turn_whatever_lies_between() {
    let world = World::new().await;
    let [one, two]: [backup_core::id::VaultId; 2] = ["1", "2"].map(|digit| digit.repeat(32).parse().unwrap());
    let asked = async |vault: &backup_core::id::VaultId, parts: u32, day: i64| {
        world.state.read_turn(vault, &world.request.source, parts, day).await.unwrap().0
    };
    let turn = async |vault: &backup_core::id::VaultId, parts: u32, day: i64| {
        let turn = asked(vault, parts, day).await;
        world.state.set_read_turn(vault, &world.request.source, parts, (day, turn)).await.unwrap();
        turn
    };
    let mut turns = BTreeSet::new();
    for week in 0..7 {
        let day = 20_000 + 7 * week;
        let first = turn(&one, 7, day).await;
        // Another call of the day, another share and another vault are no turn of this one.
        assert_eq!(turn(&one, 7, day).await, first);
        turn(&one, 28, day).await;
        turns.insert(first.rem_euclid(7));
    }
    // Fails where the day's number is the turn: the same seventh each week.
    assert_eq!(turns.len(), 7);
    assert_eq!(turn(&two, 7, 20_003).await, 20_003);
    // Fails where asking takes the turn: what a call that died did not read would be read a round later.
    for day in [20_004, 20_005, 20_009] {
        assert_eq!(asked(&two, 7, day).await, 20_004, "day {day}");
    }
    assert_eq!(turn(&two, 7, 20_009).await, 20_004);
    assert_eq!(asked(&two, 7, 20_010).await, 20_005);
}

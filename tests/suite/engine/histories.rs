//! Random histories of two hosts and two vaults against a naive model: what `promise` promises is there and whole after
//! every step, whatever clocks, crashes, outages and operators did; nothing is listed that was never captured; a deletion
//! was announced a day before and is followed by a newer snapshot. And, or a model that never deletes would be satisfied:
//! once nothing freezes any more, what expired goes.
//!
//! `BACKUP_HISTORY_SEEDS` (how many, from 1 on) and `BACKUP_HISTORY_STEPS` make it a campaign; `BACKUP_HISTORY_SEED=n`
//! runs one seed again. A history that fails is shrunk, and printed with its seed.

#![expect(clippy::print_stdout, reason = "prints the seed of a history that fails, and the size of a campaign")]

mod attack;
mod run;
mod step;

use run::{Failure, History, Tally};
use step::{Step, generate};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// How a history went, and with `end` what must hold behind it: a panic in the engine or in the watched store is a failure like any other.
async fn ended(steps: &[Step], seed: u64, end: bool) -> Result<Tally, Failure> {
    let (steps, length) = (steps.to_vec(), steps.len());
    let task = async { tokio::task::spawn_local(async move { History::run(&steps, seed, end).await }).await };
    let panicked = |error: tokio::task::JoinError| Err(Failure { steps: length, reason: format!("{error}") });
    tokio::task::LocalSet::new().run_until(task).await.unwrap_or_else(panicked)
}

/// The shortest history that still fails, by leaving out ever smaller parts, and what is behind the step that fails; about
/// `budget` steps are gone through for that.
async fn shrunk(mut steps: Vec<Step>, first: Failure, seed: u64, mut budget: usize) -> (Vec<Step>, String) {
    let (mut reason, end) = (first.reason, first.steps == steps.len());
    steps.truncate(first.steps);
    let mut size = steps.len().div_ceil(2);
    while size > 0 && budget > 0 {
        let (mut at, mut found) = (0, false);
        while at < steps.len() && budget > 0 {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            budget = budget.saturating_sub(fewer.len().max(1));
            match ended(&fewer, seed, end).await {
                Err(failure) => {
                    fewer.truncate(failure.steps);
                    (steps, reason, found) = (fewer, failure.reason, true);
                }
                Ok(_) => at += size,
            }
        }
        size = if size == 1 && !found { 0 } else { (size / 2).max(usize::from(found || size > 1)) };
    }
    (steps, reason)
}

async fn campaign(seeds: u64, length: usize, attacked: bool) {
    let only = number("BACKUP_HISTORY_SEED");
    let seeds = number("BACKUP_HISTORY_SEEDS").unwrap_or(seeds);
    let length = number("BACKUP_HISTORY_STEPS").map_or(length, |steps| usize::try_from(steps).unwrap());
    let tally = all(only.map_or(1..=seeds, |seed| seed..=seed), length, |seed| generate(seed, length, attacked)).await;
    println!("{seeds} histories of {length} steps: {tally:?}");
    if only.is_none() {
        assert!(tally.removed > 5 && tally.crashes > 5, "hardly anything happened: {tally:?}");
        assert!(!attacked || tally.attacks > 20, "hardly anything happened: {tally:?}");
    }
}

/// Each of these seeds, until one fails: that one is printed as it is asked for again, with the shortest history that fails.
async fn all(seeds: std::ops::RangeInclusive<u64>, length: usize, steps: impl Fn(u64) -> Vec<Step>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let steps = steps(seed);
        match ended(&steps, seed, true).await {
            Ok(more) => {
                println!("seed {seed} holds, {} steps", more.steps);
                tally.add(&more);
            }
            Err(failure) => {
                println!("seed {seed} fails: {}", failure.reason);
                let (steps, reason) = shrunk(steps, failure, seed, 3000).await;
                panic!("BACKUP_HISTORY_SEED={seed} BACKUP_HISTORY_STEPS={length}: {reason}\nafter {steps:#?}");
            }
        }
    }
    tally
}

#[tokio::test]
async fn every_snapshot_that_policy_promises_restores_always() {
    campaign(4, 100, false).await;
}

#[tokio::test]
async fn a_writer_without_keys_is_never_believed() {
    campaign(4, 100, true).await;
}

#[test]
fn everything_that_can_happen_happens() {
    let steps: Vec<Step> =
        [false, true].iter().flat_map(|by| (1..=4).flat_map(|seed| generate(seed, 100, *by))).collect();
    let word = |step: &Step| format!("{step:?}").split([' ', '(']).next().unwrap().to_owned();
    let mut counted = std::collections::BTreeMap::new();
    for step in &steps {
        *counted.entry(word(step)).or_insert(0) += 1;
    }
    let all = "Accept AcceptAll Attack Away Back Check Crash CrashUnsynced Jump Lapsed LongRun LoseState Pass Pin Prune \
               Replicate Run SetRight Undo Unpin";
    assert_eq!(counted.keys().map(String::as_str).collect::<Vec<_>>(), all.split_whitespace().collect::<Vec<_>>());
    for days in [365, -30] {
        assert!(steps.iter().any(|step| matches!(step, Step::Jump { days: by, .. } if *by == days)), "{days} days");
    }
    assert!(steps.iter().any(|step| matches!(step, Step::Run { host: 1, .. })), "the second host");
    assert!(steps.iter().any(|step| matches!(step, Step::LongRun { days, .. } if *days > 1)), "longer than a period");
    // Everything that happens in between is a day at a time.
    let away = |at: usize, step: &Step| {
        let Step::Away { vault } = step else { return false };
        let until = steps[at..].iter().take_while(|step| **step != Step::Back);
        let mut days = 0;
        for step in until {
            days += i64::from(matches!(step, Step::Pass { hours: 24 }));
        }
        days >= 8 && *vault < 2
    };
    assert!(steps.iter().enumerate().any(|(at, step)| away(at, step)), "a vault is down for longer than any window");
    let mut attacks = std::collections::BTreeSet::new();
    for step in &steps {
        if let Step::Attack(attack) = step {
            attacks.insert(format!("{attack:?}").split('(').next().unwrap().to_owned());
        }
    }
    let all = "Announce Flip Generation Huge Mark Remove Replay ReplayPair Snapshot Swap Truncate";
    assert_eq!(attacks.iter().map(String::as_str).collect::<Vec<_>>(), all.split_whitespace().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_seed_that_fails_is_printed_as_it_is_asked_for_again() {
    use futures::FutureExt as _;
    let steps = |seed| {
        let mut steps = generate(seed, 10, true);
        if seed == 2 {
            steps.insert(4, Step::Fails);
        }
        steps
    };
    assert_eq!((steps(1), generate(2, 10, true)), (steps(1), generate(2, 10, true)), "a seed is a history");
    assert_ne!(generate(1, 10, true), generate(2, 10, true));
    let told = std::panic::AssertUnwindSafe(all(1..=3, 10, steps)).catch_unwind().await.unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    let first =
        "BACKUP_HISTORY_SEED=2 BACKUP_HISTORY_STEPS=10: step 0, Fails: the test says so\nafter [\n    Fails,\n]";
    assert_eq!(told, first);
}

#[tokio::test]
async fn a_failing_history_is_shrunk_to_what_fails() {
    let mut steps = generate(1, 30, false);
    steps.insert(17, Step::Fails);
    let failure = ended(&steps, 1, true).await.unwrap_err();
    assert_eq!(failure.steps, 18, "{}", failure.reason);
    let (steps, reason) = shrunk(steps, failure, 1, 1000).await;
    assert_eq!(steps, [Step::Fails], "{reason}");
}

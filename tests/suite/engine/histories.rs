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

use run::{History, Tally};
use step::{Step, generate};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// How a history went: a panic in the engine or in the watched store is a failure like any other.
async fn ended(steps: Vec<Step>, seed: u64) -> Result<Tally, String> {
    let task = async { tokio::task::spawn_local(async move { History::run(&steps, seed).await }).await };
    tokio::task::LocalSet::new().run_until(task).await.unwrap_or_else(|error| Err(format!("{error}")))
}

/// The shortest history that still fails, by leaving out ever smaller parts; at most `tries` are tried.
async fn shrunk(mut steps: Vec<Step>, seed: u64, tries: usize) -> (Vec<Step>, String) {
    let (mut size, mut left) = (steps.len().div_ceil(2), tries);
    let mut reason = ended(steps.clone(), seed).await.err().unwrap_or_else(|| "it did not fail again".to_owned());
    while size > 0 && left > 0 {
        let (mut at, mut found) = (0, false);
        while at < steps.len() && left > 0 {
            left -= 1;
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match ended(fewer.clone(), seed).await {
                Err(why) => (steps, reason, found) = (fewer, why, true),
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
    let mut tally = Tally::default();
    for seed in only.map_or(1..=seeds, |seed| seed..=seed) {
        let steps = generate(seed, length, attacked);
        match ended(steps.clone(), seed).await {
            Ok(more) => tally.add(&more),
            Err(reason) => {
                println!("seed {seed} fails: {reason}");
                let (steps, reason) = shrunk(steps, seed, 400).await;
                panic!("BACKUP_HISTORY_SEED={seed} BACKUP_HISTORY_STEPS={length}: {reason}\nafter {steps:#?}");
            }
        }
    }
    println!("{seeds} histories of {length} steps: {tally:?}");
    if only.is_none() {
        assert!(tally.removed > 5 && tally.crashes > 5, "hardly anything happened: {tally:?}");
        assert!(!attacked || tally.attacks > 20, "hardly anything happened: {tally:?}");
    }
}

#[tokio::test]
async fn every_snapshot_that_policy_promises_restores_always() {
    campaign(5, 120, false).await;
}

#[tokio::test]
async fn a_writer_without_keys_is_never_believed() {
    campaign(5, 120, true).await;
}

#[tokio::test]
async fn a_failing_history_is_shrunk_to_what_fails() {
    let mut steps = generate(1, 30, false);
    steps.insert(17, Step::Fails);
    let (steps, reason) = shrunk(steps, 1, 100).await;
    assert_eq!(steps, [Step::Fails], "{reason}");
}

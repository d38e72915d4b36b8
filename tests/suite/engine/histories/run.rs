//! A history as it happens. What is done to the vaults is in `verbs`, what is looked at after each step in `looks`.

mod looks;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::promise::held;
use super::super::site::{Keep, Site};
use super::super::watch::Down;
use super::attack::Past;
use super::step::{Step, Whose};

type At = (GenerationDir, SnapshotId);

/// What happened, to see that something did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) steps: u64,
    pub(super) snapshots: u64,
    pub(super) removed: u64,
    pub(super) crashes: u64,
    pub(super) attacks: u64,
    pub(super) read: u64,
}

impl Tally {
    pub(super) fn add(&mut self, more: &Self) {
        self.steps += more.steps;
        self.snapshots += more.snapshots;
        self.removed += more.removed;
        self.crashes += more.crashes;
        self.attacks += more.attacks;
        self.read += more.read;
    }
}

/// Why a history failed, and how many of its steps that took.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) steps: usize,
    pub(super) reason: String,
}

/// An announcement as it was first seen.
struct Announced {
    store: DateTime<Utc>,
    newest: DateTime<Utc>,
}

pub(super) struct History {
    pub(super) site: Site,
    /// The vaults that answer.
    up: BTreeSet<usize>,
    /// The files of each snapshot that was read whole, as they were.
    whole: BTreeMap<(usize, At), Vec<(String, Bytes)>>,
    /// Snapshots whose run or copy was answered with success, by vault, and what was captured.
    confirmed: BTreeMap<(usize, At), Option<Hash256>>,
    announced: BTreeMap<(usize, GenerationDir), Announced>,
    crash: Option<(u64, bool, Option<u64>)>,
    /// The next run dies before its barrier, and its objects are lost.
    unsynced: bool,
    captures: u64,
    seed: u64,
    /// Everything that ever lay in the attacked vault, where there is an attacker.
    pub(super) past: Option<Past>,
    pub(super) tally: Tally,
}

/// The vault that an attacker can write to.
pub(super) const ATTACKED: usize = 0;

fn text(error: &dyn std::error::Error) -> String {
    backup_core::verify::chain_text(error)
}

impl History {
    /// `end`: what must hold behind the last step is tried, too.
    pub(super) async fn run(steps: &[Step], seed: u64, end: bool) -> Result<Tally, Failure> {
        let mut site = Site::new("1d", 2, [Keep { days: 3, min: 2 }, Keep { days: 6, min: 2 }]).await;
        let attacked = steps.iter().any(|step| matches!(step, Step::Attack(_)));
        site.attacked = attacked;
        let mut history = Self {
            site,
            up: BTreeSet::from([0, 1]),
            whole: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            announced: BTreeMap::new(),
            crash: None,
            unsynced: false,
            captures: 0,
            seed,
            past: attacked.then(Past::default),
            tally: Tally::default(),
        };
        for (at, step) in steps.iter().enumerate() {
            let failed = |error| Failure { steps: at + 1, reason: format!("step {at}, {step:?}: {error}") };
            history.step(step).await.map_err(failed)?;
            history.tally.steps += 1;
        }
        if end {
            history.end().await.map_err(|reason| Failure { steps: steps.len(), reason })?;
        }
        Ok(history.tally)
    }

    /// What must hold however it went.
    async fn end(&mut self) -> Result<(), String> {
        self.set_right();
        self.look(true).await.map_err(|error| format!("at the end: {error}"))?;
        if self.past.is_some() {
            return self.told().await;
        }
        self.lives().await.map_err(|error| format!("liveness: {error}"))
    }

    fn trusted(&self, vault: usize) -> bool {
        self.past.is_none() || vault != ATTACKED
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let crash = self.crash.take();
        match step {
            Step::Run { host, odd } => self.capture(*host, *odd, crash).await?,
            Step::LongRun { host, days } => {
                let clocks: Vec<_> =
                    self.site.places.iter().map(|place| place.clock.clone()).chain([self.site.clock.clone()]).collect();
                let days = TimeDelta::days(*days);
                let slow = Arc::new(std::sync::atomic::AtomicBool::new(true));
                for place in &self.site.places {
                    let (clocks, slow) = (clocks.clone(), slow.clone());
                    place.watch.before_put(move |path| {
                        if path.ends_with(".inventory.zst") && slow.swap(false, std::sync::atomic::Ordering::Relaxed) {
                            for clock in &clocks {
                                clock.pass(days);
                            }
                        }
                    });
                }
                self.capture(*host, false, None).await?;
                self.site.places.iter().for_each(|place| place.watch.before_put(|_| {}));
            }
            Step::Replicate => self.replicate(crash).await?,
            Step::Prune { vault } => self.prune(*vault, crash).await?,
            Step::Undo { vault } if self.up.contains(vault) => {
                let undone = self.site.undo(*vault).await;
                if self.trusted(*vault) {
                    undone.map_err(|e| text(&e))?;
                }
            }
            Step::Pin { nth } => self.mark(*nth, MarkKind::Pin).await?,
            Step::Accept { nth } => self.mark(*nth, MarkKind::Accept).await?,
            Step::AcceptAll => self.accept_all().await?,
            Step::Unpin { nth } => {
                for vault in self.up.clone() {
                    if let Some(at) = self.nth(vault, *nth).await {
                        let done = self.site.unmark(vault, &at, MarkKind::Pin).await;
                        if self.trusted(vault) {
                            done.map_err(|e| text(&e))?;
                        }
                    }
                }
            }
            Step::Check { vault, nth } if self.up.contains(vault) => {
                if let Some(at) = self.nth(*vault, *nth).await
                    && self.site.read(*vault, &at).await.is_ok()
                {
                    let done = self.site.mark(0, *vault, &at, MarkKind::Checked).await;
                    if self.trusted(*vault) {
                        done.map_err(|e| text(&e))?;
                    }
                }
            }
            Step::Undo { .. } | Step::Check { .. } => {}
            Step::Pass { hours } => self.site.pass(TimeDelta::hours(*hours)),
            Step::Jump { whose, days } => {
                let by = TimeDelta::days(*days);
                match whose {
                    Whose::Host => self.site.clock.pass(by),
                    Whose::Store(vault) => self.site.places[*vault].clock.pass(by),
                    Whose::All => self.site.pass(by),
                }
            }
            Step::SetRight => self.clocks_right(),
            Step::Crash { call, after, cut } => self.crash = Some((*call, *after, *cut)),
            Step::CrashUnsynced => self.unsynced = true,
            Step::LoseState { host } => self.site.lose_state(*host).await,
            Step::Away { vault } => self.down(*vault, Down::Away),
            Step::Lapsed => {
                for vault in 0..self.site.places.len() {
                    self.down(vault, Down::Denied);
                }
            }
            Step::Back => self.back(),
            Step::Attack(attack) => {
                self.tally.attacks += 1;
                let past = self.past.as_ref().ok_or("nobody attacks here")?;
                attack.happen(&self.site, past).await;
            }
            Step::Fails => return Err("the test says so".to_owned()),
        }
        let quiet = matches!(step, Step::Pass { .. } | Step::Jump { .. } | Step::SetRight);
        let changes = !quiet && !matches!(step, Step::Crash { .. } | Step::CrashUnsynced);
        if changes { self.look(false).await } else { Ok(()) }
    }

    /// Of several clocks that disagree the middle one is right; no clock goes back for that.
    fn clocks_right(&self) {
        let mut clocks: Vec<_> = self.site.places.iter().map(|place| place.clock.now()).collect();
        clocks.push(self.site.clock.now());
        clocks.sort();
        let now = clocks[clocks.len() / 2];
        self.site.clock.set(now);
        self.site.places.iter().for_each(|place| place.clock.set(now));
    }

    fn down(&mut self, vault: usize, down: Down) {
        self.site.places[vault].watch.down(Some(down));
        self.up.remove(&vault);
    }

    fn back(&mut self) {
        for (vault, place) in self.site.places.iter().enumerate() {
            place.watch.down(None);
            self.up.insert(vault);
        }
    }

    fn set_right(&mut self) {
        self.back();
        self.clocks_right();
        self.crash = None;
    }

    fn reachable(&self) -> Vec<usize> {
        self.up.iter().copied().collect()
    }

    async fn nth(&self, vault: usize, nth: u64) -> Option<At> {
        let mut facts = held(&self.site, vault).await.facts;
        let at = usize::try_from(nth).unwrap().checked_rem(facts.len())?;
        Some(facts.swap_remove(at).at)
    }

    /// One in every vault that answers and has it: the nth of the first one.
    async fn mark(&mut self, nth: u64, kind: MarkKind) -> Result<(), String> {
        let Some(first) = self.up.first().copied() else { return Ok(()) };
        let Some(at) = self.nth(first, nth).await else { return Ok(()) };
        for vault in self.up.clone() {
            if held(&self.site, vault).await.facts.iter().any(|fact| fact.at == at) {
                let done = self.site.mark(0, vault, &at, kind).await;
                if self.trusted(vault) {
                    done.map_err(|e| text(&e))?;
                }
            }
        }
        Ok(())
    }

    async fn accept_all(&mut self) -> Result<(), String> {
        for vault in self.up.clone() {
            for fact in held(&self.site, vault).await.facts {
                let done = self.site.mark(0, vault, &fact.at, MarkKind::Accept).await;
                if self.trusted(vault) {
                    done.map_err(|e| text(&e))?;
                }
            }
        }
        Ok(())
    }
}

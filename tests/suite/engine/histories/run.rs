//! A history as it happens, and what is looked at after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::prune::Action;
use backup_core::vault::document::{ExpiredDoc, MarkKind, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::super::recover::noise;
use super::super::crash_points::Dice;
use super::super::promise::{Held, believed, held, promised, unsigned, wrongly_gone};
use super::super::site::{Keep, Site};
use super::super::watch::{Down, Fault};
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

    /// Arms the crash for the vault, does `act`, and if it died lets the next process begin. `true`: it died.
    fn arm(&self, vault: usize, crash: Option<(u64, bool, Option<u64>)>, calls: u64) {
        let place = &self.site.places[vault];
        place.watch.fail(crash.map(|(call, after, _)| {
            let fault = if after { Fault::DiesAfter } else { Fault::DiesBefore };
            (usize::try_from(call % calls).unwrap(), fault)
        }));
    }

    async fn buried(&mut self, crash: Option<(u64, bool, Option<u64>)>) -> bool {
        let Some((call, _, cut)) = crash else { return false };
        let died = self.site.places.iter().any(|place| place.watch.is_dead());
        if died {
            self.tally.crashes += 1;
            self.site.dies().await;
            for vault in 0..self.site.places.len() {
                if let Some(cut) = cut {
                    let mut dice = Dice(cut ^ call);
                    self.site.power_cut(vault, || dice.below(2) == 0).await;
                }
            }
        }
        self.site.places.iter().for_each(|place| place.watch.fail(None));
        died
    }

    async fn capture(&mut self, host: usize, odd: bool, crash: Option<(u64, bool, Option<u64>)>) -> Result<(), String> {
        let Some(vault) = self.up.first().copied() else { return Ok(()) };
        self.captures += 1;
        // Of two captures one after the other some are of the same data.
        let content = [noise(3000, 1), noise(1500, (self.seed << 20) | (self.captures / 2))].concat();
        let lost = std::mem::take(&mut self.unsynced);
        self.arm(vault, crash, 60);
        if lost {
            self.loses_its_objects(vault);
        }
        let before = held(&self.site, vault).await.facts.len();
        let ended = self.site.run(host, vault, &content, odd).await;
        // The first cut takes everything that it can.
        let died = self.buried(if lost { Some((0, false, None)) } else { crash }).await;
        if died && lost {
            self.site.power_cut(vault, || false).await;
        }
        self.site.places[vault].watch.before_put(|_| {});
        match ended {
            Ok(done) => {
                let doc = done.snapshot.doc;
                if doc.recipients != self.site.request.recipients {
                    return Err(format!("{} was sealed to others", doc.id));
                }
                let at = (doc.dir(), doc.id);
                let period = TimeDelta::days(at.0.id.period().days().into());
                let deadline = at.0.id.first_day().and_time(chrono::NaiveTime::MIN).and_utc() + period * 2;
                if self.site.places[vault].clock.now() > deadline {
                    return Err(format!("{} was committed after {deadline}", at.1));
                }
                if self.trusted(vault) && self.site.read(vault, &at).await? != Hash256::of(&content) {
                    return Err(format!("{at:?} is not what was captured"));
                }
                // Rule 1, also where somebody meddles: everything that it names was there, by name and size, in this run.
                self.is_complete(vault, &at).await?;
                self.tally.snapshots += 1;
                self.confirmed.insert((vault, at), Some(Hash256::of(&content)));
            }
            Err(error) if !died && self.trusted(vault) => {
                let after = held(&self.site, vault).await.facts.len();
                if after != before {
                    return Err(format!("failed, and left a snapshot: {}", text(&error)));
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// The next run dies at the first call behind the object of its manifest: a barrier.
    fn loses_its_objects(&self, vault: usize) {
        let watch = self.site.places[vault].watch.clone();
        let last = std::sync::atomic::AtomicU64::new(0);
        self.site.places[vault].watch.before_put(move |path| {
            // Three streams with an object each, as far as they are new, and the manifest's.
            let object = path.contains("/objects/");
            if object && last.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 3 {
                watch.fail(Some((0, Fault::DiesBefore)));
            }
        });
    }

    /// Whether everything that the inventory of a snapshot names is listed, with its size.
    async fn is_complete(&self, vault: usize, (dir, id): &At) -> Result<(), String> {
        let vault = &self.site.places[vault].vault;
        let path = dir.snapshot(id, ".json");
        let signed = vault.get_signed::<SnapshotDoc>(&path, &self.site.signers).await.map_err(|e| text(&e))?;
        let (lines, _) = vault.get_inventory(&signed.doc).await.map_err(|e| text(&e))?;
        let listed = vault.list_objects(dir).await.map_err(|e| text(&e))?;
        match lines.iter().find(|line| !listed.contains(line)) {
            Some(line) => Err(format!("{id} was committed without its object {}", line.name)),
            None => Ok(()),
        }
    }

    async fn replicate(&mut self, crash: Option<(u64, bool, Option<u64>)>) -> Result<(), String> {
        if self.up.len() < self.site.places.len() {
            return Ok(());
        }
        for (from, to) in [(0, 1), (1, 0)] {
            self.arm(to, crash, 90);
            let done = self.site.replicate(from, to).await;
            let died = self.buried(crash).await;
            if !died && self.past.is_none() {
                let pruned = |error: &_| matches!(error, backup_core::replicate::ReplicateError::Pruned { .. });
                if let Some(error) = done.errors.iter().find(|error| !pruned(error)) {
                    return Err(format!("{from} to {to}: {}", text(error)));
                }
            }
            let there = held(&self.site, to).await.facts;
            for fact in there.into_iter().filter(|fact| !died && done.snapshots.contains(&fact.at.1)) {
                self.confirmed.entry((to, fact.at)).or_default();
            }
        }
        Ok(())
    }

    async fn prune(&mut self, vault: usize, crash: Option<(u64, bool, Option<u64>)>) -> Result<(), String> {
        if !self.up.contains(&vault) {
            return Ok(());
        }
        let before = held(&self.site, vault).await;
        let promised = promised(&self.site, vault, &self.reachable()).await;
        let store = self.site.places[vault].clock.now();
        let clocks_agree = (store - self.site.clock.now()).abs() <= TimeDelta::hours(1);
        self.arm(vault, crash, 150);
        let ended = self.site.prune(0, vault, &self.reachable()).await;
        let died = self.buried(crash).await;
        match &ended {
            Ok(done) => {
                self.tally.removed +=
                    done.iter().filter(|done| matches!(done.action, Action::Delete | Action::Resume)).count() as u64;
            }
            Err(error) if !died && self.trusted(vault) => return Err(text(error)),
            Err(_) => {}
        }
        let after = held(&self.site, vault).await;
        wrongly_gone(&before, &after, &promised, store)?;
        if ended.is_ok() && !died {
            // A last look may still spare it; the plan must not have wanted it gone.
            let content = self.site.content(vault).await;
            let announced = |dir: &GenerationDir| {
                believed::<ExpiredDoc>(&self.site, &content, dir.file("expired.json").as_str()).is_some()
            };
            if let Some(fact) = after.facts.iter().find(|fact| promised.contains(&fact.at.1) && announced(&fact.at.0)) {
                return Err(format!("{} is promised, and its generation is announced", fact.at.1));
            }
        }
        let left: BTreeSet<&SnapshotId> = after.facts.iter().map(|fact| &fact.at.1).collect();
        let newest = before.facts.iter().map(|fact| fact.data).max();
        for gone in before.facts.iter().filter(|fact| !left.contains(&fact.at.1)) {
            self.in_two_runs(vault, gone.at.clone(), store, newest, clocks_agree)?;
        }
        Ok(())
    }

    /// What goes was announced a day ago by the store's clock, and something newer has come since.
    fn in_two_runs(
        &mut self,
        vault: usize,
        at: At,
        store: DateTime<Utc>,
        newest: Option<DateTime<Utc>>,
        clocks_agree: bool,
    ) -> Result<(), String> {
        let Some(announced) = self.announced.get(&(vault, at.0.clone())) else {
            return Err(format!("{} is gone, and nobody announced it", at.1));
        };
        if store < announced.store + TimeDelta::hours(24) {
            return Err(format!("{} is gone {} after it was announced", at.1, store - announced.store));
        }
        if newest.is_none_or(|newest| newest <= announced.newest) {
            return Err(format!("{} is gone without a newer snapshot", at.1));
        }
        if !clocks_agree {
            return Err(format!("{} is gone while clocks disagree", at.1));
        }
        self.confirmed.remove(&(vault, at.clone()));
        self.whole.remove(&(vault, at));
        Ok(())
    }

    /// What lies in the vaults is what it should be. `everything`: read it all again, not only what is new.
    async fn look(&mut self, everything: bool) -> Result<(), String> {
        for vault in 0..self.site.places.len() {
            let content = self.site.content(vault).await;
            if let Some(past) = self.past.as_mut().filter(|_| vault == ATTACKED) {
                past.saw(&content);
            }
            let held = held(&self.site, vault).await;
            self.see_announcements(vault, &content, &held);
            if !self.trusted(vault) {
                continue;
            }
            // What nobody pinned signed comes from nowhere into a vault that nobody else can write to.
            if let Some(path) = unsigned(&self.site, &content) {
                return Err(format!("vault {vault} holds {path}, which no host signed"));
            }
            if !self.up.contains(&vault) {
                continue;
            }
            for at in self.site.listed(vault).await {
                if !held.facts.iter().any(|fact| fact.at == at) {
                    return Err(format!("vault {vault} lists {}, which no host signed", at.1));
                }
                let key = (vault, at.clone());
                let same =
                    |files: &Vec<(String, Bytes)>| files.iter().all(|(path, body)| content.get(path) == Some(body));
                if !everything && self.whole.get(&key).is_some_and(same) {
                    continue;
                }
                let found =
                    self.site.read(vault, &at).await.map_err(|error| format!("vault {vault} lists {at:?}: {error}"))?;
                self.tally.read += 1;
                if self.confirmed.get(&key).is_some_and(|wanted| wanted.is_some_and(|wanted| wanted != found)) {
                    return Err(format!("vault {vault}: {} is not what was captured", at.1));
                }
                self.whole.insert(key, files_of(&self.site, vault, &at, &content).await);
            }
            // Only a prune takes anything away, and it takes it out of `confirmed`.
            for (_, at) in self.confirmed.keys().filter(|(of, _)| *of == vault) {
                if !held.facts.iter().any(|fact| fact.at == *at) {
                    return Err(format!("vault {vault}: {} is gone, and no prune took it", at.1));
                }
            }
        }
        Ok(())
    }

    fn see_announcements(&mut self, vault: usize, content: &BTreeMap<String, Bytes>, held: &Held) {
        let announced = |dir: &GenerationDir| {
            let path = dir.file("expired.json");
            believed::<ExpiredDoc>(&self.site, content, path.as_str()).is_some()
        };
        self.announced.retain(|(of, dir), _| *of != vault || announced(dir));
        let (store, newest) = (self.site.places[vault].clock.now(), held.facts.iter().map(|fact| fact.data).max());
        let dirs: BTreeSet<&GenerationDir> = held.facts.iter().map(|fact| &fact.at.0).collect();
        for dir in dirs.into_iter().filter(|dir| announced(dir)) {
            let first = Announced { store, newest: newest.unwrap_or(store) };
            self.announced.entry((vault, dir.clone())).or_insert(first);
        }
    }

    /// Nothing is wrong any more and an operator has accepted what was: what is expired goes.
    async fn lives(&mut self) -> Result<(), String> {
        let last = |held: &Held| held.facts.iter().map(|fact| fact.data.max(fact.stored)).max();
        let (one, other) = (last(&held(&self.site, 0).await), last(&held(&self.site, 1).await));
        let now = one.into_iter().chain(other).chain([self.site.clock.now()]).max().unwrap();
        self.site.clock.set(now);
        self.site.places.iter().for_each(|place| place.clock.set(now));
        // Also where the snapshot itself is not: marks travel to every vault.
        let mut all = held(&self.site, 0).await.facts;
        all.extend(held(&self.site, 1).await.facts);
        for (vault, at) in [0, 1].iter().flat_map(|vault| all.iter().map(move |fact| (*vault, &fact.at))) {
            for kind in [MarkKind::Pin, MarkKind::Checked] {
                self.site.unmark(vault, at, kind).await.map_err(|e| text(&e))?;
            }
        }
        let longest = self.site.places.iter().map(|place| i64::from(place.keep.days)).max().unwrap();
        // The window, a generation, its deadline, closing, announcing and deleting; and a day in the end.
        for _ in 0..=longest + 2 + 1 + 2 {
            self.site.pass(TimeDelta::hours(24));
            self.capture(0, false, None).await?;
            self.accept_all().await?;
            self.replicate(None).await?;
            for vault in [0, 1] {
                self.prune(vault, None).await?;
            }
            self.look(false).await?;
        }
        for vault in [0, 1] {
            let held = held(&self.site, vault).await;
            let newest = held.facts.last().map(|fact| fact.data).unwrap();
            let oldest = newest - TimeDelta::days(i64::from(self.site.places[vault].keep.days) + 2 + 1 + 2);
            if let Some(old) = held.facts.iter().find(|fact| fact.data.max(fact.stored) < oldest) {
                let plan = self.site.plan(vault, &[0, 1]).await.map_err(|e| text(&e))?;
                let step = plan.steps.iter().find(|step| step.dir == old.at.0);
                return Err(format!("vault {vault}: {} is still there: {:?}, {step:?}", old.at.1, plan.frozen));
            }
        }
        Ok(())
    }

    /// What the attacked vault lost is not hidden: it is whole, or a verification says what is wrong, or the other vault or
    /// the host remembers it. And whatever reads well is what was captured.
    async fn told(&mut self) -> Result<(), String> {
        let verified = self.site.verify(ATTACKED, true).await;
        let listed: BTreeSet<At> = self.site.listed(ATTACKED).await.into_iter().collect();
        let mut lost = 0;
        for ((_, at), _) in self.confirmed.iter().filter(|((vault, _), _)| *vault == ATTACKED) {
            if self.site.read(ATTACKED, at).await.is_ok() {
                continue;
            }
            lost += 1;
            let verdict = verified.snapshots.iter().find(|verdict| verdict.id == at.1);
            let damaged = verdict.is_some_and(|verdict| !verdict.damage.is_empty() || verdict.foreign.is_some());
            if listed.contains(at) && !damaged {
                return Err(format!("{} cannot be read, and a verification finds nothing wrong with it", at.1));
            }
        }
        for verdict in verified.snapshots.iter().filter(|verdict| verdict.checked) {
            self.site.read(ATTACKED, &(verdict.dir.clone(), verdict.id.clone())).await?;
            self.tally.read += 1;
        }
        if lost > 0 && !verified.is_damaged() && !verified.is_foreign() {
            return Err(format!("{lost} snapshots are lost, and a verification finds nothing wrong"));
        }
        Ok(())
    }
}

/// The files that a whole snapshot consists of.
async fn files_of(site: &Site, vault: usize, at: &At, content: &BTreeMap<String, Bytes>) -> Vec<(String, Bytes)> {
    let path = at.0.snapshot(&at.1, ".json");
    let signed = site.places[vault].vault.get_signed(&path, &site.signers).await;
    let signed: backup_core::vault::Signed<SnapshotDoc> = signed.unwrap();
    let (lines, _) = site.places[vault].vault.get_inventory(&signed.doc).await.unwrap();
    let documents = [".json", ".json.sig", ".inventory.zst"].map(|suffix| at.0.snapshot(&at.1, suffix).to_string());
    let paths = lines.iter().map(|line| at.0.object(&line.name).to_string()).chain(documents);
    paths.map(|path| (path.clone(), content[&path].clone())).collect()
}

//! What a history does to the vaults, and what must hold of each such deed by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::prune::Action;
use backup_core::vault::document::{ExpiredDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use chrono::{DateTime, TimeDelta, Utc};

use super::super::super::super::recover::noise;
use super::super::super::crash_points::Dice;
use super::super::super::promise::{believed, held, promised, wrongly_gone};
use super::super::super::watch::{Fault, Hides};
use super::{At, History, text};

impl History {
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

    pub(super) async fn capture(
        &mut self,
        host: usize,
        odd: bool,
        crash: Option<(u64, bool, Option<u64>)>,
    ) -> Result<(), String> {
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

    pub(super) async fn replicate(&mut self, crash: Option<(u64, bool, Option<u64>)>) -> Result<(), String> {
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

    /// Listings leave out a third of the documents' names while a prune plans and deletes, always the same ones: in every second
    /// history without an attacker.
    fn hide(&self, on: bool) {
        fn hides(path: &str) -> bool {
            // FNV-1a: another third than any other order of names would give.
            let sum = path
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            path.ends_with(".json") && sum.is_multiple_of(3)
        }
        if self.past.is_none() && self.seed % 2 == 1 {
            let hides: Option<Hides> = if on { Some(Arc::new(hides)) } else { None };
            self.site.places.iter().for_each(|place| place.watch.hide(hides.clone()));
        }
    }

    pub(super) async fn prune(&mut self, vault: usize, crash: Option<(u64, bool, Option<u64>)>) -> Result<(), String> {
        if !self.up.contains(&vault) {
            return Ok(());
        }
        let before = held(&self.site, vault).await;
        let promised = promised(&self.site, vault, &self.reachable()).await;
        let store = self.site.places[vault].clock.now();
        let clocks_agree = (store - self.site.clock.now()).abs() <= TimeDelta::hours(1);
        self.arm(vault, crash, 150);
        self.hide(true);
        let ended = self.site.prune(0, vault, &self.reachable()).await;
        self.hide(false);
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
}

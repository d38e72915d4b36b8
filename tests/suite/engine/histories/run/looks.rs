//! What must hold of the vaults after every step, and behind the last one.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::vault::document::{ExpiredDoc, MarkKind, SnapshotDoc};
use backup_core::vault::layout::GenerationDir;
use bytes::Bytes;
use chrono::TimeDelta;

use super::super::super::promise::{Held, believed, held, unsigned};
use super::super::super::site::Site;
use super::{ATTACKED, Announced, At, History, text};

impl History {
    /// What lies in the vaults is what it should be. `everything`: read it all again, not only what is new.
    pub(super) async fn look(&mut self, everything: bool) -> Result<(), String> {
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
    pub(super) async fn lives(&mut self) -> Result<(), String> {
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
    pub(super) async fn told(&mut self) -> Result<(), String> {
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

//! What is promised of the snapshots in a vault, said again in the plainest way, without `retention`: read from the bytes
//! that lie there, by rules that fit on a page. It never promises more than DESIGN does; whatever it promises must be there.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::id::Hash256;
use backup_core::vault::document::{ExpiredDoc, GenerationDoc, MarkDoc, PublicDocument, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::site::{Keep, Site};

/// A snapshot that lies in a vault.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) at: (GenerationDir, SnapshotId),
    pub(crate) data: DateTime<Utc>,
    /// When the store got it, by its clock.
    pub(crate) stored: DateTime<Utc>,
    pub(crate) suspect: bool,
    pub(crate) marks: BTreeSet<&'static str>,
}

/// What a vault holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// Sorted by the instant of the data.
    pub(crate) facts: Vec<Fact>,
    /// Instants of what receipts say was removed.
    pub(crate) removed: Vec<DateTime<Utc>>,
}

/// A document with a signature beside it; where somebody meddles, only of a pinned signer and at its own place.
pub(crate) fn believed<T: PublicDocument>(site: &Site, content: &BTreeMap<String, Bytes>, path: &str) -> Option<T> {
    let (body, signature) = (content.get(path)?, content.get(&format!("{path}.sig"))?);
    let doc: T = serde_json::from_slice(body).ok()?;
    let good = || doc.path().as_str() == path && site.signers.check(T::NAMESPACE, body, signature, doc.at()).is_ok();
    (!site.attacked || good()).then_some(doc)
}

/// A document with a signature that is nobody's for its place, where somebody meddles. (One that a power cut left without a
/// signature was being deleted.)
pub(crate) fn unsigned<'a>(site: &Site, content: &'a BTreeMap<String, Bytes>) -> Option<&'a str> {
    let good = |path: &str| match path {
        _ if path.contains("/snapshots/") => believed::<SnapshotDoc>(site, content, path).is_some(),
        _ if path.contains("/marks/") => believed::<MarkDoc>(site, content, path).is_some(),
        _ if path.contains("/receipts/") => believed::<ReceiptDoc>(site, content, path).is_some(),
        _ if path.ends_with("/generation.json") => believed::<GenerationDoc>(site, content, path).is_some(),
        _ => believed::<ExpiredDoc>(site, content, path).is_some(),
    };
    let mut documents = content.keys().map(String::as_str).filter(|path| path.ends_with(".json"));
    documents.find(|path| site.attacked && content.contains_key(&format!("{path}.sig")) && !good(path))
}

/// Reads what lies in a vault, past the engine.
pub(crate) async fn held(site: &Site, vault: usize) -> Held {
    let (content, modified) = (site.content(vault).await, site.modified(vault).await);
    let mut held = Held::default();
    for (path, body) in &content {
        if path.contains("/receipts/") && path.ends_with(".json") {
            let Some(receipt) = believed::<ReceiptDoc>(site, &content, path) else { continue };
            held.removed.extend(receipt.snapshots.iter().map(|(id, _)| id.instant()));
        }
        if !path.contains("/snapshots/") || !path.ends_with(".json") {
            continue;
        }
        let Some(doc) = believed::<SnapshotDoc>(site, &content, path) else { continue };
        let marked = |kind: &&str| {
            let path = format!("{}/{}/marks/{}.{kind}.json", doc.stack, doc.source, doc.id);
            believed::<MarkDoc>(site, &content, &path).is_some_and(|mark| mark.document == Hash256::of(body))
        };
        held.facts.push(Fact {
            at: (doc.dir(), doc.id.clone()),
            data: doc.instant,
            stored: modified[path],
            suspect: doc.suspect > 0,
            marks: ["pin", "accept", "checked"].into_iter().filter(marked).collect(),
        });
    }
    held.facts.sort_by_key(|fact| (fact.data, fact.at.1.clone()));
    held
}

impl Fact {
    fn early(&self) -> DateTime<Utc> {
        self.data.min(self.stored)
    }
}

/// The newest `count`, whichever of the two instants one goes by.
fn newest<'a>(facts: &(impl Iterator<Item = &'a Fact> + Clone), count: u32) -> BTreeSet<&'a SnapshotId> {
    let by = |key: fn(&Fact) -> DateTime<Utc>| {
        let mut all: Vec<&Fact> = facts.clone().collect();
        all.sort_by_key(|fact| std::cmp::Reverse((key(fact), fact.data)));
        all.into_iter().take(count as usize).map(|fact| &fact.at.1).collect::<BTreeSet<_>>()
    };
    &by(|fact| fact.data) & &by(Fact::early)
}

/// Within the window of the newest, and the newest `min`.
fn by_policy(facts: &[Fact], keep: Keep) -> BTreeSet<SnapshotId> {
    let Some(last) = facts.iter().map(|fact| fact.data).max() else { return BTreeSet::new() };
    let window = TimeDelta::days(keep.days.into());
    let within = facts.iter().filter(|fact| last - fact.data <= window).map(|fact| fact.at.1.clone());
    within.chain(newest(&facts.iter(), keep.min.max(1)).into_iter().cloned()).collect()
}

/// Clocks further apart than this stop everything; and as far may the two instants of a snapshot be apart.
const HOUR: TimeDelta = TimeDelta::hours(1);

/// Why nothing at all may go.
fn frozen(site: &Site, vault: usize, held: &Held, accepted: &BTreeSet<SnapshotId>) -> Option<&'static str> {
    let (host, store) = (site.clock.now(), site.places[vault].clock.now());
    let limit = TimeDelta::days(site.places[vault].keep.days.into()).min(TimeDelta::days(100));
    let unaccepted = |fact: &&Fact| !accepted.contains(&fact.at.1);
    if (host - store).abs() > HOUR {
        return Some("clocks");
    }
    if held.facts.iter().filter(unaccepted).any(|fact| fact.data > store + HOUR) {
        return Some("future");
    }
    if held.facts.last().is_none_or(|newest| store - newest.data > limit) {
        return Some("stale");
    }
    let known: BTreeSet<DateTime<Utc>> =
        held.removed.iter().copied().chain(held.facts.iter().map(|fact| fact.data)).collect();
    let gap = |fact: &Fact| {
        let before = known.range(..fact.data).next_back();
        before.is_some_and(|before| fact.data - *before > limit + HOUR + HOUR)
    };
    held.facts.iter().filter(unaccepted).any(gap).then_some("gap")
}

/// What a vault promises now; `reachable`: the vaults that answer.
pub(crate) async fn promised(site: &Site, vault: usize, reachable: &[usize]) -> BTreeSet<SnapshotId> {
    let mut all: BTreeMap<usize, Held> = BTreeMap::new();
    for at in 0..site.places.len() {
        all.insert(at, held(site, at).await);
    }
    // Whoever accepted anything anywhere may have been heard: that promises less.
    let accepted: BTreeSet<SnapshotId> = all
        .values()
        .flat_map(|held| &held.facts)
        .filter(|fact| fact.marks.contains("accept"))
        .map(|fact| fact.at.1.clone())
        .collect();
    let own = &all[&vault];
    let everything = || own.facts.iter().map(|fact| fact.at.1.clone()).collect::<BTreeSet<_>>();
    if frozen(site, vault, own, &accepted).is_some() {
        return everything();
    }
    let mut promised = by_policy(&own.facts, site.places[vault].keep);
    promised.extend(newest(&own.facts.iter().filter(|fact| fact.marks.contains("checked")), 1).into_iter().cloned());
    let heard: Vec<&Fact> = reachable.iter().flat_map(|at| &all[at].facts).collect();
    promised.extend(heard.iter().filter(|fact| fact.marks.contains("pin")).map(|fact| fact.at.1.clone()));
    let alarm = own.facts.iter().filter(|fact| fact.suspect && !accepted.contains(&fact.at.1)).map(|fact| fact.data);
    if let Some(alarm) = alarm.max() {
        promised.extend(own.facts.iter().filter(|fact| fact.data <= alarm).map(|fact| fact.at.1.clone()));
    }
    // What another vault promises over everything that is known, and does not hold or cannot show.
    for other in (0..site.places.len()).filter(|other| *other != vault) {
        let mut union: BTreeMap<SnapshotId, Fact> = BTreeMap::new();
        for fact in &heard {
            let one = union.entry(fact.at.1.clone()).or_insert_with(|| (*fact).clone());
            one.stored = one.stored.min(fact.stored);
        }
        let union: Vec<Fact> = union.into_values().collect();
        let holds: BTreeSet<SnapshotId> = if reachable.contains(&other) {
            all[&other].facts.iter().map(|fact| fact.at.1.clone()).collect()
        } else {
            BTreeSet::new()
        };
        promised.extend(by_policy(&union, site.places[other].keep).difference(&holds).cloned());
    }
    &promised & &everything()
}

/// What a prune must never do, found by comparing a vault before and after it. `promised`: as it was before.
pub(crate) fn wrongly_gone(
    before: &Held,
    after: &Held,
    promised: &BTreeSet<SnapshotId>,
    store_now: DateTime<Utc>,
) -> Result<(), String> {
    let left: BTreeSet<&SnapshotId> = after.facts.iter().map(|fact| &fact.at.1).collect();
    for gone in before.facts.iter().filter(|fact| !left.contains(&fact.at.1)) {
        let (dir, id) = &gone.at;
        if promised.contains(id) {
            return Err(format!("{id} was promised and is gone"));
        }
        let period = TimeDelta::days(dir.id.period().days().into());
        let closes = dir.id.first_day().and_time(chrono::NaiveTime::MIN).and_utc() + period * 2 + TimeDelta::days(1);
        if store_now < closes {
            return Err(format!("{id} is gone from a generation that closes only at {closes}"));
        }
        if let Some(other) = before.facts.iter().find(|fact| fact.at.0 == *dir && promised.contains(&fact.at.1)) {
            return Err(format!("{id} is gone, and its generation holds {}, which is promised", other.at.1));
        }
    }
    Ok(())
}

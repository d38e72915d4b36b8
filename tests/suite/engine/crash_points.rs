//! Every call of every operation is a place to die: before it, and just after it without its answer. Then the process is
//! gone, or the whole machine with everything that no barrier made durable (any part of it, by seed), sometimes the host's
//! state too. What DESIGN calls a *must* is judged at once, from what lies in the vaults; then the next runs,
//! replications and prunes must succeed without anybody's help.
//!
//! Dying at a call that only reads leaves what dying at the change before it left: only calls that change are tried, unless
//! `BACKUP_CRASH_ALL` is set. Each is tried in one way, alternating; `BACKUP_CRASH_CUTS=n` tries each in all, with n power
//! cuts of their own. A new operation is a name in
//! [`Operation`], what is there before it, what it does, what else must hold, and a line at the end of this file.

#![expect(clippy::print_stdout, reason = "says at which point a failing test was, and how many deaths there were")]

mod granting;
mod mending;

use std::collections::{BTreeMap, BTreeSet};

use backup_core::prune::Action;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::vault::store::{PutMode, Store as _, StorePath};
use chrono::TimeDelta;

use super::super::recover::noise;
use super::promise::{Held, held, promised, wrongly_gone};
use super::site::{Keep, Site};
use super::watch::Fault;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    FirstRun,
    NextRun,
    /// The run before it died when its objects were there.
    ResumedRun,
    /// The period has turned.
    TurningRun,
    Replicate,
    /// Snapshots are there, marks are not.
    ReplicateMarks,
    Pin,
    Unpin,
    Accept,
    Announce,
    Delete,
    /// The prune before it died among the objects.
    ResumeDelete,
    /// A pin came after the announcement.
    Withdraw,
    Undo,
    /// Every kind of file is damaged in the first vault, and good in the second.
    Repair,
    Grant,
    Revoke,
    CopyGrants,
}

/// Both vaults.
const BOTH: [usize; 2] = [0, 1];

/// What is captured: other bytes for each number, with a common beginning.
fn content(number: u64) -> Vec<u8> {
    [noise(4000, 77), noise(2000, number + 1)].concat()
}

async fn day(site: &Site, number: u64) {
    site.pass(TimeDelta::hours(24));
    site.run(0, 0, &content(number), false).await.unwrap();
}

/// The number of the first call that the operation makes of a path with `part` in it.
async fn position(site: &Site, operation: Operation, call: &str, part: &str) -> usize {
    let site = site.copy().await;
    operation.act(&site).await.unwrap();
    let asked = site.places[operation.vault()].watch.asked();
    asked.iter().position(|(name, path)| *name == call && path.contains(part)).unwrap()
}

impl Operation {
    /// The vault whose calls are counted.
    fn vault(self) -> usize {
        usize::from(matches!(self, Self::Replicate | Self::ReplicateMarks | Self::CopyGrants))
    }

    async fn prepare(self) -> Site {
        // The second vault keeps more of what is announced in the first.
        let mut site = Site::new("1d", 1, [Keep { days: 2, min: 1 }, Keep { days: 9, min: 2 }]).await;
        let days = match self {
            Self::FirstRun => 0,
            Self::NextRun | Self::ResumedRun | Self::TurningRun | Self::Pin | Self::Unpin | Self::Accept => 1,
            Self::Grant | Self::Revoke | Self::CopyGrants => 2,
            Self::Replicate | Self::ReplicateMarks | Self::Repair => 3,
            Self::Announce | Self::Delete | Self::ResumeDelete | Self::Withdraw | Self::Undo => 4,
        };
        for number in 0..days {
            day(&site, number).await;
        }
        if self != Self::Replicate && self != Self::FirstRun {
            assert!(site.replicate(0, 1).await.errors.is_empty());
        }
        match self {
            Self::ResumedRun => {
                let at = position(&site, self, "put", ".inventory.zst").await;
                self.die(&mut site, at).await;
            }
            Self::TurningRun => site.pass(TimeDelta::hours(30)),
            Self::ReplicateMarks => {
                let listed = site.listed(0).await;
                site.mark(0, 0, &listed[0], MarkKind::Pin).await.unwrap();
                site.mark(0, 0, &listed[1], MarkKind::Accept).await.unwrap();
            }
            Self::Unpin => drop(site.mark(0, 0, &site.listed(0).await[0], MarkKind::Pin).await.unwrap()),
            Self::Delete | Self::ResumeDelete | Self::Withdraw | Self::Undo => {
                let done = site.prune(0, 0, &BOTH).await.unwrap();
                assert_eq!(done.iter().filter(|done| done.action == Action::Announce).count(), 1, "{done:?}");
                day(&site, 10).await;
                if self == Self::Withdraw {
                    site.mark(0, 0, &site.listed(0).await[0], MarkKind::Pin).await.unwrap();
                }
                if self == Self::ResumeDelete {
                    let at = position(&site, self, "delete", "/objects/").await;
                    self.die(&mut site, at + 1).await;
                }
            }
            Self::Repair => mending::hurt(&site).await,
            Self::Revoke | Self::CopyGrants => granting::grant(&site, 0).await.unwrap(),
            _ => {}
        }
        site
    }

    /// Does it, and dies on the way.
    async fn die(self, site: &mut Site, at: usize) {
        site.places[self.vault()].watch.fail(Some((at, Fault::DiesBefore)));
        self.act(site).await.unwrap_err();
        site.dies().await;
    }

    async fn act(self, site: &Site) -> Result<(), String> {
        let first = async || held(site, 0).await.facts.swap_remove(0).at;
        let text = |error: &dyn std::error::Error| backup_core::verify::chain_text(error);
        match self {
            Self::FirstRun | Self::NextRun | Self::ResumedRun | Self::TurningRun => {
                site.run(0, 0, &content(20), false).await.map(drop).map_err(|e| text(&e))
            }
            Self::Replicate | Self::ReplicateMarks => {
                site.replicate(0, 1).await.errors.first().map_or(Ok(()), |error| Err(text(error)))
            }
            Self::Pin => site.mark(0, 0, &first().await, MarkKind::Pin).await.map(drop).map_err(|e| text(&e)),
            Self::Accept => site.mark(0, 0, &first().await, MarkKind::Accept).await.map(drop).map_err(|e| text(&e)),
            Self::Unpin => site.unmark(0, &first().await, MarkKind::Pin).await.map(drop).map_err(|e| text(&e)),
            Self::Announce | Self::Delete | Self::ResumeDelete | Self::Withdraw => {
                site.prune(0, 0, &BOTH).await.map(drop).map_err(|e| text(&e))
            }
            Self::Undo => site.undo(0).await.map(drop).map_err(|e| text(&e)),
            Self::Repair => mending::mend(site).await,
            Self::Grant => granting::grant(site, 0).await,
            Self::Revoke => granting::revoke(site, 0).await,
            Self::CopyGrants => granting::copy(site).await,
        }
    }
}

/// What lies in both vaults.
async fn both(site: &Site) -> [Held; 2] {
    [held(site, 0).await, held(site, 1).await]
}

async fn promises(site: &Site) -> [BTreeSet<SnapshotId>; 2] {
    [promised(site, 0, &BOTH).await, promised(site, 1, &BOTH).await]
}

/// The objects of a vault.
async fn objects(site: &Site, vault: usize) -> BTreeMap<String, bytes::Bytes> {
    let mut content = site.content(vault).await;
    content.retain(|path, _| path.contains("/objects/"));
    content
}

/// What holds at any instant, seen from outside, in `vaults`.
async fn musts(site: &Site, before: &[BTreeMap<String, bytes::Bytes>; 2], vaults: &[usize]) {
    for vault in vaults.iter().copied() {
        // Rule 1, and no half-deleted generation that shows a snapshot: whatever is listed is there and right.
        for at in site.listed(vault).await {
            site.read(vault, &at).await.unwrap_or_else(|error| panic!("vault {vault} lists {at:?}: {error}"));
        }
        // Rule 2: what an object once was it is, and each has the bytes of its name.
        for (path, body) in objects(site, vault).await {
            assert!(before[vault].get(&path).is_none_or(|was| *was == body), "{path} was changed");
            let name = backup_core::id::Hash256::of(&body).to_string();
            assert!(path.ends_with(&name), "{path} holds other bytes");
        }
        // A signature comes before its document and goes after it: one without is told as a stranger's. (In what is being
        // deleted nobody asks any more.)
        let content = site.content(vault).await;
        let going = |path: &str| {
            let dir = path.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            content.contains_key(&format!("{dir}/deleting.json"))
        };
        for path in content.keys().filter(|path| path.ends_with(".json") && !going(path)) {
            assert!(content.contains_key(&format!("{path}.sig")), "vault {vault}: {path} has no signature");
        }
        let verified = site.verify(vault, false).await;
        assert!(verified.snapshots.iter().all(|verdict| verdict.damage.is_empty()), "vault {vault}: {verified:?}");
        assert_eq!(verified.chain, [""; 0], "vault {vault}");
    }
}

/// Prunes, and sees that nothing went that must not.
async fn prune(site: &Site, vault: usize) {
    let (before, promised) = (held(site, vault).await, promised(site, vault, &BOTH).await);
    site.prune(0, vault, &BOTH).await.unwrap();
    let after = held(site, vault).await;
    wrongly_gone(&before, &after, &promised, site.places[vault].clock.now()).unwrap();
}

/// Days without trouble: each run, replication and prune succeeds, and everything that is listed is whole.
async fn recovers(site: &Site) {
    // At once, in the same generation: what the state remembers and the vault lost must not be built upon.
    let again = site.run(0, 0, &content(20), false).await.unwrap().snapshot.doc;
    site.read(0, &(again.dir(), again.id.clone())).await.unwrap();
    for number in 30..32 {
        site.pass(TimeDelta::hours(25));
        let done = site.run(0, 0, &content(number), false).await.unwrap().snapshot.doc;
        site.read(0, &(done.dir(), done.id.clone())).await.unwrap();
        for (from, to) in [(0, 1), (1, 0)] {
            let done = site.replicate(from, to).await;
            assert!(done.errors.is_empty(), "{from} to {to}: {done:?}");
        }
        for vault in BOTH {
            prune(site, vault).await;
        }
    }
    for vault in BOTH {
        let verified = site.verify(vault, false).await;
        assert!(!verified.is_damaged(), "vault {vault}: {verified:?}");
        for at in site.listed(vault).await {
            site.read(vault, &at).await.unwrap();
        }
    }
}

/// What a prune began it ends: nothing is left of the generations that it announced, and one receipt for each
/// call that took snapshots away: the next one comes days later.
async fn ended(site: &Site, doomed: &BTreeSet<GenerationDir>) {
    let content = site.content(0).await;
    for dir in doomed {
        let left: Vec<&String> = content.keys().filter(|path| path.starts_with(dir.dir().as_str())).collect();
        assert_eq!(left, [""; 0], "left of {dir:?}");
        let receipts = content.keys().filter(|path| path.ends_with(&format!("-{}.json", dir.id)));
        assert!((1..=2).contains(&receipts.count()), "{dir:?}");
    }
}

async fn at_each_point(operation: Operation) {
    let prepared = operation.prepare().await;
    let watch = |site: &Site| site.places[operation.vault()].watch.clone();
    let mut smooth = prepared.copy().await;
    operation.act(&smooth).await.unwrap();
    let every = std::env::var_os("BACKUP_CRASH_ALL").is_some();
    let changes = |(name, _): &(&str, String)| every || matches!(*name, "put" | "delete" | "sync");
    let points: Vec<usize> =
        watch(&smooth).asked().iter().enumerate().filter(|(_, call)| changes(call)).map(|(at, _)| at).collect();
    assert!(points.len() >= 3, "{operation:?} changes next to nothing");
    // What was answered with success is durable.
    let there = smooth.content(operation.vault()).await;
    smooth.dies().await;
    smooth.power_cut(operation.vault(), || false).await;
    assert!(smooth.content(operation.vault()).await == there, "{operation:?} was answered, and a power cut changed it");
    let doomed: BTreeSet<GenerationDir> = match operation {
        Operation::Announce | Operation::Delete | Operation::ResumeDelete => {
            let plan = prepared.plan(0, &BOTH).await.unwrap();
            let goes = |action: &Action| matches!(action, Action::Announce | Action::Delete | Action::Resume);
            plan.steps.into_iter().filter(|step| goes(&step.action)).map(|step| step.dir).collect()
        }
        _ => BTreeSet::new(),
    };
    let before = [objects(&prepared, 0).await, objects(&prepared, 1).await];
    let (hurt, all) = (mending::Before::of(&prepared).await, prepared.content(operation.vault()).await);
    let (was, promised) = (both(&prepared).await, promises(&prepared).await);
    let cuts: Option<u64> = std::env::var("BACKUP_CRASH_CUTS").ok().map(|text| text.parse().unwrap());
    let each = |cuts| {
        [Fault::DiesBefore, Fault::DiesAfter].into_iter().flat_map(move |how| (0..=cuts).map(move |cut| (how, cut)))
    };
    let one = |nth: usize| (if nth.is_multiple_of(2) { Fault::DiesBefore } else { Fault::DiesAfter }, nth as u64 % 4);
    let mut died = 0;
    for (nth, at) in points.into_iter().enumerate() {
        let ways: Vec<(Fault, u64)> = cuts.map_or_else(|| vec![one(nth)], |cuts| each(cuts).collect());
        for (fault, cut) in ways {
            println!("{operation:?}, call {at}, {fault:?}, power cut {cut}");
            let mut site = prepared.copy().await;
            watch(&site).fail(Some((at, fault)));
            died += usize::from(operation.act(&site).await.is_err());
            site.dies().await;
            if cut > 0 {
                let mut dice = Dice(cut.wrapping_mul(1 + at as u64));
                // The first cut loses everything that it can.
                site.power_cut(operation.vault(), || cut > 1 && dice.below(2) == 0).await;
            }
            if nth % 5 == 1 {
                site.lose_state(0).await;
            }
            // In a vault that was damaged before it other things hold.
            musts(&site, &before, if operation == Operation::Repair { &[1] } else { &BOTH }).await;
            match operation {
                Operation::Repair => mending::musts(&site, &hurt).await,
                Operation::Grant | Operation::Revoke | Operation::CopyGrants => {
                    granting::musts(&site, operation.vault(), &all).await;
                }
                _ => {}
            }
            for (vault, now) in both(&site).await.iter().enumerate() {
                let clock = site.places[vault].clock.now();
                wrongly_gone(&was[vault], now, &promised[vault], clock).unwrap();
            }
            match operation {
                Operation::Repair => {
                    operation.act(&site).await.unwrap();
                    mending::ended(&site, &hurt).await;
                }
                Operation::Grant | Operation::Revoke | Operation::CopyGrants => {
                    operation.act(&site).await.unwrap();
                    granting::ended(&site, operation.vault(), operation != Operation::Revoke).await;
                }
                _ => {}
            }
            // What a repair leaves does not differ: it is what the other vault has.
            if operation != Operation::Repair || nth % 4 == 0 {
                recovers(&site).await;
            }
            ended(&site, &doomed).await;
        }
    }
    assert!(died > 2, "{died} deaths");
    println!("{operation:?}: {died} deaths");
}

/// The power cut that hurts most, of two deletions without a barrier between them: the first is taken back, the second stays.
#[tokio::test]
async fn an_announcement_that_is_taken_back_never_comes_back_without_its_signature() {
    for operation in [Operation::Undo, Operation::Withdraw] {
        let prepared = operation.prepare().await;
        let at = position(&prepared, operation, "delete", "expired.json.sig").await;
        let mut site = prepared.copy().await;
        site.places[0].watch.fail(Some((at, Fault::DiesAfter)));
        operation.act(&site).await.unwrap_err();
        site.dies().await;
        let mut first = true;
        site.power_cut(0, || !std::mem::take(&mut first)).await;
        let content = site.content(0).await;
        for path in content.keys().filter(|path| path.ends_with("expired.json")) {
            // Fails without the barrier in `prune::delete::remove_document`.
            assert!(content.contains_key(&format!("{path}.sig")), "{operation:?}: {path} has no signature");
        }
        recovers(&site).await;
    }
}

/// A repair that puts objects only has no document after them whose barrier would do.
#[tokio::test]
async fn objects_that_a_repair_put_survive_a_power_cut() {
    let mut site = Operation::Accept.prepare().await;
    for place in &site.places {
        place.vault.put_recover("how to restore", &site.sides[0].key).await.unwrap();
    }
    let whole = objects(&site, 0).await;
    let memory = &site.places[0].watch.memory;
    for (path, number) in whole.keys().zip([0, 1]) {
        let path = StorePath::new(path).unwrap();
        if number == 0 {
            memory.delete(&path).await.unwrap();
        } else {
            memory.put(&path, bytes::Bytes::from_static(b"bad"), PutMode::Replace).await.unwrap();
        }
    }
    assert_ne!(objects(&site, 0).await, whole);
    mending::mend(&site).await.unwrap();
    site.dies().await;
    site.power_cut(0, || false).await;
    // Fails without the barrier in `Vault::replace_object`.
    let mut now = objects(&site, 0).await;
    now.retain(|path, _| !path.starts_with("_damaged"));
    assert_eq!(now, whole, "told as repaired, and a power cut took it");
}

/// Numbers that look random, the same ones for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

macro_rules! operations {
    ($($name:ident: $operation:ident,)*) => {
        $(#[tokio::test]
        async fn $name() {
            at_each_point(Operation::$operation).await;
        })*
    };
}

operations! {
    first_run: FirstRun,
    next_run: NextRun,
    resumed_run: ResumedRun,
    turning_run: TurningRun,
    replicate: Replicate,
    replicate_marks: ReplicateMarks,
    pin: Pin,
    unpin: Unpin,
    accept: Accept,
    announce: Announce,
    delete: Delete,
    resume_delete: ResumeDelete,
    withdraw: Withdraw,
    undo: Undo,
    mend: Repair,
    grant: Grant,
    revoke: Revoke,
    copy_grants: CopyGrants,
}

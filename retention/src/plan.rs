//! From history to decisions. A plan is shown before anything acts on it; a dry run is a plan that nobody executes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::history::{Clocks, Generation, History, Stamp};
use crate::policy::Policy;
use crate::span::Span;

mod freeze;
mod reason;
mod rules;

pub use freeze::Freeze;
pub use reason::{GenerationReason, Reason};
use rules::Ledger;

/// How far two clocks may be apart.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::hours(1);

/// What stays and what goes, of one source in one vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Why nothing expires at all; `None` in good times.
    pub frozen: Option<Freeze>,
    /// Further causes of the same, so that an operator sees all at once.
    pub frozen_also: Vec<Freeze>,
    /// Every snapshot, newest first; behind the captures the imported ones.
    pub snapshots: Vec<SnapshotDecision>,
    /// Every generation, by id.
    pub generations: Vec<GenerationDecision>,
}

/// The decision on one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotDecision {
    /// The snapshot.
    pub id: String,
    /// Its generation.
    pub generation: String,
    /// Kept, or expired. An expired one still exists until its generation goes.
    pub keep: bool,
    /// All reasons, never empty.
    pub reasons: Vec<Reason>,
}

/// The decision on one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GenerationDecision {
    /// The generation.
    pub id: String,
    /// May be deleted as a whole.
    pub delete: bool,
    /// Why or why not.
    pub reason: GenerationReason,
}

impl Plan {
    /// The generations that may be deleted, by id.
    pub fn deletable(&self) -> impl Iterator<Item = &str> {
        self.generations.iter().filter(|generation| generation.delete).map(|generation| generation.id.as_str())
    }

    /// The snapshots that are expired, newest first.
    pub fn expired(&self) -> impl Iterator<Item = &str> {
        self.snapshots.iter().filter(|snapshot| !snapshot.keep).map(|snapshot| snapshot.id.as_str())
    }

    /// The snapshots that are kept and not among `held`: what this plan's policy promises and its vault lacks.
    ///
    /// For [`History::promised_elsewhere`] of the other vaults: plan with this vault's policy over the snapshots of
    /// all vaults together (each id once), then ask with the ids that this vault holds whole. A frozen plan promises
    /// everything.
    pub fn kept_but_absent(&self, held: &BTreeSet<String>) -> BTreeSet<String> {
        let kept = self.snapshots.iter().filter(|snapshot| snapshot.keep).map(|snapshot| &snapshot.id);
        kept.filter(|id| !held.contains(*id)).cloned().collect()
    }
}

impl SnapshotDecision {
    /// `keep: …` or `expire: …` with all reasons, on one line.
    pub fn text(&self) -> String {
        let reasons: Vec<_> = self.reasons.iter().map(ToString::to_string).collect();
        format!("{}: {}", if self.keep { "keep" } else { "expire" }, reasons.join("; "))
    }
}

impl GenerationDecision {
    /// `keep: …` or `delete: …` with the reason, on one line.
    pub fn text(&self) -> String {
        format!("{}: {}", if self.delete { "delete" } else { "keep" }, self.reason)
    }
}

/// Decides, for one source in one vault. Calendar periods are those of `tz`.
///
/// Nothing is expired while the plan is frozen, and nothing that any rule of `policy` names; no generation may be
/// deleted that is not closed, holds a kept snapshot, or shows more snapshots in the listing than were read.
///
/// An imported snapshot takes no part in any of it: it stays, and neither its age nor its place says anything about captures.
pub fn plan(policy: &Policy, history: &History, clocks: Clocks, tz: Tz) -> Plan {
    let (imports, captures): (Vec<Stamp>, Vec<Stamp>) = history.stamps.iter().cloned().partition(|s| s.imported);
    let history = &History { stamps: captures, ..history.clone() };
    let mut freezes = freeze::find(policy, history, clocks).into_iter();
    let frozen = freezes.next();
    let mut ledger = Ledger::new(&history.stamps, clocks.store);
    let reference = ledger.reference();
    ledger.keep_standing(policy, &history.promised_elsewhere);
    if let Some(reference) = reference {
        ledger.keep_window(policy.within, reference);
    }
    for (tier, periods) in policy.tiers() {
        ledger.keep_tier(tier, periods, tz);
    }
    let decide = |(stamp, mut reasons): (&Stamp, Vec<Reason>)| {
        let mut keep = true;
        if reasons.is_empty() {
            // Without a reference nothing has an age; the plan is frozen then.
            let age = reference.map_or(Span::ZERO, |reference| Span::of_delta(reference - stamp.late()));
            keep = frozen.is_some();
            reasons.push(if keep { Reason::Frozen } else { Reason::Expired { age, within: policy.within } });
        }
        SnapshotDecision { id: stamp.id.clone(), generation: stamp.generation.clone(), keep, reasons }
    };
    let mut snapshots: Vec<_> = ledger.into_entries().map(decide).collect();
    let mut imports = imports;
    imports.sort_by_key(|stamp| Reverse((stamp.data, stamp.id.clone())));
    snapshots.extend(imports.into_iter().map(|stamp| SnapshotDecision {
        id: stamp.id,
        generation: stamp.generation,
        keep: true,
        reasons: vec![Reason::Imported],
    }));
    let generations = decide_generations(&history.generations, &snapshots, frozen.is_some(), clocks.store);
    Plan { frozen, frozen_also: freezes.collect(), snapshots, generations }
}

fn decide_generations(
    generations: &[Generation],
    snapshots: &[SnapshotDecision],
    frozen: bool,
    now: DateTime<Utc>,
) -> Vec<GenerationDecision> {
    let mut counted: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for snapshot in snapshots {
        let (read, kept) = counted.entry(&snapshot.generation).or_default();
        *read += 1;
        *kept += usize::from(snapshot.keep);
    }
    let decide = |generation: &Generation| {
        let (read, kept) = counted.get(generation.id.as_str()).copied().unwrap_or_default();
        let (delete, reason) = if read != generation.listed {
            (false, GenerationReason::Unread { listed: generation.listed, read })
        } else if kept > 0 {
            (false, GenerationReason::Holds { kept, snapshots: read })
        } else if !generation.closed(now) {
            (false, GenerationReason::Open { closes: generation.closes() })
        } else if frozen {
            (false, GenerationReason::Frozen)
        } else if read == 0 {
            (true, GenerationReason::Empty)
        } else {
            (true, GenerationReason::AllExpired { snapshots: read })
        };
        GenerationDecision { id: generation.id.clone(), delete, reason }
    };
    let known: BTreeSet<_> = generations.iter().map(|generation| generation.id.as_str()).collect();
    let unknown = counted.keys().filter(|id| !known.contains(*id)).map(|id| GenerationDecision {
        id: (*id).to_owned(),
        delete: false,
        reason: GenerationReason::Unknown,
    });
    let mut decisions: Vec<_> = generations.iter().map(decide).chain(unknown).collect();
    // By id; of two with the same one (the plan is frozen then) in an order that does not depend on the input's.
    decisions.sort_by_cached_key(|decision| (decision.id.clone(), decision.text()));
    decisions
}

/// Whether a snapshot stands for something: whole, and not stored in the future. Only such a one takes a place among
/// the newest, in a calendar period or as the instant that ages count from.
fn counts(stamp: &Stamp, now: DateTime<Utc>) -> bool {
    stamp.complete && stamp.stored - now <= CLOCK_TOLERANCE
}

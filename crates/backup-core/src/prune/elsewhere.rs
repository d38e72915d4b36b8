//! What other vaults' policies promise: the one reckoning that a prune plans by, a replicator copies by and an audit judges by.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use retention::{Clocks, History, Policy, Reason};

/// The snapshots that a policy keeps in a vault that holds all of `history`, with what keeps each; without a policy all, for no
/// reason.
pub fn kept(
    policy: Option<&Policy>,
    history: &History,
    now: DateTime<Utc>,
    timezone: Tz,
) -> BTreeMap<String, Vec<Reason>> {
    let Some(policy) = policy else {
        return history.stamps.iter().map(|stamp| (stamp.id.clone(), Vec::new())).collect();
    };
    let plan = retention::plan(policy, history, Clocks { store: now, host: now }, timezone);
    let decisions = plan.snapshots.into_iter().filter(|decision| decision.keep);
    decisions.map(|decision| (decision.id, decision.reasons)).collect()
}

/// What the policies of other vaults promise of `union`, the snapshots of all vaults, and they do not hold whole: each with what it
/// holds, `None` where it did not answer.
pub fn promised<'a>(
    others: impl Iterator<Item = (Option<Policy>, Option<&'a History>)>,
    union: &History,
    now: DateTime<Utc>,
    timezone: Tz,
) -> BTreeSet<String> {
    let mut promised = BTreeSet::new();
    for (policy, holds) in others {
        let stamps = holds.into_iter().flat_map(|history| &history.stamps);
        let held: BTreeSet<&String> = stamps.filter(|stamp| stamp.complete).map(|stamp| &stamp.id).collect();
        promised.extend(kept(policy.as_ref(), union, now, timezone).into_keys().filter(|id| !held.contains(id)));
    }
    promised
}

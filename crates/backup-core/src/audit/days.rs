//! Promised days: which of them a vault must hold, and which it does not.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::vault::layout::SnapshotId;
use crate::words::plain;

use super::judge::{Captures, captures};
use super::{Day, Evidence, Expected, Finding, Kind, Promise, Slot, few};

/// Where the promise of a vault begins, and whether something must have been there before the oldest snapshot of all.
pub(super) struct Beginning {
    /// The first instant that is promised.
    pub(super) from: DateTime<Utc>,
    /// The oldest snapshot of any vault, if it follows on another one: it is not the first that ever was.
    pub(super) after: Option<SnapshotId>,
}

/// The window counts back from the newest snapshot of any vault, and not further than the first one that ever was: it is
/// the one that follows on none. `None` where no day is promised.
pub(super) fn beginning(promise: &Promise, all: &Captures<'_>) -> Option<Beginning> {
    let (oldest, newest) = (all.values().next()?, all.values().next_back()?);
    let first = oldest.doc.previous.is_none().then_some(oldest.doc.instant);
    let after = if first.is_none() { Some(oldest.doc.id.clone()) } else { None };
    if promise.policy.is_none() {
        return Some(Beginning { from: oldest.doc.instant, after });
    }
    let from = newest.doc.instant.checked_sub_signed(promise.window?.as_delta())?;
    Some(Beginning { from: first.map_or(from, |first| from.max(first)), after: None })
}

/// The promised days with what the vault lists of each.
pub(super) fn days(expected: &Expected<'_>, from: DateTime<Utc>, here: &Captures<'_>) -> Vec<Day> {
    let slots = (expected.slots)(from).into_iter().filter(|slot| slot.from >= from);
    slots
        .map(|slot| Day {
            slot,
            found: u32::try_from(within(&slot, here)).unwrap_or(u32::MAX),
            is_over: slot.to <= expected.now,
        })
        .collect()
}

fn within(slot: &Slot, captures: &Captures<'_>) -> usize {
    captures.values().filter(|signed| slot.from <= signed.doc.instant && signed.doc.instant < slot.to).count()
}

/// Snapshots that a receipt says were removed and that are not there, each with the receipt's words.
pub(super) fn removed(evidence: &Evidence) -> BTreeMap<SnapshotId, String> {
    let here = captures(evidence);
    let mut gone = BTreeMap::new();
    for receipt in &evidence.seen.receipts {
        let purged = receipt.grounds.purge.as_ref().map_or(String::new(), |why| format!("purged ({}): ", plain(why)));
        for (id, reason) in receipt.snapshots.iter().filter(|(id, _)| !id.is_imported() && !here.contains_key(id)) {
            gone.insert(id.clone(), format!("removed on {}: {purged}{reason}", receipt.at.format("%F")));
        }
    }
    gone
}

/// Days that are over and of which no vault has anything, by ranges. What a receipt accounts for is said elsewhere.
pub(super) fn missing(days: &[Day], all: &Captures<'_>, removed: &BTreeMap<SnapshotId, String>) -> Option<Finding> {
    let is_missing = |day: &Day| {
        let slot = &day.slot;
        let gone = removed.keys().any(|id| slot.from <= id.instant() && id.instant() < slot.to);
        day.is_over && day.found == 0 && within(slot, all) == 0 && !gone
    };
    let mut ranges: Vec<(Day, Day, usize)> = Vec::new();
    let mut open = false;
    for day in days {
        let missing = is_missing(day);
        match ranges.last_mut() {
            Some(range) if missing && open => (range.1, range.2) = (*day, range.2 + 1),
            _ if missing => ranges.push((*day, *day, 1)),
            _ => {}
        }
        open = missing;
    }
    let about: Vec<String> = days.iter().filter(|day| is_missing(day)).map(|day| day.slot.day.to_string()).collect();
    let range = |(first, last, days): &(Day, Day, usize)| match days {
        1 => first.slot.day.to_string(),
        _ => format!("{} to {} ({days} days)", first.slot.day, last.slot.day),
    };
    let text = format!("no snapshot of {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "));
    (!about.is_empty()).then_some(Finding { kind: Kind::Missing, text, about })
}

/// Days that hold something, and less than their schedule promises.
pub(super) fn short(days: &[Day]) -> Option<Finding> {
    let short = days.iter().filter(|day| day.is_over && day.found > 0 && day.found < day.slot.captures);
    let about: Vec<String> =
        short.map(|day| format!("{}: {} of {}", day.slot.day, day.found, day.slot.captures)).collect();
    let text = format!("fewer snapshots than the schedule has captures: {}", few(&about));
    (!about.is_empty()).then_some(Finding { kind: Kind::Short, text, about })
}

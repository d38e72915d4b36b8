//! What is known of one source in one vault: the material that a plan is made from.
//!
//! Everything here is a fact that the caller established (signatures checked, listings complete); nothing is looked
//! up. Only signed snapshots become stamps: what is not signed proves nothing, and shows as a difference between
//! [`Generation::listed`] and the stamps, which keeps the generation.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use crate::span::Span;

/// One signed snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "seven independent facts, each with its own rule")]
pub struct Stamp {
    /// Identity of the snapshot, unique over all vaults.
    pub id: String,
    /// Identity of its generation.
    pub generation: String,
    /// The instant whose data it holds, as the host signed it.
    pub data: DateTime<Utc>,
    /// When the vault got it, by the vault's clock. Where none is to be had (a plan for a copy that does not exist
    /// yet), the same as `data`.
    pub stored: DateTime<Utc>,
    /// An operator pinned it.
    pub pinned: bool,
    /// It was committed with a reason to suspect it (an anomaly against the snapshots before it).
    pub suspect: bool,
    /// An operator looked at it and accepted it: lifts `suspect`, the gap before it and a wrong clock in it.
    pub accepted: bool,
    /// It was decrypted and hashed, whole and without a difference.
    pub checked: bool,
    /// A drill restored it and compared it, without a difference.
    pub restored: bool,
    /// The vault holds everything that its inventory names, by name and size.
    pub complete: bool,
    /// An operator imported it: it is no capture, and proves nothing about when captures were made.
    pub imported: bool,
}

impl Stamp {
    /// A whole snapshot of the instant `data`, stored at that instant, without a mark and with nothing against it.
    pub fn whole(id: String, generation: String, data: DateTime<Utc>) -> Self {
        Self {
            id,
            generation,
            data,
            stored: data,
            pinned: false,
            suspect: false,
            accepted: false,
            checked: false,
            restored: false,
            complete: true,
            imported: false,
        }
    }

    /// Its place in time: the earlier of the two instants, since neither clock may push it into the future.
    pub(crate) fn early(&self) -> DateTime<Utc> {
        self.data.min(self.stored)
    }

    /// The instant that its age is counted from: the later of the two, since neither clock may make it old.
    pub(crate) fn late(&self) -> DateTime<Utc> {
        self.data.max(self.stored)
    }

    /// An anomaly that nobody has accepted.
    pub(crate) fn alarms(&self) -> bool {
        self.suspect && !self.accepted
    }
}

/// One generation of the source in the vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Identity, as in [`Stamp::generation`].
    pub id: String,
    /// When its first day begins.
    pub start: DateTime<Utc>,
    /// How long it takes new snapshots.
    pub period: Span,
    /// How many `snapshot.json` the listing shows in it, readable or not. More than there are stamps: it is kept.
    pub listed: usize,
}

impl Generation {
    /// Until when it accepts commits of runs that began before its end: one period more. `None` beyond all calendars.
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        self.start.checked_add_signed(self.period.as_delta())?.checked_add_signed(self.period.as_delta())
    }

    /// From when on it is closed: a day past the deadline.
    pub fn closes(&self) -> Option<DateTime<Utc>> {
        self.deadline()?.checked_add_signed(TimeDelta::days(1))
    }

    /// Whether it is closed at `now`, an instant of the vault's clock.
    pub fn closed(&self, now: DateTime<Utc>) -> bool {
        self.closes().is_some_and(|closes| closes <= now)
    }
}

/// Everything that is known of one source in one vault, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// All signed snapshots in the vault.
    pub stamps: Vec<Stamp>,
    /// All generations in the vault.
    pub generations: Vec<Generation>,
    /// Data instants of snapshots that are absent on purpose: removed by prune, as its signed receipts say, or never
    /// copied here because the policy would have expired them. They fill what would look like gaps.
    pub removed: Vec<DateTime<Utc>>,
    /// Snapshots that another configured vault's policy still promises and that vault does not hold (see
    /// [`crate::Plan::kept_but_absent`]). A vault that can not be reached holds nothing.
    pub promised_elsewhere: BTreeSet<String>,
    /// Where the chain of snapshots does not close (tail or middle missing, unknown predecessor), in words.
    pub open_chain: Option<String>,
}

/// The two clocks that must agree before anything expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// The vault's clock: "now" for every rule.
    pub store: DateTime<Utc>,
    /// The clock of the machine that plans.
    pub host: DateTime<Utc>,
}

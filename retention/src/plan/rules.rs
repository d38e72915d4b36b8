//! The rules that keep: each looks at all snapshots, newest first, and names those that it keeps. A snapshot stays if
//! any rule names it, so no rule can take back what another gives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Datelike, Utc};
use chrono_tz::Tz;

use super::counts;
use super::reason::Reason;
use crate::history::Stamp;
use crate::policy::{Policy, Tier};
use crate::span::Span;

/// The snapshots of one source, newest first, and the reasons found so far for each.
pub(super) struct Ledger<'a> {
    stamps: Vec<&'a Stamp>,
    reasons: Vec<Vec<Reason>>,
    now: DateTime<Utc>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(stamps: &'a [Stamp], now: DateTime<Utc>) -> Self {
        let mut stamps: Vec<_> = stamps.iter().collect();
        stamps.sort_by_key(|stamp| Reverse((stamp.early(), stamp.stored, &stamp.id)));
        Self { reasons: vec![Vec::new(); stamps.len()], stamps, now }
    }

    /// Each snapshot, newest first, with the reasons to keep it.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (&'a Stamp, Vec<Reason>)> {
        self.stamps.into_iter().zip(self.reasons)
    }

    /// The instant from which ages count back: that of the newest whole snapshot.
    pub(super) fn reference(&self) -> Option<DateTime<Utc>> {
        self.stamps.iter().find(|stamp| counts(stamp, self.now)).map(|stamp| stamp.early())
    }

    /// The newest ones whatever their age, the proved ones, and what people or other vaults ask for.
    pub(super) fn keep_standing(&mut self, policy: &Policy, promised_elsewhere: &BTreeSet<String>) {
        self.keep_newest(1, |_| true, &Reason::Newest);
        self.keep_newest(policy.min, |_| true, &Reason::Min { min: policy.min });
        self.keep_newest(1, |stamp| stamp.checked || stamp.restored, &Reason::Checked);
        self.keep_newest(1, |stamp| stamp.restored, &Reason::Restored);
        self.keep_if(|stamp| stamp.pinned.then_some(Reason::Pinned));
        self.keep_anomalies();
        self.keep_if(|stamp| promised_elsewhere.contains(&stamp.id).then_some(Reason::PromisedElsewhere));
        let now = self.now;
        self.keep_if(|stamp| (stamp.late() - now > super::CLOCK_TOLERANCE).then_some(Reason::Future));
    }

    /// What is not older than the window, counted back from `reference`.
    pub(super) fn keep_window(&mut self, within: Span, reference: DateTime<Utc>) {
        self.keep_if(|stamp| {
            let age = reference - stamp.late();
            (age <= within.as_delta()).then(|| Reason::Within { age: Span::of_delta(age), within })
        });
    }

    /// The newest whole snapshot of each of the last `periods` calendar periods that hold one. A period that holds
    /// only damaged ones takes no place among these; its newest is kept besides, it may be repaired.
    pub(super) fn keep_tier(&mut self, tier: Tier, periods: u32, tz: Tz) {
        let mut newest: BTreeMap<Reverse<(i32, u32)>, (bool, usize)> = BTreeMap::new();
        for (index, stamp) in self.stamps.iter().enumerate() {
            let whole = counts(stamp, self.now);
            let best = newest.entry(Reverse(period(tier, stamp.early(), tz))).or_insert((whole, index));
            if whole && !best.0 {
                *best = (whole, index);
            }
        }
        let mut left = periods;
        for (Reverse(key), (whole, index)) in newest {
            if left == 0 {
                break;
            }
            left -= u32::from(whole);
            self.reasons[index].push(Reason::Tier { tier, period: label(tier, key) });
        }
    }

    /// The newest `count` whole snapshots among those that are `wanted`, and damaged ones in between.
    fn keep_newest(&mut self, count: u32, wanted: impl Fn(&Stamp) -> bool, reason: &Reason) {
        let mut left = count;
        for (stamp, reasons) in self.stamps.iter().zip(&mut self.reasons) {
            if left == 0 {
                break;
            }
            if wanted(stamp) {
                reasons.push(reason.clone());
                left -= u32::from(counts(stamp, self.now));
            }
        }
    }

    /// An anomaly says that the data may have been lost before it was captured: what is not provably newer by both
    /// clocks may be the last good copy.
    fn keep_anomalies(&mut self) {
        let suspects = || self.stamps.iter().filter(|stamp| stamp.alarms());
        let (Some(last), Some(data), Some(stored)) =
            (suspects().next(), suspects().map(|stamp| stamp.data).max(), suspects().map(|stamp| stamp.stored).max())
        else {
            return;
        };
        let suspect = last.id.clone();
        self.keep_if(|stamp| {
            (stamp.data <= data || stamp.stored <= stored).then(|| Reason::Anomaly { suspect: suspect.clone() })
        });
    }

    fn keep_if(&mut self, rule: impl Fn(&Stamp) -> Option<Reason>) {
        for (stamp, reasons) in self.stamps.iter().zip(&mut self.reasons) {
            reasons.extend(rule(stamp));
        }
    }
}

/// The calendar period of `tier` that holds `instant` in `tz`: year and number in it.
fn period(tier: Tier, instant: DateTime<Utc>, tz: Tz) -> (i32, u32) {
    let local = instant.with_timezone(&tz);
    match tier {
        Tier::Weekly => (local.iso_week().year(), local.iso_week().week()),
        Tier::Monthly => (local.year(), local.month()),
        Tier::Yearly => (local.year(), 0),
    }
}

fn label(tier: Tier, (year, number): (i32, u32)) -> String {
    match tier {
        Tier::Weekly => format!("{year}-W{number:02}"),
        Tier::Monthly => format!("{year}-{number:02}"),
        Tier::Yearly => year.to_string(),
    }
}

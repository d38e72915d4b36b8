//! What stops all expiry: signs that time, or the history itself, is not what it looks like.
//!
//! A freeze deletes nothing and is loud; going on would be quiet and final. It ends when its cause does, or when an
//! operator accepts the snapshot that shows it: a gap after an outage stays in the history, and it is for a person
//! to say that what came back after it is what it should be.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::reason::utc;
use super::{CLOCK_TOLERANCE, counts};
use crate::history::{Clocks, History, Stamp};
use crate::policy::Policy;
use crate::span::Span;

/// With a window longer than this, a gap of this length freezes already: the window of a policy that keeps years
/// would not notice a clock that is a year ahead.
const LONGEST_GAP: Span = Span::days(100);

/// Why nothing expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Freeze {
    /// No whole snapshot is there to count ages back from.
    NoSnapshot,
    /// Two snapshots or two generations have one id: the input is not what it should be.
    Duplicate {
        /// The id.
        id: String,
    },
    /// The machine's clock and the vault's are more than an hour apart.
    Clocks {
        /// The machine's.
        host: DateTime<Utc>,
        /// The vault's.
        store: DateTime<Utc>,
    },
    /// A snapshot is dated more than an hour ahead of the vault's clock, now or when it was stored.
    FutureSnapshot {
        /// The snapshot.
        id: String,
        /// Its data instant.
        data: DateTime<Utc>,
        /// Its store instant.
        stored: DateTime<Utc>,
    },
    /// The chain of snapshots does not close.
    OpenChain {
        /// Where, in words.
        place: String,
    },
    /// The newest snapshot is older than the window: an outage, or a clock that is ahead.
    Stale {
        /// The newest snapshot.
        newest: String,
        /// Its age by the vault's clock.
        age: Span,
        /// How long a gap may be.
        limit: Span,
    },
    /// Between two consecutive snapshots lies more than the window, and nobody accepted the later one.
    Gap {
        /// The snapshot after the gap: accepting it lifts the freeze.
        after: String,
        /// When the one before it was taken.
        from: DateTime<Utc>,
        /// When it was taken.
        until: DateTime<Utc>,
        /// How long a gap may be.
        limit: Span,
    },
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot => f.write_str("no whole snapshot to count ages from"),
            Self::Duplicate { id } => write!(f, "`{id}` is listed twice"),
            Self::Clocks { host, store } => {
                write!(f, "clocks differ by more than an hour: {} here, {} at the vault", utc(host), utc(store))
            }
            Self::FutureSnapshot { id, data, stored } => {
                write!(f, "snapshot `{id}` is from the future: data of {}, stored {}", utc(data), utc(stored))
            }
            Self::OpenChain { place } => write!(f, "the chain of snapshots does not close: {place}"),
            Self::Stale { newest, age, limit } => {
                write!(f, "the newest snapshot `{newest}` is {} old, more than {limit}", age.rough())
            }
            Self::Gap { after, from, until, limit } => {
                write!(f, "no snapshot for more than {limit} before `{after}`: {} to {}", utc(from), utc(until))
            }
        }
    }
}

/// Every freeze of this history, the most fundamental first, gaps from the oldest on.
pub(super) fn find(policy: &Policy, history: &History, clocks: Clocks) -> Vec<Freeze> {
    let mut found = Vec::new();
    found.extend(duplicates(history));
    if (clocks.host - clocks.store).abs() > CLOCK_TOLERANCE {
        found.push(Freeze::Clocks { host: clocks.host, store: clocks.store });
    }
    found.extend(from_the_future(history, clocks.store));
    found.extend(history.open_chain.iter().map(|place| Freeze::OpenChain { place: place.clone() }));
    found.extend(gaps(policy.within.min(LONGEST_GAP), history, clocks.store));
    found
}

fn duplicates(history: &History) -> impl Iterator<Item = Freeze> {
    let stamps = history.stamps.iter().map(|stamp| (0, &stamp.id));
    let generations = history.generations.iter().map(|generation| (1, &generation.id));
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<_> = stamps.chain(generations).filter(|named| !seen.insert(*named)).collect();
    twice.into_iter().map(|(_, id)| Freeze::Duplicate { id: id.clone() })
}

fn from_the_future(history: &History, now: DateTime<Utc>) -> impl Iterator<Item = Freeze> {
    let ahead = |stamp: &&Stamp| stamp.data - stamp.stored > CLOCK_TOLERANCE || stamp.late() - now > CLOCK_TOLERANCE;
    let mut found: Vec<_> = history.stamps.iter().filter(|stamp| !stamp.accepted).filter(ahead).collect();
    found.sort_by_key(|stamp| &stamp.id);
    found.into_iter().map(|stamp| Freeze::FutureSnapshot {
        id: stamp.id.clone(),
        data: stamp.data,
        stored: stamp.stored,
    })
}

fn gaps(limit: Span, history: &History, now: DateTime<Utc>) -> Vec<Freeze> {
    let mut held: Vec<_> = history.stamps.iter().filter(|stamp| counts(stamp, now)).collect();
    held.sort_by_key(|stamp| (stamp.early(), stamp.stored, &stamp.id));
    let Some(newest) = held.last() else { return vec![Freeze::NoSnapshot] };
    let mut found = Vec::new();
    let age = now - newest.early();
    if age > limit.as_delta() {
        found.push(Freeze::Stale { newest: newest.id.clone(), age: Span::of_delta(age), limit });
    }
    let known = history.removed.iter().copied().chain(held.iter().map(|stamp| stamp.early()));
    let known: BTreeSet<_> = known.collect();
    // Damaged snapshots fill no gap, but the first whole one after nothing but damaged ones comes after a gap too.
    let any: BTreeSet<_> = history.stamps.iter().map(Stamp::early).collect();
    for stamp in held {
        let until = stamp.early();
        let Some(from) = known.range(..until).next_back().or_else(|| any.range(..until).next_back()).copied() else {
            continue;
        };
        if until - from > limit.as_delta() && !stamp.accepted {
            found.push(Freeze::Gap { after: stamp.id.clone(), from, until, limit });
        }
    }
    found
}

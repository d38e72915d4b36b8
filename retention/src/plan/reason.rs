//! Why a snapshot or a generation stays or goes, for people (`Display`) and for programs (`Serialize`).

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use crate::policy::Tier;
use crate::span::Span;

/// One reason for the decision on a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Reason {
    /// No whole snapshot is newer.
    Newest,
    /// Among the newest `min` whole snapshots, or damaged and as new as one of these.
    Min {
        /// The policy's number.
        min: u32,
    },
    /// The newest that was decrypted and hashed, or restored by a drill.
    Checked,
    /// The newest that a drill restored.
    Restored,
    /// Pinned by an operator.
    Pinned,
    /// Imported by an operator: no schedule makes or replaces such a snapshot, so none removes it.
    Imported,
    /// It is, or is not newer than, an anomaly that nobody accepted.
    Anomaly {
        /// The snapshot with the anomaly.
        suspect: String,
    },
    /// Another vault's policy promises it, and that vault does not hold it.
    PromisedElsewhere,
    /// It is dated ahead of the vault's clock.
    Future,
    /// Not older than the window.
    Within {
        /// Its age, counted back from the newest snapshot.
        age: Span,
        /// The policy's window.
        within: Span,
    },
    /// The newest of a calendar period.
    Tier {
        /// Which tier.
        tier: Tier,
        /// The period: `2026-W20`, `2026-05` or `2026`.
        period: String,
    },
    /// No rule keeps it, but expiry is frozen.
    Frozen,
    /// No rule keeps it: it is expired.
    Expired {
        /// Its age, counted back from the newest snapshot.
        age: Span,
        /// The policy's window.
        within: Span,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Min { min } => write!(f, "among the newest {min}"),
            Self::Checked => f.write_str("newest checked or restored"),
            Self::Restored => f.write_str("newest restored"),
            Self::Pinned => f.write_str("pinned"),
            Self::Imported => f.write_str("imported"),
            Self::Anomaly { suspect } => write!(f, "anomaly `{suspect}` not accepted"),
            Self::PromisedElsewhere => f.write_str("promised by another vault that lacks it or does not answer"),
            Self::Future => f.write_str("dated ahead of the vault's clock"),
            // The newest one, from which ages count back, has none.
            Self::Within { age, within } if age.as_delta() <= TimeDelta::zero() => write!(f, "within {within}"),
            Self::Within { age, within } => write!(f, "{} old, within {within}", age.rough()),
            Self::Tier { tier, period } => write!(f, "{tier} {period}"),
            Self::Frozen => f.write_str("expiry is frozen"),
            Self::Expired { age, within } if age.rough() == within.rough() => write!(f, "over {} old", age.rough()),
            Self::Expired { age, within } => write!(f, "{} old, past {within}", age.rough()),
        }
    }
}

/// Why a generation stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum GenerationReason {
    /// Snapshots name it, but it is not among the generations.
    Unknown,
    /// The listing shows snapshots that could not be read, or the other way round.
    Unread {
        /// `snapshot.json` in the listing.
        listed: usize,
        /// Signed snapshots among the stamps.
        read: usize,
    },
    /// It holds snapshots that stay.
    Holds {
        /// How many stay.
        kept: usize,
        /// Of how many.
        snapshots: usize,
    },
    /// It may still get snapshots.
    Open {
        /// From when on it is closed; `None` if never.
        closes: Option<DateTime<Utc>>,
    },
    /// Expiry is frozen.
    Frozen,
    /// It is closed and every snapshot in it is expired.
    AllExpired {
        /// How many these are.
        snapshots: usize,
    },
    /// It is closed and never got a snapshot.
    Empty,
}

impl fmt::Display for GenerationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not listed, but snapshots name it"),
            Self::Unread { listed, read } => write!(f, "{listed} snapshots listed, {read} read"),
            Self::Holds { kept, snapshots } => write!(f, "{kept} of {snapshots} snapshots stay"),
            Self::Open { closes: Some(closes) } => write!(f, "open until {}", utc(closes)),
            Self::Open { closes: None } => f.write_str("never closes"),
            Self::Frozen => f.write_str("expiry is frozen"),
            Self::AllExpired { snapshots } => write!(f, "closed, {snapshots} of {snapshots} snapshots expired"),
            Self::Empty => f.write_str("closed, without a snapshot"),
        }
    }
}

/// RFC 3339 in UTC to the second, the form of all files and of `--json`.
pub(super) fn utc(instant: &DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(SecondsFormat::Secs, true)
}

//! Judging ages: pure, every fact is an argument.

use chrono::{DateTime, TimeDelta, Utc};

use crate::exit::Exit;

/// Clocks may differ by so much before a snapshot counts as one from the future.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// So old the newest snapshot of a source without an objective may be, however often it is captured.
const AT_LEAST: TimeDelta = TimeDelta::days(2);

/// How a source or service stands against its objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As promised, or nothing was promised and there is a snapshot.
    Ok,
    /// Within the objective, and a run that was due has brought nothing.
    Late,
    /// Nothing was promised, and the newest is older than such a source's ever is: whatever starts the runs has died.
    Stale,
    /// Older than promised, and accepted for now.
    Waived,
    /// Older than promised, or there is none.
    Breach,
    /// There is no snapshot, and nothing was promised.
    Missing,
    /// No vault could be asked.
    Unknown,
}

impl Verdict {
    /// The word for people and programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late | Self::Stale => "late",
            Self::Waived => "waived",
            Self::Breach => "breach",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }

    /// How the verb ends because of it. An unknown one is partial by the vaults that did not answer.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Breach | Self::Stale | Self::Missing => Exit::Breach,
            Self::Ok | Self::Late | Self::Waived | Self::Unknown => Exit::Done,
        }
    }
}

/// Judges an age (none: there is no snapshot) against the objective. At exactly the objective it is kept. A waiver
/// accepts a breach, it does not hide that nothing is there. `stale`: [`is_stale`].
pub(super) fn verdict(
    age: Option<TimeDelta>,
    rpo: Option<TimeDelta>,
    waived: bool,
    overdue: bool,
    stale: bool,
) -> Verdict {
    match (age, rpo) {
        (None, None) => Verdict::Missing,
        (None, Some(_)) => Verdict::Breach,
        (Some(age), Some(rpo)) if age > rpo => {
            if waived {
                Verdict::Waived
            } else {
                Verdict::Breach
            }
        }
        (Some(_), None) if stale => Verdict::Stale,
        (Some(_), _) if overdue => Verdict::Late,
        (Some(_), _) => Verdict::Ok,
    }
}

/// How old the newest snapshot of a source without an objective may be: two days, or twice its longest usual pause, whichever is
/// longer. A single longer one among three or more is not usual: an outage must not make the next one quiet. `instants` are
/// those of its last snapshots that are believed, in any order.
pub(super) fn patience(instants: &[DateTime<Utc>]) -> TimeDelta {
    let mut sorted = instants.to_vec();
    sorted.sort();
    let mut pauses: Vec<TimeDelta> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    pauses.sort();
    let unusual = usize::from(pauses.len() >= 3);
    let longest = pauses.iter().rev().nth(unusual).copied().unwrap_or_default();
    (longest * 2).max(AT_LEAST)
}

/// Whether a source without an objective is late. One that a job with a schedule captures is, only where a run was due for a day:
/// the first week of a weekly one has no pauses yet. `overdue`: `None` where no job has a schedule, otherwise for how long a run
/// has been due, zero where none is.
pub(super) fn is_stale(age: TimeDelta, patience: TimeDelta, overdue: Option<TimeDelta>) -> bool {
    age > patience && overdue.is_none_or(|due| due > TimeDelta::days(1))
}

/// Whether an instant lies further ahead than clocks differ: its age says nothing then.
pub(super) fn is_ahead(instant: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    instant - now > SKEW
}

/// To what instant a service can be brought back: the oldest of its needs; none if one has no snapshot.
pub(super) fn oldest(needs: impl Iterator<Item = Option<DateTime<Utc>>>) -> Option<DateTime<Utc>> {
    let all: Option<Vec<_>> = needs.collect();
    all?.into_iter().min()
}

/// Of all snapshots, oldest first, whether a vault has each: how many are missing there. Those older than the oldest
/// that it has are not counted: it keeps for a shorter time than the others, or came later.
pub(super) fn missing(has: &[bool]) -> usize {
    let first = has.iter().position(|has| *has).unwrap_or(0);
    has[first..].iter().filter(|has| !**has).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_judged_against_the_objective() {
        let hours = |hours| Some(TimeDelta::hours(hours));
        for (age, rpo, waived, overdue, expected) in [
            (hours(1), hours(24), false, false, Verdict::Ok),
            (hours(24), hours(24), false, false, Verdict::Ok),
            (hours(25), hours(24), false, false, Verdict::Breach),
            (hours(25), hours(24), false, true, Verdict::Breach),
            (hours(25), hours(24), true, false, Verdict::Waived),
            (hours(20), hours(24), false, true, Verdict::Late),
            (hours(20), hours(24), true, true, Verdict::Late),
            (hours(900), None, false, false, Verdict::Ok),
            (hours(900), None, false, true, Verdict::Late),
            (None, hours(24), false, false, Verdict::Breach),
            (None, hours(24), true, false, Verdict::Breach),
            (None, None, false, false, Verdict::Missing),
        ] {
            assert_eq!(verdict(age, rpo, waived, overdue, false), expected, "{age:?} {rpo:?} {waived} {overdue}");
        }
        assert_eq!(verdict(hours(49), None, false, true, true), Verdict::Stale);
        assert_eq!(verdict(hours(20), hours(24), false, false, true), Verdict::Ok);
        for bad in [Verdict::Breach, Verdict::Missing, Verdict::Stale] {
            assert_eq!(bad.exit(), Exit::Breach, "{bad:?}");
        }
        for fine in [Verdict::Ok, Verdict::Late, Verdict::Waived, Verdict::Unknown] {
            assert_eq!(fine.exit(), Exit::Done, "{fine:?}");
        }
    }

    #[test]
    fn who_promised_nothing_is_late_after_twice_the_usual_pause() {
        let at = |hours: i64| DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
        let patience = |hours: &[i64]| patience(&hours.iter().map(|hour| at(*hour)).collect::<Vec<_>>()).num_hours();
        assert_eq!([patience(&[]), patience(&[5]), patience(&[0, 24, 48])], [48; 3]);
        assert_eq!(patience(&[0, 7 * 24]), 14 * 24, "weekly");
        // Working days, in any order: two week-ends are usual, and an outage of a year is not.
        assert_eq!(patience(&[240, 0, 24, 96, 120, 264, 168]), 2 * 72);
        assert_eq!(patience(&[0, 24, 48, 9000, 9024]), 48);
        let days = TimeDelta::days;
        assert!(!is_stale(days(2), days(2), None) && is_stale(days(3), days(2), None));
        assert!(!is_stale(days(3), days(2), Some(days(0))) && is_stale(days(3), days(2), Some(days(2))));
    }

    #[test]
    fn a_service_goes_back_to_its_stalest_need() {
        let at = |day: u32| Some(format!("2026-11-{day:02}T00:00:00Z").parse::<DateTime<Utc>>().unwrap());
        assert_eq!(oldest([at(3), at(1), at(2)].into_iter()), at(1));
        assert_eq!(oldest([at(3), None].into_iter()), None);
        let (now, ahead) = (at(1).unwrap(), at(2).unwrap());
        assert!(is_ahead(ahead, now) && !is_ahead(now, ahead) && !is_ahead(now + SKEW, now));
    }

    #[test]
    fn what_a_vault_no_longer_keeps_is_not_missing() {
        assert_eq!(missing(&[true, true]), 0);
        assert_eq!(missing(&[false, true, true]), 0);
        assert_eq!(missing(&[false, true, false, true, false]), 2);
        assert_eq!(missing(&[false, false]), 2);
        assert_eq!(missing(&[]), 0);
    }
}

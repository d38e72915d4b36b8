//! Judging ages: pure, every fact is an argument.

use chrono::{DateTime, TimeDelta, Utc};

use crate::exit::Exit;

/// Clocks may differ by so much before a snapshot counts as one from the future.
const SKEW: TimeDelta = TimeDelta::minutes(5);

/// How a source or service stands against its objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As promised, or nothing was promised and there is a snapshot.
    Ok,
    /// Within the objective, and a run that was due has brought nothing.
    Late,
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
            Self::Late => "late",
            Self::Waived => "waived",
            Self::Breach => "breach",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }

    /// How the verb ends because of it. An unknown one is partial by the vaults that did not answer.
    pub(super) fn exit(self) -> Exit {
        if self == Self::Breach { Exit::Breach } else { Exit::Done }
    }
}

/// Judges an age (none: there is no snapshot) against the objective. At exactly the objective it is kept. A waiver
/// accepts a breach, it does not hide that nothing is there.
pub(super) fn verdict(age: Option<TimeDelta>, rpo: Option<TimeDelta>, waived: bool, overdue: bool) -> Verdict {
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
        (Some(_), _) if overdue => Verdict::Late,
        (Some(_), _) => Verdict::Ok,
    }
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
            assert_eq!(verdict(age, rpo, waived, overdue), expected, "{age:?} {rpo:?} {waived} {overdue}");
        }
        assert_eq!(Verdict::Breach.exit(), Exit::Breach);
        for fine in [Verdict::Ok, Verdict::Late, Verdict::Waived, Verdict::Missing, Verdict::Unknown] {
            assert_eq!(fine.exit(), Exit::Done, "{fine:?}");
        }
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

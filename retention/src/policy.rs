//! What an operator promised to keep, and how long anything can live under that promise.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::span::Span;

/// What is kept of a source in one vault: the union of its rules, so that adding a tier or raising a number of one
/// never expires more. (Raising `within` is the same, but for this: an outage that is longer than the window freezes
/// expiry, and one that is shorter does not.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Everything that is not older than this, counted back from the newest snapshot.
    pub within: Span,
    /// The newest snapshot of each of the last so many ISO weeks that hold snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// The same for calendar months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// The same for calendar years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
    /// The newest so many whole snapshots, whatever their age. At least 1.
    pub min: u32,
}

/// Why a policy can not be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `min` is 0.
    #[error("`min` is 0: the newest snapshot is always kept, so `min` is at least 1")]
    NoMinimum,
    /// `within` is no time at all.
    #[error("`within` is 0: name the time for which every snapshot is kept, such as `7d`")]
    NoWindow,
}

impl Policy {
    /// Refuses what can not be meant. [`crate::plan()`] is safe without this check: it keeps the newest snapshot anyway.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.min == 0 {
            return Err(PolicyError::NoMinimum);
        }
        if self.within == Span::ZERO {
            return Err(PolicyError::NoWindow);
        }
        Ok(())
    }

    /// The tiers that are set, each with the number of periods.
    pub fn tiers(&self) -> impl Iterator<Item = (Tier, u32)> {
        [(Tier::Weekly, self.weekly), (Tier::Monthly, self.monthly), (Tier::Yearly, self.yearly)]
            .into_iter()
            .filter_map(|(tier, periods)| Some((tier, periods?)))
    }

    /// The longest time for which a rule by age or calendar can need a snapshot, when backups run in every period
    /// (exact to the hour by which daylight saving shifts local weeks).
    ///
    /// Not in it, since no calendar bounds them: `min`, pins, unaccepted anomalies, freezes, and calendar tiers over
    /// periods without snapshots, which reach further back.
    pub fn longest_needed(&self) -> Span {
        let tiers = self.tiers().map(|(tier, periods)| Span::days(tier.longest_days().saturating_mul(periods.into())));
        tiers.fold(self.within, Span::max)
    }
}

/// A calendar tier of a policy. Finer ones do not exist: see [`refused_tier`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// ISO 8601 weeks: Monday to Sunday.
    Weekly,
    /// Calendar months.
    Monthly,
    /// Calendar years.
    Yearly,
}

impl Tier {
    fn longest_days(self) -> u64 {
        match self {
            Self::Weekly => 7,
            Self::Monthly => 31,
            Self::Yearly => 366,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// Why a key of `keep` that other tools have is refused here; `None` for any other word.
pub fn refused_tier(key: &str) -> Option<&'static str> {
    match key {
        "minutely" | "hourly" | "daily" => Some(
            "snapshots expire by whole generations, so thinning inside one would free nothing: \
             use `within`, which keeps every snapshot of that time",
        ),
        "quarterly" | "quarter_yearly" | "half_yearly" => Some("use `monthly` with three periods for each quarter"),
        "last" => Some("use `min`, the number of newest snapshots that stay whatever their age"),
        _ => None,
    }
}

/// The longest that a snapshot stays in a vault, by parts, when backups and prune run on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Life {
    /// [`Policy::longest_needed`].
    pub needed: Span,
    /// A generation goes as a whole: its first snapshot waits for its last one.
    pub period: Span,
    /// A generation accepts commits until one period after its end.
    pub deadline: Span,
    /// A generation counts as closed a day past its deadline.
    pub closing: Span,
    /// Between prune's first run, which announces, and its second, which deletes.
    pub grace: Span,
}

impl Life {
    /// All parts together.
    pub fn total(&self) -> Span {
        self.needed.plus(self.period).plus(self.deadline).plus(self.closing).plus(self.grace)
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, period, deadline, closing, grace } = self;
        write!(
            f,
            "at most {} ({needed} needed + {period} generation + {deadline} deadline + {closing} closing + {grace} grace)",
            self.total()
        )
    }
}

/// How long a snapshot can stay in a vault with generations of `period` and a prune that waits `grace` (24 h by the
/// protocol) between announcing and deleting. `keep` is a minimum; this is the maximum, for `config show` and `audit`.
/// What [`Policy::longest_needed`] leaves out is left out here too.
pub fn maximum_life(policy: &Policy, period: Span, grace: Span) -> Life {
    Life { needed: policy.longest_needed(), period, deadline: period, closing: Span::days(1), grace }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn policy(text: &str) -> Policy {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn is_read_from_toml_and_written_as_json() {
        let read = policy("within = '7d'\nweekly = 4\nmonthly = 12\nyearly = 3\nmin = 3");
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(json, r#"{"within":"7d","weekly":4,"monthly":12,"yearly":3,"min":3}"#);
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), read);
        for wrong in [
            "within = '7d'\nmin = 3\ndaily = 7",
            "within = '7'\nmin = 3",
            "min = 3",
            "within = '7d'",
            "within = '7d'\nmin = -1",
        ] {
            assert!(toml::from_str::<Policy>(wrong).is_err(), "`{wrong}` was taken");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        assert_eq!(policy("within = '7d'\nmin = 1").check(), Ok(()));
        assert_eq!(policy("within = '7d'\nmin = 0").check(), Err(PolicyError::NoMinimum));
        assert_eq!(policy("within = '0d'\nmin = 1").check(), Err(PolicyError::NoWindow));
        assert!(refused_tier("daily").unwrap().contains("whole generations"));
        assert!(refused_tier("hourly").is_some());
        assert!(refused_tier("quarterly").unwrap().contains("`monthly`"));
        assert!(refused_tier("last").unwrap().contains("`min`"));
        assert!(
            ["within", "weekly", "monthly", "yearly", "min", "wekly"].iter().all(|key| refused_tier(key).is_none())
        );
    }

    #[test]
    fn the_maximum_is_the_sum_of_its_parts() {
        let grace = Span::days(1);
        let simple = maximum_life(&policy("within = '30d'\nmin = 7"), Span::days(7), grace);
        assert_eq!(
            simple.to_string(),
            "at most 46d (30d needed + 7d generation + 7d deadline + 1d closing + 1d grace)"
        );
        assert_eq!(policy("within = '7d'\nweekly = 4\nmin = 1").longest_needed(), Span::days(28));
        assert_eq!(policy("within = '90d'\nweekly = 4\nmonthly = 2\nmin = 1").longest_needed(), Span::days(90));
        assert_eq!(policy("within = '7d'\nmonthly = 12\nyearly = 3\nmin = 1").longest_needed(), Span::days(1098));
        let endless = policy("within = '7d'\nyearly = 4294967295\nmin = 1");
        assert_eq!(maximum_life(&endless, Span::days(7), grace).total(), Span::days(365_000));
    }
}

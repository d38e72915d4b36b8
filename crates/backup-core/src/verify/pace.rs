//! How long a verification reads, what it reads first, and how much was read in all.
//!
//! Objects never read come first, then those read longest ago, each in the order of their names: so the order is the same
//! for everybody who knows the same, and whatever stops a call, the next one goes on where it stopped. What was read is
//! remembered by whoever calls ([`crate::state::State::set_read`]); forgotten, it is read once more.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::Fraction;
use crate::id::ObjectName;
use crate::vault::layout::GenerationDir;
use crate::vault::{Vault, VaultError};

/// When each object was last read and found good, by generation.
pub type Reads = HashMap<GenerationDir, HashMap<ObjectName, DateTime<Utc>>>;

/// Objects whose bytes were found damaged, and what is wrong with each.
pub type Bad = BTreeMap<(GenerationDir, ObjectName), String>;

/// How far one call may read. The default reads everything, in the order of names.
#[derive(Default)]
pub struct Pace<'a> {
    /// Asked before each object: `true` ends the reading, and what is under way is brought to its end.
    pub stop: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// When what was read before.
    pub before: Option<&'a Reads>,
    /// Objects read at this instant or later are not read again.
    pub fresh: Option<DateTime<Utc>>,
    /// What an earlier look found damaged: it counts as damaged as long as it is not read again.
    pub bad: Option<&'a Bad>,
    /// What an earlier look could not open, though the bytes are those of its name: reading it does not make it good.
    pub closed: Option<&'a Bad>,
    /// The instant of this call, at which what it reads was read.
    pub now: DateTime<Utc>,
}

impl Pace<'_> {
    pub(super) fn is_over(&self) -> bool {
        self.stop.is_some_and(|stop| stop())
    }

    fn last(&self, dir: &GenerationDir, name: &ObjectName) -> Option<DateTime<Utc>> {
        self.before?.get(dir)?.get(name).copied()
    }

    /// Generations in the order in which they are to be looked at. Where time is short the one goes first that holds what
    /// was read longest ago: a fixed order would spend each call's time on the same one.
    pub(super) async fn oldest_first(
        &self,
        vault: &Vault,
        generations: Vec<GenerationDir>,
        share: Option<Fraction>,
    ) -> Result<Vec<GenerationDir>, VaultError> {
        let (Some(_), Some(share)) = (self.stop, share) else { return Ok(generations) };
        let mut keyed = Vec::new();
        for dir in generations {
            let listed = vault.list_objects(&dir).await?;
            let first = self.order(&dir, listed.iter().map(|line| &line.name).filter(|name| share.holds(name)));
            // Nothing to read sorts behind everything.
            let key = first.first().map_or((true, None), |name| (false, self.last(&dir, name)));
            keyed.push((key, dir));
        }
        keyed.sort();
        Ok(keyed.into_iter().map(|(_, dir)| dir).collect())
    }

    /// What is to be read of a generation, in order.
    pub(super) fn order<'n>(
        &self,
        dir: &GenerationDir,
        names: impl Iterator<Item = &'n ObjectName>,
    ) -> Vec<ObjectName> {
        let mut all: Vec<(Option<DateTime<Utc>>, ObjectName)> =
            names.map(|name| (self.last(dir, name), *name)).collect();
        all.retain(|(last, _)| self.fresh.is_none_or(|fresh| last.is_none_or(|last| last < fresh)));
        all.sort_unstable();
        all.into_iter().map(|(_, name)| name).collect()
    }
}

/// How much of what a vault lists was read: all calls that are remembered, and this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Stored bytes of all objects that were listed.
    pub listed_bytes: u64,
    /// Of these, those that were read and found good at least once.
    pub covered_bytes: u64,
    /// Stored bytes that this call was to read and did not, because its time was up.
    pub left_bytes: u64,
    /// When the object was read that was read longest ago; of those that were.
    pub since: Option<DateTime<Utc>>,
}

impl Coverage {
    /// Adds a generation: what is listed there, and what was just read and is good.
    pub(super) fn count(
        &mut self,
        pace: &Pace<'_>,
        dir: &GenerationDir,
        objects: &HashMap<ObjectName, u64>,
        read: &HashMap<ObjectName, bool>,
    ) {
        for (name, bytes) in objects {
            self.listed_bytes += bytes;
            let last = if read.contains_key(name) { Some(pace.now) } else { pace.last(dir, name) };
            if let Some(last) = last {
                self.covered_bytes += bytes;
                self.since = Some(self.since.map_or(last, |since| since.min(last)));
            }
        }
    }

    /// Of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            listed_bytes: self.listed_bytes + other.listed_bytes,
            covered_bytes: self.covered_bytes + other.covered_bytes,
            left_bytes: self.left_bytes + other.left_bytes,
            since: [self.since, other.since].into_iter().flatten().min(),
        }
    }

    /// Whether everything that is listed was read at least once.
    pub fn is_whole(&self) -> bool {
        self.covered_bytes == self.listed_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash256;
    use chrono::TimeDelta;

    #[test]
    fn what_was_never_read_comes_first_then_what_was_read_longest_ago() {
        let dir = GenerationDir {
            stack: "s".parse().unwrap(),
            source: "db".parse().unwrap(),
            id: "2026-01-01--7d--00000000".parse().unwrap(),
        };
        let now: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let [a, b, c, d] = [4, 3, 2, 1].map(|byte| Hash256([byte; 32]));
        let days = |days| now - TimeDelta::days(days);
        let before = HashMap::from([(dir.clone(), HashMap::from([(a, days(3)), (b, days(1)), (c, days(0))]))]);
        let mut pace = Pace { before: Some(&before), now, ..Pace::default() };
        assert_eq!(pace.order(&dir, [&a, &b, &c, &d].into_iter()), [d, a, b, c]);
        pace.fresh = Some(days(0));
        assert_eq!(pace.order(&dir, [&a, &b, &c, &d].into_iter()), [d, a, b]);
        let objects = HashMap::from([(a, 1), (b, 10), (c, 100), (d, 1000)]);
        let mut coverage = Coverage::default();
        coverage.count(&pace, &dir, &objects, &HashMap::new());
        assert_eq!((coverage.listed_bytes, coverage.covered_bytes, coverage.since), (1111, 111, Some(days(3))));
        assert!(!coverage.is_whole());
        let mut coverage = Coverage::default();
        coverage.count(&pace, &dir, &objects, &HashMap::from([(a, true), (d, true)]));
        assert_eq!((coverage.is_whole(), coverage.since), (true, Some(days(1))));
    }
}

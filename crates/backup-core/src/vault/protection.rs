//! What keeps stored bodies from being deleted: locks, legal holds, older versions, and the bucket's own rules that delete.
//!
//! Everything in here is what a store *shows*. That a bucket was asked for a lock proves nothing: some endpoints answer 200
//! and lock nothing, so a lock counts only where a HEAD shows it, and versions only where the bucket says that it keeps them.
//! A store without any of it (a directory) has none of it, and says so by the defaults of the trait `Store`.

use std::fmt;

use chrono::{DateTime, Days, TimeDelta, Utc};

use super::layout::GenerationId;
use super::store::StorePath;
use crate::clock::Clock;
use crate::prune::GRACE;

/// Mode of an Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Some users may lift it.
    Governance,
    /// Nobody may.
    Compliance,
}

impl LockMode {
    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a store shows that keeps one body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Mode of its lock; `None` where only a legal hold keeps it.
    pub mode: Option<LockMode>,
    /// When the lock ends, by the store's clock.
    pub until: Option<DateTime<Utc>>,
    /// Whether a legal hold keeps it, without an end.
    pub legal_hold: bool,
}

impl Retention {
    /// Whether it still keeps the body at `now`.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.legal_hold || (self.mode.is_some() && self.until.is_some_and(|until| until > now))
    }
}

/// How long what is stored is locked: until the last snapshot that may need it has left the window, and prune's grace.
#[derive(Debug, Clone)]
pub struct LockRule {
    /// The mode.
    pub mode: LockMode,
    /// The longest that the vault's policy promises anything.
    pub window: TimeDelta,
    /// The longest period of a source's generations, for files that belong to none.
    pub period: TimeDelta,
    /// This host's clock: it matters only for files outside generations, and a bucket refuses requests of a wrong one.
    pub clock: Clock,
}

impl LockRule {
    /// Until when a body at `path` is locked: its generation's commit deadline, the window and the grace. What belongs to no
    /// generation is locked as if one began now. Never in the past: a late copy of an old generation is locked for the grace.
    pub fn until(&self, path: &StorePath) -> DateTime<Utc> {
        let now = self.clock.now();
        let begun_now = || now + self.period + self.period + self.window + GRACE;
        generation(path).map_or_else(begun_now, |id| self.promised(&id)).max(now + GRACE)
    }

    /// Until when everything in a generation is locked at least, if it was stored in time.
    pub fn promised(&self, generation: &GenerationId) -> DateTime<Utc> {
        generation.deadline() + self.window + GRACE
    }
}

/// The generation that a path lies in.
fn generation(path: &StorePath) -> Option<GenerationId> {
    path.as_str().split('/').nth(2)?.parse().ok()
}

/// One version of a body that is not the one that a plain read gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Older {
    /// The path.
    pub path: StorePath,
    /// The store's name for the version.
    pub version: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written.
    pub modified: DateTime<Utc>,
}

/// A path whose body was deleted, and of which the store has an older version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The path.
    pub path: StorePath,
    /// When the store got the oldest body that it still has, by its own clock.
    pub first: DateTime<Utc>,
    /// When it got the newest.
    pub last: DateTime<Utc>,
}

/// What a store remembers of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered<T> {
    /// What was found.
    pub found: Vec<T>,
    /// The folder has more than anybody looks through: somebody filled it.
    pub is_cut: bool,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { found: Vec::new(), is_cut: false }
    }
}

/// What lies behind the current bodies of a vault, without what probes left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Names that a delete marker hides.
    pub deleted: u64,
    /// Versions that are not the current ones.
    pub older: u64,
    /// Their bytes.
    pub older_bytes: u64,
}

/// What the bucket itself does to what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifecycle {
    /// The rules that are turned on; empty: none.
    Rules(Vec<LifecycleRule>),
    /// It could not be seen; why.
    Unknown(String),
}

/// A rule of a bucket that is turned on and can reach what this program stores (which has no tags).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Its name; may be empty.
    pub id: String,
    /// Keys that it reaches begin so.
    pub prefix: String,
    /// Deletes current bodies when they are so old.
    pub expires: Option<Expires>,
    /// Deletes older versions so many days after they ceased to be the current ones.
    pub older_days: Option<u32>,
    /// Moves current bodies to another storage class, from which some cannot be read at once.
    pub moves_to: Option<String>,
}

/// When a rule deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expires {
    /// So many days after a body was written.
    After {
        /// Days.
        days: u32,
    },
    /// Everything, from this instant on.
    From(DateTime<Utc>),
}

impl fmt::Display for Expires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After { days: 1 } => f.write_str("after 1 day"),
            Self::After { days } => write!(f, "after {days} days"),
            Self::From(at) => write!(f, "from {} on", at.format("%F")),
        }
    }
}

impl LifecycleRule {
    /// Whether it reaches anything of a vault whose keys begin with `vault_prefix` (empty, or ending in `/`). A rule for the
    /// probe's own names reaches nothing of it.
    pub fn reaches(&self, vault_prefix: &str) -> bool {
        let below = self.prefix.strip_prefix(vault_prefix);
        below.is_some_and(|below| !below.starts_with("_probe/")) || vault_prefix.starts_with(&self.prefix)
    }

    /// Whether it reaches more than generations: `vault.json`, which is written once, marks, receipts. Those have no age at which
    /// they are not needed any more. Generations begin with a date, as `stack/source/2026-11-22--7d--1a2b3c4d`.
    pub fn reaches_beyond_generations(&self, vault_prefix: &str, stack: &str) -> bool {
        let below = self.prefix.strip_prefix(vault_prefix).unwrap_or_default();
        let names = ["vault.json".to_owned(), "RECOVER".to_owned(), format!("{stack}/")];
        if names.iter().any(|name| name.starts_with(below)) {
            return true;
        }
        let mut parts = below.split('/');
        parts.next() == Some(stack)
            && !parts.nth(1).is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
    }

    /// Whether it deletes earlier than the vault's policy: `needed` is how long a file may be needed after it was written,
    /// `None` for ever.
    pub fn is_shorter_than(&self, needed: Option<TimeDelta>) -> bool {
        match self.expires {
            None => false,
            Some(Expires::From(_)) => true,
            Some(Expires::After { days }) => needed
                .is_none_or(|needed| DateTime::UNIX_EPOCH + Days::new(u64::from(days)) < DateTime::UNIX_EPOCH + needed),
        }
    }
}

impl Lifecycle {
    /// The rules that delete what a `stack`'s vault under `vault_prefix` still needs.
    pub fn too_short(&self, vault_prefix: &str, stack: &str, needed: Option<TimeDelta>) -> Vec<&LifecycleRule> {
        match self {
            Self::Unknown(_) => Vec::new(),
            Self::Rules(rules) => {
                let harms = |rule: &&LifecycleRule| {
                    rule.is_shorter_than(needed)
                        || rule.expires.is_some() && rule.reaches_beyond_generations(vault_prefix, stack)
                };
                rules.iter().filter(|rule| rule.reaches(vault_prefix)).filter(harms).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_lock_ends_when_the_last_snapshot_has_left_the_window() {
        let rule = |now: &str| LockRule {
            mode: LockMode::Compliance,
            window: TimeDelta::days(30),
            period: TimeDelta::days(7),
            clock: Clock::fixed(at(now)),
        };
        let path = |text: &str| StorePath::new(text).unwrap();
        let object = path("s/db/2026-11-01--7d--0123abcd/objects/ab/ab");
        // Ends on the 8th, deadline on the 15th, 30 days, one of grace: whenever it is uploaded.
        for now in ["2026-11-02T00:00:00Z", "2026-11-14T23:00:00Z"] {
            assert_eq!(rule(now).until(&object), at("2026-12-16T00:00:00Z"));
        }
        assert_eq!(rule("2027-05-01T00:00:00Z").until(&object), at("2027-05-02T00:00:00Z"), "a late copy");
        let mark = path("s/db/marks/20261101T000000Z-1r-abcdef.pin.json");
        assert_eq!(rule("2026-11-02T00:00:00Z").until(&mark), at("2026-12-17T00:00:00Z"));
    }

    #[test]
    fn a_lock_that_ended_and_one_without_an_end() {
        let now = at("2026-11-22T00:00:00Z");
        let lock = |until: &str, legal_hold| Retention {
            mode: Some(LockMode::Governance),
            until: Some(at(until)),
            legal_hold,
        };
        assert!(lock("2026-11-22T00:00:01Z", false).is_in_force(now));
        assert!(!lock("2026-11-22T00:00:00Z", false).is_in_force(now));
        assert!(lock("2020-01-01T00:00:00Z", true).is_in_force(now));
    }

    #[test]
    fn rules_are_judged_by_what_they_reach_and_when() {
        let rule = |prefix: &str, expires| LifecycleRule {
            id: "r".into(),
            prefix: prefix.into(),
            expires,
            older_days: Some(1),
            moves_to: None,
        };
        let after = |days| Some(Expires::After { days });
        for (prefix, reached) in [
            ("", true),
            ("v", true),
            ("v/", true),
            ("v/s/db", true),
            ("v/_probe/", false),
            ("w/", false),
            ("va", false),
        ] {
            assert_eq!(rule(prefix, after(1)).reaches("v/"), reached, "{prefix}");
            assert_eq!(
                Lifecycle::Rules(vec![rule(prefix, after(1))]).too_short("v/", "s", None).len(),
                usize::from(reached)
            );
        }
        assert!(rule("anything", after(1)).reaches(""), "a vault without a prefix is the whole bucket");
        let needed = Some(TimeDelta::days(23));
        assert!(rule("", after(22)).is_shorter_than(needed));
        assert!(!rule("", after(23)).is_shorter_than(needed));
        assert!(rule("", after(100_000)).is_shorter_than(None), "nothing may go where nothing expires");
        assert!(rule("", Some(Expires::From(at("2030-01-01T00:00:00Z")))).is_shorter_than(needed));
        assert!(!rule("", None).is_shorter_than(None), "older versions are no snapshot's");
        // However late: the first file of a vault is needed as long as the vault is.
        for (prefix, harms) in [
            ("", true),
            ("v/", true),
            ("v/vault", true),
            ("v/s/", true),
            ("v/s/db/", true),
            ("v/s/db/marks/", true),
            ("v/s/db/2026-11-22", false),
            ("v/s/db/2", false),
            ("v/_damaged/", false),
            ("v/logs/", false),
        ] {
            let rules = Lifecycle::Rules(vec![rule(prefix, after(100_000))]);
            assert_eq!(rules.too_short("v/", "s", needed).len(), usize::from(harms), "{prefix}");
        }
        assert!(Lifecycle::Rules(vec![rule("", None)]).too_short("v/", "s", needed).is_empty());
    }
}

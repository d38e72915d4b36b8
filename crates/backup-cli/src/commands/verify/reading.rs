//! How one vault and source is read: how deep, for how long, and what was read before.
//!
//! With `--max-time` the time that is left is divided among the vaults and sources that are still to be read, so that a
//! large one starves none; each goes on with what was read longest ago. What was read is remembered in this host's state.
//!
//! What an earlier call (of `verify`, or a `restore` on its way) found damaged is damaged until it is seen to be good: a call
//! that reads nothing else reads that. What only opening showed, only opening can take back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use backup_core::config::Source;
use backup_core::id::ObjectName;
use backup_core::repair::{Mend, Outcome};
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::verify::{Bad, Depth, Pace, Place, Reads, Verified, chain_text, verify_at};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use super::Look;
use crate::error::CliError;

/// The time of a call that may not take longer, and how it is divided.
pub(super) struct Time {
    ends: Instant,
    parts: u32,
}

impl Time {
    /// `span` from now, for so many vaults and sources.
    pub(super) fn new(span: Duration, parts: usize) -> Self {
        Self { ends: Instant::now() + span, parts: u32::try_from(parts).unwrap_or(u32::MAX) }
    }

    /// When the next one must end.
    pub(super) fn next(&mut self) -> Instant {
        let now = Instant::now();
        let left = self.ends.saturating_duration_since(now) / self.parts.max(1);
        self.parts = self.parts.saturating_sub(1);
        now + left
    }
}

/// One vault and source.
pub(super) struct Reading<'a> {
    only: Option<&'a SnapshotId>,
    depth: Depth<'a>,
    until: Option<Instant>,
    /// When what was read before.
    before: Reads,
    /// What was read since is not read again.
    fresh: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    /// What earlier rounds of this call read and found good.
    read: Vec<BTreeMap<GenerationDir, Vec<ObjectName>>>,
    /// What they found damaged, and nobody mended.
    bad: Bad,
    /// What earlier calls could not open, and this one does not try to.
    closed: Bad,
    /// Snapshots in which earlier calls found damage that is in no object, and that this one does not open.
    wrong: BTreeSet<(GenerationDir, String)>,
}

/// What is said of damage that this call did not look at again.
const EARLIER: &str =
    "an earlier call that opened it found it damaged, and none has found it good since: read it with `--identity FILE`";

impl<'a> Reading<'a> {
    /// `state`: absent where nothing is remembered. Where time is short, what was read on the day `since` or later is not read again.
    pub(super) async fn new(
        (vault, source): (&Vault, &Source),
        (only, depth): (Option<&'a SnapshotId>, Depth<'a>),
        (until, since): (Option<Instant>, NaiveDate),
        state: Option<&State>,
        now: DateTime<Utc>,
    ) -> Result<Self, CliError> {
        let before = match state.filter(|_| depth.read.is_some() || depth.identities.is_some()) {
            Some(state) => state.reads(vault.id(), &source.name).await?,
            None => Reads::new(),
        };
        // Another call goes on behind this one.
        let fresh = until.map(|_| since.and_time(NaiveTime::MIN).and_utc());
        let (bad, closed, wrong) = (Bad::new(), Bad::new(), BTreeSet::new());
        let mut reading = Self { only, depth, until, before, fresh, now, read: Vec::new(), bad, closed, wrong };
        if let Some(state) = state {
            reading.know(state, vault, source).await?;
        }
        Ok(reading)
    }

    /// Takes over what is known to be damaged, and looks at what can be seen to be good again.
    async fn know(&mut self, state: &State, vault: &Vault, source: &Source) -> Result<(), CliError> {
        let opens = self.depth.identities.is_some();
        let whole = self.depth.read.is_some_and(|share| share.of == 1);
        let known = state.damage(vault.id()).await?.into_iter().filter(|((dir, _), _)| dir.source == source.name);
        for ((dir, item), deep) in known {
            match item.parse::<ObjectName>() {
                // Whoever opens everything judges by that.
                _ if deep && opens => {}
                Ok(name) if deep => {
                    self.closed.insert((dir, name), format!("object `{name}`: {EARLIER}"));
                }
                // It is read in its turn, or there is no time.
                Ok(name) if opens || whole || self.until.is_some() => {
                    self.bad.insert((dir, name), format!("object `{name}`: an earlier call found it damaged"));
                }
                Ok(name) => {
                    if let Err(error) = vault.get_object(&dir, &name).await {
                        self.bad.insert((dir, name), chain_text(&error));
                    }
                }
                Err(_) => {
                    self.wrong.insert((dir, item));
                }
            }
        }
        Ok(())
    }

    /// Looks at everything.
    pub(super) async fn look(
        &self,
        look: &Look<'_>,
        vault: &Vault,
        source: &Source,
    ) -> Result<Verified, backup_core::vault::VaultError> {
        let over = || self.until.is_some_and(|until| Instant::now() >= until);
        let stop: Option<&(dyn Fn() -> bool + Sync)> = if self.until.is_some() { Some(&over) } else { None };
        let pace = Pace {
            stop,
            before: Some(&self.before),
            fresh: self.fresh,
            bad: Some(&self.bad),
            closed: Some(&self.closed),
            now: self.now,
        };
        let at = (look.session.stack(), &source.name);
        let mut verified = verify_at(vault, look.signers, at, self.only, self.depth, &pace).await?;
        for verdict in &mut verified.snapshots {
            if verdict.damage.is_empty() && self.wrong.contains(&(verdict.dir.clone(), verdict.id.to_string())) {
                verdict.damage.push(EARLIER.to_owned());
            }
        }
        Ok(verified)
    }

    /// What one round read is read; what it found damaged stays so, unless it is good after the repair `made`. The next
    /// round may have no time to read it again.
    pub(super) fn have_read(&mut self, verified: &Verified, made: &[Mend]) {
        for (dir, names) in &verified.good {
            let of = self.before.entry(dir.clone()).or_default();
            of.extend(names.iter().map(|name| (*name, self.now)));
        }
        self.read.push(verified.good.clone());
        // What does not open has good bytes: only opening it tells.
        let bad = verified.objects.iter().filter(|(at, _)| !verified.unopened.contains(*at));
        self.bad = bad.map(|(at, text)| (at.clone(), text.clone())).collect();
        for mend in made {
            if let (Place::Object(dir, name), Outcome::Good | Outcome::Mended { .. }) = (&mend.place, &mend.outcome) {
                self.bad.remove(&(dir.clone(), *name));
            }
        }
    }

    /// Remembers what was read in all rounds, the last one with it.
    pub(super) async fn remember(&self, state: &State, vault: &Vault, last: &Verified) -> Result<(), CliError> {
        for good in self.read.iter().chain([&last.good]) {
            for (dir, names) in good {
                state.set_read(vault.id(), dir, names, self.now).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_round_found_damaged_stays_so_unless_it_was_mended() {
        let id = "2026-01-01--7d--00000000".parse().unwrap();
        let dir = GenerationDir { stack: "s".parse().unwrap(), source: "db".parse().unwrap(), id };
        let [mended, good, left, dry, unopened] = [b"a", b"b", b"c", b"d", b"e"].map(|body| ObjectName::of(body));
        let mut verified = Verified::default();
        for name in [mended, good, left, dry, unopened] {
            verified.objects.insert((dir.clone(), name), "bad".to_owned());
        }
        verified.unopened.insert((dir.clone(), unopened));
        let mend = |name, outcome| Mend { place: Place::Object(dir.clone(), name), outcome };
        let made = [
            mend(mended, Outcome::Mended { from: "x".to_owned(), aside: Vec::new() }),
            mend(good, Outcome::Good),
            mend(dry, Outcome::Mendable { from: "x".to_owned() }),
        ];
        let (before, now) = (Reads::new(), DateTime::UNIX_EPOCH);
        let depth = Depth { read: None, identities: None };
        let mut reading = Reading {
            only: None,
            depth,
            until: None,
            before,
            fresh: None,
            now,
            read: Vec::new(),
            bad: Bad::new(),
            closed: Bad::new(),
            wrong: BTreeSet::new(),
        };
        reading.have_read(&verified, &made);
        let names: Vec<ObjectName> = reading.bad.keys().map(|(_, name)| *name).collect();
        let mut expected = vec![left, dry];
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn time_is_divided_among_what_is_left() {
        let mut time = Time::new(Duration::from_mins(5), 3);
        let share = |until: Instant| until.saturating_duration_since(Instant::now()).as_secs();
        assert_eq!(share(time.next()), 99, "a third, less what passed since");
        // What the first one did not use is divided among the others.
        assert_eq!(share(time.next()), 149);
        assert_eq!(share(time.next()), 299);
        assert_eq!(share(time.next()), 299, "never more than is left, and no division by nothing");
    }
}

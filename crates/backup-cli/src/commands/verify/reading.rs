//! How one vault and source is read: how deep, for how long, and what was read before.
//!
//! With `--max-time` the time that is left is divided among the vaults and sources that are still to be read, so that a
//! large one starves none; each goes on with what was read longest ago. What was read is remembered in this host's state.

use std::time::{Duration, Instant};

use backup_core::config::Source;
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::layout::SnapshotId;
use backup_core::verify::{Depth, Pace, Reads, Verified, verify_at};
use chrono::{DateTime, NaiveTime, Utc};

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
    /// What was read in earlier rounds of this call.
    read: Vec<Verified>,
}

impl<'a> Reading<'a> {
    /// `state`: absent where nothing is remembered.
    pub(super) async fn new(
        (vault, source): (&Vault, &Source),
        (only, depth): (Option<&'a SnapshotId>, Depth<'a>),
        until: Option<Instant>,
        state: Option<&State>,
        now: DateTime<Utc>,
    ) -> Result<Self, CliError> {
        let before = match state {
            Some(state) => state.reads(vault.id(), &source.name).await?,
            None => Reads::new(),
        };
        // Another call of the same day goes on behind this one.
        let fresh = until.map(|_| now.date_naive().and_time(NaiveTime::MIN).and_utc());
        Ok(Self { only, depth, until, before, fresh, now, read: Vec::new() })
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
        let pace = Pace { stop, before: Some(&self.before), fresh: self.fresh, now: self.now };
        let at = (look.session.stack(), &source.name);
        verify_at(vault, look.signers, at, self.only, self.depth, &pace).await
    }

    /// What one round read is read.
    pub(super) fn have_read(&mut self, verified: Verified) {
        for (dir, names) in &verified.good {
            let of = self.before.entry(dir.clone()).or_default();
            of.extend(names.iter().map(|name| (*name, self.now)));
        }
        self.read.push(verified);
    }

    /// Remembers what was read in all rounds, the last one with it.
    pub(super) async fn remember(&self, state: &State, vault: &Vault, last: &Verified) -> Result<(), CliError> {
        for verified in self.read.iter().chain([last]) {
            for (dir, names) in &verified.good {
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

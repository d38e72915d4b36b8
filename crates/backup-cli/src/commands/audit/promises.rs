//! Which days a source must have a snapshot of: from its jobs' `cron`, else from its objective, else one a day.

use std::collections::BTreeMap;

use backup_core::audit::Slot;
use backup_core::config::{Config, Source};
use backup_scheduler::Crontab;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// More captures a day are not counted: whether a day has any is what is judged.
const COUNTED: u32 = 24;
/// Copies take no longer than this, however seldom a job runs.
const LONGEST_COPY: TimeDelta = TimeDelta::hours(24);

/// What promises the captures of a source.
pub(super) struct Schedule {
    now: DateTime<Utc>,
    timezone: Tz,
    jobs: Vec<(Crontab, Tz)>,
    /// Without jobs: the time in which there is one capture, if that is longer than a day.
    every: Option<TimeDelta>,
}

impl Schedule {
    /// Of a configured source.
    pub(super) fn of(config: &Config, source: &Source, now: DateTime<Utc>) -> Self {
        let jobs = config.jobs.iter().filter(|job| job.sources.contains(&source.name));
        let jobs = jobs.filter_map(|job| Some((Crontab::parse(job.cron.as_deref()?).ok()?, job.timezone))).collect();
        let rpo = source.objective.as_ref().map(|objective| objective.rpo.as_chrono());
        let every = rpo.filter(|rpo| *rpo > TimeDelta::days(1));
        Self { now, timezone: config.timezone, jobs, every }
    }

    /// A copy is expected before the next capture is due.
    pub(super) fn copied_within(&self) -> TimeDelta {
        let pauses = self.jobs.iter().filter_map(|(cron, tz)| {
            let due = cron.next_after(self.now, *tz)?;
            Some(cron.next_after(due, *tz)? - due)
        });
        pauses.min().unwrap_or(LONGEST_COPY).min(LONGEST_COPY)
    }

    /// The promised days that begin at `from` or later, up to the one that is open now.
    pub(super) fn slots(&self, from: DateTime<Utc>) -> Vec<Slot> {
        match (self.jobs.as_slice(), self.every) {
            ([], Some(every)) => self.by_objective(from, every),
            ([], None) => self.by_calendar(from),
            _ => self.by_cron(from),
        }
    }

    fn by_cron(&self, from: DateTime<Utc>) -> Vec<Slot> {
        // The first capture of each day and how many there are; also of the day after now, which closes today.
        let mut days: BTreeMap<NaiveDate, (DateTime<Utc>, u32)> = BTreeMap::new();
        for (cron, tz) in &self.jobs {
            let mut at = from - TimeDelta::seconds(1);
            while let Some(due) = cron.next_after(at, *tz) {
                at = due;
                let day = self.day(due);
                let entry = days.entry(day).or_insert((due, 0));
                *entry = (entry.0.min(due), entry.1 + 1);
                if due > self.now && day > self.day(self.now) {
                    break;
                }
                if entry.1 >= COUNTED {
                    at = at.max(self.midnight(day + Days::new(1)) - TimeDelta::seconds(1));
                }
            }
        }
        let days: Vec<_> = days.into_iter().collect();
        let slot = |pair: &[(NaiveDate, (DateTime<Utc>, u32))]| {
            let (day, (first, captures)) = pair[0];
            Slot { day, from: first, to: pair[1].1.0, captures }
        };
        days.windows(2).map(slot).filter(|slot| slot.from >= from && slot.from <= self.now).collect()
    }

    fn by_calendar(&self, from: DateTime<Utc>) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut day = self.day(from);
        while day <= self.day(self.now) {
            let next = day + Days::new(1);
            let (begins, ends) = (self.midnight(day), self.midnight(next));
            // Of the first day what is left of it counts.
            slots.push(Slot { day, from: begins.max(from), to: ends, captures: 1 });
            day = next;
        }
        slots
    }

    fn by_objective(&self, from: DateTime<Utc>, every: TimeDelta) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut to = self.now;
        while let Some(begins) = to.checked_sub_signed(every).filter(|begins| *begins >= from) {
            slots.push(Slot { day: self.day(begins), from: begins, to, captures: 1 });
            to = begins;
        }
        slots.reverse();
        slots
    }

    fn day(&self, at: DateTime<Utc>) -> NaiveDate {
        at.with_timezone(&self.timezone).date_naive()
    }

    /// When a day begins; where clocks skip that minute, an hour later.
    fn midnight(&self, day: NaiveDate) -> DateTime<Utc> {
        let local = day.and_time(NaiveTime::MIN);
        let found =
            (0..=3).find_map(|hours| self.timezone.from_local_datetime(&(local + TimeDelta::hours(hours))).earliest());
        found.map_or_else(|| local.and_utc(), |at| at.to_utc())
    }
}

/// What an objective allows, unless a waiver accepts more today.
pub(super) fn rpo(source: &Source, now: DateTime<Utc>, timezone: Tz) -> Option<TimeDelta> {
    let objective = source.objective.as_ref()?;
    let today = now.with_timezone(&timezone).date_naive();
    let waived = objective.waiver.as_ref().is_some_and(|waiver| today <= waiver.until);
    (!waived).then(|| objective.rpo.as_chrono())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("{text}:00Z").parse().unwrap()
    }

    fn schedule(crons: &[&str], every: Option<TimeDelta>, timezone: Tz) -> Schedule {
        let jobs = crons.iter().map(|cron| (Crontab::parse(cron).unwrap(), timezone)).collect();
        Schedule { now: at("2026-11-22T12:00"), timezone, jobs, every }
    }

    fn shown(schedule: &Schedule, from: &str) -> Vec<String> {
        let slots = schedule.slots(at(from)).into_iter();
        slots
            .map(|slot| {
                format!("{} {} {} {}", slot.day, slot.from.format("%dT%R"), slot.to.format("%dT%R"), slot.captures)
            })
            .collect()
    }

    #[test]
    fn a_day_lasts_from_its_first_capture_to_that_of_the_next_day() {
        let nightly = schedule(&["0 2 * * *"], None, Tz::UTC);
        assert_eq!(
            shown(&nightly, "2026-11-20T02:00"),
            ["2026-11-20 20T02:00 21T02:00 1", "2026-11-21 21T02:00 22T02:00 1", "2026-11-22 22T02:00 23T02:00 1"]
        );
        assert_eq!(shown(&nightly, "2026-11-21T02:01"), ["2026-11-22 22T02:00 23T02:00 1"]);
        // Two jobs, and a day of the stack's calendar: 02:00 UTC is the evening before in Bogotá.
        let twice = schedule(&["0 21 * * *", "0 9 * * *"], None, chrono_tz::America::Bogota);
        assert_eq!(
            shown(&twice, "2026-11-21T00:00"),
            ["2026-11-20 21T02:00 21T14:00 1", "2026-11-21 21T14:00 22T14:00 2"]
        );
        let weekly = schedule(&["0 2 * * 0"], None, Tz::UTC);
        assert_eq!(
            shown(&weekly, "2026-11-10T00:00"),
            ["2026-11-15 15T02:00 22T02:00 1", "2026-11-22 22T02:00 29T02:00 1"]
        );
        let dense = schedule(&["* * * * *"], None, Tz::UTC);
        assert_eq!(shown(&dense, "2026-11-21T00:00")[0], "2026-11-21 21T00:00 22T00:00 24");
        assert_eq!(schedule(&["0 2 30 2 *"], None, Tz::UTC).slots(at("2026-11-01T00:00")), []);
    }

    #[test]
    fn without_a_job_the_calendar_or_the_objective_counts() {
        let daily = schedule(&[], None, Tz::UTC);
        assert_eq!(
            shown(&daily, "2026-11-20T05:00"),
            ["2026-11-20 20T05:00 21T00:00 1", "2026-11-21 21T00:00 22T00:00 1", "2026-11-22 22T00:00 23T00:00 1"]
        );
        let weekly = schedule(&[], Some(TimeDelta::days(7)), Tz::UTC);
        assert_eq!(
            shown(&weekly, "2026-11-01T00:00"),
            ["2026-11-01 01T12:00 08T12:00 1", "2026-11-08 08T12:00 15T12:00 1", "2026-11-15 15T12:00 22T12:00 1"]
        );
    }

    #[test]
    fn a_copy_is_due_before_the_next_capture_and_within_a_day() {
        assert_eq!(schedule(&["0 * * * *"], None, Tz::UTC).copied_within(), TimeDelta::hours(1));
        assert_eq!(schedule(&["@weekly"], None, Tz::UTC).copied_within(), TimeDelta::hours(24));
        assert_eq!(schedule(&[], None, Tz::UTC).copied_within(), TimeDelta::hours(24));
    }
}

//! Crontab time fields in their standard meaning, mapped to instants in a time zone.
//!
//! What the fields mean is what `man 5 crontab` of vixie-cron says, because that is what an operator has in mind who
//! copies a line: 0 and 7 are Sunday, and where both day fields are restricted a day matches if *either* does. The
//! `cron` crate, which does the calendar arithmetic, means something else by the same text (seconds first, Sunday is
//! 1, both day fields must match, a time skipped by daylight saving is no time at all). So its parser never sees
//! what was written: `field` reads that, and the crate gets plain lists of numbers, one schedule for each side of the
//! *either*, to be asked about naive local time only.
//!
//! Local time becomes an instant here, once, by two rules that lose no run and make none run twice: a time that
//! daylight saving skips is due at the first instant after the gap, and a time that occurs twice is due at its first
//! occurrence. The second rule has a price: while an hour is repeated nothing is due, also not a job that runs every
//! few minutes. [`Crontab::longest_gap`] shows it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, LocalResult, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use cron::Schedule;

mod field;
#[cfg(test)]
mod tests;

pub use field::Field;
use field::Values;

/// The last year that is searched: the calendar of the `cron` crate ends here.
const LAST_YEAR: i32 = 2100;

/// How far [`Crontab::longest_gap`] looks: a leap year, so that every date has its turn.
const YEAR: TimeDelta = TimeDelta::days(366);

/// Nicknames and the fields that they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Why a text is no crontab time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrontabError {
    /// Not five fields: seconds, a year or the command were written as well, or something is missing.
    #[error("`{text}` has {found} fields instead of five: minute, hour, day of month, month, day of week")]
    FieldCount {
        /// The whole text.
        text: String,
        /// How many fields it has.
        found: usize,
    },
    /// A word with `@` that stands for no calendar time, such as `@reboot`.
    #[error("`{text}` is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually")]
    Nickname {
        /// The whole text.
        text: String,
    },
    /// A number, name, range or step that the field does not have.
    #[error("`{item}` in the {field} of `{text}`: {why}; allowed are {}", field.allowed())]
    Value {
        /// The whole text.
        text: String,
        /// Which of the five fields.
        field: Field,
        /// The element of the field's comma list.
        item: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The calendar engine refused lists that were checked here: a defect of this crate, reported instead of hidden.
    #[error("`{text}` was understood but can not be scheduled: {why}")]
    Engine {
        /// The whole text.
        text: String,
        /// What the engine said.
        why: String,
    },
}

/// A line of crontab time fields, checked. `Display` gives the text as it was written.
#[derive(Debug, Clone)]
pub struct Crontab {
    text: String,
    /// Due when any of them is: one, or two where both day fields are restricted. In naive local time.
    schedules: Vec<Schedule>,
}

impl Crontab {
    /// Reads five fields or a nickname (`@daily`). A day that never comes (`0 0 30 2 *`) is no error here:
    /// [`Self::next_after`] then says `None`.
    pub fn parse(text: &str) -> Result<Self, CrontabError> {
        let text = text.trim();
        let fields = if text.starts_with('@') {
            let known = NICKNAMES.iter().find(|(name, _)| *name == text);
            known.ok_or_else(|| CrontabError::Nickname { text: text.to_owned() })?.1
        } else {
            text
        };
        let found = fields.split_ascii_whitespace().count();
        let mut words = fields.split_ascii_whitespace();
        let [Some(minute), Some(hour), Some(month_day), Some(month), Some(week_day), None] =
            std::array::from_fn(|_| words.next())
        else {
            return Err(CrontabError::FieldCount { text: text.to_owned(), found });
        };
        let read = |field: Field, written: &str| {
            field.read(written).map_err(|refused| CrontabError::Value {
                text: text.to_owned(),
                field,
                item: refused.item,
                why: refused.why,
            })
        };
        let (minute, hour) = (read(Field::Minute, minute)?, read(Field::Hour, hour)?);
        let (month_day, month) = (read(Field::MonthDay, month_day)?, read(Field::Month, month)?);
        let week_day = read(Field::WeekDay, week_day)?;

        // Vixie-cron's rule goes by the first character: `*/2` counts as unrestricted here and still restricts.
        let pairs = if month_day.starred || week_day.starred {
            vec![(month_day, week_day)]
        } else {
            vec![(month_day, Values::all(Field::WeekDay)), (Values::all(Field::MonthDay), week_day)]
        };
        let engine = |(month_day, week_day): (Values, Values)| {
            let lists = format!("0 {minute} {hour} {month_day} {month} {week_day}");
            Schedule::from_str(&lists)
                .map_err(|error| CrontabError::Engine { text: text.to_owned(), why: error.to_string() })
        };
        let schedules = pairs.into_iter().map(engine).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), schedules })
    }

    /// The first instant after `instant` at which a job with this line is due, its fields read in `tz`.
    ///
    /// `None` if that never is, or not before the year 2101. Nothing is due before 1970.
    pub fn next_after(&self, instant: DateTime<Utc>, tz: Tz) -> Option<DateTime<Utc>> {
        // Local time has no room at the ends of what an instant can be, and the engine no years.
        let instant = instant.max(DateTime::UNIX_EPOCH);
        if instant.year() > LAST_YEAR {
            return None;
        }
        // Every local time up to this one is due at `instant` or before, as the mapping never goes backwards. Some
        // later ones may be too, while an hour is repeated: those are passed over.
        let mut local = instant.with_timezone(&tz).naive_local();
        loop {
            local = self.next_local(local)?;
            let due = instant_of(local, tz)?;
            if due > instant {
                return Some(due);
            }
        }
    }

    /// The longest interval between two consecutive runs, of which the first lies within a year (366 days) after
    /// `from`; if none does, the interval after the first run of all.
    ///
    /// A schedule can not promise a younger backup than this: it is what an RPO is compared with. Daylight saving is
    /// in it (a nightly job at an hour that is not skipped has one interval of 25 hours). `None` if fewer than two
    /// runs are ahead.
    pub fn longest_gap(&self, from: DateTime<Utc>, tz: Tz) -> Option<TimeDelta> {
        let end = from.checked_add_signed(YEAR)?;
        let mut run = self.next_after(from, tz)?;
        let mut longest = None;
        while longest.is_none() || run <= end {
            let Some(next) = self.next_after(run, tz) else { break };
            longest = longest.max(Some(next - run));
            run = next;
        }
        longest
    }

    /// The next matching naive local time strictly after `local`.
    fn next_local(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        if local.year() > LAST_YEAR {
            return None;
        }
        // The engine knows no naive time: UTC, which has neither gaps nor folds, stands in for it.
        let after = local.and_utc();
        let next = self.schedules.iter().filter_map(|schedule| schedule.after(&after).next()).min();
        next.map(|due| due.naive_utc())
    }
}

/// The instant that a naive local time means: in a gap the first instant after it, in a fold the first of the two.
fn instant_of(local: NaiveDateTime, tz: Tz) -> Option<DateTime<Utc>> {
    let mapped = match tz.from_local_datetime(&local) {
        LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => instant,
        LocalResult::None => GapInfo::new(&local, &tz)?.end?,
    };
    Some(mapped.to_utc())
}

impl fmt::Display for Crontab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Crontab {
    type Err = CrontabError;

    fn from_str(text: &str) -> Result<Self, CrontabError> {
        Self::parse(text)
    }
}

impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Crontab {}

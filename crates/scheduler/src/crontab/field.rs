//! One of the five fields: from what is written to the set of values that it means.
//!
//! Refused rather than guessed, since crons differ in what they make of it: a range that runs backwards, a step
//! without a range (`5/10`), a step that is longer than the field, and signs from other dialects (`?`, `L`, `W`, `#`).

use std::fmt;

/// Which of the five fields of a crontab line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    MonthDay,
    /// 1 to 12 or names.
    Month,
    /// 0 to 7 or names; 0 and 7 are Sunday.
    WeekDay,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEK_DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Field {
    /// What may stand in this field, as a message says it.
    pub fn allowed(self) -> &'static str {
        match self {
            Self::Minute => "0 to 59, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
            Self::Hour => "0 to 23, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
            Self::MonthDay => "1 to 31, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
            Self::Month => "1 to 12 or jan to dec, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
            Self::WeekDay => "0 to 7 (0 and 7 are Sunday) or sun to sat, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        }
    }

    /// The numbers that may be written, both included.
    fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::MonthDay => (1, 31),
            Self::Month => (1, 12),
            Self::WeekDay => (0, 7),
        }
    }

    /// Names of values and the value of the first.
    fn names(self) -> (&'static [&'static str], u8) {
        match self {
            Self::Month => (&MONTHS, 1),
            Self::WeekDay => (&WEEK_DAYS, 0),
            _ => (&[], 0),
        }
    }

    pub(super) fn read(self, written: &str) -> Result<Values, Refused> {
        let mut values = Values { field: self, starred: written.starts_with('*'), bits: 0 };
        for item in written.split(',') {
            values.bits |= self.item(item).map_err(|why| Refused { item: item.to_owned(), why })?;
        }
        if self == Self::WeekDay && values.bits & (1 << 7) != 0 {
            values.bits = (values.bits | 1) & !(1 << 7);
        }
        Ok(values)
    }

    /// The values of one element of a comma list, one bit each.
    fn item(self, item: &str) -> Result<u64, &'static str> {
        let (lowest, highest) = self.bounds();
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = if range == "*" {
            (lowest, highest)
        } else if let Some((first, last)) = range.split_once('-') {
            (self.value(first)?, self.value(last)?)
        } else if step.is_some() {
            return Err("a step needs a range before it");
        } else {
            let value = self.value(range)?;
            (value, value)
        };
        if first > last {
            return Err("the range runs backwards");
        }
        let step = match step.map(number) {
            None => 1,
            Some(Some(step)) if (1..=highest).contains(&step) => step,
            Some(_) => return Err("not a step that fits into the field"),
        };
        Ok((first..=last).step_by(step.into()).fold(0, |bits, value| bits | 1 << value))
    }

    /// One number or name.
    fn value(self, text: &str) -> Result<u8, &'static str> {
        let (lowest, highest) = self.bounds();
        let (names, first) = self.names();
        let by_name = (first..).zip(names).find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(value, _)| value);
        by_name
            .or_else(|| number(text))
            .filter(|value| (lowest..=highest).contains(value))
            .ok_or("no value of the field")
    }
}

/// Digits only: `FromStr` of the integers takes a sign as well.
fn number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::MonthDay => "day of month",
            Self::Month => "month",
            Self::WeekDay => "day of week",
        })
    }
}

/// The part of a field that was refused, and why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) item: String,
    pub(super) why: &'static str,
}

/// The values of a field. `Display` writes them for the `cron` crate: a list of numbers, Sunday as 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    field: Field,
    /// The field began with `*`, which is what decides how the two day fields are combined.
    pub(super) starred: bool,
    /// One bit for each value; Sunday is bit 0 only.
    bits: u64,
}

impl Values {
    /// Every value of `field`.
    pub(super) fn all(field: Field) -> Self {
        let (lowest, highest) = field.bounds();
        let highest = if field == Field::WeekDay { 6 } else { highest };
        Self { field, starred: true, bits: (lowest..=highest).fold(0, |bits, value| bits | 1 << value) }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shift = u8::from(self.field == Field::WeekDay);
        let mut comma = "";
        for value in (0..64).filter(|value| self.bits & (1 << value) != 0) {
            write!(f, "{comma}{}", value + shift)?;
            comma = ",";
        }
        Ok(())
    }
}

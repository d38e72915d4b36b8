//! Lengths of time as the configuration and the command line write them: `90s`, `5m`, `36h`, `7d`, `4w`.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

/// A length of time in whole seconds, at most a thousand years of 365 days (so that no sum or date overflows).
///
/// Written as one whole number and one unit: `s`, `m` (minutes), `h`, `d` (24 hours), `w` (7 days).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span {
    seconds: u64,
}

/// A text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration: {why}")]
pub struct SpanError {
    /// The text that was refused.
    pub text: String,
    /// What is wrong with it, and what would have been accepted.
    pub why: &'static str,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const LONGEST: u64 = 365_000 * DAY;

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self { seconds: 0 };

    /// `seconds` seconds, cut at the longest span.
    pub const fn seconds(seconds: u64) -> Self {
        Self { seconds: if seconds > LONGEST { LONGEST } else { seconds } }
    }

    /// `hours` hours, cut at the longest span.
    pub const fn hours(hours: u64) -> Self {
        Self::seconds(hours.saturating_mul(HOUR))
    }

    /// `days` times 24 hours, cut at the longest span.
    pub const fn days(days: u64) -> Self {
        Self::seconds(days.saturating_mul(DAY))
    }

    /// The length in seconds.
    pub const fn as_seconds(self) -> u64 {
        self.seconds
    }

    /// The same length for `std`: timeouts and sleeps.
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.seconds)
    }

    /// The same length for arithmetic on instants.
    pub fn as_delta(self) -> TimeDelta {
        // At most `LONGEST`, which is far below either sign.
        TimeDelta::seconds(self.seconds.cast_signed())
    }

    /// The length of an interval between two instants, in whole seconds; zero if it runs backwards.
    pub fn of_delta(delta: TimeDelta) -> Self {
        Self::seconds(u64::try_from(delta.num_seconds()).unwrap_or(0))
    }

    /// Both lengths together, cut at the longest span.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::seconds(self.seconds + other.seconds)
    }

    /// For people: whole units, rounded down, in the largest of which there are at least two (`47h`, `11d`).
    pub fn rough(self) -> String {
        let (unit, letter) = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')]
            .into_iter()
            .find(|(unit, _)| self.seconds >= 2 * unit)
            .unwrap_or((1, 's'));
        format!("{}{letter}", self.seconds / unit)
    }
}

impl fmt::Display for Span {
    /// Exact, in the largest unit that leaves no rest; weeks are written as days.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, letter) = [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')]
            .into_iter()
            .find(|(unit, _)| self.seconds > 0 && self.seconds.is_multiple_of(*unit))
            .unwrap_or((1, 's'));
        write!(f, "{}{letter}", self.seconds / unit)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refused = |why| SpanError { text: text.to_owned(), why };
        let form = "write a whole number and one of the units s, m, h, d, w";
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => MINUTE,
            Some(b'h') => HOUR,
            Some(b'd') => DAY,
            Some(b'w') => 7 * DAY,
            _ => return Err(refused(form)),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused(form));
        }
        let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
        match seconds.filter(|seconds| *seconds <= LONGEST) {
            Some(seconds) => Ok(Self { seconds }),
            None => Err(refused("it is longer than a thousand years")),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn reads_each_unit_and_writes_it_back() {
        let table = [
            ("0s", 0, "0s", "0s"),
            ("90s", 90, "90s", "90s"),
            ("5m", 300, "5m", "5m"),
            ("60m", 3600, "1h", "60m"),
            ("36h", 129_600, "36h", "36h"),
            ("48h", 172_800, "2d", "2d"),
            ("7d", 604_800, "7d", "7d"),
            ("4w", 2_419_200, "28d", "28d"),
            ("950401s", 950_401, "950401s", "11d"),
        ];
        for (text, seconds, exact, rough) in table {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.as_seconds(), span.to_string().as_str(), span.rough().as_str()), (seconds, exact, rough));
            assert_eq!(exact.parse::<Span>().unwrap(), span);
            assert_eq!(span.as_delta().num_seconds(), i64::try_from(seconds).unwrap());
            assert_eq!(Span::of_delta(span.as_delta()), span);
            assert_eq!(span.as_duration().as_secs(), seconds);
        }
        assert_eq!((Span::hours(36), Span::days(28)), ("36h".parse().unwrap(), "4w".parse().unwrap()));
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in ["", "7", "d", "7 d", " 7d", "+7d", "-7d", "1.5h", "1d12h", "7D", "7days", "7M", "7y", "٣d", "7µ"]
        {
            assert!(text.parse::<Span>().is_err(), "`{text}` was taken");
        }
        let long = "365001d".parse::<Span>().unwrap_err();
        assert_eq!(long.to_string(), "`365001d` is not a duration: it is longer than a thousand years");
        assert!("99999999999999999999s".parse::<Span>().is_err());
        assert!("18446744073709551615w".parse::<Span>().is_err());
        assert_eq!("365000d".parse::<Span>().unwrap(), Span::seconds(u64::MAX));
    }
}

//! Lengths of time as people write them in a configuration: `90s`, `30m`, `36h`, `7d`, `4w`.
//!
//! One unit, whole numbers: `1h30m` is refused, because a length that needs reading twice is written wrongly once.
//! There is no month and no year: they have no fixed length (the tiers of `keep` count them instead).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration")]
pub struct SpanError {
    /// The text that was refused.
    pub text: String,
}

/// A length of time in whole seconds, at most 100 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
const MAX_SECONDS: u64 = 36_525 * 86_400;

impl Span {
    /// So many seconds; more than 100 years are cut to 100 years.
    pub const fn seconds(seconds: u64) -> Self {
        Self(if seconds > MAX_SECONDS { MAX_SECONDS } else { seconds })
    }

    /// So many minutes.
    pub const fn minutes(minutes: u64) -> Self {
        Self::seconds(minutes.saturating_mul(60))
    }

    /// So many hours.
    pub const fn hours(hours: u64) -> Self {
        Self::seconds(hours.saturating_mul(3_600))
    }

    /// So many days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self::seconds(days.saturating_mul(86_400))
    }

    /// The length in seconds.
    pub const fn as_seconds(self) -> u64 {
        self.0
    }

    /// The length for timers of the standard library and tokio.
    pub const fn as_std(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// The length for arithmetic with instants.
    pub fn as_chrono(self) -> chrono::TimeDelta {
        chrono::TimeDelta::seconds(self.0.cast_signed())
    }
}

impl fmt::Display for Span {
    /// Writes the largest unit that needs no fraction, days at most (`14d`, not `2w`), so that equal lengths read equal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) = UNITS[1..]
            .iter()
            .find(|(_, seconds)| self.0 >= *seconds && self.0.is_multiple_of(*seconds))
            .unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let refused = || SpanError { text: text.to_owned() };
        let unit = text.chars().next_back().ok_or_else(refused)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let count: u64 = digits.parse().map_err(|_| refused())?;
        let total = count.checked_mul(*seconds).ok_or_else(refused)?;
        if total > MAX_SECONDS { Err(refused()) } else { Ok(Self(total)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_one_unit() {
        for (text, seconds, shown) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("60s", 60, "1m"),
            ("30m", 1_800, "30m"),
            ("36h", 129_600, "36h"),
            ("24h", 86_400, "1d"),
            ("2w", 1_209_600, "14d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.as_seconds(), seconds, "{text}");
            assert_eq!(span.to_string(), shown);
            assert_eq!(shown.parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn refuses_what_could_be_misread() {
        for text in [
            "",
            "7",
            "d",
            "-7d",
            "+7d",
            "1h30m",
            "1.5h",
            "7 d",
            "7D",
            "3M",
            "1y",
            "7dä",
            "101000d",
            "99999999999999999999s",
        ] {
            assert_eq!(text.parse::<Span>(), Err(SpanError { text: text.into() }), "{text}");
        }
    }
}

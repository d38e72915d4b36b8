//! Sizes as people write them: `256MiB`, `20MB`, `5%`, `20MiB/s`.
//!
//! Binary and decimal units are told apart (`MiB` and `MB`), whole numbers only.

use std::fmt;
use std::str::FromStr;

/// A text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct SizeError {
    /// The text that was refused.
    pub text: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Larger units first; `B` last, because every other unit ends with it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SIZE: &str = "a size";

impl fmt::Display for ByteSize {
    /// Writes the largest unit that needs no fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = UNITS
            .iter()
            .filter(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes))
            .max_by_key(|(_, bytes)| *bytes)
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let refused = || SizeError { text: text.to_owned(), expected: SIZE };
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, bytes)| text.strip_suffix(name).map(|digits| (digits, *bytes)))
            .ok_or_else(refused)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit)).map(Self).ok_or_else(refused)
    }
}

/// Bytes per second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub ByteSize);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rate {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let refused = || SizeError { text: text.to_owned(), expected: "a rate" };
        let size: ByteSize = text.strip_suffix("/s").ok_or_else(refused)?.parse().map_err(|_| refused())?;
        if size.0 == 0 { Err(refused()) } else { Ok(Self(size)) }
    }
}

/// Room to leave free in a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reserve {
    /// So many hundredths of the whole, 0 to 99.
    Percent(u8),
    /// So many bytes.
    Bytes(ByteSize),
}

impl Reserve {
    /// The bytes to leave free in a place of `total_bytes`.
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) => total_bytes / 100 * u64::from(percent),
            Self::Bytes(size) => size.0,
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(size) => size.fmt(f),
        }
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reserve {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let refused = || SizeError { text: text.to_owned(), expected: "a size or a percentage under 100" };
        match text.strip_suffix('%') {
            Some(digits) if digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(Self::Percent).map_err(|_| refused())
            }
            Some(_) => Err(refused()),
            None => text.parse().map(Self::Bytes).map_err(|_| refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_binary_from_decimal_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("1KiB", 1_024),
            ("1kB", 1_000),
            ("256MiB", 268_435_456),
            ("20MB", 20_000_000),
            ("3TiB", 3 << 40),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("1024KiB".parse::<ByteSize>().unwrap().to_string(), "1MiB");
        assert_eq!("20MiB/s".parse::<Rate>().unwrap().to_string(), "20MiB/s");
        assert_eq!("5%".parse::<Reserve>().unwrap().of(1_000), 50);
        assert_eq!("2GiB".parse::<Reserve>().unwrap().of(1_000), 2 << 30);
    }

    #[test]
    fn refuses_what_could_be_misread() {
        for text in ["", "1", "MiB", "1.5MiB", "-1B", "1 MiB", "1mib", "1M", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["20MiB", "0B/s", "/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["100%", "%", "-5%", "5"] {
            assert!(text.parse::<Reserve>().is_err(), "{text}");
        }
    }
}

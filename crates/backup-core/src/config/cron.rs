//! Whether a text is a standard five-field crontab expression, and how far apart its runs are at least once a day.
//!
//! Only what a configuration needs: refuse what is no expression, and notice a schedule that cannot meet an RPO. When
//! a job runs next is the scheduler's subject.

use super::span::Span;

/// A text is no crontab expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CronError {
    /// Not five fields.
    #[error("has {found} fields, not the five `minute hour day month weekday`")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// An unknown `@word`.
    #[error("`{text}` is not one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually")]
    Word {
        /// The word.
        text: String,
    },
    /// A field has an unknown form or leaves its range.
    #[error("`{text}` is not a {field} ({low}-{high})")]
    Field {
        /// The text of the field.
        text: String,
        /// Which field.
        field: &'static str,
        /// Least value.
        low: u32,
        /// Greatest value.
        high: u32,
    },
}

const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of the week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Checks `text` and gives a lower bound of its longest pause: no schedule with this bound above an RPO can meet it.
pub(super) fn longest_pause(text: &str) -> Result<Span, CronError> {
    let text = text.trim();
    if text.starts_with('@') {
        return match text {
            "@hourly" => Ok(Span::hours(1)),
            "@daily" | "@midnight" => Ok(Span::days(1)),
            "@weekly" => Ok(Span::days(7)),
            "@monthly" => Ok(Span::days(31)),
            "@yearly" | "@annually" => Ok(Span::days(365)),
            _ => Err(CronError::Word { text: text.to_owned() }),
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(CronError::Fields { found: fields.len() });
    }
    let mut values = Vec::new();
    for (text, (field, low, high, names)) in fields.iter().zip(FIELDS) {
        values.push(field_values(text, field, low, high, names)?);
    }
    // Fewer days only lengthen the pauses of a day, so the day's own pauses are a lower bound.
    let minutes: Vec<u32> =
        values[1].iter().flat_map(|hour| values[0].iter().map(move |minute| hour * 60 + minute)).collect();
    let wrap = minutes.first().map_or(0, |first| first + 24 * 60);
    let longest = minutes.iter().zip(minutes.iter().skip(1).chain([&wrap])).map(|(a, b)| b - a).max().unwrap_or(0);
    Ok(Span::minutes(u64::from(longest)))
}

/// The values of one field, sorted, each once.
fn field_values(text: &str, field: &'static str, low: u32, high: u32, names: &[&str]) -> Result<Vec<u32>, CronError> {
    let refused = || CronError::Field { text: text.to_owned(), field, low, high };
    let value = |part: &str| -> Option<u32> {
        if let Some(at) = names.iter().position(|name| name.eq_ignore_ascii_case(part)) {
            return Some(low + u32::try_from(at).ok()?);
        }
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|number| digits && (low..=high).contains(number))
    };
    let mut all = Vec::new();
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|s| *s > 0).ok_or_else(refused)?)),
            None => (item, None),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (low, high),
            (_, Some((from, to))) => (value(from).ok_or_else(refused)?, value(to).ok_or_else(refused)?),
            // A step needs something to step over.
            (_, None) if step.is_some() => return Err(refused()),
            (one, None) => value(one).map(|v| (v, v)).ok_or_else(refused)?,
        };
        if from > to {
            return Err(refused());
        }
        all.extend((from..=to).step_by(step.unwrap_or(1) as usize));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_the_longest_pause() {
        for (text, pause) in [
            ("0 2 * * *", Span::days(1)),
            ("*/15 * * * *", Span::minutes(15)),
            ("0 * * * *", Span::hours(1)),
            ("0 8-18/2 * * mon-fri", Span::hours(14)),
            ("0 0,12 1 JAN 7", Span::hours(12)),
            ("5,35 * * * *", Span::minutes(30)),
            ("@daily", Span::days(1)),
            ("@hourly", Span::hours(1)),
        ] {
            assert_eq!(longest_pause(text), Ok(pause), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_expression() {
        for text in [
            "",
            "0 2 * *",
            "0 0 2 * * *",
            "@nightly",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5/10 * * * *",
            "18-8 * * * *",
            "a * * * *",
            "+1 * * * *",
            ", * * * *",
            "* * * foo *",
        ] {
            assert!(longest_pause(text).is_err(), "{text}");
        }
    }
}

//! Instants in the text of rows, told apart from how they are written.
//!
//! `pg_dump` sets no time zone: a `timestamptz` stands in a dump as the clocks of the dumping server's default zone showed
//! it, with that zone's offset, and reads back as those of another. Nothing in a dump tells the zone or the columns'
//! types. So whatever looks like such a value, anywhere in a row (arrays, ranges and composites have them too), is summed
//! as seconds since 1970: both in the dump and in what is read back, hence never a difference where there is none. That
//! two different texts of one instant count as equal is the price.

use std::borrow::Cow;

/// The row with each `YYYY-MM-DD HH:MM:SS[.f]±HH[:MM[:SS]][ BC]` written as `@` and seconds, its fraction as it was.
pub(super) fn normal(row: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = row[at..].iter().position(|byte| *byte == b' ') {
        let space = at + found;
        at = space + 1;
        let Some(instant) = read(row, space).filter(|instant| instant.start >= copied) else { continue };
        let out = out.get_or_insert_with(|| Vec::with_capacity(row.len()));
        out.extend_from_slice(&row[copied..instant.start]);
        out.push(b'@');
        out.extend_from_slice(instant.seconds.to_string().as_bytes());
        out.extend_from_slice(instant.fraction);
        (copied, at) = (instant.end, instant.end);
    }
    match out {
        None => Cow::Borrowed(row),
        Some(mut out) => {
            out.extend_from_slice(&row[copied..]);
            Cow::Owned(out)
        }
    }
}

struct Instant<'a> {
    start: usize,
    end: usize,
    seconds: i64,
    fraction: &'a [u8],
}

/// Reads the instant whose date and time are parted by the blank at `space`.
fn read(row: &[u8], space: usize) -> Option<Instant<'_>> {
    let byte = |at: usize| row.get(at).copied();
    let two = |at: usize| {
        let digit = |at| byte(at).filter(u8::is_ascii_digit).map(|digit| i64::from(digit - b'0'));
        Some(digit(at)? * 10 + digit(at + 1)?)
    };
    let date = space.checked_sub(10)?;
    if byte(space - 3) != Some(b'-') || byte(space - 6) != Some(b'-') {
        return None;
    }
    if byte(space + 3) != Some(b':') || byte(space + 6) != Some(b':') {
        return None;
    }
    let (month, day) = (two(space - 5)?, two(space - 2)?);
    let (hour, minute, second) = (two(space + 1)?, two(space + 4)?, two(space + 7)?);
    if !row[date..space - 6].iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Years beyond 9999 have more digits.
    let more = row[..date].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let start = date - more;
    let mut year: i64 =
        std::str::from_utf8(&row[start..space - 6]).ok()?.parse().ok().filter(|year| *year < 1_000_000)?;
    let mut end = space + 9;
    let digits = row.get(end + 1..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count();
    if byte(end) == Some(b'.') && digits > 0 {
        end += 1 + digits;
    }
    let fraction = &row[space + 9..end];
    let sign = match byte(end)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut offset = two(end + 1)? * 3600;
    end += 3;
    for unit in [60, 1] {
        match two(end + 1) {
            Some(number) if byte(end) == Some(b':') => {
                offset += number * unit;
                end += 3;
            }
            _ => break,
        }
    }
    if row[end..].starts_with(b" BC") {
        year = 1 - year;
        end += 3;
    }
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - sign * offset;
    Some(Instant { start, end, seconds, fraction })
}

/// Days since 1970-01-01 in the Gregorian calendar, counted by years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(row: &str) -> String {
        String::from_utf8(normal(row.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn one_instant_is_one_text_in_every_zone() {
        let utc = of("1\t2024-03-10 07:08:17.409828+00\tx");
        assert_eq!(utc, "1\t@1710054497.409828\tx");
        for other in
            ["2024-03-10 02:08:17.409828-05", "2024-03-10 12:53:17.409828+05:45", "2024-03-10 07:28:09.409828+00:19:52"]
        {
            assert_eq!(of(&format!("1\t{other}\tx")), utc, "{other}");
        }
        assert_ne!(of("1\t2024-03-10 07:08:18.409828+00\tx"), utc);
        assert_eq!(of("1970-01-01 01:00:00+01"), "@0");
        assert_eq!(of("0001-01-01 00:00:00+00"), of("0001-12-31 19:03:44-04:56:16 BC"));
        assert_eq!(of("12345-01-01 00:00:00+00"), of("12344-12-31 19:00:00-05"));
    }

    #[test]
    fn they_are_found_anywhere_and_nothing_else_is() {
        assert_eq!(of("{\"1970-01-01 00:00:01+00\",\"1970-01-01 01:00:02+01\"}"), "{\"@1\",\"@2\"}");
        let others = [
            "2024-03-10 07:08:17",
            "2024-03-10T07:08:17+00",
            "24-03-10 07:08:17+00",
            "2024-13-10 07:08:17+00",
            "07:08:17-05",
            " a b  ",
            "2024-03-10 07:08:17.+00",
            "2024-03-10 ",
            "",
        ];
        for other in others {
            assert_eq!(of(other), other);
        }
    }
}

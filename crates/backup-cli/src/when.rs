//! Instants as people write them for `--at`. Pure: now and the time zone are arguments.
//!
//! - RFC 3339 (`2026-03-01T14:30:00-05:00`): that instant.
//! - `2026-03-01 14:30`: that minute of the stack's clocks. Where they are set back it is the first of the two; where
//!   they skip it, the first instant after.
//! - `2026-03-01`, `yesterday`: the *end* of that day, so that "the newest snapshot that is not later" is that day's.
//! - `-36h`, `-7d`: so long ago, in hours of 60 minutes and days of 24 hours.

use backup_core::config::Span;
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::error::CliError;

const HINT: &str = "write `2026-03-01`, `2026-03-01 14:30`, `2026-03-01T14:30:00Z`, `yesterday` or `-36h`";

/// Reads `text` as an instant.
pub(crate) fn parse(text: &str, now: DateTime<Utc>, timezone: Tz) -> Result<DateTime<Utc>, CliError> {
    let text = text.trim();
    let refused = || CliError::usage(format!("`{text}` is not a time")).hint(HINT);
    let today = now.with_timezone(&timezone).date_naive();
    let end_of_day = |day: NaiveDate| -> Result<DateTime<Utc>, CliError> {
        let next = day.checked_add_days(Days::new(1)).and_then(|day| day.and_hms_opt(0, 0, 0)).ok_or_else(refused)?;
        Ok(instant(next, timezone).ok_or_else(refused)? - TimeDelta::microseconds(1))
    };
    let found = if let Some(span) = text.strip_prefix('-') {
        now - span.parse::<Span>().map_err(|_| refused())?.as_chrono()
    } else if text == "yesterday" {
        end_of_day(today.pred_opt().ok_or_else(refused)?)?
    } else if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        at.with_timezone(&Utc)
    } else if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        end_of_day(day)?
    } else {
        let local = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
            .ok_or_else(refused)?;
        instant(local, timezone).ok_or_else(refused)?
    };
    // Today's end is still to come and is a good answer; a later day is a mistyped year that would mean "newest".
    if found > end_of_day(today)? {
        return Err(
            CliError::usage(format!("`{text}` has not come yet")).hint("use `--latest` for the newest snapshot")
        );
    }
    Ok(found)
}

/// The instant when clocks in `timezone` show `local`: the first of two, or the first after a gap.
fn instant(local: NaiveDateTime, timezone: Tz) -> Option<DateTime<Utc>> {
    if let Some(at) = timezone.from_local_datetime(&local).earliest() {
        return Some(at.with_timezone(&Utc));
    }
    // In a gap: before it the offset was the old one, so reading the clock by that offset lands behind the gap by as
    // much as `local` was inside it; go back to the minute at which the gap ended.
    (1..=24 * 60)
        .map(|minutes| local + TimeDelta::minutes(minutes))
        .find_map(|later| timezone.from_local_datetime(&later).earliest())
        .map(|at| at.with_timezone(&Utc) - TimeDelta::seconds(i64::from(chrono::Timelike::second(&at))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono_tz::{America::Bogota, Europe::Berlin};

    fn at(text: &str, timezone: Tz) -> String {
        // 21:30 on the 9th in Bogotá, 04:30 on the 10th in Berlin.
        let now = "2026-04-10T02:30:00Z".parse().unwrap();
        match parse(text, now, timezone) {
            Ok(instant) => instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn reads_every_documented_form_in_the_stacks_time_zone() {
        for (text, timezone, instant) in [
            ("2026-03-01T14:30:00-05:00", Berlin, "2026-03-01T19:30:00Z"),
            ("2026-03-01T14:30:00.25Z", Bogota, "2026-03-01T14:30:00.250Z"),
            ("2026-03-01 14:30", Bogota, "2026-03-01T19:30:00Z"),
            ("2026-03-01 14:30:10", Berlin, "2026-03-01T13:30:10Z"),
            ("2026-03-01", Bogota, "2026-03-02T04:59:59.999999Z"),
            ("2026-03-01", chrono_tz::UTC, "2026-03-01T23:59:59.999999Z"),
            ("yesterday", Bogota, "2026-04-09T04:59:59.999999Z"),
            ("yesterday", Berlin, "2026-04-09T21:59:59.999999Z"),
            ("-36h", Bogota, "2026-04-08T14:30:00Z"),
            ("-7d", Berlin, "2026-04-03T02:30:00Z"),
            ("-0s", Berlin, "2026-04-10T02:30:00Z"),
            ("2026-04-09", Bogota, "2026-04-10T04:59:59.999999Z"),
        ] {
            assert_eq!(at(text, timezone), instant, "{text} in {timezone}");
        }
    }

    #[test]
    fn a_skipped_time_is_the_first_instant_after_and_a_repeated_one_the_first() {
        // Berlin skips 02:00 to 03:00 on 2026-03-29 and repeats 02:00 to 03:00 on 2025-10-26.
        assert_eq!(at("2026-03-29 02:30", Berlin), "2026-03-29T01:00:00Z");
        assert_eq!(at("2026-03-29 02:30:40", Berlin), "2026-03-29T01:00:00Z");
        assert_eq!(at("2025-10-26 02:30", Berlin), "2025-10-26T00:30:00Z");
    }

    #[test]
    fn refuses_what_is_no_time_or_has_not_come() {
        for text in
            ["", "now", "tomorrow", "36h", "-36", "2026-13-01", "2026-02-29", "01.03.2026", "2026-03-01 25:00", "14:30"]
        {
            assert_eq!(at(text, Berlin), format!("`{text}` is not a time"));
        }
        for text in ["2062-03-01", "2026-04-10", "2026-04-10T05:00:00Z"] {
            assert_eq!(at(text, Bogota), format!("`{text}` has not come yet"));
        }
    }
}

use chrono::{NaiveDate, Timelike};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// The next runs after `from`, as local wall times with offset.
fn runs(line: &str, tz: Tz, from: &str, count: usize) -> Vec<String> {
    let line = Crontab::parse(line).unwrap();
    let mut instant = at(from);
    std::iter::from_fn(|| {
        instant = line.next_after(instant, tz)?;
        Some(instant.with_timezone(&tz).format("%Y-%m-%dT%H:%M%z").to_string())
    })
    .take(count)
    .collect()
}

/// Line, instant to start after (a Friday), and the next runs in UTC worked out with a calendar.
const GOLDEN: &[(&str, &[&str])] = &[
    ("* * * * *", &["2026-05-15T10:08", "2026-05-15T10:09"]),
    ("*/15 * * * *", &["2026-05-15T10:15", "2026-05-15T10:30"]),
    ("7 * * * *", &["2026-05-15T11:07", "2026-05-15T12:07"]),
    ("0 2 * * *", &["2026-05-16T02:00", "2026-05-17T02:00"]),
    ("0-10/5,58 10 * * *", &["2026-05-15T10:10", "2026-05-15T10:58", "2026-05-16T10:00"]),
    ("30 4 1,15 * *", &["2026-06-01T04:30", "2026-06-15T04:30"]),
    ("0 0 31 * *", &["2026-05-31T00:00", "2026-07-31T00:00", "2026-08-31T00:00"]),
    ("0 22 * * 1-5", &["2026-05-15T22:00", "2026-05-18T22:00"]),
    ("0 22 * * mon-FRI", &["2026-05-15T22:00", "2026-05-18T22:00"]),
    ("5 4 * * 0", &["2026-05-17T04:05", "2026-05-24T04:05"]),
    ("5 4 * * 7", &["2026-05-17T04:05", "2026-05-24T04:05"]),
    ("5 4 * * sun", &["2026-05-17T04:05", "2026-05-24T04:05"]),
    ("0 0 * * 6-7", &["2026-05-16T00:00", "2026-05-17T00:00", "2026-05-23T00:00"]),
    // Steps count from the first value, and from 0 in the day of week: 0, 3 and 6.
    ("0 0 * * */3", &["2026-05-16T00:00", "2026-05-17T00:00", "2026-05-20T00:00", "2026-05-23T00:00"]),
    ("0 0 1 jan,Jul *", &["2026-07-01T00:00", "2027-01-01T00:00"]),
    ("0 0 1 */5 *", &["2026-06-01T00:00", "2026-11-01T00:00", "2027-01-01T00:00"]),
    // Both day fields restricted: either.
    (
        "0 12 13 * 5",
        &[
            "2026-05-15T12:00",
            "2026-05-22T12:00",
            "2026-05-29T12:00",
            "2026-06-05T12:00",
            "2026-06-12T12:00",
            "2026-06-13T12:00",
        ],
    ),
    // `*/n` is a star to vixie-cron: both must match (odd days that are Fridays).
    ("0 12 */2 * 5", &["2026-05-15T12:00", "2026-05-29T12:00", "2026-06-05T12:00"]),
    ("0 12 15 * */5", &["2026-05-15T12:00", "2026-11-15T12:00"]),
    // A star later in the list is none: either, and the list holds every day.
    ("0 12 1,* * 1", &["2026-05-15T12:00", "2026-05-16T12:00"]),
    // A full range is no star either.
    ("0 12 1 * 0-7", &["2026-05-15T12:00", "2026-05-16T12:00"]),
    ("0 0 29 2 *", &["2028-02-29T00:00", "2032-02-29T00:00"]),
    // Leap days that are Sundays: every 28 years.
    ("0 0 29 2 */7", &["2032-02-29T00:00", "2060-02-29T00:00", "2088-02-29T00:00"]),
    ("59 23 31 12 *", &["2026-12-31T23:59", "2027-12-31T23:59"]),
    ("@hourly", &["2026-05-15T11:00", "2026-05-15T12:00"]),
    ("@daily", &["2026-05-16T00:00", "2026-05-17T00:00"]),
    ("@midnight", &["2026-05-16T00:00", "2026-05-17T00:00"]),
    ("@weekly", &["2026-05-17T00:00", "2026-05-24T00:00"]),
    ("@monthly", &["2026-06-01T00:00", "2026-07-01T00:00"]),
    ("@yearly", &["2027-01-01T00:00", "2028-01-01T00:00"]),
    ("@annually", &["2027-01-01T00:00", "2028-01-01T00:00"]),
    ("  0\t2  * * * ", &["2026-05-16T02:00"]),
];

#[test]
fn golden_lines() {
    for (line, expected) in GOLDEN {
        let found = runs(line, Tz::UTC, "2026-05-15T10:07:00Z", expected.len());
        let expected: Vec<_> = expected.iter().map(|time| format!("{time}+0000")).collect();
        assert_eq!(found, expected, "`{line}`");
    }
}

#[test]
fn a_day_that_never_comes_is_none() {
    for line in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 31 2 *"] {
        let line = Crontab::parse(line).unwrap();
        assert_eq!(line.next_after(at("2026-01-01T00:00:00Z"), Tz::UTC), None);
        assert_eq!(line.longest_gap(at("2026-01-01T00:00:00Z"), Tz::UTC), None);
    }
    // The other day field makes it possible again.
    assert_eq!(runs("0 0 30 2 1", Tz::UTC, "2026-01-01T00:00:00Z", 1), ["2026-02-02T00:00+0000"]);
    // Beyond the engine's calendar: no answer, no endless search, no panic.
    assert_eq!(Crontab::parse("@daily").unwrap().next_after(DateTime::<Utc>::MAX_UTC, Tz::UTC), None);
    assert_eq!(Crontab::parse("@daily").unwrap().next_after(at("2100-12-31T00:00:00Z"), Tz::UTC), None);
    assert!(Crontab::parse("@daily").unwrap().next_after(DateTime::<Utc>::MIN_UTC, Tz::UTC).is_some());
}

#[test]
fn strictly_after_also_with_fractions() {
    assert_eq!(runs("0 2 * * *", Tz::UTC, "2026-05-15T02:00:00Z", 1), ["2026-05-16T02:00+0000"]);
    assert_eq!(runs("0 2 * * *", Tz::UTC, "2026-05-15T02:00:00.5Z", 1), ["2026-05-16T02:00+0000"]);
    assert_eq!(runs("0 2 * * *", Tz::UTC, "2026-05-15T01:59:59.999Z", 1), ["2026-05-15T02:00+0000"]);
}

#[test]
fn a_skipped_hour_runs_at_its_end() {
    let new_york = |line, count| runs(line, Tz::America__New_York, "2026-03-07T12:00:00Z", count);
    assert_eq!(new_york("30 2 * * *", 2), ["2026-03-08T03:00-0400", "2026-03-09T02:30-0400"]);
    // All skipped times are one instant, which is also the next full hour's: one run.
    let expected = ["2026-03-08T01:40-0500", "2026-03-08T03:00-0400", "2026-03-08T03:20-0400"];
    assert_eq!(new_york("*/20 1-3 8 3 *", 5)[2..], expected);
    let berlin = runs("15 2 * * *", Tz::Europe__Berlin, "2026-03-28T12:00:00Z", 2);
    assert_eq!(berlin, ["2026-03-29T03:00+0200", "2026-03-30T02:15+0200"]);
    // Samoa skipped the whole of 30 December 2011.
    let apia = runs("0 2 * * *", Tz::Pacific__Apia, "2011-12-29T12:00:00Z", 3);
    assert_eq!(apia, ["2011-12-31T00:00+1400", "2011-12-31T02:00+1400", "2012-01-01T02:00+1400"]);
}

#[test]
fn a_repeated_hour_runs_once() {
    let new_york = runs("30 1 * * *", Tz::America__New_York, "2026-10-31T12:00:00Z", 2);
    assert_eq!(new_york, ["2026-11-01T01:30-0400", "2026-11-02T01:30-0500"]);
    let berlin = runs("30 2 * * *", Tz::Europe__Berlin, "2026-10-24T12:00:00Z", 2);
    assert_eq!(berlin, ["2026-10-25T02:30+0200", "2026-10-26T02:30+0100"]);
    // Asked from inside the repetition, nothing is due before it ends.
    let inside = runs("*/15 * * * *", Tz::Europe__Berlin, "2026-10-25T01:20:00Z", 1);
    assert_eq!(inside, ["2026-10-25T03:00+0100"]);
}

#[test]
fn a_zone_without_daylight_saving() {
    let bogota = runs("0 2 * * *", Tz::America__Bogota, "2026-03-08T06:00:00Z", 2);
    assert_eq!(bogota, ["2026-03-08T02:00-0500", "2026-03-09T02:00-0500"]);
    let line = Crontab::parse("0 2 * * *").unwrap();
    assert_eq!(line.longest_gap(at("2026-01-01T00:00:00Z"), Tz::America__Bogota), Some(TimeDelta::hours(24)));
}

#[test]
fn longest_gaps() {
    let gap = |line, tz| Crontab::parse(line).unwrap().longest_gap(at("2026-01-01T00:00:00Z"), tz).unwrap();
    assert_eq!(gap("0 2 * * *", Tz::UTC), TimeDelta::hours(24));
    assert_eq!(gap("0 5 * * *", Tz::Europe__Berlin), TimeDelta::hours(25));
    assert_eq!(gap("*/15 * * * *", Tz::UTC), TimeDelta::minutes(15));
    assert_eq!(gap("*/15 * * * *", Tz::Europe__Berlin), TimeDelta::minutes(75));
    assert_eq!(gap("0 22 * * 1-5", Tz::UTC), TimeDelta::days(3));
    assert_eq!(gap("0 8,20 * * *", Tz::UTC), TimeDelta::hours(12));
    assert_eq!(gap("0 0 31 * *", Tz::UTC), TimeDelta::days(61));
    assert_eq!(gap("@yearly", Tz::UTC), TimeDelta::days(365));
    // No run within the year: the interval after the first one.
    assert_eq!(gap("0 0 29 2 *", Tz::UTC), TimeDelta::days(1461));
}

#[test]
fn refused_lines_name_field_and_reason() {
    let table = [
        ("", "`` has 0 fields instead of five: minute, hour, day of month, month, day of week"),
        ("0 2 * *", "`0 2 * *` has 4 fields instead of five: minute, hour, day of month, month, day of week"),
        ("0 0 2 * * *", "`0 0 2 * * *` has 6 fields instead of five: minute, hour, day of month, month, day of week"),
        ("@reboot", "`@reboot` is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"),
        ("@", "`@` is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually"),
        (
            "60 2 * * *",
            "`60` in the minute of `60 2 * * *`: no value of the field; \
             allowed are 0 to 59, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "0 20-6 * * *",
            "`20-6` in the hour of `0 20-6 * * *`: the range runs backwards; \
             allowed are 0 to 23, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "0 2 1,0 * *",
            "`0` in the day of month of `0 2 1,0 * *`: no value of the field; \
             allowed are 1 to 31, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "0 2 * mon *",
            "`mon` in the month of `0 2 * mon *`: no value of the field; \
             allowed are 1 to 12 or jan to dec, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "0 2 * * 8",
            "`8` in the day of week of `0 2 * * 8`: no value of the field; \
             allowed are 0 to 7 (0 and 7 are Sunday) or sun to sat, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "5/10 * * * *",
            "`5/10` in the minute of `5/10 * * * *`: a step needs a range before it; \
             allowed are 0 to 59, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
        (
            "*/0 * * * *",
            "`*/0` in the minute of `*/0 * * * *`: not a step that fits into the field; \
             allowed are 0 to 59, `*`, `a-b`, `*/n`, `a-b/n` and lists of these",
        ),
    ];
    for (line, expected) in table {
        assert_eq!(Crontab::parse(line).unwrap_err().to_string(), expected);
    }
    let refused = [
        "*/90 * * * *",
        "+5 * * * *",
        "-5 * * * *",
        "5- * * * *",
        "1-2-3 * * * *",
        "*/ * * * *",
        "*/2/2 * * * *",
        ", * * * *",
        "1, * * * *",
        "300 * * * *",
        "** * * * *",
        "*-5 * * * *",
        "0 0 ? * *",
        "0 0 L * *",
        "0 0 15W * *",
        "0 0 * * 5#2",
        "0 0 * * friday",
        "0 0 * * fri-sun",
        "0 0 * jan-13 *",
        "0 0 0 * *",
        "0 0 32 * *",
        "0 24 * * *",
        "0 0 * 0 *",
        "٣ * * * *",
        "@DAILY",
        "@daily x",
    ];
    for line in refused {
        assert!(Crontab::parse(line).is_err(), "`{line}` was taken");
    }
}

#[test]
fn shown_as_written() {
    for line in ["0 2 * * *", "@daily", "*/15 8-18 * * Mon-fri"] {
        let parsed: Crontab = line.parse().unwrap();
        assert_eq!(parsed.to_string(), line);
    }
}

/// A second reading of `man 5 crontab`, minute by minute and without a calendar engine.
mod naive {
    use super::*;

    /// A field as it is made up by the test: its text and the values that it means.
    #[derive(Debug, Clone)]
    pub(super) struct Made {
        pub(super) text: String,
        values: Vec<u32>,
    }

    fn part(low: u32, high: u32) -> impl Strategy<Value = Made> {
        prop_oneof![
            Just(Made { text: "*".into(), values: (low..=high).collect() }),
            (low..=high).prop_map(|n| Made { text: n.to_string(), values: vec![n] }),
            (low..=high, low..=high, 1..=high).prop_map(|(a, b, step)| {
                let (a, b) = (a.min(b), a.max(b));
                let values = (a..=b).filter(|n| (n - a).is_multiple_of(step)).collect();
                let text = if step == 1 { format!("{a}-{b}") } else { format!("{a}-{b}/{step}") };
                Made { text, values }
            }),
            (1..=high).prop_map(move |step| {
                Made {
                    text: format!("*/{step}"),
                    values: (low..=high).filter(|n| (n - low).is_multiple_of(step)).collect(),
                }
            }),
        ]
    }

    pub(super) fn made(low: u32, high: u32) -> impl Strategy<Value = Made> {
        proptest::collection::vec(part(low, high), 1..3).prop_map(|parts| Made {
            text: parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join(","),
            values: parts.into_iter().flat_map(|part| part.values).collect(),
        })
    }

    pub(super) fn matches(fields: &[Made; 5], local: NaiveDateTime) -> bool {
        let [minute, hour, month_day, month, week_day] = fields;
        let day = month_day.values.contains(&local.day());
        let sunday_based = local.weekday().num_days_from_sunday();
        let week = week_day.values.iter().any(|value| value % 7 == sunday_based);
        let either = !month_day.text.starts_with('*') && !week_day.text.starts_with('*');
        minute.values.contains(&local.minute())
            && hour.values.contains(&local.hour())
            && month.values.contains(&local.month())
            && if either { day || week } else { day && week }
    }

    /// Due instants in `[from, from + minutes)`: walks real minutes and asks which wall times each stands for.
    pub(super) fn due(fields: &[Made; 5], tz: Tz, from: DateTime<Utc>, minutes: i64) -> Vec<DateTime<Utc>> {
        let wall = |instant: DateTime<Utc>| instant.with_timezone(&tz).naive_local();
        let minute = TimeDelta::minutes(1);
        let mut latest_wall = wall(from - TimeDelta::hours(3));
        let mut found = Vec::new();
        // The latest wall time shown so far: what lies between it and a jump forward was skipped, and what lies
        // before it was shown already.
        for step in -180..minutes {
            let instant = from + minute * i32::try_from(step).unwrap();
            let now = wall(instant);
            let mut is_due = false;
            while latest_wall < now {
                latest_wall += minute;
                is_due |= matches(fields, latest_wall);
            }
            if is_due && step >= 0 {
                found.push(instant);
            }
        }
        found
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_walk_over_every_minute(
        fields in [naive::made(0, 59), naive::made(0, 23), naive::made(1, 31), naive::made(1, 12), naive::made(0, 7)],
        zone in proptest::sample::select(vec![
            Tz::UTC, Tz::America__New_York, Tz::Europe__Berlin, Tz::America__Bogota, Tz::Australia__Lord_Howe,
        ]),
        // Half of the starts are within days of a change of the clocks, or of a leap day.
        start in prop_oneof![
            (0..525_600_i64).prop_map(|minute| (2028, 1, 1, minute)),
            proptest::sample::select(vec![(2026, 3, 8), (2026, 11, 1), (2026, 3, 29), (2026, 10, 25), (2026, 4, 5), (2026, 10, 4), (2028, 2, 29)])
                .prop_flat_map(|(y, m, d)| (Just(y), Just(m), Just(d), -1440..1440_i64)),
        ],
    ) {
        let line = fields.each_ref().map(|field| field.text.clone()).join(" ");
        let (year, month, day, minute) = start;
        let midnight = NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
        let from = midnight + TimeDelta::minutes(minute);
        let span = 3 * 1440;
        let crontab = Crontab::parse(&line).unwrap();
        let mut found = Vec::new();
        let mut instant = from - TimeDelta::seconds(1);
        while let Some(next) = crontab.next_after(instant, zone).filter(|next| *next < from + TimeDelta::minutes(span)) {
            found.push(next);
            instant = next;
        }
        prop_assert_eq!(found, naive::due(&fields, zone, from, span), "`{}` in {}", line, zone);
    }
}

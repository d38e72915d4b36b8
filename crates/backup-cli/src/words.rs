//! Numbers, times and states as people read them. Pure: now and the time zone are arguments.

use backup_core::vault::Vault;
use backup_core::vault::layout::Volume;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;

/// How long ago, in one unit of which there are at least two: `45s`, `90m`, `36h`, `12d`. What is still to come, by a clock that is
/// wrong or was: `in 3h`.
pub(crate) fn age(age: TimeDelta) -> String {
    let sign = if is_future(age) { "in " } else { "" };
    let seconds =
        if is_future(age) { age.num_seconds().unsigned_abs() } else { age.num_seconds().max(0).unsigned_abs() };
    let (count, unit) = match seconds {
        0..120 => (seconds, 's'),
        120..7_200 => (seconds / 60, 'm'),
        7_200..172_800 => (seconds / 3_600, 'h'),
        _ => (seconds / 86_400, 'd'),
    };
    format!("{sign}{count}{unit}")
}

/// What was stamped by another clock a moment ago is not of the future.
fn is_future(age: TimeDelta) -> bool {
    age.num_seconds() < -5
}

/// `12d old`; `3h in the future`.
pub(crate) fn old(since: TimeDelta) -> String {
    if is_future(since) { format!("{} in the future", age(-since)) } else { format!("{} old", age(since)) }
}

/// `12d ago`; `in 3h`.
pub(crate) fn ago(since: TimeDelta) -> String {
    if is_future(since) { age(since) } else { format!("{} ago", age(since)) }
}

/// Texts about documents that are not believed: one for each reason, with the number of further documents of which the same is to
/// be said. A host whose key is not pinned has signed every one of its documents; one that was altered is told by its own name.
pub(crate) fn once_for_each_reason<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let reason = |text: &'a str| {
        let reason = text.split_once(" is not believed: ").map(|(_, reason)| reason);
        reason.filter(|reason| reason.contains("which is not among the pinned signers"))
    };
    let mut all: Vec<(&str, usize)> = Vec::new();
    for text in texts {
        let same = |(first, _): &&mut (&'a str, usize)| reason(first).is_some() && reason(first) == reason(text);
        match all.iter_mut().find(same) {
            Some((_, more)) => *more += 1,
            None => all.push((text, 0)),
        }
    }
    let told = |(first, more): (&str, usize)| match more {
        0 => first.to_owned(),
        more => format!(
            "{first}; nor {}, for the same reason",
            if more == 1 { "is another one".to_owned() } else { format!("are {more} others") }
        ),
    };
    all.into_iter().map(told).collect()
}

/// Minutes on the stack's clocks: `2026-11-21 02:00`.
pub(crate) fn local(at: DateTime<Utc>, timezone: Tz) -> String {
    at.with_timezone(&timezone).format("%Y-%m-%d %H:%M").to_string()
}

/// An instant for programs: UTC, RFC 3339.
pub(crate) fn utc(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// What had to be read from older versions, if anything: somebody was at the vault.
pub(crate) fn older_reads(vault: &Vault) -> Option<String> {
    let files = match vault.older_reads().len() {
        0 => return None,
        1 => "1 file was".to_owned(),
        count => format!("{count} files were"),
    };
    let itself = vault.older_reads().iter().any(|path| path == "vault.json");
    let itself = if itself { ", `vault.json` among them, without which nothing else opens this vault" } else { "" };
    Some(format!(
        "vault `{}`: {files} read from older versions{itself}: somebody deleted or wrote over what is there",
        vault.name()
    ))
}

/// Bytes in the largest unit that leaves at least one of it: `0 B`, `1023 B`, `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        // Tenths by whole numbers, rounded down: 1023.99 KiB must not read as 1024.0 KiB.
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// What a snapshot's name says of its size.
pub(crate) fn volume(volume: Volume) -> String {
    match volume {
        Volume::Rows(1) => "1 row".to_owned(),
        Volume::Rows(rows) => format!("{rows} rows"),
        Volume::Bytes(count) => bytes(count),
    }
}

/// `1 snapshot`, `2 snapshots`.
pub(crate) fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (-1, "0s"),
            (-90, "in 90s"),
            (-7_200, "in 2h"),
        ] {
            assert_eq!(age(TimeDelta::seconds(seconds)), text);
        }
    }

    #[test]
    fn what_a_wrong_clock_dated_is_not_so_many_days_old() {
        let (before, after) = (TimeDelta::days(364), TimeDelta::days(-364));
        assert_eq!((old(before), old(after)), ("364d old".to_owned(), "364d in the future".to_owned()));
        assert_eq!((ago(before), ago(after)), ("364d ago".to_owned(), "in 364d".to_owned()));
        assert_eq!(
            (old(TimeDelta::seconds(-5)), ago(TimeDelta::seconds(-5))),
            ("0s old".to_owned(), "0s ago".to_owned())
        );
    }

    #[test]
    fn a_key_that_is_not_pinned_is_told_once_with_the_number_of_its_documents() {
        let of = |name: &str, key: &str| {
            format!("`{name}` is not believed: it is signed by {key}, which is not among the pinned signers")
        };
        let altered = |name: &str| format!("`{name}` is not believed: its signature does not match");
        let texts = [of("a", "K"), of("b", "L"), of("c", "K"), altered("d"), altered("e")];
        let told = once_for_each_reason(texts.iter().map(String::as_str));
        assert_eq!(
            told,
            [
                format!("{}; nor is another one, for the same reason", of("a", "K")),
                of("b", "L"),
                altered("d"),
                altered("e")
            ]
        );
    }

    #[test]
    fn sizes_are_not_rounded_up() {
        for (count, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_572_864, "1.5 MiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(volume(Volume::Rows(1)), "1 row");
        assert_eq!(volume(Volume::Rows(225_000)), "225000 rows");
        assert_eq!(volume(Volume::Bytes(2_048)), "2.0 KiB");
        assert_eq!((count(1, "run"), count(0, "run")), ("1 run".to_owned(), "0 runs".to_owned()));
    }

    #[test]
    fn instants_are_local_for_people_and_utc_for_programs() {
        let at: DateTime<Utc> = "2026-11-21T02:00:03Z".parse().unwrap();
        assert_eq!(local(at, chrono_tz::America::Bogota), "2026-11-20 21:00");
        assert_eq!(utc(at), "2026-11-21T02:00:03Z");
    }
}

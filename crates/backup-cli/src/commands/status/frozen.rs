//! What nobody has accepted: since when a source's expiry is frozen, why, and when a vault will be full of it.

use backup_core::config::{self, Place, Reserve};
use backup_core::prune::frozen;
use backup_core::signature::Signers;
use backup_core::state::RunRecord;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::local::{FreeSpace, LocalOptions, LocalStore};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::find::Found;
use crate::session::Session;
use crate::words;

/// So many snapshots are named in the text; JSON has all.
const NAMED: usize = 4;

/// Further ahead than this nobody is told a day.
const FORESEEN: TimeDelta = TimeDelta::days(3650);

/// The suspect snapshots of a source that nobody has accepted, oldest first: there is at least one.
pub(super) struct Frozen {
    /// Each with its reasons, where this host remembers the run that made it.
    suspects: Vec<(SnapshotDoc, Vec<String>)>,
}

impl Frozen {
    /// `None` where nothing is suspect.
    pub(super) fn of(docs: Vec<SnapshotDoc>, runs: &[RunRecord]) -> Option<Self> {
        let reports: Vec<Value> =
            runs.iter().filter_map(|run| serde_json::from_str(run.report.as_deref()?).ok()).collect();
        let told = |doc: SnapshotDoc| {
            let reasons = reasons(&reports, doc.id.as_str());
            (doc, reasons)
        };
        (!docs.is_empty()).then(|| Self { suspects: docs.into_iter().map(told).collect() })
    }

    /// Since when nothing that is older expires.
    pub(super) fn since(&self) -> DateTime<Utc> {
        self.suspects.first().map_or_else(DateTime::default, |(doc, _)| doc.instant)
    }

    /// The warning.
    pub(super) fn warning(&self, source: &str, timezone: Tz) -> String {
        let (count, since) = (self.count(), words::local(self.since(), timezone));
        format!("expiry of `{source}` is frozen since {since}: {count} that nobody accepted")
    }

    /// What to do about it.
    pub(super) fn advice(&self) -> String {
        let ids: Vec<&str> = self.suspects.iter().map(|(doc, _)| doc.id.short()).collect();
        format!(
            "look at each with `backup show ID`; when its data is right, or what was lost is back, `backup accept ID`: {}",
            ids.join(", ")
        )
    }

    fn count(&self) -> String {
        words::count(self.suspects.len(), "suspect snapshot")
    }

    /// Lines of the source's block.
    pub(super) fn lines(&self, timezone: Tz) -> Vec<String> {
        let (count, since) = (self.count(), words::local(self.since(), timezone));
        let mut lines = vec![format!("  frozen    since {since}: {count} not accepted, nothing older expires")];
        for (doc, reasons) in self.suspects.iter().take(NAMED) {
            let at = words::local(doc.instant, timezone);
            let why = match reasons.first() {
                Some(first) if reasons.len() > 1 => format!("{first} (and {} more)", reasons.len() - 1),
                Some(first) => first.clone(),
                None => "the reasons are in `backup show ID --identity FILE`".to_owned(),
            };
            lines.push(format!("            {} of {at}: {why}", doc.id.short()));
        }
        if self.suspects.len() > NAMED {
            lines.push(format!("            and {} newer", self.suspects.len() - NAMED));
        }
        lines
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let one = |(doc, reasons): &(SnapshotDoc, Vec<String>)| json!({ "id": doc.id, "instant": words::utc(doc.instant), "suspect": doc.suspect, "reasons": reasons });
        json!({ "since": words::utc(self.since()), "suspects": self.suspects.iter().map(one).collect::<Vec<_>>() })
    }
}

/// Why a snapshot is suspect, by the report of the run that made it.
fn reasons(reports: &[Value], id: &str) -> Vec<String> {
    let sources = reports.iter().filter_map(|report| report["sources"].as_array()).flatten();
    let made = sources.filter(|source| source["snapshot"] == id).filter_map(|source| source["suspect"].as_array());
    made.flatten().filter_map(|reason| reason.as_str().map(str::to_owned)).collect()
}

/// How fast a vault fills while sources are frozen.
pub(super) struct Filling {
    vault: String,
    bytes_per_day: u64,
    /// Bytes that runs may still add; `None` where nobody knows: a bucket, or a disk that does not answer.
    room_bytes: Option<u64>,
    full_at: Option<DateTime<Utc>>,
}

impl Filling {
    fn new(vault: &str, bytes_per_day: u64, room_bytes: Option<u64>, now: DateTime<Utc>) -> Self {
        let full_at = room_bytes.and_then(|room| full_at(room, bytes_per_day, now));
        Self { vault: vault.to_owned(), bytes_per_day, room_bytes, full_at }
    }

    /// A block of its own.
    pub(super) fn text(&self, now: DateTime<Utc>, timezone: Tz) -> String {
        let rate = words::bytes(self.bytes_per_day);
        let end = match (self.room_bytes, self.full_at) {
            (None, _) => "how much room there is, is not known".to_owned(),
            (Some(room), Some(at)) => {
                let (room, day, left) = (words::bytes(room), words::local(at, timezone), words::age(at - now));
                format!("{room} above the reserve are full about {day}, in {left}")
            }
            (Some(room), None) => format!("{} above the reserve last for years", words::bytes(room)),
        };
        format!("vault {}: while expiry is frozen it grows by about {rate} a day; {end}\n", self.vault)
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "vault": self.vault, "bytes_per_day": self.bytes_per_day, "room_bytes": self.room_bytes,
            "full_at": self.full_at.map(words::utc),
        })
    }
}

/// Asks each vault that answered how fast the frozen sources (names) fill it, and how much room it has. Gives also the vaults
/// that failed meanwhile.
pub(super) async fn filling(
    session: &Session<'_>,
    found: &Found,
    frozen_sources: &[&config::Source],
    signers: &Signers,
    now: DateTime<Utc>,
) -> (Vec<Filling>, Vec<(String, backup_core::vault::VaultError)>) {
    let (mut fillings, mut failed) = (Vec::new(), Vec::new());
    if frozen_sources.is_empty() {
        return (fillings, failed);
    }
    for vault in &found.vaults {
        let mut rate: Option<u64> = None;
        for source in frozen_sources {
            match frozen::bytes_per_day(vault, signers, &found.of(&source.name)).await {
                Ok(Some(bytes)) => rate = Some(rate.unwrap_or(0).saturating_add(bytes)),
                Ok(None) => {}
                Err(error) => failed.push((vault.name().to_owned(), error)),
            }
        }
        let Some(rate) = rate else { continue };
        let room = match session.config.vault(vault.name()).map(|vault| &vault.place) {
            Some(Place::Path(path)) => room(path, session.config.limits.reserve).await,
            _ => None,
        };
        fillings.push(Filling::new(vault.name(), rate, room, now));
    }
    (fillings, failed)
}

async fn room(path: &std::path::Path, reserve: Reserve) -> Option<u64> {
    let FreeSpace { free_bytes, total_bytes } =
        LocalStore::open(path, LocalOptions::default()).ok()?.free_space().await.ok()?;
    Some(free_bytes.saturating_sub(reserve.of(total_bytes)))
}

/// When so much room is used up; `None` where that is further away than anybody plans.
fn full_at(room_bytes: u64, bytes_per_day: u64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let seconds = (u128::from(room_bytes) * 86_400).checked_div(u128::from(bytes_per_day))?;
    let left = TimeDelta::try_seconds(i64::try_from(seconds).ok()?)?;
    (left <= FORESEEN).then(|| now + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_over_rate_is_when_it_is_full() {
        let now = DateTime::UNIX_EPOCH;
        let days = |days: i64| Some(now + TimeDelta::days(days));
        assert_eq!(full_at(100, 10, now), days(10));
        assert_eq!(full_at(0, 10, now), days(0));
        assert_eq!(full_at(5, 10, now), Some(now + TimeDelta::hours(12)));
        for (room, rate) in [(100, 0), (u64::MAX, 1), (3651, 1)] {
            assert_eq!(full_at(room, rate, now), None, "{room} {rate}");
        }
        assert_eq!(full_at(u64::MAX, u64::MAX, now), days(1));
        let text = |room, rate| Filling::new("v", rate, room, now).text(now, Tz::UTC);
        assert_eq!(
            text(Some(20 << 20), 1 << 20),
            "vault v: while expiry is frozen it grows by about 1.0 MiB a day; 20.0 MiB above the reserve are full about \
             1970-01-21 00:00, in 20d\n"
        );
        assert!(text(Some(u64::MAX), 1).ends_with("last for years\n"));
        assert!(text(None, 1).ends_with("grows by about 1 B a day; how much room there is, is not known\n"));
    }

    #[test]
    fn reasons_are_those_of_the_run_that_made_it() {
        let report =
            json!({ "sources": [{ "snapshot": "a", "suspect": ["x", "y"] }, { "snapshot": "b", "suspect": ["z"] }] });
        let reports = [Value::Null, report, json!({ "sources": 3 })];
        assert_eq!(reasons(&reports, "a"), ["x", "y"]);
        assert_eq!(reasons(&reports, "c"), Vec::<String>::new());
    }
}

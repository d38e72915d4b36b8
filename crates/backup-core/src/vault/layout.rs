//! Where things lie in a vault: names that can be checked without opening anything.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use super::document::MarkKind;
use super::store::StorePath;
use crate::id::{Hash256, IdError, ObjectName, SourceName, StackName};

/// Path of the vault's own document.
pub const VAULT_JSON: &str = "vault.json";
/// Path of the recovery script's document.
pub const RECOVER: &str = "RECOVER-1.md";
/// Folder at the vault's root for what a repair moved aside. No stack can be called so: `_` is in no stack's name, so
/// nothing that lists stacks, sources or generations ever sees what lies there.
pub const DAMAGED: &str = "_damaged";
/// Folder at the vault's root for the bodies by which writers try an endpoint; no stack can be called so either.
pub const PROBE: &str = "_probe";
/// Hex digits in a grant's name.
const GRANT_DIGITS: usize = 16;

/// Length of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(u32);

impl Period {
    /// Days.
    pub fn days(self) -> u32 {
        self.0
    }

    /// First day of the period that `at` falls into. The grid of periods is shifted by a hash of the source's name, so
    /// that not every source makes its full copy in the same night.
    pub fn first_day(self, at: DateTime<Utc>, source: &SourceName) -> NaiveDate {
        let hash = Hash256::of(source.as_str().as_bytes()).0;
        let shift = i64::from(u16::from_be_bytes([hash[0], hash[1]]));
        let day = at.date_naive();
        let since = day.signed_duration_since(NaiveDate::default()).num_days();
        let into = (since - shift).rem_euclid(i64::from(self.0));
        day - Days::new(into.unsigned_abs())
    }
}

impl FromStr for Period {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text {
            "1d" => Ok(Self(1)),
            "7d" => Ok(Self(7)),
            "14d" => Ok(Self(14)),
            "28d" => Ok(Self(28)),
            _ => Err(IdError { text: text.to_owned(), expected: "a period of `1d`, `7d`, `14d` or `28d`" }),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}d", self.0)
    }
}

impl TryFrom<String> for Period {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

/// Name of a generation's folder: `<first day>--<period>--<8 hex of the SHA-256 of its public key's text>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GenerationId(String);

impl GenerationId {
    /// The name for a generation.
    pub fn new(first_day: NaiveDate, period: Period, public_key: &str) -> Self {
        let key = Hash256::of(public_key.as_bytes()).to_string();
        Self(format!("{}--{period}--{}", first_day.format("%Y-%m-%d"), &key[..8]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(text: &str) -> Option<(NaiveDate, Period)> {
        let mut parts = text.split("--");
        let (day, period, key) = (parts.next()?, parts.next()?, parts.next()?);
        let good = parts.next().is_none()
            && day.len() == 10
            && key.len() == 8
            && key.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let first = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
        // chrono reads other spellings too (`+`, white space, lost zeros): names sort by the one that is written.
        (good && first.format("%Y-%m-%d").to_string() == day).then_some((first, period.parse().ok()?))
    }

    /// First day of its period.
    pub fn first_day(&self) -> NaiveDate {
        Self::parts(&self.0).map_or_else(NaiveDate::default, |(day, _)| day)
    }

    /// Its period.
    pub fn period(&self) -> Period {
        Self::parts(&self.0).map_or(Period(7), |(_, period)| period)
    }

    /// When it ends: the start of the day after its last.
    pub fn ends(&self) -> DateTime<Utc> {
        let day = self.first_day() + Days::new(u64::from(self.period().days()));
        day.and_time(chrono::NaiveTime::MIN).and_utc()
    }

    /// No commit into it after this instant (by the store's clock): one period after its end.
    pub fn deadline(&self) -> DateTime<Utc> {
        self.ends() + Days::new(u64::from(self.period().days()))
    }

    /// Whether nothing can be committed into it any more, for certain: a day past the deadline.
    pub fn is_closed(&self, now: DateTime<Utc>) -> bool {
        now > self.deadline() + Days::new(1)
    }
}

impl FromStr for GenerationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = "a generation `YYYY-MM-DD--PERIOD--8 hex`";
        match Self::parts(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(IdError { text: text.to_owned(), expected }),
        }
    }
}

impl TryFrom<String> for GenerationId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<GenerationId> for String {
    fn from(id: GenerationId) -> Self {
        id.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a snapshot's name says of its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Volume {
    /// Rows, of a database.
    Rows(u64),
    /// Plaintext bytes, of anything else.
    Bytes(u64),
}

/// Name of a snapshot: `<instant>-<rows>r|<bytes>b-<6 random>[-suspect]`, for example
/// `20261121T020003Z-225000r-k3f9xa`. It sorts by the instant of the data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The name for a snapshot; `random` gives the six characters.
    pub fn new(instant: DateTime<Utc>, volume: Volume, random: [u8; 6], suspect: bool) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let volume = match volume {
            Volume::Rows(rows) => format!("{rows}r"),
            Volume::Bytes(bytes) => format!("{bytes}b"),
        };
        let random: String = random.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect();
        let suspect = if suspect { "-suspect" } else { "" };
        Self(format!("{}-{volume}-{random}{suspect}", instant.format("%Y%m%dT%H%M%SZ")))
    }

    /// The name of an imported snapshot: it says so, because whoever chooses "the newest" has names only.
    #[must_use]
    pub fn into_imported(self) -> Self {
        let (name, suspect) = match self.0.strip_suffix("-suspect") {
            Some(name) => (name, "-suspect"),
            None => (self.0.as_str(), ""),
        };
        Self(format!("{name}-imported{suspect}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The six random characters: what people type.
    pub fn short(&self) -> &str {
        self.0.split('-').nth(2).unwrap_or(&self.0)
    }

    fn parts(text: &str) -> Option<(DateTime<Utc>, Volume, bool)> {
        let mut parts = text.split('-');
        let (instant, volume, random) = (parts.next()?, parts.next()?, parts.next()?);
        let suspect = match (parts.next(), parts.next()) {
            (None | Some("imported"), None) => false,
            (Some("suspect"), None) | (Some("imported"), Some("suspect")) => true,
            _ => return None,
        };
        let spelt = instant;
        let instant = NaiveDateTime::parse_from_str(instant, "%Y%m%dT%H%M%SZ").ok()?.and_utc();
        if spelt.len() != 16 || instant.format("%Y%m%dT%H%M%SZ").to_string() != spelt {
            return None;
        }
        let digits = volume.trim_end_matches(['r', 'b']);
        let number = || digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        let volume = match &volume[digits.len()..] {
            "r" => Volume::Rows(number()?),
            "b" => Volume::Bytes(number()?),
            _ => return None,
        };
        let good = random.len() == 6 && random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        (good && parts.next().is_none()).then_some((instant, volume, suspect))
    }

    /// Instant of its data, in whole seconds.
    pub fn instant(&self) -> DateTime<Utc> {
        Self::parts(&self.0).map_or_else(DateTime::default, |(instant, ..)| instant)
    }

    /// Rows or bytes.
    pub fn volume(&self) -> Volume {
        Self::parts(&self.0).map_or(Volume::Bytes(0), |(_, volume, _)| volume)
    }

    /// Whether it should be looked at before it is relied on.
    pub fn is_suspect(&self) -> bool {
        self.0.ends_with("-suspect")
    }

    /// Whether it is an old dump that an operator imported, and not a capture of ours. It is never "the newest".
    pub fn is_imported(&self) -> bool {
        self.0.split('-').nth(3) == Some("imported")
    }
}

impl FromStr for SnapshotId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let expected = "a snapshot `YYYYMMDDTHHMMSSZ-NUMBER[r|b]-6 characters`";
        match Self::parts(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(IdError { text: text.to_owned(), expected }),
        }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn path(text: String) -> StorePath {
    StorePath::new(text).expect("every part is a checked name")
}

/// Folder of a stack.
pub fn stack_dir(stack: &StackName) -> StorePath {
    path(stack.to_string())
}

/// Folder of a source.
pub fn source_dir(stack: &StackName, source: &SourceName) -> StorePath {
    path(format!("{stack}/{source}"))
}

/// Folder of a source's marks.
pub fn marks(stack: &StackName, source: &SourceName) -> StorePath {
    path(format!("{stack}/{source}/marks"))
}

/// Folder of a source's receipts.
pub fn receipts(stack: &StackName, source: &SourceName) -> StorePath {
    path(format!("{stack}/{source}/receipts"))
}

/// A receipt of a prune.
pub fn receipt(dir: &GenerationDir, at: DateTime<Utc>) -> StorePath {
    path(format!("{}/{}/receipts/{}-{}.json", dir.stack, dir.source, at.format("%Y%m%dT%H%M%SZ"), dir.id))
}

/// A mark on a snapshot.
pub fn mark(stack: &StackName, source: &SourceName, snapshot: &SnapshotId, mark: MarkKind) -> StorePath {
    path(format!("{stack}/{source}/marks/{snapshot}.{}.json", mark.word()))
}

/// Path of the recovery document.
pub fn recover() -> StorePath {
    path(RECOVER.to_owned())
}

/// What lies outside of generations and is needed as long as any of them: the vault's own document and the recovery document.
pub fn beside_generations() -> [StorePath; 3] {
    let recover = recover();
    [path(VAULT_JSON.to_owned()), signature_of(&recover), recover]
}

/// Where a repair at `at` keeps what lay at `file` and was damaged; `nth`, from 0, where that is taken. `None`: too long.
pub fn damaged(file: &StorePath, at: DateTime<Utc>, nth: u32) -> Option<StorePath> {
    let again = if nth == 0 { String::new() } else { format!("-{nth}") };
    StorePath::new(format!("{DAMAGED}/{}{again}/{file}", at.format("%Y%m%dT%H%M%SZ")))
}

/// The signature that belongs to a document.
pub fn signature_of(document: &StorePath) -> StorePath {
    path(format!("{document}.sig"))
}

/// The folder of one generation of one source, from which all of its paths follow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationDir {
    /// Stack.
    pub stack: StackName,
    /// Source.
    pub source: SourceName,
    /// Generation.
    pub id: GenerationId,
}

impl GenerationDir {
    /// The folder itself.
    pub fn dir(&self) -> StorePath {
        path(format!("{}/{}/{}", self.stack, self.source, self.id))
    }

    /// A file directly in the folder (`generation.json`, `expired.json`, …).
    pub fn file(&self, name: &str) -> StorePath {
        path(format!("{}/{name}", self.dir()))
    }

    /// The folder of all objects.
    pub fn objects(&self) -> StorePath {
        self.file("objects")
    }

    /// An object.
    pub fn object(&self, name: &ObjectName) -> StorePath {
        let name = name.to_string();
        path(format!("{}/objects/{}/{name}", self.dir(), &name[..2]))
    }

    /// The folder of all grants.
    pub fn grants(&self) -> StorePath {
        self.file("grants")
    }

    /// The grant of this generation's key to a recipient: named by the first 16 hex digits of the SHA-256 of its text, so
    /// that whoever looks for a grant of their own looks at one place.
    pub fn grant(&self, recipient: &str) -> StorePath {
        let name = Hash256::of(recipient.as_bytes()).to_string();
        path(format!("{}/grants/{}.json", self.dir(), &name[..GRANT_DIGITS]))
    }

    /// Whether a path is where a grant of this generation can lie.
    pub fn is_grant(&self, path: &StorePath) -> bool {
        let name = path.as_str().strip_prefix(self.grants().as_str()).and_then(|rest| rest.strip_prefix('/'));
        name.and_then(|name| name.strip_suffix(".json")).is_some_and(|digits| {
            digits.len() == GRANT_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }

    /// The folder of all snapshots.
    pub fn snapshots(&self) -> StorePath {
        self.file("snapshots")
    }

    /// A file of a snapshot: `suffix` is `.json`, `.json.sig` or `.inventory.zst`.
    pub fn snapshot(&self, id: &SnapshotId, suffix: &str) -> StorePath {
        path(format!("{}/snapshots/{id}{suffix}", self.dir()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_refused() {
        let instant = "2026-11-21T02:00:03Z".parse().unwrap();
        let id = SnapshotId::new(instant, Volume::Rows(225_000), [0, 1, 2, 3, 4, 31], true);
        assert_eq!(id.as_str(), "20261121T020003Z-225000r-abcde9-suspect");
        let again: SnapshotId = id.as_str().parse().unwrap();
        assert_eq!((again.instant(), again.volume(), again.is_suspect()), (instant, Volume::Rows(225_000), true));
        assert_eq!((again.short(), again.is_imported()), ("abcde9", false));
        let imported: SnapshotId = id.into_imported().as_str().parse().unwrap();
        assert_eq!(imported.as_str(), "20261121T020003Z-225000r-abcde9-imported-suspect");
        assert!(imported.is_imported() && imported.is_suspect());
        let plain = SnapshotId::new(instant, Volume::Bytes(1), [0; 6], false).into_imported();
        assert!(plain.as_str().parse::<SnapshotId>().is_ok_and(|id| id.is_imported() && !id.is_suspect()));
        for bad in [
            "",
            "x",
            "20261121T020003Z-225000x-abcde9",
            "20261121T020003Z-r-abcde9",
            "20261121T020003Z-1r-abc",
            "20261121T020003Z-1r-abcde99",
            "20261121T020003Z-1r-abcdeF",
            "20261121T020003Z-1r-abcde9-odd",
            "20261121T020003Z-1r-abcde9-suspect-x",
            "20261121T020003Z-1r-abcde9-suspect-imported",
            "20261121T020003Z-1r-abcde9-imported-imported",
            "20261121T020003Z-1r-abcde9-imported-suspect-x",
            "20261121T020003Z--abcde9",
            // Spellings that chrono takes, and that would sort elsewhere.
            "+20261121T020003Z-1r-abcde9",
            "2026 121T020003Z-1r-abcde9",
            "2026 1121T020003Z-1r-abcde9",
            // A year of five digits would sort before all others.
            "+120261121T020003Z-1r-abcde9",
        ] {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
        for bad in [
            "2026-11-21--7d",
            "2026-11-21--6d--00112233",
            "2026-1-21--7d--00112233",
            "2026- 1-21--7d--00112233",
            "002026-1-1--7d--00112233",
            "2026-11-21--7d--0011223g",
            "2026-11-21--7d--0011223",
            "2026-11-21--7d--001122334",
            "2026-11-21--7d--00112233--x",
            "+12026-11-21--7d--00112233",
        ] {
            assert!(bad.parse::<GenerationId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grant_is_known_by_its_name() {
        let id = GenerationId::new(NaiveDate::default(), Period(7), "age1x");
        let dir = GenerationDir { stack: "shop".parse().unwrap(), source: "db".parse().unwrap(), id };
        let grant = dir.grant("age1y");
        assert!(dir.is_grant(&grant));
        let is = |name: &str| dir.is_grant(&dir.file(&format!("grants/{name}")));
        assert!(is("0123456789abcdef.json"));
        for stranger in
            ["0123456789abcde.json", "0123456789abcdeg.json", "0123456789ABCDEF.json", "0123456789abcdef", "a/b.json"]
        {
            assert!(!is(stranger), "{stranger}");
        }
        assert!(!dir.is_grant(&dir.file("0123456789abcdef.json")));
        assert!(!dir.is_grant(&signature_of(&grant)));
    }

    #[test]
    fn what_is_moved_aside_keeps_its_path_behind_the_instant() {
        let (file, at) = (path("shop/db/x".to_owned()), "2026-11-21T02:00:03Z".parse().unwrap());
        let place = |nth| damaged(&file, at, nth).unwrap().to_string();
        assert_eq!(
            [place(0), place(1)],
            ["_damaged/20261121T020003Z/shop/db/x", "_damaged/20261121T020003Z-1/shop/db/x"]
        );
    }

    #[test]
    fn the_grid_of_periods_is_the_one_of_the_format() {
        // FORMAT.md: s is the number in the first two bytes of the name's SHA-256, 31708 of `db` and 39848 of `uploads`.
        let at: DateTime<Utc> = "2026-11-21T02:00:00Z".parse().unwrap();
        for (source, period, first) in [
            ("db", "1d", "2026-11-21"),
            ("db", "7d", "2026-11-17"),
            ("db", "14d", "2026-11-17"),
            ("db", "28d", "2026-11-03"),
            ("uploads", "7d", "2026-11-16"),
            ("uploads", "14d", "2026-11-09"),
            ("uploads", "28d", "2026-10-26"),
        ] {
            let found = period.parse::<Period>().unwrap().first_day(at, &source.parse().unwrap());
            assert_eq!(found.to_string(), first, "{source} {period}");
        }
    }

    #[test]
    fn a_generation_ends_after_its_period_and_closes_a_day_after_the_deadline() {
        let source: SourceName = "db".parse().unwrap();
        let period: Period = "7d".parse().unwrap();
        let at: DateTime<Utc> = "2026-11-21T02:00:00Z".parse().unwrap();
        let first = period.first_day(at, &source);
        assert!(first <= at.date_naive() && at.date_naive() - first < chrono::TimeDelta::days(7));
        let id = GenerationId::new(first, period, "age1x");
        assert_eq!(id.ends() - id.first_day().and_time(chrono::NaiveTime::MIN).and_utc(), chrono::TimeDelta::days(7));
        assert_eq!(period.first_day(id.ends(), &source), id.ends().date_naive(), "the next begins where it ends");
        assert_eq!(id.deadline() - id.ends(), chrono::TimeDelta::days(7));
        assert!(!id.is_closed(id.deadline() + Days::new(1)));
        assert!(id.is_closed(id.deadline() + Days::new(1) + chrono::TimeDelta::seconds(1)));
    }
}

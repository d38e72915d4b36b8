//! What a fuzzer calls: one function per parser of bytes that somebody else may have written.
//!
//! Each takes any bytes at all, and must come back: no panic, no endless loop, no memory that a few bytes ask for. What a
//! parser takes, it must take in one spelling or say the same again (`parse(write(parse(x))) == parse(x)`). Nothing of
//! this is in a release: the module exists for `cargo fuzz` (which sets `cfg(fuzzing)`) and for this crate's tests, which
//! run the kept corpora (`fuzz/corpus/<target>`) through the same functions, without a fuzzer.

use std::path::Path;
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::id::{Hash256, SourceName, StackName, VaultId};
use crate::json;
use crate::manifest::text;
use crate::seal::key::Identities;
use crate::signature::{HostKey, Namespace, Signers};
use crate::vault::document::{
    ExpiredDoc, FORMAT, GenerationDoc, MarkDoc, PublicDocument, ReceiptDoc, SnapshotDoc, VaultDoc,
};
use crate::vault::inventory;
use crate::vault::layout::{GenerationId, Period, SnapshotId, source_dir};
use crate::vault::store::StorePath;

pub use crate::seal::fuzz::object;
pub use crate::source::files::fuzz::{paths, tar, unpack};
pub use crate::source::postgres::fuzz::{rows, script, wire};

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of their folders in `fuzz/corpus`.
pub const TARGETS: [Target; 15] = [
    ("config", config),
    ("documents", documents),
    ("identity", identity),
    ("inventory", inventory),
    ("manifest", manifest),
    ("names", names),
    ("object", object),
    ("paths", paths),
    ("rows", rows),
    ("script", script),
    ("signature", signature),
    ("signers", signers),
    ("tar", tar),
    ("unpack", unpack),
    ("wire", wire),
];

fn instant() -> DateTime<Utc> {
    "2026-11-21T02:00:00Z".parse().expect("an instant")
}

/// A key that protects nothing: the kept signatures are by it.
fn key() -> &'static HostKey {
    static KEY: OnceLock<HostKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = ssh_key::private::Ed25519Keypair::from_seed(&[1; 32]);
        let key = ssh_key::PrivateKey::new(pair.into(), "fuzz").expect("a key");
        HostKey::from_openssh(&key.to_openssh(ssh_key::LineEnding::LF).expect("a text")).expect("a host key")
    })
}

/// An armoured signature over `document`: one that is believed is over these bytes, in this namespace, by this key.
pub fn signature(data: &[u8]) {
    let pinned = Signers::pin_fingerprint(&key().fingerprint());
    if pinned.check(Namespace::Snapshot, b"document", data, instant()).is_ok() {
        assert!(pinned.check(Namespace::Snapshot, b"documents", data, instant()).is_err(), "other bytes are believed");
        assert!(pinned.check(Namespace::Mark, b"document", data, instant()).is_err(), "another kind is believed");
        assert!(Signers::default().check(Namespace::Snapshot, b"document", data, instant()).is_err());
    }
}

/// An `allowed_signers` file, and what it says of a signature of ours.
pub fn signers(data: &[u8]) {
    static SIGNED: OnceLock<String> = OnceLock::new();
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(signers) = Signers::parse(text) else { return };
    let signed = SIGNED.get_or_init(|| key().sign(Namespace::Snapshot, b"document").expect("a signature"));
    let believed = signers.check(Namespace::Snapshot, b"document", signed.as_bytes(), instant()).is_ok();
    assert!(!believed || signers.fingerprints().contains(&key().fingerprint()), "somebody who is not pinned");
}

/// A stored inventory; after a zero byte the rest is its text, which is compressed here.
pub fn inventory(data: &[u8]) {
    let compressed;
    let stored = match data.split_first() {
        Some((0, text)) => {
            compressed = zstd::bulk::compress(text, 1).expect("zstd compresses");
            compressed.as_slice()
        }
        _ => data,
    };
    if let Ok(lines) = inventory::read(stored) {
        assert!(lines.is_sorted_by(|a, b| a.name < b.name));
        let again = inventory::write(lines.clone()).expect("it can be written");
        assert_eq!(inventory::read(&again).expect("it can be read"), lines);
    }
}

/// A manifest's text.
pub fn manifest(data: &[u8]) {
    let Ok(stored) = str::from_utf8(data) else { return };
    if let Ok(found) = text::parse(stored) {
        let again = text::write(&found);
        assert_eq!(text::parse(&again).expect("what is written is read"), found);
    }
}

fn document<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(data: &[u8]) -> Option<T> {
    let found: T = json::from_slice(data, FORMAT).ok()?;
    let again = json::to_lines(&found);
    assert_eq!(json::from_slice::<T>(again.as_bytes(), FORMAT).expect("what is written is read"), found);
    Some(found)
}

fn signed<T: PublicDocument + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Some(found) = document::<T>(data) {
        // A path that a document claims is always one that a store takes.
        assert!(StorePath::new(found.path().as_str()).is_some());
        let _ = found.at();
    }
}

/// Every public document: whatever these bytes are, each reader looks at them.
pub fn documents(data: &[u8]) {
    let _ = document::<VaultDoc>(data);
    signed::<GenerationDoc>(data);
    signed::<SnapshotDoc>(data);
    signed::<ExpiredDoc>(data);
    signed::<ReceiptDoc>(data);
    signed::<MarkDoc>(data);
}

/// A configuration. What is understood can be shown, and shown again the same.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("/etc/backup/fuzz.toml")) {
        Ok(config) => {
            let shown = config.show_toml(crate::config::View::Full);
            assert_eq!(shown, config.show_toml(crate::config::View::Full));
            for vault in &config.vaults {
                let _ = config.kept_at_most(vault);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Files with keys in them: an operator's identity, a host's key, and a wrapped generation key.
pub fn identity(data: &[u8]) {
    static OPERATOR: OnceLock<(Identities, String)> = OnceLock::new();
    let _ = Identities::parse(data, None);
    let Ok(text) = str::from_utf8(data) else { return };
    let _ = HostKey::from_openssh(text);
    let (operator, public) = OPERATOR.get_or_init(|| {
        let secret = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
        let identity: age::x25519::Identity = secret.parse().expect("age's own test key");
        (Identities::parse(secret.as_bytes(), None).expect("an identity"), identity.to_public().to_string())
    });
    assert!(operator.unwrap_key(text, public, &[]).is_err(), "nobody wrapped a key for this fuzzer");
}

/// Names: what is taken has one spelling, and its parts can be asked for.
pub fn names(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(path) = StorePath::new(text) {
        assert_eq!(path.as_str(), text);
        assert!(!text.starts_with('/') && !text.split('/').any(|part| part == ".." || part == "." || part.is_empty()));
    }
    if let Ok(id) = text.parse::<SnapshotId>() {
        assert_eq!(id.as_str(), text);
        assert!(
            text.starts_with(&id.instant().format("%Y%m%dT%H%M%SZ-").to_string()),
            "another spelling of an instant"
        );
        let _ = (id.volume(), id.short(), id.is_suspect(), id.is_imported());
        assert!(StorePath::new(text).is_some());
    }
    if let Ok(id) = text.parse::<GenerationId>() {
        assert!(text.starts_with(&id.first_day().format("%Y-%m-%d--").to_string()), "another spelling of a day");
        assert!(id.ends() < id.deadline() && !id.is_closed(id.deadline()));
        assert!(StorePath::new(text).is_some());
    }
    if let (Ok(stack), Ok(source)) = (text.parse::<StackName>(), text.parse::<SourceName>()) {
        assert_eq!(source_dir(&stack, &source).as_str(), format!("{text}/{text}"));
    }
    if let Ok(hash) = text.parse::<Hash256>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(id) = text.parse::<VaultId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(period) = text.parse::<Period>() {
        assert_eq!(period.to_string(), text);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::time::{Duration, Instant};

    use super::*;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("`{}`: {error}", folder.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "`{}` is empty", folder.display());
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    /// What a target fails on is left in a file.
    fn run((name, target): Target, data: &[u8]) {
        if catch_unwind(|| target(data)).is_err() {
            let file =
                std::env::temp_dir().join(format!("backup-fuzz-{name}-{}", &Hash256::of(data).to_string()[..16]));
            std::fs::write(&file, data).unwrap();
            panic!("target `{name}` fails on {}", file.display());
        }
    }

    /// Every kept input of every target, as a fuzzer left it; a target without any has not been looked at.
    #[test]
    fn the_kept_corpora_are_clean() {
        for target in TARGETS {
            for data in corpus(target.0) {
                assert!(data.len() <= 64 << 10, "`{}` keeps a large input: keep small ones", target.0);
                run(target, &data);
            }
        }
    }

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
        }

        fn range(&mut self, length: usize) -> std::ops::Range<usize> {
            let from = self.below(length + 1);
            let most = (length - from).min(1 << self.below(12));
            from..from + self.below(most + 1)
        }
    }

    const ODD: [&[u8]; 12] = [
        b"\0",
        b"\n",
        b" ",
        b"/",
        b"..",
        b"\"",
        b"\\",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"-1",
        b"+1",
        b"18446744073709551616",
    ];

    /// A neighbour of one input, maybe with a piece of another.
    fn near(dice: &mut Dice, all: &[Vec<u8>]) -> Vec<u8> {
        let mut data = all[dice.below(all.len())].clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(data.len() + 1);
            match dice.below(7) {
                0 if at < data.len() => data[at] ^= 1 << dice.below(8),
                1 if at < data.len() => data[at] = u8::try_from(dice.below(256)).unwrap(),
                2 => drop(data.drain(dice.range(data.len()))),
                3 => {
                    let piece = data[dice.range(data.len())].to_vec();
                    data.splice(at..at, piece);
                }
                4 => {
                    let other = &all[dice.below(all.len())];
                    let piece = other[dice.range(other.len())].to_vec();
                    data.splice(at..at, piece);
                }
                5 => drop(data.splice(at..at, ODD[dice.below(ODD.len())].iter().copied())),
                _ => {
                    let range = dice.range(data.len());
                    data.splice(range, ODD[dice.below(ODD.len())].iter().copied());
                }
            }
        }
        data.truncate(64 << 10);
        data
    }

    /// Weaker than a fuzzer, which sees what code an input reaches, and runs everywhere: so many rounds for each target, or
    /// `BACKUP_FUZZ_SECONDS` for each. `BACKUP_FUZZ_SEED` rolls other dice.
    #[test]
    fn what_lies_near_the_corpora_is_clean() {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let (seconds, seed) = (number("BACKUP_FUZZ_SECONDS"), number("BACKUP_FUZZ_SEED").unwrap_or(1));
        let only = std::env::var("BACKUP_FUZZ_TARGET").ok();
        for target in TARGETS.into_iter().filter(|target| only.as_deref().is_none_or(|only| only == target.0)) {
            let (all, mut dice, begun, mut rounds) = (corpus(target.0), Dice(seed), Instant::now(), 0_u64);
            // A restore makes folders and files.
            let least = if target.0 == "unpack" { 20 } else { 200 };
            while rounds < least || seconds.is_some_and(|seconds| begun.elapsed() < Duration::from_secs(seconds)) {
                run(target, &near(&mut dice, &all));
                rounds += 1;
            }
            if seconds.is_some() {
                println!("{}: {rounds} inputs", target.0);
            }
        }
    }

    /// A folder that no target reads, a target that no fuzzer calls: both would be forgotten.
    #[test]
    fn targets_and_folders_are_the_same() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let names = |dir: &str, end: &str| {
            let entries = std::fs::read_dir(fuzz.join(dir)).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.map(|name| name.trim_end_matches(end).to_owned()).collect();
            names.sort();
            names
        };
        let targets = TARGETS.map(|(name, _)| name.to_owned()).to_vec();
        assert_eq!(names("corpus", ""), targets);
        assert_eq!(names("fuzz_targets", ".rs"), targets);
    }
}

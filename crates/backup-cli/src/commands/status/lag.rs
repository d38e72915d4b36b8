//! How far each vault is behind the others, also one that does not answer.
//!
//! What a vault lacks is what others list and it does not: how many snapshots, how many stored bytes they added, how old the
//! newest that it has is beside the newest of all. A name is no copy: the newest of all is the newest that some vault proves,
//! and the newest that a vault lists must be believed there; what lies between is counted by name. Of a vault that is down the last that was seen there counts
//! ([`backup_core::state::State::seen`], written by every run and replication).

use std::collections::BTreeMap;

use backup_core::catalogue::Listed;
use backup_core::config::Source;
use backup_core::replicate::{Proof, proofs};
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::SnapshotId;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::verdict::missing;
use crate::find::Found;
use crate::session::Session;
use crate::words;

/// Documents that are read to add up what a vault lacks, for each source; of what is older only the number is known.
const ADDED_UP: usize = 64;

/// Names that are not believed and are passed over in a vault until its newest snapshot is found.
const PASSED_OVER: usize = 64;

/// How far a vault is behind the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lag {
    /// Newest snapshot there.
    newest: Option<SnapshotId>,
    /// Snapshots that others have and it has not.
    missing: usize,
    /// Stored bytes that the newest [`ADDED_UP`] of these added; `None`: not all could be read.
    bytes: Option<u64>,
    /// How much older its newest is than the newest of all; `None`: it has none.
    behind: Option<TimeDelta>,
    /// Instant of the oldest capture that it lacks of those after its newest; `None`: none, or nothing is known of it.
    lacks_since: Option<DateTime<Utc>>,
    /// No vault has a capture that is believed: there is nothing that anybody could be behind.
    never: bool,
    /// Whence this is known.
    word: Word,
    /// Whether any vault answers: otherwise nobody knows what is missing where.
    compared: bool,
    /// Objects there that an earlier call found damaged, and none good since.
    pub(super) damaged: usize,
}

/// Whence it is known what a vault holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It answers.
    Its,
    /// It does not, and was last seen then.
    Last(DateTime<Utc>),
    /// It does not, and nothing is remembered.
    None,
}

/// The lag of every configured vault, by name, in the configuration's order. `proved`: the newest capture that some vault
/// proves.
pub(super) async fn of(
    session: &Session<'_>,
    source: &Source,
    found: &Found,
    signers: &Signers,
    proved: Option<&SnapshotId>,
) -> Vec<(String, Lag)> {
    let is_believed = |one: &&Listed| one.id.is_imported() || proved.is_some_and(|proved| one.id <= *proved);
    let listed: Vec<Listed> = found.of(&source.name).into_iter().filter(is_believed).cloned().collect();
    let mut sizes: BTreeMap<SnapshotId, Option<u64>> = BTreeMap::new();
    let mut lags = Vec::new();
    for vault in &session.config.vaults {
        let (mut word, mut last) = (Word::Its, None);
        let has: Vec<bool> = if let Some(open) = found.vaults.iter().find(|open| open.name() == vault.name) {
            held(open, &listed, signers).await
        } else {
            let seen = match (&vault.id, session.remembered().await) {
                (Some(id), Some(state)) => state.seen(id, &source.name).await.ok().flatten(),
                _ => None,
            };
            word = seen.as_ref().map_or(Word::None, |(_, at)| Word::Last(*at));
            last = seen.as_ref().map(|(newest, _)| newest.clone()).filter(|newest| !newest.is_imported());
            listed.iter().map(|one| seen.as_ref().is_some_and(|(newest, _)| one.id <= *newest)).collect()
        };
        let captures = || listed.iter().zip(&has).filter(|(one, _)| !one.id.is_imported());
        // What was seen there is known, also where no other vault lists it, or none answers.
        let newest = last.or_else(|| captures().filter(|(_, has)| **has).map(|(one, _)| one.id.clone()).next_back());
        let head = captures().map(|(one, _)| one.id.instant()).next_back();
        let first = has.iter().position(|has| *has).unwrap_or(0);
        let lacking: Vec<&Listed> =
            listed.iter().zip(&has).skip(first).filter(|(_, has)| !**has).map(|(one, _)| one).collect();
        let mut bytes = Some(0);
        for one in lacking.iter().rev().take(ADDED_UP) {
            if !sizes.contains_key(&one.id) {
                sizes.insert(one.id.clone(), added(one, signers).await);
            }
            let size = sizes[&one.id];
            bytes = bytes.zip(size).map(|(sum, size)| sum + size);
        }
        let none = TimeDelta::zero();
        let behind = head.and_then(|head| newest.as_ref().map(|newest| (head - newest.instant()).max(none)));
        let later = |one: &&Listed| newest.as_ref().is_none_or(|newest| one.id > *newest);
        let later = lacking.iter().copied().filter(|one| !one.id.is_imported()).find(later);
        let lacks_since = later.filter(|_| word != Word::None).map(|one| one.id.instant());
        let never = head.is_none();
        let compared = !found.vaults.is_empty();
        let missing = missing(&has);
        let lag = Lag { newest, missing, bytes, behind, lacks_since, never, word, compared, damaged: 0 };
        lags.push((vault.name.clone(), lag));
    }
    lags
}

/// Which of these snapshots an open vault has.
async fn held(vault: &Vault, listed: &[Listed], signers: &Signers) -> Vec<bool> {
    let mut has: Vec<bool> =
        listed.iter().map(|one| one.vaults.iter().any(|open| open.name() == vault.name())).collect();
    let captures = (0..has.len()).rev().filter(|at| !listed[*at].id.is_imported());
    let named: Vec<usize> = captures.filter(|at| has[*at]).take(PASSED_OVER).collect();
    for at in named {
        let one = [(listed[at].dir.clone(), listed[at].id.clone())];
        match proofs(vault, signers, &one).await.pop() {
            Some(Proof::Foreign(_)) => has[at] = false,
            // A store that fails says nothing.
            Some(Proof::Signed(_) | Proof::Unknown(_)) | None => break,
        }
    }
    has
}

/// Stored bytes that a snapshot added, as the first vault says that proves it.
async fn added(one: &Listed, signers: &Signers) -> Option<u64> {
    let path = one.dir.snapshot(&one.id, ".json");
    for vault in &one.vaults {
        if let Ok(signed) = vault.get_signed::<SnapshotDoc>(&path, signers).await {
            return Some(signed.doc.added_bytes);
        }
    }
    None
}

impl Lag {
    /// Instant of the oldest capture that it lacks of those that are newer than all that it has.
    pub(super) fn lacks_since(&self) -> Option<DateTime<Utc>> {
        self.lacks_since
    }

    /// For people.
    pub(super) fn text(&self, now: DateTime<Utc>) -> String {
        let none = if self.never { "never: no capture that is believed" } else { "empty" };
        let newest = self.newest.as_ref().map_or_else(|| none.to_owned(), |id| format!("newest {}", id.short()));
        let mut behind = match self.missing {
            0 => {
                if self.damaged > 0 {
                    // Nobody who reads no further shall take it for whole.
                    String::new()
                } else if self.newest.is_some() {
                    ", complete".to_owned()
                } else {
                    String::new()
                }
            }
            missing => {
                let bytes = self.bytes.map(|bytes| format!(", {}", words::bytes(bytes))).unwrap_or_default();
                format!(", {missing} missing{bytes}")
            }
        };
        if let Some(late) = self.behind.filter(|late| *late > TimeDelta::zero()) {
            behind.push_str(&format!(", {} behind", words::age(late)));
        }
        if self.damaged > 0 {
            behind.push_str(&format!(", DAMAGED: {}", words::count(self.damaged, "object")));
        }
        match self.word {
            Word::Its => format!("{newest}{behind}"),
            Word::None => "does not answer, and nothing is remembered of it".to_owned(),
            Word::Last(at) if !self.compared => format!("does not answer; {}: {newest}", words::ago(now - at)),
            Word::Last(at) => {
                format!("does not answer; {}: {newest}, now{}", words::ago(now - at), behind.replacen(',', "", 1))
            }
        }
    }

    /// For programs.
    pub(super) fn to_json(&self, vault: &str) -> Value {
        let known = |value: Value| if self.compared { value } else { Value::Null };
        json!({
            "vault": vault, "newest": self.newest, "missing": known(self.missing.into()),
            "missing_bytes": known(self.bytes.into()),
            "lacks_since": known(self.lacks_since.map(words::utc).into()),
            "behind_seconds": known(self.behind.map(|behind| behind.num_seconds()).into()), "answers": self.word == Word::Its,
            "damaged": self.damaged, "seen": if let Word::Last(at) = self.word { Some(words::utc(at)) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_says_how_many_how_much_and_how_old() {
        let now: DateTime<Utc> = "2026-11-22T08:00:00Z".parse().unwrap();
        let newest = Some("20261121T020000Z-1r-abc234".parse().unwrap());
        let good = Lag {
            newest,
            missing: 0,
            bytes: Some(0),
            behind: Some(TimeDelta::zero()),
            lacks_since: None,
            never: false,
            word: Word::Its,
            compared: true,
            damaged: 0,
        };
        assert_eq!(good.text(now), "newest abc234, complete");
        let damaged = Lag { damaged: 2, ..good.clone() };
        assert_eq!(damaged.text(now), "newest abc234, DAMAGED: 2 objects", "what is damaged is not complete");
        let late = Lag { missing: 2, bytes: Some(3 << 20), behind: Some(TimeDelta::hours(30)), ..good.clone() };
        assert_eq!(late.text(now), "newest abc234, 2 missing, 3.0 MiB, 30h behind");
        let down = Lag { word: Word::Last(now - TimeDelta::hours(5)), ..late.clone() };
        assert_eq!(down.text(now), "does not answer; 5h ago: newest abc234, now 2 missing, 3.0 MiB, 30h behind");
        assert_eq!(down.to_json("v")["behind_seconds"], 108_000);
        let alone = Lag { compared: false, ..down.clone() };
        assert_eq!(alone.text(now), "does not answer; 5h ago: newest abc234", "nobody knows what is missing");
        assert_eq!(alone.to_json("v")["missing"], Value::Null);
        let never = Lag { word: Word::None, newest: None, ..late };
        assert_eq!(never.text(now), "does not answer, and nothing is remembered of it");
        let empty = Lag { newest: None, missing: 2, bytes: None, behind: None, ..good };
        assert_eq!(empty.text(now), "empty, 2 missing");
        assert_eq!(empty.to_json("v")["behind_seconds"], Value::Null, "an empty vault is not up to date");
        let never = Lag { missing: 0, bytes: Some(0), never: true, ..empty };
        assert_eq!(never.text(now), "never: no capture that is believed");
        assert_eq!(never.to_json("v")["behind_seconds"], Value::Null);
    }
}

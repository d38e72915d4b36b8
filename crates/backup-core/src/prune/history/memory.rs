//! What an earlier reading of a vault proved, so that a plan need not open ten thousand documents again that nobody touched.
//!
//! Remembered is, for each generation, a digest of its whole listing (path, size, time and [`Entry::identity`] of every file)
//! and of whom the signers believe, and beside it what reading it then gave. A later reading always lists the generation anew.
//! Only where that gives the same digest is it taken for the same, and its documents and inventories are not opened again.
//!
//! Why that is safe:
//!
//! - Good is remembered, bad never: a generation enters with every document of its listing believed and every snapshot whole.
//!   What was missing, foreign or refused is looked at each time, and so is what is known to be damaged.
//! - The same identity means the same bytes that were checked then: a bucket's entity tag, a file's inode and the time of its
//!   last change are not the writer's to choose. A store that gives none is never remembered. A change beside the reading is not
//!   mistaken for what was read, because what is younger than [`SETTLED`] is not remembered: whoever puts something back
//!   after the listing puts it back with a later time.
//! - An object that is gone, a document in another's place, another line of signers: each is another digest.
//! - What other places say is applied to it afterwards and never remembered: marks, receipts, a prune's documents, damage, what
//!   other vaults promise.
//! - It decides what is shown and what is announced, and deletes nothing: who deletes plans once more without it
//!   ([`PrunePlan::deletes`](crate::prune::PrunePlan::deletes)). So bits that rotted where no listing shows it cost a snapshot's
//!   place at most until then.
//!
//! It lies in the state of the host, which is the host's own; lost, everything is read once more. Whoever is to look (verify, audit,
//! restore, a witness of `--now`) does not use it.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::Hash256;
use crate::signature::Signers;
use crate::vault::Signed;
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::{GenerationId, SnapshotId};
use crate::vault::store::Entry;
use crate::verify::Link;

/// What was written later than this before a listing, by the store's clock, may have been written twice within one tick of it.
pub(super) const SETTLED: TimeDelta = TimeDelta::minutes(1);

/// Changes when the reading of a generation judges otherwise than before.
const FORM: &str = "generation 2";

/// What is remembered of one source in one vault, and when it is asked for.
#[derive(Debug, Clone)]
pub struct Memory {
    /// The store's clock when the reading begins.
    pub now: DateTime<Utc>,
    /// Each generation as it was read.
    pub generations: HashMap<GenerationId, Noted>,
}

/// What reading a generation gave, where all of it was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Of its listing and of the signers.
    pub digest: Hash256,
    /// Its snapshots, in the listing's order: all of them believed and whole.
    pub snapshots: Vec<Proved>,
}

/// What a plan needs to know of a snapshot that is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proved {
    /// The snapshot.
    pub id: SnapshotId,
    /// Instant that its data shows.
    pub instant: DateTime<Utc>,
    /// SHA-256 of its document.
    pub sha256: Hash256,
    /// That of the document that it follows on.
    pub previous: Option<Hash256>,
    /// Whether there are reasons to look at it first.
    pub suspect: bool,
    /// Fingerprint of the key that signed it.
    pub signer: String,
}

impl Proved {
    pub(super) fn link(&self) -> Link {
        let (id, signer) = (self.id.clone(), self.signer.clone());
        Link { id, hash: self.sha256, previous: self.previous, signer }
    }
}

impl From<&Signed<SnapshotDoc>> for Proved {
    fn from(signed: &Signed<SnapshotDoc>) -> Self {
        let doc = &signed.doc;
        Self {
            id: doc.id.clone(),
            instant: doc.instant,
            sha256: signed.hash(),
            previous: doc.previous,
            suspect: doc.suspect > 0,
            signer: signed.by.fingerprint.clone(),
        }
    }
}

/// The digest of a generation's listing, sorted by path as a store gives it. `None` where a file has no identity.
pub(super) fn digest(files: &[Entry], signers: &Signers) -> Option<Hash256> {
    let mut sum = Sha256::new();
    sum.update(FORM);
    sum.update(env!("CARGO_PKG_VERSION"));
    sum.update(signers.digest().0);
    for file in files {
        let path = file.path.as_str();
        // Its length before each: no two listings give the same bytes.
        sum.update((path.len() as u64).to_be_bytes());
        sum.update(path);
        sum.update(file.bytes.to_be_bytes());
        sum.update(file.modified.timestamp().to_be_bytes());
        sum.update(file.modified.timestamp_subsec_nanos().to_be_bytes());
        sum.update(file.identity?.0);
    }
    Some(Hash256(sum.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::store::{Identity, StorePath};

    #[test]
    fn whatever_a_listing_shows_is_in_its_digest() {
        let entry = |path: &str, bytes: u64, nanos: i64, identity: Option<u64>| Entry {
            path: StorePath::new(path).unwrap(),
            bytes,
            modified: DateTime::from_timestamp_nanos(nanos),
            identity: identity.map(|number| Identity::of_numbers(0, number)),
        };
        let nobody = Signers::default();
        let of = |files: &[Entry]| digest(files, &nobody);
        let one = entry("g/a", 1, 1, Some(1));
        let known = of(std::slice::from_ref(&one));
        assert_eq!(known, of(std::slice::from_ref(&one)));
        for other in [
            vec![],
            vec![entry("g/b", 1, 1, Some(1))],
            vec![entry("g/a", 2, 1, Some(1))],
            vec![entry("g/a", 1, 2, Some(1))],
            vec![entry("g/a", 1, 1_000_000_001, Some(1))],
            vec![entry("g/a", 1, 1, Some(2))],
            vec![one.clone(), entry("g/b", 1, 1, Some(1))],
        ] {
            assert_ne!(of(&other), known, "{other:?}");
            assert!(of(&other).is_some());
        }
        assert_eq!(of(&[entry("g/a", 1, 1, None)]), None, "nothing can be concluded of it");
        assert_ne!(digest(std::slice::from_ref(&one), &Signers::pin_fingerprint("SHA256:x")), known);
    }
}

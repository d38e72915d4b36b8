//! Each signer's snapshots form a chain by `previous`: does it close, and does it go on once only?
//!
//! Two machines that sign with one key (a cloned host, one that was set back to an earlier state) make two snapshots that
//! follow on the same one. Both are whole, and each goes on as a chain of its own: nothing is lost, but what a chain proves
//! is no longer that nothing is missing. So it is told as what it is, a [`Fork`], and freezes expiry until the branches but
//! one were looked at and accepted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use chrono::{DateTime, Utc};

use crate::id::{Hash256, VaultId};
use crate::prune::history::Fact;
use crate::vault::Signed;
use crate::vault::document::{ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{GenerationDir, SnapshotId};

/// Several snapshots of one signer that follow on the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Fingerprint of the signer.
    pub signer: String,
    /// The snapshot that they follow on, where it is still there.
    pub on: Option<SnapshotId>,
    /// The first of each branch, oldest first; at least two.
    pub snapshots: Vec<SnapshotId>,
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.snapshots.iter().map(|id| format!("`{id}`")).collect();
        write!(f, "fork: {} by {} follow on the same snapshot", named.join(" and "), self.signer)?;
        if let Some(on) = &self.on {
            write!(f, " `{on}`")?;
        }
        f.write_str(": two machines sign with one key, or one was set back")
    }
}

/// What a chain is made of: what one believed snapshot says of itself and of the one before it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// The snapshot.
    pub(crate) id: SnapshotId,
    /// SHA-256 of its document.
    pub(crate) hash: Hash256,
    /// That of the document that it follows on.
    pub(crate) previous: Option<Hash256>,
    /// Fingerprint of the key that signed it.
    pub(crate) signer: String,
}

impl From<&Signed<SnapshotDoc>> for Link {
    fn from(signed: &Signed<SnapshotDoc>) -> Self {
        let (id, signer) = (signed.doc.id.clone(), signed.by.fingerprint.clone());
        Self { id, hash: signed.hash(), previous: signed.doc.previous, signer }
    }
}

/// The links of some documents.
pub(crate) fn links(documents: &[(GenerationDir, Signed<SnapshotDoc>)]) -> Vec<Link> {
    documents.iter().map(|(_, signed)| signed.into()).collect()
}

/// A place where a chain does not close.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The document of the snapshot that shows it: the later one.
    pub after: Hash256,
    /// Its id.
    pub id: SnapshotId,
    /// The document that is missing; its own where it follows on none.
    pub missing: Hash256,
    /// What is wrong, in words.
    pub text: String,
}

/// What is wrong with the chains of a source.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// Where one does not close.
    pub(crate) broken: Vec<Open>,
    /// Where one goes on more than once.
    pub(crate) forks: Vec<Fork>,
}

/// Holes that somebody looked at and said, signed, that they know. Each is closed by the document that is missing, in the vault that
/// lacked it then: what somebody removes afterwards, there or elsewhere, is another hole.
#[derive(Debug, Clone, Default)]
pub struct Closed {
    /// The snapshot that was accepted, and what is missing before it; `None`: whatever it is (accepts of the first programs).
    holes: BTreeSet<(Hash256, Option<Hash256>)>,
}

impl Closed {
    /// By facts that pinned signers signed, in `vault`; `None`: in any.
    pub fn by<'a>(facts: impl IntoIterator<Item = &'a Fact>, vault: Option<&VaultId>) -> Self {
        let closed = |fact: &Fact| match fact {
            Fact::Closes(document, None) => Some((*document, None)),
            Fact::Closes(document, Some(hole)) => {
                vault.is_none_or(|vault| *vault == hole.vault).then_some((*document, Some(hole.missing)))
            }
            Fact::Marked(..) => None,
        };
        Self { holes: facts.into_iter().filter_map(closed).collect() }
    }

    /// Without what an accept of the first programs closes at one of `suspect` (hashes of documents): who accepted those said that
    /// their rows are what they should be, and nothing of what lay before.
    pub(crate) fn named_at(mut self, suspect: &BTreeSet<Hash256>) -> Self {
        self.holes.retain(|(document, missing)| missing.is_some() || !suspect.contains(document));
        self
    }

    /// Whether this one was looked at.
    pub fn holds(&self, open: &Open) -> bool {
        [None, Some(open.missing)].iter().any(|missing| self.holes.contains(&(open.after, *missing)))
    }
}

impl Chains {
    /// Without the holes that are `closed`. Told again each night, they would hide the next one. Whoever can sign that can sign the
    /// chain anew as well.
    pub(crate) fn looked_at(self, closed: &Closed) -> Self {
        self.sorted(closed).0
    }

    /// The same, and beside it the holes that were looked at.
    pub(crate) fn sorted(mut self, closed: &Closed) -> (Self, Vec<Open>) {
        let (known, broken) = self.broken.into_iter().partition(|open| closed.holds(open));
        self.broken = broken;
        (self, known)
    }

    /// All of it in words.
    pub(crate) fn texts(&self) -> Vec<String> {
        let broken = self.broken.iter().map(|open| open.text.clone());
        broken.chain(self.forks.iter().map(Fork::to_string)).collect()
    }
}

/// The snapshots that receipts say were removed.
#[derive(Debug, Default)]
pub(crate) struct Accounted {
    documents: BTreeSet<Hash256>,
    /// Of receipts that do not name all documents.
    instants: Vec<DateTime<Utc>>,
}

impl Accounted {
    /// By receipts that are believed.
    pub(crate) fn by<'a>(receipts: impl IntoIterator<Item = &'a ReceiptDoc>) -> Self {
        let mut all = Self::default();
        for receipt in receipts {
            all.documents.extend(&receipt.documents);
            // The first programs named neither vault nor documents: what lies between the two of a gap must do there. So it must where
            // leaked data went of which a document could not be read any more.
            let unread = receipt.grounds.purge.is_some() && receipt.documents.len() < receipt.snapshots.len();
            if receipt.vault.is_none() || unread {
                let captures = receipt.snapshots.iter().filter(|(id, _)| !id.is_imported());
                all.instants.extend(captures.map(|(id, _)| id.instant()));
            }
        }
        all
    }

    /// Whether the snapshot with this document is among them, which lay between two others.
    fn holds(&self, document: &Hash256, (before, after): (&SnapshotId, &SnapshotId)) -> bool {
        let between = |at: &DateTime<Utc>| *at >= before.instant() && *at <= after.instant();
        self.documents.contains(document) || self.instants.iter().any(between)
    }
}

/// The forks among some documents of one source, of which others may be missing.
pub fn forks_of(documents: &[(GenerationDir, Signed<SnapshotDoc>)], accepted: &BTreeSet<Hash256>) -> Vec<Fork> {
    chains(&links(documents), &Accounted::default(), accepted).forks
}

/// Where the chains of some documents of one source do not close, `removed` by these receipts excepted. They must be all there are
/// from the oldest of them on.
pub fn holes_of(documents: &[(GenerationDir, Signed<SnapshotDoc>)], removed: &[ReceiptDoc]) -> Vec<Open> {
    chains(&links(documents), &Accounted::by(removed), &BTreeSet::new()).broken
}

/// Looks at the chain of each signer. It does not close where one that has older ones beside it follows on none, or where the
/// one that it follows on is missing and no receipt accounts for it (`removed`): for that one, not for another beside it.
/// What the oldest follows on may be gone. Imports are no links. A fork is settled when all of its branches but one begin with
/// a snapshot that is `accepted` (hashes of documents).
pub(crate) fn chains(links: &[Link], removed: &Accounted, accepted: &BTreeSet<Hash256>) -> Chains {
    let mut by_signer: BTreeMap<&str, Vec<&Link>> = BTreeMap::new();
    for link in links.iter().filter(|link| !link.id.is_imported()) {
        by_signer.entry(&link.signer).or_default().push(link);
    }
    let mut found = Chains::default();
    for (signer, mut chain) in by_signer {
        chain.sort_by(|a, b| a.id.cmp(&b.id));
        let there: HashMap<Hash256, &Link> = chain.iter().map(|link| (link.hash, *link)).collect();
        for pair in chain.windows(2) {
            let (before, id) = (&pair[0].id, &pair[1].id);
            let missing = pair[1].previous.unwrap_or(pair[1].hash);
            let mut open =
                |text: String| found.broken.push(Open { after: pair[1].hash, id: id.clone(), missing, text });
            match pair[1].previous {
                None => open(format!("snapshot `{id}` by {signer} does not follow on `{before}`")),
                Some(previous) if !there.contains_key(&previous) => {
                    if !removed.holds(&previous, (before, id)) {
                        open(format!("a snapshot by {signer} between `{before}` and `{id}` is missing"));
                    }
                }
                Some(_) => {}
            }
        }
        found.forks.extend(forks(signer, &chain, &there, accepted));
    }
    found
}

fn forks(signer: &str, chain: &[&Link], there: &HashMap<Hash256, &Link>, accepted: &BTreeSet<Hash256>) -> Vec<Fork> {
    let mut followed: BTreeMap<Hash256, Vec<&Link>> = BTreeMap::new();
    for link in chain {
        if let Some(previous) = link.previous {
            followed.entry(previous).or_default().push(link);
        }
    }
    let open = followed.into_iter().filter(|(_, branches)| {
        branches.len() > 1 && branches.iter().filter(|link| !accepted.contains(&link.hash)).count() > 1
    });
    let mut forks: Vec<Fork> = open
        .map(|(on, branches)| Fork {
            signer: signer.to_owned(),
            on: there.get(&on).map(|link| link.id.clone()),
            snapshots: branches.iter().map(|link| link.id.clone()).collect(),
        })
        .collect();
    forks.sort_by(|a, b| a.snapshots.cmp(&b.snapshots));
    forks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::document::Grounds;

    /// A receipt for two snapshots, of which it names so many documents.
    fn receipt(vault: Option<&str>, purge: bool, documents: u8) -> ReceiptDoc {
        let ids = ["20260102T000000Z-1r-aaaaaa", "20260103T000000Z-1r-bbbbbb"];
        ReceiptDoc {
            format: 1,
            stack: "s".parse().unwrap(),
            source: "db".parse().unwrap(),
            generation: "2026-01-01--7d--00000000".parse().unwrap(),
            at: "2026-02-01T00:00:00Z".parse().unwrap(),
            snapshots: ids.iter().map(|id| (id.parse().unwrap(), "why".to_owned())).collect(),
            vault: vault.map(|id| id.parse().unwrap()),
            documents: (0..documents).map(|n| Hash256([n; 32])).collect(),
            objects: 0,
            stored_bytes: 0,
            grounds: Grounds { purge: purge.then(|| "leaked".to_owned()), ..Grounds::default() },
            signer: "SHA256:x".to_owned(),
            tool: "backup 0".to_owned(),
        }
    }

    #[test]
    fn a_receipt_that_names_documents_excuses_these_and_only_one_that_could_not_name_them_what_lies_between() {
        let id = "0".repeat(32);
        let between: (SnapshotId, SnapshotId) =
            ("20260101T000000Z-1r-cccccc".parse().unwrap(), "20260104T000000Z-1r-dddddd".parse().unwrap());
        let elsewhere = ("20260110T000000Z-1r-cccccc".parse().unwrap(), "20260111T000000Z-1r-dddddd".parse().unwrap());
        let excused = |receipt: &ReceiptDoc, document: u8, (a, b): &(SnapshotId, SnapshotId)| {
            Accounted::by([receipt]).holds(&Hash256([document; 32]), (a, b))
        };
        for (receipt, another) in [
            (receipt(Some(&id), false, 2), false),
            // A prune reads each document before it deletes it: one that names fewer was altered, or is a mistake.
            (receipt(Some(&id), false, 1), false),
            (receipt(Some(&id), true, 2), false),
            // Leaked data went, of which a document could not be read any more.
            (receipt(Some(&id), true, 1), true),
            (receipt(Some(&id), true, 0), true),
            // The first programs' receipts.
            (receipt(None, false, 0), true),
        ] {
            let (documents, purge) = (receipt.documents.len(), receipt.grounds.purge.is_some());
            let about = format!("{documents} documents, vault {:?}, purge {purge}", receipt.vault);
            assert_eq!(excused(&receipt, 0, &between), documents > 0 || another, "{about}");
            assert_eq!(excused(&receipt, 9, &between), another, "another document beside it: {about}");
            assert!(!excused(&receipt, 9, &elsewhere), "{about}");
        }
    }
}

//! Who else has what is damaged in one vault.
//!
//! A copy is good when the bytes that are damaged here were read and hashed there, and everything else of the snapshot is listed there
//! with its size. In each other vault so many objects are read for a source, each once; of what is beyond it is said only that it
//! is listed. Where no object is damaged here (but the document, or the inventory), none is read there, and that is said. Where every file has the
//! bytes of its name and what is inside does not open or is not what the manifest says, it was stored so: another vault's copy
//! has the same bytes, and is not offered.

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::id::ObjectName;
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::verify::{Place, Verdict, Verified};

/// Damaged objects of a source that are read in each other vault; each is read whole.
const READ: usize = 64;

/// Who has a good copy of a snapshot that is damaged here.
pub(super) struct Elsewhere {
    /// The snapshot.
    pub(super) snapshot: SnapshotId,
    /// What is wrong is in the bytes as they were stored: every copy has it.
    pub(super) inside: bool,
    /// What other vaults have.
    pub(super) others: Vec<Other>,
}

/// What another vault has of what is damaged here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Other {
    /// Its name.
    pub(super) vault: String,
    /// Whether the snapshot's document and inventory are good there.
    pub(super) documents: bool,
    /// Objects of the snapshot, by the inventory there.
    pub(super) objects: usize,
    /// Of these, those that are not listed there with their size.
    pub(super) lacking: usize,
    /// Objects that are damaged here.
    pub(super) of: usize,
    /// Of these, those that were read there and are good.
    pub(super) good: usize,
    /// Those that were not read, and are listed there with their size.
    pub(super) listed: usize,
}

/// How good a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// Every object that is damaged here was read there and is good, and the rest is listed.
    Whole,
    /// What was read is good, if anything was, and the rest is listed.
    Likely,
    /// Some of it is there.
    Partly,
    /// Nothing that helps.
    None,
}

impl Other {
    /// How good the copy is.
    pub(super) fn worth(&self) -> Worth {
        let Self { documents, objects, lacking, of, good, listed, .. } = self;
        let whole = *documents && *lacking == 0 && good + listed == *of;
        if whole && *of > 0 && good == of {
            Worth::Whole
        } else if whole {
            Worth::Likely
        } else if good + listed > 0 || (*documents && lacking < objects) {
            Worth::Partly
        } else {
            Worth::None
        }
    }
}

impl Elsewhere {
    /// The vaults whose copies are worth so much.
    pub(super) fn of(&self, worth: Worth) -> impl Iterator<Item = &Other> {
        self.others.iter().filter(move |other| other.worth() == worth)
    }
}

/// Looks into the vaults beside one; what was read is not read again for the next snapshot.
pub(super) struct Search<'a> {
    here: &'a Vault,
    vaults: &'a [Vault],
    signers: &'a Signers,
    read: HashMap<(String, GenerationDir), HashMap<ObjectName, bool>>,
    listed: HashMap<(String, GenerationDir), Arc<HashMap<ObjectName, u64>>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(here: &'a Vault, vaults: &'a [Vault], signers: &'a Signers) -> Self {
        Self { here, vaults, signers, read: HashMap::new(), listed: HashMap::new() }
    }

    /// Who has what is damaged of a snapshot.
    pub(super) async fn copies(&mut self, verified: &Verified, verdict: &Verdict) -> Elsewhere {
        let inside = is_inside(verified, verdict);
        let mut elsewhere = Elsewhere { snapshot: verdict.id.clone(), inside, others: Vec::new() };
        let (here, vaults) = (self.here, self.vaults);
        for other in vaults.iter().filter(|other| !inside && other.id() != here.id()) {
            let path = verdict.dir.snapshot(&verdict.id, ".json");
            let Ok(signed) = other.get_signed::<SnapshotDoc>(&path, self.signers).await else { continue };
            let inventory = other.get_inventory(&signed.doc).await.ok();
            let sizes: HashMap<ObjectName, u64> =
                inventory.iter().flat_map(|(lines, _)| lines).map(|line| (line.name, line.bytes)).collect();
            let there = self.there(other, &verdict.dir).await;
            let lacking = sizes.iter().filter(|(name, bytes)| there.get(*name) != Some(*bytes)).count();
            let (mut good, mut listed) = (0, 0);
            for name in &verdict.objects {
                if let Some(is_good) = self.is_good(other, &verdict.dir, name).await {
                    good += usize::from(is_good);
                } else {
                    listed += usize::from(sizes.get(name).is_some_and(|bytes| there.get(name) == Some(bytes)));
                }
            }
            let (vault, documents, of) = (other.name().to_owned(), inventory.is_some(), verdict.objects.len());
            let objects = sizes.len();
            elsewhere.others.push(Other { vault, documents, objects, lacking, of, good, listed });
        }
        elsewhere
    }

    /// Whether an object is good in another vault; `None`: enough was read there.
    async fn is_good(&mut self, other: &Vault, dir: &GenerationDir, name: &ObjectName) -> Option<bool> {
        let read: usize =
            self.read.iter().filter(|((vault, _), _)| vault == other.name()).map(|(_, of)| of.len()).sum();
        let known = self.read.entry((other.name().to_owned(), dir.clone())).or_default();
        if let Some(is_good) = known.get(name) {
            return Some(*is_good);
        }
        if read >= READ {
            return None;
        }
        let is_good = other.get_object(dir, name).await.is_ok();
        known.insert(*name, is_good);
        Some(is_good)
    }

    /// Objects that another vault lists, and their sizes; none where it cannot be listed.
    async fn there(&mut self, other: &Vault, dir: &GenerationDir) -> Arc<HashMap<ObjectName, u64>> {
        let at = (other.name().to_owned(), dir.clone());
        if let Some(there) = self.listed.get(&at) {
            return there.clone();
        }
        let lines = other.list_objects(dir).await.unwrap_or_default();
        let there: Arc<HashMap<_, _>> = Arc::new(lines.into_iter().map(|line| (line.name, line.bytes)).collect());
        self.listed.insert(at, there.clone());
        there
    }
}

/// Whether what is wrong is in no file's bytes: an object has the bytes of its name and does not open, or a stream's hash is
/// another one and every file is as it was stored.
fn is_inside(verified: &Verified, verdict: &Verdict) -> bool {
    let (dir, id) = (verdict.dir.clone(), verdict.id.clone());
    if verdict.objects.is_empty() {
        let places = [Place::Snapshot(dir.clone(), id.clone()), Place::Inventory(dir, id)];
        return !places.iter().any(|place| verified.places.contains_key(place));
    }
    verdict.objects.iter().any(|name| verified.unopened.contains(&(dir.clone(), *name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_good_as_far_as_it_was_read_and_no_further() {
        let all = |documents, lacking, of, good, listed| {
            Other { vault: "v".into(), documents, objects: 400, lacking, of, good, listed }.worth()
        };
        let other = |documents, of, good, listed| all(documents, 0, of, good, listed);
        assert_eq!(other(true, 300, 300, 0), Worth::Whole);
        assert_eq!(
            other(true, 0, 0, 0),
            Worth::Likely,
            "the document or the inventory is damaged here, and nothing was read"
        );
        assert_eq!(all(true, 1, 0, 0, 0), Worth::Partly, "one of its objects is not there");
        assert_eq!(all(true, 400, 0, 0, 0), Worth::None, "none of them is");
        assert_eq!(all(true, 1, 300, 300, 0), Worth::Partly, "what is good here is not there");
        assert_eq!(other(true, 300, 64, 236), Worth::Likely);
        assert_eq!(other(true, 300, 64, 235), Worth::Partly);
        assert_eq!(other(true, 300, 63, 236), Worth::Partly, "one that was read is bad");
        assert_eq!(other(false, 300, 300, 0), Worth::Partly, "no inventory");
        assert_eq!(all(true, 400, 300, 0, 0), Worth::None);
        assert_eq!(other(false, 0, 0, 0), Worth::None);
    }

    #[test]
    fn damage_of_no_file_is_inside_and_every_copy_has_it() {
        let mut report = super::super::report::tests::report(vec!["stream 3 has another hash".into()]);
        let verdict = report.verified.snapshots.pop().unwrap();
        assert!(is_inside(&report.verified, &verdict));
        let place = Place::Inventory(verdict.dir.clone(), verdict.id.clone());
        report.verified.places.insert(place, "bad".into());
        assert!(!is_inside(&report.verified, &verdict));
        let mut lost = verdict;
        let name = ObjectName::of(b"x");
        lost.objects.insert(name);
        assert!(!is_inside(&report.verified, &lost));
        report.verified.unopened.insert((lost.dir.clone(), name));
        assert!(is_inside(&report.verified, &lost));
    }
}

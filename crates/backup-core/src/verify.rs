//! Is what a vault holds still what was stored? Three depths, each including the one before.
//!
//! 1. *Listing*: signature, path, chain, inventory, and every object's presence and size; signature, form and path of every
//!    mark, receipt and document of a prune. No key, no object read.
//! 2. *Hashing* (`read`): stored bytes of objects against their names; a fraction per call, rotating. No key.
//! 3. *Checking* (`identities`): decrypted, decompressed, every stream's SHA-256. Gives the state `checked`.
//!
//! (The fourth, `restored`, is a restore.) Damage is collected, not thrown: one bad object must not hide another. What a
//! repair could mend is named as a [`Place`], what the damage costs in words of the source ([`Verified::costs`]). What a
//! prune deletes while it is looked at is no damage: see `deleted`.

mod chain;
mod cost;
mod deleted;
mod grants;
mod lone;
mod objects;
mod pace;
mod remember;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use crate::hidden::{self, Hidden};
use crate::id::{Hash256, ObjectName, SourceName, StackName};
use crate::prune::history::Fact;
use crate::seal::key::Identities;
use crate::signature::{SignatureError, Signers};
use crate::vault::document::{ExpiredDoc, GenerationDoc, MarkDoc, PruneStage, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};

pub(crate) use chain::{Accounted, Chains, Link, chains, links};
pub use chain::{Closed, Fork, Open, forks_of, holes_of};
pub use pace::{Bad, Coverage, Pace, Reads};
pub use remember::remember;

/// A fraction of all objects: those whose name falls into part `part` of `of`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// Which part.
    pub part: u32,
    /// Of how many.
    pub of: u32,
}

impl Fraction {
    /// Whether an object belongs to the part. Every object belongs to exactly one.
    pub fn holds(self, name: &ObjectName) -> bool {
        let [a, b, c, d, ..] = name.0;
        u32::from_be_bytes([a, b, c, d]) % self.of.max(1) == self.part.saturating_sub(1)
    }
}

/// How deep to look.
#[derive(Clone, Copy)]
pub struct Depth<'a> {
    /// Hash this fraction of the objects.
    pub read: Option<Fraction>,
    /// Decrypt and hash everything.
    pub identities: Option<&'a Identities>,
}

impl Depth<'_> {
    /// Whether every object is to be hashed.
    pub fn reads_all(&self) -> bool {
        self.identities.is_some() || self.read.is_some_and(|share| share.of <= 1)
    }
}

/// A file of a vault that should be there and be good, in the order in which files are mended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `generation.json` and its signature.
    Generation(GenerationDir),
    /// An object.
    Object(GenerationDir, ObjectName),
    /// A snapshot's inventory.
    Inventory(GenerationDir, SnapshotId),
    /// A snapshot's document and its signature.
    Snapshot(GenerationDir, SnapshotId),
    /// A mark and its signature.
    Mark(StorePath),
    /// The recovery document and its signature.
    Recover,
}

impl Place {
    /// Path of the file; of a document, not of its signature.
    pub fn path(&self) -> StorePath {
        match self {
            Self::Generation(dir) => dir.file("generation.json"),
            Self::Object(dir, name) => dir.object(name),
            Self::Inventory(dir, id) => dir.snapshot(id, ".inventory.zst"),
            Self::Snapshot(dir, id) => dir.snapshot(id, ".json"),
            Self::Mark(path) => path.clone(),
            Self::Recover => layout::recover(),
        }
    }

    /// Its generation; none of a mark and of the recovery document.
    pub fn dir(&self) -> Option<&GenerationDir> {
        match self {
            Self::Generation(dir) | Self::Object(dir, _) | Self::Inventory(dir, _) | Self::Snapshot(dir, _) => {
                Some(dir)
            }
            Self::Mark(_) | Self::Recover => None,
        }
    }
}

/// What was found of one source in one vault.
#[derive(Debug, Default)]
pub struct Verified {
    /// Snapshots, oldest first.
    pub snapshots: Vec<Verdict>,
    /// Objects that the listing showed, over all generations.
    pub objects_listed: u64,
    /// Objects whose stored bytes were hashed.
    pub objects_read: u64,
    /// Their stored bytes.
    pub bytes_read: u64,
    /// Every damaged object, also one that no snapshot names (a run that died may have left it): the next run must not
    /// build on it.
    pub objects: BTreeMap<(GenerationDir, ObjectName), String>,
    /// Those of them that are there and have the bytes of their name, and do not open: no hash shows it.
    pub unopened: BTreeSet<(GenerationDir, ObjectName)>,
    /// Damage that belongs to no single snapshot: a chain that does not close, a generation without its document.
    pub chain: Vec<String>,
    /// Those of them that are holes in the chain.
    pub holes: Vec<Open>,
    /// Holes that somebody looked at and accepted: no damage any more.
    pub accepted: Vec<Open>,
    /// Where a signer's chain goes on twice: nothing is lost, and nothing expires until somebody has looked.
    pub forks: Vec<Fork>,
    /// Marks, receipts, grants and documents of a prune that were read and believed.
    pub documents: u64,
    /// Of how many damaged objects and documents an older version is good: somebody deleted them or wrote over them, and a
    /// restore reads the older version. Looked for among the first [`OLDER_LOOKED_FOR`], and within the time of the call.
    pub older: u64,
    /// Those that are damaged, unsigned, wrongly signed or misplaced, in words.
    pub unbelieved: Vec<String>,
    /// Grants that nobody signed, in words: no damage, because they prove themselves when they are used.
    pub unsigned: Vec<String>,
    /// Signatures that lie there without their document, in words: nothing that can be proved, and a trace of what somebody removed.
    pub alone: Vec<String>,
    /// Documents other than snapshots' whose signer is not pinned, in words: no damage, and no proof either.
    pub foreign: Vec<String>,
    /// What could not be looked at where a bucket keeps versions, in words: no damage, and no proof that nothing was deleted.
    pub unseen: Vec<String>,
    /// What a good copy of another vault would mend, and what is wrong there.
    pub places: BTreeMap<Place, String>,
    /// What cannot be restored from this vault, by snapshot: tables, files, or what else its damaged streams hold. Known
    /// only where identities opened the manifest; names are as the source gave them.
    pub costs: BTreeMap<SnapshotId, Vec<String>>,
    /// How much was read, now and before.
    pub coverage: Coverage,
    /// Objects whose bytes were read and found good in this call.
    pub good: BTreeMap<GenerationDir, Vec<ObjectName>>,
    /// Generations of which snapshots were deleted while they were looked at, as a signed receipt says: no damage.
    pub deleted: Vec<GenerationDir>,
}

/// Among so many damaged objects and as many documents of a source it is looked for good older versions: each is read.
pub const OLDER_LOOKED_FOR: usize = 1000;

/// What was found of one snapshot.
#[derive(Debug)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its generation.
    pub dir: GenerationDir,
    /// Whether every stream was decrypted and hashed.
    pub checked: bool,
    /// The document's hash, where it could be believed: what a `checked` mark refers to.
    pub document: Option<Hash256>,
    /// What is wrong; empty is good.
    pub damage: Vec<String>,
    /// Why nothing of it is believed, where its signer is not pinned: it may be good, and the signer unknown here.
    pub foreign: Option<String>,
    /// SHA-256 of a document whose signer is not pinned and is the one that the document itself names.
    pub unproved: Option<Hash256>,
    /// Why nothing was decrypted, where the identities are not those of a recipient: no damage, and no check either.
    pub locked: Option<String>,
    /// The objects that are missing or damaged, where the damage is in objects.
    pub objects: BTreeSet<ObjectName>,
}

impl Verified {
    /// Whether anything is wrong.
    pub fn is_damaged(&self) -> bool {
        !self.chain.is_empty()
            || !self.forks.is_empty()
            || !self.objects.is_empty()
            || !self.unbelieved.is_empty()
            || self.snapshots.iter().any(|verdict| !verdict.damage.is_empty())
    }

    /// Whether anything is signed by a key that is not pinned.
    pub fn is_foreign(&self) -> bool {
        !self.foreign.is_empty() || self.snapshots.iter().any(|verdict| verdict.foreign.is_some())
    }

    /// Adds what was found of another generation.
    fn absorb(&mut self, other: Self) {
        self.snapshots.extend(other.snapshots);
        self.objects_listed += other.objects_listed;
        self.objects_read += other.objects_read;
        self.bytes_read += other.bytes_read;
        self.objects.extend(other.objects);
        self.unopened.extend(other.unopened);
        self.chain.extend(other.chain);
        self.holes.extend(other.holes);
        self.accepted.extend(other.accepted);
        self.forks.extend(other.forks);
        self.documents += other.documents;
        self.older += other.older;
        self.unbelieved.extend(other.unbelieved);
        self.unsigned.extend(other.unsigned);
        self.alone.extend(other.alone);
        self.foreign.extend(other.foreign);
        self.places.extend(other.places);
        self.costs.extend(other.costs);
        self.coverage = self.coverage.and(other.coverage);
        self.good.extend(other.good);
        self.deleted.extend(other.deleted);
        self.unseen.extend(other.unseen);
    }

    /// Judges a mark, a receipt or a document of a prune; `place`: where another vault's copy may mend it.
    async fn document<T>(
        &mut self,
        vault: &Vault,
        read: Result<Signed<T>, VaultError>,
        place: Option<Place>,
    ) -> Result<(), VaultError> {
        let Err(error) = read else {
            self.documents += 1;
            return Ok(());
        };
        match finding(vault, error).await? {
            Finding::Damage(text) => {
                self.places.extend(place.map(|place| (place, text.clone())));
                self.unbelieved.push(text);
            }
            Finding::Foreign(text) => self.foreign.push(text),
        }
        Ok(())
    }

    /// Notes signatures that are alone. A folder that is none is damage, and told where it is listed for what lies in it.
    async fn tell_alone(&mut self, vault: &Vault, found: Result<Vec<StorePath>, VaultError>) -> Result<(), VaultError> {
        match found {
            Ok(paths) => self.alone.extend(paths.iter().map(|path| lone::text(vault, path))),
            Err(error) => drop(damage_or(vault, error).await?),
        }
        Ok(())
    }

    /// Paths of a folder, of which none is known where the folder itself is none: that is damage, and no failure to look.
    async fn listed(
        &mut self,
        vault: &Vault,
        listed: Result<Vec<StorePath>, VaultError>,
    ) -> Result<Vec<StorePath>, VaultError> {
        match listed {
            Ok(paths) => Ok(paths),
            Err(error) => {
                self.unbelieved.push(damage_or(vault, error).await?);
                Ok(Vec::new())
            }
        }
    }
}

/// What an error that is no failure to look says.
enum Finding {
    Damage(String),
    /// The signer is not pinned, or not for this time or kind of document.
    Foreign(String),
}

async fn finding(vault: &Vault, error: VaultError) -> Result<Finding, VaultError> {
    let unknown = matches!(
        &error,
        VaultError::Signature { source: SignatureError::UnknownSigner { .. } | SignatureError::NotValid { .. }, .. }
    );
    let text = damage_or(vault, error).await?;
    Ok(if unknown { Finding::Foreign(text) } else { Finding::Damage(text) })
}

/// Verifies every snapshot of a source (or only `only`) in a vault. Errors are failures to look; damage is in the result.
pub async fn verify(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
    only: Option<&SnapshotId>,
    depth: Depth<'_>,
) -> Result<Verified, VaultError> {
    verify_at(vault, signers, (stack, source), only, depth, &Pace::default()).await
}

/// [`verify`], reading no longer than `pace` allows and what was read longest ago first.
pub async fn verify_at(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    only: Option<&SnapshotId>,
    depth: Depth<'_>,
    pace: &Pace<'_>,
) -> Result<Verified, VaultError> {
    let mut verified = Verified::default();
    let mut documents: Vec<(GenerationDir, Signed<SnapshotDoc>)> = Vec::new();
    let mut generations = vault.generations(stack, source).await?;
    let hidden::Found { snapshots: mut hidden, unseen } = hidden::snapshots(vault, signers, (stack, source)).await?;
    verified.unseen = unseen;
    hidden.retain(|one| only.is_none_or(|only| *only == one.id));
    for one in &hidden {
        if !generations.contains(&one.dir) {
            generations.push(one.dir.clone());
        }
    }
    for dir in pace.oldest_first(vault, generations, depth.read).await? {
        let found = deleted::look(vault, signers, &dir, (only, &hidden), (depth, pace)).await?;
        verified.absorb(found.verified);
        documents.extend(found.documents);
    }
    verified.older = older(vault, signers, &verified, pace).await;
    verified.snapshots.sort_by(|a, b| a.id.cmp(&b.id));
    let objects = verified.objects.iter().filter(|(at, _)| !verified.unopened.contains(*at));
    let objects = objects.map(|((dir, name), text)| (Place::Object(dir.clone(), *name), text.clone()));
    verified.places.extend(objects);
    if only.is_none() {
        let mut facts = BTreeSet::new();
        let marks = vault.marks(stack, source).await;
        for path in verified.listed(vault, marks).await? {
            let read = vault.get_signed::<MarkDoc>(&path, signers).await;
            facts.extend(read.iter().flat_map(|mark| Fact::of(&mark.doc)));
            verified.document(vault, read, Some(Place::Mark(path))).await?;
        }
        let receipts = vault.list(&layout::receipts(stack, source)).await;
        let receipts = receipts.map(|all| all.into_iter().map(|entry| entry.path).collect());
        for path in verified.listed(vault, receipts).await? {
            if path.as_str().ends_with(".json") {
                verified.document(vault, vault.get_signed::<ReceiptDoc>(&path, signers).await, None).await?;
            }
        }
        verified.tell_alone(vault, lone::of_source(vault, stack, source).await).await?;
        let receipts = crate::prune::history::receipts(vault, signers, stack, source).await?;
        let found = chains(&links(&documents), &Accounted::by(&receipts), &Fact::accepted(&facts));
        let suspect = documents.iter().filter(|(_, signed)| signed.doc.suspect > 0).map(|(_, signed)| signed.hash());
        let closed = Closed::by(&facts, Some(vault.id())).named_at(&suspect.collect());
        let (Chains { broken, forks }, known) = found.sorted(&closed);
        verified.chain.extend(broken.iter().map(|open| open.text.clone()));
        (verified.holes, verified.accepted) = (broken, known);
        verified.forks = forks;
    }
    Ok(verified)
}

/// What one look at a generation found.
#[derive(Default)]
struct Found {
    verified: Verified,
    documents: Vec<(GenerationDir, Signed<SnapshotDoc>)>,
}

/// Looks at one generation, or at one snapshot of it; `hidden` are those whose documents were deleted in a bucket with versions.
async fn generation(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    (only, hidden): (Option<&SnapshotId>, &[Hidden]),
    (depth, pace): (Depth<'_>, &Pace<'_>),
) -> Result<Found, VaultError> {
    let Found { mut verified, mut documents } = Found::default();
    let ids = vault.snapshots(dir).await?;
    let gone: Vec<&Hidden> = hidden.iter().filter(|one| one.dir == *dir && !ids.contains(&one.id)).collect();
    if !only.is_none_or(|only| ids.contains(only) || gone.iter().any(|one| one.id == *only)) {
        return Ok(Found::default());
    }
    let objects: HashMap<ObjectName, u64> =
        vault.list_objects(dir).await?.into_iter().map(|line| (line.name, line.bytes)).collect();
    verified.objects_listed += objects.len() as u64;
    // A restore does not need it, a replication does. One that a prune is emptying may be without.
    if (!ids.is_empty() || !gone.is_empty())
        && let Err(error) = vault.get_signed::<GenerationDoc>(&dir.file("generation.json"), signers).await
    {
        match finding(vault, error).await? {
            Finding::Damage(text) => {
                verified.places.insert(Place::Generation(dir.clone()), text.clone());
                verified.chain.push(text);
            }
            Finding::Foreign(text) => {
                verified.places.insert(Place::Generation(dir.clone()), text.clone());
                verified.foreign.push(text);
            }
        }
    }
    if only.is_none() {
        for stage in [PruneStage::Expired, PruneStage::Deleting] {
            let path = dir.file(stage.file());
            let read = match vault.exists(&path).await {
                Ok(false) => continue,
                Ok(true) => vault.get_signed::<ExpiredDoc>(&path, signers).await,
                Err(error) => Err(error),
            };
            verified.document(vault, read, None).await?;
        }
        grants::look(vault, signers, dir, depth.identities, &mut verified).await?;
        verified.tell_alone(vault, lone::of_generation(vault, dir).await).await?;
    }
    // A stream's reader stops at its first bad object; with identities each object is hashed as well.
    let read = depth.read.or(depth.identities.map(|_| Fraction { part: 1, of: 1 }));
    let bad = objects::hash(vault, dir, &objects, (read, pace), &mut verified).await?;
    verified.objects.extend(bad.iter().map(|(name, text)| ((dir.clone(), *name), text.clone())));
    let closed = pace.closed.into_iter().flat_map(BTreeMap::keys);
    verified.unopened.extend(closed.filter(|(at, name)| at == dir && bad.contains_key(name)).cloned());
    let ids = ids.into_iter().filter(|id| only.is_none_or(|only| only == id)).map(|id| (id, None));
    for (id, hidden) in ids.chain(gone.into_iter().map(|one| (one.id.clone(), Some(one)))) {
        let (verdict, looked) = snapshot::look((vault, signers), dir, (id, hidden), (&objects, &bad), depth).await?;
        let signed = looked.signed;
        for name in &verdict.objects {
            let text = bad.get(name).cloned().unwrap_or_else(|| format!("object `{name}` is missing or damaged"));
            verified.objects.insert((dir.clone(), *name), text);
            if depth.identities.is_some() && objects.contains_key(name) && !bad.contains_key(name) {
                verified.unopened.insert((dir.clone(), *name));
            }
        }
        verified.places.extend(looked.places);
        if !looked.costs.is_empty() {
            verified.costs.insert(verdict.id.clone(), looked.costs);
        }
        verified.snapshots.push(verdict);
        documents.extend(signed.map(|signed| (dir.clone(), signed)));
    }
    Ok(Found { verified, documents })
}

/// Counts what is damaged and good in an older version. Asks nothing where nothing is damaged, and no longer than the call may
/// read: each question reads versions whole.
async fn older(vault: &Vault, signers: &Signers, verified: &Verified, pace: &Pace<'_>) -> u64 {
    let mut found = 0;
    for (dir, name) in verified.objects.keys().filter(|at| !verified.unopened.contains(at)).take(OLDER_LOOKED_FOR) {
        if pace.is_over() {
            return found;
        }
        found += u64::from(vault.has_older_object(dir, name).await);
    }
    let tolerant = vault.reading_older();
    for verdict in verified.snapshots.iter().filter(|verdict| verdict.document.is_none()).take(OLDER_LOOKED_FOR) {
        if pace.is_over() {
            break;
        }
        let path = verdict.dir.snapshot(&verdict.id, ".json");
        found += u64::from(tolerant.get_signed::<SnapshotDoc>(&path, signers).await.is_ok());
    }
    found
}

/// What is wrong with a vault's recovery document at `now`, in words, and whether it is only that its signer is not pinned;
/// `None`: it is good.
pub async fn judge_recover(
    vault: &Vault,
    signers: &Signers,
    now: DateTime<Utc>,
) -> Result<Option<(String, bool)>, VaultError> {
    let Err(error) = vault.get_recover(signers, now).await else { return Ok(None) };
    Ok(Some(match finding(vault, error).await? {
        Finding::Damage(text) => (text, false),
        Finding::Foreign(text) => (text, true),
    }))
}

/// Damage as text; anything that is a failure to look is an error. What lies in a file's place and can be read by nobody is
/// damage of that file: whoever plants a link or a body that the store gives to nobody must not keep the rest from being
/// looked at.
pub(crate) async fn damage_or(vault: &Vault, error: VaultError) -> Result<String, VaultError> {
    match &error {
        VaultError::Store { source: StoreError::NotFound { .. } | StoreError::TooLarge { .. }, .. } => {
            Ok(chain_text(&error))
        }
        VaultError::Store { .. } if !vault.refuses_only_that(&error).await => Err(error),
        _ => Ok(chain_text(&error)),
    }
}

/// An error with its causes, `a: b: c`.
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_is_in_exactly_one_part() {
        for seed in 0..=255 {
            let name = Hash256::of(&[seed]);
            let parts = (1..=7).filter(|part| Fraction { part: *part, of: 7 }.holds(&name)).count();
            assert_eq!(parts, 1);
        }
    }
}

//! Is what a vault holds still what was stored? Three depths, each including the one before.
//!
//! 1. *Listing*: signature, path, chain, inventory, and every object's presence and size; signature, form and path of every
//!    mark, receipt and document of a prune. No key, no object read.
//! 2. *Hashing* (`read`): stored bytes of objects against their names; a fraction per call, rotating. No key.
//! 3. *Checking* (`identities`): decrypted, decompressed, every stream's SHA-256. Gives the state `checked`.
//!
//! (The fourth, `restored`, is a restore.) Damage is collected, not thrown: one bad object must not hide another.

mod chain;
mod grants;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::id::{Hash256, ObjectName, SourceName, StackName};
use crate::seal::key::{Identities, IdentityError};
use crate::signature::{SignatureError, Signers};
use crate::snapshot::{OpenSnapshot, SnapshotError};
use crate::source::Streams;
use crate::state::{State, StateError};
use crate::vault::document::{ExpiredDoc, GenerationDoc, MarkDoc, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};

pub(crate) use chain::{Chains, chains};
pub use chain::{Fork, forks_of};

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
    /// Where a signer's chain goes on twice: nothing is lost, and nothing expires until somebody has looked.
    pub forks: Vec<Fork>,
    /// Marks, receipts, grants and documents of a prune that were read and believed.
    pub documents: u64,
    /// Those that are damaged, unsigned, wrongly signed or misplaced, in words.
    pub unbelieved: Vec<String>,
    /// Grants that nobody signed, in words: no damage, because they prove themselves when they are used.
    pub unsigned: Vec<String>,
    /// Documents other than snapshots' whose signer is not pinned, in words: no damage, and no proof either.
    pub foreign: Vec<String>,
}

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

    /// Judges a mark, a receipt or a document of a prune.
    fn document<T>(&mut self, read: Result<Signed<T>, VaultError>) -> Result<(), VaultError> {
        match read.map_err(finding) {
            Ok(_) => self.documents += 1,
            Err(found) => match found? {
                Finding::Damage(text) => self.unbelieved.push(text),
                Finding::Foreign(text) => self.foreign.push(text),
            },
        }
        Ok(())
    }
}

/// What an error that is no failure to look says.
enum Finding {
    Damage(String),
    /// The signer is not pinned.
    Foreign(String),
}

fn finding(error: VaultError) -> Result<Finding, VaultError> {
    let unknown = matches!(&error, VaultError::Signature { source: SignatureError::UnknownSigner { .. }, .. });
    let text = damage_or(error)?;
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
    let mut verified = Verified::default();
    let mut documents: Vec<(GenerationDir, Signed<SnapshotDoc>)> = Vec::new();
    for dir in vault.generations(stack, source).await? {
        let ids = vault.snapshots(&dir).await?;
        if !only.is_none_or(|only| ids.contains(only)) {
            continue;
        }
        let objects: HashMap<ObjectName, u64> =
            vault.list_objects(&dir).await?.into_iter().map(|line| (line.name, line.bytes)).collect();
        verified.objects_listed += objects.len() as u64;
        // A restore does not need it, a replication does. One that a prune is emptying may be without.
        if !ids.is_empty()
            && let Err(error) = vault.get_signed::<GenerationDoc>(&dir.file("generation.json"), signers).await
        {
            match finding(error)? {
                Finding::Damage(text) => verified.chain.push(text),
                Finding::Foreign(text) => verified.foreign.push(text),
            }
        }
        if only.is_none() {
            for stage in [PruneStage::Expired, PruneStage::Deleting] {
                let path = dir.file(stage.file());
                if vault.exists(&path).await? {
                    verified.document(vault.get_signed::<ExpiredDoc>(&path, signers).await)?;
                }
            }
            grants::look(vault, signers, &dir, depth.identities, &mut verified).await?;
        }
        // A stream's reader stops at its first bad object; with identities each object is hashed as well.
        let read = depth.read.or(depth.identities.map(|_| Fraction { part: 1, of: 1 }));
        let bad = hash_objects(vault, &dir, &objects, read, &mut verified).await?;
        verified.objects.extend(bad.iter().map(|(name, text)| ((dir.clone(), *name), text.clone())));
        for id in ids {
            if only.is_some_and(|only| *only != id) {
                continue;
            }
            let (verdict, signed) = verify_snapshot(vault, signers, &dir, id, &objects, &bad, depth).await?;
            for name in &verdict.objects {
                let text = bad.get(name).cloned().unwrap_or_else(|| format!("object `{name}` is missing or damaged"));
                verified.objects.insert((dir.clone(), *name), text);
                if depth.identities.is_some() && objects.contains_key(name) && !bad.contains_key(name) {
                    verified.unopened.insert((dir.clone(), *name));
                }
            }
            verified.snapshots.push(verdict);
            documents.extend(signed.map(|signed| (dir.clone(), signed)));
        }
    }
    if only.is_none() {
        let mut accepted = BTreeSet::new();
        for path in vault.marks(stack, source).await? {
            let mark = vault.get_signed::<MarkDoc>(&path, signers).await;
            accepted.extend(mark.iter().filter(|mark| mark.doc.mark == MarkKind::Accept).map(|mark| mark.doc.document));
            verified.document(mark)?;
        }
        for entry in vault.list(&layout::receipts(stack, source)).await? {
            if entry.path.as_str().ends_with(".json") {
                verified.document(vault.get_signed::<ReceiptDoc>(&entry.path, signers).await)?;
            }
        }
        let removed = crate::prune::history::removed(vault, signers, stack, source).await?;
        let Chains { broken, forks } = chains(&documents, &removed, &accepted);
        verified.chain.extend(broken);
        verified.forks = forks;
    }
    Ok(verified)
}

/// Writes down what was found of a source in a vault. Damaged objects are not built upon again: their chunks will be sealed
/// anew by the next run. And a vault does not hold what is damaged there: a prune of another vault must know. What was damaged
/// is forgotten when its generation is gone, or when it is good again as deep as it was found: what has the bytes of its
/// name and did not open, only after every snapshot of its generation was checked. `whole`: no snapshot was left out.
pub async fn remember(
    state: &State,
    vault: &Vault,
    (stack, source): (&StackName, &SourceName),
    verified: &Verified,
    depth: Depth<'_>,
    whole: bool,
) -> Result<(), StateError> {
    for at in verified.objects.keys() {
        let (dir, object) = at;
        state.forget(dir, object).await?;
        state.set_damaged(vault.id(), dir, &object.to_string(), verified.unopened.contains(at)).await?;
    }
    // What is wrong and in no object shows only when everything is decrypted; a prune sees the rest by itself.
    for verdict in verified.snapshots.iter().filter(|_| depth.identities.is_some()) {
        if !verdict.damage.is_empty() && verdict.objects.is_empty() {
            state.set_damaged(vault.id(), &verdict.dir, verdict.id.as_str(), true).await?;
        } else if verdict.checked {
            state.set_good(vault.id(), &verdict.dir, verdict.id.as_str()).await?;
        }
    }
    let generations = vault.generations(stack, source).await.ok();
    for ((dir, item), deep) in state.damage(vault.id()).await? {
        // Nothing was looked at in other sources.
        if dir.source != *source {
            continue;
        }
        let gone = generations.as_ref().is_some_and(|there| !there.contains(&dir));
        if gone || is_good_again(vault, verified, &dir, &item, deep, whole).await {
            state.set_good(vault.id(), &dir, &item).await?;
        }
    }
    Ok(())
}

async fn is_good_again(
    vault: &Vault,
    verified: &Verified,
    dir: &GenerationDir,
    item: &str,
    deep: bool,
    whole: bool,
) -> bool {
    let Ok(object) = item.parse::<ObjectName>() else { return false };
    let mut snapshots = verified.snapshots.iter().filter(|verdict| verdict.dir == *dir).peekable();
    let checked = whole && snapshots.peek().is_some() && snapshots.all(|verdict| verdict.checked);
    !verified.objects.contains_key(&(dir.clone(), object))
        && (checked || !deep)
        && vault.get_object(dir, &object).await.is_ok()
}

/// Hashes the chosen fraction of a generation's objects and gives the bad ones with what is wrong.
async fn hash_objects(
    vault: &Vault,
    dir: &GenerationDir,
    objects: &HashMap<ObjectName, u64>,
    fraction: Option<Fraction>,
    verified: &mut Verified,
) -> Result<BTreeMap<ObjectName, String>, VaultError> {
    let mut bad = BTreeMap::new();
    let Some(fraction) = fraction else { return Ok(bad) };
    let names: BTreeSet<&ObjectName> = objects.keys().filter(|name| fraction.holds(name)).collect();
    for name in names {
        match vault.get_object(dir, name).await {
            Ok(bytes) => verified.bytes_read += bytes.len() as u64,
            Err(error) => {
                bad.insert(*name, damage_or(error)?);
            }
        }
        verified.objects_read += 1;
    }
    Ok(bad)
}

async fn verify_snapshot(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    id: SnapshotId,
    objects: &HashMap<ObjectName, u64>,
    bad: &BTreeMap<ObjectName, String>,
    depth: Depth<'_>,
) -> Result<(Verdict, Option<Signed<SnapshotDoc>>), VaultError> {
    let path = dir.snapshot(&id, ".json");
    let mut verdict = Verdict {
        id,
        dir: dir.clone(),
        checked: false,
        document: None,
        damage: Vec::new(),
        foreign: None,
        objects: BTreeSet::new(),
        unproved: None,
        locked: None,
    };
    let signed = match vault.get_signed::<SnapshotDoc>(&path, signers).await {
        Ok(signed) => signed,
        Err(error) => {
            verdict.unproved = unproved(vault, &path, &error).await;
            match finding(error)? {
                Finding::Damage(text) => verdict.damage.push(text),
                Finding::Foreign(text) => verdict.foreign = Some(text),
            }
            return Ok((verdict, None));
        }
    };
    verdict.document = Some(signed.hash());
    match vault.get_inventory(&signed.doc).await {
        Ok((lines, _)) => {
            for line in lines {
                let wrong = match objects.get(&line.name) {
                    None => Some(format!("object `{}` is missing", line.name)),
                    Some(bytes) if *bytes != line.bytes => {
                        Some(format!("object `{}` has {bytes} bytes, not {}", line.name, line.bytes))
                    }
                    Some(_) => bad.get(&line.name).cloned(),
                };
                if let Some(wrong) = wrong {
                    verdict.damage.push(wrong);
                    verdict.objects.insert(line.name);
                }
            }
        }
        Err(error) => verdict.damage.push(damage_or(error)?),
    }
    if let Some(identities) = depth.identities {
        match check_streams(vault, &signed, identities).await {
            Ok(damage) => {
                verdict.checked = damage.is_empty() && verdict.damage.is_empty();
                for (text, object) in damage {
                    verdict.damage.push(text);
                    verdict.objects.extend(object);
                }
            }
            Err(error @ SnapshotError::Key { .. }) if !is_damaged_key(&error) => {
                verdict.locked = Some(chain_text(&error));
            }
            Err(error) => {
                verdict.objects.extend(object_of(&error));
                verdict.damage.push(match error {
                    SnapshotError::Vault(error) => damage_or(error)?,
                    error => chain_text(&error),
                });
            }
        }
    }
    Ok((verdict, Some(signed)))
}

/// SHA-256 of a document that is in order but for its signer not being pinned. One that somebody else signed than it names
/// is not in order.
async fn unproved(vault: &Vault, path: &StorePath, error: &VaultError) -> Option<Hash256> {
    let VaultError::Signature { source: SignatureError::UnknownSigner { fingerprint }, .. } = error else {
        return None;
    };
    let signed = vault.get_signed::<SnapshotDoc>(path, &Signers::pin_fingerprint(fingerprint)).await.ok()?;
    (signed.doc.signer == *fingerprint).then(|| signed.hash())
}

/// Whether a wrapped key itself is broken, and not merely closed to these identities.
fn is_damaged_key(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Key { source: IdentityError::Damaged(_), .. })
}

/// The object that an error is about.
fn object_of(error: &SnapshotError) -> Option<ObjectName> {
    match error {
        SnapshotError::Object { name, .. } => Some(*name),
        SnapshotError::Vault(
            VaultError::Damaged { path, .. }
            | VaultError::Store { source: StoreError::NotFound { path, .. } | StoreError::TooLarge { path, .. }, .. },
        ) => path.rsplit('/').next()?.parse().ok(),
        _ => None,
    }
}

/// Reads every stream to its end. A vault that fails ends it; damage is collected, with the object that is damaged.
async fn check_streams(
    vault: &Vault,
    signed: &Signed<SnapshotDoc>,
    identities: &Identities,
) -> Result<Vec<(String, Option<ObjectName>)>, SnapshotError> {
    let snapshot = OpenSnapshot::open(vault, signed, identities).await?;
    let mut damage = Vec::new();
    for number in 1..=u32::try_from(snapshot.manifest().streams.len()).unwrap_or(u32::MAX) {
        let read = async {
            let mut reader = Streams::open(&snapshot, number).await?;
            while reader.next().await?.is_some() {}
            Ok::<(), crate::source::StreamError>(())
        };
        if let Err(error) = read.await {
            let text = chain_text(&error);
            match error.0.downcast::<SnapshotError>().map(|error| *error) {
                // A vault that failed says nothing about the stream.
                Ok(error) => {
                    let object = object_of(&error);
                    if let SnapshotError::Vault(error) = error {
                        damage_or(error)?;
                    }
                    damage.push((text, object));
                }
                Err(_) => damage.push((text, None)),
            }
        }
    }
    Ok(damage)
}

/// Damage as text; anything that is a failure to look is an error.
fn damage_or(error: VaultError) -> Result<String, VaultError> {
    match &error {
        VaultError::Store { source: StoreError::NotFound { .. } | StoreError::TooLarge { .. }, .. } => {
            Ok(chain_text(&error))
        }
        VaultError::Store { .. } => Err(error),
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

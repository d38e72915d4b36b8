//! What a vault proves about its own past: the material for `retention::plan`.
//!
//! Only what a pinned signer signed becomes a stamp. What is listed and not believed shows as a difference between the
//! listing and the stamps, which keeps its generation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _};
use retention::{Generation, History, Span, Stamp};

use crate::id::{Hash256, ObjectName, SourceName, StackName};
use crate::replicate;
use crate::signature::Signers;
use crate::vault::document::{MarkKind, ReceiptDoc, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::{self, Accounted};

use super::notice;

/// Snapshots that are read at once: a bucket answers many at the price of one. Each holds its inventory, so not more.
const READS: usize = 6;

/// A mark that a pinned signer signed: SHA-256 of the snapshot's document, and the mark's word.
pub type Fact = (Hash256, &'static str);

/// What was read.
#[derive(Debug)]
pub struct Seen {
    /// For the plan.
    pub history: History,
    /// Every generation's folder.
    pub generations: Vec<GenerationDir>,
    /// The newest signed capture.
    pub newest: Option<SnapshotId>,
    /// The marks that this vault has itself.
    pub marks: BTreeSet<Fact>,
    /// What lies where a mark belongs and is not believed, in words.
    pub foreign: Vec<String>,
    /// The documents behind the history's stamps, in their order.
    pub documents: Vec<(GenerationDir, Signed<SnapshotDoc>)>,
    /// The receipts that are believed: what was removed.
    pub receipts: Vec<ReceiptDoc>,
}

/// Reads a source's history from a vault. What is known to be `damaged` there (objects and snapshots, by name) is not whole,
/// whatever the listing shows; `marks` are those of other vaults. A pin that is not believed keeps its snapshot all the same: it
/// may be an operator's whose signature was damaged. Documents that are not believed are left out; a store that fails is an error.
pub async fn read(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    promised_elsewhere: &BTreeSet<String>,
    marks: &BTreeSet<Fact>,
    damaged: &BTreeSet<(GenerationDir, String)>,
) -> Result<Seen, VaultError> {
    let found = replicate::marks(vault, signers, stack, source).await?;
    let own: BTreeSet<Fact> = found.signed.values().map(|mark| (mark.doc.document, mark.doc.mark.word())).collect();
    let marks = &own | marks;
    let pinned: BTreeSet<SnapshotId> = found.foreign.keys().filter_map(pinned_by).collect();
    let foreign = found.foreign.iter().map(|(path, why)| match pinned_by(path) {
        Some(id) => format!("foreign or unsigned pin, `{id}` is kept all the same: {why}"),
        None => format!("foreign or unsigned mark, not obeyed: {why}"),
    });
    let foreign = foreign.collect();
    let generations = vault.generations(stack, source).await?;
    let mut history = History { promised_elsewhere: promised_elsewhere.clone(), ..History::default() };
    let (mut documents, mut going) = (Vec::new(), Vec::new());
    for dir in &generations {
        // What is being purged is as good as gone: it takes nobody's place, and is absent on purpose.
        let purged = notice::standing(vault, signers, dir).await?.purged.is_some();
        let stored = stored_instants(vault, dir).await?;
        let objects: HashMap<ObjectName, u64> =
            vault.list_objects(dir).await?.into_iter().map(|line| (line.name, line.bytes)).collect();
        let ids = vault.snapshots(dir).await?;
        let listed = ids.len();
        let mut read = stream::iter(ids)
            .map(async |id| {
                let path = dir.snapshot(&id, ".json");
                let signed = believed(vault, vault.get_signed::<SnapshotDoc>(&path, signers).await).await?;
                let complete = match &signed {
                    Some(signed) => !purged && is_complete(vault, &signed.doc, &objects, damaged).await?,
                    None => false,
                };
                Ok::<_, VaultError>((path, signed, complete))
            })
            .buffered(READS);
        while let Some(one) = read.next().await {
            let (path, Some(signed), complete) = one? else { continue };
            going.extend((purged && !signed.doc.id.is_imported()).then_some(signed.doc.instant));
            let at = stored.get(&path).copied().unwrap_or(signed.doc.instant);
            let mut stamp = stamp(&signed, at, complete, &marks);
            stamp.pinned |= pinned.contains(&signed.doc.id);
            history.stamps.push(stamp);
            documents.push((dir.clone(), signed));
        }
        history.generations.push(Generation {
            id: dir.id.to_string(),
            start: dir.id.first_day().and_time(chrono::NaiveTime::MIN).and_utc(),
            period: Span::days(u64::from(dir.id.period().days())),
            listed,
        });
    }
    let receipts = receipts(vault, signers, stack, source).await?;
    history.removed = instants(&receipts);
    history.removed.append(&mut going);
    // A hole stays in the chain: a vault that was away for longer than its window never gets what it missed. As with a gap, it is
    // for a person to say that what came after it is what it should be.
    let accepted = marks.iter().filter(|(_, word)| *word == MarkKind::Accept.word()).map(|(hash, _)| *hash).collect();
    let open = verify::chains(&documents, &Accounted::by(&receipts), &accepted).looked_at(&accepted).texts();
    history.open_chain = (!open.is_empty()).then(|| open.join("; "));
    // What proves that captures go on is a capture.
    let newest = documents.iter().map(|(_, signed)| signed.doc.id.clone()).filter(|id| !id.is_imported()).max();
    Ok(Seen { history, generations, newest, marks: own, foreign, documents, receipts })
}

/// The snapshot that a path below `marks` says is pinned.
fn pinned_by(path: &StorePath) -> Option<SnapshotId> {
    path.as_str().rsplit('/').next()?.strip_suffix(".pin.json")?.parse().ok()
}

fn stamp(signed: &Signed<SnapshotDoc>, stored: DateTime<Utc>, complete: bool, marks: &BTreeSet<Fact>) -> Stamp {
    let hash = signed.hash();
    let marked = |kind: MarkKind| marks.contains(&(hash, kind.word()));
    Stamp {
        id: signed.doc.id.to_string(),
        generation: signed.doc.generation.to_string(),
        data: signed.doc.instant,
        stored,
        pinned: marked(MarkKind::Pin),
        suspect: signed.doc.suspect > 0,
        accepted: marked(MarkKind::Accept),
        checked: marked(MarkKind::Checked),
        restored: marked(MarkKind::Restored),
        complete,
        imported: signed.doc.id.is_imported(),
    }
}

/// When the store got each snapshot's document, by its own clock.
async fn stored_instants(vault: &Vault, dir: &GenerationDir) -> Result<HashMap<StorePath, DateTime<Utc>>, VaultError> {
    let entries = vault.list(&dir.snapshots()).await?;
    Ok(entries.into_iter().map(|entry| (entry.path, entry.modified)).collect())
}

async fn is_complete(
    vault: &Vault,
    doc: &SnapshotDoc,
    objects: &HashMap<ObjectName, u64>,
    damaged: &BTreeSet<(GenerationDir, String)>,
) -> Result<bool, VaultError> {
    let known: BTreeSet<&str> =
        damaged.iter().filter(|(dir, _)| *dir == doc.dir()).map(|(_, item)| item.as_str()).collect();
    let good = |line: &InventoryLine| {
        objects.get(&line.name) == Some(&line.bytes)
            && (known.is_empty() || !known.contains(line.name.to_string().as_str()))
    };
    let inventory = believed(vault, vault.get_inventory(doc).await).await?;
    Ok(!known.contains(doc.id.as_str()) && inventory.is_some_and(|(lines, _)| lines.iter().all(good)))
}

/// What a source's believed receipts say was removed from a vault. Errors: only a store that fails.
pub async fn receipts(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<ReceiptDoc>, VaultError> {
    read_receipts(vault, signers, (stack, source), &|_| true).await
}

/// Those of one generation.
pub(crate) async fn receipts_of(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
) -> Result<Vec<ReceiptDoc>, VaultError> {
    let ending = format!("-{}.json", dir.id);
    read_receipts(vault, signers, (&dir.stack, &dir.source), &|path| path.ends_with(&ending)).await
}

async fn read_receipts(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    wanted: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<ReceiptDoc>, VaultError> {
    let mut found = Vec::new();
    for entry in vault.list(&layout::receipts(stack, source)).await? {
        if entry.path.as_str().ends_with(".json")
            && wanted(entry.path.as_str())
            && let Some(receipt) = believed(vault, vault.get_signed::<ReceiptDoc>(&entry.path, signers).await).await?
            // One of another vault says nothing about this one, whoever copied it here.
            && receipt.doc.vault.as_ref().is_none_or(|of| of == vault.id())
        {
            found.push(receipt.doc);
        }
    }
    Ok(found)
}

/// An import that was purged fills no gap between captures: it was none.
fn instants(receipts: &[ReceiptDoc]) -> Vec<DateTime<Utc>> {
    let removed = receipts.iter().flat_map(|receipt| &receipt.snapshots);
    removed.filter(|(id, _)| !id.is_imported()).map(|(id, _)| id.instant()).collect()
}

/// The snapshots of all vaults, each once: with every mark that any vault has, whole if it is whole anywhere, and stored
/// when the first vault got it (a copy made later makes it no younger).
pub fn union<'a>(all: impl Iterator<Item = &'a History>) -> History {
    let mut stamps: BTreeMap<String, Stamp> = BTreeMap::new();
    let mut removed = Vec::new();
    for history in all {
        removed.extend_from_slice(&history.removed);
        for stamp in &history.stamps {
            let merged = stamps.entry(stamp.id.clone()).or_insert_with(|| stamp.clone());
            merged.stored = merged.stored.min(stamp.stored);
            merged.pinned |= stamp.pinned;
            merged.suspect |= stamp.suspect;
            merged.accepted |= stamp.accepted;
            merged.checked |= stamp.checked;
            merged.restored |= stamp.restored;
            merged.complete |= stamp.complete;
        }
    }
    History { stamps: stamps.into_values().collect(), removed, ..History::default() }
}

/// `None` for what is not believed, also where the store gives that one path to nobody; an error only where the store failed.
pub(super) async fn believed<T>(vault: &Vault, result: Result<T, VaultError>) -> Result<Option<T>, VaultError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(None),
        Err(error) => Err(error),
    }
}

//! What a vault proves about its own past: the material for `retention::plan`.
//!
//! Only what a pinned signer signed becomes a stamp. What is listed and not believed shows as a difference between the
//! listing and the stamps, which keeps its generation.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use retention::{Generation, History, Span, Stamp};

use crate::id::{Hash256, ObjectName, SourceName, StackName};
use crate::replicate;
use crate::signature::Signers;
use crate::vault::document::{MarkKind, ReceiptDoc, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};
use crate::verify;

use super::notice;

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
    let mut documents = Vec::new();
    for dir in &generations {
        let stored = stored_instants(vault, dir).await?;
        let objects: HashMap<ObjectName, u64> =
            vault.list_objects(dir).await?.into_iter().map(|line| (line.name, line.bytes)).collect();
        let mut listed = 0;
        for id in vault.snapshots(dir).await? {
            listed += 1;
            let path = dir.snapshot(&id, ".json");
            let Some(signed) = believed(vault.get_signed::<SnapshotDoc>(&path, signers).await)? else { continue };
            let complete = is_complete(vault, &signed.doc, &objects, damaged).await?;
            let at = stored.get(&path).copied().unwrap_or(signed.doc.instant);
            let mut stamp = stamp(&signed, at, complete, &marks);
            stamp.pinned |= pinned.contains(&id);
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
    history.removed = removed(vault, signers, stack, source).await?;
    let accepted = marks.iter().filter(|(_, word)| *word == MarkKind::Accept.word()).map(|(hash, _)| *hash).collect();
    let open = verify::chains(&documents, &history.removed, &accepted).texts();
    history.open_chain = (!open.is_empty()).then(|| open.join("; "));
    // What proves that captures go on is a capture.
    let newest = documents.into_iter().map(|(_, signed)| signed.doc.id).filter(|id| !id.is_imported()).max();
    Ok(Seen { history, generations, newest, marks: own, foreign })
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
    let inventory = believed(vault.get_inventory(doc).await)?;
    Ok(!known.contains(doc.id.as_str()) && inventory.is_some_and(|(lines, _)| lines.iter().all(good)))
}

/// Data instants of the snapshots that a signed receipt says were removed.
pub(crate) async fn removed(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<DateTime<Utc>>, VaultError> {
    let mut instants = Vec::new();
    for entry in vault.list(&layout::receipts(stack, source)).await? {
        if entry.path.as_str().ends_with(".json")
            && let Some(receipt) = believed(vault.get_signed::<ReceiptDoc>(&entry.path, signers).await)?
        {
            instants.extend(receipt.doc.snapshots.iter().map(|(id, _)| id.instant()));
        }
    }
    Ok(instants)
}

/// `None` for what is not believed; an error only where the store failed.
fn believed<T>(result: Result<T, VaultError>) -> Result<Option<T>, VaultError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if notice::is_refused(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

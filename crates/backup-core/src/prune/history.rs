//! What a vault proves about its own past: the material for `retention::plan`.
//!
//! Only what a pinned signer signed becomes a stamp. What is listed and not believed shows as a difference between the
//! listing and the stamps, which keeps its generation.

mod memory;
mod reading;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use retention::{History, Stamp};

use crate::id::{Hash256, SourceName, StackName};
use crate::signature::Signers;
use crate::vault::document::{Hole, MarkDoc, MarkKind, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Signed, Vault, VaultError};

use super::{notice, unlisted};

pub use memory::{Memory, Noted, Proved};
pub(super) use reading::{Folder, Objects};
pub use reading::{Reading, look};

/// Receipts that are read at once.
const RECEIPTS: usize = 16;

/// What a mark says that a pinned signer signed. Snapshots are named by the SHA-256 of their documents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// The snapshot has the mark with this word.
    Marked(Hash256, &'static str),
    /// The hole before it is known; `None`: whatever hole that is, as accepts of the first programs say.
    Closes(Hash256, Option<Hole>),
}

impl Fact {
    /// What one mark says.
    pub fn of(mark: &MarkDoc) -> Vec<Self> {
        let mut facts = vec![Self::Marked(mark.document, mark.mark.word())];
        match &mark.closes {
            _ if mark.mark != MarkKind::Accept => {}
            None => facts.push(Self::Closes(mark.document, None)),
            Some(holes) => facts.extend(holes.iter().map(|hole| Self::Closes(mark.document, Some(hole.clone())))),
        }
        facts
    }

    /// Whether `facts` mark the snapshot so.
    pub fn marks(facts: &BTreeSet<Self>, document: Hash256, kind: MarkKind) -> bool {
        facts.contains(&Self::Marked(document, kind.word()))
    }

    /// The snapshots that are accepted.
    pub fn accepted<'a>(facts: impl IntoIterator<Item = &'a Self>) -> BTreeSet<Hash256> {
        let accepted = |fact: &Self| match fact {
            Self::Marked(document, word) if *word == MarkKind::Accept.word() => Some(*document),
            _ => None,
        };
        facts.into_iter().filter_map(accepted).collect()
    }
}

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

/// Reads a source's history from a vault, all of it. What is known to be `damaged` there (objects and snapshots, by name) is not
/// whole, whatever the listing shows; `marks` are those of other vaults. A pin that is not believed keeps its snapshot all the same: it
/// may be an operator's whose signature was damaged. Documents that are not believed are left out; a store that fails is an error.
pub async fn read(
    vault: &Vault,
    signers: &Signers,
    whose: (&StackName, &SourceName),
    promised_elsewhere: &BTreeSet<String>,
    marks: &BTreeSet<Fact>,
    damaged: &BTreeSet<(GenerationDir, String)>,
) -> Result<Seen, VaultError> {
    let reading = look(vault, signers, whose, damaged, None).await?;
    let history = reading.history(promised_elsewhere, marks);
    let (generations, newest) = (reading.dirs(), reading.newest().cloned());
    let (marks, foreign) = (reading.facts(), reading.foreign());
    let (documents, receipts) = reading.into_documents();
    Ok(Seen { history, generations, newest, marks, foreign, documents, receipts })
}

/// The snapshot that a path below `marks` says is pinned.
fn pinned_by(path: &StorePath) -> Option<SnapshotId> {
    path.as_str().rsplit('/').next()?.strip_suffix(".pin.json")?.parse().ok()
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
    let listed = vault.list(&layout::receipts(stack, source)).await?;
    let paths = unlisted::documents(listed).into_iter().filter(|path| wanted(path.as_str()));
    let read = stream::iter(paths)
        .map(async |path| believed(vault, vault.get_signed::<ReceiptDoc>(&path, signers).await).await)
        .buffered(RECEIPTS);
    // One of another vault says nothing about this one, whoever copied it here.
    let of_here = |receipt: &ReceiptDoc| receipt.vault.as_ref().is_none_or(|of| of == vault.id());
    read.try_filter_map(async |receipt| Ok(receipt.map(|receipt| receipt.doc).filter(of_here))).try_collect().await
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

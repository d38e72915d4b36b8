//! Removing a generation because of what is in it: leaked data, which no retention rule would let go.
//!
//! The same two runs as a prune, with the same documents, which carry the operator's reason. What is different:
//!
//! - No rule is asked, and no newer snapshot: everything that lies in the generation goes, believed or not, imports too.
//! - A pin is somebody's word against it: pinned snapshots are named, and nothing is done until they are unpinned.
//! - The generation with the newest snapshot goes only if the operator says so. A run that finds its open generation
//!   purged opens a new one; one that is at work there withdraws.
//! - A prune leaves it alone: neither does it delete what a purge announced, nor take that back.
//! - The receipt stays in force: no replication brings the generation into this vault again, or out of it.
//!
//! The unit is the generation, because that is what shares objects: a single snapshot's rows lie in objects of its neighbours.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::announced;
use super::apply::{is_pinned, is_still_deleting, put_receipt};
use super::delete::{self, Removed, remove_document, withdraw};
use super::history;
use super::locked;
use super::notice::{self, Notice};
use super::settle::{belongs, is_ripe, settle};
use super::unlisted;
use crate::replicate::marks_of;
use crate::signature::{HostKey, Signers};
use crate::vault::document::{ExpiredDoc, FORMAT, Grounds, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::Entry;
use crate::vault::{Vault, VaultError};

/// What stands as the decision on each snapshot in the documents of a purge.
const DECISION: &str = "purge: whatever its age";

/// Of so many snapshots of a generation that is gone it is asked whether older versions are left.
const OLDER_ASKED: usize = 32;

/// What to purge.
#[derive(Debug, Clone)]
pub struct PurgeRequest {
    /// The generation.
    pub dir: GenerationDir,
    /// Why, in the operator's words. Whoever keeps the vault can read it.
    pub reason: String,
    /// Also if it holds the newest snapshot.
    pub even_newest: bool,
    /// Name and version of this program.
    pub tool: String,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeAction {
    /// Nothing: the vault has nothing of it.
    Absent,
    /// Nothing: it was purged.
    Gone {
        /// When.
        at: DateTime<Utc>,
        /// The store still has older versions of what was deleted, or does not say that it has none.
        older: bool,
    },
    /// Nothing, before what stands against it is out of the way.
    Refuse(Refusal),
    /// Announce it.
    Announce,
    /// It is announced, and may be deleted from this instant on.
    Wait {
        /// By the store's clock.
        until: DateTime<Utc>,
    },
    /// Delete it.
    Delete,
    /// A deletion began and was interrupted: go on.
    Resume,
}

/// What stands against a purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// These snapshots are pinned here.
    Pinned(Vec<SnapshotId>),
    /// Why it counts as the newest generation, in words.
    Newest(String),
    /// A prune is deleting it already.
    Pruning,
    /// The bucket keeps it: until when, in words.
    Locked(String),
    /// No snapshot of the source was ever committed here, so that no document could say what is newest.
    NoSnapshot,
}

/// The plan for one vault.
#[derive(Debug, Clone)]
pub struct PurgePlan {
    /// What will be done.
    pub action: PurgeAction,
    /// The snapshots that lie there.
    pub snapshots: Vec<SnapshotId>,
    /// Objects.
    pub objects: u64,
    /// Damaged files of the generation that repairs moved aside.
    pub aside: u64,
    /// Stored bytes of all of them.
    pub bytes: u64,
    /// The reason that was announced, where it is announced already: that one is written into the receipt.
    pub announced: Option<String>,
    /// What lies where an announcement or a pin belongs and is not believed, in words.
    pub foreign: Vec<String>,
    newest: Option<SnapshotId>,
    stale: bool,
    receipted: bool,
    request: PurgeRequest,
    signers: Signers,
}

/// What was done in one vault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Files that were deleted.
    pub files: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Files that were left because they belong to nothing that this program makes.
    pub strangers: u64,
    /// The store still has older versions of what was deleted, or does not say that it has none.
    pub older: bool,
}

impl From<(Removed, bool)> for Purged {
    fn from((removed, older): (Removed, bool)) -> Self {
        Self { files: removed.files, bytes: removed.bytes, strangers: removed.strangers, older }
    }
}

/// How a purge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeEnd {
    /// Nothing was to be done, or it waits.
    Nothing,
    /// It is announced.
    Announced {
        /// From when on it may be deleted, by the store's clock.
        until: DateTime<Utc>,
    },
    /// It is gone.
    Deleted(Purged),
    /// A snapshot or a pin came in the last moment, or it was taken back: nothing was deleted.
    Changed,
}

/// Makes the plan for one vault. Reads only.
pub async fn plan(vault: &Vault, signers: &Signers, request: &PurgeRequest) -> Result<PurgePlan, VaultError> {
    let dir = &request.dir;
    let now = vault.now().await?;
    let files = vault.list(&dir.dir()).await?;
    let found = announced::find(vault, signers, dir, &files, now).await?;
    let receipts = history::receipts_of(vault, signers, dir).await?;
    let mut snapshots = delete::snapshots(dir, &files);
    snapshots.extend(unlisted::snapshots(vault, dir, &files).await?);
    // What was named before may be hidden altogether now.
    let announced = found.expired.as_ref().map(|announced| &announced.doc);
    let named = announced.into_iter().chain(&found.deleting).flat_map(|doc| &doc.snapshots).map(|(id, _)| id);
    let asked: BTreeSet<SnapshotId> = named.filter(|id| !snapshots.contains(id)).cloned().collect();
    snapshots.extend(unlisted::there(vault, dir, asked).await?);
    snapshots.sort();
    let (objects, bytes) = delete::objects(dir, &files);
    let aside = delete::aside(vault, dir).await?;
    let bytes = bytes + aside.iter().map(|entry| entry.bytes).sum::<u64>();
    let newest = newest(vault, signers, dir).await?;
    let announced = found.purge().map(str::to_owned);
    let mut plan = PurgePlan {
        action: PurgeAction::Announce,
        snapshots,
        objects,
        aside: aside.len() as u64,
        bytes,
        announced,
        foreign: found.foreign.clone(),
        newest: newest.id.clone(),
        stale: found.replayed,
        receipted: false,
        request: request.clone(),
        signers: signers.clone(),
    };
    let ours = files.iter().any(|entry| delete::is_ours(dir, entry));
    if !ours {
        let gone = receipts.iter().filter(|receipt| receipt.grounds.purge.is_some()).map(|receipt| receipt.at).max();
        if aside.is_empty() {
            plan.action = match gone {
                Some(at) => PurgeAction::Gone { at, older: has_older(vault, dir, &receipts).await },
                None => PurgeAction::Absent,
            };
            return Ok(plan);
        }
        // Only damaged copies are left of what was purged: they had their day in the open with it.
        if gone.is_some() {
            plan.action = match locked::reason(vault, &aside, now).await? {
                Some(reason) => PurgeAction::Refuse(Refusal::Locked(reason)),
                None => PurgeAction::Resume,
            };
            return Ok(plan);
        }
    }
    // A bucket with locks answers a deletion with success and keeps the bytes: nobody must be told that they are gone.
    let every: Vec<Entry> = files.iter().chain(&aside).cloned().collect();
    if let Some(reason) = locked::reason(vault, &every, now).await? {
        plan.action = PurgeAction::Refuse(Refusal::Locked(reason));
        return Ok(plan);
    }
    let names = |doc: &ExpiredDoc| doc.snapshots.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    let listed: BTreeSet<SnapshotId> = plan.snapshots.iter().cloned().collect();
    if let Some(begun) = &found.deleting {
        plan.receipted = receipts.iter().any(|receipt| belongs(receipt, begun));
        if begun.grounds.purge.is_none() && plan.receipted {
            plan.action = PurgeAction::Refuse(Refusal::Pruning);
            return Ok(plan);
        }
        // With its receipt it went past everything that could stop it. Snapshots that came since are a replicator's.
        if begun.grounds.purge.is_some() && plan.receipted && listed.is_subset(&names(begun)) {
            plan.action = PurgeAction::Resume;
            return Ok(plan);
        }
    }
    if delete::is_swept(dir, &files) {
        plan.action = PurgeAction::Resume;
        plan.receipted = true;
        return Ok(plan);
    }
    let marks = marks_of(vault, signers, &dir.stack, &dir.source, &listed).await?;
    plan.foreign.extend(marks.foreign.values().cloned());
    let pinned = listed.iter().filter(|id| {
        let path = layout::mark(&dir.stack, &dir.source, id, MarkKind::Pin);
        marks.signed.contains_key(&path) || marks.foreign.contains_key(&path)
    });
    let pinned: Vec<SnapshotId> = pinned.cloned().collect();
    let expired = found.expired.as_ref().filter(|announced| announced.doc.grounds.purge.is_some());
    plan.action = if plan.newest.is_none() {
        PurgeAction::Refuse(Refusal::NoSnapshot)
    } else if !pinned.is_empty() {
        PurgeAction::Refuse(Refusal::Pinned(pinned))
    } else if let Some(why) = newest.guards(dir, &listed, now).filter(|_| !request.even_newest) {
        PurgeAction::Refuse(Refusal::Newest(why))
    } else {
        match expired {
            // Others came since: they are to be named, and to lie there named for a day.
            Some(announced) if names(&announced.doc) != listed => PurgeAction::Announce,
            Some(announced) if now < announced.until => PurgeAction::Wait { until: announced.until },
            Some(_) => PurgeAction::Delete,
            None => PurgeAction::Announce,
        }
    };
    Ok(plan)
}

/// Whether the store still has older versions of a generation that is gone: of its own document, or of a snapshot's that a
/// receipt names. A store that does not say is one that may keep them.
async fn has_older(vault: &Vault, dir: &GenerationDir, receipts: &[ReceiptDoc]) -> bool {
    let named = receipts.iter().flat_map(|receipt| &receipt.snapshots).map(|(id, _)| dir.snapshot(id, ".json"));
    for path in std::iter::once(dir.file("generation.json")).chain(named.take(OLDER_ASKED)) {
        if vault.has_older(&path).await.unwrap_or(true) {
            return true;
        }
    }
    false
}

/// What is newest in a source.
struct Newest {
    /// The newest capture that is believed; without one the newest name.
    id: Option<SnapshotId>,
    /// Its generation.
    dir: Option<GenerationDir>,
    /// No other generation than the one that is asked about has a snapshot.
    alone: bool,
}

impl Newest {
    /// Why this generation is not to be taken away without a word, if so.
    fn guards(&self, dir: &GenerationDir, listed: &BTreeSet<SnapshotId>, now: DateTime<Utc>) -> Option<String> {
        if listed.is_empty() {
            let open = !dir.id.is_closed(now);
            return open.then(|| "it is open and has no snapshot yet: a run may be filling it".to_owned());
        }
        match &self.id {
            Some(id) if self.dir.as_ref() == Some(dir) => Some(format!("it holds the newest snapshot `{id}`")),
            _ => self.alone.then(|| "no other generation has a snapshot".to_owned()),
        }
    }
}

async fn newest(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Newest, VaultError> {
    let history = unlisted::history(vault, &dir.stack, &dir.source).await?;
    let alone = history.iter().all(|(other, _)| other == dir);
    for (at, id) in history.iter().rev().filter(|(_, id)| !id.is_imported()) {
        match vault.get_signed::<SnapshotDoc>(&at.snapshot(id, ".json"), signers).await {
            Ok(_) => return Ok(Newest { id: Some(id.clone()), dir: Some(at.clone()), alone }),
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Newest { id: history.last().map(|(_, id)| id.clone()), dir: None, alone })
}

/// Does what the plan says. Errors: a store that fails, or that refuses to delete (locked objects); what was begun is taken up by the
/// next call.
pub async fn apply(vault: &Vault, key: &HostKey, plan: &PurgePlan) -> Result<PurgeEnd, VaultError> {
    let dir = &plan.request.dir;
    let reason = plan.announced.clone().unwrap_or_else(|| plan.request.reason.clone());
    let named: Vec<(SnapshotId, String)> = plan.snapshots.iter().map(|id| (id.clone(), DECISION.to_owned())).collect();
    let grounds = Grounds { purge: Some(reason), ..Grounds::default() };
    let going: BTreeSet<SnapshotId> = plan.snapshots.iter().cloned().collect();
    // What is under way needs no document any more.
    if plan.action == PurgeAction::Resume {
        return Ok(PurgeEnd::Deleted(delete::purge(vault, dir, &going).await?.into()));
    }
    let Some(newest) = &plan.newest else { return Ok(PurgeEnd::Nothing) };
    let document = async |stage| -> Result<ExpiredDoc, VaultError> {
        Ok(ExpiredDoc {
            format: FORMAT,
            stage,
            stack: dir.stack.clone(),
            source: dir.source.clone(),
            generation: dir.id.clone(),
            at: vault.now().await?,
            newest: newest.clone(),
            snapshots: named.clone(),
            grounds: grounds.clone(),
            signer: key.fingerprint(),
            tool: plan.request.tool.clone(),
        })
    };
    match &plan.action {
        PurgeAction::Absent
        | PurgeAction::Gone { .. }
        | PurgeAction::Refuse(_)
        | PurgeAction::Wait { .. }
        | PurgeAction::Resume => Ok(PurgeEnd::Nothing),
        PurgeAction::Announce => {
            if plan.stale {
                withdraw(vault, dir).await?;
            } else {
                // One of a prune that deleted nothing yet, or of a purge that named less.
                remove_document(vault, dir, PruneStage::Deleting).await?;
            }
            let doc = document(PruneStage::Expired).await?;
            let until = doc.at + super::GRACE;
            vault.put_signed(&doc, key).await?;
            Ok(PurgeEnd::Announced { until })
        }
        PurgeAction::Delete => {
            let deleting = document(PruneStage::Deleting).await?;
            vault.put_signed(&deleting, key).await?;
            let listed = unlisted::every(vault, dir).await?;
            // Taken back meanwhile: see `Work::remove`.
            let announced = matches!(
                notice::read(vault, &plan.signers, dir, PruneStage::Expired).await?,
                Notice::Signed(doc) if doc.grounds.purge.is_some()
            );
            if !announced
                || !listed.iter().eq(plan.snapshots.iter().collect::<BTreeSet<_>>())
                || is_pinned(vault, dir, &listed).await?
            {
                remove_document(vault, dir, PruneStage::Deleting).await?;
                return Ok(PurgeEnd::Changed);
            }
            let receipt = put_receipt((vault, &plan.signers), (key, &plan.request.tool), dir, &named, grounds).await?;
            if !is_still_deleting(vault, &plan.signers, dir, |there| *there == deleting, &receipt).await? {
                return Ok(PurgeEnd::Changed);
            }
            Ok(PurgeEnd::Deleted(delete::purge(vault, dir, &going).await?.into()))
        }
    }
}

/// What became of taking a purge back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// It is taken back.
    Made,
    /// None was announced.
    None,
    /// Its deletion has begun.
    TooLate,
}

/// Takes a purge back, unless its deletion has begun. Also one that somebody put back.
pub async fn undo(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Undone, VaultError> {
    if notice::standing(vault, signers, dir).await?.purged.is_none() {
        return Ok(Undone::None);
    }
    let before = history::receipts_of(vault, signers, dir).await?;
    if let Notice::Signed(begun) = notice::read(vault, signers, dir, PruneStage::Deleting).await?
        && before.iter().any(|receipt| belongs(receipt, &begun))
    {
        return Ok(Undone::TooLate);
    }
    let now = vault.now().await?;
    let found = announced::find(vault, signers, dir, &vault.list(&dir.dir()).await?, now).await?;
    let under = |receipt: &ReceiptDoc| found.expired.as_ref().is_some_and(|one| belongs(receipt, &one.doc));
    // Somebody else took the deletion back, and it may have been past its last look.
    if before.iter().any(|receipt| receipt.grounds.purge.is_some() && under(receipt) && !is_ripe(receipt, now)) {
        return Ok(Undone::TooLate);
    }
    withdraw(vault, dir).await?;
    // A deletion looks for its document after its receipt: one whose receipt came meanwhile may not have seen this.
    let came = history::receipts_of(vault, signers, dir).await?.iter().any(|receipt| !before.contains(receipt));
    if came {
        return Ok(Undone::TooLate);
    }
    // One of a deletion that was taken back before anything went must not keep the generation out of other vaults. That of a purge
    // that came to its end stays, whoever put the generation back.
    let stale: Vec<ReceiptDoc> =
        before.into_iter().filter(|receipt| receipt.grounds.purge.is_none() || under(receipt)).collect();
    settle(vault, signers, None, &stale, &unlisted::every(vault, dir).await?).await?;
    Ok(Undone::Made)
}

/// Why a generation is not to be copied into or out of a vault: the reason of its purge, announced there or done.
pub async fn reason(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Option<String>, VaultError> {
    if let Some(reason) = notice::standing(vault, signers, dir).await?.purged {
        return Ok(Some(reason));
    }
    done(vault, signers, dir).await
}

/// The reason of a purge that was done, or is under way past its receipt.
pub(crate) async fn done(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Option<String>, VaultError> {
    let receipts = history::receipts_of(vault, signers, dir).await?;
    Ok(receipts.into_iter().find_map(|receipt| receipt.grounds.purge))
}

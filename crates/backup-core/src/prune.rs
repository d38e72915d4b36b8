//! Removing what no promise needs any more: whole generations, in two runs, with a signed trace.
//!
//! ```text
//! history (signed snapshots, marks, receipts, listings) --> retention::plan --> PrunePlan   (shown; a dry run ends here)
//! first run     expired.json   names every snapshot that will go
//! >= 24 h later, with a newer snapshot, the same plan again
//! second run    deleting.json --> list again --> receipt --> snapshots --> objects --> the rest
//! ```
//!
//! What it never does: delete on the word of the host's clock, on a document that no pinned signer signed, or a file that it
//! does not know. Whatever is not understood keeps its generation. Until `deleting.json` is written, [`undo`] takes it all back.

pub mod history;
pub(crate) mod notice;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use retention::{Clocks, Freeze, Policy};

use crate::id::{SourceName, StackName};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{ExpiredDoc, FORMAT, MarkKind, PruneStage, ReceiptDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::{Entry, StorePath};
use crate::vault::{Vault, VaultError};
use history::Fact;
use notice::Notice;

/// Least time between announcing and deleting, by the store's clock.
pub const GRACE: TimeDelta = TimeDelta::hours(24);

/// What to plan for.
#[derive(Debug, Clone)]
pub struct PruneRequest {
    /// Stack.
    pub stack: StackName,
    /// Source.
    pub source: SourceName,
    /// What was promised for this vault.
    pub policy: Policy,
    /// Calendar of the policy's tiers.
    pub timezone: Tz,
    /// This machine's clock.
    pub host_now: DateTime<Utc>,
    /// Snapshots that another vault's policy promises and does not hold.
    pub promised_elsewhere: BTreeSet<String>,
    /// What pinned signers marked in any vault: a pin that did not reach this one yet protects here too.
    pub marks: BTreeSet<Fact>,
    /// What a verification found damaged in this vault: objects and snapshots, by name. It takes nobody's place.
    pub damaged: BTreeSet<(GenerationDir, String)>,
    /// Name and version of this program.
    pub tool: String,
}

/// What will be done with one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Keep,
    /// Announce its deletion.
    Announce,
    /// It is announced; what the second run still waits for.
    Wait {
        /// In words.
        reason: String,
    },
    /// It was announced, but the plan no longer wants it gone, or not the same: the announcement is taken back.
    Withdraw,
    /// Delete it now.
    Delete,
    /// A deletion began and was interrupted: go on.
    Resume,
    /// A deletion was interrupted before its very last file: of the generation only that signature is left.
    Sweep,
}

/// The plan for one generation.
#[derive(Debug, Clone)]
pub struct Step {
    /// The generation.
    pub dir: GenerationDir,
    /// What will be done.
    pub action: Action,
    /// Why, in words.
    pub reason: String,
    /// Its snapshots, each with the decision on it in words.
    pub snapshots: Vec<(SnapshotId, String)>,
}

/// The plan for one source in one vault.
#[derive(Debug, Clone)]
pub struct PrunePlan {
    /// Why nothing expires, if so.
    pub frozen: Vec<Freeze>,
    /// Each generation, oldest first.
    pub steps: Vec<Step>,
    /// What lies where an announcement belongs and is not believed, in words: it is not obeyed.
    pub foreign: Vec<String>,
    newest: Option<SnapshotId>,
    store_now: DateTime<Utc>,
    request: PruneRequest,
}

/// What was done with one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The generation.
    pub dir: GenerationDir,
    /// What was done.
    pub action: Action,
    /// Files that were deleted.
    pub files: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Files that were left because they belong to nothing that this program makes.
    pub strangers: u64,
}

/// Makes the plan. Reads only.
pub async fn plan(vault: &Vault, signers: &Signers, request: &PruneRequest) -> Result<PrunePlan, VaultError> {
    let store_now = vault.now().await?;
    let seen = history::read(
        vault,
        signers,
        (&request.stack, &request.source),
        &request.promised_elsewhere,
        &request.marks,
        &request.damaged,
    )
    .await?;
    let clocks = Clocks { store: store_now, host: request.host_now };
    let plan = retention::plan(&request.policy, &seen.history, clocks, request.timezone);
    let newest = seen.newest;
    let (mut steps, mut foreign) = (Vec::new(), seen.foreign);
    for dir in seen.generations {
        let decision = plan.generations.iter().find(|decision| decision.id == dir.id.as_str());
        let snapshots: Vec<(SnapshotId, String)> = plan
            .snapshots
            .iter()
            .filter(|snapshot| snapshot.generation == dir.id.as_str())
            .filter_map(|snapshot| Some((snapshot.id.parse().ok()?, snapshot.text())))
            .collect();
        let delete = decision.is_some_and(|decision| decision.delete);
        let reason =
            decision.map_or_else(|| "keep: it is not understood".to_owned(), retention::GenerationDecision::text);
        let mut snapshots = snapshots;
        // A document that nobody pinned signed must neither make us delete nor keep us from it.
        let mut believed = async |stage| match notice::read(vault, signers, &dir, stage).await? {
            Notice::Foreign(text) => {
                foreign.push(text);
                Ok::<Option<ExpiredDoc>, VaultError>(None)
            }
            Notice::None => Ok(None),
            Notice::Signed(doc) => Ok(Some(doc)),
        };
        let files = vault.list(&dir.dir()).await?;
        let announced = believed(PruneStage::Expired).await?.map(|doc| Announced::new(doc, &dir, &files, store_now));
        let action = match believed(PruneStage::Deleting).await? {
            Some(begun) => {
                // Snapshots go before their objects: one that is still listed is whole, and may have become wanted (a pin,
                // a commit in the last moment, an old document that was put back).
                let named: BTreeSet<&SnapshotId> = begun.snapshots.iter().map(|(id, _)| id).collect();
                let listed = vault.snapshots(&dir).await?;
                let wanted = !delete || !listed.iter().all(|id| named.contains(id));
                // A signed document of old that somebody put back is no deletion that began: that one was announced in time.
                let in_time = announced.as_ref().is_some_and(|announced| announced.covers(&listed, store_now));
                if !listed.is_empty() && (wanted || !in_time) {
                    Action::Withdraw
                } else {
                    // What is being deleted was named when it began; what is still listed may be less.
                    snapshots = begun.snapshots;
                    Action::Resume
                }
            }
            None if is_swept(&dir, &files) => Action::Sweep,
            // Objects without a snapshot may be those of a replicator that is still at work.
            None if snapshots.is_empty() && delete && is_fresh(&files, store_now) => Action::Keep,
            None => action(announced.as_ref(), delete, &snapshots, newest.as_ref(), store_now),
        };
        steps.push(Step { dir, action, reason, snapshots });
    }
    let frozen = plan.frozen.into_iter().chain(plan.frozen_also).collect();
    Ok(PrunePlan { frozen, steps, foreign, newest, store_now, request: request.clone() })
}

/// Whether anything in a generation is younger than three days.
fn is_fresh(files: &[Entry], now: DateTime<Utc>) -> bool {
    files.iter().map(|entry| entry.modified).max().is_some_and(|newest| now - newest < TimeDelta::days(3))
}

/// A believed `expired.json`.
struct Announced {
    doc: ExpiredDoc,
    /// From when on the generation may be deleted.
    until: DateTime<Utc>,
}

impl Announced {
    /// It counts from when it says that it was written, or from when the store got it or its signature, whichever is later: a
    /// document that was taken back once is still signed, and whoever puts it back must not be spared the wait.
    fn new(doc: ExpiredDoc, dir: &GenerationDir, files: &[Entry], now: DateTime<Utc>) -> Self {
        let path = dir.file(PruneStage::Expired.file());
        let signature = layout::signature_of(&path);
        let came =
            files.iter().filter(|entry| entry.path == path || entry.path == signature).map(|entry| entry.modified);
        let since = came.max().unwrap_or(now).max(doc.at);
        Self { doc, until: since + GRACE }
    }

    fn names(&self) -> BTreeSet<&SnapshotId> {
        self.doc.snapshots.iter().map(|(id, _)| id).collect()
    }

    /// Whether a deletion of these snapshots may go on.
    fn covers(&self, listed: &[SnapshotId], now: DateTime<Utc>) -> bool {
        let named = self.names();
        now >= self.until && listed.iter().all(|id| named.contains(id))
    }
}

fn action(
    announced: Option<&Announced>,
    delete: bool,
    snapshots: &[(SnapshotId, String)],
    newest: Option<&SnapshotId>,
    now: DateTime<Utc>,
) -> Action {
    let Some(announced) = announced else { return if delete { Action::Announce } else { Action::Keep } };
    let named = announced.names();
    let found: BTreeSet<&SnapshotId> = snapshots.iter().map(|(id, _)| id).collect();
    if !delete || named != found {
        return Action::Withdraw;
    }
    let until = announced.until;
    if now < until {
        return Action::Wait { reason: format!("announced; may be deleted from {} on", until.format("%F %R UTC")) };
    }
    let before = &announced.doc.newest;
    if newest.is_none_or(|newest| newest <= before) {
        return Action::Wait { reason: format!("announced; waits for a snapshot newer than {before}") };
    }
    Action::Delete
}

/// Does what the plan says.
pub async fn apply(vault: &Vault, key: &HostKey, plan: &PrunePlan) -> Result<Vec<Done>, VaultError> {
    let mut done = Vec::new();
    for step in &plan.steps {
        let mut result = Done { dir: step.dir.clone(), action: step.action.clone(), files: 0, bytes: 0, strangers: 0 };
        match &step.action {
            Action::Keep | Action::Wait { .. } => continue,
            Action::Announce => {
                let Some(doc) = document(plan, step, PruneStage::Expired, key) else { continue };
                vault.put_signed(&doc, key).await?;
            }
            Action::Withdraw => withdraw(vault, &step.dir).await?,
            Action::Sweep => {
                if !sweep(vault, &mut result).await? {
                    continue;
                }
            }
            Action::Delete => {
                let Some(doc) = document(plan, step, PruneStage::Deleting, key) else { continue };
                vault.put_signed(&doc, key).await?;
                let listed: BTreeSet<SnapshotId> = vault.snapshots(&step.dir).await?.into_iter().collect();
                let planned: BTreeSet<SnapshotId> = step.snapshots.iter().map(|(id, _)| id.clone()).collect();
                if listed == planned && !is_pinned(vault, step).await? {
                    put_receipt(vault, plan, step, key).await?;
                    delete(vault, &mut result).await?;
                } else {
                    // A writer or a person was faster: its snapshot stays, and so does everything else.
                    result.action = Action::Withdraw;
                    withdraw(vault, &step.dir).await?;
                }
            }
            Action::Resume => {
                // It may have ended before its receipt, and then nothing was deleted yet.
                if !has_receipt(vault, &step.dir).await? {
                    put_receipt(vault, plan, step, key).await?;
                }
                delete(vault, &mut result).await?;
            }
        }
        done.push(result);
    }
    Ok(done)
}

/// Whether somebody has pinned one of the snapshots since the plan was made; believed or not.
async fn is_pinned(vault: &Vault, step: &Step) -> Result<bool, VaultError> {
    for (id, _) in &step.snapshots {
        if vault.exists(&layout::mark(&step.dir.stack, &step.dir.source, id, MarkKind::Pin)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn document(plan: &PrunePlan, step: &Step, stage: PruneStage, key: &HostKey) -> Option<ExpiredDoc> {
    Some(ExpiredDoc {
        format: FORMAT,
        stage,
        stack: step.dir.stack.clone(),
        source: step.dir.source.clone(),
        generation: step.dir.id.clone(),
        at: plan.store_now,
        newest: plan.newest.clone()?,
        snapshots: step.snapshots.clone(),
        signer: key.fingerprint(),
        tool: plan.request.tool.clone(),
    })
}

async fn has_receipt(vault: &Vault, dir: &GenerationDir) -> Result<bool, VaultError> {
    let ending = format!("-{}.json", dir.id);
    let receipts = vault.list(&layout::receipts(&dir.stack, &dir.source)).await?;
    Ok(receipts.iter().any(|entry| entry.path.as_str().ends_with(&ending)))
}

async fn put_receipt(vault: &Vault, plan: &PrunePlan, step: &Step, key: &HostKey) -> Result<(), VaultError> {
    let objects = vault.list_objects(&step.dir).await?;
    let receipt = ReceiptDoc {
        format: FORMAT,
        stack: step.dir.stack.clone(),
        source: step.dir.source.clone(),
        generation: step.dir.id.clone(),
        at: plan.store_now,
        snapshots: step.snapshots.clone(),
        objects: objects.len() as u64,
        stored_bytes: objects.iter().map(|line| line.bytes).sum(),
        signer: key.fingerprint(),
        tool: plan.request.tool.clone(),
    };
    vault.put_signed(&receipt, key).await.map(drop)
}

/// At which place a file of a generation is deleted; `None` for what this program does not make.
fn rank(dir: &GenerationDir, path: &str) -> Option<u8> {
    let rest = &path[dir.dir().as_str().len() + 1..];
    let document = StorePath::new(path.strip_suffix(".sig").unwrap_or(path))?;
    let name = rest.rsplit('/').next().unwrap_or(rest);
    Some(match rest.split('/').next()? {
        "snapshots" if name.ends_with(".json") => 0,
        "snapshots" if name.ends_with(".json.sig") || name.ends_with(".inventory.zst") => 1,
        "objects" => match name.parse() {
            Ok(object) if dir.object(&object).as_str() == path => 2,
            _ => return None,
        },
        // Until the last object has gone, whoever was granted the key can still open what is there.
        "grants" if dir.is_grant(&document) => 3,
        "generation.json" | "generation.json.sig" => 3,
        "expired.json" | "expired.json.sig" => 4,
        "deleting.json" => 5,
        "deleting.json.sig" => LAST,
        _ => return None,
    })
}

/// The signature of `deleting.json` goes last: the document must not lie there without one, or the deletion would not be
/// taken up again.
const LAST: u8 = 6;

/// Whether of all the files of this program only that signature is left.
fn is_swept(dir: &GenerationDir, files: &[Entry]) -> bool {
    let ranks: BTreeSet<u8> = files.iter().filter_map(|entry| rank(dir, entry.path.as_str())).collect();
    ranks == BTreeSet::from([LAST])
}

/// Deletes that signature and nothing else: nobody signed this, and a replicate may have begun to fill the folder since the
/// plan. `false` where it is not alone any more; then nothing is deleted.
async fn sweep(vault: &Vault, result: &mut Done) -> Result<bool, VaultError> {
    let files = vault.list(&result.dir.dir()).await?;
    let lone = layout::signature_of(&result.dir.file(PruneStage::Deleting.file()));
    let Some(entry) = files.iter().find(|entry| entry.path == lone).filter(|_| is_swept(&result.dir, &files)) else {
        return Ok(false);
    };
    vault.delete(&lone).await?;
    vault.sync().await?;
    (result.files, result.bytes, result.strangers) = (1, entry.bytes, files.len() as u64 - 1);
    Ok(true)
}

/// Snapshots first, so that nothing is listed whose objects are going; then objects; then the rest, `deleting.json` and its signature last.
async fn delete(vault: &Vault, result: &mut Done) -> Result<(), VaultError> {
    let dir = result.dir.clone();
    let mut files = vault.list(&dir.dir()).await?;
    let rank = |path: &str| rank(&dir, path);
    result.strangers = files.iter().filter(|entry| rank(entry.path.as_str()).is_none()).count() as u64;
    files.retain(|entry| rank(entry.path.as_str()).is_some());
    files.sort_by_key(|entry| rank(entry.path.as_str()));
    let mut last = 0;
    for entry in files {
        let rank = rank(entry.path.as_str()).unwrap_or(0);
        if rank != last {
            vault.sync().await?;
            last = rank;
        }
        vault.delete(&entry.path).await?;
        result.files += 1;
        result.bytes += entry.bytes;
    }
    vault.sync().await
}

async fn withdraw(vault: &Vault, dir: &GenerationDir) -> Result<(), VaultError> {
    remove_document(vault, dir, PruneStage::Deleting).await?;
    remove_document(vault, dir, PruneStage::Expired).await
}

async fn remove_document(vault: &Vault, dir: &GenerationDir, stage: PruneStage) -> Result<(), VaultError> {
    let path = dir.file(stage.file());
    vault.delete(&path).await?;
    vault.delete(&layout::signature_of(&path)).await?;
    vault.sync().await
}

/// Takes back every announcement of a source that has not become a deletion, also what is not believed. Gives the
/// generations.
pub async fn undo(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<GenerationDir>, VaultError> {
    let mut undone = Vec::new();
    for dir in vault.generations(stack, source).await? {
        let deleting = notice::read(vault, signers, &dir, PruneStage::Deleting).await?;
        let expired = vault.exists(&dir.file(PruneStage::Expired.file())).await?;
        if matches!(deleting, Notice::Foreign(_)) || (expired && matches!(deleting, Notice::None)) {
            withdraw(vault, &dir).await?;
            undone.push(dir);
        }
    }
    Ok(undone)
}

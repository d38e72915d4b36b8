//! Doing what a plan says, and taking it back.

use std::collections::BTreeSet;

use super::delete::{Removed, delete, sweep, withdraw};
use super::history::{believed, receipts_of};
use super::holder::{self, Witness};
use super::notice::{self, Notice};
use super::settle::{self, settle};
use super::{Action, PrunePlan, PruneRequest, Step, plan_waiving, unlisted};
use crate::id::{SourceName, StackName};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{
    ExpiredDoc, FORMAT, Grounds, Holder, MarkKind, PruneStage, PublicDocument, ReceiptDoc, SnapshotDoc,
};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

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
    /// The vault that was read first, where the day was not waited for.
    pub holder: Option<Holder>,
}

impl Done {
    fn removed(&mut self, removed: Removed) {
        (self.files, self.bytes, self.strangers) = (removed.files, removed.bytes, removed.strangers);
    }
}

/// Does what the plan says. With nobody to look at, nothing is deleted before its day is over.
pub async fn apply(vault: &Vault, key: &HostKey, plan: &PrunePlan) -> Result<Vec<Done>, VaultError> {
    apply_beside(vault, key, plan, &[]).await
}

/// Does what the plan says. Where the day is not to be waited for, the first of `others` that holds everything is enough; a
/// vault that fails is one that does not hold it. What none holds waits, and the result says why. Reading that vault may take
/// hours: everything else is done before, and after each such read the plan is made once more.
pub async fn apply_beside(
    vault: &Vault,
    key: &HostKey,
    plan: &PrunePlan,
    others: &[Witness<'_>],
) -> Result<Vec<Done>, VaultError> {
    let work = Work { vault, key, plan };
    let mut done = Vec::new();
    let slow = |step: &&Step| matches!(step.action, Action::Hurry { .. });
    for step in plan.steps.iter().filter(|step| !slow(step)).chain(plan.steps.iter().filter(slow)) {
        let (dir, action) = (step.dir.clone(), step.action.clone());
        let mut result = Done { dir, action, files: 0, bytes: 0, strangers: 0, holder: None };
        match &step.action {
            Action::Keep | Action::Wait { .. } => continue,
            Action::Announce => {
                let Some(doc) = work.document(step, PruneStage::Expired, work.grounds(None)).await? else { continue };
                vault.put_signed(&doc, key).await?;
            }
            Action::Withdraw => {
                withdraw(vault, &step.dir).await?;
                let (receipts, there) = &step.untrue;
                settle(vault, &plan.signers, Some(key), receipts, there).await?;
            }
            Action::Sweep => match sweep(vault, &step.dir).await? {
                Some(removed) => result.removed(removed),
                None => continue,
            },
            Action::Delete => {
                if !work.remove(step, None, &mut result).await? {
                    continue;
                }
            }
            Action::Hurry { until, .. } => match holder::find(vault, &plan.signers, step, others).await {
                Ok((other, holder)) => match work.stands(step, others).await? {
                    None => {
                        result.holder = Some(holder);
                        if !work.remove(step, Some(other), &mut result).await? {
                            continue;
                        }
                    }
                    Some(changed) => {
                        let reason = format!("not deleted, something changed while another vault was read: {changed}");
                        result.action = Action::Wait { reason };
                    }
                },
                Err(why) => {
                    let until = until.format("%F %R UTC");
                    result.action = Action::Wait { reason: format!("waits until {until}: {why}") };
                }
            },
            Action::Resume => {
                let begun = step.begun.as_ref();
                let named: BTreeSet<SnapshotId> = step.snapshots.iter().map(|(id, _)| id.clone()).collect();
                // It may have ended before its receipt, and then nothing was deleted yet. And names never go by an old one, which
                // another process may be setting right (see `settle`).
                if let Some(begun) = begun
                    && (!begun.receipted
                        || !begun.is_fresh && !unlisted::there(vault, &step.dir, named.clone()).await?.is_empty())
                {
                    let receipt = work.put_receipt(step, begun.grounds.clone()).await?;
                    let same = |doc: &ExpiredDoc| doc.grounds == begun.grounds && doc.snapshots == step.snapshots;
                    if !is_still_deleting(vault, &plan.signers, &step.dir, same, &receipt).await? {
                        result.action = Action::Withdraw;
                        done.push(result);
                        continue;
                    }
                }
                result.removed(delete(vault, &step.dir, &named).await?);
            }
        }
        done.push(result);
    }
    Ok(done)
}

/// What stays the same for all steps.
struct Work<'a> {
    vault: &'a Vault,
    key: &'a HostKey,
    plan: &'a PrunePlan,
}

impl Work<'_> {
    /// What the operator waived.
    fn grounds(&self, now: Option<Holder>) -> Grounds {
        Grounds { purge: None, now, without: self.plan.waiver.without.clone() }
    }

    /// Why a step that was planned before another vault was read is no longer to be done, in words; `None`: it is.
    async fn stands(&self, step: &Step, others: &[Witness<'_>]) -> Result<Option<String>, VaultError> {
        let ids: BTreeSet<SnapshotId> = step.snapshots.iter().map(|(id, _)| id.clone()).collect();
        for Witness { vault: other, .. } in others {
            match is_pinned(other, &step.dir, &ids).await {
                Ok(false) => {}
                Ok(true) => return Ok(Some(format!("it is pinned in vault `{}`", other.name()))),
                Err(error) => return Ok(Some(plain(&chain_text(&error)))),
            }
        }
        let PrunePlan { request, waiver, signers, .. } = self.plan;
        // The host's clock went on as well; only the caller can read it.
        let host_now = request.host_now + (self.vault.now().await? - self.plan.at);
        let again = plan_waiving(self.vault, signers, &PruneRequest { host_now, ..request.clone() }, waiver).await?;
        let Some(now) = again.steps.iter().find(|other| other.dir == step.dir) else {
            return Ok(Some("it is not there any more".to_owned()));
        };
        let same = now.snapshots.iter().map(|(id, _)| id.clone()).collect::<BTreeSet<_>>() == ids;
        Ok(match &now.action {
            Action::Hurry { .. } | Action::Delete if same => None,
            Action::Hurry { .. } | Action::Delete => Some("other snapshots lie there".to_owned()),
            Action::Wait { reason } => Some(reason.clone()),
            _ => {
                let frozen = again.frozen.iter().map(ToString::to_string);
                let kept = now.snapshots.iter().filter(|(_, text)| text.starts_with("keep"));
                let mut why: Vec<String> = frozen.chain(kept.map(|(id, text)| format!("`{id}`: {text}"))).collect();
                if why.is_empty() {
                    why.push(now.reason.clone());
                }
                Some(why.join("; "))
            }
        })
    }

    /// Deletes a generation, unless a look in the last moment finds that something has changed. `false`: nothing was begun.
    async fn remove(&self, step: &Step, holder: Option<&Vault>, result: &mut Done) -> Result<bool, VaultError> {
        let grounds = self.grounds(result.holder.clone());
        let Some(doc) = self.document(step, PruneStage::Deleting, grounds.clone()).await? else { return Ok(false) };
        self.vault.put_signed(&doc, self.key).await?;
        let listed = unlisted::every(self.vault, &step.dir).await?;
        let planned: BTreeSet<SnapshotId> = step.snapshots.iter().map(|(id, _)| id.clone()).collect();
        let held = match holder {
            // Two prunes that rely on each other's vault: at least one of them sees the other's document.
            Some(other) => holder::still_holds(other, &self.plan.signers, step).await,
            None => true,
        };
        // Who takes an announcement back removes `deleting.json` first: he saw it, or this sees that his announcement is gone.
        let announced = match notice::read(self.vault, &self.plan.signers, &step.dir, PruneStage::Expired).await? {
            Notice::Signed(doc) => {
                let named: BTreeSet<&SnapshotId> = doc.snapshots.iter().map(|(id, _)| id).collect();
                doc.grounds.purge.is_none() && named.into_iter().eq(&planned)
            }
            Notice::None | Notice::Foreign(_) => false,
        };
        if listed == planned && held && announced && !is_pinned(self.vault, &step.dir, &planned).await? {
            let receipt = self.put_receipt(step, grounds).await?;
            if is_still_deleting(self.vault, &self.plan.signers, &step.dir, |there| *there == doc, &receipt).await? {
                result.removed(delete(self.vault, &step.dir, &planned).await?);
            } else {
                result.action = Action::Withdraw;
            }
        } else {
            // A writer or a person was faster: its snapshot stays, and so does everything else.
            result.action = Action::Withdraw;
            withdraw(self.vault, &step.dir).await?;
        }
        Ok(true)
    }

    async fn document(
        &self,
        step: &Step,
        stage: PruneStage,
        grounds: Grounds,
    ) -> Result<Option<ExpiredDoc>, VaultError> {
        let Some(newest) = self.plan.newest.clone() else { return Ok(None) };
        Ok(Some(ExpiredDoc {
            format: FORMAT,
            stage,
            stack: step.dir.stack.clone(),
            source: step.dir.source.clone(),
            generation: step.dir.id.clone(),
            // Not the plan's: it may be old, and a document that is much older than its file is one that was put back.
            at: self.vault.now().await?,
            newest,
            snapshots: step.snapshots.clone(),
            grounds,
            signer: self.key.fingerprint(),
            tool: self.plan.request.tool.clone(),
        }))
    }

    async fn put_receipt(&self, step: &Step, grounds: Grounds) -> Result<Signed<ReceiptDoc>, VaultError> {
        let by = (self.key, self.plan.request.tool.as_str());
        put_receipt((self.vault, &self.plan.signers), by, &step.dir, &step.snapshots, grounds).await
    }
}

/// Whether somebody has pinned one of the snapshots since the plan was made; believed or not.
pub(super) async fn is_pinned(
    vault: &Vault,
    dir: &GenerationDir,
    snapshots: &BTreeSet<SnapshotId>,
) -> Result<bool, VaultError> {
    for id in snapshots {
        if vault.exists(&layout::mark(&dir.stack, &dir.source, id, MarkKind::Pin)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes down what is about to go.
pub(super) async fn put_receipt(
    (vault, signers): (&Vault, &Signers),
    (key, tool): (&HostKey, &str),
    dir: &GenerationDir,
    snapshots: &[(SnapshotId, String)],
    grounds: Grounds,
) -> Result<Signed<ReceiptDoc>, VaultError> {
    let objects = vault.list_objects(dir).await?;
    // Only what is believed at its own path: a receipt must not excuse the loss of another snapshot whose document was put there.
    let mut documents = BTreeSet::new();
    for (id, _) in snapshots {
        let read = vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await;
        documents.extend(believed(vault, read).await?.map(|signed| signed.hash()));
    }
    let at = settle::free_second(vault, dir, vault.now().await?).await?;
    let receipt = ReceiptDoc {
        format: FORMAT,
        stack: dir.stack.clone(),
        source: dir.source.clone(),
        vault: Some(vault.id().clone()),
        generation: dir.id.clone(),
        at,
        snapshots: snapshots.to_vec(),
        documents,
        objects: objects.len() as u64,
        stored_bytes: objects.iter().map(|line| line.bytes).sum(),
        grounds,
        signer: key.fingerprint(),
        tool: tool.to_owned(),
    };
    vault.put_signed(&receipt, key).await
}

/// The last look, after the receipt: whether the `deleting.json` that allows it still lies there. Who takes a deletion back removes
/// that first and looks for receipts then, so that at least one of the two sees the other. If it is gone, nothing was
/// deleted: the receipt goes as well.
pub(super) async fn is_still_deleting(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    same: impl Fn(&ExpiredDoc) -> bool,
    receipt: &Signed<ReceiptDoc>,
) -> Result<bool, VaultError> {
    match notice::read(vault, signers, dir, PruneStage::Deleting).await? {
        Notice::Signed(doc) if same(&doc) => return Ok(true),
        // Another process is deleting it: the receipt at this instant may be its own.
        Notice::Signed(_) => return Ok(false),
        Notice::None | Notice::Foreign(_) => {}
    }
    let path = receipt.doc.path();
    let there = vault.get_signed::<ReceiptDoc>(&path, signers).await;
    if there.is_ok_and(|there| there.hash() == receipt.hash()) {
        settle::remove(vault, &path).await?;
    }
    Ok(false)
}

/// What became of taking announcements back.
#[derive(Debug, Default)]
pub struct Undone {
    /// Generations that stay.
    pub made: Vec<GenerationDir>,
    /// Generations whose deletion has begun.
    pub too_late: Vec<GenerationDir>,
    /// Generations that are being purged, which this does not take back.
    pub purged: Vec<GenerationDir>,
    /// Generations at which the store failed, and why: what was announced there may stand.
    pub failed: Vec<(GenerationDir, VaultError)>,
}

/// Takes back every announcement of a source that has not become a deletion, also what is not believed; never a purge, which
/// has its own [`super::purge::undo`]. A store that fails at one generation is asked for the others all the same. Errors: it does not
/// list its generations.
pub async fn undo(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Undone, VaultError> {
    let mut undone = Undone::default();
    for dir in vault.generations(stack, source).await? {
        match take_back(vault, signers, &dir).await {
            Ok(Back::Made) => undone.made.push(dir),
            Ok(Back::TooLate) => undone.too_late.push(dir),
            Ok(Back::Purged) => undone.purged.push(dir),
            Ok(Back::Nothing) => {}
            Err(error) => undone.failed.push((dir, error)),
        }
    }
    Ok(undone)
}

/// What became of one generation.
enum Back {
    Nothing,
    Made,
    TooLate,
    Purged,
}

async fn take_back(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Back, VaultError> {
    if notice::standing(vault, signers, dir).await?.purged.is_some() {
        return Ok(Back::Purged);
    }
    let deleting = notice::read(vault, signers, dir, PruneStage::Deleting).await?;
    let expired = vault.exists(&dir.file(PruneStage::Expired.file())).await?;
    match deleting {
        Notice::Signed(_) => Ok(Back::TooLate),
        Notice::None if !expired => Ok(Back::Nothing),
        Notice::Foreign(_) | Notice::None => {
            let before = receipts_of(vault, signers, dir).await?.len();
            withdraw(vault, dir).await?;
            // A deletion that put its receipt before it could see this goes on, or has ended.
            let gone = receipts_of(vault, signers, dir).await?.len() > before;
            Ok(if gone { Back::TooLate } else { Back::Made })
        }
    }
}

//! Doing what a plan says, and taking it back.

use std::collections::BTreeSet;

use super::delete::{Removed, delete, sweep, withdraw};
use super::holder::{self, Witness};
use super::notice::{self, Notice};
use super::{Action, PrunePlan, Step};
use crate::id::{SourceName, StackName};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{ExpiredDoc, FORMAT, Grounds, Holder, MarkKind, PruneStage, ReceiptDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::{Vault, VaultError};

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
/// vault that fails is one that does not hold it. What none holds waits, and the result says why.
pub async fn apply_beside(
    vault: &Vault,
    key: &HostKey,
    plan: &PrunePlan,
    others: &[Witness<'_>],
) -> Result<Vec<Done>, VaultError> {
    let work = Work { vault, key, plan };
    let mut done = Vec::new();
    for step in &plan.steps {
        let (dir, action) = (step.dir.clone(), step.action.clone());
        let mut result = Done { dir, action, files: 0, bytes: 0, strangers: 0, holder: None };
        match &step.action {
            Action::Keep | Action::Wait { .. } => continue,
            Action::Announce => {
                let Some(doc) = work.document(step, PruneStage::Expired, work.grounds(None)).await? else { continue };
                vault.put_signed(&doc, key).await?;
            }
            Action::Withdraw => withdraw(vault, &step.dir).await?,
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
                Ok((other, holder)) => {
                    result.holder = Some(holder);
                    if !work.remove(step, Some(other), &mut result).await? {
                        continue;
                    }
                }
                Err(why) => {
                    let until = until.format("%F %R UTC");
                    result.action = Action::Wait { reason: format!("waits until {until}: {why}") };
                }
            },
            Action::Resume => {
                let begun = step.begun.as_ref();
                // It may have ended before its receipt, and then nothing was deleted yet.
                if !begun.is_some_and(|begun| begun.receipted) {
                    let grounds = begun.map(|begun| begun.grounds.clone()).unwrap_or_default();
                    work.put_receipt(step, grounds).await?;
                }
                result.removed(delete(vault, &step.dir).await?);
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

    /// Deletes a generation, unless a look in the last moment finds that something has changed. `false`: nothing was begun.
    async fn remove(&self, step: &Step, holder: Option<&Vault>, result: &mut Done) -> Result<bool, VaultError> {
        let grounds = self.grounds(result.holder.clone());
        let Some(doc) = self.document(step, PruneStage::Deleting, grounds.clone()).await? else { return Ok(false) };
        self.vault.put_signed(&doc, self.key).await?;
        let listed: BTreeSet<SnapshotId> = self.vault.snapshots(&step.dir).await?.into_iter().collect();
        let planned: BTreeSet<SnapshotId> = step.snapshots.iter().map(|(id, _)| id.clone()).collect();
        let held = match holder {
            // Two prunes that rely on each other's vault: at least one of them sees the other's document.
            Some(other) => holder::still_holds(other, &self.plan.signers, step).await,
            None => true,
        };
        if listed == planned && held && !is_pinned(self.vault, &step.dir, &planned).await? {
            self.put_receipt(step, grounds).await?;
            result.removed(delete(self.vault, &step.dir).await?);
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

    async fn put_receipt(&self, step: &Step, grounds: Grounds) -> Result<(), VaultError> {
        let by = (self.key, self.plan.request.tool.as_str());
        put_receipt(self.vault, by, &step.dir, &step.snapshots, grounds).await
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
    vault: &Vault,
    (key, tool): (&HostKey, &str),
    dir: &GenerationDir,
    snapshots: &[(SnapshotId, String)],
    grounds: Grounds,
) -> Result<(), VaultError> {
    let objects = vault.list_objects(dir).await?;
    let receipt = ReceiptDoc {
        format: FORMAT,
        stack: dir.stack.clone(),
        source: dir.source.clone(),
        generation: dir.id.clone(),
        at: vault.now().await?,
        snapshots: snapshots.to_vec(),
        objects: objects.len() as u64,
        stored_bytes: objects.iter().map(|line| line.bytes).sum(),
        grounds,
        signer: key.fingerprint(),
        tool: tool.to_owned(),
    };
    vault.put_signed(&receipt, key).await.map(drop)
}

/// Takes back every announcement of a source that has not become a deletion, also what is not believed; never a purge, which
/// has its own [`super::purge::undo`]. Gives the generations.
pub async fn undo(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<GenerationDir>, VaultError> {
    let mut undone = Vec::new();
    for dir in vault.generations(stack, source).await? {
        if notice::standing(vault, signers, &dir).await?.purged.is_some() {
            continue;
        }
        let deleting = notice::read(vault, signers, &dir, PruneStage::Deleting).await?;
        let expired = vault.exists(&dir.file(PruneStage::Expired.file())).await?;
        if matches!(deleting, Notice::Foreign(_)) || (expired && matches!(deleting, Notice::None)) {
            withdraw(vault, &dir).await?;
            undone.push(dir);
        }
    }
    Ok(undone)
}

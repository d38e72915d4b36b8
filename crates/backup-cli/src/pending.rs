//! Generations that a prune or a purge has announced or begun to delete, for the verbs that show what there is.
//!
//! Only a document that a pinned signer signed is shown. Nothing is decided by it: `prune` and `purge` judge for themselves.

use backup_core::id::{SourceName, StackName};
use backup_core::prune;
use backup_core::signature::Signers;
use backup_core::vault::document::{ExpiredDoc, PruneStage};
use backup_core::vault::{Vault, VaultError};
use serde_json::{Value, json};

use crate::words;

/// A deletion of a generation that is announced in a vault, or has begun there.
pub(crate) struct Pending {
    pub(crate) vault: String,
    pub(crate) doc: ExpiredDoc,
}

/// Those of one source in one vault, each as its document says or with why that is not believed. Errors: a store that fails.
pub(crate) async fn of(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Vec<Result<Pending, VaultError>>, VaultError> {
    let mut all = Vec::new();
    for path in prune::pending(vault, stack, source).await? {
        let read = vault.get_signed::<ExpiredDoc>(&path, signers).await;
        all.push(read.map(|signed| Pending { vault: vault.name().to_owned(), doc: signed.doc }));
    }
    Ok(all)
}

impl Pending {
    /// `expired` or `deleting`.
    pub(crate) fn stage(&self) -> &'static str {
        match self.doc.stage {
            PruneStage::Expired => "expired",
            PruneStage::Deleting => "deleting",
        }
    }

    /// For `--json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "vault": self.vault,
            "source": self.doc.source,
            "generation": self.doc.generation,
            "stage": self.stage(),
            "since": words::utc(self.doc.at),
            "snapshots": self.doc.snapshots.len(),
            "purge": self.doc.grounds.purge,
        })
    }

    /// One line: what goes, and how far that is.
    pub(crate) fn line(&self) -> String {
        let what = match (self.doc.stage, self.doc.grounds.purge.is_some()) {
            (PruneStage::Expired, false) => "expiry announced",
            (PruneStage::Expired, true) => "purge announced",
            (PruneStage::Deleting, false) => "being deleted",
            (PruneStage::Deleting, true) => "being purged",
        };
        let count = words::count(self.doc.snapshots.len(), "snapshot");
        format!("going from {}: {}, {count}, {what}", self.vault, self.doc.generation)
    }
}

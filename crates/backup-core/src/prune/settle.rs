//! Receipts of deletions that were taken back follow the truth.
//!
//! A deletion puts its receipt before anything goes, so that nothing ever goes without one. Where it is taken back after that (a pin that
//! came late), the receipt would say of what is still there that it was removed, and would one day excuse whoever removes it. So
//! who takes a deletion back strikes out what is there, and a receipt that names nothing any more goes.
//!
//! `deleting.json` goes first, the receipts after it: nobody deletes on while they are set right. A call that dies in between leaves a
//! receipt that is not true beside a generation without `deleting.json`. The next plan sees that ([`untrue`]) and takes it back
//! then. Only what is there whole counts: whoever puts an old document back into a generation that is gone strikes nothing out. A purge's receipt stays in force, whatever comes
//! back; it goes where the purge is taken back before anything of it went.

use std::collections::BTreeSet;

use super::history::believed;
use crate::signature::{HostKey, Signers};
use crate::vault::document::{ExpiredDoc, PublicDocument as _, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Vault, VaultError};

/// Whether a receipt is the one of a deletion that began so: it came with it or later, and says the same. Clocks of stores tell whole
/// seconds, so the instant alone could be another one's.
pub(super) fn belongs(receipt: &ReceiptDoc, begun: &ExpiredDoc) -> bool {
    let says_the_same = receipt.grounds == begun.grounds && receipt.snapshots == begun.snapshots;
    receipt.generation == begun.generation && receipt.at >= begun.at && says_the_same
}

/// Those of a generation's receipts that name one of `there`, but for a purge's.
pub(super) fn untrue(receipts: &[ReceiptDoc], dir: &GenerationDir, there: &BTreeSet<SnapshotId>) -> Vec<ReceiptDoc> {
    let names = |receipt: &ReceiptDoc| receipt.snapshots.iter().any(|(id, _)| there.contains(id));
    let of_it = receipts.iter().filter(|receipt| receipt.generation == dir.id && receipt.grounds.purge.is_none());
    of_it.filter(|receipt| names(receipt)).cloned().collect()
}

/// Strikes `there` out of receipts that were read before, where they still lie so and the documents still lie there. Without a key a
/// receipt that still has something to say stays as it is.
pub(super) async fn settle(
    vault: &Vault,
    signers: &Signers,
    key: Option<&HostKey>,
    receipts: &[ReceiptDoc],
    there: &BTreeSet<SnapshotId>,
) -> Result<(), VaultError> {
    for receipt in receipts {
        let dir = receipt.dir();
        let mut true_one = receipt.clone();
        for id in receipt.snapshots.iter().map(|(id, _)| id).filter(|id| there.contains(id)) {
            let read = vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await;
            if let Some(signed) = believed(vault, read).await? {
                true_one.documents.remove(&signed.hash());
                true_one.snapshots.retain(|(named, _)| named != id);
            }
        }
        let path = receipt.path();
        let lies = believed(vault, vault.get_signed::<ReceiptDoc>(&path, signers).await).await?;
        if true_one.snapshots.len() == receipt.snapshots.len() || lies.is_none_or(|lies| lies.doc != *receipt) {
            continue;
        }
        match key {
            _ if true_one.snapshots.is_empty() => remove(vault, &path).await?,
            Some(key) => {
                true_one.signer = key.fingerprint();
                vault.put_signed(&true_one, key).await?;
            }
            None => {}
        }
    }
    Ok(())
}

/// Takes a receipt away: its document first, for good, so that none is ever there without its signature.
pub(super) async fn remove(vault: &Vault, path: &StorePath) -> Result<(), VaultError> {
    vault.delete(path).await?;
    vault.sync().await?;
    vault.delete(&layout::signature_of(path)).await?;
    vault.sync().await
}

//! Receipts of deletions that were taken back follow the truth.
//!
//! A deletion puts its receipt before anything goes, so that nothing ever goes without one. Where it is taken back after that (a pin that
//! came late), the receipt would say of what is still there that it was removed, and would one day excuse whoever removes it. So
//! what is there is struck out, and a receipt that names nothing any more goes.
//!
//! Not at once. Who takes a deletion back cannot know whether another process is in the middle of it: what that one deletes next would
//! have no receipt. But whoever deletes documents has put a receipt that names them within the hour before, also where he takes an old
//! deletion up (`apply`). So a receipt is left alone for a day ([`is_ripe`]) and a later plan sets it right, when no deletion that
//! rests on it can still be under way. In that day it may excuse what somebody removes; a deletion without a receipt would be worse.
//!
//! The true receipt is put at a place of its own, and only when it lies there and is believed, the old one goes: to write over it
//! would leave, where the call dies between signature and document, a receipt that nobody believes. With both there, what is still
//! untrue is seen by the next plan, which puts no second one. Only what is there whole counts: whoever puts an old document back into a
//! generation that is gone strikes nothing out. A purge's receipt stays in force, whatever comes back: it goes as a whole or not at
//! all, and only with the announcement under which it was put. A purge that came to its end took that away itself.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::history::{believed, receipts_of};
use super::{GRACE, notice};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{ExpiredDoc, PublicDocument as _, ReceiptDoc, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::StorePath;
use crate::vault::{Vault, VaultError};

/// So many seconds on, at most, a receipt gets one of its own.
const SECONDS: usize = 60;

/// Whether no deletion that began with this receipt can still be under way.
pub(super) fn is_ripe(receipt: &ReceiptDoc, now: DateTime<Utc>) -> bool {
    now - receipt.at >= GRACE
}

/// Whether a receipt is the one of a deletion that began so: it came with it or later, and says the same. Clocks of stores tell whole
/// seconds, so the instant alone could be another one's.
pub(super) fn belongs(receipt: &ReceiptDoc, begun: &ExpiredDoc) -> bool {
    let says_the_same = receipt.grounds == begun.grounds && receipt.snapshots == begun.snapshots;
    receipt.generation == begun.generation && receipt.at >= begun.at && says_the_same
}

/// Those of a generation's receipts that name one of `there` and are ripe, but for a purge's.
pub(super) fn untrue(
    receipts: &[ReceiptDoc],
    dir: &GenerationDir,
    there: &BTreeSet<SnapshotId>,
    now: DateTime<Utc>,
) -> Vec<ReceiptDoc> {
    let names = |receipt: &ReceiptDoc| receipt.snapshots.iter().any(|(id, _)| there.contains(id));
    let of_it = receipts.iter().filter(|receipt| receipt.generation == dir.id && receipt.grounds.purge.is_none());
    of_it.filter(|receipt| is_ripe(receipt, now) && names(receipt)).cloned().collect()
}

/// Strikes `there` out of receipts that were read before, where they are ripe, still lie so and the documents still lie there. Without
/// a key a receipt that still has something to say stays as it is, and so does a purge's.
pub(super) async fn settle(
    vault: &Vault,
    signers: &Signers,
    key: Option<&HostKey>,
    receipts: &[ReceiptDoc],
    there: &BTreeSet<SnapshotId>,
) -> Result<(), VaultError> {
    let now = vault.now().await?;
    for receipt in receipts.iter().filter(|receipt| is_ripe(receipt, now)) {
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
        let stands = match key {
            _ if true_one.snapshots.is_empty() => true,
            Some(key) if receipt.grounds.purge.is_none() => {
                replace(vault, (signers, key), &dir, (receipt, true_one)).await?
            }
            Some(_) | None => false,
        };
        if stands {
            remove(vault, &path).await?;
        }
    }
    Ok(())
}

/// Lets the true receipt lie beside the old one. Whether it does, and is believed.
async fn replace(
    vault: &Vault,
    (signers, key): (&Signers, &HostKey),
    dir: &GenerationDir,
    (old, mut true_one): (&ReceiptDoc, ReceiptDoc),
) -> Result<bool, VaultError> {
    // A call that died may have put it already.
    let says_it = |other: &ReceiptDoc| {
        let same = other.snapshots == true_one.snapshots && other.grounds == true_one.grounds;
        other.at > old.at && same && other.documents.is_superset(&true_one.documents)
    };
    if receipts_of(vault, signers, dir).await?.iter().any(says_it) {
        return Ok(true);
    }
    true_one.at = free_second(vault, dir, (old.at + TimeDelta::seconds(1)).max(vault.now().await?)).await?;
    true_one.signer = key.fingerprint();
    let put = vault.put_signed(&true_one, key).await?;
    // Another host that settles it in this very second signs otherwise.
    let lies = believed(vault, vault.get_signed::<ReceiptDoc>(&true_one.path(), signers).await).await?;
    Ok(lies.is_some_and(|lies| lies.hash() == put.hash()))
}

/// The first second from `at` on at which no receipt of the generation lies: what another deletion wrote down stays.
pub(super) async fn free_second(
    vault: &Vault,
    dir: &GenerationDir,
    mut at: DateTime<Utc>,
) -> Result<DateTime<Utc>, VaultError> {
    for _ in 0..SECONDS {
        match vault.exists(&layout::receipt(dir, at)).await {
            Ok(false) => break,
            Err(error) if !notice::is_foreign(vault, &error).await => return Err(error),
            Ok(true) | Err(_) => at += TimeDelta::seconds(1),
        }
    }
    Ok(at)
}

/// Takes a receipt away: its document first, for good, so that none is ever there without its signature.
pub(super) async fn remove(vault: &Vault, path: &StorePath) -> Result<(), VaultError> {
    vault.delete(path).await?;
    vault.sync().await?;
    vault.delete(&layout::signature_of(path)).await?;
    vault.sync().await
}

//! A vault whose `vault.json` is gone: what its own signed documents say of it, before that file is written anew.
//!
//! `vault.json` is not signed, and its loss is no loss of a snapshot. Under another id, though, every receipt that lies there would count for
//! nothing: what a prune removed would be told as missing. So the id must be the old one: the one that the configuration
//! pins, or the one that receipts name. Only what a pinned signer signed says anything here: whoever can write into a bucket cannot
//! give a vault a name. Reads only.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::store::Store;
use super::{Vault, VaultError, zero_id};
use crate::id::{StackName, VaultId};
use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::document::{ReceiptDoc, SnapshotDoc};
use crate::vault::layout;

/// Names of snapshots of a source that are looked at, newest first, for one that is believed: more than a vault of years has, so that
/// whoever plants names before them must plant thousands.
const LOOKED_AT: usize = 10_000;

/// What lies in a place without a `vault.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// A snapshot or a receipt of the stack is there that a pinned signer signed: it was a vault of this stack.
    pub is_ours: bool,
    /// The vaults that believed receipts name as the one that they are of.
    pub ids: BTreeSet<VaultId>,
}

/// Looks for traces of `stack`. Errors: only a store that fails.
pub async fn traces(
    name: &str,
    store: Arc<dyn Store>,
    signers: &Signers,
    stack: &StackName,
) -> Result<Traces, VaultError> {
    let place = Vault { name: name.to_owned(), id: zero_id(), store, older: None };
    let mut traces = Traces::default();
    for source in place.sources(stack).await? {
        for entry in place.list(&layout::receipts(stack, &source)).await? {
            if !entry.path.as_str().ends_with(".json") {
                continue;
            }
            match place.get_signed::<ReceiptDoc>(&entry.path, signers).await {
                Ok(receipt) => {
                    traces.is_ours = true;
                    traces.ids.extend(receipt.doc.vault);
                }
                Err(error) if notice::is_foreign(&place, &error).await => {}
                Err(error) => return Err(error),
            }
        }
        let history = place.history(stack, &source).await?;
        for (dir, id) in history.iter().rev().take(LOOKED_AT) {
            if traces.is_ours {
                break;
            }
            match place.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
                Ok(_) => traces.is_ours = true,
                Err(error) if notice::is_foreign(&place, &error).await => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(traces)
}

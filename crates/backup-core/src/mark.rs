//! Marks that an operator sets: a pin keeps a snapshot whatever its age, an accept says that somebody looked at what is
//! unusual about it.
//!
//! A mark is signed and is about the very bytes of the snapshot's document; whoever can write to a vault but has no key
//! cannot lift a freeze with one. It is put where the snapshot is, and replicated with it.

use chrono::{DateTime, Utc};

use crate::signature::{HostKey, Signers};
use crate::vault::document::{FORMAT, MarkDoc, MarkKind, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::{Signed, Vault, VaultError};

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was set, or taken away.
    Made,
    /// It was there already, signed; or there was none to take away.
    None,
}

/// Whether `vault` has the mark for the snapshot's very bytes, from a pinned signer.
pub async fn has(
    vault: &Vault,
    signers: &Signers,
    snapshot: &Signed<SnapshotDoc>,
    mark: MarkKind,
) -> Result<bool, VaultError> {
    let doc = &snapshot.doc;
    let path = layout::mark(&doc.stack, &doc.source, &doc.id, mark);
    if !vault.exists(&path).await? {
        return Ok(false);
    }
    // What is there and not believed is replaced: it marks nothing.
    let there = vault.get_signed::<MarkDoc>(&path, signers).await;
    Ok(there.is_ok_and(|there| there.doc.document == snapshot.hash()))
}

/// Sets a mark on a snapshot whose document was read from this vault and believed.
pub async fn set(
    vault: &Vault,
    (key, signers): (&HostKey, &Signers),
    snapshot: &Signed<SnapshotDoc>,
    mark: MarkKind,
    (at, tool): (DateTime<Utc>, &str),
) -> Result<Change, VaultError> {
    if has(vault, signers, snapshot, mark).await? {
        return Ok(Change::None);
    }
    let doc = &snapshot.doc;
    let mark = MarkDoc {
        format: FORMAT,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        snapshot: doc.id.clone(),
        mark,
        at,
        document: snapshot.hash(),
        signer: key.fingerprint(),
        tool: tool.to_owned(),
    };
    vault.put_signed(&mark, key).await?;
    Ok(Change::Made)
}

/// Whether there is anything where the mark would be.
pub async fn is_there(vault: &Vault, dir: &GenerationDir, id: &SnapshotId, mark: MarkKind) -> Result<bool, VaultError> {
    vault.exists(&layout::mark(&dir.stack, &dir.source, id, mark)).await
}

/// Takes a mark away, believed or not: a pin that is not believed keeps its snapshot as well.
pub async fn remove(vault: &Vault, dir: &GenerationDir, id: &SnapshotId, mark: MarkKind) -> Result<Change, VaultError> {
    let path = layout::mark(&dir.stack, &dir.source, id, mark);
    if !vault.exists(&path).await? {
        return Ok(Change::None);
    }
    // The document first: a signature without one means nothing.
    vault.delete(&path).await?;
    vault.delete(&layout::signature_of(&path)).await?;
    Ok(Change::Made)
}

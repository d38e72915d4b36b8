//! Marks that an operator sets: a pin keeps a snapshot whatever its age, an accept says that somebody looked at what is
//! unusual about it.
//!
//! A mark is signed and is about the very bytes of the snapshot's document; whoever can write to a vault but has no key
//! cannot lift a freeze with one. It is put where the snapshot is, and replicated with it.

pub mod hold;

use chrono::{DateTime, Utc};

use crate::id::{Hash256, SourceName, StackName};
use crate::prune::notice::{self, Notice};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{FORMAT, MarkDoc, MarkKind, PruneStage, SnapshotDoc};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::{Signed, Vault, VaultError};

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was set, or taken away.
    Made,
    /// It was there already, signed; or there was none to take away.
    None,
    /// It was put, and a prune is deleting the snapshot: it came too late.
    TooLate,
    /// It was put, and is not believed: this host's key may not sign marks (any more), or another host put its own meanwhile.
    NotBelieved,
}

/// Whether `vault` has the mark for the snapshot's very bytes, from a pinned signer. What is there and not believed marks
/// nothing. Errors: a store that fails.
pub async fn has(
    vault: &Vault,
    signers: &Signers,
    snapshot: &Signed<SnapshotDoc>,
    mark: MarkKind,
) -> Result<bool, VaultError> {
    let doc = &snapshot.doc;
    is_set(vault, signers, (&doc.stack, &doc.source, &doc.id), snapshot.hash(), mark).await
}

/// [`has`], for the snapshot whose document has the SHA-256 `document`.
pub async fn is_set(
    vault: &Vault,
    signers: &Signers,
    (stack, source, id): (&StackName, &SourceName, &SnapshotId),
    document: Hash256,
    mark: MarkKind,
) -> Result<bool, VaultError> {
    let path = layout::mark(stack, source, id, mark);
    let read = async {
        if vault.exists(&path).await? { vault.get_signed::<MarkDoc>(&path, signers).await.map(Some) } else { Ok(None) }
    };
    match read.await {
        Ok(there) => Ok(there.is_some_and(|there| there.doc.document == document)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets a mark on a snapshot whose document was read from this vault and believed.
///
/// A prune that is about to delete the snapshot puts `deleting.json` and then looks for pins; here the mark is put first and
/// then that document is looked for. So at least one of the two sees the other.
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
    let written = MarkDoc {
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
    vault.put_signed(&written, key).await?;
    let dir = GenerationDir { stack: doc.stack.clone(), source: doc.source.clone(), id: doc.generation.clone() };
    let deleting = matches!(notice::read(vault, signers, &dir, PruneStage::Deleting).await?, Notice::Signed(_));
    if deleting || !vault.exists(&dir.snapshot(&doc.id, ".json")).await? {
        return Ok(Change::TooLate);
    }
    Ok(if has(vault, signers, snapshot, mark).await? { Change::Made } else { Change::NotBelieved })
}

/// Whether there is anything where the mark would be.
pub async fn is_there(vault: &Vault, dir: &GenerationDir, id: &SnapshotId, mark: MarkKind) -> Result<bool, VaultError> {
    vault.exists(&layout::mark(&dir.stack, &dir.source, id, mark)).await
}

/// Takes a mark away, believed or not: a pin that is not believed keeps its snapshot as well.
pub async fn remove(vault: &Vault, dir: &GenerationDir, id: &SnapshotId, mark: MarkKind) -> Result<Change, VaultError> {
    let path = layout::mark(&dir.stack, &dir.source, id, mark);
    let signature = layout::signature_of(&path);
    let there = (vault.exists(&path).await?, vault.exists(&signature).await?);
    // The document first, for good: a signature without one means nothing, and a document without one would be a pin that nobody
    // signed, which keeps its snapshot.
    if there.0 {
        vault.delete(&path).await?;
        vault.sync().await?;
    }
    if there.1 {
        vault.delete(&signature).await?;
    }
    vault.sync().await?;
    Ok(if there.0 { Change::Made } else { Change::None })
}

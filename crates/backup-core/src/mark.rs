//! Marks that an operator sets: a pin keeps a snapshot whatever its age, an accept says that somebody looked at what is
//! unusual about it.
//!
//! A mark is signed and is about the very bytes of the snapshot's document; whoever can write to a vault but has no key
//! cannot lift a freeze with one. It is put where the snapshot is, and replicated with it. An accept also names the hole in the
//! chain that it says is known; one that somebody makes afterwards is none of its business.

pub mod hold;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::id::{Hash256, SourceName, StackName};
use crate::prune::notice::{self, Notice};
use crate::signature::{HostKey, Signers};
use crate::vault::document::{FORMAT, Hole, MarkDoc, MarkKind, PruneStage, SnapshotDoc};
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
    Ok(get(vault, signers, snapshot, mark).await?.is_some())
}

/// The mark itself, as [`has`] finds it.
pub async fn get(
    vault: &Vault,
    signers: &Signers,
    snapshot: &Signed<SnapshotDoc>,
    mark: MarkKind,
) -> Result<Option<MarkDoc>, VaultError> {
    let doc = &snapshot.doc;
    read(vault, signers, (&doc.stack, &doc.source, &doc.id), snapshot.hash(), mark).await
}

/// [`has`], for the snapshot whose document has the SHA-256 `document`.
pub async fn is_set(
    vault: &Vault,
    signers: &Signers,
    whose: (&StackName, &SourceName, &SnapshotId),
    document: Hash256,
    mark: MarkKind,
) -> Result<bool, VaultError> {
    Ok(read(vault, signers, whose, document, mark).await?.is_some())
}

async fn read(
    vault: &Vault,
    signers: &Signers,
    (stack, source, id): (&StackName, &SourceName, &SnapshotId),
    document: Hash256,
    mark: MarkKind,
) -> Result<Option<MarkDoc>, VaultError> {
    let path = layout::mark(stack, source, id, mark);
    let read = async {
        if vault.exists(&path).await? { vault.get_signed::<MarkDoc>(&path, signers).await.map(Some) } else { Ok(None) }
    };
    match read.await {
        Ok(there) => Ok(there.map(|there| there.doc).filter(|there| there.document == document)),
        Err(error) if notice::is_foreign(vault, &error).await => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a mark that is set now would say in `vault`, whose signature and instant do not matter; `None` where one there says it.
///
/// An accept names the hole that is before the snapshot in this vault, so that it closes no other one. The first accept of a suspect
/// snapshot names none: it says that its rows are what they should be, and whoever looked at those may not have looked at the
/// chain. Accepted again, it names the hole.
pub async fn wanted(
    vault: &Vault,
    signers: &Signers,
    snapshot: &Signed<SnapshotDoc>,
    mark: MarkKind,
) -> Result<Option<MarkDoc>, VaultError> {
    let there = get(vault, signers, snapshot, mark).await?;
    let closes = match (&there, mark) {
        (None, MarkKind::Accept) if snapshot.doc.suspect > 0 => Some(BTreeSet::new()),
        (there, MarkKind::Accept) => {
            // What it closes in other vaults stays closed.
            let mut holes = there.as_ref().and_then(|there| there.closes.clone()).unwrap_or_default();
            holes.extend(hole(vault, signers, snapshot).await?);
            Some(holes)
        }
        _ => None,
    };
    if there.is_some_and(|there| there.closes == closes) {
        return Ok(None);
    }
    let doc = &snapshot.doc;
    Ok(Some(MarkDoc {
        format: FORMAT,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        snapshot: doc.id.clone(),
        mark,
        at: doc.finished,
        document: snapshot.hash(),
        closes,
        signer: String::new(),
        tool: String::new(),
    }))
}

/// The hole before a snapshot in `vault`: the document that it follows on is not there, or is not believed. One that follows on none
/// is its own hole, where older ones lie beside it.
async fn hole(vault: &Vault, signers: &Signers, snapshot: &Signed<SnapshotDoc>) -> Result<Option<Hole>, VaultError> {
    let doc = &snapshot.doc;
    if doc.id.is_imported() {
        return Ok(None);
    }
    let mut others = vault.history(&doc.stack, &doc.source).await?;
    others.retain(|(_, id)| !id.is_imported() && *id != doc.id);
    // The one before it is what it follows on, where nothing is missing.
    let (mut before, after): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, id)| *id < doc.id);
    before.reverse();
    let Some(missing) = doc.previous else {
        let hole = Hole { vault: vault.id().clone(), missing: snapshot.hash() };
        return Ok((!before.is_empty()).then_some(hole));
    };
    for (dir, id) in before.iter().chain(&after) {
        match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), signers).await {
            Ok(there) if there.hash() == missing => return Ok(None),
            Ok(_) => {}
            Err(error) if notice::is_foreign(vault, &error).await => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(Hole { vault: vault.id().clone(), missing }))
}

/// Sets a mark on a snapshot whose document was read from this vault and believed. An accept that says less than it would now
/// ([`wanted`]) is replaced.
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
    let Some(wanted) = wanted(vault, signers, snapshot, mark).await? else { return Ok(Change::None) };
    let doc = &snapshot.doc;
    let dir = GenerationDir { stack: doc.stack.clone(), source: doc.source.clone(), id: doc.generation.clone() };
    if mark == MarkKind::Accept && has(vault, signers, snapshot, mark).await? {
        // Never a document under the signature of another: a call that dies leaves none.
        remove(vault, &dir, &doc.id, mark).await?;
    }
    let written = MarkDoc { at, signer: key.fingerprint(), tool: tool.to_owned(), ..wanted };
    vault.put_signed(&written, key).await?;
    let deleting = matches!(notice::read(vault, signers, &dir, PruneStage::Deleting).await?, Notice::Signed(_));
    if deleting || !vault.exists(&dir.snapshot(&doc.id, ".json")).await? {
        return Ok(Change::TooLate);
    }
    let there = get(vault, signers, snapshot, mark).await?;
    Ok(if there.is_some_and(|there| there.closes == written.closes) { Change::Made } else { Change::NotBelieved })
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

//! Announcements that may be acted upon: signed by somebody pinned, and put there when they were signed.
//!
//! A document that was taken back is still signed. Whoever kept a copy and can write into the vault could put it back, and so
//! spare a generation its announcement, or go on with a deletion that had been given up. But the store says when it got a
//! file: what it got long after the instant that the document states was put back. It is told and not acted upon. (A
//! writer and a replicator heed it all the same, as [`super::notice`] reads it: there the safe side is to stop.)
//!
//! A vault that was copied to another place as files shows it for genuine announcements too: they are made anew.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::GRACE;
use super::notice::{self, Notice};
use crate::signature::Signers;
use crate::vault::document::{ExpiredDoc, PruneStage};
use crate::vault::layout::{self, GenerationDir, SnapshotId};
use crate::vault::store::Entry;
use crate::vault::{Vault, VaultError};

/// A document is put within seconds of the instant that it states; a store's retries take some minutes.
pub(crate) const LATE: TimeDelta = TimeDelta::hours(1);

/// What is announced of one generation.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// `expired.json`.
    pub(super) expired: Option<Announced>,
    /// `deleting.json`.
    pub(super) deleting: Option<ExpiredDoc>,
    /// One of the two was put back.
    pub(super) replayed: bool,
    /// What is not acted upon, in words.
    pub(super) foreign: Vec<String>,
}

impl Found {
    /// Why the generation is being purged, if it is.
    pub(super) fn purge(&self) -> Option<&str> {
        let mut docs = self.deleting.iter().chain(self.expired.iter().map(|announced| &announced.doc));
        docs.find_map(|doc| doc.grounds.purge.as_deref())
    }
}

/// Reads both documents. `files` is a listing of the generation.
pub(super) async fn find(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    files: &[Entry],
    now: DateTime<Utc>,
) -> Result<Found, VaultError> {
    let expired = notice::read(vault, signers, dir, PruneStage::Expired).await?;
    let deleting = notice::read(vault, signers, dir, PruneStage::Deleting).await?;
    Ok(judge(dir, &[expired, deleting], files, now))
}

/// Since when documents that may be acted upon have stood at a generation, and the snapshots that each names; found by name, without a
/// listing of the generation.
pub(crate) async fn standing(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
) -> Result<Vec<(DateTime<Utc>, BTreeSet<SnapshotId>)>, VaultError> {
    let mut files = Vec::new();
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        let path = dir.file(stage.file());
        for path in [layout::signature_of(&path), path] {
            match vault.entry(&path).await {
                Ok(entry) => files.extend(entry),
                Err(error) if notice::is_foreign(vault, &error).await => {}
                Err(error) => return Err(error),
            }
        }
    }
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let found = find(vault, signers, dir, &files, vault.now().await?).await?;
    let docs = found.expired.map(|announced| announced.doc).into_iter().chain(found.deleting);
    Ok(docs.map(|doc| (doc.at, doc.snapshots.into_iter().map(|(id, _)| id).collect())).collect())
}

/// Judges both documents, `expired.json` first. `files` is a listing of the generation.
pub(super) fn judge(dir: &GenerationDir, notices: &[Notice; 2], files: &[Entry], now: DateTime<Utc>) -> Found {
    let mut found = Found::default();
    for (stage, notice) in [PruneStage::Expired, PruneStage::Deleting].into_iter().zip(notices) {
        let doc = match notice {
            Notice::None => continue,
            // A document that nobody pinned signed must neither make us delete nor keep us from it.
            Notice::Foreign(text) => {
                found.foreign.push(text.clone());
                continue;
            }
            Notice::Signed(doc) => doc.as_ref().clone(),
        };
        // What the listing does not show came after it.
        let came = came(dir, stage, files).unwrap_or(now);
        if came - doc.at > LATE {
            found.replayed = true;
            found.foreign.push(format!(
                "`{}` of {} was signed at {} and put there at {}: an old one that was put back, not obeyed",
                stage.file(),
                dir.id,
                doc.at.format("%F %R UTC"),
                came.format("%F %R UTC")
            ));
            continue;
        }
        match stage {
            PruneStage::Expired => found.expired = Some(Announced { until: came.max(doc.at) + GRACE, doc }),
            PruneStage::Deleting => found.deleting = Some(doc),
        }
    }
    found
}

/// When the store got a document or its signature, whichever is later.
fn came(dir: &GenerationDir, stage: PruneStage, files: &[Entry]) -> Option<DateTime<Utc>> {
    let path = dir.file(stage.file());
    let signature = layout::signature_of(&path);
    files.iter().filter(|entry| entry.path == path || entry.path == signature).map(|entry| entry.modified).max()
}

/// A believed `expired.json`.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) doc: ExpiredDoc,
    /// From when on the generation may be deleted.
    pub(super) until: DateTime<Utc>,
}

impl Announced {
    /// The snapshots that it names.
    pub(super) fn names(&self) -> BTreeSet<&SnapshotId> {
        self.doc.snapshots.iter().map(|(id, _)| id).collect()
    }

    /// Whether a deletion of these snapshots may go on.
    pub(super) fn covers(&self, listed: &[SnapshotId], now: DateTime<Utc>) -> bool {
        let named = self.names();
        now >= self.until && listed.iter().all(|id| named.contains(id))
    }
}

//! Reading what somebody deleted or wrote over, where the store keeps older versions.
//!
//! Off unless asked for ([`Vault::reading_older`]): a run or a replication that silently read older versions would take for
//! held what the bucket's owner may let go any day, and would ask questions that its key need not be allowed to ask. A
//! restore turns it on, and says afterwards what it had to read that way ([`Vault::older_reads`]).
//!
//! Why it is safe: an older version is believed for the same reasons as a current body, an object by its name, a document by
//! its signature and its path. Only what is written once is looked for: what lies below a generation, without prune's two
//! documents; and `vault.json`, by the id that is pinned ([`Vault::open_for_restore`]). A mark or a notice that was taken back must stay so, and an older version of it would be a replay.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::document::{FORMAT, PruneStage, PublicDocument, VaultDoc};
use super::layout::{GenerationDir, GenerationId, SnapshotId};
use super::protection::{Gone, Older, Remembered};
use super::store::{Store, StoreError, StorePath};
use super::{MAX_DOCUMENT_BYTES, MAX_SIGNATURE_BYTES, Signed, Vault, VaultError, layout};
use crate::id::{Hash256, ObjectName, SourceName, StackName, VaultId};
use crate::json;
use crate::seal::MAX_STORED_BYTES;
use crate::signature::Signers;

/// So many versions of one body are tried: somebody who writes over it a million times must not keep a restore busy.
const TRIED: usize = 20;

/// The versions of an object that are tried, of all, which come newest first: the oldest, oldest first. A name is written
/// once, so whatever somebody puts over it later is newer, however often.
fn oldest(all: &[Older]) -> impl Iterator<Item = &Older> {
    all.iter().rev().take(TRIED)
}

/// The versions of a document, or of what one names, that are tried: the oldest, oldest first, then the newest. Another one may have
/// lain in its place before it.
pub(super) fn both_ends(all: &[Older]) -> impl Iterator<Item = &Older> {
    let half = TRIED / 2;
    all.iter().rev().take(half).chain(all[..all.len().saturating_sub(half)].iter().take(half))
}

/// Paths that were read from an older version.
#[derive(Debug, Default)]
pub(super) struct OlderReads(Mutex<BTreeSet<String>>);

impl OlderReads {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// [`Vault::open`] and [`Vault::reading_older`]: for a restore. Where `vault.json` was deleted or written over, an older
    /// version of it that carries the pinned id is as good; [`Vault::older_reads`] names it. Without an id nothing says which
    /// vault is meant, and only the current one is read.
    pub async fn open_for_restore(
        name: &str,
        store: Arc<dyn Store>,
        pinned: Option<&VaultId>,
    ) -> Result<Self, VaultError> {
        let wrong = match Self::open(name, Arc::clone(&store), pinned).await {
            Ok(vault) => return Ok(vault.reading_older()),
            Err(wrong) => wrong,
        };
        let is_other = matches!(wrong, VaultError::NoVault { .. } | VaultError::OtherVault { .. });
        let Some(id) = pinned.filter(|_| is_other || is_answer(&wrong)) else { return Err(wrong) };
        let path = StorePath::new(layout::VAULT_JSON).expect("a path of checked parts");
        for version in both_ends(&store.older(&path).await.unwrap_or_default()) {
            let Ok(bytes) = store.get_older(version, MAX_DOCUMENT_BYTES).await else { continue };
            if json::from_slice::<VaultDoc>(&bytes, FORMAT).is_ok_and(|doc| doc.id == *id) {
                let vault = Self { name: name.to_owned(), id: id.clone(), store, older: None }.reading_older();
                vault.note(&path);
                return Ok(vault);
            }
        }
        Err(wrong)
    }

    /// The same vault, whose reads try older versions where the current one is gone or wrong.
    #[must_use]
    pub fn reading_older(&self) -> Self {
        let older = Some(self.older.clone().unwrap_or_else(|| Arc::new(OlderReads::default())));
        Self { older, ..self.clone() }
    }

    /// Paths of what was read from an older version since [`Vault::reading_older`], sorted.
    pub fn older_reads(&self) -> Vec<String> {
        self.older.as_ref().map_or_else(Vec::new, |reads| reads.lock().iter().cloned().collect())
    }

    /// Snapshots of a generation whose document was deleted and lies in an older version, by name; nothing is opened or
    /// believed. What a prune removed is among them.
    pub(crate) async fn deleted_snapshots(
        &self,
        dir: &GenerationDir,
    ) -> Result<Remembered<(SnapshotId, Gone)>, VaultError> {
        let Remembered { found, is_cut } = self.store.deleted(&dir.snapshots()).await.map_err(|e| self.failed(e))?;
        let name = |gone: &Gone| gone.path.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        let found = found.into_iter().filter_map(|gone| Some((name(&gone)?, gone)));
        let found = found.filter(|(id, gone)| dir.snapshot(id, ".json") == gone.path).collect();
        Ok(Remembered { found, is_cut })
    }

    /// Generations of a source of which the store remembers anything, also those of which every file was deleted; none where
    /// it keeps no versions.
    pub(crate) async fn generations_ever(
        &self,
        stack: &StackName,
        source: &SourceName,
    ) -> Result<Remembered<GenerationDir>, VaultError> {
        let names = self.store.folders_ever(&layout::source_dir(stack, source)).await;
        let Remembered { found, is_cut } = names.map_err(|error| self.failed(error))?;
        let ids = found.iter().filter_map(|name| name.parse().ok());
        let dir = |id| GenerationDir { stack: stack.clone(), source: source.clone(), id };
        Ok(Remembered { found: ids.map(dir).collect(), is_cut })
    }

    /// Sources of a stack of which the store remembers anything, also those of which every file was deleted; none where it keeps
    /// no versions.
    pub async fn sources_ever(&self, stack: &StackName) -> Result<Vec<SourceName>, VaultError> {
        let names = self.store.folders_ever(&layout::stack_dir(stack)).await.map_err(|error| self.failed(error))?;
        Ok(names.found.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Whether older versions of what lies, or lay, at a path can be read with these credentials: the error with which they are
    /// refused, where they are.
    pub(crate) async fn may_read_older(&self, path: &StorePath) -> Result<(), VaultError> {
        let older = self.store.older(path).await.map_err(|error| self.failed(error))?;
        let Some(version) = older.last() else { return Ok(()) };
        match self.store.get_older(version, MAX_DOCUMENT_BYTES).await {
            Err(error @ StoreError::Denied { .. }) => Err(self.failed(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn note(&self, path: &StorePath) {
        if let Some(reads) = &self.older {
            reads.lock().insert(path.to_string());
        }
    }

    /// Whether an older version of an object has the bytes of its name. Errors of the store count as no.
    pub async fn has_older_object(&self, dir: &GenerationDir, name: &ObjectName) -> bool {
        self.find_object(&dir.object(name), name).await.is_some()
    }

    /// The good older version of an object whose current one is `wrong`, which is given back where there is none.
    pub(super) async fn older_object(
        &self,
        path: &StorePath,
        name: &Hash256,
        wrong: VaultError,
    ) -> Result<Bytes, VaultError> {
        if self.older.is_none() || !is_recoverable(path, &wrong) {
            return Err(wrong);
        }
        let found = self.find_object(path, name).await.ok_or(wrong)?;
        self.note(path);
        Ok(found)
    }

    /// Whether the store still has a version of a file beside the one that a plain read gives.
    pub(crate) async fn has_older(&self, path: &StorePath) -> Result<bool, VaultError> {
        Ok(!self.store.older(path).await.map_err(|error| self.failed(error))?.is_empty())
    }

    async fn find_object(&self, path: &StorePath, name: &Hash256) -> Option<Bytes> {
        for version in oldest(&self.store.older(path).await.ok()?) {
            let Ok(bytes) = self.store.get_older(version, MAX_STORED_BYTES).await else { continue };
            let body = bytes.clone();
            if tokio::task::spawn_blocking(move || Hash256::of(&body)).await.ok()? == *name {
                return Some(bytes);
            }
        }
        None
    }

    /// The first older version of a body with this hash, for what is named by a signed document.
    pub(super) async fn older_body(
        &self,
        path: &StorePath,
        sha256: &Hash256,
        limit_bytes: u64,
        wrong: VaultError,
    ) -> Result<Bytes, VaultError> {
        if self.older.is_none() || !is_recoverable(path, &wrong) {
            return Err(wrong);
        }
        for version in both_ends(&self.store.older(path).await.unwrap_or_default()) {
            match self.store.get_older(version, limit_bytes).await {
                Ok(bytes) if Hash256::of(&bytes) == *sha256 => {
                    self.note(path);
                    return Ok(bytes);
                }
                _ => {}
            }
        }
        Err(wrong)
    }

    /// A document that is believed together with its signature, of which either may be an older version.
    pub(super) async fn older_signed<T: PublicDocument>(
        &self,
        path: &StorePath,
        signers: &Signers,
        limit_bytes: u64,
        wrong: VaultError,
    ) -> Result<Signed<T>, VaultError> {
        if self.older.is_none() || !is_recoverable(path, &wrong) {
            return Err(wrong);
        }
        let signature = layout::signature_of(path);
        let documents = self.every(path, limit_bytes.min(MAX_DOCUMENT_BYTES)).await;
        let signatures = self.every(&signature, MAX_SIGNATURE_BYTES).await;
        for (document, old_document) in &documents {
            for (signed, old_signature) in &signatures {
                let Ok(doc) = json::from_slice::<T>(document, FORMAT) else { continue };
                let believed = self.believe(path, (doc, document.clone()), signed.clone(), signers);
                let Ok(believed) = believed else { continue };
                for (path, old) in [(path, *old_document), (&signature, *old_signature)] {
                    if old {
                        self.note(path);
                    }
                }
                return Ok(believed);
            }
        }
        Err(wrong)
    }

    /// The current body and older ones, in the order in which they are tried, each with whether it is an older one.
    async fn every(&self, path: &StorePath, limit_bytes: u64) -> Vec<(Bytes, bool)> {
        let mut all = Vec::new();
        all.extend(self.store.get(path, limit_bytes).await.ok().map(|bytes| (bytes, false)));
        let older: Vec<Older> = self.store.older(path).await.unwrap_or_default();
        for version in both_ends(&older) {
            all.extend(self.store.get_older(version, limit_bytes).await.ok().map(|bytes| (bytes, true)));
        }
        all
    }
}

/// Whether the store answered, and what it answered is wrong.
fn is_answer(wrong: &VaultError) -> bool {
    match wrong {
        VaultError::Store { source, .. } => {
            matches!(source, StoreError::NotFound { .. } | StoreError::TooLarge { .. } | StoreError::Unusable { .. })
        }
        VaultError::NoVault { .. }
        | VaultError::OtherVault { .. }
        | VaultError::Occupied { .. }
        | VaultError::Sign { .. } => false,
        _ => true,
    }
}

/// Whether an older version may take the place of what is wrong: the store answered, and the path is written only once.
fn is_recoverable(path: &StorePath, wrong: &VaultError) -> bool {
    let mut parts = path.as_str().split('/').skip(2);
    let in_generation = parts.next().is_some_and(|part| part.parse::<GenerationId>().is_ok());
    let name = parts.next().unwrap_or_default();
    let notice = [PruneStage::Expired, PruneStage::Deleting].iter().any(|stage| name.starts_with(stage.file()));
    is_answer(wrong) && in_generation && !notice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_over_a_name_hides_no_older_version() {
        let all = |count: usize| -> Vec<Older> {
            let older = |at: usize| Older {
                path: StorePath::new("s").unwrap(),
                version: at.to_string(),
                bytes: 0,
                modified: chrono::DateTime::UNIX_EPOCH,
            };
            (0..count).rev().map(older).collect()
        };
        let names =
            |tried: Vec<&Older>| -> Vec<usize> { tried.iter().map(|older| older.version.parse().unwrap()).collect() };
        let many = all(1000);
        assert_eq!(names(oldest(&many).collect()), (0..TRIED).collect::<Vec<_>>());
        let ends: Vec<usize> = (0..10).chain((990..1000).rev()).collect();
        assert_eq!(names(both_ends(&many).collect()), ends);
        for few in [0, 1, 9, 10, 11, 19, 20, 21] {
            let all = all(few);
            let mut tried = names(both_ends(&all).collect());
            tried.sort_unstable();
            tried.dedup();
            assert_eq!(tried.len(), few.min(TRIED), "{few}");
        }
    }

    #[test]
    fn only_what_is_written_once_is_looked_for() {
        let gone = |path: &str| VaultError::MissingDocument { path: path.to_owned(), vault: "v".to_owned() };
        let generation = "s/db/2026-11-01--7d--0123abcd";
        for (path, looked) in [
            (format!("{generation}/objects/ab/ab"), true),
            (format!("{generation}/snapshots/20261101T000000Z-1r-abcdef.json"), true),
            (format!("{generation}/generation.json.sig"), true),
            (format!("{generation}/expired.json"), false),
            (format!("{generation}/deleting.json.sig"), false),
            ("s/db/marks/20261101T000000Z-1r-abcdef.pin.json".to_owned(), false),
            ("s/db/receipts/x.json".to_owned(), false),
        ] {
            assert_eq!(is_recoverable(&StorePath::new(path.as_str()).unwrap(), &gone(&path)), looked, "{path}");
        }
    }
}

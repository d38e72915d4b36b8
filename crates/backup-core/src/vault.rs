//! A vault: a directory or an S3 prefix that holds generations.
//!
//! [`Vault`] is the only way in: objects enter as [`Sealed`], documents as one of the closed set in [`document`], and what
//! comes out has been checked: objects against their name, documents against their signature, their format and the path
//! at which they lie. Nothing is deleted here except what prune names.

pub mod document;
mod error;
pub mod inventory;
pub mod layout;
pub mod local;
pub mod memory;
mod older;
pub mod protection;
mod recover;
pub mod remake;
pub mod retry;
pub mod s3;
pub mod store;
pub mod throttle;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::id::{Hash256, ObjectName, SourceName, StackName, VaultId};
use crate::json::{self, JsonError};
use crate::seal::{MAX_STORED_BYTES, Sealed};
use crate::signature::{HostKey, Namespace, SignedBy, Signers};
pub use error::VaultError;

use document::{FORMAT, GrantDoc, InventoryRef, PublicDocument, SnapshotDoc, VaultDoc};
use inventory::InventoryLine;
use layout::{GenerationDir, GenerationId, SnapshotId};
use older::OlderReads;
use protection::{Lifecycle, Retention};
use store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};

/// Largest JSON document that is read. A snapshot of a huge source names some thousand manifest objects.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Largest signature that is read.
const MAX_SIGNATURE_BYTES: u64 = 16 << 10;
/// Largest stored inventory that is read.
const MAX_INVENTORY_BYTES: u64 = 256 << 20;

/// Folders whose names are asked for at once.
const LISTINGS: usize = 16;

/// How often one file is moved aside at one instant.
const MAX_ASIDE: u32 = 9;

/// A document that was checked, with the bytes that were signed.
#[derive(Debug, Clone)]
pub struct Signed<T> {
    /// What it says.
    pub doc: T,
    /// Its stored bytes.
    pub bytes: Bytes,
    /// Its signature's stored bytes.
    pub signature: Bytes,
    /// Who signed.
    pub by: SignedBy,
}

impl<T> Signed<T> {
    /// SHA-256 of the document's bytes: what the next one's `previous` and marks refer to.
    pub fn hash(&self) -> Hash256 {
        Hash256::of(&self.bytes)
    }
}

/// What a generation was seen to hold.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// Its objects with their stored sizes, sorted by name.
    pub objects: Vec<InventoryLine>,
    /// Names of what lies directly in its folder.
    pub files: BTreeSet<String>,
}

/// The object that lies at a listed path of a generation, if one does.
fn object(dir: &GenerationDir, entry: &Entry) -> Option<InventoryLine> {
    let name: ObjectName = entry.path.as_str().rsplit('/').next()?.parse().ok()?;
    (dir.object(&name) == entry.path).then_some(InventoryLine { name, bytes: entry.bytes })
}

/// An open vault whose identity was checked.
#[derive(Debug, Clone)]
pub struct Vault {
    name: String,
    id: VaultId,
    store: Arc<dyn Store>,
    /// Set where older versions are read, see [`Vault::reading_older`].
    older: Option<Arc<OlderReads>>,
}

impl Vault {
    /// Makes a vault in an empty place. Refuses where one is already.
    pub async fn create(
        name: &str,
        store: Arc<dyn Store>,
        id: VaultId,
        now: DateTime<Utc>,
        tool: &str,
    ) -> Result<Self, VaultError> {
        let vault = Self { name: name.to_owned(), id: id.clone(), store, older: None };
        if let Some(found) = vault.read_vault_doc().await? {
            return Err(VaultError::Occupied { store: vault.store.describe(), found: found.id });
        }
        let doc = VaultDoc { format: FORMAT, id, created: now, tool: tool.to_owned() };
        let path = fixed(layout::VAULT_JSON);
        vault.put(&path, json::to_lines(&doc).into(), PutMode::CreateOnly).await?;
        vault.sync().await?;
        Ok(vault)
    }

    /// Opens the vault that lies in `store`. With `pinned`, any other is refused.
    pub async fn open(name: &str, store: Arc<dyn Store>, pinned: Option<&VaultId>) -> Result<Self, VaultError> {
        let mut vault = Self { name: name.to_owned(), id: zero_id(), store, older: None };
        let found = vault.read_vault_doc().await?;
        let found = found.ok_or_else(|| VaultError::NoVault { store: vault.store.describe() })?.id;
        if let Some(pinned) = pinned.filter(|pinned| **pinned != found) {
            return Err(VaultError::OtherVault { store: vault.store.describe(), found, pinned: pinned.clone() });
        }
        vault.id = found;
        Ok(vault)
    }

    async fn read_vault_doc(&self) -> Result<Option<VaultDoc>, VaultError> {
        let path = fixed(layout::VAULT_JSON);
        let bytes = match self.store.get(&path, MAX_DOCUMENT_BYTES).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        json::from_slice(&bytes, FORMAT).map(Some).map_err(|source| self.unreadable(&path, source))
    }

    /// Name in the configuration, or address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity.
    pub fn id(&self) -> &VaultId {
        &self.id
    }

    /// Where it lies, for people.
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// The store's clock.
    pub async fn now(&self) -> Result<DateTime<Utc>, VaultError> {
        self.store.now().await.map_err(|e| self.failed(e))
    }

    /// The barrier: everything put so far is durable when this returns.
    pub async fn sync(&self) -> Result<(), VaultError> {
        self.store.sync().await.map_err(|e| self.failed(e))
    }

    /// Stores an object, unless it is there.
    pub async fn put_object(&self, dir: &GenerationDir, sealed: &Sealed) -> Result<PutOutcome, VaultError> {
        self.put(&dir.object(&sealed.name()), sealed.bytes().clone(), PutMode::CreateOnly).await
    }

    /// The stored bytes of an object, checked against its name.
    pub async fn get_object(&self, dir: &GenerationDir, name: &ObjectName) -> Result<Bytes, VaultError> {
        let path = dir.object(name);
        match self.get_current_object(&path, name).await {
            Err(wrong) => self.older_object(&path, name, wrong).await,
            good => good,
        }
    }

    async fn get_current_object(&self, path: &StorePath, name: &ObjectName) -> Result<Bytes, VaultError> {
        let bytes = self.get(path, MAX_STORED_BYTES).await?;
        let found = tokio::task::spawn_blocking({
            let bytes = bytes.clone();
            move || Hash256::of(&bytes)
        });
        match found.await {
            Ok(found) if found == *name => Ok(bytes),
            Ok(found) => Err(self.damaged(path, format!("its bytes have the SHA-256 {found}"))),
            Err(e) => Err(self.damaged(path, e.to_string())),
        }
    }

    /// Copies an object that was read (and so checked) from another vault.
    pub async fn copy_object(
        &self,
        dir: &GenerationDir,
        name: &ObjectName,
        from: &Self,
        mode: PutMode,
    ) -> Result<u64, VaultError> {
        let bytes = from.get_object(dir, name).await?;
        let size = bytes.len() as u64;
        self.put(&dir.object(name), bytes, mode).await?;
        Ok(size)
    }

    /// All objects of a generation, by one listing: name and stored size, sorted. Foreign files are passed over.
    pub async fn list_objects(&self, dir: &GenerationDir) -> Result<Vec<InventoryLine>, VaultError> {
        let mut objects = Vec::new();
        self.each(&dir.objects(), &mut |entry| objects.extend(object(dir, &entry))).await?;
        objects.sort_unstable();
        Ok(objects)
    }

    /// All objects of a generation, and the files beside its folders, by one and the same listing.
    pub async fn look(&self, dir: &GenerationDir) -> Result<Listed, VaultError> {
        let (mut listed, folder) = (Listed::default(), dir.dir());
        let below =
            |entry: &Entry| entry.path.as_str().strip_prefix(folder.as_str())?.strip_prefix('/').map(str::to_owned);
        let mut take = |entry: Entry| {
            if let Some(line) = object(dir, &entry) {
                listed.objects.push(line);
            } else {
                listed.files.extend(below(&entry).filter(|name| !name.contains('/')));
            }
        };
        self.each(&folder, &mut take).await?;
        listed.objects.sort_unstable();
        Ok(listed)
    }

    /// Signs and stores a document: its signature first, so that a document is never there without one.
    pub async fn put_signed<T: PublicDocument + Clone>(&self, doc: &T, key: &HostKey) -> Result<Signed<T>, VaultError> {
        let path = doc.path();
        let bytes = json::to_lines(doc);
        let signature = key
            .sign(T::NAMESPACE, bytes.as_bytes())
            .map_err(|source| VaultError::Sign { path: path.to_string(), source })?;
        let signed = Signed {
            doc: doc.clone(),
            bytes: bytes.into(),
            signature: signature.into(),
            by: SignedBy { fingerprint: key.fingerprint() },
        };
        self.put_verbatim(&signed).await?;
        Ok(signed)
    }

    /// Stores a document that is already signed: signature, barrier, document, barrier.
    pub async fn put_verbatim<T: PublicDocument>(&self, signed: &Signed<T>) -> Result<(), VaultError> {
        let path = signed.doc.path();
        if T::NAMESPACE == Namespace::Generation {
            self.renew_locks().await?;
        }
        self.put(&layout::signature_of(&path), signed.signature.clone(), PutMode::Replace).await?;
        self.sync().await?;
        self.put(&path, signed.bytes.clone(), PutMode::Replace).await?;
        self.sync().await
    }

    /// Lets the locks of what lies outside of generations and is needed as long as any of them last as long as those of the
    /// generation that is about to be put: locked once, when the vault was made, `vault.json` would be free for whoever holds the
    /// host's key while snapshots that need it are locked. Before the generation, so that none is there without it. Does nothing
    /// where the store has no locks.
    pub async fn renew_locks(&self) -> Result<(), VaultError> {
        if !self.locks() {
            return Ok(());
        }
        for path in layout::beside_generations() {
            self.store.renew(&path).await.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Reads and checks the document at `path`: format, signature, and that it belongs there.
    pub async fn get_signed<T: PublicDocument>(
        &self,
        path: &StorePath,
        signers: &Signers,
    ) -> Result<Signed<T>, VaultError> {
        self.get_signed_within(path, signers, MAX_DOCUMENT_BYTES).await
    }

    /// [`Vault::get_signed`] of a document that has at most `limit_bytes`.
    pub(crate) async fn get_signed_within<T: PublicDocument>(
        &self,
        path: &StorePath,
        signers: &Signers,
        limit_bytes: u64,
    ) -> Result<Signed<T>, VaultError> {
        match self.get_current_signed(path, signers, limit_bytes).await {
            Err(wrong) => self.older_signed(path, signers, limit_bytes, wrong).await,
            good => good,
        }
    }

    async fn get_current_signed<T: PublicDocument>(
        &self,
        path: &StorePath,
        signers: &Signers,
        limit_bytes: u64,
    ) -> Result<Signed<T>, VaultError> {
        let bytes = self.get_existing(path, limit_bytes).await?;
        // Before its signature is asked for: what is no document needs none.
        let doc: T = json::from_slice(&bytes, FORMAT).map_err(|source| self.unreadable(path, source))?;
        let signature = self.get_existing(&layout::signature_of(path), MAX_SIGNATURE_BYTES).await?;
        self.believe(path, (doc, bytes), signature, signers)
    }

    /// Checks a document that was read from these bytes: its signature, and that it belongs to `path`.
    fn believe<T: PublicDocument>(
        &self,
        path: &StorePath,
        (doc, bytes): (T, Bytes),
        signature: Bytes,
        signers: &Signers,
    ) -> Result<Signed<T>, VaultError> {
        let by = signers.check(T::NAMESPACE, &bytes, &signature, doc.at()).map_err(|source| VaultError::Signature {
            path: path.to_string(),
            vault: self.name.clone(),
            source,
        })?;
        if doc.path() != *path {
            let says = doc.path().to_string();
            return Err(VaultError::Misplaced { path: path.to_string(), vault: self.name.clone(), says });
        }
        Ok(Signed { doc, bytes, signature, by })
    }

    /// Reads the document at `path` without asking for its signature: for what proves itself otherwise, as a grant does by
    /// the key that it holds. Format and path are checked.
    pub(crate) async fn get_unproved<T: PublicDocument>(
        &self,
        path: &StorePath,
        limit_bytes: u64,
    ) -> Result<T, VaultError> {
        let bytes = self.get_existing(path, limit_bytes).await?;
        let doc: T = json::from_slice(&bytes, FORMAT).map_err(|source| self.unreadable(path, source))?;
        if doc.path() != *path {
            let says = doc.path().to_string();
            return Err(VaultError::Misplaced { path: path.to_string(), vault: self.name.clone(), says });
        }
        Ok(doc)
    }

    /// Stores a grant that nobody signs; a signature that lay there belonged to another.
    pub(crate) async fn put_unsigned(&self, doc: &GrantDoc) -> Result<(), VaultError> {
        let path = doc.path();
        self.put(&path, json::to_lines(doc).into(), PutMode::Replace).await?;
        self.delete(&layout::signature_of(&path)).await?;
        self.sync().await
    }

    /// Whether a read failed for what lies at its path alone (a link, a pipe, a body that the store gives to nobody), and
    /// not because the vault as a whole cannot be read: its own document still can.
    pub async fn refuses_only_that(&self, error: &VaultError) -> bool {
        let VaultError::Store {
            source: StoreError::Unusable { .. } | StoreError::Denied { action: "read", .. }, ..
        } = error
        else {
            return false;
        };
        matches!(self.read_vault_doc().await, Ok(Some(doc)) if doc.id == self.id)
    }

    /// Size and time of what lies at a path; `None` where nothing does.
    pub(crate) async fn entry(&self, path: &StorePath) -> Result<Option<Entry>, VaultError> {
        self.store.stat(path).await.map_err(|e| self.failed(e))
    }

    /// Whether a path exists.
    pub async fn exists(&self, path: &StorePath) -> Result<bool, VaultError> {
        Ok(self.store.stat(path).await.map_err(|e| self.failed(e))?.is_some())
    }

    /// Stores a snapshot's inventory.
    pub async fn put_inventory(
        &self,
        dir: &GenerationDir,
        id: &SnapshotId,
        lines: Vec<InventoryLine>,
    ) -> Result<InventoryRef, VaultError> {
        let path = dir.snapshot(id, ".inventory.zst");
        let broken = |source| VaultError::Inventory { path: path.to_string(), vault: self.name.clone(), source };
        let stored = inventory::write(lines).map_err(broken)?;
        let objects = inventory::read(&stored).map_err(broken)?.len() as u64;
        let reference = InventoryRef { sha256: Hash256::of(&stored), bytes: stored.len() as u64, objects };
        self.put(&path, stored.into(), PutMode::Replace).await?;
        Ok(reference)
    }

    /// The inventory of a snapshot and its stored bytes, checked against what the snapshot says of it.
    pub async fn get_inventory(&self, doc: &SnapshotDoc) -> Result<(Vec<InventoryLine>, Bytes), VaultError> {
        let path = doc.dir().snapshot(&doc.id, ".inventory.zst");
        // No more is held than was signed: a body of another size is not the one that the snapshot names.
        let limit_bytes = doc.inventory.bytes.min(MAX_INVENTORY_BYTES);
        let stored = match self.get_existing(&path, limit_bytes).await {
            Ok(stored) if Hash256::of(&stored) == doc.inventory.sha256 => Ok(stored),
            Ok(stored) => Err(self.damaged(&path, format!("its bytes have the SHA-256 {}", Hash256::of(&stored)))),
            Err(VaultError::Store { source: StoreError::TooLarge { .. }, .. }) => {
                Err(self.damaged(&path, format!("it has more than {limit_bytes} bytes")))
            }
            Err(error) => Err(error),
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(wrong) => self.older_body(&path, &doc.inventory.sha256, limit_bytes, wrong).await?,
        };
        let lines = inventory::read(&stored).map_err(|source| VaultError::Inventory {
            path: path.to_string(),
            vault: self.name.clone(),
            source,
        })?;
        if lines.len() as u64 != doc.inventory.objects {
            return Err(self.damaged(&path, format!("it has {} lines, not {}", lines.len(), doc.inventory.objects)));
        }
        Ok((lines, stored))
    }

    /// Stores an inventory that was read (and so checked) from another vault.
    pub async fn put_inventory_verbatim(&self, doc: &SnapshotDoc, stored: Bytes) -> Result<(), VaultError> {
        self.put(&doc.dir().snapshot(&doc.id, ".inventory.zst"), stored, PutMode::Replace).await.map(drop)
    }

    /// Puts an object's checked bytes where damaged ones lay or none, and makes them durable.
    pub(crate) async fn replace_object(
        &self,
        dir: &GenerationDir,
        name: &ObjectName,
        bytes: Bytes,
    ) -> Result<(), VaultError> {
        self.put(&dir.object(name), bytes, PutMode::Replace).await?;
        self.sync().await
    }

    /// Keeps what lies at `path` in [`layout::DAMAGED`], durably, and gives where; `None` where nothing lies.
    pub(crate) async fn set_aside(&self, path: &StorePath, at: DateTime<Utc>) -> Result<Option<StorePath>, VaultError> {
        for nth in 0..MAX_ASIDE {
            let Some(aside) = layout::damaged(path, at, nth) else { break };
            match self.store.stat(&aside).await {
                Ok(None) => {}
                // Something of an earlier repair, whatever it is.
                Ok(Some(_)) | Err(StoreError::Unusable { .. }) => continue,
                Err(error) => return Err(self.failed(error)),
            }
            let moved = self.store.set_aside(path, &aside).await.map_err(|e| self.failed(e))?;
            self.sync().await?;
            return Ok(moved.then_some(aside));
        }
        Err(self.damaged(path, format!("it has no free place in `{}`", layout::DAMAGED)))
    }

    /// Stacks in this vault.
    pub async fn stacks(&self) -> Result<Vec<StackName>, VaultError> {
        self.names(None).await
    }

    /// Sources of a stack.
    pub async fn sources(&self, stack: &StackName) -> Result<Vec<SourceName>, VaultError> {
        self.names(Some(&layout::stack_dir(stack))).await
    }

    /// Generations of a source, oldest first.
    pub async fn generations(&self, stack: &StackName, source: &SourceName) -> Result<Vec<GenerationDir>, VaultError> {
        let ids: Vec<GenerationId> = self.names(Some(&layout::source_dir(stack, source))).await?;
        let dir = |id| GenerationDir { stack: stack.clone(), source: source.clone(), id };
        Ok(ids.into_iter().map(dir).collect())
    }

    /// Committed snapshots of a generation by name, oldest first. Names only: nothing is opened or believed yet.
    pub async fn snapshots(&self, dir: &GenerationDir) -> Result<Vec<SnapshotId>, VaultError> {
        let names = self.store.children(Some(&dir.snapshots())).await.map_err(|e| self.failed(e))?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// All committed snapshots of a source, oldest first, with their generations.
    pub async fn history(
        &self,
        stack: &StackName,
        source: &SourceName,
    ) -> Result<Vec<(GenerationDir, SnapshotId)>, VaultError> {
        self.history_since(stack, source, DateTime::<Utc>::MIN_UTC).await
    }

    /// Those among them, and perhaps others, whose data may be from `since` or later: generations that took nothing any more
    /// by then are not looked into. Two clocks that agree by the protocol may still be an hour apart, which a day covers.
    pub async fn history_since(
        &self,
        stack: &StackName,
        source: &SourceName,
        since: DateTime<Utc>,
    ) -> Result<Vec<(GenerationDir, SnapshotId)>, VaultError> {
        let dirs = self.generations(stack, source).await?.into_iter().filter(|dir| !dir.id.is_closed(since));
        let named = stream::iter(dirs.collect::<Vec<_>>())
            .map(async |dir| {
                let ids = self.snapshots(&dir).await?;
                Ok::<_, VaultError>(ids.into_iter().map(|id| (dir.clone(), id)).collect::<Vec<_>>())
            })
            .buffered(LISTINGS);
        let mut all: Vec<_> = named.try_concat().await?;
        all.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(all)
    }

    /// Marks of a source: every `<snapshot>.<mark>` by name.
    pub async fn marks(&self, stack: &StackName, source: &SourceName) -> Result<Vec<StorePath>, VaultError> {
        let entries = self.list(&layout::marks(stack, source)).await?;
        Ok(entries.into_iter().map(|e| e.path).filter(|p| p.as_str().ends_with(".json")).collect())
    }

    /// Hands everything below a path to `take`, in no order. After an error what was taken counts for nothing.
    pub async fn each(&self, prefix: &StorePath, take: &mut (dyn FnMut(Entry) + Send)) -> Result<(), VaultError> {
        self.store.each(Some(prefix), take).await.map_err(|e| self.failed(e))
    }

    /// Everything below a path.
    pub async fn list(&self, prefix: &StorePath) -> Result<Vec<Entry>, VaultError> {
        self.store.list(Some(prefix)).await.map_err(|e| self.failed(e))
    }

    /// Whether what is stored is locked, so that a deletion may have to wait.
    pub fn locks(&self) -> bool {
        self.store.locks()
    }

    /// What keeps the file at `path` from being deleted, as the store shows it: `None` where nothing does.
    pub async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, VaultError> {
        self.store.protection(path).await.map_err(|e| self.failed(e))
    }

    /// Sets or lifts a legal hold on the file at `path`, where the store has locks.
    pub async fn hold(&self, path: &StorePath, on: bool) -> Result<(), VaultError> {
        self.store.hold(path, on).await.map_err(|e| self.failed(e))
    }

    /// The rules by which the store itself deletes.
    pub async fn lifecycle(&self) -> Result<Lifecycle, VaultError> {
        self.store.lifecycle().await.map_err(|e| self.failed(e))
    }

    /// Removes a path: for prune and for a writer that withdraws its own commit.
    pub(crate) async fn delete(&self, path: &StorePath) -> Result<(), VaultError> {
        self.store.delete(path).await.map_err(|e| self.failed(e))
    }

    /// The names directly below a folder (`None`: of the vault itself), files and folders alike.
    pub async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, VaultError> {
        self.store.children(prefix).await.map_err(|e| self.failed(e))
    }

    async fn names<T: std::str::FromStr>(&self, prefix: Option<&StorePath>) -> Result<Vec<T>, VaultError> {
        let names = self.store.children(prefix).await.map_err(|e| self.failed(e))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, VaultError> {
        self.store.put(path, body, mode).await.map_err(|e| self.failed(e))
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, VaultError> {
        self.store.get(path, limit_bytes).await.map_err(|e| self.failed(e))
    }

    async fn get_existing(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, VaultError> {
        match self.store.get(path, limit_bytes).await {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound { .. }) => {
                Err(VaultError::MissingDocument { path: path.to_string(), vault: self.name.clone() })
            }
            Err(source) => Err(self.failed(source)),
        }
    }

    fn failed(&self, source: StoreError) -> VaultError {
        VaultError::Store { vault: self.name.clone(), source }
    }

    fn unreadable(&self, path: &StorePath, source: JsonError) -> VaultError {
        VaultError::Document { path: path.to_string(), vault: self.name.clone(), source }
    }

    fn damaged(&self, path: &StorePath, reason: String) -> VaultError {
        VaultError::Damaged { path: path.to_string(), vault: self.name.clone(), reason }
    }
}

fn fixed(path: &str) -> StorePath {
    StorePath::new(path).expect("a path of checked parts")
}

fn zero_id() -> VaultId {
    "0".repeat(32).parse().expect("32 hex digits")
}

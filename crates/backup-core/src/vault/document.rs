//! The public documents of a vault: a closed set of types. Whatever is not one of these must be sealed to enter a vault.
//!
//! None of them holds a name from inside a source (tables, paths, columns): who keeps the vault learns sizes, times and
//! the recipients' public keys only. Reasons for a suspect snapshot are therefore in the manifest; here is their number.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use serde::de::DeserializeOwned;

use super::layout::{self, GenerationDir, GenerationId, Period, SnapshotId};
use super::store::StorePath;
use crate::id::{Hash256, ObjectName, SourceName, StackName, VaultId};
use crate::signature::Namespace;

/// The vault format that this program writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

mod sealed {
    pub trait Closed {}
}

/// A signed public document. The set is closed: the trait cannot be implemented elsewhere.
///
/// Each document knows its own path, so that one that was moved or swapped with another is noticed by what it says
/// itself.
pub trait PublicDocument: Serialize + DeserializeOwned + sealed::Closed {
    /// The namespace of its signature.
    const NAMESPACE: Namespace;
    /// Where it belongs.
    fn path(&self) -> StorePath;
    /// The instant that it states for itself.
    fn at(&self) -> DateTime<Utc>;
}

macro_rules! public_document {
    ($name:ident, $namespace:ident, $at:ident, |$doc:ident| $path:expr) => {
        impl sealed::Closed for $name {}
        impl PublicDocument for $name {
            const NAMESPACE: Namespace = Namespace::$namespace;
            fn path(&self) -> StorePath {
                let $doc = self;
                $path
            }
            fn at(&self) -> DateTime<Utc> {
                self.$at
            }
        }
    };
}

public_document!(GenerationDoc, Generation, opened, |doc| doc.dir().file("generation.json"));
public_document!(SnapshotDoc, Snapshot, finished, |doc| doc.dir().snapshot(&doc.id, ".json"));
public_document!(ExpiredDoc, Expired, at, |doc| doc.dir().file(doc.stage.file()));
public_document!(ReceiptDoc, Receipt, at, |doc| layout::receipt(&doc.dir(), doc.at));
public_document!(GrantDoc, Grant, at, |doc| doc.dir().grant(&doc.recipient));
public_document!(MarkDoc, Mark, at, |doc| layout::mark(&doc.stack, &doc.source, &doc.snapshot, doc.mark));

macro_rules! generation_dir {
    ($($name:ident)*) => {$(
        impl $name {
            /// The generation that it belongs to.
            pub fn dir(&self) -> GenerationDir {
                GenerationDir { stack: self.stack.clone(), source: self.source.clone(), id: self.generation.clone() }
            }
        }
    )*};
}

generation_dir!(GenerationDoc SnapshotDoc ExpiredDoc ReceiptDoc GrantDoc);

/// Which of prune's two documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PruneStage {
    /// Announced; can be undone by removing the document.
    Expired,
    /// Being deleted.
    Deleting,
}

impl PruneStage {
    /// Name of the document's file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Expired => "expired.json",
            Self::Deleting => "deleting.json",
        }
    }
}

/// What a mark says of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    /// Never expires.
    Pin,
    /// A suspect snapshot was looked at and found good.
    Accept,
    /// Decrypted and hashed.
    Checked,
    /// Restored and compared.
    Restored,
}

impl MarkKind {
    /// The word in the file's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Accept => "accept",
            Self::Checked => "checked",
            Self::Restored => "restored",
        }
    }
}

/// What an operator said, where a deletion is not the two runs of a prune with everything promised kept.
///
/// Every member is absent where it says nothing, so that an ordinary document has no `grounds` at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grounds {
    /// It was purged: it goes whatever its age and whatever was promised. The operator's words; whoever keeps the vault can
    /// read them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<String>,
    /// The day between announcing and deleting was not waited for: the vault that was seen to hold everything whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<Holder>,
    /// Names of configured vaults whose promises were passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

impl Grounds {
    /// Whether nothing was said.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A vault whose copy of a generation was read and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its identity.
    pub vault: VaultId,
    /// Its name in the configuration.
    pub name: String,
    /// Objects that were read and hashed there.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

/// `vault.json`: made by `init` only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultDoc {
    /// Format.
    pub format: u64,
    /// The identity that configurations pin.
    pub id: VaultId,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// By which version of this program.
    pub tool: String,
}

/// `generation.json`: signed; made once when a generation opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationDoc {
    /// Format.
    pub format: u64,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// Generation; must agree with the path.
    pub generation: GenerationId,
    /// Its period.
    pub period: Period,
    /// When it was opened, by the host's clock.
    pub opened: DateTime<Utc>,
    /// `age1…`: what objects are sealed to.
    pub public_key: String,
    /// The operators' recipients that the secret key is wrapped for.
    pub recipients: Vec<String>,
    /// The secret key, age-encrypted to the recipients, armoured.
    pub wrapped_key: String,
    /// Average size of chunks.
    pub chunk_average_bytes: u64,
    /// Fingerprint of the host key that opened it.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

/// `<snapshot>.json`: signed; its presence is the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotDoc {
    /// Format.
    pub format: u64,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// Type of the source.
    pub source_type: String,
    /// Generation; must agree with the path.
    pub generation: GenerationId,
    /// The snapshot's name; must agree with the path.
    pub id: SnapshotId,
    /// The run that made it.
    pub run: String,
    /// Instant that the data shows.
    pub instant: DateTime<Utc>,
    /// When its capture began.
    pub started: DateTime<Utc>,
    /// When everything it names was durable.
    pub finished: DateTime<Utc>,
    /// When the next snapshot is due, where a job says so.
    pub next_due: Option<DateTime<Utc>>,
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Files.
    pub files: u64,
    /// Plaintext bytes.
    pub plain_bytes: u64,
    /// Stored bytes of all objects that it needs.
    pub stored_bytes: u64,
    /// Stored bytes of the objects that this capture added.
    pub added_bytes: u64,
    /// Whether a restore must not make anything of it readable for others.
    pub secret: bool,
    /// Number of reasons (in the manifest) for looking at it first.
    pub suspect: u64,
    /// The inventory beside it.
    pub inventory: InventoryRef,
    /// The manifest.
    pub manifest: ManifestRef,
    /// `age1…` of the generation.
    pub public_key: String,
    /// For whom the generation key is wrapped.
    pub recipients: Vec<String>,
    /// The generation's wrapped key again, so that one file is enough.
    pub wrapped_key: String,
    /// SHA-256 of the previous `<snapshot>.json` of this source by this signer.
    pub previous: Option<Hash256>,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

/// The stored inventory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryRef {
    /// SHA-256 of the stored (compressed) file.
    pub sha256: Hash256,
    /// Its stored size.
    pub bytes: u64,
    /// Lines: the number of objects.
    pub objects: u64,
}

/// The sealed manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestRef {
    /// SHA-256 of its text.
    pub sha256: Hash256,
    /// Length of its text.
    pub bytes: u64,
    /// The objects whose plaintexts, one after the other, are its text.
    pub objects: Vec<ObjectName>,
}

/// `expired.json`, `deleting.json` (the same form): signed; what a prune is about to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpiredDoc {
    /// Format.
    pub format: u64,
    /// Which of the two; must agree with the path.
    pub stage: PruneStage,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// Generation; must agree with the path.
    pub generation: GenerationId,
    /// When the plan was made, by the store's clock.
    pub at: DateTime<Utc>,
    /// The newest committed snapshot of the source at that time.
    pub newest: SnapshotId,
    /// Every snapshot of the generation with the reason for its expiry.
    pub snapshots: Vec<(SnapshotId, String)>,
    /// What an operator said, if anything.
    #[serde(default, skip_serializing_if = "Grounds::is_plain")]
    pub grounds: Grounds,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

/// `receipts/….json`: signed; what a prune removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptDoc {
    /// Format.
    pub format: u64,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// The vault that it was removed from; `None` in what the first programs wrote, which is believed anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultId>,
    /// Generation that was removed.
    pub generation: GenerationId,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
    /// Its snapshots with the reasons.
    pub snapshots: Vec<(SnapshotId, String)>,
    /// SHA-256 of their documents, as the snapshots after them name them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub documents: BTreeSet<Hash256>,
    /// Objects that lay there.
    pub objects: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// What an operator said, if anything.
    #[serde(default, skip_serializing_if = "Grounds::is_plain")]
    pub grounds: Grounds,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

/// `grants/<16 hex>.json`: the generation's key once more, for a recipient that it was not wrapped for when it opened.
///
/// The only document that may lie without a signature: operators' machines need not have a key that signs. What it holds
/// proves itself, by the public key that the signed snapshot names; a signature says who made it, and lets it be replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantDoc {
    /// Format.
    pub format: u64,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// Generation; must agree with the path.
    pub generation: GenerationId,
    /// `age1…` of the generation.
    pub public_key: String,
    /// To whom it is granted; must agree with the path.
    pub recipient: String,
    /// The secret key, age-encrypted to that recipient alone, armoured.
    pub wrapped_key: String,
    /// When, by the clock of the machine that granted it.
    pub at: DateTime<Utc>,
    /// Fingerprint of the key that signed it; `null` where it lies without a signature.
    pub signer: Option<String>,
    /// Version of this program.
    pub tool: String,
}

/// A hole in a chain: a snapshot follows on one that a vault does not have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// The vault that it is in.
    pub vault: VaultId,
    /// SHA-256 of the document that is missing; of the snapshot's own where it follows on none.
    pub missing: Hash256,
}

/// `marks/<snapshot>.{checked,restored}.json`: signed; a fact that must survive the loss of any host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkDoc {
    /// Format.
    pub format: u64,
    /// Stack; must agree with the path.
    pub stack: StackName,
    /// Source; must agree with the path.
    pub source: SourceName,
    /// Snapshot; must agree with the path.
    pub snapshot: SnapshotId,
    /// What is said of it.
    pub mark: MarkKind,
    /// When.
    pub at: DateTime<Utc>,
    /// SHA-256 of the snapshot's `.json`: the mark is for these bytes.
    pub document: Hash256,
    /// Of an accept, the holes before the snapshot that it says are known, and no other. `None` in other marks, and in accepts of the
    /// first programs: those close whatever hole there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes: Option<BTreeSet<Hole>>,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

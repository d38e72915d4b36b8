//! The public documents of a vault: a closed set of types. Whatever is not one of these must be sealed to enter a vault.
//!
//! None of them holds a name from inside a source (tables, paths, columns): who keeps the vault learns sizes, times and
//! the recipients' public keys only. Reasons for a suspect snapshot are therefore in the manifest; here is their number.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::layout::{GenerationId, Period, SnapshotId};
use crate::id::{Hash256, ObjectName, SourceName, StackName, VaultId};

/// The vault format that this program writes, and the newest that it reads.
pub const FORMAT: u64 = 1;

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
    /// Generation that was removed.
    pub generation: GenerationId,
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
    /// Its snapshots with the reasons.
    pub snapshots: Vec<(SnapshotId, String)>,
    /// Objects that lay there.
    pub objects: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
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
    /// `checked`, `restored`, `pin` or `accept`.
    pub mark: String,
    /// When.
    pub at: DateTime<Utc>,
    /// SHA-256 of the snapshot's `.json`: the mark is for these bytes.
    pub document: Hash256,
    /// Fingerprint of the host key.
    pub signer: String,
    /// Version of this program.
    pub tool: String,
}

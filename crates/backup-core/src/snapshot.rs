//! Reading a snapshot: from its signed document to its streams.
//!
//! ```text
//! snapshot.json + signature --check--> unwrap key --> manifest --> Streams
//! Vault::get_object --> check name --> unseal --> stream SHA-256
//! ```
//!
//! [`OpenSnapshot`] exists only for a snapshot whose signature, path, wrapped key and manifest hash were all found good.

pub mod met;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::grant::{self, Locked, UnlockError};
use crate::id::{Hash256, ObjectName};
use crate::manifest::Manifest;
use crate::manifest::text::{self, ManifestError};
use crate::monitor::{Event, Monitor};
use crate::seal::key::{Identities, IdentityError};
use crate::seal::{OpenError, Opener};
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::GenerationDir;
use crate::vault::{Signed, Vault, VaultError};
use met::Met;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The vault failed, or something in it is damaged.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The generation key could not be unwrapped.
    #[error("the key of snapshot `{snapshot}`")]
    Key {
        /// The snapshot.
        snapshot: String,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// An object could not be opened.
    #[error("object `{name}` of snapshot `{snapshot}` in vault `{vault}`")]
    Object {
        /// The object.
        name: ObjectName,
        /// The snapshot.
        snapshot: String,
        /// The vault.
        vault: String,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The manifest is not the one that the snapshot names.
    #[error("the manifest of snapshot `{snapshot}` has the SHA-256 {found}, not {expected}")]
    OtherManifest {
        /// The snapshot.
        snapshot: String,
        /// What was found.
        found: Hash256,
        /// What the snapshot says.
        expected: Hash256,
    },
    /// The manifest cannot be understood.
    #[error("snapshot `{snapshot}`")]
    Manifest {
        /// The snapshot.
        snapshot: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// A stream is not what the manifest promises.
    #[error("stream {number} of snapshot `{snapshot}`: {reason}")]
    Stream {
        /// The stream's number.
        number: u32,
        /// The snapshot.
        snapshot: String,
        /// What is wrong.
        reason: String,
    },
    /// A task ended in a panic.
    #[error("a worker ended early: {0}")]
    Worker(String),
}

/// A snapshot whose description was checked from end to end, ready to be read.
#[derive(Clone)]
pub struct OpenSnapshot {
    vault: Vault,
    dir: GenerationDir,
    doc: Arc<SnapshotDoc>,
    manifest: Arc<Manifest>,
    opener: Opener,
    /// Objects opened ahead of the reader, per stream.
    ahead: usize,
    spares: Option<Spares>,
    met: Met,
}

/// Other vaults that have the snapshot.
#[derive(Clone)]
struct Spares {
    vaults: Arc<[Vault]>,
    monitor: Arc<dyn Monitor>,
    /// One warning for a snapshot: a vault that lost one object may have lost thousands.
    told: Arc<AtomicBool>,
}

impl std::fmt::Debug for OpenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenSnapshot({})", self.doc.id)
    }
}

impl OpenSnapshot {
    /// Opens a checked snapshot with the operators' identities.
    pub async fn open(
        vault: &Vault,
        signed: &Signed<SnapshotDoc>,
        identities: &Identities,
    ) -> Result<Self, SnapshotError> {
        let doc = Arc::new(signed.doc.clone());
        let snapshot = || doc.id.to_string();
        let opener = grant::unlock(vault, &Locked::from(&*doc), identities).await.map_err(|error| match error {
            UnlockError::Vault(error) => SnapshotError::Vault(error),
            UnlockError::Key(source) => SnapshotError::Key { snapshot: snapshot(), source },
        })?;
        let dir = doc.dir();
        let mut bytes = Vec::new();
        for name in &doc.manifest.objects {
            bytes.extend_from_slice(&open_object(vault, &dir, &opener, name, &snapshot()).await?);
        }
        let found = Hash256::of(&bytes);
        if found != doc.manifest.sha256 {
            let expected = doc.manifest.sha256;
            return Err(SnapshotError::OtherManifest { snapshot: snapshot(), found, expected });
        }
        let malformed = |source| SnapshotError::Manifest { snapshot: snapshot(), source };
        let text = String::from_utf8(bytes)
            .map_err(|_| malformed(ManifestError { line: 0, reason: "it is not UTF-8".to_owned() }))?;
        let manifest = Arc::new(text::parse(&text).map_err(malformed)?);
        Ok(Self { vault: vault.clone(), dir, doc, manifest, opener, ahead: 3, spares: None, met: Met::default() })
    }

    /// The snapshot's document.
    pub fn doc(&self) -> &SnapshotDoc {
        &self.doc
    }

    /// The vault it is read from.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes objects that are damaged or gone in the snapshot's own vault from these, and tells `monitor` so. Safe
    /// whatever they hold: an object is checked by its name and its age tag wherever it comes from.
    #[must_use]
    pub fn with_spares(mut self, vaults: Vec<Vault>, monitor: Arc<dyn Monitor>) -> Self {
        self.spares = Some(Spares { vaults: vaults.into(), monitor, told: Arc::new(AtomicBool::new(false)) });
        self
    }

    /// Notes in `met` every object that its reading finds damaged or gone, in whichever vault.
    #[must_use]
    pub fn noting(mut self, met: &Met) -> Self {
        self.met = met.clone();
        self
    }

    async fn object(&self, name: &ObjectName) -> Result<Vec<u8>, SnapshotError> {
        let id = self.doc.id.as_str();
        let error = match open_object(&self.vault, &self.dir, &self.opener, name, id).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        self.met.note(&self.vault, &self.dir, &error);
        let Some(spares) = &self.spares else { return Err(error) };
        for vault in spares.vaults.iter() {
            let bytes = match open_object(vault, &self.dir, &self.opener, name, id).await {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.met.note(vault, &self.dir, &error);
                    continue;
                }
            };
            if !spares.told.swap(true, Ordering::Relaxed) {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                let text = format!(
                    "vault `{}` is damaged: {error}{cause}; what is not good there is taken from vault `{}`",
                    self.vault.name(),
                    vault.name()
                );
                spares.monitor.event(Event::Warning { text });
            }
            return Ok(bytes);
        }
        Err(error)
    }
}

async fn open_object(
    vault: &Vault,
    dir: &GenerationDir,
    opener: &Opener,
    name: &ObjectName,
    snapshot: &str,
) -> Result<Vec<u8>, SnapshotError> {
    let stored = vault.get_object(dir, name).await?;
    let (opener, name) = (opener.clone(), *name);
    let opened = tokio::task::spawn_blocking(move || opener.open(&name, &stored));
    let opened = opened.await.map_err(|e| SnapshotError::Worker(e.to_string()))?;
    opened.map_err(|source| SnapshotError::Object {
        name,
        snapshot: snapshot.to_owned(),
        vault: vault.name().to_owned(),
        source,
    })
}

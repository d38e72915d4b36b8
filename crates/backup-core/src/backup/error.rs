//! Why there is no new snapshot.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::id::SourceName;
use crate::pipeline::PipelineError;
use crate::seal::SealError;
use crate::seal::key::NewKeyError;
use crate::source::SourceError;
use crate::state::StateError;
use crate::vault::VaultError;
use crate::vault::layout::GenerationId;

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The source could not be captured.
    #[error("source `{name}`")]
    Source {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// The pipeline stopped.
    #[error("source `{name}`")]
    Pipeline {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: Arc<PipelineError>,
    },
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The state failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// No generation could be opened.
    #[error("no generation could be opened for source `{name}`")]
    Generation {
        /// The source's name.
        name: SourceName,
        /// Why.
        #[source]
        source: NewKeyError,
    },
    /// The generation's key cannot be used for sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The vault's clock is past the generation's deadline.
    #[error("generation `{generation}` accepts nothing after {deadline}, and the vault's clock says {now}")]
    PastDeadline {
        /// The generation.
        generation: GenerationId,
        /// Its deadline.
        deadline: DateTime<Utc>,
        /// The vault's clock.
        now: DateTime<Utc>,
        /// Whether this host's clock says the same: then it is no clock, but the capture that took too long.
        clocks_agree: bool,
    },
    /// The clocks of this host and of the vault disagree.
    #[error("this host's clock says {host} and vault `{vault}` says {store}")]
    Clocks {
        /// This host's clock.
        host: DateTime<Utc>,
        /// The vault's clock.
        store: DateTime<Utc>,
        /// The vault.
        vault: String,
    },
    /// The host's key ended while the capture lasted. Nothing was committed.
    #[error("what the host key {signer} signs now would not be believed: {reason}")]
    Ended {
        /// Fingerprint of the key.
        signer: String,
        /// Which limit of its pinned line was hit.
        reason: String,
    },
    /// A prune has announced the generation's deletion.
    #[error("generation `{generation}` is being removed by a prune")]
    Pruned {
        /// The generation.
        generation: GenerationId,
    },
    /// The generation was purged while this run was at work in it.
    #[error("generation `{generation}` is being purged ({reason}), and what this run captured went there")]
    Purged {
        /// The generation.
        generation: GenerationId,
        /// Why, in the operator's words.
        reason: String,
    },
    /// What the pipeline stored and what the source gave do not fit together. A defect; nothing was committed.
    #[error("source `{name}`: {reason}")]
    Inconsistent {
        /// The source's name.
        name: SourceName,
        /// What does not fit.
        reason: String,
    },
}

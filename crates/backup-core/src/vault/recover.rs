//! `RECOVER-1.md` of a vault: the page that restores it with stock tools, and its signature.
//!
//! The text states no instant for itself, so it is believed by its signature at the reader's time. The signature is stored
//! first: a text without one would be called foreign. Nothing here reads what it says: that is [`crate::recover`]'s.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::layout;
use super::store::{PutMode, StoreError};
use super::{MAX_DOCUMENT_BYTES, MAX_SIGNATURE_BYTES, Vault, VaultError, fixed};
use crate::id::Hash256;
use crate::signature::{HostKey, Namespace, Signers};

impl Vault {
    /// Stores the recovery document with its signature.
    pub async fn put_recover(&self, text: &str, key: &HostKey) -> Result<Hash256, VaultError> {
        let path = fixed(layout::RECOVER);
        let signature = key
            .sign(Namespace::Recover, text.as_bytes())
            .map_err(|source| VaultError::Sign { path: path.to_string(), source })?;
        self.put(&layout::signature_of(&path), signature.into(), PutMode::Replace).await?;
        self.sync().await?;
        self.put(&path, text.to_owned().into(), PutMode::Replace).await?;
        self.sync().await?;
        Ok(Hash256::of(text.as_bytes()))
    }

    /// The recovery document of this vault, believed at `now`: its text and its signature's, as stored.
    pub async fn get_recover(&self, signers: &Signers, now: DateTime<Utc>) -> Result<(Bytes, Bytes), VaultError> {
        let path = layout::recover();
        let bytes = self.get_existing(&path, MAX_DOCUMENT_BYTES).await?;
        let signature = self.get_existing(&layout::signature_of(&path), MAX_SIGNATURE_BYTES).await?;
        // It states no instant for itself.
        signers.check(Namespace::Recover, &bytes, &signature, now).map_err(|source| VaultError::Signature {
            path: path.to_string(),
            vault: self.name.clone(),
            source,
        })?;
        Ok((bytes, signature))
    }

    /// Stores a recovery document that was read (and so checked) from another vault, as [`Vault::get_recover`] gives it.
    pub async fn put_recover_verbatim(&self, (text, signature): (Bytes, Bytes)) -> Result<(), VaultError> {
        let path = layout::recover();
        self.put(&layout::signature_of(&path), signature, PutMode::Replace).await?;
        self.sync().await?;
        self.put(&path, text, PutMode::Replace).await?;
        self.sync().await
    }

    /// Whether a recovery document lies here, whatever it says.
    pub async fn exists_recover(&self) -> Result<bool, VaultError> {
        self.exists(&layout::recover()).await
    }

    /// Whether the recovery document is `text`, signed by somebody who is believed at `now`.
    pub async fn has_recover(&self, text: &str, signers: &Signers, now: DateTime<Utc>) -> Result<bool, VaultError> {
        match self.get_recover(signers, now).await {
            Ok((there, _)) => Ok(there == text.as_bytes()),
            Err(VaultError::Store { source: StoreError::TooLarge { .. }, .. }) => Ok(false),
            Err(error @ VaultError::Store { .. }) if !self.refuses_only_that(&error).await => Err(error),
            Err(_) => Ok(false),
        }
    }
}

//! What an endpoint really does, found out by trying, because many answer 200 to what they ignore.
//!
//! The probe writes one small body under `_probe/` (no stack can have that name), and removes it again whatever happens.

use super::error::{Kind, Refusal, judge};
use super::{S3Store, sha256_base64};
use crate::vault::retry::Failure;
use crate::vault::store::StoreError;
use bytes::Bytes;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// A body that does not match its `x-amz-checksum-sha256` is refused. If not: [`S3Store::with_readback`].
    pub checksums_verified: bool,
    /// The refused body is in the bucket nevertheless (seen on small servers; then a host that dies between a damaged
    /// upload and its repetition leaves a wrong body under a good name, which `verify --read-data` finds).
    pub refused_body_kept: bool,
    /// `If-None-Match: *` protects an existing body. If so: [`S3Store::with_if_none_match`].
    pub if_none_match: bool,
    /// What the bucket says about versioning. Version ids in answers to PUT prove nothing.
    pub versioning: Versioning,
}

/// Versioning of a bucket, as `GetBucketVersioning` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// Never turned on.
    Off,
    /// Old versions are kept.
    Enabled,
    /// No longer.
    Suspended,
    /// The endpoint does not tell; why.
    Unknown(String),
}

impl S3Store {
    /// Tries the endpoint. Costs about seven small requests; needs the right to write and delete under the prefix.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let random = getrandom::u64().map_err(|error| StoreError::Failed {
            action: "write",
            path: "_probe".to_owned(),
            store: self.name.clone(),
            attempts: 1,
            reason: error.to_string(),
        })?;
        let path = format!("_probe/{random:016x}");
        let key = self.key(&path);
        let seen = self.probe_at(&path, &key).await;
        let removed = self.call("delete", &path, |_| self.delete_once(&key)).await;
        let seen = seen?;
        removed.map_err(|gave_up| self.error("delete", &path, gave_up))?;
        Ok(seen)
    }

    async fn probe_at(&self, path: &str, key: &str) -> Result<Probe, StoreError> {
        let body = Bytes::from_static(b"probe\n");
        let wrong = sha256_base64(b"another body");
        let checksums_verified = self
            .call("write", path, async |_| match self.put_once(key, body.clone(), &wrong, false).await {
                Ok(()) => Ok(false),
                Err(Failure::Again(Refusal { kind: Kind::Digest, .. })) => Ok(true),
                Err(other) => Err(other),
            })
            .await
            .map_err(|gave_up| self.error("write", path, gave_up))?;
        let kept = self
            .call("read", path, async |_| match self.get_once(path, 1024).await {
                Ok(_) => Ok(true),
                Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => Ok(false),
                Err(other) => Err(other),
            })
            .await
            .map_err(|gave_up| self.error("read", path, gave_up))?;
        let right = sha256_base64(&body);
        self.call("write", path, |_| self.put_once(key, body.clone(), &right, false))
            .await
            .map_err(|gave_up| self.error("write", path, gave_up))?;
        let if_none_match = self
            .call("write", path, async |_| match self.put_once(key, body.clone(), &right, true).await {
                Err(Failure::Final(Refusal { kind: Kind::Taken, .. })) => Ok(true),
                // Refused as a whole (501, 400): then it protects nothing either.
                Ok(()) | Err(Failure::Final(Refusal { kind: Kind::Other, .. })) => Ok(false),
                Err(other) => Err(other),
            })
            .await
            .map_err(|gave_up| self.error("write", path, gave_up))?;
        let versioning = self.versioning().await?;
        Ok(Probe { checksums_verified, refused_body_kept: checksums_verified && kept, if_none_match, versioning })
    }

    async fn versioning(&self) -> Result<Versioning, StoreError> {
        let attempt = async |_| {
            let asked = self.client.get_bucket_versioning().bucket(&self.bucket).send();
            match Box::pin(asked).await.map_err(judge) {
                Ok(answer) => Ok(match answer.status().map(aws_sdk_s3::types::BucketVersioningStatus::as_str) {
                    None | Some("") => Versioning::Off,
                    Some("Enabled") => Versioning::Enabled,
                    Some("Suspended") => Versioning::Suspended,
                    Some(other) => Versioning::Unknown(other.to_owned()),
                }),
                Err(Failure::Final(refusal)) => Ok(Versioning::Unknown(refusal.reason)),
                Err(again) => Err(again),
            }
        };
        let action = "read";
        self.call(action, "the versioning", attempt)
            .await
            .map_err(|gave_up| self.error(action, "the versioning", gave_up))
    }
}

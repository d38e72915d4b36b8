//! What an endpoint really does, found out by trying, because many answer 200 to what they ignore.
//!
//! The probe writes small bodies under one fixed name below `_probe/` (no stack can have that name), and removes them again
//! if it may. Credentials without the right to delete are the better ones: what they leave is this one name, and neither a
//! body left there nor another host's probe at the same time is taken for this probe's own.

use super::error::{Kind, Refusal, judge};
use super::{S3Store, sha256_base64};
use crate::vault::retry::Failure;
use crate::vault::store::StoreError;
use bytes::Bytes;

/// The one name that is written.
const PATH: &str = "_probe/body";

/// How often the conditional PUT is tried: another host's probe may have removed the body just before.
const CONDITIONAL_TRIES: usize = 3;

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
    /// Tries the endpoint. Costs seven small requests, and four more where `If-None-Match` is ignored; needs the right to write under the prefix; to delete is tried
    /// and not needed.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let random = getrandom::u64().map_err(|error| StoreError::Failed {
            action: "write",
            path: PATH.to_owned(),
            store: self.name.clone(),
            attempts: 1,
            reason: error.to_string(),
        })?;
        let key = self.key(PATH);
        let seen = self.probe_at(PATH, &key, random).await;
        // Best effort: the next probe writes over what is left.
        let _ = self.call("delete", PATH, |_| self.delete_once(&key)).await;
        seen
    }

    async fn probe_at(&self, path: &str, key: &str, random: u64) -> Result<Probe, StoreError> {
        // Told apart from what an earlier probe left.
        let refused = Bytes::from(format!("refused {random:016x}\n"));
        let wrong = sha256_base64(b"another body");
        let checksums_verified = self
            .call("write", path, async |_| match self.put_once(key, refused.clone(), &wrong, false).await {
                Ok(()) => Ok(false),
                Err(Failure::Again(Refusal { kind: Kind::Digest, .. })) => Ok(true),
                Err(other) => Err(other),
            })
            .await
            .map_err(|gave_up| self.error("write", path, gave_up))?;
        let kept = self
            .call("read", path, async |_| match self.get_once(path, 1024).await {
                Ok(found) => Ok(found == refused),
                Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => Ok(false),
                Err(other) => Err(other),
            })
            .await
            .map_err(|gave_up| self.error("read", path, gave_up))?;
        let body = Bytes::from_static(b"probe\n");
        let right = sha256_base64(&body);
        let mut if_none_match = false;
        for _ in 0..CONDITIONAL_TRIES {
            self.call("write", path, |_| self.put_once(key, body.clone(), &right, false))
                .await
                .map_err(|gave_up| self.error("write", path, gave_up))?;
            if_none_match = self
                .call("write", path, async |_| match self.put_once(key, body.clone(), &right, true).await {
                    Err(Failure::Final(Refusal { kind: Kind::Taken, .. })) => Ok(true),
                    // Refused as a whole (501, 400): then it protects nothing either.
                    Ok(()) | Err(Failure::Final(Refusal { kind: Kind::Other, .. })) => Ok(false),
                    Err(other) => Err(other),
                })
                .await
                .map_err(|gave_up| self.error("write", path, gave_up))?;
            if if_none_match {
                break;
            }
        }
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

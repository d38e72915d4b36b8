//! One attempt each at a body: put, put over, read, compare, delete. What is worth another attempt comes back as
//! [`Failure::Again`]; nothing here repeats, waits or looks at what an earlier attempt did, which is the caller's.
//!
//! A body is never taken for whole because it ended: its length must be the one that was announced, and no more than the
//! caller's limit is ever held.

use std::sync::Arc;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};

use super::error::{Kind, Refusal, judge, judge_body};
use super::sending::Sending;
use super::{S3Store, lock, to_u64};
use crate::vault::protection::LockMode;
use crate::vault::retry::{Failure, Progress};
use crate::vault::store::StorePath;

impl S3Store {
    pub(super) async fn put_once(
        &self,
        key: &str,
        body: Bytes,
        sha256_base64: &str,
        if_none_match: bool,
        lock: Option<(LockMode, DateTime<Utc>)>,
        progress: &Arc<Progress>,
    ) -> Result<(), Failure<Refusal>> {
        let sending = Sending::new(body.clone(), Arc::clone(progress));
        let asked = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_sha256(sha256_base64)
            .set_if_none_match(if_none_match.then(|| "*".to_owned()))
            // With a lock S3 wants the algorithm named as well.
            .set_checksum_algorithm(lock.map(|_| ChecksumAlgorithm::Sha256))
            .set_object_lock_mode(lock.map(|(mode, _)| lock::mode(mode)))
            .set_object_lock_retain_until_date(lock.map(|(_, until)| lock::date(until)))
            .body(ByteStream::from(body))
            .customize()
            .interceptor(sending)
            .send();
        Box::pin(asked).await.map_err(judge)?;
        Ok(())
    }

    /// Writes over what is there. A policy may allow nobody to; then a body that is already this one is as good: an earlier
    /// attempt, whose answer was lost, may have written it.
    pub(super) async fn overwrite_once(
        &self,
        path: &StorePath,
        key: &str,
        body: &Bytes,
        sha256_base64: &str,
        progress: &Arc<Progress>,
    ) -> Result<(), Failure<Refusal>> {
        let lock = self.lock_for(path);
        let denied = match self.put_once(key, body.clone(), sha256_base64, false, lock, progress).await {
            Err(Failure::Final(refusal)) if matches!(refusal.kind, Kind::Denied { .. }) => refusal,
            other => return other,
        };
        match self.get_once(path.as_str(), body.len() as u64, progress).await {
            Ok(found) if found == *body => Ok(()),
            Err(Failure::Again(refusal)) => Err(Failure::Again(refusal)),
            _ => Err(Failure::Final(denied)),
        }
    }

    /// Whether exactly `body` lies there. Errors: only what is worth another try.
    pub(super) async fn holds(
        &self,
        path: &StorePath,
        body: &Bytes,
        progress: &Progress,
    ) -> Result<bool, Failure<Refusal>> {
        match self.get_once(path.as_str(), body.len() as u64, progress).await {
            Ok(found) => Ok(found == *body),
            Err(Failure::Final(_)) => Ok(false),
            Err(again) => Err(again),
        }
    }

    pub(super) async fn get_once(
        &self,
        path: &str,
        limit_bytes: u64,
        progress: &Progress,
    ) -> Result<Bytes, Failure<Refusal>> {
        self.get_version_once(path, None, limit_bytes, progress).await
    }

    pub(super) async fn get_version_once(
        &self,
        path: &str,
        version: Option<&str>,
        limit_bytes: u64,
        progress: &Progress,
    ) -> Result<Bytes, Failure<Refusal>> {
        let asked = self.client.get_object().bucket(&self.bucket).key(self.key(path));
        let asked = asked.set_version_id(version.map(str::to_owned)).send();
        let mut answer = match Box::pin(asked).await.map_err(judge) {
            Err(Failure::Final(refusal)) if matches!(refusal.kind, Kind::NoKey) => {
                self.missing().await?;
                return Err(Failure::Final(refusal));
            }
            other => other?,
        };
        let too_large = || {
            let reason = format!("more than {limit_bytes} bytes");
            Failure::Final(Refusal { kind: Kind::TooLarge { limit_bytes }, reason })
        };
        let Some(announced) = answer.content_length().map(to_u64) else {
            return Err(Failure::Again(Refusal::other("answer without a length")));
        };
        if announced > limit_bytes {
            return Err(too_large());
        }
        progress.expect(announced);
        // An answer in chunks may announce a length all the same, which nobody holds it to but us.
        let mut body = BytesMut::with_capacity(usize::try_from(announced).map_err(|_| too_large())?);
        while let Some(piece) = answer.body.try_next().await.map_err(|error| judge_body(&error))? {
            if (body.len() + piece.len()) as u64 > announced {
                return Err(Failure::Again(Refusal::other(format!("body goes on after its {announced} bytes"))));
            }
            progress.received();
            body.extend_from_slice(&piece);
        }
        if body.len() as u64 != announced {
            let reason = format!("body ended after {} of {announced} bytes", body.len());
            return Err(Failure::Again(Refusal::other(reason)));
        }
        Ok(body.freeze())
    }

    pub(super) async fn delete_once(&self, key: &str) -> Result<(), Failure<Refusal>> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await.map_err(judge) {
            Err(Failure::Final(Refusal { kind: Kind::NoKey, .. })) => self.missing().await,
            other => other.map(|_| ()),
        }
    }
}

//! An endpoint that promises what it does not do: an imitation, over s3s-fs, of what was observed of garage 2.5.0.
//!
//! - `If-None-Match` on a PUT is ignored: 200, and the body is written over.
//! - Each PUT answers with a version id. There is no versioning: `GetBucketVersioning` is empty, `ListObjectVersions` is 501,
//!   a GET of any version gives the current body, and a DELETE of any version, also of one that was made up, deletes the
//!   only body.
//! - Headers of Object Lock are answered with 200 and lock nothing.
//! - `NoncurrentVersionExpiration` in a lifecycle is accepted and gone when it is read back. (Here the rules are fixed: one
//!   that expires `v/` after 3 days.)
//!
//! It is no garage: everything else is s3s-fs.

use std::sync::atomic::{AtomicU64, Ordering};

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ExpirationStatus, GetBucketLifecycleConfigurationInput,
    GetBucketLifecycleConfigurationOutput, GetBucketVersioningInput, GetBucketVersioningOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, LifecycleExpiration,
    LifecycleRule, LifecycleRuleFilter, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};

use super::long_keys::LongKeys;

/// The imitation.
#[derive(Debug)]
pub(super) struct Lax {
    inner: LongKeys,
    version: AtomicU64,
}

impl Lax {
    pub(super) fn new(inner: LongKeys) -> Self {
        Self { inner, version: AtomicU64::new(1) }
    }
}

#[async_trait::async_trait]
impl S3 for Lax {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        req.input.if_none_match = None;
        req.input.object_lock_mode = None;
        req.input.object_lock_retain_until_date = None;
        let mut answer = self.inner.put_object(req).await?;
        answer.output.version_id = Some(format!("{:032x}", self.version.fetch_add(1, Ordering::Relaxed)));
        Ok(answer)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.inner.head_bucket(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let mut answer = self.inner.head_object(req).await?;
        answer.output.version_id = Some(format!("{:032x}", self.version.load(Ordering::Relaxed)));
        Ok(answer)
    }

    async fn get_object(&self, mut req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        req.input.version_id = None;
        self.inner.get_object(req).await
    }

    async fn delete_object(&self, mut req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        req.input.version_id = None;
        self.inner.delete_object(req).await
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.inner.list_objects_v2(req).await
    }

    async fn get_bucket_versioning(
        &self,
        _req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        Ok(S3Response::new(GetBucketVersioningOutput::default()))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        _req: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let rule = LifecycleRule {
            abort_incomplete_multipart_upload: None,
            expiration: Some(LifecycleExpiration { days: Some(3), ..LifecycleExpiration::default() }),
            filter: Some(LifecycleRuleFilter { prefix: Some("v/".to_owned()), ..LifecycleRuleFilter::default() }),
            id: Some("tidy".to_owned()),
            noncurrent_version_expiration: None,
            noncurrent_version_transitions: None,
            prefix: None,
            status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
            transitions: None,
        };
        let output = GetBucketLifecycleConfigurationOutput { rules: Some(vec![rule]), ..Default::default() };
        Ok(S3Response::new(output))
    }
}

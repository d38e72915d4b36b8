//! s3s-fs with keys as long as S3's, and listings that do not walk the whole bucket.
//!
//! What s3s-fs notes about a body (checksums, user metadata) goes to a file whose name is the whole key in base64: over
//! about 150 bytes that is longer than a file's name may be, and the PUT fails after the body was written. Here a body with
//! a long key is put under a short one into a bucket aside, where it is checked as any other, and then moved into place
//! without the notes. Our program does not read them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

use super::listing;

/// The longest key that is left to s3s-fs.
const SHORT_BYTES: usize = 150;
/// Longest key of S3.
const LONGEST_BYTES: usize = 1024;
/// Where bodies with long keys are put first. No client can name it: a bucket's name has no underscore.
const ASIDE: &str = "long_keys";

/// The calls that our program makes.
#[derive(Debug)]
pub(super) struct LongKeys {
    files: FileSystem,
    root: PathBuf,
    number: AtomicU64,
}

impl LongKeys {
    pub(super) fn new(files: FileSystem, root: &Path) -> Self {
        Self { files, root: root.to_owned(), number: AtomicU64::new(0) }
    }
}

#[async_trait::async_trait]
impl S3 for LongKeys {
    async fn put_object(&self, mut req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        if req.input.key.len() <= SHORT_BYTES {
            return self.files.put_object(req).await;
        }
        if req.input.key.len() > LONGEST_BYTES {
            return Err(s3_error!(KeyTooLongError));
        }
        let place = self.root.join(&req.input.bucket).join(&req.input.key);
        if req.input.if_none_match.is_some() && place.exists() {
            return Err(s3_error!(PreconditionFailed));
        }
        let failed = |error: std::io::Error| s3_error!(InternalError, "{error}");
        tokio::fs::create_dir_all(self.root.join(ASIDE)).await.map_err(failed)?;
        ASIDE.clone_into(&mut req.input.bucket);
        req.input.key = self.number.fetch_add(1, Ordering::Relaxed).to_string();
        let aside = self.root.join(ASIDE).join(&req.input.key);
        let answer = match self.files.put_object(req).await {
            Ok(answer) => answer,
            Err(error) => {
                let _ = tokio::fs::remove_file(&aside).await;
                return Err(error);
            }
        };
        if let Some(folder) = place.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(failed)?;
        }
        tokio::fs::rename(&aside, &place).await.map_err(failed)?;
        Ok(answer)
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(req).await
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(req).await
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(req).await
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.files.delete_object(req).await
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        if req.input.delimiter.as_deref().is_some_and(|delimiter| delimiter != listing::DELIMITER) {
            return self.files.list_objects_v2(req).await;
        }
        let bucket = self.root.join(&req.input.bucket);
        let page = tokio::task::spawn_blocking(move || listing::page(&bucket, req.input)).await;
        page.map_err(|error| s3_error!(InternalError, "{error}"))?.map(S3Response::new)
    }
}

//! Who may do what at the server, and what was asked of it.
//!
//! There are two keys: one that may do everything, and one that may list and read only, as an auditor or a machine that pulls
//! should have it. Each request is noted by the name of its operation and its key, refused ones too.

use std::sync::{Arc, Mutex, PoisonError};

use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

/// What ends the access key that may only read.
pub(super) const READER: &str = "READER";

/// Requests so far: the name of the operation, and the key, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<Vec<(String, String)>>>);

impl Requests {
    /// Takes what was asked, in order, and begins anew.
    pub fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(super) struct Access(pub(super) Requests);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name();
        let key = context.s3_path().get_object_key().unwrap_or_default().to_owned();
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), key));
        let reads = name.starts_with("Get") || name.starts_with("Head") || name.starts_with("List");
        match context.credentials() {
            Some(by) if reads || !by.access_key.ends_with(READER) => Ok(()),
            _ => Err(s3_error!(AccessDenied)),
        }
    }
}

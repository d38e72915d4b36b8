//! Who may do what at the server, and what was asked of it.
//!
//! There are two keys: one that may do everything, and one that may list and read only, as an auditor or a machine that pulls
//! should have it. Each request is counted by the name of its operation, refused ones too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

/// What ends the access key that may only read.
pub(super) const READER: &str = "READER";

/// Requests so far, by the name of the operation.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<BTreeMap<String, usize>>>);

impl Requests {
    /// Takes what was counted, and begins anew.
    pub fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(super) struct Access(pub(super) Requests);

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name();
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default() += 1;
        let reads = name.starts_with("Get") || name.starts_with("Head") || name.starts_with("List");
        match context.credentials() {
            Some(by) if reads || !by.access_key.ends_with(READER) => Ok(()),
            _ => Err(s3_error!(AccessDenied)),
        }
    }
}

//! A vault: a directory or an S3 prefix that holds generations.

pub mod document;
pub mod inventory;
pub mod layout;
pub mod local;
pub mod memory;
pub mod retry;
pub mod s3;
pub mod store;

//! An S3-compatible prefix.

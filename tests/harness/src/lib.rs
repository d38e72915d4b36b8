//! Test-only: servers that the tests start themselves, on loopback, removed afterwards.

pub mod proxy;
pub mod s3;

//! Test-only: the real servers that tests talk to, each started by the test that uses it, on loopback, and gone with it.

pub mod moto;
pub mod pg;
pub mod proxy;
pub mod s3;
pub mod tools;

pub use tools::skip;

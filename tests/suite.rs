//! Black-box suite.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails loudly")]

#[path = "suite/pg_restore.rs"]
mod pg_restore;

//! Black-box suite.
#![expect(clippy::unwrap_used, reason = "a test that fails here fails loudly")]

mod pg_capture;

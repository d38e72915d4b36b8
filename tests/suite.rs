//! Black-box suite.

#[path = "suite/files_roundtrip.rs"]
mod files_roundtrip;

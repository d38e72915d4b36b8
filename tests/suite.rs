//! Black-box and cross-crate suite: one binary. Each file of `suite/` is a module here; `every_file_is_run` notices one that is not.

#![expect(clippy::unwrap_used, reason = "a test that fails here fails loudly")]

#[path = "suite/cli_config.rs"]
mod cli_config;
#[path = "suite/pg_capture.rs"]
mod pg_capture;
#[path = "suite/store_conformance.rs"]
mod store_conformance;
#[path = "suite/store_faults.rs"]
mod store_faults;

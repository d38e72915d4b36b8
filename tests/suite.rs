//! Black-box suite.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "suite/store_conformance.rs"]
mod store_conformance;
#[path = "suite/store_faults.rs"]
mod store_faults;
#[path = "suite/cli_config.rs"]
mod cli_config;

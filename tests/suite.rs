//! Black-box suite.
#![expect(clippy::unwrap_used, reason = "a failed step is the failure of the test; helpers are no test functions")]

#[path = "suite/cli_config.rs"]
mod cli_config;

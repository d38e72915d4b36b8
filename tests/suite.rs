//! Black-box suite.

#[path = "suite/cli_config.rs"]
mod cli_config;

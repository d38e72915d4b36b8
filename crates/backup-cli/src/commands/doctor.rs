//! `backup doctor`.

/// Look at keys, servers, vaults and clocks, and say what would fail
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

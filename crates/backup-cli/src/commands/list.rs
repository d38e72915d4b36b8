//! `backup list`.

use backup_core::id::SourceName;

/// List the snapshots in the vaults
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
}

//! `backup replicate`.

use backup_core::id::SourceName;

/// Copy snapshots into the vaults that lack them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only into this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Show what would be copied
    #[arg(long)]
    pub(crate) dry_run: bool,
}

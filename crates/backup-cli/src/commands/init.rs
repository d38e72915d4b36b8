//! `backup init`.

/// Make the configured vaults and print the recovery sheet
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take over an existing vault at this address: pin its id instead of making one
    #[arg(long, value_name = "URL")]
    pub(crate) adopt: Option<String>,
    /// Show what would be made
    #[arg(long)]
    pub(crate) dry_run: bool,
}

//! `backup show`.

/// Show one snapshot
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The snapshot's id, as `backup list` prints it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

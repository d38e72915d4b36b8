//! `backup runs`.

/// List past runs, or show one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run to show
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
}

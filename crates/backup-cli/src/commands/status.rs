//! `backup status`.

/// Show each source's newest snapshot and its age against the objectives
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

//! `backup run`.

use backup_core::id::SourceName;

/// Capture sources into the first vault that answers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job to run [default: all sources, all vaults]
    #[arg(value_name = "JOB")]
    pub(crate) job: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Show what would be captured
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::Args;
    use crate::commands::restore::tests::parse;

    #[test]
    fn takes_a_job_and_sources() {
        let args: Args = parse(&["nightly", "--source", "db", "--source", "files"]).unwrap();
        assert_eq!((args.job.as_deref(), args.source.len()), (Some("nightly"), 2));
        assert!(parse::<Args>(&["--source", "../x"]).is_err());
    }
}

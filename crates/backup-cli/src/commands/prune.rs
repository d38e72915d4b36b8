//! `backup prune`.

/// Show which generations have expired; delete them with --apply
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Mark and delete; without it nothing is changed
    #[arg(long, conflicts_with = "undo")]
    pub(crate) apply: bool,
    /// Take back the marks of generations that are not yet being deleted
    #[arg(long)]
    pub(crate) undo: bool,
    /// Only this vault
    #[arg(long, value_name = "NAME")]
    pub(crate) vault: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::Args;
    use crate::commands::restore::tests::parse;

    #[test]
    fn is_dry_unless_told_and_never_both() {
        let args: Args = parse(&[]).unwrap();
        assert!(!args.apply && !args.undo);
        assert!(parse::<Args>(&["--apply", "--undo"]).is_err());
    }
}

//! `backup restore`.

use std::path::PathBuf;

use backup_core::id::{SourceName, StackName};

/// How much is compared after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compare {
    /// Rows of every table.
    Counts,
    /// Rows and fingerprints of every table, SHA-256 of every file.
    Content,
}

/// Bring snapshots back, compared with what was captured
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which"), group = clap::ArgGroup::new("target"), group = clap::ArgGroup::new("part"))]
pub(crate) struct Args {
    /// This snapshot
    #[arg(value_name = "ID", group = "which", conflicts_with = "source")]
    pub(crate) id: Option<String>,
    /// Each source's newest snapshot in all vaults that answer [default]
    #[arg(long, group = "which")]
    pub(crate) latest: bool,
    /// The newest snapshot that is not later: RFC 3339, `YYYY-MM-DD [HH:MM]`, yesterday, -36h
    #[arg(long, value_name = "TIME", group = "which", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// The snapshots of this run
    #[arg(long, value_name = "ID", group = "which")]
    pub(crate) run: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "S")]
    pub(crate) source: Vec<SourceName>,
    /// Into this database or folder, which must be absent or empty
    #[arg(long, value_name = "DB|DIR", group = "target")]
    pub(crate) into: Option<String>,
    /// Into a folder as plain files, without a server
    #[arg(long, value_name = "DIR", group = "target")]
    pub(crate) into_dir: Option<PathBuf>,
    /// In place of what is there now, which is kept under a dated name
    #[arg(long, group = "target")]
    pub(crate) replace: bool,
    /// Do not ask for the target's name before replacing
    #[arg(long, requires = "replace")]
    pub(crate) yes: bool,
    /// Only this table, into a new database
    #[arg(long, value_name = "T", group = "part")]
    pub(crate) table: Option<String>,
    /// Only this schema, into a new database
    #[arg(long, value_name = "S", group = "part")]
    pub(crate) schema: Option<String>,
    /// Only this path
    #[arg(long, value_name = "P", group = "part")]
    pub(crate) path: Option<String>,
    /// How much is compared afterwards
    #[arg(long, value_enum, default_value = "content")]
    pub(crate) verify: Compare,
    /// Show the plan and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// From this vault: a configured name, or a directory or s3:// address
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) vault: Option<String>,
    /// Stack to restore, without a configuration
    #[arg(long, value_name = "S", requires = "vault")]
    pub(crate) stack: Option<StackName>,
    /// File with the identity that opens the backups, `-` for standard input [default: `keys.identity`]
    #[arg(long, value_name = "FILE|-")]
    pub(crate) identity: Option<PathBuf>,
    /// Fingerprint of the signer to believe, without a configuration
    #[arg(long, value_name = "SHA256:…", requires = "vault", value_parser = fingerprint)]
    pub(crate) signer: Option<String>,
}

/// An OpenSSH fingerprint: `SHA256:` and 43 characters of base64.
fn fingerprint(text: &str) -> Result<String, String> {
    let good = text.strip_prefix("SHA256:").is_some_and(|rest| {
        rest.len() == 43 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    });
    if good { Ok(text.to_owned()) } else { Err("not a fingerprint like `SHA256:` and 43 characters".to_owned()) }
}

#[cfg(test)]
pub(in crate::commands) mod tests {
    use super::*;

    /// Parses arguments of a verb that is not in the tree yet.
    pub(in crate::commands) fn parse<T: clap::Args>(args: &[&str]) -> Result<T, clap::Error> {
        let command = T::augment_args(clap::Command::new("verb").no_binary_name(true));
        command.clone().debug_assert();
        T::from_arg_matches(&command.try_get_matches_from(args)?)
    }

    #[test]
    fn takes_one_moment_one_target_and_one_part() {
        let args: Args = parse(&["--at", "-36h", "--source", "db", "--into", "app_back", "--table", "t"]).unwrap();
        assert_eq!(
            (args.at.as_deref(), args.into.as_deref(), args.verify),
            (Some("-36h"), Some("app_back"), Compare::Content)
        );
        let signer = format!("SHA256:{}", "A".repeat(43));
        let line = ["--latest", "--vault", "s3://b/p", "--stack", "usdcop", "--identity", "-", "--signer", &signer];
        let args: Args = parse(&line).unwrap();
        assert_eq!(args.identity, Some("-".into()));
        for wrong in [
            &["--latest", "--at", "yesterday"][..],
            &["--latest", "20260101T000000Z-x"],
            &["--run", "r", "--latest"],
            &["--into", "a", "--replace"],
            &["--into", "a", "--into-dir", "b"],
            &["--yes"],
            &["--table", "a", "--schema", "b"],
            &["--stack", "usdcop"],
            &["--vault", "v", "--signer", "SHA256:short"],
            &["--verify", "nothing"],
            &["--source", "A/b"],
        ] {
            assert!(parse::<Args>(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_verb_to_come_has_sound_arguments() {
        use crate::commands::{doctor, init, list, replicate, runs, show, status};
        parse::<doctor::Args>(&[]).unwrap();
        parse::<status::Args>(&[]).unwrap();
        assert_eq!(parse::<init::Args>(&["--adopt", "s3://b/p"]).unwrap().adopt.as_deref(), Some("s3://b/p"));
        assert!(parse::<init::Args>(&["--dry-run"]).unwrap().dry_run);
        let listed = parse::<list::Args>(&["--source", "db", "--vault", "local"]).unwrap();
        assert_eq!((listed.source.len(), listed.vault.as_deref()), (1, Some("local")));
        let copied = parse::<replicate::Args>(&["--vault", "offsite", "--dry-run"]).unwrap();
        assert!(copied.dry_run && copied.source.is_empty() && copied.vault.is_some());
        assert_eq!(parse::<runs::Args>(&["r1"]).unwrap().run.as_deref(), Some("r1"));
        assert_eq!(parse::<show::Args>(&["x"]).unwrap().id, "x");
        assert!(parse::<show::Args>(&[]).is_err());
    }
}

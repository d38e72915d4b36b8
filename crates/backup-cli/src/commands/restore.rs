//! `backup restore`: choose snapshots, show the plan, execute it, print the proof.

mod choose;
mod database;
mod files;
mod plain;
mod proof;
mod scene;

use std::path::PathBuf;

use backup_core::id::{SourceName, StackName};
use backup_core::snapshot::OpenSnapshot;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session;
use crate::terminal;
use proof::Proof;
use scene::Scene;

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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(group = clap::ArgGroup::new("which"), group = clap::ArgGroup::new("part"))]
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
    /// Into this database (a name, or postgres://USER@HOST:PORT/DB with the password in $PGPASSWORD), which must not exist
    #[arg(long, value_name = "DB", conflicts_with = "replace")]
    pub(crate) into: Option<String>,
    /// Below this folder, by source, instead of the old places; a database, without --into, as plain files
    #[arg(long, value_name = "DIR", conflicts_with = "replace")]
    pub(crate) into_dir: Option<PathBuf>,
    /// In place of what is there now, which is kept under a dated name
    #[arg(long)]
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
    /// From this vault: a configured name, a directory, or `s3+https://HOST/BUCKET/PREFIX?region=R`
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) vault: Option<String>,
    /// Stack to restore, without a configuration
    #[arg(long, value_name = "S", requires = "vault")]
    pub(crate) stack: Option<StackName>,
    /// File with the identity that opens the backups, `-` for standard input [default: `keys.identity`]
    #[arg(long, value_name = "FILE|-")]
    pub(crate) identity: Option<PathBuf>,
    /// File with the passphrase of a protected identity [default: asked at the terminal]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
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

/// Brings back what was asked for. A failure of one source does not keep the others from coming back; the exit code is
/// the worst of all.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let scene = Scene::open(cx, args).await?;
    let configured = scene.config.as_ref().and_then(|config| config.keys.identity.as_ref());
    let identities = session::identities(args.identity.as_deref(), configured, args.passphrase_file.as_deref())?;
    let chosen = choose::snapshots(&scene, args, &identities).await?;
    let mut works = Vec::new();
    for (source, snapshot) in chosen {
        works.push(Work::plan(&scene, args, source, snapshot).await?);
    }
    for line in works.iter().flat_map(Work::describe) {
        cx.printer.talk(&line);
    }
    let refused: Vec<String> = works.iter().flat_map(Work::refusals).collect();
    if !refused.is_empty() {
        return Err(CliError::usage(refused.join("; "))
            .hint("restore beside it with `--into NAME` or `--into-dir DIR`, or replace it with `--replace`"));
    }
    if args.dry_run {
        let plans: Vec<Value> = works.iter().map(Work::to_json).collect();
        cx.printer.result("restore", json!({ "dry_run": true, "plan": plans }), String::new)?;
        return Ok(Exit::Done);
    }
    if args.replace && !args.yes {
        confirm(&works)?;
    }
    let mut exit = Exit::Done;
    let mut proofs = Vec::new();
    for work in works {
        let name = work.source.clone();
        match work.execute(&scene).await {
            Ok(proof) => proofs.push(proof),
            Err(error) => {
                exit = exit.worse(error.exit());
                proofs.push(Proof::failed(&name, error));
            }
        }
    }
    proof::print(&cx.printer, &proofs)?;
    Ok(exit)
}

/// One source's restore.
struct Work {
    source: SourceName,
    snapshot: OpenSnapshot,
    kind: Kind,
}

enum Kind {
    Database(Box<database::Database>),
    Files(Box<files::Files>),
    Plain(plain::Plain),
}

impl Work {
    async fn plan(
        scene: &Scene<'_>,
        args: &Args,
        source: SourceName,
        snapshot: OpenSnapshot,
    ) -> Result<Self, CliError> {
        let kind = match (snapshot.manifest().source_type.as_str(), &args.into, &args.into_dir) {
            ("files", _, _) => Kind::Files(Box::new(files::Files::plan(args, &source, &snapshot)?)),
            ("postgres", None, Some(dir)) => Kind::Plain(plain::Plain::plan(dir, &source)?),
            ("postgres", _, _) => {
                Kind::Database(Box::new(database::Database::plan(scene, args, &source, &snapshot).await?))
            }
            (other, _, _) => {
                return Err(CliError::usage(format!(
                    "source `{source}` is of type `{other}`, which this version cannot restore"
                ))
                .hint("use the stock tools: `RECOVER-1.md` in the vault"));
            }
        };
        Ok(Self { source, snapshot, kind })
    }

    fn describe(&self) -> Vec<String> {
        let doc = self.snapshot.doc();
        let mut lines = vec![format!(
            "{}: snapshot {} of {} from vault {}",
            self.source,
            doc.id,
            doc.instant.format("%F %T UTC"),
            self.snapshot.vault().name()
        )];
        lines.extend(match &self.kind {
            Kind::Database(database) => database.describe(),
            Kind::Files(files) => files.describe(),
            Kind::Plain(plain) => plain.describe(),
        });
        lines
    }

    fn refusals(&self) -> Vec<String> {
        match &self.kind {
            Kind::Database(database) => database.refusals(),
            Kind::Files(_) | Kind::Plain(_) => Vec::new(),
        }
    }

    fn to_json(&self) -> Value {
        let doc = self.snapshot.doc();
        json!({
            "source": self.source, "snapshot": doc.id, "instant": doc.instant,
            "vault": self.snapshot.vault().name(), "plan": self.describe(), "refusals": self.refusals(),
        })
    }

    /// What `--replace` asks the operator to type.
    fn target_name(&self) -> String {
        match &self.kind {
            Kind::Database(database) => database.name().to_owned(),
            Kind::Files(_) | Kind::Plain(_) => self.source.to_string(),
        }
    }

    async fn execute(self, scene: &Scene<'_>) -> Result<Proof, CliError> {
        match self.kind {
            Kind::Database(database) => database.execute(scene, &self.source, &self.snapshot).await,
            Kind::Files(files) => files.execute(scene, &self.source, &self.snapshot).await,
            Kind::Plain(plain) => plain.execute(&self.source, &self.snapshot).await,
        }
    }
}

fn confirm(works: &[Work]) -> Result<(), CliError> {
    for work in works {
        let name = work.target_name();
        let answer = terminal::ask_line(&format!("type `{name}` to replace it: "))?;
        match answer {
            None => {
                return Err(CliError::usage(
                    "`--replace` asks for the target's name, and there is no terminal to ask at",
                )
                .hint("add `--yes` to replace without being asked"));
            }
            Some(answer) if answer.trim() == name => {}
            Some(_) => {
                return Err(CliError::usage(format!("`{name}` was not confirmed; nothing was changed"))
                    .hint("type the name exactly, or restore beside it with `--into NAME`"));
            }
        }
    }
    Ok(())
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
            &["--into-dir", "a", "--replace"],
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
}

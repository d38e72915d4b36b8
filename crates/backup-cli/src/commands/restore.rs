//! `backup restore`: choose snapshots, show the plan, execute it, print the proof.

mod beside;
mod choose;
mod database;
mod expect;
mod files;
mod part;
mod plain;
mod proof;
mod rows;
mod scene;
mod suspicion;
mod work;

use std::path::PathBuf;

use backup_core::id::{SourceName, StackName};
use backup_core::seal::key::Identities;
use backup_core::signature::Signers;
use serde_json::{Value, json};

use super::silent;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::{session, terminal, words};
use proof::Proof;
use scene::Scene;
pub(crate) use scene::{Purpose, at_address};
use work::Work;

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
#[command(group = clap::ArgGroup::new("which"), group = clap::ArgGroup::new("part"), group = clap::ArgGroup::new("overwrites"))]
pub(crate) struct Args {
    /// This snapshot
    #[arg(value_name = "ID", group = "which", conflicts_with = "source")]
    pub(crate) id: Option<String>,
    /// Each source's newest snapshot in all vaults that answer: the default
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
    /// Into this database (a name, or postgres://USER@HOST:PORT/DB with the password in $PGPASSWORD), which must not
    /// exist but for --data-only and --into-schema
    #[arg(long, value_name = "DB", conflicts_with = "replace")]
    pub(crate) into: Option<String>,
    /// Below this folder, by source, instead of the old places; a database, without --into, as plain files
    #[arg(long, value_name = "DIR", conflicts_with = "replace")]
    pub(crate) into_dir: Option<PathBuf>,
    /// In place of what is there now, which is kept under a dated name
    #[arg(long, group = "overwrites")]
    pub(crate) replace: bool,
    /// Only rows, into tables that are there and empty: of a database that exists, the original or --into DB; one session
    #[arg(long, conflicts_with_all = ["replace", "into_dir", "path"])]
    pub(crate) data_only: bool,
    /// Empty those tables first, in the same transaction: a failure brings their rows back
    #[arg(long, requires = "data_only", group = "overwrites")]
    pub(crate) truncate: bool,
    /// Do not ask for the target's name before replacing or emptying
    #[arg(long, requires = "overwrites")]
    pub(crate) yes: bool,
    /// With --table or --schema: into this new schema, beside the live tables, of a database that exists, the original or --into DB
    #[arg(long, value_name = "NAME", requires = "part", conflicts_with_all = ["replace", "into_dir", "path", "data_only"])]
    pub(crate) into_schema: Option<String>,
    /// Only this table, into a new database or --into-schema
    #[arg(long, value_name = "T", group = "part")]
    pub(crate) table: Option<String>,
    /// Only this schema, into a new database or --into-schema
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
    /// Fingerprint of a signer to believe, in place of a configuration's; again for each further one
    #[arg(long, value_name = "SHA256:…", requires = "vault", value_parser = signer)]
    pub(crate) signer: Vec<String>,
}

/// A signer as the recovery sheet gives it.
pub(crate) fn signer(text: &str) -> Result<String, String> {
    Signers::pin(&[text]).map(|_| text.to_owned())
}

/// Those that a call pins; `None` where it names none.
pub(crate) fn pinned(signers: &[String]) -> Result<Option<Signers>, CliError> {
    let pinned = (!signers.is_empty()).then(|| Signers::pin(signers)).transpose();
    pinned.map_err(|why| CliError::usage(format!("`--signer`: {why}")).hint("copy it from the recovery sheet"))
}

/// Brings back what was asked for. Nothing starts unless every plan is good; after that a failure of one source does not
/// keep the others from coming back. The exit code is the worst of all.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    part::check(args)?;
    let scene = Scene::open(cx, args).await?;
    let identities = identities(&scene, args).await?;
    let choose::Choice { chosen, missing, mut refused, silent } = choose::snapshots(&scene, args, &identities).await?;
    let types: Vec<_> = chosen.iter().map(|one| (&one.source, one.snapshot.manifest().source_type.as_str())).collect();
    if refused.is_empty() {
        // Else a database that cannot be opened would seem not to be chosen.
        refused.extend(part::into(args, &types).err());
    }
    let mut works = Vec::new();
    for one in chosen {
        match Work::plan(&scene, args, one).await {
            Ok(work) => works.push(work),
            Err(error) => refused.push(error),
        }
    }
    refused.extend(works.iter().filter_map(Work::refusal));
    let good: Vec<&SourceName> =
        works.iter().filter(|work| work.refusal().is_none()).map(|work| &work.source).collect();
    let refused = refusal(&refused, &good);
    let lacking = missing.iter().map(|(source, _)| format!("{source}: no such snapshot"));
    let lines: Vec<String> = works.iter().flat_map(Work::describe).chain(lacking).collect();
    for suspicion in works.iter().filter_map(|work| work.suspicion.as_ref()) {
        let (text, hint) = suspicion.warning();
        cx.printer.warn(&text, &hint);
    }
    if args.dry_run {
        let plans: Vec<Value> = works.iter().map(Work::to_json).collect();
        let lacking: Vec<Value> =
            missing.iter().map(|(source, error)| json!({ "source": source, "error": error.to_json() })).collect();
        let value = json!({
            "dry_run": true, "plan": plans, "missing": lacking, "silent": silent::to_json(&silent),
            "refused": refused.as_ref().map(CliError::to_json),
        });
        cx.printer.result("restore", value, || lines.join("\n") + "\n")?;
        for (_, error) in &missing {
            cx.printer.error(error);
        }
        let end = missing.iter().fold(Exit::Done, |end, (_, error)| end.worse(error.exit()));
        return refused.map_or(Ok(end), Err);
    }
    for line in &lines {
        cx.printer.talk(line);
    }
    if let Some(refused) = refused {
        scene.tell_met().await;
        return Err(refused);
    }
    if (args.replace || args.truncate) && !args.yes {
        confirm(&works, if args.replace { "--replace" } else { "--truncate" }).await?;
    }
    let mut exit = Exit::Done;
    let mut proofs = Vec::new();
    let mut failed = |name: &SourceName, error: CliError| {
        exit = exit.worse(error.exit());
        Proof::failed(name, error)
    };
    for work in works {
        let name = work.source.clone();
        proofs.push(work.execute(&scene).await.unwrap_or_else(|error| failed(&name, error)));
    }
    proofs.extend(missing.into_iter().map(|(name, error)| failed(&name, error)));
    scene.tell_met().await;
    for vault in &scene.vaults {
        if let Some(text) = words::older_reads(vault) {
            cx.printer.warn(&text, "see them with `backup verify`, and who may delete there with `backup doctor`");
        }
    }
    proof::print(&cx.printer, &proofs, &silent)?;
    Ok(exit)
}

/// The identities. Whoever is waited for (standard input, a program) is waited for aside, so that signals are heard.
async fn identities(scene: &Scene<'_>, args: &Args) -> Result<Identities, CliError> {
    let configured = scene.config.as_ref().and_then(|config| config.keys.identity.clone());
    let flag = args.identity.clone();
    let (name, bytes) = aside(move || session::identity_bytes(flag.as_deref(), configured.as_ref())).await?;
    session::open_identities(&name, &bytes, args.passphrase_file.as_deref())
}

pub(in crate::commands) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(CliError::caused(Exit::Failed, "a thread ended early", &error)))
}

/// All reasons not to start as one error, with what would do without: `good` sources have none.
fn refusal(refused: &[CliError], good: &[&SourceName]) -> Option<CliError> {
    let exit = refused.iter().map(CliError::exit).reduce(Exit::worse)?;
    let messages: Vec<&str> = refused.iter().map(CliError::message).collect();
    let mut hints: Vec<String> = Vec::new();
    for hint in refused.iter().filter_map(CliError::advice) {
        if hints.iter().all(|known| known != hint) {
            hints.push(hint.to_owned());
        }
    }
    if !good.is_empty() {
        let others: Vec<String> = good.iter().map(|name| format!("--source {name}")).collect();
        hints.push(format!("or leave it out with `{}`", others.join(" ")));
    }
    let error = CliError::new(exit, messages.join("; "));
    Some(if hints.is_empty() { error } else { error.hint(hints.join("; ")) })
}

async fn confirm(works: &[Work], flag: &str) -> Result<(), CliError> {
    let (what, doing) =
        if flag == "--replace" { ("replace it", "replace") } else { ("empty its tables", "empty them") };
    for work in works {
        let name = work.target_name();
        let prompt = format!("type `{name}` to {what}: ");
        match aside(move || terminal::ask_line(&prompt)).await? {
            None => {
                return Err(CliError::usage(format!(
                    "`{flag}` asks for the target's name, and there is no terminal to ask at"
                ))
                .hint(format!("add `--yes` to {doing} without being asked")));
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
        let args: Args = parse(&["--data-only", "--truncate", "--yes", "--table", "t"]).unwrap();
        assert!(args.data_only && args.truncate && args.yes && args.into.is_none());
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
            &["--truncate"],
            &["--data-only", "--yes"],
            &["--data-only", "--replace"],
            &["--data-only", "--into-dir", "d"],
            &["--data-only", "--path", "p"],
            &["--into-schema", "n"],
            &["--into-schema", "n", "--path", "p"],
            &["--into-schema", "n", "--table", "t", "--data-only"],
            &["--into-schema", "n", "--table", "t", "--replace"],
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
    fn all_reasons_not_to_start_are_one_error_that_names_what_to_leave_out() {
        let (a, b): (SourceName, SourceName) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(refusal(&[], &[&a]), None);
        let exists = CliError::usage("source `c`: `/x` exists").hint("move it");
        let again = CliError::usage("source `d`: `/y` exists").hint("move it");
        let damaged = CliError::new(Exit::Damage, "source `e`: broken").hint("mend it");
        let both = refusal(&[exists.clone(), again], &[&a, &b]).unwrap();
        assert_eq!(both.exit(), Exit::Usage);
        assert_eq!(both.message(), "source `c`: `/x` exists; source `d`: `/y` exists");
        assert_eq!(both.advice(), Some("move it; or leave it out with `--source a --source b`"));
        let alone = refusal(&[damaged], &[]).unwrap();
        assert_eq!((alone.exit(), alone.advice()), (Exit::Damage, Some("mend it")));
    }
}

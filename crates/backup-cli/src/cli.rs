//! The command line: the tree of verbs, global flags, and what becomes of a wrong call.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::mark::Wish;
use crate::commands::{
    audit, completions, config, doctor, import, init, key, list, mark, prune, purge, replicate, restore, run, runs,
    show, status, verify,
};
use crate::context::Context;
use crate::environment;
use crate::error::CliError;
use crate::exit::{self, Exit};
use crate::printer::{Options, Printer};
use crate::runtime::block_on;

/// Back up PostgreSQL databases and files, encrypted, and prove that they can be restored.
#[derive(Debug, Parser)]
#[command(name = "backup", version, after_help = exit::help(), disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const CONFIG_HELP: &str = "Configuration file [default: $BACKUP_CONFIG, ./backup.toml, the only /etc/backup/*.toml]";

/// Flags of every verb.
#[derive(Debug, Args)]
struct Global {
    #[arg(long, global = true, value_name = "FILE", help = CONFIG_HELP)]
    config: Option<PathBuf>,
    /// Print one JSON document on standard output, also after an error
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say what is done
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    #[command(subcommand)]
    Config(config::Verb),
    Run(run::Args),
    Restore(Box<restore::Args>),
    #[command(subcommand)]
    Key(key::Verb),
    Status(status::Args),
    Runs(runs::Args),
    List(list::Args),
    Show(show::Args),
    Doctor(doctor::Args),
    Replicate(replicate::Args),
    Prune(prune::Args),
    Purge(purge::Args),
    /// Keep a snapshot whatever its age
    Pin(mark::Args),
    /// Let a pinned snapshot expire as others do
    Unpin(mark::Args),
    /// Say that an unusual snapshot was looked at and is right: what it froze may expire again
    Accept(mark::Args),
    Verify(verify::Args),
    Audit(audit::Args),
    Import(import::Args),
    Completions(completions::Args),
}

/// The tree of verbs, for parsing, completions and tests.
pub(crate) fn tree() -> clap::Command {
    Cli::command()
}

/// Runs the process: parses, does, prints. `args` begins with the program's name.
pub(crate) fn main(args: &[OsString]) -> Exit {
    if let Err(error) = environment::clear(args) {
        Printer::of_process(Options { json: asks_json(args), ..Options::default() }).error(&error);
        return error.exit();
    }
    let cli = match tree().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refused(&error, args),
    };
    let options = Options { json: cli.global.json, quiet: cli.global.quiet, verbose: cli.global.verbose };
    let cx = Context::of_process(Printer::of_process(options), cli.global.config);
    let end = match cli.verb {
        Verb::Init(args) => block_on(init::run(&cx, &args)),
        Verb::Run(args) => block_on(run::run(&cx, &args)),
        Verb::Restore(args) => block_on(restore::run(&cx, &args)),
        Verb::Config(verb) => config::run(&cx, &verb),
        Verb::Key(verb) => key::run(&cx, &verb),
        Verb::Status(args) => block_on(status::run(&cx, &args)),
        Verb::Runs(args) => block_on(runs::run(&cx, &args)),
        Verb::List(args) => block_on(list::run(&cx, &args)),
        Verb::Show(args) => block_on(show::run(&cx, &args)),
        Verb::Doctor(args) => block_on(doctor::run(&cx, &args)),
        Verb::Replicate(args) => block_on(replicate::run(&cx, &args)),
        Verb::Prune(args) => block_on(prune::run(&cx, &args)),
        Verb::Purge(args) => block_on(purge::run(&cx, &args)),
        Verb::Pin(args) => block_on(mark::run(&cx, Wish::Pin, &args)),
        Verb::Unpin(args) => block_on(mark::run(&cx, Wish::Unpin, &args)),
        Verb::Accept(args) => block_on(mark::run(&cx, Wish::Accept, &args)),
        Verb::Verify(args) => block_on(verify::run(&cx, &args)),
        Verb::Audit(args) => block_on(audit::run(&cx, &args)),
        Verb::Import(args) => block_on(import::run(&cx, &args)),
        Verb::Completions(args) => completions::run(&cx, &args),
    };
    end.unwrap_or_else(|error| {
        cx.printer.error(&error);
        error.exit()
    })
}

/// What becomes of a call that is no run: help and version are data, everything else is an error with a hint.
fn refused(error: &clap::Error, args: &[OsString]) -> Exit {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let printer = Printer::of_process(Options::default());
        return match printer.result("help", serde_json::Value::Null, || text) {
            Ok(()) => Exit::Done,
            Err(error) => error.exit(),
        };
    }
    let error = usage(error.kind(), &text, &verb_path(args));
    Printer::of_process(Options { json: asks_json(args), ..Options::default() }).error(&error);
    error.exit()
}

/// Whether `--json` is given in arguments that are not parsed.
fn asks_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Clap's text in our form: its first paragraph is the error, its tips are the hint.
fn usage(kind: ErrorKind, text: &str, verb: &str) -> CliError {
    let help = format!("see `{verb} --help`");
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return CliError::usage("no verb was given").hint(help);
    }
    let lines = text.lines().map(str::trim);
    let first: Vec<&str> = lines.clone().take_while(|line| !line.is_empty()).collect();
    let message = first.join(" ").replace('\'', "`");
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let tips: Vec<String> =
        lines.filter_map(|line| line.strip_prefix("tip: ")).map(|tip| tip.replace('\'', "`")).collect();
    let hint = if tips.is_empty() { help } else { format!("{}; {help}", tips.join("; ")) };
    CliError::usage(message).hint(hint)
}

/// `backup key new`: the verbs at the start of a call, as far as they are known.
fn verb_path(args: &[OsString]) -> String {
    let root = tree();
    let mut at = &root;
    let mut path = String::from("backup");
    for arg in args.iter().skip(1) {
        if let Some(next) = arg.to_str().and_then(|name| at.find_subcommand(name)) {
            path = format!("{path} {}", next.get_name());
            at = next;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every verb that can be run, as words.
    fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        if !command.has_subcommands() {
            found.push(path.to_vec());
        }
        for inner in command.get_subcommands() {
            leaves(inner, &[path, &[inner.get_name().to_owned()]].concat(), found);
        }
    }

    #[test]
    fn every_verb_takes_json_and_help_and_explains_its_arguments() {
        let mut root = tree();
        root.build();
        root.clone().debug_assert();
        let mut verbs = Vec::new();
        leaves(&root, &["backup".to_owned()], &mut verbs);
        assert!(verbs.len() >= 6, "{verbs:?}");
        for verb in verbs {
            let help =
                tree().try_get_matches_from(verb.iter().map(String::as_str).chain(["--json", "--help"])).unwrap_err();
            assert_eq!(help.kind(), ErrorKind::DisplayHelp, "{verb:?}");
            let text = help.render().to_string();
            assert!(text.contains("--json") && text.contains("--config"), "{verb:?}\n{text}");
            let command = verb[1..].iter().fold(&root, |at, name| at.find_subcommand(name).unwrap());
            assert!(command.get_about().is_some(), "{verb:?} has no description");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{verb:?} {} has no description", argument.get_id());
            }
        }
    }

    #[test]
    fn a_wrong_call_becomes_an_error_with_a_hint() {
        let call = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let error = tree().try_get_matches_from(&args).unwrap_err();
            let error = usage(error.kind(), &error.render().to_string(), &verb_path(&args));
            assert_eq!(error.exit(), Exit::Usage);
            (error.message().to_owned(), error.advice().unwrap_or_default().to_owned())
        };
        let (message, hint) = call("backup config shwo");
        assert_eq!(message, "unrecognized subcommand `shwo`");
        assert!(hint.contains("`show`") && hint.ends_with("see `backup config --help`"), "{hint}");
        let (message, hint) = call("backup config show --pubic");
        assert_eq!(message, "unexpected argument `--pubic` found");
        assert!(hint.contains("`--public`") && hint.ends_with("see `backup config show --help`"), "{hint}");
        let (message, _) = call("backup key new");
        assert_eq!(message, "the following required arguments were not provided: <FILE>");
        assert_eq!(call("backup"), ("no verb was given".into(), "see `backup --help`".into()));
        let (message, _) = call("backup -q -v config check");
        assert!(message.contains("cannot be used with"), "{message}");
    }

    #[test]
    fn help_lists_the_exit_codes() {
        let text = tree().render_help().to_string();
        for line in ["    0  done", "    4  damage or a difference", "  143  terminated"] {
            assert!(text.contains(line), "{text}");
        }
    }
}

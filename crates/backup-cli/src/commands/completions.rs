//! `backup completions SHELL`.

use clap_complete::Shell;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::tree(), "backup", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let value = json!({ "shell": args.shell.to_string(), "script": script });
    cx.printer.result("completions", value, || script)?;
    Ok(Exit::Done)
}

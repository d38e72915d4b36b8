//! `backup config show [--public]`.

use std::fs;

use backup_core::config::{Config, View};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;

/// Print the resolved configuration, without secrets
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what an auditor needs: no paths, addresses and credentials of this machine
    #[arg(long)]
    public: bool,
}

/// Prints it as TOML, or as JSON.
pub(crate) fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let config = cx.config()?;
    let view = if args.public { View::Public } else { View::Full };
    let mut shown = config.show_json(view);
    let mut text = config.show_toml(view);
    if args.public {
        let signers = signers(&config)?;
        text.push_str("\n# Signers to believe (allowed_signers):\n");
        text.extend(signers.iter().map(|line| format!("#   {line}\n")));
        shown["signers"] = json!(signers);
    }
    let mut longest = Map::new();
    text.push('\n');
    for vault in &config.vaults {
        let life = config.kept_at_most(vault).map(|span| span.to_string());
        text.push_str(&match &life {
            Some(span) => format!("# vault.{}: a snapshot lives {span} at most, while backups go on\n", vault.name),
            None => format!("# vault.{}: nothing expires\n", vault.name),
        });
        longest.insert(vault.name.clone(), json!(life));
    }
    let value = json!({ "config": shown, "kept_at_most": Value::Object(longest) });
    cx.printer.result("config show", value, || text)?;
    Ok(Exit::Done)
}

/// The signers' lines, without comments. They are public keys; only the file's path is private.
fn signers(config: &Config) -> Result<Vec<String>, CliError> {
    let path = &config.keys.signers;
    let text = fs::read_to_string(path).map_err(|error| {
        CliError::caused(Exit::Usage, format!("cannot read `keys.signers` `{}`", path.display()), &error)
            .hint("put the line that `backup key new --host host_key` prints into it")
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

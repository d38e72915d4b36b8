//! `backup config show [--public]`.

use std::fmt::Write as _;
use std::fs;

use backup_core::config::{Config, Place, View, audit_variables};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;

const HEAD: &str = "# Policy for an audit: `backup audit --config THIS-FILE`, on any machine that reaches the vaults.\n\
                    # It holds no secret. Words like `not-shown` stand where a configuration must say something.\n";

/// Print the resolved configuration, without secrets
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what an auditor needs: where the vaults are, and no other path, address or credential of this machine
    #[arg(long)]
    public: bool,
}

/// Prints it as TOML, or as JSON.
pub(crate) fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let mut config = cx.config()?;
    let view = if args.public { View::Public } else { View::Full };
    if args.public {
        config.keys.signer_lines = signers(&config)?;
    }
    let mut shown = config.show_json(view);
    let mut text = if args.public { HEAD.to_owned() } else { String::new() };
    text.push_str(&config.show_toml(view));
    if args.public {
        shown["signers"] = json!(config.keys.signer_lines);
        text.push_str(&credentials(&config));
    }
    let mut longest = Map::new();
    text.push('\n');
    for vault in &config.vaults {
        let life = config.kept_at_most(vault).map(|span| span.to_string());
        let note = match &life {
            Some(span) => format!("# vault.{}: a snapshot lives {span} at most, while backups go on\n", vault.name),
            None => format!("# vault.{}: nothing expires\n", vault.name),
        };
        text.push_str(&note);
        longest.insert(vault.name.clone(), json!(life));
    }
    let value = json!({ "config": shown, "kept_at_most": Value::Object(longest) });
    cx.printer.result("config show", value, || text)?;
    Ok(Exit::Done)
}

/// What the auditor has to bring.
fn credentials(config: &Config) -> String {
    let mut text = String::new();
    for vault in &config.vaults {
        let Place::S3(s3) = &vault.place else { continue };
        let variables = audit_variables(&vault.name);
        let _ = write!(
            text,
            "\n# vault.{}: set {variables}ACCESS_KEY_ID and {variables}SECRET_ACCESS_KEY; rights to list and to read do\n",
            vault.name
        );
        if s3.ca.is_some() {
            let _ = writeln!(text, "#   put the authority's certificate beside this file as {}-ca.pem", vault.name);
        }
    }
    text
}

/// A signer's line up to its key: what follows is a comment, which often names a user and a host.
fn uncommented(line: &str) -> String {
    let mut quoted = false;
    let blank = |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    };
    let fields: Vec<&str> = line.split(blank).filter(|field| !field.is_empty()).collect();
    let kind = |field: &&str| ["ssh-", "ecdsa-", "sk-"].iter().any(|start| field.starts_with(start));
    let end = fields.iter().position(kind).map_or(fields.len(), |at| at + 2);
    fields[..end.min(fields.len())].join(" ")
}

/// The signers' lines, without comments. They are public keys; only the file's path is private.
fn signers(config: &Config) -> Result<Vec<String>, CliError> {
    if !config.keys.signer_lines.is_empty() {
        return Ok(config.keys.signer_lines.iter().map(|line| uncommented(line)).collect());
    }
    let path = &config.keys.signers;
    let text = fs::read_to_string(path).map_err(|error| {
        CliError::caused(Exit::Usage, format!("cannot read `keys.signers` `{}`", path.display()), &error)
            .hint("put the line that `backup key new --host host_key` prints into it")
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(uncommented).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signers_comment_names_nobody() {
        for (line, shown) in [
            ("backup ssh-ed25519 AAAA root@db1.internal", "backup ssh-ed25519 AAAA"),
            ("backup namespaces=\"backup.*\" ssh-ed25519 AAAA", "backup namespaces=\"backup.*\" ssh-ed25519 AAAA"),
            (
                "a,backup valid-before=\"2027 x\" ssh-ed25519  AAAA a b",
                "a,backup valid-before=\"2027 x\" ssh-ed25519 AAAA",
            ),
            ("backup ssh-ed25519", "backup ssh-ed25519"),
        ] {
            assert_eq!(uncommented(line), shown);
        }
    }
}

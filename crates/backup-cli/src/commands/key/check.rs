//! `backup key check`: can this identity open the backups?

use std::path::{Path, PathBuf};

use backup_core::config::{Config, SecretRef};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::{identity, session, terminal};

/// Tell whether an identity belongs to a configured recipient
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File with the identity, `-` for standard input [default: `keys.identity`]
    #[arg(value_name = "FILE")]
    identity: Option<PathBuf>,
    /// File with the passphrase of a protected identity [default: asked at the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Names the recipients that the identity opens; exit 12 if there is none. Without a configuration, as on a bare machine, it names the
/// recipients that the identity is of.
pub(crate) fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let config = cx.config_if_any()?;
    let path = path(args, config.as_ref())?;
    let identities = identity::read(&path, || match &args.passphrase_file {
        Some(file) => session::passphrase_of(file).map(Some),
        None => terminal::ask_secret(&format!("passphrase of {}: ", path.display())),
    })?;
    let own: Vec<String> = identities.iter().map(|identity| identity.to_public().to_string()).collect();
    let Some(config) = config else {
        let value = json!({ "identity": path, "own": own, "matches": [], "recipients": null });
        cx.printer.result("key check", value, || {
            let line =
                |one: &String| format!("it is of the recipient {one}; no configuration is here to compare it with\n");
            own.iter().map(line).collect()
        })?;
        return Ok(Exit::Done);
    };
    let recipients = config.keys.recipients.iter().enumerate();
    let matched: Vec<(usize, &String)> = recipients.filter(|(_, recipient)| own.contains(recipient)).collect();
    if matched.is_empty() {
        let message = format!("identity `{}` opens none of the configured recipients", path.display());
        return Err(CliError::new(Exit::WrongKey, message)
            .hint("use the identity of a recipient in `keys.recipients`; `backup config show` lists them"));
    }
    let listed: Vec<_> = matched.iter().map(|(at, one)| json!({ "number": at + 1, "recipient": one })).collect();
    let value = json!({ "identity": path, "own": own, "matches": listed, "recipients": config.keys.recipients.len() });
    cx.printer.result("key check", value, || {
        let total = config.keys.recipients.len();
        let line = |(at, one): &(usize, &String)| format!("opens recipient {} of {total}: {one}\n", at + 1);
        matched.iter().map(line).collect()
    })?;
    Ok(Exit::Done)
}

fn path(args: &Args, config: Option<&Config>) -> Result<PathBuf, CliError> {
    match (&args.identity, config.and_then(|config| config.keys.identity.as_ref())) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(SecretRef::File(path))) => Ok(Path::new(path).to_owned()),
        (None, Some(SecretRef::Env(_) | SecretRef::Command(_))) => {
            Err(CliError::usage("`keys.identity` is not in a file").hint("pipe it in: `backup key check -`"))
        }
        (None, None) => {
            Err(CliError::usage("no identity was given").hint("name its file: `backup key check operator.txt`"))
        }
    }
}

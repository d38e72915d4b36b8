//! `backup key list`: who can read, who signs, who is believed. Public halves only.
//!
//! It works before anything is pinned: its output is what an operator puts into the file of `keys.signers`.

use backup_core::config::Config;
use backup_core::signature::{HostKey, Signers};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::secrets;

/// List the recipients, revoked ones, the host key and the pinned signers
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Prints them; exit 12 if a configured key or the signers cannot be read.
pub(crate) fn run(cx: &Context, _: &Args) -> Result<Exit, CliError> {
    let config = cx.config()?;
    let mut exit = Exit::Done;
    let mut failed = |error: &CliError| {
        cx.printer.warn(error.message(), error.advice().unwrap_or("check the path"));
        exit = Exit::WrongKey;
    };
    let pinned = signers(&config).unwrap_or_else(|error| {
        failed(&error);
        Vec::new()
    });
    let host = config.keys.host_key.as_ref().and_then(|_| host_key(&config).inspect_err(|error| failed(error)).ok());
    let is_pinned = host.as_ref().is_some_and(|key| pinned.contains(&key.fingerprint()));
    if let Some(key) = host.as_ref().filter(|_| !is_pinned) {
        cx.printer.warn(
            &format!("the host key {} is not among the pinned signers", key.fingerprint()),
            &format!("add its line to `{}`", config.keys.signers.display()),
        );
    }
    let recipients = config.keys.recipients.iter().enumerate();
    let value = json!({
        "recipients": recipients.clone().map(|(at, one)| json!({ "number": at + 1, "recipient": one })).collect::<Vec<_>>(),
        "revoked": config.keys.revoked.iter().map(|one| json!({
            "recipient": one, "still_configured": config.keys.recipients.contains(one),
        })).collect::<Vec<_>>(),
        "host_key": host.as_ref().map(|key| json!({
            "file": config.keys.host_key,
            "fingerprint": key.fingerprint(),
            "allowed_signers": key.allowed_signers_line(),
            "pinned": is_pinned,
        })),
        "signers": { "file": config.keys.signers, "fingerprints": pinned },
    });
    cx.printer.result("key list", value, || {
        let mut lines = vec!["recipients, whose identities open the backups:".to_owned()];
        lines.extend(recipients.map(|(at, one)| format!("  {}  {one}", at + 1)));
        if !config.keys.revoked.is_empty() {
            lines.push(
                "\nrevoked: nothing is encrypted to them any more; what was stored for them stays readable with their identities:"
                    .to_owned(),
            );
            lines.extend(config.keys.revoked.iter().map(|one| {
                let still = config.keys.recipients.contains(one);
                format!("  {one}{}", if still { " (still in `keys.recipients`: no run starts)" } else { "" })
            }));
        }
        lines.push("\nhost key, which signs:".to_owned());
        match &host {
            Some(key) => {
                let pinned = if is_pinned { "pinned" } else { "not pinned" };
                lines.push(format!("  {} ({pinned})\n  {}", key.fingerprint(), key.allowed_signers_line()));
            }
            None if config.keys.host_key.is_some() => lines.push("  cannot be read".to_owned()),
            None => lines.push("  none: this machine makes no backups".to_owned()),
        }
        lines.push("\npinned signers, who are believed:".to_owned());
        lines.extend(pinned.iter().map(|one| format!("  {one}")));
        if pinned.is_empty() {
            lines.push("  nobody".to_owned());
        }
        lines.join("\n") + "\n"
    })?;
    Ok(exit)
}

/// Fingerprints of the pinned signers.
fn signers(config: &Config) -> Result<Vec<String>, CliError> {
    let path = &config.keys.signers;
    let hint = "put the line of a host key there, as printed by `backup key list`";
    let lines = &config.keys.signer_lines;
    let text = if lines.is_empty() { std::fs::read_to_string(path) } else { Ok(lines.join("\n")) };
    let text = text.map_err(|error| {
        CliError::caused(Exit::WrongKey, format!("cannot read the signers `{}`", path.display()), &error).hint(hint)
    })?;
    let signers = Signers::parse(&text)
        .map_err(|error| CliError::caused(Exit::WrongKey, format!("`{}`", path.display()), &error).hint(hint))?;
    Ok(signers.fingerprints())
}

/// The host key, pinned or not.
fn host_key(config: &Config) -> Result<HostKey, CliError> {
    let path = config.keys.host_key.as_deref().unwrap_or(std::path::Path::new(""));
    let bytes = secrets::read_private(path)?;
    HostKey::from_openssh(&String::from_utf8_lossy(&bytes)).map_err(|error| {
        CliError::caused(Exit::WrongKey, format!("`{}`", path.display()), &error)
            .hint("make one with `backup key new --host FILE`")
    })
}

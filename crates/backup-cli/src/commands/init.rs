//! `backup init`.

mod adopt;
mod remake;

use std::path::Path;

use backup_core::config::{self, Config, Place};
use backup_core::id::VaultId;
use backup_core::recover::RECOVER;
use backup_core::signature::HostKey;
use backup_core::vault::{Vault, VaultError};
use serde_json::json;

use crate::address::Address;
use crate::context::Context;
use crate::edit;
use crate::endpoint;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{self, Session, TOOL};
use crate::sheet::Sheet;

/// Make the configured vaults and print the recovery sheet
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Join the vault that lies at this address or configured place: pin its id, write nothing over. Only it is looked at
    #[arg(long, value_name = "URL|NAME")]
    pub(crate) adopt: Option<String>,
    /// Name in the configuration for a vault that is adopted by its address [default: adopted]
    #[arg(long = "as", value_name = "NAME", requires = "adopt")]
    pub(crate) name: Option<String>,
    /// Show what would be made
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Makes what is missing, pins ids in the configuration file, prints the sheet. Doing it twice changes nothing. Exit 3
/// when a vault that was made before cannot be used now.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = match (Session::open(cx), &args.adopt) {
        // A configuration needs a vault: the one that is adopted may be its first.
        (Err(error), Some(text)) => adopt::first(cx, text, args.name.as_deref()).ok_or(error)?,
        (session, _) => session?,
    };
    session.config.refuse_revoked()?;
    let key = session.host_key()?;
    if let Some(text) = &args.adopt {
        let end = adopt::run(&session, &key, text, args.name.as_deref(), args.dry_run).await?;
        return finish(cx, &session, &key, args.dry_run, &[end], Exit::Done);
    }
    let mut made = Vec::new();
    let mut end = Exit::Done;
    for vault in &session.config.vaults {
        let done = match one(&session, &key, vault, args.dry_run).await {
            Ok(done) => done,
            // It was made once, and its id is on the sheet: the others and the sheet need not wait for it.
            Err(error) if vault.id.is_some() => {
                let text = format!("vault `{}` cannot be used: {}", vault.name, error.message());
                cx.printer.warn(&text, error.advice().unwrap_or("the other vaults are used"));
                end = end.worse(error.as_part());
                "not reached"
            }
            Err(error) => {
                // What was made before stays, and its id is written.
                for (name, address, done) in &made {
                    cx.printer.talk(&format!("vault {name}: {done} ({address})"));
                }
                return Err(error);
            }
        };
        made.push((vault.name.clone(), Address::of(&vault.place).to_string(), done));
    }
    finish(cx, &session, &key, args.dry_run, &made, end)
}

/// Name, address, what was done.
type Made = (String, String, &'static str);

/// Says what was done, and prints the sheet.
fn finish(
    cx: &Context,
    session: &Session<'_>,
    key: &HostKey,
    dry_run: bool,
    made: &[Made],
    end: Exit,
) -> Result<Exit, CliError> {
    // Read again: the ids that were just written belong on the sheet.
    let config = if dry_run { session.config.clone() } else { cx.config()? };
    let sheet = Sheet::new(&config, key, &session.signers()?);
    let vaults: Vec<_> =
        made.iter().map(|(name, address, done)| json!({ "name": name, "address": address, "done": done })).collect();
    for (name, address, done) in made {
        cx.printer.talk(&format!("vault {name}: {done} ({address})"));
    }
    cx.printer.result("init", json!({ "vaults": vaults, "sheet": sheet.to_json() }), || sheet.text())?;
    Ok(end)
}

async fn one(
    session: &Session<'_>,
    key: &HostKey,
    vault: &config::Vault,
    dry_run: bool,
) -> Result<&'static str, CliError> {
    if let Some(id) = &vault.id {
        let store = session.store(vault, !dry_run).await?;
        let open = match Vault::open(&vault.name, store.clone(), Some(id)).await {
            Err(error @ VaultError::NoVault { .. }) => {
                return remake::pinned(session, key, vault, (id, error), dry_run).await;
            }
            other => other.map_err(|error| session::not_opened(vault, error))?,
        };
        if !dry_run {
            refresh_recover(session, &open, key).await?;
            open.renew_locks().await?;
        }
        return Ok("there already");
    }
    if let Some(id) = remake::named(session, vault).await? {
        if dry_run {
            return Ok("would be made anew, its `vault.json` is gone");
        }
        remake::write(session, key, vault, &id).await?;
        pin(&session.config, &vault.name, &id)?;
        return Ok("made anew with the id that its receipts name: its `vault.json` was gone");
    }
    if dry_run {
        return Ok("would be made");
    }
    if let Place::Path(path) = &vault.place {
        make_folder(path)?;
    }
    endpoint::require(session, vault, true).await?;
    let store = session.store(vault, true).await?;
    let now = session.cx.clock.now();
    let open = Vault::create(&vault.name, store, new_id(), now, TOOL).await.map_err(|error| match error {
        VaultError::Occupied { ref found, .. } => match twin(session, &vault.name, found) {
            Some(error) => error,
            None => CliError::from(error)
                .hint(format!("join it with `backup init --adopt {}`, or choose another place", vault.name)),
        },
        other => other.into(),
    })?;
    open.put_recover(RECOVER, key).await?;
    pin(&session.config, &vault.name, open.id())?;
    Ok("made")
}

/// Why a vault cannot be had under one more name. The configuration is read again: ids may just have been written.
fn twin(session: &Session<'_>, name: &str, id: &VaultId) -> Option<CliError> {
    let config = session.cx.config().ok()?;
    let first = config.vaults.iter().find(|vault| vault.name != name && vault.id.as_ref() == Some(id))?;
    let message = format!(
        "what lies at the place of vault `{name}` is the vault `{}`: it would count as a second copy",
        first.name
    );
    Some(CliError::usage(message).hint(format!("give `[vault.{name}]` a place of its own, or remove the table")))
}

/// Puts this program's page where another text lies, or one whose signature is not believed today; else writes nothing.
async fn refresh_recover(session: &Session<'_>, vault: &Vault, key: &HostKey) -> Result<(), CliError> {
    if !vault.has_recover(RECOVER, &session.signers()?, session.cx.clock.now()).await? {
        vault.put_recover(RECOVER, key).await?;
    }
    Ok(())
}

/// Makes the last folder of a path only: a missing parent is more likely a disk that is not mounted.
fn make_folder(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(CliError::caused(Exit::NoVault, format!("cannot make `{}`", path.display()), &error)
            .hint("mount the disk, or make the parent folder")),
    }
}

fn new_id() -> VaultId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    hex::encode(bytes).parse().expect("32 hex digits")
}

/// Writes `id = "…"` below the vault's heading, leaving every other byte of the file alone.
fn pin(config: &Config, vault: &str, id: &VaultId) -> Result<(), CliError> {
    let by_hand = |why: &str| {
        CliError::new(Exit::Failed, format!("vault `{vault}` is there, but its id could not be written: {why}"))
            .hint(format!("add `id = \"{id}\"` below `[vault.{vault}]` in `{}`", config.file.display()))
    };
    let text = std::fs::read_to_string(&config.file).map_err(|error| by_hand(&error.to_string()))?;
    let pinned = edit::below(&text, &format!("vault.{vault}"), &format!("id = \"{id}\""))
        .ok_or_else(|| by_hand("there is no line `[vault.NAME]`"))?;
    let parsed = Config::parse(&pinned, &config.file).map_err(|error| by_hand(&error.to_string()))?;
    if parsed.vault(vault).and_then(|vault| vault.id.as_ref()) != Some(id) {
        return Err(by_hand("the table was not found"));
    }
    edit::replace(&config.file, &pinned).map_err(|error| by_hand(&error.to_string()))
}

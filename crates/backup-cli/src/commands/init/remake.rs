//! `backup init` over a vault whose `vault.json` is gone: it is written anew with the id that the vault had.
//!
//! A folder without that file may also be a mount point without its disk, or another vault's copy. So it is written only where
//! something lies there that a pinned signer signed for this stack, and where no signed receipt names another vault. The id is
//! the one that the configuration pins; where none is pinned, the one that receipts name. Receipts that name another configured vault are
//! copies of that one's, and name nothing.

use std::collections::BTreeSet;

use backup_core::config::{self, Place};
use backup_core::id::VaultId;
use backup_core::signature::HostKey;
use backup_core::vault::remake::{Traces, traces};
use backup_core::vault::{Vault, VaultError};

use crate::endpoint;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Session, TOOL};

/// A vault with a pinned id that was not found (`error`): made anew where it is seen to have been there.
pub(super) async fn pinned(
    session: &Session<'_>,
    key: &HostKey,
    vault: &config::Vault,
    (id, error): (&VaultId, VaultError),
    dry_run: bool,
) -> Result<&'static str, CliError> {
    let found = look(session, vault).await?;
    if !found.is_ours {
        return Err(CliError::from(error).hint(format!(
            "nothing lies there that a pinned signer signed: check the path and whether it is mounted; only if the vault is gone for \
             good, take the `id` out of `[vault.{}]` and run `backup init`, which makes a new one",
            vault.name
        )));
    }
    if let Some(other) = found.ids.first().filter(|_| !found.ids.contains(id)) {
        let text = format!(
            "vault `{}`: its `vault.json` is gone, and its receipts are of vault `{other}`, not `{id}`",
            vault.name
        );
        return Err(CliError::new(Exit::NoVault, text).hint(format!(
            "check the path: another vault lies there; only if it is this one, write `id = \"{other}\"` below `[vault.{}]` in `{}`, then \
             run `backup init`",
            vault.name,
            session.config.file.display()
        )));
    }
    if dry_run {
        return Ok("would be made anew with its id, its `vault.json` is gone");
    }
    write(session, key, vault, id).await?;
    Ok("made anew with its id: its `vault.json` was gone")
}

/// The id that a vault without a pinned one had, where its `vault.json` is gone and receipts name it.
pub(super) async fn named(session: &Session<'_>, vault: &config::Vault) -> Result<Option<VaultId>, CliError> {
    if let Place::Path(path) = &vault.place
        && !path.exists()
    {
        return Ok(None);
    }
    let store = session.store(vault, false).await?;
    let open = Vault::open(&vault.name, store, None).await;
    if !matches!(open, Err(VaultError::NoVault { .. })) {
        // It is there, or cannot be read: whoever makes it finds that out.
        return Ok(None);
    }
    let Traces { mut ids, is_ours, .. } = look(session, vault).await?;
    let by_hand = || {
        format!(
            "write the id that it had (recovery sheet, another host's configuration) as `id = \"…\"` below `[vault.{}]` in `{}`, then run \
             `backup init`",
            vault.name,
            session.config.file.display()
        )
    };
    // A new id would cut off every host that has the old one, and all that is remembered of this vault.
    if ids.is_empty() && is_ours {
        let text = format!(
            "vault `{}`: its `vault.json` is gone, snapshots of pinned signers lie there, and nothing names its id",
            vault.name
        );
        let hint = format!("{}; if nobody has it any more, write a new one: 32 hex digits", by_hand());
        return Err(CliError::new(Exit::NoVault, text).hint(hint));
    }
    let id = ids.pop_first();
    if let (Some(one), Some(other)) = (&id, ids.first()) {
        let text = format!(
            "vault `{}`: its `vault.json` is gone, and its receipts are of several vaults: `{one}`, `{other}`",
            vault.name
        );
        return Err(CliError::new(Exit::NoVault, text).hint(by_hand()));
    }
    Ok(id)
}

/// Writes `vault.json` with that id, and the recovery document where none lies there. Everything else stays as it is.
pub(super) async fn write(
    session: &Session<'_>,
    key: &HostKey,
    vault: &config::Vault,
    id: &VaultId,
) -> Result<(), CliError> {
    endpoint::require(session, vault, true).await?;
    let store = session.store(vault, true).await?;
    let open = Vault::create(&vault.name, store, id.clone(), session.cx.clock.now(), TOOL).await?;
    super::refresh_recover(session, &open, key).await?;
    Ok(open.renew_locks().await?)
}

async fn look(session: &Session<'_>, vault: &config::Vault) -> Result<Traces, CliError> {
    let store = session.store(vault, false).await?;
    let mut found = traces(&vault.name, store, &session.signers()?, session.stack()).await?;
    let others = session.config.vaults.iter().filter(|other| other.name != vault.name);
    let others: BTreeSet<&VaultId> = others.filter_map(|other| other.id.as_ref()).collect();
    found.ids.retain(|id| !others.contains(id));
    Ok(found)
}

//! `backup init --adopt`: a new host joins a vault that another one made, without changing a byte of what lies there.
//!
//! It reads `vault.json`, pins the id in the configuration (and, for an address that is not configured, writes the table),
//! and says whose snapshots it found there. It pins nobody: a key that lies in a vault proves nothing, so the line of a host
//! that is gone comes from the recovery sheet or from another machine's signers.

use std::collections::BTreeSet;
use std::path::Path;

use backup_core::config::{self, Config};
use backup_core::id::VaultId;
use backup_core::recover::RECOVER;
use backup_core::signature::{HostKey, SignatureError};
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::{Vault, VaultError};

use super::{Made, pin, twin};
use crate::address::Address;
use crate::context::Context;
use crate::edit;
use crate::endpoint;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{self, Session};
use crate::words;

/// Name of a vault that is adopted by its address.
const NAME: &str = "adopted";
/// Snapshots of a source whose signers are looked at, newest first.
const LOOKED_AT: usize = 8;

/// Adopts the vault that `text` names: by its name in the configuration, or by its address.
pub(super) async fn run(
    session: &Session<'_>,
    key: &HostKey,
    text: &str,
    name: Option<&str>,
    dry_run: bool,
) -> Result<Made, CliError> {
    let target = Target::find(&session.config, text, name)?;
    let vault = &target.vault;
    let place = Address::of(&vault.place).to_string();
    let store = session.store(vault, !dry_run).await?;
    let open = Vault::open(&vault.name, store, vault.id.as_ref()).await.map_err(|error| match error {
        VaultError::NoVault { .. } if vault.id.is_some() => session::not_opened(vault, error),
        VaultError::NoVault { .. } => CliError::from(error)
            .hint("check the address; `backup init` without `--adopt` makes a new vault at a configured place"),
        other => other.into(),
    })?;
    if let Some(error) = twin(session, &vault.name, open.id()) {
        return Err(error);
    }
    survey(session, &open).await?;
    if vault.id.is_some() {
        return Ok((vault.name.clone(), place, "there already"));
    }
    if dry_run {
        session.cx.printer.talk(&format!("vault {} has the id {}", vault.name, open.id()));
        return Ok((vault.name.clone(), place, "would be adopted"));
    }
    endpoint::require(session, vault, false).await?;
    // A page that lies there stays as it is, whoever signed it.
    if !open.exists_recover().await? {
        open.put_recover(RECOVER, key).await?;
    }
    match &target.table {
        Some(table) => append(&session.config.file, &vault.name, table, open.id())?,
        None => pin(&session.config, &vault.name, open.id())?,
    }
    Ok((vault.name.clone(), place, "adopted"))
}

/// The vault to adopt.
struct Target {
    vault: config::Vault,
    /// The table to write, where the configuration does not have it.
    table: Option<String>,
}

impl Target {
    fn find(config: &Config, text: &str, name: Option<&str>) -> Result<Self, CliError> {
        let configured = |vault: &config::Vault| Self { vault: vault.clone(), table: None };
        let Some(address) = Address::parse(text)? else {
            return config.vault(text).map(configured).ok_or_else(|| {
                CliError::usage(format!("there is no vault `{text}` in the configuration"))
                    .hint("name a configured vault, or the address: a directory, or `s3+https://host/bucket/prefix?region=REGION`")
            });
        };
        let text = std::fs::read_to_string(&config.file).unwrap_or_default();
        if let Some(vault) = config.vaults.iter().find(|vault| Address::of(&vault.place).same_place(&address)) {
            // The first vault of a file that has none is in the configuration alone.
            let first = Config::parse(&text, &config.file).is_err();
            let table = if first { Some(table(&vault.name, &address)?) } else { None };
            return Ok(Self { vault: vault.clone(), table });
        }
        let name = name.unwrap_or(NAME);
        if config.vault(name).is_some() {
            return Err(CliError::usage(format!("the configuration has another vault `{name}`"))
                .hint("choose a name for this one with `--as NAME`"));
        }
        let table = table(name, &address)?;
        let parsed = Config::parse(&joined(&text, &table), &config.file)?;
        let vault = parsed.vault(name).cloned();
        let vault = vault.ok_or_else(|| CliError::usage(format!("`{name}` cannot be a vault's name")))?;
        Ok(Self { vault, table: Some(table) })
    }
}

/// The session of a configuration that has no vault yet, with the one at this address; `None` where that is not what it
/// lacks.
pub(super) fn first<'a>(cx: &'a Context, text: &str, name: Option<&str>) -> Option<Session<'a>> {
    let address = Address::parse(text).ok()??;
    let config = cx.config_with(&joined("\n", &table(name.unwrap_or(NAME), &address).ok()?)).ok()?;
    Some(Session { cx, config, monitor: session::monitor(cx) })
}

/// A file's text with a table at its end.
fn joined(text: &str, table: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}\n{table}")
}

/// The table of a vault at an address. S3 keys come from the environment, as wherever an address is given.
fn table(name: &str, address: &Address) -> Result<String, CliError> {
    let place = match address {
        Address::Directory(path) => format!("path = {}\n", quoted(&absolute(path)?)),
        Address::S3 { endpoint, bucket, prefix, region, path_style, ca } => {
            let ca = ca.as_ref().map(|ca| absolute(ca)).transpose()?;
            let ca = ca.map_or_else(String::new, |ca| format!(", ca = {}", quoted(&ca)));
            format!(
                "s3 = {{ endpoint = {}, bucket = {}, prefix = {}, region = {}, path_style = {path_style}{ca} }}\n\
                 credentials = {{ env = \"AWS_\" }}\n",
                quoted(endpoint),
                quoted(bucket),
                quoted(prefix),
                quoted(region)
            )
        }
    };
    Ok(format!("[vault.{name}]\n{place}"))
}

fn absolute(path: &Path) -> Result<String, CliError> {
    let absolute = std::path::absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
    absolute.ok_or_else(|| {
        CliError::usage(format!("`{}` cannot be written into the configuration", path.display()))
            .hint("configure a vault at that place by hand, then adopt it by its name")
    })
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Writes the table with the id at the end of the configuration, leaving every other byte of the file alone.
fn append(file: &Path, name: &str, table: &str, id: &VaultId) -> Result<(), CliError> {
    let pinned = format!("id = \"{id}\"");
    let by_hand = |why: String| {
        CliError::new(Exit::Failed, format!("vault `{name}` was not written into `{}`: {why}", file.display()))
            .hint(format!("add it by hand, with `{pinned}`"))
    };
    let text = std::fs::read_to_string(file).map_err(|error| by_hand(error.to_string()))?;
    let table = edit::below(table, &format!("vault.{name}"), &pinned).unwrap_or_default();
    let text = joined(&text, &table);
    let parsed = Config::parse(&text, file).map_err(|error| by_hand(error.to_string()))?;
    if parsed.vault(name).and_then(|vault| vault.id.as_ref()) != Some(id) {
        return Err(by_hand("its table would not be read".to_owned()));
    }
    edit::replace(file, &text).map_err(|error| by_hand(error.to_string()))
}

/// Says what lies there for this stack, and warns of signers who are not believed here. Reads only.
async fn survey(session: &Session<'_>, vault: &Vault) -> Result<(), CliError> {
    let (signers, printer) = (session.signers()?, &session.cx.printer);
    let sources = vault.sources(session.stack()).await?;
    if sources.is_empty() {
        printer.talk(&format!("vault {} holds nothing of stack `{}` yet", vault.name(), session.stack()));
    }
    let mut strangers = BTreeSet::new();
    for source in sources {
        let history = vault.history(session.stack(), &source).await?;
        let mut believed = 0;
        for (dir, id) in history.iter().rev().take(LOOKED_AT) {
            match vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), &signers).await {
                Ok(_) => believed += 1,
                Err(VaultError::Signature { source: SignatureError::UnknownSigner { fingerprint }, .. }) => {
                    strangers.insert(fingerprint);
                }
                // What is damaged is for `verify` to name.
                Err(_) => {}
            }
        }
        printer.talk(&format!(
            "vault {} holds {} of `{source}`; of the newest {}, {believed} are believed here",
            vault.name(),
            words::count(history.len(), "snapshot"),
            history.len().min(LOOKED_AT)
        ));
    }
    for fingerprint in strangers {
        printer.warn(
            &format!("vault `{}` holds snapshots signed by {fingerprint}, who is not pinned here", vault.name()),
            &format!(
                "if it is the host before this one, put its line (on the recovery sheet) into `{}`, then print the sheet of this host \
                 again, which names everybody there: `backup key sheet`",
                session.config.keys.signers.display()
            ),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_an_address_is_read_back_as_that_address() {
        let recipient = age::x25519::Identity::generate().to_public();
        let text = format!(
            "schema = 1\nstack = \"s\"\n[keys]\nrecipients = [\"{recipient}\"]\n[source.f]\ntype = \"files\"\npaths = [\"/f\"]"
        );
        for place in [
            "/srv/back \"up\"\\x",
            "s3+https://minio.dr.example:9000/b/v?region=us-east-1&ca=/etc/backup/minio-ca.pem",
            "s3+https://s3.example/b?region=eu-west-1&style=host",
        ] {
            let address = Address::parse(place).unwrap().unwrap();
            let whole = joined(&text, &table("far", &address).unwrap());
            let config =
                Config::parse(&whole, Path::new("/etc/backup/b.toml")).unwrap_or_else(|e| panic!("{e:?}\n{whole}"));
            assert_eq!(Address::of(&config.vault("far").unwrap().place), address, "{whole}");
            assert!(whole.starts_with(&text));
        }
    }
}

//! `backup init`.

use std::path::Path;

use backup_core::config::{self, Config, Place};
use backup_core::id::VaultId;
use backup_core::recover::RECOVER;
use backup_core::signature::HostKey;
use backup_core::vault::{Vault, VaultError};
use rustix::fs::{Gid, Uid};
use serde_json::json;

use crate::address::Address;
use crate::context::Context;
use crate::error::CliError;
use crate::exit::Exit;
use crate::locks;
use crate::session::{Session, TOOL};
use crate::sheet::Sheet;

/// Make the configured vaults and print the recovery sheet
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Take over the vault that lies at this configured place: pin its id instead of making one
    #[arg(long, value_name = "NAME")]
    pub(crate) adopt: Option<String>,
    /// Show what would be made
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Makes what is missing, pins ids in the configuration file, prints the sheet. Doing it twice changes nothing. Exit 3
/// when a vault that was made before cannot be used now.
pub(crate) async fn run(cx: &Context, args: &Args) -> Result<Exit, CliError> {
    let session = Session::open(cx)?;
    let key = session.host_key()?;
    if let Some(name) = args.adopt.as_deref().filter(|name| session.config.vault(name).is_none()) {
        return Err(CliError::usage(format!("there is no vault `{name}` in the configuration"))
            .hint("add a `[vault.NAME]` table without `id` for it first"));
    }
    let mut made = Vec::new();
    let mut end = Exit::Done;
    for vault in &session.config.vaults {
        let adopt = args.adopt.as_deref() == Some(vault.name.as_str());
        let done = match one(&session, &key, vault, adopt, args.dry_run).await {
            Ok(done) => done,
            // It was made once, and its id is on the sheet: the others and the sheet need not wait for it.
            Err(error) if vault.id.is_some() => {
                let text = format!("vault `{}` cannot be used: {}", vault.name, error.message());
                cx.printer.warn(&text, error.advice().unwrap_or("the other vaults are used"));
                end = end.worse(error.as_part());
                "not reached"
            }
            Err(error) => return Err(error),
        };
        made.push((vault.name.clone(), Address::of(&vault.place).to_string(), done));
    }
    // Read again: the ids that were just written belong on the sheet.
    let config = if args.dry_run { session.config.clone() } else { cx.config()? };
    let sheet = Sheet::new(&config, &key);
    let vaults: Vec<_> =
        made.iter().map(|(name, address, done)| json!({ "name": name, "address": address, "done": done })).collect();
    for (name, address, done) in &made {
        cx.printer.talk(&format!("vault {name}: {done} ({address})"));
    }
    cx.printer.result("init", json!({ "vaults": vaults, "sheet": sheet.to_json() }), || sheet.text())?;
    Ok(end)
}

async fn one(
    session: &Session<'_>,
    key: &HostKey,
    vault: &config::Vault,
    adopt: bool,
    dry_run: bool,
) -> Result<&'static str, CliError> {
    if vault.id.is_some() {
        let open = session.vault(vault, !dry_run).await?;
        if !dry_run {
            open.put_recover(RECOVER, key).await?;
        }
        return Ok("there already");
    }
    if dry_run {
        return Ok(if adopt { "would be adopted" } else { "would be made" });
    }
    if let Place::Path(path) = &vault.place {
        make_folder(path)?;
    }
    locks::require(session, vault).await?;
    let store = session.store(vault, true).await?;
    let (open, done) = if adopt {
        (Vault::open(&vault.name, store, None).await?, "adopted")
    } else {
        let now = session.cx.clock.now();
        let made = Vault::create(&vault.name, store, new_id(), now, TOOL).await.map_err(|error| match error {
            VaultError::Occupied { .. } => CliError::from(error)
                .hint(format!("take it over with `backup init --adopt {}`, or choose another place", vault.name)),
            other => other.into(),
        })?;
        (made, "made")
    };
    open.put_recover(RECOVER, key).await?;
    pin(&session.config, &vault.name, open.id())?;
    Ok(done)
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
        CliError::new(Exit::Failed, format!("vault `{vault}` was made, but its id could not be written: {why}"))
            .hint(format!("add `id = \"{id}\"` below `[vault.{vault}]` in `{}`", config.file.display()))
    };
    let text = std::fs::read_to_string(&config.file).map_err(|error| by_hand(&error.to_string()))?;
    let pinned = insert(&text, vault, id).ok_or_else(|| by_hand("there is no line `[vault.NAME]`"))?;
    let parsed = Config::parse(&pinned, &config.file).map_err(|error| by_hand(&error.to_string()))?;
    if parsed.vault(vault).and_then(|vault| vault.id.as_ref()) != Some(id) {
        return Err(by_hand("the table was not found"));
    }
    replace(&config.file, &pinned).map_err(|error| by_hand(&error.to_string()))
}

fn insert(text: &str, vault: &str, id: &VaultId) -> Option<String> {
    let heading = |line: &str| {
        let bare: String = line.split('#').next().unwrap_or("").chars().filter(|c| !c.is_whitespace()).collect();
        bare == format!("[vault.{vault}]") || bare == format!("[vault.\"{vault}\"]")
    };
    let mut out = String::new();
    let mut found = false;
    for line in text.split_inclusive('\n') {
        out.push_str(line);
        if !found && heading(line) {
            found = true;
            if !line.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&format!("id = \"{id}\"\n"));
        }
    }
    found.then_some(out)
}

/// Replaces a file by a new one beside it, with the same owner and mode: never half a configuration, and none that its
/// readers cannot read. The new one has a name of its own, so that what a killed process left is in nobody's way.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    let beside = path.with_extension(format!("toml.{}.new", hex::encode(random)));
    let written = write_like(&path, &beside, text).and_then(|()| std::fs::rename(&beside, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Writes a new file that belongs to whom `like` belongs to.
fn write_like(like: &Path, new: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let old = std::fs::metadata(like)?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    let made = file.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        rustix::fs::fchown(&file, Some(Uid::from_raw(old.uid())), Some(Gid::from_raw(old.gid())))?;
    }
    file.set_permissions(old.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_below_its_heading_only() {
        let id: VaultId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let text = "a = 1\n[vault.b]\npath = \"x\"\n [ vault.a ] # here\npath = \"y\"\n";
        let pinned = insert(text, "a", &id).unwrap();
        let expected = text.replace("# here\n", "# here\nid = \"0123456789abcdef0123456789abcdef\"\n");
        assert_eq!(pinned, expected);
        assert_eq!(insert(text, "c", &id), None);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_owner_and_a_leftover_is_in_nobodys_way() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backup.toml");
        std::fs::write(&file, "old").unwrap();
        std::fs::write(dir.path().join("backup.toml.new"), "left by a killed process").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away; others keep what they have, which must not change either.
        let given = std::os::unix::fs::chown(&file, Some(4321), Some(4322)).is_ok();
        let before = std::fs::metadata(&file).unwrap();
        replace(&file, "new").unwrap();
        let after = std::fs::metadata(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
        assert!(!given || after.uid() == 4321);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing of its own is left");
        assert!(replace(&dir.path().join("none.toml"), "new").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

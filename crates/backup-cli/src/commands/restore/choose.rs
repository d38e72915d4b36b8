//! Which snapshots: the newest, the newest not later than an instant, one by id, or those of a run.

use backup_core::catalogue::{self, Listed};
use backup_core::id::SourceName;
use backup_core::seal::key::Identities;
use backup_core::snapshot::OpenSnapshot;
use backup_core::vault::document::SnapshotDoc;
use chrono::{DateTime, Utc};

use super::{Args, Scene};
use crate::error::CliError;
use crate::exit::Exit;
use crate::when;

/// The chosen snapshot of each source, opened: signature, key and manifest are good.
pub(super) async fn snapshots(
    scene: &Scene<'_>,
    args: &Args,
    identities: &Identities,
) -> Result<Vec<(SourceName, OpenSnapshot)>, CliError> {
    let at = args.at.as_deref().map(|text| when::parse(text, scene.cx.clock.now(), scene.timezone)).transpose()?;
    if let Some(at) = at {
        scene.cx.printer.talk(&format!("as of {}", at.format("%F %T UTC")));
    }
    let mut chosen = Vec::new();
    for source in sources(scene, args).await? {
        let (listed, silent) = catalogue::snapshots(&scene.vaults, &scene.stack, &source).await;
        if let Some((_, error)) = silent.into_iter().next()
            && listed.is_empty()
        {
            return Err(error.into());
        }
        let Some(one) = one(scene, args, &listed, at).await? else { continue };
        chosen.push((source, open(scene, one, identities).await?));
    }
    if chosen.is_empty() {
        let vaults: Vec<&str> = scene.vaults.iter().map(backup_core::vault::Vault::name).collect();
        return Err(CliError::usage(format!("no such snapshot of stack `{}` in {}", scene.stack, vaults.join(", ")))
            .hint("see what is there with `backup list`"));
    }
    Ok(chosen)
}

async fn sources(scene: &Scene<'_>, args: &Args) -> Result<Vec<SourceName>, CliError> {
    if !args.source.is_empty() {
        return Ok(args.source.clone());
    }
    let mut all: Vec<SourceName> =
        scene.config.iter().flat_map(|config| config.sources.iter().map(|source| source.name.clone())).collect();
    // What lies in a vault comes back also when the configuration does not know it any more.
    for vault in &scene.vaults {
        for source in vault.sources(&scene.stack).await? {
            if !all.contains(&source) {
                all.push(source);
            }
        }
    }
    Ok(all)
}

async fn one<'a>(
    scene: &Scene<'_>,
    args: &Args,
    listed: &'a [Listed],
    at: Option<DateTime<Utc>>,
) -> Result<Option<&'a Listed>, CliError> {
    if let Some(id) = &args.id {
        let matching: Vec<&Listed> = listed
            .iter()
            .filter(|one| one.id.as_str() == id || one.id.short() == id || one.id.as_str().starts_with(id))
            .collect();
        return match matching.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            several => {
                let ids: Vec<&str> = several.iter().map(|one| one.id.as_str()).collect();
                Err(CliError::usage(format!("`{id}` could be {}", ids.join(", "))).hint("give the whole id"))
            }
        };
    }
    if let Some(run) = &args.run {
        for one in listed.iter().rev() {
            for vault in &one.vaults {
                let signed = vault.get_signed::<SnapshotDoc>(&one.dir.snapshot(&one.id, ".json"), &scene.signers).await;
                if signed.is_ok_and(|signed| signed.doc.run == *run) {
                    return Ok(Some(one));
                }
            }
        }
        return Ok(None);
    }
    Ok(catalogue::newest(listed, at))
}

/// Opens it from the first vault where it is good. A vault where it is damaged is named; another may have a good copy.
async fn open(scene: &Scene<'_>, one: &Listed, identities: &Identities) -> Result<OpenSnapshot, CliError> {
    let mut first: Option<CliError> = None;
    for vault in &one.vaults {
        let path = one.dir.snapshot(&one.id, ".json");
        let opened = async {
            let signed = vault.get_signed::<SnapshotDoc>(&path, &scene.signers).await?;
            let opened = OpenSnapshot::open(vault, &signed, identities).await?;
            let others = one.vaults.iter().filter(|other| other.name() != vault.name()).cloned().collect();
            Ok::<_, CliError>(opened.with_spares(others, scene.monitor.clone()))
        };
        match opened.await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) => {
                if one.vaults.len() > 1 && error.exit() != Exit::WrongKey {
                    scene.cx.printer.warn(error.message(), "trying the next vault");
                }
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| CliError::new(Exit::Failed, format!("no vault lists `{}`", one.id))))
}

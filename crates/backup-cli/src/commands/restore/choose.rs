//! Which snapshots: the newest, the newest not later than an instant, one by id, or those of a run.
//!
//! Nothing is left out in silence: a source without such a snapshot is missing, a snapshot that cannot be opened is a
//! reason not to start, a vault that does not answer is named.

use backup_core::catalogue::{self, Listed};
use backup_core::id::SourceName;
use backup_core::seal::key::Identities;
use backup_core::signature::SignatureError;
use backup_core::snapshot::OpenSnapshot;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::{Signed, Vault, VaultError};
use chrono::{DateTime, Utc};

use super::part::{self, Fit};
use super::{Args, Scene};
use crate::error::CliError;
use crate::exit::Exit;
use crate::find::{self, Found};
use crate::when;

/// Older snapshots that are tried where the chosen one cannot be opened, to name one that can.
const LOOKED_AT: usize = 8;

/// What a restore is about.
pub(super) struct Choice {
    /// Opened: signature, key and manifest are good.
    pub(super) chosen: Vec<Chosen>,
    /// Sources that have no such snapshot, as far as can be known, with the reason.
    pub(super) missing: Vec<(SourceName, CliError)>,
    /// Why the restore must not start.
    pub(super) refused: Vec<CliError>,
    /// Vaults that did not answer.
    pub(super) silent: Vec<(String, CliError)>,
}

/// A source's snapshot.
pub(super) struct Chosen {
    pub(super) source: SourceName,
    pub(super) snapshot: OpenSnapshot,
    /// For a suspect one: the newest that is not.
    pub(super) unsuspected: Option<SnapshotId>,
}

/// The chosen snapshot of each source.
pub(super) async fn snapshots(scene: &Scene<'_>, args: &Args, identities: &Identities) -> Result<Choice, CliError> {
    let at = args.at.as_deref().map(|text| when::parse(text, scene.cx.clock.now(), scene.timezone)).transpose()?;
    if let Some(at) = at {
        scene.cx.printer.talk(&format!("as of {}", at.format("%F %T UTC")));
    }
    let configured = scene.config.iter().flat_map(|config| &config.sources).map(|source| source.name.clone());
    let (vaults, silent) = (scene.vaults.clone(), scene.silent.clone());
    let mut found = find::in_vaults(vaults, silent, &scene.stack, configured.collect(), &args.source).await?;
    found.require_one()?;
    let deleted = find::deleted(&found, &scene.signers, &scene.stack, &scene.cx.printer).await;
    found.add(deleted);
    for (name, error) in &found.silent {
        let text = format!("vault `{name}` does not answer: {}", error.message());
        scene.cx.printer.warn(&text, &format!("restore again with `--vault {name}` when it answers"));
    }
    let search = Search { scene, args, identities, at, found: &found };
    let (mut chosen, mut missing, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    // What could not be read tells more than what was not found.
    let mut unread = None;
    if let Some(id) = &args.id {
        let (source, one) = search.by_id(id)?;
        chosen.extend(search.open(source, one).await.map_err(|error| refused.push(error)).ok());
    } else {
        for source in found.sources.iter().filter(|source| search.is_wanted(source)) {
            match search.one(source).await {
                Ok(Some(one)) => match search.open(source, &one).await {
                    Ok(open) => chosen.push(open),
                    Err(error) => {
                        let error = search.hint_at_older(source, &one, error).await;
                        refused.push(error.about(format!("source `{source}`")));
                    }
                },
                Ok(None) => missing.push((source.clone(), search.nothing(Some(source)))),
                Err(error) => {
                    let error = error.about(format!("source `{source}`"));
                    unread = unread.or(Some(error.clone()));
                    missing.push((source.clone(), error));
                }
            }
        }
    }
    if chosen.is_empty() && refused.is_empty() {
        return Err(unread.unwrap_or_else(|| search.nothing(None)));
    }
    search.fit(&mut chosen, &mut refused);
    if chosen.is_empty() && refused.is_empty() {
        return Err(CliError::usage("no source is chosen that has such a part").hint("name one with `--source NAME`"));
    }
    Ok(Choice { chosen, missing, refused, silent: found.silent })
}

struct Search<'a> {
    scene: &'a Scene<'a>,
    args: &'a Args,
    identities: &'a Identities,
    at: Option<DateTime<Utc>>,
    found: &'a Found,
}

impl Search<'_> {
    fn by_id(&self, id: &str) -> Result<&(SourceName, Listed), CliError> {
        find::by_id_if_any(&self.found.listed, id)?.ok_or_else(|| self.nothing(None).about(format!("`{id}`")))
    }

    /// A source whose configured type has not the part that is asked for need not be looked for.
    fn is_wanted(&self, source: &SourceName) -> bool {
        let configured = self.scene.config.as_ref().and_then(|config| config.source(source.as_str()));
        configured.is_none_or(|configured| part::fit(self.args, source, configured.kind.word()) != Fit::LeftOut)
    }

    /// Drops snapshots without the part that is asked for, or refuses them where they were named.
    fn fit(&self, chosen: &mut Vec<Chosen>, refused: &mut Vec<CliError>) {
        chosen.retain(|one| match part::fit(self.args, &one.source, &one.snapshot.manifest().source_type) {
            Fit::Good => true,
            Fit::LeftOut => false,
            Fit::Refused(error) => {
                refused.push(error);
                false
            }
        });
    }

    async fn one(&self, source: &SourceName) -> Result<Option<Listed>, CliError> {
        let listed = self.listed(source);
        let one = match &self.args.run {
            Some(run) => self.of_run(run, &listed).await?,
            None => catalogue::newest(&listed, self.at),
        };
        Ok(one.cloned())
    }

    fn listed(&self, source: &SourceName) -> Vec<Listed> {
        self.found.of(source).into_iter().cloned().collect()
    }

    /// The snapshot that says it is of this run. One that cannot be read may be it: then "none" would be a guess.
    async fn of_run<'l>(&self, run: &str, listed: &'l [Listed]) -> Result<Option<&'l Listed>, CliError> {
        let mut unread = None;
        for one in listed.iter().rev() {
            match self.read_any(one).await {
                Ok(signed) if signed.doc.run == run => return Ok(Some(one)),
                Ok(_) => {}
                Err(error) => unread = unread.or(Some(error)),
            }
        }
        unread.map_or(Ok(None), Err)
    }

    /// The document from the first vault where it is good.
    async fn read_any(&self, one: &Listed) -> Result<Signed<SnapshotDoc>, CliError> {
        let mut first = None;
        for vault in &one.vaults {
            match self.read(vault, one).await {
                Ok(signed) => return Ok(signed),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| nowhere(one)))
    }

    async fn read(&self, vault: &Vault, one: &Listed) -> Result<Signed<SnapshotDoc>, CliError> {
        let path = one.dir.snapshot(&one.id, ".json");
        let signed = vault.get_signed(&path, &self.scene.signers).await;
        signed.map_err(|error| believed(error, self.scene.config.is_some()))
    }

    /// Opens it from the first vault where it is good. A vault where it is damaged is named; another may have a good
    /// copy.
    async fn open(&self, source: &SourceName, one: &Listed) -> Result<Chosen, CliError> {
        let mut first: Option<CliError> = None;
        for vault in &one.vaults {
            let opened = async {
                let signed = self.read(vault, one).await?;
                let opened = OpenSnapshot::open(vault, &signed, self.identities).await;
                let opened =
                    opened.inspect_err(|error| self.scene.met.note(vault, &one.dir, error))?.noting(&self.scene.met);
                // Another vault's copy of an object serves where this one's turns out to be damaged.
                let others = one.vaults.iter().filter(|other| other.name() != vault.name()).cloned().collect();
                Ok::<_, CliError>(opened.with_spares(others, self.scene.monitor.clone()))
            };
            match opened.await {
                Ok(snapshot) => {
                    let suspect = one.id.is_suspect() || !snapshot.manifest().suspect.is_empty();
                    let unsuspected = if suspect { unsuspected(&self.listed(source), self.at) } else { None };
                    return Ok(Chosen { source: source.clone(), snapshot, unsuspected });
                }
                Err(error) => {
                    if one.vaults.len() > 1 && error.exit() != Exit::WrongKey {
                        self.scene.cx.printer.warn(error.message(), "trying the next vault");
                    }
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or_else(|| nowhere(one)))
    }

    /// The error of a damaged snapshot, with the newest one before it that can be read. It is not taken by itself: whoever restores
    /// must know that it is not the newest. Where a vault fails or a key is missing, an older one would be no answer.
    async fn hint_at_older(&self, source: &SourceName, one: &Listed, error: CliError) -> CliError {
        if self.args.run.is_some() || error.exit() != Exit::Damage {
            return error;
        }
        let listed = self.listed(source);
        for older in listed.iter().rev().filter(|older| older.id < one.id && !older.id.is_imported()).take(LOOKED_AT) {
            match self.open(source, older).await {
                Ok(_) => {
                    let suspect = if older.id.is_suspect() { ", which is suspect" } else { "" };
                    let also = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
                    return error.hint(format!(
                        "the newest of `{source}` before it that can be read is `{}`{suspect}: `backup restore {}`, without `--latest`, `--at` \
                         and `--source`, brings it back alone{also}",
                        older.id, older.id
                    ));
                }
                Err(error) if error.exit() == Exit::Damage => {}
                Err(_) => break,
            }
        }
        error
    }

    /// There is no such snapshot, of one source or at all. While a vault is silent that is no wrong call.
    fn nothing(&self, source: Option<&SourceName>) -> CliError {
        let of = source.map_or_else(|| format!("stack `{}`", self.scene.stack), |source| format!("source `{source}`"));
        let vaults: Vec<&str> = self.found.vaults.iter().map(Vault::name).collect();
        let which = self.args.run.as_ref().map_or_else(String::new, |run| format!(" of run `{run}`"));
        let message = format!("there is no such snapshot{which} of {of} in {}", vaults.join(", "));
        if let Some((name, error)) = self.found.silent.first() {
            let exit = if source.is_some() { Exit::Failed } else { error.exit() };
            return CliError::new(exit, format!("{message}, and vault `{name}` does not answer"))
                .hint(format!("restore again with `--vault {name}` when it answers"));
        }
        let exit = if source.is_some() { Exit::Failed } else { Exit::Usage };
        CliError::new(exit, message).hint(if source.is_some() && self.args.run.is_some() {
            "name the sources of that run with `--source NAME`"
        } else if self.args.run.is_some() && self.scene.config.is_some() {
            "give the run's whole id, as `backup runs` shows it"
        } else if self.scene.config.is_some() {
            "see what is there with `backup list`"
        } else {
            "check `--stack`, or name another vault with `--vault ADDRESS`; `--latest --dry-run` shows what is there"
        })
    }
}

fn nowhere(one: &Listed) -> CliError {
    CliError::new(Exit::Failed, format!("no vault lists `{}`", one.id))
}

/// An error of reading a snapshot. In a restore nobody shall be led to pin whoever happens to have signed.
fn believed(error: VaultError, configured: bool) -> CliError {
    let unknown = matches!(&error, VaultError::Signature { source, .. } if matches!(source, SignatureError::UnknownSigner { .. }));
    let converted = CliError::from(error);
    if unknown && !configured {
        converted.hint(
            "give every signer that the recovery sheet names: `--signer SHA256:…`, again for each further one; or restore from \
             another vault with `--vault URL`, or an older snapshot by its ID",
        )
    } else if unknown {
        converted.hint(
            "restore from another vault with `--vault NAME`, or an older snapshot by its ID; only if you know the key, pin it: \
             `--vault NAME --signer SHA256:…` for this restore, or its line in the file that `keys.signers` names",
        )
    } else {
        converted
    }
}

/// The newest snapshot that is not suspect.
fn unsuspected(listed: &[Listed], at: Option<DateTime<Utc>>) -> Option<SnapshotId> {
    let good: Vec<Listed> = listed.iter().filter(|one| !one.id.is_suspect()).cloned().collect();
    catalogue::newest(&good, at).map(|one| one.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::vault::layout::GenerationDir;

    #[test]
    fn the_newest_unsuspected_snapshot_is_not_later_than_asked() {
        let listed = |id: &str| {
            let (stack, source) = ("s".parse().unwrap(), "db".parse().unwrap());
            let dir = GenerationDir { stack, source, id: "2026-11-21--7d--00112233".parse().unwrap() };
            Listed { dir, id: id.parse().unwrap(), vaults: Vec::new() }
        };
        let all = [
            listed("20261119T020000Z-10r-aaa111"),
            listed("20261120T020000Z-10r-bbb222"),
            listed("20261121T020000Z-0r-ccc333-suspect"),
        ];
        let short = |at: Option<&str>| {
            let at = at.map(|at| at.parse().unwrap());
            unsuspected(&all, at).map(|id| id.short().to_owned())
        };
        assert_eq!(short(None).as_deref(), Some("bbb222"));
        assert_eq!(short(Some("2026-11-20T01:00:00Z")).as_deref(), Some("aaa111"));
        assert_eq!(short(Some("2026-11-18T01:00:00Z")), None);
        assert_eq!(unsuspected(&all[2..], None), None);
    }

    #[test]
    fn a_restore_does_not_lead_to_pinning_a_stranger() {
        let error = |source| VaultError::Signature { path: "p".into(), vault: "v".into(), source };
        let unknown = || error(SignatureError::UnknownSigner { fingerprint: "SHA256:x".into() });
        let bare = believed(unknown(), false);
        assert!(bare.advice().unwrap().contains("recovery sheet") && !bare.advice().unwrap().contains("keys.signers"));
        let stranger = believed(unknown(), true);
        assert_eq!(stranger.exit(), Exit::WrongKey);
        assert!(stranger.advice().unwrap().starts_with("restore from another vault"), "{stranger:?}");
        let altered = believed(error(SignatureError::Mismatch), true);
        assert_eq!(altered.exit(), Exit::Damage);
        assert!(!altered.advice().unwrap().contains("pin"), "{altered:?}");
    }
}

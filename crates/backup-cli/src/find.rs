//! Snapshots over all vaults that answer, and the one that a person means.
//!
//! By names alone: nothing that is found here is believed yet. Whoever reads a snapshot checks its signature.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::catalogue::{self, Listed};
use backup_core::hidden::{self, Hidden};
use backup_core::id::{SourceName, StackName};
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::layout::SnapshotId;
use serde_json::{Value, json};

use crate::commands::silent;
use crate::error::CliError;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::session::Session;
use crate::words;

/// So many candidates are named when an id is ambiguous.
const NAMED: usize = 6;

/// What to do where it could not be looked whether documents were deleted.
pub(crate) const UNSEEN_ADVICE: &str = "look with a key that may read a bucket's versioning, list its versions and read them \
                                        (`s3:GetBucketVersioning`, `s3:ListBucketVersions`, `s3:GetObjectVersion`)";

/// What the vaults list.
pub(crate) struct Found {
    /// Vaults that answered to the end.
    pub(crate) vaults: Vec<Vault>,
    /// Vaults that did not, with the reason.
    pub(crate) silent: Vec<(String, CliError)>,
    /// The sources that were asked for: configured ones, and those that are in a vault.
    pub(crate) sources: Vec<SourceName>,
    /// No source was asked for by name.
    pub(crate) all: bool,
    /// Snapshots with their sources: by source, oldest first.
    pub(crate) listed: Vec<(SourceName, Listed)>,
}

impl Found {
    /// Warns of every vault that did not answer; then the end is partial at best.
    pub(crate) fn warn(&self, session: &Session<'_>) -> Exit {
        for (name, error) in &self.silent {
            let hint = error.advice().unwrap_or("check that it can be reached");
            session.cx.printer.warn(&format!("vault `{name}` does not answer: {}", error.message()), hint);
        }
        if self.silent.is_empty() { Exit::Done } else { Exit::Partial }
    }

    /// The silent vaults for JSON.
    pub(crate) fn silent_json(&self) -> Value {
        self.silent.iter().map(|(name, error)| json!({ "vault": name, "error": error.to_json() })).collect()
    }

    /// An error if no vault answered at all: then "nothing found" would be a lie.
    pub(crate) fn require_one(&self) -> Result<(), CliError> {
        match silent::none(&self.silent) {
            Some(error) if self.vaults.is_empty() => Err(error),
            _ => Ok(()),
        }
    }

    /// Snapshots of one source, oldest first.
    pub(crate) fn of(&self, source: &SourceName) -> Vec<&Listed> {
        self.listed.iter().filter(|(name, _)| name == source).map(|(_, listed)| listed).collect()
    }
}

/// Asks the vaults (or `vault` alone) for the snapshots of all sources (or `only`): the configured ones, and those that
/// are in a vault and no longer configured.
pub(crate) async fn snapshots(
    session: &Session<'_>,
    only: &[SourceName],
    vault: Option<&str>,
) -> Result<Found, CliError> {
    let (vaults, silent) = session.vaults(vault, false).await?;
    let configured = session.config.sources.iter().map(|source| source.name.clone()).collect();
    in_vaults(vaults, silent, session.stack(), configured, only).await
}

/// The same for vaults that are open already, beside those that are `silent` already.
pub(crate) async fn in_vaults(
    mut vaults: Vec<Vault>,
    mut silent: Vec<(String, CliError)>,
    stack: &StackName,
    configured: BTreeSet<SourceName>,
    only: &[SourceName],
) -> Result<Found, CliError> {
    let mut sources = configured;
    for vault in &vaults {
        match vault.sources(stack).await {
            Ok(names) => sources.extend(names),
            Err(error) => silent.push((vault.name().to_owned(), error.into())),
        }
    }
    if only.iter().any(|name| !sources.contains(name)) {
        // One of which every file was deleted is in no listing, and a bucket with versions remembers it.
        for vault in &vaults {
            sources.extend(vault.sources_ever(stack).await.unwrap_or_default());
        }
    }
    // With no vault to ask, nobody knows what there is: `require_one` tells that.
    let asked = vaults.iter().any(|vault| !is_silent(&silent, vault));
    if let Some(name) = only.iter().find(|name| asked && !sources.contains(name)) {
        let known: Vec<String> = sources.iter().map(|source| format!("`{source}`")).collect();
        return Err(CliError::usage(format!("there is no source `{name}` in the configuration or the vaults"))
            .hint(format!("choose one of {}", known.join(", "))));
    }
    sources.retain(|source| only.is_empty() || only.contains(source));
    let mut listed = Vec::new();
    for source in &sources {
        let asked: Vec<Vault> = vaults.iter().filter(|vault| !is_silent(&silent, vault)).cloned().collect();
        let (found, failed) = catalogue::snapshots(&asked, stack, source).await;
        listed.extend(found.into_iter().map(|found| (source.clone(), found)));
        silent.extend(failed.into_iter().map(|(name, error)| (name, error.into())));
    }
    vaults.retain(|vault| !is_silent(&silent, vault));
    Ok(Found { vaults, silent, sources: sources.into_iter().collect(), all: only.is_empty(), listed })
}

/// A snapshot whose own document was deleted in a vault, and lies there in an older version.
pub(crate) struct Deleted {
    pub(crate) vault: Vault,
    pub(crate) source: SourceName,
    pub(crate) hidden: Hidden,
}

/// Looks for them in every vault that answers, and warns of what it finds; asks little where no versions are kept. A vault that
/// fails at this is warned of and goes on to be used: what it lists is as good as before.
pub(crate) async fn deleted(found: &Found, signers: &Signers, stack: &StackName, printer: &Printer) -> Vec<Deleted> {
    let mut all = Vec::new();
    for vault in &found.vaults {
        let mut sources: BTreeSet<SourceName> = found.sources.iter().cloned().collect();
        if found.all {
            // Of a source of which every file was deleted no listing has a name.
            sources.extend(vault.sources_ever(stack).await.unwrap_or_default());
        }
        let mut unseen = BTreeSet::new();
        for source in &sources {
            match hidden::snapshots(vault, signers, (stack, source)).await {
                Ok(some) => {
                    unseen.extend(some.unseen);
                    all.extend(some.snapshots.into_iter().map(|hidden| Deleted {
                        vault: vault.clone(),
                        source: source.clone(),
                        hidden,
                    }));
                }
                Err(error) => {
                    let error = CliError::from(error);
                    let text =
                        format!("vault `{}` does not tell what was deleted there: {}", vault.name(), error.message());
                    printer.warn(&text, error.advice().unwrap_or("repeat this when it answers"));
                    break;
                }
            }
        }
        for text in unseen {
            printer.detail(&format!("vault `{}`: {text}", vault.name()));
        }
    }
    let mut by_vault: BTreeMap<&str, Vec<&SnapshotId>> = BTreeMap::new();
    for one in &all {
        by_vault.entry(one.vault.name()).or_default().push(&one.hidden.id);
    }
    for (vault, ids) in by_vault {
        let (text, hint) = deleted_text(vault, &ids);
        printer.warn(&text, &hint);
    }
    all
}

/// What to say of those of one vault, and what to do.
pub(crate) fn deleted_text(vault: &str, ids: &[&SnapshotId]) -> (String, String) {
    let named: Vec<String> = ids.iter().take(NAMED).map(|id| format!("`{id}`")).collect();
    let more = ids.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!(
        "vault `{vault}`: somebody deleted the documents of {}, and older versions hold them: {}{more}",
        words::count(ids.len(), "snapshot"),
        named.join(", ")
    );
    let hint = "put them back with `backup verify --repair`, or restore them by `backup restore ID` as they are; see who may delete \
                there with `backup doctor`";
    (text, hint.to_owned())
}

impl Found {
    /// Takes them among what is listed, for a vault that reads older versions.
    pub(crate) fn add(&mut self, deleted: Vec<Deleted>) {
        for Deleted { vault, source, hidden } in deleted {
            let (dir, id) = (hidden.dir, hidden.id);
            let same = |(_, one): &&mut (SourceName, Listed)| one.id == id && one.dir == dir;
            if !self.sources.contains(&source) {
                self.sources.push(source.clone());
                self.sources.sort();
            }
            match self.listed.iter_mut().find(same) {
                Some((_, listed)) => listed.vaults.push(vault),
                None => self.listed.push((source, Listed { dir, id, vaults: vec![vault] })),
            }
        }
        self.listed.sort_by(|(a, one), (b, other)| (a, &one.id, &one.dir).cmp(&(b, &other.id, &other.dir)));
    }
}

fn is_silent(silent: &[(String, CliError)], vault: &Vault) -> bool {
    silent.iter().any(|(name, _)| name == vault.name())
}

/// The snapshot that `text` names; that there is none is an error.
pub(crate) fn by_id<'a>(listed: &'a [(SourceName, Listed)], text: &str) -> Result<&'a (SourceName, Listed), CliError> {
    by_id_if_any(listed, text)?.ok_or_else(|| {
        CliError::usage(format!("there is no snapshot `{text}`")).hint("see the snapshots with `backup list`")
    })
}

/// The snapshot that `text` names: its whole id, its six characters, or the start of either, if only one fits.
pub(crate) fn by_id_if_any<'a>(
    listed: &'a [(SourceName, Listed)],
    text: &str,
) -> Result<Option<&'a (SourceName, Listed)>, CliError> {
    let whole = |id: &str, short: &str| id == text || short == text;
    let start = |id: &str, short: &str| !text.is_empty() && (id.starts_with(text) || short.starts_with(text));
    let fitting = |fits: &dyn Fn(&str, &str) -> bool| -> Vec<&'a (SourceName, Listed)> {
        listed.iter().filter(|(_, one)| fits(one.id.as_str(), one.id.short())).collect()
    };
    let exact = fitting(&whole);
    let found = if exact.is_empty() { fitting(&start) } else { exact };
    match found.as_slice() {
        [one] => Ok(Some(one)),
        [] => Ok(None),
        several => {
            let names: Vec<String> =
                several.iter().take(NAMED).map(|(source, one)| format!("`{}` of `{source}`", one.id)).collect();
            let more = several.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Err(CliError::usage(format!("`{text}` may be {}{more}", names.join(", ")))
                .hint("give more characters, or the whole id"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::vault::layout::GenerationDir;
    use backup_core::vault::local::{LocalOptions, LocalStore};
    use std::sync::Arc;

    fn listed(source: &str, id: &str) -> (SourceName, Listed) {
        let source: SourceName = source.parse().unwrap();
        let generation = "2026-11-21--7d--00112233".parse().unwrap();
        let dir = GenerationDir { stack: "s".parse().unwrap(), source: source.clone(), id: generation };
        (source, Listed { dir, id: id.parse().unwrap(), vaults: Vec::new() })
    }

    #[tokio::test]
    async fn a_vault_that_fails_is_silent_and_the_others_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let vault = async |name: &str| {
            let (path, id) = (folder.path().join(name), "0".repeat(32).parse().unwrap());
            std::fs::create_dir(&path).unwrap();
            let store = Arc::new(LocalStore::open(&path, LocalOptions::default()).unwrap());
            Vault::create(name, store, id, chrono::DateTime::default(), "test").await.unwrap()
        };
        let (good, bad) = (vault("good").await, vault("bad").await);
        let generation = folder.path().join("good/s/db/2026-11-21--7d--00112233");
        std::fs::create_dir_all(&generation).unwrap();
        std::fs::write(generation.join("generation.json"), "{}").unwrap();
        // A link where the stack's folder should be is not followed: the listing fails.
        std::os::unix::fs::symlink("../good/s", folder.path().join("bad/s")).unwrap();
        let look = async |vaults: &[&Vault], only: &str| {
            let vaults = vaults.iter().map(|vault| (*vault).clone()).collect();
            in_vaults(vaults, Vec::new(), &"s".parse().unwrap(), BTreeSet::new(), &[only.parse().unwrap()]).await
        };
        let both = look(&[&bad, &good], "db").await.unwrap();
        let names: Vec<&str> = both.silent.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, both.vaults.len(), both.sources.len()), (vec!["bad"], 1, 1));
        assert_eq!(both.require_one(), Ok(()));

        let unknown = look(&[&bad, &good], "dv").await.err().unwrap();
        assert_eq!(unknown.exit(), Exit::Usage);
        assert_eq!(unknown.advice(), Some("choose one of `db`"));
        let none = look(&[&bad], "db").await.unwrap().require_one().unwrap_err();
        assert!(none.message().starts_with("no vault answers: `bad`"), "{none:?}");
    }

    #[test]
    fn finds_by_whole_id_short_id_and_unique_start() {
        let all = [
            listed("db", "20261120T020000Z-10r-abc234"),
            listed("db", "20261121T020000Z-10r-abd234-suspect"),
            listed("files", "20261121T020001Z-99b-xyz234"),
        ];
        let find = |text: &str| by_id(&all, text).map(|(source, one)| format!("{source} {}", one.id.short()));
        assert_eq!(find("20261121T020000Z-10r-abd234-suspect"), Ok("db abd234".into()));
        assert_eq!(find("abc234"), Ok("db abc234".into()));
        assert_eq!(find("abd"), Ok("db abd234".into()));
        assert_eq!(find("20261120"), Ok("db abc234".into()));
        assert_eq!(find("x"), Ok("files xyz234".into()));

        for nothing in ["", "q", "234", "20261122"] {
            let error = find(nothing).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert_eq!(error.message(), format!("there is no snapshot `{nothing}`"));
        }
        let error = find("ab").unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert_eq!(
            error.message(),
            "`ab` may be `20261120T020000Z-10r-abc234` of `db`, `20261121T020000Z-10r-abd234-suspect` of `db`"
        );
    }

    #[test]
    fn an_exact_name_wins_over_a_start_and_two_equal_ones_are_not_chosen_from() {
        let twice = [listed("db", "20261120T020000Z-10r-abc234"), listed("files", "20261121T020000Z-9b-abc234")];
        assert!(by_id(&twice, "abc234").unwrap_err().message().contains("of `files`"));
        // The whole id of one is the start of the other.
        let pair = [listed("db", "20261120T020000Z-10r-abc234"), listed("db", "20261120T020000Z-10r-abc234-suspect")];
        assert!(!by_id(&pair, "20261120T020000Z-10r-abc234").unwrap().1.id.is_suspect());
    }
}

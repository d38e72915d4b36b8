//! Snapshots over all vaults that answer, and the one that a person means.
//!
//! By names alone: nothing that is found here is believed yet. Whoever reads a snapshot checks its signature.

use std::collections::BTreeSet;

use backup_core::catalogue::{self, Listed};
use backup_core::id::SourceName;
use backup_core::vault::Vault;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;

/// So many candidates are named when an id is ambiguous.
const NAMED: usize = 6;

/// What the vaults list.
pub(crate) struct Found {
    /// Vaults that answered to the end.
    pub(crate) vaults: Vec<Vault>,
    /// Vaults that did not, with the reason.
    pub(crate) silent: Vec<(String, CliError)>,
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
        match self.silent.first() {
            Some((name, error)) if self.vaults.is_empty() => {
                let none = CliError::new(error.exit(), format!("no vault answers: `{name}`: {}", error.message()));
                Err(none.hint(error.advice().unwrap_or("check that the vaults can be reached")))
            }
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
    let stack = session.stack();
    let (mut vaults, mut silent) = session.vaults(vault, false).await?;
    let mut sources: BTreeSet<SourceName> = session.config.sources.iter().map(|source| source.name.clone()).collect();
    for vault in &vaults {
        match vault.sources(stack).await {
            Ok(names) => sources.extend(names),
            Err(error) => silent.push((vault.name().to_owned(), error.into())),
        }
    }
    if let Some(name) = only.iter().find(|name| !sources.contains(name)) {
        let known: Vec<String> = sources.iter().map(|source| format!("`{source}`")).collect();
        return Err(CliError::usage(format!("there is no source `{name}` in the configuration or the vaults"))
            .hint(format!("choose one of {}", known.join(", "))));
    }
    let mut listed = Vec::new();
    for source in sources.into_iter().filter(|source| only.is_empty() || only.contains(source)) {
        let asked: Vec<Vault> = vaults.iter().filter(|vault| !is_silent(&silent, vault)).cloned().collect();
        let (found, failed) = catalogue::snapshots(&asked, stack, &source).await;
        listed.extend(found.into_iter().map(|found| (source.clone(), found)));
        silent.extend(failed.into_iter().map(|(name, error)| (name, error.into())));
    }
    vaults.retain(|vault| !is_silent(&silent, vault));
    Ok(Found { vaults, silent, listed })
}

fn is_silent(silent: &[(String, CliError)], vault: &Vault) -> bool {
    silent.iter().any(|(name, _)| name == vault.name())
}

/// The snapshot that `text` names: its whole id, its six characters, or the start of either, if only one fits.
pub(crate) fn by_id<'a>(listed: &'a [(SourceName, Listed)], text: &str) -> Result<&'a (SourceName, Listed), CliError> {
    let whole = |id: &str, short: &str| id == text || short == text;
    let start = |id: &str, short: &str| !text.is_empty() && (id.starts_with(text) || short.starts_with(text));
    let fitting = |fits: &dyn Fn(&str, &str) -> bool| -> Vec<&'a (SourceName, Listed)> {
        listed.iter().filter(|(_, one)| fits(one.id.as_str(), one.id.short())).collect()
    };
    let exact = fitting(&whole);
    let found = if exact.is_empty() { fitting(&start) } else { exact };
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            Err(CliError::usage(format!("there is no snapshot `{text}`")).hint("see the snapshots with `backup list`"))
        }
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

    fn listed(source: &str, id: &str) -> (SourceName, Listed) {
        let source: SourceName = source.parse().unwrap();
        let generation = "2026-11-21--7d--00112233".parse().unwrap();
        let dir = GenerationDir { stack: "s".parse().unwrap(), source: source.clone(), id: generation };
        (source, Listed { dir, id: id.parse().unwrap(), vaults: Vec::new() })
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

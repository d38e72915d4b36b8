//! `verify --repair`: what is damaged in one vault is fetched from another configured one, and everything is looked at again.
//!
//! While files are put, and only then, the source's run lock is held: the reading before may take hours, and a run that is due
//! must not wait for it. What was found without the lock is looked at once more under it, file by file ([`repair`]).

use std::collections::BTreeSet;

use backup_core::config::Source;
use backup_core::repair::{Mend, Outcome, Repair, repair};
use backup_core::vault::Vault;
use backup_core::vault::store::StorePath;
use backup_core::verify::{Place, Verified, judge_recover};
use serde_json::{Value, json};

use super::{Look, Reading};
use crate::error::CliError;
use crate::lock::RunLock;
use crate::session::Session;

/// The lock that a run of the source takes as well; `None` where this machine has no state, and so makes no runs. Exit 11 where
/// another one holds it.
pub(super) fn lock(session: &Session<'_>, source: &Source) -> Result<Option<RunLock>, CliError> {
    match session.state_dir() {
        Ok(dir) if dir.is_dir() => RunLock::take(dir, session.stack(), &source.name).map(Some),
        _ => Ok(None),
    }
}

/// Looks after repairs: a document that is good again may show what else is missing.
const ROUNDS: usize = 3;

impl Look<'_> {
    /// Mends what was found, and what earlier calls found and remembered; gives what was found at last, what was done, and
    /// why it was not looked at once more, if so: what was done before that is told all the same.
    pub(super) async fn mended(
        &self,
        vault: &Vault,
        source: &Source,
        mut verified: Verified,
        reading: &mut Reading<'_>,
    ) -> (Verified, Vec<Mend>, Option<CliError>) {
        let mut mends: Vec<Mend> = Vec::new();
        if !self.repair {
            return (verified, mends, None);
        }
        for _ in 0..ROUNDS {
            let mut places: BTreeSet<Place> = verified.places.keys().cloned().collect();
            places.extend(self.known(vault, source).await);
            if places.is_empty() {
                break;
            }
            let made = {
                let held = if self.dry_run { Ok(None) } else { lock(self.session, source) };
                let _held = match held {
                    Ok(held) => held,
                    Err(error) => return (verified, mends, Some(error)),
                };
                self.repair_at(vault, source, &places).await
            };
            let progress = made.iter().any(Mend::is_made);
            reading.have_read(&verified, &made);
            for mend in made.into_iter().filter(|mend| !matches!(mend.outcome, Outcome::Good)) {
                // What was mended in an earlier round and is damaged again is told as it is now.
                mends.retain(|old| old.place != mend.place);
                mends.push(mend);
            }
            if !progress {
                break;
            }
            match reading.look(self, vault, source).await {
                Ok(again) => verified = again,
                Err(error) => return (verified, mends, Some(error.into())),
            }
        }
        (verified, mends, None)
    }

    async fn repair_at(&self, vault: &Vault, source: &Source, places: &BTreeSet<Place>) -> Vec<Mend> {
        let mut heads = Vec::new();
        if self.has_state()
            && let Ok(state) = self.session.state().await
        {
            heads.extend(state.newest(&source.name).await.ok().flatten());
        }
        repair(self.order(vault, &heads), places).await
    }

    fn order<'o>(&'o self, vault: &'o Vault, heads: &'o [(String, backup_core::id::Hash256)]) -> Repair<'o> {
        let (others, signers, dry_run) = (self.vaults, self.signers, self.dry_run);
        Repair { vault, others, signers, heads, at: self.session.cx.clock.now(), dry_run }
    }

    /// Objects of a source that earlier calls found damaged in a vault: a listing does not show them again.
    async fn known(&self, vault: &Vault, source: &Source) -> BTreeSet<Place> {
        if !self.has_state() {
            return BTreeSet::new();
        }
        let Ok(state) = self.session.state().await else { return BTreeSet::new() };
        let known = state.damage(vault.id()).await.unwrap_or_default().into_keys();
        let of_source = known.filter(|(dir, _)| dir.source == source.name);
        of_source.filter_map(|(dir, item)| Some(Place::Object(dir, item.parse().ok()?))).collect()
    }

    /// The recovery document of a vault: what is wrong with it, and what was done about it.
    pub(super) async fn recover(&self, vault: &Vault) -> Result<Recover, CliError> {
        let look = async || judge_recover(vault, self.signers, self.session.cx.clock.now()).await;
        let mut wrong = look().await?;
        let mut mends = Vec::new();
        if self.repair && wrong.is_some() {
            mends = repair(self.order(vault, &[]), &BTreeSet::from([Place::Recover])).await;
            wrong = look().await?;
        }
        Ok(Recover { vault: vault.name().to_owned(), wrong, mends })
    }
}

/// A vault's recovery document.
pub(super) struct Recover {
    /// The vault.
    pub(super) vault: String,
    /// What is wrong, and whether it is only that its signer is not pinned.
    pub(super) wrong: Option<(String, bool)>,
    /// What was done.
    pub(super) mends: Vec<Mend>,
}

/// Whether anything was to be repaired and is not.
pub(super) fn is_left(mends: &[Mend]) -> bool {
    mends.iter().any(|mend| matches!(mend.outcome, Outcome::Not(_) | Outcome::Mendable { .. }))
}

/// One line.
pub(super) fn line(mend: &Mend) -> String {
    match &mend.outcome {
        // It names the file itself.
        Outcome::Not(_) => mend.outcome.to_string(),
        outcome => format!("`{}` {outcome}", mend.place.path()),
    }
}

/// For `--json`.
pub(super) fn to_json(mend: &Mend) -> Value {
    let (word, from, aside) = match &mend.outcome {
        Outcome::Good => ("good", None, &[][..]),
        Outcome::Mended { from, aside } => ("repaired", Some(from), &aside[..]),
        Outcome::Mendable { from } => ("repairable", Some(from), &[][..]),
        Outcome::Not(_) => ("not-repaired", None, &[][..]),
    };
    let why = matches!(mend.outcome, Outcome::Not(_)).then(|| mend.outcome.to_string());
    let aside: Vec<&str> = aside.iter().map(StorePath::as_str).collect();
    json!({ "path": mend.place.path().as_str(), "outcome": word, "from": from, "kept_as": aside, "why": why })
}

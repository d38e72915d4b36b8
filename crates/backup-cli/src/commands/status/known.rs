//! What earlier calls found damaged and none has found good since: `verify` and `restore` write it into this host's state.
//!
//! Nothing is read here. What is gone with its generation is left out; what was mended by hand is forgotten by `verify`.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::id::SourceName;
use backup_core::vault::Vault;
use backup_core::vault::layout::GenerationDir;

use crate::error::{CliError, MEND};
use crate::exit::Exit;
use crate::find::Found;
use crate::session::Session;
use crate::words;

/// One for each vault and source with known damage, with their names and the number of objects.
pub(super) async fn damage(session: &Session<'_>, found: &Found) -> Vec<(String, SourceName, usize, CliError)> {
    let Some(state) = session.remembered().await else { return Vec::new() };
    let mut all = Vec::new();
    for vault in &found.vaults {
        let there: BTreeSet<&GenerationDir> =
            found.listed.iter().filter(|(_, one)| has(one, vault)).map(|(_, one)| &one.dir).collect();
        let mut by_source: BTreeMap<_, usize> = BTreeMap::new();
        for (dir, _) in state.damaged(vault.id()).await.unwrap_or_default() {
            if there.contains(&dir) {
                *by_source.entry(dir.source).or_default() += 1;
            }
        }
        for (source, number) in by_source {
            let objects = words::count(number, "damaged object");
            let text = format!("vault `{}`, source `{source}`: {objects} found by an earlier call", vault.name());
            all.push((vault.name().to_owned(), source, number, CliError::new(Exit::Damage, text).hint(MEND)));
        }
    }
    all
}

fn has(listed: &backup_core::catalogue::Listed, vault: &Vault) -> bool {
    listed.vaults.iter().any(|other| other.id() == vault.id())
}

//! What readers found damaged on their way, so that whoever asked for the data can remember it.
//!
//! A restore reads what no listing shows: bytes. What it finds there and takes from another vault, or fails at, would
//! otherwise be known to nobody a moment later. Noted is damage only (gone, too large, other bytes, bytes that do not open):
//! a vault that does not answer says nothing about its objects. Noting never fails and never changes what is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::SnapshotError;
use crate::id::{ObjectName, VaultId};
use crate::state::{State, StateError};
use crate::vault::layout::GenerationDir;
use crate::vault::store::StoreError;
use crate::vault::{Vault, VaultError};

/// Where an object lies: a vault, a generation, a name.
type At = (VaultId, GenerationDir, ObjectName);

/// Damaged objects that were met. Clones share what they note.
#[derive(Debug, Clone, Default)]
pub struct Met(Arc<Mutex<BTreeMap<At, Seen>>>);

/// How one was met.
#[derive(Debug, Clone)]
struct Seen {
    vault: String,
    /// Its bytes have the hash of its name: only opening it shows that it is damaged.
    deep: bool,
}

impl Met {
    /// Notes the object that an error is about, if the error is damage of one.
    pub fn note(&self, vault: &Vault, dir: &GenerationDir, error: &SnapshotError) {
        if let Some((name, deep)) = damaged(error) {
            let seen = Seen { vault: vault.name().to_owned(), deep };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((vault.id().clone(), dir.clone(), name), seen);
        }
    }

    /// How many objects were met damaged, by the name of their vault.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for seen in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *counts.entry(seen.vault.clone()).or_default() += 1;
        }
        counts
    }

    /// Writes down what was met, as [`crate::verify::remember`] does: the next run does not build on it, a prune of another
    /// vault does not count on it, and `status` and `verify` tell it until it is good again.
    pub async fn remember(&self, state: &State) -> Result<(), StateError> {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((vault, dir, name), seen) in met {
            state.forget(&dir, &name).await?;
            state.set_damaged(&vault, &dir, &name.to_string(), seen.deep).await?;
        }
        Ok(())
    }
}

/// The object that is damaged, and whether only opening it shows that.
fn damaged(error: &SnapshotError) -> Option<(ObjectName, bool)> {
    match error {
        SnapshotError::Object { name, .. } => Some((*name, true)),
        SnapshotError::Vault(
            VaultError::Damaged { path, .. }
            | VaultError::Store { source: StoreError::NotFound { path, .. } | StoreError::TooLarge { path, .. }, .. },
        ) => Some((path.rsplit('/').next()?.parse().ok()?, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_that_does_not_answer_says_nothing_about_its_objects() {
        let (name, vault) = (ObjectName::of(b"x"), "v".to_owned());
        let path = format!("s/g/objects/aa/{name}");
        let store = |source| SnapshotError::Vault(VaultError::Store { vault: vault.clone(), source });
        let gone = store(StoreError::NotFound { path: path.clone(), store: "/v".into() });
        assert_eq!(damaged(&gone), Some((name, false)));
        let bad = VaultError::Damaged { path, vault: vault.clone(), reason: "x".into() };
        assert_eq!(damaged(&SnapshotError::Vault(bad)), Some((name, false)));
        let away = store(StoreError::Missing { store: "/v".into(), reason: "not mounted".into() });
        assert_eq!(damaged(&away), None);
        let document = store(StoreError::NotFound { path: "s/g/snapshots/x.json".into(), store: "/v".into() });
        assert_eq!(damaged(&document), None, "only objects are remembered so");
    }
}

//! The newest snapshot of each source that this host made, as it remembers it. Nothing inside the vaults could show that their
//! newest snapshots were removed: what is left there is whole. So `verify`, `status` and `run` compare them with this.
//!
//! A vault that does not answer may hold it: nobody is told of a loss before all of them were asked.

use backup_core::config::Source;
use backup_core::id::{Hash256, SourceName};
use backup_core::prune::history;
use backup_core::signature::Signers;
use backup_core::vault::Vault;
use backup_core::vault::document::ReceiptDoc;

use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;

/// A source's newest snapshot by this host: its name, and the SHA-256 of its document.
pub(crate) type Head = (SourceName, (String, Hash256));

/// What to do where one is gone.
pub(crate) const ADVICE: &str = "see who may delete there with `backup doctor`; whoever has a copy of the vault puts its files back; what is \
     listed restores as before, the next run goes on, and after it `backup accept` of the snapshot that it made says that the gap is known";

/// What to do about a hole in the chain, after the snapshot with this short id.
pub(crate) fn hole_advice(short: &str) -> String {
    format!("see who may delete there with `backup doctor`; when it is known why, `backup accept {short}` closes it")
}

/// Those that are remembered. To be asked before the vaults are: a run that commits meanwhile would otherwise have made a snapshot
/// that no vault had a moment ago.
pub(crate) async fn remembered(session: &Session<'_>, sources: &[&Source]) -> Vec<Head> {
    let mut heads = Vec::new();
    let Some(state) = session.remembered().await else { return heads };
    for source in sources {
        if let Ok(Some(newest)) = state.newest(&source.name).await {
            heads.push((source.name.clone(), newest));
        }
    }
    heads
}

/// Whether believed receipts say why no vault has the snapshot: a purge in any of them, which goes for all, or in each of them that it
/// expired there, as the newest of a host does that has made none for long while another one went on. What one vault's rule let go another
/// one's may still keep: there it was removed by nobody who may.
pub(crate) async fn was_removed(
    session: &Session<'_>,
    vaults: &[Vault],
    signers: &Signers,
    (source, snapshot): (&SourceName, &str),
) -> bool {
    let mut expired = 0;
    for vault in vaults {
        let found = history::receipts(vault, signers, session.stack(), source).await;
        let names = |receipt: &&ReceiptDoc| receipt.snapshots.iter().any(|(id, _)| id.as_str() == snapshot);
        let naming: Vec<_> = found.iter().flatten().filter(names).collect();
        if naming.iter().any(|receipt| receipt.grounds.purge.is_some()) {
            return true;
        }
        expired += usize::from(!naming.is_empty());
    }
    expired > 0 && expired == vaults.len()
}

/// That it is gone.
pub(crate) fn lost(source: &SourceName, snapshot: &str) -> CliError {
    let text = format!(
        "source `{source}`: the newest snapshot that this host made (`{snapshot}`) is in no vault: rolled back or removed"
    );
    CliError::new(Exit::Damage, text).hint(ADVICE)
}

/// Whether a snapshot that this host made, and that one vault does not list, is in none: an error where that is so, nothing where a
/// vault does not answer.
pub(crate) async fn look_for(session: &Session<'_>, source: &SourceName, snapshot: &str) -> Option<CliError> {
    let signers = session.signers().ok()?;
    let (vaults, silent) = session.vaults(None, false).await.ok()?;
    if !silent.is_empty() {
        return None;
    }
    for vault in &vaults {
        let history = vault.history(session.stack(), source).await.ok()?;
        if history.iter().any(|(_, id)| id.as_str() == snapshot) {
            return None;
        }
    }
    let is_removed = was_removed(session, &vaults, &signers, (source, snapshot)).await;
    (!is_removed).then(|| lost(source, snapshot))
}

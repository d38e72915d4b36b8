//! Marks are facts about a snapshot: a vault that has the snapshot should have them too.
//!
//! Only what a pinned signer signed is a mark. Anything else in its place is told, is never copied, hides no signed one in
//! another vault, and gives way to it where the store permits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};

use super::ReplicateError;
use crate::id::{SourceName, StackName};
use crate::mark::hold;
use crate::monitor::{Event, Monitor};
use crate::prune::{notice, unlisted};
use crate::signature::Signers;
use crate::vault::document::{MarkDoc, MarkKind};
use crate::vault::layout::{self, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Largest mark that is read: what this program writes has some hundred bytes.
const MAX_MARK_BYTES: u64 = 64 << 10;

/// Marks that are read at once.
const AT_ONCE: usize = 16;

/// The marks of one source in one vault, read and judged.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Those that a pinned signer signed.
    pub signed: BTreeMap<StorePath, Signed<MarkDoc>>,
    /// What lies where a mark belongs and is not believed, and why, in words.
    pub foreign: BTreeMap<StorePath, String>,
}

/// Reads the marks of a source, whatever snapshots they are of. Errors: only a store that fails.
pub async fn marks(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Marks, VaultError> {
    read(vault, signers, (stack, source), &|_| true).await
}

/// Reads the marks of `listed`, which other vaults may list. Errors: only a store that fails.
pub async fn marks_of(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
    listed: &BTreeSet<SnapshotId>,
) -> Result<Marks, VaultError> {
    read(vault, signers, (stack, source), &|id| listed.contains(id)).await
}

/// Opens only what is named as a mark of a snapshot that is asked for is: everything else that lies there is nobody's fact, and would
/// be work without end for a name each.
async fn read(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    of: &(dyn Fn(&SnapshotId) -> bool + Sync),
) -> Result<Marks, VaultError> {
    let mut marks = Marks::default();
    let paths = unlisted::documents(vault.list(&layout::marks(stack, source)).await?);
    let asked = paths.into_iter().filter_map(|path| Some((marked(stack, source, &path).filter(of)?, path)));
    let asked: Vec<(SnapshotId, StorePath)> = asked.collect();
    let mut read = stream::iter(asked)
        .map(async |(id, path)| {
            let read = match vault.get_signed_within::<MarkDoc>(&path, signers, MAX_MARK_BYTES).await {
                Ok(mark) => Some(Ok(mark)),
                // A signature whose document was taken back, or never came.
                Err(VaultError::MissingDocument { path: missing, .. }) if missing == path.as_str() => None,
                Err(error) if notice::is_foreign(vault, &error).await => {
                    Some(Err(format!("snapshot `{id}`: {}", plain(&chain_text(&error)))))
                }
                Err(error) => return Err(error),
            };
            Ok(read.map(|read| (path, read)))
        })
        .buffered(AT_ONCE);
    while let Some(one) = read.next().await {
        match one? {
            Some((path, Ok(mark))) => drop(marks.signed.insert(path, mark)),
            Some((path, Err(why))) => drop(marks.foreign.insert(path, why)),
            None => {}
        }
    }
    Ok(marks)
}

/// The snapshot that a mark at `path` is of; `None` where no mark can lie.
fn marked(stack: &StackName, source: &SourceName, path: &StorePath) -> Option<SnapshotId> {
    let (id, word) = path.as_str().rsplit('/').next()?.strip_suffix(".json")?.rsplit_once('.')?;
    let id: SnapshotId = id.parse().ok()?;
    let kinds = [MarkKind::Pin, MarkKind::Accept, MarkKind::Checked, MarkKind::Restored];
    let kind = kinds.into_iter().find(|kind| kind.word() == word)?;
    (layout::mark(stack, source, &id, kind) == *path).then_some(id)
}

/// Puts into `to`, which has `there`, what it lacks of `given`. Gives how many were put, and what failed: a vault that fails
/// as a whole ends it, a place that the store does not let be replaced does not. Where the store has locks, what is pinned
/// there afterwards is held, also where only the snapshot came later than its pin.
pub async fn replicate_marks(
    given: &Marks,
    to: &Vault,
    there: &Marks,
    signers: &Signers,
    monitor: &Arc<dyn Monitor>,
) -> (u64, Vec<ReplicateError>) {
    let (mut put, mut errors) = (0, Vec::new());
    for (path, mark) in given.signed.iter().filter(|(path, _)| !there.signed.contains_key(*path)) {
        let replaced = there.foreign.get(path);
        match to.put_verbatim(mark).await {
            Ok(()) => {
                put += 1;
                if let Some(reason) = replaced {
                    let text = format!("foreign or unsigned mark, replaced by a signed one: {reason}");
                    monitor.event(Event::Warning { text });
                }
            }
            Err(source) => {
                let over = is_away(&source);
                errors.push(ReplicateError::Mark { path: path.to_string(), to: to.name().to_owned(), source });
                if over {
                    return (put, errors);
                }
            }
        }
    }
    if to.locks() {
        errors.extend(hold_pinned([given, there], to, signers).await);
    }
    (put, errors)
}

/// Holds what is pinned in `to` by one of `marks`.
async fn hold_pinned(marks: [&Marks; 2], to: &Vault, signers: &Signers) -> Vec<ReplicateError> {
    let mut pins: BTreeMap<(StackName, SourceName), BTreeSet<SnapshotId>> = BTreeMap::new();
    for mark in marks.into_iter().flat_map(|marks| marks.signed.values()).filter(|mark| mark.doc.mark == MarkKind::Pin)
    {
        let of = (mark.doc.stack.clone(), mark.doc.source.clone());
        pins.entry(of).or_default().insert(mark.doc.snapshot.clone());
    }
    let mut errors = Vec::new();
    for ((stack, source), pinned) in pins {
        let history = match to.history(&stack, &source).await {
            Ok(history) => history,
            Err(error) => {
                errors.push(ReplicateError::Vault(error));
                return errors;
            }
        };
        for (dir, id) in history.into_iter().filter(|(_, id)| pinned.contains(id)) {
            if let Err(source) = hold::keep(to, signers, &dir, &id).await {
                let over = is_away(&source);
                errors.push(ReplicateError::Hold { snapshot: id, to: to.name().to_owned(), source });
                if over {
                    return errors;
                }
            }
        }
    }
    errors
}

/// Whether a vault will not take the next mark either.
pub(super) fn is_away(error: &VaultError) -> bool {
    use StoreError::{Failed, Full, Missing};
    matches!(error, VaultError::Store { source: Missing { .. } | Failed { .. } | Full { .. }, .. })
}

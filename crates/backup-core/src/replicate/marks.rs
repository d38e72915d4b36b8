//! Marks are facts about a snapshot: a vault that has the snapshot should have them too.
//!
//! Only what a pinned signer signed is a mark. Anything else in its place is told, is never copied, hides no signed one in
//! another vault, and gives way to it where the store permits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ReplicateError;
use crate::id::{SourceName, StackName};
use crate::monitor::{Event, Monitor};
use crate::prune::notice;
use crate::signature::Signers;
use crate::vault::document::MarkDoc;
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::chain_text;

/// The marks of one source in one vault, read and judged.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// Those that a pinned signer signed.
    pub signed: BTreeMap<StorePath, Signed<MarkDoc>>,
    /// What lies where a mark belongs and is not believed, and why, in words.
    pub foreign: BTreeMap<StorePath, String>,
}

/// Reads the marks of a source. Errors: only a store that fails.
pub async fn marks(
    vault: &Vault,
    signers: &Signers,
    stack: &StackName,
    source: &SourceName,
) -> Result<Marks, VaultError> {
    let mut marks = Marks::default();
    for path in vault.marks(stack, source).await? {
        match vault.get_signed::<MarkDoc>(&path, signers).await {
            Ok(mark) => drop(marks.signed.insert(path, mark)),
            Err(error) if notice::is_refused(&error) => drop(marks.foreign.insert(path, chain_text(&error))),
            Err(error) => return Err(error),
        }
    }
    Ok(marks)
}

/// Puts into `to`, which has `there`, what it lacks of `given`. Gives how many were put, and what failed: a vault that fails
/// as a whole ends it, a place that the store does not let be replaced does not.
pub async fn replicate_marks(
    given: &Marks,
    to: &Vault,
    there: &Marks,
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
                    break;
                }
            }
        }
    }
    (put, errors)
}

/// Whether a vault will not take the next mark either.
fn is_away(error: &VaultError) -> bool {
    use StoreError::{Failed, Full, Missing};
    matches!(error, VaultError::Store { source: Missing { .. } | Failed { .. } | Full { .. }, .. })
}

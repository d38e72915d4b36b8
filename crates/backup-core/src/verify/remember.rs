//! What a verification found is written into the host's state: the next run builds on nothing damaged, a prune counts it for nothing.

use super::{Depth, Verified};
use crate::id::{ObjectName, SourceName, StackName};
use crate::state::{State, StateError};
use crate::vault::Vault;
use crate::vault::layout::GenerationDir;

/// Writes down what was found of a source in a vault. Damaged objects are not built upon again: their chunks will be sealed
/// anew by the next run. And a vault does not hold what is damaged there: a prune of another vault must know. What was damaged
/// is forgotten when its generation is gone, or when it is good again as deep as it was found: what has the bytes of its
/// name and did not open, only after every snapshot of its generation was checked. `whole`: no snapshot was left out.
pub async fn remember(
    state: &State,
    vault: &Vault,
    (stack, source): (&StackName, &SourceName),
    verified: &Verified,
    depth: Depth<'_>,
    whole: bool,
) -> Result<(), StateError> {
    for at in verified.objects.keys() {
        let (dir, object) = at;
        state.forget(dir, object).await?;
        state.set_damaged(vault.id(), dir, &object.to_string(), verified.unopened.contains(at)).await?;
    }
    // What is wrong and in no object shows only when everything is decrypted; a prune sees the rest by itself.
    for verdict in verified.snapshots.iter().filter(|_| depth.identities.is_some()) {
        if !verdict.damage.is_empty() && verdict.objects.is_empty() {
            state.set_damaged(vault.id(), &verdict.dir, verdict.id.as_str(), true).await?;
        } else if verdict.checked {
            state.set_good(vault.id(), &verdict.dir, verdict.id.as_str()).await?;
        }
    }
    let generations = vault.generations(stack, source).await.ok();
    for ((dir, item), deep) in state.damage(vault.id()).await? {
        // Nothing was looked at in other sources.
        if dir.source != *source {
            continue;
        }
        let gone = generations.as_ref().is_some_and(|there| !there.contains(&dir));
        if gone || is_good_again(vault, verified, &dir, &item, deep, whole).await {
            state.set_good(vault.id(), &dir, &item).await?;
        }
    }
    if whole && depth.reads_all() && verified.coverage.left_bytes == 0 {
        state.set_read_whole(vault.id(), source).await?;
    }
    Ok(())
}

async fn is_good_again(
    vault: &Vault,
    verified: &Verified,
    dir: &GenerationDir,
    item: &str,
    deep: bool,
    whole: bool,
) -> bool {
    let Ok(object) = item.parse::<ObjectName>() else { return false };
    let mut snapshots = verified.snapshots.iter().filter(|verdict| verdict.dir == *dir).peekable();
    let checked = whole && snapshots.peek().is_some() && snapshots.all(|verdict| verdict.checked);
    !verified.objects.contains_key(&(dir.clone(), object))
        && (checked || !deep)
        && vault.get_object(dir, &object).await.is_ok()
}

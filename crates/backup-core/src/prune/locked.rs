//! Files that a lock still keeps: a deletion waits for the last of them before its first document is written.
//!
//! In a bucket with Object Lock a plain DELETE is not refused, it only hides: the bytes stay, and stay paid for, until the lock
//! ends. So it is looked at before. Locks end when the policy stops promising, so this waits only where the policy was
//! shortened since, or a legal hold was left.

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::vault::document::PruneStage;
use crate::vault::protection::Retention;
use crate::vault::store::Entry;
use crate::vault::{Vault, VaultError};

/// HEADs at once.
const AT_ONCE: usize = 16;

/// What keeps any of `files` at `now`, in words; `None` where nothing does, and always in a store without locks.
pub(crate) async fn reason(vault: &Vault, files: &[Entry], now: DateTime<Utc>) -> Result<Option<String>, VaultError> {
    if !vault.locks() {
        return Ok(None);
    }
    // A prune's own documents are locked as everything that is put, from when they were put; nobody needs them once they are obeyed.
    let own = |entry: &&Entry| {
        let name = entry.path.as_str().rsplit('/').next().unwrap_or_default();
        [PruneStage::Expired, PruneStage::Deleting].iter().any(|stage| name.trim_end_matches(".sig") == stage.file())
    };
    let seen = stream::iter(files.iter().filter(|entry| !own(entry)))
        .map(|entry| async move { vault.protection(&entry.path).await });
    let seen: Vec<Option<Retention>> = seen.buffer_unordered(AT_ONCE).try_collect().await?;
    let kept: Vec<Retention> = seen.into_iter().flatten().filter(|kept| kept.is_in_force(now)).collect();
    if kept.is_empty() {
        return Ok(None);
    }
    let held = kept.iter().filter(|kept| kept.legal_hold).count();
    let until = kept.iter().filter(|kept| kept.mode.is_some()).filter_map(|kept| kept.until).max();
    Ok(Some(match (until.filter(|until| *until > now), held) {
        (Some(until), 0) => format!("locked until {}; it goes on then", until.format("%F %R UTC")),
        (Some(until), held) => {
            format!("locked until {}, and a legal hold lies on {held} files", until.format("%F %R UTC"))
        }
        (None, held) => format!("a legal hold lies on {held} files: `backup unpin` lifts it"),
    }))
}

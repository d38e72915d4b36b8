//! Prune's two documents beside a generation, `expired.json` and `deleting.json`, as everybody reads them who must heed them.
//!
//! Only one that a pinned signer signed is obeyed. Whoever can write into the vault could otherwise stop every run with an
//! empty file. One that is not believed is told, hides no signed one (each of the two is judged by itself), and is replaced
//! when a prune writes its own.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::id::{SourceName, StackName};
use crate::signature::Signers;
use crate::vault::document::{ExpiredDoc, PruneStage};
use crate::vault::layout::GenerationDir;
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Vault, VaultError};
use crate::verify::chain_text;
use crate::words::plain;

/// Generations that are asked at once.
const AT_ONCE: usize = 16;

/// One of the two documents.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It is not there.
    None,
    /// A pinned signer signed it.
    Signed(Box<ExpiredDoc>),
    /// Something lies there that is not believed, and why, in words.
    Foreign(String),
}

/// Reads one of them. Errors: only a store that fails.
pub(crate) async fn read(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    stage: PruneStage,
) -> Result<Notice, VaultError> {
    let path = dir.file(stage.file());
    let foreign = |error: &VaultError| {
        Notice::Foreign(format!("foreign or unsigned mark, not obeyed: {}", plain(&chain_text(error))))
    };
    match vault.exists(&path).await {
        Ok(true) => {}
        Ok(false) => return Ok(Notice::None),
        Err(error) if is_foreign(vault, &error).await => return Ok(foreign(&error)),
        Err(error) => return Err(error),
    }
    match vault.get_signed::<ExpiredDoc>(&path, signers).await {
        Ok(signed) => Ok(Notice::Signed(Box::new(signed.doc))),
        // It was taken back in between.
        Err(VaultError::MissingDocument { path: missing, .. }) if missing == path.as_str() => Ok(Notice::None),
        Err(error) if is_foreign(vault, &error).await => Ok(foreign(&error)),
        Err(error) => Err(error),
    }
}

/// Where a source's prune has announced a deletion in a vault or begun one: paths of documents that nobody has judged yet, the
/// later one of each generation.
pub async fn pending(vault: &Vault, stack: &StackName, source: &SourceName) -> Result<Vec<StorePath>, VaultError> {
    let looks = stream::iter(vault.generations(stack, source).await?)
        .map(async |dir| {
            for stage in [PruneStage::Deleting, PruneStage::Expired] {
                let path = dir.file(stage.file());
                if vault.exists(&path).await? {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        })
        .buffered(AT_ONCE);
    looks.try_filter_map(async |path| Ok(path)).try_collect().await
}

/// Whether an error says that a document is not believed, and not that the store failed. One over the size that is read is
/// none that this program made.
pub(crate) fn is_refused(error: &VaultError) -> bool {
    !matches!(error, VaultError::Store { source, .. } if !matches!(source, StoreError::TooLarge { .. }))
}

/// [`is_refused`], or what lies there can be read by nobody: whoever plants a link, a pipe or a body that the store gives
/// to nobody must not do more than whoever plants an empty file.
pub(crate) async fn is_foreign(vault: &Vault, error: &VaultError) -> bool {
    is_refused(error) || vault.refuses_only_that(error).await
}

/// What the two documents say together.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// A pinned signer announced the generation's deletion, or began it: nothing may be committed into it.
    pub(crate) pruned: bool,
    /// Why it is being purged, if that is what was announced: nothing may be committed into it ever again.
    pub(crate) purged: Option<String>,
    /// What is not believed, in words.
    pub(crate) foreign: Vec<String>,
}

/// Reads both.
pub(crate) async fn standing(vault: &Vault, signers: &Signers, dir: &GenerationDir) -> Result<Standing, VaultError> {
    standing_of(vault, signers, dir, &[PruneStage::Expired, PruneStage::Deleting]).await
}

/// Reads those of both that are among `files`, by a listing of the generation's folder.
pub(crate) async fn standing_listed(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    files: &BTreeSet<String>,
) -> Result<Standing, VaultError> {
    let listed = [PruneStage::Expired, PruneStage::Deleting].into_iter().filter(|stage| files.contains(stage.file()));
    standing_of(vault, signers, dir, &listed.collect::<Vec<_>>()).await
}

async fn standing_of(
    vault: &Vault,
    signers: &Signers,
    dir: &GenerationDir,
    stages: &[PruneStage],
) -> Result<Standing, VaultError> {
    let mut standing = Standing::default();
    for stage in stages.iter().copied() {
        match read(vault, signers, dir, stage).await? {
            Notice::None => {}
            Notice::Signed(doc) => {
                standing.pruned = true;
                standing.purged = standing.purged.or(doc.grounds.purge);
            }
            Notice::Foreign(text) => standing.foreign.push(text),
        }
    }
    Ok(standing)
}

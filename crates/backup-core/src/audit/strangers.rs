//! Files that belong to nothing: what this program did not make, and objects that no snapshot needs.
//!
//! Neither is a breach. Objects without a snapshot are what a run leaves that died or is still at work; strangers are other
//! people's. Both cost room, and nobody else tells of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ObjectName, SourceName, StackName};
use crate::prune::history::Seen;
use crate::prune::notice;
use crate::vault::document::{MarkKind, PruneStage};
use crate::vault::layout::{self, GenerationDir, GenerationId, SnapshotId};
use crate::vault::store::{Entry, StorePath};
use crate::vault::{Vault, VaultError};

use super::{Finding, Kind, count, few};

/// What belongs to nothing, below one source's folder.
#[derive(Debug, Clone, Default)]
pub struct Strangers {
    /// Paths that this program never makes.
    pub files: Vec<String>,
    /// Their bytes.
    pub file_bytes: u64,
    /// Objects that no signed snapshot needs.
    pub objects: Vec<String>,
    /// Their stored bytes.
    pub object_bytes: u64,
}

/// Lists a source's folder once and sorts what is there.
pub(super) async fn look(
    vault: &Vault,
    (stack, source): (&StackName, &SourceName),
    seen: &Seen,
) -> Result<Strangers, VaultError> {
    let folder = layout::source_dir(stack, source);
    let mut found = Strangers::default();
    // Sorted lists and no map: a generation may have a quarter of a million, and what a snapshot needs is only marked.
    let mut objects: BTreeMap<GenerationId, Vec<(ObjectName, u64, bool)>> = BTreeMap::new();
    let mut take = |entry: Entry| match belongs(stack, source, &entry.path) {
        Some(Made::Object(id, name)) => objects.entry(id).or_default().push((name, entry.bytes, false)),
        Some(Made::Document) => {}
        None => {
            found.file_bytes += entry.bytes;
            found.files.push(entry.path.to_string());
        }
    };
    vault.each(&folder, &mut take).await?;
    found.files.sort();
    for objects in objects.values_mut() {
        objects.sort_unstable();
    }
    for (dir, signed) in &seen.documents {
        let Some(listed) = objects.get_mut(&dir.id) else { continue };
        match vault.get_inventory(&signed.doc).await {
            Ok((lines, _)) => {
                for line in lines {
                    if let Ok(at) = listed.binary_search_by_key(&line.name, |(name, ..)| *name)
                        && let Some((.., is_needed)) = listed.get_mut(at)
                    {
                        *is_needed = true;
                    }
                }
            }
            // That it is damaged is said already; what it needs is nobody's until another snapshot names it.
            Err(error) if notice::is_foreign(vault, &error).await => listed.clear(),
            Err(error) => return Err(error),
        }
    }
    for (id, objects) in &objects {
        for (name, bytes, _) in objects.iter().filter(|(.., is_needed)| !is_needed) {
            found.object_bytes += bytes;
            found.objects.push(format!("{id}/objects/{name}"));
        }
    }
    Ok(found)
}

/// What this program makes.
pub(super) enum Made {
    /// An object of a generation.
    Object(GenerationId, ObjectName),
    /// Anything else.
    Document,
}

/// What of this program's a path may be.
pub(super) fn belongs(stack: &StackName, source: &SourceName, path: &StorePath) -> Option<Made> {
    let document = path.as_str().strip_suffix(".sig").unwrap_or(path.as_str());
    let below = document.strip_prefix(layout::source_dir(stack, source).as_str())?.strip_prefix('/')?;
    let (folder, rest) = below.split_once('/')?;
    match folder {
        "marks" => {
            let (id, word) = rest.strip_suffix(".json")?.rsplit_once('.')?;
            let kinds = [MarkKind::Pin, MarkKind::Accept, MarkKind::Checked, MarkKind::Restored];
            id.parse::<SnapshotId>().ok()?;
            kinds.iter().any(|kind| kind.word() == word).then_some(Made::Document)
        }
        "receipts" => {
            let (at, id) = rest.strip_suffix(".json")?.split_once('-')?;
            let good = at.len() == 16 && id.parse::<GenerationId>().is_ok();
            good.then_some(Made::Document)
        }
        generation => {
            let dir = GenerationDir { stack: stack.clone(), source: source.clone(), id: generation.parse().ok()? };
            in_generation(&dir, rest, document, path)
        }
    }
}

fn in_generation(dir: &GenerationDir, rest: &str, document: &str, path: &StorePath) -> Option<Made> {
    if let Some(name) = rest.strip_prefix("objects/") {
        let object: ObjectName = name.rsplit('/').next()?.parse().ok()?;
        return (dir.object(&object) == *path).then(|| Made::Object(dir.id.clone(), object));
    }
    if let Some(name) = rest.strip_prefix("snapshots/") {
        let signed = name.strip_suffix(".json");
        let inventory = name.strip_suffix(".inventory.zst").filter(|_| document == path.as_str());
        return signed.or(inventory)?.parse::<SnapshotId>().ok().map(|_| Made::Document);
    }
    if rest.starts_with("grants/") {
        return dir.is_grant(&StorePath::new(document)?).then_some(Made::Document);
    }
    let known = ["generation.json", PruneStage::Expired.file(), PruneStage::Deleting.file()];
    known.contains(&rest).then_some(Made::Document)
}

/// Names at the top of a vault, and in its stack's folder, that belong to nothing this program or this policy knows.
pub async fn beside(
    vault: &Vault,
    stack: &StackName,
    sources: &BTreeSet<SourceName>,
) -> Result<Vec<String>, VaultError> {
    let signature = format!("{}.sig", layout::RECOVER);
    let known = [layout::VAULT_JSON, layout::RECOVER, &signature, layout::PROBE];
    let top = vault.children(None).await?;
    let mut names: Vec<String> =
        top.into_iter().filter(|name| !known.contains(&name.as_str()) && name.parse::<StackName>().is_err()).collect();
    for name in vault.children(Some(&layout::stack_dir(stack))).await? {
        if !name.parse().is_ok_and(|name: SourceName| sources.contains(&name)) {
            names.push(format!("{stack}/{name}"));
        }
    }
    Ok(names)
}

impl Strangers {
    /// As findings.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        if !self.files.is_empty() {
            let (number, bytes) = (count(self.files.len(), "file"), self.file_bytes);
            all.push(Finding {
                kind: Kind::Stranger,
                text: format!("{number} ({bytes} bytes) that this program did not make: {}", few(&self.files)),
                about: self.files.clone(),
            });
        }
        if !self.objects.is_empty() {
            let (number, bytes) = (count(self.objects.len(), "object"), self.object_bytes);
            all.push(Finding {
                kind: Kind::Stranger,
                text: format!("{number} ({bytes} bytes) that no signed snapshot needs: left by a run that died, or one that works now"),
                about: self.objects.clone(),
            });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_path_belongs_and_nothing_else_does() {
        let (stack, source): (StackName, SourceName) = ("s".parse().unwrap(), "db".parse().unwrap());
        let object = ObjectName::of(b"x").to_string();
        let (g, id) = ("2026-11-21--7d--00112233", "20261121T020003Z-5r-abcde9");
        let is = |path: String| belongs(&stack, &source, &StorePath::new(path).unwrap()).is_some();
        for good in [
            format!("{g}/generation.json"),
            format!("{g}/generation.json.sig"),
            format!("{g}/expired.json"),
            format!("{g}/deleting.json.sig"),
            format!("{g}/grants/0123456789abcdef.json"),
            format!("{g}/grants/0123456789abcdef.json.sig"),
            format!("{g}/objects/{}/{object}", &object[..2]),
            format!("{g}/snapshots/{id}.json"),
            format!("{g}/snapshots/{id}-suspect.json.sig"),
            format!("{g}/snapshots/{id}.inventory.zst"),
            format!("marks/{id}.pin.json"),
            format!("marks/{id}.checked.json.sig"),
            format!("receipts/20261121T020003Z-{g}.json"),
        ] {
            assert!(is(format!("s/db/{good}")), "{good}");
        }
        for stranger in [
            "notes.txt".to_owned(),
            format!("{g}/notes.json"),
            format!("{g}/grants/notes.json"),
            format!("{g}/grants/more/0123456789abcdef.json"),
            format!("{g}/objects/00/{object}"),
            format!("{g}/objects/{}/{object}.sig", &object[..2]),
            format!("{g}/snapshots/{id}.inventory.zst.sig"),
            format!("{g}/snapshots/x.json"),
            format!("marks/{id}.odd.json"),
            format!("receipts/2026-{g}.json"),
            "2026-11-21/generation.json".to_owned(),
        ] {
            assert!(!is(format!("s/db/{stranger}")), "{stranger}");
        }
    }
}

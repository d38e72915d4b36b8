//! One snapshot: its document, its inventory against the listing, and with identities every stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Depth, Finding, Place, Verdict, chain_text, cost, damage_or, finding};
use crate::hidden::Hidden;
use crate::id::{Hash256, ObjectName};
use crate::seal::key::{Identities, IdentityError};
use crate::signature::{SignatureError, Signers};
use crate::snapshot::{OpenSnapshot, SnapshotError};
use crate::source::Streams;
use crate::vault::document::SnapshotDoc;
use crate::vault::layout::{GenerationDir, SnapshotId};
use crate::vault::store::{StoreError, StorePath};
use crate::vault::{Signed, Vault, VaultError};

/// What was learnt of a snapshot besides the verdict.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) signed: Option<Signed<SnapshotDoc>>,
    pub(super) places: Vec<(Place, String)>,
    pub(super) costs: Vec<String>,
}

/// What a snapshot is told of whose document was deleted.
const DELETED: &str = "its document was deleted (a delete marker lies over it), and an older version of it is good: `restore` reads \
                       that, `verify --repair` puts it back";

/// Looks at one snapshot. `hidden`: found in an older version, because no listing shows it.
pub(super) async fn look(
    (vault, signers): (&Vault, &Signers),
    dir: &GenerationDir,
    (id, hidden): (SnapshotId, Option<&Hidden>),
    (objects, bad): (&HashMap<ObjectName, u64>, &BTreeMap<ObjectName, String>),
    depth: Depth<'_>,
) -> Result<(Verdict, Looked), VaultError> {
    let path = dir.snapshot(&id, ".json");
    let mut verdict = Verdict {
        id,
        dir: dir.clone(),
        checked: false,
        document: None,
        damage: Vec::new(),
        foreign: None,
        objects: BTreeSet::new(),
        unproved: None,
        locked: None,
    };
    let mut looked = Looked::default();
    let read = match hidden {
        Some(hidden) => Ok(hidden.signed.clone()),
        None => vault.get_signed::<SnapshotDoc>(&path, signers).await,
    };
    let signed = match read {
        Ok(signed) => signed,
        Err(error) => {
            verdict.unproved = unproved(vault, &path, &error).await;
            let found = finding(vault, error).await?;
            let (Finding::Damage(text) | Finding::Foreign(text)) = &found;
            looked.places.push((Place::Snapshot(dir.clone(), verdict.id.clone()), text.clone()));
            match found {
                Finding::Damage(text) => verdict.damage.push(text),
                Finding::Foreign(text) => verdict.foreign = Some(text),
            }
            return Ok((verdict, looked));
        }
    };
    if hidden.is_some() {
        looked.places.push((Place::Snapshot(dir.clone(), verdict.id.clone()), DELETED.to_owned()));
        verdict.damage.push(DELETED.to_owned());
    } else {
        verdict.document = Some(signed.hash());
    }
    match vault.get_inventory(&signed.doc).await {
        Ok((lines, _)) => {
            for line in lines {
                let wrong = match objects.get(&line.name) {
                    None => Some(format!("object `{}` is missing", line.name)),
                    Some(bytes) if *bytes != line.bytes => {
                        Some(format!("object `{}` has {bytes} bytes, not {}", line.name, line.bytes))
                    }
                    Some(_) => bad.get(&line.name).cloned(),
                };
                if let Some(wrong) = wrong {
                    verdict.damage.push(wrong);
                    verdict.objects.insert(line.name);
                }
            }
        }
        Err(error) => {
            let text = damage_or(vault, error).await?;
            looked.places.push((Place::Inventory(dir.clone(), verdict.id.clone()), text.clone()));
            verdict.damage.push(text);
        }
    }
    if let Some(identities) = depth.identities {
        match check_streams(vault, &signed, identities).await {
            Ok((damage, costs)) => {
                looked.costs = costs;
                verdict.checked = damage.is_empty() && verdict.damage.is_empty();
                for (text, object) in damage {
                    verdict.damage.push(text);
                    verdict.objects.extend(object);
                }
            }
            Err(error @ SnapshotError::Key { .. }) if !is_damaged_key(&error) => {
                verdict.locked = Some(chain_text(&error));
            }
            Err(error) => {
                verdict.objects.extend(object_of(&error));
                verdict.damage.push(match error {
                    SnapshotError::Vault(error) => damage_or(vault, error).await?,
                    error => chain_text(&error),
                });
                looked.costs = vec![cost::EVERYTHING.to_owned()];
            }
        }
    }
    looked.signed = Some(signed);
    Ok((verdict, looked))
}

/// SHA-256 of a document that is in order but for its signer not being pinned, or not for this time. One that somebody else signed than it names
/// is not in order.
async fn unproved(vault: &Vault, path: &StorePath, error: &VaultError) -> Option<Hash256> {
    let VaultError::Signature {
        source: SignatureError::UnknownSigner { fingerprint } | SignatureError::NotValid { fingerprint, .. },
        ..
    } = error
    else {
        return None;
    };
    let signed = vault.get_signed::<SnapshotDoc>(path, &Signers::pin_fingerprint(fingerprint)).await.ok()?;
    (signed.doc.signer == *fingerprint).then(|| signed.hash())
}

/// Whether a wrapped key itself is broken, and not merely closed to these identities.
fn is_damaged_key(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Key { source: IdentityError::Damaged(_), .. })
}

/// The object that an error is about.
fn object_of(error: &SnapshotError) -> Option<ObjectName> {
    match error {
        SnapshotError::Object { name, .. } => Some(*name),
        SnapshotError::Vault(
            VaultError::Damaged { path, .. }
            | VaultError::Store {
                source:
                    StoreError::NotFound { path, .. }
                    | StoreError::TooLarge { path, .. }
                    | StoreError::Unusable { path, .. }
                    | StoreError::Denied { action: "read", path, .. },
                ..
            },
        ) => path.rsplit('/').next()?.parse().ok(),
        _ => None,
    }
}

/// Reads every stream to its end. A vault that fails ends it; damage is collected, with the object that is damaged, and what
/// the damaged streams hold.
async fn check_streams(
    vault: &Vault,
    signed: &Signed<SnapshotDoc>,
    identities: &Identities,
) -> Result<(Vec<(String, Option<ObjectName>)>, Vec<String>), SnapshotError> {
    let snapshot = OpenSnapshot::open(vault, signed, identities).await?;
    let (mut damage, mut bad) = (Vec::new(), BTreeSet::new());
    for number in 1..=u32::try_from(snapshot.manifest().streams.len()).unwrap_or(u32::MAX) {
        let read = async {
            let mut reader = Streams::open(&snapshot, number).await?;
            while reader.next().await?.is_some() {}
            Ok::<(), crate::source::StreamError>(())
        };
        if let Err(error) = read.await {
            bad.insert(number);
            let text = chain_text(&error);
            match error.0.downcast::<SnapshotError>().map(|error| *error) {
                // A vault that failed says nothing about the stream.
                Ok(error) => {
                    let object = object_of(&error);
                    if let SnapshotError::Vault(error) = error {
                        damage_or(vault, error).await?;
                    }
                    damage.push((text, object));
                }
                Err(_) => damage.push((text, None)),
            }
        }
    }
    Ok((damage, cost::of(snapshot.manifest(), &bad)))
}

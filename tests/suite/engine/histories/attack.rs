//! What somebody can do who may write to a vault and has no key: plant, replay, remove, rewrite, swap.

use std::collections::BTreeMap;

use backup_core::signature::Namespace;
use backup_core::vault::document::{GenerationDoc, MarkDoc, MarkKind, PruneStage, PublicDocument, SnapshotDoc};
use backup_core::vault::layout::signature_of;
use backup_core::vault::store::{PutMode, Store, StorePath};
use bytes::Bytes;

use super::super::crash_points::Dice;
use super::super::site::Site;
use super::super::world::{forgeries, host_key};
use super::run::ATTACKED;

/// Numbers choose among what lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Attack {
    Remove(u64),
    Flip(u64),
    Truncate(u64),
    /// With another file of the same kind.
    Swap(u64, u64),
    /// What once lay at a path lies there again: validly signed, and old.
    Replay(u64),
    /// What once lay at a path, with its signature.
    ReplayPair(u64),
    /// An announcement or a deletion, in one of five forms that nobody pinned signed.
    Announce(u64, bool, u64),
    /// A pin, an accept or a check.
    Mark(u64, u64),
    /// A snapshot of the year 2999, complete but for its signer.
    Snapshot(u64),
    /// A generation with a key of the attacker's own.
    Generation(u64),
    /// Much larger than anything that is read.
    Huge(u64),
}

/// Everything that ever lay in a vault.
#[derive(Default)]
pub(in super::super) struct Past(BTreeMap<String, Vec<Bytes>>);

impl Past {
    pub(super) fn saw(&mut self, content: &BTreeMap<String, Bytes>) {
        for (path, body) in content {
            let bodies = self.0.entry(path.clone()).or_default();
            if bodies.len() < 20 && !bodies.contains(body) {
                bodies.push(body.clone());
            }
        }
    }

    fn nth(&self, nth: u64) -> Option<(&String, &Vec<Bytes>)> {
        // Documents are few among objects, and more is to be had with them.
        let documents: Vec<_> = self.0.iter().filter(|(path, _)| !path.contains("/objects/")).collect();
        let chosen = if nth.is_multiple_of(4) { self.0.iter().collect() } else { documents };
        let at = usize::try_from(nth / 4).unwrap().checked_rem(chosen.len())?;
        Some(chosen[at])
    }
}

/// Which files are of one kind: the last part of the name, or an object.
fn kind(path: &str) -> &str {
    if path.contains("/objects/") { "object" } else { path.find('.').map_or("", |at| &path[at..]) }
}

impl Attack {
    pub(super) fn random(dice: &mut Dice) -> Self {
        let n = dice.below(100_000);
        match dice.below(14) {
            0 | 1 => Self::Remove(n),
            2 => Self::Flip(n),
            3 => Self::Truncate(n),
            4 => Self::Swap(n, dice.below(100_000)),
            5 | 6 => Self::Replay(n),
            7 | 8 => Self::ReplayPair(n),
            9 => Self::Announce(n, dice.below(2) == 0, dice.below(5)),
            10 => Self::Mark(n, dice.below(3)),
            11 => Self::Snapshot(n),
            12 => Self::Generation(n),
            _ => Self::Huge(n),
        }
    }

    pub(super) async fn happen(&self, site: &Site, past: &Past) {
        let content: Vec<(String, Bytes)> = site.content(ATTACKED).await.into_iter().collect();
        let nth = |n: u64| content.get(usize::try_from(n).unwrap().checked_rem(content.len())?);
        let docs: Vec<SnapshotDoc> = content
            .iter()
            .filter(|(path, _)| path.contains("/snapshots/") && path.ends_with(".json"))
            .filter_map(|(_, body)| serde_json::from_slice(body).ok())
            .collect();
        let doc = |n: u64| docs.get(usize::try_from(n).unwrap().checked_rem(docs.len())?).cloned();
        match self {
            Self::Remove(n) => {
                if let Some((path, _)) = nth(*n) {
                    set(site, path, None).await;
                }
            }
            Self::Flip(n) => {
                if let Some((path, body)) = nth(*n).filter(|(_, body)| !body.is_empty()) {
                    let mut body = body.to_vec();
                    let middle = body.len() / 2;
                    body[middle] ^= 1;
                    set(site, path, Some(body.into())).await;
                }
            }
            Self::Truncate(n) => {
                if let Some((path, body)) = nth(*n) {
                    set(site, path, Some(body.slice(..body.len() / 2))).await;
                }
            }
            Self::Swap(n, m) => {
                if let Some((path, body)) = nth(*n) {
                    let alike: Vec<_> = content.iter().filter(|(other, _)| kind(other) == kind(path)).collect();
                    let (other, theirs) = alike[usize::try_from(*m).unwrap() % alike.len()];
                    set(site, path, Some(theirs.clone())).await;
                    set(site, other, Some(body.clone())).await;
                }
            }
            Self::Replay(n) | Self::ReplayPair(n) => {
                let Some((path, bodies)) = past.nth(*n) else { return };
                set(site, path, bodies.first().cloned()).await;
                let signature = format!("{path}.sig");
                if let Some(signed) = past.0.get(&signature).filter(|_| matches!(self, Self::ReplayPair(_))) {
                    set(site, &signature, signed.first().cloned()).await;
                }
            }
            Self::Announce(n, deleting, form) => {
                let Some(doc) = doc(*n) else { return };
                let stage = if *deleting { PruneStage::Deleting } else { PruneStage::Expired };
                let mut forms = forgeries(&doc, stage, &host_key(99));
                let form = usize::try_from(*form).unwrap() % forms.len();
                for (path, body) in forms.swap_remove(form) {
                    set(site, path.as_str(), Some(body.into())).await;
                }
            }
            Self::Mark(n, kind) => {
                // What is unusual is what an attacker wants to have accepted.
                let odd = docs.iter().find(|doc| doc.suspect > 0 && *kind == 1).cloned();
                let Some(doc) = odd.or_else(|| doc(*n)) else { return };
                let mark = [MarkKind::Pin, MarkKind::Accept, MarkKind::Checked][usize::try_from(*kind).unwrap()];
                let document = backup_core::id::Hash256::of(
                    &content.iter().find(|(path, _)| *path == doc.path().to_string()).unwrap().1,
                );
                plant(
                    site,
                    &MarkDoc {
                        format: 1,
                        stack: doc.stack,
                        source: doc.source,
                        snapshot: doc.id,
                        mark,
                        at: doc.finished,
                        document,
                        closes: None,
                        signer: host_key(99).fingerprint(),
                        tool: "backup 0".to_owned(),
                    },
                    Namespace::Mark,
                )
                .await;
            }
            Self::Snapshot(n) => {
                let Some(mut doc) = doc(*n) else { return };
                doc.id = format!("29990101T000000Z-{n}b-zzzzzz").parse().unwrap();
                doc.signer = host_key(99).fingerprint();
                // Its own, so that nothing but the signer is wrong.
                let own = docs.iter().find(|one| one.inventory == doc.inventory).unwrap();
                let own = own.dir().snapshot(&own.id, ".inventory.zst").to_string();
                let inventory = content.iter().find(|(path, _)| *path == own);
                if let Some((_, body)) = inventory {
                    set(site, doc.dir().snapshot(&doc.id, ".inventory.zst").as_str(), Some(body.clone())).await;
                }
                plant(site, &doc, Namespace::Snapshot).await;
            }
            Self::Generation(n) => {
                let Some(doc) = doc(*n) else { return };
                let path = doc.dir().file("generation.json").to_string();
                let Some((_, body)) = content.iter().find(|(other, _)| *other == path) else { return };
                let Ok(mut generation) = serde_json::from_slice::<GenerationDoc>(body) else { return };
                generation.public_key = age::x25519::Identity::generate().to_public().to_string();
                generation.recipients = vec![generation.public_key.clone()];
                generation.signer = host_key(99).fingerprint();
                plant(site, &generation, Namespace::Generation).await;
            }
            Self::Huge(n) => {
                if let Some((path, _)) = nth(*n) {
                    set(site, path, Some(vec![b' '; 5 << 20].into())).await;
                }
            }
        }
    }
}

async fn set(site: &Site, path: &str, body: Option<Bytes>) {
    let memory = &site.places[ATTACKED].watch.memory;
    let path = StorePath::new(path).unwrap();
    match body {
        Some(body) => drop(memory.put(&path, body, PutMode::Replace).await.unwrap()),
        None => memory.delete(&path).await.unwrap(),
    }
}

/// Puts a document signed by a key that nobody pinned.
async fn plant<T: PublicDocument>(site: &Site, doc: &T, namespace: Namespace) {
    let body = serde_json::to_vec(doc).unwrap();
    let signature = host_key(99).sign(namespace, &body).unwrap();
    set(site, signature_of(&doc.path()).as_str(), Some(signature.into())).await;
    set(site, doc.path().as_str(), Some(body.into())).await;
}

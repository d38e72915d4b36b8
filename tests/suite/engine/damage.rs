//! The damage matrix: what is done × to which file × who notices: the reader of the snapshot, and `verify` at which depth.

use backup_core::seal::key::Identities;
use backup_core::signature::Signers;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::signature_of;
use backup_core::vault::store::StorePath;

use super::world::{Script, World, host_key};

/// Two snapshots of one generation, with several objects each of its own.
struct Two {
    world: World,
    docs: [SnapshotDoc; 2],
}

impl Two {
    async fn new() -> Self {
        let world = World::new().await;
        let first = world.run(&Script::noise(4_500_000, 1)).await.unwrap().snapshot.doc;
        let second = world.run(&Script::noise(4_500_000, 2)).await.unwrap().snapshot.doc;
        Self { world, docs: [first, second] }
    }

    fn file(&self, which: usize, suffix: &str) -> StorePath {
        self.docs[which].dir().snapshot(&self.docs[which].id, suffix)
    }

    /// The second snapshot's largest object (data), and its manifest's.
    async fn objects(&self) -> [StorePath; 2] {
        let doc = &self.docs[1];
        let (mut lines, _) = self.world.vault.get_inventory(doc).await.unwrap();
        lines.sort_by_key(|line| line.bytes);
        [lines.last().unwrap().name, doc.manifest.objects[0]].map(|name| doc.dir().object(&name))
    }

    /// Does `harm` to `path`, asks, and puts everything back. The other snapshot must stay good throughout.
    async fn harmed(&self, path: &StorePath, harm: Harm) -> Noticed {
        let body = self.world.body(path).await;
        let other = self.counterpart(path).await;
        let theirs = self.world.body(&other).await;
        let changed = match harm {
            Harm::Delete => None,
            Harm::Truncate => Some(body[..body.len() - 1].to_vec()),
            Harm::Extend => Some([&body[..], b"\n"].concat()),
            Harm::Flip => {
                let mut flipped = body.clone();
                flipped[body.len() / 2] ^= 1;
                Some(flipped)
            }
            Harm::Swap => {
                self.world.set(&other, Some(body.clone())).await;
                Some(theirs.clone())
            }
        };
        self.world.set(path, changed).await;
        let id = &self.docs[1].id;
        let found = |verified: backup_core::verify::Verified| {
            let of_it = verified.snapshots.iter().find(|verdict| verdict.id == *id);
            let damaged = of_it.is_none_or(|verdict| !verdict.damage.is_empty());
            let checked = of_it.is_some_and(|verdict| verdict.checked);
            assert!(!(damaged && checked), "called `checked` and damaged at once: {verified:?}");
            damaged
        };
        let noticed = Noticed {
            reader: self.world.read_doc(&self.docs[1]).await.err(),
            listing: found(self.world.verify(false).await),
            hashed: found(self.world.verify_by(true, false).await),
            deep: found(self.world.verify(true).await),
        };
        if harm != Harm::Swap {
            self.world.read_doc(&self.docs[0]).await.expect("damage to one snapshot does not touch the other");
        }
        self.world.set(path, Some(body)).await;
        self.world.set(&other, Some(theirs)).await;
        noticed
    }

    /// A file of the same kind to swap with.
    async fn counterpart(&self, path: &StorePath) -> StorePath {
        for suffix in [".json", ".json.sig", ".inventory.zst"] {
            if *path == self.file(1, suffix) {
                return self.file(0, suffix);
            }
        }
        let [data, manifest] = self.objects().await;
        if *path == data { manifest } else { data }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Delete,
    Truncate,
    Extend,
    Flip,
    Swap,
}

#[derive(Debug)]
struct Noticed {
    /// Error of the reader, with its causes.
    reader: Option<String>,
    /// `verify` of listing and documents.
    listing: bool,
    /// `verify` that hashes every object, without a key.
    hashed: bool,
    /// `verify` that hashes and opens everything.
    deep: bool,
}

const ALL: [Harm; 5] = [Harm::Delete, Harm::Truncate, Harm::Extend, Harm::Flip, Harm::Swap];

#[tokio::test]
async fn every_damage_to_an_object_is_noticed() {
    let two = Two::new().await;
    assert!(!two.world.verify(true).await.is_damaged());
    for path in two.objects().await {
        for harm in ALL {
            let noticed = two.harmed(&path, harm).await;
            // Fails without the comparison with the name in `Vault::get_object` (`hashed`); the reader has a second one in
            // `Opener::open`.
            assert!(noticed.reader.is_some() && noticed.hashed && noticed.deep, "{harm:?} {path}: {noticed:?}");
            // Sizes and presence show in a listing: fails without the `match` on `objects.get` in `verify::snapshot::look`.
            assert_eq!(noticed.listing, harm != Harm::Flip, "{harm:?} {path}: {noticed:?}");
        }
    }
    assert!(!two.world.verify(true).await.is_damaged(), "all was put back");
}

#[tokio::test]
async fn every_damage_to_a_document_is_noticed_without_a_key() {
    let two = Two::new().await;
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        for harm in ALL {
            // An armour's end may have another line break: it says the same.
            if (suffix, harm) == (".json.sig", Harm::Extend) || (suffix, harm) == (".json.sig", Harm::Truncate) {
                continue;
            }
            let noticed = two.harmed(&two.file(1, suffix), harm).await;
            // Fails without `signers.check` in `Vault::get_signed`, or the hash in `Vault::get_inventory`.
            assert!(noticed.reader.is_some() && noticed.listing && noticed.deep, "{harm:?} {suffix}: {noticed:?}");
        }
    }
}

#[tokio::test]
async fn a_document_with_its_signature_at_another_path_is_not_believed() {
    let two = Two::new().await;
    for suffix in [".json", ".json.sig"] {
        let body = two.world.body(&two.file(0, suffix)).await;
        two.world.set(&two.file(1, suffix), Some(body)).await;
    }
    // Fails without the comparison with `doc.path()` in `Vault::get_signed`.
    let error = two.world.read_doc(&two.docs[1]).await.unwrap_err();
    assert!(error.contains("says that it belongs at"), "{error}");
    assert!(two.world.verify(false).await.is_damaged());
    // The same in a generation of another source.
    let (dir, id) = (two.docs[0].dir(), &two.docs[0].id);
    let mut elsewhere = dir.clone();
    elsewhere.source = "other".parse().unwrap();
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        let body = two.world.body(&dir.snapshot(id, suffix)).await;
        two.world.set(&elsewhere.snapshot(id, suffix), Some(body)).await;
    }
    let error = two.world.read(&(elsewhere, id.clone())).await.unwrap_err();
    assert!(error.contains("says that it belongs at"), "{error}");
}

#[tokio::test]
async fn only_pinned_signers_and_the_right_identities_open_anything() {
    let mut two = Two::new().await;
    let identities = std::mem::replace(&mut two.world.identities, {
        use age::secrecy::ExposeSecret;
        let stranger = age::x25519::Identity::generate().to_string();
        Identities::parse(stranger.expose_secret().as_bytes(), None).unwrap()
    });
    let error = two.world.read_doc(&two.docs[1]).await.unwrap_err();
    assert!(error.contains("none of the given identities"), "{error}");
    two.world.identities = identities;
    two.world.read_doc(&two.docs[1]).await.unwrap();
    two.world.signers = Signers::pin_fingerprint(&host_key(9).fingerprint());
    // Fails without the look for a pinned key in `Signers::check`.
    let error = two.world.read_doc(&two.docs[1]).await.unwrap_err();
    assert!(error.contains("not among the pinned signers"), "{error}");
    assert!(two.world.verify(false).await.snapshots.iter().all(|verdict| verdict.foreign.is_some()));
}

#[tokio::test]
async fn a_snapshot_missing_from_the_middle_opens_the_chain() {
    let two = Two::new().await;
    two.world.run(&Script::noise(1000, 3)).await.unwrap();
    assert!(!two.world.verify(false).await.is_damaged());
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        two.world.set(&two.file(1, suffix), None).await;
    }
    // Fails without `chain` in `verify`.
    assert_eq!(two.world.verify(false).await.chain.len(), 1);
}

#[tokio::test]
async fn a_signature_of_another_kind_of_document_does_not_serve() {
    let two = Two::new().await;
    let path = two.file(1, ".json");
    let bytes = two.world.body(&path).await;
    let sign = |namespace| two.world.key.sign(namespace, &bytes).unwrap().into_bytes();
    two.world.set(&signature_of(&path), Some(sign(backup_core::signature::Namespace::Mark))).await;
    assert!(two.world.read_doc(&two.docs[1]).await.is_err());
    two.world.set(&signature_of(&path), Some(sign(backup_core::signature::Namespace::Snapshot))).await;
    two.world.read_doc(&two.docs[1]).await.unwrap();
}

#[tokio::test]
async fn marks_receipts_and_announcements_are_verified_too() {
    use super::world::{announcement, forgeries, host_key};
    use backup_core::vault::document::PruneStage;
    let world = World::new().await;
    let doc = world.run(&Script::noise(100_000, 1)).await.unwrap().snapshot.doc;
    for (path, body) in announcement(&doc, PruneStage::Expired, &world.key) {
        world.set(&path, Some(body)).await;
    }
    let good = world.verify(false).await;
    assert_eq!((good.documents, good.is_damaged(), good.is_foreign()), (1, false, false), "{good:?}");
    // Nobody's signature is damage; one of a key that is not pinned is not.
    let [_, body] = announcement(&doc, PruneStage::Expired, &world.key);
    world.set(&backup_core::vault::layout::signature_of(&body.0), None).await;
    let unsigned = world.verify(false).await;
    assert_eq!((unsigned.documents, unsigned.unbelieved.len(), unsigned.is_damaged()), (0, 1, true), "{unsigned:?}");
    for (path, body) in forgeries(&doc, PruneStage::Expired, &host_key(9)).swap_remove(2) {
        world.set(&path, Some(body)).await;
    }
    let foreign = world.verify(false).await;
    assert_eq!((foreign.documents, foreign.is_damaged(), foreign.is_foreign()), (0, false, true), "{foreign:?}");
    // Fails if `verify` does not look below `marks` and `receipts`.
    for folder in ["marks/20261121T020000Z-1b-aaaaaa.pin.json", "receipts/20261121T020000Z-x.json"] {
        let path = backup_core::vault::store::StorePath::new(format!("shop/db/{folder}")).unwrap();
        world.set(&path, Some(b"{}".to_vec())).await;
        let found = world.verify(false).await;
        assert!(found.unbelieved.iter().any(|text| text.contains(folder)), "{found:?}");
    }
}

#[tokio::test]
async fn a_snapshot_by_an_unknown_signer_is_not_called_damaged() {
    let mut world = World::new().await;
    world.run(&Script::noise(100_000, 1)).await.unwrap();
    world.signers = backup_core::signature::Signers::pin_fingerprint(&super::world::host_key(9).fingerprint());
    let found = world.verify(false).await;
    assert_eq!((found.is_damaged(), found.is_foreign()), (false, true), "{found:?}");
    assert!(found.snapshots[0].foreign.is_some());
}

#[tokio::test]
async fn what_did_not_open_is_forgotten_only_by_a_full_check_of_its_own_source() {
    use backup_core::id::Hash256;
    use backup_core::vault::inventory::InventoryLine;
    use backup_core::verify::{Depth, Verified, remember};
    let world = World::new().await;
    let doc = world.run(&Script::noise(100_000, 1)).await.unwrap().snapshot.doc;
    let (dir, path) = (doc.dir(), doc.dir().snapshot(&doc.id, ".inventory.zst"));
    let (lines, stored) = world.vault.get_inventory(&doc).await.unwrap();
    let item = async |name: &Hash256| {
        world.state.damaged(world.vault.id()).await.unwrap().contains(&(dir.clone(), name.to_string()))
    };
    let look = async |deep: bool, source: &str| {
        let depth = Depth { read: None, identities: deep.then_some(&world.identities) };
        let source = source.parse().unwrap();
        let found = if source == doc.source { world.verify(deep).await } else { Verified::default() };
        remember(&world.state, &world.vault, (&doc.stack, &source), &found, depth, true).await.unwrap();
    };
    // An object that has the bytes of its name and is none.
    let garbage = b"no age file".to_vec();
    let name = Hash256::of(&garbage);
    let bytes = garbage.len() as u64;
    world.set(&dir.object(&name), Some(garbage)).await;
    let mut broken = doc.clone();
    broken.manifest.objects = vec![name];
    let more = lines.iter().copied().chain([InventoryLine { name, bytes }]).collect();
    broken.inventory = world.vault.put_inventory(&dir, &doc.id, more).await.unwrap();
    world.vault.put_signed(&broken, &world.key).await.unwrap();
    look(false, "db").await;
    assert!(!item(&name).await, "without a key it does not show");
    look(true, "db").await;
    assert!(item(&name).await);
    // Fails where the bytes of its name are enough for `is_good_again`.
    look(false, "db").await;
    assert!(item(&name).await);
    // Damage that a hash shows is forgotten by a hash, but not by a look at another source.
    let whole = lines[0].name;
    world.state.set_damaged(world.vault.id(), &dir, &whole.to_string(), false).await.unwrap();
    look(true, "other").await;
    assert!(item(&whole).await && item(&name).await, "fails without `dir.source` in `remember`");
    look(false, "db").await;
    assert!(!item(&whole).await && item(&name).await);
    // What a generation had that is gone is nowhere any more.
    let mut gone = dir.clone();
    gone.id = "2020-01-01--7d--00000000".parse().unwrap();
    world.state.set_damaged(world.vault.id(), &gone, "x", true).await.unwrap();
    world.set(&path, Some(stored.to_vec())).await;
    world.vault.put_signed(&doc, &world.key).await.unwrap();
    look(true, "db").await;
    assert_eq!(world.state.damaged(world.vault.id()).await.unwrap().len(), 0, "all is good again, or gone");
}

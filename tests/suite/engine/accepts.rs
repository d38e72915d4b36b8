//! What an accept closes: the hole that was there and that it names, in the vault that had it, and nothing that somebody removes
//! afterwards.

use backup_core::backup::{Host, backup};
use backup_core::mark::{self, Change};
use backup_core::replicate::{Marks, marks, replicate_marks};
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{PutMode, Store as _, StorePath};
use backup_core::vault::{Signed, Vault};
use retention::Freeze;

use super::prune::{planned, six_days};
use super::prune_rules::{hash, marked};
use super::site::Odd;
use super::watch::Watch;
use super::world::{Script, World, make_vault};

async fn signed(vault: &Vault, world: &World, doc: &SnapshotDoc) -> Signed<SnapshotDoc> {
    vault.get_signed(&doc.dir().snapshot(&doc.id, ".json"), &world.signers).await.unwrap()
}

async fn accept(vault: &Vault, world: &World, doc: &SnapshotDoc) -> Change {
    let (snapshot, keys) = (signed(vault, world, doc).await, (&world.key, &world.signers));
    mark::set(vault, keys, &snapshot, MarkKind::Accept, (world.host.now(), "t")).await.unwrap()
}

async fn remove(world: &World, doc: &SnapshotDoc) {
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        world.set(&doc.dir().snapshot(&doc.id, suffix), None).await;
    }
}

/// Whether the hole is told as damage, and freezes.
async fn told(world: &World) -> (bool, bool) {
    let frozen = planned(world).await.frozen;
    let frozen = frozen.iter().any(|freeze| matches!(freeze, Freeze::OpenChain { .. }));
    (!world.verify(false).await.chain.is_empty(), frozen)
}

#[tokio::test]
async fn an_accept_closes_the_hole_that_it_names_and_none_that_is_made_later() {
    let (world, docs) = six_days().await;
    assert_eq!(accept(&world.vault, &world, &docs[3]).await, Change::Made);
    assert_eq!(accept(&world.vault, &world, &docs[3]).await, Change::None);
    remove(&world, &docs[2]).await;
    // Fails where an accepted snapshot closes whatever is missing before it.
    assert_eq!(told(&world).await, (true, true));
    // Somebody looks again: the mark says more now.
    assert_eq!(accept(&world.vault, &world, &docs[3]).await, Change::Made);
    assert_eq!(told(&world).await, (false, false));
    assert_eq!(world.verify(false).await.accepted.len(), 1);
    assert_eq!(accept(&world.vault, &world, &docs[3]).await, Change::None);
    // Another hole, also beside it.
    remove(&world, &docs[4]).await;
    assert_eq!(told(&world).await, (true, true));
    // As the first programs accepted: whatever is missing.
    let old = marked(&world, &docs[5], MarkKind::Accept, hash(&world, &docs[5]).await);
    world.vault.put_signed(&old, &world.key).await.unwrap();
    assert_eq!(told(&world).await, (false, false));
}

#[tokio::test]
async fn a_hole_is_known_in_the_vault_that_had_it() {
    let (mut world, docs) = six_days().await;
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let other = make_vault("second", &there, world.store.now()).await;
    for (path, body) in world.watch.content("shop").await {
        there.memory.put(&StorePath::new(&path).unwrap(), body, PutMode::Replace).await.unwrap();
    }
    remove(&world, &docs[2]).await;
    accept(&world.vault, &world, &docs[3]).await;
    assert_eq!(told(&world).await, (false, false));
    let of = (&world.request.stack, &world.request.source);
    let given = marks(&world.vault, &world.signers, of.0, of.1).await.unwrap();
    let (put, errors) = replicate_marks(&given, &other, &Marks::default(), &world.signers, &world.monitor).await;
    assert!(put == 1 && errors.is_empty(), "{errors:?}");
    (world.vault, world.watch) = (other, there);
    assert_eq!(told(&world).await, (false, false));
    remove(&world, &docs[2]).await;
    // Fails where the vault is not part of a hole's name: the last copy would go without a word.
    assert_eq!(told(&world).await, (true, true));
    accept(&world.vault, &world, &docs[3]).await;
    assert_eq!(told(&world).await, (false, false));
}

#[tokio::test]
async fn who_accepts_a_suspect_snapshot_accepts_its_rows_and_only_then_the_hole() {
    let world = World::new().await;
    world.run(&Script::noise(100_000, 1)).await.unwrap();
    let lost = world.run(&Script::noise(100_000, 2)).await.unwrap().snapshot.doc;
    world.pass(chrono::TimeDelta::minutes(1));
    let clock = world.host.clock();
    let host =
        Host { key: &world.key, signers: &world.signers, state: &world.state, clock: &clock, monitor: &world.monitor };
    let odd = Odd(Script::noise(100_000, 3));
    let suspect = backup(&world.vault, host, &world.request, &odd).await.unwrap().snapshot.doc;
    assert!(suspect.suspect > 0);
    remove(&world, &lost).await;
    assert_eq!(told(&world).await, (true, true));
    assert_eq!(accept(&world.vault, &world, &suspect).await, Change::Made);
    // Fails where the accept of what is suspect closes the hole as well.
    assert_eq!(told(&world).await, (true, true));
    assert_eq!(accept(&world.vault, &world, &suspect).await, Change::Made);
    assert_eq!(told(&world).await, (false, false));
}

//! What is told of a source whose expiry stands still: since which snapshot, and how fast the vault fills.

use backup_core::backup::{Host, backup};
use backup_core::catalogue::Listed;
use backup_core::prune::frozen::{bytes_per_day, unaccepted};
use backup_core::vault::document::{MarkKind, SnapshotDoc};

use super::prune::day;
use super::prune_now::Unusual;
use super::prune_rules::{hash, marked};
use super::watch::Down;
use super::world::World;

async fn odd(world: &World) -> SnapshotDoc {
    let clock = world.host.clock();
    let (key, signers, state, monitor) = (&world.key, &world.signers, &world.state, &world.monitor);
    let host = Host { key, signers, state, clock: &clock, monitor };
    backup(&world.vault, host, &world.request, &Unusual).await.unwrap().snapshot.doc
}

fn listed(world: &World, doc: &SnapshotDoc) -> Listed {
    Listed { dir: doc.dir(), id: doc.id.clone(), vaults: vec![world.vault.clone()] }
}

#[tokio::test]
async fn a_suspect_snapshot_is_told_until_it_is_accepted_and_a_vault_that_fails_is_named() {
    let world = World::new().await;
    let (plain, doc) = (day(&world, 1).await, odd(&world).await);
    let all = [listed(&world, &plain), listed(&world, &doc)];
    let vaults = [world.vault.clone()];
    let ask = async || {
        let told = unaccepted(&vaults, &world.signers, &all.iter().collect::<Vec<_>>()).await;
        (told.found.into_iter().map(|doc| doc.id).collect::<Vec<_>>(), told.failed.len())
    };
    assert_eq!(ask().await, (vec![doc.id.clone()], 0));
    world.watch.down(Some(Down::Away));
    // Once for its marks and once for the document.
    assert_eq!(ask().await, (vec![], 2));
    world.watch.down(None);
    let mark = marked(&world, &doc, MarkKind::Pin, hash(&world, &doc).await);
    world.vault.put_signed(&mark, &world.key).await.unwrap();
    assert_eq!(ask().await.0, std::slice::from_ref(&doc.id), "a pin accepts nothing");
    let mark = marked(&world, &doc, MarkKind::Accept, hash(&world, &doc).await);
    world.vault.put_signed(&mark, &world.key).await.unwrap();
    assert_eq!(ask().await, (vec![], 0));
    // Nobody signed it: it freezes nothing, and no vault has failed.
    world.set(&doc.dir().snapshot(&doc.id, ".json.sig"), None).await;
    assert_eq!(ask().await, (vec![], 0));
}

#[tokio::test]
async fn a_vault_fills_by_a_full_copy_a_generation_and_what_later_snapshots_added() {
    let world = World::new().await;
    let (first, second) = (day(&world, 1).await, day(&world, 2).await);
    assert_eq!(first.generation, second.generation);
    let ask = async |all: &[&Listed]| bytes_per_day(&world.vault, &world.signers, all).await;
    let (one, two) = (listed(&world, &first), listed(&world, &second));
    let seconds = (second.instant - first.instant).num_seconds().unsigned_abs();
    let both = second.stored_bytes / 7 + second.added_bytes * 86_400 / seconds;
    assert!(second.added_bytes > 50_000 && seconds >= 86_400);
    assert_eq!(ask(&[&one, &two]).await.unwrap(), Some(both));
    assert_eq!(ask(&[&one]).await.unwrap(), Some(first.stored_bytes / 7));
    // What lies elsewhere, and what was imported, does not count.
    let elsewhere = Listed { vaults: Vec::new(), ..listed(&world, &second) };
    assert_eq!(ask(&[&one, &elsewhere]).await.unwrap(), Some(first.stored_bytes / 7));
    let imported = Listed { id: second.id.clone().into_imported(), ..listed(&world, &second) };
    assert_eq!(ask(&[&one, &imported]).await.unwrap(), Some(first.stored_bytes / 7));
    assert_eq!(ask(&[]).await.unwrap(), None);
    world.watch.down(Some(Down::Away));
    ask(&[&one]).await.unwrap_err();
    world.watch.down(None);
    // Nobody signed the newest.
    world.set(&second.dir().snapshot(&second.id, ".json.sig"), None).await;
    assert_eq!(ask(&[&one, &two]).await.unwrap(), Some(first.stored_bytes / 7));
}

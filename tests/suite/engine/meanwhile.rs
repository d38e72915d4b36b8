//! A prune beside a verification: what it takes is no damage, and it excuses nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::prune::{Action, apply};
use backup_core::vault::document::{Grounds, ReceiptDoc, SnapshotDoc};
use backup_core::vault::store::Store as _;
use chrono::TimeDelta;

use super::prune::{day, dirs, planned, prune, six_days};
use super::world::World;

/// A part of a path, by the snapshot that it belongs to.
type Part = fn(&SnapshotDoc) -> String;

/// Three generations were announced a day ago, and a newer snapshot has come since.
async fn due() -> (World, Vec<SnapshotDoc>) {
    let (world, mut docs) = six_days().await;
    prune(&world).await;
    docs.push(day(&world, 7).await);
    world.pass(TimeDelta::minutes(5));
    assert_eq!(dirs(&planned(&world).await, &Action::Delete).len(), 3);
    (world, docs)
}

/// Calls `act` once, before a file of the world's vault is read whose path has this in it.
fn before_read(world: &World, part: String, act: impl Fn() + Send + Sync + 'static) -> Arc<AtomicBool> {
    let met = Arc::new(AtomicBool::new(false));
    let once = met.clone();
    world.watch.before_get_or_delete(move |path| {
        if path.contains(&part) && !once.swap(true, Ordering::SeqCst) {
            act();
        }
    });
    met
}

#[tokio::test]
async fn what_a_prune_deletes_while_it_is_looked_at_is_no_damage() {
    // The first read of each kind, and which of the three generations is looked at then.
    let reads: [(Part, usize); 6] = [
        (|doc| doc.dir().file("generation.json").to_string(), 0),
        (|doc| doc.dir().file("expired.json").to_string(), 0),
        (|doc| format!("{}/objects/", doc.dir().dir()), 0),
        (|doc| doc.dir().snapshot(&doc.id, ".json").to_string(), 1),
        (|doc| doc.dir().snapshot(&doc.id, ".json.sig").to_string(), 1),
        (|doc| doc.dir().snapshot(&doc.id, ".inventory.zst").to_string(), 2),
    ];
    for (part, at) in reads {
        let (world, docs) = due().await;
        let part = part(&docs[at]);
        let (vault, key, plan) = (world.vault.clone(), super::world::host_key(1), planned(&world).await);
        let met = before_read(&world, part.clone(), move || {
            let done = futures::executor::block_on(apply(&vault, &key, &plan)).unwrap();
            assert_eq!(done.iter().filter(|done| done.action == Action::Delete).count(), 3, "{done:?}");
        });
        let found = world.verify(true).await;
        assert!(met.load(Ordering::SeqCst), "nobody read `{part}`");
        // Fails where `deleted::look` looks once only.
        assert!(!found.is_damaged() && found.places.is_empty(), "`{part}`: {found:#?}");
        assert_eq!(found.deleted, [docs[at].dir()], "`{part}`");
        let ids: Vec<_> = found.snapshots.iter().map(|verdict| verdict.id.clone()).collect();
        let there: Vec<_> = world.history().await.into_iter().map(|(_, id)| id).collect();
        assert!(there.len() == 4 && ids.ends_with(&there), "`{part}`: {ids:?}");
    }
}

#[tokio::test]
async fn what_goes_without_a_receipt_or_is_named_still_is_damage() {
    for receipted in [false, true] {
        let (world, docs) = due().await;
        if receipted {
            // A deletion that died just after its receipt: the snapshot is listed, and needs what it needs.
            let receipt = ReceiptDoc {
                format: 1,
                stack: docs[0].stack.clone(),
                source: docs[0].source.clone(),
                generation: docs[0].generation.clone(),
                at: world.store.now(),
                snapshots: vec![(docs[0].id.clone(), "old".to_owned())],
                vault: None,
                documents: std::collections::BTreeSet::new(),
                objects: 0,
                stored_bytes: 0,
                grounds: Grounds::default(),
                signer: world.key.fingerprint(),
                tool: "backup 0".to_owned(),
            };
            world.vault.put_signed(&receipt, &world.key).await.unwrap();
        }
        let (memory, dir) = (world.watch.memory.clone(), docs[0].dir());
        let what = if receipted { format!("{}/objects/", dir.dir()) } else { dir.dir().to_string() };
        let met = before_read(&world, format!("{}/objects/", dir.dir()), move || {
            for entry in futures::executor::block_on(memory.list(None)).unwrap() {
                if entry.path.as_str().starts_with(&what) {
                    futures::executor::block_on(memory.delete(&entry.path)).unwrap();
                }
            }
        });
        let found = world.verify(true).await;
        assert!(met.load(Ordering::SeqCst));
        let verdict = found.snapshots.iter().find(|verdict| verdict.id == docs[0].id).unwrap();
        // Fails where a name that is still there, or no receipt, is not asked for.
        assert!(!verdict.damage.is_empty() && found.is_damaged(), "{receipted}: {found:#?}");
        assert_eq!(found.deleted, []);
    }
}

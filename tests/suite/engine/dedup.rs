//! What is known is not stored again, and what is stored is what was captured.

use super::watch::is_commit;
use super::world::{Script, World};
use backup_core::vault::inventory::InventoryLine;
use backup_core::verify::{Depth, Fraction, remember};

#[tokio::test]
async fn a_second_run_over_unchanged_data_stores_next_to_nothing() {
    let world = World::new().await;
    let source = Script::noise(9_500_000, 1);
    world.watch.fail(None);
    let first = world.run(&source).await.unwrap().snapshot.doc;
    assert!(first.added_bytes > 9_500_000);
    assert_eq!(first.added_bytes, first.stored_bytes);
    assert!(world.watch.objects_put().len() >= 4, "three of data, one of the manifest");
    world.watch.fail(None);
    let second = world.run(&source).await.unwrap().snapshot.doc;
    // Fails without `Confirming` in `start_pipeline`, or without `Journal::record` in `send`.
    assert_eq!(world.watch.objects_put(), Vec::<String>::new());
    let put: usize = world.watch.paths("put").len();
    assert_eq!(put, 3, "inventory, signature, document");
    assert!(world.watch.paths("get").iter().all(|path| !path.contains("/objects/")), "a backup reads no object");
    assert_eq!(world.watch.paths("list").len(), 1, "one listing of the generation");
    assert!(second.added_bytes * 100 < first.added_bytes, "{} of {}", second.added_bytes, first.added_bytes);
    assert_eq!((second.generation.clone(), second.stored_bytes), (first.generation, first.stored_bytes));
    assert_eq!(world.read_doc(&second).await.unwrap(), source.streams);
}

#[tokio::test]
async fn a_small_change_stores_little_and_both_states_come_back() {
    let world = World::new().await;
    let before = Script::noise(6_000_000, 2);
    let mut after = before.clone();
    after.streams[0].splice(3_000_000..3_000_000, *b"inserted in the middle");
    let first = world.run(&before).await.unwrap().snapshot.doc;
    let second = world.run(&after).await.unwrap().snapshot.doc;
    assert!(second.added_bytes * 5 < first.added_bytes, "{} of {}", second.added_bytes, first.added_bytes);
    assert_eq!(world.read_doc(&first).await.unwrap(), before.streams);
    assert_eq!(world.read_doc(&second).await.unwrap(), after.streams);
}

#[tokio::test]
async fn equal_streams_share_and_empty_ones_are_kept() {
    let world = World::new().await;
    let one = Script::noise(5_000_000, 3).streams.remove(0);
    let source = Script { streams: vec![one.clone(), Vec::new(), one.clone(), vec![0; 9_000_000]], abandoned: vec![] };
    let doc = world.run(&source).await.unwrap().snapshot.doc;
    assert_eq!(doc.plain_bytes, 19_000_000);
    assert!(doc.stored_bytes < 8_000_000, "{}", doc.stored_bytes);
    assert_eq!(world.read_doc(&doc).await.unwrap(), source.streams);
}

#[tokio::test]
async fn an_abandoned_stream_is_in_no_manifest_and_never_stands_for_bytes_that_were_not_sent() {
    let world = World::new().await;
    let kept = Script::noise(2_000_000, 4).streams.remove(0);
    // The same bytes first in a stream that is dropped. Fails if `Writer` announced chunks before their pack is sent.
    let source = Script { streams: vec![kept.clone()], abandoned: vec![kept.clone(), vec![7; 100]] };
    world.watch.fail(None);
    let doc = world.run(&source).await.unwrap().snapshot.doc;
    assert_eq!(doc.plain_bytes, 2_000_000);
    assert_eq!(world.read_doc(&doc).await.unwrap(), source.streams);
    let listed = world.vault.list_objects(&doc.dir()).await.unwrap();
    let (needed, _) = world.vault.get_inventory(&doc).await.unwrap();
    assert_eq!(sorted(listed), sorted(needed), "nothing was stored that nothing needs");
}

#[tokio::test]
async fn an_object_that_vanished_is_stored_again() {
    let world = World::new().await;
    let source = Script::noise(5_000_000, 5);
    let first = world.run(&source).await.unwrap().snapshot.doc;
    let (lines, _) = world.vault.get_inventory(&first).await.unwrap();
    for line in &lines {
        world.set(&first.dir().object(&line.name), None).await;
    }
    assert!(world.read_doc(&first).await.is_err());
    // Fails if the journal were believed without a listing: `Confirming::take`.
    let second = world.run(&source).await.unwrap().snapshot.doc;
    assert_eq!(world.read_doc(&second).await.unwrap(), source.streams);
    assert_eq!(world.watch.paths("put").iter().filter(|path| is_commit(path)).count(), 2);
}

#[tokio::test]
async fn an_object_that_was_found_damaged_is_stored_again() {
    let world = World::new().await;
    let source = Script::noise(500_000, 5);
    let first = world.run(&source).await.unwrap().snapshot.doc;
    let (lines, _) = world.vault.get_inventory(&first).await.unwrap();
    for line in &lines {
        // Name and size stay: no listing shows it.
        let path = first.dir().object(&line.name);
        let mut body = world.body(&path).await;
        let middle = body.len() / 2;
        body[middle] ^= 1;
        world.set(&path, Some(body)).await;
    }
    let found = world.verify_by(true, false).await;
    assert_eq!(found.objects.len(), lines.len());
    let depth = Depth { read: Some(Fraction { part: 1, of: 1 }), identities: None };
    remember(&world.state, &world.vault, (&first.stack, &first.source), &found, depth, true).await.unwrap();
    // Fails without `forget` in `remember`.
    let second = world.run(&source).await.unwrap().snapshot.doc;
    assert_eq!(world.read_doc(&second).await.unwrap(), source.streams);
}

fn sorted(mut lines: Vec<InventoryLine>) -> Vec<InventoryLine> {
    lines.sort_unstable();
    lines
}

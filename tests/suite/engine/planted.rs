//! What somebody who can write into a vault, and holds no key, can plant there: it is told, and it stops nothing.

use std::sync::Arc;

use backup_core::replicate::{Proof, Route, marks, marks_of, proofs, replicate};
use backup_core::vault::document::{GenerationDoc, MarkDoc, MarkKind, PublicDocument, SnapshotDoc};
use backup_core::vault::layout::{SnapshotId, signature_of};
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::{Store, StorePath};
use backup_core::vault::{Vault, VaultError};
use chrono::TimeDelta;

use super::watch::Watch;
use super::world::{Script, Told, World, make_vault};

fn far(letter: char) -> SnapshotId {
    format!("29990101T000000Z-1b-aaaaa{letter}").parse().unwrap()
}

fn pin(world: &World, doc: &SnapshotDoc) -> MarkDoc {
    MarkDoc {
        format: 1,
        stack: "shop".parse().unwrap(),
        source: "db".parse().unwrap(),
        snapshot: doc.id.clone(),
        mark: MarkKind::Pin,
        at: world.host.now(),
        document: backup_core::id::Hash256([0; 32]),
        closes: None,
        signer: world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    }
}

#[tokio::test]
async fn names_of_the_far_future_stop_no_run_and_hide_no_head() {
    let mut world = World::new().await;
    let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot;
    // More than the eight that a lost head is looked for behind; the first is over the size that is read.
    for letter in "abcdefghijkl".chars() {
        let body = if letter == 'a' { vec![b' '; 5 << 20] } else { b"{}".to_vec() };
        world.set(&first.doc.dir().snapshot(&far(letter), ".json"), Some(body)).await;
    }
    // Fails in `previous` where a document over the limit is an error.
    let second = world.run(&Script::noise(300_000, 2)).await.unwrap().snapshot;
    assert_eq!(second.doc.previous, Some(first.hash()));
    // Fails in `previous` where eight names are looked at, and not eight believed documents.
    world.lose_state().await;
    let third = world.run(&Script::noise(300_000, 3)).await.unwrap().snapshot;
    assert_eq!(third.doc.previous, Some(second.hash()));
    // A new generation: fails in `sizes` where a document over the limit is an error.
    world.pass(TimeDelta::days(8));
    let fourth = world.run(&Script::noise(300_000, 4)).await.unwrap().snapshot;
    assert_ne!(fourth.doc.generation, third.doc.generation);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_or_a_pipe_where_an_announcement_belongs_stops_no_run() {
    for what in ["link", "pipe", "folder"] {
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new().await;
        let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path(), LocalOptions::default()).unwrap());
        let now = store.now().await.unwrap();
        world.vault = Vault::create("first", store, world.vault.id().clone(), now, "backup 0").await.unwrap();
        world.host.pass(now - world.host.now());
        let told = Arc::new(Told::default());
        world.monitor = told.clone();
        let doc = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
        let at = dir.path().join(doc.dir().file("expired.json").as_str());
        match what {
            "link" => std::os::unix::fs::symlink("/etc/hostname", &at).unwrap(),
            "pipe" => assert!(std::process::Command::new("mkfifo").arg(&at).status().unwrap().success()),
            _ => std::fs::create_dir(&at).unwrap(),
        }
        // Fails in `notice::read` where a store's refusal of this one path is an error.
        world.run(&Script::noise(300_000, 2)).await.unwrap();
        assert_eq!(told.count("foreign or unsigned mark") > 0, what != "folder", "{what}");
        // The same where a mark belongs: told, and the others are read.
        let mark = pin(&world, &doc);
        world.vault.put_signed(&mark, &world.key).await.unwrap();
        let other = world.history().await[1].1.clone();
        let planted = MarkDoc { snapshot: other, ..mark };
        let planted = world.vault.put_signed(&planted, &world.key).await.unwrap().doc.path();
        let signature = dir.path().join(signature_of(&planted).as_str());
        std::fs::rename(&signature, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), signature).unwrap();
        let read = marks(&world.vault, &world.signers, &doc.stack, &doc.source).await.unwrap();
        assert_eq!((read.signed.len(), read.foreign.len()), (1, 1));
        // A vault that is not there as a whole is no planted path.
        std::fs::remove_file(dir.path().join("vault.json")).unwrap();
        if what != "folder" {
            world.run(&Script::noise(300_000, 3)).await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn strangers_among_the_marks_are_not_opened_and_text_is_made_plain() {
    let world = World::new().await;
    let doc = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
    let mark = world.vault.put_signed(&pin(&world, &doc), &world.key).await.unwrap().doc;
    let path = mark.path();
    let beside = |name: &str| StorePath::new(format!("{}/{name}", path.as_str().rsplit_once('/').unwrap().0)).unwrap();
    for name in ["x.json".to_owned(), format!("{}.odd.json", doc.id), format!("{}.pin.json", far('a'))] {
        world.set(&beside(&name), Some(b"{}".to_vec())).await;
    }
    let key = format!("{{\"\x7f\u{9b}2J\u{202e}\\u001b[2J{}\":1,\"format\":1}}", "x".repeat(5000));
    world.set(&beside(&format!("{}.accept.json", doc.id)), Some(key.into_bytes())).await;
    world.set(&beside(&format!("{}.checked.json", doc.id)), Some(vec![b' '; 65 << 10])).await;
    world.watch.fail(None);
    let listed = [doc.id.clone()].into();
    let read = marks_of(&world.vault, &world.signers, &doc.stack, &doc.source, &listed).await.unwrap();
    assert_eq!(read.signed.keys().collect::<Vec<_>>(), [&path]);
    // Fails where whatever lies there is opened.
    let opened: Vec<String> = world.watch.paths("get").into_iter().filter(|path| path.ends_with(".json")).collect();
    assert_eq!(opened.len(), 3, "{opened:?}");
    let told: Vec<&String> = read.foreign.values().collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().any(|text| text.contains("more than 65536 bytes")), "{told:?}");
    for text in told {
        assert!(text.chars().count() < 600 && !text.contains(['\x1b', '\x7f', '\u{9b}', '\u{202e}']), "{text:?}");
    }
    // An error's own chain is plain too.
    let accept = beside(&format!("{}.accept.json", doc.id));
    let error = world.vault.get_signed::<MarkDoc>(&accept, &world.signers).await.unwrap_err();
    assert!(matches!(error, VaultError::Document { .. }));
    let text = backup_core::verify::chain_text(&error);
    assert!(text.contains("unknown field") && text.contains("\\u{1b}"), "{text:?}");
    assert!(text.chars().count() < 700 && !text.contains(['\x1b', '\x7f', '\u{9b}', '\u{202e}']), "{text:?}");
}

#[tokio::test]
async fn a_name_at_the_destination_is_no_copy() {
    let mut world = World::new().await;
    let doc = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
    let there = Watch::new(MemoryStore::new(world.store.clock()));
    let to = make_vault("second", &there, world.store.now()).await;
    let told = Arc::new(Told::default());
    world.monitor = told.clone();
    let at = [(doc.dir(), doc.id.clone())];
    let copy = async || {
        let route = Route { from: &world.vault, to: &to, signers: &world.signers, monitor: &world.monitor };
        replicate(route, &doc.stack, &doc.source, &|_| true, false).await
    };
    let snapshot = doc.dir().snapshot(&doc.id, ".json");
    let generation = doc.dir().file("generation.json");
    let put = async |path: &StorePath| {
        there.memory.put(path, "{}".into(), backup_core::vault::store::PutMode::Replace).await.unwrap();
    };
    put(&snapshot).await;
    put(&generation).await;
    assert!(matches!(proofs(&to, &world.signers, &at).await.as_slice(), [Proof::Foreign(_)]));
    // Fails where a name that is listed counts as a copy.
    let done = copy().await;
    assert_eq!((done.errors.len(), done.snapshots.len()), (0, 1), "{done:?}");
    to.get_signed::<SnapshotDoc>(&snapshot, &world.signers).await.unwrap();
    // Fails where a generation that exists counts as one that is believed.
    to.get_signed::<GenerationDoc>(&generation, &world.signers).await.unwrap();
    assert_eq!(told.count("replaced by a copy"), 2);
    assert!(matches!(proofs(&to, &world.signers, &at).await.as_slice(), [Proof::Signed(_)]));
    // And what is proven is left alone.
    let done = copy().await;
    assert_eq!((done.errors.len(), done.snapshots.len(), told.count("")), (0, 0, 0), "{done:?}");
}

//! When a new generation opens, when the old one accepts nothing more, and the chain through all of them.

use backup_core::backup::BackupError;
use backup_core::signature::Signers;
use chrono::TimeDelta;

use super::world::{Script, World, host_key};

/// Runs twice with `between` in the middle; whether the second run opened a new generation. Everything must stay readable
/// and the chain must close.
async fn turns(between: impl AsyncFnOnce(&mut World)) -> bool {
    let mut world = World::new().await;
    let source = Script::noise(300_000, 1);
    let first = world.run(&source).await.unwrap().snapshot;
    between(&mut world).await;
    let second = world.run(&source).await.unwrap().snapshot;
    for doc in [&first.doc, &second.doc] {
        assert_eq!(world.read_doc(doc).await.unwrap(), source.streams);
    }
    // Fails if `previous` looked at the state alone, which may be lost.
    assert_eq!((first.doc.previous, second.doc.previous), (None, Some(first.hash())));
    assert!(!world.verify(true).await.is_damaged());
    let turned = first.doc.generation != second.doc.generation;
    assert_eq!(turned, first.doc.public_key != second.doc.public_key);
    assert_eq!(turned, second.doc.added_bytes > 300_000, "nothing is shared across generations");
    turned
}

#[tokio::test]
async fn a_generation_goes_on_within_its_period() {
    assert!(!turns(async |_| {}).await);
}

#[tokio::test]
async fn a_lost_state_opens_a_new_one() {
    assert!(turns(async |world| world.lose_state().await).await);
}

#[tokio::test]
async fn the_turn_of_the_period_opens_a_new_one() {
    assert!(turns(async |world| world.pass(TimeDelta::days(7))).await);
}

/// What a run asks of the store, and how many folders of snapshots are among it.
async fn asked(world: &World, seed: u64) -> (usize, usize) {
    world.watch.fail(None);
    world.run(&Script::noise(300_000, seed)).await.unwrap();
    let asked = world.watch.asked();
    let folders = asked.iter().filter(|(call, path)| *call == "children" && path.ends_with("/snapshots")).count();
    (asked.iter().filter(|(call, _)| !["sync", "now"].contains(call)).count(), folders)
}

#[tokio::test]
async fn a_source_with_many_generations_costs_no_more_requests() {
    let mut world = World::new().await;
    for week in 0..8 {
        world.run(&Script::noise(300_000, week)).await.unwrap();
        world.pass(TimeDelta::days(7));
    }
    asked(&world, 8).await;
    // Fails where `history` lists every generation: this one, and those that took commits until a few days ago.
    let (all, folders) = asked(&world, 8).await;
    assert!(folders <= 3 && all <= 12, "{all} requests, {folders} folders");
    let known = world.history().await;
    assert_eq!(known.len(), 10);
    assert!(!world.verify(false).await.is_damaged(), "the chain closes");
    // Whatever this host does not remember it looks for everywhere.
    world.lose_state().await;
    let (_, folders) = asked(&world, 8).await;
    assert!(folders > 8, "{folders} folders");
    assert!(!world.verify(false).await.is_damaged(), "the chain closes");
}

#[tokio::test]
async fn another_period_opens_a_new_one() {
    assert!(turns(async |world| world.request.period = "1d".parse().unwrap()).await);
}

#[tokio::test]
async fn another_recipient_opens_a_new_one() {
    let more = age::x25519::Identity::generate().to_public().to_string();
    assert!(turns(async |world| world.request.recipients.push(more)).await);
}

#[tokio::test]
async fn another_host_key_opens_a_new_one_with_a_chain_of_its_own() {
    let mut world = World::new().await;
    let source = Script::noise(300_000, 1);
    let first = world.run(&source).await.unwrap().snapshot;
    world.key = host_key(2);
    let second = world.run(&source).await.unwrap().snapshot;
    assert_ne!(first.doc.generation, second.doc.generation);
    assert_ne!(first.by, second.by);
}

#[tokio::test]
async fn a_host_key_that_ends_while_a_capture_lasts_commits_nothing() {
    let mut world = World::new().await;
    let line = world.key.allowed_signers_line();
    world.signers =
        Signers::parse(&line.replace("namespaces=", "valid-before=\"20261121030000Z\",namespaces=")).unwrap();
    world.run(&Script::noise(300_000, 1)).await.unwrap();
    let clock = world.host.clone();
    world.watch.before_put(move |path| {
        if path.ends_with(".inventory.zst") {
            clock.pass(TimeDelta::hours(1));
        }
    });
    let ended = world.run(&Script::noise(300_000, 2)).await;
    // Fails without `ended` in `commit`.
    assert!(matches!(ended, Err(BackupError::Ended { .. })), "{ended:?}");
    assert_eq!(world.history().await.len(), 1);
    assert!(!world.verify(true).await.is_damaged());
}

#[tokio::test]
async fn past_the_deadline_by_the_stores_clock_nothing_is_committed() {
    let world = World::new().await;
    let first = world.run(&Script::noise(300_000, 1)).await.unwrap().snapshot.doc;
    let deadline = first.generation.deadline();
    // An upload that takes weeks: the store's clock moves while objects are put.
    let upload_until = |at: chrono::DateTime<chrono::Utc>| {
        let clock = world.store.clone();
        world.watch.before_put(move |path| {
            if path.ends_with(".inventory.zst") {
                clock.pass(at - clock.now());
            }
        });
    };
    let before = world.store.now();
    upload_until(deadline);
    world.run(&Script::noise(300_000, 2)).await.unwrap();
    world.store.pass(before - world.store.now());
    upload_until(deadline + TimeDelta::seconds(1));
    let ended = world.run(&Script::noise(300_000, 3)).await;
    // Fails without the comparison with `deadline` in `commit`.
    assert!(matches!(ended, Err(BackupError::PastDeadline { clocks_agree: false, .. })), "{ended:?}");
    assert_eq!(world.history().await.len(), 2);
    assert!(!world.verify(true).await.is_damaged());
    // An upload that really takes so long: the host's clock says so too. Fails where the clocks are blamed for it.
    world.store.pass(before - world.store.now());
    let (host, store) = (world.host.clone(), world.store.clone());
    world.watch.before_put(move |path| {
        if path.ends_with(".inventory.zst") {
            for clock in [&host, &store] {
                clock.pass(deadline + TimeDelta::seconds(1) - clock.now());
            }
        }
    });
    let ended = world.run(&Script::noise(300_000, 4)).await;
    assert!(matches!(ended, Err(BackupError::PastDeadline { clocks_agree: true, .. })), "{ended:?}");
}

#[tokio::test]
async fn clocks_that_disagree_stop_a_run_before_it_begins() {
    let world = World::new().await;
    for apart in [TimeDelta::days(365), TimeDelta::minutes(-61)] {
        world.store.pass(apart);
        let ended = world.run(&Script::noise(1000, 1)).await;
        // Fails without `clocks_agree` in `backup`.
        assert!(matches!(ended, Err(BackupError::Clocks { .. })), "{ended:?}");
        world.store.pass(-apart);
    }
    assert!(world.history().await.is_empty());
    world.store.pass(TimeDelta::minutes(55));
    world.run(&Script::noise(1000, 1)).await.unwrap();
}

#[tokio::test]
async fn a_head_that_the_vault_lost_leaves_the_chain_open() {
    let world = World::new().await;
    let source = Script::noise(300_000, 1);
    world.run(&source).await.unwrap();
    let second = world.run(&source).await.unwrap().snapshot.doc;
    // The vault is rolled back by one snapshot; the host remembers.
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        world.set(&second.dir().snapshot(&second.id, suffix), None).await;
    }
    assert!(!world.verify(true).await.is_damaged(), "the vault alone cannot know");
    world.run(&source).await.unwrap();
    // Fails if `previous` took the vault's newest instead of the remembered head.
    let verified = world.verify(true).await;
    assert_eq!(verified.chain.len(), 1, "{verified:?}");
}

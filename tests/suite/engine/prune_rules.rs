//! What a prune must wait for, and what stays whatever its age: a test for each sentence that `prune` and the golden tables of
//! `retention` leave open.

use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::prune::{Action, apply, plan, plan_waiving};
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, MarkDoc, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId, mark, signature_of};
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::store::{Store, StorePath};
use chrono::TimeDelta;
use retention::{Freeze, Policy, Span};

use super::prune::{below, day, dirs, planned, prune, read_receipts, request, six_days};
use super::world::{Script, World};

/// A signed mark on a snapshot; `document` is what it says it is about.
pub(super) fn marked(world: &World, doc: &SnapshotDoc, kind: MarkKind, document: Hash256) -> MarkDoc {
    MarkDoc {
        format: 1,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        snapshot: doc.id.clone(),
        mark: kind,
        at: world.host.now(),
        document,
        closes: None,
        signer: world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    }
}

pub(super) async fn hash(world: &World, doc: &SnapshotDoc) -> Hash256 {
    Hash256::of(&world.body(&doc.dir().snapshot(&doc.id, ".json")).await)
}

/// Six daily generations of two snapshots each.
pub(super) async fn twelve() -> (World, Vec<SnapshotDoc>) {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let mut docs = Vec::new();
    for seed in 1..=6 {
        docs.push(day(&world, seed).await);
        docs.push(world.run(&Script::noise(90_000, seed + 100)).await.unwrap().snapshot.doc);
    }
    (world, docs)
}

#[tokio::test]
async fn the_announcement_is_signed_and_names_each_snapshot_and_the_newest() {
    let (world, docs) = twelve().await;
    prune(&world).await;
    let path = docs[0].dir().file(PruneStage::Expired.file());
    let doc = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap().doc;
    let named: Vec<&SnapshotId> = doc.snapshots.iter().map(|(id, _)| id).collect();
    assert_eq!(named.len(), 2);
    assert!(named.contains(&&docs[0].id) && named.contains(&&docs[1].id));
    assert!(doc.snapshots.iter().all(|(_, reason)| reason.starts_with("expire: ")), "{:?}", doc.snapshots);
    assert_eq!((doc.newest, doc.at, doc.grounds.is_plain()), (docs[11].id.clone(), world.store.now(), true));
}

#[tokio::test]
async fn the_second_run_must_find_what_the_first_one_named() {
    let (world, docs) = twelve().await;
    prune(&world).await;
    // Of the oldest generation one is gone, and the chain of the rest closes: nothing is frozen.
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        world.set(&docs[0].dir().snapshot(&docs[0].id, suffix), None).await;
    }
    day(&world, 7).await;
    let plan = planned(&world).await;
    assert_eq!(plan.frozen, []);
    // Fails without the comparison of names in `Scene::action`.
    assert_eq!(dirs(&plan, &Action::Withdraw), [docs[0].dir()]);
    assert!(dirs(&plan, &Action::Delete).contains(&docs[2].dir()), "the others are as they were");
    apply(&world.vault, &world.key, &plan).await.unwrap();
    world.read_doc(&docs[1]).await.unwrap();
}

#[tokio::test]
async fn the_day_is_the_stores_and_not_the_hosts() {
    for (host, store, gone) in [(30, -20, 0), (-20, 20, 3)] {
        let (world, _) = six_days().await;
        prune(&world).await;
        world.pass(TimeDelta::hours(24) - TimeDelta::minutes(10));
        world.run(&Script::noise(100_000, 7)).await.unwrap();
        world.host.pass(TimeDelta::minutes(host));
        world.store.pass(TimeDelta::minutes(store));
        let plan = planned(&world).await;
        assert_eq!(plan.frozen, [], "within the hour that clocks may differ");
        // Fails where the host's clock is asked in `Scene::action`.
        assert_eq!(dirs(&plan, &Action::Delete).len(), gone, "host {host}, store {store}");
    }
}

#[tokio::test]
async fn the_receipt_is_there_before_anything_goes_and_things_go_in_order() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    world.watch.fail(None);
    let memory = world.watch.memory.clone();
    let (folder, document) = (docs[0].dir().dir(), docs[0].dir().snapshot(&docs[0].id, ".json"));
    let whole = world.watch.content(folder.as_str()).await.len();
    let generation = docs[0].generation.to_string();
    world.watch.before_put(move |path| {
        if path.contains("/receipts/") && path.contains(&generation) {
            let there = futures::executor::block_on(memory.list(Some(&folder))).unwrap();
            // With `deleting.json` and its signature, and everything else as it was.
            assert_eq!(there.len(), whole + 2, "{path}");
            assert!(there.iter().any(|entry| entry.path == document));
        }
    });
    apply(&world.vault, &world.key, &plan).await.unwrap();
    let prefix = format!("{}/", docs[0].dir().dir());
    let deleted = world.watch.paths("delete");
    let order: Vec<u8> = deleted
        .iter()
        .filter_map(|path| path.strip_prefix(&prefix))
        .map(|rest| match rest {
            rest if rest.starts_with("snapshots/") => {
                u8::from(std::path::Path::new(rest).extension().is_none_or(|end| end != "json"))
            }
            rest if rest.starts_with("objects/") => 2,
            "generation.json" | "generation.json.sig" => 3,
            "expired.json" | "expired.json.sig" => 4,
            "deleting.json" => 5,
            "deleting.json.sig" => 6,
            other => panic!("{other}"),
        })
        .collect();
    assert!(order.is_sorted() && order.first() == Some(&0) && order.last() == Some(&6), "{deleted:?}");
    assert!(order.contains(&2) && read_receipts(&world).await.len() == 3);
}

#[tokio::test]
async fn a_generation_that_may_still_get_snapshots_stays() {
    let world = World::new().await;
    let first = world.run(&Script::noise(90_000, 1)).await.unwrap().snapshot.doc;
    let (mut open, mut closed) = (0, 0);
    for seed in 2..24 {
        let doc = day(&world, seed).await;
        let plan = planned(&world).await;
        assert_eq!(plan.frozen, []);
        let announced = dirs(&plan, &Action::Announce).contains(&first.dir());
        let step = plan.steps.iter().find(|step| step.dir == first.dir()).unwrap();
        let expired = step.snapshots.iter().all(|(_, decision)| decision.starts_with("expire"));
        // Fails where `retention` does not ask whether it is closed.
        let is_closed = first.dir().id.is_closed(world.store.now());
        assert_eq!(announced, expired && is_closed, "{} at {}: {}", first.generation, world.store.now(), step.reason);
        open += usize::from(expired && !is_closed);
        closed += usize::from(expired && is_closed);
        assert!(doc.generation >= first.generation);
    }
    assert!(open > 3 && closed > 3, "{open} open, {closed} closed");
}

#[tokio::test]
async fn a_pin_that_comes_between_the_plan_and_the_deletion_stops_it() {
    for believed in [true, false] {
        let (world, docs) = six_days().await;
        prune(&world).await;
        day(&world, 7).await;
        let plan = planned(&world).await;
        assert!(dirs(&plan, &Action::Delete).contains(&docs[0].dir()));
        if believed {
            let pin = marked(&world, &docs[0], MarkKind::Pin, hash(&world, &docs[0]).await);
            world.vault.put_signed(&pin, &world.key).await.unwrap();
        } else {
            let path = mark(&docs[0].stack, &docs[0].source, &docs[0].id, MarkKind::Pin);
            world.set(&path, Some(b"{}".to_vec())).await;
        }
        let done = apply(&world.vault, &world.key, &plan).await.unwrap();
        // Fails without `is_pinned` in `Work::remove`.
        assert!(done.iter().any(|done| done.dir == docs[0].dir() && done.action == Action::Withdraw), "{done:?}");
        world.read_doc(&docs[0]).await.unwrap();
        assert_eq!(read_receipts(&world).await.len(), 2, "of the two others only");
        for stage in [PruneStage::Expired, PruneStage::Deleting] {
            assert!(!world.vault.exists(&docs[0].dir().file(stage.file())).await.unwrap());
        }
    }
}

#[tokio::test]
async fn a_deletion_that_began_is_given_up_where_something_is_wanted_again() {
    for how in ["nothing", "pin", "commit"] {
        let (world, docs) = six_days().await;
        prune(&world).await;
        day(&world, 7).await;
        // It died when it had said that it begins: nothing has gone yet.
        let dir = docs[0].dir();
        let path = dir.file(PruneStage::Expired.file());
        let mut begun = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap().doc;
        (begun.stage, begun.at) = (PruneStage::Deleting, world.store.now());
        world.vault.put_signed(&begun, &world.key).await.unwrap();
        match how {
            "pin" => {
                let pin = marked(&world, &docs[0], MarkKind::Pin, hash(&world, &docs[0]).await);
                world.vault.put_signed(&pin, &world.key).await.unwrap();
            }
            "commit" => {
                let mut late = docs[0].clone();
                let id = late.id.to_string();
                late.id = format!("{}zzzzzz", &id[..id.len() - 6]).parse().unwrap();
                let (lines, _) = world.vault.get_inventory(&docs[0]).await.unwrap();
                late.inventory = world.vault.put_inventory(&dir, &late.id, lines).await.unwrap();
                world.vault.put_signed(&late, &world.key).await.unwrap();
            }
            _ => {}
        }
        // Fails without `wanted` in `Scene::judge`.
        let expected = if how == "nothing" { Action::Resume } else { Action::Withdraw };
        assert!(dirs(&planned(&world).await, &expected).contains(&dir), "{how}");
        prune(&world).await;
        assert_eq!(world.read_doc(&docs[0]).await.is_ok(), how != "nothing", "{how}");
    }
}

#[tokio::test]
async fn signed_marks_for_these_very_bytes_keep_their_snapshot() {
    for (kind, keeps) in
        [(MarkKind::Pin, true), (MarkKind::Checked, true), (MarkKind::Restored, true), (MarkKind::Accept, false)]
    {
        let (world, docs) = six_days().await;
        let put = async |document| {
            world.vault.put_signed(&marked(&world, &docs[1], kind, document), &world.key).await.unwrap();
            dirs(&planned(&world).await, &Action::Announce).contains(&docs[1].dir())
        };
        // Fails where `history::stamp` does not compare the document, or mixes the marks up.
        assert!(put(Hash256([0; 32])).await, "{kind:?} of other bytes");
        assert_eq!(put(hash(&world, &docs[1]).await).await, !keeps, "{kind:?}");
    }
}

#[tokio::test]
async fn what_another_vault_promises_and_lacks_stays() {
    let (world, docs) = six_days().await;
    let mut request = request(&world);
    request.promised_elsewhere.insert(docs[0].id.to_string());
    let plan = plan(&world.vault, &world.signers, &request).await.unwrap();
    // Fails where `history::read` drops what is promised elsewhere.
    assert_eq!(dirs(&plan, &Action::Announce), [docs[1].dir(), docs[2].dir()]);
}

/// What would be announced with a window of two days and a half: the oldest three, counted back from the sixth day.
pub(super) async fn by_sixty_hours(world: &World) -> (Vec<GenerationDir>, Vec<Freeze>) {
    let mut request = request(world);
    request.policy = Policy { within: Span::hours(60), ..request.policy };
    let plan = plan(&world.vault, &world.signers, &request).await.unwrap();
    (dirs(&plan, &Action::Announce), plan.frozen)
}

#[tokio::test]
async fn ages_count_from_the_newest_that_is_signed_and_whole() {
    let (world, docs) = six_days().await;
    assert_eq!(by_sixty_hours(&world).await.0.len(), 3);
    // A name of the far future makes nothing else old.
    let planted = docs[5].dir().snapshot(&"29990101T000000Z-1b-aaaaaa".parse().unwrap(), ".json");
    world.set(&planted, Some(b"{}".to_vec())).await;
    let (announced, frozen) = by_sixty_hours(&world).await;
    assert_eq!((announced.len(), frozen.len()), (3, 0));
    // Fails where `history::is_complete` is not asked: what lacks an object takes nobody's place.
    world.set(&docs[5].dir().object(&docs[5].manifest.objects[0]), None).await;
    assert_eq!(by_sixty_hours(&world).await.0, [docs[0].dir(), docs[1].dir()]);
}

#[tokio::test]
async fn a_chain_that_does_not_close_freezes() {
    let (world, docs) = six_days().await;
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        world.set(&docs[2].dir().snapshot(&docs[2].id, suffix), None).await;
    }
    let plan = planned(&world).await;
    // Fails without `open_chain` in `history::read`.
    assert!(matches!(plan.frozen.first(), Some(Freeze::OpenChain { .. })), "{:?}", plan.frozen);
    assert_eq!(dirs(&plan, &Action::Announce), []);
}

#[tokio::test]
async fn a_gap_freezes_until_somebody_accepts_what_came_after_it() {
    let (world, _) = six_days().await;
    world.pass(TimeDelta::days(4));
    let after = day(&world, 7).await;
    let plan = planned(&world).await;
    assert!(matches!(plan.frozen.as_slice(), [Freeze::Gap { .. }]), "{:?}", plan.frozen);
    assert_eq!(dirs(&plan, &Action::Announce), []);
    let accept = marked(&world, &after, MarkKind::Accept, hash(&world, &after).await);
    world.vault.put_signed(&accept, &world.key).await.unwrap();
    assert!(dirs(&planned(&world).await, &Action::Announce).len() > 3);
}

#[tokio::test]
async fn a_receipt_that_nobody_signed_takes_no_receipts_place() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    day(&world, 7).await;
    // Interrupted after `deleting.json`, before the receipt.
    for (path, body) in super::world::announcement(&docs[0], PruneStage::Deleting, &world.key) {
        world.set(&path, Some(body)).await;
    }
    let deleting = docs[0].dir().file("deleting.json");
    let mut doc = world.vault.get_signed::<ExpiredDoc>(&deleting, &world.signers).await.unwrap().doc;
    doc.at = world.store.now();
    world.vault.put_signed(&doc, &world.key).await.unwrap();
    let planted = format!("shop/db/receipts/20990101T000000Z-{}.json", docs[0].generation);
    world.set(&StorePath::new(planted.clone()).unwrap(), Some(b"{}".to_vec())).await;
    assert_eq!(dirs(&planned(&world).await, &Action::Resume), [docs[0].dir()]);
    prune(&world).await;
    world.set(&StorePath::new(planted).unwrap(), None).await;
    // Fails where a name among the receipts is one.
    assert!(read_receipts(&world).await.iter().any(|receipt| receipt.generation == docs[0].generation));
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_where_a_signature_or_an_inventory_belongs_stops_no_plan() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new().await;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(dir.path(), LocalOptions::default()).unwrap());
    let now = store.now().await.unwrap();
    world.vault = Vault::create("first", store, world.vault.id().clone(), now, "backup 0").await.unwrap();
    world.host.pass(now - world.host.now());
    let first = world.run(&Script::noise(90_000, 1)).await.unwrap().snapshot.doc;
    let second = world.run(&Script::noise(90_000, 2)).await.unwrap().snapshot.doc;
    for (at, path) in
        [signature_of(&first.dir().snapshot(&first.id, ".json")), second.dir().snapshot(&second.id, ".inventory.zst")]
            .into_iter()
            .enumerate()
    {
        let path = dir.path().join(path.as_str());
        std::fs::rename(&path, dir.path().join(format!("elsewhere-{at}"))).unwrap();
        std::os::unix::fs::symlink(dir.path().join(format!("elsewhere-{at}")), &path).unwrap();
    }
    world.store.pass(now - world.store.now());
    // Fails where `history::believed` takes the store's refusal of one path for a store that failed.
    let plan = planned(&world).await;
    assert!(matches!(plan.frozen.as_slice(), [Freeze::NoSnapshot]), "{:?}", plan.frozen);
    assert_eq!(plan.steps[0].action, Action::Keep);
}

#[tokio::test]
async fn what_an_operator_passed_over_is_written_down_each_time() {
    let (world, docs) = six_days().await;
    let waiver = backup_core::prune::Waiver { now: false, without: vec!["lost".to_owned()] };
    let twice = async || {
        let plan = plan_waiving(&world.vault, &world.signers, &request(&world), &waiver).await.unwrap();
        assert_eq!(plan.without(), ["lost"]);
        apply(&world.vault, &world.key, &plan).await.unwrap()
    };
    twice().await;
    let path = docs[0].dir().file("expired.json");
    let doc = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap().doc;
    assert_eq!(doc.grounds.without, ["lost"]);
    day(&world, 7).await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (memory, told, deleting) = (world.watch.memory.clone(), seen.clone(), docs[0].dir().file("deleting.json"));
    world.watch.before_put(move |path| {
        if path.contains("/receipts/")
            && let Ok(bytes) = futures::executor::block_on(memory.get(&deleting, u64::MAX))
        {
            told.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        }
    });
    twice().await;
    assert!(
        seen.lock().unwrap().iter().all(|text| text.contains("\"without\":[\"lost\"]"))
            && !seen.lock().unwrap().is_empty()
    );
    assert!(read_receipts(&world).await.iter().all(|receipt| receipt.grounds.without == ["lost"]));
}

#[tokio::test]
async fn a_policy_that_promises_more_lets_less_go() {
    // The tests above would hold for a plan that knows no policy but one.
    let (world, docs) = six_days().await;
    let mut wide = request(&world);
    wide.policy = Policy { within: Span::hours(80), ..wide.policy };
    let plan = plan(&world.vault, &world.signers, &wide).await.unwrap();
    assert_eq!(dirs(&plan, &Action::Announce), [docs[0].dir(), docs[1].dir()]);
}

/// Between a pinned snapshot and the newest ones lie two that were pruned, with receipts, and one that somebody took away.
#[tokio::test]
async fn a_receipt_excuses_what_it_names_in_its_own_vault_and_nothing_beside_it() {
    let (world, docs) = six_days().await;
    let document = Hash256::of(&world.body(&docs[0].dir().snapshot(&docs[0].id, ".json")).await);
    world.vault.put_signed(&marked(&world, &docs[0], MarkKind::Pin, document), &world.key).await.unwrap();
    prune(&world).await;
    day(&world, 7).await;
    prune(&world).await;
    let receipts = read_receipts(&world).await;
    assert!(!receipts.is_empty() && receipts.iter().all(|receipt| receipt.documents.len() == 1), "{receipts:?}");
    let gone = docs.iter().skip(1).find(|doc| receipts.iter().all(|one| one.generation != doc.generation)).unwrap();
    let document = Hash256::of(&world.body(&gone.dir().snapshot(&gone.id, ".json")).await);
    for path in below(&world, &gone.dir()).await {
        world.set(&StorePath::new(&path).unwrap(), None).await;
    }
    let open = async || {
        let plan = planned(&world).await;
        let open = plan.frozen.iter().any(|freeze| matches!(freeze, Freeze::OpenChain { .. }));
        assert_eq!(world.verify(false).await.chain.is_empty(), !open);
        open
    };
    // Fails where a receipt closes whatever gap its snapshots lie in.
    assert!(open().await);
    let mut own = receipts[0].clone();
    own.generation = gone.generation.clone();
    (own.snapshots, own.documents) = (vec![(gone.id.clone(), "expire".to_owned())], [document].into());
    let other = ReceiptDoc { vault: Some("9".repeat(32).parse().unwrap()), ..own.clone() };
    world.vault.put_signed(&other, &world.key).await.unwrap();
    // Fails where a receipt counts in every vault: copied from one that promises less, it would excuse a deletion here.
    assert!(open().await);
    own.at += TimeDelta::seconds(1);
    world.vault.put_signed(&own, &world.key).await.unwrap();
    assert!(!open().await);
}

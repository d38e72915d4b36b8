//! Two runs, a day and a newer snapshot between them, a receipt, and nothing deleted on anybody's word but a signer's.

use std::collections::BTreeSet;

use backup_core::prune::{Action, Done, PrunePlan, PruneRequest, apply, plan, undo};
use backup_core::vault::document::{PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, receipts, signature_of};
use backup_core::vault::store::StorePath;
use chrono::TimeDelta;
use retention::{Policy, Span};

use super::watch::Fault;
use super::world::{Script, World, announcement, forgeries};

/// Six daily generations of one snapshot each; two days are promised.
pub(super) async fn six_days() -> (World, Vec<SnapshotDoc>) {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let mut docs = Vec::new();
    for seed in 1..=6 {
        docs.push(day(&world, seed).await);
    }
    (world, docs)
}

pub(crate) async fn day(world: &World, seed: u64) -> SnapshotDoc {
    world.pass(TimeDelta::days(1));
    world.run(&Script::noise(100_000, seed)).await.unwrap().snapshot.doc
}

pub(crate) fn request(world: &World) -> PruneRequest {
    PruneRequest {
        stack: world.request.stack.clone(),
        source: world.request.source.clone(),
        policy: Policy { within: Span::days(2), weekly: None, monthly: None, yearly: None, min: 1 },
        timezone: chrono_tz::UTC,
        host_now: world.host.now(),
        promised_elsewhere: BTreeSet::new(),
        marks: BTreeSet::new(),
        known: BTreeSet::new(),
        damaged: BTreeSet::new(),
        tool: "backup 0".to_owned(),
    }
}

pub(super) async fn planned(world: &World) -> PrunePlan {
    plan(&world.vault, &world.signers, &request(world)).await.unwrap()
}

pub(super) async fn prune(world: &World) -> Vec<Done> {
    apply(&world.vault, &world.key, &planned(world).await).await.unwrap()
}

pub(super) fn dirs(plan: &PrunePlan, action: &Action) -> Vec<GenerationDir> {
    plan.steps.iter().filter(|step| step.action == *action).map(|step| step.dir.clone()).collect()
}

/// The paths below a generation.
pub(super) async fn below(world: &World, dir: &GenerationDir) -> Vec<String> {
    world.watch.content(dir.dir().as_str()).await.into_iter().map(|(path, _)| path).collect()
}

#[tokio::test]
async fn announced_waited_for_and_deleted_with_a_receipt() {
    let (world, docs) = six_days().await;
    let first = planned(&world).await;
    let announced = dirs(&first, &Action::Announce);
    assert_eq!(announced, docs[..3].iter().map(SnapshotDoc::dir).collect::<Vec<_>>());
    // A plan reads only.
    assert!(!world.vault.exists(&announced[0].file("expired.json")).await.unwrap());
    apply(&world.vault, &world.key, &first).await.unwrap();
    assert_eq!(world.history().await.len(), 6, "announcing deletes nothing");

    // Too early by the store's clock, with a newer snapshot: fails without `now < until` in `action`.
    let doc = day(&world, 7).await;
    world.store.pass(TimeDelta::minutes(-2));
    world.host.pass(TimeDelta::minutes(-2));
    let plan = planned(&world).await;
    let early = plan.steps.iter().find(|step| step.dir == announced[0]).unwrap();
    assert!(matches!(&early.action, Action::Wait { reason } if reason.contains("may be deleted from")), "{early:?}");
    world.pass(TimeDelta::minutes(2));
    assert_eq!(dirs(&planned(&world).await, &Action::Delete), announced);

    let before: u64 = world.vault.list_objects(&announced[0]).await.unwrap().iter().map(|line| line.bytes).sum();
    let done = prune(&world).await;
    assert!(done.iter().filter(|done| done.action == Action::Delete).count() == 3, "{done:?}");
    for dir in &announced {
        assert_eq!(below(&world, dir).await, Vec::<String>::new());
    }
    assert_eq!(world.history().await.last().unwrap().1, doc.id);
    let receipts = read_receipts(&world).await;
    assert_eq!(receipts.len(), 3);
    assert_eq!((receipts[0].generation.clone(), receipts[0].stored_bytes), (announced[0].id.clone(), before));
    assert_eq!(receipts[0].snapshots[0].0, docs[0].id);
    // What stayed is whole, and the next plan is not frozen by what is gone.
    assert!(!world.verify(true).await.is_damaged());
    assert_eq!(planned(&world).await.frozen, []);
}

pub(super) async fn read_receipts(world: &World) -> Vec<ReceiptDoc> {
    let folder = receipts(&world.request.stack, &world.request.source);
    let mut found = Vec::new();
    for entry in world.vault.list(&folder).await.unwrap() {
        if entry.path.as_str().strip_suffix(".json").is_some() {
            found.push(world.vault.get_signed::<ReceiptDoc>(&entry.path, &world.signers).await.unwrap().doc);
        }
    }
    found
}

#[tokio::test]
async fn a_hole_in_the_chain_freezes_until_an_operator_accepts_what_came_after_it() {
    use backup_core::vault::document::MarkKind;
    let (world, docs) = six_days().await;
    // As in a vault that was away, and whose policy no longer wanted what it had missed.
    for suffix in [".json", ".json.sig", ".inventory.zst"] {
        world.set(&docs[2].dir().snapshot(&docs[2].id, suffix), None).await;
    }
    let open = async || {
        let frozen = planned(&world).await.frozen;
        frozen.iter().any(|freeze| matches!(freeze, retention::Freeze::OpenChain { .. }))
    };
    assert!(open().await);
    let accept = async |doc: &SnapshotDoc| {
        let signed = world.vault.get_signed(&doc.dir().snapshot(&doc.id, ".json"), &world.signers).await.unwrap();
        let keys = (&world.key, &world.signers);
        backup_core::mark::set(&world.vault, keys, &signed, MarkKind::Accept, (world.host.now(), "t")).await.unwrap();
    };
    // Fails where any accept lifts it.
    accept(&docs[1]).await;
    assert!(open().await);
    // Fails without `looked_at` in `history::read`: nothing would ever go again.
    accept(&docs[3]).await;
    assert_eq!(planned(&world).await.frozen, []);
    // And it is no secret, but no damage any more.
    let verified = world.verify(false).await;
    assert_eq!((verified.chain, verified.accepted.len()), (vec![], 1));
}

#[tokio::test]
async fn without_a_newer_snapshot_it_waits() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    world.pass(TimeDelta::hours(25));
    let plan = planned(&world).await;
    assert_eq!(plan.frozen, []);
    let step = plan.steps.iter().find(|step| step.dir == docs[0].dir()).unwrap();
    // Fails without the comparison with `announced.newest` in `action`.
    assert!(matches!(&step.action, Action::Wait { reason } if reason.contains("newer than")), "{step:?}");
    prune(&world).await;
    assert_eq!(world.history().await.len(), 6);
}

#[tokio::test]
async fn undone_before_it_begins() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let undone = undo(&world.vault, &world.signers, &world.request.stack, &world.request.source).await.unwrap();
    assert_eq!((undone.made, undone.too_late), (docs[..3].iter().map(SnapshotDoc::dir).collect(), Vec::new()));
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    let plan = planned(&world).await;
    assert_eq!(dirs(&plan, &Action::Delete), [], "the day counts anew");
    assert!(dirs(&plan, &Action::Announce).contains(&docs[0].dir()));
}

#[tokio::test]
async fn a_pin_set_after_the_announcement_takes_it_back() {
    use backup_core::vault::document::{MarkDoc, MarkKind};
    let (world, docs) = six_days().await;
    prune(&world).await;
    let path = docs[0].dir().snapshot(&docs[0].id, ".json");
    let document = backup_core::id::Hash256::of(&world.body(&path).await);
    let mark = MarkDoc {
        format: 1,
        stack: docs[0].stack.clone(),
        source: docs[0].source.clone(),
        snapshot: docs[0].id.clone(),
        mark: MarkKind::Pin,
        at: world.host.now(),
        document,
        closes: None,
        signer: world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    world.vault.put_signed(&mark, &world.key).await.unwrap();
    day(&world, 7).await;
    // Fails without `!delete ||` in `action`.
    let plan = planned(&world).await;
    assert_eq!(dirs(&plan, &Action::Withdraw), [docs[0].dir()]);
    prune(&world).await;
    world.read_doc(&docs[0]).await.unwrap();
    assert!(!world.vault.exists(&docs[0].dir().file("expired.json")).await.unwrap());
}

/// Interrupted at each call of the deleting run, the next run ends what was begun.
#[tokio::test]
async fn a_deletion_interrupted_at_any_call_is_resumed() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        let mut at = 0;
        let mut resumed = 0;
        loop {
            let (world, docs) = six_days().await;
            prune(&world).await;
            day(&world, 7).await;
            let plan = planned(&world).await;
            assert_eq!(dirs(&plan, &Action::Delete).len(), 3);
            world.watch.fail(Some((at, fault)));
            let ended = apply(&world.vault, &world.key, &plan).await;
            let over = world.watch.calls() <= at;
            assert_eq!(ended.is_ok(), over, "{fault:?} at call {at}");
            world.watch.fail(None);
            // Whatever is still listed in a generation that is not being deleted is whole; the newer ones always are.
            for doc in &docs[3..] {
                world.read_doc(doc).await.unwrap();
            }
            let next = planned(&world).await;
            resumed += dirs(&next, &Action::Resume).len();
            apply(&world.vault, &world.key, &next).await.unwrap();
            for doc in &docs[..3] {
                // Fails without `Action::Sweep`: the last signature would stay for ever.
                assert_eq!(below(&world, &doc.dir()).await, [""; 0], "{fault:?} at call {at}");
            }
            // Fails without `has_receipt` in `apply`: interrupted before its receipt, a deletion left none.
            let receipts = read_receipts(&world).await;
            for doc in &docs[..3] {
                let of_it: Vec<_> = receipts.iter().filter(|receipt| receipt.generation == doc.generation).collect();
                assert_eq!(of_it.len(), 1, "{fault:?} at call {at}");
                assert_eq!(of_it[0].snapshots.len(), 1);
            }
            assert!(!world.verify(true).await.is_damaged());
            if over {
                break;
            }
            // Every third call is enough once the first generation is through.
            at += if at < 30 { 1 } else { 3 };
        }
        assert!(resumed > 10, "{resumed} resumed");
    }
}

#[tokio::test]
async fn an_announcement_that_nobody_pinned_signed_is_told_and_not_obeyed() {
    for stage in [PruneStage::Expired, PruneStage::Deleting] {
        // Of a generation that may go, and of one that may not.
        for (which, wanted) in [(0, Action::Announce), (5, Action::Keep)] {
            let (world, docs) = six_days().await;
            let doc = &docs[which];
            for forgery in forgeries(doc, stage, &world.key) {
                world.set(&signature_of(&doc.dir().file(stage.file())), None).await;
                for (path, body) in forgery {
                    world.set(&path, Some(body)).await;
                }
                let plan = planned(&world).await;
                assert_eq!(plan.foreign.len(), 1, "{stage:?}: {:?}", plan.foreign);
                assert!(plan.foreign[0].contains("foreign or unsigned mark"), "{:?}", plan.foreign);
                // Fails without `notice::read` in `plan`: it would be an error, or be deleted.
                let step = plan.steps.iter().find(|step| step.dir == doc.dir()).unwrap();
                assert_eq!(step.action, wanted, "{stage:?}");
            }
            // The plan's own announcement takes its place, and what is deleted later leaves nothing behind.
            prune(&world).await;
            assert_eq!(world.history().await.len(), 6);
            day(&world, 7).await;
            prune(&world).await;
            let left = below(&world, &doc.dir()).await;
            assert_eq!(left.is_empty(), which == 0, "{stage:?}: {left:?}");
            if which == 5 {
                world.read_doc(doc).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_forged_deletion_neither_hides_an_announcement_nor_keeps_it_from_being_undone() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let forged = docs[0].dir().file("deleting.json");
    world.set(&forged, Some(b"{}".to_vec())).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    assert!(dirs(&plan, &Action::Delete).contains(&docs[0].dir()), "{:?}", plan.steps[0]);
    // Fails if `undo` took any `deleting.json` for one that began.
    let undone = undo(&world.vault, &world.signers, &world.request.stack, &world.request.source).await.unwrap();
    assert_eq!((undone.made.len(), undone.too_late.len()), (3, 0), "{undone:?}");
    assert!(!world.vault.exists(&forged).await.unwrap());
    assert_eq!(dirs(&planned(&world).await, &Action::Delete), []);
}

#[tokio::test]
async fn what_is_taken_back_after_the_plan_was_made_stays() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    let plan = planned(&world).await;
    assert!(dirs(&plan, &Action::Delete).contains(&docs[0].dir()));
    // On another machine, while this one reads the other vaults.
    undo(&world.vault, &world.signers, &world.request.stack, &world.request.source).await.unwrap();
    let done = apply(&world.vault, &world.key, &plan).await.unwrap();
    // Fails without the look at `expired.json` in `Work::remove`.
    assert!(done.iter().all(|done| done.files == 0 && done.action != Action::Delete), "{done:?}");
    world.read_doc(&docs[0]).await.unwrap();
    assert_eq!(read_receipts(&world).await.len(), 0);
}

#[tokio::test]
async fn a_deletion_that_has_begun_is_told_and_not_taken_back() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    for (path, body) in announcement(&docs[1], PruneStage::Deleting, &world.key) {
        world.set(&path, Some(body)).await;
    }
    let undone = undo(&world.vault, &world.signers, &world.request.stack, &world.request.source).await.unwrap();
    assert_eq!((undone.made, undone.too_late), (vec![docs[0].dir(), docs[2].dir()], vec![docs[1].dir()]));
}

#[tokio::test]
async fn a_clock_a_year_ahead_deletes_nothing() {
    let ahead = TimeDelta::days(365);
    for (host, store) in [(true, false), (false, true), (true, true)] {
        let (world, _) = six_days().await;
        prune(&world).await;
        day(&world, 7).await;
        if host {
            world.host.pass(ahead);
        }
        if store {
            world.store.pass(ahead);
        }
        let plan = planned(&world).await;
        // Fails without the freezes of `retention`: clocks that differ, a newest snapshot that is stale.
        assert!(!plan.frozen.is_empty(), "host {host}, store {store}");
        let deletes = dirs(&plan, &Action::Delete).len() + dirs(&plan, &Action::Announce).len();
        assert_eq!(deletes, 0, "host {host}, store {store}");
        apply(&world.vault, &world.key, &plan).await.unwrap();
        assert_eq!(world.history().await.len(), 7);
    }
}

#[tokio::test]
async fn a_snapshot_that_came_after_the_plan_stays() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    let late = "20261122T020000Z-1b-zzzzzz".parse().unwrap();
    let path = docs[0].dir().snapshot(&late, ".json");
    world.set(&path, Some(b"{}".to_vec())).await;
    let done = apply(&world.vault, &world.key, &plan).await.unwrap();
    // Fails without the second listing in `apply`.
    assert!(done.iter().any(|done| done.dir == docs[0].dir() && done.action == Action::Withdraw), "{done:?}");
    world.read_doc(&docs[0]).await.unwrap();
    assert!(world.vault.exists(&path).await.unwrap());
    assert!(!world.vault.exists(&docs[0].dir().file("deleting.json")).await.unwrap());
}

#[tokio::test]
async fn what_belongs_to_somebody_else_stays_and_is_counted() {
    let (world, docs) = six_days().await;
    let stranger = docs[0].dir().file("notes.txt");
    world.set(&stranger, Some(b"mine".to_vec())).await;
    prune(&world).await;
    day(&world, 7).await;
    let done = prune(&world).await;
    // Fails without `rank` being `None` for what is not ours, in `delete`.
    assert!(done.iter().any(|done| done.dir == docs[0].dir() && done.strangers == 1), "{done:?}");
    assert_eq!(below(&world, &docs[0].dir()).await, [stranger.to_string()]);
}

#[tokio::test]
async fn the_last_signature_of_an_interrupted_deletion_is_swept() {
    let (world, docs) = six_days().await;
    let lone = signature_of(&docs[0].dir().file("deleting.json"));
    for (path, _) in world.watch.content(docs[0].dir().dir().as_str()).await {
        world.set(&StorePath::new(path).unwrap(), None).await;
    }
    world.set(&lone, Some(b"sig".to_vec())).await;
    // Beside a generation that lives it is not touched, and makes nothing go.
    world.set(&signature_of(&docs[5].dir().file("deleting.json")), Some(b"sig".to_vec())).await;
    let plan = planned(&world).await;
    assert_eq!(dirs(&plan, &Action::Sweep), [docs[0].dir()]);
    prune(&world).await;
    assert_eq!(below(&world, &docs[0].dir()).await, [""; 0]);
    world.read_doc(&docs[5]).await.unwrap();
}

#[tokio::test]
async fn a_generation_that_was_filled_after_the_plan_is_not_swept() {
    let (world, docs) = six_days().await;
    let folder = docs[0].dir().dir();
    let lone = signature_of(&docs[0].dir().file("deleting.json"));
    let whole = world.watch.content(folder.as_str()).await;
    for (path, _) in &whole {
        world.set(&StorePath::new(path.clone()).unwrap(), None).await;
    }
    world.set(&lone, Some(b"sig".to_vec())).await;
    let plan = planned(&world).await;
    assert_eq!(dirs(&plan, &Action::Sweep), [docs[0].dir()]);
    for (path, body) in whole {
        world.set(&StorePath::new(path).unwrap(), Some(body.to_vec())).await;
    }
    let done = apply(&world.vault, &world.key, &plan).await.unwrap();
    // Fails without `is_swept` in `sweep`, and without `sweep` nothing of it were left.
    assert!(done.iter().all(|done| done.action != Action::Sweep), "{done:?}");
    assert!(world.vault.exists(&lone).await.unwrap());
    world.read_doc(&docs[0]).await.unwrap();
}

#[tokio::test]
async fn an_announcement_that_is_put_back_is_taken_away_and_spares_nothing() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let path = docs[0].dir().file("expired.json");
    let old = [(path.clone(), world.body(&path).await), (signature_of(&path), world.body(&signature_of(&path)).await)];
    undo(&world.vault, &world.signers, &world.request.stack, &world.request.source).await.unwrap();
    // The document lies there for more than a day, unsigned; its signature comes late.
    world.set(&old[0].0, Some(old[0].1.clone())).await;
    day(&world, 7).await;
    world.pass(TimeDelta::hours(1));
    world.set(&old[1].0, Some(old[1].1.clone())).await;
    for _ in 0..2 {
        let plan = planned(&world).await;
        let step = plan.steps.iter().find(|step| step.dir == docs[0].dir()).unwrap();
        // Fails where `announced::find` passes over when the store got it, or its signature.
        assert_eq!(step.action, Action::Withdraw);
        assert!(plan.foreign.iter().any(|text| text.contains("put back")), "{:?}", plan.foreign);
        // However long it lies there.
        day(&world, 8).await;
    }
    prune(&world).await;
    assert!(!world.vault.exists(&path).await.unwrap());
    prune(&world).await;
    day(&world, 9).await;
    assert!(dirs(&planned(&world).await, &Action::Delete).contains(&docs[0].dir()), "announced anew, it may go");
}

#[tokio::test]
async fn a_deletion_that_is_put_back_is_not_resumed() {
    for with_announcement in [false, true] {
        let (world, docs) = six_days().await;
        let stages = [PruneStage::Deleting, PruneStage::Expired];
        for stage in stages.into_iter().take(1 + usize::from(with_announcement)) {
            for (path, body) in announcement(&docs[0], stage, &world.key) {
                world.set(&path, Some(body)).await;
            }
        }
        for seed in [7, 8] {
            // Fails without `replayed` in `judge`: signed, everything listed is expired, and after a day in time.
            assert_eq!(dirs(&planned(&world).await, &Action::Withdraw), [docs[0].dir()], "{with_announcement}");
            day(&world, seed).await;
        }
        prune(&world).await;
        world.read_doc(&docs[0]).await.unwrap();
        assert!(!world.vault.exists(&docs[0].dir().file("deleting.json")).await.unwrap());
    }
}

#[tokio::test]
async fn a_pin_of_another_vault_protects_and_an_unbelieved_one_too() {
    let (world, docs) = six_days().await;
    let announced = || async { dirs(&planned(&world).await, &Action::Announce).contains(&docs[0].dir()) };
    assert!(announced().await);
    let path = docs[0].dir().snapshot(&docs[0].id, ".json");
    let document = backup_core::id::Hash256::of(&world.body(&path).await);
    let mut request = request(&world);
    request.marks.insert(backup_core::prune::history::Fact::Marked(document, "pin"));
    let plan = plan(&world.vault, &world.signers, &request).await.unwrap();
    // Fails where `history::read` takes the vault's own marks only.
    assert!(!dirs(&plan, &Action::Announce).contains(&docs[0].dir()));
    assert_eq!(plan.foreign, [""; 0]);
    let mark = StorePath::new(format!("shop/db/marks/{}.pin.json", docs[0].id)).unwrap();
    world.set(&mark, Some(b"{}".to_vec())).await;
    // Fails without `pinned` in `history::read`.
    assert!(!announced().await);
    let told = planned(&world).await.foreign;
    assert!(told.len() == 1 && told[0].contains("is kept all the same"), "{told:?}");
    // Any other mark that is not believed is told and changes nothing.
    world.set(&mark, None).await;
    let other = StorePath::new(format!("shop/db/marks/{}.checked.json", docs[0].id)).unwrap();
    world.set(&other, Some(b"{}".to_vec())).await;
    assert!(announced().await);
    assert!(planned(&world).await.foreign[0].contains("not obeyed"));
}

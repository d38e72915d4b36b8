//! What a prune makes of answers that are not the usual ones: a store that fails, another process between two looks, objects that
//! belong to nothing yet, damage that is known.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::id::Hash256;
use backup_core::prune::history::{self, union};
use backup_core::prune::{Action, PruneRequest, Waiver, apply, plan, plan_waiving, purge};
use backup_core::vault::document::{ExpiredDoc, Grounds, Holder, MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, GenerationId, mark, signature_of};
use backup_core::vault::store::{PutMode, Store, StorePath};
use chrono::TimeDelta;
use retention::{History, Stamp};

use super::prune::{below, day, dirs, planned, prune, read_receipts, request, six_days};
use super::prune_rules::{hash, marked, twelve};
use super::watch::Fault;
use super::world::{World, announcement};

#[tokio::test]
async fn what_was_announced_over_a_lost_vault_waits_for_that_word_and_for_nothing_else() {
    let (world, docs) = six_days().await;
    let nobody = Waiver::default();
    let over = |name: &str| Waiver { now: false, without: vec![name.to_owned()] };
    let first = plan_waiving(&world.vault, &world.signers, &request(&world), &over("lost")).await.unwrap();
    assert_eq!(apply(&world.vault, &world.key, &first).await.unwrap().len(), 3);
    // The nightly call: the lost vault's promise of the first snapshot counts again.
    let mut nightly = request(&world);
    nightly.promised_elsewhere.insert(docs[0].id.to_string());
    let action = async |request: &PruneRequest, waiver: &Waiver, dir: &GenerationDir| {
        let plan = plan_waiving(&world.vault, &world.signers, request, waiver).await.unwrap();
        plan.steps.into_iter().find(|step| step.dir == *dir).unwrap().action
    };
    let (promised, free) = (docs[0].dir(), docs[1].dir());
    let waits = |action: &Action, why: &str| matches!(action, Action::Wait { reason } if reason.starts_with(why));
    for waiver in [&nobody, &over("another")] {
        let waiting = action(&nightly, waiver, &promised).await;
        assert!(waits(&waiting, "announced with --without-replica lost: "), "{waiting:?}");
        let waiting = action(&nightly, waiver, &free).await;
        assert!(waits(&waiting, "announced; may be deleted from "), "{waiting:?}");
    }
    // Passed over again, and promised by yet another vault: then it is taken back.
    assert_eq!(action(&nightly, &over("lost"), &promised).await, Action::Withdraw);
    // So it is when something else keeps it, beside that promise or without.
    let pin = marked(&world, &docs[0], MarkKind::Pin, hash(&world, &docs[0]).await);
    world.vault.put_signed(&pin, &world.key).await.unwrap();
    let alone = request(&world);
    for request in [&nightly, &alone] {
        assert_eq!(action(request, &nobody, &promised).await, Action::Withdraw);
    }
}

#[tokio::test]
async fn objects_without_a_snapshot_stay_until_nothing_new_came_for_three_days() {
    let (world, docs) = six_days().await;
    let first = docs[0].dir().id.first_day();
    let dir = GenerationDir { id: GenerationId::new(first, "1d".parse().unwrap(), "age1other"), ..docs[0].dir() };
    // Of a replicator that copies objects first, and may be at work for days.
    world.set(&dir.object(&Hash256([1; 32])), Some(b"old".to_vec())).await;
    world.pass(TimeDelta::hours(1));
    let came = world.store.now();
    world.set(&dir.object(&Hash256([2; 32])), Some(b"new".to_vec())).await;
    let action = async || planned(&world).await.steps.into_iter().find(|step| step.dir == dir).map(|step| step.action);
    assert_eq!(action().await, Some(Action::Keep));
    for seed in 7..=9 {
        day(&world, seed).await;
    }
    world.store.set(came + TimeDelta::days(3) - TimeDelta::seconds(1));
    assert_eq!(action().await, Some(Action::Keep));
    world.store.pass(TimeDelta::seconds(1));
    assert_eq!(action().await, Some(Action::Announce));
}

#[tokio::test]
async fn a_store_that_fails_at_any_call_gives_no_plan() {
    let (world, docs) = six_days().await;
    let pin = marked(&world, &docs[1], MarkKind::Pin, hash(&world, &docs[1]).await);
    world.vault.put_signed(&pin, &world.key).await.unwrap();
    // With announcements, a receipt, and a deletion that has begun.
    prune(&world).await;
    day(&world, 7).await;
    prune(&world).await;
    for (path, body) in announcement(&docs[1], PruneStage::Deleting, &world.key) {
        world.set(&path, Some(body)).await;
    }
    let wanted = purge::PurgeRequest {
        dir: docs[3].dir(),
        reason: "leaked".to_owned(),
        even_newest: false,
        tool: "backup 0".to_owned(),
    };
    for purging in [false, true] {
        let mut at = 0;
        loop {
            world.watch.fail(Some((at, Fault::Refused)));
            let failed = if purging {
                purge::plan(&world.vault, &world.signers, &wanted).await.is_err()
            } else {
                plan(&world.vault, &world.signers, &request(&world)).await.is_err()
            };
            let over = world.watch.calls() <= at;
            // Fails where an error of the store is taken for a document that nobody believes.
            assert_eq!(failed, !over, "call {at} of {:?}", world.watch.asked().last());
            if over {
                break;
            }
            at += 1;
        }
        assert!(at > 10, "{at} calls");
        world.watch.fail(None);
    }
}

#[tokio::test]
async fn a_deletion_whose_document_is_another_ones_by_now_is_left_to_that_one() {
    // Taken up again before its receipt, and begun by this call.
    for resumed in [true, false] {
        let (world, docs) = six_days().await;
        prune(&world).await;
        day(&world, 7).await;
        let mut plan = planned(&world).await;
        let dir = docs[0].dir();
        if resumed {
            // It ends before the receipt of the first generation.
            for at in 0.. {
                world.watch.fail(Some((at, Fault::Refused)));
                assert!(apply(&world.vault, &world.key, &plan).await.is_err());
                world.watch.fail(None);
                plan = planned(&world).await;
                if dirs(&plan, &Action::Resume).contains(&dir) {
                    break;
                }
            }
            assert_eq!(read_receipts(&world).await.len(), 0);
        }
        // Another process has begun it anew, and gives other reasons.
        let path = dir.file("deleting.json");
        let mut others = announcement(&docs[0], PruneStage::Deleting, &world.key);
        others.reverse();
        let memory = world.watch.memory.clone();
        let generation = dir.id.to_string();
        world.watch.before_put(move |put| {
            if put.contains("/receipts/") && put.contains(&generation) {
                for (path, body) in &others {
                    futures::executor::block_on(memory.put(path, body.clone().into(), PutMode::Replace)).unwrap();
                }
            }
        });
        let done = apply(&world.vault, &world.key, &plan).await.unwrap();
        let of_it = done.iter().find(|done| done.dir == dir).unwrap();
        assert_eq!((&of_it.action, of_it.files), (&Action::Withdraw, 0), "resumed: {resumed}");
        world.read_doc(&docs[0]).await.unwrap();
        assert!(world.vault.exists(&path).await.unwrap() && world.vault.exists(&signature_of(&path)).await.unwrap());
    }
}

#[tokio::test]
async fn an_announcement_that_is_taken_back_while_it_is_read_is_none() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let path = docs[0].dir().file("expired.json");
    let (memory, gone, times) = (world.watch.memory.clone(), path.clone(), AtomicUsize::new(0));
    world.watch.before_get_or_delete(move |got| {
        // It is read once, for what is purged and for what is announced.
        if got == gone.as_str() && times.fetch_add(1, Ordering::SeqCst) == 0 {
            futures::executor::block_on(memory.delete(&gone)).unwrap();
        }
    });
    let plan = planned(&world).await;
    assert_eq!(plan.foreign, [""; 0]);
    assert_eq!(dirs(&plan, &Action::Announce), [docs[0].dir()]);
}

#[tokio::test]
async fn an_announcement_exactly_an_hour_late_is_believed_and_a_second_more_is_not() {
    for (late, believed) in [(TimeDelta::hours(1), true), (TimeDelta::seconds(3601), false)] {
        let (world, docs) = six_days().await;
        prune(&world).await;
        let path = signature_of(&docs[0].dir().file("expired.json"));
        let signature = world.body(&path).await;
        world.pass(late);
        world.set(&path, Some(signature)).await;
        assert_eq!(!dirs(&planned(&world).await, &Action::Withdraw).contains(&docs[0].dir()), believed, "{late}");
    }
}

#[tokio::test]
async fn the_day_is_over_on_the_second() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    let announced = world.store.now();
    day(&world, 7).await;
    let dir = docs[0].dir();
    world.store.set(announced + TimeDelta::hours(24) - TimeDelta::seconds(1));
    assert!(!dirs(&planned(&world).await, &Action::Delete).contains(&dir));
    world.store.pass(TimeDelta::seconds(1));
    assert!(dirs(&planned(&world).await, &Action::Delete).contains(&dir));
}

#[tokio::test]
async fn a_deletion_goes_on_only_with_an_announcement_a_day_old_or_with_a_holder_and_a_receipt() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Case {
        Whole,
        Early,
        Unnamed,
        Pinned,
        HeldElsewhere { receipt: bool },
        HeldHere,
        ReceiptAlone,
    }
    let cases = [
        (Case::Whole, true),
        (Case::Early, false),
        (Case::Unnamed, false),
        (Case::Pinned, false),
        (Case::HeldElsewhere { receipt: true }, true),
        (Case::HeldElsewhere { receipt: false }, false),
        // The document of another vault, for which this one was the holder: it was copied here.
        (Case::HeldHere, false),
        (Case::ReceiptAlone, false),
    ];
    for (case, goes_on) in cases {
        let (world, docs) = six_days().await;
        prune(&world).await;
        let dir = docs[0].dir();
        let path = dir.file("expired.json");
        let announced = world.vault.get_signed::<ExpiredDoc>(&path, &world.signers).await.unwrap().doc;
        if matches!(case, Case::Whole | Case::Unnamed | Case::Pinned) {
            if case == Case::Unnamed {
                let less = ExpiredDoc { snapshots: Vec::new(), ..announced.clone() };
                world.vault.put_signed(&less, &world.key).await.unwrap();
            }
            day(&world, 7).await;
        }
        if case == Case::Pinned {
            let pin = marked(&world, &docs[0], MarkKind::Pin, hash(&world, &docs[0]).await);
            world.vault.put_signed(&pin, &world.key).await.unwrap();
        }
        let holder = match case {
            Case::HeldElsewhere { .. } => Some("0".repeat(32).parse().unwrap()),
            Case::HeldHere => Some(world.vault.id().clone()),
            _ => None,
        };
        let now = holder.map(|vault| Holder { vault, name: "other".to_owned(), objects: 1, bytes: 1 });
        let grounds = Grounds { now, ..Grounds::default() };
        let begun =
            ExpiredDoc { stage: PruneStage::Deleting, at: world.store.now(), grounds: grounds.clone(), ..announced };
        world.vault.put_signed(&begun, &world.key).await.unwrap();
        if matches!(case, Case::HeldElsewhere { receipt: true } | Case::HeldHere | Case::ReceiptAlone) {
            let receipt = ReceiptDoc {
                format: 1,
                stack: begun.stack.clone(),
                source: begun.source.clone(),
                generation: begun.generation.clone(),
                at: begun.at,
                snapshots: begun.snapshots.clone(),
                vault: None,
                documents: std::collections::BTreeSet::new(),
                objects: 1,
                stored_bytes: 1,
                grounds,
                signer: world.key.fingerprint(),
                tool: "backup 0".to_owned(),
            };
            world.vault.put_signed(&receipt, &world.key).await.unwrap();
        }
        let expected = if goes_on { Action::Resume } else { Action::Withdraw };
        assert!(dirs(&planned(&world).await, &expected).contains(&dir), "{case:?}");
    }
}

#[tokio::test]
async fn each_stamp_says_what_was_seen_of_its_snapshot() {
    let (world, docs) = twelve().await;
    let stamps = async |damaged: &[(GenerationDir, String)]| -> Vec<Stamp> {
        let (stack, source) = (&world.request.stack, &world.request.source);
        let (none, marks) = (BTreeSet::new(), BTreeSet::new());
        let damaged: BTreeSet<_> = damaged.iter().cloned().collect();
        let seen = history::read(&world.vault, &world.signers, (stack, source), &none, &marks, &damaged).await;
        let stamps = seen.unwrap().history.stamps;
        docs.iter().map(|doc| stamps.iter().find(|stamp| stamp.id == doc.id.to_string()).unwrap().clone()).collect()
    };
    let whole = |stamps: &[Stamp]| stamps.iter().map(|stamp| stamp.complete).take(4).collect::<Vec<_>>();
    let all = stamps(&[]).await;
    assert_eq!(whole(&all), [true; 4]);
    assert!(all.iter().all(|stamp| !stamp.suspect && !stamp.pinned && !stamp.accepted));
    // Two of the same generation share nothing but that: a damaged object costs the one that needs it.
    let objects = async |doc: &SnapshotDoc| world.vault.get_inventory(doc).await.unwrap().0;
    let (first, second) = (objects(&docs[0]).await, objects(&docs[1]).await);
    let own = second.iter().find(|line| !first.contains(line)).unwrap();
    let item = (docs[1].dir(), own.name.to_string());
    assert_eq!(whole(&stamps(&[item]).await), [true, false, true, true]);
    assert_eq!(
        whole(&stamps(&[(docs[2].dir(), own.name.to_string())]).await),
        [true; 4],
        "known of another generation"
    );
    assert_eq!(whole(&stamps(&[(docs[0].dir(), docs[0].id.to_string())]).await), [false, true, true, true]);
    // An object that has another size than the inventory says, and one that is gone.
    let path = docs[1].dir().object(&own.name);
    for body in [Some(b"short".to_vec()), None] {
        world.set(&path, body).await;
        assert_eq!(whole(&stamps(&[]).await), [true, false, true, true]);
    }
    // When the store got it, not when the data was captured.
    let document = docs[3].dir().snapshot(&docs[3].id, ".json");
    let body = world.body(&document).await;
    world.pass(TimeDelta::hours(5));
    world.set(&document, Some(body)).await;
    assert_eq!(stamps(&[]).await[3].stored, world.store.now());
    // A pin whose signature nobody believes.
    let pin = mark(&docs[0].stack, &docs[0].source, &docs[0].id, MarkKind::Pin);
    world.set(&pin, Some(b"{}".to_vec())).await;
    assert_eq!(stamps(&[]).await.iter().map(|stamp| stamp.pinned).take(2).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn a_pin_that_is_here_and_in_another_vault_counts_once_and_not_never() {
    let (world, docs) = six_days().await;
    let document = hash(&world, &docs[0]).await;
    world.vault.put_signed(&marked(&world, &docs[0], MarkKind::Pin, document), &world.key).await.unwrap();
    let mut request = request(&world);
    request.marks.insert(history::Fact::Marked(document, "pin"));
    let plan = plan(&world.vault, &world.signers, &request).await.unwrap();
    assert_eq!(dirs(&plan, &Action::Announce), [docs[1].dir(), docs[2].dir()]);
}

#[test]
fn the_union_of_vaults_has_every_mark_and_the_first_instant() {
    let at = |hours| chrono::DateTime::UNIX_EPOCH + TimeDelta::hours(hours);
    let stamp = |stored| Stamp { stored: at(stored), complete: false, ..Stamp::whole("a".into(), "g".into(), at(1)) };
    let bare = stamp(3);
    let full = Stamp {
        pinned: true,
        suspect: true,
        accepted: true,
        checked: true,
        restored: true,
        complete: true,
        ..stamp(2)
    };
    let other = Stamp::whole("b".into(), "g".into(), at(5));
    let one = History { stamps: vec![bare, other.clone()], removed: vec![at(7)], ..History::default() };
    let two = History { stamps: vec![full.clone()], removed: vec![at(8)], ..History::default() };
    for order in [[&one, &two], [&two, &one]] {
        let mut both = union(order.into_iter());
        both.removed.sort();
        assert_eq!((both.stamps, both.removed), (vec![full.clone(), other.clone()], vec![at(7), at(8)]));
    }
}

#[tokio::test]
async fn what_lies_where_files_of_ours_do_and_is_none_stays() {
    let (world, docs) = six_days().await;
    let dir = docs[0].dir();
    let strangers = [
        "snapshots/notes.txt",
        "objects/ab/notes",
        "objects/ff/0000000000000000000000000000000000000000000000000000000000000000",
        "grants/notes.json",
        "notes/0123456789abcdef.json",
    ]
    .map(|name| dir.file(name));
    for path in &strangers {
        world.set(path, Some(b"mine".to_vec())).await;
    }
    let grant = dir.grant("age1another");
    for path in [grant.clone(), signature_of(&grant)] {
        world.set(&path, Some(b"{}".to_vec())).await;
    }
    let before: u64 = world.watch.content(dir.dir().as_str()).await.iter().map(|(_, body)| body.len() as u64).sum();
    prune(&world).await;
    day(&world, 7).await;
    let added = 2;
    let files = below(&world, &dir).await.len() as u64;
    let done = prune(&world).await;
    let done = done.iter().find(|done| done.dir == dir).unwrap();
    assert_eq!((done.action.clone(), done.strangers), (Action::Delete, 5));
    // Everything else, and `deleting.json` with its signature.
    assert_eq!(done.files, files - 5 + added);
    assert!(done.bytes > before - 5 * 4);
    let mut left: Vec<String> = strangers.iter().map(ToString::to_string).collect();
    left.sort();
    assert_eq!(below(&world, &dir).await, left);
}

#[tokio::test]
async fn a_sweep_counts_what_it_leaves() {
    let (world, docs) = six_days().await;
    let dir = docs[0].dir();
    for (path, _) in world.watch.content(dir.dir().as_str()).await {
        world.set(&StorePath::new(path).unwrap(), None).await;
    }
    world.set(&signature_of(&dir.file("deleting.json")), Some(b"sig".to_vec())).await;
    world.set(&dir.file("notes.txt"), Some(b"mine".to_vec())).await;
    let done = prune(&world).await;
    let done = done.iter().find(|done| done.dir == dir).unwrap();
    assert_eq!((&done.action, done.files, done.bytes, done.strangers), (&Action::Sweep, 1, 3, 1));
}

#[tokio::test]
async fn what_goes_first_is_durably_gone_before_what_goes_next() {
    let (world, docs) = six_days().await;
    prune(&world).await;
    day(&world, 7).await;
    let plan = planned(&world).await;
    world.watch.fail(None);
    apply(&world.vault, &world.key, &plan).await.unwrap();
    let prefix = format!("{}/", docs[0].dir().dir());
    let mut kinds: Vec<&str> = Vec::new();
    for (call, path) in world.watch.asked() {
        let kind = match (call, path.strip_prefix(&prefix)) {
            ("sync", _) => "sync",
            ("delete", Some(rest)) if rest.starts_with("objects/") => "object",
            ("delete", Some(rest)) if rest.starts_with("snapshots/") && rest.ends_with(".json") => "snapshot",
            ("delete", Some(rest)) if rest.starts_with("snapshots/") => "beside",
            ("delete", Some(rest)) if rest.starts_with("generation") => "generation",
            ("delete", Some(rest)) if rest.starts_with("expired") => "expired",
            ("delete", Some("deleting.json")) => "deleting",
            ("delete", Some("deleting.json.sig")) => "last",
            _ => continue,
        };
        if kinds.last() != Some(&kind) {
            kinds.push(kind);
        }
    }
    let from = kinds.iter().position(|kind| *kind == "snapshot").unwrap();
    let expected = [
        "snapshot",
        "sync",
        "beside",
        "sync",
        "object",
        "sync",
        "generation",
        "sync",
        "expired",
        "sync",
        "deleting",
        "sync",
        "last",
        "sync",
    ];
    assert_eq!(kinds[from..from + expected.len()], expected, "{kinds:?}");
}

#[tokio::test]
async fn a_purge_asks_again_where_nothing_else_is_left() {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let only = day(&world, 1).await;
    let ask = async |dir: GenerationDir| {
        let request =
            purge::PurgeRequest { dir, reason: "leaked".to_owned(), even_newest: false, tool: "backup 0".to_owned() };
        purge::plan(&world.vault, &world.signers, &request).await.unwrap().action
    };
    let newest = |action: &purge::PurgeAction, why: &str| matches!(action, purge::PurgeAction::Refuse(purge::Refusal::Newest(text)) if text.contains(why));
    assert!(newest(&ask(only.dir()).await, "it holds the newest snapshot"));
    // Nobody believes what is there: it may be all that there is.
    world.set(&only.dir().snapshot(&only.id, ".json.sig"), None).await;
    assert!(newest(&ask(only.dir()).await, "no other generation has a snapshot"));
    let next = day(&world, 2).await;
    assert_eq!(ask(only.dir()).await, purge::PurgeAction::Announce);
    assert!(newest(&ask(next.dir()).await, "it holds the newest snapshot"));
    // A generation that is open and still empty.
    let id = GenerationId::new(world.store.now().date_naive(), "7d".parse().unwrap(), "age1other");
    let open = GenerationDir { id, ..next.dir() };
    world.set(&open.file("generation.json"), Some(b"{}".to_vec())).await;
    assert!(newest(&ask(open.clone()).await, "it is open and has no snapshot yet"));
    world.pass(TimeDelta::days(16));
    assert_eq!(ask(open.clone()).await, purge::PurgeAction::Announce);
    // What lies there and is none of ours is nothing to purge.
    world.set(&open.file("generation.json"), None).await;
    world.set(&open.file("notes.txt"), Some(b"mine".to_vec())).await;
    assert_eq!(ask(open).await, purge::PurgeAction::Absent);
}

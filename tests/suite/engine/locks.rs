//! A store with locks, of which the test says what they keep: prune waits for them, a pin holds what its snapshot needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::mark::hold;
use backup_core::mark::{self, Change};
use backup_core::prune::purge::{self, PurgeAction, PurgeEnd, PurgeRequest, Refusal};
use backup_core::prune::{Action, PrunePlan, apply};
use backup_core::repair::{Repair, repair};
use backup_core::replicate::{Route, marks, replicate, replicate_marks};
use backup_core::vault::Vault;
use backup_core::vault::document::{MarkKind, SnapshotDoc};
use backup_core::vault::inventory::InventoryLine;
use backup_core::vault::layout::signature_of;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::protection::{LockMode, LockRule, Retention};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use backup_core::verify::{Fraction, Place};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::prune::planned;
use super::watch::Watch;
use super::world::{Script, World, make_vault};

/// What keeps which path.
type Kept = Arc<Mutex<BTreeMap<String, Retention>>>;

/// What the store tells nobody about.
type Refused = Arc<Mutex<BTreeSet<String>>>;

#[derive(Debug, Clone)]
struct Locks(Watch, Kept, Refused);

#[async_trait]
impl Store for Locks {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.0.put(path, body, mode).await
    }
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get(path, limit_bytes).await
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.0.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.0.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.0.sync().await
    }
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.0.now().await
    }
    fn locks(&self) -> bool {
        true
    }
    async fn protection(&self, path: &StorePath) -> Result<Option<Retention>, StoreError> {
        if self.0.memory.stat(path).await?.is_none() {
            return Err(StoreError::NotFound { path: path.to_string(), store: self.describe() });
        }
        if self.2.lock().unwrap().contains(path.as_str()) {
            let (path, store) = (path.to_string(), self.describe());
            return Err(StoreError::Denied { action: "read", path, store, reason: "the test says so".to_owned() });
        }
        Ok(self.1.lock().unwrap().get(path.as_str()).cloned())
    }
    async fn renew(&self, path: &StorePath) -> Result<(), StoreError> {
        if self.0.memory.stat(path).await?.is_some() {
            let until = Some(self.0.now().await? + TimeDelta::days(100));
            let lock = Retention { mode: Some(LockMode::Compliance), until, legal_hold: false };
            self.1.lock().unwrap().insert(path.to_string(), lock);
        }
        Ok(())
    }
    async fn hold(&self, path: &StorePath, on: bool) -> Result<(), StoreError> {
        let mut kept = self.1.lock().unwrap();
        if on {
            kept.insert(path.to_string(), Retention { mode: None, until: None, legal_hold: true });
        } else {
            kept.remove(path.as_str());
        }
        Ok(())
    }
}

/// Paths that a legal hold keeps.
fn held(kept: &Kept) -> BTreeSet<String> {
    let kept = kept.lock().unwrap();
    kept.iter().filter(|(_, retention)| retention.legal_hold).map(|(path, _)| path.clone()).collect()
}

/// A world whose vault has locks.
async fn world() -> (World, Kept) {
    let mut world = World::new().await;
    let kept = Kept::default();
    let store = Arc::new(Locks(world.watch.clone(), Arc::clone(&kept), Refused::default()));
    world.vault = Vault::open("first", store, None).await.unwrap();
    (world, kept)
}

async fn day(world: &World, seed: u64) -> SnapshotDoc {
    world.pass(TimeDelta::days(1));
    world.run(&Script::noise(100_000, seed)).await.unwrap().snapshot.doc
}

#[tokio::test]
async fn a_deletion_waits_for_the_last_lock_before_it_begins() {
    let (mut world, kept) = world().await;
    world.request.period = "1d".parse().unwrap();
    let mut docs = Vec::new();
    for seed in 1..=6 {
        docs.push(day(&world, seed).await);
    }
    apply(&world.vault, &world.key, &planned(&world).await).await.unwrap();
    day(&world, 7).await;
    let dir = docs[0].dir();
    let action = |plan: &PrunePlan| plan.steps.iter().find(|step| step.dir == dir).unwrap().action.clone();
    // Its own documents are locked for a day as all that is put: nobody needs to wait for those.
    for name in ["expired.json", "expired.json.sig"] {
        let until = Some(world.store.now() + TimeDelta::hours(20));
        let lock = Retention { mode: Some(LockMode::Compliance), until, legal_hold: false };
        kept.lock().unwrap().insert(dir.file(name).to_string(), lock);
    }
    assert_eq!(action(&planned(&world).await), Action::Delete);

    let object = dir.object(&world.vault.list_objects(&dir).await.unwrap()[0].name);
    let lock = |until, legal_hold| Retention { mode: Some(LockMode::Compliance), until: Some(until), legal_hold };
    kept.lock().unwrap().insert(object.to_string(), lock(world.store.now() + TimeDelta::hours(5), false));
    let waiting = planned(&world).await;
    // Fails where locks are not looked at: `deleting.json` would be written, and the rest hidden.
    assert!(
        matches!(action(&waiting), Action::Wait { reason } if reason.starts_with("locked until 20")),
        "{waiting:?}"
    );
    assert_eq!(waiting.locked.len(), 1, "it is told by name: {:?}", waiting.locked);
    apply(&world.vault, &world.key, &waiting).await.unwrap();
    assert!(world.vault.exists(&object).await.unwrap());
    assert!(!world.vault.exists(&dir.file("deleting.json")).await.unwrap());

    // A legal hold has no end.
    kept.lock().unwrap().insert(object.to_string(), lock(world.store.now(), true));
    assert!(matches!(action(&planned(&world).await), Action::Wait { reason } if reason.contains("`backup unpin`")));
    kept.lock().unwrap().insert(object.to_string(), lock(world.store.now(), false));
    let plan = planned(&world).await;
    assert_eq!((action(&plan), plan.locked.len()), (Action::Delete, 0));
    apply(&world.vault, &world.key, &plan).await.unwrap();
    assert!(!world.vault.exists(&object).await.unwrap());
}

#[tokio::test]
async fn what_two_pinned_snapshots_share_is_held_until_both_are_unpinned() {
    let (world, kept) = world().await;
    let held = || -> BTreeSet<String> { held(&kept) };
    let (mut pinned, mut all) = (Vec::new(), Vec::new());
    for (streams, seed) in [(vec![1, 2], 1), (vec![1, 3], 2)] {
        let streams = streams.into_iter().map(|seed| super::super::recover::noise(100_000, seed)).collect();
        let doc = world.run(&Script { streams, abandoned: Vec::new() }).await.unwrap().snapshot.doc;
        let path = doc.dir().snapshot(&doc.id, ".json");
        let signed = world.vault.get_signed::<SnapshotDoc>(&path, &world.signers).await.unwrap();
        let made = mark::set(
            &world.vault,
            (&world.key, &world.signers),
            &signed,
            MarkKind::Pin,
            (world.host.now(), "backup 0"),
        );
        assert_eq!(made.await.unwrap(), Change::Made, "{seed}");
        hold::set(&world.vault, &signed).await.unwrap();
        all.push(held());
        pinned.push(signed.doc);
    }
    let inventory = |doc: &SnapshotDoc| {
        let (vault, doc) = (world.vault.clone(), doc.clone());
        async move {
            let lines = vault.get_inventory(&doc).await.unwrap().0;
            lines.iter().map(|line| doc.dir().object(&line.name).to_string()).collect::<BTreeSet<String>>()
        }
    };
    let (first, second) = (inventory(&pinned[0]).await, inventory(&pinned[1]).await);
    assert!(!first.is_disjoint(&second) && first != second, "the test needs both");
    assert!(first.iter().all(|path| all[0].contains(path)) && second.iter().all(|path| all[1].contains(path)));
    assert!(all[0].iter().any(|path| path.ends_with(".json.sig")) && all[0].iter().any(|path| path.ends_with(".zst")));

    let unpin = async |doc: &SnapshotDoc| {
        let dir = doc.dir();
        mark::remove(&world.vault, &dir, &doc.id, MarkKind::Pin).await.unwrap();
        hold::lift(&world.vault, &world.signers, &dir, &doc.id).await.unwrap();
    };
    unpin(&pinned[0]).await;
    // Fails where an unpin lifts from everything that its snapshot needs.
    assert!(second.iter().all(|path| held().contains(path)), "{:?}", held());
    assert!(first.difference(&second).all(|path| !held().contains(path)), "{:?}", held());
    unpin(&pinned[1]).await;
    assert_eq!(held(), BTreeSet::new());
}

#[tokio::test]
async fn a_purge_is_refused_while_a_lock_lasts() {
    let (world, kept) = world().await;
    let doc = world.run(&Script::noise(1000, 1)).await.unwrap().snapshot.doc;
    let (dir, reason, tool) = (doc.dir(), "leaked".to_owned(), "backup 0".to_owned());
    let request = PurgeRequest { dir, reason, even_newest: true, tool };
    let until = Some(world.store.now() + TimeDelta::days(30));
    let lock = Retention { mode: Some(LockMode::Compliance), until, legal_hold: false };
    kept.lock().unwrap().insert(doc.dir().snapshot(&doc.id, ".json").to_string(), lock);
    let planned = purge::plan(&world.vault, &world.signers, &request).await.unwrap();
    assert!(
        matches!(&planned.action, PurgeAction::Refuse(Refusal::Locked(why)) if why.contains("locked until")),
        "{planned:?}"
    );
    world.watch.fail(None);
    assert_eq!(purge::apply(&world.vault, &world.key, &planned).await.unwrap(), PurgeEnd::Nothing);
    assert_eq!(world.watch.paths("put"), [""; 0]);
    kept.lock().unwrap().clear();
    let planned = purge::plan(&world.vault, &world.signers, &request).await.unwrap();
    assert_eq!(planned.action, PurgeAction::Announce);
}

#[tokio::test]
async fn an_audit_asks_for_the_locks_of_its_own_files_and_one_refusal_hides_no_other() {
    let mut world = World::new().await;
    let (kept, refused) = (Kept::default(), Refused::default());
    let store = Arc::new(Locks(world.watch.clone(), Arc::clone(&kept), Arc::clone(&refused)));
    world.vault = Vault::open("first", store, None).await.unwrap();
    let doc = world.run(&Script::noise(100_000, 1)).await.unwrap().snapshot.doc;
    let until = Some(world.store.now() + TimeDelta::days(100));
    let lock = Retention { mode: Some(LockMode::Compliance), until, legal_hold: false };
    let ours: Vec<String> =
        world.vault.list(&doc.dir().dir()).await.unwrap().into_iter().map(|entry| entry.path.to_string()).collect();
    kept.lock().unwrap().extend(ours.iter().map(|path| (path.clone(), lock.clone())));
    kept.lock().unwrap().insert("vault.json".to_owned(), lock.clone());
    world.set(&doc.dir().file("notes.txt"), Some(b"x".to_vec())).await;
    let mode = LockMode::Compliance;
    let rule = LockRule { mode, window: TimeDelta::days(7), period: TimeDelta::days(7), clock: world.store.clock() };
    let names = (&world.request.stack, &world.request.source);
    let all = Some(Fraction { part: 1, of: 1 });
    let at = Some((&rule, world.store.now()));
    let locks = async || {
        let read = backup_core::audit::read(&world.vault, &world.signers, names, all, true, at).await;
        read.map(|evidence| evidence.locks.unwrap())
    };
    let found = locks().await.unwrap();
    // Fails where strangers' files are asked for.
    assert!(found.unlocked.is_empty() && found.asked == ours.len() + 1, "{found:?}");
    // What lies beside the generations is needed as long as the last of them: fails where only generations are asked for.
    let earlier = Retention { until: Some(rule.promised(&doc.generation) - TimeDelta::days(1)), ..lock.clone() };
    kept.lock().unwrap().insert("vault.json".to_owned(), earlier);
    let found = locks().await.unwrap();
    assert!(
        matches!(&found.unlocked[..], [(path, why)] if path.as_str() == "vault.json" && why.contains(" only, not ")),
        "{found:?}"
    );
    kept.lock().unwrap().insert("vault.json".to_owned(), lock.clone());
    let document = doc.dir().snapshot(&doc.id, ".json").to_string();
    refused.lock().unwrap().insert(document.clone());
    kept.lock().unwrap().remove(&format!("{document}.sig"));
    // Fails where one refusal ends it.
    let found = locks().await.unwrap();
    let told: BTreeMap<&str, &str> = found.unlocked.iter().map(|(path, why)| (path.as_str(), why.as_str())).collect();
    assert!(told.len() == 2 && told[document.as_str()].starts_with("not proved: "), "{told:?}");
    assert_eq!(told[format!("{document}.sig").as_str()], "not locked");
    // A vault that gives nothing to anybody is no finding about a file.
    refused.lock().unwrap().extend(ours);
    world.set(&StorePath::new("vault.json").unwrap(), None).await;
    assert!(locks().await.is_err());
}

#[tokio::test]
async fn whoever_puts_a_generation_renews_the_locks_of_what_all_of_them_need() {
    let (world, kept) = world().await;
    world.vault.put_recover("the page", &world.key).await.unwrap();
    let renewed = |kept: &Kept| -> Vec<String> { std::mem::take(&mut *kept.lock().unwrap()).into_keys().collect() };
    let beside = ["RECOVER-1.md", "RECOVER-1.md.sig", "vault.json"];
    // Before the generation is there, or a run that dies between the two leaves one that nothing is renewed for.
    let before = Arc::clone(&kept);
    world.watch.before_put(move |path| {
        if path.contains("generation.json") {
            assert_eq!(before.lock().unwrap().len(), 3, "{path}");
        }
    });
    world.run(&Script::noise(1000, 1)).await.unwrap();
    assert_eq!(renewed(&kept), beside);
    world.run(&Script::noise(1000, 2)).await.unwrap();
    assert_eq!(renewed(&kept), [""; 0], "its generation is open");
    world.pass(TimeDelta::days(8));
    world.run(&Script::noise(1000, 3)).await.unwrap();
    assert_eq!(renewed(&kept), beside, "the period has turned");

    let (there, kept) = (Watch::new(MemoryStore::new(world.store.clock())), Kept::default());
    make_vault("second", &there, world.store.now()).await;
    let store = Arc::new(Locks(there.clone(), Arc::clone(&kept), Refused::default()));
    let to = Vault::open("second", store, None).await.unwrap();
    let route = Route { from: &world.vault, to: &to, signers: &world.signers, monitor: &world.monitor };
    let done = replicate(route, &world.request.stack, &world.request.source, &|_| true, false).await;
    assert!(done.errors.is_empty(), "{done:?}");
    assert_eq!(renewed(&kept), ["vault.json"], "a copy opens generations, too");
}

#[tokio::test]
async fn a_pin_that_travels_holds_and_so_does_what_a_repair_puts() {
    let world = World::new().await;
    let doc = world.run(&Script::noise(200_000, 1)).await.unwrap().snapshot.doc;
    let (there, kept) = (Watch::new(MemoryStore::new(world.store.clock())), Kept::default());
    make_vault("second", &there, world.store.now()).await;
    let store = Arc::new(Locks(there.clone(), Arc::clone(&kept), Refused::default()));
    let to = Vault::open("second", store, None).await.unwrap();
    let route = Route { from: &world.vault, to: &to, signers: &world.signers, monitor: &world.monitor };
    let (stack, source) = (&world.request.stack, &world.request.source);
    let travel = async || {
        let done = replicate(route, stack, source, &|_| true, false).await;
        assert!(done.errors.is_empty(), "{done:?}");
        let read = async |vault| marks(vault, &world.signers, stack, source).await.unwrap();
        let (given, had) = (read(&world.vault).await, read(&to).await);
        let (put, errors) = replicate_marks(&given, &to, &had, &world.signers, &world.monitor).await;
        assert!(errors.is_empty(), "{errors:?}");
        put
    };
    let held = || -> BTreeSet<String> { held(&kept) };
    let dir = doc.dir();
    let mut needed: BTreeSet<String> =
        to_names(&world.vault.get_inventory(&doc).await.unwrap().0, |line| dir.object(&line.name));
    for document in [dir.file("generation.json"), dir.snapshot(&doc.id, ".json")] {
        needed.extend([document.to_string(), signature_of(&document).to_string()]);
    }
    needed.insert(dir.snapshot(&doc.id, ".inventory.zst").to_string());

    assert_eq!((travel().await, held()), (0, BTreeSet::new()), "nothing is pinned");
    let path = dir.snapshot(&doc.id, ".json");
    let signed = world.vault.get_signed::<SnapshotDoc>(&path, &world.signers).await.unwrap();
    let who = (&world.key, &world.signers);
    mark::set(&world.vault, who, &signed, MarkKind::Pin, (world.host.now(), "backup 0")).await.unwrap();
    assert_eq!(travel().await, 1);
    // Fails where only the mark travels.
    assert_eq!(held(), needed);
    kept.lock().unwrap().clear();
    assert_eq!(travel().await, 0);
    assert_eq!(held(), needed, "a call that died between mark and hold is mended by the next");

    let object = world.vault.get_inventory(&doc).await.unwrap().0[0].name;
    let lost = dir.object(&object);
    there.delete(&lost).await.unwrap();
    kept.lock().unwrap().remove(lost.as_str());
    let ask = Repair {
        vault: &to,
        others: std::slice::from_ref(&world.vault),
        signers: &world.signers,
        heads: &[],
        at: world.host.now(),
        dry_run: false,
    };
    let made = repair(ask, &BTreeSet::from([Place::Object(dir.clone(), object)])).await;
    assert!(made.iter().all(backup_core::repair::Mend::is_made), "{made:?}");
    // Fails where a repair leaves it to others.
    assert_eq!(held(), needed);
}

fn to_names(lines: &[InventoryLine], path: impl Fn(&InventoryLine) -> StorePath) -> BTreeSet<String> {
    lines.iter().map(|line| path(line).to_string()).collect()
}

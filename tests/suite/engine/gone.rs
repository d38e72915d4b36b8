//! Documents that somebody deleted where a store keeps versions: found whatever he puts beside them, told where nobody may look, and
//! what a prune took is none of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::hidden::{self, Found};
use backup_core::prune::plan;
use backup_core::vault::Vault;
use backup_core::vault::document::{ExpiredDoc, Grounds, PruneStage, ReceiptDoc, SnapshotDoc};
use backup_core::vault::layout::{GenerationDir, SnapshotId};
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::protection::{Gone, Older, Remembered};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::prune::{day, request};
use super::world::World;

/// A body that went, and when the store got it.
type Body = (Bytes, DateTime<Utc>);

/// A store in memory that keeps what was deleted or written over.
#[derive(Debug, Clone)]
struct Kept {
    memory: MemoryStore,
    older: Arc<Mutex<BTreeMap<StorePath, Vec<Body>>>>,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it lets anybody ask.
#[derive(Debug, Clone, Copy, Default)]
struct Says {
    no_listing: bool,
    no_reading: bool,
    is_cut: bool,
}

impl Kept {
    fn denied(path: &StorePath) -> StoreError {
        let (path, reason) = (path.to_string(), "AccessDenied".to_owned());
        StoreError::Denied { action: "list", path, store: "kept".to_owned(), reason }
    }

    async fn keep(&self, path: &StorePath) -> Result<(), StoreError> {
        if let Some(entry) = self.memory.stat(path).await? {
            let body = self.memory.get(path, u64::MAX).await?;
            self.older.lock().unwrap().entry(path.clone()).or_default().push((body, entry.modified));
        }
        Ok(())
    }

    fn ask(&self, what: &str, path: Option<&StorePath>) {
        self.asked.lock().unwrap().push(format!("{what} {}", path.map_or("", StorePath::as_str)));
    }

    fn says(&self, path: &StorePath) -> Result<Says, StoreError> {
        let says = *self.says.lock().unwrap();
        if says.no_listing { Err(Self::denied(path)) } else { Ok(says) }
    }
}

#[async_trait]
impl Store for Kept {
    fn describe(&self) -> String {
        "kept".to_owned()
    }

    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        if mode == PutMode::Replace {
            self.keep(path).await?;
        }
        self.memory.put(path, body, mode).await
    }

    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.memory.get(path, limit_bytes).await
    }

    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.memory.stat(path).await
    }

    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.ask("list", prefix);
        self.memory.list(prefix).await
    }

    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.memory.children(prefix).await
    }

    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.keep(path).await?;
        self.memory.delete(path).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.memory.sync().await
    }

    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        self.memory.now().await
    }

    async fn older(&self, path: &StorePath) -> Result<Vec<Older>, StoreError> {
        self.says(path)?;
        let older = self.older.lock().unwrap();
        let of_it = older.get(path).map(Vec::as_slice).unwrap_or_default().iter().enumerate().rev();
        let one = |(at, (body, modified)): (usize, &(Bytes, DateTime<Utc>))| Older {
            path: path.clone(),
            version: at.to_string(),
            bytes: body.len() as u64,
            modified: *modified,
        };
        Ok(of_it.map(one).collect())
    }

    async fn deleted(&self, folder: &StorePath) -> Result<Remembered<Gone>, StoreError> {
        self.ask("deleted", Some(folder));
        let says = self.says(folder)?;
        let all: Vec<_> =
            self.older.lock().unwrap().iter().map(|(path, bodies)| (path.clone(), bodies.clone())).collect();
        let mut found = Vec::new();
        for (path, bodies) in all {
            if path.as_str().starts_with(&format!("{folder}/")) && self.memory.stat(&path).await?.is_none() {
                let times = || bodies.iter().map(|(_, at)| *at);
                found.push(Gone { path, first: times().min().unwrap(), last: times().max().unwrap() });
            }
        }
        Ok(Remembered { found, is_cut: says.is_cut })
    }

    async fn folders_ever(&self, folder: &StorePath) -> Result<Remembered<String>, StoreError> {
        let says = self.says(folder)?;
        let mut found = self.memory.children(Some(folder)).await?;
        let below = format!("{folder}/");
        let older = self.older.lock().unwrap();
        found.extend(
            older.keys().filter_map(|path| Some(path.as_str().strip_prefix(&below)?.split('/').next()?.to_owned())),
        );
        found.sort();
        found.dedup();
        Ok(Remembered { found, is_cut: says.is_cut })
    }

    async fn get_older(&self, older: &Older, _: u64) -> Result<Bytes, StoreError> {
        if self.says.lock().unwrap().no_reading {
            return Err(Self::denied(&older.path));
        }
        let at: usize = older.version.parse().unwrap();
        Ok(self.older.lock().unwrap()[&older.path][at].0.clone())
    }
}

/// Three days in a store that keeps versions; the document of the second is deleted.
async fn one_gone() -> (World, Kept, Vec<SnapshotDoc>) {
    let mut world = World::new().await;
    world.request.period = "1d".parse().unwrap();
    let kept =
        Kept { memory: world.watch.memory.clone(), older: Arc::default(), says: Arc::default(), asked: Arc::default() };
    world.vault = Vault::open("first", Arc::new(kept.clone()), None).await.unwrap();
    let mut docs = Vec::new();
    for seed in 1..=3 {
        docs.push(day(&world, seed).await);
    }
    world.pass(TimeDelta::hours(3));
    kept.delete(&docs[1].dir().snapshot(&docs[1].id, ".json")).await.unwrap();
    (world, kept, docs)
}

async fn look(world: &World) -> Found {
    hidden::snapshots(&world.vault, &world.signers, (&world.request.stack, &world.request.source)).await.unwrap()
}

fn ids(found: &Found) -> Vec<SnapshotId> {
    found.snapshots.iter().map(|one| one.id.clone()).collect()
}

#[tokio::test]
async fn a_thousand_names_hide_no_document_and_what_is_left_unread_is_told() {
    let (world, kept, docs) = one_gone().await;
    let found = look(&world).await;
    assert_eq!((ids(&found), found.unseen.len()), (vec![docs[1].id.clone()], 0));
    world.pass(TimeDelta::minutes(1));
    // Each older by its name than anything that was ever captured.
    for at in 0..1001 {
        let path = format!("{}/20200101T000000Z-{at}b-abcdef.json", docs[1].dir().snapshots());
        let path = StorePath::new(path).unwrap();
        kept.put(&path, Bytes::from_static(b"{}"), PutMode::CreateOnly).await.unwrap();
        kept.delete(&path).await.unwrap();
    }
    let found = look(&world).await;
    // Fails where names are read in their own order.
    assert_eq!(ids(&found), [docs[1].id.clone()]);
    assert!(found.unseen.len() == 1 && found.unseen[0].contains("2 names of deleted documents"), "{:?}", found.unseen);
    let verified = world.verify(false).await;
    assert_eq!(verified.unseen, found.unseen);
    // A folder that nobody looks through to its end.
    kept.says.lock().unwrap().is_cut = true;
    assert_eq!(look(&world).await.unseen.iter().filter(|text| text.contains("so many versions")).count(), 4);
}

#[tokio::test]
async fn that_nobody_may_look_is_told_once_and_is_no_damage() {
    let (world, kept, docs) = one_gone().await;
    kept.says.lock().unwrap().no_listing = true;
    let verified = world.verify(true).await;
    assert!(verified.unseen.len() == 1 && verified.unseen[0].contains("versions could not be listed"), "{verified:?}");
    // The chain tells of it all the same; that nobody may look adds nothing.
    assert!(verified.snapshots.iter().all(|verdict| verdict.damage.is_empty() && verdict.id != docs[1].id));
    // Who may list versions and not read them.
    *kept.says.lock().unwrap() = Says { no_reading: true, ..Says::default() };
    let found = look(&world).await;
    assert!(found.snapshots.is_empty() && found.unseen.len() == 1, "{found:?}");
    assert!(found.unseen[0].contains("older versions of them could not be read"), "{found:?}");
    *kept.says.lock().unwrap() = Says::default();
    assert_eq!((ids(&look(&world).await), look(&world).await.unseen.len()), (vec![docs[1].id.clone()], 0));
}

/// Signs an announcement and puts it: by what it says of its instant, and naming these.
async fn announce(world: &World, doc: &SnapshotDoc, at: DateTime<Utc>, named: &[&SnapshotDoc]) -> StorePath {
    let announced = ExpiredDoc {
        format: 1,
        stage: PruneStage::Expired,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        generation: doc.generation.clone(),
        at,
        newest: doc.id.clone(),
        snapshots: named.iter().map(|doc| (doc.id.clone(), "old".to_owned())).collect(),
        grounds: Grounds::default(),
        signer: world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    world.vault.put_signed(&announced, &world.key).await.unwrap();
    doc.dir().file(PruneStage::Expired.file())
}

#[tokio::test]
async fn an_announcement_excuses_what_a_writer_took_back_and_nothing_else() {
    let (world, kept, docs) = one_gone().await;
    let gone = &docs[1];
    // An old one that somebody put back; one that stands, and came after the document; one that names it.
    let now = world.store.now();
    let old = now - TimeDelta::days(9);
    for (at, named) in [(old, vec![]), (now, vec![]), (now, vec![gone]), (old, vec![gone])] {
        let path = announce(&world, gone, at, &named).await;
        // Fails where any announcement stands for a withdrawal.
        assert_eq!(ids(&look(&world).await), std::slice::from_ref(&gone.id), "{at} {named:?}");
        world.set(&path, None).await;
    }
    // Whoever deleted it puts it once more and deletes it again.
    announce(&world, gone, now, &[]).await;
    world.pass(TimeDelta::minutes(1));
    let path = gone.dir().snapshot(&gone.id, ".json");
    let body = kept.older.lock().unwrap()[&path][0].0.clone();
    kept.put(&path, body.clone(), PutMode::Replace).await.unwrap();
    kept.delete(&path).await.unwrap();
    // Fails where the last body decides.
    assert_eq!(ids(&look(&world).await), std::slice::from_ref(&gone.id));
    // A writer that lost: its document came when the announcement stood already.
    kept.older.lock().unwrap().remove(&path);
    kept.put(&path, body, PutMode::Replace).await.unwrap();
    kept.delete(&path).await.unwrap();
    assert_eq!(ids(&look(&world).await), Vec::<SnapshotId>::new());
}

#[tokio::test]
async fn a_receipt_excuses_what_it_names_and_what_came_shortly_before_it() {
    let (world, kept, docs) = one_gone().await;
    world.pass(TimeDelta::days(4));
    let (named, gone) = (&docs[0], &docs[1]);
    let receipt = |of: &SnapshotDoc, at: DateTime<Utc>| ReceiptDoc {
        format: 1,
        stack: of.stack.clone(),
        source: of.source.clone(),
        vault: Some(world.vault.id().clone()),
        generation: gone.generation.clone(),
        at,
        snapshots: vec![(of.id.clone(), "old".to_owned())],
        documents: [].into(),
        objects: 1,
        stored_bytes: 1,
        grounds: Grounds::default(),
        signer: world.key.fingerprint(),
        tool: "backup 0".to_owned(),
    };
    let now = world.store.now();
    world.vault.put_signed(&receipt(named, now), &world.key).await.unwrap();
    // The generation goes altogether, beside a receipt that names another of its snapshots.
    for entry in kept.memory.list(Some(&gone.dir().dir())).await.unwrap() {
        kept.delete(&entry.path).await.unwrap();
    }
    // Fails where any receipt excuses all of it.
    assert_eq!(ids(&look(&world).await), std::slice::from_ref(&gone.id));
    // What a copier took back, who came after the announcement: it stands in no receipt.
    let path = gone.dir().snapshot(&gone.id, ".json");
    let first = |at: DateTime<Utc>| kept.older.lock().unwrap().get_mut(&path).unwrap()[0].1 = at;
    for (hours, excused) in [(-60, false), (-47, true), (0, true), (20, true), (30, false)] {
        first(now + TimeDelta::hours(hours));
        assert_eq!(ids(&look(&world).await).is_empty(), excused, "{hours} hours");
    }
    // One that names it excuses it, however old it was.
    first(docs[1].instant);
    world.vault.put_signed(&receipt(gone, now + TimeDelta::seconds(1)), &world.key).await.unwrap();
    assert_eq!(ids(&look(&world).await), Vec::<SnapshotId>::new());
}

#[tokio::test]
async fn receipts_are_asked_for_after_the_versions() {
    let (world, kept, _) = one_gone().await;
    kept.asked.lock().unwrap().clear();
    look(&world).await;
    let asked = kept.asked.lock().unwrap().clone();
    let last = |part: &str| asked.iter().rposition(|call| call.starts_with(part)).unwrap();
    // A prune that deletes meanwhile has put its receipt by then: fails where they are read first.
    assert!(last("deleted") < asked.iter().position(|call| *call == "list shop/db/receipts").unwrap(), "{asked:?}");
}

#[tokio::test]
async fn a_source_of_which_everything_was_deleted_is_remembered() {
    let (world, kept, docs) = one_gone().await;
    let all = kept.memory.list(Some(&StorePath::new("shop/db").unwrap())).await.unwrap();
    for entry in all {
        kept.delete(&entry.path).await.unwrap();
    }
    let stack = &world.request.stack;
    assert!(world.vault.sources(stack).await.unwrap().is_empty());
    assert_eq!(world.vault.sources_ever(stack).await.unwrap(), std::slice::from_ref(&world.request.source));
    assert_eq!(ids(&look(&world).await), docs.iter().map(|doc| doc.id.clone()).collect::<Vec<_>>());
    // Nobody plans to delete what somebody else deleted.
    assert!(plan(&world.vault, &world.signers, &request(&world)).await.unwrap().steps.is_empty());
    let dirs: Vec<GenerationDir> = docs.iter().map(SnapshotDoc::dir).collect();
    assert_eq!(dirs.len(), 3);
}

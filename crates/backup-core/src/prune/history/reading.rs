//! Reading what a source has in a vault: once for a plan, whatever asks for it.
//!
//! Each generation is listed once, recursively, and what is opened there is opened concurrently: a bucket answers many at the price of one.
//! What is held at once is bounded by numbers of files, not of generations: by the entries of listings ([`ENTRIES`]), by the
//! lines of inventories ([`LINES`]) and by documents ([`DOCUMENTS`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use retention::{Generation, History, Span, Stamp};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::memory::{Memory, Noted, Proved, SETTLED, digest};
use super::{Fact, believed, instants, pinned_by, receipts};
use crate::id::{ObjectName, SourceName, StackName, VaultId};
use crate::prune::notice::{self, Notice};
use crate::prune::unlisted;
use crate::replicate::{self, Marks};
use crate::signature::Signers;
use crate::vault::document::{MarkKind, PruneStage, ReceiptDoc, SnapshotDoc};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::{GenerationDir, GenerationId, SnapshotId};
use crate::vault::store::{Entry, StorePath};
use crate::vault::{Signed, Vault, VaultError};
use crate::verify::{self, Accounted, Closed};

/// Generations that are read at once.
const GENERATIONS: usize = 16;
/// Entries of listings that are held at once, about: a generation counts for as many as the largest before it had.
const ENTRIES: u32 = 300_000;
/// Documents that are asked for at once.
const DOCUMENTS: usize = 32;
/// Lines of inventories that are held at once.
const LINES: u32 = 500_000;

/// What was found of one source in one vault, before what other vaults say is applied to it.
#[derive(Debug)]
pub struct Reading {
    /// Of which vault.
    vault: VaultId,
    marks: Marks,
    /// Each generation, oldest first.
    pub(in crate::prune) generations: Vec<Folder>,
    /// The receipts that are believed: what was removed.
    pub(in crate::prune) receipts: Vec<ReceiptDoc>,
    /// What may be remembered of it and was not remembered yet.
    noted: Vec<(GenerationId, Noted)>,
}

/// One generation.
#[derive(Debug)]
pub(in crate::prune) struct Folder {
    pub(in crate::prune) dir: GenerationDir,
    /// `expired.json` and `deleting.json`.
    pub(in crate::prune) notices: [Notice; 2],
    /// Everything that lies there but objects.
    pub(in crate::prune) files: Vec<Entry>,
    pub(in crate::prune) objects: Objects,
    /// Snapshots that the listing shows, and those that it betrays and that are there.
    pub(in crate::prune) listed: Vec<SnapshotId>,
    /// The latter.
    unlisted: BTreeSet<SnapshotId>,
    /// Those that are believed, each with whether it is whole.
    snapshots: Vec<(Proved, bool)>,
    /// The documents of those that were opened.
    documents: Vec<Signed<SnapshotDoc>>,
}

/// The objects of a generation, as its listing shows them.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::prune) struct Objects {
    pub(in crate::prune) count: u64,
    /// Stored bytes.
    pub(in crate::prune) bytes: u64,
    /// When the last of them came.
    pub(in crate::prune) newest: Option<DateTime<Utc>>,
}

impl Folder {
    /// Why it is being purged, if it is: what is being purged is as good as gone, takes nobody's place, and is absent on purpose.
    fn is_purged(&self) -> bool {
        is_purged(&self.notices)
    }

    /// The snapshots that are believed.
    pub(in crate::prune) fn believed(&self) -> BTreeSet<SnapshotId> {
        self.snapshots.iter().map(|(proved, _)| proved.id.clone()).collect()
    }

    /// Those of them that are whole.
    pub(in crate::prune) fn whole(&self) -> BTreeSet<SnapshotId> {
        let whole = self.snapshots.iter().filter(|(_, complete)| *complete);
        whole.map(|(proved, _)| proved.id.clone()).collect()
    }

    /// When anything last came there.
    pub(in crate::prune) fn newest(&self) -> Option<DateTime<Utc>> {
        self.files.iter().map(|entry| entry.modified).chain(self.objects.newest).max()
    }
}

fn is_purged(notices: &[Notice; 2]) -> bool {
    notices.iter().any(|notice| matches!(notice, Notice::Signed(doc) if doc.grounds.purge.is_some()))
}

/// What bounds a reading.
struct Bounds {
    entries: Semaphore,
    documents: Semaphore,
    lines: Semaphore,
    /// Entries of the largest listing so far.
    largest: AtomicU32,
}

impl Bounds {
    fn new() -> Self {
        Self {
            entries: Semaphore::new(ENTRIES as usize),
            documents: Semaphore::new(DOCUMENTS),
            lines: Semaphore::new(LINES as usize),
            largest: AtomicU32::new(ENTRIES),
        }
    }

    async fn listing(&self) -> Option<SemaphorePermit<'_>> {
        self.entries.acquire_many(self.largest.load(Ordering::Relaxed)).await.ok()
    }

    async fn lines(&self, lines: u64) -> Option<SemaphorePermit<'_>> {
        let lines = u32::try_from(lines).unwrap_or(LINES).clamp(1, LINES);
        self.lines.acquire_many(lines).await.ok()
    }
}

/// Whose history is read, and who is believed.
struct Look<'a> {
    vault: &'a Vault,
    signers: &'a Signers,
    damaged: &'a BTreeSet<(GenerationDir, String)>,
    memory: Option<&'a Memory>,
    bounds: Bounds,
}

/// Reads a source's history from a vault. What is known to be `damaged` there (objects and snapshots, by name) is not whole,
/// whatever the listing shows. What `memory` holds of a generation that did not change is not opened again. Errors: only a store that fails.
pub async fn look(
    vault: &Vault,
    signers: &Signers,
    (stack, source): (&StackName, &SourceName),
    damaged: &BTreeSet<(GenerationDir, String)>,
    memory: Option<&Memory>,
) -> Result<Reading, VaultError> {
    let marks = replicate::marks(vault, signers, stack, source).await?;
    let mut dirs = vault.generations(stack, source).await?;
    let look = Look { vault, signers, damaged, memory, bounds: Bounds::new() };
    // The newest alone: it says how large the others will be.
    let last = dirs.pop();
    let last = match last {
        Some(dir) => Some(look.generation(dir).await?),
        None => None,
    };
    if let Some((folder, _)) = &last {
        let entries = folder.files.len() as u64 + folder.objects.count;
        look.bounds.largest.store(u32::try_from(entries).unwrap_or(ENTRIES).clamp(1, ENTRIES), Ordering::Relaxed);
    }
    let read = stream::iter(dirs).map(|dir| look.generation(dir)).buffered(GENERATIONS);
    let mut read: Vec<(Folder, Option<Noted>)> = read.try_collect().await?;
    read.extend(last);
    // After the listings: what is gone from them by a deletion beside us has its receipt already.
    let receipts = receipts(vault, signers, stack, source).await?;
    let (mut generations, mut noted) = (Vec::new(), Vec::new());
    for (folder, note) in read {
        noted.extend(note.map(|note| (folder.dir.id.clone(), note)));
        generations.push(folder);
    }
    Ok(Reading { vault: vault.id().clone(), marks, generations, receipts, noted })
}

impl Look<'_> {
    async fn generation(&self, dir: GenerationDir) -> Result<(Folder, Option<Noted>), VaultError> {
        let _entries = self.bounds.listing().await;
        let entries = self.vault.list(&dir.dir()).await?;
        let size = u32::try_from(entries.len()).unwrap_or(ENTRIES).min(ENTRIES);
        if self.bounds.largest.load(Ordering::Relaxed) < ENTRIES {
            self.bounds.largest.fetch_max(size, Ordering::Relaxed);
        }
        let digest = self.memory.and_then(|_| digest(&entries, self.signers));
        let (mut files, mut objects, mut sum) = (Vec::new(), HashMap::new(), Objects::default());
        for entry in entries {
            match object(&dir, &entry) {
                Some(name) => {
                    sum.count += 1;
                    sum.bytes += entry.bytes;
                    sum.newest = sum.newest.max(Some(entry.modified));
                    objects.insert(name, entry.bytes);
                }
                None => files.push(entry),
            }
        }
        let notices = [
            notice::read(self.vault, self.signers, &dir, PruneStage::Expired).await?,
            notice::read(self.vault, self.signers, &dir, PruneStage::Deleting).await?,
        ];
        let listed = crate::prune::delete::snapshots(&dir, &files);
        let mut folder = Folder {
            dir,
            notices,
            files,
            objects: sum,
            listed,
            unlisted: BTreeSet::new(),
            snapshots: Vec::new(),
            documents: Vec::new(),
        };
        let purged = folder.is_purged();
        let is_known_damaged = self.damaged.iter().any(|(at, _)| *at == folder.dir);
        if let (Some(digest), Some(memory), false) = (digest, self.memory, is_known_damaged)
            && let Some(noted) = memory.generations.get(&folder.dir.id).filter(|noted| noted.digest == digest)
        {
            folder.snapshots = noted.snapshots.iter().map(|proved| (proved.clone(), !purged)).collect();
            return Ok((folder, None));
        }
        let mut ids = std::mem::take(&mut folder.listed);
        folder.unlisted = unlisted::snapshots(self.vault, &folder.dir, &folder.files).await?;
        ids.extend(folder.unlisted.iter().cloned());
        ids.sort();
        let mut read =
            stream::iter(&ids).map(|id| self.snapshot(&folder.dir, id, purged, &objects)).buffered(DOCUMENTS);
        let (mut snapshots, mut documents) = (Vec::new(), Vec::new());
        while let Some(one) = read.next().await {
            if let Some((signed, complete)) = one? {
                snapshots.push((Proved::from(&signed), complete));
                documents.push(signed);
            }
        }
        drop(read);
        let is_good = snapshots.len() == ids.len() && snapshots.iter().all(|(_, complete)| *complete);
        (folder.snapshots, folder.documents, folder.listed) = (snapshots, documents, ids);
        let settled = |memory: &Memory| folder.newest().is_some_and(|newest| memory.now - newest >= SETTLED);
        let noted = match (digest, self.memory) {
            // What the listing does not show is in no digest of it.
            (Some(digest), Some(memory))
                if is_good && folder.unlisted.is_empty() && !is_known_damaged && settled(memory) =>
            {
                let snapshots = folder.snapshots.iter().map(|(proved, _)| proved.clone()).collect();
                Some(Noted { digest, snapshots })
            }
            _ => None,
        };
        Ok((folder, noted))
    }

    /// A snapshot's document and whether it is whole; `None` where it is not believed.
    async fn snapshot(
        &self,
        dir: &GenerationDir,
        id: &SnapshotId,
        purged: bool,
        objects: &HashMap<ObjectName, u64>,
    ) -> Result<Option<(Signed<SnapshotDoc>, bool)>, VaultError> {
        let permit = self.bounds.documents.acquire().await;
        let signed = self.vault.get_signed::<SnapshotDoc>(&dir.snapshot(id, ".json"), self.signers).await;
        drop(permit);
        let Some(signed) = believed(self.vault, signed).await? else { return Ok(None) };
        let complete = !purged && self.is_complete(&signed.doc, objects).await?;
        Ok(Some((signed, complete)))
    }

    async fn is_complete(&self, doc: &SnapshotDoc, objects: &HashMap<ObjectName, u64>) -> Result<bool, VaultError> {
        let known: BTreeSet<&str> =
            self.damaged.iter().filter(|(dir, _)| *dir == doc.dir()).map(|(_, item)| item.as_str()).collect();
        let good = |line: &InventoryLine| {
            objects.get(&line.name) == Some(&line.bytes)
                && (known.is_empty() || !known.contains(line.name.to_string().as_str()))
        };
        let _lines = self.bounds.lines(doc.inventory.objects).await;
        let inventory = believed(self.vault, self.vault.get_inventory(doc).await).await?;
        Ok(!known.contains(doc.id.as_str()) && inventory.is_some_and(|(lines, _)| lines.iter().all(good)))
    }
}

/// The object that an entry is, where it lies where that object belongs.
fn object(dir: &GenerationDir, entry: &Entry) -> Option<ObjectName> {
    let name: ObjectName = entry.path.as_str().rsplit('/').next()?.parse().ok()?;
    (dir.object(&name) == entry.path).then_some(name)
}

impl Reading {
    /// The marks that this vault has itself.
    pub fn facts(&self) -> BTreeSet<Fact> {
        self.marks.signed.values().flat_map(|mark| Fact::of(&mark.doc)).collect()
    }

    /// What lies where a mark belongs and is not believed, and what a listing should show and does not, in words.
    pub(in crate::prune) fn foreign(&self) -> Vec<String> {
        let told = self.marks.foreign.iter().map(|(path, why)| match pinned_by(path) {
            Some(id) => format!("foreign or unsigned pin, `{id}` is kept all the same: {why}"),
            None => format!("foreign or unsigned mark, not obeyed: {why}"),
        });
        let unlisted = self.generations.iter().flat_map(|folder| &folder.unlisted);
        told.chain(unlisted.map(unlisted::text)).collect()
    }

    /// The material for a plan. `promised_elsewhere` is what other vaults lack, `marks` are theirs. A pin that is not believed keeps its
    /// snapshot all the same: it may be an operator's whose signature was damaged.
    pub fn history(&self, promised_elsewhere: &BTreeSet<String>, marks: &BTreeSet<Fact>) -> History {
        let marks = &self.facts() | marks;
        let pinned: BTreeSet<SnapshotId> = self.marks.foreign.keys().filter_map(pinned_by).collect();
        let mut history = History { promised_elsewhere: promised_elsewhere.clone(), ..History::default() };
        let (mut going, mut links) = (Vec::new(), Vec::new());
        for folder in &self.generations {
            let stored: HashMap<&StorePath, DateTime<Utc>> =
                folder.files.iter().map(|entry| (&entry.path, entry.modified)).collect();
            for (proved, complete) in &folder.snapshots {
                going.extend((folder.is_purged() && !proved.id.is_imported()).then_some(proved.instant));
                // When the store got its document, by its own clock, or the signature that was put a moment before.
                let got = |suffix| stored.get(&folder.dir.snapshot(&proved.id, suffix)).copied();
                let at = got(".json").or_else(|| got(".json.sig")).unwrap_or(proved.instant);
                let mut stamp = stamp(&folder.dir, proved, at, *complete, &marks);
                stamp.pinned |= pinned.contains(&proved.id);
                history.stamps.push(stamp);
                links.push(proved.link());
            }
            let id = &folder.dir.id;
            history.generations.push(Generation {
                id: id.to_string(),
                start: id.first_day().and_time(chrono::NaiveTime::MIN).and_utc(),
                period: Span::days(u64::from(id.period().days())),
                listed: folder.listed.len(),
            });
        }
        history.removed = instants(&self.receipts);
        history.removed.append(&mut going);
        // A hole stays in the chain: a vault that was away for longer than its window never gets what it missed. As with a gap, it is
        // for a person to say that what came after it is what it should be.
        let closed = Closed::by(&marks, Some(&self.vault));
        let open = verify::chains(&links, &Accounted::by(&self.receipts), &Fact::accepted(&marks));
        let open = open.looked_at(&closed).texts();
        history.open_chain = (!open.is_empty()).then(|| open.join("; "));
        history
    }

    /// The newest signed capture: what proves that captures go on is a capture.
    pub(in crate::prune) fn newest(&self) -> Option<&SnapshotId> {
        let all = self.generations.iter().flat_map(|folder| &folder.snapshots);
        all.map(|(proved, _)| &proved.id).filter(|id| !id.is_imported()).max()
    }

    /// What may be remembered of it and was not yet.
    pub fn noted(&self) -> &[(GenerationId, Noted)] {
        &self.noted
    }

    /// The generations that are there.
    pub fn dirs(&self) -> Vec<GenerationDir> {
        self.generations.iter().map(|folder| folder.dir.clone()).collect()
    }

    /// The documents that were opened, with their generations and in the stamps' order, and the receipts.
    pub(super) fn into_documents(self) -> (Vec<(GenerationDir, Signed<SnapshotDoc>)>, Vec<ReceiptDoc>) {
        let mut documents = Vec::new();
        for folder in self.generations {
            documents.extend(folder.documents.into_iter().map(|signed| (folder.dir.clone(), signed)));
        }
        (documents, self.receipts)
    }
}

fn stamp(dir: &GenerationDir, proved: &Proved, stored: DateTime<Utc>, complete: bool, marks: &BTreeSet<Fact>) -> Stamp {
    let marked = |kind: MarkKind| Fact::marks(marks, proved.sha256, kind);
    Stamp {
        id: proved.id.to_string(),
        generation: dir.id.to_string(),
        data: proved.instant,
        stored,
        pinned: marked(MarkKind::Pin),
        suspect: proved.suspect,
        accepted: marked(MarkKind::Accept),
        checked: marked(MarkKind::Checked),
        restored: marked(MarkKind::Restored),
        complete,
        imported: proved.id.is_imported(),
    }
}

//! From streams to durable objects: chunk, look up, pack, seal, put. The engine room of a backup.
//!
//! ```text
//! write --> cut + hash (pool) --> known? --yes--> extent
//!                                   | no
//!                                   v
//!                        pack to 4 MiB --> seal (pool) --> Vault::put_object --> journal
//! ```
//!
//! What holds: a chunk becomes *known* to other streams only when its pack is on its way, so that an abandoned stream
//! leaves no reference to bytes that were never sent; the first failure stops every writer; [`Pipeline::barrier`]
//! returns only when every pack was answered by the vault. One byte budget covers packs from before their buffer is
//! allocated until their PUT is answered, so that memory does not grow with the source.

pub mod known;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use crate::chunk::{ChunkSizes, Cutter};
use crate::id::{ChunkId, ObjectName};
use crate::manifest::{Extent, StreamKind};
use crate::monitor::{Event, Monitor};
use crate::seal::{MAX_PLAIN_BYTES, SealError, Sealer};
use crate::source::{FinishedStream, Sink, SinkError, StreamWriter};
use crate::vault::inventory::InventoryLine;
use crate::vault::layout::GenerationDir;
use crate::vault::{Vault, VaultError};
use known::{JournalEntry, Known, PackedChunk};
use writer::{RawExtent, Writer};

/// What a pack is charged: its plaintext and its sealed form.
const PACK_CHARGE_BYTES: usize = 2 * MAX_PLAIN_BYTES;
/// Packs that are sealed or on their way at once: few enough that a queue is as long after 100 MB as after 1 TB, and
/// enough to seal one while another is sealed and a third is on its way. More made the peak drift with the length of a run.
const FLIGHT: usize = 3;
/// Packs that are sealed at once: each needs some 10 MiB beside its own.
const SEALS: usize = 2;

/// Remembers which chunks lie in which object, for the next run. Losing an entry costs a second upload, nothing else.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Called once for each object that the vault has answered for.
    async fn record(&self, dir: &GenerationDir, entry: &JournalEntry);
}

/// Why the pipeline stopped.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// An object could not be sealed.
    #[error("an object could not be sealed")]
    Seal(#[from] SealError),
    /// The vault did not take an object.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A task ended in a panic.
    #[error("a worker of the pipeline ended early: {0}")]
    Worker(String),
}

/// How a writer learns that the pipeline has stopped.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the pipeline stopped: {0}")]
pub struct Stopped(Arc<PipelineError>);

/// What a pipeline needs.
pub struct PipelineParts {
    /// Where objects go.
    pub vault: Vault,
    /// In which generation.
    pub dir: GenerationDir,
    /// To which key.
    pub sealer: Sealer,
    /// How streams are cut.
    pub cutter: Cutter,
    /// What this vault was seen to hold of this generation.
    pub known: Known,
    /// Where confirmed objects are remembered.
    pub journal: Arc<dyn Journal>,
    /// Who is told.
    pub monitor: Arc<dyn Monitor>,
    /// Bytes that packs may use at once; at least [`PipelineParts::MIN_BUDGET_BYTES`].
    pub budget_bytes: usize,
    /// Threads that cut and seal at once.
    pub cpus: usize,
}

impl PipelineParts {
    /// Room for twelve packs: as many streams may be open at once without waiting for each other.
    pub const MIN_BUDGET_BYTES: usize = 12 * PACK_CHARGE_BYTES;
}

struct Shared {
    vault: Vault,
    dir: GenerationDir,
    sealer: Sealer,
    cutter: Arc<Cutter>,
    known: Mutex<Known>,
    journal: Arc<dyn Journal>,
    monitor: Arc<dyn Monitor>,
    budget: Arc<Semaphore>,
    cpu: Arc<Semaphore>,
    seals: Semaphore,
    flight: Arc<Semaphore>,
    failure: OnceLock<Arc<PipelineError>>,
    tasks: Mutex<JoinSet<()>>,
    added_bytes: AtomicU64,
}

/// The pipeline of one capture into one vault. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding one of these leaves plain data behind; the panic itself is reported by its task.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipeline {
    /// Starts with what is known.
    pub fn new(parts: PipelineParts) -> Self {
        let packs = parts.budget_bytes.max(PipelineParts::MIN_BUDGET_BYTES) / PACK_CHARGE_BYTES;
        Self(Arc::new(Shared {
            vault: parts.vault,
            dir: parts.dir,
            sealer: parts.sealer,
            cutter: Arc::new(parts.cutter),
            known: Mutex::new(parts.known),
            journal: parts.journal,
            monitor: parts.monitor,
            budget: Arc::new(Semaphore::new(packs)),
            cpu: Arc::new(Semaphore::new(parts.cpus.max(1))),
            seals: Semaphore::new(SEALS),
            flight: Arc::new(Semaphore::new(FLIGHT)),
            failure: OnceLock::new(),
            tasks: Mutex::new(JoinSet::new()),
            added_bytes: AtomicU64::new(0),
        }))
    }

    /// What stopped the pipeline, if anything did.
    pub fn failure(&self) -> Option<Arc<PipelineError>> {
        self.0.failure.get().cloned()
    }

    /// Waits until every pack sent so far was answered. An error means that the run must not commit.
    pub async fn barrier(&self) -> Result<(), Arc<PipelineError>> {
        loop {
            let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
            if tasks.is_empty() {
                break;
            }
            while let Some(ended) = tasks.join_next().await {
                self.0.ended(ended);
            }
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Where the bytes of a finished stream lie. Call after [`Pipeline::barrier`].
    pub fn extents(&self, stream: &FinishedStream) -> Option<Vec<Extent>> {
        let raw = stream.token.downcast_ref::<Vec<RawExtent>>()?;
        let known = lock(&self.0.known);
        raw.iter().map(|e| Some(Extent { object: known.name(e.object)?, offset: e.offset, bytes: e.bytes })).collect()
    }

    /// Stores a manifest's text as objects of their own and gives their names in order. Pieces that an earlier manifest
    /// of this generation had are not stored again.
    pub async fn put_manifest(&self, text: &str, seed: u64) -> Result<Vec<ObjectName>, Arc<PipelineError>> {
        let cutter = Cutter::new(ChunkSizes::MANIFEST, seed);
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        while let Some(length) = cutter.next(rest, true) {
            let (piece, after) = rest.split_at(length);
            rest = after;
            let id = ChunkId::of(piece);
            let whole = lock(&self.0.known).whole_object(&id);
            if let Some(object) = whole {
                pieces.push(object);
                continue;
            }
            let mut pack = self.0.open_pack().await?;
            pack.push(id, piece);
            pieces.push(pack.object);
            self.0.dispatch(pack).await;
        }
        self.barrier().await?;
        let known = lock(&self.0.known);
        Ok(pieces.into_iter().filter_map(|object| known.name(object)).collect())
    }

    /// The inventory lines for `names`, each of which this pipeline knows.
    pub fn inventory(&self, names: impl Iterator<Item = ObjectName>) -> Vec<InventoryLine> {
        lock(&self.0.known).inventory(names)
    }

    /// Stored bytes that were new to the vault.
    pub fn added_bytes(&self) -> u64 {
        self.0.added_bytes.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Sink for Pipeline {
    async fn open(&self, kind: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError> {
        self.0.check()?;
        Ok(Box::new(Writer::new(self.0.clone(), kind)))
    }
}

/// A pack that is being filled.
struct Pack {
    object: u32,
    plain: Vec<u8>,
    chunks: Vec<PackedChunk>,
    inside: HashMap<ChunkId, (u32, u32)>,
    permit: OwnedSemaphorePermit,
}

impl Pack {
    fn fits(&self, bytes: usize) -> bool {
        self.plain.len() + bytes <= MAX_PLAIN_BYTES
    }

    /// Appends a chunk and gives its offset.
    fn push(&mut self, id: ChunkId, chunk: &[u8]) -> u32 {
        let offset = u32::try_from(self.plain.len()).expect("a pack is at most 4 MiB");
        let bytes = u32::try_from(chunk.len()).expect("a chunk is at most 4 MiB");
        self.plain.extend_from_slice(chunk);
        self.chunks.push(PackedChunk { id, offset, bytes });
        self.inside.insert(id, (offset, bytes));
        offset
    }
}

impl Shared {
    fn fail(&self, error: PipelineError) {
        let _ = self.failure.set(Arc::new(error));
        // Wakes whoever waits for the budget.
        self.budget.close();
    }

    fn check(&self) -> Result<(), SinkError> {
        match self.failure.get() {
            Some(failure) => Err(stopped(failure.clone())),
            None => Ok(()),
        }
    }

    async fn open_pack(&self) -> Result<Pack, Arc<PipelineError>> {
        let permit = self.budget.clone().acquire_owned().await.map_err(|_| {
            self.failure.get().cloned().unwrap_or_else(|| Arc::new(PipelineError::Worker("closed".to_owned())))
        })?;
        let object = lock(&self.known).reserve();
        Ok(Pack { object, plain: self.sealer.buffer(), chunks: Vec::new(), inside: HashMap::new(), permit })
    }

    /// Sends a pack on its way, once there is room for it there. From here on its chunks are known to every stream.
    async fn dispatch(self: &Arc<Self>, pack: Pack) {
        // Never closed, and what is under way ends: waiting here holds up the source only.
        let Ok(flight) = self.flight.clone().acquire_owned().await else { return };
        lock(&self.known).announce(pack.object, &pack.chunks);
        let shared = self.clone();
        let work = async move {
            if shared.failure.get().is_none()
                && let Err(error) = shared.send(pack).await
            {
                shared.fail(error);
            }
            drop(flight);
        };
        let mut tasks = lock(&self.tasks);
        // What has ended is taken out now: it holds memory until somebody asks for its end.
        while let Some(ended) = tasks.try_join_next() {
            self.ended(ended);
        }
        tasks.spawn(work);
    }

    /// A task reports its failure itself, unless it ended in a panic.
    fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            self.fail(PipelineError::Worker(error.to_string()));
        }
    }

    async fn send(&self, pack: Pack) -> Result<(), PipelineError> {
        let Pack { object, plain, chunks, permit, .. } = pack;
        let by = self.sealer.clone();
        let seal = self.seals.acquire().await.map_err(|e| PipelineError::Worker(e.to_string()))?;
        let sealed = self.on_pool(move || by.seal_buffer(plain)).await.map_err(PipelineError::Worker)??;
        drop(seal);
        if self.failure.get().is_some() {
            return Ok(());
        }
        self.vault.put_object(&self.dir, &sealed).await?;
        let stored_bytes = sealed.bytes().len() as u64;
        let entry = JournalEntry { name: sealed.name(), stored_bytes, plain_bytes: sealed.plain_bytes(), chunks };
        drop(sealed);
        drop(permit);
        lock(&self.known).confirm(object, &entry);
        self.added_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        self.monitor.event(Event::Stored { bytes: stored_bytes });
        self.journal.record(&self.dir, &entry).await;
        Ok(())
    }

    /// Runs CPU work on a blocking thread, at most `cpus` at once.
    async fn on_pool<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let permit = self.cpu.clone().acquire_owned().await.map_err(|e| e.to_string())?;
        let done = tokio::task::spawn_blocking(move || {
            let out = work();
            drop(permit);
            out
        });
        done.await.map_err(|e| e.to_string())
    }
}

fn stopped(failure: Arc<PipelineError>) -> SinkError {
    SinkError(Box::new(Stopped(failure)))
}

//! One open stream: collects, cuts and hashes beside the async threads, and hands new chunks to packs.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{Pack, Shared, lock, stopped};
use crate::id::{ChunkId, Hash256};
use crate::manifest::StreamKind;
use crate::monitor::Event;
use crate::source::{FinishedStream, SinkError, StreamWriter};

/// Bytes collected before they are cut.
const BATCH_BYTES: usize = 1 << 20;

/// An extent whose object may not have its name yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawExtent {
    pub(super) object: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
}

/// State of the cutting, which travels to the pool and back.
struct Cutting {
    hash: Sha256,
    carry: Vec<u8>,
}

/// What came back from the pool: a buffer, the chunks in it, and what was emptied.
struct Batch {
    cutting: Cutting,
    buffer: Vec<u8>,
    chunks: Vec<(ChunkId, usize)>,
    empty: Vec<u8>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    kind: StreamKind,
    bytes: u64,
    batch: Vec<u8>,
    /// Emptied buffers, to be filled again: a long stream allocates no more than a short one.
    empty: Vec<u8>,
    tail: Vec<u8>,
    cutting: Option<Cutting>,
    working: Option<JoinHandle<Result<Batch, String>>>,
    pack: Option<Pack>,
    extents: Vec<RawExtent>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, kind: StreamKind) -> Self {
        let cutting = Some(Cutting { hash: Sha256::new(), carry: Vec::new() });
        let (batch, empty, tail) = (Vec::new(), Vec::new(), Vec::new());
        let (working, pack, extents) = (None, None, Vec::new());
        Self { shared, kind, bytes: 0, batch, empty, tail, cutting, working, pack, extents }
    }

    /// Sends the collected bytes to the pool, after the batch before them has come back and was absorbed.
    async fn turn(&mut self, ends: bool) -> Result<(), SinkError> {
        self.absorb().await?;
        let Some(cutting) = self.cutting.take() else { return Err(broken("the stream failed before")) };
        let mut batch = std::mem::replace(&mut self.batch, std::mem::take(&mut self.empty));
        let mut tail = std::mem::take(&mut self.tail);
        let (shared, cutter) = (self.shared.clone(), self.shared.cutter.clone());
        let work = move || {
            let Cutting { mut hash, carry: mut buffer } = cutting;
            hash.update(&batch);
            buffer.extend_from_slice(&batch);
            batch.clear();
            let mut chunks = Vec::new();
            let mut at = 0;
            while let Some(length) = cutter.next(&buffer[at..], ends) {
                chunks.push((Hash256::of(&buffer[at..at + length]), length));
                at += length;
            }
            tail.clear();
            tail.extend_from_slice(&buffer[at..]);
            Batch { cutting: Cutting { hash, carry: tail }, buffer, chunks, empty: batch }
        };
        self.working = Some(tokio::spawn(async move { shared.on_pool(work).await }));
        Ok(())
    }

    /// Takes back the batch that is at the pool: known chunks become extents, new ones go into packs.
    async fn absorb(&mut self) -> Result<(), SinkError> {
        let Some(working) = self.working.take() else { return Ok(()) };
        let batch = working.await.map_err(|e| broken(&e.to_string()))?.map_err(|e| broken(&e))?;
        let mut at = 0;
        for (id, length) in batch.chunks {
            self.place(id, &batch.buffer[at..at + length]).await?;
            at += length;
        }
        self.cutting = Some(batch.cutting);
        self.empty = batch.empty;
        self.tail = batch.buffer;
        Ok(())
    }

    async fn place(&mut self, id: ChunkId, chunk: &[u8]) -> Result<(), SinkError> {
        if let Some(pack) = &self.pack
            && let Some((offset, bytes)) = pack.inside.get(&id)
        {
            let extent = RawExtent { object: pack.object, offset: *offset, bytes: *bytes };
            self.extend(extent);
            return Ok(());
        }
        let found = lock(&self.shared.known).find(&id);
        if let Some(found) = found {
            self.extend(RawExtent { object: found.object, offset: found.offset, bytes: found.bytes });
            return Ok(());
        }
        if let Some(full) = self.pack.take_if(|pack| !pack.fits(chunk.len())) {
            self.shared.dispatch(full).await;
        }
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => self.shared.open_pack().await.map_err(stopped)?,
        };
        let offset = pack.push(id, chunk);
        let bytes = u32::try_from(chunk.len()).map_err(|e| broken(&e.to_string()))?;
        self.extend(RawExtent { object: pack.object, offset, bytes });
        self.pack = Some(pack);
        Ok(())
    }

    /// Adds an extent, merged with the last where they touch.
    fn extend(&mut self, extent: RawExtent) {
        if let Some(last) = self.extents.last_mut()
            && last.object == extent.object
            && last.offset + last.bytes == extent.offset
        {
            last.bytes += extent.bytes;
        } else {
            self.extents.push(extent);
        }
    }
}

#[async_trait]
impl StreamWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        self.shared.check()?;
        self.bytes += bytes.len() as u64;
        self.shared.monitor.event(Event::Plain { bytes: bytes.len() as u64 });
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            if self.batch.capacity() == 0 {
                self.batch.reserve_exact(BATCH_BYTES);
            }
            let (now, later) = rest.split_at(rest.len().min(BATCH_BYTES - self.batch.len()));
            self.batch.extend_from_slice(now);
            rest = later;
            if self.batch.len() == BATCH_BYTES {
                self.turn(false).await?;
            }
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<FinishedStream, SinkError> {
        self.turn(true).await?;
        self.absorb().await?;
        if let Some(pack) = self.pack.take() {
            self.shared.dispatch(pack).await;
        }
        self.shared.check()?;
        let Some(cutting) = self.cutting.take() else { return Err(broken("the stream failed before")) };
        let sha256 = Hash256(cutting.hash.finalize().into());
        let token = Box::new(std::mem::take(&mut self.extents));
        Ok(FinishedStream { kind: self.kind, bytes: self.bytes, sha256, token })
    }
}

fn broken(reason: &str) -> SinkError {
    SinkError(reason.to_owned().into())
}

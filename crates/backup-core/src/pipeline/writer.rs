//! One open stream: collects, cuts and hashes beside the async threads, and hands new chunks to packs.

use std::ops::Range;
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

/// What comes back from the pool: the bytes, the chunks in them, and where what is not cut yet begins.
struct Batch {
    hash: Sha256,
    buffer: Vec<u8>,
    first: usize,
    chunks: Vec<(ChunkId, usize)>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    kind: StreamKind,
    bytes: u64,
    /// Bytes kept free at the front of each buffer, for what was not cut of the one before: nothing else is moved.
    head: usize,
    /// Being filled; the other one is at the pool, or empty. A long stream allocates no more than a short one.
    batch: Vec<u8>,
    other: Vec<u8>,
    /// Where in `other` lies what is not cut yet.
    tail: Range<usize>,
    hash: Option<Sha256>,
    working: Option<JoinHandle<Result<Batch, String>>>,
    pack: Option<Pack>,
    extents: Vec<RawExtent>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, kind: StreamKind) -> Self {
        let head = shared.cutter.sizes().max_bytes();
        let (batch, other, tail) = (Vec::new(), Vec::new(), 0..0);
        let (hash, working, pack, extents) = (Some(Sha256::new()), None, None, Vec::new());
        Self { shared, kind, bytes: 0, head, batch, other, tail, hash, working, pack, extents }
    }

    /// Sends the collected bytes to the pool, after the batch before them has come back and was absorbed.
    async fn turn(&mut self, ends: bool) -> Result<(), SinkError> {
        self.absorb().await?;
        let Some(mut hash) = self.hash.take() else { return Err(broken("the stream failed before")) };
        let tail = std::mem::take(&mut self.tail);
        let (head, first) = (self.head, self.head - tail.len());
        self.make_room();
        self.batch[first..head].copy_from_slice(&self.other[tail]);
        self.other.truncate(head);
        let buffer = std::mem::replace(&mut self.batch, std::mem::take(&mut self.other));
        let (shared, cutter) = (self.shared.clone(), self.shared.cutter.clone());
        let work = move || {
            hash.update(&buffer[head..]);
            let mut chunks = Vec::new();
            let mut at = first;
            while let Some(length) = cutter.next(&buffer[at..], ends) {
                chunks.push((ChunkId::of(&buffer[at..at + length]), length));
                at += length;
            }
            Batch { hash, buffer, first, chunks }
        };
        self.working = Some(tokio::spawn(async move { shared.on_pool(work).await }));
        Ok(())
    }

    /// Makes the buffer that is filled next begin with its head.
    fn make_room(&mut self) {
        if self.batch.capacity() == 0 {
            self.batch.reserve_exact(self.head + BATCH_BYTES);
        }
        if self.batch.len() < self.head {
            self.batch.resize(self.head, 0);
        }
    }

    /// Takes back the batch that is at the pool: known chunks become extents, new ones go into packs.
    async fn absorb(&mut self) -> Result<(), SinkError> {
        let Some(working) = self.working.take() else { return Ok(()) };
        let batch = working.await.map_err(|e| broken(&e.to_string()))?.map_err(|e| broken(&e))?;
        let mut at = batch.first;
        for (id, length) in batch.chunks {
            self.place(id, &batch.buffer[at..at + length]).await?;
            at += length;
        }
        self.hash = Some(batch.hash);
        self.tail = at..batch.buffer.len();
        self.other = batch.buffer;
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
            self.make_room();
            let (now, later) = rest.split_at(rest.len().min(self.head + BATCH_BYTES - self.batch.len()));
            self.batch.extend_from_slice(now);
            rest = later;
            if self.batch.len() == self.head + BATCH_BYTES {
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
        let Some(hash) = self.hash.take() else { return Err(broken("the stream failed before")) };
        let sha256 = Hash256(hash.finalize().into());
        let token = Box::new(std::mem::take(&mut self.extents));
        Ok(FinishedStream { kind: self.kind, bytes: self.bytes, sha256, token })
    }
}

fn broken(reason: &str) -> SinkError {
    SinkError(reason.to_owned().into())
}

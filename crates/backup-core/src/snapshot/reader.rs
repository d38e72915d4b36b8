//! A stream, extent by extent, with the objects ahead fetched and opened while the reader works.
//!
//! Each object that consecutive extents share is opened once. Bytes leave only after their object's name and age tag were
//! checked; the stream's length and SHA-256 are compared before its end is admitted.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use super::{OpenSnapshot, SnapshotError};
use crate::id::{Hash256, ObjectName};
use crate::manifest::Stream;
use crate::source::{StreamError, StreamReader, Streams};

#[async_trait]
impl Streams for OpenSnapshot {
    async fn open(&self, number: u32) -> Result<Box<dyn StreamReader>, StreamError> {
        let index = (number as usize).checked_sub(1).filter(|index| *index < self.manifest.streams.len());
        let Some(index) = index else {
            let error = SnapshotError::Stream {
                number,
                snapshot: self.doc.id.to_string(),
                reason: "the manifest has no such stream".to_owned(),
            };
            return Err(StreamError(Box::new(error)));
        };
        let groups = groups(&self.manifest.streams[index]);
        Ok(Box::new(Reader {
            snapshot: self.clone(),
            number,
            index,
            groups,
            ahead: VecDeque::new(),
            current: None,
            hash: Sha256::new(),
            bytes: 0,
        }))
    }
}

/// Consecutive extents of one object.
struct Group {
    object: ObjectName,
    extents: std::ops::Range<usize>,
}

fn groups(stream: &Stream) -> VecDeque<Group> {
    let mut groups: VecDeque<Group> = VecDeque::new();
    for (i, extent) in stream.extents.iter().enumerate() {
        match groups.back_mut() {
            Some(last) if last.object == extent.object => last.extents.end = i + 1,
            _ => groups.push_back(Group { object: extent.object, extents: i..i + 1 }),
        }
    }
    groups
}

type Opening = JoinHandle<Result<Vec<u8>, SnapshotError>>;

struct Reader {
    snapshot: OpenSnapshot,
    number: u32,
    index: usize,
    groups: VecDeque<Group>,
    ahead: VecDeque<(Group, AbortOnDrop)>,
    current: Option<(Bytes, std::ops::Range<usize>)>,
    hash: Sha256,
    bytes: u64,
}

/// A reader that is dropped in the middle must not go on fetching.
struct AbortOnDrop(Opening);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reader {
    fn fetch_ahead(&mut self) {
        while self.ahead.len() < self.snapshot.ahead {
            let Some(group) = self.groups.pop_front() else { break };
            let (snapshot, object) = (self.snapshot.clone(), group.object);
            let task = tokio::spawn(async move { snapshot.object(&object).await });
            self.ahead.push_back((group, AbortOnDrop(task)));
        }
    }

    async fn next_object(&mut self) -> Result<Option<(Bytes, std::ops::Range<usize>)>, SnapshotError> {
        self.fetch_ahead();
        let Some((group, mut task)) = self.ahead.pop_front() else { return Ok(None) };
        let plain = (&mut task.0).await.map_err(|e| SnapshotError::Worker(e.to_string()))??;
        self.fetch_ahead();
        Ok(Some((plain.into(), group.extents)))
    }

    fn failed(&self, reason: String) -> SnapshotError {
        SnapshotError::Stream { number: self.number, snapshot: self.snapshot.doc.id.to_string(), reason }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        loop {
            if let Some((plain, extents)) = &mut self.current
                && let Some(i) = extents.next()
            {
                let extent = self.snapshot.manifest.streams[self.index].extents[i];
                let (from, to) = (extent.offset as usize, extent.offset as usize + extent.bytes as usize);
                if to > plain.len() {
                    let reason = format!("object `{}` is shorter than the manifest says", extent.object);
                    return Err(self.failed(reason));
                }
                let bytes = plain.slice(from..to);
                self.hash.update(&bytes);
                self.bytes += bytes.len() as u64;
                return Ok(Some(bytes));
            }
            self.current = self.next_object().await?;
            if self.current.is_none() {
                return self.end().map(|()| None);
            }
        }
    }

    fn end(&self) -> Result<(), SnapshotError> {
        let stream = &self.snapshot.manifest.streams[self.index];
        let found = Hash256(self.hash.clone().finalize().into());
        if self.bytes != stream.bytes || found != stream.sha256 {
            return Err(self.failed(format!("its SHA-256 is {found}, not {}", stream.sha256)));
        }
        Ok(())
    }
}

#[async_trait]
impl StreamReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.read().await.map_err(|e| StreamError(Box::new(e)))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reader({} of {:?})", self.number, Arc::as_ptr(&self.snapshot.doc))
    }
}

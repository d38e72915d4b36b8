//! A sink in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use backup_core::id::Hash256;
use backup_core::manifest::{StreamKind, TableEntry};
use backup_core::source::{Captured, FinishedStream, Sink, SinkError, StreamWriter};
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

/// Keeps streams whole. With [`MemorySink::paused_at`] the first stream of a kind stops at its first write.
#[derive(Default)]
pub(crate) struct MemorySink {
    gate: Option<Arc<Gate>>,
    /// The largest single write.
    pub(crate) largest_write: Arc<AtomicUsize>,
    /// `pg_dump` has ended.
    pub(crate) archived: Arc<AtomicBool>,
}

/// Where a sink stops once.
pub(crate) struct Gate {
    kind: StreamKind,
    /// Told when the stream has stopped.
    pub(crate) reached: Notify,
    open: Semaphore,
}

impl Gate {
    /// Lets the stream go on.
    pub(crate) fn open(&self) {
        self.open.close();
    }
}

impl MemorySink {
    /// A sink that stops at the first write to a stream of `kind` until its gate is opened.
    pub(crate) fn paused_at(kind: StreamKind) -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate { kind, reached: Notify::new(), open: Semaphore::new(0) });
        (Self { gate: Some(gate.clone()), ..Self::default() }, gate)
    }
}

struct Writer {
    kind: StreamKind,
    bytes: Vec<u8>,
    gate: Option<Arc<Gate>>,
    largest_write: Arc<AtomicUsize>,
    archived: Arc<AtomicBool>,
}

#[async_trait]
impl Sink for MemorySink {
    async fn open(&self, kind: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError> {
        let gate = self.gate.clone().filter(|gate| gate.kind == kind);
        let (largest_write, archived) = (self.largest_write.clone(), self.archived.clone());
        Ok(Box::new(Writer { kind, bytes: Vec::new(), gate, largest_write, archived }))
    }
}

#[async_trait]
impl StreamWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        assert!(!bytes.is_empty(), "an empty write");
        if let Some(gate) = self.gate.take() {
            gate.reached.notify_one();
            // Closed is open: from then on nobody waits.
            let _ = gate.open.acquire().await;
        }
        self.largest_write.fetch_max(bytes.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FinishedStream, SinkError> {
        self.archived.fetch_or(self.kind == StreamKind::PgArchive, Ordering::SeqCst);
        Ok(FinishedStream {
            kind: self.kind,
            bytes: self.bytes.len() as u64,
            sha256: Hash256::of(&self.bytes),
            token: Box::new(self.bytes),
        })
    }
}

/// The bytes of stream number `number`.
pub(crate) fn stream(captured: &Captured, number: u32) -> &[u8] {
    captured.streams[number as usize - 1].stream.token.downcast_ref::<Vec<u8>>().unwrap()
}

/// Number of the only stream of a kind.
pub(crate) fn only(captured: &Captured, kind: StreamKind) -> u32 {
    let mut found = captured.streams.iter().zip(1..).filter(|(s, _)| s.stream.kind == kind).map(|(_, n)| n);
    let number = found.next().unwrap();
    assert!(found.next().is_none(), "more than one {kind:?}");
    number
}

/// The entry of a table.
pub(crate) fn table<'a>(captured: &'a Captured, schema: &str, name: &str) -> &'a TableEntry {
    captured.tables.iter().find(|t| t.schema == schema && t.name == name).unwrap()
}

/// Statement and COPY file of each part of a table, by the manifest's references and by reading the tar as a tar.
pub(crate) fn parts(captured: &Captured, table: &TableEntry) -> Vec<(String, Vec<u8>)> {
    let part = |part: &backup_core::manifest::Part| {
        let at = &captured.streams[part.stream as usize - 1];
        let bytes = stream(captured, part.stream);
        let Some(number) = part.member else {
            assert_eq!(at.stream.kind, StreamKind::PgTable);
            return (at.copy.clone().unwrap(), bytes.to_vec());
        };
        let member = at.members.iter().find(|member| member.number == number).unwrap();
        let mut archive = tar::Archive::new(bytes);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|e| e.path().unwrap().to_str() == Some(&format!("{number:08}.copy"))).unwrap();
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap()), (0o600, 0, 0));
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        assert_eq!(content.len() as u64, member.bytes);
        (member.copy.clone(), content)
    };
    table.parts.iter().map(part).collect()
}

/// The manifest must say what the streams hold: rows and bytes are counted again from the bytes.
pub(crate) fn assert_counts(captured: &Captured) {
    for table in &captured.tables {
        let files = parts(captured, table);
        if table.parts.is_empty() {
            continue;
        }
        let rows: usize = files.iter().map(|(_, bytes)| rows_of(&table.format, bytes).len()).sum();
        assert_eq!(rows as u64, table.rows, "rows of {}.{}", table.schema, table.name);
        assert_eq!(files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), table.bytes);
        assert_eq!(table.parts.iter().map(|part| part.rows).sum::<u64>(), table.rows);
        assert!(files.iter().all(|(copy, _)| !copy.contains('\n')), "a statement of more than one line");
    }
}

/// The rows of a COPY file, cut by the documentation of its format and not by the engine's own reader.
pub(crate) fn rows_of<'a>(format: &str, file: &'a [u8]) -> Vec<&'a [u8]> {
    if format == "text" {
        return file.split_inclusive(|b| *b == b'\n').map(|row| row.strip_suffix(b"\n").unwrap()).collect();
    }
    assert_eq!(format, "binary");
    let mut rest = file.strip_prefix(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0").unwrap();
    let mut rows = Vec::new();
    loop {
        let fields = i16::from_be_bytes(*rest.first_chunk().unwrap());
        if fields == -1 {
            assert_eq!(rest.len(), 2, "bytes behind the end");
            return rows;
        }
        let mut at = 2;
        for _ in 0..fields {
            let length = i32::from_be_bytes(*rest[at..].first_chunk().unwrap());
            at += 4 + usize::try_from(length.max(0)).unwrap();
        }
        let (row, behind) = rest.split_at(at);
        rows.push(row);
        rest = behind;
    }
}

//! A source is one thing to capture; what it gives is a set of streams.
//!
//! A source opens streams on a [`Sink`], writes plaintext into them, as many at a time as it likes, and finally
//! returns a [`Captured`] that lists them in manifest order. It knows nothing of chunks, keys, vaults or names.
//! For a restore it reads streams by number from a [`Streams`].

pub mod files;
pub mod postgres;

use std::any::Any;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::clock::Clock;
use crate::id::Hash256;
use crate::manifest::{Member, PathEntry, Property, StreamKind, TableEntry};
use crate::monitor::Monitor;
use files::{FilesError, FilesOptions};
use postgres::import::error::ImportError;
use postgres::{PostgresError, PostgresOptions};

/// Something that can be captured.
#[async_trait]
pub trait Source: Send + Sync {
    /// The word for its type: `postgres`, `files`, …
    fn kind(&self) -> &'static str;

    /// Whether this is no capture but a file that an operator brings: it gets a generation of its own, is no link of the
    /// chain, and is never the newest snapshot where there is a capture.
    fn is_import(&self) -> bool {
        false
    }

    /// Whether the configuration says that this table is dropped on schedule: that it is gone is no anomaly then.
    fn expects_drop(&self, _schema: &str, _name: &str) -> bool {
        false
    }

    /// Captures it into `sink`. Either everything that the configuration asks for is in what is returned, or this fails.
    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError>;
}

/// Why a source could not be captured: the error of its module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A database.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A dump that is imported.
    #[error(transparent)]
    Import(#[from] ImportError),
}

#[async_trait]
impl Source for PostgresOptions {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn expects_drop(&self, schema: &str, name: &str) -> bool {
        self.expect_drops.iter().any(|pattern| pattern.matches(schema, name))
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError> {
        Ok(postgres::capture(self, sink, clock, monitor).await?)
    }
}

#[async_trait]
impl Source for FilesOptions {
    fn kind(&self) -> &'static str {
        "files"
    }

    async fn capture(&self, sink: &dyn Sink, clock: &Clock, monitor: &dyn Monitor) -> Result<Captured, SourceError> {
        Ok(files::capture(self, sink, clock, monitor).await?)
    }
}

/// The pipeline behind a sink failed (a store refused, the budget is closed, sealing did not prove). The capture must stop.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SinkError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// Where a source puts its streams.
///
/// Contract: `open` may be called from several tasks at once; streams may interleave; each stream's bytes keep their
/// order. Nothing written is durable before the pipeline's barrier, which comes after the source has returned.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Opens a new stream.
    async fn open(&self, kind: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError>;
}

/// One open stream. Dropping it without [`StreamWriter::finish`] abandons it: it will be in no manifest.
#[async_trait]
pub trait StreamWriter: Send {
    /// Appends bytes; waits while the byte budget is spent.
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError>;

    /// Ends the stream. Its last chunks may still be on their way.
    async fn finish(self: Box<Self>) -> Result<FinishedStream, SinkError>;
}

/// A stream that was written to its end.
pub struct FinishedStream {
    /// What kind of bytes.
    pub kind: StreamKind,
    /// Plaintext length.
    pub bytes: u64,
    /// SHA-256 of the plaintext.
    pub sha256: Hash256,
    /// What the sink needs to find the stream's extents again; opaque to sources.
    pub token: Box<dyn Any + Send>,
}

impl std::fmt::Debug for FinishedStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FinishedStream").field("kind", &self.kind).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A stream at its place in the manifest, with the lines that belong to it.
#[derive(Debug)]
pub struct CapturedStream {
    /// The stream.
    pub stream: FinishedStream,
    /// The literal, single-line `COPY … FROM STDIN` statement that loads it; `pg-table` only.
    pub copy: Option<String>,
    /// The members of the tar with their statements, in order; `pg-tables` only.
    pub members: Vec<Member>,
    /// The paths in this segment, in order; `tar` only.
    pub paths: Vec<PathEntry>,
}

/// What a capture gave.
#[derive(Debug)]
pub struct Captured {
    /// The instant that the data shows: of a database, its snapshot's; not the job's.
    pub instant: DateTime<Utc>,
    /// Streams in manifest order: stream number *n* is element *n - 1*.
    pub streams: Vec<CapturedStream>,
    /// Tables with their rows and fingerprints; databases only. Refer to streams by number.
    pub tables: Vec<TableEntry>,
    /// What a restore compares and needs besides the streams, in a fixed order.
    pub properties: Vec<Property>,
    /// Why this snapshot should be looked at before it is relied on (relations not captured, settings that hide
    /// damage); empty is good. Each a short text for people.
    pub suspect: Vec<String>,
}

/// A stream could not be read from its vault, or is not what the manifest promised.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StreamError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// The streams of one snapshot, for reading.
#[async_trait]
pub trait Streams: Send + Sync {
    /// Opens a stream by its number in the manifest. May be called from several tasks at once.
    async fn open(&self, number: u32) -> Result<Box<dyn StreamReader>, StreamError>;
}

/// One stream, read from its start to its end.
#[async_trait]
pub trait StreamReader: Send {
    /// The next bytes, or `None` at the end. Bytes are given only after their object's name and age tag were
    /// checked; the stream's own length and SHA-256 are compared when the end is reached, and a difference is an
    /// error *in place of* the final `None`: a caller that has not seen `None` has not got the stream.
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError>;
}

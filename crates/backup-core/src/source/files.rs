//! Directories and files as tar segments: `cat` of all segments, in order, is one valid tar.
//!
//! - Equal trees give equal bytes: order is that of the names, times of the run appear nowhere, owners are numbers.
//! - A file over 1 MiB is a segment of its own; smaller entries share segments, cut by name and size and not by what
//!   came before, so that a change stays in its segment. The blocks that end the archive are never in a large file's.
//! - Every file's content is *one state of that file*: either nothing changed while it was read (size, mtime, ctime),
//!   or a second reading of the same bytes found them unchanged, which proves them for the instant between the two
//!   readings. The latter admits files that only grow (logs). Anything else is tried again and then an error.
//! - What is left out is named: sockets, devices, paths that were gone, excluded subtrees by pattern.
//!
//! What this never does: follow a symlink, change anything that it captures, or hold more than a few pieces of
//! 256 KiB (and one small file) in memory besides the list of paths.
//!
//! Stored paths are the absolute ones without the leading `/`, so that two configured paths cannot collide. Several
//! facts that neither tar nor index can carry are properties: `files.roots` (configured paths, in order),
//! `files.secret`, `files.parents` (owners and modes of the directories above the roots, to make them on a bare
//! machine), `files.hardlinks` (which path each hard link names) and `files.skipped`.

mod attributes;
mod capture;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod hostile;
mod name;
mod pattern;
mod place;
mod plan;
mod restore;
mod stage;
mod tar;
mod unpack;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::restore::{
    Existing, FileProof, Placed, PlannedTarget, RestoreError, RestoreOptions, RestorePlan, RestoreProof, Restored,
    Target, Verify, execute, plan,
};
pub use self::tar::TarError;

use crate::clock::Clock;
use crate::manifest::{Property, StreamKind};
use crate::monitor::Monitor;
use crate::source::{Captured, CapturedStream, Sink, SinkError, StreamWriter};
use capture::{Piece, Walk};

/// What to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesOptions {
    /// Absolute paths of files or directories; none inside another.
    pub paths: Vec<PathBuf>,
    /// Patterns of paths to leave out: absolute with `*`, `?`, `**`, or the last component of a path without `/`.
    pub exclude: Vec<String>,
    /// At or below these absolute paths a configured path that does not exist is passed over, and an unreadable one
    /// makes the snapshot suspect; elsewhere both are errors.
    pub optional: Vec<PathBuf>,
    /// The files hold secrets: a restore gives them to nobody but their owner, whatever their modes were.
    pub secret: bool,
    /// How often a file that changed while it was read is read again.
    pub retries: u32,
    /// How long to wait before the first such retry; the *n*-th waits *n* times as long.
    pub retry_pause: Duration,
}

impl FilesOptions {
    /// Options with their defaults: nothing left out, nothing optional, not secret, 5 retries from 100 ms.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let retry_pause = Duration::from_millis(100);
        Self { paths, exclude: Vec::new(), optional: Vec::new(), secret: false, retries: 5, retry_pause }
    }
}

/// A capture of files failed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// No path is configured.
    #[error("no path is configured")]
    NoPath,
    /// A configured path cannot be used.
    #[error("the path `{}` cannot be captured: {why}", path.display())]
    Path {
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A configured path lies inside another.
    #[error("the path `{}` lies inside `{}`, which is captured whole", inner.display(), outer.display())]
    Overlap {
        /// The path that is superfluous.
        inner: PathBuf,
        /// The path that holds it.
        outer: PathBuf,
    },
    /// A pattern cannot be used.
    #[error("the pattern `{pattern}` cannot be used: {why}")]
    Pattern {
        /// As configured.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A configured path is not there.
    #[error("the path `{}` does not exist", path.display())]
    Missing {
        /// As configured.
        path: PathBuf,
    },
    /// Something could not be read.
    #[error("cannot {what} `{path}`")]
    Read {
        /// What was attempted, a verb.
        what: &'static str,
        /// The path, bytes that are not UTF-8 percent-encoded.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file did not hold still.
    #[error("the file `{path}` changed while it was read, in each of {attempts} attempts")]
    Changed {
        /// The path, bytes that are not UTF-8 percent-encoded.
        path: String,
        /// How often it was read.
        attempts: u32,
    },
    /// An entry does not fit into a tar.
    #[error("cannot store `{path}`")]
    Entry {
        /// The path, bytes that are not UTF-8 percent-encoded.
        path: String,
        /// Why.
        source: TarError,
    },
    /// The pipeline behind the capture failed.
    #[error("cannot hand on the captured bytes")]
    Sink(#[source] SinkError),
    /// The capture was ended from outside, or a defect ended it.
    #[error("the capture was interrupted")]
    Interrupted,
}

/// A directory above a configured path, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parent {
    /// Relative, encoded as in the index.
    path: String,
    /// Octal text.
    mode: String,
    uid: u32,
    gid: u32,
}

const ROOTS: &str = "files.roots";
const SECRET: &str = "files.secret";
const PARENTS: &str = "files.parents";
const HARDLINKS: &str = "files.hardlinks";
const SKIPPED: &str = "files.skipped";

/// Pieces on their way from the reading thread to the sink: with 256 KiB each, 1 MiB.
const PIECES: usize = 4;

/// Captures the configured paths into `sink`. The instant is that of the walk's start.
pub async fn capture(
    options: &FilesOptions,
    sink: &dyn Sink,
    clock: &Clock,
    monitor: &dyn Monitor,
) -> Result<Captured, FilesError> {
    let (pieces, mut arriving) = mpsc::channel(PIECES);
    let walk = Walk::new(options, pieces)?;
    let instant = clock.now();
    let reading = tokio::task::spawn_blocking(move || walk.run());
    let pumped = pump(&mut arriving, sink, monitor).await;
    // A closed channel ends the walk at its next piece.
    drop(arriving);
    let walked = reading.await.map_err(|_| FilesError::Interrupted)?;
    // The sink's error first: the walk then only knows that nobody listens.
    let streams = pumped.map_err(FilesError::Sink)?;
    let walked = walked?;
    let property = |name: &str, value| Property { name: name.to_owned(), value };
    let properties = vec![
        property(ROOTS, serde_json::json!(walked.roots)),
        property(SECRET, serde_json::json!(options.secret)),
        property(PARENTS, serde_json::json!(walked.parents)),
        property(HARDLINKS, serde_json::json!(walked.hardlinks)),
        property(SKIPPED, serde_json::json!(walked.skipped)),
    ];
    Ok(Captured { instant, streams, tables: Vec::new(), properties, suspect: walked.suspect })
}

async fn pump(
    arriving: &mut mpsc::Receiver<Piece>,
    sink: &dyn Sink,
    monitor: &dyn Monitor,
) -> Result<Vec<CapturedStream>, SinkError> {
    let mut streams = Vec::new();
    let mut open: Option<Box<dyn StreamWriter>> = None;
    while let Some(piece) = arriving.recv().await {
        match piece {
            Piece::Bytes(bytes) => {
                let writer = match &mut open {
                    Some(writer) => writer,
                    None => open.insert(sink.open(StreamKind::Tar).await?),
                };
                writer.write(bytes).await?;
            }
            Piece::Abandon => open = None,
            Piece::Close(paths) => {
                if let Some(writer) = open.take() {
                    let stream = writer.finish().await?;
                    streams.push(CapturedStream { stream, copy: None, members: Vec::new(), paths });
                }
            }
            Piece::Event(event) => monitor.event(event),
        }
    }
    Ok(streams)
}

//! Files back to disk: plan (checked, shown), then execute (staged, compared, renamed last).
//!
//! Why it is safe to run as root on whatever a vault holds:
//! - The index is checked whole before anything is created: each path stays below its root, appears once, lies in a
//!   directory of the index, and each hard link names an earlier file of the index (`plan.rs`).
//! - The tar must then say exactly what the index says, entry by entry; nothing that it alone says is acted upon,
//!   besides a symlink's content and attributes, which are covered by the stream's SHA-256 (`unpack.rs`).
//! - Everything is built in a new directory of ours beside the target, through descriptors that follow no symlink
//!   (`stage.rs`). Targets are touched once all content was compared with the index and is durable: by renames.
//!
//! What it never does: overwrite. A target that exists and is not empty is refused, or with `replace` kept under a
//! dated name. A restore that fails leaves targets as they were and removes its stage, except when a rename between
//! several targets fails: then the error says what is in place and where the rest lies complete.

use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::TarError;
use super::unpack::{Arrived, Unpack};
use crate::clock::Clock;
use crate::id::Hash256;
use crate::monitor::{Event, Monitor};
use crate::source::{StreamError, Streams};

pub use super::plan::{Existing, PlannedTarget, RestorePlan, plan};

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Back to where they were captured.
    Original,
    /// Below this directory, each at its full path without the leading `/`.
    IntoDir(PathBuf),
}

/// How much a restore proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Content is hashed while it is written.
    #[default]
    Written,
    /// And once more, read back from disk after it was synced.
    Content,
}

/// What to restore, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Where to.
    pub target: Target,
    /// Paths to restore with all they hold, absolute as captured; empty: everything.
    pub only: Vec<PathBuf>,
    /// Targets that exist are moved aside under a dated name; else they are refused.
    pub replace: bool,
    /// How much is proved.
    pub verify: Verify,
}

/// A restore failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The index says something that no capture writes.
    #[error("the index of the snapshot is refused: `{path}`: {why}")]
    Index {
        /// As in the index.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A property that the restore needs is absent or malformed.
    #[error("the snapshot's property `{name}` is missing or malformed")]
    Property {
        /// Its name.
        name: &'static str,
    },
    /// A selected path is not in the snapshot.
    #[error("the path `{}` is not in the snapshot", path.display())]
    NotInSnapshot {
        /// As selected.
        path: PathBuf,
    },
    /// A path given by the operator cannot be used.
    #[error("the path `{}` cannot be used: {why}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The snapshot holds no path.
    #[error("the snapshot holds no path")]
    Nothing,
    /// A target is there already.
    #[error("`{}` exists and is not empty", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// A target is a mount point with something in it, which cannot be moved aside.
    #[error("`{}` is a mount point and is not empty, so that it cannot be replaced", path.display())]
    Mounted {
        /// The target.
        path: PathBuf,
    },
    /// A stream is no tar as captured.
    #[error("cannot use stream {stream}")]
    Tar {
        /// Its number.
        stream: u32,
        /// Why.
        source: TarError,
    },
    /// The tar and the index disagree.
    #[error("stream {stream} and the index disagree about `{path}`: {what}")]
    Differs {
        /// Number of the stream.
        stream: u32,
        /// The path, as in the index.
        path: String,
        /// What differs.
        what: &'static str,
    },
    /// Content is not what was captured.
    #[error("the content of `{path}` has the SHA-256 {found}, captured was {expected}")]
    Content {
        /// The path, as in the index.
        path: String,
        /// By the index.
        expected: Hash256,
        /// Of what was written or read back.
        found: Hash256,
    },
    /// The file system refused something.
    #[error("cannot {what} `{path}`")]
    Io {
        /// What was attempted, a verb.
        what: &'static str,
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A stream could not be read.
    #[error("cannot read stream {stream}")]
    Stream {
        /// Its number.
        stream: u32,
        /// Why.
        source: StreamError,
    },
    /// Some targets are in place and others are not.
    #[error(
        "cannot put `{}` in place; in place: {}; complete, not in place: {}",
        target.display(), list(in_place), waiting_list(waiting)
    )]
    Partly {
        /// The target whose rename failed.
        target: PathBuf,
        /// Targets that are in place and whole.
        in_place: Vec<PathBuf>,
        /// Complete stages, each with the target it was to become: `mv` finishes by hand.
        waiting: Vec<(PathBuf, PathBuf)>,
        /// Where a target's old content was moved without the new one taking its place.
        source: io::Error,
    },
    /// The restore was ended from outside, or a defect ended it. Nothing is in place.
    #[error("the restore was interrupted")]
    Interrupted,
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn waiting_list(pairs: &[(PathBuf, PathBuf)]) -> String {
    let names = pairs.iter().map(|(from, to)| format!("`{}` for `{}`", from.display(), to.display()));
    names.collect::<Vec<_>>().join(", ")
}

/// One file's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProof {
    /// The path, as in the index.
    pub path: String,
    /// Content length.
    pub bytes: u64,
    /// SHA-256 by the index.
    pub sha256_expected: Hash256,
    /// SHA-256 of what was written, or of what was read back under [`Verify::Content`].
    pub sha256_found: Hash256,
    /// Whether they are equal. (A difference also fails the restore.)
    pub ok: bool,
}

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreProof {
    /// Every restored file with content of its own, in the order of the index.
    pub files: Vec<FileProof>,
    /// Restored directories, symlinks, fifos and further names of files.
    pub others: u64,
}

/// A target that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The target.
    pub target: PathBuf,
    /// Where what was there before is now.
    pub old: Option<PathBuf>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restored {
    /// Targets, in order.
    pub placed: Vec<Placed>,
    /// What was compared.
    pub proof: RestoreProof,
    /// What differs from the original without being content: owners as non-root, attributes that the file system
    /// refuses. Short texts for people; empty is good.
    pub notes: Vec<String>,
}

/// Streams' bytes on their way to the writing thread; objects have up to 4 MiB.
const PIECES: usize = 2;

/// Executes a plan. `clock` dates what is moved aside.
pub async fn execute(
    plan: RestorePlan,
    streams: &dyn Streams,
    clock: &Clock,
    monitor: &dyn Monitor,
) -> Result<Restored, RestoreError> {
    let numbers = plan.needed.clone();
    let (bytes, arrived) = mpsc::channel(PIECES);
    let now = clock.now();
    let guard = crate::critical::Guard::enter();
    let writing = tokio::task::spawn_blocking(move || {
        let written = Unpack::new(plan, arrived, now).run();
        // Renames, and the removal of a stage that was given up, are behind us.
        drop(guard);
        written
    });
    let fed = feed(&numbers, streams, bytes, monitor).await;
    let written = writing.await.map_err(|_| RestoreError::Interrupted)?;
    // A stream that failed is the cause of whatever the writing thread then met.
    fed?;
    let restored = written?;
    for note in &restored.notes {
        monitor.event(Event::Warning { text: note.clone() });
    }
    Ok(restored)
}

/// Sends the streams, one after the other; ends quietly when nobody listens any more (that side has the error).
async fn feed(
    numbers: &[u32],
    streams: &dyn Streams,
    bytes: mpsc::Sender<Arrived>,
    monitor: &dyn Monitor,
) -> Result<(), RestoreError> {
    for number in numbers {
        let failed = |source| RestoreError::Stream { stream: *number, source };
        let mut stream = streams.open(*number).await.map_err(failed)?;
        while let Some(piece) = stream.next().await.map_err(failed)? {
            monitor.event(Event::Plain { bytes: piece.len() as u64 });
            if bytes.send(Arrived::Bytes(piece)).await.is_err() {
                return Ok(());
            }
        }
        // Only now is the stream known to be whole.
        if bytes.send(Arrived::End).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

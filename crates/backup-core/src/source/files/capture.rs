//! The walk: reads a tree depth first on a thread of its own and sends pieces of tar to whoever owns the sink.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::attributes::{self, Stamp};
use super::name;
use super::pattern::Pattern;
use super::tar::{self, Entry};
use super::{FilesError, FilesOptions, Parent};
use crate::id::Hash256;
use crate::manifest::{PathEntry, PathKind};
use crate::monitor::Event;

/// Files above this have a segment of their own.
const LARGE_BYTES: u64 = 1 << 20;
/// Shared segments have this size on average …
const SHARED_BYTES: u64 = 4 << 20;
/// … and end after the entry that passes this one.
const SHARED_MOST_BYTES: u64 = 16 << 20;
/// Unit of reading.
const PIECE_BYTES: usize = 256 << 10;

/// What the walk sends.
pub(super) enum Piece {
    /// More bytes of the current segment; the first ones open it.
    Bytes(Bytes),
    /// The current segment is to be forgotten: its file changed.
    Abandon,
    /// The current segment is complete and holds these paths.
    Close(Vec<PathEntry>),
    /// For the monitor.
    Event(Event),
}

/// What the walk found besides bytes.
#[derive(Default)]
pub(super) struct Walked {
    /// Configured paths, absolute, encoded, in the order of the configuration.
    pub(super) roots: Vec<String>,
    pub(super) parents: Vec<Parent>,
    /// A hard link and the path it names, both as in the index.
    pub(super) hardlinks: Vec<(String, String)>,
    pub(super) skipped: Vec<String>,
    pub(super) suspect: Vec<String>,
}

/// A walk that has not begun.
pub(super) struct Walk {
    /// Relative paths in walking order.
    roots: Vec<Vec<u8>>,
    patterns: Vec<(Pattern, bool)>,
    optional: bool,
    retries: u32,
    retry_pause: Duration,
    pieces: mpsc::Sender<Piece>,
    /// Bytes of the shared segment that were not sent.
    pending: BytesMut,
    /// Length of the shared segment, and its paths.
    filled: u64,
    paths: Vec<PathEntry>,
    /// First path of each file that has several names.
    inodes: HashMap<(u64, u64), Vec<u8>>,
    captured: u64,
    walked: Walked,
}

/// How reading a file went.
enum Outcome {
    Done,
    Gone,
    Unreadable(io::Error),
    Changed,
}

impl Walk {
    /// Checks the options; touches no file system.
    pub(super) fn new(options: &FilesOptions, pieces: mpsc::Sender<Piece>) -> Result<Self, FilesError> {
        if options.paths.is_empty() {
            return Err(FilesError::NoPath);
        }
        let mut roots: Vec<(Vec<u8>, &PathBuf)> = Vec::new();
        let mut walked = Walked::default();
        for path in &options.paths {
            let relative = relative(path).map_err(|why| FilesError::Path { path: path.clone(), why })?;
            walked.roots.push(format!("/{}", name::encode(&relative)));
            roots.push((relative, path));
        }
        roots.sort_by(|a, b| name::order(&a.0, &b.0));
        for pair in roots.windows(2) {
            if name::within(&pair[1].0, &pair[0].0) {
                return Err(FilesError::Overlap { inner: pair[1].1.clone(), outer: pair[0].1.clone() });
            }
        }
        let patterns = options.exclude.iter().map(|text| Pattern::parse(text).map(|p| (p, false)));
        Ok(Self {
            roots: roots.into_iter().map(|(relative, _)| relative).collect(),
            patterns: patterns.collect::<Result<_, _>>()?,
            optional: options.optional,
            retries: options.retries,
            retry_pause: options.retry_pause,
            pieces,
            pending: BytesMut::new(),
            filled: 0,
            paths: Vec::new(),
            inodes: HashMap::new(),
            captured: 0,
            walked,
        })
    }

    /// Walks. Blocks; to be called on a thread that may.
    pub(super) fn run(mut self) -> Result<Walked, FilesError> {
        for root in std::mem::take(&mut self.roots) {
            self.root(root)?;
        }
        self.shared(&tar::END)?;
        self.close()?;
        if self.captured == 0 {
            self.walked.suspect.push("nothing was captured: no configured path could be".to_owned());
        }
        for (pattern, used) in std::mem::take(&mut self.patterns) {
            if !used {
                self.note(format!("the pattern `{}` left nothing out", pattern.text()))?;
            }
        }
        Ok(self.walked)
    }

    fn root(&mut self, root: Vec<u8>) -> Result<(), FilesError> {
        let meta = match fs::symlink_metadata(absolute(&root)) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.optional => {
                return self.skip(&root, "it does not exist");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FilesError::Missing { path: absolute(&root) });
            }
            Err(error) => return self.unreadable("look at", &root, error),
        };
        if meta.is_symlink() {
            let text = format!(
                "the configured path `/{}` is a symlink: it was captured, not what it leads to",
                name::encode(&root)
            );
            self.walked.suspect.push(text);
        }
        self.parents_of(&root)?;
        // Directories that are open, each with the names that are still to be visited, last first.
        let mut open: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
        let mut next = Some(root);
        loop {
            let path = if let Some(path) = next.take() {
                path
            } else if let Some((dir, names)) = open.last_mut() {
                let Some(name) = names.pop() else {
                    open.pop();
                    continue;
                };
                [dir.as_slice(), &name].join(&b'/')
            } else {
                return Ok(());
            };
            if let Some(names) = self.visit(&path)? {
                open.push((path, names));
            }
        }
    }

    /// Notes owner and mode of each directory above a root, once.
    fn parents_of(&mut self, root: &[u8]) -> Result<(), FilesError> {
        let mut above = Vec::new();
        let mut path = name::parent(root);
        while !path.is_empty() {
            above.push(path);
            path = name::parent(path);
        }
        for path in above.into_iter().rev() {
            let text = name::encode(path);
            if self.walked.parents.iter().any(|known| known.path == text) {
                continue;
            }
            // Followed: the configured path leads through it, and a restore needs a directory there.
            let meta = fs::metadata(absolute(path)).map_err(|e| failed("look at", path, e))?;
            let mode = format!("{:04o}", meta.mode() & 0o7777);
            self.walked.parents.push(Parent { path: text, mode, uid: meta.uid(), gid: meta.gid() });
        }
        Ok(())
    }

    /// Captures one path. Of a directory: gives the names in it, last first.
    fn visit(&mut self, path: &[u8]) -> Result<Option<Vec<Vec<u8>>>, FilesError> {
        let full = absolute(path);
        if self.excluded(full.as_os_str().as_bytes()) {
            return Ok(None);
        }
        let meta = match fs::symlink_metadata(&full) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.gone(path).map(|()| None),
            Err(error) => return self.unreadable("look at", path, error).map(|()| None),
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            return self.directory(path, &full);
        }
        if kind.is_symlink() {
            let target = match fs::read_link(&full) {
                Ok(target) => target.into_os_string().into_vec(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.gone(path).map(|()| None),
                Err(error) => return self.unreadable("read the symlink", path, error).map(|()| None),
            };
            let mut entry = attributes::entry(path.to_vec(), PathKind::Symlink, &meta);
            entry.link = target;
            self.plain(entry, &full)?;
        } else if kind.is_fifo() {
            self.plain(attributes::entry(path.to_vec(), PathKind::Fifo, &meta), &full)?;
        } else if kind.is_file() {
            self.file(path, &full, &meta)?;
        } else if kind.is_socket() {
            // Made anew by whoever listens: nothing is lost without it.
            self.skip(path, "it is a socket")?;
        } else {
            self.walked.suspect.push(format!("`/{}` is a device and was not captured", name::encode(path)));
            self.skip(path, "it is a device")?;
        }
        Ok(None)
    }

    fn directory(&mut self, path: &[u8], full: &Path) -> Result<Option<Vec<Vec<u8>>>, FilesError> {
        let list = || -> io::Result<(Metadata, Vec<Vec<u8>>)> {
            let names = fs::read_dir(full)?.map(|entry| Ok(entry?.file_name().into_vec()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            // After the listing: the time is that of a directory which has these names or later ones.
            Ok((fs::symlink_metadata(full)?, names))
        };
        match list() {
            Ok((meta, names)) => {
                self.plain(attributes::entry(path.to_vec(), PathKind::Dir, &meta), full)?;
                Ok(Some(names))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.gone(path).map(|()| None),
            Err(error) => self.unreadable("list the directory", path, error).map(|()| None),
        }
    }

    /// An entry without content.
    fn plain(&mut self, mut entry: Entry, full: &Path) -> Result<(), FilesError> {
        match attributes::of_path(full) {
            Ok(xattrs) => entry.xattrs = xattrs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read the attributes of", &entry.path, error)),
        }
        self.small(&entry, &[], None, false)
    }

    fn file(&mut self, path: &[u8], full: &Path, meta: &Metadata) -> Result<(), FilesError> {
        let inode = (meta.dev(), meta.ino());
        if meta.nlink() > 1
            && let Some(first) = self.inodes.get(&inode)
        {
            let mut entry = attributes::entry(path.to_vec(), PathKind::Hardlink, meta);
            entry.link.clone_from(first);
            self.walked.hardlinks.push((name::encode(path), name::encode(first)));
            return self.small(&entry, &[], None, false);
        }
        let attempts = self.retries.saturating_add(1);
        for attempt in 1..=attempts {
            match self.attempt(path, full)? {
                Outcome::Done => {
                    if meta.nlink() > 1 {
                        self.inodes.insert(inode, path.to_vec());
                    }
                    return Ok(());
                }
                Outcome::Gone => return self.gone(path),
                Outcome::Unreadable(error) => return self.unreadable("read", path, error),
                Outcome::Changed => {
                    let (what, why) =
                        (format!("read `/{}`", name::encode(path)), "it changed while it was read".to_owned());
                    self.send(Piece::Event(Event::Retry { what, why, attempt }))?;
                    if attempt < attempts {
                        std::thread::sleep(self.retry_pause.saturating_mul(attempt));
                    }
                }
            }
        }
        Err(FilesError::Changed { path: format!("/{}", name::encode(path)), attempts })
    }

    /// Reads a file once (twice, if it grew meanwhile) and sends it, unless it changed.
    fn attempt(&mut self, path: &[u8], full: &Path) -> Result<Outcome, FilesError> {
        // Not blocking: the file may have become a fifo since it was looked at.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = match rustix::fs::open(full, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(Outcome::Gone),
            Err(rustix::io::Errno::LOOP) => return Ok(Outcome::Changed),
            Err(error) => return Ok(Outcome::Unreadable(error.into())),
        };
        let look = |file: &File| file.metadata().map_err(|e| failed("look at", path, e));
        let meta = look(&file)?;
        if !meta.is_file() {
            return Ok(Outcome::Changed);
        }
        let mut entry = attributes::entry(path.to_vec(), PathKind::File, &meta);
        entry.xattrs = attributes::of_file(&file).map_err(|e| failed("read the attributes of", path, e))?;
        let sparse = attributes::has_hole(&file, entry.bytes);
        file.rewind().map_err(|e| failed("read", path, e))?;
        let large = entry.bytes > LARGE_BYTES;
        let mut content = Vec::new();
        if large {
            self.close()?;
            self.send(Piece::Bytes(encode(&entry)?.into()))?;
        } else {
            content.reserve_exact(usize::try_from(entry.bytes).unwrap_or(0));
        }
        let first = digest(&mut file, entry.bytes, path, |piece| {
            if large {
                self.send(Piece::Bytes(Bytes::copy_from_slice(piece)))
            } else {
                content.extend_from_slice(piece);
                Ok(())
            }
        })?;
        let after = look(&file)?;
        let unchanged = first.is_some() && Stamp::of(&after) == Stamp::of(&meta);
        let proved = unchanged || {
            file.rewind().map_err(|e| failed("read", path, e))?;
            first.is_some() && digest(&mut file, entry.bytes, path, |_| Ok(()))? == first
        };
        let Some(sha256) = first.filter(|_| proved) else {
            if large {
                self.send(Piece::Abandon)?;
            }
            return Ok(Outcome::Changed);
        };
        if !unchanged {
            let text = format!(
                "`/{}` was written to while it was read: stored are its first {} bytes",
                name::encode(path),
                entry.bytes
            );
            self.note(format!("{text}, which a second reading found unchanged"))?;
        }
        if large {
            self.send(Piece::Bytes(Bytes::from(vec![0; tar::padding(entry.bytes)])))?;
            self.captured += 1;
            self.send(Piece::Close(vec![index(&entry, Some(sha256), sparse)]))?;
        } else {
            self.small(&entry, &content, Some(sha256), sparse)?;
        }
        Ok(Outcome::Done)
    }

    /// Adds an entry to the shared segment and ends the segment where name and size of the entry say so.
    fn small(
        &mut self,
        entry: &Entry,
        content: &[u8],
        sha256: Option<Hash256>,
        sparse: bool,
    ) -> Result<(), FilesError> {
        self.shared(&encode(entry)?)?;
        self.shared(content)?;
        self.shared(&[0; tar::BLOCK][..tar::padding(entry.bytes)])?;
        self.captured += 1;
        self.paths.push(index(entry, sha256, sparse));
        // A cut with a probability of size over average: it depends on nothing before, so that a file that comes or
        // goes does not move the cuts behind it; the power of two keeps it where it is when a file grows a little.
        let weight = (entry.bytes + 1024).next_power_of_two();
        let odds = (u64::MAX / SHARED_BYTES).saturating_mul(weight);
        if xxh3_64(&entry.path) < odds || self.filled >= SHARED_MOST_BYTES {
            self.close()?;
        }
        Ok(())
    }

    fn shared(&mut self, bytes: &[u8]) -> Result<(), FilesError> {
        self.filled += bytes.len() as u64;
        for piece in bytes.chunks(PIECE_BYTES) {
            self.pending.extend_from_slice(piece);
            if self.pending.len() >= PIECE_BYTES {
                let full = self.pending.split().freeze();
                self.send(Piece::Bytes(full))?;
            }
        }
        Ok(())
    }

    /// Ends the shared segment, if there is one.
    fn close(&mut self) -> Result<(), FilesError> {
        if self.filled == 0 {
            return Ok(());
        }
        if !self.pending.is_empty() {
            let rest = self.pending.split().freeze();
            self.send(Piece::Bytes(rest))?;
        }
        self.filled = 0;
        let paths = std::mem::take(&mut self.paths);
        self.send(Piece::Close(paths))
    }

    fn excluded(&mut self, path: &[u8]) -> bool {
        let hit = self.patterns.iter_mut().find(|(pattern, _)| pattern.matches(path));
        hit.map(|(_, used)| *used = true).is_some()
    }

    fn gone(&mut self, path: &[u8]) -> Result<(), FilesError> {
        self.note(format!("`/{}` was gone when it was to be read", name::encode(path)))
    }

    fn skip(&mut self, path: &[u8], why: &str) -> Result<(), FilesError> {
        let path = format!("/{}", name::encode(path));
        self.send(Piece::Event(Event::Warning { text: format!("`{path}` was not captured: {why}") }))?;
        self.walked.skipped.push(path);
        Ok(())
    }

    /// An error, or under `optional` and for want of rights only, a reason for suspicion.
    fn unreadable(&mut self, what: &'static str, path: &[u8], error: io::Error) -> Result<(), FilesError> {
        if !self.optional || error.kind() != io::ErrorKind::PermissionDenied {
            return Err(failed(what, path, error));
        }
        self.walked.suspect.push(format!("cannot {what} `/{}`: {error}", name::encode(path)));
        self.skip(path, "it is not readable")
    }

    fn note(&self, text: String) -> Result<(), FilesError> {
        self.send(Piece::Event(Event::Note { text }))
    }

    fn send(&self, piece: Piece) -> Result<(), FilesError> {
        self.pieces.blocking_send(piece).map_err(|_| FilesError::Interrupted)
    }
}

/// SHA-256 of exactly the next `bytes` bytes, which `take` also gets; `None` if there are fewer.
fn digest(
    file: &mut File,
    bytes: u64,
    path: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), FilesError>,
) -> Result<Option<Hash256>, FilesError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let want = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        match file.read(&mut buffer[..want]) {
            Ok(0) => return Ok(None),
            Ok(read) => {
                hash.update(&buffer[..read]);
                take(&buffer[..read])?;
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path, error)),
        }
    }
    Ok(Some(Hash256(hash.finalize().into())))
}

fn encode(entry: &Entry) -> Result<Vec<u8>, FilesError> {
    tar::encode(entry).map_err(|source| FilesError::Entry { path: format!("/{}", name::encode(&entry.path)), source })
}

fn index(entry: &Entry, sha256: Option<Hash256>, sparse: bool) -> PathEntry {
    let (path, mode, mtime) = (name::encode(&entry.path), format!("{:04o}", entry.mode), entry.mtime.text());
    PathEntry {
        path,
        kind: entry.kind,
        bytes: entry.bytes,
        sha256,
        mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime,
        sparse,
    }
}

fn failed(what: &'static str, path: &[u8], source: io::Error) -> FilesError {
    FilesError::Read { what, path: format!("/{}", name::encode(path)), source }
}

fn absolute(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

/// A configured path as it is stored.
pub(super) fn relative(path: &Path) -> Result<Vec<u8>, &'static str> {
    if !path.is_absolute() {
        return Err("it is not absolute");
    }
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.as_bytes()),
            Component::ParentDir => return Err("it holds `..`"),
            _ => {}
        }
    }
    let stored = parts.join(&b'/');
    if stored.is_empty() {
        return Err("the whole file system is no source: name the directories");
    }
    name::check(&stored)?;
    Ok(stored)
}

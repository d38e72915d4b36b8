//! The writing half of a restore: reads the segments on a thread of its own and builds the stages.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use chrono::{DateTime, Utc};
use rustix::fs::Advice;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::plan::{Expected, Fate, RestorePlan};
use super::restore::{FileProof, RestoreError, RestoreProof, Restored, Verify};
use super::stage::{self, Rights, Stage};
use super::tar::{Entry, Item, Mtime, Reader, TarError};
use super::{attributes, name};
use crate::id::Hash256;
use crate::manifest::PathKind;

/// Unit of writing; a multiple of [`HOLE_BYTES`].
const PIECE_BYTES: usize = 256 << 10;
/// A run of zeros of this size becomes a hole in a file that had holes.
const HOLE_BYTES: usize = 4 << 10;

/// What the reading half sends.
pub(super) enum Arrived {
    /// More bytes of the current stream.
    Bytes(Bytes),
    /// The current stream is whole: its length and SHA-256 are those of the manifest.
    End,
}

/// The current stream as a reader. A sender that vanished before the stream's end is an error, not an end.
struct Incoming {
    arrived: mpsc::Receiver<Arrived>,
    rest: Bytes,
    ended: bool,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.arrived.blocking_recv() {
                Some(Arrived::Bytes(bytes)) => self.rest = bytes,
                Some(Arrived::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let read = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..read]);
        Ok(read)
    }
}

/// One target's stage.
pub(super) struct Staged {
    pub(super) stage: Stage,
    /// The directory that holds the stage, open.
    pub(super) holder: OwnedFd,
    /// The stage's path.
    pub(super) path: PathBuf,
    /// The stage lies in the target and its children are moved; else it lies beside and becomes the target.
    pub(super) inside: bool,
    /// The entry that becomes the target itself, if it is a directory.
    pub(super) top: Option<Entry>,
    /// Mode that the target gets after its rename, when the rename needs a looser one.
    pub(super) late: Option<(OwnedFd, rustix::fs::Mode)>,
}

/// A restore at work.
pub(super) struct Unpack {
    pub(super) plan: RestorePlan,
    pub(super) now: DateTime<Utc>,
    pub(super) rights: Rights,
    pub(super) staged: Vec<Staged>,
    /// Directories made above targets, outermost first.
    pub(super) made: Vec<PathBuf>,
    arrived: Option<mpsc::Receiver<Arrived>>,
    /// Files that have further names.
    linked: HashSet<Vec<u8>>,
    /// Where the first name of each file was built, by stored path, if other names may want it.
    names: HashMap<Vec<u8>, (usize, Vec<u8>)>,
    /// Directories that were built: their owner, mode and time come last.
    dirs: Vec<(usize, Vec<u8>, Entry)>,
    /// Under `--into-dir`: stored paths of directories that are there, and those made without being restored.
    present: HashSet<Vec<u8>>,
    frames: Vec<(usize, Vec<u8>)>,
    asides: Vec<(usize, Vec<u8>)>,
    proof: RestoreProof,
    /// Stage paths of the proved files.
    proved: Vec<(usize, Vec<u8>)>,
    copies: u64,
}

fn failed(what: &'static str, path: &[u8], source: io::Error) -> RestoreError {
    RestoreError::Io { what, path: name::encode(path), source }
}

impl Unpack {
    pub(super) fn new(plan: RestorePlan, arrived: mpsc::Receiver<Arrived>, now: DateTime<Utc>) -> Self {
        let rights = Rights::of_process(plan.secret);
        let linked = plan.hardlinks.values().cloned().collect();
        Self {
            plan,
            now,
            rights,
            staged: Vec::new(),
            made: Vec::new(),
            arrived: Some(arrived),
            linked,
            names: HashMap::new(),
            dirs: Vec::new(),
            present: HashSet::new(),
            frames: Vec::new(),
            asides: Vec::new(),
            proof: RestoreProof::default(),
            proved: Vec::new(),
            copies: 0,
        }
    }

    /// Builds, proves, puts in place. Blocks; to be called on a thread that may.
    pub(super) fn run(mut self) -> Result<Restored, RestoreError> {
        match self.build() {
            Ok(()) => {}
            Err(error) => {
                self.discard();
                return Err(error);
            }
        }
        let mut notes = Vec::new();
        if self.rights.foreign > 0 {
            notes.push(format!(
                "not run as root: {} paths of other owners belong to this user now",
                self.rights.foreign
            ));
        }
        if let Some(first) = self.rights.attributes.first() {
            let count = self.rights.attributes.len();
            notes.push(format!("{count} extended attributes could not be set, the first is {first}"));
        }
        if self.copies > 0 {
            notes
                .push(format!("{} hard links became copies: their targets lie on different file systems", self.copies));
        }
        let proof = std::mem::take(&mut self.proof);
        let placed = self.place()?;
        Ok(Restored { placed, proof, notes })
    }

    fn build(&mut self) -> Result<(), RestoreError> {
        self.open_stages()?;
        let segments = std::mem::take(&mut self.plan.segments);
        let arrived = self.arrived.take().ok_or(RestoreError::Interrupted)?;
        let mut incoming = Incoming { arrived, rest: Bytes::new(), ended: false };
        for number in self.plan.needed.clone() {
            let expected = segments.get(&number).map_or(&[][..], Vec::as_slice);
            incoming.ended = false;
            self.segment(number, expected, &mut incoming)?;
        }
        for (target, path) in std::mem::take(&mut self.asides) {
            self.staged[target].stage.remove_file(&path).map_err(|e| failed("remove", &path, e))?;
        }
        self.finish_dirs()?;
        for staged in &self.staged {
            staged.stage.sync().map_err(|e| failed("sync", &super::plan::bytes(&staged.path), e))?;
        }
        if self.plan.verify == Verify::Content { self.read_back() } else { Ok(()) }
    }

    /// One stream: exactly the entries of the index, then its end.
    fn segment(&mut self, number: u32, expected: &[Expected], incoming: &mut Incoming) -> Result<(), RestoreError> {
        let refused = |source: TarError| match source {
            TarError::Read(error) if error.kind() == io::ErrorKind::ConnectionAborted => RestoreError::Interrupted,
            source => RestoreError::Tar { stream: number, source },
        };
        let differs = |path: &str, what| RestoreError::Differs { stream: number, path: path.to_owned(), what };
        let mut reader = Reader::new(incoming);
        for expected in expected {
            let index = &expected.index;
            let Item::Entry(entry) = reader.next_item().map_err(refused)? else {
                return Err(differs(&index.path, "the stream does not hold it"));
            };
            if let Some(what) = self.difference(expected, &entry) {
                return Err(differs(&index.path, what));
            }
            match expected.fate {
                Fate::Pass => skip(&mut reader, entry.bytes).map_err(refused)?,
                Fate::Into(target) => self.restore(target, expected, *entry, &mut reader, &refused)?,
                Fate::Aside(target) => {
                    let path = format!("aside-{}", self.asides.len()).into_bytes();
                    self.asides.push((target, path.clone()));
                    self.file(target, path, expected, &entry, &mut reader, &refused)?;
                }
            }
            reader.pad(index.bytes).map_err(refused)?;
        }
        let mut zeros = 0;
        loop {
            match reader.next_item().map_err(refused)? {
                Item::Entry(entry) => return Err(differs(&name::encode(&entry.path), "the index does not hold it")),
                Item::Zero => zeros += 1,
                Item::End if number == self.plan.last && zeros >= 2 => return Ok(()),
                Item::End if number != self.plan.last && zeros == 0 => return Ok(()),
                Item::End => {
                    return Err(refused(TarError::Refused("the blocks that end an archive are in the wrong place")));
                }
            }
        }
    }

    /// What the tar says otherwise than the index, if anything.
    fn difference(&self, expected: &Expected, entry: &Entry) -> Option<&'static str> {
        let index = &expected.index;
        let link = self.plan.hardlinks.get(&entry.path);
        let checks = [
            (entry.path == expected.path, "the stream holds another path in its place"),
            (entry.kind == index.kind, "the kind"),
            (entry.bytes == index.bytes, "the length"),
            (entry.mode == expected.mode, "the mode"),
            ((entry.uid, entry.gid) == (index.uid, index.gid), "the owner"),
            (entry.mtime == expected.mtime, "the time"),
            (entry.kind != PathKind::Hardlink || link == Some(&entry.link), "the file that it is a further name of"),
            (entry.kind != PathKind::Symlink || !entry.link.is_empty(), "what it leads to"),
        ];
        checks.into_iter().find(|(same, _)| !same).map(|(_, what)| what)
    }

    /// Where a stored path is built.
    fn stage_path(&self, target: usize, stored: &[u8]) -> Vec<u8> {
        let prefix = &self.plan.prefixes[target];
        let mut path = b"root".to_vec();
        if prefix.is_empty() {
            path.push(b'/');
        }
        path.extend(&stored[prefix.len()..]);
        path
    }

    fn restore(
        &mut self,
        target: usize,
        expected: &Expected,
        mut entry: Entry,
        reader: &mut Reader<&mut Incoming>,
        refused: &dyn Fn(TarError) -> RestoreError,
    ) -> Result<(), RestoreError> {
        self.frame(target, &entry.path)?;
        let path = self.stage_path(target, &entry.path);
        self.proof.others += u64::from(entry.kind != PathKind::File);
        let stage = &mut self.staged[target].stage;
        match entry.kind {
            PathKind::File => self.file(target, path, expected, &entry, reader, refused),
            PathKind::Dir => {
                stage.make_dir(&path).map_err(|e| failed("make the directory", &entry.path, e))?;
                self.present.insert(entry.path.clone());
                if path == b"root" {
                    self.staged[target].top = Some(entry.clone());
                }
                self.dirs.push((target, path, entry));
                Ok(())
            }
            PathKind::Symlink => stage
                .make_symlink(&path, &entry, &mut self.rights)
                .map_err(|e| failed("make the symlink", &entry.path, e)),
            PathKind::Fifo => {
                stage.make_fifo(&path, &entry, &mut self.rights).map_err(|e| failed("make the fifo", &entry.path, e))
            }
            PathKind::Hardlink => {
                let made = self.link(target, &path, &mut entry);
                made.map_err(|e| failed("make the hard link", &entry.path, e))
            }
        }
    }

    fn file(
        &mut self,
        target: usize,
        path: Vec<u8>,
        expected: &Expected,
        entry: &Entry,
        reader: &mut Reader<&mut Incoming>,
        refused: &dyn Fn(TarError) -> RestoreError,
    ) -> Result<(), RestoreError> {
        let stage = &mut self.staged[target].stage;
        let mut file = stage.make_file(&path).map_err(|e| failed("create", &entry.path, e))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut left = entry.bytes;
        while left > 0 {
            let size = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            let piece = &mut buffer[..size];
            reader.content(piece).map_err(refused)?;
            hash.update(&piece);
            write(&mut file, piece, expected.index.sparse).map_err(|e| failed("write", &entry.path, e))?;
            left -= size as u64;
        }
        // A hole at the end is none until the file has its length.
        file.set_len(entry.bytes).map_err(|e| failed("write", &entry.path, e))?;
        let fd = OwnedFd::from(file);
        stage::finish_open(&fd, entry, &mut self.rights)
            .map_err(|e| failed("set owner and mode of", &entry.path, e))?;
        let found = Hash256(hash.finalize().into());
        // The index of a file without a SHA-256 was refused by the plan.
        let wanted = expected.index.sha256.unwrap_or(Hash256([0; 32]));
        if found != wanted {
            return Err(RestoreError::Content { path: expected.index.path.clone(), expected: wanted, found });
        }
        if matches!(expected.fate, Fate::Into(_)) {
            self.proved.push((target, path.clone()));
            let (path, bytes) = (expected.index.path.clone(), entry.bytes);
            self.proof.files.push(FileProof { path, bytes, sha256_expected: wanted, sha256_found: found, ok: true });
        }
        if self.linked.contains(&entry.path) {
            self.names.insert(entry.path.clone(), (target, path));
        }
        Ok(())
    }

    /// A further name for a file that is in a stage; a copy where file systems differ.
    fn link(&mut self, target: usize, path: &[u8], entry: &mut Entry) -> io::Result<()> {
        let (from, old) = self.names.get(&entry.link).cloned().ok_or(io::ErrorKind::NotFound)?;
        let parent = name::parent(&old);
        let dir = self.staged[from].stage.open_dir(parent)?;
        let last = if parent.is_empty() { &old[..] } else { &old[parent.len() + 1..] };
        match self.staged[target].stage.make_link(path, &dir, last) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
            done => return done,
        }
        let mut source = self.staged[from].stage.open_file(&old)?;
        let mut copy = self.staged[target].stage.make_file(path)?;
        io::copy(&mut source, &mut copy)?;
        entry.xattrs = attributes::of_file(&source)?;
        self.copies += 1;
        stage::finish_open(&OwnedFd::from(copy), entry, &mut self.rights)
    }

    /// Under `--into-dir`: makes the directories above `stored` that are not restored themselves.
    fn frame(&mut self, target: usize, stored: &[u8]) -> Result<(), RestoreError> {
        if !self.plan.prefixes[target].is_empty() {
            return Ok(());
        }
        let mut missing = Vec::new();
        let mut path = name::parent(stored);
        while !path.is_empty() && !self.present.contains(path) {
            missing.push(path.to_vec());
            path = name::parent(path);
        }
        for path in missing.into_iter().rev() {
            let built = self.stage_path(target, &path);
            self.staged[target].stage.make_dir(&built).map_err(|e| failed("make the directory", &path, e))?;
            self.present.insert(path.clone());
            self.frames.push((target, path));
        }
        Ok(())
    }

    /// Owner, mode and time of directories, innermost first: nothing is made in them any more.
    fn finish_dirs(&mut self) -> Result<(), RestoreError> {
        for (target, path, entry) in std::mem::take(&mut self.dirs).into_iter().rev() {
            let staged = &mut self.staged[target];
            let finish = |rights: &mut Rights| {
                let fd = staged.stage.open_dir(&path)?;
                stage::finish_open(&fd, &entry, rights)?;
                io::Result::Ok(fd)
            };
            let fd = finish(&mut self.rights).map_err(|e| failed("set owner and mode of", &entry.path, e))?;
            if path == b"root" && !self.rights.root && entry.mode & 0o200 == 0 {
                let mode = self.rights.mode(&entry);
                let looser = mode | rustix::fs::Mode::WUSR;
                rustix::fs::fchmod(&fd, looser).map_err(|e| failed("set the mode of", &entry.path, e.into()))?;
                staged.late = Some((fd, mode));
            }
        }
        for (target, stored) in std::mem::take(&mut self.frames).into_iter().rev() {
            let (mode, uid, gid) = self.plan.parents.get(&stored).copied().unwrap_or((0o755, 0, 0));
            let path = self.stage_path(target, &stored);
            let (kind, mtime) = (PathKind::Dir, Mtime { seconds: self.now.timestamp(), nanos: 0 });
            let entry = Entry { path: stored, kind, bytes: 0, mode, uid, gid, mtime, link: vec![], xattrs: vec![] };
            let finish =
                |rights: &mut Rights| stage::finish_open(&self.staged[target].stage.open_dir(&path)?, &entry, rights);
            finish(&mut self.rights).map_err(|e| failed("set owner and mode of", &entry.path, e))?;
        }
        Ok(())
    }

    /// Hashes every restored file once more, from disk.
    fn read_back(&mut self) -> Result<(), RestoreError> {
        let mut buffer = vec![0; PIECE_BYTES];
        for ((target, path), proof) in self.proved.iter().zip(&mut self.proof.files) {
            let mut read = || {
                let mut file = self.staged[*target].stage.open_file(path)?;
                // Synced before: what is dropped from memory must come from the disk.
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
                let mut hash = Sha256::new();
                loop {
                    match file.read(&mut buffer)? {
                        0 => return io::Result::Ok(Hash256(hash.finalize().into())),
                        read => hash.update(&buffer[..read]),
                    }
                }
            };
            let found =
                read().map_err(|source| RestoreError::Io { what: "read back", path: proof.path.clone(), source })?;
            proof.sha256_found = found;
            proof.ok = found == proof.sha256_expected;
            if !proof.ok {
                let (path, expected) = (proof.path.clone(), proof.sha256_expected);
                return Err(RestoreError::Content { path, expected, found });
            }
        }
        Ok(())
    }
}

fn skip(reader: &mut Reader<&mut Incoming>, bytes: u64) -> Result<(), TarError> {
    let mut buffer = vec![0; PIECE_BYTES.min(usize::try_from(bytes).unwrap_or(PIECE_BYTES))];
    let mut left = bytes;
    while left > 0 {
        let size = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        reader.content(&mut buffer[..size])?;
        left -= size as u64;
    }
    Ok(())
}

/// Writes a piece; of a sparse file, seeks over blocks of zeros.
fn write(file: &mut File, piece: &[u8], sparse: bool) -> io::Result<()> {
    if !sparse {
        return file.write_all(piece);
    }
    for block in piece.chunks(HOLE_BYTES) {
        if block.iter().all(|b| *b == 0) {
            file.seek(SeekFrom::Current(i64::try_from(block.len()).unwrap_or(0)))?;
        } else {
            file.write_all(block)?;
        }
    }
    Ok(())
}

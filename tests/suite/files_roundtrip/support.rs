//! What the file tests share: a sink and streams in memory, a tree with one of everything, and all that the kernel says of a
//! tree as text, so that two trees are compared by everything that a backup must bring back and not by what our code thinks of.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use backup_core::clock::Clock;
use backup_core::id::Hash256;
use backup_core::manifest::{Property, Stream, StreamKind};
use backup_core::monitor::Silent;
use backup_core::source::files::{
    FilesError, FilesOptions, RestoreError, RestoreOptions, Restored, Target, Verify, capture, execute, plan,
};
use backup_core::source::{FinishedStream, Sink, SinkError, StreamError, StreamReader, StreamWriter, Streams};
use bytes::Bytes;
use rustix::fs::{CWD, Mode, XattrFlags};
pub(super) type Hook = Arc<dyn Fn(usize) + Send + Sync>;

/// Keeps streams in memory; calls the hook at each write, with its count.
pub(super) struct Memory {
    pub(super) hook: Hook,
    pub(super) writes: Arc<AtomicUsize>,
}

struct MemoryWriter {
    kind: StreamKind,
    bytes: Vec<u8>,
    hook: Hook,
    writes: Arc<AtomicUsize>,
}

#[async_trait]
impl Sink for Memory {
    async fn open(&self, kind: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError> {
        let (hook, writes) = (self.hook.clone(), self.writes.clone());
        Ok(Box::new(MemoryWriter { kind, bytes: Vec::new(), hook, writes }))
    }
}

#[async_trait]
impl StreamWriter for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        (self.hook)(self.writes.fetch_add(1, Ordering::SeqCst));
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FinishedStream, SinkError> {
        let (bytes, sha256) = (self.bytes.len() as u64, Hash256::of(&self.bytes));
        Ok(FinishedStream { kind: self.kind, bytes, sha256, token: Box::new(self.bytes) })
    }
}

/// A sink that is full.
pub(super) struct Full;

#[async_trait]
impl Sink for Full {
    async fn open(&self, _: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError> {
        let error: Box<dyn std::error::Error + Send + Sync> = "no space left in the vault".into();
        Err(SinkError(error))
    }
}

/// A captured snapshot as a manifest would give it.
pub(super) struct Stored {
    pub(super) streams: Vec<Stream>,
    pub(super) bytes: Vec<Vec<u8>>,
    pub(super) properties: Vec<Property>,
    pub(super) suspect: Vec<String>,
    /// Called when a stream is opened, with its number.
    pub(super) hook: Hook,
    /// This stream fails after its first piece.
    pub(super) broken: Option<u32>,
}

struct Reader(std::vec::IntoIter<Bytes>, bool);

#[async_trait]
impl Streams for Stored {
    async fn open(&self, number: u32) -> Result<Box<dyn StreamReader>, StreamError> {
        (self.hook)(number as usize);
        let pieces = self.bytes[number as usize - 1].chunks(100_000).map(Bytes::copy_from_slice);
        Ok(Box::new(Reader(pieces.collect::<Vec<_>>().into_iter(), self.broken == Some(number))))
    }
}

#[async_trait]
impl StreamReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        match self.0.next() {
            // As the contract has it: an error in place of the final `None`.
            None if self.1 => {
                let error: Box<dyn std::error::Error + Send + Sync> = "the SHA-256 differs".into();
                Err(StreamError(error))
            }
            piece => Ok(piece),
        }
    }
}

pub(super) fn clock() -> Clock {
    Clock::fixed("2026-11-21T02:00:00Z".parse().unwrap())
}

pub(super) fn quiet() -> Hook {
    Arc::new(|_| {})
}

pub(super) async fn take_with(options: &FilesOptions, hook: Hook) -> Result<Stored, FilesError> {
    let sink = Memory { hook, writes: Arc::default() };
    let captured = capture(options, &sink, &clock(), &Silent).await?;
    let mut stored = Stored {
        streams: vec![],
        bytes: vec![],
        properties: captured.properties,
        suspect: captured.suspect,
        hook: quiet(),
        broken: None,
    };
    for captured in captured.streams {
        let (kind, bytes, sha256) = (captured.stream.kind, captured.stream.bytes, captured.stream.sha256);
        stored.bytes.push(*captured.stream.token.downcast::<Vec<u8>>().unwrap());
        let paths = captured.paths;
        stored.streams.push(Stream { kind, bytes, sha256, extents: vec![], copy: None, members: vec![], paths });
    }
    Ok(stored)
}

pub(super) async fn take(paths: &[&Path]) -> Stored {
    let options = FilesOptions::new(paths.iter().map(|path| path.to_path_buf()).collect());
    take_with(&options, quiet()).await.unwrap()
}

pub(super) fn into_dir(dir: &Path) -> RestoreOptions {
    RestoreOptions { target: Target::IntoDir(dir.to_owned()), only: vec![], replace: false, verify: Verify::Written }
}

pub(super) fn original() -> RestoreOptions {
    RestoreOptions { target: Target::Original, only: vec![], replace: false, verify: Verify::Content }
}

pub(super) async fn put(stored: &Stored, options: &RestoreOptions) -> Result<Restored, RestoreError> {
    let plan = plan(&stored.streams, &stored.properties, options)?;
    let restored = execute(plan, stored, &clock(), &Silent).await?;
    assert!(restored.proof.files.iter().all(|file| file.ok && file.sha256_expected == file.sha256_found));
    Ok(restored)
}

/// Every path below `root` with all that a backup must bring back, as text. Links between files by the first name.
pub(super) fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut first: BTreeMap<u64, String> = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let mut about = format!(
            "{:o} {}:{} {}.{:09} {:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            xattrs(&path)
        );
        if meta.is_dir() {
            let mut children: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            children.sort_by(|a, b| b.cmp(a));
            open.extend(children);
        } else if meta.is_symlink() {
            write!(about, " -> {}", fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii()).unwrap();
        } else if meta.is_file() {
            let first = first.entry(meta.ino()).or_insert(name.clone());
            write!(about, " {} {}", meta.len(), Hash256::of(&fs::read(&path).unwrap())).unwrap();
            write!(about, " links {} as {first}", meta.nlink()).unwrap();
        }
        found.insert(name, about);
    }
    found
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let size = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..size].split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut found: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 4096];
            let size = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..size].to_vec())
        })
        .collect();
    found.sort();
    found
}

pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    step.flatten().take(bytes).collect()
}

pub(super) fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One of everything. Reads as the list of what must survive.
pub(super) fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir(root.join("a")).unwrap();
    fs::write(root.join("a/x"), "in a").unwrap();
    // Sorts between `a` and `a/x` by the bytes of the path.
    fs::write(root.join("a-b"), "beside").unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::write(root.join("block"), noise(1, 512)).unwrap();
    fs::write(root.join("exactly-1MiB"), noise(2, 1 << 20)).unwrap();
    fs::write(root.join("over-1MiB"), noise(3, (1 << 20) + 1)).unwrap();
    fs::write(root.join("large"), noise(4, 3 << 20)).unwrap();
    fs::write(root.join("año 100% \n\"x\""), "name").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"latin\xf1")), "raw").unwrap();
    let deep = root.join(format!("{}/{}/{}", "d".repeat(120), "e".repeat(120), "f".repeat(200)));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(OsStr::from_bytes(&[&b"g\xff"[..], &[b'g'; 250]].concat())), "deep").unwrap();
    // A prefix and a name that ustar can just hold.
    let split = root.join("s".repeat(90));
    fs::create_dir(&split).unwrap();
    fs::write(split.join("t".repeat(99)), "split").unwrap();
    symlink("a/x", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("l".repeat(300), root.join("long-link")).unwrap();
    symlink(OsStr::from_bytes(b"\xfe"), root.join("raw-link")).unwrap();
    fs::hard_link(root.join("a/x"), root.join("hard")).unwrap();
    fs::hard_link(root.join("a/x"), root.join("z-hard")).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::from_raw_mode(0o620)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"middle", 3_000_001).unwrap();
    sparse.set_len(8 << 20).unwrap();
    for (path, mode) in [("block", 0o4755), ("a", 0o2775), ("empty", 0o1777), ("nothing", 0), ("a-b", 0o400)] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (path, name, value) in [
        ("block", "user.colour", &b"blue"[..]),
        ("block", "user.a=b%c", b"\0\n=\xff"),
        ("large", "user.empty", b""),
        ("a", "user.dir", &[7; 900]),
    ] {
        rustix::fs::setxattr(root.join(path), name, value, XattrFlags::empty()).unwrap();
    }
    if is_root() {
        for (path, uid, gid) in [("block", 1234, 4321), ("link", 7, 8), ("fifo", 9, 9), ("a", 3_000_000_000, 2_097_152)]
        {
            std::os::unix::fs::lchown(root.join(path), Some(uid), Some(gid)).unwrap();
        }
        fs::set_permissions(root.join("block"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o2775)).unwrap();
    }
    set_mtime(&root.join("a-b"), 1, 1);
    set_mtime(&root.join("block"), -2, 500_000_000);
    set_mtime(&root.join("exactly-1MiB"), 9_999_999_999, 0);
    set_mtime(&root.join("link"), 1_500_000_000, 123_456_789);
    set_mtime(&root.join("a"), 1_400_000_000, 0);
    set_mtime(&root.join("empty"), 1_300_000_000, 999_999_999);
}

pub(super) fn below(dir: &Path, path: &Path) -> PathBuf {
    dir.join(path.strip_prefix("/").unwrap())
}

pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

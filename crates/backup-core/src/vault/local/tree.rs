//! Blocking file operations below one directory handle.
//!
//! Every step goes from a handle to a name in it and refuses symbolic links, so no path leaves the root, whatever is
//! swapped underneath while it is walked. Files are made 0600, directories 0700.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

#[cfg(test)]
use super::calls::seen;
use super::calls::{sync_file, sync_names};
use crate::vault::store::{Entry, Identity, PutMode, StorePath};

/// Where bodies are written before they get their name. No [`StorePath`] begins with a dot.
const TEMPORARY: &str = ".tmp";
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

pub(super) enum Written {
    New,
    There { bytes: u64 },
}

pub(super) enum WriteError {
    Io(io::Error),
    /// The bytes may be lost although they were written.
    Sync(io::Error),
}

impl From<Errno> for WriteError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

pub(super) enum ReadError {
    NotFound,
    TooLarge,
    Io(io::Error),
}

/// The directory of `path`, empty for the root.
pub(super) fn parent(path: &StorePath) -> &str {
    split(path).0
}

fn split(path: &StorePath) -> (&str, &str) {
    path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()))
}

fn parts(dir: &str) -> impl Iterator<Item = &str> {
    dir.split('/').filter(|part| !part.is_empty())
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn modified(stat: &Stat) -> DateTime<Utc> {
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    DateTime::from_timestamp(stat.st_mtime, nanos).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Which file it is, and when anything about it last changed: unlike the time of its last write, that is nobody's to set.
fn identity(stat: &Stat) -> Option<Identity> {
    let changed = i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec);
    Some(Identity::of_numbers(stat.st_ino, u64::try_from(changed).ok()?))
}

fn entry(path: StorePath, stat: &Stat) -> Entry {
    Entry { path, bytes: bytes(stat), modified: modified(stat), identity: identity(stat) }
}

fn bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

impl Tree {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // The root itself may be a link: that is the operator's choice of place.
        let root = fs::open(path, DIR.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self { root })
    }

    /// A handle of `dir`. `NOENT` when it is missing, or when a file is in the way.
    fn dir(&self, dir: &str) -> Result<OwnedFd, Errno> {
        let mut at = fs::openat(&self.root, ".", DIR, Mode::empty())?;
        for part in parts(dir) {
            at = step(&at, part)?;
        }
        Ok(at)
    }

    /// As [`Tree::dir`], making what is missing.
    fn make_dir(&self, dir: &str) -> Result<OwnedFd, Errno> {
        let mut at = fs::openat(&self.root, ".", DIR, Mode::empty())?;
        for part in parts(dir) {
            at = match step(&at, part) {
                Err(Errno::NOENT) => {
                    match fs::mkdirat(&at, part, Mode::RWXU) {
                        // There: another writer made it, or a file is in the way; then the next open says so.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    #[cfg(test)]
                    seen::made(&at, part);
                    fs::openat(&at, part, DIR, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(at)
    }

    fn temporary(&self) -> Result<OwnedFd, Errno> {
        self.make_dir(TEMPORARY)
    }

    pub(super) fn write(&self, path: &StorePath, body: &[u8], mode: PutMode) -> Result<Written, WriteError> {
        let (parent, name) = split(path);
        if mode == PutMode::CreateOnly
            && let Some(there) = self.stat(path).map_err(WriteError::Io)?
        {
            return Ok(Written::There { bytes: there.bytes });
        }
        let temporary = self.temporary()?;
        let (draft, mut file) = new_file(&temporary)?;
        let written = file
            .write_all(body)
            .map_err(WriteError::Io)
            .and_then(|()| sync_file(&file).map_err(WriteError::Sync))
            .and_then(|()| self.publish(&temporary, &draft, parent, name, mode));
        if !matches!(written, Ok(true)) {
            // Best effort: what is left is removed when the store is opened a day later.
            let _ = fs::unlinkat(&temporary, &draft, AtFlags::empty());
        }
        if written? {
            return Ok(Written::New);
        }
        match self.stat(path).map_err(WriteError::Io)? {
            Some(there) => Ok(Written::There { bytes: there.bytes }),
            None => Err(WriteError::Io(io::Error::other("appeared and vanished while it was written"))),
        }
    }

    /// Gives the draft its name. `false` when the name was taken meanwhile.
    fn publish(
        &self,
        temporary: &OwnedFd,
        draft: &str,
        parent: &str,
        name: &str,
        mode: PutMode,
    ) -> Result<bool, WriteError> {
        // A deletion beside us may remove an emptied directory between its opening and the rename.
        for _ in 0..16 {
            let dir = match self.make_dir(parent) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let done = match mode {
                PutMode::Replace => fs::renameat(temporary, draft, &dir, name),
                PutMode::CreateOnly => rename_new(temporary, draft, &dir, name),
            };
            match done {
                Ok(()) => {
                    #[cfg(test)]
                    seen::named(temporary, draft, &dir, name);
                    return Ok(true);
                }
                Err(Errno::EXIST) => return Ok(false),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(WriteError::Io(io::Error::other("its directory was removed again and again")))
    }

    pub(super) fn read(&self, path: &StorePath, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let missing = |errno| match errno {
            Errno::NOENT => ReadError::NotFound,
            Errno::LOOP => ReadError::Io(no_body("is a symbolic link")),
            // What `open` says of a socket.
            Errno::NXIO => ReadError::Io(no_body("is not a regular file")),
            errno => ReadError::Io(errno.into()),
        };
        let (parent, name) = split(path);
        let dir = self.dir(parent).map_err(missing)?;
        // NONBLOCK: opening a pipe that somebody left here must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::openat(&dir, name, flags, Mode::empty()).map_err(missing)?;
        let stat = fs::fstat(&file).map_err(missing)?;
        match kind(&stat) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(ReadError::NotFound),
            _ => return Err(ReadError::Io(no_body("is not a regular file"))),
        }
        if bytes(&stat) > limit_bytes {
            return Err(ReadError::TooLarge);
        }
        let mut body = Vec::with_capacity(usize::try_from(bytes(&stat)).unwrap_or(0));
        let mut file = File::from(file).take(limit_bytes.saturating_add(1));
        file.read_to_end(&mut body).map_err(ReadError::Io)?;
        if body.len() as u64 != bytes(&stat) {
            return Err(ReadError::Io(io::Error::other("changed its size while it was read")));
        }
        Ok(body)
    }

    pub(super) fn stat(&self, path: &StorePath) -> io::Result<Option<Entry>> {
        let (parent, name) = split(path);
        let stat = match self.dir(parent).and_then(|dir| fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        match kind(&stat) {
            FileType::RegularFile => Ok(Some(entry(path.clone(), &stat))),
            FileType::Directory => Ok(None),
            _ => Err(no_body("is not a regular file")),
        }
    }

    /// Hands the bodies below `prefix` to `take`, one directory after the other in no order, until it answers `false`; gives the
    /// directories that hold them.
    pub(super) fn walk(&self, prefix: &str, take: &mut dyn FnMut(Vec<Entry>) -> bool) -> io::Result<Vec<String>> {
        let mut dirs = Vec::new();
        let mut open = vec![prefix.to_owned()];
        while let Some(dir) = open.pop() {
            let handle = match self.dir(&dir) {
                // Pruned by another process while we walk, or nothing there at all.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            let mut entries = Vec::new();
            for (path, name, found) in known(&handle, &dir)? {
                match found {
                    FileType::Directory => open.push(path.as_str().to_owned()),
                    FileType::RegularFile => match fs::statat(&handle, &name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => entries.push(entry(path, &stat)),
                        Err(Errno::NOENT) => {}
                        Err(errno) => return Err(errno.into()),
                    },
                    _ => {}
                }
            }
            if !entries.is_empty() {
                dirs.push(dir);
                if !take(entries) {
                    break;
                }
            }
        }
        Ok(dirs)
    }

    pub(super) fn children(&self, prefix: &str) -> io::Result<Vec<String>> {
        let handle = match self.dir(prefix) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for (path, name, found) in known(&handle, prefix)? {
            let shown = match found {
                FileType::RegularFile => true,
                FileType::Directory => self.holds_a_body(path.as_str())?,
                _ => false,
            };
            if shown {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn holds_a_body(&self, dir: &str) -> io::Result<bool> {
        let mut open = vec![dir.to_owned()];
        while let Some(dir) = open.pop() {
            let handle = match self.dir(&dir) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            for (path, _, found) in known(&handle, &dir)? {
                match found {
                    FileType::RegularFile => return Ok(true),
                    FileType::Directory => open.push(path.as_str().to_owned()),
                    _ => {}
                }
            }
        }
        Ok(false)
    }

    /// Removes `path` and the directories that this empties; gives the deepest one that stays.
    pub(super) fn delete(&self, path: &StorePath) -> io::Result<String> {
        let (mut dir, name) = split(path);
        match self.dir(dir).and_then(|handle| fs::unlinkat(&handle, name, AtFlags::empty())) {
            // A directory of that name is no body, so there is nothing to delete.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while !dir.is_empty() {
            let (above, name) = dir.rsplit_once('/').unwrap_or(("", dir));
            let removed = self.dir(above).and_then(|handle| fs::unlinkat(&handle, name, AtFlags::REMOVEDIR));
            match removed {
                Ok(()) | Err(Errno::NOENT) => dir = above,
                // Not empty, or not ours to remove: an empty folder that stays is not shown by anything.
                Err(_) => break,
            }
        }
        Ok(dir.to_owned())
    }

    /// Gives what lies at `path` (a body, a link, a folder: anything) the name `aside`; `false` when nothing lies there. By
    /// a second name where that can be, so that `path` is never without; what can have one name only is renamed.
    pub(super) fn set_aside(&self, path: &StorePath, aside: &StorePath) -> io::Result<bool> {
        let ((parent, name), (above, new)) = (split(path), split(aside));
        let from = match self.dir(parent) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        match fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let to = self.make_dir(above)?;
        match fs::linkat(&from, name, &to, new, AtFlags::empty()) {
            Ok(()) => return Ok(true),
            Err(Errno::NOENT) => return Ok(false),
            Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
            // A folder, or a file system without second names.
            Err(_) => {}
        }
        match rename_new(&from, name, &to, new) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn sync_dir(&self, dir: &str) -> io::Result<()> {
        match sync_names(self.dir(dir)?) {
            // Some network file systems refuse to sync a directory because its names are durable at once.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The clock of the file system: when it says that a new file was made.
    pub(super) fn now(&self) -> io::Result<DateTime<Utc>> {
        let temporary = self.temporary()?;
        let (name, file) = new_file(&temporary)?;
        let stat = fs::fstat(&file);
        let _ = fs::unlinkat(&temporary, &name, AtFlags::empty());
        Ok(modified(&stat?))
    }

    /// Bytes free for this user, and in all.
    pub(super) fn space(&self) -> io::Result<(u64, u64)> {
        let stat = fs::fstatvfs(&self.root)?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }

    /// Removes drafts of dead runs. Only names that [`new_file`] makes are touched.
    pub(super) fn remove_stale(&self, stale_after: Duration) -> io::Result<()> {
        let temporary = match self.dir(TEMPORARY) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let now = self.now()?;
        for entry in Dir::read_from(&temporary)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let ours = name.strip_prefix("put-").is_some_and(|hex| {
                hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            });
            if !ours {
                continue;
            }
            let stat = fs::statat(&temporary, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let age = (now - modified(&stat)).to_std().unwrap_or_default();
            if kind(&stat) == FileType::RegularFile && age > stale_after {
                fs::unlinkat(&temporary, name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// Something lies there that this store did not put there: [`io::ErrorKind::InvalidData`].
fn no_body(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One directory down, refusing links by name.
fn step(at: &OwnedFd, part: &str) -> Result<OwnedFd, Errno> {
    match fs::openat(at, part, DIR, Mode::empty()) {
        Err(Errno::NOTDIR) => match fs::statat(at, part, AtFlags::SYMLINK_NOFOLLOW) {
            // `Too many levels of symbolic links` is what the system says about a link that may not be followed.
            Ok(stat) if kind(&stat) == FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOENT),
        },
        other => other,
    }
}

/// The entries of a directory whose names can be part of a path; links and everything foreign are passed over later
/// by their type, foreign names here.
fn known(handle: &OwnedFd, dir: &str) -> io::Result<Vec<(StorePath, String, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(handle)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Some(path) = StorePath::new(join(dir, name)) else { continue };
        let file_type = match entry.file_type() {
            FileType::Unknown => match fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => kind(&stat),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            },
            known => known,
        };
        found.push((path, name.to_owned(), file_type));
    }
    Ok(found)
}

fn new_file(temporary: &OwnedFd) -> Result<(String, File), WriteError> {
    let random = getrandom::u64().map_err(|error| WriteError::Io(io::Error::other(error.to_string())))?;
    let name = format!("put-{random:016x}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = fs::openat(temporary, &name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok((name, File::from(file)))
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) | WriteError::Sync(error) => error,
        }
    }
}

/// Renames only when the name is free. File systems without that flag (older NFS, FUSE) get a hard link, which is as
/// strict; those without hard links a look and a rename, as the contract allows.
fn rename_new(from: &OwnedFd, draft: &str, to: &OwnedFd, name: &str) -> Result<(), Errno> {
    match fs::renameat_with(from, draft, to, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_new(from, draft, to, name),
        other => other,
    }
}

fn link_new(from: &OwnedFd, draft: &str, to: &OwnedFd, name: &str) -> Result<(), Errno> {
    match fs::linkat(from, draft, to, name, AtFlags::empty()) {
        Ok(()) => {
            // The body has its name; a draft that stays is removed when the store is opened a day later.
            let _ = fs::unlinkat(from, draft, AtFlags::empty());
            Ok(())
        }
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {
            match fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => fs::renameat(from, draft, to, name),
                Err(errno) => Err(errno),
            }
        }
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn a_link_is_as_strict_as_a_rename_that_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let temporary = tree.temporary().unwrap();
        for (name, content) in [("put-a", "first"), ("put-b", "second")] {
            std::fs::write(dir.path().join(TEMPORARY).join(name), content).unwrap();
        }
        let to = tree.dir("").unwrap();
        link_new(&temporary, "put-a", &to, "body").unwrap();
        assert_eq!(link_new(&temporary, "put-b", &to, "body"), Err(Errno::EXIST));
        assert_eq!(std::fs::read(dir.path().join("body")).unwrap(), b"first");
        assert!(!dir.path().join(TEMPORARY).join("put-a").exists());
    }
}

//! The directory where a restore builds what it will put in place: ours alone (0700), beside the target.
//!
//! Every operation takes a path that is relative to the stage and opens it component by component from the stage's
//! own descriptor, refusing symlinks at each. So even if a check before this one were wrong, nothing is created,
//! written or changed outside: a symlink in the stage is content, never a way.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::name;
use super::tar::{Entry, Mtime};
use crate::manifest::PathKind;

/// An open stage.
pub(super) struct Stage {
    dir: OwnedFd,
    /// The directory used last: entries of one directory come one after the other.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// What this process may set, and what could not be set.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) root: bool,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) secret: bool,
    /// Paths that belonged to someone else and now belong to us.
    pub(super) foreign: u64,
    /// Extended attributes that the file system or the kernel refused, as `name of path`.
    pub(super) attributes: Vec<String>,
}

impl Rights {
    /// Those of this process.
    pub(super) fn of_process(secret: bool) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let (uid, gid, root) = (uid.as_raw(), gid.as_raw(), uid.is_root());
        Self { root, uid, gid, secret, foreign: 0, attributes: Vec::new() }
    }

    /// The mode that a path gets: what it had, without what would be looser than it may be here.
    pub(super) fn mode(&self, entry: &Entry) -> Mode {
        let mut mode = entry.mode & 0o7777;
        if self.secret {
            mode &= if entry.kind == PathKind::Dir { 0o700 } else { 0o600 };
        }
        if !self.root && (entry.uid != self.uid || entry.gid != self.gid) {
            // Set-id for another owner than the one meant is a hole.
            mode &= 0o1777;
        }
        Mode::from_raw_mode(mode)
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Stage {
    /// Makes a new directory `name` in `parent`, for this user only.
    pub(super) fn create(parent: &OwnedFd, name: &str) -> io::Result<Self> {
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let dir = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
        Ok(Self { dir, last: None })
    }

    /// Opens a directory of the stage; the empty path is the stage itself.
    pub(super) fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut dir = self.dir.try_clone()?;
        for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            if part == b".." {
                return Err(Errno::INVAL.into());
            }
            dir = rustix::fs::openat(&dir, part, DIRECTORY, Mode::empty())?;
        }
        Ok(dir)
    }

    /// The directory that holds `path`, and the last component.
    fn holder<'p>(&mut self, path: &'p [u8]) -> io::Result<(&OwnedFd, &'p [u8])> {
        name::check(path).map_err(io::Error::other)?;
        let parent = name::parent(path);
        let file = if parent.is_empty() { path } else { &path[parent.len() + 1..] };
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            self.last = Some((parent.to_vec(), self.open_dir(parent)?));
        }
        let dir = self.last.as_ref().map_or(&self.dir, |(_, dir)| dir);
        Ok((dir, file))
    }

    /// A new empty file, 0600, open for writing.
    pub(super) fn make_file(&mut self, path: &[u8]) -> io::Result<File> {
        let (dir, file) = self.holder(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(dir, file, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Opens a file of the stage for reading.
    pub(super) fn open_file(&mut self, path: &[u8]) -> io::Result<File> {
        let (dir, file) = self.holder(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat(dir, file, flags, Mode::empty())?.into())
    }

    /// A new directory, 0700.
    pub(super) fn make_dir(&mut self, path: &[u8]) -> io::Result<()> {
        let (dir, file) = self.holder(path)?;
        Ok(rustix::fs::mkdirat(dir, file, Mode::RWXU)?)
    }

    /// A new symlink with its owner and time.
    pub(super) fn make_symlink(&mut self, path: &[u8], entry: &Entry, rights: &mut Rights) -> io::Result<()> {
        let (dir, file) = self.holder(path)?;
        rustix::fs::symlinkat(&entry.link[..], dir, file)?;
        finish_node(dir, file, entry, rights)
    }

    /// A new fifo with owner, mode and time.
    pub(super) fn make_fifo(&mut self, path: &[u8], entry: &Entry, rights: &mut Rights) -> io::Result<()> {
        let (dir, file) = self.holder(path)?;
        rustix::fs::mkfifoat(dir, file, Mode::RUSR | Mode::WUSR)?;
        finish_node(dir, file, entry, rights)
    }

    /// A further name for a file, in this or another stage.
    pub(super) fn make_link(&mut self, path: &[u8], from: &OwnedFd, old: &[u8]) -> io::Result<()> {
        let (dir, file) = self.holder(path)?;
        Ok(rustix::fs::linkat(from, old, dir, file, AtFlags::empty())?)
    }

    /// Removes a file of the stage.
    pub(super) fn remove_file(&mut self, path: &[u8]) -> io::Result<()> {
        let (dir, file) = self.holder(path)?;
        Ok(rustix::fs::unlinkat(dir, file, AtFlags::empty())?)
    }

    /// Waits until all of the stage's file system is durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.dir)?)
    }
}

/// Owner, mode, attributes and time of an open file or directory; in this order, as each clears parts of the next.
pub(super) fn finish_open(fd: &OwnedFd, entry: &Entry, rights: &mut Rights) -> io::Result<()> {
    if owned(entry, rights) {
        rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    }
    // Before the mode: a non-root user may set attributes of what they can write only.
    attributes(entry, rights, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
    rustix::fs::fchmod(fd, rights.mode(entry))?;
    Ok(rustix::fs::futimens(fd, &times(entry.mtime))?)
}

/// The same for what cannot be opened: a symlink, a fifo.
fn finish_node(dir: &OwnedFd, file: &[u8], entry: &Entry, rights: &mut Rights) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    if owned(entry, rights) {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        rustix::fs::chownat(dir, file, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend(file);
    attributes(entry, rights, |name, value| rustix::fs::lsetxattr(&path[..], name, value, XattrFlags::empty()))?;
    if entry.kind == PathKind::Fifo {
        rustix::fs::chmodat(dir, file, rights.mode(entry), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(dir, file, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether the owner is to be set.
fn owned(entry: &Entry, rights: &mut Rights) -> bool {
    if !rights.root && (entry.uid != rights.uid || entry.gid != rights.gid) {
        rights.foreign += 1;
    }
    rights.root
}

fn attributes(entry: &Entry, rights: &mut Rights, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> io::Result<()> {
    for (name, value) in &entry.xattrs {
        if rights.secret && name.starts_with(b"system.posix_acl_") {
            continue;
        }
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::NOTSUP | Errno::PERM | Errno::NOENT) => {
                rights.attributes.push(format!("`{}` of `{}`", name::encode(name), name::encode(&entry.path)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn times(mtime: Mtime) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) },
    }
}

/// Opens a directory of the outside world: the one that will hold the stage. Symlinks on the way are the operator's.
pub(super) fn open_outside(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {

    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn entry(kind: PathKind, mode: u32) -> Entry {
        let mtime = Mtime { seconds: 1, nanos: 2 };
        Entry { path: b"x".to_vec(), kind, bytes: 0, mode, uid: 7, gid: 7, mtime, link: b"t".to_vec(), xattrs: vec![] }
    }

    #[test]
    fn nothing_goes_through_a_symlink() {
        let place = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("old"), "old").unwrap();
        let mut stage = Stage::create(&open_outside(place.path()).unwrap(), "stage").unwrap();
        symlink(outside.path(), place.path().join("stage/out")).unwrap();
        symlink(outside.path().join("old"), place.path().join("stage/file")).unwrap();
        let mut rights = Rights::of_process(false);
        let own = stage.open_dir(b"").unwrap();
        assert!(stage.make_file(b"out/new").is_err());
        assert!(stage.make_dir(b"out/new").is_err());
        assert!(stage.make_symlink(b"out/new", &entry(PathKind::Symlink, 0), &mut rights).is_err());
        assert!(stage.make_fifo(b"out/new", &entry(PathKind::Fifo, 0), &mut rights).is_err());
        assert!(stage.make_link(b"out/new", &own, b"file").is_err());
        assert!(stage.remove_file(b"out/old").is_err());
        assert!(stage.open_file(b"out/old").is_err());
        assert!(stage.open_file(b"file").is_err());
        assert!(stage.make_file(b"file").is_err());
        for path in [&b"../x"[..], b"/x", b"a/../../x", b"", b".."] {
            assert!(stage.make_file(path).is_err() && stage.make_dir(path).is_err());
        }
        assert!(stage.open_dir(b"..").is_err());
        assert_eq!(std::fs::read(outside.path().join("old")).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_stage_is_its_owners_alone() {
        let place = tempfile::tempdir().unwrap();
        let parent = open_outside(place.path()).unwrap();
        let mut stage = Stage::create(&parent, "stage").unwrap();
        stage.make_file(b"f").unwrap();
        let mode = |path: &str| std::fs::metadata(place.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("stage"), mode("stage/f")), (0o700, 0o600));
        assert!(Stage::create(&parent, "stage").is_err(), "a stage that exists is not taken over");
    }

    #[test]
    fn modes_are_never_looser_than_allowed() {
        let rights = |root, secret| Rights { root, uid: 1, gid: 1, secret, foreign: 0, attributes: vec![] };
        let mode = |rights: Rights, kind, mode| rights.mode(&entry(kind, mode)).as_raw_mode();
        assert_eq!(mode(rights(true, false), PathKind::File, 0o4755), 0o4755);
        assert_eq!(mode(rights(false, false), PathKind::File, 0o6755), 0o755);
        assert_eq!(mode(rights(true, true), PathKind::File, 0o4777), 0o600);
        assert_eq!(mode(rights(true, true), PathKind::File, 0o400), 0o400);
        assert_eq!(mode(rights(true, true), PathKind::Dir, 0o2775), 0o700);
    }
}

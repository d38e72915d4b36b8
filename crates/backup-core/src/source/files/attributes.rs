//! From what the kernel says of a path to an entry: owner, mode, time, extended attributes, holes.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::tar::{Entry, Mtime};
use crate::manifest::PathKind;

/// What must not differ between two looks at a file for it to count as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        let mtime = (meta.mtime(), meta.mtime_nsec());
        Self { bytes: meta.size(), mtime, ctime: (meta.ctime(), meta.ctime_nsec()) }
    }
}

/// Modification time of a path.
pub(super) fn mtime(meta: &Metadata) -> Mtime {
    // Nanoseconds are below 10^9 by POSIX.
    Mtime { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) }
}

/// The entry of a path, without link and attributes.
pub(super) fn entry(path: Vec<u8>, kind: PathKind, meta: &Metadata) -> Entry {
    let bytes = if kind == PathKind::File { meta.size() } else { 0 };
    let mode = meta.mode() & 0o7777;
    let (uid, gid, mtime) = (meta.uid(), meta.gid(), mtime(meta));
    Entry { path, kind, bytes, mode, uid, gid, mtime, link: Vec::new(), xattrs: Vec::new() }
}

/// Whether a file has at least one hole. On a file system that cannot say so there is none.
pub(super) fn has_hole(file: &File, bytes: u64) -> bool {
    bytes > 0 && rustix::fs::seek(file, SeekFrom::Hole(0)).is_ok_and(|at| at < bytes)
}

/// Extended attributes of an open file, sorted by name.
pub(super) fn of_file(file: &File) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    collect(
        |buffer| {
            if buffer.is_empty() { rustix::fs::flistxattr_query(file) } else { rustix::fs::flistxattr(file, buffer) }
        },
        |name, buffer| {
            if buffer.is_empty() {
                rustix::fs::fgetxattr_query(file, name)
            } else {
                rustix::fs::fgetxattr(file, name, buffer)
            }
        },
    )
}

/// Extended attributes of a path itself (a symlink is not followed), sorted by name.
pub(super) fn of_path(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    collect(
        |buffer| {
            if buffer.is_empty() { rustix::fs::llistxattr_query(path) } else { rustix::fs::llistxattr(path, buffer) }
        },
        |name, buffer| {
            if buffer.is_empty() {
                rustix::fs::lgetxattr_query(path, name)
            } else {
                rustix::fs::lgetxattr(path, name, buffer)
            }
        },
    )
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match whole(list) {
        Ok(names) => names,
        // Neither the file system nor the kind of path has attributes.
        Err(Errno::NOTSUP | Errno::PERM) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        match whole(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed since it was listed: the ctime tells, if it matters.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// Asks for the size, then for the bytes; again if they grew in between.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    loop {
        let size = read(&mut [])?;
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; size];
        match read(&mut buffer) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

//! What a restore will do, worked out and checked before anything is created.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use serde::de::DeserializeOwned;

use super::restore::{RestoreError, RestoreOptions, Target, Verify};
use super::tar::Mtime;
use super::{HARDLINKS, PARENTS, Parent, ROOTS, SECRET, capture, name};
use crate::manifest::{PathEntry, PathKind, Property, Stream, StreamKind};

/// What is at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Absent,
    /// An empty directory.
    Empty,
    /// An empty directory that is a mount point: it stays, and what it is to hold is moved into it.
    EmptyMount,
    /// Something else. It will be moved aside.
    Occupied,
}

/// A path that a restore will put in place by one rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTarget {
    /// Where.
    pub path: PathBuf,
    /// What is there.
    pub existing: Existing,
    /// How many paths it will hold.
    pub paths: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Bytes that the file system has for us.
    pub free_bytes: u64,
    /// The most that content can take up there, in bytes; `None` where the file system may compress what it is given, or is not
    /// known not to: then only an attempt tells.
    pub room_bytes: Option<u64>,
}

/// A checked plan. Show [`RestorePlan::targets`], then hand it to [`super::execute`].
#[derive(Debug)]
pub struct RestorePlan {
    /// What will be put in place, in order.
    pub targets: Vec<PlannedTarget>,
    /// Whether files are given to their owner alone.
    pub secret: bool,
    pub(super) verify: Verify,
    /// For each target, the stored path that becomes it; empty under `--into-dir`.
    pub(super) prefixes: Vec<Vec<u8>>,
    /// Segments, by stream number.
    pub(super) segments: BTreeMap<u32, Vec<Expected>>,
    /// Streams to read, in order.
    pub(super) needed: Vec<u32>,
    /// Number of the segment that ends the archive.
    pub(super) last: u32,
    /// Directories to make that are not restored themselves, by stored path.
    pub(super) parents: HashMap<Vec<u8>, (u32, u32, u32)>,
    /// First path of each hard-linked file, by further path.
    pub(super) hardlinks: HashMap<Vec<u8>, Vec<u8>>,
}

/// An entry as the index promises it.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) path: Vec<u8>,
    pub(super) index: PathEntry,
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    pub(super) fate: Fate,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Read and dropped.
    Pass,
    /// Restored into this target.
    Into(usize),
    /// Not selected, but a selected hard link in this target needs its content.
    Aside(usize),
}

/// Works out a restore. Blocks shortly: looks at the targets, changes nothing.
pub fn plan(
    streams: &[Stream],
    properties: &[Property],
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    let roots: Vec<String> = property(properties, ROOTS)?;
    let secret = property(properties, SECRET)?;
    let parents: Vec<Parent> = property(properties, PARENTS)?;
    let links: Vec<(String, String)> = property(properties, HARDLINKS)?;
    let mut segments = read_index(streams)?;
    let last = *segments.keys().next_back().ok_or(RestoreError::Nothing)?;
    let roots = roots.iter().map(|root| {
        let stored = root.strip_prefix('/').and_then(name::decode).filter(|path| name::check(path).is_ok());
        stored.ok_or(RestoreError::Property { name: ROOTS })
    });
    let roots = roots.collect::<Result<Vec<_>, _>>()?;
    let hardlinks = check_index(&segments, &roots, &links)?;
    let selected = select(&segments, roots, options)?;
    let (prefixes, paths) = match &options.target {
        Target::IntoDir(dir) => (vec![Vec::new()], vec![dir.clone()]),
        Target::Original => {
            let path = |stored: &Vec<u8>| Path::new("/").join(OsStr::from_bytes(stored));
            (selected.clone(), selected.iter().map(path).collect())
        }
    };
    let mut targets = paths.into_iter().map(|path| look(path, options.replace)).collect::<Result<Vec<_>, _>>()?;
    let needed = assign(&mut segments, &selected, &prefixes, &hardlinks, &mut targets, last, options.only.is_empty());
    for (target, prefix) in targets.iter_mut().zip(&prefixes) {
        let dir = prefix.is_empty() || is_dir(&segments, prefix);
        if !dir && matches!(target.existing, Existing::Empty | Existing::EmptyMount) {
            if !options.replace {
                return Err(RestoreError::Exists { path: target.path.clone() });
            }
            target.existing = Existing::Occupied;
        }
    }
    let parents = parents.into_iter().map(|parent| {
        let stored = name::decode(&parent.path).filter(|path| name::check(path).is_ok());
        let mode = u32::from_str_radix(&parent.mode, 8).ok().filter(|mode| *mode <= 0o7777);
        let (stored, mode) = stored.zip(mode).ok_or(RestoreError::Property { name: PARENTS })?;
        Ok((stored, (mode, parent.uid, parent.gid)))
    });
    let mut parents = parents.collect::<Result<HashMap<_, _>, _>>()?;
    for entry in segments.values().flatten().filter(|e| e.index.kind == PathKind::Dir) {
        parents.insert(entry.path.clone(), (entry.mode, entry.index.uid, entry.index.gid));
    }
    Ok(RestorePlan { targets, secret, verify: options.verify, prefixes, segments, needed, last, parents, hardlinks })
}

fn property<T: DeserializeOwned>(properties: &[Property], name: &'static str) -> Result<T, RestoreError> {
    let mut found = properties.iter().filter(|property| property.name == name);
    let value = found.next().filter(|_| found.next().is_none()).map(|property| property.value.clone());
    value.and_then(|value| serde_json::from_value(value).ok()).ok_or(RestoreError::Property { name })
}

fn refused(index: &PathEntry, why: &'static str) -> RestoreError {
    RestoreError::Index { path: index.path.clone(), why }
}

/// Each entry on its own.
fn read_index(streams: &[Stream]) -> Result<BTreeMap<u32, Vec<Expected>>, RestoreError> {
    let mut segments = BTreeMap::new();
    for (number, stream) in (1..).zip(streams).filter(|(_, stream)| stream.kind == StreamKind::Tar) {
        let entries = stream.paths.iter().map(|index| {
            let path = name::decode(&index.path).ok_or_else(|| refused(index, "the path is spelt as none is"))?;
            name::check(&path).map_err(|why| refused(index, why))?;
            let mode = u32::from_str_radix(&index.mode, 8).ok().filter(|mode| format!("{mode:04o}") == index.mode);
            let mode = mode.filter(|m| *m <= 0o7777).ok_or_else(|| refused(index, "the mode is not octal text"))?;
            let mtime = Mtime::parse(&index.mtime).ok_or_else(|| refused(index, "the time is not seconds"))?;
            let file = index.kind == PathKind::File;
            if file != index.sha256.is_some() || (!file && (index.bytes != 0 || index.sparse)) {
                return Err(refused(index, "content and kind do not go together"));
            }
            Ok(Expected { path, index: index.clone(), mode, mtime, fate: Fate::Pass })
        });
        segments.insert(number, entries.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(segments)
}

/// The entries together: each once, inside a root, in a directory that came before; links name files that came before.
fn check_index(
    segments: &BTreeMap<u32, Vec<Expected>>,
    roots: &[Vec<u8>],
    links: &[(String, String)],
) -> Result<HashMap<Vec<u8>, Vec<u8>>, RestoreError> {
    let malformed = RestoreError::Property { name: HARDLINKS };
    let count = links.len();
    let links = links.iter().map(|(path, target)| name::decode(path).zip(name::decode(target)));
    let links: HashMap<_, _> = links.collect::<Option<_>>().ok_or(malformed)?;
    let mut seen: HashMap<&[u8], PathKind> = HashMap::new();
    let mut used = 0;
    for entry in segments.values().flatten() {
        let index = &entry.index;
        let root = roots.contains(&entry.path);
        if !root && seen.get(name::parent(&entry.path)) != Some(&PathKind::Dir) {
            return Err(refused(index, "it lies in no directory of the index"));
        }
        if root && roots.iter().any(|other| *other != entry.path && name::within(&entry.path, other)) {
            return Err(refused(index, "it is a root inside another"));
        }
        if index.kind == PathKind::Hardlink {
            let target = links.get(&entry.path).ok_or_else(|| refused(index, "it is a hard link to nothing"))?;
            if seen.get(target.as_slice()) != Some(&PathKind::File) {
                return Err(refused(index, "it is a hard link to what is no earlier file of the index"));
            }
            used += 1;
        }
        if seen.insert(&entry.path, index.kind).is_some() {
            return Err(refused(index, "it is there twice"));
        }
    }
    if used != count || used != links.len() {
        return Err(RestoreError::Property { name: HARDLINKS });
    }
    Ok(links)
}

/// The stored paths to restore, outermost only, in the order of the walk.
fn select(
    segments: &BTreeMap<u32, Vec<Expected>>,
    roots: Vec<Vec<u8>>,
    options: &RestoreOptions,
) -> Result<Vec<Vec<u8>>, RestoreError> {
    let present: HashSet<&[u8]> = segments.values().flatten().map(|entry| entry.path.as_slice()).collect();
    // An optional root may have been absent.
    let roots: Vec<Vec<u8>> = roots.into_iter().filter(|root| present.contains(root.as_slice())).collect();
    let mut selected = Vec::new();
    for path in &options.only {
        let absolute = Path::new("/").join(path);
        let stored = capture::relative(&absolute).map_err(|why| RestoreError::Path { path: path.clone(), why })?;
        let before = selected.len();
        selected.extend(roots.iter().filter(|root| name::within(root, &stored)).cloned());
        if selected.len() == before {
            if !present.contains(stored.as_slice()) {
                return Err(RestoreError::NotInSnapshot { path: path.clone() });
            }
            selected.push(stored);
        }
    }
    if options.only.is_empty() {
        selected = roots;
    }
    selected.sort_by(|a, b| name::order(a, b));
    selected.dedup_by(|inner, outer| name::within(inner, outer));
    if selected.is_empty() { Err(RestoreError::Nothing) } else { Ok(selected) }
}

/// Decides every entry's fate; gives the streams to read.
fn assign(
    segments: &mut BTreeMap<u32, Vec<Expected>>,
    selected: &[Vec<u8>],
    prefixes: &[Vec<u8>],
    hardlinks: &HashMap<Vec<u8>, Vec<u8>>,
    targets: &mut [PlannedTarget],
    last: u32,
    whole: bool,
) -> Vec<u32> {
    let target_of = |path: &[u8]| {
        let chosen = selected.iter().any(|prefix| name::within(path, prefix));
        chosen.then(|| prefixes.iter().position(|prefix| name::within(path, prefix))).flatten()
    };
    // Files that only a selected hard link needs, each for the first such link in the order of the index.
    let mut aside: HashMap<Vec<u8>, usize> = HashMap::new();
    for entry in segments.values().flatten() {
        if let (Some(target), Some(file)) = (target_of(&entry.path), hardlinks.get(&entry.path))
            && target_of(file).is_none()
        {
            aside.entry(file.clone()).or_insert(target);
        }
    }
    let mut needed = Vec::new();
    for (number, entries) in segments {
        for entry in entries.iter_mut() {
            entry.fate = match (target_of(&entry.path), aside.get(&entry.path)) {
                (Some(target), _) => Fate::Into(target),
                (None, Some(target)) => Fate::Aside(*target),
                (None, None) => Fate::Pass,
            };
            if let Fate::Into(target) | Fate::Aside(target) = entry.fate {
                targets[target].paths += u64::from(matches!(entry.fate, Fate::Into(_)));
                // A file with holes takes less than its content, and nobody knows how much less.
                targets[target].bytes += if entry.index.sparse { 0 } else { entry.index.bytes };
            }
        }
        if entries.iter().any(|entry| entry.fate != Fate::Pass) || (whole && *number == last) {
            needed.push(*number);
        }
    }
    needed
}

fn is_dir(segments: &BTreeMap<u32, Vec<Expected>>, path: &[u8]) -> bool {
    segments.values().flatten().any(|entry| entry.path == path && entry.index.kind == PathKind::Dir)
}

/// What is at a target now; an error if it is in the way.
pub(super) fn look(path: PathBuf, replace: bool) -> Result<PlannedTarget, RestoreError> {
    let failed = |source| RestoreError::Io { what: "look at", path: path.display().to_string(), source };
    if path.file_name().is_none() {
        return Err(RestoreError::Path { path, why: "it does not end in a name" });
    }
    let existing = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Existing::Absent,
        Err(error) => return Err(failed(error)),
        Ok(meta) => {
            let empty = meta.is_dir() && fs::read_dir(&path).map_err(failed)?.next().is_none();
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statx(CWD, &path, flags, StatxFlags::TYPE).map_err(|e| failed(e.into()))?;
            let mount = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
            match (empty, mount) {
                (true, false) => Existing::Empty,
                (true, true) => Existing::EmptyMount,
                (false, true) if replace => return Err(RestoreError::Mounted { path }),
                (false, _) if replace => Existing::Occupied,
                (false, _) => return Err(RestoreError::Exists { path }),
            }
        }
    };
    // The nearest directory that is there decides on which file system the target will be.
    let inside = existing == Existing::EmptyMount;
    let mut near = if inside { Some(path.as_path()) } else { path.parent() };
    let (mut free_bytes, mut room_bytes) = (0, None);
    while let Some(dir) = near {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match rustix::fs::statvfs(dir) {
            Ok(stat) => {
                free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
                let kind = rustix::fs::statfs(dir).map_err(|error| failed(error.into()))?.f_type;
                // What is set aside for root counts as well: it may be root who restores.
                room_bytes = is_plain(kind).then(|| stat.f_bfree.saturating_mul(stat.f_frsize));
                break;
            }
            Err(rustix::io::Errno::NOENT) => near = dir.parent(),
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(PlannedTarget { path, existing, paths: 0, bytes: 0, free_bytes, room_bytes })
}

/// Whether a file system of this kind (`statfs(2)`) stores content as it is: ext2 to ext4, XFS, tmpfs, FAT.
fn is_plain(kind: rustix::fs::FsWord) -> bool {
    [0xef53, 0x5846_5342, 0x0102_1994, 0x4d44].contains(&kind)
}

/// The bytes of a path of this machine.
pub(super) fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().to_owned().into_vec()
}

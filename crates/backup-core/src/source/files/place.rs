//! The ends of a restore: stages are made beside their targets, and become them by renames or are removed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, RenameFlags, Uid};
use rustix::io::Errno;

use super::plan::{self, Existing};
use super::restore::{Placed, RestoreError};
use super::stage::{self, Stage};
use super::unpack::{Staged, Unpack};

impl Unpack {
    /// Looks at the targets again and makes a stage for each.
    pub(super) fn open_stages(&mut self) -> Result<(), RestoreError> {
        let mut id = [0; 4];
        getrandom::fill(&mut id).map_err(|_| RestoreError::Interrupted)?;
        for at in 0..self.plan.targets.len() {
            let planned = &self.plan.targets[at];
            let occupied = planned.existing == Existing::Occupied;
            let path = planned.path.clone();
            let now = plan::look(path.clone(), occupied)?.existing;
            // A file that replaces an empty directory: planned as occupied, and still.
            let existing = if occupied && now != Existing::Absent { Existing::Occupied } else { now };
            let frame = self.plan.prefixes[at].is_empty();
            let inside = existing == Existing::EmptyMount || (existing == Existing::Empty && frame);
            let holder = if inside { path.as_path() } else { parent(&path) };
            self.make_parents(holder, !frame)?;
            let name = format!(".backup-restoring-{}-{at}", hex::encode(id));
            let failed =
                |what, path: &Path, source| RestoreError::Io { what, path: path.display().to_string(), source };
            let holder_fd = stage::open_outside(holder).map_err(|e| failed("open", holder, e))?;
            let staged_path = holder.join(&name);
            let mut stage =
                Stage::create(&holder_fd, &name).map_err(|e| failed("make the directory", &staged_path, e))?;
            if frame {
                stage.make_dir(b"root").map_err(|e| failed("make the directory", &staged_path, e))?;
            }
            self.plan.targets[at].existing = existing;
            let (top, late) = (None, None);
            self.staged.push(Staged { stage, holder: holder_fd, path: staged_path, inside, top, late });
        }
        Ok(())
    }

    /// Makes the directories above a target that are gone, as they were where that is known.
    fn make_parents(&mut self, dir: &Path, original: bool) -> Result<(), RestoreError> {
        let missing: Vec<&Path> = dir
            .ancestors()
            .filter(|dir| !dir.as_os_str().is_empty())
            .take_while(|dir| matches!(fs::symlink_metadata(dir), Err(e) if e.kind() == io::ErrorKind::NotFound))
            .collect();
        for dir in missing.into_iter().rev() {
            let failed =
                |source| RestoreError::Io { what: "make the directory", path: dir.display().to_string(), source };
            let stored = plan::bytes(dir);
            let known = self.plan.parents.get(stored.strip_prefix(b"/").unwrap_or(&stored)).filter(|_| original);
            rustix::fs::mkdirat(CWD, dir, Mode::RWXU).map_err(|e| failed(e.into()))?;
            self.made.push(dir.to_path_buf());
            let (mode, owner) = known.map_or((0o755, None), |(mode, uid, gid)| (*mode, Some((*uid, *gid))));
            if let Some((uid, gid)) = owner.filter(|_| self.rights.root) {
                let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
                rustix::fs::chownat(CWD, dir, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(e.into()))?;
            }
            // Usable by us until all is in place, whatever it was.
            fs::set_permissions(dir, fs::Permissions::from_mode((mode & 0o1777) | 0o700)).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes the stages and the directories made above targets. What cannot be removed stays: its name says what it is.
    pub(super) fn discard(&mut self) {
        for staged in self.staged.drain(..) {
            let _ = remove_tree(&staged.path);
        }
        for dir in self.made.drain(..).rev() {
            let _ = fs::remove_dir(dir);
        }
    }

    /// Puts every stage in place. All of them are complete, proved and durable.
    pub(super) fn place(mut self) -> Result<Vec<Placed>, RestoreError> {
        let mut placed: Vec<Placed> = Vec::new();
        for at in 0..self.staged.len() {
            match self.place_one(at) {
                Ok(old) => placed.push(Placed { target: self.plan.targets[at].path.clone(), old }),
                Err(source) => {
                    let rest = self.staged.iter().zip(&self.plan.targets).skip(at);
                    let waiting =
                        rest.map(|(staged, target)| (staged.path.join("root"), target.path.clone())).collect();
                    let in_place = placed.into_iter().map(|placed| placed.target).collect();
                    let target = self.plan.targets[at].path.clone();
                    return Err(RestoreError::Partly { target, in_place, waiting, source });
                }
            }
        }
        Ok(placed)
    }

    fn place_one(&mut self, at: usize) -> io::Result<Option<PathBuf>> {
        let target = self.plan.targets[at].path.clone();
        let existing = self.plan.targets[at].existing;
        let staged = &mut self.staged[at];
        let from = staged.path.join("root");
        if staged.inside {
            for child in fs::read_dir(&from)? {
                let child = child?.file_name();
                rename_new(&from.join(&child), &target.join(&child))?;
            }
            fs::remove_dir(&from)?;
            fs::remove_dir(&staged.path)?;
            if let Some(top) = &staged.top {
                stage::finish_open(&staged.holder, top, &mut self.rights)?;
            }
            rustix::fs::fsync(&staged.holder)?;
            return Ok(None);
        }
        let mut old = None;
        match existing {
            // An empty directory is replaced by the rename itself, unless it is no longer empty.
            Existing::Empty => rustix::fs::rename(&from, &target)?,
            Existing::Occupied => {
                let aside = dated(&target, self.now);
                rename_new(&target, &aside)?;
                if let Err(error) = rename_new(&from, &target) {
                    // Nothing took its place: what was there goes back.
                    rename_new(&aside, &target)?;
                    return Err(error);
                }
                old = Some(aside);
            }
            _ => rename_new(&from, &target)?,
        }
        if let Some((fd, mode)) = staged.late.take() {
            rustix::fs::fchmod(&fd, mode)?;
        }
        // The rename is durable once its directory is.
        rustix::fs::fsync(&staged.holder)?;
        fs::remove_dir(&staged.path)?;
        Ok(old)
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where what is replaced goes: the same name with the instant, UTC, at its end.
fn dated(target: &Path, now: chrono::DateTime<chrono::Utc>) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(now.format(".before-%Y%m%dT%H%M%SZ").to_string());
    PathBuf::from(name)
}

/// A rename that never replaces anything.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without this flag (NFS): look, then rename.
        Err(Errno::INVAL | Errno::NOSYS) => match fs::symlink_metadata(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        },
        done => Ok(done?),
    }
}

/// Removes a stage, also one whose directories got their own modes already.
fn remove_tree(path: &Path) -> io::Result<()> {
    let mut open = vec![path.to_path_buf()];
    while let Some(dir) = open.pop() {
        // Best effort: removing tells what did not work.
        let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        for child in fs::read_dir(&dir)? {
            let child = child?;
            if child.file_type()?.is_dir() {
                open.push(child.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

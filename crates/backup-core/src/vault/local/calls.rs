//! The calls on whose order it hangs what a power cut leaves. In a test they are written down, each behind its success, so
//! that the order itself can be judged: no disk of a test ever loses its power.

use std::fs::File;
use std::io;

use rustix::fd::AsFd;
use rustix::fs;
use rustix::io::Errno;

/// The bytes of a file.
pub(super) fn sync_file(file: &File) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    seen::synced(file);
    Ok(())
}

/// The names in a directory.
pub(super) fn sync_names(dir: impl AsFd) -> Result<(), Errno> {
    fs::fsync(&dir)?;
    #[cfg(test)]
    seen::synced(&dir);
    Ok(())
}

#[cfg(test)]
pub(super) mod seen {
    use std::os::fd::{AsFd, AsRawFd};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use rustix::fs;

    use super::super::lock;

    /// One of them.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(in super::super) enum Call {
        /// What lies at this path was synced, with so many bytes in it.
        Synced { path: PathBuf, bytes: u64 },
        /// A directory was made.
        Made { path: PathBuf },
        /// A draft got its name.
        Named { draft: PathBuf, path: PathBuf },
    }

    /// Of all stores of this process.
    static CALLS: Mutex<Vec<Call>> = Mutex::new(Vec::new());

    /// What a handle is open on.
    fn place(handle: impl AsFd) -> PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())).unwrap()
    }

    pub(super) fn synced(handle: impl AsFd) {
        let bytes = u64::try_from(fs::fstat(&handle).unwrap().st_size).unwrap();
        lock(&CALLS).push(Call::Synced { path: place(handle), bytes });
    }

    pub(in super::super) fn made(above: impl AsFd, name: &str) {
        lock(&CALLS).push(Call::Made { path: place(above).join(name) });
    }

    pub(in super::super) fn named(drafts: impl AsFd, draft: &str, dir: impl AsFd, name: &str) {
        lock(&CALLS).push(Call::Named { draft: place(drafts).join(draft), path: place(dir).join(name) });
    }

    /// Those below a root, in order.
    pub(in super::super) fn below(root: &Path) -> Vec<Call> {
        let inside = |call: &&Call| match call {
            Call::Synced { path, .. } | Call::Made { path } | Call::Named { path, .. } => path.starts_with(root),
        };
        lock(&CALLS).iter().filter(inside).cloned().collect()
    }
}

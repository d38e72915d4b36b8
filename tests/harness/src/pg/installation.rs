//! A PostgreSQL installation with one more extension, without touching the machine's.
//!
//! A server looks for its files relative to where its own program is. So copies of the two programs, beside links to
//! everything else, are an installation of their own, in which files can be added.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// A copy that is removed when dropped; give [`Installation::bin`] to [`super::Options`].
#[derive(Debug)]
pub struct Installation {
    bin: PathBuf,
    _dir: tempfile::TempDir,
}

impl Installation {
    /// The installed major with the files of the directory `extension` added to its extensions.
    ///
    /// # Panics
    /// When that major is not here or files cannot be written.
    pub fn with_extension(major: u32, extension: &Path) -> Self {
        let bin = super::versions::server(Some(major)).expect("an installed major");
        let bin = fs::canonicalize(bin).expect("a directory");
        let shares = [bin.join("../share/postgresql"), PathBuf::from(format!("/usr/share/postgresql/{major}"))];
        let share = shares.iter().find(|dir| dir.join("extension").exists()).expect("the server's shared files");
        let share = fs::canonicalize(share).expect("a directory");
        let base = bin.ancestors().find(|dir| share.starts_with(dir)).expect("`/` at least");

        let dir = tempfile::Builder::new().prefix("pg-inst-").tempdir_in(super::short_temp_dir()).expect("a directory");
        let inside = |path: &Path| dir.path().join(path.strip_prefix(base).expect("below the common directory"));
        let (new_bin, new_share) = (inside(&bin), inside(&share));
        let extensions = new_share.join("extension");
        fs::create_dir_all(&new_bin).expect("a directory");
        fs::create_dir_all(&extensions).expect("a directory");
        for program in ["initdb", "postgres"] {
            fs::copy(bin.join(program), new_bin.join(program)).expect("a copy of a program");
        }
        symlink(bin.join("../lib"), new_bin.join("../lib")).expect("a link");
        link_all(&share, &new_share);
        link_all(&share.join("extension"), &extensions);
        for file in fs::read_dir(extension).expect("the extension's files").flatten() {
            fs::copy(file.path(), extensions.join(file.file_name())).expect("a copy of a file");
        }
        // The server runs as another user when we are root.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a directory that others can enter");
        Self { bin: new_bin, _dir: dir }
    }

    /// Directory with `initdb` and `postgres`.
    pub fn bin(&self) -> PathBuf {
        self.bin.clone()
    }
}

/// Links to everything in `from` that `to` does not have.
fn link_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let new = to.join(entry.file_name());
        if !new.exists() {
            symlink(entry.path(), new).expect("a link");
        }
    }
}

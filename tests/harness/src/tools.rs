//! Stock programs that a test needs, and saying so aloud when one is not there.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program `name` in one of the directories of `PATH`.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Says that `what` is not tested here and why: on standard error, and in the file that `BACKUP_SKIPS_FILE` names (the
/// runner hides the output of tests that pass). The first word of `what` is the name that `REQUIRE` knows.
///
/// # Panics
/// When `REQUIRE` (names separated by commas) contains that name, or the line cannot be written.
pub fn skip(what: &str, why: &str) {
    let file = std::env::var_os("BACKUP_SKIPS_FILE").map(PathBuf::from);
    skip_in(&std::env::var("REQUIRE").unwrap_or_default(), file.as_deref(), what, why);
}

/// [`skip`] with its two variables given.
fn skip_in(required: &str, file: Option<&Path>, what: &str, why: &str) {
    let line = format!("SKIPPED: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
    if let Some(file) = file {
        let mut file = File::options().create(true).append(true).open(file).expect("the file of skips can be opened");
        file.write_all(line.as_bytes()).expect("the file of skips can be written");
    }
    assert!(!requires(required, what), "`{what}` is required here and was skipped: {why}");
}

/// A small file system in memory; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one with these `options` of mount(8) on `dir`, which is made if it is missing. Without the right to mount
    /// it is said aloud that `what` is skipped (`REQUIRE` knows it as `tmpfs`), and there is none.
    pub fn mount(dir: &Path, options: &str, what: &str) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("the mount point can be made");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        skip(&format!("tmpfs for {what}"), "no right to mount one");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Whether the list `required` names the first word of `what`.
fn requires(required: &str, what: &str) -> bool {
    let name = what.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default();
    required.split(',').any(|required| required.trim() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_may_not_be_skipped() {
        assert!(requires("pg15,s3, stock-tools", "stock-tools: age"));
        assert!(requires("pg15", "pg15"));
        assert!(!requires("pg15", "pg1"));
        assert!(!requires("", "pg15"));
        assert!(tool("sh").is_some());
        assert!(tool("no-such-program").is_none());
    }

    #[test]
    fn a_skip_is_counted_and_what_is_required_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("skips");
        skip_in("pg15", Some(&file), "tmpfs for a full disk", "no right");
        let failed = std::panic::catch_unwind(|| skip_in("pg15,tmpfs", Some(&file), "tmpfs for another", "no right"));
        assert!(failed.is_err(), "it was required");
        let said = std::fs::read_to_string(&file).expect("the file of skips");
        assert_eq!(said, "SKIPPED: tmpfs for a full disk: no right\nSKIPPED: tmpfs for another: no right\n");
    }

    /// A skip that is only printed is not counted, and `REQUIRE` does not know it.
    #[test]
    fn no_test_of_stores_files_or_units_says_a_skip_by_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (mut open, mut read) = (vec![root.join("tests/suite"), root.join("crates"), root.join("retention")], 0);
        let word = ["\"SKIPPED", ": "].concat();
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
                let path = entry.path();
                if path.is_dir() {
                    // Tables of whole stacks are another suite's.
                    if !path.ends_with("bad_input") {
                        open.push(path);
                    }
                } else if path.extension().is_some_and(|end| end == "rs") {
                    let text = std::fs::read_to_string(&path).expect("a source");
                    assert!(!text.contains(&word), "{} says a skip without `harness::skip`", path.display());
                    read += 1;
                }
            }
        }
        assert!(read > 50, "only {read} sources were found");
    }
}

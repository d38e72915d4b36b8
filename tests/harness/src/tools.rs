//! Stock programs that a test needs, and saying so aloud when one is not there.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

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
    let line = format!("SKIPPED: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
    if let Some(file) = std::env::var_os("BACKUP_SKIPS_FILE") {
        let mut file = File::options().create(true).append(true).open(file).expect("the file of skips can be opened");
        file.write_all(line.as_bytes()).expect("the file of skips can be written");
    }
    let required = std::env::var("REQUIRE").unwrap_or_default();
    assert!(!requires(&required, what), "`{what}` is required here and was skipped: {why}");
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
}

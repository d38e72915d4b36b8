//! Which majors of PostgreSQL are on this machine, and where their programs are.
//!
//! Debian's packages bring one major. Others are put by `scripts/lib/pgmajors.sh` below one directory, as
//! `<major>/bin` (server and `initdb` only) and `clients/<major>/bin`: `BACKUP_PG_DIR` names it, else it is where that
//! script puts it. A server without client programs of its own is used with the nearest ones that are not older, as
//! the engine would.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where Debian keeps the versions, one directory with `bin` for each.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Majors that the suite is written for.
const NEWEST: u32 = 18;

/// Says whether a server of this major with clients can be started here; if not, that its tests are skipped (the name
/// for `REQUIRE` is `pg<major>`).
pub fn available(major: u32) -> bool {
    let missing = match (server(Some(major)), clients(major)) {
        (Some(_), Some(_)) => return true,
        (None, _) => "no server of this major (scripts/lib/pgmajors.sh installs it)",
        (_, None) => "no client programs that are new enough (scripts/lib/pgmajors.sh installs them)",
    };
    crate::skip(&format!("pg{major}"), missing);
    false
}

/// Directory with `initdb` and `postgres` of a major, or of Debian's newest.
pub(super) fn server(major: Option<u32>) -> Option<PathBuf> {
    let has = |dir: PathBuf| dir.join("initdb").exists().then_some(dir);
    match major {
        Some(major) => bins(major).into_iter().find_map(has),
        None => majors(Path::new(DEBIAN)).into_iter().rev().find_map(|(_, dir)| has(dir)),
    }
}

/// Directory with the client programs for a server: of its own major, else of the next one.
pub(super) fn clients(major: u32) -> Option<PathBuf> {
    let dirs = (major..=NEWEST.max(major)).flat_map(|major| {
        let own = root().join("clients").join(major.to_string()).join("bin");
        bins(major).into_iter().chain([own])
    });
    dirs.into_iter().find(|dir| dir.join("pg_dump").exists())
}

/// The client programs of Debian's newest major.
pub(super) fn debian_clients() -> Option<PathBuf> {
    majors(Path::new(DEBIAN)).into_iter().rev().map(|(_, dir)| dir).find(|dir| dir.join("psql").exists())
}

fn bins(major: u32) -> [PathBuf; 2] {
    [Path::new(DEBIAN).join(major.to_string()).join("bin"), root().join(major.to_string()).join("bin")]
}

fn majors(dir: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))));
    let mut found: Vec<_> = named.collect();
    found.sort();
    found
}

/// The directory of other majors. Root's servers run as another user, who cannot enter root's home.
fn root() -> PathBuf {
    if let Some(dir) = std::env::var_os("BACKUP_PG_DIR") {
        return PathBuf::from(dir);
    }
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return PathBuf::from("/usr/local/lib/backup-test/postgresql");
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_default().join("backup/postgresql")
}

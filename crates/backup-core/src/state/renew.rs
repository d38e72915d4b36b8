//! A state that is broken must not keep a backup from being made: all of it can be lost.
//!
//! A file that is no database any more, or one with pages that contradict each other, is moved aside under a dated name and
//! never deleted; a new one takes its place, made beside it with the note in it of what was lost (`renewed`), so that no crash leaves one
//! without that note. Its log is moved first: a log that stayed would be played into the new file. One
//! process at a time does this, and looks again before: another one may have renewed the state meanwhile. What merely cannot
//! be used (a full disk, missing rights) is not broken, and stays where it is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::{State, StateError, migrate};
use crate::id::StackName;

/// Primary result codes of `SQLite` (its `rescode.html`).
const CORRUPT: [i32; 2] = [11, 26];
const UNUSABLE: [i32; 4] = [8, 10, 13, 14];

impl StateError {
    /// Whether the file itself is broken, so that no later call could use it.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. }) || self.code().is_some_and(|code| CORRUPT.contains(&code))
    }

    /// Whether the file cannot be written now: a full disk, an error of the disk, missing rights.
    pub fn is_unusable(&self) -> bool {
        self.code().is_some_and(|code| UNUSABLE.contains(&code))
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        self.code() == Some(13)
    }

    fn code(&self) -> Option<i32> {
        let Self::Database { source: sqlx::Error::Database(error), .. } = self else { return None };
        // The low byte of an extended code is the primary one.
        error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
    }
}

impl State {
    /// [`State::open`], and every page is looked at. A broken state is moved aside, `at` in its new name, and a new one is made;
    /// gives where the old one is then.
    pub async fn open_or_renew(
        dir: &Path,
        stack: &StackName,
        at: DateTime<Utc>,
    ) -> Result<(Self, Option<PathBuf>), StateError> {
        match Self::open_whole(dir, stack).await {
            Err(error) if error.is_broken() => {}
            other => return other.map(|state| (state, None)),
        }
        let moving = |source| StateError::Aside { path: dir.join("state.sqlite").display().to_string(), source };
        let lock = dir.join("state.renew.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(lock).map_err(moving)?;
        lock.lock().map_err(moving)?;
        match Self::open_whole(dir, stack).await {
            Err(error) if error.is_broken() => {}
            other => return other.map(|state| (state, None)),
        }
        let fresh = dir.join("state.sqlite.new");
        for part in ["", "-wal", "-shm"] {
            // What a call that died has left.
            let _ = fs::remove_file(dir.join(format!("state.sqlite.new{part}")));
        }
        let state = Self::open_file(&fresh, stack).await?;
        state.note_renewed(at).await?;
        state.pool.close().await;
        let aside = move_aside(dir, at).map_err(moving)?;
        fs::rename(&fresh, dir.join("state.sqlite")).map_err(moving)?;
        Ok((Self::open(dir, stack).await?, Some(aside)))
    }

    /// A state that ends with the process: nothing is remembered from before, nothing for later.
    pub async fn of_this_process(stack: &StackName) -> Result<Self, StateError> {
        let path = ":memory:".to_owned();
        let failed = |source| StateError::Database { path: path.clone(), source };
        // A second connection would be a second database, and one that is closed is lost.
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let options = SqliteConnectOptions::new().in_memory(true);
        let pool = pool.connect_with(options).await.map_err(failed)?;
        migrate(&pool).await.map_err(failed)?;
        Ok(Self { pool, path, stack: stack.clone() })
    }

    async fn open_whole(dir: &Path, stack: &StackName) -> Result<Self, StateError> {
        let state = Self::open(dir, stack).await?;
        let found = sqlx::query("PRAGMA quick_check(1)").fetch_one(&state.pool).await;
        let error = match found.map(|row| row.get::<String, _>(0)) {
            Ok(ok) if ok == "ok" => return Ok(state),
            Ok(reason) => StateError::Broken { path: state.path, reason },
            Err(source) => state.failed(source),
        };
        // Whoever moves the file must not have it open.
        state.pool.close().await;
        Err(error)
    }
}

/// The file and its log, the log first. Where it can be, the file gets a second name and keeps its own until the new one takes it: a
/// name that is free for a moment would be taken by a state that knows nothing of what was lost.
fn move_aside(dir: &Path, at: DateTime<Utc>) -> std::io::Result<PathBuf> {
    let stem = format!("state.sqlite.broken-{}", at.format("%Y%m%dT%H%M%SZ"));
    let name = |number: u32| if number == 0 { stem.clone() } else { format!("{stem}-{number}") };
    // A state that breaks so often within a second may take the last one's place.
    let free = (0..99).map(name).find(|name| !dir.join(name).exists()).unwrap_or_else(|| name(99));
    for part in ["-wal", "-shm"] {
        match fs::rename(dir.join(format!("state.sqlite{part}")), dir.join(format!("{free}{part}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let (file, aside) = (dir.join("state.sqlite"), dir.join(free));
    fs::hard_link(&file, &aside).or_else(|_| fs::rename(&file, &aside))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Hash256, SourceName};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.contains("broken"));
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_broken_state_is_moved_aside_and_a_good_one_is_not() {
        let at = "2026-11-22T02:03:04Z".parse().unwrap();
        let (stack, source): (StackName, SourceName) = ("s".parse().unwrap(), "db".parse().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let (state, aside) = State::open_or_renew(dir, &stack, at).await.unwrap();
        assert_eq!(aside, None);
        for number in 0..200_u8 {
            let id = format!("20261122T020304Z-{number}");
            let run = super::super::RunRecord {
                id,
                job: None,
                started: at,
                finished: None,
                outcome: None,
                report: Some("x".repeat(400)),
            };
            state.put_run(&run).await.unwrap();
        }
        state.set_head(&source, "x", Hash256([1; 32])).await.unwrap();
        state.pool.close().await;
        let whole = fs::read(dir.join("state.sqlite")).unwrap();
        let mut torn = whole.clone();
        torn.truncate(whole.len() / 2);
        // A page in the middle, where a call that reads a few rows never looks.
        let mut wild = whole.clone();
        let middle = whole.len() / 2 / 4096 * 4096;
        wild[middle..middle + 4096].fill(0xa5);
        for (number, body) in [b"garbage, and no database".to_vec(), torn, wild].into_iter().enumerate() {
            fs::write(dir.join("state.sqlite"), &body).unwrap();
            let (state, aside) = State::open_or_renew(dir, &stack, at).await.unwrap();
            let aside = aside.unwrap_or_else(|| panic!("{number} is broken"));
            assert_eq!(fs::read(&aside).unwrap(), body, "{number}: it is kept as it was");
            assert_eq!(
                names(dir).iter().filter(|name| !name.ends_with("-shm") && !name.ends_with("-wal")).count(),
                number + 1
            );
            assert_eq!(state.head(&source).await.unwrap(), None);
            state.set_head(&source, "y", Hash256([2; 32])).await.unwrap();
            state.pool.close().await;
            let (state, aside) = State::open_or_renew(dir, &stack, at).await.unwrap();
            assert_eq!((state.head(&source).await.unwrap(), aside), (Some(Hash256([2; 32])), None), "{number}");
            state.pool.close().await;
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_from_a_broken_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &"s".parse().unwrap()).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 1").execute(&state.pool).await.unwrap();
        let run = |report: usize| super::super::RunRecord {
            id: "a".into(),
            job: None,
            started: DateTime::UNIX_EPOCH,
            finished: None,
            outcome: None,
            report: Some("x".repeat(report)),
        };
        let full = state.put_run(&run(1 << 20)).await.unwrap_err();
        assert!(full.is_full() && full.is_unusable() && !full.is_broken(), "{full:?}");
        let here = State::of_this_process(&"s".parse().unwrap()).await.unwrap();
        here.put_run(&run(1)).await.unwrap();
        assert_eq!(here.runs(9).await.unwrap().len(), 1);
    }
}

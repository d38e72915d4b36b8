//! What a power cut may take, judged by the order of the calls: bytes are durable once their file was synced behind its last
//! byte, a name once the directory that holds it was synced behind it, and so on up to the root.

use std::path::Path;

use super::super::calls::seen::{Call, below};
use super::*;

/// Whether what lies in `bytes` at `path` is there after a power cut behind the last of `calls`, though none was before the
/// first of them; else what is missing.
fn survives(calls: &[Call], root: &Path, path: &str, bytes: usize) -> Result<(), String> {
    let at = root.join(path);
    let named = calls.iter().rposition(|call| matches!(call, Call::Named { path, .. } if *path == at));
    let named = named.ok_or_else(|| format!("{path} never got its name"))?;
    let Call::Named { draft, .. } = &calls[named] else { unreachable!() };
    let whole = Call::Synced { path: draft.clone(), bytes: bytes as u64 };
    // Behind its name it would be too late: the name could be there without the bytes.
    if !calls[..named].contains(&whole) {
        return Err(format!("{path} got its name before its {bytes} bytes were synced"));
    }
    let mut since = named;
    for above in at.ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        let synced = |call: &Call| matches!(call, Call::Synced { path, .. } if path == above);
        if !calls[since..].iter().any(synced) {
            return Err(format!("a name in {} was not synced", above.display()));
        }
        // The directory's own name came when it was made; what was there before the first call is durable.
        let Some(made) = calls.iter().position(|call| matches!(call, Call::Made { path } if path == above)) else {
            continue;
        };
        since = made;
    }
    Ok(())
}

/// Whether the directory of `path` and all above it were synced in `calls`.
fn names_are_synced(calls: &[Call], root: &Path, path: &str) {
    for above in root.join(path).ancestors().skip(1).take_while(|above| above.starts_with(root)) {
        let synced = |call: &Call| matches!(call, Call::Synced { path, .. } if path == above);
        assert!(calls.iter().any(synced), "{} was not synced for {path}", above.display());
    }
}

/// The directory as the system names it.
fn root(dir: &tempfile::TempDir) -> PathBuf {
    fs::canonicalize(dir.path()).unwrap()
}

const PLACES: [&str; 4] = ["top", "a/b/c/deep", "a/b/beside", "a/other/x"];

#[tokio::test]
async fn behind_a_barrier_no_power_cut_takes_anything() {
    let (dir, store) = open();
    let root = root(&dir);
    for (nth, mode) in [PutMode::CreateOnly, PutMode::Replace].into_iter().enumerate() {
        let bytes = 10 + nth;
        for place in PLACES {
            // The second time something lies there already, which is replaced.
            store.put(&path(place), vec![7; bytes].into(), mode).await.unwrap();
        }
        for place in PLACES {
            let early = survives(&below(&root), &root, place, bytes).unwrap_err();
            assert!(early.contains("was not synced"), "only the barrier is missing: {early}");
        }
        store.sync().await.unwrap();
        let calls = below(&root);
        for place in PLACES {
            // Fails where a sync of the file, of its folder or of one above is left out, or comes too early.
            survives(&calls, &root, place, bytes).unwrap();
        }
    }
    // A body in a folder that a barrier made durable needs its own.
    store.put(&path("a/b/later"), vec![7; 5].into(), PutMode::CreateOnly).await.unwrap();
    let calls = below(&root).len();
    survives(&below(&root), &root, "a/b/later", 5).unwrap_err();
    store.sync().await.unwrap();
    survives(&below(&root), &root, "a/b/later", 5).unwrap();
    names_are_synced(&below(&root)[calls..], &root, "a/b/later");
}

#[tokio::test]
async fn what_a_dead_run_left_is_durable_behind_the_barrier_of_whoever_relies_on_it() {
    let (dir, store) = open();
    let root = root(&dir);
    for place in PLACES {
        store.put(&path(place), vec![7; 10].into(), PutMode::CreateOnly).await.unwrap();
    }
    drop(store);
    for how in ["put", "stat", "list"] {
        let store = LocalStore::open(&root, LocalOptions::default()).unwrap();
        let before = below(&root).len();
        for place in PLACES {
            match how {
                "put" => {
                    let put = store.put(&path(place), vec![7; 10].into(), PutMode::CreateOnly).await.unwrap();
                    assert_eq!(put, PutOutcome::AlreadyThere);
                }
                "stat" => assert!(store.stat(&path(place)).await.unwrap().is_some()),
                _ => assert_eq!(store.list(None).await.unwrap().len(), PLACES.len()),
            }
        }
        store.sync().await.unwrap();
        for place in PLACES {
            names_are_synced(&below(&root)[before..], &root, place);
        }
    }
}

#[tokio::test]
async fn what_was_deleted_or_moved_aside_stays_so_behind_a_barrier() {
    let (dir, store) = open();
    let root = root(&dir);
    for place in PLACES {
        store.put(&path(place), vec![7; 10].into(), PutMode::CreateOnly).await.unwrap();
    }
    store.sync().await.unwrap();
    let before = below(&root).len();
    assert!(store.set_aside(&path("a/b/beside"), &path("kept/a/b/beside")).await.unwrap());
    store.sync().await.unwrap();
    names_are_synced(&below(&root)[before..], &root, "kept/a/b/beside");
    names_are_synced(&below(&root)[before..], &root, "a/b/beside");
    let before = below(&root).len();
    store.delete(&path("a/b/beside")).await.unwrap();
    store.sync().await.unwrap();
    names_are_synced(&below(&root)[before..], &root, "a/b/beside");
    // The folders that it was alone in went with it.
    let before = below(&root).len();
    store.delete(&path("a/b/c/deep")).await.unwrap();
    store.sync().await.unwrap();
    assert!(!root.join("a/b").exists() && root.join("a").exists());
    names_are_synced(&below(&root)[before..], &root, "a/x");
}

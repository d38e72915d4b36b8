mod power;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::SystemTime;

use super::*;

fn path(text: &str) -> StorePath {
    StorePath::new(text).unwrap()
}

fn open() -> (tempfile::TempDir, LocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path(), LocalOptions::default()).unwrap();
    (dir, store)
}

#[tokio::test]
async fn a_root_that_is_not_there_is_missing_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("not-mounted");
    let error = LocalStore::open(&root, LocalOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(!root.exists());
    fs::write(&root, "a file").unwrap();
    let error = LocalStore::open(&root, LocalOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn files_and_folders_are_private_and_drafts_are_gone() {
    let (dir, store) = open();
    store.put(&path("a/b/c"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    store.sync().await.unwrap();
    let mode = |p: &str| fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a"), mode("a/b"), mode("a/b/c"), mode(".tmp")), (0o700, 0o700, 0o600, 0o700));
    assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_put_that_fails_leaves_no_draft() {
    let (dir, store) = open();
    store.put(&path("a"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    // A file stands where a folder should.
    store.put(&path("a/b"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap_err();
    assert_eq!(fs::read_dir(dir.path().join(".tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn links_are_not_followed() {
    let (dir, store) = open();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x"), "outside").unwrap();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("x"), dir.path().join("x")).unwrap();
    for inside in ["out/x", "x"] {
        let error = store.get(&path(inside), 100).await.unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{inside}: {error}");
    }
    store.put(&path("out/new"), Bytes::from_static(b"x"), PutMode::Replace).await.unwrap_err();
    assert!(!outside.path().join("new").exists());
    assert_eq!(store.list(None).await.unwrap(), []);
    assert_eq!(store.children(None).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn foreign_files_are_left_out_and_left_alone() {
    let (dir, store) = open();
    fs::create_dir_all(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("a b"), "x").unwrap();
    fs::write(dir.path().join(".hidden"), "x").unwrap();
    store.put(&path("a"), Bytes::from_static(b"x"), PutMode::Replace).await.unwrap();
    assert_eq!(store.children(None).await.unwrap(), ["a"]);
    assert_eq!(store.list(None).await.unwrap().len(), 1);
    store.delete(&path("a")).await.unwrap();
    assert!(dir.path().join("a b").exists() && dir.path().join(".hidden").exists());
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "ages of files are by the file system's clock")]
async fn only_old_drafts_of_ours_are_removed_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let drafts = dir.path().join(".tmp");
    fs::create_dir(&drafts).unwrap();
    let old = SystemTime::now() - Duration::from_hours(48);
    for (name, is_old) in [
        ("put-0123456789abcdef", true),
        ("put-1123456789abcdef", false),
        ("put-0123456789abcdeg", true),
        ("notes", true),
    ] {
        let file = fs::File::create(drafts.join(name)).unwrap();
        if is_old {
            file.set_modified(old).unwrap();
        }
    }
    LocalStore::open(dir.path(), LocalOptions::default()).unwrap();
    let mut left: Vec<_> =
        fs::read_dir(&drafts).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["notes", "put-0123456789abcdeg", "put-1123456789abcdef"]);
}

#[tokio::test]
async fn a_barrier_fails_when_a_written_folder_is_gone_and_stays_failed() {
    let (dir, store) = open();
    store.put(&path("gen/a"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    fs::remove_dir_all(dir.path().join("gen")).unwrap();
    let error = store.sync().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { action: "sync", .. }), "{error}");
    store.sync().await.unwrap_err();
    let error = store.put(&path("gen/a"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap_err();
    assert!(error.to_string().contains("an earlier sync failed"), "{error}");
}

#[tokio::test]
async fn a_barrier_survives_folders_that_were_only_seen_or_were_deleted_by_us() {
    let (dir, store) = open();
    fs::create_dir(dir.path().join("old")).unwrap();
    fs::write(dir.path().join("old/a"), "x").unwrap();
    store.list(None).await.unwrap();
    fs::remove_dir_all(dir.path().join("old")).unwrap();
    store.put(&path("new/deep/a"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    store.delete(&path("new/deep/a")).await.unwrap();
    assert!(!dir.path().join("new").exists());
    store.sync().await.unwrap();
}

#[tokio::test]
async fn a_deletion_does_not_make_the_loss_of_a_written_folder_pass_unseen() {
    let (dir, store) = open();
    for name in ["gen/a", "gen/b"] {
        store.put(&path(name), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    }
    store.delete(&path("gen/b")).await.unwrap();
    fs::remove_dir_all(dir.path().join("gen")).unwrap();
    let error = store.sync().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { action: "sync", .. }), "{error}");
}

/// A store with one body in `gen`, and a barrier over it that is under way and waits for the sender.
async fn in_a_barrier() -> (tempfile::TempDir, Arc<LocalStore>, std::sync::mpsc::Sender<()>, JoinHandle) {
    let dir = tempfile::tempdir().unwrap();
    // One thread: it waits before the first folder.
    let options = LocalOptions { threads: 1, ..LocalOptions::default() };
    let store = Arc::new(LocalStore::open(dir.path(), options).unwrap());
    store.put(&path("gen/a"), Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
    let (open_gate, gate) = std::sync::mpsc::channel();
    *lock(&store.inner.gate) = Some(gate);
    let first = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.sync().await }
    });
    while lock(&store.inner.gate).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (dir, store, open_gate, first)
}

type JoinHandle = tokio::task::JoinHandle<Result<(), StoreError>>;

/// Long enough for a barrier that waits for nothing.
const A_WHILE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_barrier_waits_for_the_one_before_it_and_for_its_failure() {
    let (_dir, store, open_gate, first) = in_a_barrier().await;
    let mut second = store.sync();
    assert!(tokio::time::timeout(A_WHILE, &mut second).await.is_err(), "returned before its body was durable");
    drop(open_gate);
    second.await.unwrap();
    first.await.unwrap().unwrap();

    let (dir, store, open_gate, first) = in_a_barrier().await;
    fs::remove_dir_all(dir.path().join("gen")).unwrap();
    let second = tokio::spawn(async move { store.sync().await });
    drop(open_gate);
    for answer in [first.await.unwrap(), second.await.unwrap()] {
        assert!(matches!(answer.unwrap_err(), StoreError::Failed { action: "sync", .. }));
    }
}

#[tokio::test]
async fn a_barrier_whose_caller_is_gone_is_not_forgotten() {
    let (_dir, store, open_gate, first) = in_a_barrier().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let mut second = store.sync();
    assert!(tokio::time::timeout(A_WHILE, &mut second).await.is_err(), "returned before its body was durable");
    drop(open_gate);
    second.await.unwrap();

    let (dir, store, open_gate, first) = in_a_barrier().await;
    first.abort();
    fs::remove_dir_all(dir.path().join("gen")).unwrap();
    drop(open_gate);
    let error = store.sync().await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { action: "sync", .. }), "{error}");
}

#[tokio::test]
async fn a_folder_that_is_deleted_during_a_barrier_does_not_break_it() {
    let (dir, store, open_gate, first) = in_a_barrier().await;
    let at = path("gen/a");
    let mut deleted = store.delete(&at);
    assert!(tokio::time::timeout(A_WHILE, &mut deleted).await.is_err(), "deleted under a barrier");
    drop(open_gate);
    deleted.await.unwrap();
    first.await.unwrap().unwrap();
    store.sync().await.unwrap();
    assert!(!dir.path().join("gen").exists());
}

#[test]
fn every_folder_above_is_synced_too() {
    let (_dir, store) = open();
    store.inner.put(&path("a/b/c/d"), b"x", PutMode::CreateOnly).unwrap();
    let written: Vec<_> = lock(&store.inner.touched).written.iter().cloned().collect();
    assert_eq!(written, ["", "a", "a/b", "a/b/c"]);
    // Found in place, the names may still be in memory only: the run that made them may have died before its barrier.
    let again = LocalStore::open(&store.inner.root, LocalOptions::default()).unwrap();
    assert_eq!(again.inner.put(&path("a/b/c/d"), b"x", PutMode::CreateOnly).unwrap(), PutOutcome::AlreadyThere);
    assert_eq!(lock(&again.inner.touched).written.len(), 4);
}

#[tokio::test]
async fn a_folder_is_shown_where_a_body_lies_below_it() {
    let (dir, store) = open();
    for folder in ["empty/deep", "full/deep"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("full/deep/body"), "x").unwrap();
    assert_eq!(store.children(None).await.unwrap(), ["full"]);
    assert_eq!(store.children(Some(&path("full"))).await.unwrap(), ["deep"]);
    assert_eq!(store.children(Some(&path("empty"))).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_folders_of_listed_bodies_are_synced_too() {
    let (dir, store) = open();
    fs::create_dir_all(dir.path().join("a/gen")).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::write(dir.path().join("a/gen/body"), "x").unwrap();
    assert_eq!(store.list(None).await.unwrap().len(), 1);
    let seen: Vec<_> = lock(&store.inner.touched).seen.iter().cloned().collect();
    assert_eq!(seen, ["", "a", "a/gen"]);
}

#[tokio::test]
async fn replacing_makes_a_new_file_so_a_reader_keeps_the_old_one() {
    let (dir, store) = open();
    store.put(&path("a"), Bytes::from_static(b"old"), PutMode::Replace).await.unwrap();
    let before = fs::metadata(dir.path().join("a")).unwrap().ino();
    let held = fs::File::open(dir.path().join("a")).unwrap();
    store.put(&path("a"), Bytes::from_static(b"newer"), PutMode::Replace).await.unwrap();
    assert_ne!(before, fs::metadata(dir.path().join("a")).unwrap().ino());
    assert_eq!(std::io::read_to_string(held).unwrap(), "old");
}

#[tokio::test]
async fn writers_and_deleters_of_one_folder_do_not_trip_over_each_other() {
    let (_dir, store) = open();
    let store = Arc::new(store);
    let work = (0..200).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mine = path(&format!("gen/{n}"));
            store.put(&mine, Bytes::from_static(b"x"), PutMode::CreateOnly).await.unwrap();
            store.delete(&mine).await.unwrap();
        })
    });
    for done in futures::future::join_all(work).await {
        done.unwrap();
    }
    assert_eq!(store.children(None).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn free_space_is_the_file_systems() {
    let (dir, store) = open();
    assert_eq!(store.describe(), dir.path().display().to_string());
    let space = store.free_space().await.unwrap();
    assert!(space.free_bytes > 0 && space.free_bytes <= space.total_bytes, "{space:?}");
    assert!(space.total_bytes > 1 << 20, "bytes, not blocks: {space:?}");
}

#[test]
fn system_errors_get_their_kind() {
    let kind = |errno: Errno| refusal(Path::new("/v"), "write", "a", &errno.into());
    assert!(matches!(kind(Errno::NOSPC), StoreError::Full { .. }));
    assert!(matches!(kind(Errno::DQUOT), StoreError::Full { .. }));
    assert!(matches!(kind(Errno::ACCESS), StoreError::Denied { .. }));
    assert!(matches!(kind(Errno::ROFS), StoreError::Denied { .. }));
    assert!(matches!(kind(Errno::IO), StoreError::Failed { attempts: 1, .. }));
    // A link, or what is no file: only for who reads is it a body that nobody gets.
    assert!(matches!(kind(Errno::LOOP), StoreError::Failed { .. }));
    let reading = |errno: Errno| refusal(Path::new("/v"), "read", "a", &errno.into());
    assert!(matches!(reading(Errno::LOOP), StoreError::Unusable { .. }));
    assert!(matches!(reading(Errno::IO), StoreError::Failed { .. }));
    assert!(matches!(reading(Errno::ACCESS), StoreError::Denied { .. }));
    assert!(reading(Errno::IO).to_string().contains("/v"), "an error names its store");
}

//! Files through capture and restore, and through stock `tar`, compared by what the kernel says of every path.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use backup_core::id::Hash256;
use backup_core::manifest::PathKind;
use backup_core::monitor::{Event, Monitor, Silent};
use backup_core::source::files::{FilesError, FilesOptions, RestoreError, RestoreOptions, Verify, capture, plan};
use harness::tools::Tmpfs;
use rustix::fs::XattrFlags;

use support::{
    Full, Hook, Memory, Stored, below, clock, into_dir, is_root, make_tree, names, noise, original, put, quiet,
    set_mtime, take, take_with, tree,
};

#[tokio::test]
async fn everything_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    let before = tree(&root);
    let stored = take(&[&root]).await;
    assert_eq!(stored.suspect, Vec::<String>::new());
    let out = place.path().join("out");
    let restored = put(&stored, &RestoreOptions { verify: Verify::Content, ..into_dir(&out) }).await.unwrap();
    assert_eq!(tree(&below(&out, &root)), before);
    assert_eq!(tree(&root), before, "a capture changes nothing");
    assert_eq!(restored.notes, Vec::<String>::new());
    let files = restored.proof.files.len() as u64;
    assert_eq!(files + restored.proof.others, before.len() as u64);
    assert_eq!(names(place.path()), ["out", "tree"], "no stage is left");
    let blocks = fs::metadata(below(&out, &root).join("sparse")).unwrap().blocks();
    assert!(blocks * 512 < 1 << 20, "holes are holes again: {blocks} blocks");
    let sparse: Vec<_> = stored.streams.iter().flat_map(|s| &s.paths).filter(|p| p.sparse).map(|p| &p.path).collect();
    assert!(sparse.len() == 1 && sparse[0].ends_with("/sparse"), "{sparse:?}");
}

#[tokio::test]
async fn stock_tar_gives_the_same_tree() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    let stored = take(&[&root]).await;
    let archive = place.path().join("all.tar");
    fs::write(&archive, stored.bytes.concat()).unwrap();
    let list = Command::new("tar").args(["--quoting-style=escape", "-tf"]).arg(&archive).output().unwrap();
    assert!(list.status.success() && list.stderr.is_empty(), "{}", String::from_utf8_lossy(&list.stderr));
    let entries: usize = stored.streams.iter().map(|stream| stream.paths.len()).sum();
    assert_eq!(String::from_utf8(list.stdout).unwrap().lines().count(), entries);
    let out = place.path().join("out");
    fs::create_dir(&out).unwrap();
    let mut extract = Command::new("tar");
    extract
        .args(["-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C"])
        .arg(&out)
        .arg("-f")
        .arg(&archive);
    let done = extract.output().unwrap();
    let talk = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{talk}");
    // That a time is odd (before 1970, after today) is all that may be said.
    assert!(talk.lines().all(|line| line.contains("implausibly old") || line.contains("in the future")), "{talk}");
    assert_eq!(tree(&below(&out, &root)), tree(&root));
}

#[tokio::test]
async fn unchanged_trees_give_equal_bytes_and_a_change_stays_in_its_segment() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir(&root).unwrap();
    for number in 0..300 {
        fs::write(root.join(format!("f{number:04}")), noise(number, 100_000)).unwrap();
    }
    let first = take(&[&root]).await;
    let again = take(&[&root]).await;
    assert!(first.bytes == again.bytes);
    assert_eq!(first.streams, again.streams);
    let count = first.bytes.len();
    assert!((4..20).contains(&count), "30 MB in segments of about 4 MiB: {count}");

    fs::write(root.join("f0150"), "shorter").unwrap();
    set_mtime(&root, 5, 0);
    set_mtime(&root.join("f0000"), 5, 0);
    let base = take(&[&root]).await;
    fs::write(root.join("f0150"), noise(1, 70_000)).unwrap();
    let grown = take(&[&root]).await;
    // Where segments end depends on the paths, and those on a folder that is named at random: a file that grows can
    // begin to end its segment, or fill it to the brim, and then the next one or two are others as well.
    let new =
        |a: &Stored, b: &Stored| b.streams.iter().filter(|s| a.streams.iter().all(|o| o.sha256 != s.sha256)).count();
    assert!((1..=3).contains(&new(&base, &grown)), "{} of {}", new(&base, &grown), grown.streams.len());
    fs::remove_file(root.join("f0150")).unwrap();
    set_mtime(&root, 5, 0);
    let less = take(&[&root]).await;
    assert!(new(&grown, &less) <= 3, "{} of {}", new(&grown, &less), less.streams.len());
}

#[tokio::test]
async fn original_places_refuse_keep_and_replace() {
    let place = tempfile::tempdir().unwrap();
    let (tree_root, env) = (place.path().join("deep/er/tree"), place.path().join("deep/.env"));
    fs::create_dir_all(&tree_root).unwrap();
    make_tree(&tree_root);
    fs::write(&env, "SECRET=1").unwrap();
    fs::set_permissions(place.path().join("deep"), fs::Permissions::from_mode(0o751)).unwrap();
    let before = tree(&tree_root);
    let stored = take(&[&tree_root, &env]).await;
    let refused = plan(&stored.streams, &stored.properties, &original()).unwrap_err();
    assert!(matches!(&refused, RestoreError::Exists { path } if *path == env), "{refused}");

    fs::write(&env, "SECRET=2").unwrap();
    let restored = put(&stored, &RestoreOptions { replace: true, ..original() }).await.unwrap();
    let old = place.path().join("deep/.env.before-20261121T020000Z");
    assert_eq!(restored.placed[0].old.as_ref(), Some(&old));
    assert_eq!((fs::read(&old).unwrap(), fs::read(&env).unwrap()), (b"SECRET=2".to_vec(), b"SECRET=1".to_vec()));
    assert_eq!(tree(&tree_root), before);

    fs::remove_dir_all(place.path().join("deep")).unwrap();
    put(&stored, &original()).await.unwrap();
    assert_eq!(tree(&tree_root), before);
    assert_eq!(fs::metadata(place.path().join("deep")).unwrap().mode() & 0o7777, 0o751, "parents as they were");
    assert_eq!(names(&place.path().join("deep")), [".env", "er"]);

    fs::remove_dir_all(&tree_root).unwrap();
    fs::remove_file(&env).unwrap();
    fs::create_dir(&tree_root).unwrap();
    put(&stored, &original()).await.unwrap();
    assert_eq!(tree(&tree_root), before, "an empty directory is no obstacle");
}

#[tokio::test]
async fn secrets_are_their_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    let stored =
        take_with(&FilesOptions { secret: true, ..FilesOptions::new(vec![root.clone()]) }, quiet()).await.unwrap();
    let out = place.path().join("out");
    put(&stored, &into_dir(&out)).await.unwrap();
    let mut open = vec![out.clone()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let allowed = if meta.is_dir() { 0o700 } else { 0o600 };
        assert!(meta.is_symlink() || meta.mode() & 0o7777 & !allowed == 0, "{} {:o}", path.display(), meta.mode());
        seen += 1;
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(seen > 20);
    assert_eq!(
        fs::metadata(below(&out, &root).join("a-b")).unwrap().mode() & 0o7777,
        0o400,
        "never looser than it was"
    );
}

#[tokio::test]
async fn selected_paths_only_with_what_their_links_need() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    let stored = take(&[&root]).await;
    let out = place.path().join("out");
    let only = vec![root.join("hard"), root.join("z-hard"), root.join("d".repeat(120))];
    let restored = put(&stored, &RestoreOptions { only, ..into_dir(&out) }).await.unwrap();
    let got = below(&out, &root);
    assert_eq!(names(&got), ["d".repeat(120), "hard".to_owned(), "z-hard".to_owned()]);
    assert_eq!(fs::read(got.join("hard")).unwrap(), b"in a");
    let (one, two) = (fs::metadata(got.join("hard")).unwrap(), fs::metadata(got.join("z-hard")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    assert_eq!(restored.proof.files.len(), 1);
    assert_eq!(names(&out), names(&out).into_iter().filter(|n| !n.starts_with(".backup")).collect::<Vec<_>>());

    fs::remove_dir_all(root.join("a")).unwrap();
    let only = vec![root.join("a")];
    put(&stored, &RestoreOptions { only, ..original() }).await.unwrap();
    assert_eq!(fs::read(root.join("a/x")).unwrap(), b"in a");
    let only = vec![root.join("absent")];
    let error = put(&stored, &RestoreOptions { only, ..original() }).await.unwrap_err();
    assert!(matches!(error, RestoreError::NotInSnapshot { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_then_an_error() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("db");
    let options = FilesOptions { retries: 2, retry_pause: Duration::ZERO, ..FilesOptions::new(vec![file.clone()]) };
    let rewrite = |path: PathBuf, every: bool| -> Hook {
        Arc::new(move |count| {
            if count == 0 || every {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&noise(count as u64, 8), 0).unwrap();
            }
        })
    };
    let content = noise(1, 6 << 20);
    fs::write(&file, &content).unwrap();
    let error = take_with(&options, rewrite(file.clone(), true)).await.err().unwrap();
    assert!(matches!(error, FilesError::Changed { attempts: 3, .. }), "{error}");

    let stored = take_with(&options, rewrite(file.clone(), false)).await.unwrap();
    let entry = &stored.streams[0].paths[0];
    assert_eq!(entry.sha256, Some(Hash256::of(&fs::read(&file).unwrap())), "the second attempt is a whole state");
    assert_eq!(stored.streams.len(), 2, "the abandoned stream is in no manifest");

    fs::write(&file, &content).unwrap();
    let path = file.clone();
    let append: Hook = Arc::new(move |_| {
        use std::io::Write;
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    });
    let stored = take_with(&options, append).await.unwrap();
    let entry = &stored.streams[0].paths[0];
    assert_eq!((entry.bytes, entry.sha256), (6 << 20, Some(Hash256::of(&content))), "a log: its first part, proved");

    fs::write(&file, &content).unwrap();
    let path = file.clone();
    let shorten: Hook =
        Arc::new(move |_| fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 19).unwrap());
    let stored = take_with(&options, shorten).await.unwrap();
    assert_eq!(stored.streams[0].paths[0].bytes, 1 << 19, "shortened: read again as what it is now");
}

#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<Event>>);

impl Monitor for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[tokio::test]
async fn what_is_left_out_is_named() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir_all(root.join("cache/deep")).unwrap();
    fs::write(root.join("cache/deep/x"), "").unwrap();
    fs::write(root.join("keep"), "").unwrap();
    fs::write(root.join("a.pyc"), "").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let link = place.path().join("current");
    symlink(&root, &link).unwrap();
    let absent = place.path().join("absent");
    let paths = vec![root.clone(), absent.clone(), link, PathBuf::from("/dev/null")];
    let exclude = vec!["*.pyc".to_owned(), format!("{}/cache", root.display()), "unused".to_owned()];
    let mut options = FilesOptions { exclude, ..FilesOptions::new(paths) };
    let error = take_with(&options, quiet()).await.err().unwrap();
    assert!(matches!(&error, FilesError::Missing { path } if *path == absent), "{error}");

    options.optional = options.paths.clone();
    let heard = Heard::default();
    let captured =
        capture(&options, &Memory { hook: quiet(), writes: Arc::default() }, &clock(), &heard).await.unwrap();
    let stored: Vec<_> =
        captured.streams.iter().flat_map(|s| &s.paths).map(|p| p.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(stored, ["current", "tree", "keep"]);
    assert_eq!(captured.suspect.len(), 2, "{:?}", captured.suspect);
    let text = format!("{:?} {:?}", captured.suspect, captured.properties);
    for word in ["/dev/null` is a device", "current` is a symlink", "tree/socket", "/absent"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let events = format!("{:?}", heard.0.lock().unwrap());
    assert!(events.contains("socket` was not captured") && events.contains("`unused` left nothing out"), "{events}");

    let nothing = FilesOptions { optional: vec![absent.clone()], ..FilesOptions::new(vec![absent]) };
    let stored = take_with(&nothing, quiet()).await.unwrap();
    assert!(stored.suspect.iter().any(|reason| reason.contains("nothing was captured")), "{:?}", stored.suspect);
    assert!(matches!(plan(&stored.streams, &stored.properties, &original()), Err(RestoreError::Nothing)));
}

#[tokio::test]
async fn paths_that_cannot_be_captured_are_refused() {
    let refused = async |paths: &[&str]| {
        let options = FilesOptions::new(paths.iter().map(PathBuf::from).collect());
        take_with(&options, quiet()).await.err().unwrap().to_string()
    };
    assert!(refused(&[]).await.contains("no path"));
    assert!(refused(&["relative"]).await.contains("not absolute"));
    assert!(refused(&["/"]).await.contains("whole file system"));
    assert!(refused(&["/a/../b"]).await.contains("`..`"));
    assert!(refused(&["/a/b", "/a-b", "/a"]).await.contains("`/a/b` lies inside `/a`"));
    let options = FilesOptions::new(vec!["/etc/hostname".into()]);
    let error = capture(&options, &Full, &clock(), &Silent).await.unwrap_err();
    assert!(matches!(error, FilesError::Sink(_)), "{error}");
}

#[tokio::test]
async fn a_broken_stream_leaves_nothing_behind() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    let mut stored = take(&[&root]).await;
    fs::remove_dir_all(&root).unwrap();
    for number in 1..=u32::try_from(stored.streams.len()).unwrap() {
        stored.broken = Some(number);
        let error = put(&stored, &original()).await.unwrap_err();
        assert!(matches!(error, RestoreError::Stream { stream, .. } if stream == number), "{error}");
        assert_eq!(names(place.path()), Vec::<String>::new(), "stream {number}");
    }
    stored.broken = None;
    put(&stored, &original()).await.unwrap();
}

#[tokio::test]
async fn when_a_rename_fails_the_error_says_what_is_where() {
    let place = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| place.path().join(name));
    for path in [&one, &two, &three] {
        fs::write(path, path.display().to_string()).unwrap();
    }
    let mut stored = take(&[&one, &two, &three]).await;
    for path in [&one, &two, &three] {
        fs::remove_file(path).unwrap();
    }
    let (late, dir) = (three.clone(), place.path().to_owned());
    // Someone creates a target after the restore looked at it: its stages are there.
    stored.hook = Arc::new(move |_| {
        while names(&dir).len() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs::write(&late, "came later").unwrap();
    });
    let error = put(&stored, &original()).await.unwrap_err();
    let RestoreError::Partly { target, in_place, waiting, .. } = &error else { panic!("{error}") };
    assert_eq!((target, in_place), (&three, &vec![one.clone()]));
    assert_eq!(fs::read(&three).unwrap(), b"came later", "nothing is overwritten");
    let text = error.to_string();
    for (stage, to) in waiting {
        assert_eq!(fs::read_to_string(stage).unwrap(), to.display().to_string(), "complete, to be moved by hand");
        assert!(text.contains(&format!("`{}` for `{}`", stage.display(), to.display())), "{text}");
    }
    assert_eq!(waiting.len(), 2);
}

#[tokio::test]
async fn into_dir_refuses_what_is_not_empty() {
    let place = tempfile::tempdir().unwrap();
    let (file, out) = (place.path().join("file"), place.path().join("out"));
    fs::write(&file, "x").unwrap();
    let stored = take(&[&file]).await;
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(out.join("mine"), "y").unwrap();
    assert!(matches!(put(&stored, &into_dir(&out)).await, Err(RestoreError::Exists { .. })));
    assert_eq!(names(&out), ["mine"]);
    fs::remove_file(out.join("mine")).unwrap();
    put(&stored, &into_dir(&out)).await.unwrap();
    assert_eq!(fs::read(below(&out, &file)).unwrap(), b"x");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o711, "an operator's directory stays theirs");
    let again = RestoreOptions { replace: true, ..into_dir(&out) };
    let restored = put(&stored, &again).await.unwrap();
    assert!(below(restored.placed[0].old.as_ref().unwrap(), &file).exists());
    // A symlink is what is there, wherever it leads.
    let link = place.path().join("link");
    symlink(place.path().join("elsewhere"), &link).unwrap();
    assert!(matches!(put(&stored, &into_dir(&link)).await, Err(RestoreError::Exists { .. })));
}

#[tokio::test]
async fn a_full_disk_and_a_mount_point_as_targets() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d/large"), noise(1, 2 << 20)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).unwrap();
    set_mtime(&root, 77, 5);
    let stored = take(&[&root]).await;
    let before = tree(&root);
    fs::remove_dir_all(&root).unwrap();
    let Some(small) = Tmpfs::mount(&root, "size=1m", "a full disk as target") else { return };
    let error = put(&stored, &original()).await.unwrap_err();
    let RestoreError::Io { what: "write", source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(names(&root), Vec::<String>::new(), "the stage is gone, its space too");
    drop(small);
    let _large = Tmpfs::mount(&root, "size=8m", "a mount point as target").unwrap();
    put(&stored, &original()).await.unwrap();
    assert_eq!(tree(&root), before, "a mount point gets its content and its own owner, mode and time");
    let replace = RestoreOptions { replace: true, ..original() };
    assert!(matches!(put(&stored, &replace).await, Err(RestoreError::Mounted { .. })));
}

#[tokio::test]
async fn hard_links_between_file_systems_become_copies() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&two).unwrap();
    fs::write(one.join("x"), "shared").unwrap();
    rustix::fs::setxattr(one.join("x"), "user.k", b"v", XattrFlags::empty()).unwrap();
    fs::hard_link(one.join("x"), two.join("x")).unwrap();
    let stored = take(&[&one, &two]).await;
    fs::remove_dir_all(&one).unwrap();
    fs::remove_dir_all(&two).unwrap();
    let Some(_mount) = Tmpfs::mount(&two, "size=1m", "hard links between file systems") else { return };
    let restored = put(&stored, &original()).await.unwrap();
    assert_eq!(fs::read(two.join("x")).unwrap(), b"shared");
    assert_eq!(fs::metadata(one.join("x")).unwrap().nlink(), 1);
    assert!(restored.notes.iter().any(|note| note.contains("became copies")), "{:?}", restored.notes);
}

/// Runs this binary's test `name` as the user `nobody`.
#[test]
fn without_root() {
    if !is_root() {
        return nobody();
    }
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let exe = place.path().join("suite");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    let root = place.path().join("tree");
    make_tree(&root);
    fs::write(root.join("closed"), "x").unwrap();
    for path in ["closed", "a-b", "nothing"] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o0)).unwrap();
    }
    let done = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&exe)
        .args(["--exact", "suite::files_roundtrip::as_nobody", "--ignored", "--nocapture"])
        .env("TMPDIR", place.path())
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started by `without_root`"]
fn as_nobody() {
    nobody();
}

fn nobody() {
    assert!(!is_root());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let place = tempfile::tempdir().unwrap();
        // A tree of someone else, where there is one (made by `without_root`).
        let foreign = std::env::temp_dir().join("tree");
        if foreign.exists() {
            let mut options = FilesOptions::new(vec![foreign.clone()]);
            let error = take_with(&options, quiet()).await.err().unwrap();
            assert!(matches!(error, FilesError::Read { .. }), "{error}");
            options.optional = options.paths.clone();
            let stored = take_with(&options, quiet()).await.unwrap();
            assert_eq!(stored.suspect.len(), 3, "{:?}", stored.suspect);
            let out = place.path().join("out");
            let restored = put(&stored, &into_dir(&out)).await.unwrap();
            assert!(restored.notes.iter().any(|note| note.starts_with("not run as root")), "{:?}", restored.notes);
            let mode = fs::metadata(below(&out, &foreign).join("block")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o755, "no set-id bit for another owner than the one meant");
        }
        // Our own, with directories that not even we may write to.
        let root = place.path().join("mine");
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/f"), "x").unwrap();
        for path in ["d/e", "d", ""] {
            set_mtime(&root.join(path), 9, 9);
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o555)).unwrap();
        }
        let before = tree(&root);
        let stored = take(&[&root]).await;
        let restored = put(&stored, &RestoreOptions { replace: true, ..original() }).await;
        // The old directory is ours but not writable: its parent's entry can still be renamed within the parent.
        let restored = restored.unwrap();
        assert_eq!((tree(&root), restored.notes), (before, vec![]));
        let old = restored.placed[0].old.clone().unwrap();
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(&old).arg(&root).status();
        assert!(!stored.streams.iter().flat_map(|s| &s.paths).any(|p| p.kind == PathKind::Hardlink));
    });
}

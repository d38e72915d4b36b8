//! Archives and indexes that no capture writes: each is refused, nothing outside changes, nothing is left behind.

use std::fs;
use std::path::Path;

use super::fuzz::Memory;
use super::tar::{self, END, Entry, Mtime};
use super::{HARDLINKS, PARENTS, ROOTS, RestoreError, RestoreOptions, SECRET, Target, Verify, execute, name, plan};
use crate::clock::Clock;
use crate::id::Hash256;
use crate::manifest::{PathEntry, PathKind, Property, Stream, StreamKind};
use crate::monitor::Silent;

fn entry(path: &str, kind: PathKind, link: &str) -> Entry {
    let bytes = if kind == PathKind::File { 4 } else { 0 };
    let (path, link, mtime) = (path.as_bytes().to_vec(), link.as_bytes().to_vec(), Mtime { seconds: 7, nanos: 0 });
    Entry { path, kind, bytes, mode: 0o755, uid: 0, gid: 0, mtime, link, xattrs: vec![] }
}

fn dir(path: &str) -> Entry {
    entry(path, PathKind::Dir, "")
}

fn file(path: &str) -> Entry {
    entry(path, PathKind::File, "")
}

fn symlink(path: &str, to: &str) -> Entry {
    entry(path, PathKind::Symlink, to)
}

fn link(path: &str, to: &str) -> Entry {
    entry(path, PathKind::Hardlink, to)
}

/// The entry in the archive, with the content `evil` for files.
fn stored(entry: &Entry) -> Vec<u8> {
    let mut bytes = tar::encode(entry).unwrap();
    if entry.kind == PathKind::File {
        bytes.extend(b"evil");
        bytes.resize(bytes.len() + tar::padding(4), 0);
    }
    bytes
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(stored).collect();
    bytes.extend(END);
    bytes
}

fn index(entries: &[Entry]) -> Vec<PathEntry> {
    let index = |entry: &Entry| PathEntry {
        path: name::encode(&entry.path),
        kind: entry.kind,
        bytes: entry.bytes,
        sha256: (entry.kind == PathKind::File).then(|| Hash256::of(b"evil")),
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.text(),
        sparse: false,
    };
    entries.iter().map(index).collect()
}

/// Restores into `<place>/in/out`; everything else in the place must stay as it is.
async fn restore(index: Vec<PathEntry>, links: &[Entry], bytes: Vec<u8>) -> Result<(), RestoreError> {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("in")).unwrap();
    fs::write(place.path().join("victim"), "untouched").unwrap();
    let out = place.path().join("in/out");
    let links: Vec<_> = links.iter().filter(|entry| entry.kind == PathKind::Hardlink).collect();
    let links: Vec<_> = links.iter().map(|entry| (name::encode(&entry.path), name::encode(&entry.link))).collect();
    let property = |name: &str, value| Property { name: name.to_owned(), value };
    let properties = [
        property(ROOTS, serde_json::json!(["/r"])),
        property(SECRET, serde_json::json!(false)),
        property(PARENTS, serde_json::json!([])),
        property(HARDLINKS, serde_json::json!(links)),
    ];
    let (kind, sha256) = (StreamKind::Tar, Hash256::of(&bytes));
    let (extents, members) = (vec![], vec![]);
    let stream = Stream { kind, bytes: bytes.len() as u64, sha256, extents, copy: None, members, paths: index };
    let target = Target::IntoDir(out.clone());
    let options = RestoreOptions { target, only: vec![], replace: false, verify: Verify::Content };
    let clock = Clock::fixed("2026-11-21T02:00:00Z".parse().unwrap());
    let done = match plan(&[stream], &properties, &options) {
        Ok(plan) => execute(plan, &Memory(bytes), &clock, &Silent).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let names = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(fs::read(place.path().join("victim")).unwrap(), b"untouched");
    assert_eq!(names(place.path()).len(), 2);
    assert_eq!(names(&place.path().join("in")).len(), usize::from(done.is_ok()), "nothing beside the target is left");
    done
}

#[tokio::test]
async fn the_honest_twin_is_restored() {
    let entries =
        [dir("r"), file("r/a"), link("r/b", "r/a"), symlink("r/c", "../../../victim"), dir("r/d"), file("r/d/e")];
    restore(index(&entries), &entries, archive(&entries)).await.unwrap();
}

/// Index and archive agree; the index is refused, before anything is made.
#[tokio::test]
async fn an_index_that_leads_outside_is_refused() {
    for (entries, why) in [
        (vec![dir("r"), file("../victim")], "`..`"),
        (vec![dir("r"), file("r/../../../victim")], "`..`"),
        (vec![dir("r"), file("/tmp/x")], "absolute"),
        (vec![dir("r"), file("r//x")], "empty"),
        (vec![dir("r"), file("r/./x")], "empty or `.`"),
        (vec![file("x")], "no directory of the index"),
        (vec![dir("r"), file("r/gone/x")], "no directory of the index"),
        (vec![dir("r"), symlink("r/s", "../../.."), file("r/s/victim")], "no directory of the index"),
        (vec![symlink("r", "/tmp"), file("r/x")], "no directory of the index"),
        (vec![dir("r"), file("r/f"), file("r/f/x")], "no directory of the index"),
        (vec![dir("r"), link("r/h", "../victim")], "no earlier file"),
        (vec![dir("r"), link("r/h", "/etc/passwd")], "no earlier file"),
        (vec![dir("r"), link("r/h", "r/late"), file("r/late")], "no earlier file"),
        (vec![dir("r"), symlink("r/s", "../../victim"), link("r/h", "r/s")], "no earlier file"),
        (vec![dir("r"), file("r/x"), file("r/x")], "twice"),
        (vec![dir("r"), symlink("r/x", "../../victim"), file("r/x")], "twice"),
        (vec![dir("r"), dir("r")], "twice"),
    ] {
        let error = restore(index(&entries), &entries, archive(&entries)).await.unwrap_err();
        let refused = matches!(error, RestoreError::Index { .. }) && error.to_string().contains(why);
        assert!(refused, "{entries:?}: {error}");
    }
}

#[tokio::test]
async fn an_index_that_is_malformed_is_refused() {
    let honest = [dir("r"), file("r/a")];
    let spoil: [fn(&mut PathEntry); 9] = [
        |entry| entry.path = "r/%61".to_owned(),
        |entry| entry.mode = "755".to_owned(),
        |entry| entry.mode = "17777".to_owned(),
        |entry| entry.mtime = "7".to_owned(),
        |entry| entry.sha256 = None,
        |entry| entry.kind = PathKind::Fifo,
        |entry| (entry.kind, entry.sha256, entry.bytes) = (PathKind::Fifo, None, 1),
        |entry| (entry.kind, entry.sha256, entry.bytes) = (PathKind::Hardlink, None, 0),
        |entry| entry.path = format!("r/{}", "x".repeat(256)),
    ];
    for (at, spoil) in spoil.iter().enumerate() {
        let mut index = index(&honest);
        spoil(&mut index[1]);
        let error = restore(index, &[], archive(&honest)).await.unwrap_err();
        assert!(matches!(error, RestoreError::Index { .. }), "case {at}: {error}");
    }
    let error = restore(index(&honest), &[link("r/b", "r/a")], archive(&honest)).await.unwrap_err();
    assert!(matches!(error, RestoreError::Property { name: HARDLINKS }), "{error}");
}

/// The index is honest; the archive says something else.
#[tokio::test]
async fn an_archive_that_says_more_than_the_index_is_refused() {
    let honest = [dir("r"), file("r/a"), link("r/b", "r/a"), symlink("r/c", "x")];
    let with = |at: usize, change: &dyn Fn(&mut Entry)| {
        let mut entries = honest.to_vec();
        change(&mut entries[at]);
        entries
    };
    let set = |path: &'static str| move |entry: &mut Entry| entry.path = path.as_bytes().to_vec();
    for (entries, why) in [
        (with(1, &set("../victim")), "another path"),
        (with(1, &set("/tmp/x")), "another path"),
        (with(1, &set("r/z")), "another path"),
        (with(0, &|entry| *entry = symlink("r", "/tmp")), "the kind"),
        (with(1, &|entry| *entry = link("r/a", "../victim")), "the kind"),
        (with(1, &|entry| entry.mode = 0o4755), "the mode"),
        (with(1, &|entry| entry.uid = 1), "the owner"),
        (with(1, &|entry| entry.gid = 1), "the owner"),
        (with(1, &|entry| entry.mtime.nanos = 1), "the time"),
        (with(2, &|entry| entry.link = b"../victim".to_vec()), "further name"),
        (with(3, &|entry| entry.link.clear()), "leads to"),
        ([&honest[..], &[file("r/more")]].concat(), "index does not hold"),
        ([&honest[..2], &honest[1..]].concat(), "another path"),
        (honest[..3].to_vec(), "stream does not hold"),
        (vec![], "stream does not hold"),
    ] {
        let error = restore(index(&honest), &honest, archive(&entries)).await.unwrap_err();
        let refused = matches!(error, RestoreError::Differs { .. }) && error.to_string().contains(why);
        assert!(refused, "{entries:?}: {error}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_such_archive_are_refused() {
    let honest = [dir("r"), file("r/a")];
    let good = archive(&honest);
    // The file's header, with its type changed and its sum put right: devices, and dialects that are never written.
    for kind in *b"34LKgSVD7\0" {
        let mut bytes = good.clone();
        bytes[512 + 156] = kind;
        bytes[512 + 148..512 + 156].fill(b' ');
        let sum: u32 = bytes[512..1024].iter().map(|b| u32::from(*b)).sum();
        bytes[512 + 148..512 + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let error = restore(index(&honest), &[], bytes).await.unwrap_err();
        let RestoreError::Tar { source: tar::TarError::Type(found), .. } = error else { panic!("{error}") };
        assert_eq!(found, kind);
    }
    for length in [0, 1, 511, 512, 600, 1024, 1026, 1500, 1536, 2048, 2500] {
        let error = restore(index(&honest), &[], good[..length].to_vec()).await.unwrap_err();
        assert!(matches!(error, RestoreError::Tar { .. } | RestoreError::Differs { .. }), "{length}: {error}");
    }
    for (at, byte) in [(512 + 148, b'9'), (512 + 257, b'X'), (512 + 300, 1), (1024 + 4, 1), (1536, 1), (2559, 1)] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let error = restore(index(&honest), &[], bytes).await.unwrap_err();
        assert!(matches!(error, RestoreError::Tar { .. }), "{at}: {error}");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(restore(index(&honest), &[], longer).await, Err(RestoreError::Tar { .. })));
    let after = [&good[..], &stored(&file("r/b"))[..]].concat();
    assert!(matches!(restore(index(&honest), &[], after).await, Err(RestoreError::Differs { .. })));
    let mut bytes = good.clone();
    bytes[1024] = b'E';
    let error = restore(index(&honest), &[], bytes).await.unwrap_err();
    assert!(matches!(error, RestoreError::Content { .. }), "{error}");
}

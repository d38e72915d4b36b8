//! Archives and paths as a fuzzer brings them.

use std::fs;

use async_trait::async_trait;
use bytes::Bytes;

use super::pattern::Pattern;
use super::tar::{BLOCK, Entry, Item, Mtime, Reader, encode};
use super::{HARDLINKS, PARENTS, ROOTS, RestoreOptions, SECRET, Target, Verify, execute, name, plan};
use crate::clock::Clock;
use crate::id::Hash256;
use crate::manifest::{PathEntry, PathKind, Property, Stream, StreamKind};
use crate::monitor::Silent;
use crate::source::{StreamError, StreamReader, Streams};

/// Entries with their contents, up to where the archive is refused.
fn entries(data: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let (mut reader, mut found) = (Reader::new(data), Vec::new());
    while let Ok(Item::Entry(entry)) = reader.next_item() {
        let Some(length) = usize::try_from(entry.bytes).ok().filter(|bytes| *bytes <= data.len()) else { break };
        let mut content = vec![0; length];
        if reader.content(&mut content).and_then(|()| reader.pad(entry.bytes)).is_err() {
            break;
        }
        found.push((*entry, content));
    }
    found
}

/// The same bytes with each header's sum made good: no fuzzer guesses those.
fn summed(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for block in data.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    data
}

/// A tar. What is read has one spelling.
pub fn tar(data: &[u8]) {
    for (entry, _) in [entries(data), entries(&summed(data))].concat() {
        let bytes = encode(&entry).expect("what is read can be written");
        let Ok(Item::Entry(again)) = Reader::new(&bytes[..]).next_item() else { panic!("what is written is read") };
        assert_eq!(*again, entry);
    }
}

/// Paths and times as texts of an index.
pub fn paths(data: &[u8]) {
    assert_eq!(name::decode(&name::encode(data)).as_deref(), Some(data), "a path that has no text");
    let Ok(text) = str::from_utf8(data) else { return };
    if let Some(path) = name::decode(text) {
        assert_eq!(name::encode(&path), text);
        if name::check(&path).is_ok() {
            assert!(!path.starts_with(b"/") && !path.split(|b| *b == b'/').any(|part| part == b".."));
        }
    }
    if let Some(mtime) = Mtime::parse(text) {
        assert_eq!(mtime.text(), text);
    }
    let (pattern, path) = text.split_once('\n').unwrap_or((text, "/srv/data"));
    if let Ok(pattern) = Pattern::parse(pattern) {
        assert_eq!(Pattern::parse(pattern.text()).ok().as_ref(), Some(&pattern));
        let _ = pattern.matches(path.as_bytes());
    }
}

/// One stream under every number, given in one piece.
pub(super) struct Memory(pub(super) Vec<u8>);
struct Whole(Option<Bytes>);

#[async_trait]
impl Streams for Memory {
    async fn open(&self, _: u32) -> Result<Box<dyn StreamReader>, StreamError> {
        Ok(Box::new(Whole(Some(self.0.clone().into()))))
    }
}

#[async_trait]
impl StreamReader for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        Ok(self.0.take())
    }
}

/// A restore of an archive with an index that agrees with it: nothing outside the target changes, nothing stays behind.
pub fn unpack(data: &[u8]) {
    let data = &summed(data);
    let found = entries(data);
    if found.is_empty() {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    fs::create_dir(place.path().join("in")).expect("a folder");
    fs::write(place.path().join("victim"), "untouched").expect("a file");
    let index = |(entry, content): &(Entry, Vec<u8>)| PathEntry {
        path: name::encode(&entry.path),
        kind: entry.kind,
        bytes: entry.bytes,
        sha256: (entry.kind == PathKind::File).then(|| Hash256::of(content)),
        mode: format!("{:04o}", entry.mode),
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime.text(),
        sparse: false,
    };
    let paths = found.iter().map(index).collect();
    let links = found.iter().filter(|(entry, _)| entry.kind == PathKind::Hardlink);
    let links: Vec<_> = links.map(|(entry, _)| (name::encode(&entry.path), name::encode(&entry.link))).collect();
    let property = |name: &str, value| Property { name: name.to_owned(), value };
    let properties = [
        property(ROOTS, serde_json::json!([format!("/{}", name::encode(&found[0].0.path))])),
        property(SECRET, serde_json::json!(false)),
        property(PARENTS, serde_json::json!([])),
        property(HARDLINKS, serde_json::json!(links)),
    ];
    let stream = Stream {
        kind: StreamKind::Tar,
        bytes: data.len() as u64,
        sha256: Hash256::of(data),
        extents: Vec::new(),
        copy: None,
        members: Vec::new(),
        paths,
    };
    let options = RestoreOptions {
        target: Target::IntoDir(place.path().join("in/out")),
        only: Vec::new(),
        replace: false,
        verify: Verify::Content,
    };
    let clock = Clock::fixed("2026-11-21T02:00:00Z".parse().expect("an instant"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        match plan(&[stream], &properties, &options) {
            Ok(plan) => execute(plan, &Memory(data.clone()), &clock, &Silent).await.is_ok(),
            Err(_) => false,
        }
    });
    let count = |dir: &std::path::Path| fs::read_dir(dir).expect("a folder").count();
    assert_eq!(fs::read(place.path().join("victim")).expect("the victim"), b"untouched");
    assert_eq!(count(place.path()), 2, "something appeared outside");
    assert_eq!(count(&place.path().join("in")), usize::from(done), "something is left beside the target");
}

//! Long keys: what the layout can produce at most, under the longest prefix, over a real endpoint.

use std::sync::Arc;

use backup_core::config::Config;
use backup_core::id::{Hash256, SourceName, StackName};
use backup_core::monitor::Silent;
use backup_core::vault::document::MarkKind;
use backup_core::vault::layout::{GenerationDir, GenerationId, SnapshotId, Volume, mark, receipt, signature_of};
use backup_core::vault::s3::{S3OpenError, S3Options, S3Store};
use backup_core::vault::store::{PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use harness::s3::S3Server;

use super::store_conformance::{options, path};

/// A path of so many bytes, in parts that are as long as a part may be.
fn long(bytes: usize) -> String {
    let mut text = "x".repeat(bytes);
    for at in (StorePath::MAX_PART_BYTES..bytes - 1).step_by(StorePath::MAX_PART_BYTES + 1) {
        text.replace_range(at..=at, "/");
    }
    text
}

/// The longest path of each form that FORMAT.md knows.
fn longest_paths() -> Vec<StorePath> {
    let (stack, source): (StackName, SourceName) = ("s".repeat(40).parse().unwrap(), "d".repeat(40).parse().unwrap());
    let instant = "2026-11-21T02:00:03Z".parse().unwrap();
    let id = SnapshotId::new(instant, Volume::Bytes(u64::MAX), *b"abcdef", true);
    let generation = GenerationId::new("2026-11-21".parse().unwrap(), "28d".parse().unwrap(), "age1x");
    let dir = GenerationDir { stack: stack.clone(), source: source.clone(), id: generation };
    vec![
        dir.object(&Hash256::of(b"x")),
        signature_of(&dir.file("generation.json")),
        signature_of(&dir.file("deleting.json")),
        dir.snapshot(&id, ".json.sig"),
        dir.snapshot(&id, ".inventory.zst"),
        signature_of(&mark(&stack, &source, &id, MarkKind::Restored)),
        signature_of(&receipt(&dir, instant)),
    ]
}

#[test]
fn the_longest_path_of_the_layout_is_known() {
    let longest = longest_paths().iter().map(|path| path.as_str().len()).max();
    assert_eq!(longest, Some(185), "FORMAT.md says so");
}

#[tokio::test]
async fn the_longest_keys_are_written_read_listed_and_deleted() {
    let server = S3Server::start().unwrap();
    let mut given = options(&server.bucket, "");
    given.prefix = Some(path(&long(S3Options::MAX_PREFIX_BYTES)));
    given.page_names = 3;
    let store = S3Store::connect(given, Arc::new(Silent)).await.unwrap().with_readback(true);
    let probe = store.probe().await.unwrap();
    assert!(probe.checksums_verified && probe.if_none_match, "{probe:?}");
    let store = store.with_if_none_match(true);
    // And the longest that the contract knows: 1024 bytes with the prefix.
    let mut paths = longest_paths();
    paths.push(path(&long(StorePath::MAX_BYTES)));
    paths.sort();
    for path in &paths {
        let body = Bytes::from(path.to_string());
        assert_eq!(store.put(path, body.clone(), PutMode::CreateOnly).await.unwrap(), PutOutcome::Created, "{path}");
        assert_eq!(store.put(path, body.clone(), PutMode::CreateOnly).await.unwrap(), PutOutcome::AlreadyThere);
        assert_eq!(store.get(path, 1024).await.unwrap(), body);
        assert_eq!(store.stat(path).await.unwrap().unwrap().bytes, body.len() as u64);
        assert_eq!(store.put(path, body.clone(), PutMode::Replace).await.unwrap(), PutOutcome::Created, "{path}");
    }
    let listed: Vec<StorePath> = store.list(None).await.unwrap().into_iter().map(|entry| entry.path).collect();
    assert_eq!(listed, paths);
    let stack = "s".repeat(40);
    assert_eq!(store.children(Some(&path(&stack))).await.unwrap(), ["d".repeat(40)]);
    for path in &paths {
        store.delete(path).await.unwrap();
        assert!(matches!(store.get(path, 1024).await.unwrap_err(), StoreError::NotFound { .. }));
    }
    assert_eq!(store.list(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_prefix_that_makes_keys_too_long_is_refused() {
    let server = S3Server::start().unwrap();
    let mut given = options(&server.bucket, "");
    given.prefix = Some(path(&long(S3Options::MAX_PREFIX_BYTES + 1)));
    let error = S3Store::connect(given, Arc::new(Silent)).await.unwrap_err();
    assert!(matches!(error, S3OpenError::Prefix { prefix_bytes: 512, .. }), "{error}");
    assert!(error.to_string().contains("512 bytes") && error.to_string().contains("at most 511"), "{error}");
}

#[test]
fn a_configured_prefix_that_makes_keys_too_long_is_refused_where_it_stands() {
    let recipient = age::x25519::Identity::generate().to_public();
    let config = |prefix: &str| {
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"/s\"\n[keys]\nrecipients = [\"{recipient}\"]\nsigners = \"/signers\"\n\
             [vault.far]\ns3 = {{ bucket = \"b\", prefix = \"{prefix}\" }}\ncredentials = \"aws-chain\"\n\
             keep = {{ within = \"7d\", min = 3 }}\n[source.f]\ntype = \"files\"\npaths = [\"/f\"]\n"
        );
        Config::parse(&text, std::path::Path::new("/t.toml")).map(drop)
    };
    config(&long(S3Options::MAX_PREFIX_BYTES)).unwrap();
    for bytes in [S3Options::MAX_PREFIX_BYTES + 1, 900, 1100] {
        let error = config(&long(bytes)).unwrap_err();
        assert_eq!(error.line, Some(8));
        let said = error.problem.to_string();
        assert!(said.contains("`vault.far.s3.prefix`"), "{said}");
        assert!(said.contains("of at most 511") && said.contains("1024"), "{said}");
    }
}

//! S3 when things go wrong: a breaking proxy before a real endpoint, attempts counted.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::monitor::{Event, Monitor, Silent};
use backup_core::secret::Secret;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::s3::{S3Credentials, S3Store, Versioning};
use backup_core::vault::store::{PutMode, PutOutcome, Store, StoreError};
use base64::Engine as _;
use bytes::Bytes;
use harness::proxy::{Fault, Proxy};
use harness::s3::S3Server;
use harness::tools::Tmpfs;
use sha2::{Digest as _, Sha256};

use super::store_conformance::{options, path};

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<Event>>);

impl Monitor for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn retries(&self) -> Vec<(u32, String)> {
        let events = self.0.lock().unwrap();
        let retry = |event: &Event| match event {
            Event::Retry { attempt, why, .. } => Some((*attempt, why.clone())),
            _ => None,
        };
        events.iter().filter_map(retry).collect()
    }
}

/// A server, a proxy before it, and a store that goes through the proxy.
struct Line {
    server: S3Server,
    proxy: Proxy,
    heard: Arc<Heard>,
    store: S3Store,
}

async fn line(faults: impl IntoIterator<Item = Fault>) -> Line {
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    proxy.script(faults);
    let heard = Arc::new(Heard::default());
    let mut through = server.bucket.clone();
    through.endpoint = proxy.endpoint();
    let store = S3Store::connect(options(&through, "v"), heard.clone()).await.unwrap();
    Line { server, proxy, heard, store }
}

fn body(bytes: usize) -> Bytes {
    (0..bytes).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn answers_503_are_tried_again_and_counted() {
    let line = line([Fault::Answer503, Fault::Answer503, Fault::Answer503]).await;
    let outcome = line.store.put(&path("a"), body(1000), PutMode::Replace).await.unwrap();
    assert_eq!(outcome, PutOutcome::Created);
    assert_eq!(line.proxy.requests("PUT"), 4);
    let retries = line.heard.retries();
    assert_eq!(retries.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(retries.iter().all(|(_, why)| why.starts_with("SlowDown")), "{retries:?}");
    assert_eq!(line.store.get(&path("a"), 1000).await.unwrap(), body(1000));
}

#[tokio::test]
async fn without_faults_nothing_is_tried_twice() {
    let line = line([]).await;
    line.store.put(&path("a"), body(1000), PutMode::CreateOnly).await.unwrap();
    line.store.get(&path("a"), 1000).await.unwrap();
    assert_eq!((line.proxy.requests("PUT"), line.proxy.requests("GET")), (1, 1));
    assert_eq!(line.heard.retries(), []);
}

#[tokio::test]
async fn a_connection_cut_in_mid_put_is_tried_again_and_the_body_is_whole() {
    let line = line([Fault::Pass]).await;
    line.store.put(&path("first"), body(10), PutMode::Replace).await.unwrap();
    line.proxy.close_open();
    // Two cuts inside the body, one at its very first bytes; the names of the body must stay free of all of them.
    line.proxy.script([Fault::CutUpstream(400_000), Fault::CutUpstream(900_000), Fault::CutUpstream(2_000)]);
    let outcome = line.store.put(&path("cut"), body(1_000_000), PutMode::CreateOnly).await.unwrap();
    assert_eq!(outcome, PutOutcome::Created);
    assert_eq!(line.proxy.left(), 0, "not every fault was met");
    let met = line.heard.retries().len();
    assert!((3..=4).contains(&met), "{:?}", line.heard.retries());
    assert_eq!(line.store.get(&path("cut"), 1_000_000).await.unwrap(), body(1_000_000));
    assert_eq!(std::fs::read(line.server.files().join("v/cut")).unwrap(), body(1_000_000));
}

#[tokio::test]
async fn a_body_damaged_on_the_way_is_refused_and_sent_again() {
    let line = line([Fault::DamageBodies(1), Fault::DamageBodies(1)]).await;
    let outcome = line.store.put(&path("a"), body(100_000), PutMode::CreateOnly).await.unwrap();
    // The signature covers the body's hash, so the server breaks off; each repetition opens a new connection.
    assert_eq!(outcome, PutOutcome::Created);
    assert_eq!((line.proxy.requests("PUT"), line.heard.retries().len()), (3, 2), "{:?}", line.heard.retries());
    assert_eq!(std::fs::read(line.server.files().join("v/a")).unwrap(), body(100_000));
}

#[tokio::test]
async fn a_body_that_is_always_damaged_is_not_left_behind() {
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    proxy.script(std::iter::repeat_n(Fault::DamageBodies(usize::MAX), 10_000));
    let mut through = server.bucket.clone();
    through.endpoint = proxy.endpoint();
    let mut short = options(&through, "v");
    short.retry.total = Duration::from_millis(500);
    let store = S3Store::connect(short, Arc::new(Silent)).await.unwrap();
    let error = store.put(&path("a"), body(1000), PutMode::CreateOnly).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { action: "write", attempts: 2.., .. }), "{error}");
    assert_eq!(store.list(None).await.unwrap(), []);
}

#[tokio::test]
async fn a_full_disk_is_full_and_shows_nothing_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = Tmpfs::mount(dir.path(), "size=1m", "a full disk under a store") else { return };
    let store = LocalStore::open(dir.path(), LocalOptions::default()).unwrap();
    store.put(&path("a"), body(300_000), PutMode::CreateOnly).await.unwrap();
    let before = store.free_space().await.unwrap();
    assert_eq!(before.total_bytes, 1 << 20);
    let error = store.put(&path("gen/b"), body(900_000), PutMode::CreateOnly).await.unwrap_err();
    assert!(matches!(&error, StoreError::Full { path, .. } if path == "gen/b"), "{error}");
    assert_eq!(store.list(None).await.unwrap().len(), 1);
    assert_eq!(store.free_space().await.unwrap(), before, "the draft was left behind");
    // The next good run succeeds.
    store.put(&path("gen/b"), body(300_000), PutMode::CreateOnly).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(store.get(&path("gen/b"), 300_000).await.unwrap(), body(300_000));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
    let line = line([]).await;
    line.store.put(&path("a"), body(500_000), PutMode::Replace).await.unwrap();
    line.proxy.close_open();
    line.proxy.script([Fault::CutDownstream(100_000), Fault::CutDownstream(499_000)]);
    assert_eq!(line.store.get(&path("a"), 500_000).await.unwrap(), body(500_000));
    assert_eq!(line.proxy.left(), 0, "not every fault was met");
    let retries = line.heard.retries();
    assert!(retries.len() >= 2 && retries.iter().any(|(_, why)| why.contains("body broke off")), "{retries:?}");
}

#[tokio::test]
async fn a_body_that_always_breaks_off_fails_in_the_end() {
    let line = line([]).await;
    line.store.put(&path("a"), body(500_000), PutMode::Replace).await.unwrap();
    line.proxy.close_open();
    line.proxy.script(std::iter::repeat_n(Fault::CutDownstream(100_000), 10_000));
    let mut through = line.server.bucket.clone();
    through.endpoint = line.proxy.endpoint();
    let mut short = options(&through, "v");
    short.retry.total = Duration::from_millis(700);
    let store = S3Store::connect(short, Arc::new(Silent)).await.unwrap();
    let error = store.get(&path("a"), 500_000).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { action: "read", attempts: 2.., .. }), "{error}");
}

#[tokio::test]
async fn connections_that_close_or_stall_are_tried_again() {
    let line = line([Fault::Refuse, Fault::Stall]).await;
    let mut through = line.server.bucket.clone();
    through.endpoint = line.proxy.endpoint();
    let mut short = options(&through, "v");
    short.retry.attempt = Duration::from_millis(500);
    let heard = Arc::new(Heard::default());
    let store = S3Store::connect(short, heard.clone()).await.unwrap();
    store.put(&path("a"), body(10), PutMode::Replace).await.unwrap();
    let retries = heard.retries();
    assert_eq!(line.proxy.left(), 0, "not every fault was met");
    assert!(retries.iter().any(|(_, why)| why.starts_with("no answer within")), "{retries:?}");
}

/// A store over the line with connections of its own, so that the next fault is taken by its first request.
async fn afresh(line: &Line, attempt_ms: u64, bytes_per_second: u64, total_ms: u64) -> S3Store {
    let mut through = line.server.bucket.clone();
    through.endpoint = line.proxy.endpoint();
    let mut short = options(&through, "v");
    short.retry.attempt = Duration::from_millis(attempt_ms);
    short.retry.bytes_per_second = bytes_per_second;
    short.retry.total = Duration::from_millis(total_ms);
    S3Store::connect(short, line.heard.clone()).await.unwrap()
}

#[tokio::test]
async fn a_large_body_on_a_slow_line_arrives_at_the_first_attempt() {
    const BYTES: usize = 6 << 20;
    let line = line([Fault::Slow(2 << 20), Fault::Slow(2 << 20)]).await;
    let begun = Instant::now();
    let slow = async || afresh(&line, 2000, 512 << 10, 20_000).await;
    slow().await.put(&path("a"), body(BYTES), PutMode::Replace).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(2), "it was not slow: {:?}", begun.elapsed());
    assert_eq!(slow().await.get(&path("a"), BYTES as u64).await.unwrap(), body(BYTES));
    assert!(begun.elapsed() > Duration::from_secs(4), "it was not slow: {:?}", begun.elapsed());
    assert_eq!(line.heard.retries(), [], "longer than an attempt without bytes may take, and never silent");
    assert_eq!((line.proxy.left(), line.proxy.requests("PUT"), line.proxy.requests("GET")), (0, 1, 1));
}

#[tokio::test]
async fn a_body_on_a_line_that_is_too_slow_is_given_up() {
    let line = line(std::iter::repeat_n(Fault::Slow(20 << 10), 100)).await;
    let store = afresh(&line, 500, 1 << 20, 1000).await;
    let error = store.put(&path("a"), body(1 << 20), PutMode::Replace).await.unwrap_err();
    let StoreError::Failed { attempts: 2.., reason, .. } = &error else { panic!("{error}") };
    assert!(reason.starts_with("no answer within"), "{error}");
}

#[tokio::test]
async fn bodies_that_stop_moving_are_found_and_sent_again() {
    // Larger than what the kernel takes at once.
    const BYTES: usize = 24 << 20;
    let line = line([Fault::StallUpstream(1 << 20), Fault::Pass, Fault::StallDownstream(1 << 20)]).await;
    // 10 s for the whole body: what is found is the silence.
    let store = async || afresh(&line, 2000, 3 << 20, 60_000).await;
    store().await.put(&path("a"), body(BYTES), PutMode::Replace).await.unwrap();
    assert_eq!(store().await.get(&path("a"), BYTES as u64).await.unwrap(), body(BYTES));
    assert_eq!(line.proxy.left(), 0, "not every fault was met");
    let retries: Vec<String> = line.heard.retries().into_iter().map(|(_, why)| why).collect();
    assert_eq!(retries, ["nothing moved for 3.3 s", "nothing moved for 2.0 s"]);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_named_within_the_deadline() {
    let server = S3Server::start().unwrap();
    let mut gone = server.bucket.clone();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    gone.endpoint = format!("http://127.0.0.1:{port}");
    let mut short = options(&gone, "v");
    short.retry.total = Duration::from_millis(400);
    let heard = Arc::new(Heard::default());
    let store = S3Store::connect(short, heard.clone()).await.unwrap();
    let begun = Instant::now();
    let error = store.put(&path("a"), body(10), PutMode::CreateOnly).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let StoreError::Failed { attempts, reason, .. } = &error else { panic!("{error}") };
    assert!(*attempts >= 2 && heard.retries().len() + 1 == usize::try_from(*attempts).unwrap(), "{error}");
    assert!(reason.to_lowercase().contains("connection refused"), "{error}");
    assert!(error.to_string().contains(&gone.endpoint), "{error}");
}

#[tokio::test]
async fn a_wrong_secret_is_denied_at_once_and_never_shown() {
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut through = server.bucket.clone();
    through.endpoint = proxy.endpoint();
    through.secret_key = "wr0ng-c4n4ry".to_owned();
    let heard = Arc::new(Heard::default());
    let store = S3Store::connect(options(&through, "v"), heard.clone()).await.unwrap();
    for (action, error) in [
        ("write", store.put(&path("a"), body(10), PutMode::CreateOnly).await.unwrap_err()),
        ("write", store.put(&path("a"), body(10), PutMode::Replace).await.unwrap_err()),
        ("read", store.get(&path("a"), 10).await.unwrap_err()),
        ("read", store.stat(&path("a")).await.unwrap_err()),
        ("list", store.list(None).await.unwrap_err()),
        ("delete", store.delete(&path("a")).await.unwrap_err()),
    ] {
        let StoreError::Denied { action: denied, reason, .. } = &error else { panic!("{action}: {error}") };
        assert_eq!((*denied, reason.as_str()), (action, "SignatureDoesNotMatch"), "{error}");
        for text in [error.to_string(), format!("{error:?} {store:?}")] {
            assert!(!text.contains("c4n4ry") && !text.contains(&server.bucket.secret_key), "{text}");
        }
    }
    assert_eq!(heard.retries(), [], "a refusal was tried again");
    assert_eq!(proxy.requests("PUT"), 1);
}

#[tokio::test]
async fn an_unknown_access_key_is_denied() {
    let server = S3Server::start().unwrap();
    let mut options = options(&server.bucket, "v");
    options.credentials = S3Credentials::Static {
        access_key_id: "nobody".to_owned(),
        secret_access_key: Secret::new("c4n4ry"),
        session_token: Some(Secret::new("t0ken-c4n4ry")),
    };
    let store = S3Store::connect(options, Arc::new(Silent)).await.unwrap();
    let error = store.get(&path("a"), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(!format!("{error} {error:?} {store:?}").contains("c4n4ry"), "{error:?}");
}

#[tokio::test]
async fn a_missing_bucket_is_missing_for_every_call() {
    let server = S3Server::start().unwrap();
    let mut other = server.bucket.clone();
    other.bucket = "no-such-bucket".to_owned();
    // A store of its own for each call, because one that has seen its bucket does not ask again.
    let store = async || S3Store::connect(options(&other, "v"), Arc::new(Silent)).await.unwrap();
    for (call, error) in [
        ("create", store().await.put(&path("a"), body(10), PutMode::CreateOnly).await.unwrap_err()),
        ("stat", store().await.stat(&path("a")).await.unwrap_err()),
        ("get", store().await.get(&path("a"), 10).await.unwrap_err()),
        ("list", store().await.list(None).await.unwrap_err()),
        ("children", store().await.children(None).await.unwrap_err()),
        ("delete", store().await.delete(&path("a")).await.unwrap_err()),
        ("now", store().await.now().await.unwrap_err()),
    ] {
        assert!(matches!(error, StoreError::Missing { .. }), "{call}: {error}");
        assert!(error.to_string().contains("no-such-bucket"), "{call}: {error}");
    }
    assert!(!server.files().with_file_name("no-such-bucket").exists(), "the bucket was made");
}

#[tokio::test]
async fn the_checksum_travels_and_the_probe_sees_that_it_is_checked() {
    let line = line([]).await;
    line.store.put(&path("a"), body(1000), PutMode::Replace).await.unwrap();
    let expected = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(body(1000)));
    let heads = line.proxy.heads();
    let put = heads.iter().find(|head| head.starts_with("PUT ")).unwrap();
    assert!(put.contains(&format!("x-amz-checksum-sha256: {expected}")), "{put}");
    assert!(!put.contains(&line.server.bucket.secret_key), "{put}");

    let probe = line.store.probe().await.unwrap();
    assert!(probe.checksums_verified, "{probe:?}");
    assert!(probe.if_none_match, "{probe:?}");
    // What s3s-fs is known for: a refused body stays on its disk. The store deletes it when its own upload is refused.
    assert!(probe.refused_body_kept, "{probe:?}");
    assert!(matches!(probe.versioning, Versioning::Unknown(_)), "{probe:?}");
    assert_eq!(line.store.children(None).await.unwrap(), ["a"], "the probe left something behind");
}

#[tokio::test]
async fn if_none_match_is_sent_only_where_asked_for() {
    let line = line([]).await;
    line.store.put(&path("plain"), body(10), PutMode::CreateOnly).await.unwrap();
    let has_header = |heads: Vec<String>| heads.iter().any(|head| head.contains("if-none-match: *"));
    assert!(!has_header(line.proxy.heads()));
    let strict = line.store.with_if_none_match(true);
    strict.put(&path("strict"), body(10), PutMode::CreateOnly).await.unwrap();
    assert!(has_header(line.proxy.heads()));
}

#[tokio::test]
async fn readback_reads_what_was_written() {
    let line = line([]).await;
    let store = line.store.with_readback(true);
    store.put(&path("a"), body(5000), PutMode::CreateOnly).await.unwrap();
    assert_eq!((line.proxy.requests("PUT"), line.proxy.requests("GET")), (1, 1));
}

#[tokio::test]
async fn damage_at_rest_is_given_to_the_reader_and_not_tried_again() {
    let line = line([]).await;
    line.store.put(&path("a"), body(1000), PutMode::Replace).await.unwrap();
    let mut damaged = body(1000).to_vec();
    damaged[500] ^= 1;
    std::fs::write(line.server.files().join("v/a"), &damaged).unwrap();
    assert_eq!(line.store.get(&path("a"), 1000).await.unwrap(), damaged);
    assert_eq!(line.heard.retries(), []);
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_refused_at_once() {
    let server = S3Server::start_tls().unwrap();
    let heard = Arc::new(Heard::default());
    let mut options = options(&server.bucket, "v");
    // The server's own certificate is no authority.
    options.ca = Some(OTHER_CA.as_bytes().to_vec());
    let store = S3Store::connect(options, heard.clone()).await.unwrap();
    let error = store.get(&path("a"), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { attempts: 1, .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(heard.retries(), []);
}

/// A valid authority that signed nothing here.
const OTHER_CA: &str = include_str!("../harness/tls/other-ca.pem");

//! S3 puts against an endpoint whose every answer the test chooses: what a real one does once in a thousand times.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::monitor::Silent;
use backup_core::secret::Secret;
use backup_core::vault::s3::{S3Credentials, S3Options, S3Store};
use backup_core::vault::store::{PutMode, PutOutcome, Store, StoreError};

use super::store_conformance::path;

/// What a request gets: status and body; `None` closes the connection without an answer.
type Answer = Option<(u16, Vec<u8>)>;

/// The bucket's only body, and the requests in order.
#[derive(Default)]
struct Bucket {
    body: Option<Vec<u8>>,
    seen: Vec<String>,
}

type Script = dyn Fn(&mut Bucket, &str, bool, Vec<u8>) -> Answer + Send + Sync;

/// Serves until the test ends. `script` gets the bucket, the method, whether the name must be free, and the body.
fn serve(script: Arc<Script>) -> (String, Arc<Mutex<Bucket>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let bucket = Arc::new(Mutex::new(Bucket::default()));
    let served = Arc::clone(&bucket);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (script, bucket) = (Arc::clone(&script), Arc::clone(&served));
            std::thread::spawn(move || connection(stream, &*script, &bucket));
        }
    });
    (endpoint, bucket)
}

fn connection(mut stream: TcpStream, script: &Script, bucket: &Mutex<Bucket>) -> Option<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        let (method, path) = (head.split(' ').next().unwrap(), head.split(' ').nth(1).unwrap());
        let free = head.contains("if-none-match: *");
        let answer = {
            let mut bucket = bucket.lock().unwrap();
            bucket.seen.push(method.to_owned());
            // The bucket itself is there.
            if path.starts_with("/b/a") { script(&mut bucket, method, free, body) } else { Some((200, Vec::new())) }
        };
        let (status, body) = answer?;
        let more = "last-modified: Sat, 21 Nov 2026 02:00:00 GMT\r\netag: \"x\"\r\n";
        write!(stream, "HTTP/1.1 {status} said\r\ncontent-length: {}\r\n{more}\r\n", body.len()).ok()?;
        if method != "head" {
            stream.write_all(&body).ok()?;
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is one of the answers")]
fn code(status: u16, code: &str) -> Answer {
    Some((status, format!("<Error><Code>{code}</Code></Error>").into_bytes()))
}

/// What an honest bucket answers.
fn honest(bucket: &mut Bucket, method: &str, free: bool, body: Vec<u8>) -> Answer {
    match method {
        "put" if free && bucket.body.is_some() => code(412, "PreconditionFailed"),
        "put" => {
            bucket.body = Some(body);
            Some((200, Vec::new()))
        }
        "delete" => {
            bucket.body = None;
            Some((204, Vec::new()))
        }
        // A missing key; a bucket that is there.
        "head" => Some((if bucket.body.is_some() { 200 } else { 404 }, bucket.body.clone().unwrap_or_default())),
        _ => bucket.body.clone().map_or_else(|| code(404, "NoSuchKey"), |body| Some((200, body))),
    }
}

async fn store(endpoint: String) -> S3Store {
    let credentials = S3Credentials::Static {
        access_key_id: "somebody".to_owned(),
        secret_access_key: Secret::new("something"),
        session_token: None,
    };
    let mut options = S3Options::new(endpoint, "b", "us-east-1", credentials);
    options.retry.base = Duration::from_millis(1);
    options.retry.total = Duration::from_millis(800);
    S3Store::connect(options, Arc::new(Silent)).await.unwrap().with_if_none_match(true)
}

fn damaged(mut body: Vec<u8>) -> Vec<u8> {
    body[0] ^= 1;
    body
}

const BODY: &[u8] = b"what was sent";

#[tokio::test]
async fn a_damaged_body_whose_answer_was_lost_is_not_taken_for_the_body() {
    for spoil in [false, true] {
        let script = move |bucket: &mut Bucket, method: &str, free: bool, body: Vec<u8>| {
            if method == "put" && bucket.body.is_none() {
                bucket.body = Some(if spoil { damaged(body) } else { body });
                return None;
            }
            honest(bucket, method, free, body)
        };
        let (endpoint, bucket) = serve(Arc::new(script));
        let outcome = store(endpoint).await.put(&path("a"), BODY.into(), PutMode::CreateOnly).await.unwrap();
        assert_eq!(outcome, PutOutcome::Created);
        let bucket = bucket.lock().unwrap();
        // Fails where what lies there after a lost answer is compared by its size.
        assert_eq!(bucket.body.as_deref(), Some(BODY), "{:?}", bucket.seen);
        let puts = bucket.seen.iter().filter(|method| *method == "put").count();
        assert_eq!(puts, if spoil { 3 } else { 2 }, "what is good is left alone: {:?}", bucket.seen);
    }
}

#[tokio::test]
async fn a_refused_body_is_deleted_whatever_the_last_attempt_died_of() {
    // What is kept of it: a damaged body, a longer one, the whole.
    for (kept, left) in [(0, None), (1, None), (2, Some(BODY))] {
        let script = move |bucket: &mut Bucket, method: &str, free: bool, body: Vec<u8>| {
            if method != "put" {
                return honest(bucket, method, free, body);
            }
            if bucket.seen.iter().filter(|method| *method == "put").count() > 1 {
                return code(503, "SlowDown");
            }
            // An endpoint that refuses a body and keeps it; or another writer has put the whole one since.
            bucket.body = Some(match kept {
                0 => damaged(body),
                1 => [body, b" and more".to_vec()].concat(),
                _ => body,
            });
            code(400, "BadDigest")
        };
        let (endpoint, bucket) = serve(Arc::new(script));
        let error = store(endpoint).await.put(&path("a"), BODY.into(), PutMode::CreateOnly).await.unwrap_err();
        // The last one may have had no time left for its answer.
        let last = ["SlowDown", "no answer within"];
        assert!(
            matches!(&error, StoreError::Failed { reason, .. } if last.iter().any(|why| reason.starts_with(why))),
            "{error}"
        );
        let bucket = bucket.lock().unwrap();
        // Fails where only a digest that is refused last is followed by a deletion.
        assert_eq!(bucket.body.as_deref(), left, "{:?}", bucket.seen);
    }
}

#[tokio::test]
async fn what_an_endpoint_keeps_of_a_body_is_compared_where_it_does_not_check() {
    for wrong in [1, usize::MAX] {
        let script = move |bucket: &mut Bucket, method: &str, free: bool, body: Vec<u8>| {
            let puts = bucket.seen.iter().filter(|method| *method == "put").count();
            let body = if method == "put" && puts <= wrong { damaged(body) } else { body };
            honest(bucket, method, free, body)
        };
        let (endpoint, bucket) = serve(Arc::new(script));
        let store = store(endpoint).await.with_readback(true);
        let put = store.put(&path("a"), BODY.into(), PutMode::CreateOnly).await;
        let bucket = bucket.lock().unwrap();
        if wrong == 1 {
            assert_eq!(put.unwrap(), PutOutcome::Created);
            assert_eq!(bucket.body.as_deref(), Some(BODY), "{:?}", bucket.seen);
        } else {
            // Fails where the endpoint's 200 is believed, and where what is wrong is left under a good name.
            let error = put.unwrap_err();
            assert!(matches!(error, StoreError::Failed { action: "write", .. }), "{error}");
            assert_eq!(bucket.body, None, "{:?}", bucket.seen);
        }
    }
}

#[tokio::test]
async fn what_an_endpoint_gives_to_nobody_is_told_from_an_endpoint_that_fails() {
    let (endpoint, _) = serve(Arc::new(|_: &mut Bucket, _: &str, _: bool, _: Vec<u8>| code(400, "InvalidRequest")));
    let store = store(endpoint).await;
    for error in [store.get(&path("a"), 9).await.unwrap_err(), store.stat(&path("a")).await.unwrap_err()] {
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    }
    let error = store.put(&path("a"), BODY.into(), PutMode::Replace).await.unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn an_overwrite_that_is_denied_reads_until_it_knows_what_is_there() {
    for (reads_that_fail, there) in [(0, BODY), (2, BODY), (2, b"another body!")] {
        let script = move |bucket: &mut Bucket, method: &str, free: bool, body: Vec<u8>| {
            let reads = bucket.seen.iter().filter(|method| *method == "get").count();
            match method {
                // A policy that lets nobody write over a name.
                "put" if !free => code(403, "AccessDenied"),
                "put" if bucket.body.is_none() => {
                    bucket.body = Some(there.to_vec());
                    code(412, "PreconditionFailed")
                }
                "get" if reads <= reads_that_fail => code(503, "SlowDown"),
                _ => honest(bucket, method, free, body),
            }
        };
        let (endpoint, bucket) = serve(Arc::new(script));
        let put = store(endpoint).await.put(&path("a"), BODY.into(), PutMode::Replace).await;
        let seen = bucket.lock().unwrap().seen.clone();
        if there == BODY {
            // Fails where an endpoint that cannot be read for a moment turns what is done into what is denied.
            put.unwrap_or_else(|error| panic!("{reads_that_fail}: {error}: {seen:?}"));
        } else {
            assert!(matches!(put, Err(StoreError::Denied { .. })), "{put:?}: {seen:?}");
        }
        assert_eq!(seen.iter().filter(|method| *method == "get").count(), reads_that_fail + 1, "{seen:?}");
    }
}

#[tokio::test]
async fn a_body_in_chunks_is_held_to_the_length_that_it_announced() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
            // Without an end, until the client goes away.
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        }
    });
    // Fails where only the announcement is compared with what is wanted: it would be read for ever.
    let error = store(endpoint).await.get(&path("a"), 9).await.unwrap_err().to_string();
    assert!(error.contains("body goes on after its 5 bytes"), "{error}");
}

//! Listings of an S3 store that go round, break off or have no end: refused by name, never believed as far as they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_core::monitor::Silent;
use backup_core::vault::s3::S3Store;
use backup_core::vault::store::{PutMode, Store, StoreError};
use bytes::Bytes;
use harness::proxy::{Answer, Proxy};
use harness::s3::S3Server;

use super::store_conformance::{options, path};

fn refusal<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer.unwrap_err() {
        StoreError::Failed { action: "list", path, reason, .. } => format!("{path}: {reason}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_listing_of_more_names_than_there_may_be_is_refused() {
    let server = S3Server::start().unwrap();
    let mut few = options(&server.bucket, "v");
    (few.page_names, few.most_names) = (3, 8);
    let store = S3Store::connect(few, Arc::new(Silent)).await.unwrap();
    let fill = async |folder: &str, count: usize| {
        for n in 0..count {
            store.put(&path(&format!("{folder}/{n}")), Bytes::from_static(b"x"), PutMode::Replace).await.unwrap();
        }
    };
    fill("eight", 8).await;
    fill("two", 2).await;
    let each = async |folder: &str| {
        let mut seen = 0;
        store.each(Some(&path(folder)), &mut |_| seen += 1).await.map(|()| seen)
    };
    // As many as there may be are no fault; what is held whole may have a quarter of them.
    assert_eq!(each("eight").await.unwrap(), 8);
    assert_eq!(store.list(Some(&path("two"))).await.unwrap().len(), 2);
    assert_eq!(store.children(Some(&path("two"))).await.unwrap(), ["0", "1"]);
    fill("eight", 9).await;
    fill("two", 3).await;
    assert_eq!(refusal(each("eight").await), "eight: listing has no end: more than 8 names");
    assert_eq!(refusal(store.list(Some(&path("two"))).await), "two: listing has no end: more than 2 names");
    assert_eq!(refusal(store.children(Some(&path("two"))).await), "two: listing has no end: more than 2 names");
}

/// Whoever writes into a bucket chooses what a page of its listing holds, and so how long it is.
#[tokio::test]
async fn a_page_of_the_longest_names_is_read() {
    let server = S3Server::start().unwrap();
    let store = S3Store::connect(options(&server.bucket, "v"), Arc::new(Silent)).await.unwrap();
    store.put(&path("zz/ours"), Bytes::from_static(b"x"), PutMode::Replace).await.unwrap();
    // Each of these takes five or six bytes in XML, and a thousand such names over 5 MB.
    let part = "&".repeat(240);
    let folder = server.files().join("v").join([&part[..], &part, &part].join("/"));
    std::fs::create_dir_all(&folder).unwrap();
    for n in 0..1005 {
        std::fs::write(folder.join(format!("{}{n:04}", "\"".repeat(236))), "").unwrap();
    }
    // Fails where a page of 4 MiB is taken for one without an end.
    let listed = store.list(None).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["zz/ours"]);
    assert_eq!(store.children(None).await.unwrap(), ["zz"]);
}

/// What a page names, and where it says that the next one begins, by its number.
type Page = fn(usize) -> (String, Option<String>);

#[tokio::test]
async fn a_listing_that_goes_round_or_breaks_off_is_refused() {
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let mut through = server.bucket.clone();
    through.endpoint = proxy.endpoint();
    let mut few = options(&through, "v");
    few.most_names = 100_000;
    let store = S3Store::connect(few, Arc::new(Silent)).await.unwrap();
    let cases: [(Page, &str); 4] = [
        (|_| ("same".to_owned(), None), "cut off without a new place"),
        (|n| (format!("{n:09}"), Some("same".to_owned())), "cut off without a new place"),
        (
            |n| (["a", "b", "c"][n % 3].to_owned(), Some(n.to_string())),
            "goes round: a second page begins with `v/dir/a`",
        ),
        (|n| (String::new(), Some(n.to_string())), "has no end: more than 500 pages"),
    ];
    for (page, why) in cases {
        let number = AtomicUsize::new(0);
        proxy.rewrite(Some(Arc::new(move |answer: &mut Answer| {
            let (name, next) = page(number.fetch_add(1, Ordering::Relaxed));
            let next = next.map_or(String::new(), |next| format!("<NextContinuationToken>{next}</NextContinuationToken>"));
            let entry = format!(
                "<Contents><Key>v/dir/{name}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
            );
            let entry = if name.is_empty() { "" } else { &entry };
            answer.head = vec!["HTTP/1.1 200 OK".to_owned()];
            answer.body =
                format!("<ListBucketResult><IsTruncated>true</IsTruncated>{next}{entry}</ListBucketResult>").into_bytes();
        })));
        let mut seen = 0;
        let said = refusal(store.each(Some(&path("dir")), &mut |_| seen += 1).await);
        assert!(said.starts_with("dir: ") && said.contains(why), "{said}");
    }
}

//! Memory when an endpoint answers without an end: peak resident size of the real binary, by the kernel's own mark.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::proxy::{Act, Proxy};
use harness::s3::S3Server;

use super::host::{DOCS, Host};
use super::memory::{MIB, MOST, watched};

/// What is answered without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endless {
    /// Status and no length.
    Body(u16),
    /// A length of some GB, and as many bytes.
    Long,
    /// A length that the largest inventory may have.
    Large,
    /// A listing whose every page says that there is another one, and is the same but for where to go on.
    SamePages,
    /// The same without any name.
    EmptyPages,
}

/// A host with one vault behind a proxy, a snapshot and a mark in it.
fn host(proxy: &Proxy, server: &S3Server) -> Host {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("data/a.bin"), super::recover::noise(60_000, 1)).unwrap();
    let bucket = &server.bucket;
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
    fs::write(host.path("s3.env"), keys).unwrap();
    fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
    host.configure(&format!(
        "[vault.far]\ns3 = {{ endpoint = \"{}\", bucket = \"vault\", prefix = \"v\" }}\ncredentials = {{ file = \"s3.env\" }}\n\
         keep = {{ within = \"7d\", min = 2 }}\n{DOCS}",
        proxy.endpoint()
    ));
    host.good(&["init"]);
    host.good(&["run"]);
    host.good(&["verify", "--identity", "ops.txt"]);
    host.change("reserve = \"0%\"", "reserve = \"0%\", patience = \"2s\"");
    host
}

fn page(endless: Endless, number: usize) -> Vec<u8> {
    let name =
        "<Contents><Key>v/s/docs/x</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified><Size>1</Size></Contents>";
    let names = if endless == Endless::SamePages { name.repeat(1000) } else { String::new() };
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{number}\
         </NextContinuationToken>{names}</ListBucketResult>"
    )
    .into_bytes()
}

fn act(endless: Endless, number: &AtomicUsize) -> Act {
    let head = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let piece = b"<Contents><Key>v/s/docs/2026</Key></Contents>".repeat(1500);
    match endless {
        Endless::Body(status) => {
            let first = format!("HTTP/1.1 {status} -");
            Act::Endless(head(&[&first, "content-type: application/xml", "connection: close"]), piece.into())
        }
        Endless::Long => Act::Endless(head(&["HTTP/1.1 200 OK", "content-length: 8000000000"]), piece.into()),
        Endless::Large => Act::Endless(head(&["HTTP/1.1 200 OK", "content-length: 268000000"]), piece.into()),
        pages => {
            let body = page(pages, number.fetch_add(1, Ordering::Relaxed));
            Act::Lie(Arc::new(move |answer| {
                answer.head = head(&["HTTP/1.1 200 OK", "content-type: application/xml"]);
                answer.body.clone_from(&body);
            }))
        }
    }
}

/// What is asked of which requests, the verb that asks, and what its error must name.
const CASES: [(&str, &str, Endless, &[&str], &str); 18] = [
    ("GET ", "list-type=2", Endless::Body(200), &["run"], "s/docs"),
    ("GET ", "list-type=2", Endless::Long, &["verify"], "s/docs"),
    ("GET ", "list-type=2", Endless::SamePages, &["run"], "s/docs"),
    ("GET ", "list-type=2", Endless::SamePages, &["verify"], "s/docs"),
    ("GET ", "list-type=2", Endless::Body(403), &["list"], "far"),
    ("GET ", "list-type=2", Endless::Body(500), &["run"], "s/docs"),
    ("GET ", "/vault.json", Endless::Body(200), &["run"], "vault.json"),
    ("GET ", "/vault.json", Endless::Long, &["run"], "vault.json"),
    ("GET ", "/vault.json", Endless::Body(404), &["verify"], "vault.json"),
    ("GET ", "/generation.json", Endless::Long, &["verify"], "generation.json"),
    ("GET ", ".checked.json", Endless::Long, &["verify", "--identity", "ops.txt"], ".checked.json"),
    ("GET ", "b.json?", Endless::Long, &["verify"], ".json"),
    ("GET ", ".inventory.zst", Endless::Long, &["verify"], ".inventory.zst"),
    ("GET ", ".inventory.zst", Endless::Large, &["verify"], ".inventory.zst"),
    ("GET ", "/objects/", Endless::Long, &["verify", "--read-data", "1/1"], "/objects/"),
    ("GET ", "/objects/", Endless::Body(500), &["verify", "--read-data", "1/1"], "/objects/"),
    ("PUT ", "/snapshots/", Endless::Body(200), &["run"], "/snapshots/"),
    ("PUT ", "_probe/body", Endless::Body(412), &["run"], "_probe/body"),
];

#[test]
fn answers_without_an_end_are_cut_off_and_named() {
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let host = host(&proxy, &server);
    for (method, part, endless, args, named) in CASES {
        let (met, number) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let count = Arc::clone(&met);
        let is_snapshot = part == "b.json?";
        proxy.judge(Some(Arc::new(move |line| {
            let its = if is_snapshot {
                line.contains("/snapshots/") && line.contains(".json") && !line.contains(".sig")
            } else {
                line.contains(part)
            };
            if line.starts_with(method) && its {
                count.fetch_add(1, Ordering::Relaxed);
                return act(endless, &number);
            }
            Act::Pass
        })));
        let begun = Instant::now();
        let (ended, most) = watched(&host, args);
        let about = format!("{part} {endless:?}, {args:?}, {} MiB, {:?}: {ended:?}", most / MIB, begun.elapsed());
        assert!(met.load(Ordering::Relaxed) > 0, "not met: {about}");
        assert!(most <= MOST, "{about}");
        assert!([1, 3, 4, 10].contains(&ended.code), "{about}");
        assert!(format!("{}{}", ended.out, ended.err).contains(named), "{about}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{about}");
    }
    // Told the truth again, nothing was lost.
    proxy.judge(None);
    host.change("patience = \"2s\"", "patience = \"3m\"");
    host.good(&["run"]);
    host.good(&["verify", "--read-data", "1/1"]);
}

/// Pages without names, each with a new place to go on, come to an end as well: some ten thousand requests, so only
/// where `BACKUP_EMPTY_PAGES` is set.
#[test]
fn pages_without_names_come_to_an_end() {
    if std::env::var_os("BACKUP_EMPTY_PAGES").is_none() {
        return;
    }
    let server = S3Server::start().unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    let host = host(&proxy, &server);
    let number = AtomicUsize::new(0);
    proxy.judge(Some(Arc::new(move |line| {
        if line.contains("list-type=2") { act(Endless::EmptyPages, &number) } else { Act::Pass }
    })));
    let (ended, most) = watched(&host, &["run"]);
    assert!(ended.code == 1 && ended.out.contains("listing has no end: more than"), "{ended:?}");
    assert!(most <= MOST, "{} MiB", most / MIB);
}

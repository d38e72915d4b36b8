//! Every call of the S3 store behind a proxy that breaks it, and runs of the program whose endpoint lies: altered bodies, an
//! old listing, half a listing, a wrong clock. Nothing is lost, nothing wrong is believed, and errors name their object.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::monitor::{Event, Monitor};
use backup_core::vault::s3::S3Store;
use backup_core::vault::store::{PutMode, Store, StoreError};
use bytes::Bytes;
use futures::future::join_all;
use harness::proxy::{Answer, Fault, Lie, Proxy};
use harness::s3::S3Server;

use super::host::Host;
use super::past::contents;
use super::recover::noise;
use super::store_conformance::{options, path};

#[derive(Debug, Default)]
struct Retries(Mutex<u32>);

impl Monitor for Retries {
    fn event(&self, event: Event) {
        if let Event::Retry { .. } = event {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Create,
    Replace,
    Stat,
    Get,
    List,
    Children,
    Delete,
    Now,
}

const CALLS: [Call; 8] =
    [Call::Create, Call::Replace, Call::Stat, Call::Get, Call::List, Call::Children, Call::Delete, Call::Now];

impl Call {
    /// Makes it, on the object `there` or a new one; what it gave, as a text.
    async fn make(self, store: &S3Store) -> Result<String, StoreError> {
        let (there, new, body) = (path("dir/there"), path("dir/new"), Bytes::from_static(b"body"));
        Ok(match self {
            Self::Create => format!("{:?}", store.put(&new, body, PutMode::CreateOnly).await?),
            Self::Replace => format!("{:?}", store.put(&new, body, PutMode::Replace).await?),
            Self::Stat => format!("{:?}", store.stat(&there).await?.map(|entry| entry.bytes)),
            Self::Get => format!("{:?}", store.get(&there, 100).await?),
            Self::List => format!("{:?}", store.list(Some(&path("dir"))).await?.len()),
            Self::Children => format!("{:?}", store.children(None).await?),
            Self::Delete => format!("{:?}", store.delete(&there).await?),
            Self::Now => format!("{}", store.now().await?.timestamp() > 0),
        })
    }
}

/// A server with one object, a proxy before it.
async fn line() -> (S3Server, Proxy) {
    let server = S3Server::start().unwrap();
    let direct = S3Store::connect(options(&server.bucket, "v"), Arc::new(Retries::default())).await.unwrap();
    direct.put(&path("dir/there"), Bytes::from_static(b"what is there"), PutMode::Replace).await.unwrap();
    let proxy = Proxy::start(server.addr()).unwrap();
    (server, proxy)
}

/// A store over the proxy, with connections of its own.
async fn through(server: &S3Server, proxy: &Proxy, attempt: Duration, total: Duration) -> (S3Store, Arc<Retries>) {
    let mut bucket = server.bucket.clone();
    bucket.endpoint = proxy.endpoint();
    let mut options = options(&bucket, "v");
    (options.retry.attempt, options.retry.total) = (attempt, total);
    let retries = Arc::new(Retries::default());
    (S3Store::connect(options, retries.clone()).await.unwrap(), retries)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_survives_one_failure_of_each_kind() {
    let faults = [
        Fault::Answer500,
        Fault::Answer503,
        Fault::Refuse,
        Fault::Stall,
        Fault::CutUpstream(40),
        Fault::CutDownstream(20),
        Fault::ResetDownstream(20),
    ];
    let one = async |call: Call, fault: Fault| {
        let (server, proxy) = line().await;
        let long = Duration::from_secs(20);
        let good = call.make(&through(&server, &proxy, long, long).await.0).await.unwrap();
        let (server, proxy) = line().await;
        proxy.script([fault]);
        let attempt = if fault == Fault::Stall { Duration::from_secs(2) } else { long };
        let (store, retries) = through(&server, &proxy, attempt, long).await;
        let made = call.make(&store).await.unwrap_or_else(|error| panic!("{call:?} behind {fault:?}: {error}"));
        assert_eq!(made, good, "{call:?} behind {fault:?}");
        assert_eq!(proxy.left(), 0, "{call:?} did not meet {fault:?}");
        assert!(*retries.0.lock().unwrap() >= 1, "{call:?} behind {fault:?}: nobody was told");
    };
    for fault in faults {
        join_all(CALLS.map(|call| one(call, fault))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_that_always_fails_ends_in_time_and_names_what_it_was_about() {
    let faults = [Fault::Answer500, Fault::Answer503, Fault::Stall, Fault::ResetDownstream(20)];
    let one = async |call: Call, fault: Fault| {
        let (server, proxy) = line().await;
        proxy.script(std::iter::repeat_n(fault, 10_000));
        let attempt = Duration::from_millis(if fault == Fault::Stall { 200 } else { 5000 });
        let (store, _) = through(&server, &proxy, attempt, Duration::from_millis(600)).await;
        let begun = Instant::now();
        let error = call.make(&store).await.expect_err("every attempt was broken");
        assert!(begun.elapsed() < Duration::from_secs(20), "{call:?} behind {fault:?}: {:?}", begun.elapsed());
        let text = error.to_string();
        assert!(matches!(error, StoreError::Failed { attempts: 1.., .. }), "{call:?} behind {fault:?}: {text}");
        let about = match call {
            Call::Create | Call::Replace => "dir/new",
            Call::Stat | Call::Get | Call::Delete => "dir/there",
            Call::List => "dir",
            Call::Children => "v",
            Call::Now => "the clock",
        };
        assert!(text.contains(about) && text.contains(&proxy.endpoint()), "{call:?} behind {fault:?}: {text}");
        assert!(!text.contains(&server.bucket.secret_key));
        // What is there is there; only a deletion may have been done, with its answer lost.
        match fs::read(server.files().join("v/dir/there")) {
            Ok(body) => assert_eq!(body, b"what is there", "{call:?}"),
            Err(error) => assert!(matches!(call, Call::Delete), "{call:?} behind {fault:?}: {error}"),
        }
    };
    for fault in faults {
        join_all(CALLS.map(|call| one(call, fault))).await;
    }
}

/// A host whose two vaults lie behind the same lying endpoint.
struct Liar {
    host: Host,
    server: S3Server,
    proxy: Proxy,
}

impl Liar {
    fn new() -> Self {
        let server = S3Server::start().unwrap();
        let proxy = Proxy::start(server.addr()).unwrap();
        let host = Host::new();
        let vault = |name: &str| {
            format!(
                "[vault.{name}]\ns3 = {{ endpoint = \"{}\", bucket = \"{}\", prefix = \"{name}\", region = \"us-east-1\", \
                 path_style = true }}\ncredentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n",
                proxy.endpoint(),
                server.bucket.bucket
            )
        };
        host.configure(&format!(
            "{}{}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n",
            vault("local"),
            vault("offsite")
        ));
        let (access, secret) = (&server.bucket.access_key, &server.bucket.secret_key);
        let keys = format!("AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY={secret}\n");
        fs::write(host.path("s3.env"), keys).unwrap();
        fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(host.path("data")).unwrap();
        let liar = Self { host, server, proxy };
        liar.write(0);
        liar.host.good(&["init"]);
        liar
    }

    fn write(&self, seed: u64) {
        fs::write(self.host.path("data/a.bin"), noise(300_000, seed)).unwrap();
        fs::write(self.host.path("data/b.txt"), format!("{seed:05}")).unwrap();
    }

    fn lie(&self, lie: impl Fn(&mut Answer) + Send + Sync + 'static) {
        self.proxy.rewrite(Some(Arc::new(lie)));
    }

    fn ids(&self) -> Vec<String> {
        let list = self.host.good(&["list", "--json"]).json();
        let snapshots = list["snapshots"].as_array().unwrap();
        snapshots.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Every snapshot of every vault, told the truth again, is one of the states that were captured.
    fn everything_restores(&self, seeds: std::ops::RangeInclusive<u64>) {
        self.proxy.rewrite(None);
        self.host.good(&["run"]);
        self.host.good(&["replicate"]);
        self.host.good(&["verify", "--identity", "ops.txt"]);
        let mut seen = std::collections::BTreeSet::new();
        for id in self.ids() {
            for vault in ["local", "offsite"] {
                self.host.good(&["restore", &id, "--vault", vault, "--identity", "ops.txt", "--into-dir", "out"]);
                let files = contents(&self.host.path("out"));
                fs::remove_dir_all(self.host.path("out")).unwrap();
                let seed: u64 = String::from_utf8(files["b.txt"].clone()).unwrap().parse().unwrap();
                assert!(files["a.bin"] == noise(300_000, seed), "{id} in `{vault}`");
                seen.insert(seed);
            }
        }
        assert_eq!(seen, seeds.collect(), "the states that come back");
    }
}

fn is_listing(answer: &Answer) -> bool {
    answer.request.starts_with("GET ") && answer.request.contains("list-type=2")
}

/// Takes every second entry out of a listing.
fn halve(answer: &mut Answer) {
    if !is_listing(answer) {
        return;
    }
    let text = String::from_utf8(std::mem::take(&mut answer.body)).unwrap();
    let (mut out, mut rest, mut n) = (String::new(), text.as_str(), 0);
    while let Some(at) = rest.find("<Contents>") {
        let end = rest[at..].find("</Contents>").unwrap() + at + "</Contents>".len();
        out.push_str(&rest[..at]);
        if n % 2 == 0 {
            out.push_str(&rest[at..end]);
        }
        n += 1;
        rest = &rest[end..];
    }
    out.push_str(rest);
    answer.body = out.into_bytes();
}

#[test]
fn listings_that_are_short_or_old_lose_nothing() {
    let liar = Liar::new();
    liar.host.good(&["run"]);
    liar.host.good(&["replicate"]);
    let kept: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let store = kept.clone();
    liar.lie(move |answer| {
        if is_listing(answer) {
            store.lock().unwrap().insert(answer.request.clone(), answer.body.clone());
        }
    });
    liar.host.good(&["verify"]);
    liar.write(1);
    liar.host.good(&["run"]);
    liar.host.good(&["replicate"]);
    assert!(!kept.lock().unwrap().is_empty(), "no listing was seen");
    let before = liar.server.files();
    let count = || super::stack::files_below(&before).len();

    let lies: [Lie; 2] = [
        Arc::new(halve),
        Arc::new(move |answer: &mut Answer| {
            if let Some(old) = kept.lock().unwrap().get(&answer.request) {
                answer.body.clone_from(old);
            }
        }),
    ];
    for (seed, lie) in (2..).zip(lies) {
        liar.proxy.rewrite(Some(lie));
        let files = count();
        liar.write(seed);
        // However these end: they see only a part, and must not act on what they miss.
        for args in [&["run"][..], &["replicate"], &["prune", "--apply"], &["verify"]] {
            let ended = liar.host.run(args);
            assert!([0, 1, 3, 4].contains(&ended.code), "{args:?}: {ended:?}");
        }
        assert!(count() >= files, "files went away");
        // The state of this round, told the truth.
        liar.proxy.rewrite(None);
        liar.host.good(&["run"]);
    }
    liar.everything_restores(0..=3);
}

#[test]
fn bodies_that_are_altered_on_their_way_are_never_restored() {
    let liar = Liar::new();
    liar.host.good(&["run"]);
    let restore = ["restore", "--latest", "--vault", "local", "--identity", "ops.txt", "--into-dir", "out"];
    for (part, alter) in [("/objects/", true), ("/objects/", false), ("/snapshots/", true), ("/snapshots/", false)] {
        liar.lie(move |answer| {
            if answer.request.starts_with("GET ") && answer.request.contains(part) && !answer.body.is_empty() {
                let middle = answer.body.len() / 2;
                if alter {
                    answer.body[middle] ^= 1;
                } else {
                    answer.body.truncate(middle);
                }
            }
        });
        let ended = liar.host.run(&restore);
        assert!([1, 4].contains(&ended.code), "{part} altered {alter}: {ended:?}");
        assert!(!liar.host.path("out").exists(), "{part} altered {alter}: something was restored");
        let named = if part == "/objects/" { "object" } else { "docs" };
        assert!(ended.err.contains(named), "{part} altered {alter}: {ended:?}");
    }
    liar.everything_restores(0..=0);
}

#[test]
fn a_store_whose_clock_is_wrong_gets_no_snapshot() {
    let liar = Liar::new();
    for hours in [-48, 48] {
        liar.lie(move |answer| {
            for line in &mut answer.head {
                if line.to_ascii_lowercase().starts_with("date:") {
                    let wrong = super::past::now() + chrono::TimeDelta::hours(hours);
                    *line = format!("date: {}", wrong.format("%a, %d %b %Y %H:%M:%S GMT"));
                }
            }
        });
        let ended = liar.host.run(&["run"]);
        assert_eq!(ended.code, 1, "{hours} h: {ended:?}");
        assert!(ended.err.contains("hint: set the clock"), "{hours} h: {ended:?}");
        let found = super::stack::files_below(&liar.server.files()).into_iter();
        assert_eq!(found.filter(|path| path.to_str().unwrap().contains("/snapshots/")).count(), 0, "{hours} h");
    }
    liar.everything_restores(0..=0);
}

//! Every call of the S3 store behind a proxy that breaks it, and runs of the program whose endpoint lies: altered bodies, an
//! old listing, half a listing, a wrong clock. Nothing is lost, nothing wrong is believed, and errors name their object.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::monitor::{Event, Monitor};
use backup_core::vault::s3::S3Store;
use backup_core::vault::store::{PutMode, Store, StoreError};
use bytes::Bytes;
use futures::future::join_all;
use harness::proxy::{Act, Answer, Fault, Lie, Proxy};
use harness::s3::S3Server;

use super::host::Host;
use super::past::{Past, contents, host_key, let_a_day_pass, now};
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

/// Answers all requests from now on with this `Date` for those of which `is_wrong` says so, by their number.
fn date_wrongly(proxy: &Proxy, days: i64, is_wrong: impl Fn(usize) -> bool + Send + Sync + 'static) {
    let number = AtomicUsize::new(0);
    proxy.rewrite(Some(Arc::new(move |answer: &mut Answer| {
        if !is_wrong(number.fetch_add(1, Ordering::Relaxed)) {
            return;
        }
        let wrong = (now() + chrono::TimeDelta::days(days)).format("date: %a, %d %b %Y %H:%M:%S GMT").to_string();
        answer.head.retain(|line| !line.to_ascii_lowercase().starts_with("date:"));
        answer.head.push(wrong);
    })));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_with_a_wrong_clock_is_not_believed_and_two_that_differ_are_told() {
    let (server, proxy) = line().await;
    let long = Duration::from_secs(20);
    for days in [-366, 366] {
        let off = async |store: &S3Store| (store.now().await.unwrap() - now()).num_days().abs();
        for wrong in 0..8 {
            date_wrongly(&proxy, days, move |number| number == wrong);
            let (store, _) = through(&server, &proxy, long, long).await;
            // Fails where the newest answer is believed, or the only one.
            for call in [Call::Now, Call::Stat, Call::Now, Call::List, Call::Now, Call::Get, Call::Now] {
                call.make(&store).await.unwrap();
                assert_eq!(off(&store).await, 0, "answer {wrong} is off by {days} days: {call:?}");
            }
        }
        // A clock that is wrong in every answer is the endpoint's: whoever asks compares it with its own.
        date_wrongly(&proxy, days, |_| true);
        assert!(off(&through(&server, &proxy, long, long).await.0).await >= 365);
        date_wrongly(&proxy, days, |number| number % 2 == 0);
        let error = through(&server, &proxy, long, long).await.0.now().await.unwrap_err().to_string();
        assert!(error.contains("the clocks in its answers are apart: ") && error.contains("UTC, and then "), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refusal_for_the_time_is_passed_over_and_the_second_tells_both_clocks() {
    for call in CALLS {
        for times in [1, usize::MAX] {
            let (server, proxy) = line().await;
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            proxy.judge(Some(Arc::new(move |_| {
                let is_refused = count.fetch_add(1, Ordering::Relaxed) < times;
                if is_refused { Act::Refuse(403, "RequestTimeTooSkewed") } else { Act::Pass }
            })));
            let (store, retries) = through(&server, &proxy, Duration::from_secs(20), Duration::from_secs(20)).await;
            let made = call.make(&store).await;
            if times == 1 {
                made.unwrap_or_else(|error| panic!("{call:?}: {error}"));
                continue;
            }
            let error = made.unwrap_err();
            assert!(matches!(error, StoreError::Denied { .. }), "{call:?}: {error}");
            assert_eq!(*retries.0.lock().unwrap(), 1, "{call:?}: it does not become right by repetition");
            // A HEAD has no reason in it: the clock is only asked for by one.
            let said = error.to_string();
            let why = if matches!(call, Call::Now) { "HTTP 403" } else { "RequestTimeTooSkewed" };
            assert!(said.contains(why), "{call:?}: {said}");
        }
    }
}

#[test]
fn a_host_whose_clock_is_wrong_is_told_what_both_clocks_say() {
    let liar = Liar::new();
    liar.lie(|answer| {
        answer.head[0] = "HTTP/1.1 403 Forbidden".to_owned();
        answer.body = b"<Error><Code>RequestTimeTooSkewed</Code></Error>".to_vec();
    });
    let ended = liar.host.run(&["verify"]);
    assert_eq!(ended.code, 10, "{ended:?}");
    let year = now().format(": this host's clock said %Y-").to_string();
    assert!(ended.err.contains(&format!("RequestTimeTooSkewed{year}")), "{ended:?}");
    assert!(ended.err.contains(", the endpoint's 2") && ended.err.contains("hint: set the clock"), "{ended:?}");
}

/// What is captured of noise each time.
const BYTES: usize = 100_000;

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
        fs::write(self.host.path("data/a.bin"), noise(BYTES, seed)).unwrap();
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

    /// Captures of so many days ago, each in a generation of a day, in both vaults; the seed is 100 and the days.
    async fn live_through(&self, ages: &[i64]) {
        let files = self.server.files();
        let document: serde_json::Value =
            serde_json::from_slice(&fs::read(files.join("local/vault.json")).unwrap()).unwrap();
        let id = document["id"].as_str().unwrap().parse().unwrap();
        let mut past = Past::new(&self.host, &id, "docs", vec![self.host.path("data")]).await;
        for days in ages {
            self.write(100 + days.unsigned_abs());
            past.capture(now() - chrono::TimeDelta::days(*days)).await;
        }
        for vault in ["local", "offsite"] {
            past.write(&files.join(vault), now()).await;
        }
        self.write(0);
    }

    /// Files of the generations that began at most so many days ago, and of the host's own, without a prune's announcements.
    fn files_since(&self, days: i64) -> BTreeSet<std::path::PathBuf> {
        let first = (now() - chrono::TimeDelta::days(days)).format("%Y-%m-%d").to_string();
        let all = super::stack::files_below(&self.server.files()).into_iter();
        all.filter(|path| {
            let text = path.to_str().unwrap();
            let began = text.split("/s/docs/").nth(1).filter(|rest| rest.starts_with("20"));
            let announces = ["expired.json", "deleting.json"].iter().any(|name| text.contains(name));
            // The host's own generation began before all of these, and goes on.
            began.is_some_and(|began| *began >= *first || began.contains("--28d--")) && !announces
        })
        .collect()
    }

    /// Makes the announcements of a prune a day older; how many there are in each vault.
    fn let_a_day_pass(&self) -> [usize; 2] {
        let key = host_key(&self.host);
        ["local", "offsite"].map(|vault| let_a_day_pass(&self.server.files().join(vault), &key, usize::MAX))
    }

    /// Told the truth again, both vaults are whole, and every snapshot, now from the one and now from the other, is one of the
    /// states that were captured: which ones.
    fn everything_restores(&self) -> BTreeSet<u64> {
        self.proxy.rewrite(None);
        self.host.good(&["run"]);
        self.host.good(&["verify", "--identity", "ops.txt"]);
        let mut seen = BTreeSet::new();
        for (id, vault) in self.ids().iter().zip(["local", "offsite"].into_iter().cycle()) {
            let args = |vault| ["restore", id, "--vault", vault, "--identity", "ops.txt", "--into-dir", "out"];
            let ended = self.host.run(&args(vault));
            // What may go may be gone from one of them.
            if ended.err.contains("there is no such snapshot") {
                self.host.good(&args(if vault == "local" { "offsite" } else { "local" }));
            } else {
                assert_eq!(ended.code, 0, "{id} in `{vault}`: {ended:?}");
            }
            let files = contents(&self.host.path("out"));
            fs::remove_dir_all(self.host.path("out")).unwrap();
            let seed: u64 = String::from_utf8(files["b.txt"].clone()).unwrap().parse().unwrap();
            assert!(files["a.bin"] == noise(BYTES, seed), "{id} in `{vault}`");
            seen.insert(seed);
        }
        seen
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

#[tokio::test(flavor = "multi_thread")]
async fn listings_that_are_short_or_old_lose_nothing() {
    let liar = Liar::new();
    // Two may go, of two it is promised that they stay.
    liar.live_through(&[10, 9, 5, 2]).await;
    liar.host.good(&["run"]);
    // From now on a prune has something to delete, whatever a listing says.
    liar.host.good(&["prune", "--apply"]);
    assert_eq!(liar.let_a_day_pass(), [2, 2], "generations that are announced");
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
    assert!(!kept.lock().unwrap().is_empty(), "no listing was seen");
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
        let promised = liar.files_since(6);
        assert!(promised.len() >= 2 * 3 * 7, "{promised:?}");
        liar.write(seed);
        // However these end: they see only a part, and must not act on what they miss.
        for args in [&["run"][..], &["replicate"], &["prune", "--apply"], &["verify"]] {
            let ended = liar.host.run(args);
            assert!([0, 1, 3, 4].contains(&ended.code), "{args:?}: {ended:?}");
        }
        let left = liar.files_since(6);
        let gone: Vec<_> = promised.difference(&left).collect();
        assert!(gone.is_empty(), "files of what is promised went away: {gone:?}");
        // The state of this round, told the truth.
        liar.proxy.rewrite(None);
        liar.host.good(&["run"]);
    }
    let seen = liar.everything_restores();
    let promised: BTreeSet<u64> = (0..=3).chain([102, 105]).collect();
    assert!(promised.is_subset(&seen), "the states that come back: {seen:?}");
    // And it was there to be deleted: told the truth, a prune deletes it.
    let old = || liar.files_since(11).len() - liar.files_since(7).len();
    for seed in 4..=5 {
        if old() == 0 {
            break;
        }
        liar.host.good(&["prune", "--apply"]);
        liar.let_a_day_pass();
        liar.write(seed);
        liar.host.good(&["run"]);
        liar.host.good(&["prune", "--apply"]);
    }
    assert_eq!(old(), 0, "nothing could have been deleted");
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
    assert_eq!(liar.everything_restores(), [0].into(), "the states that come back");
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
        // Fails where requests are signed for what the endpoint's clock says: they would be refused before anybody compares.
        assert!(ended.out.contains("this host's clock says") && ended.out.contains("hint: set the clock"), "{ended:?}");
        let found = super::stack::files_below(&liar.server.files()).into_iter();
        assert_eq!(found.filter(|path| path.to_str().unwrap().contains("/snapshots/")).count(), 0, "{hours} h");
    }
    assert_eq!(liar.everything_restores(), [0].into(), "the states that come back");
}

//! What keeps a vault from being deleted, tried where it exists (moto: versions, delete markers, Object Lock) and where it is
//! only promised (the harness's lax endpoint): locks, older versions, rules of the bucket, and what `doctor` says of them.

use std::fs;
use std::sync::{Arc, Mutex};

use backup_core::clock::Clock;
use backup_core::monitor::{Event, Monitor, Silent};
use backup_core::vault::protection::{Hidden, Lifecycle, LockMode, LockRule};
use backup_core::vault::s3::{LockSeen, S3Store, Versioning};
use backup_core::vault::store::{Entry, PutMode, Store};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use harness::moto::{Kind, Moto};
use harness::proxy::{Act, Answer, Proxy};
use harness::s3::{Bucket, S3Server};
use serde_json::Value;

use super::host::Host;
use super::store_conformance::{options, path};

async fn store(bucket: &Bucket) -> S3Store {
    S3Store::connect(options(bucket, "v"), Arc::new(Silent)).await.unwrap()
}

/// What `doctor --json` says protects the vault: by what, and in words; and its exit code.
fn protection(host: &Host) -> (i32, String, String) {
    let ended = host.run(&["doctor", "--json"]);
    let seen = &ended.json()["protection"][0];
    let text = |key: &str| seen[key].as_str().unwrap_or_else(|| panic!("{}", ended.out)).to_owned();
    (ended.code, text("by"), text("text"))
}

fn snapshot(host: &Host) -> String {
    let listed: Value = host.good(&["list", "--json"]).json();
    let text = listed.to_string();
    let at = text.find("\"id\":\"").unwrap_or_else(|| panic!("{listed:#}")) + 6;
    text[at..].split('"').next().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "moto has this machine's clock")]
fn wall() -> Clock {
    Clock::new(Utc::now)
}

fn rule(mode: LockMode) -> LockRule {
    LockRule { mode, window: TimeDelta::days(7), period: TimeDelta::days(28), clock: wall() }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_locked_until_the_policy_lets_it_go_and_a_pin_holds_it_longer() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("locked", Kind::Locked).unwrap();
    let host = Host::on_bucket(&bucket, "lock = \"compliance\"\n");
    host.good(&["init"]);
    host.good(&["run"]);
    let store = store(&bucket).await;
    let files: Vec<_> = store.list(None).await.unwrap();
    let files: Vec<_> =
        files.iter().map(|entry| &entry.path).filter(|path| !path.as_str().starts_with("_probe")).collect();
    let rule = rule(LockMode::Compliance);
    let (mut in_generation, now, mut first) = (0, rule.clock.now(), None);
    for path in &files {
        let kept = store.protection(path).await.unwrap().unwrap_or_else(|| panic!("`{path}` is not locked"));
        assert_eq!((kept.mode, kept.legal_hold), (Some(LockMode::Compliance), false), "{path}");
        let until = kept.until.unwrap();
        if path.as_str().contains("--28d--") {
            // Fails where the retention is counted from the upload: it is the generation's.
            assert_eq!(until, rule.until(path), "{path}");
            in_generation += 1;
            first = Some(until);
        }
        assert!(until > now + TimeDelta::days(28 + 7), "{path} only until {until}");
    }
    assert!(in_generation >= 6, "{files:?}");

    let (code, by, text) = protection(&host);
    assert_eq!((code, by.as_str()), (0, "object-lock"), "{text}");
    // The date that was set, and not that of a generation that began today.
    let date = first.unwrap().format("%F");
    assert_eq!(text, format!("protection: object lock (compliance, until {date} for what is stored now)"));

    // An auditor sees the same, a policy that promises more than the locks, and a rule of the bucket that keeps less.
    host.good(&["audit"]);
    let config = fs::read_to_string(host.path("backup.toml")).unwrap();
    fs::write(host.path("backup.toml"), config.replace("within = \"7d\"", "within = \"90d\"")).unwrap();
    let told = host.run(&["audit"]);
    assert!(told.code == 5 && told.out.contains("are not locked as promised"), "{}{}", told.out, told.err);
    fs::write(host.path("backup.toml"), config).unwrap();
    let tidy = "<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status><Filter><Prefix>v/s</Prefix></Filter>\
                <Expiration><Days>3</Days></Expiration></Rule></LifecycleConfiguration>";
    moto.must("PUT", "/locked?lifecycle", &[], tidy).unwrap();
    let told = host.run(&["audit"]);
    assert!(told.code == 5 && told.out.contains("the bucket's rule `tidy` deletes `v/s*`"), "{}{}", told.out, told.err);
    moto.must("DELETE", "/locked?lifecycle", &[], "").unwrap();

    let id = snapshot(&host);
    let held = async || {
        let mut held = 0;
        for path in &files {
            held += usize::from(store.protection(path).await.unwrap().is_some_and(|kept| kept.legal_hold));
        }
        held
    };
    host.good(&["pin", &id]);
    // Everything of the only generation is its snapshot's.
    assert_eq!(held().await, in_generation);
    // An auditor asks for the hold that a pin promises: fails where only locks are looked at.
    host.good(&["audit"]);
    let document = files.iter().find(|path| path.as_str().ends_with(&format!("/snapshots/{id}.json"))).unwrap();
    let connected = S3Store::connect(options(&bucket, "v"), Arc::new(Silent)).await.unwrap();
    connected.with_lock(Some(rule.clone())).hold(document, false).await.unwrap();
    assert_eq!(held().await, in_generation - 1);
    let told = host.run(&["audit", "--json"]);
    assert!(told.code == 5 && told.out.contains("under no legal hold"), "{}{}", told.out, told.err);
    host.good(&["pin", &id]);
    host.good(&["audit"]);
    host.good(&["unpin", &id]);
    assert_eq!(held().await, 0);
}

/// A vault's own document is written once and needed for ever: whoever opens a generation renews its lock.
#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_the_vaults_own_document_is_renewed_with_each_generation() {
    let Some(moto) = Moto::start().unwrap() else { return };
    for (name, mode) in [("governed", LockMode::Governance), ("complied", LockMode::Compliance)] {
        let bucket = moto.bucket(name, Kind::Locked).unwrap();
        let host = Host::on_bucket(&bucket, &format!("lock = \"{mode}\"\n"));
        host.good(&["init"]);
        let store = store(&bucket).await;
        let locked = async || {
            let kept = store.protection(&path("vault.json")).await.unwrap().unwrap();
            assert_eq!(kept.mode, Some(mode));
            kept.until.unwrap()
        };
        let made = locked().await;
        // As if it had been made long ago: what is stored from now on is promised for longer than that lock lasts.
        let config = fs::read_to_string(host.path("backup.toml")).unwrap();
        fs::write(host.path("backup.toml"), config.replace("within = \"7d\"", "within = \"90d\"")).unwrap();
        host.good(&["run"]);
        let renewed = locked().await;
        // Fails where nobody renews it: its lock would end 83 days before that of the snapshots that need it.
        assert!(renewed >= made + TimeDelta::days(83), "{made} {renewed}");
        for name in ["RECOVER-1.md", "RECOVER-1.md.sig"] {
            let until = store.protection(&path(name)).await.unwrap().unwrap().until.unwrap();
            // One is renewed after the other.
            assert!((until - renewed).abs() < TimeDelta::minutes(5), "{name}: {until} {renewed}");
        }
        host.good(&["audit"]);

        // A longer promise shows at once that the lock is too short, and `init` mends what it can: the generation's own stays.
        let config = fs::read_to_string(host.path("backup.toml")).unwrap();
        fs::write(host.path("backup.toml"), config.replace("within = \"90d\"", "within = \"120d\"")).unwrap();
        let told = host.run(&["audit", "--json"]);
        assert!(told.code == 5 && told.out.contains("\"vault.json\""), "{}{}", told.out, told.err);
        host.good(&["init"]);
        assert!(locked().await >= renewed + TimeDelta::days(30));
        let told = host.run(&["audit", "--json"]);
        assert!(told.code == 5 && !told.out.contains("\"vault.json\""), "{}{}", told.out, told.err);
    }
}

/// Whoever has the host's key may put something over what is locked. What lies behind it must stay locked as long as ever, or it
/// could be deleted when its first lock ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_renewed_behind_a_delete_marker_and_behind_what_was_put_over_it() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("hidden", Kind::Locked).unwrap();
    let host = Host::on_bucket(&bucket, "lock = \"governance\"\n");
    host.good(&["init"]);
    // The id and the end of the lock of each version of a file, newest first, without delete markers.
    let locks = |name: &str| -> Vec<(String, DateTime<Utc>)> {
        let listed = moto.must("GET", &format!("/hidden?versions&prefix=v/{name}"), &[], "").unwrap();
        let versions = listed.split("<Version>").skip(1).filter(|one| one.contains(&format!("<Key>v/{name}</Key>")));
        let id = |one: &str| one.split("<VersionId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
        versions
            .map(|one| {
                let id = id(one);
                let head = moto.head(&format!("/hidden/v/{name}?versionId={id}")).unwrap().to_lowercase();
                let until =
                    head.split("x-amz-object-lock-retain-until-date: ").nth(1).unwrap_or_else(|| panic!("{head}"));
                let until = until.lines().next().unwrap().trim().to_uppercase();
                (id, until.parse().unwrap())
            })
            .collect()
    };
    let made = ["RECOVER-1.md", "RECOVER-1.md.sig", "vault.json"].map(|name| locks(name)[0].clone());
    moto.must("DELETE", "/hidden/v/RECOVER-1.md", &[], "").unwrap();
    moto.must("PUT", "/hidden/v/RECOVER-1.md.sig", &[], "junk").unwrap();
    let document = moto.must("GET", "/hidden/v/vault.json", &[], "").unwrap();
    moto.must("PUT", "/hidden/v/vault.json", &[], &document).unwrap();
    host.change("within = \"7d\"", "within = \"90d\"");
    host.good(&["run"]);
    for ((id, until), name) in made.into_iter().zip(["RECOVER-1.md", "RECOVER-1.md.sig", "vault.json"]) {
        let now = moto.head(&format!("/hidden/v/{name}?versionId={id}")).unwrap().to_lowercase();
        let now =
            now.split("x-amz-object-lock-retain-until-date: ").nth(1).unwrap().lines().next().unwrap().to_uppercase();
        let now: DateTime<Utc> = now.trim().parse().unwrap();
        // Fails where only the current version's lock is made longer.
        assert!(now >= until + TimeDelta::days(83), "{name}: {until} {now}");
    }
}

/// A bucket that could not be asked whether it keeps versions has not said that it keeps none.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_versions_that_failed_is_asked_again_and_told() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("versioned", Kind::Versioned).unwrap();
    let proxy = Proxy::start(moto.addr()).unwrap();
    let mut through = bucket.clone();
    through.endpoint = proxy.endpoint();
    let mut brief = options(&through, "v");
    brief.retry.total = std::time::Duration::from_millis(300);
    let heard = Arc::new(Warnings::default());
    let store = S3Store::connect(brief, heard.clone()).await.unwrap();
    for body in ["one", "two"] {
        store.put(&path("t/a"), Bytes::from_static(body.as_bytes()), PutMode::Replace).await.unwrap();
    }
    let fail = |on: bool| {
        let judge = move |line: &str| {
            if on && line.contains("versioning") { Act::Refuse(500, "InternalError") } else { Act::Pass }
        };
        proxy.judge(Some(Arc::new(judge)));
    };
    fail(true);
    for _ in 0..2 {
        let error = store.older(&path("t/a")).await.unwrap_err().to_string();
        assert!(error.contains("the versioning") && error.contains("InternalError"), "{error}");
        assert!(store.deleted(&path("t")).await.is_err() && store.folders_ever(&path("t")).await.is_err());
        assert!(store.hidden().await.is_err());
    }
    let warned = heard.0.lock().unwrap().clone();
    assert!(warned.len() == 1 && warned[0].starts_with("older versions are not looked for: "), "{warned:?}");
    // Fails where the failure is remembered as an answer, or for longer than the asking took.
    fail(false);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(store.older(&path("t/a")).await.unwrap().len(), 1);
    // And once it has answered nobody asks again.
    fail(true);
    assert_eq!(store.older(&path("t/a")).await.unwrap().len(), 1);

    // A verb that would read an older version says why it did not.
    let host = Host::on_bucket(&through, "");
    fail(false);
    host.good(&["init"]);
    host.good(&["run"]);
    for key in moto.keys("versioned", "/objects/").unwrap() {
        moto.must("DELETE", &format!("/versioned/{key}"), &[], "").unwrap();
    }
    host.change("reserve = \"0%\"", "reserve = \"0%\", patience = \"1s\"");
    fail(true);
    let restore = ["restore", "--latest", "--into-dir", "out", "--identity", "ops.txt"];
    let ended = host.run(&restore);
    assert!(ended.code != 0 && ended.err.contains("older versions are not looked for"), "{ended:?}");
    fail(false);
    host.good(&restore);
}

#[test]
fn a_lock_that_a_bucket_does_not_enforce_is_refused() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let lax = S3Server::start_lax().unwrap();
    let buckets = [
        (moto.bucket("plain", Kind::Plain).unwrap(), "does not keep versions"),
        (moto.bucket("versioned", Kind::Versioned).unwrap(), "a body with a lock is refused"),
        (lax.bucket.clone(), "does not keep versions"),
    ];
    for (bucket, why) in buckets {
        let host = Host::on_bucket(&bucket, "lock = \"governance\"\n");
        let ended = host.run(&["init"]);
        assert_eq!(ended.code, 2, "{}{}", ended.out, ended.err);
        assert!(ended.err.contains(why) && ended.err.contains("hint: make a bucket with Object Lock"), "{}", ended.err);
        assert!(!fs::read_to_string(host.path("backup.toml")).unwrap().contains("id ="), "nothing was made");
        // One that was made before is found by `doctor`.
        let text = fs::read_to_string(host.path("backup.toml")).unwrap();
        fs::write(host.path("backup.toml"), text.replace("lock = \"governance\"\n", "")).unwrap();
        host.good(&["init"]);
        let text = fs::read_to_string(host.path("backup.toml")).unwrap();
        fs::write(host.path("backup.toml"), text.replace("[source", "lock = \"governance\"\n[source")).unwrap();
        let ended = host.run(&["doctor", "--json"]);
        assert!(ended.code == 1 && ended.out.contains("no lock holds there"), "{}{}", ended.out, ended.err);
        assert!(ended.out.contains("protection: none: deletable by this host"), "{}", ended.out);
        // Who joins such a vault is refused as who makes it.
        let text = fs::read_to_string(host.path("backup.toml")).unwrap();
        let unpinned = text.lines().filter(|line| !line.starts_with("id = ")).collect::<Vec<_>>().join("\n");
        fs::write(host.path("backup.toml"), &unpinned).unwrap();
        let ended = host.run(&["init", "--adopt", "far"]);
        assert!(ended.code == 2 && ended.err.contains("no lock holds there"), "{}{}", ended.out, ended.err);
        assert_eq!(fs::read_to_string(host.path("backup.toml")).unwrap(), unpinned);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_a_configured_vault_is_that_vault_with_its_keys_and_its_lock() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("locked", Kind::Locked).unwrap();
    let host = Host::on_bucket(
        &bucket,
        "lock = \"compliance\"\n[vault.near]\npath = \"near\"\nkeep = { within = \"7d\", min = 2 }\n",
    );
    host.good(&["init"]);
    let text = fs::read_to_string(host.path("backup.toml")).unwrap();
    let (from, to) = (text.find("[vault.far]").unwrap(), text.find("[vault.near]").unwrap());
    fs::write(host.path("backup.toml"), [&text[..from], &text[to..]].concat()).unwrap();
    host.good(&["run"]);
    fs::write(host.path("backup.toml"), text).unwrap();
    let near = host.path("near").display().to_string();
    let far = format!("s3+{}/{}/v?region=us-east-1", bucket.endpoint, bucket.bucket);
    // Fails where an address is opened with the keys of the environment: there are none.
    let pulled = host.good(&["replicate", "--from", &near, "--to", &far, "--json"]).json();
    assert_eq!(pulled["to"], "far", "{pulled:#}");
    let store = store(&bucket).await;
    let files = store.list(None).await.unwrap();
    let objects: Vec<_> = files.iter().filter(|entry| entry.path.as_str().contains("/objects/")).collect();
    assert!(!objects.is_empty(), "{pulled:#}");
    for entry in files.iter().filter(|entry| !entry.path.as_str().starts_with("_probe")) {
        let kept = store.protection(&entry.path).await.unwrap();
        assert_eq!(kept.and_then(|kept| kept.mode), Some(LockMode::Compliance), "{}", entry.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_only_promises_is_believed_nothing() {
    let lax = S3Server::start_lax().unwrap();
    let host = Host::on_bucket(&lax.bucket, "");
    host.good(&["init"]);
    host.good(&["run"]);
    let proxied = Proxy::start(lax.addr()).unwrap();
    let store = store(&lax.bucket).await;
    let vault = |files: Vec<Entry>| -> Vec<_> {
        // What a run leaves for the next one, `doctor` takes away.
        files.into_iter().map(|entry| entry.path).filter(|path| !path.as_str().starts_with("_probe/")).collect()
    };
    let before = vault(store.list(None).await.unwrap());
    let ended = host.run(&["doctor", "--json"]);
    for said in [
        "ignores If-None-Match; versioning is off",
        "the bucket's rule `tidy` deletes `v/*` after 3 days, and what is stored here is needed up to 65 days",
        "protection: none: deletable by this host",
    ] {
        assert!(ended.out.contains(said), "{said}\n{}", ended.out);
    }
    assert_eq!(ended.code, 5, "{}", ended.out);
    let (_, by, _) = protection(&host);
    assert_eq!(by, "none");
    // It gives version ids; whoever named one in a DELETE would delete the only body.
    assert_eq!(store.older(&before[0]).await.unwrap(), []);
    assert_eq!(store.hidden().await.unwrap(), None);
    assert_eq!(before, vault(store.list(None).await.unwrap()));
    let mut through = lax.bucket.clone();
    through.endpoint = proxied.endpoint();
    let looked = S3Store::connect(options(&through, "v"), Arc::new(Silent)).await.unwrap();
    // Even where the bucket's word is taken out of its mouth, the probe names only its own bodies.
    let seen = looked.shield(&Versioning::Enabled, Some(LockMode::Governance)).await.unwrap();
    assert!(!matches!(seen.lock, Some(LockSeen::Enforced)), "{seen:?}");
    let heads = proxied.heads();
    let named: Vec<_> = heads.iter().filter(|head| head.contains("versionId=")).collect();
    assert!(named.iter().all(|head| head.contains("/_probe/")), "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_whose_listing_hides_what_was_stored_fails_doctor() {
    let lax = S3Server::start_lax().unwrap();
    let proxied = Proxy::start(lax.addr()).unwrap();
    let mut through = lax.bucket.clone();
    through.endpoint = proxied.endpoint();
    let host = Host::on_bucket(&through, "");
    host.good(&["init"]);
    let hidden = "a listing does not show what was just stored";
    let good = host.run(&["doctor"]);
    assert!(good.code != 1 && !format!("{}{}", good.out, good.err).contains(hidden), "{good:?}");
    proxied.rewrite(Some(Arc::new(|answer: &mut Answer| {
        if !answer.request.starts_with("GET ") || !answer.request.contains("list-type=2") {
            return;
        }
        let text = String::from_utf8(std::mem::take(&mut answer.body)).unwrap();
        let mut parts = text.split("<Contents>");
        let mut shown = parts.next().unwrap().to_owned();
        for part in parts {
            let (entry, rest) = part.split_once("</Contents>").unwrap();
            if !entry.contains("seen</Key>") {
                shown.push_str(&format!("<Contents>{entry}</Contents>"));
            }
            shown.push_str(rest);
        }
        answer.body = shown.into_bytes();
    })));
    // Fails where `shield` does not look, and where `doctor` does not say what it saw.
    let shield = store(&through).await.shield(&Versioning::Off, None).await.unwrap();
    assert!(!shield.listed_after_write, "{shield:?}");
    let told = host.run(&["doctor"]);
    assert!(told.code == 1 && format!("{}{}", told.out, told.err).contains(hidden), "{told:?}");

    // Nor is a vault made there, or joined: fails where `init` throws away what the probe saw.
    let text = fs::read_to_string(host.path("backup.toml")).unwrap();
    let unpinned = text.lines().filter(|line| !line.starts_with("id = ")).collect::<Vec<_>>().join("\n");
    fs::write(host.path("backup.toml"), &unpinned).unwrap();
    let joined = host.run(&["init", "--adopt", "far"]);
    assert!(joined.code == 1 && joined.err.contains(hidden) && joined.err.contains("hint: "), "{joined:?}");
    assert_eq!(fs::read_to_string(host.path("backup.toml")).unwrap(), unpinned);
    fs::write(host.path("backup.toml"), unpinned.replace("prefix = \"v\"", "prefix = \"w\"")).unwrap();
    let made = host.run(&["init"]);
    assert!(made.code == 1 && made.err.contains(hidden), "{made:?}");
    let there = S3Store::connect(options(&lax.bucket, "w"), Arc::new(Silent)).await.unwrap();
    assert!(there.stat(&path("vault.json")).await.unwrap().is_none(), "nothing was made");
}

/// An endpoint's clock is its `Date`: whoever makes a vault where no run would ever begin is told so first.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_is_not_made_where_the_clocks_are_hours_apart() {
    // One that asks for no signature: others refuse requests of another time before anything is known of it.
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("plain", Kind::Plain).unwrap();
    let proxied = Proxy::start(moto.addr()).unwrap();
    let mut through = bucket.clone();
    through.endpoint = proxied.endpoint();
    let host = Host::on_bucket(&through, "");
    let dated = |seconds: i64| {
        let at = (wall().now() + TimeDelta::seconds(seconds)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        proxied.rewrite(Some(Arc::new(move |answer: &mut Answer| {
            answer.head.retain(|line| !line.to_ascii_lowercase().starts_with("date:"));
            answer.head.push(format!("Date: {at}"));
        })));
    };
    dated(-2 * 3600);
    let refused = host.run(&["init"]);
    assert!(refused.code == 1 && refused.err.contains("behind ours: no run would begin"), "{refused:?}");
    assert!(refused.err.contains("hint: set both clocks"), "{}", refused.err);
    let there = store(&bucket).await;
    assert!(there.stat(&path("vault.json")).await.unwrap().is_none(), "nothing was made");
    dated(600);
    let warned = host.good(&["init"]);
    assert!(warned.err.contains("warning") && warned.err.contains("s ahead of ours"), "{}", warned.err);
}

#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Monitor for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[tokio::test]
async fn the_first_locked_body_of_a_process_is_looked_at_and_no_other() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let lax = S3Server::start_lax().unwrap();
    let locked = moto.bucket("locked", Kind::Locked).unwrap();
    for (bucket, addr, warned) in [(locked, moto.addr(), 0), (lax.bucket.clone(), lax.addr(), 1)] {
        let proxy = Proxy::start(addr).unwrap();
        let mut through = bucket.clone();
        through.endpoint = proxy.endpoint();
        let heard = Arc::new(Warnings::default());
        let store = S3Store::connect(options(&through, "v"), heard.clone()).await.unwrap();
        let store = store.with_lock(Some(rule(LockMode::Governance)));
        for name in ["a", "b", "c"] {
            store.put(&path(name), Bytes::from_static(b"x"), PutMode::Replace).await.unwrap();
        }
        let warnings = heard.0.lock().unwrap().clone();
        assert_eq!(warnings.len(), warned, "{warnings:?}");
        assert!(warnings.iter().all(|text| text.contains("ignores locks")), "{warnings:?}");
        // A lock costs one HEAD, in all.
        assert_eq!((proxy.requests("PUT"), proxy.requests("HEAD"), proxy.requests("GET")), (3, 1, 0));
        let puts = proxy.heads().into_iter().filter(|head| head.starts_with("PUT "));
        for head in puts {
            assert!(
                head.contains("x-amz-checksum-sha256:") && head.contains("x-amz-object-lock-mode: GOVERNANCE"),
                "{head}"
            );
        }
    }
}

#[test]
fn what_was_deleted_or_written_over_is_read_from_older_versions() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("versioned", Kind::Versioned).unwrap();
    let host = Host::on_bucket(&bucket, "");
    host.good(&["init"]);
    host.good(&["run"]);
    let keys = moto.keys("versioned", "").unwrap();
    let at = |part: &str, end: &str| -> Vec<&String> {
        keys.iter().filter(|key| key.contains(part) && key.ends_with(end)).collect()
    };
    // Whoever has the host's key: objects gone, a snapshot's document and its inventory written over.
    for key in at("/objects/", "") {
        for _ in 0..25 {
            moto.must("PUT", &format!("/versioned/{key}"), &[], "junk").unwrap();
        }
        moto.must("DELETE", &format!("/versioned/{key}"), &[], "").unwrap();
    }
    for key in at("/snapshots/", ".json").into_iter().chain(at("/snapshots/", ".zst")) {
        for _ in 0..25 {
            moto.must("PUT", &format!("/versioned/{key}"), &[], "junk").unwrap();
        }
        moto.must("PUT", &format!("/versioned/{key}"), &[], "gone").unwrap();
    }
    let found = host.run(&["verify", "--json"]);
    assert_eq!(found.code, 4, "{}{}", found.out, found.err);
    let plain = host.run(&["verify"]);
    assert!(plain.out.contains("damaged files an older version is good"), "{}", plain.out);
    let restored = host.good(&["restore", "--latest", "--into-dir", "out", "--identity", "ops.txt"]);
    // Fails where a reader takes what lies there for all that there is.
    assert_eq!(fs::read_to_string(host.path("out/data/a.txt")).or_else(|_| find(&host)).unwrap(), "hello");
    assert!(restored.err.contains("read from older versions: somebody deleted or wrote over"), "{}", restored.err);

    let seen = host.run(&["doctor", "--json"]);
    assert!(seen.out.contains("files are hidden by delete markers"), "{}", seen.out);
    assert!(seen.out.contains("no rule of the bucket ever drops them"), "{}", seen.out);
    assert!(seen.out.contains("versioning: deletions leave older versions, which this key may delete"), "{}", seen.out);
    // A run builds on nothing that is only an older version.
    let again = host.run(&["run"]);
    assert!(again.code == 0 || again.code == 3, "{}{}", again.out, again.err);
    host.good(&["restore", "--latest", "--into-dir", "out2", "--identity", "ops.txt"]);
}

#[test]
fn a_vault_whose_own_document_is_gone_is_restored_from_by_its_pinned_id() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("versioned", Kind::Versioned).unwrap();
    let host = Host::on_bucket(&bucket, "");
    host.good(&["init"]);
    host.good(&["run"]);
    let id = "0".repeat(32);
    let other = format!("{{\"format\":1,\"id\":\"{id}\",\"created\":\"2026-01-01T00:00:00Z\",\"tool\":\"x\"}}\n");
    for (at, (method, body)) in [("DELETE", ""), ("PUT", "{}"), ("PUT", other.as_str())].into_iter().enumerate() {
        moto.must(method, "/versioned/v/vault.json", &[], body).unwrap();
        let out = format!("out{at}");
        let restored = host.good(&["restore", "--latest", "--into-dir", &out, "--identity", "ops.txt"]);
        // Fails where the vault is opened before older versions are read.
        assert!(super::stack::files_below(&host.path(&out)).iter().any(|file| file.ends_with("a.txt")));
        assert!(restored.err.contains("`vault.json` among them"), "{method} {body}: {}", restored.err);
        // Who stores builds on nothing that is only an older version.
        let run = host.run(&["run"]);
        assert_ne!(run.code, 0, "{}{}", run.out, run.err);
    }
    // Another id is another vault, whatever lies behind it.
    let text = fs::read_to_string(host.path("backup.toml")).unwrap();
    let line = text.lines().find(|line| line.starts_with("id = ")).unwrap().to_owned();
    fs::write(host.path("backup.toml"), text.replace(&line, &format!("id = \"{}\"", "1".repeat(32)))).unwrap();
    let refused = host.run(&["restore", "--latest", "--into-dir", "out9", "--identity", "ops.txt"]);
    assert_ne!(refused.code, 0, "{}{}", refused.out, refused.err);
}

/// The restored file, wherever below `out` it lies.
fn find(host: &Host) -> std::io::Result<String> {
    let files = super::stack::files_below(&host.path("out"));
    let file = files.iter().find(|file| file.ends_with("a.txt"));
    fs::read_to_string(file.ok_or_else(|| std::io::Error::other("no a.txt"))?)
}

#[tokio::test]
async fn versions_are_counted_probed_and_read() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("versioned", Kind::Versioned).unwrap();
    let mut pages = options(&bucket, "v");
    pages.page_names = 2;
    let store = S3Store::connect(pages, Arc::new(Silent)).await.unwrap();
    let at = path("s/a");
    for body in ["one", "second", "3"] {
        store.put(&at, Bytes::from_static(body.as_bytes()), PutMode::Replace).await.unwrap();
    }
    store.put(&path("s/ab"), Bytes::from_static(b"other"), PutMode::Replace).await.unwrap();
    store.delete(&path("s/ab")).await.unwrap();
    let probe = store.probe().await.unwrap();
    assert_eq!(probe.versioning, Versioning::Enabled);
    let shield = store.shield(&probe.versioning, None).await.unwrap();
    assert!(
        shield.listed_after_write && shield.versions_deletable == Some(true) && shield.lock.is_none(),
        "{shield:?}"
    );
    // Without what probes left.
    assert_eq!(store.hidden().await.unwrap(), Some(Hidden { deleted: 1, older: 3, older_bytes: 3 + 6 + 5 }));
    let older = store.older(&at).await.unwrap();
    let mut bodies = Vec::new();
    for version in &older {
        bodies.push(store.get_older(version, 100).await.unwrap());
    }
    bodies.sort();
    assert_eq!(bodies, ["one", "second"], "{older:?}");
    assert_eq!(store.older(&path("s/ab")).await.unwrap().len(), 1);
    // The oldest is given however often somebody wrote over it, and not everything is kept in memory.
    for at_most in 0..120 {
        store.put(&at, Bytes::from(format!("junk {at_most}")), PutMode::Replace).await.unwrap();
    }
    let older = store.older(&at).await.unwrap();
    assert!(older.len() <= 102, "{}", older.len());
    assert_eq!(store.get_older(older.last().unwrap(), 100).await.unwrap(), "one");
    // Rules, as this bucket gives them back.
    assert_eq!(store.lifecycle().await.unwrap(), Lifecycle::Rules(Vec::new()));
    let rules = "<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status><Filter><Prefix>v/s</Prefix></Filter>\
                 <Expiration><Days>3</Days></Expiration></Rule><Rule><ID>off</ID><Status>Disabled</Status><Filter><Prefix>v/s</Prefix>\
                 </Filter><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>";
    moto.must("PUT", "/versioned?lifecycle", &[], rules).unwrap();
    let seen = store.lifecycle().await.unwrap();
    let short = seen.too_short(store.key_prefix(), "s", Some(TimeDelta::days(4)));
    assert_eq!(short.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["tidy"], "{seen:?}");
    assert!(seen.too_short("w/", "s", Some(TimeDelta::days(4))).is_empty());
}

#[tokio::test]
async fn a_lock_is_tried_and_what_the_trial_leaves_goes_with_a_later_one() {
    let Some(moto) = Moto::start().unwrap() else { return };
    let bucket = moto.bucket("locked", Kind::Locked).unwrap();
    let store = store(&bucket).await;
    for _ in 0..2 {
        let seen = store.shield(&Versioning::Enabled, Some(LockMode::Compliance)).await.unwrap();
        assert_eq!(seen.lock, Some(LockSeen::Enforced));
    }
    let left: Vec<_> = store.list(None).await.unwrap().into_iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(left, ["_probe/locked"], "one name, and nothing of a vault");
    let kept = store.protection(&path("_probe/locked")).await.unwrap().unwrap();
    assert!(kept.until.unwrap() < wall().now() + TimeDelta::minutes(3), "for minutes, not for years: {kept:?}");
    let earlier: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    assert!(kept.is_in_force(earlier));
    // This endpoint lets every key bypass a governance lock, and says so only to who asks for it.
    let seen = store.shield(&Versioning::Enabled, Some(LockMode::Governance)).await.unwrap();
    assert_eq!(seen.lock, Some(LockSeen::Bypassable));
}

//! The verbs that only look, from outside: `list`, `show`, `status`, `runs`, `key list`, over vaults with real snapshots.
//! Each answer is also asked for after something was broken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::backup::{BackupRequest, Host as Maker, backup};
use backup_core::clock::Clock;
use backup_core::id::{Hash256, VaultId};
use backup_core::monitor::{Monitor, Silent};
use backup_core::signature::{HostKey, Signers};
use backup_core::source::files::FilesOptions;
use backup_core::state::{RunRecord, State};
use backup_core::vault::Vault;
use backup_core::vault::document::{
    ExpiredDoc, FORMAT, Grounds, MarkDoc, MarkKind, PruneStage, PublicDocument, SnapshotDoc,
};
use backup_core::vault::layout::GenerationDir;
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::store::{Entry, PutMode, PutOutcome, Store, StoreError, StorePath};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

const VAULTS: [(&str, &str); 2] =
    [("local", "00112233445566778899aabbccddeeff"), ("offsite", "ffeeddccbbaa99887766554433221100")];

/// A directory whose clock stands at an instant: a run compares the clocks of host and vault before it begins.
#[derive(Debug)]
struct Backdated(LocalStore, DateTime<Utc>);

#[async_trait]
impl Store for Backdated {
    fn describe(&self) -> String {
        self.0.describe()
    }
    async fn put(&self, path: &StorePath, body: Bytes, mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.0.put(path, body, mode).await
    }
    async fn get(&self, path: &StorePath, limit_bytes: u64) -> Result<Bytes, StoreError> {
        self.0.get(path, limit_bytes).await
    }
    async fn stat(&self, path: &StorePath) -> Result<Option<Entry>, StoreError> {
        self.0.stat(path).await
    }
    async fn list(&self, prefix: Option<&StorePath>) -> Result<Vec<Entry>, StoreError> {
        self.0.list(prefix).await
    }
    async fn children(&self, prefix: Option<&StorePath>) -> Result<Vec<String>, StoreError> {
        self.0.children(prefix).await
    }
    async fn delete(&self, path: &StorePath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }
    async fn sync(&self) -> Result<(), StoreError> {
        self.0.sync().await
    }
    async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(self.1)
    }
}

struct Host {
    dir: tempfile::TempDir,
    recipient: String,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.out, self.err))
    }
}

#[expect(clippy::disallowed_methods, reason = "the program under test reads the same clock")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

impl Host {
    /// Keys, two empty vaults, a folder to capture; the signers are not pinned yet.
    async fn new() -> Self {
        let mut host = Self { dir: tempfile::tempdir().unwrap(), recipient: String::new() };
        let recipient = host.run(&["key", "new", "ops.txt"]).out;
        host.recipient.push_str(recipient.trim());
        assert_eq!(host.run(&["key", "new", "--host", "host_key"]).code, 0);
        for name in ["data", "state", "local", "offsite"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("data/hello.txt"), "hello").unwrap();
        for (name, id) in VAULTS {
            let store = Arc::new(LocalStore::open(&host.path(name), LocalOptions::default()).unwrap());
            Vault::create(name, store, id.parse().unwrap(), now(), "test").await.unwrap();
        }
        let [local, offsite] = VAULTS.map(|(name, id)| format!("[vault.{name}]\nid = \"{id}\"\npath = \"{name}\"\n"));
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"state\"\n[keys]\nrecipients = [\"{}\"]\nsigners = \"signers\"\n\
             host_key = \"host_key\"\n{local}{offsite}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n\
             objective = {{ rpo = \"24h\", rto = \"1h\" }}\n[service.web]\nneeds = [\"docs\"]\n\
             objective = {{ rpo = \"7d\", rto = \"1h\" }}\n",
            host.recipient
        );
        fs::write(host.path("backup.toml"), text).unwrap();
        host
    }

    async fn pinned() -> Self {
        let host = Self::new().await;
        let line = host.run(&["key", "list", "--json"]).json()["host_key"]["allowed_signers"].clone();
        fs::write(host.path("signers"), format!("{}\n", line.as_str().unwrap())).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        let output = command.output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn state(&self) -> State {
        State::open(&self.path("state"), &"s".parse().unwrap()).await.unwrap()
    }

    async fn local(&self) -> Vault {
        let (name, id) = VAULTS[0];
        let id: VaultId = id.parse().unwrap();
        let store = Arc::new(LocalStore::open(&self.path(name), LocalOptions::default()).unwrap());
        Vault::open(name, store, Some(&id)).await.unwrap()
    }

    fn key(&self) -> HostKey {
        HostKey::from_openssh(&fs::read_to_string(self.path("host_key")).unwrap()).unwrap()
    }

    /// Captures `data` into the vault `local`, as if it were `ago`. Gives the id.
    async fn capture(&self, ago: TimeDelta) -> String {
        let (name, id) = VAULTS[0];
        let id: VaultId = id.parse().unwrap();
        let store = LocalStore::open(&self.path(name), LocalOptions::default()).unwrap();
        let vault = Vault::open(name, Arc::new(Backdated(store, now() - ago)), Some(&id)).await.unwrap();
        let key = self.key();
        let (state, monitor): (State, Arc<dyn Monitor>) = (self.state().await, Arc::new(Silent));
        let clock = Clock::fixed(now() - ago);
        let request = BackupRequest {
            stack: "s".parse().unwrap(),
            source: "docs".parse().unwrap(),
            run: "r1".to_owned(),
            recipients: vec![self.recipient.clone()],
            period: "28d".parse().unwrap(),
            level: 1,
            budget_bytes: 64 << 20,
            cpus: 2,
            secret: false,
            next_due: None,
            config: Value::Null,
            tool: "test".to_owned(),
        };
        let signers = Signers::pin_fingerprint(&key.fingerprint());
        let maker = Maker { key: &key, signers: &signers, state: &state, clock: &clock, monitor: &monitor };
        let made = backup(&vault, maker, &request, &FilesOptions::new(vec![self.path("data")])).await.unwrap();
        made.snapshot.doc.id.to_string()
    }

    /// A file of a snapshot in a vault.
    fn snapshot(&self, vault: &str, id: &str, suffix: &str) -> PathBuf {
        let generations = fs::read_dir(self.path(vault).join("s/docs")).unwrap();
        let file = |dir: PathBuf| dir.join("snapshots").join(format!("{id}{suffix}"));
        generations.map(|dir| file(dir.unwrap().path())).find(|path| path.exists()).unwrap()
    }

    fn verdict(&self) -> (i32, String) {
        let status = self.run(&["status", "--json"]);
        (status.code, status.json()["sources"][0]["verdict"].as_str().unwrap().to_owned())
    }
}

fn short(id: &str) -> &str {
    id.split('-').nth(2).unwrap()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn key_list_shows_what_to_pin_before_and_after() {
    let host = Host::new().await;
    let before = host.run(&["key", "list", "--json"]);
    assert_eq!(before.code, 12, "the signers cannot be read");
    assert_eq!(before.json()["host_key"]["pinned"], false);
    let host = Host::pinned().await;
    let after = host.run(&["key", "list", "--json"]);
    assert_eq!((after.code, &after.json()["host_key"]["pinned"]), (0, &Value::Bool(true)), "{}", after.err);
    assert_eq!(after.json()["recipients"][0]["recipient"], host.recipient.as_str());
    let text = host.run(&["key", "list"]).out;
    assert!(text.contains("(pinned)") && text.contains("backup namespaces=\"backup.*\" ssh-ed25519 "), "{text}");
    assert!(!text.contains("SECRET") && !text.contains("PRIVATE"), "{text}");
    fs::set_permissions(host.path("host_key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(host.run(&["key", "list"]).code, 12, "a host key that everybody can read");
}

#[tokio::test]
async fn list_and_show_tell_what_is_there() {
    let host = Host::pinned().await;
    let empty = host.run(&["list", "--json"]);
    assert_eq!((empty.code, empty.json()["snapshots"].as_array().unwrap().len()), (0, 0), "{}", empty.err);
    let old = host.capture(TimeDelta::hours(30)).await;
    let new = host.capture(TimeDelta::hours(2)).await;

    let listed = host.run(&["list", "--json"]).json();
    let field = |at: usize, name: &str| listed["snapshots"][at][name].clone();
    assert_eq!((field(0, "id"), field(1, "id")), (old.clone().into(), new.clone().into()));
    assert_eq!((field(0, "state"), field(0, "vaults")), ("stored".into(), serde_json::json!(["local"])));
    copy_tree(&host.path("local/s"), &host.path("offsite/s"));
    let text = host.run(&["list"]).out;
    assert!(text.starts_with("docs: 2 snapshots\nID "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(text.matches("replicated").count(), 2, "{text}");
    assert!(text.contains(" 30h ") && text.contains(short(&new)), "{text}");
    assert_eq!(host.run(&["list", "--source", "nope"]).code, 2);
    assert_eq!(host.run(&["list", "--vault", "nope"]).code, 2);

    let shown = host.run(&["show", short(&new), "--json"]);
    assert_eq!((shown.code, &shown.json()["chain"]), (0, &"follows".into()), "{}", shown.err);
    assert_eq!(shown.json()["snapshot"]["id"], new.as_str());
    assert!(!shown.out.contains("hello.txt"), "names are for operators only");
    assert_eq!(host.run(&["show", &old, "--json"]).json()["chain"], "first");
    let opened = host.run(&["show", &new, "--identity", "ops.txt"]);
    assert!(opened.code == 0 && opened.out.contains("hello.txt"), "{}{}", opened.out, opened.err);
    assert_eq!(host.run(&["key", "new", "other.txt"]).code, 0);
    assert_eq!(host.run(&["show", &new, "--identity", "other.txt"]).code, 12, "another identity");
    let ambiguous = host.run(&["show", "20"]);
    assert_eq!(ambiguous.code, 2);
    assert!(ambiguous.err.contains(&old) && ambiguous.err.contains(&new), "{}", ambiguous.err);
    assert_eq!(host.run(&["show", "nothing"]).code, 2);

    // One bad copy is named, and the good one is shown; without a good one nothing is.
    let inventory = host.snapshot("local", &new, ".inventory.zst");
    fs::write(&inventory, "damaged").unwrap();
    let half = host.run(&["show", &new, "--json"]);
    assert_eq!((half.code, &half.json()["read_from"]), (4, &"offsite".into()), "{}", half.err);
    fs::write(host.snapshot("offsite", &new, ".json.sig"), "damaged").unwrap();
    let none = host.run(&["show", &new, "--json"]);
    assert_eq!((none.code, &none.json()["kind"]), (4, &"error".into()));
}

#[tokio::test]
async fn a_vault_that_is_away_is_named() {
    let host = Host::pinned().await;
    let id = host.capture(TimeDelta::hours(2)).await;
    fs::rename(host.path("offsite"), host.path("away")).unwrap();
    for verb in [&["list", "--json"][..], &["status", "--json"]] {
        let ended = host.run(verb);
        assert_eq!(ended.code, 3, "{verb:?} {}", ended.err);
        assert!(ended.err.contains("vault `offsite`"), "{}", ended.err);
        assert_eq!(ended.json()["silent"][0]["vault"], "offsite");
        assert!(ended.out.contains(&id));
    }
    assert_eq!(host.run(&["list", "--vault", "local"]).code, 0, "only the other one is away");
    fs::rename(host.path("local"), host.path("away-too")).unwrap();
    assert_eq!(host.run(&["list"]).code, 10);
    assert_eq!(host.verdict(), (3, "unknown".to_owned()), "not asked is not breached");
}

#[tokio::test]
async fn status_holds_ages_against_objectives_and_believes_signatures_only() {
    let host = Host::pinned().await;
    assert_eq!(host.verdict(), (5, "breach".to_owned()), "promised, and there is none");
    let old = host.capture(TimeDelta::hours(30)).await;
    assert_eq!(host.verdict(), (5, "breach".to_owned()), "older than promised");
    let config = fs::read_to_string(host.path("backup.toml")).unwrap();
    let waiver = "rpo = \"24h\", waiver = { until = 2999-01-01, reason = \"moving\" }";
    fs::write(host.path("backup.toml"), config.replace("rpo = \"24h\"", waiver)).unwrap();
    assert_eq!(host.verdict(), (0, "waived".to_owned()));
    fs::write(host.path("backup.toml"), config.replace("rpo = \"24h\"", &waiver.replace("2999", "2001"))).unwrap();
    assert_eq!(host.verdict(), (5, "breach".to_owned()), "the waiver has ended");
    fs::write(host.path("backup.toml"), config).unwrap();

    // A newer name with the old content: the signature is good, the place is not.
    let fresh = format!("{}-1b-forged", now().format("%Y%m%dT%H%M%SZ"));
    for suffix in [".json", ".json.sig"] {
        let file = host.snapshot("local", &old, suffix);
        fs::copy(&file, file.with_file_name(format!("{fresh}{suffix}"))).unwrap();
    }
    let forged = host.run(&["status", "--json"]);
    assert_eq!((forged.code, &forged.json()["sources"][0]["verdict"]), (4, &"breach".into()), "{}", forged.err);
    assert_eq!(forged.json()["sources"][0]["newest"], old.as_str());
    assert_eq!(host.run(&["show", "forged"]).code, 4);
    for suffix in [".json", ".json.sig"] {
        fs::remove_file(host.snapshot("local", &fresh, suffix)).unwrap();
    }

    host.capture(TimeDelta::hours(2)).await;
    let good = host.run(&["status", "--json"]);
    let source = &good.json()["sources"][0];
    assert_eq!((good.code, &source["verdict"]), (0, &"ok".into()), "{}", good.err);
    assert_eq!((&source["vaults"][0]["missing"], &source["vaults"][1]["missing"]), (&0.into(), &2.into()));
    assert_eq!(
        (&source["vaults"][0]["lacks_since"], source["vaults"][1]["lacks_since"].is_string()),
        (&Value::Null, true)
    );
    assert_eq!(good.json()["services"][0]["verdict"], "ok");
    let text = host.run(&["status"]).out;
    for part in ["docs: ok\n", "(objective 1d)", "offsite: empty, 2 missing", "service web: ok", "last run: none"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let config = fs::read_to_string(host.path("backup.toml")).unwrap();
    // The other vault has nothing of the last thirty hours: a run that would have filled it was due each minute, or each year, or none is.
    let job = |cron: &str, more: &str| {
        format!("{config}[job.night]\ncron = \"{cron}\"\nsources = [\"docs\"]\nvaults = [\"local\"]\n{more}")
    };
    let (often, seldom, fills) = ("* * * * *", "0 0 29 2 *", "then = [\"replicate\"]\n");
    for (cron, more, code) in [(often, "", 0), (often, fills, 5), (seldom, fills, 0)] {
        fs::write(host.path("backup.toml"), job(cron, more)).unwrap();
        let status = host.run(&["status"]);
        assert_eq!(status.code, code, "{cron} {more}: {}", status.err);
        assert_eq!(
            status.err.contains("`offsite` has nothing of the last 30h of source `docs`"),
            code == 5,
            "{}",
            status.err
        );
    }
    fs::write(host.path("backup.toml"), job(often, fills)).unwrap();
    // It lacks a capture of two hours ago only.
    copy_tree(&host.path("local/s"), &host.path("offsite/s"));
    for suffix in [".json", ".json.sig"] {
        let new = good.json()["sources"][0]["newest"].as_str().unwrap().to_owned();
        fs::remove_file(host.snapshot("offsite", &new, suffix)).unwrap();
    }
    let behind = host.run(&["status", "--json"]);
    assert_eq!((behind.code, &behind.json()["sources"][0]["vaults"][1]["missing"]), (0, &1.into()), "{}", behind.err);
}

#[tokio::test]
async fn marks_and_announced_deletions_are_shown() {
    let host = Host::pinned().await;
    let id = host.capture(TimeDelta::hours(2)).await;
    let (vault, key) = (host.local().await, host.key());
    let doc: SnapshotDoc = serde_json::from_slice(&fs::read(host.snapshot("local", &id, ".json")).unwrap()).unwrap();
    let mark = MarkDoc {
        format: FORMAT,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        snapshot: doc.id.clone(),
        mark: MarkKind::Restored,
        at: now(),
        document: Hash256::of(b""),
        closes: None,
        signer: key.fingerprint(),
        tool: "test".to_owned(),
    };
    let state = || {
        let listed = host.run(&["list", "--json"]).json();
        (listed["snapshots"][0]["state"].clone(), listed["snapshots"][0]["marks"].clone())
    };
    let none = || (Value::from("stored"), serde_json::json!([]));
    // Fails where a mark's name is enough; then where its signature is, whatever document it is for.
    let path = host.path("local").join(mark.path().as_str());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{}").unwrap();
    assert_eq!(state(), none());
    vault.put_signed(&mark, &key).await.unwrap();
    assert_eq!(state(), none(), "it is for another document");
    let document = Hash256::of(&fs::read(host.snapshot("local", &id, ".json")).unwrap());
    vault.put_signed(&MarkDoc { document, ..mark }, &key).await.unwrap();
    assert_eq!(state(), ("restored".into(), serde_json::json!(["restored"])));
    fs::rename(host.path("signers"), host.path("nobody")).unwrap();
    assert_eq!(state(), none(), "nobody is pinned");
    fs::rename(host.path("nobody"), host.path("signers")).unwrap();

    let expired = ExpiredDoc {
        format: FORMAT,
        stage: PruneStage::Expired,
        stack: doc.stack.clone(),
        source: doc.source.clone(),
        generation: doc.generation.clone(),
        at: now(),
        newest: doc.id.clone(),
        snapshots: vec![(doc.id.clone(), "old".to_owned())],
        grounds: Grounds::default(),
        signer: key.fingerprint(),
        tool: "test".to_owned(),
    };
    vault.put_signed(&expired, &key).await.unwrap();
    let told = host.run(&["status", "--json"]);
    let pending = &told.json()["sources"][0]["pending"][0];
    assert_eq!(
        (told.code, &pending["stage"], &pending["snapshots"]),
        (3, &"expired".into(), &1.into()),
        "{}",
        told.err
    );
    assert!(host.run(&["status"]).out.contains("expired   local: "));

    let dir = GenerationDir { stack: doc.stack, source: doc.source, id: doc.generation };
    fs::write(host.path("local").join(dir.file("expired.json.sig").as_str()), "forged").unwrap();
    let forged = host.run(&["status", "--json"]);
    assert_eq!((forged.code, forged.json()["sources"][0]["pending"].as_array().unwrap().len()), (4, 0));
}

#[tokio::test]
async fn runs_are_listed_and_one_is_shown() {
    let host = Host::pinned().await;
    fs::remove_dir(host.path("state")).unwrap();
    let none = host.run(&["runs"]);
    assert_eq!((none.code, none.out.as_str()), (0, "no runs\n"), "{}", none.err);
    assert!(!host.path("state").exists(), "looking makes nothing");
    fs::create_dir(host.path("state")).unwrap();
    let started = now() - TimeDelta::hours(1);
    let ended = RunRecord {
        id: "r-ended".into(),
        job: Some("nightly".into()),
        started,
        finished: Some(started + TimeDelta::seconds(90)),
        outcome: Some("failed".into()),
        report: Some(r#"{"exit":1,"sources":[{"source":"docs","outcome":"failed","error":"no room"}]}"#.into()),
    };
    let killed = RunRecord { id: "r-killed".into(), finished: None, report: None, ..ended.clone() };
    let state = host.state().await;
    state.put_run(&ended).await.unwrap();
    state.put_run(&killed).await.unwrap();
    let listed = host.run(&["runs"]).out;
    assert!(listed.contains("interrupted or running") && listed.contains("90s   failed"), "{listed}");
    let shown = host.run(&["runs", "r-e"]);
    assert!(shown.code == 0 && shown.out.contains("error     no room"), "{}", shown.out);
    assert_eq!(host.run(&["runs", "--json", "r-ended"]).json()["run"]["report"]["exit"], 1);
    assert_eq!(host.run(&["runs", "r-"]).code, 2, "two fit");
    assert_eq!(host.run(&["runs", "x"]).code, 2);
    assert!(host.run(&["status"]).out.contains("last run: interrupted or running (r-killed"), "by start, then id");
}

#[tokio::test]
async fn a_source_that_promised_nothing_is_late_when_its_runs_have_died() {
    let unpromised = async || {
        let host = Host::pinned().await;
        let config = fs::read_to_string(host.path("backup.toml")).unwrap();
        let config = config.replacen("objective = { rpo = \"24h\", rto = \"1h\" }\n", "", 1);
        let config = config.split("[service.web]").next().unwrap();
        // Nothing is promised of the other vault.
        let job = "[job.night]\nsources = [\"docs\"]\nvaults = [\"local\"]\n";
        fs::write(host.path("backup.toml"), format!("{config}{job}")).unwrap();
        host
    };
    let host = unpromised().await;
    // Fails (0) where only an objective can be breached.
    assert_eq!(host.verdict(), (5, "missing".to_owned()));
    for hours in [120, 96, 72] {
        host.capture(TimeDelta::hours(hours)).await;
    }
    assert_eq!(host.verdict(), (5, "late".to_owned()));
    let told = host.run(&["status"]);
    assert!(told.err.contains("without an `objective` 2d is the most") && told.err.contains("cron(8)"), "{}", told.err);
    host.capture(TimeDelta::hours(40)).await;
    assert_eq!(host.verdict(), (0, "ok".to_owned()));

    // What is captured each week is not late after three days.
    let host = unpromised().await;
    for days in [17, 10, 3] {
        host.capture(TimeDelta::days(days)).await;
    }
    assert_eq!(host.verdict(), (0, "ok".to_owned()));
}

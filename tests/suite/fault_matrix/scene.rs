//! Verbs, each with the stack that it begins from: a host's folder and the bodies of two vaults, kept aside and copied for each
//! trial.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use harness::s3::S3Server;

use super::super::host::{Host, of_source};
use super::super::past::{Files, Past, contents, host_key, let_a_day_pass, now};
use super::super::recover::noise;
use super::super::stack::files_below;

/// The vaults of every scene; the bodies of a trial lie in folders of these names below the trial's prefix.
pub(super) const VAULTS: [&str; 2] = ["near", "far"];

/// Where the scenes are made.
const MASTER: &str = "m";

/// Names of the scenes. A kind of request that several verbs make is shown under the first of these.
const ORDER: [&str; 19] = [
    "run, the first",
    "run, unchanged",
    "replicate, from it",
    "replicate, to it",
    "restore",
    "prune, announces",
    "prune, deletes",
    "prune, undoes",
    "repair of it",
    "repair from it",
    "verify, hashed",
    "verify, opened",
    "pin",
    "key grant",
    "audit",
    "status",
    "list",
    "init",
    "doctor",
];

/// How long is tried where no fault is expected.
pub(super) const PATIENT: &str = "3m";

/// What may be gone after a verb, although no fault deletes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    Nothing,
    /// Generations older than a week, announcements of a prune.
    Expired,
    /// One path, which is damaged.
    Damaged,
}

/// A verb and what it begins from.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) args: Vec<String>,
    /// Behind the proxy.
    pub(super) faulty: &'static str,
    pub(super) host: Host,
    /// Holds a folder for each vault.
    pub(super) bodies: Arc<tempfile::TempDir>,
    /// Paths in the faulty vault that an old listing shows.
    pub(super) old: Arc<BTreeSet<String>>,
    /// What a restore may bring.
    pub(super) states: Vec<Files>,
    goes: Goes,
    damaged: PathBuf,
}

impl Scene {
    /// Whether a path below a vault's folder must be there after the verb, as it was.
    pub(super) fn stays(&self, path: &Path) -> bool {
        let text = path.to_str().unwrap();
        let own = !text.starts_with("_probe");
        own && match self.goes {
            Goes::Nothing => true,
            Goes::Damaged => path != self.damaged,
            Goes::Expired => {
                let first = (now() - chrono::TimeDelta::days(6)).format("%Y-%m-%d").to_string();
                let in_generation = text.split('/').nth(2).filter(|part| part.starts_with("20"));
                in_generation.is_some_and(|id| *id >= *first) && !text.contains("expired") && !text.contains("deleting")
            }
        }
    }

    /// Puts the bodies of both vaults below a prefix of the server.
    pub(super) fn lay_out(&self, server: &S3Server, prefix: &str) {
        for vault in VAULTS {
            link_tree(&self.bodies.path().join(vault), &server.files().join(prefix).join(vault));
        }
    }
}

/// Bodies are replaced and never changed in place: a link is as good as a copy, and keeps the time.
fn link_tree(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::hard_link(file, target).unwrap();
    }
}

/// The line of a vault's place.
pub(super) fn place(endpoint: &str, prefix: &str, vault: &str) -> String {
    format!(
        "s3 = {{ endpoint = \"{endpoint}\", bucket = \"vault\", prefix = \"{prefix}/{vault}\", region = \"us-east-1\", path_style = true }}"
    )
}

/// The stack that all scenes are states of.
struct Master<'a> {
    server: &'a S3Server,
    host: Host,
    scenes: Vec<Scene>,
    states: Vec<Files>,
}

impl Master<'_> {
    fn write(&mut self, seed: u64) {
        fs::write(self.host.path("data/a.bin"), noise(60_000, seed)).unwrap();
        fs::write(self.host.path("data/b.txt"), format!("{seed:05}")).unwrap();
        self.states.push(contents(&self.host.path("data")));
    }

    fn bodies(&self) -> Arc<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        for vault in VAULTS {
            fs::create_dir(dir.path().join(vault)).unwrap();
            link_tree(&self.server.files().join(MASTER).join(vault), &dir.path().join(vault));
        }
        Arc::new(dir)
    }

    fn paths(&self, vault: &str) -> Arc<BTreeSet<String>> {
        let root = self.server.files().join(MASTER).join(vault);
        let relative = |path: PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Arc::new(files_below(&root).into_iter().map(relative).collect())
    }

    fn scene(
        &mut self,
        name: &'static str,
        args: &[&str],
        (faulty, bodies, old): (&'static str, &Arc<tempfile::TempDir>, &Arc<BTreeSet<String>>),
    ) {
        self.scenes.push(Scene {
            name,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            faulty,
            host: self.host.cloned(),
            bodies: Arc::clone(bodies),
            old: Arc::clone(old),
            states: self.states.clone(),
            goes: Goes::Nothing,
            damaged: PathBuf::new(),
        });
    }

    fn goes(&mut self, goes: Goes, damaged: &Path) {
        let last = self.scenes.last_mut().unwrap();
        (last.goes, last.damaged) = (goes, damaged.to_owned());
    }

    fn expires(&mut self) {
        self.goes(Goes::Expired, Path::new(""));
    }
}

/// The configuration of a host whose two vaults lie below a prefix of the server.
fn configure(host: &Host, server: &S3Server) {
    let bucket = &server.bucket;
    let vault = |name: &str| {
        let place = place(&bucket.endpoint, MASTER, name);
        format!(
            "[vault.{name}]\n{place}\ncredentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n"
        )
    };
    let source = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";
    host.configure(&format!("{}{}{source}", vault("near"), vault("far")));
    host.change("reserve = \"0%\"", &format!("reserve = \"0%\", patience = \"{PATIENT}\""));
    let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
    fs::write(host.path("s3.env"), keys).unwrap();
    fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(host.path("data")).unwrap();
}

/// All scenes, and the server that their trials use.
pub(super) async fn scenes(server: &S3Server) -> Vec<Scene> {
    let mut master = Master { server, host: Host::new(), scenes: Vec::new(), states: Vec::new() };
    configure(&master.host, server);
    master.host.good(&["key", "new", "new.txt"]);
    let recipient = master.host.recipient("new.txt");
    for vault in VAULTS {
        fs::create_dir_all(server.files().join(MASTER).join(vault)).unwrap();
    }
    master.write(1);
    let (bodies, nothing) = (master.bodies(), master.paths("near"));
    master.scene("init", &["init"], ("near", &bodies, &nothing));
    master.host.good(&["init"]);
    let (bodies, made) = (master.bodies(), master.paths("near"));
    master.scene("run, the first", &["run"], ("near", &bodies, &made));
    master.host.good(&["run"]);
    let (once, ran_once) = (master.bodies(), master.paths("near"));
    master.write(2);
    let id = of_source(&master.host.backup(), "docs")["snapshot"].as_str().unwrap().to_owned();
    let bodies = master.bodies();
    let near = ("near", &bodies, &ran_once);
    master.scene("run, unchanged", &["run"], near);
    master.scene("list", &["list", "--json"], near);
    master.scene("status", &["status", "--json"], near);
    master.scene("doctor", &["doctor"], near);
    master.scene("verify, hashed", &["verify", "--read-data", "1/1"], near);
    master.scene("verify, opened", &["verify", "--identity", "ops.txt"], near);
    let restore = ["restore", "--latest", "--vault", "near", "--identity", "ops.txt", "--into-dir", "back"];
    master.scene("restore", &restore, near);
    master.scene("audit", &["audit", "--read-data", "1/1"], near);
    master.scene("pin", &["pin", &id], near);
    master.scene("key grant", &["key", "grant", &recipient, "--identity", "ops.txt"], near);
    behind(&mut master, (&bodies, &once, &ran_once));
    mending(&mut master, &bodies, &ran_once);
    pruning(&mut master).await;
    let _ = fs::remove_dir_all(server.files().join(MASTER));
    let mut scenes = master.scenes;
    scenes.sort_by_key(|scene| ORDER.iter().position(|name| *name == scene.name).unwrap());
    scenes
}

/// The far vault lacks the newest snapshot.
fn behind(
    master: &mut Master<'_>,
    (both, once, old): (&Arc<tempfile::TempDir>, &Arc<tempfile::TempDir>, &Arc<BTreeSet<String>>),
) {
    let dir = tempfile::tempdir().unwrap();
    for (vault, from) in [("near", both), ("far", once)] {
        link_tree(&from.path().join(vault), &dir.path().join(vault));
    }
    let bodies = Arc::new(dir);
    master.scene("replicate, from it", &["replicate"], ("near", &bodies, old));
    master.scene("replicate, to it", &["replicate"], ("far", &bodies, old));
}

/// An object of the near vault is damaged.
fn mending(master: &mut Master<'_>, both: &Arc<tempfile::TempDir>, old: &Arc<BTreeSet<String>>) {
    let dir = tempfile::tempdir().unwrap();
    for vault in VAULTS {
        link_tree(&both.path().join(vault), &dir.path().join(vault));
    }
    let near = dir.path().join("near");
    let largest = files_below(&near).into_iter().filter(|path| path.to_str().unwrap().contains("/objects/"));
    let damaged = largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut body = fs::read(&damaged).unwrap();
    body[100] ^= 1;
    fs::remove_file(&damaged).unwrap();
    fs::write(&damaged, body).unwrap();
    let relative = damaged.strip_prefix(&near).unwrap().to_owned();
    let bodies = Arc::new(dir);
    for (name, faulty) in [("repair of it", "near"), ("repair from it", "far")] {
        master.scene(name, &["verify", "--read-data", "1/1", "--repair"], (faulty, &bodies, old));
        master.goes(Goes::Damaged, &relative);
    }
}

/// Generations of before, of which two may go.
async fn pruning(master: &mut Master<'_>) {
    let files = master.server.files().join(MASTER);
    // Without this host's own first generation, whose snapshots would be older than they are.
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(files.join("near/vault.json")).unwrap()).unwrap();
    let id = document["id"].as_str().unwrap().parse().unwrap();
    for vault in VAULTS {
        fs::remove_dir_all(files.join(vault).join("s")).unwrap();
    }
    fs::remove_dir_all(master.host.path("state")).unwrap();
    fs::create_dir(master.host.path("state")).unwrap();
    let mut past = Past::new(&master.host, &id, "docs", vec![master.host.path("data")]).await;
    for days in [12, 10, 6, 4, 2] {
        master.write(100 + days);
        past.capture(now() - chrono::TimeDelta::days(days.cast_signed())).await;
    }
    for vault in VAULTS {
        past.write(&files.join(vault), now()).await;
    }
    drop(past);
    master.write(3);
    let (bodies, old) = (master.bodies(), master.paths("near"));
    drop(bodies);
    master.host.good(&["run"]);
    let bodies = master.bodies();
    master.scene("prune, announces", &["prune", "--apply"], ("near", &bodies, &old));
    master.expires();
    master.host.good(&["prune", "--apply"]);
    let key = host_key(&master.host);
    for vault in VAULTS {
        let announced = let_a_day_pass(&files.join(vault), &key, usize::MAX);
        assert_eq!(announced, 2, "generations of `{vault}` that may go");
    }
    master.write(4);
    master.host.good(&["run"]);
    let bodies = master.bodies();
    master.scene("prune, deletes", &["prune", "--apply"], ("near", &bodies, &old));
    master.expires();
    master.scene("prune, undoes", &["prune", "--undo"], ("near", &bodies, &old));
    master.expires();
}

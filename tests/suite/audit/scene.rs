//! A vault with a past: the engine writes it into memory under a clock that a test moves, and it is laid down as a directory
//! with the store's times. The machine that audits it has the policy file, no host key and no identity.

use std::fs;
use std::path::{Path, PathBuf};

use backup_core::replicate::{Route, replicate};
use backup_core::signature::HostKey;
use backup_core::vault::Vault;
use backup_core::vault::document::SnapshotDoc;
use backup_core::vault::layout::SnapshotId;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::Store;
use chrono::{DateTime, TimeDelta, Utc};

use super::super::engine::watch::Watch;
use super::super::engine::world::{Script, World, make_vault};
use super::super::host::{Ended, Host};
use super::super::recover::noise;
use super::super::stack::files_below;

/// So long before now every day's capture lies.
const BEFORE: TimeDelta = TimeDelta::minutes(10);

pub(super) struct Scene {
    pub(super) world: World,
    pub(super) docs: Vec<SnapshotDoc>,
    pub(super) second: (Watch, Vault),
    pub(super) host: Host,
}

#[expect(clippy::disallowed_methods, reason = "the audited binary has the machine's clock")]
pub(super) fn now() -> DateTime<Utc> {
    Utc::now()
}

impl Scene {
    /// A snapshot of each of the last `days` days, but of those so many days ago that are in `skipped`.
    pub(super) async fn of_days(days: i64, skipped: &[i64], period: &str) -> Self {
        let mut world = World::new().await;
        world.request.stack = "s".parse().unwrap();
        world.request.period = period.parse().unwrap();
        let start = now() - BEFORE;
        let mut docs = Vec::new();
        for ago in (0..days).rev().filter(|ago| !skipped.contains(ago)) {
            // `run` moves the clocks by a minute.
            world.pass(start - TimeDelta::days(ago) - TimeDelta::minutes(1) - world.host.now());
            let script = Script::noise(20_000, u64::try_from(ago).unwrap() + 1);
            docs.push(world.run(&script).await.unwrap().snapshot.doc);
        }
        let there = Watch::new(MemoryStore::new(world.store.clock()));
        let to = make_vault("second", &there, world.store.now()).await;
        for vault in [&world.vault, &to] {
            vault.put_recover("how to restore", &world.key).await.unwrap();
        }
        let host = Host::new();
        fs::write(host.path("signers"), world.key.allowed_signers_line() + "\n").unwrap();
        // Who audits has no key of any kind.
        for key in ["host_key", "host_key.pub", "ops.txt", "escrow.txt"] {
            fs::remove_file(host.path(key)).unwrap();
        }
        fs::remove_dir(host.path("state")).unwrap();
        let scene = Self { world, docs, second: (there, to), host };
        scene.configure("keep = { within = \"9d\", min = 2 }", "");
        scene
    }

    /// The policy: `keep` of the vault `first`, then whatever else.
    pub(super) fn configure(&self, keep: &str, rest: &str) {
        let source = "[source.db]\ntype = \"command\"\ncommand = [\"true\"]\n";
        self.host.configure(&format!("{}{source}{rest}", self.place("first", self.world.vault.id().as_str(), keep)));
    }

    /// With both vaults.
    pub(super) fn configure_both(&self, keep: &str) {
        let second = self.place("second", self.second.1.id().as_str(), keep);
        self.configure(keep, &second);
    }

    fn place(&self, name: &str, id: &str, keep: &str) -> String {
        let path = self.host.path(name);
        format!("[vault.{name}]\nid = \"{id}\"\npath = \"{}\"\n{keep}\n", path.display())
    }

    /// Copies what is `wanted` into the second vault.
    pub(super) async fn replicate(&self, wanted: &(dyn Fn(&SnapshotId) -> bool + Sync)) {
        let world = &self.world;
        let route = Route { from: &world.vault, to: &self.second.1, signers: &world.signers, monitor: &world.monitor };
        let done = replicate(route, &world.request.stack, &world.request.source, wanted, false).await;
        assert!(done.errors.is_empty(), "{done:?}");
    }

    /// Lays both vaults down.
    pub(super) async fn write(&self) {
        write(&self.world.watch.memory, &self.host.path("first")).await;
        write(&self.second.0.memory, &self.host.path("second")).await;
    }

    pub(super) fn file(&self, vault: &str, path: &str) -> PathBuf {
        self.host.path(vault).join(path)
    }

    /// A file of a snapshot.
    pub(super) fn of(&self, vault: &str, doc: &SnapshotDoc, suffix: &str) -> PathBuf {
        self.file(vault, doc.dir().snapshot(&doc.id, suffix).as_str())
    }

    /// Removes a snapshot's own files.
    pub(super) fn remove(&self, vault: &str, doc: &SnapshotDoc) {
        for suffix in [".json", ".json.sig", ".inventory.zst"] {
            fs::remove_file(self.of(vault, doc, suffix)).unwrap();
        }
    }

    /// An object of a snapshot.
    pub(super) fn object(&self, vault: &str, doc: &SnapshotDoc) -> PathBuf {
        self.file(vault, doc.dir().object(&doc.manifest.objects[0]).as_str())
    }

    /// Signs a document with the host's key and puts it in its place.
    pub(super) fn sign(
        &self,
        vault: &str,
        path: &str,
        bytes: &[u8],
        key: &HostKey,
        namespace: backup_core::signature::Namespace,
    ) {
        let file = self.file(vault, path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        fs::write(format!("{}.sig", file.display()), key.sign(namespace, bytes).unwrap()).unwrap();
    }

    /// `backup audit`, which must end with `code`; nothing on the machine is different afterwards.
    #[track_caller]
    pub(super) fn audit(&self, args: &[&str], code: i32) -> Ended {
        let before = look(self.host.dir());
        let ended = self.host.run(&[&["audit"], args].concat());
        assert_eq!(ended.code, code, "{args:?}\n{}\n{}", ended.out, ended.err);
        assert_eq!(look(self.host.dir()), before, "an audit changed something");
        ended
    }

    /// The words of all findings.
    #[track_caller]
    pub(super) fn kinds(&self, args: &[&str], code: i32) -> Vec<String> {
        let found = self.audit(&[args, &["--json"]].concat(), code).json();
        let mut kinds = Vec::new();
        for source in found["sources"].as_array().unwrap() {
            let vaults = source["vaults"].as_array().unwrap().iter().map(|vault| &vault["findings"]);
            for findings in vaults.chain([&source["findings"]]) {
                kinds.extend(findings.as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap().to_owned()));
            }
        }
        kinds
    }
}

/// Lays a store down as a directory, with its times.
pub(super) async fn write(store: &MemoryStore, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in store.list(None).await.unwrap() {
        let file = to.join(entry.path.as_str());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, store.get(&entry.path, u64::MAX).await.unwrap()).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(entry.modified.into()).unwrap();
    }
}

/// Every file and folder with its time and content.
pub(super) fn look(root: &Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut folders = vec![root.to_owned()];
    let mut at = 0;
    while at < folders.len() {
        let inner = fs::read_dir(&folders[at]).unwrap().map(|entry| entry.unwrap());
        let inner: Vec<PathBuf> =
            inner.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect();
        folders.extend(inner);
        at += 1;
    }
    let time = |path: &Path| fs::symlink_metadata(path).unwrap().modified().unwrap();
    let files = files_below(root).into_iter().map(|path| (path.clone(), time(&path), fs::read(&path).unwrap()));
    let mut all: Vec<_> = files.chain(folders.iter().map(|path| (path.clone(), time(path), Vec::new()))).collect();
    all.sort();
    all
}

/// A second script for the same day.
pub(super) fn other(seed: u64) -> Script {
    Script { streams: vec![noise(20_000, seed + 1000)], ..Script::default() }
}

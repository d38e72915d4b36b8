//! A vault with a past: captures of days gone by, made in memory by a clock of their own, then written out as the files
//! that a store would hold, with the times that it would have given them.
//!
//! No program has a knob for time, and expiry needs days: so here the days are in the vault, and the programs that are
//! tried read the clock that everybody has. Whoever lets an announcement grow older ([`let_a_day_pass`]) has the host's key.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backup_core::backup::{BackupRequest, Host as Engine, backup};
use backup_core::clock::Clock;
use backup_core::id::VaultId;
use backup_core::monitor::{Monitor, Silent};
use backup_core::signature::{HostKey, Namespace, Signers};
use backup_core::source::files::FilesOptions;
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::document::ExpiredDoc;
use backup_core::vault::memory::MemoryStore;
use backup_core::vault::store::Store;
use chrono::{DateTime, TimeDelta, Utc};

use super::host::Host;
use super::stack::files_below;

/// The stack of [`Host::configure`].
pub(super) const STACK: &str = "s";

/// File names and contents of a folder.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// Every file below `dir` by its name alone, which must be unique: a restore puts them where it likes.
pub(super) fn contents(dir: &Path) -> Files {
    let mut found = Files::new();
    for path in files_below(dir) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(found.insert(name, fs::read(&path).unwrap()).is_none(), "{} is there twice", path.display());
    }
    found
}

/// The clock of the programs that are tried.
#[expect(clippy::disallowed_methods, reason = "they read the same one, and are compared with it")]
pub(super) fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The key with which the host signs.
pub(super) fn host_key(host: &Host) -> HostKey {
    HostKey::from_openssh(&fs::read_to_string(host.path("host_key")).unwrap()).unwrap()
}

/// Captures of a host's files on earlier days.
pub(super) struct Past {
    memory: MemoryStore,
    vault: Vault,
    time: Arc<Mutex<DateTime<Utc>>>,
    key: HostKey,
    state: State,
    request: BackupRequest,
    paths: Vec<PathBuf>,
}

impl Past {
    /// Of `source`, which captures `paths` in generations of a day, in the vault with this id. What the host remembers is in
    /// its own state folder, as if its own runs had made it.
    pub(super) async fn new(host: &Host, id: &VaultId, source: &str, paths: Vec<PathBuf>) -> Self {
        let time = Arc::new(Mutex::new(now()));
        let memory = MemoryStore::new(clock(&time));
        let vault = Vault::create("past", Arc::new(memory.clone()), id.clone(), now(), "backup 0").await.unwrap();
        let request = BackupRequest {
            stack: STACK.parse().unwrap(),
            source: source.parse().unwrap(),
            run: "past".to_owned(),
            recipients: host.recipients().to_vec(),
            period: "1d".parse().unwrap(),
            level: 3,
            budget_bytes: 0,
            cpus: 2,
            secret: false,
            next_due: None,
            config: serde_json::json!({"stack": STACK}),
            tool: "backup 0".to_owned(),
        };
        let state = State::open(&host.path("state"), &request.stack).await.unwrap();
        Self { memory, vault, time, key: host_key(host), state, request, paths }
    }

    /// A capture at `at`, later than all before it; gives the snapshot's id.
    pub(super) async fn capture(&mut self, at: DateTime<Utc>) -> String {
        *self.time.lock().unwrap() = at;
        self.request.run = format!("past-{}", at.format("%Y%m%d"));
        let (clock, monitor) = (clock(&self.time), Arc::new(Silent) as Arc<dyn Monitor>);
        let signers = Signers::pin_fingerprint(&self.key.fingerprint());
        let engine = Engine { key: &self.key, signers: &signers, state: &self.state, clock: &clock, monitor: &monitor };
        let source = FilesOptions::new(self.paths.clone());
        backup(&self.vault, engine, &self.request, &source).await.unwrap().snapshot.doc.id.to_string()
    }

    /// Writes the snapshots' files, without those of the vault itself, below `dir`; only generations whose first day is
    /// before `until`.
    pub(super) async fn write(&self, dir: &Path, until: DateTime<Utc>) {
        for entry in self.memory.list(None).await.unwrap() {
            let parts: Vec<&str> = entry.path.as_str().split('/').collect();
            let [_, _, generation, _, ..] = parts.as_slice() else { continue };
            if **generation >= *until.format("%Y-%m-%d").to_string() {
                continue;
            }
            let (path, body) = (dir.join(entry.path.as_str()), self.memory.get(&entry.path, u64::MAX).await.unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, body).unwrap();
            set_time(&path, entry.modified);
        }
    }
}

fn clock(time: &Arc<Mutex<DateTime<Utc>>>) -> Clock {
    let time = time.clone();
    Clock::new(move || *time.lock().unwrap())
}

/// Says of a file that it was written then.
pub(super) fn set_time(path: &Path, at: DateTime<Utc>) {
    File::options().write(true).open(path).unwrap().set_modified(at.into()).unwrap();
}

/// Makes the announcements of a prune below `vault` (a vault's files) thirty hours older than they are; at most `limit` of
/// them, the oldest generations first. Gives how many are old now.
pub(super) fn let_a_day_pass(vault: &Path, key: &HostKey, limit: usize) -> usize {
    let announced = files_below(vault).into_iter().filter(|path| path.ends_with("expired.json"));
    let mut aged = 0;
    for path in announced.take(limit) {
        let mut doc: ExpiredDoc = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        aged += 1;
        let then = now() - TimeDelta::hours(30);
        if doc.at < then + TimeDelta::hours(5) {
            continue;
        }
        doc.at = then;
        let text = backup_core::json::to_lines(&doc);
        let signature = path.with_extension("json.sig");
        fs::write(&signature, key.sign(Namespace::Expired, text.as_bytes()).unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        for path in [&path, &signature] {
            set_time(path, then);
        }
    }
    aged
}

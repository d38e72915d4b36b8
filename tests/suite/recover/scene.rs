//! A host with stock-made keys, a directory vault, and the way back out of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use backup_core::backup::{BackupRequest, Committed, Host, backup};
use backup_core::clock::Clock;
use backup_core::monitor::{Monitor, Silent};
use backup_core::recover::RECOVER;
use backup_core::signature::{HostKey, Signers};
use backup_core::source::Source;
use backup_core::state::State;
use backup_core::vault::Vault;
use backup_core::vault::local::{LocalOptions, LocalStore};
use chrono::Utc;
use harness::tools::tool;

/// What the page names, and nothing else.
const TOOLS: [&str; 12] =
    ["bash", "age", "zstd", "ssh-keygen", "tar", "awk", "sha256sum", "cat", "dd", "mkdir", "mv", "rm"];

/// What the page names for databases.
const CLIENTS: [&str; 2] = ["psql", "pg_restore"];

pub(crate) const STACK: &str = "shop";

pub(crate) struct Scene {
    dir: tempfile::TempDir,
    pub(crate) key: HostKey,
    pub(crate) vault: Vault,
    recipients: Vec<String>,
    state: State,
}

impl Scene {
    /// Keys by `ssh-keygen` and `age-keygen`, an empty vault with its page. `None` where a tool is missing: skipped.
    pub(crate) async fn new() -> Option<Self> {
        let missing: Vec<&str> =
            TOOLS.iter().chain(&["age-keygen", "cp"]).copied().filter(|name| tool(name).is_none()).collect();
        if !missing.is_empty() {
            harness::skip("stock-tools", &format!("not installed: {}", missing.join(", ")));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["vault", "state", "tools", "home"] {
            fs::create_dir(at(name)).unwrap();
        }
        for name in TOOLS {
            symlink(tool(name).unwrap(), at("tools").join(name)).unwrap();
        }
        let key = make_host_key(&at("host_key"));
        fs::write(at("allowed_signers"), key.allowed_signers_line() + "\n").unwrap();
        let recipients = vec![make_identity(&at("identity")), make_identity(&at("escrow"))];
        let store = LocalStore::open(&at("vault"), LocalOptions::default()).unwrap();
        let id = "0123456789abcdef0123456789abcdef".parse().unwrap();
        Vault::create("local", Arc::new(store), id, clock().now(), "backup 0").await.unwrap();
        // Opened again, as a run would.
        let store = LocalStore::open(&at("vault"), LocalOptions::default()).unwrap();
        let vault = Vault::open("local", Arc::new(store), None).await.unwrap();
        vault.put_recover(RECOVER, &key).await.unwrap();
        let state = State::open(&at("state"), &STACK.parse().unwrap()).await.unwrap();
        Some(Self { dir, key, vault, recipients, state })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Links a database client as well.
    pub(crate) fn link_clients(&self, bin: &Path) {
        for name in CLIENTS {
            symlink(bin.join(name), self.path("tools").join(name)).unwrap();
        }
    }

    pub(crate) async fn backup(&self, name: &str, source: &dyn Source) -> Committed {
        let request = BackupRequest {
            stack: STACK.parse().unwrap(),
            source: name.parse().unwrap(),
            run: "run-1".to_owned(),
            recipients: self.recipients.clone(),
            period: "7d".parse().unwrap(),
            level: 3,
            budget_bytes: 0,
            cpus: 2,
            secret: false,
            next_due: None,
            config: serde_json::json!({"stack": STACK}),
            tool: "backup 0".to_owned(),
        };
        let monitor: Arc<dyn Monitor> = Arc::new(Silent);
        let clock = clock();
        let signers = Signers::pin_fingerprint(&self.key.fingerprint());
        let host = Host { key: &self.key, signers: &signers, state: &self.state, clock: &clock, monitor: &monitor };
        backup(&self.vault, host, &request, source).await.unwrap()
    }

    /// The vault, copied as its keeper would.
    pub(crate) fn copy_of_vault(&self) -> PathBuf {
        let mut n = 1;
        while self.path(&format!("copy-{n}")).exists() {
            n += 1;
        }
        let copy = self.path(&format!("copy-{n}"));
        let status = Command::new("cp").arg("-a").arg(self.path("vault")).arg(&copy).status().unwrap();
        assert!(status.success());
        copy
    }

    /// A tool with nothing of ours around it.
    pub(crate) fn stock(&self, name: &str) -> Command {
        let mut command = Command::new(self.path("tools").join(name));
        command.env_clear().env("PATH", self.path("tools")).env("HOME", self.path("home"));
        command
    }

    /// A command line, by bash.
    pub(crate) fn shell(&self, line: &str, dir: &Path) -> Output {
        self.stock("bash").args(["-euo", "pipefail", "-c", line]).current_dir(dir).output().unwrap()
    }

    /// The page's signature by the page's command; its list of tools is ours.
    pub(crate) fn check_page(&self, vault: &Path) {
        let page = fs::read_to_string(vault.join("RECOVER-1.md")).unwrap();
        for name in TOOLS.iter().chain(&CLIENTS) {
            assert!(page.contains(&format!("`{name}`")), "the page does not name `{name}`");
        }
        fs::copy(self.path("allowed_signers"), vault.join("allowed_signers")).unwrap();
        let verify = indented(&page, "ssh-keygen -Y verify");
        assert!(self.shell(&verify, vault).status.success(), "the page's own signature");
        // The check can fail: one more byte, and it does.
        fs::write(vault.join("RECOVER-1.md"), page.clone() + "\n").unwrap();
        assert!(!self.shell(&verify, vault).status.success(), "an altered page is believed");
        fs::write(vault.join("RECOVER-1.md"), page).unwrap();
    }

    /// Cuts the script out of the page as the page says, and runs it.
    pub(crate) fn recover(
        &self,
        vault: &Path,
        source: &str,
        out: &Path,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Recovered {
        self.recover_as("identity", vault, source, out, more, env)
    }

    /// [`Scene::recover`] with another identity.
    pub(crate) fn recover_as(
        &self,
        identity: &str,
        vault: &Path,
        source: &str,
        out: &Path,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Recovered {
        let page = fs::read_to_string(vault.join("RECOVER-1.md")).unwrap();
        let cut = self.shell(&indented(&page, "awk "), vault);
        assert!(cut.status.success(), "{}", String::from_utf8_lossy(&cut.stderr));
        let output = self
            .stock("bash")
            .arg(vault.join("recover.sh"))
            .arg(vault)
            .args([STACK, source])
            .args([self.path(identity), self.path("allowed_signers"), out.to_owned()])
            .args(more)
            .envs(env.iter().copied())
            .output()
            .unwrap();
        Recovered { out: out.to_owned(), output }
    }
}

/// How the script ended.
pub(crate) struct Recovered {
    out: PathBuf,
    output: Output,
}

impl Recovered {
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    #[track_caller]
    pub(crate) fn succeeds(&self) {
        assert!(self.output.status.success(), "{}", self.stderr());
    }

    /// It failed, said why in its own words, and neither claims success nor leaves a key.
    #[track_caller]
    pub(crate) fn fails(&self, why: &str) {
        let stderr = self.stderr();
        assert!(!self.output.status.success(), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        assert!(!stderr.contains("every stream has") && !stderr.contains("is restored"), "{stderr}");
        assert!(!self.out.join("work").exists(), "the generation's key stays behind");
    }
}

/// The only indented line of the page that begins so.
fn indented(page: &str, start: &str) -> String {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(start));
    let line = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), None);
    line
}

/// The wall clock: a directory vault has no other.
#[expect(clippy::disallowed_methods, reason = "the edge: the store's clock is the machine's")]
pub(crate) fn clock() -> Clock {
    Clock::new(Utc::now)
}

pub(crate) fn make_host_key(file: &Path) -> HostKey {
    let status =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(file).status().unwrap();
    assert!(status.success());
    HostKey::from_openssh(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Makes an identity file and gives its recipient.
pub(crate) fn make_identity(file: &Path) -> String {
    assert!(Command::new("age-keygen").arg("-o").arg(file).output().unwrap().status.success());
    let recipient = Command::new("age-keygen").arg("-y").arg(file).output().unwrap();
    String::from_utf8(recipient.stdout).unwrap().trim().to_owned()
}

//! Vaults of earlier days, read for ever: `fixtures/vaults/v1` was written once, by the program of its day, and whatever
//! came since must list, verify and restore it, byte for byte, with the program and with the stock tools of its own page.
//!
//! Nothing here writes to it: a copy is read, and `SHA256SUMS` tells when somebody did. The same judge reads a vault that
//! is written now, so that a fixture can be made from it (`scripts/make-fixture-vault.sh`, which names a folder in
//! `BACKUP_FIXTURE_OUT`), and so that what the judge asks for is never more than what the program writes.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use backup_core::id::Hash256;
use backup_core::signature::Signers;
use backup_core::vault::document::{ExpiredDoc, GenerationDoc, MarkDoc, MarkKind, ReceiptDoc, SnapshotDoc};
use backup_core::vault::local::{LocalOptions, LocalStore};
use backup_core::vault::store::StorePath;
use backup_core::vault::{Vault, VaultError};
use harness::tools::tool;

use super::host::Ended;
use super::past::{Files, STACK, contents};
use super::stack::files_below;

/// The parts of a fixture.
const VAULT: &str = "vault";
const IDENTITY: &str = "identity-for-tests-only.txt";
const SIGNERS: &str = "allowed_signers";
const EXPECTED: &str = "expected";
const SUMS: &str = "SHA256SUMS";

/// The source of files; the others are databases.
const CONF: &str = "conf";

/// What a restore gives, the same from the program and from the page: files by name; of a database each file by its path,
/// members of a tar as if it were unpacked.
fn look(dir: &Path, source: &str) -> Files {
    if source == CONF {
        let files = dir.join("files");
        return contents(if files.is_dir() { &files } else { dir });
    }
    let mut found = Files::new();
    for path in files_below(dir) {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        let body = fs::read(&path).unwrap();
        if let Some(stem) = name.strip_suffix(".tar") {
            for entry in tar::Archive::new(body.as_slice()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let member = format!("{stem}/{}", entry.path().unwrap().display());
                let mut body = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut body).unwrap();
                found.insert(member, body);
            }
            continue;
        }
        // `copy/3-00000001.sql` of the program is `copy/3/00000001.sql` of the page.
        let name = name.replacen('-', "/", usize::from(name.starts_with("copy/")));
        found.insert(name, body);
    }
    found
}

/// A machine that only reads: a copy of a fixture, and a configuration without a host key.
struct Reader {
    dir: tempfile::TempDir,
}

impl Reader {
    fn of(fixture: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for path in files_below(fixture) {
            let to = dir.path().join(path.strip_prefix(fixture).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&path, to).unwrap();
        }
        let reader = Self { dir };
        fs::set_permissions(reader.path(IDENTITY), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(reader.path("state")).unwrap();
        let vault: serde_json::Value =
            serde_json::from_slice(&fs::read(reader.path(VAULT).join("vault.json")).unwrap()).unwrap();
        let identity = fs::read_to_string(reader.path(IDENTITY)).unwrap();
        let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
        let text = format!(
            "schema = 1\nstack = \"{STACK}\"\nstate = \"state\"\n[keys]\nrecipients = [\"{recipient}\"]\nsigners = \"{SIGNERS}\"\n\
             [vault.old]\nid = {}\npath = \"{VAULT}\"\nkeep = {{ within = \"3d\", min = 1 }}\n\
             [source.{CONF}]\ntype = \"files\"\npaths = [\"gone\"]\ngeneration = \"1d\"\n\
             [source.db]\ntype = \"postgres\"\nurl = \"postgres://nobody@127.0.0.1:1/gone\"\n",
            vault["id"]
        );
        fs::write(reader.path("backup.toml"), text).unwrap();
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir(self.dir.path()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        Ended::of(command.output().unwrap())
    }

    #[track_caller]
    fn good(&self, args: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}\n{}\n{}", ended.out, ended.err);
        ended
    }

    /// Snapshots' ids with their sources.
    fn list(&self) -> BTreeMap<String, String> {
        let list = self.good(&["list", "--json"]).json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        list["snapshots"].as_array().unwrap().iter().map(|one| (text(&one["id"]), text(&one["source"]))).collect()
    }

    /// As on a bare machine: by the vault's address and the signer's fingerprint alone.
    fn restore(&self, id: &str, source: &str) -> Files {
        let signers = Signers::parse(&fs::read_to_string(self.path(SIGNERS)).unwrap()).unwrap();
        let out = self.path("out");
        let args = ["restore", id, "--vault", "./vault", "--stack", STACK, "--identity", IDENTITY, "--into-dir", "out"];
        self.good(&[&args[..], &["--signer", &signers.fingerprints()[0]]].concat());
        let below = if source == CONF { out.clone() } else { out.join(source) };
        let found = look(&below, source);
        fs::remove_dir_all(out).unwrap();
        found
    }

    /// With the script that the vault's own page holds.
    fn recover(&self, id: &str, source: &str) -> Files {
        let page = fs::read_to_string(self.path(VAULT).join("RECOVER-1.md")).unwrap();
        let script: Vec<&str> =
            page.lines().skip_while(|line| *line != "```bash").skip(1).take_while(|line| *line != "```").collect();
        fs::write(self.path("recover.sh"), script.join("\n") + "\n").unwrap();
        let out = self.path("recovered");
        let args = ["recover.sh", VAULT, STACK, source, IDENTITY, SIGNERS, "recovered", id];
        let ended = Command::new("bash").args(args).current_dir(self.dir.path()).output().unwrap();
        assert!(ended.status.success(), "{id}: {}", String::from_utf8_lossy(&ended.stderr));
        let found = look(&out, source);
        fs::remove_dir_all(out).unwrap();
        found
    }

    /// Reads every document strictly, its signature checked; gives the kinds of marks, how many announcements and receipts.
    async fn documents(&self) -> (BTreeSet<&'static str>, usize, usize) {
        let store = LocalStore::open(&self.path(VAULT), LocalOptions::default()).unwrap();
        let vault = Vault::open("old", Arc::new(store), None).await.unwrap();
        let signers = Signers::parse(&fs::read_to_string(self.path(SIGNERS)).unwrap()).unwrap();
        let (mut marks, mut announced, mut receipts) = (BTreeSet::new(), 0, 0);
        for path in files_below(&self.path(VAULT)) {
            let path = path.strip_prefix(self.path(VAULT)).unwrap().to_str().unwrap().to_owned();
            if !path.ends_with(".json") || path == "vault.json" {
                continue;
            }
            let at = StorePath::new(path.clone()).unwrap();
            let read: Result<(), VaultError> = async {
                if path.contains("/marks/") {
                    let mark: MarkKind = vault.get_signed::<MarkDoc>(&at, &signers).await?.doc.mark;
                    marks.insert(mark.word());
                } else if path.contains("/receipts/") {
                    receipts += 1;
                    assert!(!vault.get_signed::<ReceiptDoc>(&at, &signers).await?.doc.snapshots.is_empty());
                } else if path.contains("/snapshots/") {
                    let signed = vault.get_signed::<SnapshotDoc>(&at, &signers).await?;
                    vault.get_inventory(&signed.doc).await?;
                } else if path.ends_with("/generation.json") {
                    vault.get_signed::<GenerationDoc>(&at, &signers).await?;
                } else {
                    announced += 1;
                    assert!(!vault.get_signed::<ExpiredDoc>(&at, &signers).await?.doc.snapshots.is_empty());
                }
                Ok(())
            }
            .await;
            read.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        (marks, announced, receipts)
    }
}

/// Everything that must go on being true of a fixture.
async fn judge(fixture: &Path) {
    let reader = Reader::of(fixture);
    let listed = reader.list();
    let mut expected: Vec<String> = Vec::new();
    for entry in fs::read_dir(fixture.join(EXPECTED)).unwrap() {
        expected.push(entry.unwrap().file_name().into_string().unwrap());
    }
    expected.sort();
    assert_eq!(listed.keys().cloned().collect::<Vec<_>>(), expected, "what is listed");
    assert!(expected.iter().any(|id| id.contains("-imported")), "{expected:?}");

    let (marks, announced, receipts) = reader.documents().await;
    assert_eq!(marks, ["accept", "checked", "pin"].into());
    assert!(announced > 0 && receipts > 0, "{announced} announcements, {receipts} receipts");
    let verified = reader.good(&["verify", "--identity", IDENTITY, "--json"]).json();
    assert_eq!(verified["lost"].as_array().map(Vec::len), Some(0), "{verified:#}");
    // A plan understands everything that is there; what it decides depends on the day.
    let plans = reader.good(&["prune", "--json"]).json();
    for plan in plans["plans"].as_array().unwrap() {
        // A checkout has no times of its own, so that announcements look put back; anything else would be news.
        let foreign = plan["foreign"].as_array().unwrap();
        let put_back =
            |text: &serde_json::Value| text.as_str().unwrap().ends_with("an old one that was put back, not obeyed");
        assert!(foreign.iter().all(put_back), "{plan:#}");
        assert!(!plan.to_string().contains("not understood"), "{plan:#}");
    }

    let stock = ["bash", "age", "zstd", "ssh-keygen", "tar", "awk"].into_iter().find(|name| tool(name).is_none());
    if let Some(missing) = stock {
        harness::skip("stock-tools", &format!("not installed: {missing}"));
    }
    for (id, source) in &listed {
        let wanted = expected_of(fixture, id, source);
        assert!(!wanted.is_empty());
        same(&reader.restore(id, source), &wanted, id);
        if stock.is_none() {
            same(&reader.recover(id, source), &wanted, id);
        }
    }

    // The judge can fail: a byte of an object, and it is damage.
    let object = files_below(&reader.path(VAULT)).into_iter().find(|path| path.to_str().unwrap().contains("/objects/"));
    let object = object.unwrap();
    let mut body = fs::read(&object).unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    fs::write(&object, body).unwrap();
    assert_eq!(reader.run(&["verify", "--identity", IDENTITY]).code, 4);
}

fn expected_of(fixture: &Path, id: &str, source: &str) -> Files {
    look(&fixture.join(EXPECTED).join(id), source)
}

#[track_caller]
fn same(found: &Files, wanted: &Files, id: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "files of {id}");
    for (name, body) in wanted {
        assert!(found[name] == *body, "`{name}` of {id} differs");
    }
}

/// `sha256sum` of each file but the list itself and the page that explains it.
fn sums(fixture: &Path) -> String {
    let files = files_below(fixture).into_iter().map(|path| path.strip_prefix(fixture).unwrap().to_owned());
    let files = files.filter(|path| path != Path::new(SUMS) && path != Path::new("README.md"));
    let line = |path: PathBuf| {
        let hash = Hash256::of(&fs::read(fixture.join(&path)).unwrap());
        format!("{hash}  {}\n", path.display())
    };
    files.map(line).collect()
}

#[tokio::test]
async fn the_vault_of_format_1_is_read_for_ever() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vaults/v1");
    let kept = fs::read_to_string(fixture.join(SUMS)).unwrap();
    assert!(
        sums(&fixture) == kept,
        "the fixture was changed: it is written once, and a format that changes gets a new one"
    );
    judge(&fixture).await;
}

#[tokio::test]
async fn a_vault_of_today_is_read_as_the_fixtures_are() {
    let scratch = tempfile::tempdir().unwrap();
    let out = std::env::var_os("BACKUP_FIXTURE_OUT").map_or_else(|| scratch.path().join("v1"), PathBuf::from);
    assert!(!out.join(VAULT).exists(), "{} holds a vault: fixtures are never overwritten", out.display());
    write::write(&out).await;
    judge(&out).await;
}

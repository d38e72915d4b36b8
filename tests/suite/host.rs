//! A host with keys and a configuration in a folder of its own, driven through the real binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::s3::Bucket;
use serde_json::Value;

use super::stack::files_below;

/// Two operators, so that no warning about a single one stands in the output.
pub(super) const OPERATORS: [&str; 2] = ["ops.txt", "escrow.txt"];

/// A files source.
pub(super) const DOCS: &str = "[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n";

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ended {
    pub(super) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as one JSON document.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\n{}\n{}", self.out, self.err))
    }
}

/// The folder: operators' identities, host key, signers, `state`; the configuration is `backup.toml`.
pub(super) struct Host {
    dir: tempfile::TempDir,
    recipients: Vec<String>,
}

impl Host {
    /// With keys, without a configuration.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Self { dir, recipients: Vec::new() };
        for name in OPERATORS {
            let made = host.good(&["key", "new", name]);
            host.recipients.push(made.out.trim().to_owned());
        }
        host.good(&["key", "new", "--host", "host_key"]);
        let public = fs::read_to_string(host.path("host_key.pub")).unwrap();
        let key: Vec<&str> = public.split_whitespace().take(2).collect();
        fs::write(host.path("signers"), format!("backup namespaces=\"backup.*\" {}\n", key.join(" "))).unwrap();
        fs::create_dir(host.path("state")).unwrap();
        host
    }

    /// With the vaults `local` and `offsite` and one snapshot of the files source `docs` in both.
    pub(super) fn with_two_vaults() -> Self {
        let host = Self::new();
        for name in ["data", "local", "offsite"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("data/a.txt"), "hello").unwrap();
        host.configure(&format!("{}{}{DOCS}", Self::local("local"), Self::local("offsite")));
        host.good(&["init"]);
        host.good(&["run"]);
        host
    }

    /// With the vault `far`, prefix `v` of `bucket`, and the files source `docs`; `more` are further lines of the vault.
    pub(super) fn on_bucket(bucket: &Bucket, more: &str) -> Self {
        let host = Self::new();
        fs::create_dir(host.path("data")).unwrap();
        fs::write(host.path("data/a.txt"), "hello").unwrap();
        let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
        fs::write(host.path("s3.env"), keys).unwrap();
        fs::set_permissions(host.path("s3.env"), fs::Permissions::from_mode(0o600)).unwrap();
        let (endpoint, name) = (&bucket.endpoint, &bucket.bucket);
        host.configure(&format!(
            "[vault.far]\ns3 = {{ endpoint = \"{endpoint}\", bucket = \"{name}\", prefix = \"v\" }}\n\
             credentials = {{ file = \"s3.env\" }}\nkeep = {{ within = \"7d\", min = 2 }}\n{more}{DOCS}"
        ));
        host
    }

    /// Recipients of [`OPERATORS`].
    pub(super) fn recipients(&self) -> &[String] {
        &self.recipients
    }

    /// A clone: everything that the host has, in a folder of its own.
    pub(super) fn cloned(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(self.dir().join(".")).arg(dir.path()).status().unwrap();
        assert!(copied.success());
        Self { dir, recipients: self.recipients.clone() }
    }

    /// With the operators of another host in place of its own.
    pub(super) fn of_operators(self, other: &Self) -> Self {
        for name in OPERATORS {
            fs::copy(other.path(name), self.path(name)).unwrap();
        }
        Self { recipients: other.recipients.clone(), ..self }
    }

    /// Recipient of the identity in a file.
    pub(super) fn recipient(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(name)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
    }

    /// Replaces a part of the configuration, which must be there.
    #[track_caller]
    pub(super) fn change(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("backup.toml")).unwrap();
        assert!(text.contains(from), "no `{from}` in\n{text}");
        fs::write(self.path("backup.toml"), text.replace(from, to)).unwrap();
    }

    /// Writes the configuration: what every host has, then `rest` (vaults, sources, jobs).
    pub(super) fn configure(&self, rest: &str) {
        let recipients: Vec<String> = self.recipients.iter().map(|one| format!("\"{one}\"")).collect();
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"state\"\ngeneration = \"28d\"\nlimits = {{ reserve = \"0%\" }}\n[keys]\n\
             recipients = [{}]\nsigners = \"signers\"\nhost_key = \"host_key\"\n{rest}",
            recipients.join(", ")
        );
        fs::write(self.path("backup.toml"), text).unwrap();
    }

    /// A vault of the configuration: the folder `name`.
    pub(super) fn local(name: &str) -> String {
        format!("[vault.{name}]\npath = \"{name}\"\nkeep = {{ within = \"7d\", min = 2 }}\n")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The binary with arguments, in the host's folder, with nothing else in its environment.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir(self.dir()).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// A call that must end well.
    pub(super) fn good(&self, args: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "{args:?}\n{}\n{}", ended.out, ended.err);
        ended
    }

    /// The report of a run that must end well, for programs.
    pub(super) fn backup(&self) -> Value {
        self.good(&["run", "--json"]).json()
    }
}

/// What a run's report says about a source.
pub(super) fn of_source<'a>(report: &'a Value, source: &str) -> &'a Value {
    let sources = report["sources"].as_array().unwrap();
    sources.iter().find(|one| one["source"] == source).unwrap_or_else(|| panic!("no `{source}` in {report:#}"))
}

/// Bytes of all files below a folder.
pub(super) fn stored(dir: &Path) -> u64 {
    files_below(dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

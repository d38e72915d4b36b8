//! A whole stack for black-box tests: the real binary, a PostgreSQL cluster with passwords, a directory vault, an S3
//! vault on a server of our own, a folder of files, keys and a configuration. Everything lies below one temporary
//! directory and goes with it. The program gets a clean environment and no standard input, as from cron.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use harness::pg::{Cluster, Options};
use harness::s3::S3Server;
use serde_json::Value;

/// Password of the role that makes backups.
pub(crate) const PASSWORD: &str = "backup-role-s3cret-4711";
/// Password of the cluster's superuser.
pub(crate) const SUPERUSER_PASSWORD: &str = "superuser-s3cret-0815";
/// The database.
pub(crate) const DATABASE: &str = "app";

/// What a call of the program gave.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Out {
    /// The one JSON document that `--json` promises.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.all()))
    }

    /// Both streams: a run's report goes to standard output, what ends a process to standard error.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Panics with everything that was printed unless it ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.all());
        self
    }

    fn of(output: &Output) -> Self {
        Self {
            // A signal has no code; -1 is no exit code of ours.
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }
}

/// A stack `s` with the sources `db` and `docs`, the vaults `local` and `offsite`, the job `nightly`.
pub(crate) struct Stack {
    pub(crate) pg: Cluster,
    pub(crate) s3: S3Server,
    /// Recipients of the identities `ops.txt` and `escrow.txt`.
    pub(crate) recipients: [String; 2],
    dir: tempfile::TempDir,
}

impl Stack {
    /// Everything but `backup init`.
    pub(crate) fn new() -> Self {
        let options = Options { password: Some(SUPERUSER_PASSWORD.to_owned()), ..Options::default() };
        let pg = Cluster::start_with(options);
        pg.psql("postgres", &format!("CREATE ROLE backup LOGIN SUPERUSER PASSWORD '{PASSWORD}'; CREATE DATABASE app;"));
        pg.psql(DATABASE, SAMPLE);
        let mut stack = Self {
            pg,
            s3: S3Server::start().unwrap(),
            recipients: [String::new(), String::new()],
            dir: tempfile::Builder::new().prefix("stack-").tempdir().unwrap(),
        };
        for folder in ["etc", "data", "data/sub", "operator"] {
            fs::create_dir(stack.path(folder)).unwrap();
        }
        fs::write(stack.path("data/notes.txt"), "what the stack wrote\n").unwrap();
        fs::write(stack.path("data/sub/model.bin"), noise(1_500_000)).unwrap();
        stack.private("etc/pg.pass", &format!("{PASSWORD}\n"));
        let bucket = stack.s3.bucket.clone();
        let keys = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", bucket.access_key, bucket.secret_key);
        stack.private("etc/s3.env", &keys);
        for (at, name) in ["operator/ops.txt", "operator/escrow.txt"].into_iter().enumerate() {
            let made = stack.backup(&["key", "new", &stack.text(name)]).expect(0);
            made.stdout.trim().clone_into(&mut stack.recipients[at]);
        }
        let signer = stack.backup(&["key", "new", "--host", &stack.text("etc/host_key")]).expect(0);
        fs::write(stack.path("etc/allowed_signers"), signer.stdout).unwrap();
        fs::write(stack.path("etc/backup.toml"), stack.config_text()).unwrap();
        stack
    }

    /// [`Stack::new`], then `backup init`.
    pub(crate) fn ready() -> Self {
        let stack = Self::new();
        stack.init();
        stack
    }

    fn config_text(&self) -> String {
        let [ops, escrow] = &self.recipients;
        let (bucket, dir) = (&self.s3.bucket, self.dir.path().display());
        format!(
            r#"schema = 1
stack = "s"
timezone = "UTC"
generation = "28d"
state = "{dir}/state"
limits = {{ reserve = "0%" }}

[keys]
recipients = ["{ops}", "{escrow}"]
signers = "allowed_signers"
host_key = "host_key"

[vault.local]
path = "{dir}/local"
keep = {{ within = "7d", min = 3 }}

[vault.offsite]
s3 = {{ endpoint = "{endpoint}", bucket = "{name}", prefix = "v", region = "{region}", path_style = true }}
credentials = {{ file = "s3.env" }}
keep = {{ within = "30d", min = 3 }}

[source.db]
type = "postgres"
url = "{url}"
password = {{ file = "pg.pass" }}
globals = "passwords"

[source.docs]
type = "files"
paths = ["{dir}/data"]

[job.nightly]
cron = "0 2 * * *"
retry = {{ times = 0 }}
then = ["replicate"]
"#,
            endpoint = bucket.endpoint,
            name = bucket.bucket,
            region = bucket.region,
            url = self.pg.url_as("backup", DATABASE),
        )
    }

    /// A place below the stack's directory: `etc`, `data`, `local`, `state`, `operator`, or a new one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// [`Stack::path`] as an argument.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn private(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The configuration as it is now.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path("etc/backup.toml")).unwrap()
    }

    /// Replaces a part of the configuration, which must be there.
    #[track_caller]
    pub(crate) fn configure(&self, from: &str, to: &str) {
        let text = self.config();
        assert!(text.contains(from), "no `{from}` in\n{text}");
        fs::write(self.path("etc/backup.toml"), text.replace(from, to)).unwrap();
    }

    /// Takes the S3 vault out of the configuration, before [`Stack::init`].
    pub(crate) fn drop_offsite(&self) {
        let text = self.config();
        let (from, to) = (text.find("[vault.offsite]").unwrap(), text.find("[source.db]").unwrap());
        fs::write(self.path("etc/backup.toml"), format!("{}{}", &text[..from], &text[to..])).unwrap();
    }

    /// The program with these arguments, an environment of its own, and the configuration of this stack.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir("/").env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", self.path("home"));
        command.env("BACKUP_CONFIG", self.path("etc/backup.toml"));
        command
    }

    /// Calls the program and waits.
    pub(crate) fn backup(&self, args: &[&str]) -> Out {
        Out::of(&self.command(args).output().unwrap())
    }

    /// `backup init`, which must succeed; gives the recovery sheet.
    #[track_caller]
    pub(crate) fn init(&self) -> String {
        self.backup(&["init"]).expect(0).stdout
    }

    /// `backup run nightly`, however it ends.
    pub(crate) fn run(&self) -> Out {
        self.backup(&["run", "nightly"])
    }

    /// Ids of a source's snapshots that any vault lists, oldest first.
    #[track_caller]
    pub(crate) fn ids(&self, source: &str) -> Vec<String> {
        let listed = self.backup(&["list", "--json"]).expect(0).json();
        let all = listed["snapshots"].as_array().unwrap();
        let ours = all.iter().filter(|snapshot| snapshot["source"] == source);
        ours.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Directory of the vault `local` or, as plain files on the S3 server's disk, of `offsite`.
    pub(crate) fn vault(&self, name: &str) -> PathBuf {
        if name == "offsite" { self.s3.files().join("v") } else { self.path(name) }
    }

    /// All files below a source's folder in a vault, sorted.
    pub(crate) fn vault_files(&self, vault: &str, source: &str) -> Vec<PathBuf> {
        files_below(&self.vault(vault).join("s").join(source))
    }
}

/// All files below a folder, sorted; none when it does not exist.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Bytes that do not compress, the same each time.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(count).collect()
}

/// `events` is over 2 MiB, so that it is several parts; the others are small.
const SAMPLE: &str = "
CREATE TABLE events (id bigint PRIMARY KEY, kind text NOT NULL, body text);
INSERT INTO events SELECT n, 'kind' || n % 7, md5(n::text) || md5((n + 1)::text) || md5((n * 3)::text)
  FROM generate_series(1, 40000) AS n;
CREATE TABLE users (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, name text UNIQUE, joined timestamptz);
INSERT INTO users (name, joined) SELECT 'user ' || n, '2026-01-01'::timestamptz + n * interval '1 minute'
  FROM generate_series(1, 500) AS n;
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, amount numeric(12, 2));
INSERT INTO orders SELECT n, 1 + n % 500, n * 1.25 FROM generate_series(1, 2000) AS n;
CREATE VIEW big_orders AS SELECT * FROM orders WHERE amount > 1000;
";

//! The forms in which S3 credentials are configured, each through the whole program to a server that checks signatures.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::s3::S3Server;

const WRONG: &str = "wr0ng-s3cret-c4n4ry";

/// A stack of one folder and one S3 vault, which has been made.
struct Host {
    s3: S3Server,
    dir: tempfile::TempDir,
}

/// One way to give the keys.
struct Form {
    name: &'static str,
    /// The value of `credentials`.
    configured: String,
    variables: Vec<(&'static str, String)>,
}

impl Form {
    fn new(name: &'static str, configured: impl Into<String>) -> Self {
        Self { name, configured: configured.into(), variables: Vec::new() }
    }

    fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((variable, value.into()));
        self
    }
}

impl Host {
    fn new() -> Self {
        let host = Self { s3: S3Server::start().unwrap(), dir: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("data")).unwrap();
        fs::write(host.path("data/a"), "what is kept\n").unwrap();
        let (key, secret) = (&host.s3.bucket.access_key, &host.s3.bucket.secret_key);
        let form = Form::new("file", "{ file = \"s3.env\" }");
        host.private("s3.env", &lines(key, secret));
        let made = |args: &[&str]| {
            let output = host.command(&form, args).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let recipients = ["ops", "escrow"].map(|name| made(&["key", "new", name]));
        fs::write(host.path("signers"), made(&["key", "new", "--host", "host_key"]) + "\n").unwrap();
        host.private("recipients", &recipients.join("\n"));
        host.configure(&form, None);
        let (code, said) = host.call(&form, &["init"]);
        assert_eq!(code, 0, "{said}");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn private(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn configure(&self, form: &Form, id: Option<&str>) {
        let recipients = fs::read_to_string(self.path("recipients")).unwrap();
        let (first, second) = recipients.split_once('\n').unwrap();
        let (endpoint, bucket) = (&self.s3.bucket.endpoint, &self.s3.bucket.bucket);
        let id = id.map_or(String::new(), |id| format!("id = \"{id}\"\n"));
        let text = format!(
            "schema = 1\nstack = \"s\"\nstate = \"state\"\nlimits = {{ patience = \"3s\" }}\n\
             [keys]\nrecipients = [\"{first}\", \"{second}\"]\nsigners = \"signers\"\nhost_key = \"host_key\"\n\
             [vault.far]\n{id}s3 = {{ endpoint = \"{endpoint}\", bucket = \"{bucket}\", prefix = \"v\" }}\n\
             credentials = {}\nkeep = {{ within = \"7d\", min = 3 }}\n\
             [source.docs]\ntype = \"files\"\npaths = [\"{}\"]\n",
            form.configured,
            self.path("data").display(),
        );
        fs::write(self.path("backup.toml"), text).unwrap();
    }

    /// The id that `init` wrote.
    fn id(&self) -> String {
        let text = fs::read_to_string(self.path("backup.toml")).unwrap();
        text.split("id = \"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }

    fn command(&self, form: &Form, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("HOME", self.path("home"));
        // The last link of the chain is an address that only a machine of Amazon's has.
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("BACKUP_CONFIG", self.path("backup.toml"));
        command.envs(form.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Exit code, and what both streams said.
    fn call(&self, form: &Form, args: &[&str]) -> (i32, String) {
        let output = self.command(form, args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8(said).unwrap())
    }

    /// Every form, with these keys.
    fn forms(&self, key: &str, secret: &str) -> Vec<Form> {
        self.private("s3.env", &lines(key, secret));
        self.private("s3.json", &json(key, secret));
        self.private("print.sh", &format!("cat <<'END'\n{}\nEND\n", json(key, secret)));
        self.private("profile", &format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"));
        let print = self.path("print.sh").display().to_string();
        vec![
            Form::new("a file of lines", "{ file = \"s3.env\" }"),
            Form::new("a file of JSON", "{ file = \"s3.json\" }"),
            Form::new("variables with a prefix", "{ env = \"DR_\" }")
                .with("DR_ACCESS_KEY_ID", key)
                .with("DR_SECRET_ACCESS_KEY", secret)
                // Those of other tools are not taken for them.
                .with("AWS_ACCESS_KEY_ID", "nobody")
                .with("AWS_SECRET_ACCESS_KEY", "nothing"),
            Form::new("a program", format!("{{ command = [\"/bin/sh\", \"{print}\"] }}")),
            Form::new("the chain: variables", "\"aws-chain\"")
                .with("AWS_ACCESS_KEY_ID", key)
                .with("AWS_SECRET_ACCESS_KEY", secret),
            Form::new("the chain: a profile", "\"aws-chain\"")
                .with("AWS_SHARED_CREDENTIALS_FILE", self.path("profile").display().to_string()),
        ]
    }
}

fn lines(key: &str, secret: &str) -> String {
    format!("AWS_ACCESS_KEY_ID={key}\nAWS_SECRET_ACCESS_KEY={secret}\n")
}

fn json(key: &str, secret: &str) -> String {
    format!("{{ \"Version\": 1, \"AccessKeyId\": \"{key}\", \"SecretAccessKey\": \"{secret}\" }}")
}

/// How many snapshots the bucket holds.
fn snapshots(host: &Host) -> usize {
    let all = super::stack::files_below(&host.s3.files().join("v/s/docs"));
    all.iter()
        .filter(|path| {
            path.extension().is_some_and(|end| end == "json") && path.parent().unwrap().ends_with("snapshots")
        })
        .count()
}

#[test]
fn right_keys_work_in_every_form_and_wrong_ones_are_refused() {
    let host = Host::new();
    let (id, key, secret) = (host.id(), host.s3.bucket.access_key.clone(), host.s3.bucket.secret_key.clone());
    let mut stored = 0;
    for form in host.forms(&key, &secret) {
        host.configure(&form, Some(&id));
        let (code, said) = host.call(&form, &["run"]);
        assert_eq!(code, 0, "{}: {said}", form.name);
        stored += 1;
        assert_eq!(snapshots(&host), stored, "{}: {said}", form.name);
        let (code, said) = host.call(&form, &["list", "--json"]);
        assert_eq!((code, said.matches("\"source\":").count()), (0, stored), "{}: {said}", form.name);
    }
    for form in host.forms(&key, WRONG) {
        host.configure(&form, Some(&id));
        for args in [&["run"][..], &["list"]] {
            let (code, said) = host.call(&form, args);
            assert_eq!(code, 10, "{}: {args:?}: {said}", form.name);
            assert!(said.contains("SignatureDoesNotMatch"), "{}: {said}", form.name);
            assert!(said.contains("hint: check the vault's credentials"), "{}: {said}", form.name);
            assert!(!said.contains(WRONG) && !said.contains(&secret), "{}: a secret was printed: {said}", form.name);
        }
    }
    assert_eq!(snapshots(&host), stored, "nothing was stored with wrong keys");
}

#[test]
fn keys_that_are_not_there_are_named_at_once() {
    let host = Host::new();
    let id = host.id();
    for (form, says) in [
        (Form::new("file", "{ file = \"none.env\" }"), "none.env"),
        (Form::new("env", "{ env = \"DR_\" }").with("DR_ACCESS_KEY_ID", "x"), "`DR_SECRET_ACCESS_KEY` is not set"),
        (Form::new("command", "{ command = [\"/bin/false\"] }"), "`/bin/false` failed"),
        (Form::new("chain", "\"aws-chain\""), "no credentials were found"),
    ] {
        host.configure(&form, Some(&id));
        let begun = std::time::Instant::now();
        let (code, said) = host.call(&form, &["list"]);
        assert_ne!(code, 0, "{}: {said}", form.name);
        assert!(said.contains(says) && said.contains("hint: "), "{}: {said}", form.name);
        assert!(!said.contains("attempts"), "{}: asked again after {:?}: {said}", form.name, begun.elapsed());
    }
}

//! The binary from outside: configuration, keys, completions, and what a wrong call gets.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder with a configuration, away from the machine's own.
struct Host(tempfile::TempDir);

/// What a call gave.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("not one JSON document: {e}\n{}\n{}", self.out, self.err))
    }
}

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(args).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    /// Two identities and a configuration of one database.
    fn with_config() -> Self {
        let host = Self::new();
        let recipients = ["ops.txt", "escrow.txt"].map(|name| {
            let made = host.run(&["key", "new", name]);
            assert_eq!(made.code, 0, "{}", made.err);
            format!("\"{}\"", made.out.trim())
        });
        let made = host.run(&["key", "new", "--host", "host_key"]);
        host.write("allowed_signers", &format!("# ours\n{}", made.out));
        host.write("pg.pass", "hunter2\n");
        host.write(
            "backup.toml",
            &format!(
                "schema = 1\nstack = \"s\"\n[keys]\nrecipients = [{}]\n[vault.local]\nid = \"{}\"\npath = \"vault\"\n\
                 keep = {{ within = \"7d\" }}\n[source.db]\ntype = \"postgres\"\nurl = \"postgres://u@127.0.0.1/db\"\n\
                 password = {{ file = \"pg.pass\" }}\n",
                recipients.join(", "),
                "0".repeat(32)
            ),
        );
        host
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn config_check_is_quiet_about_a_good_file_and_names_what_is_unwise() {
    let host = Host::with_config();
    let good = host.run(&["config", "check"]);
    assert_eq!((good.code, good.err.as_str()), (0, ""));
    assert!(good.out.ends_with("backup.toml`: stack s, 1 source, 1 vault, 0 jobs, 0 warnings\n"), "{}", good.out);

    fs::set_permissions(host.path().join("pg.pass"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::remove_file(host.path().join("allowed_signers")).unwrap();
    let unwise = host.run(&["config", "check", "--json"]);
    assert_eq!(unwise.code, 12, "every verb that reads a vault ends so");
    let document = unwise.json();
    assert_eq!((&document["format"], &document["kind"]), (&1.into(), &"config check".into()));
    let keys: Vec<&str> = document["warnings"].as_array().unwrap().iter().map(|w| w["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["keys.signers", "source.db.password"]);
    assert!(unwise.err.contains("is open to every user (mode 0644)\n  run `chmod 600 "), "{}", unwise.err);
    assert!(!format!("{}{}", unwise.out, unwise.err).contains("hunter2"));
}

#[test]
fn config_check_warns_of_all_that_a_run_refuses_at_once() {
    let host = Host::with_config();
    let text = fs::read_to_string(host.path().join("backup.toml")).unwrap();
    let line = fs::read_to_string(host.path().join("allowed_signers")).unwrap();
    host.run(&["key", "new", "--host", "other"]);
    let with_key = |name: &str| text.replace("[keys]\n", &format!("[keys]\nhost_key = \"{name}\"\n"));
    let by_env = "password = { env = \"NO_SUCH_PASSWORD\" }";
    let job = "[job.nightly]\ncron = \"0 2 * * *\"\n";
    let rows = [
        (with_key("host_key"), line.as_str(), None),
        (with_key("other"), &line, Some((12, "keys.host_key", "is not among the pinned signers", "add this line"))),
        (with_key("host_key"), "# nobody\n", Some((12, "keys.signers", "pins nobody", "key list"))),
        (with_key("none"), &line, Some((12, "keys.host_key", "cannot read", "key new --host"))),
        (with_key("host_key.pub"), &line, Some((12, "keys.host_key", "is the public half", "host_key`"))),
        (format!("{text}{job}"), &line, Some((0, "job.nightly", "this machine runs no job", "key new --host"))),
        (
            with_key("host_key") + "[job.nightly]\ncron = \"0 2 31 2 *\"\n",
            &line,
            Some((0, "job.nightly.cron", "there is no such day", "correct the day")),
        ),
        (
            text.replace("password = { file = \"pg.pass\" }", by_env),
            &line,
            Some((0, "source.db.password", "`NO_SUCH_PASSWORD` is not set here", "cron's")),
        ),
        (
            text.clone() + "[vault.second]\nid = \"11111111111111111111111111111111\"\npath = \"vault/second\"\n",
            &line,
            Some((0, "vault.second", "lies inside `vault.local`", "a place of its own")),
        ),
        (
            text.clone() + "[source.all]\ntype = \"files\"\npaths = [\".\"]\n",
            &line,
            Some((0, "source.all.paths", "holds `vault.local`", "out of it")),
        ),
    ];
    for (text, signers, wanted) in rows {
        host.write("backup.toml", &text);
        host.write("allowed_signers", signers);
        let checked = host.run(&["config", "check", "--json"]);
        let document = checked.json();
        let warnings = document["warnings"].as_array().unwrap();
        let Some((code, key, says, hint)) = wanted else {
            assert_eq!((checked.code, warnings.len()), (0, 0), "{text}{document:#}");
            continue;
        };
        let has = |warning: &&Value, part: &str, what: &str| warning[part].as_str().unwrap().contains(what);
        let found = warnings.iter().filter(|one| one["key"] == key);
        let found = found.filter(|one| has(one, "text", says) && has(one, "hint", hint)).count();
        assert_eq!((checked.code, found), (code, 1), "{key}: {document:#}");
    }
}

#[test]
fn a_wrong_configuration_is_exit_2_with_a_hint_in_both_forms() {
    let host = Host::with_config();
    let text = fs::read_to_string(host.path().join("backup.toml")).unwrap();
    host.write("wrong.toml", &text.replace("stack =", "stak ="));
    let file = host.path().join("wrong.toml");
    let wrong = host.run(&["--config", "wrong.toml", "config", "show"]);
    let message = format!("`{}` line 2: unknown key `stak`", file.display());
    assert_eq!(
        (wrong.code, wrong.out.as_str(), wrong.err),
        (2, "", format!("error: {message}\n\nhint: did you mean `stack`?\n"))
    );
    let wrong = host.run(&["config", "show", "--json", "--config", "wrong.toml"]);
    let expected = serde_json::json!({
        "message": message, "class": "usage", "exit": 2, "hint": "did you mean `stack`?",
    });
    assert_eq!((wrong.code, &wrong.json()["error"]), (2, &expected));
    assert_eq!(wrong.json()["kind"], "error");

    host.write("wrong.toml", &text.replace("postgres://u@", "postgres://u:canary77@"));
    for json in [&[][..], &["--json"]] {
        for verb in [["config", "check"], ["config", "show"], ["key", "check"]] {
            let call = [&verb[..], &["--config", "wrong.toml", "-v"], json].concat();
            let wrong = host.run(&call);
            assert_eq!(wrong.code, 2);
            assert!(wrong.err.contains("`source.db.url`: holds a password"), "{}", wrong.err);
            assert!(!format!("{}{}", wrong.out, wrong.err).contains("canary77"));
        }
    }
}

#[test]
fn the_configuration_is_searched_for() {
    let host = Host::with_config();
    let elsewhere = Host::new();
    let file = host.path().join("backup.toml");
    let file = file.to_str().unwrap();
    let by_variable = ended(elsewhere.command(&["config", "check", "-v"]).env("BACKUP_CONFIG", file).output().unwrap());
    assert_eq!((by_variable.code, by_variable.err), (0, format!("configuration: {file}\n")));
    let missing = elsewhere.run(&["config", "check", "--config", "none.toml"]);
    assert_eq!(missing.code, 2);
    assert!(missing.err.starts_with("error: cannot read the configuration `"), "{}", missing.err);
}

#[test]
fn config_show_prints_a_configuration_and_the_policy_only_with_public() {
    let host = Host::with_config();
    let shown = host.run(&["config", "show"]);
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(shown.out.contains("# vault.local: a snapshot lives 23d at most"), "{}", shown.out);
    host.write("again.toml", &shown.out);
    assert_eq!(host.run(&["config", "show", "--config", "again.toml"]).out, shown.out, "what is shown reads back");

    let public = host.run(&["config", "show", "--public", "--json"]).json();
    let line = fs::read_to_string(host.path().join("allowed_signers")).unwrap();
    assert_eq!(public["config"]["signers"][0], line.lines().last().unwrap());
    let text = host.run(&["config", "show", "--public"]).out;
    // The directory vault's path is its address; nothing else of this machine is there.
    let vault = host.path().join("vault").to_str().unwrap().to_owned();
    assert!(text.contains(&vault), "{text}");
    for shown in [text.replace(&vault, ""), public.to_string().replace(&vault, "")] {
        for hidden in [host.path().to_str().unwrap(), "127.0.0.1", "pg.pass", "u@", "host_key"] {
            assert!(!shown.contains(hidden), "{hidden} in {shown}");
        }
    }
}

#[test]
fn config_schema_fits_a_terminal_and_needs_no_configuration() {
    let host = Host::new();
    let text = host.run(&["config", "schema"]);
    assert_eq!((text.code, text.err.as_str()), (0, ""));
    assert!(text.out.lines().all(|line| line.chars().count() <= 80), "{}", text.out);
    let document = host.run(&["config", "schema", "--json"]).json();
    let keys = document["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["path"] == "source.NAME.objective.rpo" && key["required"] == true));
    assert!(keys.iter().all(|key| text.out.contains(key["path"].as_str().unwrap())));
}

#[test]
fn an_identity_is_made_once_for_its_owner_only_and_matches_its_recipient() {
    let host = Host::with_config();
    let file = host.path().join("ops.txt");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = host.run(&["key", "new", "ops.txt"]);
    assert_eq!(again.code, 2);
    assert!(again.err.ends_with("hint: choose another name: a key is never overwritten\n"), "{}", again.err);
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "untouched");

    let matched = host.run(&["key", "check", "escrow.txt"]);
    assert_eq!(matched.code, 0, "{}", matched.err);
    assert!(matched.out.starts_with("opens recipient 2 of 2: age1"), "{}", matched.out);
    let document = host.run(&["key", "check", "ops.txt", "--json"]).json();
    assert_eq!(document["matches"][0]["number"], 1);

    let mut child = host.command(&["key", "check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));

    host.run(&["key", "new", "stranger.txt"]);
    let wrong = host.run(&["key", "check", "stranger.txt", "--json"]);
    assert_eq!((wrong.code, &wrong.json()["error"]["class"]), (12, &"wrong-key".into()));
    host.write("broken.txt", &text.replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-2"));
    let broken = host.run(&["key", "check", "broken.txt"]);
    assert_eq!(broken.code, 12);
    assert!(broken.err.contains("line 3 is no age identity"), "{}", broken.err);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let open = host.run(&["key", "check", "ops.txt"]);
    assert!(open.code == 12 && open.err.contains("pipe it in: `backup key check - < ops.txt`"), "{}", open.err);
    // A bare machine: whose it is, and nothing more.
    let bare = Host::new();
    let ops = fs::read(&file).unwrap();
    bare.write("ops.txt", std::str::from_utf8(&ops).unwrap());
    let told = bare.run(&["key", "check", "ops.txt"]);
    assert_eq!((told.code, told.out.contains(document["matches"][0]["recipient"].as_str().unwrap())), (0, true));
    assert_eq!(bare.run(&["key", "check", "none.txt"]).code, 12);
    let secret = text.lines().last().unwrap();
    for ended in [matched, wrong, broken] {
        assert!(!format!("{}{}", ended.out, ended.err).contains(&secret[16..]));
    }
}

/// Encrypts `text` with a passphrase as `age -p` does (which wants a terminal), with little work.
fn protect(text: &str, passphrase: &str) -> Vec<u8> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.to_owned().into());
    recipient.set_work_factor(2);
    age::encrypt(&recipient, text.as_bytes()).unwrap()
}

#[test]
fn a_protected_identity_opens_with_its_passphrase_only() {
    let host = Host::with_config();
    let text = fs::read_to_string(host.path().join("ops.txt")).unwrap();
    fs::write(host.path().join("ops.age"), protect(&text, "correct horse")).unwrap();
    fs::set_permissions(host.path().join("ops.age"), fs::Permissions::from_mode(0o600)).unwrap();
    host.write("right", "correct horse\n");
    host.write("wrong", "battery staple\n");
    let right = host.run(&["key", "check", "ops.age", "--passphrase-file", "right"]);
    assert_eq!(right.code, 0, "{}", right.err);
    let wrong = host.run(&["key", "check", "ops.age", "--passphrase-file", "wrong"]);
    assert_eq!(wrong.code, 12);
    assert!(wrong.err.starts_with("error: identity `ops.age`: wrong passphrase\n"), "{}", wrong.err);
    assert!(!wrong.err.contains("staple"));
    // In a session of its own there is no terminal to ask at.
    let mut alone = Command::new("setsid");
    alone.arg("--wait").arg(env!("CARGO_BIN_EXE_backup")).args(["key", "check", "ops.age"]);
    let nobody = ended(alone.current_dir(host.path()).stdin(Stdio::null()).output().unwrap());
    assert_eq!(nobody.code, 12, "{}", nobody.err);
    assert!(nobody.err.contains("no terminal to ask at"), "{}", nobody.err);
}

#[test]
fn a_host_key_signs_with_stock_ssh_keygen() {
    let host = Host::new();
    let made = host.run(&["key", "new", "--host", "host_key", "--stack", "usdcop"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.starts_with("backup namespaces=\"backup.*\" ssh-ed25519 AAAA"), "{}", made.out);
    assert_eq!(fs::metadata(host.path().join("host_key")).unwrap().permissions().mode() & 0o777, 0o600);
    host.write("allowed_signers", &made.out);
    host.write("doc", "signed text\n");
    let keygen = |args: &[&str], input: &str| {
        let mut child = Command::new("ssh-keygen")
            .args(args)
            .current_dir(host.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("stock ssh-keygen");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        ended(child.wait_with_output().unwrap())
    };
    let signed = keygen(&["-Y", "sign", "-f", "host_key", "-n", "backup.snapshot.v1", "doc"], "");
    assert_eq!(signed.code, 0, "{}", signed.err);
    let verify = |namespace: &str, text: &str| {
        let args = ["-Y", "verify", "-f", "allowed_signers", "-I", "backup", "-n", namespace, "-s", "doc.sig"];
        keygen(&args, text).code
    };
    assert_eq!(verify("backup.snapshot.v1", "signed text\n"), 0);
    assert_ne!(verify("backup.snapshot.v1", "other text\n"), 0, "a changed text");
    assert_ne!(verify("file", "signed text\n"), 0, "another namespace");
    let printed = keygen(&["-l", "-f", "host_key.pub"], "");
    let document = host.run(&["key", "new", "--host", "second", "--json"]).json();
    assert!(
        printed.out.contains("backup@usdcop (ED25519)") && made.err.contains(printed.out.split(' ').nth(1).unwrap())
    );
    assert!(
        document["allowed_signers"].as_str().unwrap().starts_with("backup namespaces="),
        "no configuration: any stack"
    );

    fs::write(host.path().join("third"), "precious").unwrap();
    assert_eq!(host.run(&["key", "new", "--host", "third"]).code, 2);
    assert_eq!(fs::read_to_string(host.path().join("third")).unwrap(), "precious");
    assert!(!host.path().join("third.pub").exists(), "no half of a pair is left");
}

#[test]
fn completions_and_help_go_to_standard_output_and_a_closed_pipe_is_no_error() {
    let host = Host::new();
    let script = host.run(&["completions", "bash"]);
    assert_eq!((script.code, script.err.as_str()), (0, ""));
    fs::write(host.path().join("c.bash"), &script.out).unwrap();
    assert!(Command::new("bash").args(["-n", "c.bash"]).current_dir(host.path()).status().unwrap().success());
    assert_eq!(host.run(&["completions", "zsh", "--json"]).json()["shell"], "zsh");
    let help = host.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("Exit codes:") && help.out.contains(" 12  wrong or missing key"), "{}", help.out);
    for args in [&["completions", "bash"][..], &["config", "schema"], &["--help"]] {
        let mut child = host.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{args:?}");
    }
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let full = ended(host.command(&["config", "schema"]).stdout(full).output().unwrap());
    assert_eq!(full.code, 1);
    assert!(full.err.starts_with("error: cannot write to standard output: "), "{}", full.err);
}

#[test]
fn a_wrong_call_is_exit_2_in_the_house_form() {
    let host = Host::new();
    let wrong = host.run(&["config", "shwo"]);
    assert_eq!((wrong.code, wrong.out.as_str()), (2, ""));
    assert!(wrong.err.starts_with("error: unrecognized subcommand `shwo`\n\nhint: "), "{}", wrong.err);
    assert!(wrong.err.ends_with("see `backup config --help`\n"), "{}", wrong.err);
    let wrong = host.run(&["--json", "nonsense"]);
    assert_eq!((wrong.code, &wrong.json()["error"]["exit"]), (2, &2.into()));
    assert_eq!(host.run(&[]).code, 2);
    assert!(!wrong.err.contains('\x1b'), "no colour in a pipe");
}

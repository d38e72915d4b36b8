//! Secrets stay where they are: known ones are planted into a stack, everything that the program can do is done, and then
//! they are looked for, also in base64 and hexadecimal, in all that it printed, in its state, in both vaults, in what it
//! left in the temporary folder, and in the argument lists of all processes meanwhile.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use harness::pg::Stop;

use super::stack::{PASSWORD, SUPERUSER_PASSWORD, Stack, files_below};

const DOTENV: &str = "canary-dotenv-8fK2xQ9vLm3T7w";
const WRONG_PG: &str = "canary-wrong-pg-5hJ1nB6cRz4D";
const WRONG_S3: &str = "canary-wrong-s3-0pQwErTyUiOp7";
const LITERAL: &str = "canary-literal-9sD8fG7hJ6kL5";
const TYPED: &str = "canary-typed-2zX3cV4bN5mQ6w";

/// A secret in one of its shapes.
struct Needle {
    what: String,
    bytes: Vec<u8>,
}

/// Looks for secrets in bytes, in one pass.
struct Finder {
    needles: Vec<Needle>,
    /// Whether a needle begins with these two bytes.
    starts: Vec<bool>,
}

/// The part of the base64 text of `… secret …` that depends on the secret only, when it begins at byte `at` of three.
fn base64(secret: &[u8], alphabet: &Alphabet, at: usize) -> Vec<u8> {
    let engine = GeneralPurpose::new(alphabet, NO_PAD);
    let whole = engine.encode([&vec![0; at], secret].concat()).into_bytes();
    let (first, end) = ((at * 8).div_ceil(6), (at + secret.len()) * 8 / 6);
    whole[first..end].to_vec()
}

/// A secret as it is and in every encoding that is looked for.
fn shapes(name: &str, secret: &str) -> Vec<Needle> {
    let needle = |how: &str, bytes: Vec<u8>| Needle { what: format!("{name}, {how}"), bytes };
    let hex = hex::encode(secret);
    let mut all = vec![
        needle("raw", secret.as_bytes().to_vec()),
        needle("hex", hex.clone().into_bytes()),
        needle("HEX", hex.to_uppercase().into_bytes()),
    ];
    for at in 0..3 {
        let standard = base64(secret.as_bytes(), &base64::alphabet::STANDARD, at);
        let url = base64(secret.as_bytes(), &base64::alphabet::URL_SAFE, at);
        if url != standard {
            all.push(needle(&format!("base64url at {at}"), url));
        }
        all.push(needle(&format!("base64 at {at}"), standard));
    }
    all
}

impl Finder {
    fn new(secrets: &[(String, String)]) -> Self {
        let mut finder = Self { needles: Vec::new(), starts: vec![false; 1 << 16] };
        for (name, secret) in secrets {
            // A shorter one could be found by chance.
            assert!(secret.len() >= 16, "{name}");
            for needle in shapes(name, secret) {
                finder.starts[pair(&needle.bytes)] = true;
                finder.needles.push(needle);
            }
        }
        finder
    }

    /// The first secret in `hay`.
    fn find(&self, hay: &[u8]) -> Option<&str> {
        for at in 0..hay.len().saturating_sub(1) {
            let rest = &hay[at..];
            if self.starts[pair(rest)]
                && let Some(needle) = self.needles.iter().find(|needle| rest.starts_with(&needle.bytes))
            {
                return Some(&needle.what);
            }
        }
        None
    }

    /// Files below a folder that hold a secret, or have one in their name.
    fn tree(&self, dir: &Path) -> Vec<String> {
        let found = files_below(dir).into_iter().filter_map(|path| {
            let what =
                self.find(path.as_os_str().as_encoded_bytes()).or_else(|| self.find(&fs::read(&path).unwrap()))?;
            Some(format!("{what} in {}", path.display()))
        });
        found.collect()
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// Reads the argument lists of all processes that were not there before it, again and again: those of before are not ours, and
/// on a busy machine to read them every time takes a core for itself.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<Vec<u8>>>,
}

/// Names in `/proc`, most of them numbers of processes.
fn processes() -> BTreeSet<OsString> {
    fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name()).collect()
}

impl Sampler {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Not in the thread, which may begin after what is to be seen.
        let mut before = processes();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                let all = processes();
                for process in all.difference(&before) {
                    // Gone by now, or never a process.
                    if let Ok(line) = fs::read(Path::new("/proc").join(process).join("cmdline")) {
                        seen.insert(line);
                    }
                }
                // A number that became free may be given to one of ours.
                before.retain(|process| all.contains(process));
                std::thread::sleep(Duration::from_millis(2));
            }
            seen
        });
        Self { stop, thread }
    }

    fn finish(self) -> BTreeSet<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Calls the program, and keeps what it prints.
struct Log<'a> {
    stack: &'a Stack,
    printed: Vec<(String, String)>,
    number: usize,
}

impl Log<'_> {
    /// Calls it as it is, with `-v` and with `--json`; each `#` in an argument becomes another number. Gives the exit codes.
    fn call(&mut self, args: &[&str]) -> Vec<i32> {
        self.call_with(args, &[])
    }

    fn call_with(&mut self, args: &[&str], env: &[(&str, &str)]) -> Vec<i32> {
        let mut codes = Vec::new();
        for flag in [None, Some("-v"), Some("--json")] {
            self.number += 1;
            let number = self.number.to_string();
            let all: Vec<String> = args.iter().copied().chain(flag).map(|arg| arg.replace('#', &number)).collect();
            let line: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut command = self.stack.command(&line);
            command.env("TMPDIR", self.stack.path("tmp")).envs(env.iter().copied());
            let output = command.output().unwrap();
            codes.push(output.status.code().unwrap());
            let text = [output.stdout, output.stderr].concat();
            self.printed.push((line.join(" "), String::from_utf8_lossy(&text).into_owned()));
        }
        codes
    }

    /// As [`Log::call`], of what must end well.
    fn good(&mut self, args: &[&str]) {
        let codes = self.call(args);
        let texts: Vec<_> = self.printed.iter().rev().take(3).collect();
        assert_eq!(codes, [0, 0, 0], "{texts:#?}");
    }

    /// As [`Log::call`], of what must fail.
    fn bad(&mut self, args: &[&str]) {
        let codes = self.call(args);
        assert!(codes.iter().all(|code| *code != 0), "{args:?} {codes:?}");
    }
}

/// A stack with a `.env`, and the secrets in it by name.
fn planted() -> (Stack, Vec<(String, String)>) {
    let stack = Stack::new();
    fs::create_dir(stack.path("secrets")).unwrap();
    fs::create_dir(stack.path("tmp")).unwrap();
    stack.private("secrets/.env", &format!("API_KEY={DOTENV}\n"));
    let job = format!(
        "[source.secrets]\ntype = \"files\"\npaths = [\"{}\"]\nsecret = true\n\n[job.nightly]",
        stack.text("secrets")
    );
    stack.configure("[job.nightly]", &job);
    let identity = |name: &str| {
        let text = fs::read_to_string(stack.path(name)).unwrap();
        text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned()
    };
    let host_key = fs::read_to_string(stack.path("etc/host_key")).unwrap();
    // The last lines of the key file hold its private half.
    let lines: Vec<&str> = host_key.lines().filter(|line| !line.starts_with('-')).collect();
    let private = lines[lines.len() - 2];
    let secrets = [
        (".env", DOTENV.to_owned()),
        ("role's password", PASSWORD.to_owned()),
        ("superuser's password", SUPERUSER_PASSWORD.to_owned()),
        ("S3 secret", stack.s3.bucket.secret_key.clone()),
        ("identity", identity("operator/ops.txt")),
        ("second identity", identity("operator/escrow.txt")),
        ("host key", private.to_owned()),
        ("wrong password", WRONG_PG.to_owned()),
        ("wrong S3 secret", WRONG_S3.to_owned()),
        ("literal in the configuration", LITERAL.to_owned()),
        ("typed on the command line", TYPED.to_owned()),
    ];
    let secrets = secrets.map(|(name, secret)| (name.to_owned(), secret)).to_vec();
    (stack, secrets)
}

/// Everything that works.
fn work(log: &mut Log<'_>) {
    let (stack, ops) = (log.stack, log.stack.text("operator/ops.txt"));
    let restored = stack.text("restored#");
    log.good(&["init"]);
    log.good(&["run", "nightly"]);
    let id = stack.ids("db").pop().unwrap();
    let secret_id = stack.ids("secrets").pop().unwrap();
    log.good(&["key", "new", &stack.text("operator/extra#.txt")]);
    for args in [
        &["list"][..],
        &["show", &id],
        &["show", &id, "--identity", &ops],
        &["show", &secret_id, "--identity", &ops],
        &["runs"],
        &["verify"],
        &["verify", "--read-data", "1/1"],
        &["verify", "--identity", &ops],
        &["key", "list"],
        &["key", "check", &ops],
        &["key", "sheet"],
        &["config", "check"],
        &["config", "show"],
        &["config", "show", "--public"],
        &["audit"],
        &["replicate"],
        &["prune"],
        &["prune", "--apply"],
        &["prune", "--undo"],
        &["restore", "--latest", "--identity", &ops, "--source", "db", "--into", "canary_#"],
        &[
            "restore",
            "--latest",
            "--identity",
            &ops,
            "--source",
            "docs",
            "--source",
            "secrets",
            "--into-dir",
            &restored,
        ],
        &["restore", "--latest", "--identity", &ops, "--into-dir", &restored, "--dry-run"],
        &["restore", &secret_id, "--identity", &ops, "--into-dir", &restored],
    ] {
        log.good(args);
    }
    log.call(&["status"]);
    log.call(&["doctor"]);
    let (bucket, signer) = (&stack.s3.bucket, stack.backup(&["key", "list", "--json"]).json());
    let address = format!("s3+{}/{}/v?region={}", bucket.endpoint, bucket.bucket, bucket.region);
    let signer = signer["host_key"]["fingerprint"].as_str().unwrap();
    let args = ["restore", "--latest", "--vault", &address, "--stack", "s", "--signer", signer, "--identity", &ops];
    let env = [("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key)];
    let bare = [("BACKUP_CONFIG", "")];
    let codes = log.call_with(&[&args[..], &["--source", "secrets", "--into-dir", &restored]].concat(), &env);
    assert_eq!(codes, [0, 0, 0], "{:#?}", log.printed.last());
    log.call_with(&args, &bare);
}

/// What goes wrong, each with a secret near by.
fn failures(log: &mut Log<'_>) {
    let stack = log.stack;
    let ops = stack.text("operator/ops.txt");
    let good = |name: &str| fs::read_to_string(stack.path(name)).unwrap();
    let (password, keys) = (good("etc/pg.pass"), good("etc/s3.env"));

    stack.private("etc/pg.pass", WRONG_PG);
    log.bad(&["run", "nightly"]);
    log.bad(&["doctor"]);
    log.bad(&["restore", "--latest", "--source", "db", "--identity", &ops, "--into", "never"]);
    stack.private("etc/pg.pass", &password);

    let access = &stack.s3.bucket.access_key;
    for wrong in [
        format!("AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY={WRONG_S3}\n"),
        format!("AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY {WRONG_S3}\n"),
        format!("{WRONG_S3}\n"),
    ] {
        stack.private("etc/s3.env", &wrong);
        log.bad(&["run", "nightly"]);
        log.bad(&["list", "--vault", "offsite"]);
        log.bad(&["doctor"]);
    }
    stack.private("etc/s3.env", &keys);

    fs::rename(stack.path("local"), stack.path("away")).unwrap();
    log.bad(&["run", "nightly"]);
    fs::rename(stack.path("away"), stack.path("local")).unwrap();

    // An identity that is none of ours, one that is broken, the wrong file altogether.
    stack.private("operator/broken.txt", &good("operator/ops.txt").replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-2"));
    for file in ["operator/broken.txt", "etc/pg.pass", "etc/s3.env", "secrets/.env", "etc/host_key"] {
        log.bad(&["restore", "--latest", "--identity", &stack.text(file), "--into-dir", &stack.text("never")]);
        log.bad(&["verify", "--identity", &stack.text(file)]);
        log.bad(&["key", "check", &stack.text(file)]);
    }

    // Secrets written where none belong.
    let config = stack.config();
    let url = stack.pg.url_as("backup", "app");
    for (from, to) in [
        ("password = { file = \"pg.pass\" }", format!("password = \"{LITERAL}\"")),
        ("password = { file = \"pg.pass\" }", format!("password = {{ file = \"{LITERAL}\"")),
        ("password = { file = \"pg.pass\" }", format!("password = {LITERAL}")),
        ("password = { file = \"pg.pass\" }", format!("password = {{ value = \"{LITERAL}\" }}")),
        ("password = { file = \"pg.pass\" }", format!("pasword = \"{LITERAL}\"")),
        ("credentials = { file = \"s3.env\" }", format!("credentials = \"{LITERAL}\"")),
        ("postgres://backup@", format!("postgres://backup:{LITERAL}@")),
        (url.as_str(), format!("{url}?password={LITERAL}")),
    ] {
        stack.configure(from, &to);
        for verb in ["run", "doctor", "list"] {
            log.bad(&[verb]);
        }
        log.bad(&["config", "check"]);
        log.bad(&["config", "show"]);
        fs::write(stack.path("etc/backup.toml"), &config).unwrap();
    }
    stack.pg.stop(Stop::Fast);
    log.bad(&["run", "nightly"]);
    log.bad(&["doctor"]);
}

#[test]
fn secrets_are_nowhere_but_in_their_own_files() {
    let (stack, secrets) = planted();
    let sampler = Sampler::start();
    let mut log = Log { stack: &stack, printed: Vec::new(), number: 0 };
    work(&mut log);
    failures(&mut log);
    let lines = sampler.finish();
    // Whoever types a password shows it to `ps`; we do not show it again.
    let ops = stack.text("operator/ops.txt");
    let url = format!("postgres://backup:{TYPED}@127.0.0.1:{}/x", stack.pg.port());
    log.bad(&["restore", "--latest", "--source", "db", "--identity", &ops, "--into", &url]);
    let address = format!("s3+http://key:{TYPED}@127.0.0.1:1/b/v?region=r");
    log.bad(&["restore", "--latest", "--vault", &address, "--stack", "s", "--identity", &ops]);
    let address = format!("s3+http://127.0.0.1:1/b/v?region=r&secret={TYPED}");
    log.bad(&["restore", "--latest", "--vault", &address, "--stack", "s", "--identity", &ops]);

    let mut secrets = secrets;
    for extra in files_below(&stack.path("operator")) {
        let text = fs::read_to_string(&extra).unwrap();
        let key = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).map(str::to_owned);
        secrets.extend(key.map(|key| (extra.display().to_string(), key)));
    }
    let finder = Finder::new(&secrets);
    let mut leaks = Vec::new();
    for (line, text) in &log.printed {
        leaks.extend(finder.find(text.as_bytes()).map(|what| format!("{what} printed by `backup {line}`:\n{text}")));
    }
    for line in &lines {
        let text = String::from_utf8_lossy(line).replace('\0', " ");
        leaks.extend(finder.find(line).map(|what| format!("{what} in the argument list `{text}`")));
    }
    for place in [stack.path("state"), stack.vault("local"), stack.s3.files(), stack.path("home"), stack.path("tmp")] {
        leaks.extend(finder.tree(&place));
    }
    leaks.extend(finder.find(stack.pg.log().as_bytes()).map(|what| format!("{what} in the server's log")));
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));

    // What was searched was there.
    let seen = |part: &str| lines.iter().any(|line| String::from_utf8_lossy(line).contains(part));
    assert!(seen("pg_dump") && seen("--snapshot") && seen("pg_restore") && seen("nightly"), "processes were sampled");
    assert!(log.printed.iter().map(|(_, text)| text.len()).sum::<usize>() > 100_000, "output was kept");
    for place in [stack.path("state"), stack.vault("local"), stack.s3.files()] {
        assert!(!files_below(&place).is_empty(), "{}", place.display());
    }
    // And the search finds a secret where one is: in its own file.
    assert_eq!(finder.tree(&stack.path("secrets")).len(), 1);
    assert!(finder.tree(&stack.path("operator")).len() >= 2);
}

#[test]
fn a_leak_in_any_encoding_is_found() {
    let stack = Stack::ready();
    assert_eq!(stack.run().code, 0);
    let secret = (String::from("secret"), String::from("canary?>~\u{fc}-of-a-leak-4711"));
    let finder = Finder::new(std::slice::from_ref(&secret));
    let vault = stack.vault("local");
    assert_eq!(finder.tree(&vault), Vec::<String>::new());
    let victim = stack.vault_files("local", "docs").into_iter().find(|path| path.extension().is_none()).unwrap();
    let clean = fs::read(&victim).unwrap();
    let listed = stack.backup(&["list"]).stdout;
    // Encoded here by other means than the finder's own, in the middle of something else.
    let standard = base64::engine::general_purpose::STANDARD;
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let mut leaks = vec![secret.1.clone(), hex::encode(&secret.1), hex::encode_upper(&secret.1)];
    for before in ["", "a", "ab", "abc"] {
        for after in ["", "z", "zy"] {
            let text = format!("{before}{}{after}", secret.1);
            leaks.extend([standard.encode(&text), url.encode(&text)]);
        }
    }
    for leak in leaks {
        let (start, end) = clean.split_at(clean.len() / 2);
        fs::write(&victim, [start, leak.as_bytes(), end].concat()).unwrap();
        let found = finder.tree(&vault);
        assert!(found.len() == 1 && found[0].ends_with(victim.to_str().unwrap()), "{leak}: {found:?}");
        let (start, end) = listed.split_at(listed.len() / 2);
        assert!(finder.find(format!("{start}{leak}{end}").as_bytes()).is_some(), "{leak}");
        assert!(finder.find(leak.as_bytes()).is_some(), "{leak} alone");
        // Not because of anything else in there.
        assert!(finder.find(&leak.as_bytes()[1..leak.len() / 2]).is_none(), "{leak}");
    }
    fs::write(&victim, clean).unwrap();
    let sampler = Sampler::start();
    let mut child = std::process::Command::new("sh").args(["-c", "sleep 0.3; :", &secret.1]).spawn().unwrap();
    child.wait().unwrap();
    assert!(sampler.finish().iter().any(|line| finder.find(line).is_some()), "an argument list");
}

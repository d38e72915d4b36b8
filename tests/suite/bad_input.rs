//! What bad input gets: a table. Each row breaks one thing of a stack that works, calls the real program, and says how
//! that must end: exit code, words of the error, words of the hint.
//!
//! After every row the same is asked: each hint that names a command of ours parses with our own command line; no secret
//! was printed; no snapshot and no database is there that the row does not announce; and once the cause is mended, the
//! next run is good.
//!
//! Not here: tars with `../`, absolute paths and links that lead outside. No vault of ours can hold one without the
//! generation key, so they are made by hand in the engine's own tests (`source::files::hostile`).

mod config;
mod damage;
mod keys;
mod postgres;
mod s3;
mod targets;
mod vault;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::stack::{Out, PASSWORD, SUPERUSER_PASSWORD, Stack, files_below};

/// Undoes what a row broke.
type Mend = Box<dyn FnOnce(&Stack)>;

/// One row.
struct Row {
    name: &'static str,
    breaks: fn(&Stack) -> Mend,
    /// The call; a word `{name}` at the beginning of an argument is a path of the stack.
    call: &'static [&'static str],
    exit: i32,
    /// Words of one `error:`.
    says: &'static [&'static str],
    /// Words of its hint.
    hint: &'static str,
    /// Where a new snapshot appears all the same, as `vault/source`.
    stores: &'static [&'static str],
}

const RUN: &[&str] = &["run", "nightly"];

/// An error as it was printed.
#[derive(Debug)]
struct Said {
    message: String,
    hint: String,
}

impl Out {
    /// All errors, from both streams: `error: …` up to `hint: …`, which ends at an empty line or the next error.
    fn errors(&self) -> Vec<Said> {
        let (mut all, mut in_hint) = (Vec::<Said>::new(), false);
        for line in self.all().lines().chain(["error: end"]) {
            let text = line.trim();
            if let Some(message) = text.strip_prefix("error: ") {
                in_hint = false;
                all.push(Said { message: message.to_owned(), hint: String::new() });
            } else if let (Some(hint), Some(last)) = (text.strip_prefix("hint: "), all.last_mut()) {
                hint.clone_into(&mut last.hint);
                in_hint = true;
            } else if let (Some(last), false) = (all.last_mut(), text.is_empty()) {
                let part = if in_hint { &mut last.hint } else { &mut last.message };
                part.push('\n');
                part.push_str(text);
            }
        }
        all.pop();
        all
    }
}

/// Breaks, calls, looks, mends, and runs again.
fn check(stack: &Stack, rows: &[Row]) {
    for row in rows {
        let (snapshots, databases) = (snapshots(stack), databases(stack));
        let mend = (row.breaks)(stack);
        let call: Vec<String> = row.call.iter().map(|word| argument(stack, word)).collect();
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        let out = stack.backup(&call);
        assert_said(stack, row.name, &out, row.exit, row.says, row.hint);
        if row.call != RUN {
            // The same for programs: one document, whatever happens.
            let out = stack.backup(&[&call[..], &["--json"]].concat());
            assert_eq!((out.code, &out.json()["format"]), (row.exit, &1.into()), "{}: {}", row.name, out.all());
        }
        mend(stack);
        let mut new: Vec<String> =
            self::snapshots(stack).difference(&snapshots).map(|path| owner(stack, path)).collect();
        new.sort();
        assert_eq!(new, row.stores, "{}: new snapshots\n{}", row.name, out.all());
        assert_eq!(self::databases(stack), databases, "{}: databases\n{}", row.name, out.all());
        if row.call == RUN {
            let good = stack.run();
            assert_eq!(good.code, 0, "{}: the next run\n{}", row.name, good.all());
        }
    }
}

fn argument(stack: &Stack, word: &str) -> String {
    match word.strip_prefix('{').and_then(|word| word.split_once('}')) {
        Some((path, rest)) => format!("{}{rest}", stack.text(path)),
        None => word.to_owned(),
    }
}

/// The exit code, one error with all these words and this hint, commands that parse, no secrets.
#[track_caller]
fn assert_said(stack: &Stack, name: &str, out: &Out, exit: i32, says: &[&str], hint: &str) {
    let all = out.all();
    assert_eq!(out.code, exit, "{name}:\n{all}");
    let errors = out.errors();
    let found =
        errors.iter().any(|said| says.iter().all(|word| said.message.contains(word)) && said.hint.contains(hint));
    assert!(found, "{name}: no error with {says:?} and hint `{hint}` in\n{all}");
    for said in &errors {
        assert!(!said.hint.is_empty(), "{name}: no hint for `{}`", said.message);
        assert_commands_parse(stack, name, &said.hint);
    }
    let secret_key = stack.s3.bucket.secret_key.as_str();
    for secret in [PASSWORD, SUPERUSER_PASSWORD, secret_key, "AGE-SECRET-KEY", "PRIVATE KEY"] {
        assert!(!all.contains(secret), "{name}: `{secret}` was printed:\n{all}");
    }
}

/// Each `backup …` between backticks is a call that our command line knows; placeholders are filled.
#[track_caller]
fn assert_commands_parse(stack: &Stack, name: &str, hint: &str) {
    for command in hint.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("backup ")) {
        let mut words: Vec<String> = command.split_whitespace().map(filled).collect();
        words.push("--help".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let out = stack.backup(&words);
        assert_eq!(out.code, 0, "{name}: the hint says `backup {command}`:\n{}", out.all());
        assert!(out.stdout.contains(&format!("Usage: backup {}", words[0])), "{name}: {}", out.stdout);
    }
}

/// A word in capitals is a placeholder.
fn filled(word: &str) -> String {
    let placeholder = word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase());
    if placeholder { "x".to_owned() } else { word.to_owned() }
}

/// The snapshots that lie in the vaults: their presence is the commit, so this is what `list` would show.
fn snapshots(stack: &Stack) -> BTreeSet<PathBuf> {
    let sources = |vault| ["db", "docs"].map(|source| stack.vault_files(vault, source)).concat();
    let all = [sources("local"), sources("offsite")].concat().into_iter();
    all.filter(|path| {
        path.extension().is_some_and(|end| end == "json") && path.parent().unwrap().ends_with("snapshots")
    })
    .collect()
}

/// `vault/source` of a file in a vault.
fn owner(stack: &Stack, path: &std::path::Path) -> String {
    let vault = if path.starts_with(stack.vault("local")) { "local" } else { "offsite" };
    let below = path.strip_prefix(stack.vault(vault).join("s")).unwrap();
    format!("{vault}/{}", below.iter().next().unwrap().to_str().unwrap())
}

fn databases(stack: &Stack) -> String {
    stack.pg.psql("postgres", "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database")
}

/// Replaces a part of the configuration until it is mended.
fn configured(stack: &Stack, from: &str, to: &str) -> Mend {
    let before = stack.config();
    stack.configure(from, to);
    Box::new(move |stack| fs::write(stack.path("etc/backup.toml"), before).unwrap())
}

/// Replaces the content of a private file until it is mended.
fn replaced(stack: &Stack, name: &'static str, text: &str) -> Mend {
    let before = fs::read_to_string(stack.path(name)).unwrap();
    stack.private(name, text);
    Box::new(move |stack| stack.private(name, &before))
}

#[test]
fn the_table_would_notice_a_wrong_row() {
    let out =
        |stdout: &str| Out { code: 1, stdout: stdout.to_owned(), stderr: "error: b\n\nhint: try `backup x`\n".into() };
    let errors = out("error: a: c\n  more\n  hint: go\n").errors();
    assert_eq!(errors.len(), 2);
    assert_eq!((errors[0].message.as_str(), errors[0].hint.as_str()), ("a: c\nmore", "go"));
    assert_eq!((errors[1].message.as_str(), errors[1].hint.as_str()), ("b", "try `backup x`"));
    assert_eq!(["FILE", "NAME", "--into", "db", "1/30"].map(filled), ["x", "x", "--into", "db", "1/30"]);
}

#[test]
fn a_hint_that_does_not_parse_is_found() {
    let stack = Stack::new();
    assert_commands_parse(&stack, "good", "do `backup restore --into NAME`, then `backup key new FILE`");
    for wrong in ["`backup restor`", "`backup restore --intoo NAME`", "`backup key neww FILE`"] {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_commands_parse(&stack, "wrong", wrong);
        }));
        assert!(caught.is_err(), "{wrong}");
    }
}

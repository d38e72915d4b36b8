//! `--json` on every verb: one document on standard output, whatever happens.
//!
//! The verbs are read from the help texts, so that a new one cannot be forgotten: one that is not called here fails.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::host::{Ended, Host};

/// Every verb that can be run, as words, from `--help`.
fn verbs(host: &Host) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = host.good(&args).out;
        let inner = subcommands(&help);
        if inner.is_empty() {
            found.push(path);
        } else {
            open.extend(inner.into_iter().map(|name| [path.as_slice(), &[name]].concat()));
        }
    }
    found.sort();
    found
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A line that goes on is further in.
    let names = list.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    names.filter_map(|rest| rest.split(' ').next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The one document of a call: `format` and `kind` are in it.
fn document(ended: &Ended) -> Value {
    let mut all = serde_json::Deserializer::from_str(&ended.out).into_iter::<Value>();
    let first = all.next().unwrap_or_else(|| panic!("no document; standard error: {}", ended.err)).unwrap();
    assert!(all.next().is_none(), "more than one document:\n{}", ended.out);
    assert_eq!(first["format"], 1, "{first:#}");
    assert!(first["kind"].is_string(), "{first:#}");
    first
}

/// An error's document, which says what the process says.
fn error(ended: &Ended) -> Value {
    let document = document(ended);
    assert_eq!(document["kind"], "error", "{document:#}");
    let error = document["error"].clone();
    assert_eq!(error["exit"], ended.code, "{document:#}");
    let message = error["message"].as_str().unwrap();
    assert!(!message.is_empty() && ended.err.contains(message), "{document:#}\n{}", ended.err);
    assert!(error["hint"].is_string() && error["class"].is_string(), "{document:#}");
    document
}

fn with_json<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(["--json"]).collect()
}

/// Two vaults, a job, one snapshot.
fn stack() -> Host {
    let host = Host::new();
    fs::create_dir(host.path("data")).unwrap();
    fs::write(host.path("data/hello.txt"), "hello").unwrap();
    host.configure(&format!(
        "{}{}[source.docs]\ntype = \"files\"\npaths = [\"data\"]\n[job.nightly]\ncron = \"0 2 * * *\"\nthen = [\"replicate\"]\n",
        Host::local("local"),
        Host::local("offsite")
    ));
    host
}

/// A recipient whose identity nobody kept.
const NOBODY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// How each verb is called in a good stack; in this order, `init` and `run` first.
fn calls(id: &str, generation: &str) -> Vec<(&'static str, Vec<String>)> {
    let rows: &[(&'static str, &[&str])] = &[
        ("config check", &[]),
        ("config schema", &[]),
        ("config show", &[]),
        ("config show", &["--public"]),
        ("key new", &["more.txt"]),
        ("key new", &["--host", "more_host"]),
        ("key check", &["ops.txt"]),
        ("key list", &[]),
        ("key sheet", &[]),
        ("key grant", &[NOBODY, "--identity", "ops.txt", "--dry-run"]),
        ("key grant", &[NOBODY, "--identity", "ops.txt"]),
        ("key revoke", &[NOBODY, "--dry-run"]),
        ("key revoke", &[NOBODY]),
        ("init", &["--dry-run"]),
        ("init", &[]),
        ("completions", &["bash"]),
        ("doctor", &[]),
        ("list", &[]),
        ("show", &[id]),
        ("show", &[id, "--identity", "ops.txt"]),
        ("status", &[]),
        ("runs", &[]),
        ("run", &["--dry-run"]),
        ("run", &["nightly"]),
        ("replicate", &[]),
        ("replicate", &["--dry-run"]),
        ("prune", &[]),
        ("prune", &["--apply"]),
        ("prune", &["--undo"]),
        ("purge", &[generation, "--source", "docs", "--reason", "leaked", "--even-newest"]),
        ("purge", &[generation, "--source", "docs", "--undo"]),
        ("pin", &[id, "--dry-run"]),
        ("pin", &[id]),
        ("unpin", &[id]),
        ("accept", &[id]),
        ("audit", &[]),
        ("verify", &[]),
        ("verify", &["--identity", "ops.txt"]),
        ("restore", &["--identity", "ops.txt", "--into-dir", "dry", "--dry-run"]),
        ("restore", &["--identity", "ops.txt", "--into-dir", "back"]),
    ];
    rows.iter().map(|(verb, args)| (*verb, args.iter().map(|arg| (*arg).to_owned()).collect())).collect()
}

#[test]
fn every_verb_prints_one_document_when_all_is_well() {
    let host = stack();
    assert_eq!(document(&host.run(&["init", "--json"]))["kind"], "init");
    let report = document(&host.run(&["run", "--json"]));
    let id = report["sources"][0]["snapshot"].as_str().unwrap();
    let mut called: BTreeMap<&str, usize> = BTreeMap::new();
    let folders = fs::read_dir(host.path("local/s/docs")).unwrap();
    let generation =
        folders.map(|one| one.unwrap().file_name().into_string().unwrap()).find(|name| name.contains("--"));
    for (verb, args) in calls(id, &generation.unwrap()) {
        let line: Vec<&str> = verb.split(' ').chain(args.iter().map(String::as_str)).collect();
        let ended = host.run(&with_json(&line));
        // `doctor` warns and `status` judges: what they say is for other tests.
        assert!(ended.code == 0 || verb == "doctor", "{line:?} {}\n{}\n{}", ended.code, ended.out, ended.err);
        assert_eq!(document(&ended)["kind"], verb, "{line:?}\n{}", ended.out);
        // The talk beside it, and silence, change nothing about that.
        if !["key new", "restore", "run", "replicate"].contains(&verb) {
            for flag in ["-v", "-q"] {
                assert_eq!(document(&host.run(&with_json(&[&line[..], &[flag]].concat())))["kind"], verb, "{line:?}");
            }
        }
        *called.entry(verb).or_default() += 1;
    }
    // A dump is of a database, which nothing else here could reach.
    let database = "[source.db]\ntype = \"postgres\"\nurl = \"postgres://nobody@127.0.0.1:1/app\"\n";
    let config = fs::read_to_string(host.path("backup.toml")).unwrap();
    fs::write(host.path("backup.toml"), config + database).unwrap();
    let dump = "--\n-- PostgreSQL database dump\n--\n-- Dumped from database version 15.1\n\nCOPY public.t (a) FROM stdin;\n1\n\\.\n\n--\n\
                -- PostgreSQL database dump complete\n--\n";
    fs::write(host.path("old.sql"), dump).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let ended = host.run(&with_json(&[&["import", "old.sql", "--source", "db"], more].concat()));
        assert_eq!((ended.code, &document(&ended)["rows"]), (0, &1.into()), "{}", ended.err);
        *called.entry("import").or_default() += 1;
    }
    for verb in verbs(&host) {
        let verb = verb.join(" ");
        assert!(called.contains_key(verb.as_str()), "`{verb}` is a verb, and this test does not call it");
    }
}

#[test]
fn every_verb_prints_one_document_without_a_configuration() {
    let host = Host::new();
    // Those that need none: their document is their own.
    let alone = ["completions", "config schema", "key check", "key new"];
    let needed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("completions", &["bash"][..]),
        ("key check", &["ops.txt"]),
        ("import", &["old.sql", "--source", "db"]),
        ("key grant", &[NOBODY]),
        ("key revoke", &[NOBODY]),
        ("key new", &["alone.txt"]),
        ("show", &["abc234"]),
        ("purge", &["2026-11-21--7d--00112233", "--source", "db", "--reason", "leaked"]),
    ]);
    let all = verbs(&host);
    assert!(all.len() >= 19, "{all:?}");
    for verb in all {
        let name = verb.join(" ");
        let args = needed.get(name.as_str()).copied().unwrap_or_default();
        let line: Vec<&str> = verb.iter().map(String::as_str).chain(args.iter().copied()).collect();
        let ended = host.run(&with_json(&line));
        if alone.contains(&name.as_str()) {
            assert_eq!((ended.code, &document(&ended)["kind"]), (0, &name.clone().into()), "{line:?}");
            continue;
        }
        assert_eq!(ended.code, 2, "{line:?}\n{}\n{}", ended.out, ended.err);
        error(&ended);
        // The same for a configuration that is none, and for a wrong call.
        fs::write(host.path("broken.toml"), "schema = 1\nstack = \n").unwrap();
        error(&host.run(&with_json(&[&line[..], &["--config", "broken.toml"]].concat())));
    }
}

#[test]
fn a_wrong_call_is_one_document_too() {
    let host = Host::new();
    for line in [&["restore", "--nope"][..], &["nope"], &[], &["key"], &["show"], &["run", "--source", "A/b"]] {
        let ended = host.run(&with_json(line));
        assert_eq!(ended.code, 2, "{line:?}");
        error(&ended);
    }
}

#[test]
fn a_verb_that_fails_on_the_way_prints_one_document() {
    let host = stack();
    host.good(&["init"]);
    host.backup();
    fs::rename(host.path("local"), host.path("away")).unwrap();
    fs::rename(host.path("offsite"), host.path("away-too")).unwrap();
    for line in [&["list"][..], &["run"], &["doctor"], &["status"], &["verify"], &["replicate"], &["prune"]] {
        let ended = host.run(&with_json(line));
        assert_ne!(ended.code, 0, "{line:?}\n{}", ended.out);
        document(&ended);
    }
    fs::rename(host.path("away"), host.path("local")).unwrap();
    let other = host.run(&["restore", "--identity", "host_key", "--into-dir", "back", "--json"]);
    assert_ne!(other.code, 0);
    error(&other);
}

#[test]
fn what_is_not_one_document_is_noticed() {
    let ended = |out: &str| Ended { code: 0, out: out.to_owned(), err: String::new() };
    let noticed = |out: &str| {
        let out = ended(out);
        std::panic::catch_unwind(move || document(&out)).is_err()
    };
    assert!(!noticed("{\"format\": 1, \"kind\": \"list\"}\n"));
    for bad in ["", "no\n", "{\"format\": 1}", "{\"kind\": \"x\"}", "{\"format\": 1, \"kind\": \"a\"}\n{}"] {
        assert!(noticed(bad), "{bad}");
    }
    let help = "Back up\n\nCommands:\n  init     Make\n           more\n  key      Keys\n  help     x\n\nOptions:\n  -v  talk\n";
    assert_eq!(subcommands(help), ["init", "key"]);
}

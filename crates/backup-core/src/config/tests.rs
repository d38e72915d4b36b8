//! Golden tests: the documented example, and one row per mistake.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use super::*;

/// Two recipients that parse; their identities were never kept.
const OPS: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const ESCROW: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";

fn example() -> String {
    include_str!("tests/example.toml").replace("OPS", OPS).replace("ESCROW", ESCROW)
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/backup/usdcop.toml"))
}

/// `file line: problem`, as the binary would print it.
fn chain(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn reads_the_whole_documented_example() {
    let config = parse(&example()).unwrap();
    assert_eq!(config.stack.as_str(), "usdcop");
    assert_eq!(config.timezone, chrono_tz::America::Bogota);
    assert_eq!(config.state, State::Folder("/var/lib/backup/usdcop".into()));
    assert_eq!(config.limits.upload.unwrap().0, ByteSize(20 << 20));
    assert_eq!(config.keys.recipients, [OPS, ESCROW]);
    assert_eq!(config.vaults.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["local", "offsite"]);
    assert_eq!(
        config.vault("local").unwrap().keep,
        Some(Keep { within: Some(Span::days(7)), weekly: 0, monthly: 0, yearly: 0, min: 3 })
    );
    let Place::S3(s3) = &config.vault("offsite").unwrap().place else { panic!("offsite is S3") };
    assert_eq!(s3.ca, Some(PathBuf::from("/etc/backup/minio-ca.pem")), "relative to the file's folder");
    assert_eq!(s3.endpoint.as_deref(), Some("https://minio.dr.example:9000"));
    assert_eq!(s3.credentials, Credentials::Secret(SecretRef::File("/etc/backup/s3.env".into())));
    let names: Vec<_> = config.sources.iter().map(|s| (s.name.as_str(), s.kind.word())).collect();
    assert_eq!(
        names,
        [
            ("trading-db", "postgres"),
            ("models", "dvc"),
            ("secrets", "files"),
            ("cache", "redis"),
            ("crontab", "command")
        ]
    );
    let SourceKind::Postgres(postgres) = &config.source("trading-db").unwrap().kind else { panic!("a database") };
    assert_eq!(postgres.exclude_data, [TableName { schema: "public".into(), table: "scratch".into() }]);
    let drops: Vec<String> = postgres.expect_drops.iter().map(ToString::to_string).collect();
    assert_eq!(drops, ["public.inference_log_*", "\"a.b\".*"], "as they were written");
    assert_eq!(postgres.clients, Clients::Dir("/usr/lib/postgresql/16/bin".into()));
    let waiver = config.source("trading-db").unwrap().objective.clone().unwrap().waiver.unwrap();
    assert_eq!(waiver.until.to_string(), "2027-03-31");
    let job = config.job("nightly").unwrap();
    assert_eq!(job.timezone, chrono_tz::UTC);
    assert_eq!(job.sources.len(), 5, "all by default");
    assert_eq!(job.vaults, ["local", "offsite"]);
    assert_eq!(job.then[2], Step::Verify { read_data: Some(Share { part: 1, parts: 30 }), full: false });
    assert_eq!(config.services[0].needs.len(), 2);
    assert_eq!(config.notify[0].smtp.host, "mail.example");
    // Documented, and not acted on yet.
    let warned: Vec<_> = config.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(
        warned,
        ["source.models.type", "source.cache.type", "source.crontab.type", "job.nightly.catch_up", "notify.oncall"]
    );
}

const MINIMAL: &str = r#"schema = 1
stack = "s"
[keys]
recipients = ["OPS", "ESCROW"]
[vault.local]
id = "00112233445566778899aabbccddeeff"
path = "vault/"
[source.db]
type = "postgres"
url = "postgres:///db"
"#;

fn minimal() -> String {
    MINIMAL.replace("OPS", OPS).replace("ESCROW", ESCROW)
}

#[test]
fn fills_in_every_default() {
    let config = parse(&minimal()).unwrap();
    assert_eq!(config.timezone, chrono_tz::UTC);
    assert_eq!(config.generation, Span::days(7));
    assert_eq!(config.source("db").unwrap().generation, Span::days(7));
    assert_eq!(config.state, State::Folder("/var/lib/backup/s".into()));
    assert_eq!(
        config.limits,
        Limits { memory: ByteSize(256 << 20), upload: None, reserve: Reserve::Percent(5), patience: Span::minutes(3) }
    );
    assert_eq!(config.keys.signers, PathBuf::from("/etc/backup/allowed_signers"));
    assert_eq!(config.keys.host_key, None);
    let vault = config.vault("local").unwrap();
    assert_eq!(vault.place, Place::Path("/etc/backup/vault".into()));
    assert_eq!((vault.keep, vault.lock, vault.protects), (None, Lock::None, Protects::None));
    assert_eq!(config.kept_at_most(vault), None);
}

#[test]
fn the_stacks_generation_is_the_sources_default() {
    let text = minimal().replace("[keys]", "generation = \"14d\"\n[keys]");
    assert_eq!(parse(&text).unwrap().source("db").unwrap().generation, Span::days(14));
    let text = text + "generation = \"1d\"\n";
    assert_eq!(parse(&text).unwrap().source("db").unwrap().generation, Span::days(1));
}

/// One mistake: what is replaced in the minimal configuration (`""`: appended), by what, the error, the hint.
struct Mistake(&'static str, &'static str, &'static str, &'static str);

const SECRET_HINT: &str = "put the secret into a file with mode 0600 and write `password = { file = \"…\" }`; change it, for it may have been copied";
const URL_HINT: &str =
    "take the password out, change it, and write `password = { file = \"…\" }` with a file of mode 0600";

const THEN_HINT: &str =
    "use `replicate`, `prune` or `verify`; only `verify` takes arguments: `--read-data 1/30` and `--full`";

const MISTAKES: &[Mistake] = &[
    Mistake("stack = \"s\"", "stak = \"s\"", " line 2: unknown key `stak`", "did you mean `stack`?"),
    Mistake("", "pasword = { file = \"x\" }", " line 11: unknown key `source.db.pasword`", "did you mean `password`?"),
    Mistake(
        "",
        "paths = [\"x\"]",
        " line 11: unknown key `source.db.paths`",
        "known here: type, url, password, clients, globals, exclude_data, expect_drops, expect, generation, objective",
    ),
    Mistake("", "[vualt.x]", " line 11: unknown key `vualt`", "did you mean `vault`?"),
    Mistake(
        "",
        "objective = { rpo = \"1h\", rto = \"1h\", weiver = 1 }",
        " line 11: unknown key `source.db.objective.weiver`",
        "did you mean `waiver`?",
    ),
    Mistake("stack = \"s\"\n", "", ": `stack` is missing", "add `stack`: name of the stack, part of paths in vaults"),
    Mistake(
        "type = \"postgres\"\n",
        "",
        " line 8: `source.db.type` is missing",
        "add `type`, one of postgres, files, dvc, redis, command",
    ),
    Mistake(
        "\"postgres\"",
        "\"postgre\"",
        " line 9: `source.db.type`: `postgre` is no kind of source",
        "did you mean `postgres`?",
    ),
    Mistake(
        "url = \"postgres:///db\"\n",
        "",
        " line 8: `source.db.url` is missing",
        "add `url`: postgres://user@host:port/database",
    ),
    Mistake(
        "schema = 1",
        "schema = 2",
        " line 1: `schema`: version 2 is not known to this program, which reads 1",
        "use the program's version that wrote this file",
    ),
    Mistake("schema = 1", "schema = \"1\"", " line 1: `schema` is a text, not an integer", ""),
    Mistake(
        "stack = \"s\"",
        "stack = \"My Stack\"",
        " line 2: `stack`: `My Stack` is not a stack name: 1 to 40 of `a-z`, `0-9`, `-`, not starting with `-`",
        "",
    ),
    Mistake(
        "[keys]",
        "timezone = \"America/Bogata\"\n[keys]",
        " line 3: `timezone`: `America/Bogata` is not an IANA time zone",
        "did you mean `America/Bogota`?",
    ),
    Mistake(
        "[keys]",
        "generation = \"10d\"\n[keys]",
        " line 3: `generation`: `10d` is no length of a generation",
        "use 1d, 7d, 14d or 28d",
    ),
    Mistake(
        "[keys]",
        "limits = { memory = \"1MiB\" }\n[keys]",
        " line 3: `limits.memory`: `1MiB` is under the least that works, 64MiB",
        "use 256MiB",
    ),
    Mistake(
        "[keys]",
        "state = \"~/x\"\n[keys]",
        " line 3: `state`: `~` stands for nobody's home here",
        "write the whole path",
    ),
    Mistake(
        "[\"OPS\", \"ESCROW\"]",
        "[]",
        " line 4: `keys.recipients`: no recipients: nobody could read the backups",
        "make an identity with `backup key new operator.txt` and add the line that it prints",
    ),
    Mistake(
        "recipients = [\"OPS\", \"ESCROW\"]\n",
        "",
        " line 3: `keys.recipients` is missing",
        "add `recipients`: the operators' public keys; at least two are wise",
    ),
    Mistake(
        "\"ESCROW\"",
        "\"age1hunter2\"",
        " line 4: `keys.recipients`: number 2 is not an age recipient",
        "use the `age1…` line that `backup key new operator.txt` or `age-keygen` prints",
    ),
    Mistake(
        "\"ESCROW\"",
        "\"AGE-SECRET-KEY-1HUNTER2\"",
        " line 4: `keys.recipients`: number 2 is a secret identity, not a recipient",
        "take it out of the file, treat it as exposed, and use the `age1…` text that belongs to a new one",
    ),
    Mistake(
        "\"ESCROW\"",
        "\"OPS\"",
        " line 4: `keys.recipients`: number 2 is the same as number 1",
        "name each recipient once",
    ),
    Mistake("", "password = \"hunter2\"", " line 11: `source.db.password` is a literal secret", SECRET_HINT),
    Mistake(
        "",
        "password = { file = \"a\", env = \"B\" }",
        " line 11: `source.db.password`: needs exactly one of `file`, `env`, `command`",
        "keep one of them",
    ),
    Mistake(
        "",
        "password = { env = \"hunter2!\" }",
        " line 11: `source.db.password.env`: not a name of an environment variable (`A-Z`, `a-z`, `0-9`, `_`)",
        "name the variable that holds the secret",
    ),
    Mistake(
        "",
        "password = 5",
        " line 11: `source.db.password` is an integer, not a table { file | env | command }",
        "",
    ),
    Mistake("postgres:///db", "postgres://u:hunter2@h/db", " line 10: `source.db.url`: holds a password", URL_HINT),
    Mistake(
        "postgres:///db",
        "postgres://u@h/db?password=hunter2",
        " line 10: `source.db.url`: holds a password",
        URL_HINT,
    ),
    Mistake(
        "postgres:///db",
        "postgres://u@h/db?sslpassword=hunter2",
        " line 10: `source.db.url`: holds a password",
        URL_HINT,
    ),
    Mistake(
        "postgres:///db",
        "postgres://u:hunter2#@h/db",
        " line 10: `source.db.url`: is not a URL",
        "write postgres://user@host:port/…, special characters as %XX",
    ),
    Mistake(
        "postgres:///db",
        "postgres://u:12/hunter2@h/db",
        " line 10: `source.db.url`: has an `@` or `#` behind its host",
        "write postgres://user@host:port/…, special characters as %XX",
    ),
    Mistake(
        "postgres:///db",
        "host=h password=hunter2",
        " line 10: `source.db.url`: is not a URL",
        "write postgres://user@host:port/…, special characters as %XX",
    ),
    Mistake(
        "postgres:///db",
        "mysql://u@h/db",
        " line 10: `source.db.url`: is not a URL of postgres or postgresql",
        "write postgres://user@host:port/…, special characters as %XX",
    ),
    Mistake(
        "postgres:///db",
        "postgres://u@h",
        " line 10: `source.db.url`: names no database",
        "end it with the database's name, as in postgres://backup@127.0.0.1:5432/app",
    ),
    Mistake(
        "",
        "clients = { wrap = [\"docker\", \"-e\", \"PGPASSWORD=hunter2\"] }",
        " line 11: `source.db.clients.wrap` is a literal secret",
        "pass the name only (`-e PGPASSWORD`): the value travels by the environment",
    ),
    Mistake(
        "",
        "clients = {}",
        " line 11: `source.db.clients`: needs exactly one of `dir` and `wrap`",
        "keep one of them",
    ),
    Mistake(
        "",
        "globals = \"no-password\"",
        " line 11: `source.db.globals`: `no-password` is not one of passwords, no-passwords, none",
        "did you mean `no-passwords`?",
    ),
    Mistake(
        "",
        "exclude_data = [\"scratch\"]",
        " line 11: `source.db.exclude_data`: `scratch` has no schema or too many parts",
        "write the exact `schema.table`; there are no patterns, and a part with a dot needs \"quotes\"",
    ),
    Mistake(
        "",
        "exclude_data = [\"public.*\"]",
        " line 11: `source.db.exclude_data`: `public.*` is not a table's name",
        "write the exact `schema.table`; there are no patterns, and a part with a dot needs \"quotes\"",
    ),
    Mistake(
        "",
        "expect_drops = [\"logs_*\"]",
        " line 11: `source.db.expect_drops`: `logs_*` has no schema or too many parts",
        "write `schema.table`, where `*` stands for any characters, and a part with a dot needs \"quotes\"",
    ),
    Mistake(
        "",
        "objective = { rpo = \"1 hour\", rto = \"1h\" }",
        " line 11: `source.db.objective.rpo`: `1 hour` is not a duration",
        "write a duration like 30m or 24h",
    ),
    Mistake(
        "",
        "objective = { rpo = \"1h\" }",
        " line 11: `source.db.objective.rto` is missing",
        "add `rto`: longest time to have it back",
    ),
    Mistake(
        "path = \"vault/\"",
        "path = \"v\"\nkeep = { daily = 7 }",
        " line 8: `vault.local.keep.daily`: whole generations expire, so nothing finer than `weekly` can be promised",
        "use `within = \"7d\"` for everything of the last days, and `min = 3` for the newest ones",
    ),
    Mistake(
        "path = \"vault/\"",
        "path = \"v\"\nkeep = {}",
        " line 8: `vault.local.keep`: promises nothing",
        "write `keep = { within = \"30d\", min = 7 }`, or leave `keep` out to keep everything",
    ),
    Mistake(
        "path = \"vault/\"",
        "path = \"v\"\nkeep = { min = 0 }",
        " line 8: `vault.local.keep.min`: 0 is not between 1 and 10000",
        "",
    ),
    Mistake(
        "path = \"vault/\"\n",
        "",
        " line 5: `vault.local`: needs exactly one of `path` and `s3`",
        "keep the one that says where the vault is",
    ),
    Mistake(
        "path = \"vault/\"",
        "path = \"v\"\nlock = \"compliance\"",
        " line 8: `vault.local.lock`: a directory has no Object Lock",
        "use an S3 vault with Object Lock, or remove the line",
    ),
    Mistake(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\" }\ncredentials = \"aws-chain\"\nlock = \"compliance\"",
        " line 9: `vault.local.lock`: a lock must end, and without `keep` nothing does",
        "add `keep = { within = \"30d\", min = 7 }`",
    ),
    Mistake(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\" }",
        " line 5: `vault.local.credentials` is missing",
        "add `credentials = { file = \"s3.env\" }`, or `credentials = \"aws-chain\"`",
    ),
    Mistake(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\" }\ncredentials = \"AKIAHUNTER2\"",
        " line 8: `vault.local.credentials` is a literal secret",
        "put the secret into a file with mode 0600 and write `credentials = { file = \"…\" }`; change it, for it may have been copied; or write \"aws-chain\"",
    ),
    Mistake(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\", endpoint = \"https://k:hunter2@h\" }\ncredentials = \"aws-chain\"",
        " line 7: `vault.local.s3.endpoint`: holds a password",
        URL_HINT,
    ),
    Mistake(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\", prefix = \"a/../b\" }\ncredentials = \"aws-chain\"",
        " line 7: `vault.local.s3.prefix`: is not a path of `A-Z`, `a-z`, `0-9`, `.`, `_`, `-` and `/`",
        "",
    ),
    Mistake(
        "00112233445566778899aabbccddeeff",
        "0011",
        " line 6: `vault.local.id`: `0011` is not a vault id of 32 lower-case hex digits",
        "`init` writes it; copy it from the recovery sheet",
    ),
    Mistake(
        "[vault.local]",
        "[vault.\"a b\"]",
        " line 5: `vault.a b`: not a name of 1 to 40 of `a-z`, `0-9`, `-`, not starting with `-`",
        "rename it",
    ),
    Mistake(
        "",
        "[source.f]\ntype = \"files\"\npaths = []",
        " line 13: `source.f.paths`: names no path",
        "name the files and folders to capture",
    ),
    Mistake(
        "",
        "[source.f]\ntype = \"files\"\npaths = [\"a\", \"a/b\"]",
        " line 13: `source.f.paths`: `/etc/backup/a/b` is inside `/etc/backup/a`",
        "name it once",
    ),
    Mistake(
        "",
        "[source.c]\ntype = \"command\"\ncommand = []",
        " line 13: `source.c.command`: has no program",
        "write [\"program\", \"argument\"]",
    ),
    Mistake(
        "",
        "[service.api]\nneeds = [\"bd\"]",
        " line 12: `service.api.needs`: there is no source `bd`",
        "did you mean `db`?",
    ),
    Mistake(
        "",
        "[job.n]\ncron = \"0 2 * *\"",
        " line 12: `job.n.cron`: has 4 fields, not the five `minute hour day month weekday`",
        "write `minute hour day month weekday`, as in \"0 2 * * *\", or a word like @daily",
    ),
    Mistake(
        "",
        "[job.n]\ncron = \"61 2 * * *\"",
        " line 12: `job.n.cron`: `61` is not a minute (0-59)",
        "write `minute hour day month weekday`, as in \"0 2 * * *\", or a word like @daily",
    ),
    Mistake(
        "",
        "[job.n]\nvaults = [\"locl\"]",
        " line 12: `job.n.vaults`: there is no vault `locl`",
        "did you mean `local`?",
    ),
    Mistake(
        "",
        "[job.n]\nthen = [\"restore --latest\"]",
        " line 12: `job.n.then`: `restore` is not one of replicate, prune, verify",
        THEN_HINT,
    ),
    Mistake(
        "",
        "[job.n]\nthen = [\"prune --apply\"]",
        " line 12: `job.n.then`: `prune` takes no `--apply` here",
        THEN_HINT,
    ),
    Mistake(
        "",
        "[job.n]\nthen = [\"verify --read-data 31/30\"]",
        " line 12: `job.n.then`: `31/30` is not a share like 1/30",
        THEN_HINT,
    ),
    Mistake(
        "",
        "[notify.n]\nsmtp = { host = \"h\", to = \"a@b\" }\non = [\"failure\"]",
        " line 13: `notify.n.on`: `failure` is not one of failed, partial, missed, suspect, breach",
        "use one of failed, partial, missed, suspect, breach",
    ),
    Mistake("", "hunter2", " line 11: not valid TOML: key with no value, expected `=`", ""),
    Mistake("", "password = \"hunter2", " line 11: not valid TOML: invalid basic string, expected `\"`", ""),
    Mistake("", "type = \"hunter2\"", " line 11: not valid TOML: duplicate key", ""),
];

#[test]
fn each_mistake_has_its_line_its_key_and_its_hint() {
    let mut wrong = Vec::new();
    for Mistake(from, to, message, hint) in MISTAKES {
        let text = if from.is_empty() { format!("{MINIMAL}{to}\n") } else { MINIMAL.replacen(from, to, 1) };
        assert_ne!(text, MINIMAL, "`{from}` is not in the minimal configuration");
        let text = text.replace("OPS", OPS).replace("ESCROW", ESCROW);
        let Err(error) = parse(&text) else {
            wrong.push(format!("accepted: {to}"));
            continue;
        };
        let shown = chain(&error);
        let expected = format!("`/etc/backup/usdcop.toml`{message}");
        if shown != expected || error.hint.as_deref().unwrap_or("") != *hint {
            wrong.push(format!("{to}\n  got  {shown}\n  want {expected}\n  hint {:?}\n  want {hint:?}", error.hint));
        }
        let everything = format!("{shown} {error:?}").to_lowercase();
        assert!(!everything.contains("hunter2"), "a secret is echoed: {everything}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn warns_of_what_is_allowed_and_unwise() {
    let warned = |text: &str| parse(text).unwrap().warnings.into_iter().map(|w| w.key).collect::<Vec<_>>();
    assert_eq!(warned(&minimal()), [""; 0]);
    assert_eq!(warned(&minimal().replace(&format!(", \"{ESCROW}\""), "")), ["keys.recipients"]);
    let without_id = minimal().replace("id = \"00112233445566778899aabbccddeeff\"\n", "");
    assert_eq!(warned(&without_id), ["vault.local.id"]);
    let host = minimal().replace("[vault.local]", "host_key = \"k\"\n[vault.local]");
    assert_eq!(warned(&host), [""; 0]);
    assert_eq!(warned(&host.replace("host_key", "identity = { file = \"i\" }\nhost_key")), ["keys.identity"]);
    let promised = |objective: &str, cron: &str| {
        warned(&format!("{host}objective = {{ rpo = \"1h\", rto = \"1h\"{objective} }}\n[job.j]\ncron = \"{cron}\"\n"))
    };
    assert_eq!(promised("", "0 2 * * *"), ["source.db.objective.rpo"]);
    assert_eq!(promised("", "5 * * * *"), [""; 0]);
    assert_eq!(promised(", waiver = { until = 2027-01-01, reason = \"r\" }", "0 2 * * *"), [""; 0]);
    assert_eq!(warned(&format!("{host}objective = {{ rpo = \"1h\", rto = \"1h\" }}\n")), ["source.db.objective.rpo"]);
}

#[test]
fn warns_of_each_key_that_nothing_acts_on_yet() {
    let warned = |text: &str| parse(text).unwrap().warnings;
    let keys = |text: &str| warned(text).into_iter().map(|warning| warning.key).collect::<Vec<_>>();
    let all = minimal().replace("[keys]", "state = { postgres = \"postgres://b@h/fleet\" }\n[keys]").replace(
        "path = \"vault/\"",
        "s3 = { bucket = \"b\" }\ncredentials = \"aws-chain\"\nlock = \"governance\"\nkeep = { min = 1 }",
    ) + "expect = [{ name = \"a\", sql = \"SELECT true\" }, { name = \"b\", sql = \"SELECT true\" }]\n\
           [source.c]\ntype = \"command\"\ncommand = [\"true\"]\n\
           [job.j]\ncatch_up = \"1h\"\n\
           [notify.n]\nsmtp = { host = \"h\", to = \"a@b\" }\non = [\"failed\"]\n";
    let expected = ["state.postgres", "source.c.type", "job.j.catch_up", "notify.n"];
    assert_eq!(keys(&all), expected);
    assert!(warned(&all).iter().all(|warning| !warning.hint.is_empty() && warning.text.contains("not")));
    // The same tables with what is acted on warn of nothing.
    assert_eq!(keys(&all.replace("governance", "none"))[1], "source.c.type");
    assert_eq!(keys(&(minimal() + "[job.j]\ndeadline = \"1h\"\nretry = { times = 2 }\n")), [""; 0]);
}

#[test]
fn warns_of_checks_that_ask_the_clock() {
    let text = minimal()
        + "expect = [{ name = \"good\", sql = \"SELECT max(t) > $1 - interval 'now' FROM x -- now()\" },\n\
           { name = \"fresh\", sql = \"SELECT max(t) > Now() FROM x\" }]\n";
    let warnings = parse(&text).unwrap().warnings;
    let shown: Vec<_> = warnings.iter().map(|w| (w.key.as_str(), w.text.as_str())).collect();
    let asks = "the check `fresh` asks the clock (`Now`): older snapshots fail it";
    assert_eq!(shown, [("source.db.expect[1].sql", asks)]);
    assert!(warnings[0].hint.contains("`$1`"));
}

#[test]
fn what_is_shown_reads_back_to_the_same_configuration() {
    let everything = example()
        .replace(
            "state = \"/var/lib/backup/usdcop\"",
            "state = { postgres = \"postgres://b@h/fleet\", password = { env = \"P\" } }",
        )
        .replace("credentials = { file = \"/etc/backup/s3.env\" }", "credentials = { env = \"PREFIX_\" }")
        .replace("[\"public.scratch\"]", "['public.\"a.\"\"b\"']")
        .replace("command = [\"crontab\", \"-l\"]", "command = [\"crontab\"]");
    for text in [minimal(), everything] {
        let config = parse(&text).unwrap();
        let shown = config.show_toml(View::Full);
        assert_eq!(parse(&shown).map_err(|e| format!("{}\n{shown}", chain(&e))), Ok(config.clone()));
        assert_eq!(parse(&shown).unwrap().show_toml(View::Full), shown, "stable");
        let json = config.show_json(View::Full);
        assert_eq!(json["vault"][0]["name"], "local");
        assert_eq!(json["stack"], config.stack.as_str());
    }
}

#[test]
fn shows_no_arguments_and_the_public_view_no_places_but_the_vaults() {
    let text = example()
        .replace("password = { file = \"/etc/backup/pg.pass\" }", "password = { command = [\"pass\", \"hunter2\"] }");
    let config = parse(&text).unwrap();
    for view in [View::Full, View::Public] {
        for shown in [config.show_toml(view), config.show_json(view).to_string()] {
            assert!(!shown.contains("hunter2"), "{shown}");
            assert_eq!(shown.contains("pass"), view == View::Full);
            for hidden in [
                "/srv/usdcop",
                "/etc",
                "/usr",
                "/var",
                "backup@",
                "127.0.0.1",
                "minio-ca",
                "s3.env",
                "mail.example",
                "SELECT",
                "scratch",
            ] {
                assert!(view == View::Full || !shown.contains(hidden), "`{hidden}` in {shown}");
            }
            for policy in ["usdcop", "00112233445566778899aabbccddeeff", "30d", "trading-db", "1h", "2027-03-31", OPS] {
                assert!(shown.contains(policy), "`{policy}` not in {shown}");
            }
        }
    }
}

#[test]
fn the_public_view_is_a_configuration_with_the_same_promises() {
    let mut config = parse(&example()).unwrap();
    let line = "backup namespaces=\"backup.*\" ssh-ed25519 AAAA";
    config.keys.signer_lines = vec![line.to_owned()];
    let shown = config.show_toml(View::Public);
    let public = Config::parse(&shown, Path::new("/tmp/policy.toml")).unwrap();
    assert_eq!(public.keys.signer_lines, [line]);
    assert_eq!((&public.keys.host_key, &public.keys.identity), (&None, &None));
    assert_eq!(
        (&public.stack, public.timezone, public.generation),
        (&config.stack, config.timezone, config.generation)
    );
    let vaults = |config: &Config| -> Vec<_> {
        config.vaults.iter().map(|v| (v.name.clone(), v.id.clone(), v.keep, v.lock, v.protects)).collect()
    };
    assert_eq!(vaults(&public), vaults(&config));
    let Place::S3(s3) = &public.vault("offsite").unwrap().place else { panic!("offsite is S3") };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("usdcop", "v"));
    assert_eq!(s3.ca, Some("/tmp/offsite-ca.pem".into()), "beside the policy file");
    assert_eq!(s3.credentials, Credentials::EnvPrefix("AUDIT_OFFSITE_".to_owned()));
    let sources = |config: &Config| -> Vec<_> {
        let one = |s: &Source| (s.name.clone(), s.kind.word(), s.generation, s.objective.clone());
        config.sources.iter().map(one).collect()
    };
    assert_eq!(sources(&public), sources(&config));
    let jobs = |config: &Config| -> Vec<_> {
        let one =
            |j: &Job| (j.name.clone(), j.cron.clone(), j.timezone, j.sources.clone(), j.vaults.clone(), j.then.clone());
        config.jobs.iter().map(one).collect()
    };
    assert_eq!(jobs(&public), jobs(&config));
    assert_eq!(public.show_toml(View::Public), shown, "and shows itself");
    // Two places that say who is believed are one too many.
    let both = shown.replace("[keys]\n", "[keys]\nsigners = \"allowed_signers\"\n");
    let refused = Config::parse(&both, Path::new("/tmp/policy.toml")).unwrap_err();
    assert!(chain(&refused).contains("only one of them can say who is believed"), "{}", chain(&refused));
}

#[test]
fn knows_the_longest_life_of_a_snapshot() {
    let config = parse(&example()).unwrap();
    // 7 d window + 7 d period + 7 d and 1 d until closed + 1 d grace.
    assert_eq!(config.kept_at_most(config.vault("local").unwrap()), Some(Span::days(23)));
}

/// The names that serde would accept in the table at `place`, from its complaint about one that it does not know.
fn accepted(place: &str) -> BTreeSet<String> {
    let text = place.replace("HERE", "no_such_key = 1");
    let error = toml::from_str::<raw::Root>(&text).unwrap_err();
    let message = error.message().to_owned();
    assert!(message.starts_with("unknown field `no_such_key`"), "{message} in {text}");
    let (_, names) = message.split_once("expected").unwrap();
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every table of the schema with a text that puts an unknown key into it; untagged ones are read by themselves.
const PLACES: &[(&str, &str)] = &[
    ("", "HERE"),
    ("limits", "limits = { HERE }"),
    ("keys", "[keys]\nHERE"),
    ("keys.identity", "[keys]\nidentity = { HERE }"),
    ("vault.NAME", "[vault.x]\nHERE"),
    ("vault.NAME.s3", "[vault.x]\ns3 = { HERE }"),
    ("vault.NAME.keep", "[vault.x]\nkeep = { HERE }"),
    ("source.NAME", "[source.x]\nHERE"),
    ("source.NAME.password", "[source.x]\npassword = { HERE }"),
    ("source.NAME.clients", "[source.x]\nclients = { HERE }"),
    ("source.NAME.expect[]", "[source.x]\nexpect = [{ HERE }]"),
    ("source.NAME.model_card", "[source.x]\nmodel_card = { HERE }"),
    ("source.NAME.objective", "[source.x]\nobjective = { HERE }"),
    ("source.NAME.objective.waiver", "[source.x]\nobjective = { waiver = { HERE } }"),
    ("service.NAME", "[service.x]\nHERE"),
    ("service.NAME.objective", "[service.x]\nobjective = { HERE }"),
    ("service.NAME.objective.waiver", "[service.x]\nobjective = { waiver = { HERE } }"),
    ("job.NAME", "[job.x]\nHERE"),
    ("job.NAME.retry", "[job.x]\nretry = { HERE }"),
    ("notify.NAME", "[notify.x]\nHERE"),
    ("notify.NAME.smtp", "[notify.x]\nsmtp = { HERE }"),
];

/// The names that serde accepts in a table that stands where a text could stand too.
fn accepted_untagged<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
    let error = toml::from_str::<T>("no_such_key = 1").unwrap_err();
    error.message().split_once("expected").unwrap().1.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_schema_has_exactly_the_keys_that_the_parser_accepts() {
    let mut parser: std::collections::BTreeMap<&str, BTreeSet<String>> =
        PLACES.iter().map(|(table, place)| (*table, accepted(place))).collect();
    parser.insert("state", accepted_untagged::<raw::StateServer>());
    parser.insert("state.password", accepted_untagged::<raw::Secret>());
    parser.insert("vault.NAME.credentials", accepted_untagged::<raw::Secret>());
    let mut documented: std::collections::BTreeMap<&str, BTreeSet<String>> = std::collections::BTreeMap::new();
    let keys = schema();
    for key in &keys {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        documented.entry(table).or_default().insert(name.to_owned());
        assert!(!key.doc.is_empty() && !key.doc.contains('\n') && !key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
    }
    assert_eq!(documented, parser);
    assert_eq!(schema_json()["keys"].as_array().unwrap().len(), keys.len());
}

#[test]
fn every_documented_key_of_a_kind_of_source_is_accepted_by_that_kind_only() {
    let words: Vec<&str> = schema::SOURCES.iter().map(|(word, _)| *word).collect();
    for (word, table) in schema::SOURCES {
        for key in
            schema().iter().filter(|key| key.path.starts_with("source.NAME.") && key.path.matches('.').count() == 2)
        {
            let name = key.path.rsplit_once('.').unwrap().1;
            let text = format!("{}[source.x]\ntype = \"{word}\"\n{name} = 1979-01-01T00:00:00\n", minimal());
            let error = parse(&text).map(drop).unwrap_err();
            let unknown = matches!(&error.problem, Problem::UnknownKey { .. });
            assert_eq!(unknown, table.key(name).is_none(), "{word}.{name}: {}", chain(&error));
        }
    }
    assert_eq!(words, ["postgres", "files", "dvc", "redis", "command"]);
}

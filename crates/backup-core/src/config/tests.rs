//! Golden tests: the documented example, what is filled in, warned of and shown; each mistake and the schema in their own files.

mod mistakes;
mod schema;

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

#[test]
fn two_names_for_one_vault_are_refused() {
    let other = |more: &str| parse(&format!("{}[vault.other]\n{more}\n", minimal()));
    let s3 = |prefix: &str| {
        format!(
            "s3 = {{ endpoint = \"https://h\", bucket = \"b\", prefix = \"{prefix}\" }}\ncredentials = {{ env = \"X_\" }}\n"
        )
    };
    let error =
        other("id = \"00112233445566778899aabbccddeeff\"\npath = \"elsewhere\"").unwrap_err().problem.to_string();
    assert!(error.contains("vault.other.id") && error.contains("is the vault `local` once more"), "{error}");
    let error = other("path = \"/etc/backup/vault\"").unwrap_err().problem.to_string();
    assert!(error.contains("vault.other.path"), "{error}");
    let error = other(&format!("{}[vault.third]\n{}", s3("p"), s3("p"))).unwrap_err().problem.to_string();
    assert!(error.contains("vault.third.s3") && error.contains("`other` once more"), "{error}");
    other(&format!("{}[vault.third]\n{}", s3("p"), s3("q"))).unwrap();
    other("id = \"10112233445566778899aabbccddeeff\"\npath = \"elsewhere\"").unwrap();
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

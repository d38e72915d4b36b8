//! One row per mistake that a person can make in a configuration: the line and the key that the error names, and its hint. Some rows
//! hold a secret where none belongs; no message may echo it.

use super::{ESCROW, MINIMAL, OPS, chain, parse};

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

//! Every key that a configuration may hold, with its type, default and meaning: one table for the parser's check of
//! unknown keys, for `config schema`, and for people.
//!
//! Kept by hand; a test proves that it names exactly the keys that the raw stage (`raw.rs`) accepts.

use serde_json::{Value, json};

/// A table of the configuration.
#[derive(Debug)]
pub(super) struct Table {
    /// How the table is called in messages (`vault.NAME`).
    pub(super) name: &'static str,
    /// Its keys, in the order in which they are shown.
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) need: Need,
    pub(super) doc: &'static str,
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    /// An error without it.
    Required,
    /// May be absent, and then there is none.
    Optional,
    /// Filled in when absent.
    Default(&'static str),
}

/// Type of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A text of some form.
    Text(&'static str),
    /// An integer.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A TOML date.
    Date,
    /// An array of texts of some form.
    Texts(&'static str),
    /// A table.
    Table(&'static Table),
    /// A reference to a secret; a text here is a literal secret.
    Secret,
    /// A reference to a secret, or this word.
    SecretOr(&'static str),
    /// A text of some form, or a table.
    TextOr(&'static str, &'static Table),
    /// An array of tables.
    Tables(&'static Table),
    /// Tables by names that the operator chooses.
    Named(&'static Table),
    /// Named tables of several kinds, told apart by their `type`.
    Kinds(&'static [(&'static str, &'static Table)]),
}

impl Table {
    /// The key of this name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Shape {
    /// The type in words, for `not …` in messages.
    pub(super) fn words(self) -> String {
        match self {
            Self::Text(form) => form.to_owned(),
            Self::Integer => "an integer".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Date => "a date like 2027-03-31".to_owned(),
            Self::Texts(form) => format!("an array of {form}"),
            Self::Table(table) => format!("a table {}", braces(table)),
            Self::Secret => format!("a table {}", braces(&SECRET)),
            Self::SecretOr(word) => format!("a table {} or \"{word}\"", braces(&SECRET)),
            Self::TextOr(form, table) => format!("{form} or a table {}", braces(table)),
            Self::Tables(table) => format!("an array of tables {}", braces(table)),
            Self::Named(_) | Self::Kinds(_) => "tables by name".to_owned(),
        }
    }
}

/// `{ file | env | command }`.
fn braces(table: &Table) -> String {
    let names: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
    format!("{{ {} }}", names.join(if table.name == SECRET.name { " | " } else { ", " }))
}

const fn key(name: &'static str, shape: Shape, need: Need, doc: &'static str) -> Key {
    Key { name, shape, need, doc }
}

use Need::{Default, Optional, Required};
use Shape::{Boolean, Date, Integer, Kinds, Named, Secret, SecretOr, Tables, Text, TextOr, Texts};

const DURATION: Shape = Text("a duration (a number and s, m, h, d or w)");
const PATH: Shape = Text("a path");
const PATHS: Shape = Texts("paths");
const URL: Shape = Text("a URL without a password");
const GENERATION_DOC: &str = "length of a generation, a full copy each: 1d, 7d, 14d or 28d";
const OBJECTIVE_KEY: Key = key("objective", Shape::Table(&OBJECTIVE), Optional, "what was promised");
const TYPE_KEY: Key = key("type", Text("a kind of source"), Required, "postgres, files, dvc, redis or command");

/// The whole file.
pub(super) static ROOT: Table = Table {
    name: "",
    keys: &[
        key("schema", Integer, Required, "version of this schema: 1"),
        key("stack", Text("a name of a-z, 0-9 and -"), Required, "name of the stack, part of paths in vaults"),
        key(
            "timezone",
            Text("an IANA time zone"),
            Default("UTC"),
            "schedules, reading --at, display; files and --json stay UTC",
        ),
        key("generation", DURATION, Default("7d"), GENERATION_DOC),
        key(
            "state",
            TextOr("a path", &STATE),
            Default("/var/lib/backup/<stack>"),
            "where the history of runs is kept; may be lost",
        ),
        key("limits", Shape::Table(&LIMITS), Default("{}"), "limits of this machine"),
        key("keys", Shape::Table(&KEYS), Required, "who can read, who signs, who is believed"),
        key(
            "vault",
            Named(&VAULT),
            Required,
            "directories and S3 prefixes that hold the backups, in the order in which runs try them",
        ),
        key("source", Kinds(SOURCES), Required, "things to capture"),
        key("service", Named(&SERVICE), Optional, "services that need sources"),
        key("job", Named(&JOB), Optional, "scheduled runs"),
        key("notify", Named(&NOTIFY), Optional, "whom to tell"),
    ],
};

/// Kinds of sources.
pub(super) static SOURCES: &[(&str, &Table)] =
    &[("postgres", &POSTGRES), ("files", &FILES), ("dvc", &DVC), ("redis", &REDIS), ("command", &COMMAND)];

static SECRET: Table = Table {
    name: "secret",
    keys: &[
        key("file", PATH, Optional, "file with the secret, readable by its owner only"),
        key(
            "env",
            Text("a name"),
            Optional,
            "environment variable; for S3 credentials the prefix before ACCESS_KEY_ID",
        ),
        key("command", Texts("arguments"), Optional, "program that prints the secret; no shell"),
    ],
};

static STATE: Table = Table {
    name: "state",
    keys: &[
        key("postgres", URL, Required, "address of the database"),
        key("password", Secret, Optional, "its password"),
    ],
};

static LIMITS: Table = Table {
    name: "limits",
    keys: &[
        key("memory", Text("a size like 256MiB"), Default("256MiB"), "bytes in all buffers together"),
        key("upload", Text("a rate like 20MiB/s"), Optional, "highest rate into S3 vaults"),
        key("reserve", Text("a size or a percentage"), Default("5%"), "room left free in directory vaults"),
        key("patience", DURATION, Default("3m"), "how long a call to an S3 vault is tried again"),
    ],
};

static KEYS: Table = Table {
    name: "keys",
    keys: &[
        key("recipients", Texts("age recipients"), Required, "the operators' public keys; at least two are wise"),
        key("revoked", Texts("age recipients"), Optional, "recipients that nothing may be encrypted to any more"),
        key(
            "signers",
            PATH,
            Default("allowed_signers"),
            "OpenSSH allowed_signers file: the only signers that are believed",
        ),
        key(
            "signer_lines",
            Texts("lines of an allowed_signers file"),
            Default("[]"),
            "the signers themselves, in place of the file; `config show --public` writes them",
        ),
        key("host_key", PATH, Optional, "OpenSSH ed25519 key that signs; absent where no backups are made"),
        key(
            "identity",
            Secret,
            Optional,
            "an operator's identity; beside a host key it gives up that this host cannot read",
        ),
    ],
};

static VAULT: Table = Table {
    name: "vault.NAME",
    keys: &[
        key("id", Text("32 hex digits"), Optional, "identity of the vault, written by init"),
        key("path", PATH, Optional, "a directory; either this or s3"),
        key("s3", Shape::Table(&S3), Optional, "an S3 prefix; either this or path"),
        key(
            "credentials",
            SecretOr("aws-chain"),
            Optional,
            "S3 keys: AWS_ACCESS_KEY_ID=… lines, or an environment prefix; needed with s3",
        ),
        key("keep", Shape::Table(&KEEP), Optional, "what is promised to be kept; absent: everything, for ever"),
        key("lock", Text("none, governance or compliance"), Default("none"), "Object Lock mode for what is stored"),
        key(
            "protects",
            Text("none, versioning, conditional-put or pulled"),
            Default("none"),
            "what protects this vault from the host itself, besides lock",
        ),
    ],
};

static S3: Table = Table {
    name: "vault.NAME.s3",
    keys: &[
        key("endpoint", URL, Optional, "address of the server; absent: AWS, by region"),
        key("bucket", Text("a bucket"), Required, "the bucket"),
        key("prefix", Text("a prefix"), Default(""), "path inside the bucket"),
        key("region", Text("a region"), Default("us-east-1"), "region for signatures"),
        key(
            "path_style",
            Boolean,
            Default("true with an endpoint"),
            "endpoint/bucket/key instead of bucket.endpoint/key",
        ),
        key("ca", PATH, Optional, "PEM file with the certificate authority to trust"),
    ],
};

static KEEP: Table = Table {
    name: "vault.NAME.keep",
    keys: &[
        key("within", DURATION, Optional, "everything younger than this"),
        key("weekly", Integer, Default("0"), "so many weeks with a snapshot"),
        key("monthly", Integer, Default("0"), "so many months with a snapshot"),
        key("yearly", Integer, Default("0"), "so many years with a snapshot"),
        key("min", Integer, Default("3"), "the newest so many of each source, whatever their age"),
    ],
};

static POSTGRES: Table = Table {
    name: "source.NAME",
    keys: &[
        TYPE_KEY,
        key("url", URL, Required, "postgres://user@host:port/database"),
        key("password", Secret, Optional, "password of that user"),
        key(
            "clients",
            Shape::Table(&CLIENTS),
            Default("found by the server's version"),
            "where pg_dump and its companions are",
        ),
        key(
            "globals",
            Text("passwords, no-passwords or none"),
            Default("passwords"),
            "whether roles are captured, and their password hashes",
        ),
        key(
            "exclude_data",
            Texts("exact table names"),
            Default("[]"),
            "tables whose rows are left out; named in every report",
        ),
        key(
            "expect_drops",
            Texts("table names, with *"),
            Default("[]"),
            "tables that are dropped on schedule, as old partitions are: that one is gone makes no snapshot suspect",
        ),
        key("expect", Tables(&EXPECT), Default("[]"), "queries that must be true after a restore"),
        key("generation", DURATION, Default("the stack's"), GENERATION_DOC),
        OBJECTIVE_KEY,
    ],
};

static CLIENTS: Table = Table {
    name: "source.NAME.clients",
    keys: &[
        key("dir", PATH, Optional, "directory of the programs"),
        key("wrap", Texts("arguments"), Optional, "command line before each program, as of docker exec"),
    ],
};

static EXPECT: Table = Table {
    name: "source.NAME.expect",
    keys: &[
        key("name", Text("a name"), Required, "its name in reports"),
        key("sql", Text("a query"), Required, "one query with one boolean; $1 is the snapshot's instant"),
    ],
};

static FILES: Table = Table {
    name: "source.NAME",
    keys: &[
        TYPE_KEY,
        key("paths", PATHS, Required, "what to capture, folders with everything below them"),
        key("optional", PATHS, Default("[]"), "paths at or below those that may be missing or unreadable"),
        key("secret", Boolean, Default("false"), "restored readable by the owner only"),
        key("generation", DURATION, Default("the stack's"), GENERATION_DOC),
        OBJECTIVE_KEY,
    ],
};

static DVC: Table = Table {
    name: "source.NAME",
    keys: &[
        TYPE_KEY,
        key("repo", PATH, Required, "folder of the repository"),
        key("model_card", Shape::Table(&MODEL_CARD), Optional, "file that says which model is in use"),
        key("push", Boolean, Default("false"), "run dvc push first, proved by dvc status -c"),
        key("generation", DURATION, Default("the stack's"), GENERATION_DOC),
        OBJECTIVE_KEY,
    ],
};

static MODEL_CARD: Table = Table {
    name: "source.NAME.model_card",
    keys: &[
        key("file", PATH, Required, "JSON file inside the repository"),
        key("pointer", Text("a JSON pointer"), Required, "where in it the model's MD5 is"),
    ],
};

static REDIS: Table = Table {
    name: "source.NAME",
    keys: &[
        TYPE_KEY,
        key("url", URL, Required, "redis://user@host:port"),
        key("password", Secret, Optional, "password of that user"),
        key("generation", DURATION, Default("the stack's"), GENERATION_DOC),
        OBJECTIVE_KEY,
    ],
};

static COMMAND: Table = Table {
    name: "source.NAME",
    keys: &[
        TYPE_KEY,
        key("command", Texts("arguments"), Required, "program and arguments; no shell"),
        key("minimum", Text("a size like 1KiB"), Default("1B"), "fewer bytes than this are no snapshot"),
        key("generation", DURATION, Default("the stack's"), GENERATION_DOC),
        OBJECTIVE_KEY,
    ],
};

static OBJECTIVE: Table = Table {
    name: "objective",
    keys: &[
        key("rpo", DURATION, Required, "most data that may be lost, as time"),
        key("rto", DURATION, Required, "longest time to have it back"),
        key("waiver", Shape::Table(&WAIVER), Optional, "a known gap, accepted for a time"),
    ],
};

static WAIVER: Table = Table {
    name: "objective.waiver",
    keys: &[
        key("until", Date, Required, "its last day"),
        key("reason", Text("a reason"), Required, "why, for reports"),
    ],
};

static SERVICE: Table = Table {
    name: "service.NAME",
    keys: &[key("needs", Texts("sources"), Required, "sources that must be back before it runs"), OBJECTIVE_KEY],
};

static JOB: Table = Table {
    name: "job.NAME",
    keys: &[
        key("cron", Text("a five-field crontab expression"), Optional, "when it runs; absent: by hand only"),
        key("timezone", Text("an IANA time zone"), Default("the stack's"), "time zone of cron"),
        key("sources", Texts("sources"), Default("all"), "what it captures"),
        key("vaults", Texts("vaults"), Default("all"), "where it stores, first answering first"),
        key("deadline", DURATION, Optional, "longest run"),
        key("catch_up", DURATION, Optional, "how late a missed run is still made up for"),
        key("retry", Shape::Table(&RETRY), Default("{}"), "what happens after a failure"),
        key(
            "then",
            Texts("command lines"),
            Default("[]"),
            "verbs that follow: replicate (the job's sources into all vaults), prune (the job's sources in the vaults that it fills), verify [--read-data n/m] [--full]",
        ),
    ],
};

static RETRY: Table = Table {
    name: "job.NAME.retry",
    keys: &[
        key("times", Integer, Default("0"), "how often it is tried again"),
        key("backoff", DURATION, Default("1m"), "pause before the first retry; doubles each time"),
    ],
};

static NOTIFY: Table = Table {
    name: "notify.NAME",
    keys: &[
        key("smtp", Shape::Table(&SMTP), Required, "by mail"),
        key("on", Texts("events"), Required, "failed, partial, missed, suspect, breach"),
    ],
};

static SMTP: Table = Table {
    name: "notify.NAME.smtp",
    keys: &[
        key("host", Text("a host"), Required, "host or host:port"),
        key("to", Text("an address"), Required, "address of the reader"),
    ],
};

/// One line of the documented schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaKey {
    /// Path of the key; `NAME` stands for what the operator chooses, `[]` for each element of an array.
    pub path: String,
    /// The kind of source that has it; absent: no source, or every kind.
    pub kind: Option<&'static str>,
    /// Type of its value, in words.
    pub value: String,
    /// Whether it must be there.
    pub required: bool,
    /// What stands in when it is absent.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

/// Every key of the configuration, in the order of the file.
pub fn schema() -> Vec<SchemaKey> {
    let mut lines = Vec::new();
    collect(&ROOT, "", None, &mut lines);
    lines
}

/// The documented schema as JSON: `{"schema": 1, "keys": [{"path", "type", "required", "doc", "default"?, "source_type"?}]}`.
pub fn schema_json() -> Value {
    let keys: Vec<Value> = schema()
        .into_iter()
        .map(|line| {
            let mut value =
                json!({ "path": line.path, "type": line.value, "required": line.required, "doc": line.doc });
            if let Some(default) = line.default {
                value["default"] = json!(default);
            }
            if let Some(kind) = line.kind {
                value["source_type"] = json!(kind);
            }
            value
        })
        .collect();
    json!({ "schema": 1, "keys": keys })
}

fn collect(table: &'static Table, path: &str, kind: Option<&'static str>, lines: &mut Vec<SchemaKey>) {
    for key in table.keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        lines.push(SchemaKey {
            path: path.clone(),
            kind,
            value: key.shape.words(),
            required: matches!(key.need, Required),
            default: if let Default(text) = key.need { Some(text) } else { None },
            doc: key.doc,
        });
        match key.shape {
            Shape::Table(inner) | TextOr(_, inner) => collect(inner, &path, kind, lines),
            Secret | SecretOr(_) => collect(&SECRET, &path, kind, lines),
            Tables(inner) => collect(inner, &format!("{path}[]"), kind, lines),
            Named(inner) => collect(inner, &format!("{path}.NAME"), kind, lines),
            Kinds(kinds) => {
                for (word, inner) in kinds {
                    collect(inner, &format!("{path}.NAME"), Some(word), lines);
                }
            }
            Text(_) | Integer | Boolean | Date | Texts(_) => {}
        }
    }
}

/// The table behind a secret's reference.
pub(super) fn secret_table() -> &'static Table {
    &SECRET
}

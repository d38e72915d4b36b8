//! The parts of a resolved configuration. Every default is filled in, every path is joined, every name is checked.

use std::path::PathBuf;

use chrono::NaiveDate;
use chrono_tz::Tz;

use super::size::{ByteSize, Rate, Reserve};
use super::span::Span;
use super::step::Step;
use crate::id::{SourceName, VaultId};

/// Where a secret is found. Never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The content of a file, without a final line end.
    File(PathBuf),
    /// The value of an environment variable.
    Env(String),
    /// The standard output of a program: its name or path, then its arguments; never through a shell.
    Command(Vec<String>),
}

/// Where the history of runs is kept. All of it can be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A PostgreSQL database shared by several hosts.
    Postgres {
        /// Its address, without a password.
        url: String,
        /// Its password.
        password: Option<SecretRef>,
    },
}

/// Limits of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all buffers together.
    pub memory: ByteSize,
    /// Highest rate into remote vaults; absent: as fast as it goes.
    pub upload: Option<Rate>,
    /// Room that a run leaves free in a directory vault.
    pub reserve: Reserve,
    /// How long a call to a remote vault may take with everything that is tried again.
    pub patience: Span,
}

/// Who can read, who signs, who is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Age recipients of the operators, in the order of the file, each checked to parse, no two equal.
    pub recipients: Vec<String>,
    /// Recipients to whom nothing is encrypted any more, because an identity leaked or was given back.
    pub revoked: Vec<String>,
    /// OpenSSH `allowed_signers` file: the only signers that are believed.
    pub signers: PathBuf,
    /// Lines of an `allowed_signers` file, in place of the file: what an auditor's policy file has. Empty: the file counts.
    pub signer_lines: Vec<String>,
    /// OpenSSH ed25519 private key that signs; absent on machines that make no backups.
    pub host_key: Option<PathBuf>,
    /// An operator's identity on this machine.
    pub identity: Option<SecretRef>,
}

/// One vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// Its name here.
    pub name: String,
    /// Its pinned id; absent until `init` has made the vault.
    pub id: Option<VaultId>,
    /// Where its bytes lie.
    pub place: Place,
    /// How long snapshots are promised; absent: for ever.
    pub keep: Option<Keep>,
    /// Object Lock mode for what is stored.
    pub lock: Lock,
    /// What the operator says protects it from this host (besides `lock`).
    pub protects: Protects,
}

/// Where a vault's bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Path(PathBuf),
    /// A prefix of an S3 bucket.
    S3(S3),
}

/// An S3 prefix and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// `http` or `https` address without user and path; absent: AWS, by region.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// Prefix inside the bucket, without slashes at its ends; may be empty.
    pub prefix: String,
    /// Region for signatures.
    pub region: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
    /// PEM file with the certificate authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Access key and secret key.
    pub credentials: Credentials,
}

/// Where S3 credentials are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A file or a command whose text has the lines `AWS_ACCESS_KEY_ID=…`, `AWS_SECRET_ACCESS_KEY=…` and, optional,
    /// `AWS_SESSION_TOKEN=…`. Never [`SecretRef::Env`].
    Secret(SecretRef),
    /// Environment variables `<prefix>ACCESS_KEY_ID`, `<prefix>SECRET_ACCESS_KEY` and, optional, `<prefix>SESSION_TOKEN`
    /// (the prefix `AWS_` gives the usual names).
    EnvPrefix(String),
    /// What AWS's own tools would use: environment, profile, instance role.
    AwsChain,
}

/// What a vault promises to keep. A minimum: whole generations expire, so some snapshots live longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Everything younger than this.
    pub within: Option<Span>,
    /// So many weeks with a snapshot.
    pub weekly: u32,
    /// So many months with a snapshot.
    pub monthly: u32,
    /// So many years with a snapshot.
    pub yearly: u32,
    /// The newest so many of each source, whatever their age; at least 1.
    pub min: u32,
}

/// Object Lock mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// No lock.
    None,
    /// Governance mode: some users may lift it.
    Governance,
    /// Compliance mode: nobody may.
    Compliance,
}

/// What protects a vault from the host that writes to it, where this tool cannot see it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protects {
    /// Nothing known.
    None,
    /// Versions that this host's credentials cannot delete.
    Versioning,
    /// A bucket policy that demands `If-None-Match` and denies deletion.
    ConditionalPut,
    /// Another machine pulls a copy.
    Pulled,
}

/// One thing to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name, part of paths in vaults.
    pub name: SourceName,
    /// Length of its generations: 1, 7, 14 or 28 days.
    pub generation: Span,
    /// What was promised for it.
    pub objective: Option<Objective>,
    /// What it is.
    pub kind: SourceKind,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceKind {
    /// A PostgreSQL database.
    Postgres(PostgresSource),
    /// Files and folders.
    Files(FilesSource),
    /// A DVC repository.
    Dvc(DvcSource),
    /// A Redis server.
    Redis(RedisSource),
    /// The standard output of a program.
    Command(CommandSource),
}

impl SourceKind {
    /// The word of the configuration's `type`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "postgres",
            Self::Files(_) => "files",
            Self::Dvc(_) => "dvc",
            Self::Redis(_) => "redis",
            Self::Command(_) => "command",
        }
    }
}

/// A PostgreSQL database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSource {
    /// `postgres://user@host:port/database`, without a password.
    pub url: String,
    /// The password; absent: the server asks for none (peer, trust, certificate).
    pub password: Option<SecretRef>,
    /// Where `pg_dump` and its companions are.
    pub clients: Clients,
    /// What of the cluster's roles is captured.
    pub globals: Globals,
    /// Tables whose rows are left out, in the order of the file.
    pub exclude_data: Vec<TableName>,
    /// Tables that are dropped on schedule, in the order of the file.
    pub expect_drops: Vec<TablePattern>,
    /// Queries that must be true after a restore.
    pub expect: Vec<Expect>,
}

/// Where PostgreSQL's client programs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// Found on this machine by the server's version.
    Auto,
    /// In this directory.
    Dir(PathBuf),
    /// Behind this command line; the program's name and arguments are appended.
    Wrap(Vec<String>),
}

/// What of the cluster's roles is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Globals {
    /// Roles with password hashes.
    Passwords,
    /// Roles without password hashes.
    NoPasswords,
    /// Nothing.
    None,
}

/// Exact name of a table: no pattern, no folding of case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

/// Names of tables: `*` in either part stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl TablePattern {
    /// Whether a table has such a name. Case counts.
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        starred(&self.schema, schema) && starred(&self.table, table)
    }
}

/// Whether `text` is `pattern`, with any run of characters for each `*`.
fn starred(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A query that must be true after a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Its name in reports; unique in its source.
    pub name: String,
    /// One query with one boolean; `$1` is the snapshot's instant.
    pub sql: String,
}

/// Files and folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSource {
    /// What to capture, folders with everything below them.
    pub paths: Vec<PathBuf>,
    /// Paths, at or below those in `paths`, that may be missing or unreadable.
    pub optional: Vec<PathBuf>,
    /// Restored with mode 0600 (folders 0700), and never named in public output.
    pub secret: bool,
}

/// A DVC repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DvcSource {
    /// The repository's folder.
    pub repo: PathBuf,
    /// A file that says which model is in use.
    pub model_card: Option<ModelCard>,
    /// Whether `dvc push` runs before the capture.
    pub push: bool,
}

/// A file that says which model is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// JSON file, relative to the repository.
    pub file: String,
    /// JSON pointer (RFC 6901) to the model's MD5.
    pub pointer: String,
}

/// A Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSource {
    /// `redis://user@host:port`, without a password.
    pub url: String,
    /// The password.
    pub password: Option<SecretRef>,
}

/// The standard output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSource {
    /// The program, then its arguments; never through a shell.
    pub command: Vec<String>,
    /// Fewer bytes than this are no snapshot.
    pub minimum: ByteSize,
}

/// What was promised for a source or service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objective {
    /// Most data that may be lost, as time.
    pub rpo: Span,
    /// Longest time to have it back.
    pub rto: Span,
    /// Until when missing it is accepted, and why.
    pub waiver: Option<Waiver>,
}

/// A known gap, accepted for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// Last day, in the stack's time zone.
    pub until: NaiveDate,
    /// Why, for reports.
    pub reason: String,
}

/// A service that needs sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Sources that must be back before it runs, in order.
    pub needs: Vec<SourceName>,
    /// What was promised for it.
    pub objective: Option<Objective>,
}

/// A scheduled run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Five-field crontab expression or `@word`, checked; absent: run by hand only.
    pub cron: Option<String>,
    /// Time zone of `cron`.
    pub timezone: Tz,
    /// Its sources, in the order of the file.
    pub sources: Vec<SourceName>,
    /// Its vaults, in the order in which the run tries them.
    pub vaults: Vec<String>,
    /// Longest run.
    pub deadline: Option<Span>,
    /// How late a missed run is still made up for.
    pub catch_up: Option<Span>,
    /// What happens after a failure.
    pub retry: Retry,
    /// What follows a run, in order.
    pub then: Vec<Step>,
}

impl Job {
    /// Whether a run of it puts captures of a source into a vault: it captures into it, or copies into all.
    pub fn fills(&self, source: &SourceName, vault: &str) -> bool {
        self.sources.contains(source)
            && (self.vaults.iter().any(|name| name == vault) || self.then.contains(&Step::Replicate))
    }
}

/// What happens after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often it is tried again; 0: never.
    pub times: u32,
    /// Pause before the first retry; doubles each time.
    pub backoff: Span,
}

/// Whom to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Its name.
    pub name: String,
    /// The mail server and the addresses.
    pub smtp: Smtp,
    /// What is told, in the order of the file.
    pub on: Vec<String>,
}

/// A mail server and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Host, or `host:port`.
    pub host: String,
    /// Address of the reader.
    pub to: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("log_*", "log_2026", true),
            ("log_*", "log_", true),
            ("log_*", "Log_2026", false),
            ("log_*", "a_log_2026", false),
            ("*", "", true),
            ("**", "x", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-c-b-c", true),
            ("a*b*c", "a-c-c", false),
            ("log", "log", true),
            ("log", "log2", false),
            ("_hyper_*_chunk", "_hyper_1_23_chunk", true),
        ] {
            let pattern = TablePattern { schema: "public".into(), table: pattern.into() };
            assert_eq!(pattern.matches("public", name), expected, "{pattern:?} {name}");
            assert!(!pattern.matches("other", name));
        }
    }
}

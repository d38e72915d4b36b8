//! How to reach a server, and what a capture is asked to do.
//!
//! A [`ConnectOptions`] is resolved once from the configuration's URL and serves both the driver (sqlx) and the client
//! programs (libpq), so that the two can never talk to different servers. It reads no environment and no `.pgpass`:
//! the URL must name user and database, the password comes beside it and travels in `PGPASSWORD` only.

use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use url::Url;

use super::clients::ClientsOption;
use super::error::PostgresError;
use crate::config::TablePattern;
use crate::secret::Secret;

/// Where a database is and who asks. Its `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    host: String,
    port: u16,
    user: String,
    database: String,
    ssl_mode: SslMode,
    /// `sslrootcert`, `sslcert`, `sslkey` as libpq names them, with their values.
    ssl_files: Vec<(String, String)>,
    password: Option<Secret>,
    /// What the server's list of sessions calls ours and our children's.
    application: String,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const SSL_MODES: [(&str, SslMode, PgSslMode); 6] = [
    ("disable", SslMode::Disable, PgSslMode::Disable),
    ("allow", SslMode::Allow, PgSslMode::Allow),
    ("prefer", SslMode::Prefer, PgSslMode::Prefer),
    ("require", SslMode::Require, PgSslMode::Require),
    ("verify-ca", SslMode::VerifyCa, PgSslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull, PgSslMode::VerifyFull),
];

impl ConnectOptions {
    /// Reads `postgres://user@host:port/database?sslmode=…`. A host that starts with `/` (percent-encoded, or as
    /// `?host=/run/postgresql`) is a socket directory.
    ///
    /// Refused: a password in the URL (it would end in backups of the configuration, in `ps`, in logs), a missing user
    /// or database (a default taken from the environment would differ between cron and a shell), unknown parameters.
    pub fn new(url: &str, password: Option<Secret>) -> Result<Self, PostgresError> {
        let bad = |why: String| PostgresError::Url { why };
        let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(bad(format!("its scheme is `{}`, not `postgres`", parsed.scheme())));
        }
        if parsed.password().is_some() {
            return Err(bad("it holds a password; passwords are given by `password`".to_owned()));
        }
        let mut options = Self {
            host: decode(parsed.host_str().unwrap_or_default()).trim_matches(['[', ']']).to_owned(),
            port: parsed.port().unwrap_or(5432),
            user: decode(parsed.username()),
            database: decode(parsed.path().trim_start_matches('/')),
            ssl_mode: SslMode::Prefer,
            ssl_files: Vec::new(),
            password,
            application: "backup".to_owned(),
        };
        for (key, value) in parsed.query_pairs() {
            let value = value.into_owned();
            match &*key {
                "host" => options.host = value,
                "user" => options.user = value,
                "dbname" => options.database = value,
                "port" => options.port = value.parse().map_err(|_| bad("its port is not a number".to_owned()))?,
                "sslmode" => {
                    let known = SSL_MODES.iter().find(|(word, ..)| *word == value);
                    options.ssl_mode = known.ok_or_else(|| bad(format!("`{value}` is not an sslmode")))?.1;
                }
                "sslrootcert" | "sslcert" | "sslkey" => options.ssl_files.push((key.into_owned(), value)),
                "password" => return Err(bad("it holds a password; passwords are given by `password`".to_owned())),
                other => return Err(bad(format!("its parameter `{other}` is not known"))),
            }
        }
        // As libpq does: who names an authority wants it to be asked.
        if options.ssl_mode == SslMode::Require && options.ssl_file("sslrootcert").is_some() {
            options.ssl_mode = SslMode::VerifyCa;
        }
        if options.host.is_empty() {
            return Err(bad("it names no host".to_owned()));
        }
        if options.user.is_empty() {
            return Err(bad("it names no user".to_owned()));
        }
        if options.database.is_empty() {
            return Err(bad("it names no database".to_owned()));
        }
        Ok(options)
    }

    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        Self { database: name.to_owned(), ..self.clone() }
    }

    /// The same, under another name in the server's list of sessions (`application_name`, 63 bytes of ASCII at most).
    pub(super) fn named(&self, application: String) -> Self {
        Self { application, ..self.clone() }
    }

    /// The name of our sessions and our children's in the server's list.
    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `host:port`, for messages.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Host name or address; a socket's directory where there is one.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Directory of the socket, when it is no network connection.
    pub(super) fn socket_directory(&self) -> Option<&str> {
        self.host.starts_with('/').then_some(self.host.as_str())
    }

    /// How TLS is used.
    pub(super) fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// Path of `sslrootcert`, `sslcert` or `sslkey`.
    pub(super) fn ssl_file(&self, key: &str) -> Option<&str> {
        self.ssl_files.iter().find(|(name, _)| name == key).map(|(_, path)| path.as_str())
    }

    /// The password, for our own sessions and the environment of a child, and nothing else.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Connection string for libpq (`host='…' port='…' …`) without the password; `settings` become its `options`
    /// (`-c name=value`), so that they reach the session also through a wrapper such as `docker exec`.
    pub fn conninfo(&self, settings: &[(&str, &str)]) -> String {
        let quote = |value: &str| value.replace('\\', "\\\\").replace('\'', "\\'");
        let mut pairs = vec![
            ("host", self.host.clone()),
            ("port", self.port.to_string()),
            ("user", self.user.clone()),
            ("dbname", self.database.clone()),
            ("sslmode", self.ssl_words().0.to_owned()),
            ("connect_timeout", "15".to_owned()),
            // As in `wire`: a firewall that forgot a connection must not leave a run waiting for ever.
            ("keepalives_idle", "60".to_owned()),
            ("keepalives_interval", "10".to_owned()),
            ("keepalives_count", "6".to_owned()),
            ("application_name", self.application.clone()),
        ];
        pairs.extend(self.ssl_files.iter().map(|(key, value)| (key.as_str(), value.clone())));
        if !settings.is_empty() {
            // The server splits `options` at white space; a backslash keeps it in a value.
            let escape = |value: &str| value.replace('\\', "\\\\").replace(' ', "\\ ");
            let words: Vec<String> =
                settings.iter().map(|(name, value)| format!("-c {name}={}", escape(value))).collect();
            pairs.push(("options", words.join(" ")));
        }
        let words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}='{}'", quote(value))).collect();
        words.join(" ")
    }

    /// Connection string for a command that a person types elsewhere: nothing is left to the defaults of that shell but the
    /// password. Values are quoted where libpq needs it.
    pub(super) fn shown(&self) -> String {
        let plain = |value: &str| {
            !value.is_empty() && value.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':'))
        };
        let quote = |value: &str| {
            if plain(value) {
                value.to_owned()
            } else {
                format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
            }
        };
        let port = self.port.to_string();
        let mut pairs =
            vec![("host", self.host.as_str()), ("port", &port), ("user", &self.user), ("dbname", &self.database)];
        if self.ssl_mode != SslMode::Prefer {
            pairs.push(("sslmode", self.ssl_words().0));
        }
        pairs.extend(self.ssl_files.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        pairs.into_iter().map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join(" ")
    }

    fn ssl_words(&self) -> (&'static str, PgSslMode) {
        let found = SSL_MODES.iter().find(|(_, mode, _)| *mode == self.ssl_mode);
        found.map_or(("prefer", PgSslMode::Prefer), |(word, _, driver)| (word, *driver))
    }

    /// Opens one session of our own.
    pub async fn connect(&self) -> Result<PgConnection, PostgresError> {
        // The driver's constructor looks at PG* variables. What it could take from there is set here, but for PGOPTIONS,
        // PGSSLROOTCERT, PGSSLCERT and PGSSLKEY, which can be added to and not be taken away: the process must not have
        // them (`backup-cli` starts itself anew without). The programs started here get none of them.
        let mut driver = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .password(self.password.as_ref().map_or("", Secret::reveal))
            .database(&self.database)
            .application_name(&self.application)
            // From the first statement on: a role's own time limit could end the one that would lift it.
            .options([("statement_timeout", "0"), ("lock_timeout", "0"), ("idle_in_transaction_session_timeout", "0")])
            .ssl_mode(self.ssl_words().1)
            .statement_cache_capacity(16)
            .disable_statement_logging();
        driver = if self.host.starts_with('/') {
            driver.host(&self.host).socket(&self.host)
        } else {
            driver.host(&self.host)
        };
        for (key, value) in &self.ssl_files {
            driver = match key.as_str() {
                "sslrootcert" => driver.ssl_root_cert(value),
                "sslcert" => driver.ssl_client_cert(value),
                _ => driver.ssl_client_key(value),
            };
        }
        let opened = tokio::time::timeout(Duration::from_secs(30), driver.connect()).await;
        let opened = opened.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        opened.map_err(|source| PostgresError::connecting(self, source))
    }
}

/// Percent-decoding (RFC 3986); what is not valid UTF-8 afterwards is replaced, and then simply not found.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| hex::decode(pair).ok());
        if let (b'%', Some(pair)) = (first, pair) {
            bytes.extend(pair);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Blocks of a part by default: 256 MiB at the usual block size. Smaller ones spread the last tables better over the
/// workers; each costs some round trips and a stream.
const PART_BLOCKS: u64 = 32 * 1024;

/// What the configuration asks of a PostgreSQL source.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Name of the source, for events.
    pub source: String,
    /// The database.
    pub connect: ConnectOptions,
    /// Where the client programs are.
    pub clients: ClientsOption,
    /// Whether roles and tablespaces are captured as well.
    pub globals: Globals,
    /// Tables whose rows are left out, as `schema.name`; a part with a dot or quote in it is written in double quotes.
    pub exclude_data: Vec<String>,
    /// Tables that are dropped on schedule: that one is gone is no anomaly.
    pub expect_drops: Vec<TablePattern>,
    /// Tables copied at the same time; at least 1.
    pub workers: usize,
    /// How many tables are also counted by `count(*)`.
    pub count_check: CountCheck,
    /// Blocks of one part of a large table, at least 1: a part is copied by one worker into one stream. Of a table with
    /// more TOAST than rows a part has fewer, by halves, so that it has about as many bytes. Changing it moves the
    /// boundaries: at each new one a chunk or two of the next capture are stored anew.
    pub part_blocks: u64,
    /// Every table by COPY's text format, also those whose rows are the same everywhere in binary.
    pub text_only: bool,
    /// How often to start over when a lock, a TRUNCATE or DDL is in the way; at least 1.
    pub attempts: u32,
}

impl PostgresOptions {
    /// The defaults for one database: passwords in the globals, nothing left out, two workers, one table counted
    /// twice, eight attempts.
    pub fn new(source: impl Into<String>, connect: ConnectOptions) -> Self {
        Self {
            source: source.into(),
            connect,
            clients: ClientsOption::Search,
            globals: Globals::Passwords,
            exclude_data: Vec::new(),
            expect_drops: Vec::new(),
            workers: 2,
            part_blocks: PART_BLOCKS,
            count_check: CountCheck::One,
            text_only: false,
            attempts: 8,
        }
    }
}

/// What of the server's roles and tablespaces goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Globals {
    /// Roles with their password hashes. Without superuser rights these cannot be read; then as `NoPasswords`, and said.
    Passwords,
    /// Roles without their password hashes.
    NoPasswords,
    /// Nothing.
    None,
}

/// How many tables are counted a second time, by `count(*)` in the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountCheck {
    /// One per capture, chosen by the instant.
    One,
    /// Every table; for tests.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_the_same_server_to_driver_and_clients() {
        let url = "postgres://b%40ck@[::1]:5433/my%20db?sslmode=require&sslrootcert=/ca.pem";
        let options = ConnectOptions::new(url, Some(Secret::new("canary"))).unwrap();
        let info = options.conninfo(&[("search_path", ""), ("x.y", "a b'c")]);
        assert_eq!(
            info,
            "host='::1' port='5433' user='b@ck' dbname='my db' sslmode='verify-ca' connect_timeout='15' \
             keepalives_idle='60' keepalives_interval='10' keepalives_count='6' application_name='backup' sslrootcert='/ca.pem' options='-c search_path= -c x.y=a\\\\ b\\'c'"
        );
        assert!(!format!("{options:?}{info}").contains("canary"));
    }

    #[test]
    fn what_could_leak_or_depend_on_the_environment_is_refused() {
        for url in [
            "postgres://u:canary@h/d",
            "postgres://u@h/d?password=canary",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@/d",
            "mysql://u@h/d",
            "postgres://u@h/d?sslmode=maybe",
            "postgres://u@h/d?options=-c",
        ] {
            let error = ConnectOptions::new(url, None).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert!(ConnectOptions::new("postgres:///d?host=/run/postgresql&user=u", None).is_ok());
        assert!(ConnectOptions::new("postgres://u@%2Frun%2Fpostgresql/d", None).is_ok());
    }
}

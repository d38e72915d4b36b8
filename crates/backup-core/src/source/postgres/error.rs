//! What can go wrong with a PostgreSQL server or its client programs.

use super::options::ConnectOptions;
use crate::source::SinkError;

/// A PostgreSQL source failed. No text here ever holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The URL of the source cannot be used. The URL itself is not shown: it may hold a password.
    #[error("the PostgreSQL URL cannot be used: {why}")]
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error("the PostgreSQL server at `{address}` does not answer")]
    ServerDown {
        /// `host:port`.
        address: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The server refused the user or its password.
    #[error("the PostgreSQL server at `{address}` refuses user `{user}`: wrong or missing password, or no such user")]
    Refused {
        /// `host:port`.
        address: String,
        /// User.
        user: String,
        /// The server's words.
        source: sqlx::Error,
    },
    /// The database does not exist.
    #[error("there is no database `{database}` on the PostgreSQL server at `{address}`")]
    NoDatabase {
        /// `host:port`.
        address: String,
        /// Database.
        database: String,
    },
    /// A connection failed in another way.
    #[error("cannot connect to database `{database}` on the PostgreSQL server at `{address}`")]
    Connect {
        /// `host:port`.
        address: String,
        /// Database.
        database: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The server went away in the middle: it was restarted, the session was terminated, or the network was cut.
    #[error("the connection to the PostgreSQL server was lost during {during}: it was restarted, or ended the session")]
    Lost {
        /// What was being done.
        during: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement failed.
    #[error("{during} failed")]
    Query {
        /// What was being done, naming the object.
        during: String,
        /// Why.
        source: sqlx::Error,
    },
    /// No client programs at all.
    #[error("no `pg_dump` of PostgreSQL {server_major} or newer was found")]
    NoClients {
        /// Major version of the server.
        server_major: u32,
    },
    /// Client programs older than the server.
    #[error("`pg_dump` is {client}, older than the server, which is PostgreSQL {server_major}")]
    ClientTooOld {
        /// The programs' version.
        client: String,
        /// Major version of the server.
        server_major: u32,
    },
    /// A client program could not be started, or its pipe broke.
    #[error("cannot run `{program}`")]
    ClientStart {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A client program failed.
    #[error("`{program}` failed ({status}): {stderr}")]
    ClientFailed {
        /// The program.
        program: String,
        /// How it ended, such as `exit status: 1` or `signal: 9 (SIGKILL)`.
        status: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// A name in `exclude_data` is not of the form `schema.name`.
    #[error("`{text}` in exclude_data is not of the form `schema.name`")]
    BadExclude {
        /// The text.
        text: String,
    },
    /// What answers is no session of the server's own.
    #[error(
        "at `{address}` a connection pooler answers that gives statements to whichever session of the server is free"
    )]
    Pooler {
        /// `host:port`.
        address: String,
        /// Its words, where it refused the connection.
        source: Option<sqlx::Error>,
    },
    /// Tables, sequences and large objects that may not be read; all of them.
    #[error("user `{user}` may not read {}: {}", counted(objects), objects.join(", "))]
    NotReadable {
        /// The user.
        user: String,
        /// Kind and name of each, such as ``table `public.t` `` or `large object 16401`.
        objects: Vec<String>,
    },
    /// Something that the whole server shares is no text in any encoding, and could not be given back.
    #[error("`{property}` holds bytes that are not UTF-8: {value}")]
    NoText {
        /// The property, such as `database.owner`.
        property: String,
        /// Its value, such bytes as `\xE9`.
        value: String,
    },
    /// Somebody else's lock, TRUNCATE or DDL was in the way; a capture starts over.
    #[error("{what}{}{}", if blockers.is_empty() { "" } else { "; " }, blockers.join("; "))]
    Disturbed {
        /// What happened, naming the table where it is known.
        what: String,
        /// Who held or wanted an exclusive lock then: table and process ids.
        blockers: Vec<String>,
        /// The server's words, if it was a statement that failed.
        source: Option<sqlx::Error>,
    },
    /// A capture started over as often as it may.
    #[error("the database was disturbed in each of {attempts} attempts to capture it")]
    GaveUp {
        /// How many attempts were made.
        attempts: u32,
        /// What stopped the last one.
        source: Box<PostgresError>,
    },
    /// The plan and the archive disagree on where rows are.
    #[error("rows would be lost or doubled: {}", findings.join("; "))]
    Unreconciled {
        /// Each disagreement, naming the table.
        findings: Vec<String>,
    },
    /// Two counts of the same snapshot differ.
    #[error("table `{table}` gave {copied} rows by COPY and {counted} by count(*) in the same snapshot")]
    CountDiffers {
        /// The table.
        table: String,
        /// Rows that COPY gave.
        copied: u64,
        /// Rows that `count(*)` gave.
        counted: u64,
    },
    /// The server says that it sent another number of rows than came.
    #[error("COPY of table `{table}` gave {copied} rows, and the server says that it sent {counted}")]
    TagDiffers {
        /// The table.
        table: String,
        /// Rows that came.
        copied: u64,
        /// Rows by COPY's tag.
        counted: u64,
    },
    /// The server broke the rules of COPY's format.
    #[error("COPY of table `{table}` sent a message that is not one row")]
    NotARow {
        /// The table.
        table: String,
    },
    /// A row that the server cannot put into one message of COPY: these have 1 GB at most.
    #[error("a row of table `{table}` is too large for the server to send as {format}")]
    TooLarge {
        /// The table.
        table: String,
        /// How the table goes: `text` or `binary`.
        format: &'static str,
        /// The server's words.
        source: sqlx::Error,
    },
    /// The pipeline behind the source failed.
    #[error("the captured bytes could not be taken")]
    Sink(#[from] SinkError),
}

/// In what is said of a session whose end a standby gave no reason for.
pub(super) const BY_THE_STANDBY: &str = "ended by the standby";

impl PostgresError {
    /// A disturbance without more to say about it yet.
    pub(crate) fn disturbed(what: impl Into<String>, source: Option<sqlx::Error>) -> Self {
        Self::Disturbed { what: what.into(), blockers: Vec::new(), source }
    }

    /// Sorts a failure to connect by what the operator has to do about it.
    pub(crate) fn connecting(to: &ConnectOptions, source: sqlx::Error) -> Self {
        let (address, database) = (to.address(), to.database().to_owned());
        match (&source, sql_state(&source).as_deref()) {
            (_, Some("3D000")) => Self::NoDatabase { address, database },
            (_, Some("28P01" | "28000")) => Self::Refused { address, user: to.user().to_owned(), source },
            // Of the certificate, or no proof of the password: somebody did answer.
            (sqlx::Error::Io(error), _)
                if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput) =>
            {
                Self::Connect { address, database, source }
            }
            // No server refuses the parameters that are sent here.
            (error, Some("08P01")) if error.to_string().contains("startup parameter") => {
                Self::Pooler { address, source: Some(source) }
            }
            (sqlx::Error::Io(_), _) | (_, Some("57P03")) => Self::ServerDown { address, source },
            _ => Self::Connect { address, database, source },
        }
    }

    /// Whether a standby ended the capture because it stood in the way of what came from the primary.
    pub fn is_recovery_conflict(&self) -> bool {
        match self {
            Self::GaveUp { source, .. } => source.is_recovery_conflict(),
            Self::Disturbed { what, source, .. } => {
                source.as_ref().is_some_and(|error| sql_state(error).as_deref() == Some("40001"))
                    // The second are `pg_dump`'s words.
                    || [BY_THE_STANDBY, "conflict with recovery"].iter().any(|words| what.contains(words))
            }
            _ => false,
        }
    }

    /// For `map_err` behind a statement: `during` names what was being done and to what.
    pub(crate) fn during(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let during = what.into();
        move |source| match (&source, sql_state(&source).as_deref()) {
            (sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed, _)
            | (_, Some("57P01" | "57P02" | "57P03" | "08006" | "08003")) => Self::Lost { during, source },
            // Nobody else's serialization is ours: a standby ends whoever stands in the way of its recovery.
            (_, Some("40001")) => Self::disturbed(format!("{during} was ended by the server"), Some(source)),
            _ => Self::Query { during, source },
        }
    }
}

/// How many `objects` name; the last may be the number of those that are not named.
fn counted(objects: &[String]) -> String {
    let unnamed = objects.last().and_then(|last| last.strip_suffix(" more large objects")?.parse::<usize>().ok());
    match unnamed.map_or(objects.len(), |more| objects.len() - 1 + more) {
        1 => "1 object".to_owned(),
        many => format!("{many} objects"),
    }
}

/// Whether the server had to make something larger than its 1 GB limit for one piece of memory. It is no lack of memory
/// (SQLSTATE 53200), and its words for a single value are never translated.
pub(crate) fn is_too_large(error: &sqlx::Error) -> bool {
    match sql_state(error).as_deref() {
        Some("54000") => true,
        Some("XX000") => error.to_string().contains("invalid memory alloc request size"),
        _ => false,
    }
}

/// The five-character SQLSTATE of a server's error.
pub(crate) fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned)
}

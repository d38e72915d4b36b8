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
    /// The pipeline behind the source failed.
    #[error("the captured bytes could not be taken")]
    Sink(#[from] SinkError),
}

impl PostgresError {
    /// Sorts a failure to connect by what the operator has to do about it.
    pub(crate) fn connecting(to: &ConnectOptions, source: sqlx::Error) -> Self {
        let (address, database) = (to.address(), to.database().to_owned());
        match (&source, sql_state(&source).as_deref()) {
            (_, Some("3D000")) => Self::NoDatabase { address, database },
            (_, Some("28P01" | "28000")) => Self::Refused { address, user: to.user().to_owned(), source },
            (sqlx::Error::Io(_), _) | (_, Some("57P03")) => Self::ServerDown { address, source },
            _ => Self::Connect { address, database, source },
        }
    }

    /// For `map_err` behind a statement: `during` names what was being done and to what.
    pub(crate) fn during(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> Self {
        let during = what.into();
        move |source| match (&source, sql_state(&source).as_deref()) {
            (sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed, _)
            | (_, Some("57P01" | "57P02" | "57P03" | "08006" | "08003")) => Self::Lost { during, source },
            _ => Self::Query { during, source },
        }
    }
}

/// The five-character SQLSTATE of a server's error.
pub(crate) fn sql_state(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned)
}

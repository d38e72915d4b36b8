//! Why a dump is not imported.

use std::path::PathBuf;

use crate::source::SinkError;
use crate::source::postgres::error::PostgresError;

/// Nothing was committed, whatever the variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is nothing that can be imported.
    #[error("`{}` is not a dump that can be imported: {what}", path.display())]
    NotADump {
        /// The file or folder.
        path: PathBuf,
        /// What it is, as far as can be told.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is a dump, and not a whole one.
    #[error("`{}` is damaged or cut short: {why}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// How that is known.
        why: String,
    },
    /// The client programs here are too old for it.
    #[error("`{}` was made by a newer `pg_dump`{} than the client programs here", path.display(), made_by.as_ref().map_or_else(String::new, |version| format!(" ({version})")))]
    Newer {
        /// The file or folder.
        path: PathBuf,
        /// Version of the `pg_dump` that made it, where that is known.
        made_by: Option<String>,
    },
    /// Its data would be of a time that has not come.
    #[error("`{}` would be of {at}, which has not come yet", path.display())]
    Future {
        /// The file or folder.
        path: PathBuf,
        /// The instant.
        at: chrono::DateTime<chrono::Utc>,
    },
    /// A plain dump speaks to `psql`, not only to the server.
    #[error("`{}` has the command `{command}` to psql, which acts outside of the database that is restored", path.display())]
    Command {
        /// The file.
        path: PathBuf,
        /// The command.
        command: String,
    },
    /// A plain dump says something of a database by name: it would be said of the live one.
    #[error("`{}` says something of a database itself (`{statement}`), and not of what is in it", path.display())]
    AboutDatabase {
        /// The file.
        path: PathBuf,
        /// The statement's first words.
        statement: String,
    },
    /// Somebody wrote to it.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file or folder.
        path: PathBuf,
    },
    /// A client program cannot be had or failed by itself.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The pipeline behind it failed.
    #[error("the dump's bytes could not be taken")]
    Sink(#[from] SinkError),
}

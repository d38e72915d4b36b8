//! What can stop a restore into a PostgreSQL server.

use super::expect::ExpectProof;
use super::proof::TableProof;
use crate::fingerprint::RowSum;
use crate::source::StreamError;
use crate::source::postgres::error::{PostgresError, sql_state};

/// A restore did not happen. Whatever the variant: no database carries the final name because of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The server or a client program failed.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The plan holds reasons not to start; each is a sentence of its own.
    #[error("the restore is refused: {}", refusals.join("; "))]
    Refused {
        /// The reasons.
        refusals: Vec<String>,
    },
    /// The manifest contradicts itself, or lacks what a restore needs.
    #[error("the manifest cannot be used: {why}")]
    Manifest {
        /// What is wrong.
        why: String,
    },
    /// A stream could not be read, or is not what was captured.
    #[error("stream {number} ({kind}) cannot be read")]
    Stream {
        /// Its number in the manifest.
        number: u32,
        /// Its kind's word.
        kind: &'static str,
        /// Why.
        source: StreamError,
    },
    /// A stream was read but its bytes have no sense.
    #[error("stream {number} is damaged: {why}")]
    Damaged {
        /// Its number in the manifest.
        number: u32,
        /// What is wrong.
        why: String,
    },
    /// A local temporary file failed.
    #[error("cannot keep the head of the archive in a temporary file")]
    Staging {
        /// Why.
        source: std::io::Error,
    },
    /// The server refuses the rows of a table.
    #[error("the rows of `{schema}.{name}` cannot be loaded")]
    Load {
        /// Schema.
        schema: String,
        /// Table.
        name: String,
        /// The server's words.
        source: sqlx::Error,
    },
    /// What was sent to the server is not what was captured.
    #[error(
        "the rows of `{schema}.{name}` differ from the capture: {} rows with fingerprint {} were captured, {} rows \
         with {} are here",
        expected.rows, expected.fingerprint, found.rows, found.fingerprint
    )]
    PartDiffers {
        /// Schema.
        schema: String,
        /// Table.
        name: String,
        /// As the manifest says.
        expected: RowSum,
        /// As found in the stream.
        found: RowSum,
    },
    /// The restored database was compared with the manifest and differs.
    #[error("{} differ from the capture: {}", count(.proofs), names(.proofs))]
    Differs {
        /// Every table, also those that agree.
        proofs: Vec<TableProof>,
    },
    /// The large objects were compared with the manifest and differ.
    #[error("the large objects differ from the capture: {difference}")]
    LargeObjects {
        /// How.
        difference: String,
    },
    /// Every row is as captured, but the database is not what its checks expect.
    #[error("the restored database is not as expected: {}", answers(.proofs))]
    Unexpected {
        /// Every check, also those that said true.
        proofs: Vec<ExpectProof>,
    },
    /// Rows that were loaded refer to rows that are not there. Nothing was committed.
    #[error("rows refer to rows that are not there, by {}", keys.join(", "))]
    Orphans {
        /// Each foreign key that does not hold, with its tables and how many rows it is.
        keys: Vec<String>,
    },
    /// The connection broke in the very moment of the commit.
    #[error("whether the rows were committed to database `{database}` is not known")]
    CommitLost {
        /// The database.
        database: String,
        /// How it broke.
        source: PostgresError,
    },
    /// A database that was closed for the swap could not be opened again.
    #[error("database `{database}` is still closed to new sessions (open it with `{remedy}`), and {what}")]
    Closed {
        /// The database, under the name that it has now.
        database: String,
        /// The statement that opens it.
        remedy: String,
        /// What became of the swap.
        what: String,
        /// Why it could not be opened.
        source: PostgresError,
    },
    /// Sessions on the database that is replaced do not end.
    #[error("{sessions} sessions on database `{database}` did not end when asked to")]
    Busy {
        /// The database.
        database: String,
        /// How many are left.
        sessions: i64,
    },
}

impl RestoreError {
    /// A CHECK, a domain or a partition's bound refused rows, or a function that one of them calls did. Such a function
    /// may look at other tables, which are perhaps not loaded yet, and raise whatever it likes when it finds nothing
    /// there: so every complaint about data counts (SQLSTATE classes 02, 21, 22, 23, P0 and those of functions), and
    /// none about the server's state. Rows that are refused a second time are an error.
    pub(super) fn is_check_violation(&self) -> bool {
        const CLASSES: [&str; 8] = ["02", "21", "22", "23", "2F", "38", "39", "P0"];
        let Self::Load { source, .. } = self else { return false };
        sql_state(source).is_some_and(|state| CLASSES.iter().any(|class| state.starts_with(class)))
    }
}

impl RestoreError {
    /// The server could not read what it was sent as rows or as their values (SQLSTATE 22P02, 22P03, 22P04, 22007, 22021): these
    /// are not the bytes of a COPY of these columns. Or the archive made no such schema, table or column (3F000, 42P01, 42703):
    /// then these are not the rows that belong to it.
    pub fn is_malformed(&self) -> bool {
        const STATES: [&str; 8] = ["22P02", "22P03", "22P04", "22007", "22021", "3F000", "42P01", "42703"];
        let Self::Load { source, .. } = self else { return false };
        sql_state(source).is_some_and(|state| STATES.contains(&state.as_str()))
    }
}

fn count(proofs: &[TableProof]) -> String {
    match proofs.iter().filter(|proof| !proof.ok()).count() {
        1 => "the rows of 1 table".to_owned(),
        many => format!("the rows of {many} tables"),
    }
}

fn answers(proofs: &[ExpectProof]) -> String {
    let failed = proofs.iter().filter(|proof| !proof.ok());
    failed.map(|proof| format!("check `{}` gives {}", proof.name, proof.found)).collect::<Vec<_>>().join("; ")
}

fn names(proofs: &[TableProof]) -> String {
    let differing = proofs.iter().filter(|proof| !proof.ok());
    let words = differing.take(20).map(|p| {
        let rows = p.differing.map_or_else(String::new, |rows| format!(": {rows}"));
        format!("`{}.{}` ({} rows captured, {} restored{rows})", p.schema, p.name, p.expected.rows, p.found.rows)
    });
    words.collect::<Vec<_>>().join(", ")
}

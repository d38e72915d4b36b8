//! Sessions that read: one set of settings, so that the same row always gives the same bytes.
//!
//! A role or database can carry settings (`ALTER ROLE … SET datestyle`) that change what COPY prints; they are all
//! overridden here. Statements go by the simple protocol: a REPEATABLE READ transaction takes its snapshot at the
//! first statement that needs one, and nothing may be prepared, hence planned, before the locks are held.

use async_trait::async_trait;

use super::copy_out::{Reader, Rows};
use super::error::{PostgresError, sql_state};
use super::options::ConnectOptions;
use super::wire::{Answer, CopyError, Row, Wire};

/// Settings of every session that reads data. Those that a server does not know are left out.
const SETTINGS: [(&str, &str); 32] = [
    ("standard_conforming_strings", "on"),
    ("row_security", "off"),
    ("synchronize_seqscans", "off"),
    ("extra_float_digits", "3"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("xmlbinary", "base64"),
    ("lc_monetary", "C"),
    ("search_path", ""),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    ("restrict_nonsystem_relation_kind", "view, foreign-table"),
    ("max_parallel_workers_per_gather", "0"),
    ("enable_tidscan", "on"),
    ("enable_seqscan", "on"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "off"),
    ("tcp_keepalives_idle", "60"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "6"),
    // A query whose reader is gone ends soon, and its locks with it (PostgreSQL 14 and later).
    ("client_connection_check_interval", "2s"),
    ("client_min_messages", "warning"),
];

/// Settings for `pg_dump`'s own sessions, as far as it does not make them itself; all known to every server.
pub(super) const CHILD_SETTINGS: [(&str, &str); 6] = [
    ("lc_monetary", "C"),
    ("bytea_output", "hex"),
    ("TimeZone", "UTC"),
    ("quote_all_identifiers", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("statement_timeout", "0"),
];

const PREPARING: &str = "preparing a session";

/// The statement that makes the settings.
fn settings() -> String {
    let values: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("('{name}','{value}')")).collect();
    format!(
        "SELECT count(pg_catalog.set_config(s.name, v.value, false)) FROM (VALUES {}) v (name, value) \
         JOIN pg_catalog.pg_settings s ON pg_catalog.lower(s.name) = v.name",
        values.join(",")
    )
}

/// The statement that begins a transaction which reads the snapshot `id`.
fn import(id: &str) -> String {
    format!(
        "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        super::names::literal(id)
    )
}

/// Opens a connection for COPY, with the same settings, that reads the snapshot `id`.
pub(super) async fn open_wire(to: &ConnectOptions, id: &str) -> Result<Wire, PostgresError> {
    let mut wire = Wire::open(to).await.map_err(|source| PostgresError::connecting(to, source))?;
    wire.query(&settings()).await.map_err(PostgresError::during(PREPARING))?;
    match wire.query(&import(id)).await {
        Ok(_) => Ok(wire),
        // `invalid snapshot identifier`, from 17 on `snapshot … does not exist`: whoever exported it is gone.
        Err(error) if matches!(sql_state(&error).as_deref(), Some("22023" | "42704" | "55000")) => {
            Err(PostgresError::disturbed("the session that holds locks and snapshot had ended", Some(error)))
        }
        Err(error) => Err(PostgresError::during("importing the snapshot")(error)),
    }
}

/// The coordinator's session copies what a worker cannot lock.
#[async_trait]
impl Reader for Session {
    async fn ask(&mut self, sql: String) -> Result<Answer, sqlx::Error> {
        self.wire.query(&sql).await
    }

    async fn copy(&mut self, sql: &str, rows: &mut Rows<'_>) -> Result<u64, CopyError<PostgresError>> {
        self.wire.copy_out(sql, rows).await
    }
}

/// One session with the settings above.
#[derive(Debug)]
pub(super) struct Session {
    wire: Wire,
}

impl Session {
    /// Opens a session and makes its settings.
    pub(super) async fn open(to: &ConnectOptions) -> Result<Self, PostgresError> {
        let wire = Wire::open(to).await.map_err(|source| PostgresError::connecting(to, source))?;
        let mut session = Self { wire };
        session.run(PREPARING, settings()).await?;
        Ok(session)
    }

    /// Runs statements by the simple protocol and gives all their rows; `during` names the work in an error.
    pub(super) async fn run(&mut self, during: &str, sql: impl Into<String>) -> Result<Vec<Row>, PostgresError> {
        self.attempt(sql).await.map_err(PostgresError::during(during))
    }

    /// As [`Session::run`], giving the driver's error, for callers that look at its SQLSTATE.
    pub(super) async fn attempt(&mut self, sql: impl Into<String>) -> Result<Vec<Row>, sqlx::Error> {
        self.wire.rows(&sql.into()).await
    }

    /// Runs a query that gives one row.
    pub(super) async fn one(&mut self, during: &str, sql: impl Into<String>) -> Result<Row, PostgresError> {
        let row = self.run(during, sql).await?.into_iter().next();
        row.ok_or_else(|| PostgresError::during(during)(sqlx::Error::RowNotFound))
    }

    /// Whether names in this database may be any bytes, of which some stand here as other characters.
    pub(super) fn any_bytes(&self) -> bool {
        self.wire.any_bytes()
    }

    /// Process id of the server's end, as whoever let us in announced it.
    pub(super) fn announced(&self) -> Option<i64> {
        self.wire.announced().map(i64::from)
    }

    /// For COPY.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Ends the session at once, so that its locks are gone when this returns.
    pub(super) async fn close(self) {
        self.wire.close().await;
    }
}

/// What a column can be read as.
pub(super) trait Value: Sized {
    /// Reads the server's text, or NULL; `None` when it is not of this type.
    fn read(text: Option<&str>) -> Option<Self>;
}

impl Value for i64 {
    fn read(text: Option<&str>) -> Option<Self> {
        text?.parse().ok()
    }
}

impl Value for bool {
    fn read(text: Option<&str>) -> Option<Self> {
        match text? {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }
    }
}

impl Value for String {
    fn read(text: Option<&str>) -> Option<Self> {
        text.map(str::to_owned)
    }
}

impl<T: Value> Value for Option<T> {
    fn read(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            text => T::read(text).map(Some),
        }
    }
}

/// Reads a column that a query of ours must have given; `during` names the query.
pub(super) fn column<T: Value>(row: &Row, name: &str, during: &str) -> Result<T, PostgresError> {
    let missing = || PostgresError::during(during)(sqlx::Error::ColumnNotFound(name.to_owned()));
    let strange = || PostgresError::during(during)(sqlx::Error::Decode(format!("`{name}` has no sense").into()));
    T::read(row.get(name).ok_or_else(missing)?.as_deref()).ok_or_else(strange)
}

//! What the operator expects of a restored database: queries of the configuration, each of which must say true.
//!
//! Fingerprints prove that what came back is what was captured; these prove that what was captured is what was wanted.
//! They are asked after every row was compared and before the database gets its name, each in a session of its own (so
//! that none leaves a setting for the next), in a read-only transaction that is never committed, with a time limit.
//! `$1` is the instant of the snapshot: a check that asked the clock would fail for every snapshot but the newest.
//!
//! Everything but one row with one `true` fails: false, NULL, no row, another type, an error, too slow.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone as _, Utc};
use futures::TryStreamExt as _;
use sqlx::encode::IsNull;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgConnection, PgRow, PgTypeInfo, Postgres};
use sqlx::{AssertSqlSafe, Column as _, Connection as _, Row as _, TypeInfo as _};

use super::error::RestoreError;
use crate::source::postgres::error::PostgresError;
use crate::source::postgres::options::ConnectOptions;

/// The checks of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectations {
    /// The checks, in the order in which they are asked and told.
    pub checks: Vec<Expectation>,
    /// The snapshot's instant: `$1`, to the microsecond.
    pub instant: DateTime<Utc>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Expectations {
    /// No checks at all.
    pub fn none() -> Self {
        Self::new(Vec::new(), DateTime::UNIX_EPOCH)
    }

    /// These checks as of `instant`, with ten minutes for each.
    pub fn new(checks: Vec<Expectation>, instant: DateTime<Utc>) -> Self {
        Self { checks, instant, timeout: Duration::from_mins(10) }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.checks.iter().map(|check| check.name.clone()).collect()
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Its name in reports.
    pub name: String,
    /// One query that gives one row with one boolean; `$1` is a `timestamptz`.
    pub sql: String,
}

/// What a check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectProof {
    /// The check's name.
    pub name: String,
    /// Its answer.
    pub found: Answer,
}

impl ExpectProof {
    /// It said true.
    pub fn ok(&self) -> bool {
        self.found == Answer::True
    }
}

/// The answer of a check. Only one is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// True.
    True,
    /// False.
    False,
    /// NULL.
    Null,
    /// No row.
    Nothing,
    /// Two rows or more.
    ManyRows,
    /// Another number of columns than one.
    Columns(usize),
    /// One value of this type.
    NotBoolean(String),
    /// The server refused it, in these words.
    Refused(String),
    /// It took longer than it may, in seconds.
    TooSlow(u64),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::True => f.write_str("true"),
            Self::False => f.write_str("false"),
            Self::Null => f.write_str("NULL"),
            Self::Nothing => f.write_str("no row"),
            Self::ManyRows => f.write_str("more than one row"),
            Self::Columns(count) => write!(f, "a row of {count} columns"),
            Self::NotBoolean(kind) => write!(f, "a value of type {kind}, not a boolean"),
            Self::Refused(words) => write!(f, "an error ({words})"),
            Self::TooSlow(seconds) => write!(f, "no answer within {seconds} s"),
        }
    }
}

/// Asks all checks in the database `to`. `Ok` holds only answers that are true.
pub(super) async fn ask(to: &ConnectOptions, expect: &Expectations) -> Result<Vec<ExpectProof>, RestoreError> {
    let mut proofs = Vec::with_capacity(expect.checks.len());
    for check in &expect.checks {
        let mut conn = to.connect().await?;
        let found = one(&mut conn, check, expect).await?;
        // A session that is gone at once does not stand in the way of the rename; what is left of an answer goes along.
        let _ = conn.close_hard().await;
        proofs.push(ExpectProof { name: check.name.clone(), found });
    }
    if proofs.iter().all(ExpectProof::ok) { Ok(proofs) } else { Err(RestoreError::Unexpected { proofs }) }
}

async fn one(conn: &mut PgConnection, check: &Expectation, expect: &Expectations) -> Result<Answer, PostgresError> {
    let during = || PostgresError::during(format!("asking the check `{}`", check.name));
    // The search path is the database's own, as an application has it. Rows that a policy hides are an error, not fewer.
    let millis = expect.timeout.as_millis();
    let begin = format!(
        "SET row_security = off; SET statement_timeout = {millis}; SET lock_timeout = {millis}; BEGIN TRANSACTION READ ONLY"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *conn).await.map_err(during())?;
    // By the extended protocol: the server takes one statement there, and no COMMIT behind it.
    let query = sqlx::query(AssertSqlSafe(check.sql.clone())).persistent(false).bind(Instant(expect.instant));
    let mut rows = query.fetch(&mut *conn);
    let answered = async {
        let Some(row) = rows.try_next().await? else { return Ok(Answer::Nothing) };
        let answer = answer(&row)?;
        Ok(if rows.try_next().await?.is_some() { Answer::ManyRows } else { answer })
    };
    match answered.await {
        Ok(answer) => Ok(answer),
        Err(source) => match during()(source) {
            PostgresError::Query { source: sqlx::Error::Database(error), .. } => {
                if error.code().as_deref() == Some("57014") {
                    return Ok(Answer::TooSlow(expect.timeout.as_secs()));
                }
                Ok(Answer::Refused(error.message().to_owned()))
            }
            other => Err(other),
        },
    }
}

fn answer(row: &PgRow) -> Result<Answer, sqlx::Error> {
    if row.len() != 1 {
        return Ok(Answer::Columns(row.len()));
    }
    let kind = row.column(0).type_info().name().to_owned();
    if kind != "BOOL" {
        return Ok(Answer::NotBoolean(kind.to_ascii_lowercase()));
    }
    Ok(match row.try_get::<Option<bool>, _>(0)? {
        Some(true) => Answer::True,
        Some(false) => Answer::False,
        None => Answer::Null,
    })
}

/// A `timestamptz` on the wire.
struct Instant(DateTime<Utc>);

/// Object id of `timestamptz`, `initdb`'s on every server.
const TIMESTAMPTZ: Oid = Oid(1184);

impl sqlx::Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl sqlx::Encode<'_, Postgres> for Instant {
    /// Microseconds since 2000-01-01 UTC, big-endian (`timestamptz_recv`).
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        let epoch = Utc.with_ymd_and_hms(2000, 1, 1, 0, 0, 0).single().ok_or("no epoch")?;
        let since: TimeDelta = self.0 - epoch;
        buffer.extend_from_slice(&since.num_microseconds().ok_or("too far from the year 2000")?.to_be_bytes());
        Ok(IsNull::No)
    }
}

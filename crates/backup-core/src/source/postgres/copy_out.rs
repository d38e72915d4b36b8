//! One table, or a range of its blocks, out of one session: checked before, copied and counted, checked after.
//!
//! `lock` and `same_table` guard against what a snapshot does not protect from: names are resolved as they are *now*
//! (a renamed schema gives another table), and so are file nodes (a truncated table is empty for every snapshot).
//! Rows are counted three ways that must agree: messages of the protocol, rows in their bytes, the server's COPY tag.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::catalog::Relation;
use super::error::{PostgresError, is_too_large, sql_state};
use super::names::{Encoding, literal};
use super::plan::Table;
use super::rows::{RowFormat, RowSplitter};
use super::wire::{Answer, CopyError, CopySink, Wire};
use crate::fingerprint::RowSum;
use crate::manifest::StreamKind;
use crate::monitor::{Event, Monitor};
use crate::source::{FinishedStream, Sink, StreamWriter};

/// Bytes handed to a stream at once, at most.
const BATCH_BYTES: usize = 256 * 1024;

/// Tables up to this size are members of a tar; what turns out larger gets a stream of its own.
pub(super) const MEMBER_BYTES: u64 = 1024 * 1024;

/// A range of a table's blocks: the first one, and the one behind the last (`None`: to the end).
pub(super) type Blocks = (u64, Option<u64>);

/// A session that can be asked and copied from: a worker's own connection, or the coordinator's.
#[async_trait]
pub(super) trait Reader: Send {
    /// Runs statements by the simple protocol and gives all their rows as text.
    async fn ask(&mut self, sql: String) -> Result<Answer, sqlx::Error>;

    /// Runs `COPY … TO STDOUT`; gives the rows by the server's tag.
    async fn copy(&mut self, sql: &str, rows: &mut Rows<'_>) -> Result<u64, CopyError<PostgresError>>;
}

#[async_trait]
impl Reader for Wire {
    async fn ask(&mut self, sql: String) -> Result<Answer, sqlx::Error> {
        self.query(&sql).await
    }

    async fn copy(&mut self, sql: &str, rows: &mut Rows<'_>) -> Result<u64, CopyError<PostgresError>> {
        self.copy_out(sql, rows).await
    }
}

/// Where rows go.
pub(super) enum Output<'a> {
    /// Counted and fingerprinted only.
    Nowhere,
    /// Into a stream of its own.
    Own(Box<dyn StreamWriter>),
    /// Held for the tar while it is small, then as `Own`.
    Small { sink: &'a dyn Sink, held: BytesMut },
}

/// What became of an [`Output`].
#[derive(Debug)]
pub(super) enum Ended {
    Nowhere,
    Own(FinishedStream),
    Small(Bytes),
}

impl<'a> Output<'a> {
    /// A stream of its own, opened now.
    pub(super) async fn own(sink: &dyn Sink) -> Result<Self, PostgresError> {
        Ok(Self::Own(sink.open(StreamKind::PgTable).await?))
    }

    /// Held in memory while small.
    pub(super) fn small(sink: &'a dyn Sink) -> Self {
        Self::Small { sink, held: BytesMut::new() }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), PostgresError> {
        match self {
            Self::Nowhere => {}
            Self::Own(writer) => writer.write(bytes).await?,
            Self::Small { held, .. } if (held.len() + bytes.len()) as u64 <= MEMBER_BYTES => {
                held.extend_from_slice(&bytes);
            }
            Self::Small { sink, held } => {
                let mut writer = sink.open(StreamKind::PgTable).await?;
                writer.write(std::mem::take(held).freeze()).await?;
                writer.write(bytes).await?;
                *self = Self::Own(writer);
            }
        }
        Ok(())
    }

    async fn finish(self) -> Result<Ended, PostgresError> {
        Ok(match self {
            Self::Nowhere => Ended::Nowhere,
            Self::Own(writer) => Ended::Own(writer.finish().await?),
            Self::Small { held, .. } => Ended::Small(held.freeze()),
        })
    }
}

/// The rows of one COPY on their way: summed, collected, handed on.
pub(super) struct Rows<'a> {
    splitter: RowSplitter,
    /// Every message so far was one row (or the begin or end of a binary file).
    one_each: bool,
    before: u64,
    bytes: u64,
    batch: BytesMut,
    output: Output<'a>,
    monitor: &'a dyn Monitor,
    table: String,
}

impl<'a> Rows<'a> {
    fn new(table: &Table, output: Output<'a>, monitor: &'a dyn Monitor) -> Self {
        let splitter = RowSplitter::new(table.format, table.columns.len());
        let (batch, table) = (BytesMut::new(), table.relation.shown());
        Self { splitter, one_each: true, before: 0, bytes: 0, batch, output, monitor, table }
    }

    /// What was copied, when the rows are as many as the server says.
    async fn finish(mut self, counted: u64) -> Result<Copied, PostgresError> {
        self.hand_on().await?;
        let sum = self.splitter.finish().filter(|_| self.one_each);
        let sum = sum.ok_or(PostgresError::NotARow { table: self.table.clone() })?;
        if counted != sum.rows {
            return Err(PostgresError::TagDiffers { table: self.table, copied: sum.rows, counted });
        }
        Ok(Copied { sum, bytes: self.bytes, ended: self.output.finish().await? })
    }

    async fn hand_on(&mut self) -> Result<(), PostgresError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        match &mut self.output {
            Output::Nowhere => {
                self.monitor.event(Event::Plain { bytes: self.batch.len() as u64 });
                self.batch.clear();
                Ok(())
            }
            output => {
                while !self.batch.is_empty() {
                    let now = self.batch.len().min(BATCH_BYTES);
                    output.write(self.batch.split_to(now).freeze()).await?;
                }
                Ok(())
            }
        }
    }
}

impl CopySink for Rows<'_> {
    type Error = PostgresError;

    fn piece(&mut self, bytes: &[u8]) {
        self.splitter.feed(bytes);
        self.bytes += bytes.len() as u64;
        self.batch.extend_from_slice(bytes);
    }

    /// One message is one row (protocol 3): so counting messages and finding rows in the bytes must agree, row by row.
    fn message_ends(&mut self) {
        let rows = self.splitter.rows();
        self.one_each &= self.splitter.between_rows() && rows <= self.before + 1;
        self.before = rows;
    }

    async fn drain(&mut self) -> Result<(), PostgresError> {
        if !self.one_each {
            return Err(PostgresError::NotARow { table: self.table.clone() });
        }
        if self.batch.len() < BATCH_BYTES { Ok(()) } else { self.hand_on().await }
    }
}

/// Rows and bytes of one COPY.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) sum: RowSum,
    pub(super) bytes: u64,
    pub(super) ended: Ended,
}

/// Locks a table without waiting (waiting behind a TRUNCATE that waits for our coordinator would be a deadlock that
/// the server cannot see). `false`: somebody is in the way; the session goes on.
pub(super) async fn lock(
    session: &mut dyn Reader,
    table: &Relation,
    encoding: &Encoding,
) -> Result<bool, PostgresError> {
    let sql = format!(
        "SAVEPOINT before_lock; LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT before_lock",
        encoding.qualified(&table.schema, &table.name)
    );
    let Err(error) = session.ask(sql).await else { return Ok(true) };
    match sql_state(&error).as_deref() {
        Some("55P03") => {
            let back = session.ask("ROLLBACK TO SAVEPOINT before_lock".to_owned()).await;
            back.map_err(PostgresError::during("going on after a lock"))?;
            Ok(false)
        }
        Some("42P01" | "3F000") => {
            Err(PostgresError::disturbed(format!("table `{}` is gone or renamed", table.shown()), Some(error)))
        }
        _ => Err(PostgresError::during(format!("locking table `{}`", table.shown()))(error)),
    }
}

/// The name must still mean the listed table and the table must still be in the snapshot's file.
///
/// A session looks at other sessions' catalog changes only when it newly locks a relation. The lock on an idle catalog,
/// taken and given back by a savepoint, makes it look: without it, an answer could come from before a rename.
pub(super) async fn same_table(session: &mut dyn Reader, table: &Relation) -> Result<(), PostgresError> {
    // `to_regclass` knows no `U&"…"`, but as a literal its text may hold anything.
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let name = literal(&format!("{}.{}", quoted(&table.schema), quoted(&table.name)));
    let sql = format!(
        "SAVEPOINT look; SELECT pg_catalog.to_regclass({name})::oid::int8 IS NOT DISTINCT FROM {oid} AS named, \
         pg_catalog.pg_relation_filenode({oid}::oid)::int8 IS NOT DISTINCT FROM {node} AS placed, \
         (SELECT count(*) FROM pg_catalog.pg_ts_template) AS templates; \
         ROLLBACK TO SAVEPOINT look; RELEASE SAVEPOINT look",
        oid = table.oid,
        node = table.file_node,
    );
    let answer =
        session.ask(sql).await.map_err(PostgresError::during(format!("checking table `{}`", table.shown())))?;
    let yes = |at: usize| answer.first().and_then(|row| row.get(at)).is_some_and(|value| value.as_deref() == Some("t"));
    if !yes(0) {
        return Err(PostgresError::disturbed(format!("table `{}` was renamed or replaced", table.shown()), None));
    }
    if !yes(1) {
        let what = format!("table `{}` was truncated or rewritten after the snapshot", table.shown());
        return Err(PostgresError::disturbed(what, None));
    }
    Ok(())
}

/// Copies one locked table, or some of its blocks, with the checks around. After an error the session must be dropped.
pub(super) async fn copy(
    session: &mut dyn Reader,
    table: &Table,
    blocks: Option<Blocks>,
    encoding: &Encoding,
    output: Output<'_>,
    monitor: &dyn Monitor,
) -> Result<Copied, PostgresError> {
    let relation = &table.relation;
    let switch = |name: &str| format!("SET client_encoding = {}", literal(name));
    same_table(session, relation).await?;
    if encoding.is_converted() {
        session.ask(switch(&encoding.name)).await.map_err(PostgresError::during("setting the encoding"))?;
    }
    let sql = copy_statement(table, blocks, encoding);
    let mut rows = Rows::new(table, output, monitor);
    let counted = session.copy(&sql, &mut rows).await.map_err(|error| failed(table, error))?;
    let copied = rows.finish(counted).await?;
    if encoding.is_converted() {
        session.ask(switch("UTF8")).await.map_err(PostgresError::during("setting the encoding"))?;
    }
    same_table(session, relation).await?;
    Ok(copied)
}

/// The statement that reads a table, or some of its blocks.
pub(super) fn copy_statement(table: &Table, blocks: Option<Blocks>, encoding: &Encoding) -> String {
    let relation = &table.relation;
    let name = encoding.qualified(&relation.schema, &relation.name);
    let from = match condition(table, blocks) {
        Some(condition) => {
            let columns: Vec<String> = table.columns.iter().map(|name| encoding.identifier(name)).collect();
            format!("(SELECT {} FROM ONLY {name} {condition})", columns.join(", "))
        }
        None => encoding.copied(&relation.schema, &relation.name, &table.columns),
    };
    format!("COPY {from} TO STDOUT WITH (FORMAT {})", table.format)
}

/// Which of the table's rows are meant, when not all.
fn condition(table: &Table, blocks: Option<Blocks>) -> Option<String> {
    match (table.relation.config.as_deref(), blocks) {
        (Some(condition), _) if !condition.is_empty() => Some(condition.to_owned()),
        (_, Some((from, to))) => {
            let to = to.map(|to| format!(" AND ctid < '({to},0)'::pg_catalog.tid")).unwrap_or_default();
            Some(format!("WHERE ctid >= '({from},0)'::pg_catalog.tid{to}"))
        }
        _ => None,
    }
}

fn failed(table: &Table, error: CopyError<PostgresError>) -> PostgresError {
    let relation = &table.relation;
    match error {
        CopyError::Sink(error) => error,
        CopyError::Driver(source) if is_too_large(&source) => {
            PostgresError::TooLarge { table: relation.shown(), format: table.format.word(), source }
        }
        CopyError::Driver(error) => ended(relation, "copying", error),
    }
}

/// Why a statement on a locked table failed: a disturbance, where the capture had better start over.
fn ended(relation: &Relation, doing: &str, error: sqlx::Error) -> PostgresError {
    match sql_state(&error).as_deref() {
        // Gone or rewritten under our eyes: its schema was renamed, or a column of it. The table itself is locked.
        Some("42P01" | "3F000" | "55P03" | "42703" | "40P01") => {
            PostgresError::disturbed(format!("table `{}` changed while it was copied", relation.shown()), Some(error))
        }
        _ => PostgresError::during(format!("{doing} table `{}`", relation.shown()))(error),
    }
}

/// Counts a locked table's rows a second way, between the same checks.
pub(super) async fn count(session: &mut dyn Reader, table: &Table, encoding: &Encoding) -> Result<u64, PostgresError> {
    let relation = &table.relation;
    same_table(session, relation).await?;
    let name = encoding.qualified(&relation.schema, &relation.name);
    let condition = condition(table, None).unwrap_or_default();
    let answer = session.ask(format!("SELECT count(*) FROM ONLY {name} {condition}")).await;
    let failed = |error| ended(relation, "counting", error);
    let answer = answer.map_err(failed)?;
    let rows = answer.first().and_then(|row| row.first()).and_then(|value| value.as_deref()?.parse().ok());
    let rows = rows.ok_or_else(|| failed(sqlx::Error::RowNotFound))?;
    same_table(session, relation).await?;
    Ok(rows)
}

/// The statement of the manifest that loads a table's rows.
pub(super) fn load_statement(table: &Table, encoding: &Encoding) -> String {
    let relation = &table.relation;
    let rows = encoding.copied(&relation.schema, &relation.name, &table.columns);
    match table.format {
        RowFormat::Text | RowFormat::Dump => format!("COPY {rows} FROM STDIN"),
        RowFormat::Binary => format!("COPY {rows} FROM STDIN WITH (FORMAT binary)"),
    }
}

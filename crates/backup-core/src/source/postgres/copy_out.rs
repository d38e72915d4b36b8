//! One table out of one session: checked before, copied and counted, checked after.
//!
//! `lock` and `same_table` guard against what a snapshot does not protect from: names are resolved as they are *now*
//! (a renamed schema gives another table), and so are file nodes (a truncated table is empty for every snapshot).
//! Rows go from the driver's message into a write batch; at most one row and one batch are in memory.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use sqlx::postgres::PgConnection;

use super::catalog::Relation;
use super::error::{PostgresError, sql_state};
use super::names::{Encoding, literal};
use super::plan::Table;
use super::session::{Session, column};
use crate::fingerprint::RowSum;
use crate::manifest::StreamKind;
use crate::monitor::{Event, Monitor};
use crate::source::{FinishedStream, Sink, StreamWriter};

/// Bytes handed to a stream at once.
const BATCH_BYTES: usize = 128 * 1024;

/// Tables up to this size are members of a tar; what turns out larger gets a stream of its own.
pub(super) const MEMBER_BYTES: u64 = 1024 * 1024;

/// Where rows go.
pub(super) enum Output<'a> {
    /// Counted and fingerprinted only.
    Nowhere,
    /// Into a stream of its own.
    Own { writer: Box<dyn StreamWriter>, batch: BytesMut },
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
        let writer = sink.open(StreamKind::PgTable).await?;
        Ok(Self::Own { writer, batch: BytesMut::with_capacity(BATCH_BYTES) })
    }

    /// Held in memory while small.
    pub(super) fn small(sink: &'a dyn Sink) -> Self {
        Self::Small { sink, held: BytesMut::new() }
    }

    async fn row(&mut self, row: &Bytes) -> Result<(), PostgresError> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Own { writer, batch } => append(writer.as_mut(), batch, row).await,
            Self::Small { sink, held } => {
                if (held.len() + row.len()) as u64 <= MEMBER_BYTES {
                    held.extend_from_slice(row);
                    return Ok(());
                }
                let mut writer = sink.open(StreamKind::PgTable).await?;
                let mut batch = BytesMut::with_capacity(BATCH_BYTES);
                let held = std::mem::take(held).freeze();
                append(writer.as_mut(), &mut batch, &held).await?;
                append(writer.as_mut(), &mut batch, row).await?;
                *self = Self::Own { writer, batch };
                Ok(())
            }
        }
    }

    async fn finish(self) -> Result<Ended, PostgresError> {
        Ok(match self {
            Self::Nowhere => Ended::Nowhere,
            Self::Own { mut writer, batch } => {
                if !batch.is_empty() {
                    writer.write(batch.freeze()).await?;
                }
                Ended::Own(writer.finish().await?)
            }
            Self::Small { held, .. } => Ended::Small(held.freeze()),
        })
    }
}

async fn append(writer: &mut dyn StreamWriter, batch: &mut BytesMut, bytes: &Bytes) -> Result<(), PostgresError> {
    if bytes.len() >= BATCH_BYTES {
        // A large row is passed on in slices, not copied into the batch.
        if !batch.is_empty() {
            writer.write(batch.split().freeze()).await?;
        }
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            writer.write(rest.split_to(rest.len().min(BATCH_BYTES))).await?;
        }
        return Ok(());
    }
    if batch.len() + bytes.len() > BATCH_BYTES {
        writer.write(batch.split().freeze()).await?;
        batch.reserve(BATCH_BYTES);
    }
    batch.extend_from_slice(bytes);
    Ok(())
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
pub(super) async fn lock(session: &mut Session, table: &Relation, encoding: &Encoding) -> Result<bool, PostgresError> {
    let sql = format!(
        "SAVEPOINT before_lock; LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT; RELEASE SAVEPOINT before_lock",
        encoding.qualified(&table.schema, &table.name)
    );
    let Err(error) = session.attempt(sql).await else { return Ok(true) };
    match sql_state(&error).as_deref() {
        Some("55P03") => {
            session.run("going on after a lock", "ROLLBACK TO SAVEPOINT before_lock").await?;
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
pub(super) async fn same_table(session: &mut Session, table: &Relation) -> Result<(), PostgresError> {
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
    let during = format!("checking table `{}`", table.shown());
    let row = session.one(&during, sql).await?;
    if !column::<bool>(&row, "named", &during)? {
        return Err(PostgresError::disturbed(format!("table `{}` was renamed or replaced", table.shown()), None));
    }
    if !column::<bool>(&row, "placed", &during)? {
        let what = format!("table `{}` was truncated or rewritten after the snapshot", table.shown());
        return Err(PostgresError::disturbed(what, None));
    }
    Ok(())
}

/// Copies one locked table, with the checks around. After an error the session must be dropped.
pub(super) async fn copy(
    session: &mut Session,
    table: &Table,
    encoding: &Encoding,
    output: Output<'_>,
    monitor: &dyn Monitor,
) -> Result<Copied, PostgresError> {
    let relation = &table.relation;
    same_table(session, relation).await?;
    if !encoding.is_utf8() {
        session.run("setting the encoding", format!("SET client_encoding = {}", literal(&encoding.name))).await?;
    }
    let from = match relation.config.as_deref() {
        Some(condition) if !condition.is_empty() => {
            let columns: Vec<String> = table.columns.iter().map(|name| encoding.identifier(name)).collect();
            let name = encoding.qualified(&relation.schema, &relation.name);
            format!("(SELECT {} FROM ONLY {name} {condition})", columns.join(", "))
        }
        _ => encoding.copied(&relation.schema, &relation.name, &table.columns),
    };
    let copied = rows(session.connection(), &format!("COPY {from} TO STDOUT"), relation, output, monitor).await?;
    if !encoding.is_utf8() {
        session.run("setting the encoding", "SET client_encoding = 'UTF8'").await?;
    }
    same_table(session, relation).await?;
    Ok(copied)
}

async fn rows(
    connection: &mut PgConnection,
    statement: &str,
    relation: &Relation,
    mut output: Output<'_>,
    monitor: &dyn Monitor,
) -> Result<Copied, PostgresError> {
    let during = |error| match sql_state(&error).as_deref() {
        // Gone or rewritten under our eyes; cannot happen while it is locked.
        Some("42P01" | "3F000" | "55P03") => {
            PostgresError::disturbed(format!("table `{}` changed while it was copied", relation.shown()), Some(error))
        }
        _ => PostgresError::during(format!("copying table `{}`", relation.shown()))(error),
    };
    let mut sum = RowSum::default();
    let (mut bytes, mut told) = (0u64, 0u64);
    let mut messages = connection.copy_out_raw(statement).await.map_err(during)?;
    while let Some(message) = messages.try_next().await.map_err(during)? {
        // One message is one row (protocol 3, text format), and a row ends with the only line end in it: line ends in
        // values are written `\n`. So counting messages and counting line ends must agree, row by row.
        let row = match message.split_last() {
            Some((b'\n', row)) if !row.contains(&b'\n') => row,
            _ => return Err(PostgresError::NotARow { table: relation.shown() }),
        };
        sum.add(row);
        bytes += message.len() as u64;
        output.row(&message).await?;
        if bytes - told >= BATCH_BYTES as u64 {
            monitor.event(Event::Plain { bytes: bytes - told });
            told = bytes;
        }
    }
    drop(messages);
    monitor.event(Event::Plain { bytes: bytes - told });
    Ok(Copied { sum, bytes, ended: output.finish().await? })
}

/// Counts a table's rows a second way.
pub(super) async fn count(session: &mut Session, table: &Table, encoding: &Encoding) -> Result<u64, PostgresError> {
    let relation = &table.relation;
    let during = format!("counting table `{}`", relation.shown());
    let name = encoding.qualified(&relation.schema, &relation.name);
    let condition = relation.config.as_deref().unwrap_or_default();
    let row = session.one(&during, format!("SELECT count(*) AS rows FROM ONLY {name} {condition}")).await?;
    Ok(column::<i64>(&row, "rows", &during)?.cast_unsigned())
}

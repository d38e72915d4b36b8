//! The two kinds of session through which rows go, in either direction, and where rows come from.
//!
//! Our own connection passes rows on in pieces, however long one is; the driver's is for the transactions that have more to do than one
//! COPY. Both show every byte to the caller, who sums them: what was counted is what was sent.

use std::convert::Infallible;

use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::postgres::PgConnection;

use super::super::error::RestoreError;
use super::super::rows::Numbered;
use crate::source::postgres::wire::{CopyError, CopySink, Wire};

/// A session that takes rows: our own connection, or the driver's where one transaction has more to do than that.
pub(in super::super) trait Taker {
    /// Runs one COPY … FROM STDIN, whatever stands before it, showing to `seen` what it sends; gives the server's count of rows
    /// or its refusal. `Err`: the rows could not be read.
    async fn take(
        &mut self,
        sql: &str,
        rows: Rows,
        seen: impl FnMut(&[u8]),
    ) -> Result<Result<u64, sqlx::Error>, RestoreError>;
}

impl Taker for Wire {
    async fn take(
        &mut self,
        sql: &str,
        mut rows: Rows,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Result<u64, sqlx::Error>, RestoreError> {
        if let Err(refused) = self.copy_in(sql).await {
            return Ok(Err(refused));
        }
        while let Some(bytes) = rows.next().await? {
            seen(&bytes);
            if let Err(refused) = self.send_rows(&bytes).await {
                return Ok(Err(refused));
            }
        }
        Ok(self.copied_in().await)
    }
}

impl Taker for PgConnection {
    async fn take(
        &mut self,
        sql: &str,
        mut rows: Rows,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Result<u64, sqlx::Error>, RestoreError> {
        let mut copy = match self.copy_in_raw(sql).await {
            Ok(copy) => copy,
            Err(refused) => return Ok(Err(refused)),
        };
        while let Some(bytes) = rows.next().await? {
            seen(&bytes);
            if let Err(refused) = copy.send(bytes).await {
                return Ok(Err(refused));
            }
        }
        Ok(copy.finish().await)
    }
}

/// A session that gives rows: our own connection, through which a row passes in pieces; or the driver's, which holds each
/// row whole, where only that session sees them.
pub(in super::super) trait Giver {
    /// Runs one COPY … TO STDOUT, showing to `seen` what comes; gives the server's count of rows, where it is told.
    async fn give(&mut self, sql: &str, seen: impl FnMut(&[u8]) + Send) -> Result<Option<u64>, sqlx::Error>;
}

impl Giver for Wire {
    async fn give(&mut self, sql: &str, seen: impl FnMut(&[u8]) + Send) -> Result<Option<u64>, sqlx::Error> {
        match self.copy_out(sql, &mut Seen(seen)).await {
            Ok(rows) => Ok(Some(rows)),
            Err(CopyError::Driver(error)) => Err(error),
            Err(CopyError::Sink(never)) => match never {},
        }
    }
}

impl Giver for PgConnection {
    async fn give(&mut self, sql: &str, mut seen: impl FnMut(&[u8]) + Send) -> Result<Option<u64>, sqlx::Error> {
        let mut rows = self.copy_out_raw(sql).await?;
        while let Some(bytes) = rows.try_next().await? {
            seen(&bytes);
        }
        Ok(None)
    }
}

/// Keeps nothing.
struct Seen<F>(F);

impl<F: FnMut(&[u8]) + Send> CopySink for Seen<F> {
    type Error = Infallible;

    fn piece(&mut self, bytes: &[u8]) {
        (self.0)(bytes);
    }

    fn message_ends(&mut self) {}

    async fn drain(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The rows of one part, wherever they come from.
pub(in super::super) enum Rows {
    Stream(Numbered),
    Memory(Option<Bytes>),
}

impl Rows {
    async fn next(&mut self) -> Result<Option<Bytes>, RestoreError> {
        match self {
            Self::Stream(stream) => stream.next().await,
            Self::Memory(bytes) => Ok(bytes.take()),
        }
    }
}

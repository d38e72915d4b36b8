//! A connection of our own, for COPY in bulk: the one place that speaks PostgreSQL's protocol itself.
//!
//! The driver (sqlx) gives each row as a message of its own and throws COPY's tag away. Here many rows are framed out
//! of one read, without an allocation per row; a row larger than the buffer passes through in pieces, so that memory
//! does not grow with the largest value; and the tag, the server's own count of rows, is compared. Statements go by
//! the simple protocol, as in `session`. Errors are the driver's type, so that the rest of this source sorts them alike.
//!
//! A connection whose COPY or query broke off is never used again: `broken` refuses whatever comes next.

mod copy_in;
mod error;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod startup;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::names;
use error::server_error;

/// Room for one read. Larger than any common row, so that pieces are the exception.
const INBOX_BYTES: usize = 256 * 1024;

/// Time for the server to end a session that said goodbye.
const FAREWELL: Duration = Duration::from_secs(10);

/// Longest message of a server that has not let us in, and has not proved anything, and of one that has. Rows of a COPY
/// have no limit: they pass through in pieces.
const STRANGER_BYTES: usize = 64 * 1024;
const ANSWER_BYTES: usize = 16 << 20;

/// Tag and length before each message's content.
const HEADER_BYTES: usize = 5;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The rows of an answer, each value as text.
pub(super) type Answer = Vec<Vec<Option<String>>>;

/// One row of an answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<String>>,
}

impl Row {
    /// The value of a column as text, or NULL; `None` where there is no such column.
    pub(super) fn get(&self, column: &str) -> Option<&Option<String>> {
        self.values.get(self.columns.iter().position(|name| name == column)?)
    }
}

/// Takes what COPY sends.
pub(super) trait CopySink {
    /// The next bytes of the current `CopyData` message: all of it, unless it is larger than the buffer.
    fn piece(&mut self, bytes: &[u8]);

    /// The current message ends.
    fn message_ends(&mut self);

    /// Called between reads: the place to wait for room. `Err` ends the COPY.
    fn drain(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Why it takes no more.
    type Error: Send;
}

/// Why a COPY ended early.
#[derive(Debug)]
pub(super) enum CopyError<E> {
    /// The server or the connection.
    Driver(sqlx::Error),
    /// The sink.
    Sink(E),
}

impl<E> From<io::Error> for CopyError<E> {
    fn from(error: io::Error) -> Self {
        Self::Driver(error.into())
    }
}

impl<E> From<sqlx::Error> for CopyError<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Driver(error)
    }
}

/// One session.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    inbox: BytesMut,
    outbox: BytesMut,
    /// Bytes of the longest message that is read whole.
    limit: usize,
    broken: bool,
    /// Process id of the session's backend, as it was announced: a pooler announces one of its own making.
    announced: Option<i32>,
    /// The database has no encoding (`SQL_ASCII`): text is any bytes, and stands here as `names::from_bytes` says.
    any_bytes: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Wire {
    fn new(stream: Box<dyn Stream>) -> Self {
        let inbox = BytesMut::with_capacity(INBOX_BYTES);
        let limit = STRANGER_BYTES;
        Self { stream, inbox, outbox: BytesMut::new(), limit, broken: false, announced: None, any_bytes: false }
    }

    /// Runs statements and gives the rows of all of them. After the server's error the session goes on.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Answer, sqlx::Error> {
        Ok(self.rows(sql).await?.into_iter().map(|row| row.values).collect())
    }

    /// As [`Wire::query`], each row with the names of its columns.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, sqlx::Error> {
        self.begin(sql).await?;
        let (mut answer, mut columns): (Vec<Row>, Arc<[String]>) = (Vec::new(), Arc::new([]));
        let mut refused = None;
        loop {
            match self.after(&mut refused).await? {
                Message::RowDescription(body) => {
                    let names = body.fields().map(|field| Ok(field.name().to_owned()));
                    columns = names.collect::<Vec<_>>()?.into();
                }
                Message::DataRow(row) => {
                    answer.push(Row { columns: columns.clone(), values: texts(&row, self.any_bytes)? });
                }
                Message::ErrorResponse(body) => refused = Some(server_error(&body)?),
                Message::ReadyForQuery(_) => break,
                Message::CopyOutResponse(_) | Message::CopyInResponse(_) => return Err(unexpected("a COPY")),
                _ => {}
            }
        }
        self.broken = false;
        refused.map_or(Ok(answer), Err)
    }

    /// Runs one `COPY … TO STDOUT` and gives the number of rows that the server says it sent. After any error but the
    /// server's own the session is broken.
    pub(super) async fn copy_out<S: CopySink>(&mut self, sql: &str, sink: &mut S) -> Result<u64, CopyError<S::Error>> {
        self.begin(sql).await?;
        match self.message().await? {
            Message::CopyOutResponse(_) => {}
            Message::ErrorResponse(body) => {
                let mut refused = Some(server_error(&body)?);
                while !matches!(self.after(&mut refused).await?, Message::ReadyForQuery(_)) {}
                self.broken = false;
                return Err(CopyError::Driver(refused.unwrap_or_else(|| unexpected("nothing"))));
            }
            _ => return Err(unexpected("an answer that is no COPY").into()),
        }
        let (mut rows, mut refused) = (None, None);
        self.data(sink).await?;
        loop {
            match self.after(&mut refused).await? {
                Message::CopyData(_) => return Err(unexpected("rows behind their end").into()),
                Message::CommandComplete(body) => {
                    rows = body.tag()?.strip_prefix("COPY ").and_then(|count| count.parse().ok());
                }
                Message::ErrorResponse(body) => refused = Some(server_error(&body)?),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        sink.drain().await.map_err(CopyError::Sink)?;
        self.broken = false;
        match (refused, rows) {
            (Some(refused), _) => Err(refused.into()),
            (None, Some(rows)) => Ok(rows),
            (None, None) => Err(unexpected("no count of rows").into()),
        }
    }

    /// Passes on `CopyData` until another message comes, which stays in the inbox.
    async fn data<S: CopySink>(&mut self, sink: &mut S) -> Result<(), CopyError<S::Error>> {
        loop {
            // Whole messages, as many as there are.
            while let Some(length) = frame(&self.inbox, b'd')? {
                if self.inbox.len() >= HEADER_BYTES + length {
                    sink.piece(&self.inbox[HEADER_BYTES..HEADER_BYTES + length]);
                    sink.message_ends();
                    self.inbox.advance(HEADER_BYTES + length);
                } else if HEADER_BYTES + length > INBOX_BYTES {
                    self.inbox.advance(HEADER_BYTES);
                    self.pieces(length, sink).await?;
                } else {
                    break;
                }
            }
            match self.inbox.first().copied() {
                None | Some(b'd') => {}
                // Notices, parameters and notifications may come at any time.
                Some(tag @ (b'N' | b'S' | b'A')) => {
                    if let Some(length) = frame(&self.inbox, tag)?.filter(|n| self.inbox.len() >= HEADER_BYTES + n) {
                        self.inbox.advance(HEADER_BYTES + length);
                        continue;
                    }
                }
                Some(_) => return Ok(()),
            }
            sink.drain().await.map_err(CopyError::Sink)?;
            self.read().await?;
        }
    }

    /// One message that is larger than the inbox.
    async fn pieces<S: CopySink>(&mut self, mut rest: usize, sink: &mut S) -> Result<(), CopyError<S::Error>> {
        while rest > 0 {
            let now = rest.min(self.inbox.len());
            sink.piece(&self.inbox[..now]);
            self.inbox.advance(now);
            rest -= now;
            if rest > 0 {
                sink.drain().await.map_err(CopyError::Sink)?;
                self.read().await?;
            }
        }
        sink.message_ends();
        Ok(())
    }

    /// Whether text in this database may be any bytes.
    pub(super) fn any_bytes(&self) -> bool {
        self.any_bytes
    }

    /// Process id of the server's end, as whoever let us in announced it.
    pub(super) fn announced(&self) -> Option<i32> {
        self.announced
    }

    /// Says goodbye, so that the session's locks are gone soon.
    pub(super) async fn close(mut self) {
        frontend::terminate(&mut self.outbox);
        // The server ends the session also when the farewell is lost.
        let _ = self.send().await;
        // Its end of the connection closes when the session is over; a server that hangs is not waited for.
        let over = async {
            while matches!(self.stream.read_buf(&mut self.inbox).await, Ok(read) if read > 0) {
                self.inbox.clear();
            }
        };
        let _ = tokio::time::timeout(FAREWELL, over).await;
    }

    async fn begin(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(sqlx::Error::Protocol("the session was given up after an error".to_owned()));
        }
        if self.any_bytes {
            let sql = names::to_bytes(sql);
            let length = i32::try_from(sql.len() + HEADER_BYTES).map_err(io::Error::other)?;
            self.outbox.put_u8(b'Q');
            self.outbox.put_i32(length);
            self.outbox.put_slice(&sql);
            self.outbox.put_u8(0);
        } else {
            frontend::query(sql, &mut self.outbox)?;
        }
        let Err(error) = self.send().await else { return Ok(()) };
        // Who closed the session said why first.
        let said = tokio::time::timeout(FAREWELL, self.last_words()).await.ok().flatten();
        Err(said.unwrap_or_else(|| error.into()))
    }

    /// Why a session was closed that takes nothing more.
    async fn last_words(&mut self) -> Option<sqlx::Error> {
        loop {
            if let Message::ErrorResponse(body) = self.message().await.ok()? {
                return server_error(&body).ok();
            }
        }
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.outbox).await?;
        self.stream.flush().await
    }

    /// The next message that is not a notice of some kind.
    async fn message(&mut self) -> Result<Message, sqlx::Error> {
        loop {
            if self.inbox.first().is_some_and(|tag| frame(&self.inbox, *tag).is_ok_and(|n| n > Some(self.limit))) {
                return Err(unexpected("a message that is too long"));
            }
            match Message::parse(&mut self.inbox)? {
                Some(Message::NoticeResponse(_) | Message::NotificationResponse(_)) => {}
                Some(Message::ParameterStatus(body)) => {
                    if matches!((body.name(), body.value()), (Ok("server_encoding"), Ok("SQL_ASCII"))) {
                        self.any_bytes = true;
                    }
                }
                Some(message) => return Ok(message),
                None => self.read().await?,
            }
        }
    }

    /// The next message; behind an error of the server, that error when the connection ends: a server that closes a
    /// session says why first.
    async fn after(&mut self, refused: &mut Option<sqlx::Error>) -> Result<Message, sqlx::Error> {
        self.message().await.map_err(|error| refused.take().unwrap_or(error))
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.inbox.capacity() - self.inbox.len() < INBOX_BYTES / 4 {
            // Moves what is left to the front, where that is enough.
            self.inbox.reserve(INBOX_BYTES / 2);
        }
        match self.stream.read_buf(&mut (&mut self.inbox).limit(INBOX_BYTES)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Length of the content of the message at the front, if it is one of this tag and its header is there.
fn frame(inbox: &[u8], tag: u8) -> Result<Option<usize>, sqlx::Error> {
    let [first, a, b, c, d, ..] = inbox else { return Ok(None) };
    if *first != tag {
        return Ok(None);
    }
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    // The length counts itself.
    let content = length.checked_sub(4).ok_or_else(|| unexpected("a message of no length"))?;
    Ok(Some(content as usize))
}

fn texts(row: &DataRowBody, any_bytes: bool) -> Result<Vec<Option<String>>, sqlx::Error> {
    let text = |bytes: &[u8]| {
        if any_bytes {
            return Ok(names::from_bytes(bytes));
        }
        // A name in a catalog that databases of several encodings share.
        let strange =
            |_| unexpected(&format!("text that is not in its encoding: `{}`", String::from_utf8_lossy(bytes)));
        String::from_utf8(bytes.to_vec()).map_err(strange)
    };
    let mut ranges = row.ranges();
    let mut out = Vec::new();
    while let Some(range) = ranges.next()? {
        out.push(range.map(|range| text(&row.buffer()[range])).transpose()?);
    }
    Ok(out)
}

fn unexpected(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[derive(Default)]
    struct Seen {
        now: Vec<u8>,
        messages: Vec<Vec<u8>>,
        largest_piece: usize,
    }

    impl CopySink for Seen {
        type Error = Infallible;

        fn piece(&mut self, bytes: &[u8]) {
            self.largest_piece = self.largest_piece.max(bytes.len());
            self.now.extend_from_slice(bytes);
        }

        fn message_ends(&mut self) {
            self.messages.push(std::mem::take(&mut self.now));
        }

        async fn drain(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), content].concat()
    }

    /// A server that sends `answer`, in writes of `size` bytes, whatever it is asked.
    async fn asked(answer: Vec<u8>, size: usize) -> (Result<u64, CopyError<Infallible>>, Seen, bool) {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let server = tokio::spawn(async move {
            for bytes in answer.chunks(size) {
                if theirs.write_all(bytes).await.is_err() {
                    break;
                }
            }
        });
        let (mut wire, mut seen) = (Wire::new(Box::new(ours)), Seen::default());
        let rows = wire.copy_out("COPY t TO STDOUT", &mut seen).await;
        server.await.unwrap();
        (rows, seen, wire.broken)
    }

    fn copy(rows: &[&[u8]], tag: &[u8]) -> Vec<u8> {
        let mut out = message(b'H', &[0, 0, 0]);
        for row in rows {
            out.extend(message(b'd', row));
            out.extend(message(b'N', b"SNOTICE\0\0"));
        }
        out.extend(message(b'c', b""));
        out.extend(message(b'C', tag));
        out.extend(message(b'Z', b"I"));
        out
    }

    #[tokio::test]
    async fn rows_are_framed_however_the_bytes_come() {
        let large = vec![7; 16 * INBOX_BYTES];
        let rows: [&[u8]; 4] = [b"one\n", b"", &large, b"last\n"];
        for size in [1000, 4096, 100_003, 10_000_000] {
            let (count, seen, broken) = asked(copy(&rows, b"COPY 4\0"), size).await;
            assert_eq!(count.unwrap(), 4);
            assert_eq!(seen.messages, rows, "writes of {size}");
            assert!(seen.largest_piece <= large.len() / 4 && !broken);
        }
        let small = copy(&[b"a\n", b"bc\n"], b"COPY 2\0");
        let (count, seen, _) = asked(small, 1).await;
        assert_eq!((count.unwrap(), seen.messages), (2, vec![b"a\n".to_vec(), b"bc\n".to_vec()]));
    }

    #[tokio::test]
    async fn a_cut_connection_and_a_server_that_gives_up_are_errors() {
        let whole = copy(&[b"a\n", b"b\n"], b"COPY 2\0");
        for end in 0..whole.len() {
            let (count, _, broken) = asked(whole[..end].to_vec(), 7).await;
            assert!(matches!(count, Err(CopyError::Driver(sqlx::Error::Io(_)))), "{end}: {count:?}");
            assert!(broken);
        }
        let mut failed = message(b'H', &[0, 0, 0]);
        failed.extend(message(b'd', b"a\n"));
        failed.extend(message(b'E', b"SERROR\0C57014\0Mcanceled\0\0"));
        failed.extend(message(b'Z', b"E"));
        let (count, _, broken) = asked(failed, 9).await;
        let Err(CopyError::Driver(error)) = count else { panic!("{count:?}") };
        assert_eq!(super::super::error::sql_state(&error).as_deref(), Some("57014"));
        assert!(!broken, "the server's own error leaves the session usable");
    }
}

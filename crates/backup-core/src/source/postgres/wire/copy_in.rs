//! `COPY … FROM STDIN`: rows on their way to the server.
//!
//! The driver sends rows and their end in two writes, on a socket that holds the second back until the server has
//! acknowledged the first, which it takes 40 ms for: nothing for a large table, everything for thousands of small ones.
//! Here what is small goes in one write, and statements that come before the COPY go with it.

use bytes::BufMut as _;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::error::server_error;
use super::{Wire, unexpected};

/// Rows in one message, at most; so much may wait to be sent.
const MESSAGE_BYTES: usize = 128 * 1024;

impl Wire {
    /// Runs statements of which the last is a `COPY … FROM STDIN`, up to where the server waits for rows. After an error
    /// of the server the session can be used again.
    pub(in super::super) async fn copy_in(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.begin(sql).await?;
        let mut refused = None;
        loop {
            match self.after(&mut refused).await? {
                Message::CopyInResponse(_) if refused.is_none() => return Ok(()),
                Message::ErrorResponse(body) => refused = Some(server_error(&body)?),
                Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                Message::ReadyForQuery(_) => {
                    self.broken = false;
                    return Err(refused.unwrap_or_else(|| unexpected("no request for rows")));
                }
                _ => return Err(unexpected("an answer that is no COPY")),
            }
        }
    }

    /// Sends rows, some of them perhaps not before [`Wire::copied_in`]. A dropped session instead of that undoes them.
    pub(in super::super) async fn send_rows(&mut self, rows: &[u8]) -> Result<(), sqlx::Error> {
        for piece in rows.chunks(MESSAGE_BYTES) {
            self.outbox.put_u8(b'd');
            self.outbox.put_u32(u32::try_from(piece.len() + 4).unwrap_or(u32::MAX));
            self.outbox.put_slice(piece);
            if self.outbox.len() >= MESSAGE_BYTES {
                self.pass_on().await?;
            }
        }
        Ok(())
    }

    /// Ends the rows; gives how many the server says it took.
    pub(in super::super) async fn copied_in(&mut self) -> Result<u64, sqlx::Error> {
        frontend::copy_done(&mut self.outbox);
        self.pass_on().await?;
        let (mut rows, mut refused) = (None, None);
        loop {
            match self.after(&mut refused).await? {
                Message::CommandComplete(body) => {
                    rows = body.tag()?.strip_prefix("COPY ").and_then(|count| count.parse().ok());
                }
                Message::ErrorResponse(body) => refused = Some(server_error(&body)?),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        self.broken = false;
        match refused {
            Some(refused) => Err(refused),
            None => rows.ok_or_else(|| unexpected("no count of rows")),
        }
    }

    /// A server that closes a session while we write has said why before.
    async fn pass_on(&mut self) -> Result<(), sqlx::Error> {
        let Err(error) = self.send().await else { return Ok(()) };
        match self.message().await {
            Ok(Message::ErrorResponse(body)) => Err(server_error(&body)?),
            _ => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn message(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), content].concat()
    }

    /// Loads `rows` from a server that answers `first` to the statements and `last` to the end of the rows; gives what
    /// came of it, what the server was sent, and in how many reads.
    async fn loaded(rows: &[u8], first: Vec<u8>, last: Vec<u8>) -> (Result<u64, sqlx::Error>, Vec<u8>, usize, bool) {
        let (ours, mut theirs) = tokio::io::duplex(16 << 20);
        let server = tokio::spawn(async move {
            let mut sent = vec![0; 1000];
            let asked = theirs.read(&mut sent).await.unwrap();
            theirs.write_all(&first).await.unwrap();
            sent.clear();
            let mut reads = 0;
            while !sent.ends_with(&message(b'c', b"")) && theirs.read_buf(&mut sent).await.unwrap() > 0 {
                reads += 1;
            }
            theirs.write_all(&last).await.unwrap();
            assert!(asked > 0);
            (sent, reads)
        });
        let mut wire = Wire::new(Box::new(ours));
        let outcome = async {
            wire.copy_in("BEGIN; COPY t FROM STDIN").await?;
            wire.send_rows(rows).await?;
            wire.copied_in().await
        };
        let outcome = outcome.await;
        let broken = wire.broken;
        drop(wire);
        let (sent, reads) = server.await.unwrap();
        (outcome, sent, reads, broken)
    }

    #[tokio::test]
    async fn few_rows_and_their_end_are_one_write() {
        let asks = [message(b'C', b"BEGIN\0"), message(b'G', &[0, 0, 0])].concat();
        let done = [message(b'C', b"COPY 2\0"), message(b'Z', b"T")].concat();
        let (outcome, sent, reads, broken) = loaded(b"a\nb\n", asks.clone(), done.clone()).await;
        assert_eq!((outcome.unwrap(), reads, broken), (2, 1, false));
        assert_eq!(sent, [message(b'd', b"a\nb\n"), message(b'c', b"")].concat());
        let large = vec![b'x'; 3 * MESSAGE_BYTES + 7];
        let (outcome, sent, _, _) = loaded(&large, asks, done).await;
        assert_eq!(outcome.unwrap(), 2);
        let framed = large.chunks(MESSAGE_BYTES).flat_map(|piece| message(b'd', piece)).collect::<Vec<_>>();
        assert_eq!(sent, [framed, message(b'c', b"")].concat());
    }

    #[tokio::test]
    async fn a_refusal_before_and_behind_the_rows_is_the_servers_error() {
        let refusal = |code: &str| message(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes());
        let state = |outcome: Result<u64, sqlx::Error>| super::super::super::error::sql_state(&outcome.unwrap_err());
        let asks = message(b'G', &[0, 0, 0]);
        let first = [refusal("42P01"), message(b'Z', b"E")].concat();
        let (outcome, _, _, broken) = loaded(b"a\n", first, Vec::new()).await;
        assert_eq!((state(outcome).as_deref(), broken), (Some("42P01"), false));
        let last = [refusal("23514"), message(b'Z', b"E")].concat();
        let (outcome, _, _, broken) = loaded(b"a\n", asks.clone(), last).await;
        assert_eq!((state(outcome).as_deref(), broken), (Some("23514"), false));
        // Cut off without a word, and a count that never comes.
        assert!(loaded(b"a\n", asks.clone(), Vec::new()).await.0.is_err());
        assert!(loaded(b"a\n", asks, message(b'Z', b"T")).await.0.is_err());
    }
}

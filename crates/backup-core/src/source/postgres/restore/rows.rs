//! Streams of rows by number, and the members of a `pg-tables` tar.

use bytes::{Bytes, BytesMut};

use super::error::RestoreError;
use crate::manifest::StreamKind;
use crate::source::{StreamReader, Streams};

/// A stream with its number, so that an error can say which one.
pub(super) struct Numbered {
    number: u32,
    kind: StreamKind,
    reader: Box<dyn StreamReader>,
}

impl Numbered {
    /// Opens a stream.
    pub(super) async fn open(streams: &dyn Streams, number: u32, kind: StreamKind) -> Result<Self, RestoreError> {
        let opened = streams.open(number).await;
        let reader = opened.map_err(|source| RestoreError::Stream { number, kind: kind.word(), source })?;
        Ok(Self { number, kind, reader })
    }

    /// The next bytes; `None` only behind a stream that was whole.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RestoreError> {
        let (number, kind) = (self.number, self.kind.word());
        self.reader.next().await.map_err(|source| RestoreError::Stream { number, kind, source })
    }

    /// The whole stream, refused when over `limit_bytes`.
    pub(super) async fn read_all(mut self, limit_bytes: usize) -> Result<Vec<u8>, RestoreError> {
        let mut out = Vec::new();
        while let Some(bytes) = self.next().await? {
            if out.len() + bytes.len() > limit_bytes {
                let why = format!("it is over {limit_bytes} bytes");
                return Err(RestoreError::Damaged { number: self.number, why });
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }
}

/// Largest member that is taken into memory. The capture puts parts under 1 MiB into tars.
const MEMBER_BYTES: u64 = 64 << 20;
const BLOCK: usize = 512;

/// Reads the members of a `pg-tables` tar one after another.
pub(super) struct TarMembers {
    stream: Numbered,
    buffer: BytesMut,
    ended: bool,
}

impl TarMembers {
    /// Begins at the stream's start.
    pub(super) fn new(stream: Numbered) -> Self {
        Self { stream, buffer: BytesMut::new(), ended: false }
    }

    /// The next member: number and content. `None` behind the last one, when the stream was whole.
    pub(super) async fn next(&mut self) -> Result<Option<(u32, Bytes)>, RestoreError> {
        self.fill(BLOCK).await?;
        if self.buffer.len() < BLOCK || self.buffer[..BLOCK].iter().all(|b| *b == 0) {
            let clean = self.buffer.len() >= BLOCK || self.buffer.is_empty();
            return self.drain(clean).await;
        }
        let header = self.buffer.split_to(BLOCK);
        let header = tar::Header::from_byte_slice(&header);
        let number = self.number(header)?;
        let bytes = header.entry_size().ok().filter(|bytes| *bytes <= MEMBER_BYTES);
        let bytes = bytes.ok_or_else(|| self.damaged(format!("member {number} has no sensible size")))?;
        let length = usize::try_from(bytes).map_err(|_| self.damaged(format!("member {number} is too large")))?;
        let padded = length.next_multiple_of(BLOCK);
        self.fill(padded).await?;
        if self.buffer.len() < padded {
            return Err(self.damaged(format!("it ends inside member {number}")));
        }
        let mut content = self.buffer.split_to(padded);
        content.truncate(length);
        Ok(Some((number, content.freeze())))
    }

    fn number(&self, header: &tar::Header) -> Result<u32, RestoreError> {
        let sum: u32 = header.as_bytes().iter().enumerate().fold(0, |sum, (at, byte)| {
            // The field that holds the sum counts as spaces.
            sum + u32::from(if (148..156).contains(&at) { b' ' } else { *byte })
        });
        let path = header.path_bytes();
        let number = std::str::from_utf8(&path).ok().and_then(|path| path.strip_suffix(".copy"));
        let number = number.filter(|digits| digits.len() == 8).and_then(|digits| digits.parse().ok());
        match number {
            Some(number) if header.cksum().ok() == Some(sum) && header.entry_type().is_file() => Ok(number),
            _ => Err(self.damaged("it holds something that is not a numbered COPY file".to_owned())),
        }
    }

    /// The end of a stream counts only when its reader says so: everything behind the last member is read.
    async fn drain(&mut self, clean: bool) -> Result<Option<(u32, Bytes)>, RestoreError> {
        while !self.ended {
            self.buffer.clear();
            self.fill(1).await?;
        }
        if clean { Ok(None) } else { Err(self.damaged("it ends inside a header".to_owned())) }
    }

    async fn fill(&mut self, wanted: usize) -> Result<(), RestoreError> {
        while self.buffer.len() < wanted && !self.ended {
            match self.stream.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    fn damaged(&self, why: String) -> RestoreError {
        RestoreError::Damaged { number: self.stream.number, why }
    }
}

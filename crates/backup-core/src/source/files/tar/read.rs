//! Headers, read: exactly what `write.rs` writes, and nothing else.
//!
//! After an entry is read it is written again and the bytes are compared. So there is one spelling per entry, and
//! whatever this reader overlooked (a field twice, garbage after a NUL, another number format) is refused as well.

use std::io::{self, Read};

use super::{BLOCK, Entry, Mtime, PAX_BYTES, TarError, encode, padding};
use crate::manifest::PathKind;

/// What comes next in an archive.
#[derive(Debug)]
pub(in super::super) enum Item {
    /// An entry; its content and padding follow.
    Entry(Box<Entry>),
    /// A zero block: the first of those that end an archive.
    Zero,
    /// The bytes end, cleanly between two entries.
    End,
}

/// Reads entries off a stream of bytes. Between two calls of [`Reader::next_item`] the caller reads the content.
pub(in super::super) struct Reader<R> {
    inner: R,
}

impl<R: Read> Reader<R> {
    pub(in super::super) fn new(inner: R) -> Self {
        Self { inner }
    }

    /// The next header.
    pub(in super::super) fn next_item(&mut self) -> Result<Item, TarError> {
        let Some(mut block) = self.block()? else { return Ok(Item::End) };
        if block == [0; BLOCK] {
            return Ok(Item::Zero);
        }
        let mut seen = block.to_vec();
        let mut records = Vec::new();
        if block[156] == b'x' {
            let size = octal(&block[124..136])?;
            if size == 0 || size > PAX_BYTES {
                return Err(TarError::Refused("the size of an extended header"));
            }
            let padded = size + padding(size) as u64;
            let start = seen.len();
            let read = (&mut self.inner).take(padded).read_to_end(&mut seen).map_err(TarError::Read)?;
            if read as u64 != padded {
                return Err(TarError::Truncated);
            }
            records = parse_records(&seen[start..seen.len() - padding(size)])?;
            block = self.block()?.ok_or(TarError::Truncated)?;
            seen.extend(block);
        }
        let entry = parse_header(&block, records)?;
        if encode(&entry)? != seen {
            return Err(TarError::Refused("a header that is spelt differently"));
        }
        Ok(Item::Entry(Box::new(entry)))
    }

    /// Content of the entry just read: up to `buffer`'s length.
    pub(in super::super) fn content(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Read(error),
        })
    }

    /// The zero bytes after content of this length.
    pub(in super::super) fn pad(&mut self, bytes: u64) -> Result<(), TarError> {
        let mut block = [0; BLOCK];
        let filler = &mut block[..padding(bytes)];
        self.content(filler)?;
        if filler.iter().any(|b| *b != 0) {
            return Err(TarError::Refused("bytes other than zero after a content"));
        }
        Ok(())
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok(Some(block))
    }
}

fn octal(field: &[u8]) -> Result<u64, TarError> {
    let (last, digits) = field.split_last().ok_or(TarError::Refused("an empty field"))?;
    if *last != 0 || !digits.iter().all(|b| (b'0'..=b'7').contains(b)) {
        return Err(TarError::Refused("a number that is not octal"));
    }
    // At most eleven octal digits: 33 bits.
    Ok(digits.iter().fold(0, |value, digit| value * 8 + u64::from(digit - b'0')))
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|b| *b == 0).next().unwrap_or(field).to_vec()
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn parse_records(mut rest: &[u8]) -> Result<Records, TarError> {
    const REFUSED: TarError = TarError::Refused("a record of an extended header");
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().take(12).position(|b| *b == b' ').ok_or(REFUSED)?;
        let length: usize = str::from_utf8(&rest[..space]).ok().and_then(|t| t.parse().ok()).ok_or(REFUSED)?;
        let (record, after) = rest.split_at_checked(length).ok_or(REFUSED)?;
        let body = record.get(space + 1..).and_then(|b| b.strip_suffix(b"\n")).ok_or(REFUSED)?;
        let equals = body.iter().position(|b| *b == b'=').ok_or(REFUSED)?;
        records.push((body[..equals].to_vec(), body[equals + 1..].to_vec()));
        rest = after;
    }
    Ok(records)
}

fn parse_header(block: &[u8; BLOCK], records: Records) -> Result<Entry, TarError> {
    let kind = match block[156] {
        b'0' => PathKind::File,
        b'1' => PathKind::Hardlink,
        b'2' => PathKind::Symlink,
        b'5' => PathKind::Dir,
        b'6' => PathKind::Fifo,
        other => return Err(TarError::Type(other)),
    };
    let number = |from: usize, to: usize| octal(&block[from..to]);
    let small = |from, to| u32::try_from(number(from, to)?).map_err(|_| TarError::Refused("a number too large"));
    let mut path = text(&block[345..500]);
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend(text(&block[0..100]));
    let seconds = i64::try_from(number(136, 148)?).map_err(|_| TarError::Refused("a time too large"))?;
    let mut entry = Entry {
        path,
        kind,
        bytes: number(124, 136)?,
        mode: small(100, 108)?,
        uid: small(108, 116)?,
        gid: small(116, 124)?,
        mtime: Mtime { seconds, nanos: 0 },
        link: text(&block[157..257]),
        xattrs: Vec::new(),
    };
    for (key, value) in records {
        apply(&mut entry, &key, value).ok_or(TarError::Refused("a record of an extended header"))?;
    }
    if kind == PathKind::Dir && entry.path.pop() != Some(b'/') {
        return Err(TarError::Refused("a directory without `/` at its end"));
    }
    Ok(entry)
}

/// `None`: a key or a value that is never written.
fn apply(entry: &mut Entry, key: &[u8], value: Vec<u8>) -> Option<()> {
    let text = |value: &[u8]| str::from_utf8(value).ok().map(str::to_owned);
    match key {
        b"path" => entry.path = value,
        b"linkpath" => entry.link = value,
        b"size" => entry.bytes = text(&value)?.parse().ok()?,
        b"uid" => entry.uid = text(&value)?.parse().ok()?,
        b"gid" => entry.gid = text(&value)?.parse().ok()?,
        b"mtime" => entry.mtime = Mtime::parse(&text(&value)?)?,
        _ => {
            let spelt = key.strip_prefix(b"SCHILY.xattr.")?;
            let mut name = Vec::with_capacity(spelt.len());
            let mut rest = spelt;
            while let Some((byte, after)) = rest.split_first() {
                let escaped = [(&b"%25"[..], b'%'), (b"%3D", b'=')].into_iter().find(|(e, _)| rest.starts_with(e));
                name.push(escaped.map_or(*byte, |(_, plain)| plain));
                rest = if escaped.is_some() { &rest[3..] } else { after };
            }
            entry.xattrs.push((name, value));
        }
    }
    Some(())
}

//! Rows in the bytes of a COPY file: where each begins and ends, counted and fingerprinted, in text and in binary.
//!
//! Capture, restore and verification all sum rows here, so that they cannot differ in what a row is. Bytes come cut
//! anywhere; a row that is not whole yet is hashed as it comes, never kept.
//!
//! Text: a line feed is always the end of a row; one inside a value is written as `\n`, and none of PostgreSQL's
//! encodings has it as part of a longer character. Binary: a header, then tuples that name their lengths, then a mark.

use std::fmt;
use std::io::BufRead as _;

use super::instants;

use crate::fingerprint::{RowPieces, RowSum};

/// How COPY writes rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RowFormat {
    /// Lines of text; every type has it.
    #[default]
    Text,
    /// Values as the server's `…send` functions give them.
    Binary,
    /// Text whose instants may be written in any time zone, as an imported dump has it: they are summed as instants.
    Dump,
}

impl RowFormat {
    /// The word in a manifest and in COPY's `FORMAT`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Dump => "dump",
        }
    }

    /// Reads a manifest's word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Text, Self::Binary, Self::Dump].into_iter().find(|format| format.word() == word)
    }
}

impl fmt::Display for RowFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Signature, flags and length of the header's extension, of which there are none: what every binary file begins with.
const BINARY_HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Sums rows as their bytes pass by.
#[derive(Debug)]
pub(super) struct RowSplitter {
    at: At,
    columns: usize,
    sum: RowSum,
}

/// Where the next byte stands.
#[derive(Debug)]
enum At {
    /// Before a row of text, or in it.
    Line(Option<RowPieces>),
    /// The same of a dump's text: a row is kept until it is whole.
    Dump(Vec<u8>),
    /// In the header of a binary file, behind so many of its bytes.
    Header(usize),
    /// Before a tuple.
    Tuple,
    /// In a tuple that was cut.
    InTuple(Box<Cut>),
    /// Behind the mark that ends a binary file.
    End,
    /// These bytes are no COPY file.
    Malformed,
}

/// A binary tuple that is not whole yet.
#[derive(Debug, Default)]
struct Cut {
    pieces: RowPieces,
    /// Bytes of a number that is not whole yet.
    number: Vec<u8>,
    /// Fields to come, once their number is known.
    fields: Option<usize>,
    /// Bytes of the current field to come.
    value_bytes: usize,
}

/// What stands at the start of bytes that begin with a tuple.
enum Tuple {
    /// A tuple of so many bytes.
    Whole(usize),
    /// The mark that ends the file.
    EndMark,
    /// More bytes are needed to know.
    Cut,
    Malformed,
}

impl RowSplitter {
    /// For a file of this format whose rows have so many columns.
    pub(super) fn new(format: RowFormat, columns: usize) -> Self {
        let at = match format {
            RowFormat::Text => At::Line(None),
            RowFormat::Binary => At::Header(0),
            RowFormat::Dump => At::Dump(Vec::new()),
        };
        Self { at, columns, sum: RowSum::default() }
    }

    /// Rows that have ended so far.
    pub(super) fn rows(&self) -> u64 {
        self.sum.rows
    }

    /// Whether the last byte ended a row (or a binary file's header or end).
    pub(super) fn between_rows(&self) -> bool {
        match &self.at {
            At::Line(begun) => begun.is_none(),
            At::Dump(begun) => begun.is_empty(),
            At::Header(seen) => *seen == 0,
            At::Tuple | At::End => true,
            At::InTuple(_) | At::Malformed => false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.feed_each(bytes, |_| {});
    }

    /// The same, telling the hash of each row that ends.
    pub(super) fn feed_each(&mut self, mut bytes: &[u8], mut row: impl FnMut(u128)) {
        while !bytes.is_empty() {
            let before = self.sum;
            bytes = match &mut self.at {
                At::Line(begun) => line(begun, &mut self.sum, bytes),
                At::Dump(begun) => dump_line(begun, &mut self.sum, bytes),
                At::Header(seen) => {
                    let rest = &BINARY_HEADER[*seen..];
                    let now = rest.len().min(bytes.len());
                    *seen += now;
                    if bytes[..now] != rest[..now] {
                        self.at = At::Malformed;
                    } else if *seen == BINARY_HEADER.len() {
                        self.at = At::Tuple;
                    }
                    &bytes[now..]
                }
                At::Tuple => match tuple(bytes, self.columns) {
                    Tuple::Whole(length) => {
                        self.sum.add(&bytes[..length]);
                        &bytes[length..]
                    }
                    Tuple::EndMark => {
                        self.at = At::End;
                        &bytes[2..]
                    }
                    Tuple::Cut => {
                        self.at = At::InTuple(Box::default());
                        bytes
                    }
                    Tuple::Malformed => {
                        self.at = At::Malformed;
                        bytes
                    }
                },
                At::InTuple(cut) => {
                    let (rest, then) = cut.feed(bytes, self.columns);
                    match then {
                        Then::More => {}
                        Then::Whole => {
                            self.sum.add_pieces(&cut.pieces);
                            self.at = At::Tuple;
                        }
                        Then::EndMark => self.at = At::End,
                        Then::Malformed => self.at = At::Malformed,
                    }
                    rest
                }
                At::End => {
                    self.at = At::Malformed;
                    bytes
                }
                At::Malformed => return,
            };
            if self.sum.rows != before.rows {
                row(self.sum.fingerprint.0.wrapping_sub(before.fingerprint.0));
            }
        }
    }

    /// The sum; `None` when the bytes were not a whole file of this format and these columns.
    pub(super) fn finish(self) -> Option<RowSum> {
        let whole = match &self.at {
            At::Line(None) | At::End => true,
            At::Dump(begun) => begun.is_empty(),
            _ => false,
        };
        whole.then_some(self.sum)
    }
}

/// Takes a line of text, or a piece of it, and gives the bytes behind.
fn line<'a>(begun: &mut Option<RowPieces>, sum: &mut RowSum, bytes: &'a [u8]) -> &'a [u8] {
    let mut cursor = bytes;
    // Reading from memory cannot fail; the standard library's search is a fast one.
    let taken = cursor.skip_until(b'\n').unwrap_or(bytes.len());
    let (head, tail) = bytes.split_at(taken);
    match (head.strip_suffix(b"\n"), begun.take()) {
        (None, pieces) => {
            let mut pieces = pieces.unwrap_or_default();
            pieces.feed(head);
            *begun = Some(pieces);
        }
        (Some(row), None) => sum.add(row),
        (Some(row), Some(mut pieces)) => {
            pieces.feed(row);
            sum.add_pieces(&pieces);
        }
    }
    tail
}

/// The same for a dump's text.
fn dump_line<'a>(begun: &mut Vec<u8>, sum: &mut RowSum, bytes: &'a [u8]) -> &'a [u8] {
    let mut cursor = bytes;
    let taken = cursor.skip_until(b'\n').unwrap_or(bytes.len());
    let (head, tail) = bytes.split_at(taken);
    match head.strip_suffix(b"\n") {
        None => begun.extend_from_slice(head),
        Some(row) if begun.is_empty() => sum.add(&instants::normal(row)),
        Some(row) => {
            begun.extend_from_slice(row);
            sum.add(&instants::normal(begun));
            begun.clear();
        }
    }
    tail
}

/// Measures the tuple at the start of `bytes`.
fn tuple(bytes: &[u8], columns: usize) -> Tuple {
    let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else { return Tuple::Cut };
    match fields(*count, columns) {
        Some(_) => {}
        None if i16::from_be_bytes(*count) == -1 => return Tuple::EndMark,
        None => return Tuple::Malformed,
    }
    for _ in 0..columns {
        let Some((length, behind)) = rest.split_first_chunk::<4>() else { return Tuple::Cut };
        let Some(length) = value(*length) else { return Tuple::Malformed };
        let Some(behind) = behind.get(length..) else { return Tuple::Cut };
        rest = behind;
    }
    Tuple::Whole(bytes.len() - rest.len())
}

/// A tuple's number of fields, when it is the right one.
fn fields(count: [u8; 2], columns: usize) -> Option<usize> {
    usize::try_from(i16::from_be_bytes(count)).ok().filter(|count| *count == columns)
}

/// Bytes of a value; -1 stands for NULL, which has none.
fn value(length: [u8; 4]) -> Option<usize> {
    match i32::from_be_bytes(length) {
        -1 => Some(0),
        length => usize::try_from(length).ok(),
    }
}

enum Then {
    More,
    Whole,
    EndMark,
    Malformed,
}

impl Cut {
    /// Takes bytes up to the end of the tuple at most; gives the rest.
    fn feed<'a>(&mut self, mut bytes: &'a [u8], columns: usize) -> (&'a [u8], Then) {
        loop {
            if self.value_bytes > 0 {
                let (now, rest) = bytes.split_at(self.value_bytes.min(bytes.len()));
                self.pieces.feed(now);
                self.value_bytes -= now.len();
                bytes = rest;
            }
            if self.value_bytes == 0 && self.fields == Some(0) {
                return (bytes, Then::Whole);
            }
            if bytes.is_empty() {
                return (bytes, Then::More);
            }
            let wanted = if self.fields.is_none() { 2 } else { 4 };
            let (now, rest) = bytes.split_at((wanted - self.number.len()).min(bytes.len()));
            self.number.extend_from_slice(now);
            bytes = rest;
            if self.number.len() < wanted {
                return (bytes, Then::More);
            }
            self.pieces.feed(&self.number);
            let number = std::mem::take(&mut self.number);
            match (<[u8; 2]>::try_from(&number[..]), <[u8; 4]>::try_from(&number[..])) {
                (Ok(count), _) => match fields(count, columns) {
                    Some(count) => self.fields = Some(count),
                    None if i16::from_be_bytes(count) == -1 => return (bytes, Then::EndMark),
                    None => return (bytes, Then::Malformed),
                },
                (_, Ok(length)) => match value(length) {
                    Some(length) => {
                        self.value_bytes = length;
                        self.fields = self.fields.map(|fields| fields - 1);
                    }
                    None => return (bytes, Then::Malformed),
                },
                _ => return (bytes, Then::Malformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&[u8]]) -> RowSum {
        let mut sum = RowSum::default();
        for row in rows {
            sum.add(row);
        }
        sum
    }

    fn split(format: RowFormat, columns: usize, bytes: &[u8], size: usize) -> Option<RowSum> {
        let mut splitter = RowSplitter::new(format, columns);
        for chunk in bytes.chunks(size) {
            splitter.feed(chunk);
        }
        splitter.finish()
    }

    fn encode(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = i16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            out.extend(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()).to_be_bytes());
            out.extend(value.unwrap_or_default());
        }
        out
    }

    fn binary(tuples: &[Vec<u8>]) -> Vec<u8> {
        [&BINARY_HEADER[..], &tuples.concat(), &[0xff, 0xff]].concat()
    }

    #[test]
    fn rows_of_text_are_the_same_however_the_bytes_are_cut() {
        let text = b"a\tb\n\n\\N\\n\tc\nlast\n";
        let whole = sum(&[b"a\tb", b"", b"\\N\\n\tc", b"last"]);
        for size in 1..=text.len() {
            assert_eq!(split(RowFormat::Text, 2, text, size), Some(whole), "pieces of {size}");
        }
        assert_eq!(split(RowFormat::Text, 2, &text[..text.len() - 1], 100), None);
    }

    #[test]
    fn rows_of_binary_are_the_same_however_the_bytes_are_cut() {
        let tuples = [
            encode(&[Some(b"one"), None, Some(b"")]),
            encode(&[None, None, None]),
            encode(&[Some(b"\n"), None, Some(&[9; 40])]),
        ];
        let file = binary(&tuples);
        let whole = sum(&tuples.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for size in 1..=file.len() {
            assert_eq!(split(RowFormat::Binary, 3, &file, size), Some(whole), "pieces of {size}");
            for end in 0..file.len() {
                assert_eq!(split(RowFormat::Binary, 3, &file[..end], size), None, "cut at {end}");
            }
        }
        assert_eq!(split(RowFormat::Binary, 2, &file, 7), None, "another number of columns");
        assert_eq!(split(RowFormat::Binary, 3, &[&file[..], b"x"].concat(), 5), None, "bytes behind the end");
        assert_eq!(split(RowFormat::Binary, 3, b"PGCOPY\r\n", 5), None, "another header");
    }

    #[test]
    fn tables_without_columns_have_rows_in_both_formats() {
        let tuples = [encode(&[]), encode(&[])];
        for size in 1..20 {
            assert_eq!(split(RowFormat::Binary, 0, &binary(&tuples), size).map(|sum| sum.rows), Some(2));
            assert_eq!(split(RowFormat::Text, 0, b"\n\n\n", size).map(|sum| sum.rows), Some(3));
        }
    }
}

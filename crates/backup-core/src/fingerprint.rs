//! Row fingerprints: a sum that tells whether two tables hold the same rows, whatever their physical order.
//!
//! Each row's bytes are hashed by XXH3-128 (seed 0) and the hashes added modulo 2^128. Adding is commutative, so parts
//! can be summed on their own and merged; two equal rows add twice, so multiplicity counts. It detects accidents, not
//! forgers: authenticity is the manifest's SHA-256 and signature.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::id::IdError;

/// Number of rows and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowSum {
    /// Rows added so far.
    pub rows: u64,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
}

impl RowSum {
    /// Adds one row, given as its bytes in the COPY format that the manifest names: of text without the line's end, of
    /// binary the whole tuple.
    pub fn add(&mut self, row: &[u8]) {
        self.add_hash(xxh3_128(row));
    }

    /// Adds one row that came in pieces.
    pub fn add_pieces(&mut self, row: &RowPieces) {
        self.add_hash(row.0.digest128());
    }

    fn add_hash(&mut self, hash: u128) {
        self.rows += 1;
        self.fingerprint.0 = self.fingerprint.0.wrapping_add(hash);
    }

    /// Adds the rows of another part of the same table.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.fingerprint.0 = self.fingerprint.0.wrapping_add(other.fingerprint.0);
    }
}

/// A row whose bytes come in pieces, so that the largest row needs no more memory than the smallest.
#[derive(Clone, Default)]
pub struct RowPieces(Box<Xxh3>);

impl RowPieces {
    /// Takes the next bytes of the row.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl fmt::Debug for RowPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowPieces")
    }
}

/// Sum modulo 2^128 of the rows' XXH3-128, written as 32 lower-case hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint(pub u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let ok = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let value = ok.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        value
            .map(Self)
            .ok_or_else(|| IdError { text: text.to_owned(), expected: "a fingerprint of 32 lower-case hex digits" })
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(value: Fingerprint) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_but_multiplicity_does() {
        let sum = |rows: &[&[u8]]| {
            let mut sum = RowSum::default();
            for row in rows {
                sum.add(row);
            }
            sum
        };
        assert_eq!(sum(&[b"a", b"b"]), sum(&[b"b", b"a"]));
        assert_ne!(sum(&[b"a", b"a"]), sum(&[b"b", b"b"]));
        assert_ne!(sum(&[b"a"]), sum(&[b"a", b"a"]));
        let mut left = sum(&[b"a"]);
        left.merge(&sum(&[b"b"]));
        assert_eq!(left, sum(&[b"a", b"b"]));
        let (mut pieces, mut sum_of_pieces) = (RowPieces::default(), RowSum::default());
        for piece in [&b"a lon"[..], b"", b"ger row"] {
            pieces.feed(piece);
        }
        sum_of_pieces.add_pieces(&pieces);
        assert_eq!(sum_of_pieces, sum(&[b"a longer row"]));
        assert_eq!("00000000000000000000000000000000".parse(), Ok(Fingerprint(0)));
    }
}

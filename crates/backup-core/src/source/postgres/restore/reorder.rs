//! The fingerprint that captured rows would have with their columns in another order.
//!
//! Partitions of one tree may have their columns in different orders, and each was captured in its own. Where rows had
//! to be loaded through the root of the tree, only the tree as a whole can be compared, and that has one order: the
//! captured rows are read again and their fields put into it.

use super::error::RestoreError;
use super::rows::{Numbered, TarMembers};
use crate::fingerprint::RowSum;
use crate::manifest::{StreamKind, TableEntry};
use crate::source::Streams;

/// Reads the parts of a table in COPY's text format and sums their rows with the fields in the order of `columns`.
pub(super) async fn sum(entry: &TableEntry, columns: &[String], streams: &dyn Streams) -> Result<RowSum, RestoreError> {
    let table = format!("`{}.{}`", entry.schema, entry.name);
    let places = places(&entry.columns, columns).filter(|_| entry.format == "text");
    let why = || format!("{table} has other columns than the rest of its partition tree and cannot be compared there");
    let mut rows =
        Reordered { places: places.ok_or_else(|| RestoreError::Manifest { why: why() })?, ..Reordered::default() };
    for part in &entry.parts {
        let Some(wanted) = part.member else {
            let mut stream = Numbered::open(streams, part.stream, StreamKind::PgTable).await?;
            while let Some(bytes) = stream.next().await? {
                rows.feed(&bytes);
            }
            continue;
        };
        let mut members = TarMembers::new(Numbered::open(streams, part.stream, StreamKind::PgTables).await?);
        while let Some((member, bytes)) = members.next().await? {
            if member == wanted {
                rows.feed(&bytes);
            }
        }
    }
    // The loader has seen these bytes before and refuses rows without an end or with other fields.
    Ok(rows.sum)
}

/// For each wanted column, where it is among `have`; `None` unless both are the same columns.
fn places(have: &[String], wanted: &[String]) -> Option<Vec<usize>> {
    let found = wanted.iter().map(|name| have.iter().position(|other| other == name));
    (have.len() == wanted.len()).then(|| found.collect()).flatten()
}

#[derive(Default)]
struct Reordered {
    places: Vec<usize>,
    begun: Vec<u8>,
    sum: RowSum,
}

impl Reordered {
    /// Takes the next bytes. In this format a line feed ends a row and a tab ends a field; in values both are escaped.
    fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if let Some(row) = self.begun.strip_suffix(b"\n") {
                let fields: Vec<&[u8]> = row.split(|byte| *byte == b'\t').collect();
                let row: Vec<&[u8]> = self.places.iter().filter_map(|place| fields.get(*place).copied()).collect();
                self.sum.add(&row.join(&b'\t'));
                self.begun.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_change_places_and_nothing_else_is_the_same() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let of = |places: Option<Vec<usize>>, text: &[u8]| {
            let mut rows = Reordered { places: places.unwrap(), ..Reordered::default() };
            text.chunks(3).for_each(|chunk| rows.feed(chunk));
            rows.sum
        };
        let turned = of(places(&names("a b c"), &names("c a b")), b"1\t\\N\tx\\ty\n\t\t\n");
        assert_eq!(turned, of(places(&names("c a b"), &names("c a b")), b"x\\ty\t1\t\\N\n\t\t\n"));
        assert_ne!(turned, of(places(&names("a b c"), &names("a b c")), b"1\t\\N\tx\\ty\n\t\t\n"));
        assert_eq!(places(&names("a b"), &names("a c")), None);
        assert_eq!(places(&names("a b"), &names("a")), None);
    }
}

//! Rows back out of tables, for comparison with what was captured.
//!
//! A table's sum says that something differs; how many rows do is counted by hashes in buckets, reading both sides again. Nothing
//! is written, and no row is kept.

use super::super::differing::{Buckets, Differing, Side};
use super::super::error::RestoreError;
use super::super::rows::{Numbered, TarMembers};
use super::super::sql::{ident, qualified};
use super::givers::Giver;
use super::{columns, format_of, splitter};
use crate::fingerprint::RowSum;
use crate::manifest::{StreamKind, TableEntry};
use crate::source::Streams;
use crate::source::postgres::error::PostgresError;

/// Reads a table back as it was captured and sums its rows.
pub(in super::super) async fn read_back<G: Giver>(
    conn: &mut G,
    entry: &TableEntry,
    through: Option<&str>,
) -> Result<RowSum, RestoreError> {
    read_back_each(conn, entry, through, |_| {}).await
}

/// The same, telling the hash of each row.
async fn read_back_each<G: Giver>(
    conn: &mut G,
    entry: &TableEntry,
    through: Option<&str>,
    mut row: impl FnMut(u128) + Send,
) -> Result<RowSum, RestoreError> {
    let what = match through {
        Some(root) => {
            let names: Vec<String> = entry.columns.iter().map(|name| ident(name)).collect();
            format!("(SELECT {} FROM {root})", names.join(", "))
        }
        None => format!("{}{}", qualified(&entry.schema, &entry.name), columns(entry)),
    };
    let sql = format!("COPY {what} TO STDOUT WITH ({})", format_of(entry));
    let failed = |e| PostgresError::during(format!("reading {} back", qualified(&entry.schema, &entry.name)))(e);
    let mut splitter = splitter(entry);
    let counted = conn.give(&sql, |bytes| splitter.feed_each(bytes, &mut row)).await.map_err(failed)?;
    let why = || format!("the server sent half a row of {}", qualified(&entry.schema, &entry.name));
    let whole = splitter.finish().filter(|sum| counted.is_none_or(|counted| counted == sum.rows));
    whole.ok_or_else(|| RestoreError::Manifest { why: why() })
}

/// Reads captured rows again, telling the hash of each.
async fn captured_each(
    streams: &dyn Streams,
    entry: &TableEntry,
    mut row: impl FnMut(u128) + Send,
) -> Result<(), RestoreError> {
    for part in &entry.parts {
        let mut splitter = splitter(entry);
        let Some(wanted) = part.member else {
            let mut stream = Numbered::open(streams, part.stream, StreamKind::PgTable).await?;
            while let Some(bytes) = stream.next().await? {
                splitter.feed_each(&bytes, &mut row);
            }
            continue;
        };
        let mut members = TarMembers::new(Numbered::open(streams, part.stream, StreamKind::PgTables).await?);
        while let Some((member, bytes)) = members.next().await? {
            if member == wanted {
                splitter.feed_each(&bytes, &mut row);
            }
        }
    }
    Ok(())
}

/// How many rows differ between `entries` (of the same columns and format) as captured and what is read back of the first,
/// or of what it went `through`.
pub(in super::super) async fn differing<G: Giver>(
    conn: &mut G,
    entries: &[&TableEntry],
    through: Option<&str>,
    streams: &dyn Streams,
) -> Result<Option<Differing>, RestoreError> {
    let Some(first) = entries.first() else { return Ok(None) };
    let mut buckets = Buckets::new();
    for entry in entries {
        captured_each(streams, entry, |hash| buckets.add(Side::Captured, hash)).await?;
    }
    read_back_each(conn, first, through, |hash| buckets.add(Side::Restored, hash)).await?;
    let mut uneven = buckets.uneven();
    for entry in entries {
        captured_each(streams, entry, |hash| uneven.add(Side::Captured, hash)).await?;
    }
    read_back_each(conn, first, through, |hash| uneven.add(Side::Restored, hash)).await?;
    Ok(Some(uneven.finish()))
}

//! What damaged streams cost, in words of the source.
//!
//! A stream is good as a whole or not at all: a restore compares its SHA-256 and takes nothing from one that differs. So a
//! damaged stream costs everything that it holds. Whose names these are is the source's secret: they are made for the
//! terminal of somebody who has an identity, and never stored.

use std::collections::BTreeSet;

use crate::manifest::{Kept, Manifest, PathKind, StreamKind};
use crate::words::plain;

/// What a manifest costs that cannot be opened.
pub(super) const EVERYTHING: &str = "everything: its description cannot be read";

/// What the streams with these numbers (counted from 1) hold, each thing once.
pub(super) fn of(manifest: &Manifest, bad: &BTreeSet<u32>) -> Vec<String> {
    let mut costs = Vec::new();
    for table in &manifest.tables {
        let streamed = table.parts.iter().any(|part| bad.contains(&part.stream));
        let archived = table.kept == Kept::Archive && bad.iter().any(|number| is_archive(manifest, *number));
        if streamed || archived {
            costs.push(format!("table {}.{} ({} rows)", plain(&table.schema), plain(&table.name), table.rows));
        }
    }
    for number in bad {
        let Some(stream) = usize::try_from(*number).ok().and_then(|at| manifest.streams.get(at.checked_sub(1)?)) else {
            continue;
        };
        match stream.kind {
            StreamKind::PgTable | StreamKind::PgTables => {}
            StreamKind::PgGlobals => costs.push("roles and tablespaces".to_owned()),
            StreamKind::PgArchive => {
                costs.push("the definitions of all tables, views and functions (the pg_dump archive)".to_owned());
            }
            StreamKind::PgDirectory | StreamKind::PgTar | StreamKind::PgScript => {
                costs.push("the whole imported dump".to_owned());
            }
            StreamKind::Output => costs.push("the whole output of the command".to_owned()),
            StreamKind::Tar => {
                let lost = stream.paths.iter().filter(|path| path.kind != PathKind::Dir);
                costs.extend(lost.map(|path| format!("file {}", plain(&path.path))));
            }
        }
    }
    costs
}

fn is_archive(manifest: &Manifest, number: u32) -> bool {
    let stream = usize::try_from(number).ok().and_then(|at| manifest.streams.get(at.checked_sub(1)?));
    stream.is_some_and(|stream| stream.kind == StreamKind::PgArchive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::id::Hash256;
    use crate::manifest::{Part, PathEntry, Stream, TableEntry};

    fn stream(kind: StreamKind, paths: &[&str]) -> Stream {
        let entry = |path: &&str| PathEntry {
            path: (*path).to_owned(),
            kind: PathKind::File,
            bytes: 1,
            sha256: None,
            mode: "0600".into(),
            uid: 0,
            gid: 0,
            mtime: "0.0".into(),
            sparse: false,
        };
        Stream {
            kind,
            bytes: 1,
            sha256: Hash256::of(b""),
            extents: Vec::new(),
            copy: None,
            members: Vec::new(),
            paths: paths.iter().map(entry).collect(),
        }
    }

    fn table(name: &str, kept: Kept, streams: &[u32]) -> TableEntry {
        let part = |stream: &u32| Part {
            stream: *stream,
            member: None,
            blocks: None,
            rows: 1,
            fingerprint: Fingerprint::default(),
        };
        TableEntry {
            schema: "public".into(),
            name: name.into(),
            kept,
            rows: 7,
            bytes: 1,
            fingerprint: Fingerprint::default(),
            format: "text".into(),
            columns: Vec::new(),
            types: Vec::new(),
            encoding: "UTF8".into(),
            parts: streams.iter().map(part).collect(),
        }
    }

    #[test]
    fn a_stream_costs_what_it_holds_and_nothing_else() {
        let manifest = Manifest {
            streams: vec![
                stream(StreamKind::PgArchive, &[]),
                stream(StreamKind::PgTable, &[]),
                stream(StreamKind::PgTable, &[]),
                stream(StreamKind::Tar, &["a", "b\x1b[2J"]),
            ],
            tables: vec![
                table("parts", Kept::Streamed, &[2, 3]),
                table("partitioned", Kept::Archive, &[]),
                table("other", Kept::Streamed, &[3]),
            ],
            ..Manifest::default()
        };
        let of = |bad: &[u32]| of(&manifest, &bad.iter().copied().collect());
        assert_eq!(of(&[2]), ["table public.parts (7 rows)"]);
        assert_eq!(of(&[3]), ["table public.parts (7 rows)", "table public.other (7 rows)"]);
        assert_eq!(of(&[1])[0], "table public.partitioned (7 rows)");
        assert_eq!(of(&[1]).len(), 2);
        // A name is what somebody gave a file: it must not act on a terminal.
        assert_eq!(of(&[4]), ["file a", "file b\\u{1b}[2J"]);
        assert_eq!(of(&[]), [""; 0]);
    }
}

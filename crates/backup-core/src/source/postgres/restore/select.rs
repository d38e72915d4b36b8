//! Restore of single tables: which entries of the archive are taken, and how the rows get from there to where they
//! are missed.
//!
//! All definitions come back, because only the server knows what a table needs (types, functions, sequences, parents):
//! the other tables stay empty. What would fail on empty tables or act outside of the database is left out.

use std::io::Write as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::Selection;
use super::archive::Archive;
use super::error::RestoreError;
use super::sql::{ident, qualified};
use crate::manifest::TableEntry;
use crate::source::postgres::ConnectOptions;

/// Entries after the rows that are left out, by the word in the archive's table of contents.
const WITHOUT: [&str; 7] = [
    "FK CONSTRAINT ",
    "MATERIALIZED VIEW DATA ",
    "EVENT TRIGGER ",
    "PUBLICATION ",
    "PUBLICATION TABLE ",
    "PUBLICATION TABLES IN SCHEMA ",
    "SUBSCRIPTION ",
];

/// Lists for `pg_restore --use-list`; none when everything is taken.
#[derive(Debug, Default)]
pub(super) struct Lists {
    data: Option<NamedTempFile>,
    post_data: Option<String>,
}

impl Lists {
    /// Makes the lists for a selection.
    pub(super) async fn make(archive: &Archive<'_>, only: &Selection) -> Result<Self, RestoreError> {
        let rows = match only {
            Selection::All => return Ok(Self::default()),
            Selection::Table { schema, name } => format!("TABLE DATA {schema} {name} "),
            Selection::Schema(schema) => format!("TABLE DATA {schema} "),
        };
        let all = archive.list(&[]).await?;
        let data = kept(&all, |entry| entry.starts_with("SEQUENCE SET ") || entry.starts_with(&rows));
        let post_data = archive.list(&["--section=post-data"]).await?;
        let post_data = kept(&post_data, |entry| !WITHOUT.iter().any(|word| entry.starts_with(word)));
        Ok(Self { data: Some(file(&data)?), post_data: Some(post_data) })
    }

    pub(super) fn data(&self) -> Option<&Path> {
        self.data.as_ref().map(NamedTempFile::path)
    }

    pub(super) fn post_data(&self) -> Option<&str> {
        self.post_data.as_deref()
    }
}

/// A list in a file, for as long as the value lives.
pub(super) fn file(text: &str) -> Result<NamedTempFile, RestoreError> {
    let write = || {
        let mut file = NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        Ok(file)
    };
    write().map_err(|source| RestoreError::Staging { source })
}

/// The lines whose entry (behind `id; oid oid `) is wanted.
pub(super) fn kept(list: &str, wanted: impl Fn(&str) -> bool) -> String {
    let entry = |line: &str| {
        let (_, rest) = line.split_once("; ")?;
        let rest = rest.split_once(' ')?.1.split_once(' ')?.1;
        Some(wanted(rest))
    };
    let lines = list.lines().filter(|line| !line.starts_with(';') && entry(line) == Some(true));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A shell command that copies a table's rows from the restored database into the live one, on the same server.
pub(super) fn bring_back(on: &ConnectOptions, (restored, live): (&str, &str), entry: &TableEntry) -> String {
    let table = qualified(&entry.schema, &entry.name);
    let columns: Vec<String> = entry.columns.iter().map(|name| ident(name)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    copies(on, (restored, live), &format!("{table}{columns}"))
}

/// `what`: a table, with its columns.
fn copies(on: &ConnectOptions, (restored, live): (&str, &str), what: &str) -> String {
    let shell = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let psql = |database: &str, sql: String| {
        let server = on.with_database(database).shown();
        format!("psql -X -v ON_ERROR_STOP=1 -d {} -c {}", shell(&server), shell(&sql))
    };
    let from = psql(restored, format!("COPY {what} TO STDOUT"));
    format!("{from} | {}", psql(live, format!("COPY {what} FROM STDIN")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_brought_back_on_the_server_that_was_restored_to() {
        let on = ConnectOptions::new("postgres://ops@db.example:5433/x?sslmode=require", None).unwrap();
        let command = copies(&on, ("t3", "it's live"), "public.b");
        let server = "host=db.example port=5433 user=ops";
        assert!(
            command.starts_with(&format!("psql -X -v ON_ERROR_STOP=1 -d '{server} dbname=t3 sslmode=require' -c ")),
            "{command}"
        );
        let live =
            format!("| psql -X -v ON_ERROR_STOP=1 -d '{server} dbname='\\''it\\'\\''s live'\\'' sslmode=require' -c ");
        assert!(command.contains(&live), "{command} {live}");
    }

    #[test]
    fn entries_are_told_apart_by_their_word() {
        let list = ";\n; Selected TOC Entries:\n3356; 0 16395 TABLE DATA public u postgres\n\
                    3370; 0 0 SEQUENCE SET public u_id_seq postgres\n3211; 2606 16401 FK CONSTRAINT public u fk postgres\n";
        let found = kept(list, |entry| entry.starts_with("TABLE DATA public u "));
        assert_eq!(found, "3356; 0 16395 TABLE DATA public u postgres\n");
        let found = kept(list, |entry| !WITHOUT.iter().any(|word| entry.starts_with(word)));
        assert_eq!(found.lines().count(), 2);
    }
}

//! The archive's own table of contents against the plan: every table's rows are in exactly one place.
//!
//! An `--exclude-table-data` that matches nothing is silent in `pg_dump`, and so is a table that it does not see. What
//! `pg_restore -l` prints is the archive's word on what is in it. Entries are matched by oid, never by name: names are
//! printed with line ends replaced. Read line by line; a line's first words are all that is looked at.

use std::collections::BTreeSet;

use super::error::PostgresError;
use super::plan::Table;
use crate::manifest::Kept;

/// What a table of contents says about tables.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Oids of tables whose definition is in the archive.
    definitions: BTreeSet<i64>,
    /// Oids of tables whose rows are in the archive.
    data: BTreeSet<i64>,
    /// Entries of any kind, as the head of the listing says: an empty database has some that are not listed.
    entries: u64,
}

impl Contents {
    /// Takes one line of `pg_restore -l`: `dump id; catalog oid kind schema name owner`.
    pub(super) fn line(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if let Some(count) = text.strip_prefix(";     TOC Entries: ") {
            self.entries = count.trim().parse().unwrap_or(0);
        }
        let Some((id, rest)) = text.split_once("; ") else { return };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return;
        }
        let mut words = rest.splitn(3, ' ');
        let (Some(catalog), Some(Ok(oid)), Some(kind)) =
            (words.next(), words.next().map(str::parse::<i64>), words.next())
        else {
            return;
        };
        if kind.starts_with("TABLE DATA ") {
            self.data.insert(oid);
        } else if catalog == "1259" && kind.starts_with("TABLE ") && !kind.starts_with("TABLE ATTACH ") {
            self.definitions.insert(oid);
        }
    }

    /// Holds the contents against the plan.
    pub(super) fn reconcile(&self, tables: &[Table]) -> Result<(), PostgresError> {
        let mut findings = Vec::new();
        if self.entries == 0 {
            findings.push("the archive has no entries".to_owned());
        }
        let mut planned = BTreeSet::new();
        for table in tables {
            let (oid, shown) = (table.relation.oid, table.relation.shown());
            planned.insert(oid);
            let in_archive = self.data.contains(&oid);
            match table.kept {
                Kept::Streamed if in_archive => {
                    findings.push(format!("rows of table `{shown}` are streamed and in the archive as well"));
                }
                Kept::Excluded if in_archive => {
                    findings.push(format!("rows of table `{shown}` are excluded and in the archive all the same"));
                }
                Kept::Archive if !in_archive => {
                    findings.push(format!("rows of table `{shown}` were left to the archive and are not in it"));
                }
                _ => {}
            }
            if table.relation.extension.is_none() && !self.definitions.contains(&oid) {
                findings.push(format!("the definition of table `{shown}` is not in the archive"));
            }
        }
        for oid in self.data.difference(&planned) {
            findings.push(format!("the archive holds rows of a table that was not listed (oid {oid})"));
        }
        for oid in self.definitions.difference(&planned) {
            // Partitioned parents have definitions and no rows; the caller names them as known.
            findings.push(format!("the archive defines a table that was not listed (oid {oid})"));
        }
        if findings.is_empty() { Ok(()) } else { Err(PostgresError::Unreconciled { findings }) }
    }

    /// Forgets definitions of relations that never hold rows themselves (partitioned parents) and of tables whose rows
    /// are knowingly not captured.
    pub(super) fn without_rows(&mut self, oids: impl IntoIterator<Item = i64>) {
        for oid in oids {
            self.definitions.remove(&oid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::relation;
    use super::*;

    const LIST: &str = ";\n; Archive created at 2025-01-01\n;     dbname: a; b\n;     TOC Entries: 12\n;\n\
        5; 2615 2200 SCHEMA - public postgres\n\
        214; 1259 20000 TABLE public one postgres\n215; 1259 20001 TABLE public two; x postgres\n\
        216; 1259 20002 TABLE public left postgres\n217; 1259 20003 TABLE public TABLE DATA postgres\n\
        300; 0 20001 TABLE DATA public two; x postgres\n218; 1259 20009 TABLE ATTACH public leaf postgres\n\
        301; 0 0 SEQUENCE SET public s postgres\n";

    fn contents(text: &str) -> Contents {
        let mut contents = Contents::default();
        text.split('\n').for_each(|line| contents.line(line.as_bytes()));
        contents
    }

    fn tables() -> Vec<Table> {
        let table = |oid, name: &str, kept| Table::new(relation(oid, 'r', "public", name), kept);
        vec![
            table(20_000, "one", Kept::Streamed),
            table(20_001, "two; x", Kept::Archive),
            table(20_002, "left", Kept::Excluded),
            table(20_003, "TABLE DATA", Kept::Streamed),
        ]
    }

    #[test]
    fn each_table_in_one_place_passes() {
        contents(LIST).reconcile(&tables()).unwrap();
    }

    #[test]
    fn an_empty_database_is_no_empty_archive() {
        contents(";\n;     dbname: empty\n;     TOC Entries: 4\n;\n").reconcile(&[]).unwrap();
        contents(";\n;     TOC Entries: 0\n").reconcile(&[]).unwrap_err();
    }

    #[test]
    fn each_disagreement_is_found() {
        let broken = [
            (LIST.replace("301; 0 0", "301; 0 20000 TABLE DATA"), "streamed and in the archive"),
            (LIST.replace("301; 0 0", "301; 0 20002 TABLE DATA"), "excluded and in the archive"),
            (LIST.replace("300; 0 20001", "300; 0 0"), "are not in it"),
            (LIST.replace("214; 1259 20000 TABLE", "214; 1259 20000 VIEW"), "definition of table `public.one`"),
            (format!("{LIST}9; 0 20777 TABLE DATA public x y\n"), "not listed (oid 20777)"),
            (format!("{LIST}9; 1259 20778 TABLE public x y\n"), "not listed (oid 20778)"),
            (";\n".to_owned(), "no entries"),
        ];
        for (text, expected) in broken {
            let error = contents(&text).reconcile(&tables()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        let mut with_parent = contents(&format!("{LIST}9; 1259 20778 TABLE public x y\n"));
        with_parent.without_rows([20_778]);
        with_parent.reconcile(&tables()).unwrap();
    }
}
